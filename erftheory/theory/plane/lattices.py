"""Direct convolution with NumPy on each map's own lattice: the route for up-sampling.

A signal at a node of jump j lies on every j-th point, so it is kept on these points alone, and
refined when a finer map reads it. Coarse maps of an image of a million pixels have a few hundred.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, lcm
from operator import add

import numpy as np

from erftheory.network.kernel import Kernel
from erftheory.theory.walk.algebra import Algebra
from erftheory.theory.walk.walk import Edge, Walk

Place = tuple[int, ...]


@dataclass
class Sparse:
    """values at the lattice points first + i·step, 0 elsewhere."""

    values: np.ndarray
    first: Place
    step: Place


class LatticeAlgebra(Algebra[Sparse]):
    """Arrays on lattices that get finer towards the input; signed taps and up-sampling included."""

    def unit(self, position):
        ndim = len(position)
        return Sparse(np.ones((1,) * ndim), position, (0,) * ndim)

    def pull(self, signal: Sparse, edge: Edge) -> Sparse:
        for f in edge.factors:
            for _ in range(f.count):
                if isinstance(f.kernel, Walk):
                    signal = self.through(signal, f.kernel)
                else:
                    signal = _convolved(signal, f.kernel, f.spacing)
        first = tuple(a + b for a, b in zip(signal.first, edge.shift))
        signal = Sparse(signal.values, first, signal.step)
        return signal if edge.restrict is None else _kept(signal, edge.restrict)

    def mix(self, parts):
        if len(parts) == 1 and parts[0][0] == 1:
            return parts[0][1]
        full = [(float(w), s) for w, s in parts if s.values.size]
        if not full:
            return parts[0][1]
        base = full[0][1].first
        step = tuple(
            gcd(*(s.step[a] for _, s in full), *(s.first[a] - base[a] for _, s in full))
            for a in range(len(base))
        )
        first = tuple(min(s.first[a] for _, s in full) for a in range(len(base)))
        total = np.zeros(
            tuple(
                1 + max(_index(_last(s, a) - f, d) for _, s in full)
                for a, (f, d) in enumerate(zip(first, step))
            )
        )
        for weight, s in full:
            rows = zip(s.first, first, step, s.step, s.values.shape)
            total[tuple(_spot(*row) for row in rows)] += weight * s.values
        return Sparse(total, first, step)

    def window(
        self, walk: Walk, position: Place | None, first: Place, shape: Place
    ) -> np.ndarray:
        """The signal at pixels of the input: `first` in lattice points, `shape` in pixels."""
        signal = self.fold(walk, position)
        found = np.zeros(shape)
        into, out = [], []
        for a, n, f, size, own, start in zip(
            signal.first, signal.values.shape, first, shape, signal.step, range(walk.ndim)
        ):
            fine = walk.fine[start]
            places = a + own * np.arange(n)
            index, rest = np.divmod(places - f, fine)
            kept = (rest == 0) & (index >= 0) & (index < size)
            into.append(index[kept])
            out.append(np.flatnonzero(kept))
        if all(len(i) for i in into):
            found[np.ix_(*into)] = signal.values[np.ix_(*out)]
        return found


def _spot(at: int, first: int, step: int, own: int, count: int) -> slice:
    """Where `count` points from `at`, `own` apart, lie among those from `first`, `step` apart."""
    start, stride = _index(at - first, step), max(1, _index(own, step))
    return slice(start, start + (count - 1) * stride + 1, stride)


def _part(axis: int, part: slice) -> tuple[slice, ...]:
    """The index of a part of an axis."""
    return (*(slice(None) for _ in range(axis)), part)


def _index(distance: int, step: int) -> int:
    return distance // step if step else 0


def _last(signal: Sparse, axis: int) -> int:
    return signal.first[axis] + signal.step[axis] * (signal.values.shape[axis] - 1)


def _finer(values: np.ndarray, axis: int, factor: int) -> np.ndarray:
    """Zeros between the entries of an axis."""
    if factor == 1 or values.shape[axis] == 1:
        return values
    shape = list(values.shape)
    shape[axis] = (shape[axis] - 1) * factor + 1
    found = np.zeros(shape)
    found[_part(axis, slice(None, None, factor))] = values
    return found


def _convolved(signal: Sparse, kernel: Kernel, spacing: Place) -> Sparse:
    values: np.ndarray = signal.values
    if not values.size:  # nothing arrives
        return signal
    step = list(signal.step)
    reach = []
    for axis, (k, s) in enumerate(zip(kernel.shape, spacing)):
        if k == 1:
            reach.append(0)
            continue
        fine = gcd(step[axis], s)
        values = _finer(values, axis, _index(step[axis], fine) or 1)
        step[axis] = fine
        reach.append(s // fine)
    scale = float(kernel.scale)
    if kernel.separable and kernel.mass:
        for axis, k in enumerate(kernel.shape):
            if k > 1:
                line = [float(v) / float(kernel.mass) for v in kernel.marginal(axis)]
                values = _added(values, line, axis, reach[axis])
        share = float(kernel.mass) / scale
        values = values if share == 1 else values * share
    else:
        taps = kernel.array()
        total = np.zeros(tuple(map(add, values.shape, kernel.span(tuple(reach)))))
        for place in np.ndindex(*kernel.shape):
            if taps[place]:
                spot = tuple(slice(p * r, p * r + n) for p, r, n in zip(place, reach, values.shape))
                total[spot] += taps[place] * values
        values = total
    return Sparse(values, signal.first, tuple(step))


def _added(values: np.ndarray, line: list[float], axis: int, reach: int) -> np.ndarray:
    n = values.shape[axis]
    shape = list(values.shape)
    shape[axis] = n + reach * (len(line) - 1)
    total = np.zeros(shape)
    for a, tap in enumerate(line):
        if tap:
            total[_part(axis, slice(a * reach, a * reach + n))] += tap * values
    return total


def _kept(signal: Sparse, grid: Place) -> Sparse:
    """The points that are multiples of `grid`."""
    values: np.ndarray = signal.values
    first, step = list(signal.first), list(signal.step)
    for axis, g in enumerate(grid):
        start, own, n = first[axis], step[axis], values.shape[axis]
        hits = [i for i in range(min(n, g)) if (start + i * own) % g == 0]
        if not hits:
            return Sparse(np.zeros((0,) * values.ndim), signal.first, signal.step)
        wide = lcm(own, g) if own else 0
        stride = wide // own if own else 1
        values = values[_part(axis, slice(hits[0], None, stride))]
        first[axis], step[axis] = start + hits[0] * own, wide
    return Sparse(values, tuple(first), tuple(step))
