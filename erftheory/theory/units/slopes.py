"""Gates of gradients: what slopes of activations and masks of dropout do on average.

A power is multiplied by E[φ′²]. Products of gradients that pass different pixels, or go different
ways, need more: the mean E[φ′], what two pixels of a channel share, and what two activations of one
unit do.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cached_property, lru_cache

from erftheory.network.activations import CURVES
from erftheory.theory.units.law import UnitLaw, activated, gate
from erftheory.theory.units.quadrature import CLASSES, Points, smoothed
from erftheory.theory.walk.walk import Gate
from erftheory.theory.walk.weights import Weight


@lru_cache(maxsize=64)
def _smoothed(law: UnitLaw, bends: tuple[float, ...]) -> Points:
    return smoothed(law.points, law.within, law.between, bends, CLASSES)


@lru_cache(maxsize=1024)
def agreement(law: UnitLaw, name: str) -> float:
    """E[φ′(h) φ′(h′)] / E[φ′²] for two pixels of one channel.

    All pixels of a channel count as equally correlated, as in the forward pass.
    """
    if name == "linear":
        return 1.0
    variance, curve = law.within + law.between, CURVES[name]
    if law.gaussian and curve.below is not None and variance:
        s = float(curve.below)
        angle = math.asin(min(1.0, law.between / variance)) / (2 * math.pi)
        return ((1 + s) ** 2 / 4 + (1 - s) ** 2 * angle) / ((1 + s * s) / 2)
    places, rows = _smoothed(law, curve.bends)
    slopes, mass = curve.slope(places), rows.sum(1)
    square = float(rows.sum(0) @ slopes**2)
    return float(mass @ (rows @ slopes / mass) ** 2) / square if square else 1.0


class SlopeGate(Gate):
    """The gate of an activation whose inputs have a law; a power asks for `square` alone."""

    def __init__(self, law: UnitLaw, name: str):
        self.__dict__.update(law=law, name=name)

    @cached_property
    def mean(self) -> Weight:  # pyright: ignore[reportIncompatibleVariableOverride]
        return product_mean(self.law, self.name, "linear")

    @cached_property
    def square(self) -> Weight:  # pyright: ignore[reportIncompatibleVariableOverride]
        return gate(self.law, self.name)

    @cached_property
    def memory(self) -> Weight:  # pyright: ignore[reportIncompatibleVariableOverride]
        return agreement(self.law, self.name)

    @property
    def exact(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.memory == 1


@lru_cache(maxsize=1024)
def slope_gate(law: UnitLaw, name: str) -> Gate:
    """The gate of an activation whose inputs have a law."""
    return SlopeGate(law, name)


def mask_gate(rate: float) -> Gate:
    """The gate of inverted dropout: E m = 1, E m² = 1/(1 − rate), apart from pixel to pixel."""
    keep = 1 - Fraction(rate)
    return Gate(1, 1 / keep, keep)


@lru_cache(maxsize=1024)
def product_mean(law: UnitLaw, one: str, two: str) -> Weight:
    """E[φ₁′(h) φ₂′(h)] of two activations of one unit; "linear" has slope 1."""
    if one == two:
        return activated(law, one)[1]
    curves = CURVES[one], CURVES[two]
    below = [Fraction(1) if n == "linear" else CURVES[n].below for n in (one, two)]
    if law.symmetric and below[0] is not None and below[1] is not None:
        return (1 + below[0] * below[1]) / 2
    bends = tuple(sorted({0.0, *curves[0].bends, *curves[1].bends}))
    places, rows = _smoothed(law, bends)
    return float(rows.sum(0) @ (curves[0].slope(places) * curves[1].slope(places)))


def together(a: Gate, b: Gate) -> Weight:
    """E[g₁g₂] of two different gates of one pixel."""
    if not a.name or not b.name:
        return a.mean * b.mean
    return product_mean(a.law, a.name, b.name)
