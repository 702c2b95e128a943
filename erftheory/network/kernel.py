"""Taps of a spatial operation, exact and separable whenever they can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache

import numpy as np

from erftheory.network.arguments import Number


class NegativeTaps(ValueError):
    """Taps below 0 where variances are wanted."""

    def __init__(self) -> None:
        super().__init__(
            "taps: got a negative tap in the variance signal; takes variances >= 0 there "
            '(signed weights belong to signal="gradient")'
        )


@dataclass(frozen=True)
class Kernel:
    """Taps v(a) of a spatial operation.

    Attributes:
      shape: number of taps an axis.
      taps: row-major numbers, or None for ones everywhere.
      divisor: what a normalised signal divides the taps by, if it is not their own sum (the
        marginal of a signed kernel keeps the kernel's).
    """

    shape: tuple[int, ...]
    taps: tuple[Number, ...] | None = None
    divisor: int | Fraction | None = None

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:  # kernels are keys of most tables
        return hash((self.shape, self.taps or (), self.divisor or 0))

    @cached_property
    def mass(self) -> Number:
        """Sum of the taps."""
        return math.prod(self.shape) if self.taps is None else sum(self.exact)

    @cached_property
    def exact(self) -> tuple[int | Fraction, ...]:
        """Row-major taps as ints and Fractions; a float is the binary rational it is."""
        if self.taps is None:
            return (1,) * math.prod(self.shape)
        return tuple(Fraction(t) if isinstance(t, float) else t for t in self.taps)

    @cached_property
    def signed(self) -> bool:
        return self.taps is not None and any(t < 0 for t in self.taps)

    @cached_property
    def scale(self) -> int | Fraction:
        """What a normalised signal divides the taps by: their sum, or Σ|v| if some are negative."""
        if self.divisor is not None:
            return self.divisor
        if self.taps is None:
            return math.prod(self.shape)
        return sum(map(abs, self.exact))

    @property
    def trivial(self) -> bool:
        """True for a single tap that neither moves nor scales a signal, raw or normalised."""
        return max(self.shape) == 1 and (
            self.taps is None or (self.exact[0] == 1 and self.scale == 1)
        )

    def marginal(self, axis: int) -> tuple[int | Fraction, ...]:
        """Taps summed over the other axes, shape (shape[axis],)."""
        return _marginals(self)[axis]

    @cached_property
    def separable(self) -> bool:
        """True if the taps are an outer product of their marginals (divided by a constant)."""
        if self.taps is None or len(self.shape) == 1:
            return True
        mass = sum(self.exact)
        if mass == 0:
            return False
        outer = _marginals(self)[0]
        for axis in range(1, len(self.shape)):
            outer = tuple(a * b for a in outer for b in _marginals(self)[axis])
        return all(t * mass ** (len(self.shape) - 1) == o for t, o in zip(self.exact, outer))

    def span(self, spacing: tuple[int, ...]) -> tuple[int, ...]:
        """Distance of the first tap and the last, with taps `spacing` apart."""
        return span_of(self.shape, spacing)

    def array(self) -> np.ndarray:
        """Taps as float64, shape `shape`, divided by `scale`."""
        return np.array([float(t / Fraction(self.scale)) for t in self.exact]).reshape(self.shape)

    def map(self, function) -> Kernel:
        """The kernel with `function` applied to every tap (ones stay ones if f(1) = 1)."""
        if self.taps is None and function(1) == 1:
            return self
        return Kernel(self.shape, tuple(map(function, self.exact)))


def span_of(shape: Sequence[int], spacing: Sequence[int]) -> tuple[int, ...]:
    """Distance of the first tap and the last, d·(k − 1), one entry an axis."""
    return tuple(map(line_span, shape, spacing))


def line_span(taps: int, spacing: int) -> int:
    """Distance of the first tap of a line and the last."""
    return spacing * (taps - 1)


@lru_cache(maxsize=4096)
def _marginals(kernel: Kernel) -> tuple[tuple[int | Fraction, ...], ...]:
    if kernel.taps is None:
        total = math.prod(kernel.shape)
        return tuple((total // k,) * k for k in kernel.shape)
    array = np.array(kernel.exact, dtype=object).reshape(kernel.shape)
    axes = range(array.ndim)
    return tuple(
        tuple(array.sum(axis=tuple(a for a in axes if a != axis)) if array.ndim > 1 else array)
        for axis in axes
    )
