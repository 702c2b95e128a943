"""Dropout: a scale on the mean squared gradient; between fixed layers an incoherent part."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from typing import Any

import sympy as sp

from erftheory.symbolic.proof import brute
from erftheory.symbolic.proof.derivation import Derivation, ProofStep
from erftheory.symbolic.proof.evidence import ExactPoints, Point, SymbolicIdentity
from erftheory.symbolic.proof.names import equation, i, j, k, m, n, p, t, total, z

RATE: Any = sp.Symbol("rho", positive=True)  # of units that are dropped
_P, _Q = sp.symbols("p q", integer=True)  # pixels
_MASKS: Any = sp.Function("M")  # M(p, q): mean of the product of two units' masks
_VARIANCE: Any = sp.Function("V")  # V(m): variance of the weight at tap m
_PRODUCT: Any = sp.Function("C")  # C(n, p, q): mean of g(n, p) g(n, q)
_SQUARE: Any = sp.Function("B")  # B(p): mean square of g(p) with fixed layers alone
_F, _H = sp.Function("f"), sp.Function("h")
_TAPS = (m, 0, k - 1)


@cache
def dropout() -> Derivation:
    """Dropout of rate ρ multiplies E g² by 1/(1 − ρ) and leaves its shape, behind random layers.

    A unit is dropped with probability ρ, or else multiplied by 1/(1 − ρ), independently of all
    others. The net alternates dropout and a convolution with independent weights of mean 0 and
    variances V(m); C(n, p, q) is the mean of g(p) g(q) over weights and masks. Between two fixed
    layers dropout does change the shape, as it breaks up the pixels' correlation.

    Source: own; the effect of dropout on the shape is in Luo et al., NIPS 2016, section 2.
    """
    return Derivation(
        title="Dropout scales the effective receptive field",
        source="own; compare Luo, Li, Urtasun, Zemel, NIPS 2016 (L16), section 2",
        steps=(*_mask(), *_nets(), *_between()),
        key="share",
    )


def _mask() -> tuple[ProofStep, ...]:
    chance = RATE ** (1 - i) * (1 - RATE) ** i
    means = SymbolicIdentity("both values of a mask, all rates")
    return (
        ProofStep(
            "mean of a mask",
            "A mask has mean one",
            equation(total(chance * (i / (1 - RATE)), (i, 0, 1)), 1),
            "Units that are kept make up for those that are dropped.",
            means,
        ),
        ProofStep(
            "square of a mask",
            "Its mean square is above one",
            equation(total(chance * (i / (1 - RATE)) ** 2, (i, 0, 1)), 1 / (1 - RATE)),
            "The square of the factor outweighs the share of units kept.",
            means,
        ),
        ProofStep(
            "two masks",
            "Masks of different units are independent",
            equation(_MASKS(_P, _Q), 1 + sp.KroneckerDelta(_P, _Q) * RATE / (1 - RATE)),
            "Only a unit with itself has more than the product of the means.",
            ExactPoints("all masks of four units", _mask_pairs),
        ),
    )


def _nets() -> tuple[ProofStep, ...]:
    behind = total(_VARIANCE(m) * _PRODUCT(n - 1, _P - m, _P - m), _TAPS)
    field = (t, 0, n * (k - 1))
    square = _PRODUCT(n, t, t)
    method = "all weights and masks of small nets"
    return (
        ProofStep(
            "layer",
            "Different pixels stay uncorrelated, and squares get the factor",
            equation(_PRODUCT(n, _P, _Q), sp.KroneckerDelta(_P, _Q) * behind / (1 - RATE)),
            "Behind a random layer only equal pixels correlate, and there the mask is squared.",
            ExactPoints(method, _pixel_pairs),
        ),
        ProofStep(
            "generating function",
            "n layers have the factor n times",
            equation(
                total(square * z**t, field),
                (1 - RATE) ** (-n) * total(_VARIANCE(m) * z**m, _TAPS) ** n,
            ),
            "The convolution of the variances, as without dropout, times a number.",
            ExactPoints(f"{method}, random z", _marks),
        ),
        ProofStep(
            "share",
            "Each pixel keeps its share",
            equation(square / total(_PRODUCT(n, j, j), (j, 0, n * (k - 1))), p(n, t)),
            "The factor cancels; p is the law of the walk whose steps have the shares of the "
            "variances.",
            ExactPoints(f"{method}, all t", _shares),
        ),
    )


def _between() -> tuple[ProofStep, ...]:
    first, last = (m, 0, k - 1), (0, k - 1)
    composed = total(_F(m) * _H(_P - m), first) ** 2
    alone = total(_F(m) ** 2 * _H(_P - m) ** 2, first)
    mass = total(_SQUARE(_P), (_P, 0, 2 * (k - 1)))
    squares = total(_F(i) ** 2, (i, *last)) * total(_H(j) ** 2, (j, *last))
    coherent = total(total(_F(m) * _H(_P - m), first) ** 2, (_P, 0, 2 * (k - 1)))
    method = "all masks between random fixed kernels"
    return (
        ProofStep(
            "between fixed layers",
            "Between two fixed layers it adds the squares of single paths",
            equation(_SQUARE(_P), composed + RATE / (1 - RATE) * alone),
            "Paths through different units keep their coherent sum, on average; each path alone "
            "gains the variance of its mask.",
            ExactPoints(f"{method}, all p", _fixed_pixels),
        ),
        ProofStep(
            "power between fixed layers",
            "So the shape changes: only the incoherent part has the factor",
            equation((1 - RATE) * mass, (1 - RATE) * coherent + RATE * squares),
            "As the rate tends to one, squares alone are left, as if the layers were random.",
            ExactPoints(method, _fixed_pairs),
        ),
    )


_RATES = (Fraction(1, 2), Fraction(1, 5))
_SHAPES = ((1, 2), (1, 3), (2, 2), (2, 1), (3, 1))  # layers, taps


def _masks(units: int, rate: Fraction) -> Iterator[tuple[tuple[Fraction, ...], Fraction]]:
    """All masks of `units` and their chances."""
    for kept in itertools.product((0, 1), repeat=units):
        chance = rate ** (units - sum(kept)) * (1 - rate) ** sum(kept)
        yield tuple(one / (1 - rate) for one in kept), chance


def _mask_pairs() -> Iterator[Point]:
    for rate in _RATES:
        masks = list(_masks(4, rate))

        def mean(one: int, other: int, masks: Any = masks) -> Fraction:
            return sum((c * mask[one] * mask[other] for mask, c in masks), Fraction(0))

        for one, other in itertools.product(range(3), repeat=2):
            yield {"rho": rate, "p": one, "q": other, "M": mean}


@cache
def _products(depth: int, taps: int, rate: Fraction) -> dict[tuple[int, ...], Fraction]:
    """Means of g(p) g(q) over signs of the weights m + 1 and over the masks, run forwards."""
    sizes = [depth * (taps - 1) + 1 - layer * (taps - 1) for layer in range(depth)]
    masks = list(_masks(sum(sizes), rate))
    nets = list(itertools.product((-1, 1), repeat=taps * depth))
    pixels = range(depth * (taps - 1) + 1)
    means = dict.fromkeys(itertools.product(pixels, repeat=2), Fraction(0))
    for mask, chance in masks:
        if not chance:
            continue
        for net in nets:
            g = [_output(net, mask, taps, [int(at == x) for at in pixels]) for x in pixels]
            for pair in means:
                means[pair] += chance * g[pair[0]] * g[pair[1]] / len(nets)
    return means


def _output(net: Any, mask: Any, taps: int, signal: list[Any]) -> Any:
    used = 0
    for layer in range(len(net) // taps):
        signal = [value * mask[used + at] for at, value in enumerate(signal)]
        used += len(signal)
        row = [(tap + 1) * net[layer * taps + tap] for tap in range(taps)]
        places = range(len(signal) - taps + 1)
        signal = [sum(w * signal[at + tap] for tap, w in enumerate(row)) for at in places]
    return signal[0]


def _names(depth: int, taps: int, rate: Fraction) -> dict[str, Any]:
    def product(layers: int, one: int, other: int) -> Fraction:
        return _products(layers, taps, rate).get((one, other), Fraction(0))

    squares = [Fraction((tap + 1) ** 2) for tap in range(taps)]
    law = tuple(square / sum(squares) for square in squares)
    return {
        "n": depth,
        "k": taps,
        "rho": rate,
        "V": lambda tap: squares[tap],
        "C": product,
        "p": lambda layers, at: brute.entry(brute.repeated_convolution(law, layers), at),
    }


def _pixel_pairs() -> Iterator[Point]:
    for (depth, taps), rate in itertools.product(_SHAPES, _RATES):
        names = {**_names(depth, taps, rate)}
        del names["p"]  # a pixel here
        pixels = range(-1, depth * (taps - 1) + 2)
        for one, other in itertools.product(pixels, repeat=2):
            yield {**names, "p": one, "q": other}


def _marks() -> Iterator[Point]:
    source = brute.generator(31)
    for (depth, taps), rate in itertools.product(_SHAPES, _RATES):
        yield {**_names(depth, taps, rate), "z": brute.random_fraction(source)}


def _shares() -> Iterator[Point]:
    for (depth, taps), rate in itertools.product(_SHAPES, _RATES):
        for at in range(-1, depth * (taps - 1) + 2):
            yield {**_names(depth, taps, rate), "t": at}


def _fixed_pairs() -> Iterator[Point]:
    source = brute.generator(32)
    for taps, rate in itertools.product((1, 2, 3, 4), _RATES):
        lower, upper = ([source.randint(1, 9) for _ in range(taps)] for _ in range(2))
        squares = [Fraction(0)] * (2 * taps - 1)
        for mask, chance in _masks(taps, rate):
            # the lower layer's taps lead to the units that the upper layer reads at its taps
            g = [Fraction(0)] * (2 * taps - 1)
            for unit, kept in enumerate(mask):
                for tap, weight in enumerate(lower):
                    g[unit + tap] += weight * kept * upper[unit]
            squares = [old + chance * new**2 for old, new in zip(squares, g)]
        yield {
            "k": taps,
            "rho": rate,
            "f": lambda tap, row=lower: brute.entry(row, tap),
            "h": lambda tap, row=upper: brute.entry(row, tap),
            "B": lambda at, row=squares: brute.entry(row, at),
        }


def _fixed_pixels() -> Iterator[Point]:
    for point in _fixed_pairs():
        for at in range(-1, 2 * point["k"] + 1):
            yield {**point, "p": at}
