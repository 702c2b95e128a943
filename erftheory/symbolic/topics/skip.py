"""Residual nets: what an identity does to each block, and the growth of a normalised trunk."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from math import comb
from typing import Any

import sympy as sp

from erftheory.symbolic.helpers.hermite import NORMAL
from erftheory.symbolic.helpers.rewrites import as_ratio, in_depth
from erftheory.symbolic.proof import brute
from erftheory.symbolic.proof.derivation import Derivation, ProofStep
from erftheory.symbolic.proof.evidence import (
    ExactPoints,
    Induction,
    Point,
    SymbolicIdentity,
)
from erftheory.symbolic.proof.names import equation, h, j, k, m, n, p, sigma, t, total, w, x, z

ALPHA: Any = sp.Symbol("alpha", positive=True)  # power of the branch over that of the identity
CONVOLUTIONS: Any = sp.Symbol("c", positive=True, integer=True)  # of one branch
BLOCK: Any = sp.Symbol("l", nonnegative=True, integer=True)  # blocks before this one
_MEAN: Any = sp.Symbol("mu", real=True)  # mean of one branch step
_KEPT: Any = 1 - 1 / sp.pi  # channel variance of a He convolution of rectified N(0, 1) units
_TRUNK: Any = 1 + _KEPT * BLOCK
_GAIN: Any = _KEPT ** (1 - CONVOLUTIONS) / _TRUNK
_RATE: Any = _KEPT**-CONVOLUTIONS
_START: Any = 1 / _KEPT + _RATE
_SHARE: Any = _RATE / (BLOCK + _START)
_VARIANCE: Any = CONVOLUTIONS * sigma**2 * _RATE * (sp.digamma(n + _START) - sp.digamma(_START))


@cache
def skip() -> Derivation:
    """Residual nets: one block is a mixture, and batch norm makes the variance grow like log n.

    A block of branch/identity power α maps the signal by (1 + αv)/(1 + α). In a pre-activation
    net of c × (batch norm, ReLU, He convolution) a block, block l has
    α = (1−1/π)^(1−c)/(1 + (1−1/π)l); the shares α/(1+α) sum to a difference of digammas.
    σ² is the variance of one convolution's step, in squared pixels; channels and inputs are many.

    Source: De & Smith, NeurIPS 2020, section 3 (growth of the trunk's variance); Luo et al.,
    NIPS 2016, section 2 (skip connections).
    """
    return Derivation(
        title="The effective receptive field of residual nets",
        source="De & Smith, NeurIPS 2020, section 3; Luo, Li, Urtasun, Zemel, NIPS 2016 (L16)",
        steps=(*_mixture(), *_rectified(), *_gains(), *_sums(), *_depth()),
        key="variance",
    )


def _mixture() -> tuple[ProofStep, ...]:
    field, taps = (t, 0, n * (k - 1)), (m, 0, k - 1)
    walk = (1 + ALPHA * total(w[m] * z**m, taps)) / (1 + ALPHA)
    branch = 1 + _MEAN * h + (sigma**2 + _MEAN**2) * h**2 / 2
    generating = sp.log((1 + ALPHA * branch) / (1 + ALPHA))
    second = sp.Subs(sp.Derivative(generating, (h, 2)), h, 0)
    spread = ALPHA * sigma**2 / (1 + ALPHA) + ALPHA * _MEAN**2 / (1 + ALPHA) ** 2
    return (
        ProofStep(
            "mixture",
            "A block is a mixture of its identity and its branch",
            equation(total(p(n, t) * z**t, field), walk**n),
            "Where both read one signal their powers add; scaled to mass 1 they are the "
            "probabilities of a step that stays or takes the branch.",
            ExactPoints("sums over all subsets of blocks", _subsets),
        ),
        ProofStep(
            "block variance",
            "The variance of one block",
            equation(second, spread),
            "The second derivative of the logarithm; a branch off centre adds variance because "
            "the identity stays.",
            SymbolicIdentity("all alpha, mean and variance"),
        ),
        ProofStep(
            "centred block",
            "A centred branch counts with its share alpha/(1 + alpha)",
            equation(sp.Subs(second, _MEAN, 0), ALPHA / (1 + ALPHA) * sigma**2),
            "Of a plain layer's variance a residual block has the share of its branch.",
            SymbolicIdentity("all alpha and variances"),
        ),
    )


def _rectified() -> tuple[ProofStep, ...]:
    first, square, gate = (sp.Integral(x**power * NORMAL, (x, 0, sp.oo)) for power in (1, 2, 0))
    integral = SymbolicIdentity("integral over the half line")
    return (
        ProofStep(
            "rectified mean",
            "The mean of a rectified standard unit",
            equation(first, 1 / sp.sqrt(2 * sp.pi)),
            "Batch norm hands the ReLU units of mean 0 and variance 1, Gaussian in wide nets.",
            integral,
        ),
        ProofStep(
            "rectified square",
            "Its mean square",
            equation(square, sp.Rational(1, 2)),
            "Half of the symmetric law is kept.",
            integral,
        ),
        ProofStep(
            "backward",
            "A ReLU and a He convolution keep a gradient's power",
            equation(2 * gate, 1),
            "He's weights have 2 over the fan as variance, and half of the gates are open.",
            integral,
        ),
        ProofStep(
            "channel variance",
            "A He convolution of rectified units varies by 1 - 1/pi inside a channel",
            equation(2 * square - 2 * first**2, _KEPT),
            "Weights of mean square 2 over the fan give each channel the mean square 2 E[r^2]; "
            "2 E[r]^2 of it is the channel's own mean, which batch norm takes out.",
            integral,
        ),
    )


def _gains() -> tuple[ProofStep, ...]:
    inner = sp.Product(1 / _KEPT, (j, 1, CONVOLUTIONS - 1))
    closed = SymbolicIdentity("all block numbers and branch lengths")
    return (
        ProofStep(
            "trunk",
            "The trunk's variance grows by the same amount at each block",
            equation(1 + total(_KEPT, (j, 0, BLOCK - 1)), _TRUNK),
            "From a normalised start of variance 1; the branch's weights have mean 0, so its "
            "variance adds to that of the trunk.",
            SymbolicIdentity("all block numbers"),
        ),
        ProofStep(
            "gain",
            "Power of the branch over that of the identity",
            equation(inner / _TRUNK, _GAIN),
            "Each batch norm divides power by the variance that it meets: the trunk's at first, "
            "1 - 1/pi behind each inner convolution.",
            closed,
        ),
        ProofStep(
            "share",
            "The share of the branch falls like one over depth",
            equation(_GAIN / (1 + _GAIN), _SHARE),
            "Blocks drift towards the identity, the deeper the more.",
            closed,
        ),
    )


def _sums() -> tuple[ProofStep, ...]:
    return (
        ProofStep(
            "variance",
            "The variance of n blocks",
            equation(
                CONVOLUTIONS * sigma**2 * total(_GAIN / (1 + _GAIN), (BLOCK, 0, n - 1)), _VARIANCE
            ),
            "Variances add along the walk, c steps a branch; shares of one over a line sum to a "
            "difference of digammas, as the recurrence of the digamma shows.",
            Induction("induction over n, for all branch lengths", sp.expand, _recurrence),
        ),
    )


def _depth() -> tuple[ProofStep, ...]:
    rate = CONVOLUTIONS * sigma**2 * _RATE
    plain = CONVOLUTIONS * sigma**2 * n
    limit = SymbolicIdentity("limit for all branch lengths", in_depth(_limit_of_digammas))
    return (
        ProofStep(
            "logarithm",
            "It grows like the logarithm of depth",
            equation(sp.Limit(_VARIANCE / sp.log(n), n, sp.oo), rate),
            "The digamma is asymptotically the logarithm.",
            limit,
        ),
        ProofStep(
            "doubling",
            "Twice the depth adds a constant variance",
            equation(sp.Limit(_VARIANCE.subs(n, 2 * n) - _VARIANCE, n, sp.oo), rate * sp.log(2)),
            "The difference of two logarithms.",
            limit,
        ),
        ProofStep(
            "radius",
            "The radius grows like the square root of log depth",
            equation(sp.Limit(sp.sqrt(_VARIANCE / sp.log(n)), n, sp.oo), sp.sqrt(rate)),
            "The radius is the standard deviation, in pixels an axis.",
            limit,
        ),
        ProofStep(
            "against a stack",
            "Its share of a plain stack's variance vanishes",
            equation(sp.Limit(_VARIANCE / plain, n, sp.oo), 0),
            "A plain stack of the same convolutions has c n times the variance of a step.",
            limit,
        ),
    )


def _recurrence(residual: Any) -> Any:
    """Digammas by ψ(x + 1) = ψ(x) + 1/x, then a rational function of names for the constants."""
    kept, inner = sp.symbols("q q_c", positive=True)
    named = sp.expand_func(residual).subs(_KEPT, kept).subs(sp.pi, 1 / (1 - kept))
    named = sp.expand_power_exp(named).subs(kept**CONVOLUTIONS, inner)
    return as_ratio(named)


def _limit_of_digammas(function: Any) -> Any:
    """The limit for n → ∞, with the offset inside the digammas as one positive name."""
    offset, kept = sp.Symbol("b", positive=True), sp.Symbol("q", positive=True)
    found = sp.limit(function.subs(_START, offset).subs(_KEPT, kept), n, sp.oo)
    return found.subs(offset, _START).subs(kept, _KEPT)


def _subsets() -> Iterator[Point]:
    """Laws summed over how many of the blocks take their branch."""
    source = brute.generator(11)
    for depth in (1, 2, 4, 7):
        for size in (1, 2, 3, 5):
            kernel = brute.random_kernel(source, size)
            ratio = 5 * brute.random_fraction(source)
            signals = [brute.repeated_convolution(kernel, taken) for taken in range(depth + 1)]

            def law(
                blocks: int, offset: int, signals: Any = signals, ratio: Fraction = ratio
            ) -> Fraction:
                chosen = (
                    comb(blocks, taken) * ratio**taken * brute.entry(signals[taken], offset)
                    for taken in range(blocks + 1)
                )
                return sum(chosen, Fraction(0)) / (1 + ratio) ** blocks

            for _ in range(2):
                yield {
                    "n": depth,
                    "k": size,
                    "w": kernel,
                    "alpha": ratio,
                    "z": brute.random_fraction(source),
                    "p": law,
                }
