"""Why the signal becomes a Gaussian, and how fast."""

from __future__ import annotations

from functools import cache
from typing import Any

import sympy as sp

from erftheory.symbolic.helpers.hermite import NORMAL, over_all_frequencies
from erftheory.symbolic.helpers.rewrites import half_powers
from erftheory.symbolic.helpers.series import limit_in_depth, series_of_rest
from erftheory.symbolic.proof.derivation import Derivation, ProofStep
from erftheory.symbolic.proof.evidence import SymbolicIdentity, leave
from erftheory.symbolic.proof.names import equation, k, m, n, s, theta, x
from erftheory.symbolic.topics.moments import uniform_variance

_SKEWNESS: Any = sp.Symbol("gamma_1", real=True)  # of one step
_EXCESS: Any = sp.Symbol("gamma_2", real=True)  # excess kurtosis of one step


@cache
def gaussian_limit() -> Derivation:
    """The standardised sum of n steps tends to the normal law.

    Its characteristic function tends to exp(−s²/2); the first correction is of order 1/√n for
    a skew kernel and 1/n for a symmetric one, and gives the first terms of Edgeworth's series.

    Source: Luo et al., NIPS 2016, section 2.1 (central limit theorem); the corrections are
    classical (Edgeworth).
    """
    return Derivation(
        title="The Gaussian limit of the effective receptive field",
        source="Luo, Li, Urtasun, Zemel, NIPS 2016 (L16), section 2.1; Edgeworth's expansion",
        steps=(*_uniform(), *_any_kernel(), *_densities()),
        key="limit",
    )


def _characteristic(argument: Any) -> Any:
    return sp.sin(k * argument / 2) / (k * sp.sin(argument / 2))


def _uniform() -> tuple[ProofStep, ...]:
    closed = _characteristic(theta)
    wave = sp.exp(sp.I * theta * (m - (k - 1) / 2)) / k
    series = -((k**2 - 1) * theta**2) / 24 - (k**4 - 1) * theta**4 / 2880
    standard = _characteristic(s / sp.sqrt(uniform_variance()))
    rest = n * (n * sp.log(standard) + s**2 / 2)
    return (
        ProofStep(
            "characteristic function",
            "One uniform step about its mean",
            equation(sp.Sum(wave, (m, 0, k - 1)), closed),
            "The Dirichlet kernel over k; its phase is gone because the step is centred.",
            SymbolicIdentity("all k and frequencies", half_powers(sp.I * theta)),
        ),
        ProofStep(
            "logarithm",
            "Its logarithm near frequency zero",
            equation(sp.log(closed), series + sp.Order(theta**6)),
            "The terms are the second and the fourth cumulant of one step; odd ones vanish.",
            SymbolicIdentity("all k, series", leave, series_of_rest(theta)),
        ),
        ProofStep(
            "limit",
            "The standardised sum becomes normal",
            equation(sp.Limit(standard**n, n, sp.oo), sp.exp(-(s**2) / 2)),
            "At s over its standard deviation n steps keep the square term; the others fade.",
            SymbolicIdentity("limit for all k", limit_in_depth),
        ),
        ProofStep(
            "first correction",
            "The first correction is of order 1/n",
            equation(sp.Limit(rest, n, sp.oo), -(k**2 + 1) * s**4 / (20 * (k**2 - 1))),
            "Of n logarithms the fourth-order term is left, 1/24 of the excess kurtosis.",
            SymbolicIdentity("limit for all k", limit_in_depth),
        ),
    )


def _any_kernel() -> tuple[ProofStep, ...]:
    frequency = s / sp.sqrt(n)
    one_step = (
        1
        - frequency**2 / 2
        - sp.I * _SKEWNESS * frequency**3 / 6
        + (_EXCESS + 3) * frequency**4 / 24
    )
    rest = n * sp.log(one_step) + s**2 / 2
    lopsided = sp.Rational(4, 5) * sp.exp(-sp.I * theta / 2) + sp.exp(2 * sp.I * theta) / 5
    example = n * sp.log(lopsided.subs(theta, frequency)) + s**2 / 2
    limit = SymbolicIdentity("limit for all moments", limit_in_depth)
    return (
        ProofStep(
            "skew kernel",
            "A skew kernel is corrected at order 1/√n",
            equation(sp.Limit(sp.sqrt(n) * rest, n, sp.oo), -sp.I * _SKEWNESS * s**3 / 6),
            "With a standard step, given to its fourth moment, the cubic term fades last.",
            limit,
        ),
        ProofStep(
            "symmetric kernel",
            "A symmetric kernel is corrected at order 1/n",
            equation(sp.Limit((n * rest).subs(_SKEWNESS, 0), n, sp.oo), _EXCESS * s**4 / 24),
            "Without skewness the order 1/√n is absent and the excess kurtosis leads.",
            limit,
        ),
        ProofStep(
            "skew example",
            "A skew kernel in full: weights 4/5 and 1/5",
            equation(
                sp.Limit(sp.sqrt(n) * example, n, sp.oo), -sp.I * sp.Rational(3, 2) * s**3 / 6
            ),
            "The standard step is -1/2 or 2 and its skewness 3/2; no moment is left out here.",
            SymbolicIdentity("limit for this kernel", limit_in_depth),
        ),
    )


def _densities() -> tuple[ProofStep, ...]:
    integral = SymbolicIdentity("integral over all frequencies", over_all_frequencies)
    return (
        ProofStep(
            "normal density",
            "Back to offsets: the normal density",
            equation(_density(1), NORMAL),
            "A Gaussian is its own transform; x counts offsets in standard deviations.",
            integral,
        ),
        ProofStep(
            "skew density",
            "The correction of the density for skewness",
            equation(
                _density(-sp.I * _SKEWNESS * s**3 / 6), _SKEWNESS * (x**3 - 3 * x) * NORMAL / 6
            ),
            "Each factor of the frequency differentiates; this term carries the factor 1/√n.",
            integral,
        ),
        ProofStep(
            "kurtosis density",
            "The correction of the density for kurtosis",
            equation(
                _density(_EXCESS * s**4 / 24),
                _EXCESS * (x**4 - 6 * x**2 + 3) * NORMAL / 24,
            ),
            "The leading correction of a symmetric kernel, with the factor 1/n.",
            integral,
        ),
    )


def _density(factor: Any) -> Any:
    wave = factor * sp.exp(-(s**2) / 2) * sp.exp(-sp.I * s * x)
    return sp.Integral(wave, (s, -sp.oo, sp.oo)) / (2 * sp.pi)
