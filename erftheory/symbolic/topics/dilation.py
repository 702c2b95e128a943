"""Dilation: stretched kernels, flat fields from powers of the kernel size, and gridding."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from itertools import product
from typing import Any

import sympy as sp

from erftheory.symbolic.helpers.powers import deep_limit, power_ratio
from erftheory.symbolic.helpers.rewrites import as_ratio, geometric_sums
from erftheory.symbolic.proof import brute
from erftheory.symbolic.proof.derivation import Derivation, ProofStep
from erftheory.symbolic.proof.evidence import ExactPoints, Induction, Point, SymbolicIdentity
from erftheory.symbolic.proof.names import equation, j, k, m, n, t, total, w, z

DILATION: Any = sp.Symbol("d", positive=True, integer=True)
BASE: Any = sp.Symbol("b", positive=True, integer=True)  # dilation b^l in layer l
OTHER: Any = sp.Symbol("K", positive=True, integer=True)  # taps of a second layer
_LAYER: Any = sp.Symbol("l", nonnegative=True, integer=True)  # 0 … n−1
_SIGNAL: Any = sp.Function("D")  # D(t): one layer of taps at 0, d, 2d, …
_SPREAD: Any = sp.Function("V")  # V(d): variance of a tap's offset at dilation d
_PATHS: Any = sp.Function("c")  # c(n, t): paths of dilations k^l to offset t
_REACHED: Any = sp.Function("N")  # N(n): offsets with a path, at equal dilations d
_TWO: Any = sp.Function("T")  # T(b): offsets with a path, of dilations 1 and b
_LAYERS = (_LAYER, 0, n - 1)
_MARK: Any = sp.Symbol("x", positive=True)  # z, where powers of powers must be joined
_FLAT: Any = (_MARK ** (k**n) - 1) / (_MARK - 1)


@cache
def dilation() -> Derivation:
    """Dilations k^l, l = 0 … n−1, give an exactly uniform field, with one path a pixel.

    A dilation d puts a kernel's taps d pixels apart. With dilations b^l field and variance grow
    exponentially; b = k is the flat field, as every offset has one notation in base k, and for
    other b the shape tends to a law that is no Gaussian. Equal dilations d leave all offsets
    out that are no multiples of d (gridding).

    Source: own; dilations that grow exponentially are Yu & Koltun's, ICLR 2016, gridding is
    in Wang et al., WACV 2018.
    """
    return Derivation(
        title="Dilated convolutions and the effective receptive field",
        source="own; compare Yu & Koltun, ICLR 2016, and Wang et al., WACV 2018 (gridding)",
        steps=(*_one_layer(), *_flat(), *_growth(), *_holes()),
        key="one path",
    )


def _one_layer() -> tuple[ProofStep, ...]:
    taps = (m, 0, k - 1)
    variance = total(m**2 * w[m], taps) - total(m * w[m], taps) ** 2
    listed = ExactPoints("random kernels with zeros put between their taps", _stretched)
    return (
        ProofStep(
            "one layer",
            "A dilated kernel has z to the power d in place of z",
            equation(
                total(_SIGNAL(t) * z**t, (t, 0, DILATION * (k - 1))),
                total(w[m] * z ** (DILATION * m), taps),
            ),
            "Tap m lies d m pixels from the first.",
            listed,
        ),
        ProofStep(
            "one variance",
            "and d squared times the variance",
            equation(_SPREAD(DILATION), DILATION**2 * variance),
            "All deviations are stretched by d.",
            listed,
        ),
    )


def _flat() -> tuple[ProofStep, ...]:
    power = k**_LAYER
    factor = (_MARK ** (k ** (_LAYER + 1)) - 1) / (_MARK ** (k**_LAYER) - 1)
    digit = sp.floor(t / power) - k * sp.floor(t / (k * power))
    return (
        ProofStep(
            "factor",
            "Dilation k^l: a ratio",
            equation(total(_MARK ** (m * power), (m, 0, k - 1)), factor),
            "A geometric sum in the power k^l of x, which marks the offset.",
            ExactPoints("random fractions x", _marks),
        ),
        ProofStep(
            "telescope",
            "The product of n layers telescopes",
            equation(sp.Product(factor, _LAYERS), _FLAT),
            "Each layer's denominator is the numerator of the layer before.",
            Induction("induction over n, for all k and x", reduce=as_ratio),
        ),
        ProofStep(
            "flat",
            "which leaves one of each power",
            equation(_FLAT, total(_MARK**t, (t, 0, k**n - 1))),
            "A geometric sum again, now over the whole field of k^n pixels.",
            ExactPoints("random fractions x", _marks),
        ),
        ProofStep(
            "one path",
            "So there is exactly one path to each pixel of the field",
            equation(_PATHS(n, t), total(sp.KroneckerDelta(t, j), (j, 0, k**n - 1))),
            "The kernel need not be odd: k = 2 with dilations 1, 2, 4, 8 is flat too.",
            ExactPoints("paths listed, all t", _path_counts),
        ),
        ProofStep(
            "digits",
            "Its taps are the digits of the offset in base k",
            equation(total(power * digit, _LAYERS), t),
            "Layer l takes the digit of k^l, for every offset of the field.",
            ExactPoints("all offsets of the field", _offsets),
        ),
    )


def _growth() -> tuple[ProofStep, ...]:
    uniform = (k**2 - 1) / 12
    ratio = (BASE ** (2 * n) - 1) / (BASE**2 - 1)
    fourth = -(k**4 - 1) / 120 * (BASE ** (4 * n) - 1) / (BASE**4 - 1)
    field = 1 + (k - 1) * (BASE**n - 1) / (BASE - 1)
    excess = -6 * (k**2 + 1) * (BASE**2 - 1) / (5 * (k**2 - 1) * (BASE**2 + 1))
    kurtosis = fourth / (uniform * ratio) ** 2
    closed = SymbolicIdentity("geometric sums", geometric_sums, power_ratio(BASE))
    limit = SymbolicIdentity("limit for all k and b > 1", deep_limit(BASE), as_ratio)
    return (
        ProofStep(
            "variance",
            "Dilations b^l: the variance",
            equation(total(uniform * BASE ** (2 * _LAYER), _LAYERS), uniform * ratio),
            "Squares of the dilations.",
            closed,
        ),
        ProofStep(
            "flat variance",
            "At b = k it is that of a uniform law on the field",
            equation((uniform * ratio).subs(BASE, k), (k ** (2 * n) - 1) / 12),
            "One kernel of k^n taps.",
            SymbolicIdentity("all n and k", reduce=power_ratio(k)),
        ),
        ProofStep(
            "share of the field",
            "The effective field keeps its share of the theoretical one",
            equation(
                sp.Limit(uniform * ratio / field**2, n, sp.oo),
                (k + 1) * (BASE - 1) / (12 * (k - 1) * (BASE + 1)),
            ),
            "The squared share, which is 1/12 at b = k.",
            limit,
        ),
        ProofStep(
            "excess kurtosis",
            "The limiting shape is no Gaussian",
            equation(sp.Limit(kurtosis, n, sp.oo), excess),
            "The layers of the largest dilations decide it at any depth; b = k gives -6/5, the "
            "uniform law's.",
            limit,
        ),
        ProofStep(
            "three taps, doubled dilations",
            "Three taps with dilations 1, 2, 4, 8 and on",
            equation(sp.Limit(kurtosis.subs({k: 3, BASE: 2}), n, sp.oo), -sp.Rational(9, 10)),
            "Between the Gaussian's 0 and the uniform law's -6/5.",
            SymbolicIdentity("limit", deep_limit(sp.Integer(2)), as_ratio),
        ),
    )


def _holes() -> tuple[ProofStep, ...]:
    reached = n * (k - 1) + 1
    field = DILATION * n * (k - 1) + 1
    return (
        ProofStep(
            "gridding",
            "Equal dilations reach multiples of d only",
            equation(_REACHED(n), reached),
            "As many offsets as without dilation, in a field d times as wide.",
            ExactPoints("offsets with a path counted", _counts),
        ),
        ProofStep(
            "share reached",
            "so at most one pixel in d is seen",
            equation(sp.Limit(reached / field, n, sp.oo), 1 / DILATION),
            "Only d = 1 leaves no hole, and depth does not help.",
            SymbolicIdentity("limit for all k and d", reduce=as_ratio),
        ),
        ProofStep(
            "two layers",
            "Dilations 1 and b leave no hole up to b = k",
            equation(_TWO(BASE), k + (OTHER - 1) * sp.Min(BASE, k)),
            "Copies of the first kernel, b apart, overlap, touch at b = k, or leave gaps of "
            "b - k pixels; the second kernel has K taps.",
            ExactPoints("offsets with a path counted", _pairs),
        ),
    )


def _law(steps: list[tuple[int, int]]) -> dict[int, int]:
    """Paths to each offset, for layers of (taps, dilation), listed."""
    counts: dict[int, int] = {}
    for taps in product(*(range(size) for size, _ in steps)):
        place = sum(d * tap for (_, d), tap in zip(steps, taps))
        counts[place] = counts.get(place, 0) + 1
    return counts


def _stretched() -> Iterator[Point]:
    source = brute.generator(61)
    for size in (1, 2, 3, 5):
        kernel = brute.random_kernel(source, size)
        laws = {}
        for wide in range(1, 6):
            laws[wide] = [Fraction(0)] * (wide * (size - 1) + 1)
            laws[wide][::wide] = kernel
        for wide in (1, 2, 3):
            yield {
                "d": wide,
                "k": size,
                "w": kernel,
                "z": brute.random_fraction(source),
                "D": lambda at, row=laws[wide]: brute.entry(row, at),
                "V": lambda d, laws=laws: brute.cumulants(laws[d], 2)[2],
            }


_SHAPES = ((1, 2), (2, 2), (3, 2), (4, 2), (1, 3), (2, 3), (3, 3), (2, 4), (2, 1))


def _marks() -> Iterator[Point]:
    source = brute.generator(62)
    for depth, size in _SHAPES:
        for layer in range(2):
            yield {"n": depth, "k": size, "l": layer, "x": brute.random_fraction(source)}


def _path_counts() -> Iterator[Point]:
    for depth, size in _SHAPES:
        laws = {n: _law([(size, size**layer) for layer in range(n)]) for n in range(1, depth + 1)}
        for at in range(-1, size**depth + 2):
            yield {"n": depth, "k": size, "t": at, "c": lambda n, at, laws=laws: laws[n].get(at, 0)}


def _offsets() -> Iterator[Point]:
    for depth, size in _SHAPES[:-1]:
        for at in range(size**depth):
            yield {"n": depth, "k": size, "t": at}


def _counts() -> Iterator[Point]:
    for depth, size in _SHAPES:
        for wide in (1, 2, 3):
            yield {
                "k": size,
                "n": depth,
                "N": lambda n, size=size, d=wide: len(_law([(size, d)] * n)),
            }


def _pairs() -> Iterator[Point]:
    for size, other, base in product((1, 2, 3, 4), (1, 2, 3), range(1, 7)):
        yield {
            "k": size,
            "K": other,
            "b": base,
            "T": lambda b, size=size, other=other: len(_law([(size, 1), (other, b)])),
        }
