"""How the effective receptive field grows with depth and kernel, beside the theoretical one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import sympy as sp

from erftheory.symbolic.proof import brute
from erftheory.symbolic.proof.derivation import Derivation, ProofStep
from erftheory.symbolic.proof.evidence import ExactPoints, Point, SymbolicIdentity
from erftheory.symbolic.proof.names import equation, k, m, n, sigma, tau, theta, total, x
from erftheory.symbolic.topics.moments import uniform_variance

_FIELD: Any = sp.Function("R")  # R(n, k): offsets that n layers reach
_REACH = n * (k - 1) + 1
_STD: Any = sp.sqrt(uniform_variance())
_RADIUS = sigma * sp.sqrt(2 * sp.log(1 / tau))
LUO_THRESHOLD = 1 - sp.Rational(9545, 10000)  # L16's level, relative to the centre


@cache
def growth() -> Derivation:
    """The effective field grows like k√n, the theoretical one like k·n.

    std = √(n(k²−1)/12), RF = n(k−1) + 1, so std/RF → 0 like 1/√n; and the size that L16
    counts, the pixels above a share τ of the centre value, in standard deviations of a Gaussian.

    Source: Luo et al., NIPS 2016, sections 2.1 and 3.
    """
    return Derivation(
        title="Growth of the effective and the theoretical receptive field",
        source="Luo, Li, Urtasun, Zemel, NIPS 2016 (L16), sections 2.1 and 3",
        steps=(*_sizes(), *_depth(), *_kernel(), *_level_sets()),
        key="vanishing share",
    )


def _sizes() -> tuple[ProofStep, ...]:
    mean, square = (total(m**power / k, (m, 0, k - 1)) for power in (1, 2))
    return (
        ProofStep(
            "standard deviation",
            "The effective size grows like the square root of depth",
            equation(sp.sqrt(n * (square - mean**2)), _STD),
            "The variances of n uniform steps add.",
            SymbolicIdentity("sums of powers for all n and k", reduce=_roots),
        ),
        ProofStep(
            "theoretical field",
            "The theoretical size grows like depth",
            equation(_FIELD(n, k), _REACH),
            "Each layer reaches k - 1 offsets further, and uniform kernels leave none out.",
            ExactPoints("offsets with a path counted", _reached),
        ),
    )


def _depth() -> tuple[ProofStep, ...]:
    share = _STD / _REACH
    limit = SymbolicIdentity("limit for all k", reduce=_roots)
    return (
        ProofStep(
            "vanishing share",
            "The effective share of the field vanishes",
            equation(sp.Limit(share, n, sp.oo), 0),
            "A square root over a line.",
            limit,
        ),
        ProofStep(
            "rate",
            "It vanishes like one over the square root of depth",
            equation(sp.Limit(sp.sqrt(n) * share, n, sp.oo), sp.sqrt((k + 1) / (12 * (k - 1)))),
            "The factor left for kernels of more than one tap; it falls to 1/√12 for large ones.",
            limit,
        ),
        ProofStep(
            "exponent of the size",
            "The exponent of the standard deviation",
            equation(n * sp.Derivative(sp.log(_STD), n), sp.Rational(1, 2)),
            "The slope in log-log axes is one half at every depth, not only in the limit.",
            SymbolicIdentity("all n and k"),
        ),
        ProofStep(
            "exponent of the share",
            "The exponent of the share",
            equation(sp.Limit(n * sp.Derivative(sp.log(share), n), n, sp.oo), -sp.Rational(1, 2)),
            "The slope of the theoretical size tends to one, so that of the share to minus half.",
            limit,
        ),
    )


def _kernel() -> tuple[ProofStep, ...]:
    single = uniform_variance().subs({k: _REACH, n: 1}, simultaneous=True)
    return (
        ProofStep(
            "width",
            "Wide kernels count in proportion",
            equation(sp.Limit(_STD / (k * sp.sqrt(n)), k, sp.oo), 1 / sp.sqrt(12)),
            "A wide uniform kernel is a continuous one, of variance 1/12 of its squared width.",
            SymbolicIdentity("limit for all n"),
        ),
        ProofStep(
            "one large kernel",
            "One large kernel against a stack with the same field",
            equation(single / uniform_variance(), (_REACH + 1) / (k + 1)),
            "The ratio of variances of one kernel as wide as the field and of n layers of k taps.",
            SymbolicIdentity("all n and k"),
        ),
    )


def _level_sets() -> tuple[ProofStep, ...]:
    radius = sp.Symbol("r", positive=True)
    disc = sp.Integral(radius, (radius, 0, _RADIUS), (theta, 0, 2 * sp.pi))
    sizes = {ndim: size.subs({sigma: 1, tau: LUO_THRESHOLD}) for ndim, size in _SIZES.items()}
    written = SymbolicIdentity("all σ and τ below 1", reduce=_logarithms)
    decimals = SymbolicIdentity("the integer part decided")
    with sp.evaluate(False):  # SymPy would write the conclusion, tau = tau
        fallen = sp.exp(-(_RADIUS**2) / (2 * sigma**2))
    return (
        ProofStep(
            "level",
            "Where a Gaussian has fallen to the share tau of its centre",
            equation(fallen, tau),
            "The radius solves for the level; L16 takes tau = 1 - 0.9545.",
            written,
        ),
        ProofStep(
            "size in 1-D",
            "The size in one dimension",
            equation(sp.Integral(1, (x, -_RADIUS, _RADIUS)), _SIZES[1]),
            "The pixels above the level fill the interval between both radii.",
            written,
        ),
        ProofStep(
            "size in 2-D",
            "The size in two dimensions",
            equation(sp.sqrt(disc), _SIZES[2]),
            "The pixels above the level fill a disc, and the size is the root of their count.",
            written,
        ),
        ProofStep(
            "digits in 1-D",
            "In one dimension about 4.97 standard deviations",
            equation(sp.floor(10**6 * sizes[1], evaluate=False), 4971955),
            "The size in millionths of a standard deviation at L16's level.",
            decimals,
        ),
        ProofStep(
            "digits in 2-D",
            "In two dimensions about 4.41 standard deviations",
            equation(sp.floor(10**6 * sizes[2], evaluate=False), 4406281),
            "The size in millionths of a standard deviation at L16's level.",
            decimals,
        ),
    )


_SIZES: dict[int, Any] = {
    1: 2 * sigma * sp.sqrt(2 * sp.log(1 / tau)),
    2: sigma * sp.sqrt(2 * sp.pi * sp.log(1 / tau)),
}


def _roots(residual: Any) -> Any:
    """Simplified under k > 1, where all the roots are real."""
    beyond = sp.Symbol("b", positive=True, integer=True)
    return sp.simplify(sp.simplify(residual).subs(k, beyond + 1))


def _logarithms(residual: Any) -> Any:
    """Simplified under τ = e^{−a} < 1, where the logarithms are positive."""
    return sp.simplify(residual.subs(tau, sp.exp(-sp.Symbol("a", positive=True))))


def _reached() -> Iterator[Point]:
    def count(depth: int, kernel: int) -> int:
        return sum(value > 0 for value in brute.repeated_convolution((1,) * kernel, depth))

    for depth in (1, 2, 3, 5, 8, 13):
        for kernel in range(1, 7):
            yield {"n": depth, "k": kernel, "R": count}
