"""Sums over nets, and what they say about the error of a mean map."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Tally:
    """Running sums over nets, float64. With s = g² the squares of a net and m₀ = Σ_t s(t):

    Attributes:
      nets: number of nets.
      square: Σ s, shape of the map.
      fourth: Σ s².
      cross: Σ s m₀.
      power: Σ m₀².
      largest: the largest m₀.
      gradient, spread: Σ g and Σ g² of the gradients themselves, shape of the map.
      dead: nets whose gradient is zero everywhere.
    """

    nets: int
    square: np.ndarray
    fourth: np.ndarray
    cross: np.ndarray
    power: float
    largest: float
    gradient: np.ndarray
    spread: np.ndarray
    dead: int

    def __add__(self, other: Tally) -> Tally:
        sums: dict[str, Any] = {
            f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)
        }
        sums["largest"] = max(self.largest, other.largest)
        return Tally(**sums)

    @classmethod
    def of(cls, gradients: np.ndarray, square: np.ndarray | None = None) -> Tally:
        """The sums of gradients (nets, *map); `square` where it is not their plain square."""
        gradients = gradients.astype(np.float64)
        spread = np.square(gradients)
        square = spread if square is None else square
        axes = tuple(range(1, square.ndim))
        power = square.sum(axis=axes)
        return cls(
            nets=len(square),
            square=square.sum(axis=0),
            fourth=np.einsum("i...,i...->...", square, square),
            cross=np.tensordot(power, square, axes=1),
            power=float(power @ power),
            largest=float(power.max(initial=0.0)),
            gradient=gradients.sum(axis=0),
            spread=spread.sum(axis=0),
            dead=int((spread.sum(axis=axes) == 0).sum()),
        )

    @property
    def effective(self) -> float:
        """Effective sample size (Σ m₀)² / Σ m₀²: nets weighted by their power."""
        return float(self.square.sum() ** 2 / self.power)

    def stderr(self) -> np.ndarray:
        """Standard error of each pixel of `square` once divided by its sum, times that sum.

        The delta method for the ratio Σ s(t) / Σ m₀, which is the jackknife over nets up to
        O(1/nets); it keeps the correlation of pixel and sum.
        """
        share = self.square / self.square.sum()
        spread = self.fourth - 2 * share * self.cross + share**2 * self.power
        return np.sqrt(np.maximum(spread, 0) * self.nets / (self.nets - 1))

    def gradient_stderr(self) -> np.ndarray:
        """Standard error of each pixel of the mean gradient."""
        mean = self.gradient / self.nets
        variance = (self.spread / self.nets - mean**2) * self.nets / (self.nets - 1)
        return np.sqrt(np.maximum(variance, 0) / self.nets)
