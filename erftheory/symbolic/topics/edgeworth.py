"""Edgeworth's expansion to the order 1/n², and what it says about L16's size at finite depth."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from typing import Any

import sympy as sp

from erftheory.symbolic.helpers.hermite import (
    NORMAL,
    RHO,
    SMALL,
    He,
    corrections,
    frequencies,
    over_all_frequencies,
)
from erftheory.symbolic.helpers.level_sets import level_sets
from erftheory.symbolic.helpers.rewrites import split_logs
from erftheory.symbolic.helpers.series import polynomial, series_of_rest
from erftheory.symbolic.proof import brute
from erftheory.symbolic.proof.derivation import Derivation, ProofStep
from erftheory.symbolic.proof.evidence import ExactPoints, Point, SymbolicIdentity
from erftheory.symbolic.proof.names import equation, kappa, m, n, r, s, sigma, x

SPAN: Any = sp.Symbol("d", positive=True)  # distance of lattice points, pixels
_WAVE: Any = sp.exp(-(s**2) / 2) * sp.exp(-sp.I * s * x)
HIGHEST = 12  # of Hermite's polynomials at the order 1/n²


@cache
def edgeworth() -> Derivation:
    """The density of a sum of n steps to the order 1/n², and the size of its level sets.

    ρ_r is the cumulant κ_r/κ₂^{r/2} of one step, x counts offsets in standard deviations. Steps
    "order 1/2" to "order 2" give the factors of n^{−1/2} to n^{−2}, over the normal density. The
    second part applies them to a symmetric kernel in two dimensions: the size of the set where
    the signal is above e^{−L} of its centre. L is log 1/τ for the variance and 2 log 1/τ for
    the magnitude at L16's threshold τ.

    Source: Edgeworth 1905; Petrov, Sums of Independent Random Variables, 1975, chapters VI and
    VII (lattices); the size is that of Luo et al., NIPS 2016, section 3.
    """
    return Derivation(
        title="Edgeworth's expansion and the size at finite depth",
        source="Edgeworth 1905; Petrov 1975, ch. VI, VII; Luo, Li, Urtasun, Zemel, NIPS 2016 (L16)",
        steps=(*_polynomials(), *_lattice(), *_expansion(), *_orders(), *level_sets()),
        key="order 2",
    )


def _polynomials() -> tuple[ProofStep, ...]:
    orders = tuple({r: order} for order in range(HIGHEST + 1))
    rodrigues = (-1) ** r * sp.exp(x**2 / 2) * sp.Derivative(sp.exp(-(x**2) / 2), (x, r))
    return (
        ProofStep(
            "Hermite polynomials",
            "Derivatives of the normal density are polynomials times it",
            equation(rodrigues, He(r, x)),
            "He starts with 1 and x, and He of r + 1 is x times He of r less r times He of r - 1.",
            SymbolicIdentity(f"r = 0 to {HIGHEST}", cases=orders),
        ),
        ProofStep(
            "transform",
            "A factor of frequency becomes a Hermite polynomial",
            equation(_over_normal((sp.I * s) ** r), He(r, x)),
            "Each factor of j s differentiates the normal density once and changes its sign.",
            SymbolicIdentity(f"r = 0 to {HIGHEST}", over_all_frequencies, cases=orders),
        ),
    )


def _lattice() -> tuple[ProofStep, ...]:
    period = (s, -sp.pi / SPAN, sp.pi / SPAN)
    place: Any = sp.Symbol("v", real=True)  # inside the pixel
    half = sp.Rational(1, 2)
    cell = (place, -half, half)
    second: Any = He(2, x)
    pixel = sp.Integral(sp.exp(x**2 / 2 - (x + SMALL * place) ** 2 / 2), cell)
    other: Any = sp.Symbol("m", integer=True, nonzero=True)
    return (
        ProofStep(
            "one lattice point",
            "One period of the frequency picks one point of a lattice",
            equation(
                SPAN * sp.Integral(sp.exp(sp.I * s * SPAN * m), period) / (2 * sp.pi),
                sp.KroneckerDelta(m, 0),
            ),
            "All other points turn by whole periods; d is their distance, the lattice span.",
            SymbolicIdentity("the point itself and all others", cases=({m: 0}, {m: other})),
        ),
        ProofStep(
            "leading term",
            "The logarithm of the normal approximation on a lattice",
            equation(
                sp.log(SPAN * sp.Integral(_WAVE, (s, -sp.oo, sp.oo)) / (2 * sp.pi * sigma)),
                sp.log(SPAN / sigma) - x**2 / 2 - sp.log(2 * sp.pi) / 2,
            ),
            "Frequency counts in units of 1/sigma; what lies beyond the period is exponentially "
            "small. A lattice point has the weight of the d pixels of its cell.",
            SymbolicIdentity("integral over all frequencies", over_all_frequencies, split_logs),
        ),
        ProofStep(
            "pixel mass",
            "The mass of a pixel is not the density at its centre",
            equation(sp.Subs(sp.Derivative(pixel, (SMALL, 2)), SMALL, 0) / 2, second / 24),
            "Epsilon is the pixel in standard deviations. A lattice law follows the density at its "
            "points; integrals over pixels would add 1/12 to the variance (Sheppard).",
            SymbolicIdentity("second order in the pixel, all x", _by_powers),
        ),
    )


def _expansion() -> tuple[ProofStep, ...]:
    left = kappa(r, n) ** 2 / kappa(2, n) ** r
    right = n ** (2 - r) * kappa(r, 1) ** 2 / kappa(2, 1) ** r
    exponent = sum(
        rho * (sp.I * s) ** order * SMALL ** (order - 2) / sp.factorial(order)
        for order, rho in RHO.items()
    )
    series = sum(factor * SMALL**order for order, factor in enumerate(frequencies()))
    return (
        ProofStep(
            "standardised cumulants",
            "Standardised cumulants of order r fall like n to the power 1 - r/2",
            equation(left, right),
            "All cumulants are n times those of one step; squared, so that no root is left.",
            ExactPoints("random kernels convolved n times, r = 3 to 6", _standardised),
        ),
        ProofStep(
            "series",
            "The transform of the sum, over the normal one",
            equation(sp.exp(exponent), series + sp.Order(SMALL**5)),
            "The exponential of the cumulants beyond the second, by powers of epsilon = 1/√n.",
            SymbolicIdentity("series to the fourth power of 1/√n", reduce=series_of_rest(SMALL)),
        ),
    )


def _orders() -> tuple[ProofStep, ...]:
    words = (
        ("1/2", "Skewness alone: antisymmetric, it moves the mode and not the centre's value."),
        ("1", "The leading correction of a symmetric kernel is that of its kurtosis."),
        ("3/2", "Antisymmetric again; the centre value has whole powers of 1/n only."),
        ("2", "The second correction of a symmetric kernel takes the sixth cumulant."),
    )
    return tuple(
        ProofStep(
            f"order {name}",
            f"The correction of order n^(-{name}), over the normal density",
            equation(_over_normal(factor), right),
            reason,
            SymbolicIdentity("integral over all frequencies", over_all_frequencies),
        )
        for (name, reason), factor, right in zip(
            words, frequencies()[1:], corrections(), strict=True
        )
    )


def _over_normal(factor: Any) -> Any:
    return sp.Integral(factor * _WAVE, (s, -sp.oo, sp.oo)) / (2 * sp.pi * NORMAL)


def _by_powers(side: Any) -> Any:
    """Integrals of a function of ε by the terms of its series below ε⁶."""

    def integrate(integrand: Any, limits: Any) -> Any:
        return sp.integrate(sp.expand(polynomial(integrand, SMALL, 6)), limits)

    return side.replace(sp.Integral, integrate).doit()


def _standardised() -> Iterator[Point]:
    source = brute.generator(31)
    for depth, kernel in ((1, 3), (2, 2), (2, 4), (3, 3), (5, 3), (7, 2)):
        weights = brute.random_kernel(source, kernel)
        sums = {
            layers: brute.cumulants(brute.repeated_convolution(weights, layers), 6)
            for layers in (1, depth)
        }

        def cumulant(order: int, layers: int, sums: dict[int, list[Fraction]] = sums) -> Fraction:
            return sums[layers][order]

        for order in range(3, 7):
            yield {"n": depth, "r": order, "kappa": cumulant}
