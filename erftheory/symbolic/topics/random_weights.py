"""Random weights: E g = 0, and E g² is the convolution of the variances of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import sympy as sp

from erftheory.symbolic.helpers import linear_nets
from erftheory.symbolic.proof import brute
from erftheory.symbolic.proof.derivation import Derivation, ProofStep
from erftheory.symbolic.proof.evidence import ExactPoints, Point, SymbolicIdentity
from erftheory.symbolic.proof.names import equation, i, k, m, n, o, t, total, z

_A, _B = sp.symbols("a b", integer=True)  # taps
_P, _Q = sp.symbols("p q", integer=True)  # pixels
_D: Any = sp.Symbol("d", integer=True)  # distance of two taps
_LAYER: Any = sp.Symbol("l", integer=True)  # counted from the output
_ANY: Any = sp.Symbol("L", nonnegative=True, integer=True)  # layers, or none
_ATOMS: Any = sp.Symbol("N", positive=True, integer=True)  # filters of a law; channels
_CHANCE: Any = sp.Function("P")  # P(i): of the i-th filter of a law
_WEIGHT: Any = sp.Function("w")  # w(m), or w(i, m) in the i-th filter
_VARIANCE: Any = sp.Function("V")  # V(l, m): variance of the weight at tap m of layer l
_GRADIENT: Any = sp.Function("g")  # g(n, p): of n layers with respect to their input at p
_MEAN: Any = sp.Function("A")  # A(n, p): mean of g(n, p) over the weights
_PRODUCT: Any = sp.Function("C")  # C(n, p, q): mean of g(n, p) g(n, q)
_WIDE: Any = sp.Function("S")  # S(n, p): mean square with N hidden channels
_ONE_FIXED: Any = sp.Function("B")  # mean square below a fixed layer f
_TWO_FIXED: Any = sp.Function("D")  # mean square below fixed layers, h and then f
_F, _H = sp.Function("f"), sp.Function("h")
_TAPS = (m, 0, k - 1)


@cache
def random_weights() -> Derivation:
    """E g = 0 and E g² = the convolution of the weights' variances, in linear nets of any width.

    All weights are independent of mean 0; layer l has variances V(l, m) at its taps and uses one
    filter at all pixels (weight sharing). g(n, p) is the gradient of the output unit of n layers
    with respect to input pixel p. A fixed layer, say an average pool, counts with its squared
    weights; fixed layers next to each other are composed first and squared afterwards.

    Source: Luo et al., NIPS 2016, section 2.2 (random weights); fixed layers: own.
    """
    return Derivation(
        title="The mean squared gradient of random weights",
        source="Luo, Li, Urtasun, Zemel, NIPS 2016 (L16), section 2.2",
        steps=(*_layer(), *_induction(), *_conclusions(), *_fixed(), *_pools()),
        key="convolution",
    )


def _layer() -> tuple[ProofStep, ...]:
    law = total(_CHANCE(i) * _WEIGHT(i, _A) * _WEIGHT(i, _B), (i, 0, _ATOMS - 1))
    return (
        ProofStep(
            "gradient",
            "The gradient goes back through one layer",
            equation(_GRADIENT(n, _P), total(_WEIGHT(m) * _GRADIENT(n - 1, _P - m), _TAPS)),
            "Pixel p - m of the layer reads pixel p by the weight m, the same at all pixels.",
            ExactPoints("impulses run through random nets", linear_nets.drawn),
        ),
        ProofStep(
            "mean",
            "The mean gradient is zero behind any layer",
            equation(_MEAN(_ANY, _P), sp.KroneckerDelta(_ANY, 0) * sp.KroneckerDelta(_P, 0)),
            "Every path has a factor of mean 0 that is independent of its other factors.",
            ExactPoints("all nets of small skew weights", linear_nets.pixel_pairs),
        ),
        ProofStep(
            "products of weights",
            "Two weights of a filter have mean product zero",
            equation(law, _VARIANCE(_A) * sp.KroneckerDelta(_A, _B)),
            "They are independent of mean 0, unless they are one and the same weight.",
            ExactPoints("laws of independent skew entries, all taps", linear_nets.filter_laws),
        ),
    )


def _induction() -> tuple[ProofStep, ...]:
    law = total(_CHANCE(i) * _WEIGHT(i, _A) * _WEIGHT(i, _B), (i, 0, _ATOMS - 1))
    shared = law * _PRODUCT(n - 1, _P - _A, _Q - _B)
    diagonal = _VARIANCE(n, m) * _PRODUCT(n - 1, _P - m, _P - m)
    enumerated = ExactPoints("all nets of small skew weights, all p, q", linear_nets.layer_pairs)
    return (
        ProofStep(
            "shared weights",
            "Two pixels read the same filter",
            equation(_PRODUCT(n, _P, _Q), total(total(shared, (_A, 0, k - 1)), (_B, 0, k - 1))),
            "The filter is independent of the layers above; it enters twice, with all pairs of "
            "taps.",
            enumerated,
        ),
        ProofStep(
            "uncorrelated pixels",
            "Different pixels stay uncorrelated",
            equation(_PRODUCT(n, _P, _Q), sp.KroneckerDelta(_P, _Q) * _PRODUCT(n, _P, _P)),
            "Equal taps lead from different pixels to different pixels, uncorrelated by "
            "induction; at the output there is one.",
            ExactPoints("all nets of small skew weights, all p, q", linear_nets.pixel_pairs),
        ),
        ProofStep(
            "squares",
            "One layer convolves the squares with its variances",
            equation(_PRODUCT(n, _P, _P), total(diagonal, _TAPS)),
            "Of all pairs of taps those of equal taps are left.",
            enumerated,
        ),
    )


def _conclusions() -> tuple[ProofStep, ...]:
    field = (_P, 0, n * (k - 1))
    layer = total(_VARIANCE(_LAYER, m) * z**m, _TAPS)
    return (
        ProofStep(
            "convolution",
            "The mean squared gradient is the convolution of the variances",
            equation(total(_PRODUCT(n, _P, _P) * z**_P, field), sp.Product(layer, (_LAYER, 1, n))),
            "Each layer multiplies the generating function by that of its variances.",
            ExactPoints("all nets of small skew weights, random z", linear_nets.marks),
        ),
        ProofStep(
            "width",
            "Hidden channels only scale it",
            equation(
                total(_WIDE(n, _P) * z**_P, field),
                _ATOMS ** (n - 1) * total(_VARIANCE(m) * z**m, _TAPS) ** n,
            ),
            "Filters of different channels are independent, so squares add over the N channels "
            "between two layers.",
            ExactPoints("all nets of up to 3 channels, random z", linear_nets.wide_nets),
        ),
    )


def _fixed() -> tuple[ProofStep, ...]:
    inner = total(_F(_A) * _H(m - _A), (_A, 0, k - 1))
    composed = (m, 0, 2 * (k - 1))
    overlap = {f: total(f(_A) * f(_A + _D), (_A, 0, k - 1)) for f in (_F, _H)}
    squares = total(_F(m) ** 2, _TAPS) * total(_H(m) ** 2, _TAPS)
    return (
        ProofStep(
            "fixed layer",
            "A fixed layer counts with its squared weights",
            equation(_ONE_FIXED(n, _P), total(_F(m) ** 2 * _PRODUCT(n, _P - m, _P - m), _TAPS)),
            "Behind a random layer pixels are uncorrelated, so no cross terms are left.",
            ExactPoints("all nets above random fixed layers", linear_nets.fixed_layers),
        ),
        ProofStep(
            "two fixed layers",
            "Neighbouring fixed layers are composed before they are squared",
            equation(_TWO_FIXED(n, _P), total(inner**2 * _PRODUCT(n, _P - m, _P - m), composed)),
            "The upper one, h, leaves its pixels correlated; both together are one fixed layer.",
            ExactPoints("all nets above random fixed layers", linear_nets.fixed_layers),
        ),
        ProofStep(
            "missing power",
            "Squaring each of them misses the overlaps",
            equation(
                total(inner**2, composed) - squares,
                2 * total(overlap[_F] * overlap[_H], (_D, 1, k - 1)),
            ),
            "The power lost is that of pairs of different paths between the same ends.",
            ExactPoints("random fixed kernels", linear_nets.fixed_pairs),
        ),
    )


def _pools() -> tuple[ProofStep, ...]:
    field = (t, 0, 2 * (k - 1))
    power = total(o(2, t) ** 2, field)
    spread = total((t - (k - 1)) ** 2 * o(2, t) ** 2, field) / power
    listed = ExactPoints("listed paths of two layers", _two_layers)
    composed = (k**4 - 1) / (5 * (2 * k**2 + 1))
    return (
        ProofStep(
            "power of two average pools",
            "Two average pools in a row carry more power than their squares",
            equation(power / k**2, (2 * k**2 + 1) / (3 * k)),
            "The paths to the pixels form a triangle; its squares are summed, relative to the "
            "square of one path a pair of taps.",
            listed,
        ),
        ProofStep(
            "variance of two average pools",
            "and less variance",
            equation(spread, composed),
            "The squared triangle is narrower than the triangle.",
            listed,
        ),
        ProofStep(
            "share of the variance",
            "For wide pools three fifths of what squares alone would give",
            equation(sp.Limit(composed / ((k**2 - 1) / 6), k, sp.oo), sp.Rational(3, 5)),
            "Each pool's squares alone have variance (k^2 - 1)/12.",
            SymbolicIdentity("limit of a rational function"),
        ),
    )


def _two_layers() -> Iterator[Point]:
    for kernel in range(1, 9):
        yield {"k": kernel, "o": lambda layers, at, k=kernel: brute.path_count(layers, k, at)}
