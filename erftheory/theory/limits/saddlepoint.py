"""Tilts that move the mean to given pixels, and the cumulants of the signal under them.

The derivatives of K(h) = log Σ g(t)e^{ht} at a tilt h are the cumulants of the tilted signal. They
add along the walk like any cumulants, and mix where branches meet with the tilted weights.

Source: Daniels, Ann. Math. Statist. 25, 1954.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from erftheory.theory.plane.axis import Marginal
from erftheory.theory.plane.generating import GeneratingAlgebra, Tilted, taps
from erftheory.theory.readings.raw import cumulants_of, raw_moments
from erftheory.theory.walk.algebra import ConvolutionAlgebra

ORDER = 6  # the highest derivative of K
_EXACT = 1e-11  # deviations between a tilted mean and its pixel: log p is off by λ₃ times that
_STEPS = 200


@dataclass
class TiltedCumulants:
    """A tilted signal of one axis; `higher` has its cumulants κ₃ … κ₆, each of shape (tilts,)."""

    tilted: Tilted
    higher: tuple[Any, ...]


class TiltedCumulantAlgebra(ConvolutionAlgebra[TiltedCumulants]):
    """K and its derivatives up to `ORDER`, one axis, weights ≥ 0, no up-sampling.

    `theta` (tilts,) per lattice point.
    """

    def __init__(self, theta: np.ndarray):
        self.generating = GeneratingAlgebra(theta)

    def unit(self, position):
        none = np.zeros(len(self.generating.theta))
        return TiltedCumulants(self.generating.unit(position), (none,) * (ORDER - 2))

    def kernel(self, kernel, spacing):
        part = taps(kernel, spacing[0])
        tilted, weights = self.generating.tilt(part)
        away = part.place[:, None] - tilted.moved
        moments = [(weights * away**r).sum(0) for r in range(3, ORDER + 1)]
        central = [np.ones_like(tilted.variance), 0.0 * tilted.variance, tilted.variance, *moments]
        return TiltedCumulants(tilted, tuple(cumulants_of(central)[2:]))

    def convolve(self, a, b):
        tilted = self.generating.convolve(a.tilted, b.tilted)
        return TiltedCumulants(tilted, tuple(x + y for x, y in zip(a.higher, b.higher)))

    def power(self, a, count):
        tilted = self.generating.power(a.tilted, count)
        return TiltedCumulants(tilted, tuple(count * x for x in a.higher))

    def shift(self, a, by):
        return TiltedCumulants(self.generating.shift(a.tilted, by), a.higher)

    def mix(self, parts):
        tilted, weights, away = self.generating.blend([(w, s.tilted) for w, s in parts])
        moments = [
            raw_moments([place, s.tilted.variance, *s.higher]) for (_, s), place in zip(parts, away)
        ]
        central = [(weights * np.stack(column)).sum(0) for column in zip(*moments)]
        return TiltedCumulants(tilted, tuple(cumulants_of(central)[2:]))


@dataclass
class Tilts:
    """The tilts whose means are given lattice points; all arrays have shape (points,).

    Attributes:
      theta: tilt per lattice point.
      log_value: K(θ) − θ·K′(θ).
      rest: what is left between each point and its tilted mean, lattice points.
      variance: K″(θ), in squared lattice points.
      standardised: λ₃ … λ₆ of the tilted signal.
    """

    theta: np.ndarray
    log_value: np.ndarray
    rest: np.ndarray
    variance: np.ndarray
    standardised: tuple[np.ndarray, ...]


def tilts(marginal: Marginal, places: np.ndarray) -> Tilts:
    """The tilts of lattice points strictly between the first and the last with weight.

    `places` (points,) count the lattice of an axis: base + span·place are pixels.
    """
    survey = marginal.survey
    goal = places - float(survey.base)
    theta = _solved(marginal, goal)
    found = TiltedCumulantAlgebra(theta).fold(marginal.compact, marginal.place)
    spread = found.tilted.variance
    return Tilts(
        theta,
        -found.tilted.information,
        goal - survey.means(found.tilted),
        spread,
        tuple(x / spread ** (r / 2) for r, x in enumerate(found.higher, 3)),
    )


def _solved(marginal: Marginal, goal: np.ndarray) -> np.ndarray:
    """K′(θ) = goal by Newton's method, kept between two tilts that enclose it."""
    survey = marginal.survey
    means = survey.means(survey.signal)
    place = np.clip(np.searchsorted(means, goal), 1, len(means) - 1)
    low, high = survey.theta[place - 1], survey.theta[place]
    theta = _between(goal, means, survey.theta, survey.signal.variance, place)
    open_ = np.arange(len(goal))
    for _ in range(_STEPS):
        signal = survey.at(theta[open_])
        miss = survey.means(signal) - goal[open_]
        low[open_] = np.where(miss < 0, theta[open_], low[open_])
        high[open_] = np.where(miss > 0, theta[open_], high[open_])
        spread = signal.variance
        far = np.abs(miss) > _EXACT * np.sqrt(spread)
        open_, miss, spread = open_[far], miss[far], spread[far]
        if not len(open_):
            break
        step = theta[open_] - miss / spread
        inside = (step > low[open_]) & (step < high[open_])
        theta[open_] = np.where(inside, step, (low[open_] + high[open_]) / 2)
    return theta


def _between(goal, means, theta, variance, place) -> np.ndarray:
    """Hermite's cubic through two tilts, by means and slopes 1/K″; their middle if it fails."""
    low, high = theta[place - 1], theta[place]
    with np.errstate(all="ignore"):
        gap = means[place] - means[place - 1]
        u = (goal - means[place - 1]) / gap
        left, right = gap / variance[place - 1], gap / variance[place]
        rise = high - low
        bend = u * (u - 1) * ((left - rise) * (u - 1) + (right - rise) * u)
        found = low + u * rise + bend
    return np.where((found >= low) & (found <= high), found, (low + high) / 2)
