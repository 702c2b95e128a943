"""What edges of the plane do to second moments of gradients, in lattice points (`lags`)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import product
from operator import add, sub
from typing import Any

from erftheory.network.kernel import Kernel
from erftheory.theory.walk.walk import Factor, RawEdge, Walk
from erftheory.theory.walk.weights import Weight, quotient, root

# What `ErrorBound.note` says where lags are followed nearly.
CORRELATED = "correlations of gradients behind fixed layers are followed only nearly"
Place = tuple[int, ...]


class PlaneLags:
    """Operators of edges on the plane; `jumps` are the lattice points per pixel of every node."""

    windows = True  # of two max pools, the chance that one pixel wins in both is known
    folded: frozenset[int] = frozenset()  # no padding repeats pixels

    def __init__(self, jumps: Sequence[Place]):
        self.jumps, self.ndim = jumps, len(jumps[0])
        self.products: dict[tuple[int, int], tuple] = {}

    # ---- runs ---------------------------------------------------------------------------------

    def joined(self, e: RawEdge, on: RawEdge, port) -> RawEdge | None:
        """`e` and, nearer to the output, the fixed edge `on`, as one; None if they are none."""
        if on.still:
            return replace(e, reader=on.reader, gain=e.gain * on.gain)
        if e.kind == "routing":
            return None
        own, between = self.jumps[port[0]], self.jumps[e.reader[0]]
        if on.restrict and (
            own != between or any(n % j for p in e.amplitudes for n, j in zip(p, between))
        ):
            return None  # pixels that the coarser grid between them does not have
        taps: dict[Place, Fraction] = defaultdict(Fraction)
        for p, u in e.amplitudes.items():
            for q, v in on.amplitudes.items():
                taps[tuple(map(add, p, q))] += u * v
        common = quotient(e.gain, e.square) * quotient(on.gain, on.square)
        return _summed(e, on.reader, common, taps, e.restrict or on.restrict)

    def merged(self, edges: Sequence[RawEdge]) -> list[RawEdge]:
        """Parallel fixed edges as one: amplitudes add, whose squares are known."""
        first = edges[0]
        if len({e.restrict for e in edges}) > 1:
            return list(edges)
        common = quotient(first.gain, first.square)
        taps: dict[Place, Fraction] = defaultdict(Fraction)
        for e in edges:
            size = Fraction(root(quotient(quotient(e.gain, e.square), common)))
            for p, v in e.amplitudes.items():
                taps[p] += size * v
        return [_summed(first, first.reader, common, taps, first.restrict)]

    # ---- lags ---------------------------------------------------------------------------------

    def hull(self, e: RawEdge, port) -> tuple[Place, Place]:
        """The first and last place of the taps, one entry an axis."""
        if e.kind == "random":  # a repetition, whose paths without weights stay at a pixel
            return (0,) * self.ndim, (0,) * self.ndim
        if e.taps is None:
            reach = [
                sum(f.count * k.span(s)[axis] for f, k, s in _plain(e))
                for axis in range(self.ndim)
            ]
            return e.shift, tuple(map(add, e.shift, reach))
        return tuple(map(min, zip(*e.taps))), tuple(map(max, zip(*e.taps)))

    def overlaps(self, e: RawEdge, port) -> bool:
        """Whether several outputs of a max pool read one pixel."""
        if e.kind == "random":
            return False
        jump = self.jumps[e.reader[0]]
        rests = {tuple(n % j for n, j in zip(p, jump)) for p in e.amplitudes}
        return len(rests) < len(e.amplitudes)

    def kept(self, e: RawEdge, port, lag: Place) -> RawEdge | None:
        """A random edge at a lag; None where the reader has no such pixels."""
        jump = self.jumps[e.reader[0]]
        return None if any(n % j for n, j in zip(lag, jump)) else e

    def pair(
        self, port, lag: Place, e: RawEdge, f: RawEdge, factor: Weight,
        allowed: Callable[[Place], bool], turned: Callable[[Place], bool],
    ) -> Iterator[tuple[Place, RawEdge]]:  # fmt: skip
        """Products of two gradients that come to one port by two edges, by lag of the readers."""
        restrict = e.restrict or f.restrict
        if e.still and f.still:
            if allowed(lag):
                place = _turn((0,) * self.ndim, lag, turned)
                yield lag, RawEdge(None, factor, (), place, restrict)
            return
        if e is f and e.taps is None and not any(lag) and allowed(lag):  # keeps kernels as they are
            factors = tuple(
                Factor(k.map(lambda tap: tap * tap), f.spacing, f.count) for f, k, _ in _plain(e)
            )
            yield lag, RawEdge(None, factor * e.square, factors, e.shift, restrict)
        same = e.reader == f.reader
        jump = self.jumps[e.reader[0]], self.jumps[f.reader[0]]
        grid = tuple(map(math.gcd, *jump))
        for step in self._known(e, f)[2]:
            to = tuple(map(add, lag, step))
            if any(n % j for n, j in zip(to, grid)) or not allowed(to):
                continue
            if e is f and e.taps is None and not any(lag) and not any(step):
                continue
            if same and any(n % j for n, j in zip(to, jump[0])):
                continue
            kernel, spacing, shift = self._product(e, f, step)
            gain = factor * kernel.scale
            place = _turn(shift, to, turned)
            yield to, RawEdge(None, gain, (Factor(kernel, spacing),), place, restrict)

    def _known(self, e: RawEdge, f: RawEdge) -> tuple:
        key = id(e), id(f)
        if key not in self.products:  # e and f are kept beside, so that their ids stay theirs
            steps = sorted({tuple(map(sub, a, b)) for a in e.amplitudes for b in f.amplitudes})
            self.products[key] = e, f, steps, {}
        return self.products[key]

    def _product(self, e: RawEdge, f: RawEdge, step: Place) -> tuple[Kernel, Place, Place]:
        """f_a f′_{a − step} as a kernel on its lattice."""
        known = self._known(e, f)[3]
        if step not in known:
            joint = _winners(e, f) if e.kind == f.kind == "routing" else None
            values = {}
            for a, v in e.amplitudes.items():
                b = tuple(map(sub, a, step))
                if b in f.amplitudes:
                    values[a] = joint(a, b) if joint else v * f.amplitudes[b]
            known[step] = dense(values)
        return known[step]

    def single(
        self, port, lag: Place, e: RawEdge, other,
        allowed: Callable[[Place], bool], turned: Callable[[Place], bool],
    ) -> Iterator[tuple[Place, RawEdge]]:  # fmt: skip
        """A gradient that comes to a port by an edge, beside one at `other`."""
        grid = tuple(map(math.gcd, self.jumps[e.reader[0]], self.jumps[other[0]]))
        for place, tap in e.amplitudes.items():
            to = tuple(map(add, lag, place))
            if allowed(to) and not any(n % j for n, j in zip(to, grid)):
                yield to, RawEdge(None, e.mean * tap, (), _turn(place, to, turned), e.restrict)


def _turn(place: Place, lag: Place, turned: Callable[[Place], bool]) -> Place:
    """S_AB(t, δ) = S_BA(t + δ, −δ)."""
    return tuple(map(sub, place, lag)) if turned(lag) else place


def _plain(e: RawEdge) -> Iterator[tuple[Factor, Kernel, Place]]:
    for f in e.factors:
        assert not isinstance(f.kernel, Walk)
        yield f, f.kernel, f.spacing


def _summed(e: RawEdge, reader: Any, common: Weight, taps: dict, restrict) -> RawEdge:
    found = {place: tap for place, tap in taps.items() if tap}
    zero = (0,) * len(e.shift)
    power = sum((t * t for t in found.values()), Fraction(0))
    edge = replace(e, reader=reader, gain=common * power, factors=(), shift=zero, taps=found)
    return replace(edge, restrict=restrict)


def _winners(e: RawEdge, f: RawEdge) -> Callable[[Place, Place], Fraction]:
    """Probability that a pixel is the largest of two windows of which it is taps a and b."""

    def chance(a: Place, b: Place) -> Fraction:
        union = {tuple(map(sub, p, a)) for p in e.amplitudes}
        union |= {tuple(map(sub, p, b)) for p in f.amplitudes}
        return Fraction(1, len(union))

    return chance


def dense(taps: dict[Place, Fraction]) -> tuple[Kernel, Place, Place]:
    """Scattered taps as a kernel on the coarsest lattice that holds them; spacing and shift."""
    shift = tuple(map(min, zip(*taps)))
    spacing = tuple(
        math.gcd(*(p - first for p in axis)) or 1 for axis, first in zip(zip(*taps), shift)
    )
    index = {
        tuple((p - first) // s for p, first, s in zip(place, shift, spacing)): tap
        for place, tap in taps.items()
    }
    shape = tuple(max(axis) + 1 for axis in zip(*index))
    values = tuple(index.get(i, 0) for i in product(*map(range, shape)))
    return Kernel(shape, values), spacing, shift
