"""Exact moments behind up-sampling, where a signal's mass and moments depend on the output's phase.

Up-sampling keeps the points of a coarser grid. So a signal is carried as its moments on every
residue class that a grid nearer to the input will still ask for: a few classes where maps are
coarse, one where no up-sampling is left. Signals convolve class by class, as raw moments do.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import product
from math import comb, lcm
from operator import add

from erftheory.network.kernel import Kernel
from erftheory.theory.walk.walk import Factor, Walk
from erftheory.theory.walk.weights import Weight

Class = tuple[int, ...]  # a residue, one entry an axis
# By class, for every axis Σ g(t)·t^r, r = 0 … order, over one denominator
Moments = tuple[dict[Class, tuple[tuple[int, ...], ...]], int]


def phased_moments(
    walk: Walk, order: int, position: tuple[int, ...] | None = None
) -> list[tuple[Fraction, ...]]:
    """Σ g(t)·t^r for r = 0 … order, lattice points, one tuple an axis.

    `position` is the unit's lattice point, 0 if None.
    """
    entries, denominator = _Phased(order).fold(walk, (1,) * walk.ndim, position)
    one = entries.get((0,) * walk.ndim)
    if one is None:
        return [(Fraction(0),) * (order + 1)] * walk.ndim
    return [tuple(Fraction(m, denominator) for m in axis) for axis in one]


class _Phased:
    def __init__(self, order: int):
        self.order = order
        self.binomial = [[comb(r, i) for i in range(r + 1)] for r in range(order + 1)]

    def fold(self, walk: Walk, last: Class, position: tuple[int, ...] | None = None) -> Moments:
        """The signal at the input, by classes modulo `last`."""
        moduli = _moduli(walk, last)
        signals: list[Moments] = [self._point(position or (0,) * walk.ndim, moduli[0])]
        for v, edges in enumerate(walk.vertices[1:], start=1):
            parts = []
            for e in edges:
                within = _common(moduli[v], e.restrict)
                found = _reduced(signals[e.source], within)
                for f in e.factors:
                    for kernel in self._kernels(f, within):
                        found = self._convolved(found, kernel, within)
                if any(e.shift):
                    found = self._convolved(found, self._point(e.shift, within), within)
                if e.restrict is not None:
                    found = _kept(found, e.restrict)
                parts.append((e.weight, _reduced(found, moduli[v])))
            signals.append(_mixed(parts))
        return signals[-1]

    def _point(self, place: Class, modulus: Class) -> Moments:
        powers = tuple(tuple(p**r for r in range(self.order + 1)) for p in place)
        return {tuple(p % m for p, m in zip(place, modulus)): powers}, 1

    def _kernels(self, factor: Factor, modulus: Class) -> list[Moments]:
        """Signals to convolve with: of a kernel that is a product one an axis, else one."""
        kernel, count = factor.kernel, factor.count
        if isinstance(kernel, Walk):
            return [self._power(self.fold(kernel, modulus), count, modulus)]
        ndim, found = len(kernel.shape), []
        if kernel.separable and kernel.mass:
            for axis in range(ndim):
                if kernel.shape[axis] > 1:
                    one = _line(kernel, axis, factor.spacing[axis], modulus[axis], self.order)
                    found.append(self._power(_along(one, axis, ndim, self.order), count, modulus))
            scale = Fraction(kernel.mass) / Fraction(kernel.scale)
            if scale != 1:  # signed taps, and single taps that scale
                whole = scale**count
                unit = (whole.numerator, *[0] * self.order)
                found.append(({(0,) * ndim: (unit,) * ndim}, whole.denominator))
            return found
        scale = Fraction(kernel.scale)
        parts = []
        for place, tap in zip(product(*map(range, kernel.shape)), kernel.exact):
            if tap:
                at = tuple(p * s for p, s in zip(place, factor.spacing))
                parts.append((Fraction(tap) / scale, self._point(at, modulus)))
        return [self._power(_mixed(parts), count, modulus)]

    def _convolved(self, a: Moments, b: Moments, modulus: Class) -> Moments:
        total: dict[Class, list[list[int]]] = {}
        for left, one in a[0].items():
            for right, two in b[0].items():
                at = tuple((x + y) % m for x, y, m in zip(left, right, modulus))
                found = [self._product(p, q) for p, q in zip(one, two)]
                known = total.get(at)
                if known is None:
                    total[at] = found
                else:
                    total[at] = [list(map(add, x, y)) for x, y in zip(known, found)]
        return {at: tuple(map(tuple, rows)) for at, rows in total.items()}, a[1] * b[1]

    def _product(self, p: Sequence[int], q: Sequence[int]) -> list[int]:
        if not any(q[1:]):
            return [q[0] * x for x in p] if q[0] != 1 else list(p)
        return [
            sum(c * p[i] * q[r - i] for i, c in enumerate(row))
            for r, row in enumerate(self.binomial)
        ]

    def _power(self, a: Moments, count: int, modulus: Class) -> Moments:
        result = None
        while count:
            if count & 1:
                result = a if result is None else self._convolved(result, a, modulus)
            count >>= 1
            if count:
                a = self._convolved(a, a, modulus)
        assert result is not None
        return result


def _moduli(walk: Walk, last: Class) -> list[Class]:
    """For each vertex the residues that edges towards the input still tell apart."""
    found = [(1,) * walk.ndim for _ in walk.vertices]
    found[-1] = last
    for v in range(len(walk.vertices) - 1, 0, -1):
        for e in walk.vertices[v]:
            found[e.source] = _common(_common(found[e.source], found[v]), e.restrict)
    return found


def _common(a: Class, b: Class | None) -> Class:
    return a if b is None else tuple(map(lcm, a, b))


def _reduced(signal: Moments, modulus: Class) -> Moments:
    """The same by fewer classes."""
    found: dict[Class, tuple[tuple[int, ...], ...]] = {}
    for at, rows in signal[0].items():
        key = tuple(x % m for x, m in zip(at, modulus))
        known = found.get(key)
        found[key] = rows if known is None else tuple(
            tuple(map(add, x, y)) for x, y in zip(known, rows)
        )  # fmt: skip
    return found, signal[1]


def _kept(signal: Moments, grid: Class) -> Moments:
    kept = {at: rows for at, rows in signal[0].items() if not any(x % g for x, g in zip(at, grid))}
    return kept, signal[1]


def _mixed(parts: Sequence[tuple[Weight, Moments]]) -> Moments:
    exact = [(Fraction(w), signal) for w, signal in parts]
    whole = lcm(*(w.denominator * d for w, (_, d) in exact))
    total: dict[Class, tuple[tuple[int, ...], ...]] = {}
    for w, (entries, denominator) in exact:
        factor = w.numerator * (whole // (w.denominator * denominator))
        for at, rows in entries.items():
            scaled = tuple(tuple(factor * x for x in row) for row in rows)
            known = total.get(at)
            total[at] = scaled if known is None else tuple(
                tuple(map(add, x, y)) for x, y in zip(known, scaled)
            )  # fmt: skip
    return total, whole


@lru_cache(maxsize=4096)
def _line(
    kernel: Kernel, axis: int, spacing: int, modulus: int, order: int
) -> tuple[tuple[tuple[int, tuple[int, ...]], ...], int]:
    """Moments of a kernel's marginal of mass 1 by residue, and their denominator."""
    marginal = [Fraction(v) / Fraction(kernel.mass) for v in kernel.marginal(axis)]
    whole = lcm(*(v.denominator for v in marginal))
    found: dict[int, list[int]] = {}
    for a, v in enumerate(marginal):
        place, tap = a * spacing, int(v * whole)
        if tap:
            row = found.setdefault(place % modulus, [0] * (order + 1))
            for r in range(order + 1):
                row[r] += tap * place**r
    return tuple((at, tuple(row)) for at, row in found.items()), whole


def _along(line: tuple, axis: int, ndim: int, order: int) -> Moments:
    """A signal on one axis among others, where it stays at 0."""
    entries, denominator = line
    found = {}
    for at, row in entries:
        key = tuple(at if a == axis else 0 for a in range(ndim))
        still = (row[0], *[0] * order)
        found[key] = tuple(row if a == axis else still for a in range(ndim))
    return found, denominator
