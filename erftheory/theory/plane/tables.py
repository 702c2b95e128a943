"""Kernels as flat tables of taps: what the JAX engines read, so that depth and taps are data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import product

import numpy as np

from erftheory.network.kernel import Kernel

CHUNK = 8  # taps a compiled call reads; longer kernels take several calls


@dataclass(frozen=True)
class Table:
    """Up to CHUNK taps of one or more kernels.

    Attributes:
      weight: (CHUNK,) taps, normalised.
      position: (CHUNK, ndim) lattice points (twice their distance from the centre, if centred).
      segment: (CHUNK,) number of the kernel in this table, CHUNK if it goes on in the next one.
      count: (CHUNK,) the power of each kernel that ends in this table, else 0.
      excess: (CHUNK,) the mass of each such kernel minus 1.
      used: number of rows in use.
    """

    weight: np.ndarray
    position: np.ndarray
    segment: np.ndarray
    count: np.ndarray
    excess: np.ndarray
    used: int


@lru_cache(maxsize=1024)
def normalised(kernel: Kernel) -> tuple[tuple[float, ...], float]:
    """Taps divided by the kernel's scale, and by how much their sum exceeds 1."""
    taps = [Fraction(v) / kernel.scale for v in kernel.exact]
    return tuple(map(float, taps)), float(sum(taps) - 1)


def positions(kernel: Kernel, spacing: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Lattice points of the taps, row-major."""
    return [
        tuple(a * s for a, s in zip(index, spacing)) for index in product(*map(range, kernel.shape))
    ]


def tables(kernels: list[tuple[Kernel, tuple[int, ...], int]], centred: bool) -> Iterator[Table]:
    """Tables of (kernel, spacing, count), in order; a kernel may continue in the next table."""
    rows: list[tuple[float, tuple[int, ...], float, float]] = []
    for kernel, spacing, count in kernels:
        span = kernel.span(spacing)
        taps, excess = normalised(kernel)
        for tap, place in zip(taps, positions(kernel, spacing)):
            if centred:
                place = tuple(2 * p - c for p, c in zip(place, span))
            rows.append((tap, place, 0.0, 0.0))
        rows[-1] = (rows[-1][0], rows[-1][1], float(count), excess)
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        weight, count, excess = np.zeros(CHUNK), np.zeros(CHUNK), np.zeros(CHUNK)
        position = np.zeros((CHUNK, len(chunk[0][1])), np.int64)
        segment = np.full(CHUNK, CHUNK)
        ends = [i for i, row in enumerate(chunk) if row[2]]
        begin = 0
        for number, end in enumerate(ends):
            segment[begin : end + 1] = number
            count[number], excess[number] = chunk[end][2:]
            begin = end + 1
        for i, row in enumerate(chunk):
            weight[i], position[i] = row[:2]
        # a kernel that began in an earlier table and does not end here is still carried
        yield Table(weight, position, segment, count, excess, len(chunk))
