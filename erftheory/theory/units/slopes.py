"""Gates of gradients: what slopes of activations and masks of dropout do on average.

A power is multiplied by E[φ′²]. Products of gradients that pass different pixels, or go different
ways, need more: the mean E[φ′], what two pixels of a channel share, and what two activations of one
unit do.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

from erftheory.network.activations import CURVES
from erftheory.theory.units.law import UnitLaw, activated, gate
from erftheory.theory.units.quadrature import CLASSES, smoothed
from erftheory.theory.walk.walk import Gate
from erftheory.theory.walk.weights import Weight


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
    places, rows = smoothed(law.points, law.within, law.between, curve.bends, CLASSES)
    slopes, mass = curve.slope(places), rows.sum(1)
    square = float(rows.sum(0) @ slopes**2)
    return float(mass @ (rows @ slopes / mass) ** 2) / square if square else 1.0


@lru_cache(maxsize=1024)
def slope_gate(law: UnitLaw, name: str) -> Gate:
    """The gate of an activation whose inputs have a law."""
    memory = agreement(law, name)
    return Gate(
        product_mean(law, name, "linear"), gate(law, name), memory, memory == 1, name, law
    )


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
    places, rows = smoothed(law.points, law.within, law.between, bends, CLASSES)
    return float(rows.sum(0) @ (curves[0].slope(places) * curves[1].slope(places)))


def together(a: Gate, b: Gate) -> Weight:
    """E[g₁g₂] of two different gates of one pixel."""
    if not a.name or not b.name:
        return a.mean * b.mean
    return product_mean(a.law, a.name, b.name)
