"""What single layers do to the joint second moments of gradients: the rules of the referee.

Every layer hands a gradient g to what it reads as Tᵀ g, with a matrix T that may be random. Then
E[Tᵀ C T] = Jᵀ C J + X(C) for the second moments C = E[g gᵀ], with the mean J = E T and an excess X
that the covariance of T makes. A rule of this module says what J and X are; tests/covariance.py
carries C through the network. Nothing here is shared with the package but the descriptions.

Entries of a node are ordered by channel, then by pixel, row by row.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from erftheory import (
    Activation,
    AvgPool,
    Conv,
    ConvTranspose,
    Dropout,
    GlobalAvgPool,
    MaxPool,
    Network,
    Upsample,
)

Span = tuple[tuple[int, int], ...]  # first and last pixel + 1, an axis


def each(value: Any, ndim: int) -> tuple:
    return value if isinstance(value, tuple) else (value,) * ndim


def indices(span: Span) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(a, b) for a, b in span)))


def pixels(span: Span) -> int:
    return math.prod(b - a for a, b in span)


# ---- which inputs an output reads --------------------------------------------------------------


def padding(layer: Any, axis: int, ndim: int) -> tuple[int, int]:
    """Pixels before and after that a window reads beyond its map."""
    span = each(layer.dilation, ndim)[axis] * (each(layer.kernel, ndim)[axis] - 1)
    named = {"valid": (0, 0), "causal": (span, 0), "same": (span // 2, span - span // 2)}
    if isinstance(layer.padding, str):
        return named[layer.padding]
    entry = each(layer.padding, ndim)[axis]
    return entry if isinstance(entry, tuple) else (entry, entry)


def stride(layer: Any, ndim: int) -> tuple[int, ...]:
    if isinstance(layer, Upsample):
        return each(layer.factor, ndim)
    return each(layer.kernel if layer.stride is None else layer.stride, ndim)


def resized(layer: Any, axis: int, ndim: int, n: int) -> int:
    """Pixels of the output for n of the input."""
    if isinstance(layer, GlobalAvgPool):
        return 1 if layer.along is None or axis in layer.along else n
    if not hasattr(layer, "kernel") and not isinstance(layer, Upsample):
        return n
    s = stride(layer, ndim)[axis]
    if isinstance(layer, Upsample):
        return n * s
    reach = each(layer.dilation, ndim)[axis] * (each(layer.kernel, ndim)[axis] - 1) + 1
    if isinstance(layer, ConvTranspose):
        p, more = (each(v, ndim)[axis] for v in (layer.padding, layer.output_padding))
        return (n - 1) * s + reach - 2 * p + more
    return (n + sum(padding(layer, axis, ndim)) - reach) // s + 1


def reads(layer: Any, axis: int, ndim: int, n: int | None, o: int) -> list[tuple[Any, int]]:
    """What output o reads along an axis: (tap, input), or (weight, input) of an `Upsample`.

    n is the number of input pixels of an image, None on the unbounded plane. Inputs of windows may
    lie outside the image.
    """
    if isinstance(layer, Upsample):
        return _interpolated(layer, stride(layer, ndim)[axis], n, o)
    k, d = (each(v, ndim)[axis] for v in (layer.kernel, layer.dilation))
    s = stride(layer, ndim)[axis]
    if isinstance(layer, ConvTranspose):
        at = [(a, o + each(layer.padding, ndim)[axis] - d * a) for a in range(k)]
        return [(a, x // s) for a, x in at if x % s == 0]
    before, _ = padding(layer, axis, ndim)
    return [(a, s * o + d * a - before) for a in range(k)]


def _interpolated(layer: Upsample, f: int, n: int | None, o: int) -> list[tuple[Fraction, int]]:
    if layer.mode == "nearest":
        return [(Fraction(1), o // f)]
    if layer.align_corners:
        step = Fraction(1, f) if n is None else Fraction(n - 1, max(f * n - 1, 1))
        place = step * o
    else:
        place = Fraction(2 * o + 1, 2 * f) - Fraction(1, 2)
    if n is not None:  # beyond the rim the last pixel counts
        place = min(max(place, Fraction(0)), Fraction(n - 1))
    low = math.floor(place)
    found = [(1 - (place - low), low), (place - low, low + 1)]
    return [(w, i) for w, i in found if w]


@dataclass(frozen=True)
class Place:
    """Where a layer stands: its input and output pixels, its channels, the numbers in use.

    `image` is None on the plane, where the spans are what the unit needs and no more.
    """

    ndim: int
    inside: Span
    outside: Span
    image: Span | None
    entered: int  # channels in
    left: int  # channels out
    init: str
    number: Callable[[Any], Any]

    def zeros(self, *shape: int) -> np.ndarray:
        return np.zeros(shape, dtype=object if self.number is Fraction else float)

    def windows(self, layer: Any) -> list[list[tuple[Any, int]]]:
        """For every output pixel, (multi-index of taps or weight, flat input) of what it reads."""
        flat = {z: i for i, z in enumerate(indices(self.inside))}
        found = []
        for o in indices(self.outside):
            axes = [
                reads(layer, a, self.ndim, self.image and self.image[a][1], o[a])
                for a in range(self.ndim)
            ]
            row = []
            for pick in itertools.product(*axes):
                at = flat.get(tuple(i for _, i in pick))
                if at is not None:
                    row.append((tuple(t for t, _ in pick), at))
            found.append(row)
        return found


# ---- the rules ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pull:
    """The mean J of a layer's matrix, shape (out, in), None if 0; the excess X(C); a doubt.

    `gate` says that products of the matrix's entries at different outputs are not known: the
    answer is right only where no second moment of different entries arrives.
    """

    mean: np.ndarray | None
    excess: Callable[[np.ndarray], np.ndarray] | None = None
    gate: bool = False
    doubt: str = ""


def over_channels(matrix: np.ndarray, channels: int) -> np.ndarray:
    return np.kron(np.eye(channels, dtype=int), matrix)


def convolution(layer: Conv | ConvTranspose, place: Place) -> Pull:
    """Independent weights of mean 0: each tap pairs with itself, each input channel too."""
    kernel = each(layer.kernel, place.ndim)
    count = math.prod(kernel)
    groups = place.entered if layer.groups == "depthwise" else layer.groups
    fan_in, fan_out = Fraction(place.entered * count, groups), Fraction(place.left * count, groups)
    variance = {"he": 2 / fan_in, "lecun": 1 / fan_in, "xavier": 2 / (fan_in + fan_out)}[place.init]
    taps = [Fraction(v) for v in layer.taps.values] if layer.taps else [Fraction(1)] * count
    shares = dict(zip(itertools.product(*map(range, kernel)), taps))
    total = sum(taps)
    pairs: dict[tuple, tuple[list[int], list[int]]] = {}
    for o, row in enumerate(place.windows(layer)):
        for a, i in row:
            pairs.setdefault(a, ([], []))[0].append(o)
            pairs[a][1].append(i)
    n_in, n_out = pixels(place.inside), pixels(place.outside)
    c_in, c_out = place.entered // groups, place.left // groups

    def excess(c: np.ndarray) -> np.ndarray:
        four = c.reshape(place.left, n_out, place.left, n_out)
        found = place.zeros(place.entered, n_in, place.entered, n_in)
        for g in range(groups):
            whole = place.zeros(n_out, n_out)
            for o in range(g * c_out, (g + 1) * c_out):
                whole = whole + four[o, :, o, :]
            inner = place.zeros(n_in, n_in)
            for a, (outs, ins) in pairs.items():
                share = place.number(variance * count * shares[a] / total)
                # one tap reads one input, so that no index comes twice
                inner[np.ix_(ins, ins)] += share * whole[np.ix_(outs, outs)]
            for i in range(g * c_in, (g + 1) * c_in):
                found[i, :, i, :] = inner
        return found.reshape(place.entered * n_in, place.entered * n_in)

    return Pull(None, excess)


def average(layer: AvgPool, place: Place) -> Pull:
    count = math.prod(each(layer.kernel, place.ndim))
    matrix = place.zeros(pixels(place.outside), pixels(place.inside))
    for o, row in enumerate(place.windows(layer)):
        divisor = count if layer.count_include_pad else max(len(row), 1)
        for _, i in row:
            matrix[o, i] += place.number(Fraction(1, divisor))
    return Pull(over_channels(matrix, place.entered))


def upsampling(layer: Upsample, place: Place) -> Pull:
    matrix = place.zeros(pixels(place.outside), pixels(place.inside))
    for o, row in enumerate(place.windows(layer)):
        for weights, i in row:
            matrix[o, i] += place.number(math.prod(weights))
    return Pull(over_channels(matrix, place.entered))


def global_mean(layer: GlobalAvgPool, place: Place) -> Pull:
    share = Fraction(pixels(place.outside), pixels(place.inside))
    matrix = place.zeros(pixels(place.outside), pixels(place.inside))
    for i, read in enumerate(indices(place.inside)):
        for o, out in enumerate(indices(place.outside)):
            if all(b - a == 1 or p == q for (a, b), p, q in zip(place.outside, read, out)):
                matrix[o, i] = place.number(share)
    return Pull(over_channels(matrix, place.entered))


def crop(span: Span, wider: Span) -> np.ndarray:
    """The matrix that takes the pixels of `span` out of a wider one."""
    places = {z: i for i, z in enumerate(indices(wider))}
    matrix = np.zeros((pixels(span), pixels(wider)), dtype=int)
    for row, z in enumerate(indices(span)):
        matrix[row, places[z]] = 1
    return matrix


def _diagonal(place: Place, mean: Any, square: Any, **what: Any) -> Pull:
    """One factor an entry, of this mean and mean square, the same on every path through it."""
    # on the plane others may read more of what lies below
    taken = over_channels(crop(place.outside, place.inside), place.entered)
    extra = place.number(square - mean * mean)

    def excess(c: np.ndarray) -> np.ndarray:
        return taken.T @ np.diag(np.diag(c) * extra) @ taken

    return Pull(taken * place.number(mean), excess, **what)


def dropout(layer: Dropout, place: Place) -> Pull:
    return _diagonal(place, 1, 1 / (1 - Fraction(layer.rate)))


# mean and mean square of the slope at a symmetric pre-activation
SLOPES = {
    "relu": (Fraction(1, 2), Fraction(1, 2)),
    "leaky_relu": ((1 + Fraction(1, 100)) / 2, (1 + Fraction(1, 10000)) / 2),
    "abs": (Fraction(0), Fraction(1)),
}


def activation(layer: Activation, place: Place) -> Pull:
    if layer.name == "linear":
        return _diagonal(place, 1, 1)
    if layer.name not in SLOPES:
        doubt = f"{layer.name}: its slopes depend on scales, up to finite width"
        return _diagonal(place, 1, 1, doubt=doubt)
    return _diagonal(place, *SLOPES[layer.name], gate=True)


RULES: dict[type[Network], Callable[[Any, Place], Pull]] = {
    Conv: convolution,
    ConvTranspose: convolution,
    AvgPool: average,
    Upsample: upsampling,
    GlobalAvgPool: global_mean,
    Dropout: dropout,
    Activation: activation,
}


# ---- max pools ---------------------------------------------------------------------------------


def winners(a: tuple[int, ...], b: tuple[int, ...]) -> dict[tuple[int, int], Fraction]:
    """P(s is the largest of window a and t of window b), inputs independent and of one law.

    The largest m of the union is as likely each of its members. In both windows it wins both; in
    one of them alone, say a, it wins a, and the largest of b is as likely each of b's members.
    """
    union = len(set(a) | set(b))
    found: dict[tuple[int, int], Fraction] = {}
    for s, t in itertools.product(a, b):
        p = Fraction(0)
        if s == t:
            p += Fraction(1, union)
        if s not in b:
            p += Fraction(1, union * len(b))
        if t not in a:
            p += Fraction(1, union * len(a))
        found[s, t] = p
    return found


@lru_cache(maxsize=4096)
def _beyond_the_mean(size: int, other: tuple[int, ...], number: Callable) -> np.ndarray:
    """Covariance of two windows' choices, shape (size, len(other)): `other` counts its pixels by
    their place in the first window, those beyond it from -1 down."""
    joint = winners(tuple(range(size)), other)
    apart = Fraction(1, size * len(other))
    return np.array([[number(joint[s, t] - apart) for t in other] for s in range(size)])


def max_pools(layers: list[MaxPool], places: list[Place]) -> Pull:
    """All max pools over one map, their outputs one after the other (entries by channel in each).

    Windows that share no pixel route independently, those that do by `winners`.
    """
    first = places[0]
    n, channels = pixels(first.inside), first.entered
    windows: list[tuple[tuple[int, ...], int, int]] = []  # pixels, entry in channel 0, outputs
    start = 0
    for layer, place in zip(layers, places):
        size = pixels(place.outside)
        for o, row in enumerate(place.windows(layer)):
            windows.append((tuple(i for _, i in row), start + o, size))
        start += channels * size
    mean = first.zeros(start, channels * n)
    for w, at, size in windows:
        for c, i in itertools.product(range(channels), w):
            mean[at + c * size, c * n + i] = first.number(Fraction(1, len(w)))

    def excess(cov: np.ndarray) -> np.ndarray:
        found = first.zeros(channels, n, channels, n)
        for (a, p, m), (b, q, k) in itertools.product(windows, repeat=2):
            moments = [cov[p + c * m, q + c * k] for c in range(channels)]
            if set(a).isdisjoint(b) or not any(moments):
                continue
            other = tuple(a.index(t) if t in a else -1 - i for i, t in enumerate(b))
            joint = _beyond_the_mean(len(a), other, first.number)
            for c, moment in enumerate(moments):
                found[c, :, c, :][np.ix_(a, b)] += moment * joint
        return found.reshape(channels * n, channels * n)

    return Pull(mean, excess)
