"""Subsampling: strides multiply the steps of all deeper layers."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from itertools import product
from typing import Any

import sympy as sp

from erftheory.symbolic.helpers.powers import deep_limit, power_ratio
from erftheory.symbolic.helpers.rewrites import as_ratio, geometric_sums
from erftheory.symbolic.proof import brute
from erftheory.symbolic.proof.derivation import Derivation, ProofStep
from erftheory.symbolic.proof.evidence import ExactPoints, Point, SymbolicIdentity
from erftheory.symbolic.proof.names import equation, i, k, m, n, t, total, w, z

STRIDE: Any = sp.Symbol("s", positive=True, integer=True)
_LAYER: Any = sp.Symbol("l", integer=True)  # counted from the input, 0 … n−1
_M: Any = sp.Symbol("M", positive=True, integer=True)  # last output of a layer
_Q: Any = sp.Symbol("q", integer=True)  # output
_ABOVE: Any = sp.Function("G")  # G(q): signal at the outputs of a layer
_BELOW: Any = sp.Function("F")  # F(t): signal at its inputs
_MEANS: Any = sp.symbols("mu nu", real=True)  # of F and G
_FIELD: Any = sp.Function("R")  # R(n): offsets from the first to the last that n layers reach
_SPREAD: Any = sp.Function("V")  # V(n): variance of their offsets
_TAP: Any = sp.Function("U")  # U(l): variance of a tap of layer l
_STRIDES: Any = sp.IndexedBase("s")
_DILATIONS: Any = sp.IndexedBase("d")
_KERNELS: Any = sp.IndexedBase("k")
_JUMP: Any = sp.Product(_STRIDES[i], (i, 0, _LAYER - 1))
_RATIO: Any = (STRIDE ** (2 * n) - 1) / (STRIDE**2 - 1)
_CLOSED_FIELD: Any = 1 + (k - 1) * (STRIDE**n - 1) / (STRIDE - 1)
_CLOSED: Any = (k**2 - 1) / 12 * _RATIO


@cache
def subsampling() -> Derivation:
    """Strides: RF = 1 + Σ (k_l − 1) d_l j_l and variance Σ (d_l j_l)² Var v_l, j_l = Π_{i<l} s_i.

    Layer l, counted from the input, has k_l taps, stride s_l and dilation d_l. With one stride
    s > 1 in each of n equal layers both grow exponentially and in proportion: the effective
    field keeps its share of the theoretical one, and is not a Gaussian at any depth.

    Source: Araujo, Norris, Sim, Distill 2019 (field); Luo et al., NIPS 2016, section 2
    (variance of subsampled nets).
    """
    return Derivation(
        title="Subsampling and the effective receptive field",
        source="Araujo, Norris, Sim, Distill 2019 (A19); Luo et al., NIPS 2016 (L16), section 2",
        steps=(*_one_layer(), *_chain(), *_equal_strides(), *_depth()),
        key="variance",
    )


def _one_layer() -> tuple[ProofStep, ...]:
    taps, outputs = (m, 0, k - 1), (_Q, 0, _M)
    inputs = (t, 0, STRIDE * _M + k - 1)
    mean, above = _MEANS
    centred = total(m**2 * w[m], taps) - total(m * w[m], taps) ** 2
    return (
        ProofStep(
            "one layer",
            "Output q reads the inputs s q + m",
            equation(
                total(_BELOW(t) * z**t, inputs),
                total(_ABOVE(_Q) * z ** (STRIDE * _Q), outputs) * total(w[m] * z**m, taps),
            ),
            "In the generating function z becomes its s-th power, and the kernel multiplies.",
            ExactPoints("impulses run through strided layers", _strided),
        ),
        ProofStep(
            "one variance",
            "The variance from above is multiplied by the squared stride",
            equation(
                total((t - mean) ** 2 * _BELOW(t), inputs),
                STRIDE**2 * total((_Q - above) ** 2 * _ABOVE(_Q), outputs) + centred,
            ),
            "The offset is s times that of the output plus an independent tap.",
            ExactPoints("impulses run through strided layers", _strided),
        ),
    )


def _chain() -> tuple[ProofStep, ...]:
    layers = (_LAYER, 0, n - 1)
    step = _DILATIONS[_LAYER] * _JUMP
    return (
        ProofStep(
            "field",
            "The theoretical field of a chain",
            equation(_FIELD(n), 1 + total((_KERNELS[_LAYER] - 1) * step, layers)),
            "The taps of layer l are d_l j_l input pixels apart; j_l is the product of the "
            "strides below it.",
            ExactPoints("paths listed, random strides, dilations, kernels", _chains),
        ),
        ProofStep(
            "variance",
            "The variance of a chain",
            equation(_SPREAD(n), total(step**2 * _TAP(_LAYER), layers)),
            "Independent steps again, each stretched by its distance of taps.",
            ExactPoints("paths listed, random strides, dilations, kernels", _chains),
        ),
    )


def _equal_strides() -> tuple[ProofStep, ...]:
    layers = (_LAYER, 0, n - 1)
    closed = SymbolicIdentity(
        "geometric sums for all n, k and s", geometric_sums, power_ratio(STRIDE)
    )
    return (
        ProofStep(
            "field of equal layers",
            "Stride s in each of n layers: the field",
            equation(1 + (k - 1) * total(STRIDE**_LAYER, layers), _CLOSED_FIELD),
            "The jump of layer l is the l-th power of s.",
            closed,
        ),
        ProofStep(
            "variance of equal layers",
            "and the variance",
            equation(total((k**2 - 1) / 12 * STRIDE ** (2 * _LAYER), layers), _CLOSED),
            "Uniform kernels, and the squares of the jumps.",
            closed,
        ),
        ProofStep(
            "no stride",
            "Without strides the stack of n layers is back",
            equation(
                total((k**2 - 1) / 12 * sp.Subs(STRIDE ** (2 * _LAYER), STRIDE, 1), layers),
                n * (k**2 - 1) / 12,
            ),
            "At s = 1 all n terms of the sum are equal.",
            SymbolicIdentity("all n and k", reduce=sp.expand),
        ),
    )


def _depth() -> tuple[ProofStep, ...]:
    last = STRIDE ** (2 * n - 2) / _RATIO
    fourth = -(k**4 - 1) / 120 * (STRIDE ** (4 * n) - 1) / (STRIDE**4 - 1)
    limit = SymbolicIdentity("limit for all k and s > 1", deep_limit(STRIDE), as_ratio)
    kept = (k + 1) * (STRIDE - 1) / (12 * (k - 1) * (STRIDE + 1))
    excess = -6 * (k**2 + 1) * (STRIDE**2 - 1) / (5 * (k**2 - 1) * (STRIDE**2 + 1))
    return (
        ProofStep(
            "last layer",
            "The deepest layer dominates",
            equation(sp.Limit(last, n, sp.oo), 1 - 1 / STRIDE**2),
            "Its share of the variance does not vanish with depth: 3/4 for strides of 2.",
            limit,
        ),
        ProofStep(
            "share of the field",
            "The effective field keeps its share of the theoretical one",
            equation(sp.Limit(_CLOSED / _CLOSED_FIELD**2, n, sp.oo), kept),
            "Squares of both grow like powers of s; without strides the share would vanish.",
            limit,
        ),
        ProofStep(
            "excess kurtosis",
            "It does not become a Gaussian",
            equation(sp.Limit(fourth / _CLOSED**2, n, sp.oo), excess),
            "The fourth cumulants are stretched by fourth powers; the last few layers decide the "
            "shape.",
            limit,
        ),
    )


def _strided() -> Iterator[Point]:
    """Random outputs pulled back by running the layer forwards on an impulse at each input."""
    source = brute.generator(51)
    for stride in (1, 2, 3):
        for size in (1, 2, 3, 5):
            kernel = brute.random_kernel(source, size)
            above = brute.random_kernel(source, 4)
            length = stride * 3 + size
            below = []
            for pixel in range(length):
                read = [
                    sum(kernel[tap] * (stride * out + tap == pixel) for tap in range(size))
                    for out in range(4)
                ]
                below.append(sum((g * y for g, y in zip(above, read)), Fraction(0)))
            yield {
                "k": size,
                "s": stride,
                "M": 3,
                "w": kernel,
                "z": brute.random_fraction(source),
                "mu": brute.cumulants(below, 1)[1],
                "nu": brute.cumulants(above, 1)[1],
                "F": lambda at, row=below: brute.entry(row, at),
                "G": lambda at, row=above: brute.entry(row, at),
            }


def _chains() -> Iterator[Point]:
    source = brute.generator(52)
    for depth in (1, 1, 2, 2, 3, 3, 4):
        sizes, strides, dilations = ([source.randint(1, 3) for _ in range(depth)] for _ in range(3))
        kernels = [brute.random_kernel(source, size) for size in sizes]
        laws = {n: _path_law(kernels[:n], strides, dilations) for n in range(1, depth + 1)}
        yield {
            "n": depth,
            "k": sizes,
            "s": strides,
            "d": dilations,
            "R": lambda n, laws=laws: len(laws[n]),
            "V": lambda n, laws=laws: brute.cumulants(laws[n], 2)[2],
            "U": lambda layer, rows=kernels: brute.cumulants(rows[layer], 2)[2],
        }


def _path_law(kernels: Any, strides: list[int], dilations: list[int]) -> list[Fraction]:
    """Chances of the input offsets of output 0, by listing one tap a layer."""
    law: dict[int, Fraction] = {}
    for taps in product(*(range(len(kernel)) for kernel in kernels)):
        place, chance = 0, Fraction(1)
        for layer in reversed(range(len(kernels))):
            # from the output downwards: this output's own input, then a tap
            place = strides[layer] * place + dilations[layer] * taps[layer]
            chance *= kernels[layer][taps[layer]]
        law[place] = law.get(place, Fraction(0)) + chance
    return [law.get(at, Fraction(0)) for at in range(max(law) + 1)]
