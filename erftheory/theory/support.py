"""Which pixels a path reaches: signals are sets of lattice points, as the bits of integers."""

from __future__ import annotations

import math

import numpy as np

from erftheory.theory.algebra import Algebra
from erftheory.theory.interval import extent
from erftheory.theory.walk import Walk


class SupportAlgebra(Algebra[tuple[int, tuple[int, ...]]]):
    """A signal is (bits, offset); several axes are packed row by row as in `counting`."""

    def __init__(self, width: tuple[int, ...]):
        self.place = tuple(math.prod(width[a + 1 :]) for a in range(len(width)))

    def unit(self, position):
        return 1, position

    def kernel(self, kernel, spacing):
        index = [0]
        for k, s, place in zip(kernel.shape, spacing, self.place):
            index = [i + a * s * place for i in index for a in range(k)]
        return sum(1 << i for i, tap in zip(index, kernel.exact) if tap), (0,) * len(spacing)

    def convolve(self, a, b):
        if a[0].bit_count() < b[0].bit_count():
            a, b = b, a
        total, rest = 0, b[0]
        while rest:
            low = rest & -rest
            total |= a[0] << (low.bit_length() - 1)
            rest ^= low
        return total, tuple(p + q for p, q in zip(a[1], b[1]))

    def power(self, a, count):
        result = a
        for _ in range(count - 1):  # the few bits of one kernel against all found so far
            result = self.convolve(result, a)
        return result

    def shift(self, a, by):
        return a[0], tuple(p + q for p, q in zip(a[1], by))

    def mix(self, parts):
        offset = tuple(map(min, zip(*(signal[1] for _, signal in parts))))
        total = 0
        for _, (bits, start) in parts:
            by = sum((p - q) * place for p, q, place in zip(start, offset, self.place))
            total |= bits << by
        return total, offset

    def restrict(self, a, grid):
        bits, offset = a
        kept = 0
        rest = bits
        while rest:
            low = rest & -rest
            i = rest_index = low.bit_length() - 1
            inside = True
            for start, place, g in zip(offset, self.place, grid):
                step, i = divmod(i, place)
                inside = inside and (start + step) % g == 0
            if inside:
                kept |= 1 << rest_index
            rest ^= low
        return kept, offset


def has_gaps(walk: Walk) -> bool:
    """False if no kernel can leave a pixel out: ones everywhere at distance 1, and no grids."""
    return walk.restricted or any(
        has_gaps(f.kernel)
        if isinstance(f.kernel, Walk)
        else any(s > 1 for s in f.spacing) or (f.kernel.taps is not None and not all(f.kernel.taps))
        for f in walk.factors
    )


def holes(walk: Walk, position, offset: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """True where no path arrives, shape `shape`, first pixel `offset`."""
    loose = extent(walk, position, loose=True)
    assert loose is not None
    width = tuple(last - first + 1 for first, last in loose)
    bits, start = SupportAlgebra(width).fold(walk, position)
    total = math.prod(width)
    raw = np.frombuffer(bits.to_bytes(total // 8 + 1, "little"), np.uint8)
    grid = np.unpackbits(raw, bitorder="little")[:total].reshape(width)
    index = tuple(
        slice(o * f - s, (o + n - 1) * f - s + 1, f)
        for o, n, s, f in zip(offset, shape, start, walk.fine)
    )
    return grid[index] == 0
