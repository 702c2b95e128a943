"""Exact path counts: signals are polynomials with integer or rational coefficients.

Several axes are packed into one variable (Kronecker substitution), so that one fast polynomial
product of FLINT serves every number of axes.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from erftheory.network.base import Network
from erftheory.theory.lowering.lowering import build
from erftheory.theory.readings.receptive_field import extent
from erftheory.theory.walk.algebra import ConvolutionAlgebra
from erftheory.theory.walk.walk import Walk


def _flint() -> Any:
    try:
        import flint
    except ImportError as error:
        raise ImportError("counting needs python-flint (pip install python-flint)") from error
    return flint


class CountingAlgebra(ConvolutionAlgebra[tuple[Any, tuple[int, ...]]]):
    """A signal is (polynomial, offset): the coefficient at Σ (t − offset)·place is its weight at t.

    `width` must exceed the extent of every signal on the way, so that places never overlap.
    """

    def __init__(self, width: tuple[int, ...], weighted: bool = False):
        self.flint = _flint()
        self.width, self.weighted = width, weighted
        self.place = tuple(math.prod(width[a + 1 :]) for a in range(len(width)))

    def _poly(self, coefficients: list) -> Any:
        if all(isinstance(c, int) for c in coefficients):
            return self.flint.fmpz_poly(coefficients)
        exact = [Fraction(c) for c in coefficients]
        return self.flint.fmpq_poly([self.flint.fmpq(c.numerator, c.denominator) for c in exact])

    def unit(self, position):
        return self.flint.fmpz_poly([1]), position

    def kernel(self, kernel, spacing):
        index = [0]
        for k, s, place in zip(kernel.shape, spacing, self.place):
            index = [i + a * s * place for i in index for a in range(k)]
        coefficients: list = [0] * (index[-1] + 1)
        scale = Fraction(kernel.scale) if self.weighted else 1
        for i, tap in zip(index, kernel.exact):
            coefficients[i] = tap / scale if self.weighted else tap
        return self._poly(coefficients), (0,) * len(spacing)

    def convolve(self, a, b):
        return a[0] * b[0], tuple(p + q for p, q in zip(a[1], b[1]))

    def power(self, a, count):
        return a[0] ** count, tuple(count * p for p in a[1])

    def shift(self, a, by):
        return a[0], tuple(p + q for p, q in zip(a[1], by))

    def mix(self, parts):
        offset = tuple(map(min, zip(*(signal[1] for _, signal in parts))))
        total = self.flint.fmpz_poly([])
        for weight, (poly, start) in parts:
            by = sum((p - q) * place for p, q, place in zip(start, offset, self.place))
            term = poly * self._poly([0] * by + [1]) if by else poly
            if weight != 1:
                exact = Fraction(weight)
                if exact.denominator == 1:
                    term = term * exact.numerator
                else:
                    ratio = self.flint.fmpq(exact.numerator, exact.denominator)
                    term = self.flint.fmpq_poly(term) * ratio
            total = total + term
        return total, offset

    def restrict(self, a, grid):
        poly, offset = a
        kept = poly.coeffs()
        for i in range(len(kept)):
            rest = i
            for start, place, g in zip(offset, self.place, grid):
                step, rest = divmod(rest, place)
                if (start + step) % g:
                    kept[i] = 0
        return type(poly)(kept), offset


class Counts:
    """Exact weights of all paths from the input pixels to one output unit (index 0).

    Attributes:
      offset: input index of the first pixel, one entry an axis.
      shape: pixels an axis, those of the receptive field.
    """

    def __init__(self, walk: Walk, position: tuple[int, ...] | None = None, weighted=False):
        span = extent(walk, position)
        if span is None:
            raise ValueError("network: got a unit that no input reaches; takes a connected unit")
        self._walk, self._position, self._weighted = walk, position, weighted
        self.offset = tuple(first // f for (first, _), f in zip(span, walk.fine))
        self.shape = tuple(
            last // f + 1 - o for (_, last), f, o in zip(span, walk.fine, self.offset)
        )

    @cached_property
    def map(self) -> np.ndarray:
        """Weights, shape `shape`, dtype object (ints, or Fractions for rational taps)."""
        return _unpack(self._walk, self._position, self._weighted, self.offset, self.shape)

    def marginal(self, axis: int) -> list:
        """Weights summed over the other axes, in the order of `axis`."""
        if not 0 <= axis < len(self.shape):
            raise ValueError(f"axis: got {axis}; takes 0 to {len(self.shape) - 1}")
        if self._walk.restricted or len(self.shape) == 1:
            others = tuple(a for a in range(len(self.shape)) if a != axis)
            return list(self.map.sum(axis=others) if others else self.map)
        place = None if self._position is None else (self._position[axis],)
        start, size = (self.offset[axis],), (self.shape[axis],)
        return list(
            _unpack(self._walk.axis(axis, not self._weighted), place, self._weighted, start, size)
        )

    @property
    def total(self) -> int | Fraction:
        """Number of paths: the sum of all weights."""
        return sum(self.marginal(0))

    @property
    def touched(self) -> np.ndarray:
        """True where a path arrives, shape `shape`; False is a hole."""
        return self.map != 0

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.shape))
        return f"Counts({shape} pixels at {self.offset}, {self.total} paths)"


def _unpack(walk: Walk, position, weighted, offset, shape) -> np.ndarray:
    loose = extent(walk, position, loose=True)
    assert loose is not None
    width = tuple(last - first + 1 for first, last in loose)
    poly, start = CountingAlgebra(width, weighted).fold(walk, position)
    flat = np.zeros(math.prod(width), dtype=object)
    coefficients = _numbers(poly.coeffs())
    flat[: len(coefficients)] = coefficients
    grid = flat.reshape(width)
    index = []
    for begin, first, size, f in zip(start, offset, shape, walk.fine):
        index.append(slice(first * f - begin, (first + size - 1) * f - begin + 1, f))
    if any(i.start < 0 for i in index):  # declared edge taps are zero: the polynomial starts later
        before = [max(0, -i.start) for i in index]
        grid = np.pad(grid, [(b, b) for b in before])
        index = [slice(i.start + b, i.stop + b, i.step) for i, b in zip(index, before)]
    found = grid[tuple(index)]
    missing = [(0, size - have) for size, have in zip(shape, found.shape)]
    return np.pad(found, missing) if any(m for _, m in missing) else found


def _numbers(values: list) -> list[int | Fraction]:
    """Coefficients as Python's numbers; of a palindrome half are converted, which takes longest."""
    half = len(values) // 2
    if half and all(a == b for a, b in zip(values[:half], reversed(values[-half:]))):
        first = list(map(_python, values[: len(values) - half]))
        return first + first[half - 1 :: -1]
    return list(map(_python, values))


def _python(value: Any) -> int | Fraction:
    denominator = getattr(value, "q", 1)
    return int(value) if denominator == 1 else Fraction(int(value.p), int(denominator))


def counting(network: Network) -> Counts:
    """Exact weights of all paths: every tap counts as given, uniform taps as 1, gains as 1.

    Raises:
      ValueError: a global operation. ImportError: python-flint is missing.
    """
    return Counts(build(network, "gradient", raw=True))
