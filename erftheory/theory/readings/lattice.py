"""Which pixels a path reaches: signals are sets of lattice points, as the bits of integers."""

from __future__ import annotations

import math

import numpy as np

from erftheory.theory.readings.receptive_field import extent
from erftheory.theory.walk.algebra import ConvolutionAlgebra
from erftheory.theory.walk.walk import Walk


class SupportAlgebra(ConvolutionAlgebra[tuple[int, tuple[int, ...]]]):
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
        if len(self.place) == 1 and b[0].bit_count() > 64:
            joined = _joined(a[0], b[0])
            if joined is not None:
                return joined, tuple(p + q for p, q in zip(a[1], b[1]))
        total, rest = 0, b[0]
        while rest:
            low = rest & -rest
            total |= a[0] << (low.bit_length() - 1)
            rest ^= low
        return total, tuple(p + q for p, q in zip(a[1], b[1]))

    def power(self, a, count):
        result = a
        for done in range(1, count):  # the few bits of one kernel against all found so far
            longer = self.convolve(result, a)
            if len(self.place) == 1 and done % 16 == 0:
                grown = _grown(result[0], longer[0], a[0], done + 1, count)
                if grown is not None:
                    return grown, tuple(count * p for p in a[1])
            result = longer
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


def _run(bits: int) -> tuple[int, int]:
    """Start and length of a run of ones, at least half as long as the longest."""
    reach, held = 1, bits
    while doubled := held & (held >> reach):
        held, reach = doubled, 2 * reach
    start = (held & -held).bit_length() - 1
    rest = bits >> start
    return start, (~rest & (rest + 1)).bit_length() - 1


def _grown(before: int, after: int, step: int, done: int, count: int) -> int | None:
    """The sum of `count` sets `step`, if it is settled: only its run of ones still grows.

    `after` is the sum of `done` of them, `before` of one less. S + A, A from 0 to L, keeps a run of
    L ones and makes it longer by L; the points left of the run (counted from the left) and right
    of it (from the right) stay for ever once they have stayed for one step.
    """
    low, length = (step & -step).bit_length() - 1, step.bit_length()
    reach = length - 1 - low
    before, after = before >> _trailing(before), after >> _trailing(after)
    start, run = _run(after)
    old_start, old_run = _run(before)
    if min(run, old_run) < max(1, reach) or start != old_start:
        return None
    left = after & ((1 << start) - 1)
    right, old_right = after >> (start + run), before >> (old_start + old_run)
    if left != before & ((1 << start) - 1) or right != old_right:
        return None
    whole = run + (count - done) * reach
    grown = left | ((1 << whole) - 1) << start | right << (start + whole)
    return grown << (count * low)


def _trailing(bits: int) -> int:
    return (bits & -bits).bit_length() - 1


def _joined(a: int, b: int) -> int | None:
    """The sum of two large sets of which one has a run of ones longer than the other's gaps."""
    shift = _trailing(a) + _trailing(b)
    a, b = a >> _trailing(a), b >> _trailing(b)
    (start, run), (other, more) = _run(a), _run(b)
    if run < more:
        a, b, start, run = b, a, other, more
    if run < b.bit_length() and run < _widest_gap(b):
        return None
    last = a.bit_length() + b.bit_length() - 2
    stop = start + run - 1 + b.bit_length() - 1  # the run and all of b: full from start to stop
    low = _sums(a & ((1 << start) - 1), b & ((1 << start) - 1)) & ((1 << start) - 1)
    rest = last - stop
    high = _sums(_reversed(a, rest), _reversed(b, rest)) & ((1 << rest) - 1)
    mirrored = int(bin(high | 1 << rest)[:2:-1] or "0", 2) if rest else 0
    return (low | ((1 << (stop - start + 1)) - 1) << start | mirrored << (stop + 1)) << shift


def _reversed(bits: int, count: int) -> int:
    """The last `count` bits of the set, the last one first."""
    top = bits >> max(0, bits.bit_length() - count)
    return int(bin(top)[:1:-1], 2) if count else 0


def _sums(a: int, b: int) -> int:
    if a.bit_count() < b.bit_count():
        a, b = b, a
    total = 0
    while b:
        low = b & -b
        total |= a << (low.bit_length() - 1)
        b ^= low
    return total


def _widest_gap(bits: int) -> int:
    """Longest distance between neighbours in the set."""
    gaps = ~bits & ((1 << bits.bit_length()) - 1)
    if not gaps:
        return 1
    low, high, held = 1, 1, gaps
    while doubled := held & (held >> high):
        held, high = doubled, 2 * high
    low = high
    while held := held & (held >> 1):
        low += 1
    return low + 1


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
    if walk.ndim == 1 and not walk.restricted:
        by = offset[0] - start[0]
        bits = (bits >> by if by >= 0 else bits << -by) & ((1 << shape[0]) - 1)
        raw = np.frombuffer(bits.to_bytes(shape[0] // 8 + 1, "little"), np.uint8)
        return np.unpackbits(raw, bitorder="little")[: shape[0]] == 0
    total = math.prod(width)
    raw = np.frombuffer(bits.to_bytes(total // 8 + 1, "little"), np.uint8)
    grid = np.unpackbits(raw, bitorder="little")[:total].reshape(width)
    index = tuple(
        slice(o * f - s, (o + n - 1) * f - s + 1, f)
        for o, n, s, f in zip(offset, shape, start, walk.fine)
    )
    return grid[index] == 0
