"""Direct convolution with NumPy: signals are arrays that grow layer by layer.

All weights are ≥ 0, so that every weight keeps its relative accuracy, and where floats end at
1e−308 each carries an exponent of its own. There is nothing to compile, and early layers are
small, which makes it the quick route for small nets and for signals that no transform resolves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from erftheory.network.kernel import Kernel
from erftheory.theory.plane.tables import normalised, positions
from erftheory.theory.walk.algebra import Algebra
from erftheory.theory.walk.walk import Edge, Factor, Walk

EPS = float(np.finfo(np.float64).eps)
NOTHING = -(2**60)  # exponent of the weight 0
DENSE = 32  # lattice points up to which a kernel with gaps is convolved as if it had none
PLAIN = 600.0  # −log of the smallest weight up to which floats need no exponent


@dataclass
class Placed:
    """values·2^exponent, and the lattice point of the first entry; no exponent means 0."""

    values: np.ndarray
    first: tuple[int, ...]
    exponent: np.ndarray | None = None


class ArrayAlgebra(Algebra[Placed]):
    """Signals of `ndim` axes without up-sampling; `scaled` gives every weight an exponent."""

    def __init__(self, ndim: int, scaled: bool):
        self.ndim, self.scaled = ndim, scaled

    def unit(self, position):
        one = np.ones((1,) * self.ndim)
        return Placed(one, position, one.astype(np.int64) * 0 if self.scaled else None)

    def pull(self, signal: Placed, edge: Edge) -> Placed:
        for f in edge.factors:
            if isinstance(f.kernel, Walk):
                for _ in range(f.count):
                    signal = self.through(signal, f.kernel)
                continue
            passes = _passes(f)
            if self.ndim == 1 and not self.scaled:
                signal = Placed(_repeated(signal.values, passes[0], f.count), signal.first)
                continue
            for taps in passes * f.count:
                signal = _sum([(w, signal, place) for w, place in taps])
        first = tuple(a + b for a, b in zip(signal.first, edge.shift))
        return Placed(signal.values, first, signal.exponent)

    def mix(self, parts):
        if len(parts) == 1 and parts[0][0] == 1:
            return parts[0][1]
        return _sum([(float(w), s, (0,) * self.ndim) for w, s in parts])


def _passes(f: Factor) -> list[list[tuple[float, tuple[int, ...]]]]:
    """The taps of a kernel that are not zero, or those of its axes where that is less work."""
    kernel = f.kernel
    assert isinstance(kernel, Kernel)
    ndim = len(kernel.shape)
    if ndim > 1 and kernel.separable and sum(kernel.shape) < len(kernel.exact):
        lines = []
        for axis, size in enumerate(kernel.shape):
            if size > 1:
                shape = tuple(size if a == axis else 1 for a in range(ndim))
                lines += _passes(Factor(Kernel(shape, kernel.marginal(axis)), f.spacing))
        return lines
    taps, _ = normalised(kernel)
    return [[(t, p) for t, p in zip(taps, positions(kernel, f.spacing)) if t]]


def _repeated(values: np.ndarray, taps: list, count: int) -> np.ndarray:
    """A line convolved `count` times; the zeros between distant taps change no digit."""
    first, last = taps[0][1][0], taps[-1][1][0]
    dense = np.zeros(last + 1)
    for weight, place in taps:
        dense[place] = weight
    if first == 0 and last <= DENSE:
        dense = dense[::-1]  # correlate checks less than convolve, which takes longer than the sum
        for _ in range(count):
            values = np.correlate(values, dense, "full")
        return values
    for _ in range(count):
        total = np.zeros(len(values) + last)
        for weight, (place,) in taps:
            total[place : place + len(values)] += weight * values
        values = total
    return values


def _sum(parts: list[tuple[float, Placed, tuple[int, ...]]]) -> Placed:
    """Σ weight × (signal moved by place)."""
    starts = [tuple(a + b for a, b in zip(s.first, place)) for _, s, place in parts]
    first = tuple(map(min, zip(*starts)))
    ends = (
        tuple(a + n for a, n in zip(at, s.values.shape)) for at, (_, s, _) in zip(starts, parts)
    )
    shape = tuple(max(axis) - f for axis, f in zip(zip(*ends), first))
    spots = [
        tuple(slice(a - f, a - f + n) for a, f, n in zip(at, first, s.values.shape))
        for at, (_, s, _) in zip(starts, parts)
    ]
    total = np.zeros(shape)
    if parts[0][1].exponent is None:
        part = np.empty(0)
        for (weight, s, _), spot in zip(parts, spots):
            if part.shape != s.values.shape:
                part = np.empty(s.values.shape)
            np.multiply(s.values, weight, out=part)
            total[spot] += part
        return Placed(total, first)
    top = np.full(shape, NOTHING)
    levels = [np.asarray(s.exponent) for _, s, _ in parts]
    for level, spot in zip(levels, spots):
        np.maximum(top[spot], level, out=top[spot])
    for (weight, s, _), level, spot in zip(parts, levels, spots):
        lower = np.maximum(level - top[spot], -2000).astype(np.int32)
        total[spot] += np.ldexp(weight * s.values, lower)
    values, more = np.frexp(total)
    return Placed(values, first, np.where(values > 0, top + more, NOTHING))


def log_convolved(
    walk: Walk, position: tuple[int, ...] | None, first: tuple[int, ...], holes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """log g on a window whose first lattice point is `first`, and a bound for its relative error.

    Both have the shape of `holes`, which is True where there is no weight.
    """
    found = ArrayAlgebra(walk.ndim, deepest(walk) > PLAIN).fold(walk, position)
    here, there = [], []
    for a, b, n, m in zip(found.first, first, found.values.shape, holes.shape):
        start, stop = max(a, b), min(a + n, b + m)
        here.append(slice(start - b, stop - b))
        there.append(slice(start - a, stop - a))
    logs = np.full(holes.shape, -np.inf)
    with np.errstate(divide="ignore"):
        values = np.log(found.values[tuple(there)])
    if found.exponent is not None:
        values = values + found.exponent[tuple(there)] * math.log(2)
    logs[tuple(here)] = values
    logs[holes] = -np.inf
    error = EPS * (steps(walk) + 4 + 2 * np.abs(np.where(holes, 0.0, logs)))
    return logs, np.where(holes, 0.0, error)


def bound(walk: Walk) -> float:
    """A bound for the relative error of `log_convolved`, before it is run."""
    return EPS * (steps(walk) + 4 + 2 * deepest(walk))


def steps(walk: Walk) -> int:
    """Additions and products that a weight goes through in direct convolution."""
    total = 0
    for edges in walk.vertices[1:]:
        longest = 0
        for e in edges:
            inner = 0
            for f in e.factors:
                if isinstance(f.kernel, Walk):
                    inner += f.count * steps(f.kernel)
                else:
                    inner += f.count * (sum(1 for t in f.kernel.exact if t) + 1)
            longest = max(longest, inner)
        total += longest + (len(edges) + 1 if len(edges) > 1 else 0)
    return total


def deepest(walk: Walk) -> float:
    """A bound for −log g where g is not 0."""
    total = 0.0
    for edges in walk.vertices[1:]:
        logs = [0.0]
        for e in edges:
            inner = -math.log(e.weight)
            for f in e.factors:
                if isinstance(f.kernel, Walk):
                    inner += f.count * deepest(f.kernel)
                else:
                    least = min(t for t in normalised(f.kernel)[0] if t)
                    inner -= f.count * math.log(least)
            logs.append(inner)
        total += max(logs)
    return total


def work(walk: Walk) -> int:
    """Taps that direct convolution applies to a map, one after another."""
    return sum(
        f.count * (work(f.kernel) if isinstance(f.kernel, Walk) else math.prod(f.kernel.shape))
        for f in walk.factors
    )
