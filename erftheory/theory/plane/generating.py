"""Exponential tilting: the signal weighted by e^{θt}, for many θ at once, closed in depth.

With K(θ) = log Σ g(t)e^{θt} the tilted signal g(t)e^{θt − K(θ)} is a distribution again, whose mean
K′(θ) can be put anywhere inside the support. Under tilting kernels, powers and mixtures stay what
they are: a walk of tilted kernels with tilted weights. What is carried here is K in forms that do
not cancel, so that n layers cost the digits of one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import floor
from typing import Any

import numpy as np

from erftheory.network.kernel import Kernel
from erftheory.theory.walk.algebra import ConvolutionAlgebra
from erftheory.theory.walk.weights import Weight


@dataclass
class Tilted:
    """A signal of one axis under T tilts.

    Attributes:
      mean: of the untilted signal, exact, in lattice points.
      log_mass: K(θ) − θ·mean, shape (T,), never negative.
      moved: tilted mean minus untilted mean, (T,).
      variance: of the tilted signal, (T,).
      information: θ·K′(θ) − K(θ), (T,): the relative entropy of the tilted walk to the untilted.
      blur: error of K and of the information in units of ε, (T,).
    """

    mean: Weight
    log_mass: Any
    moved: Any
    variance: Any
    information: Any
    blur: Any


class GeneratingAlgebra(ConvolutionAlgebra[Tilted]):
    """One axis, weights ≥ 0, no up-sampling; `theta` (T,) per lattice point."""

    def __init__(self, theta: np.ndarray):
        self.theta = theta

    def unit(self, position):
        zero = np.zeros(len(self.theta))
        return Tilted(position[0], zero, zero, zero, zero, zero)

    def kernel(self, kernel, spacing):
        return self.tilt(taps(kernel, spacing[0]))[0]

    def tilt(self, part: Taps) -> tuple[Tilted, np.ndarray]:
        """The tilted kernel, and its taps, shape (taps, T)."""
        place = part.place[:, None]
        own = _tilt(part.share[:, None], place * self.theta, 0.0)
        moved = (own.added * place).sum(0)
        variance = (own.tilted * (place - moved) ** 2).sum(0)
        signal = Tilted(part.mean, own.log_mass, moved, variance, own.information, own.blur)
        return signal, own.tilted

    def convolve(self, a, b):
        total = a.information + b.information + a.log_mass + b.log_mass
        rounding = total + np.abs(self.theta * (a.moved + b.moved))
        return Tilted(
            a.mean + b.mean,
            a.log_mass + b.log_mass,
            a.moved + b.moved,
            a.variance + b.variance,
            a.information + b.information,
            a.blur + b.blur + rounding / 2,
        )

    def power(self, a, count):
        if count == 1:
            return a
        numbers = (a.log_mass, a.moved, a.variance, a.information, a.blur)
        return Tilted(a.mean * count, *(count * x for x in numbers))

    def shift(self, a, by):
        return replace(a, mean=a.mean + by[0])

    def mix(self, parts):
        return self.blend(parts)[0]

    def blend(self, parts) -> tuple[Tilted, np.ndarray, np.ndarray]:
        """The mixture, its tilted weights and how far each part's tilted mean lies from its own.

        Both have shape (parts, T).
        """
        share = np.array([float(w) for w, _ in parts])[:, None]
        means = [s.mean for _, s in parts]
        base = floor(means[0])
        apart = np.array([float(m - base) for m in means])
        center = float(share[:, 0] @ apart)
        apart = (apart - center)[:, None]
        own = _tilt(share, apart * self.theta, np.stack([s.log_mass for _, s in parts]))
        inner = np.stack([s.moved for _, s in parts])
        moved = (own.added * apart).sum(0) + (own.tilted * inner).sum(0)
        away = apart + inner - moved
        spread = np.stack([s.variance for _, s in parts])
        variance = (own.tilted * (spread + away**2)).sum(0)
        known = np.stack([s.information for _, s in parts])
        information = own.information + (own.tilted * known).sum(0)
        blur = own.blur + (own.tilted * np.stack([s.blur for _, s in parts])).sum(0)
        mean = base + Fraction(center)
        signal = Tilted(mean, own.log_mass, moved, variance, information, blur)
        return signal, own.tilted, away


@dataclass(frozen=True)
class Taps:
    """The taps of a kernel that are not zero, as a distribution over lattice points.

    Attributes:
      share: float taps of sum 1, shape (taps,).
      place: distance from the mean, (taps,).
      mean: exact.
    """

    share: np.ndarray
    place: np.ndarray
    mean: Weight


@lru_cache(maxsize=1024)
def taps(kernel: Kernel, spacing: int) -> Taps:
    scale = Fraction(kernel.mass)
    exact = [(a * spacing, Fraction(t)) for a, t in enumerate(kernel.exact) if t]
    mean = sum((a * t for a, t in exact), Fraction(0)) / scale
    return Taps(
        np.array([float(t / scale) for _, t in exact]),
        np.array([float(a - mean) for a, _ in exact]),
        int(mean) if mean.denominator == 1 else mean,
    )


@dataclass
class _Own:
    """What one kernel or fork adds to a tilted signal; see `Tilted`.

    `tilted` are the tilted shares, `added` what they have more than the untilted.
    """

    log_mass: np.ndarray
    tilted: np.ndarray
    added: np.ndarray
    information: np.ndarray
    blur: np.ndarray


def _tilt(share, linear, extra) -> _Own:
    """Shares tilted by e^y, y = linear + extra, where Σ share·linear = 0 and extra ≥ 0.

    Σ share (e^y − 1) = Σ share (e^y − 1 − y) + Σ share·extra has no negative term.
    """
    y = linear + extra
    top = y.max(0)
    small = top < 1
    safe = np.where(small, y, 0.0)
    inner = (share * (_after_linear(safe) + extra)).sum(0)
    near = np.log1p(np.where(small, inner, 0.0))
    beyond = np.log((share * np.exp(y - top)).sum(0))
    log_mass = np.where(small, near, top + beyond)
    log_ratio = np.where(small, y - near, (y - top) - beyond)
    gain = np.expm1(log_ratio)
    tilted = share * (1 + gain)
    # Σ tilted·log(tilted/share), every term of which is positive when written like this
    low = log_ratio < -0.3
    finite = np.maximum(log_ratio, -1e4)  # of a tap that underflowed its share is left
    above = tilted * _after_linear(-np.where(low, 0.0, log_ratio))
    information = np.where(low, share * (finite * (1 + gain) - gain), above).sum(0)
    far = 2 + top + 2 * (tilted * np.abs(y)).sum(0)
    blur = np.where(small, 4 * (information + near), far)
    return _Own(log_mass, tilted, share * gain, information, blur)


def _after_linear(y: np.ndarray) -> np.ndarray:
    """e^y − 1 − y, with relative accuracy."""
    z = np.clip(y, -0.3, 0.3)
    series = z / 13
    for order in range(12, 2, -1):
        series += 1
        series *= z / order
    return np.where(np.abs(y) < 0.3, z * z / 2 * (1 + series), np.expm1(y) - y)
