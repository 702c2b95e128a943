"""Mean, variance, skewness and kurtosis of the signal, for any kernel and for the uniform one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import sympy as sp

from erftheory.symbolic.helpers.rewrites import as_ratio, closed_sums, half_powers
from erftheory.symbolic.helpers.series import series_of_rest
from erftheory.symbolic.proof import brute
from erftheory.symbolic.proof.derivation import Derivation, ProofStep
from erftheory.symbolic.proof.evidence import ExactPoints, Point, SymbolicIdentity
from erftheory.symbolic.proof.names import equation, h, k, kappa, m, n, p, r, t, total, w, z

_TAPS = (m, 0, k - 1)
_MEAN = total(m * w[m], _TAPS)
_MEAN_NAME: Any = sp.Symbol("mu")  # mean of one step
_CENTRED: Any = m - _MEAN_NAME
_UNIFORM_MEAN = total(m / k, _TAPS)
_DEVIATION = m - (k - 1) / 2
_FIELD = (t, 0, n * (k - 1))


def uniform_variance() -> Any:
    """n(k² − 1)/12, the variance of n uniform steps on 0 … k − 1."""
    return n * (k**2 - 1) / 12


def uniform_fourth_cumulant() -> Any:
    """−n(k⁴ − 1)/120, the fourth cumulant of n uniform steps on 0 … k − 1."""
    return -n * (k**4 - 1) / 120


@cache
def moments() -> Derivation:
    """Moments of the normalised signal, which is the law of a sum of n independent steps.

    S_n = X_1 + … + X_n with P(X = m) = w(m): mean, variance and cumulants to the fourth for
    any kernel w of sum 1, then in closed form for the uniform kernel w = 1/k.

    Source: Luo et al., NIPS 2016, sections 2.1 and 2.3 (mean and variance).
    """
    return Derivation(
        title="Moments of the effective receptive field",
        source="Luo, Li, Urtasun, Zemel, NIPS 2016 (L16), sections 2.1 and 2.3",
        steps=(*_law(), *_cumulants(), *_uniform_law(), *_uniform_moments()),
        key="uniform variance",
    )


def _law() -> tuple[ProofStep, ...]:
    method = "random kernels convolved n times"
    return (
        ProofStep(
            "generating function",
            "The signal is the law of a sum",
            equation(total(p(n, t) * z**t, _FIELD), total(w[m] * z**m, _TAPS) ** n),
            "Convolution multiplies generating functions, as a sum of independent steps does.",
            ExactPoints(method, _kernels),
        ),
        ProofStep(
            "normalisation",
            "The law has mass one",
            equation(total(p(n, t), _FIELD), 1),
            "At z = 1 every factor is the sum of the weights, which is 1.",
            ExactPoints(method, _kernels),
        ),
        ProofStep(
            "mean",
            "Means add",
            equation(total(t * p(n, t), _FIELD), n * _MEAN),
            "The derivative of the n-th power at z = 1 is n times the derivative of one factor.",
            ExactPoints(method, _kernels),
        ),
        ProofStep(
            "variance",
            "Variances of independent steps add",
            equation(
                total((t - n * _MEAN_NAME) ** 2 * p(n, t), _FIELD),
                n * (total(m**2 * w[m], _TAPS) - _MEAN**2),
            ),
            "With mu the mean of one step, products of deviations of different steps average to 0.",
            ExactPoints(method, _kernels),
        ),
    )


def _cumulants() -> tuple[ProofStep, ...]:
    def central(power: int) -> Any:
        return total(_CENTRED**power * w[m], _TAPS)

    method = "power series of the logarithm for random kernels"
    return (
        ProofStep(
            "cumulants",
            "All cumulants add",
            equation(kappa(r, n), n * kappa(r, 1)),
            "The logarithm turns the n-th power of the generating function into a factor n.",
            ExactPoints(f"{method}, r = 1 to 6", _cumulants_of_all_orders),
        ),
        ProofStep(
            "third cumulant",
            "The third cumulant is the third central moment",
            equation(kappa(3, n), n * central(3)),
            "About the mean of one step the logarithm has no other term of order three.",
            ExactPoints(method, _kernels),
        ),
        ProofStep(
            "fourth cumulant",
            "The fourth cumulant",
            equation(kappa(4, n), n * (central(4) - 3 * central(2) ** 2)),
            "The logarithm subtracts half the square of the second-order term.",
            ExactPoints(method, _kernels),
        ),
    )


def _uniform_law() -> tuple[ProofStep, ...]:
    generating = sp.sinh(k * h / 2) / (k * sp.sinh(h / 2))
    series = (k**2 - 1) * h**2 / 24 - (k**4 - 1) * h**4 / 2880 + sp.Order(h**6)
    return (
        ProofStep(
            "uniform generating function",
            "The uniform kernel about its centre",
            equation(total(sp.exp(h * _DEVIATION) / k, _TAPS), generating),
            "A geometric sum again, centred by taking out half of the exponent.",
            SymbolicIdentity("all k and h", half_powers(h)),
        ),
        ProofStep(
            "uniform cumulant series",
            "Its logarithm as a series",
            equation(sp.log(generating), series),
            "Half of the coefficient of the square is the variance, 1/24 of the next is kappa 4.",
            SymbolicIdentity("all k, series in h", reduce=series_of_rest(h)),
        ),
    )


def _uniform_moments() -> tuple[ProofStep, ...]:
    square = total(m**2 / k, _TAPS)
    second, fourth = (total(_DEVIATION**power / k, _TAPS) for power in (2, 4))
    faulhaber = SymbolicIdentity("sums of powers for all n and k", closed_sums, as_ratio)
    return (
        ProofStep(
            "uniform mean",
            "Mean, uniform kernel",
            equation(n * _UNIFORM_MEAN, n * (k - 1) / 2),
            "The mean of 0 to k - 1 is their middle.",
            faulhaber,
        ),
        ProofStep(
            "uniform variance",
            "Variance, uniform kernel",
            equation(n * (square - _UNIFORM_MEAN**2), uniform_variance()),
            "The sum of the first squares, less the square of the mean.",
            faulhaber,
        ),
        ProofStep(
            "uniform third cumulant",
            "No skewness, uniform kernel",
            equation(n * total(_DEVIATION**3, _TAPS) / k, 0),
            "The kernel is symmetric about its middle, so odd central moments vanish.",
            faulhaber,
        ),
        ProofStep(
            "uniform fourth cumulant",
            "Fourth cumulant, uniform kernel",
            equation(n * (fourth - 3 * second**2), uniform_fourth_cumulant()),
            "The sum of fourth powers of the deviations, less three times the squared variance.",
            faulhaber,
        ),
        ProofStep(
            "uniform excess kurtosis",
            "Excess kurtosis, uniform kernel",
            equation(
                (n * (fourth - 3 * second**2)) / (n * second) ** 2,
                -6 * (k**2 + 1) / (5 * n * (k**2 - 1)),
            ),
            "The fourth cumulant over the squared variance; it is negative and falls like 1/n.",
            faulhaber,
        ),
    )


def _kernels() -> Iterator[Point]:
    source = brute.generator(2)
    for depth, kernel in ((1, 2), (1, 5), (2, 3), (3, 3), (4, 2), (3, 4), (5, 3)):
        weights = brute.random_kernel(source, kernel)
        laws = {depth: brute.repeated_convolution(weights, depth), 1: weights}
        yield {
            "n": depth,
            "k": kernel,
            "w": weights,
            "z": brute.random_fraction(source),
            "mu": brute.cumulants(weights, 1)[1],
            "p": lambda layers, at, laws=laws: brute.entry(laws[layers], at),
            "kappa": lambda order, layers, laws=laws: brute.cumulants(laws[layers], order)[order],
        }


def _cumulants_of_all_orders() -> Iterator[Point]:
    for point in _kernels():
        for order in range(1, 7):
            yield {"r": order, **point}
