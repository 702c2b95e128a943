"""How far an asymptotic formula is from the signal: the distance of their Fourier transforms.

On a lattice p(t) = (1/2π) ∫ V(ω)e^{−iωt} dω over one period, so a formula with transform A on the
whole line is nowhere further from p than (1/2π) ∫ |V − A| dω, the formula's own tail beyond the
period included. Under a tilt the same holds at the tilted mean, where the phase is known and only
the real part counts.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from erftheory.theory.limits.saddlepoint import Tilts
from erftheory.theory.plane.axis import Marginal
from erftheory.theory.plane.tilted import LogSpectrumAlgebra

REACH = 12.0  # deviations of frequency beyond which a Gaussian is nothing
FINE = 2048  # intervals up to there
COARSE = 2**17  # intervals to the end of the period, at most
SAMPLED = 2**12  # points of a period at one of many tilts, at most
PEAK = 0.2  # their length in deviations of frequency: no peak of a transform is sharper than 1


def over_period(marginal: Marginal, standardised: tuple[float, ...], order: int) -> float:
    """A bound for |p − Edgeworth's formula| of any lattice point, over the Gaussian's peak.

    `order` as for `approximate`; trapezoids, whose own error is not in the bound.
    """
    std = float(marginal.survey.at(np.zeros(1)).variance[0]) ** 0.5
    near = np.linspace(0.0, REACH / std, FINE + 1)
    omega = near
    if REACH / std < math.pi:
        count = min(COARSE, math.ceil((math.pi * std - REACH) / PEAK))
        omega = np.concatenate([near, np.linspace(near[-1], math.pi, count + 1)[1:]])
    known = omega <= math.pi
    value = np.zeros(len(omega), complex)
    value[known] = _transfer(marginal, np.zeros(1), omega[known])
    distance = np.abs(value - _approximation(omega * std, standardised, order))
    return 2 * std / math.sqrt(2 * math.pi) * float(np.trapezoid(distance, omega))


def at_tilts(marginal: Marginal, found: Tilts, order: int) -> float:
    """The largest relative error of the saddlepoint formula at the lattice points of `found`."""
    worst = 0.0
    for i, theta in enumerate(found.theta):
        std = float(found.variance[i]) ** 0.5
        rho = tuple(float(x[i]) for x in found.standardised)
        # trapezoids of a whole period, or of all of a Gaussian, alias and have no other error
        omega = np.linspace(0.0, math.pi, 16 + min(SAMPLED, math.ceil(math.pi * std / PEAK)))
        if math.pi * std / PEAK > SAMPLED:
            near = np.arange(0.0, REACH, PEAK) / std
            omega = np.concatenate([near, omega[omega > near[-1]]])
        value = _transfer(marginal, np.array([theta]), omega).real
        s = np.linspace(0.0, REACH, 1 + math.ceil(REACH / PEAK))
        # odd terms of the expansion have no part in the value at the mean
        whole = float(np.trapezoid(_approximation(s, rho, 2 * order).real, s)) / std
        off = float(np.trapezoid(value, omega)) - whole
        worst = max(worst, abs(off / whole))
    return worst


def _transfer(marginal: Marginal, theta: np.ndarray, omega: np.ndarray) -> Any:
    """The transform of the tilted signal about its mean, shape of `omega`."""
    which = np.zeros(len(omega), dtype=np.int64)
    algebra = LogSpectrumAlgebra(theta, which, omega)
    found: Any = algebra.fold(marginal.compact, marginal.place)
    # the algebra's transform is Σ g e^{−iω(t − mean)}; the formulas' wave is e^{+isx}
    return np.exp(found.log) * np.exp(-1j * found.angle)


def _approximation(s: np.ndarray, standardised: tuple[float, ...], order: int) -> Any:
    """The transform of Edgeworth's formula at frequency `s` in deviations."""
    factor = np.ones(len(s), complex)
    for power in range(1, order + 1):
        names = {f"rho_{r}": standardised[r - 3] for r in range(3, power + 3)}
        factor = factor + _term(power)(s=s, **names)
    return np.exp(-(s**2) / 2) * factor


@cache
def _term(power: int) -> Any:
    from erftheory.symbolic.helpers.hermite import frequencies
    from erftheory.symbolic.proof.numeric import compiled

    return compiled(f"order {power}/2", frequencies()[power], "numpy")
