"""Pooling: an average pool is a uniform kernel, a max pool routes to one of its inputs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from typing import Any

import sympy as sp

from erftheory.symbolic.helpers.rewrites import as_ratio, closed_sums
from erftheory.symbolic.proof import brute
from erftheory.symbolic.proof.derivation import Derivation, ProofStep
from erftheory.symbolic.proof.evidence import ExactPoints, Point, SymbolicIdentity
from erftheory.symbolic.proof.names import equation, k, m, theta, total, w

JUMP: Any = sp.Symbol("J", positive=True, integer=True)  # input pixels from one tap to the next
_A, _B, _C = sp.symbols("a b c", integer=True)  # taps; row and column in a window
_LEADS: Any = sp.Function("D")  # D(a, b, c): mean of (x(a) − x(b))(x(a) − x(c))
_COVARIANCE: Any = sp.Function("S")  # S(d): mean of x(a) x(a + d)
_ROUTE: Any = sp.Function("R")  # R(m): chance that tap m holds the maximum; R(a, b) in 2-D
_MIRRORED: Any = sp.Function("Q")  # the same under a law that a reflection leaves alone
_CORRELATION: Any = sp.Symbol("r", real=True)  # of two differences of inputs
_RADIUS: Any = sp.Symbol("u", positive=True)
_TAPS = (m, 0, k - 1)


@cache
def pooling() -> Derivation:
    """Average pools are uniform kernels of width k; max pools route uniformly by symmetry.

    A max pool hands the gradient to its largest input. Inputs whose law no permutation changes
    (exchangeable ones) hold the maximum equally often, so on average it is a uniform kernel,
    1/k a tap in 1-D and 1/k² in 2-D. Neighbours that share inputs are not exchangeable: a
    reflection still keeps the mean, but from three taps on the routing leans to the rim.

    Source: own; the orthant probability is W. F. Sheppard's, 1899.
    """
    return Derivation(
        title="Average and max pooling in the effective receptive field",
        source="own; the orthant probability is Sheppard's, 1899",
        steps=(*_average(), *_exchangeable(), *_correlated()),
        key="pool variance",
    )


def _average() -> tuple[ProofStep, ...]:
    square, mean = (total((JUMP * m) ** power / k, _TAPS) for power in (2, 1))
    return (
        ProofStep(
            "equal shares",
            "The taps of an average pool have equal shares of the square",
            equation(w[_A] ** 2 / total(w[m] ** 2, _TAPS), 1 / k),
            "All weights are 1/k, and so are the shares of their squares.",
            ExactPoints("pools of equal weights", _equal_weights),
        ),
        ProofStep(
            "pool variance",
            "So it adds the variance of a uniform kernel, in units of the jump",
            equation(square - mean**2, JUMP**2 * (k**2 - 1) / 12),
            "Taps are J input pixels apart, J the product of all strides below.",
            SymbolicIdentity("sums of powers for all k and J", closed_sums, as_ratio),
        ),
    )


def _exchangeable() -> tuple[ProofStep, ...]:
    method = "all orders of random values, mixed at random"
    return (
        ProofStep(
            "routing",
            "A max pool routes equally often to each tap",
            equation(_ROUTE(_A), 1 / k),
            "No permutation of its inputs changes their law, and one of k holds the maximum.",
            ExactPoints(method, _orders),
        ),
        ProofStep(
            "routing in 2-D",
            "In two dimensions one over k squared",
            equation(_ROUTE(_A, _B), 1 / k**2),
            "The window has k times k inputs.",
            ExactPoints("all places of the two largest of k × k inputs", _windows),
        ),
        ProofStep(
            "routing variance",
            "So on average it has the variance of an average pool",
            equation(
                total((m - (k - 1) / 2) ** 2 * _ROUTE(m), _TAPS),
                total(m**2 / k, _TAPS) - total(m / k, _TAPS) ** 2,
            ),
            "In mean field the layers above do not know the route.",
            ExactPoints(method, _orders),
        ),
    )


def _correlated() -> tuple[ProofStep, ...]:
    wedge = sp.Integral(
        _RADIUS * sp.exp(-(_RADIUS**2) / 2) / (2 * sp.pi),
        (_RADIUS, 0, sp.oo),
        (theta, -sp.asin(_CORRELATION), sp.pi / 2),
    )
    between = sp.Rational(1, 4) + sp.asin(_CORRELATION) / (2 * sp.pi)
    integral = SymbolicIdentity("integral in polar coordinates")
    return (
        ProofStep(
            "reflection",
            "A reflection keeps the routing symmetric",
            equation(_MIRRORED(_A), _MIRRORED(k - 1 - _A)),
            "Correlated inputs need not be exchangeable, but convolutions of white inputs look "
            "the same in both directions.",
            ExactPoints("random laws of patches and their mirror images", _mirrored),
        ),
        ProofStep(
            "mean of the routing",
            "so it does not move the field",
            equation(total(m * _MIRRORED(m), _TAPS), (k - 1) / 2),
            "The mean of a symmetric law is its centre; with two taps the routing is uniform.",
            ExactPoints("random laws of patches and their mirror images", _mirrored_once),
        ),
        ProofStep(
            "correlation of differences",
            "How the leads of one input over two others correlate",
            equation(
                _LEADS(_A, _B, _C),
                _COVARIANCE(0)
                - _COVARIANCE(abs(_A - _B))
                - _COVARIANCE(abs(_A - _C))
                + _COVARIANCE(abs(_B - _C)),
            ),
            "The mean product of input a's leads over b and over c; divided by their deviations it "
            "is their correlation r.",
            ExactPoints("moving sums of all signs", _moving_sums),
        ),
        ProofStep(
            "orthant",
            "Gaussian inputs: the chance of the middle one",
            equation(wedge, between),
            "It leads both neighbours in a wedge of the plane, of angle a quarter turn and the "
            "arcsine of r.",
            integral,
        ),
        ProofStep(
            "white inputs",
            "Independent inputs: one third",
            equation(wedge.subs(_CORRELATION, sp.Rational(1, 2)), sp.Rational(1, 3)),
            "Without covariances r is one half, as for any exchangeable Gaussian law.",
            integral,
        ),
        ProofStep(
            "sums of neighbours",
            "Sums of two neighbours: one quarter",
            equation(wedge.subs(_CORRELATION, 0), sp.Rational(1, 4)),
            "Covariances 2, 1 and 0 at distance 0, 1 and 2 leave r = 0: the routing leans to the "
            "rim, and its variance is 3/4 instead of 2/3.",
            integral,
        ),
    )


def _equal_weights() -> Iterator[Point]:
    for taps in range(1, 7):
        for tap in range(taps):
            yield {"k": taps, "a": tap, "w": (Fraction(1, taps),) * taps}


def _shares(patches: Sequence[Sequence[int]], chances: Sequence[Fraction]) -> list[Fraction]:
    """How often the maximum is at each place of a law of patches."""
    found = [Fraction(0)] * len(patches[0])
    for patch, chance in zip(patches, chances):
        found[patch.index(max(patch))] += chance
    return found


def _orders() -> Iterator[Point]:
    source = brute.generator(41)
    for taps in range(1, 6):
        values = [source.sample(range(1000), taps) for _ in range(2)]
        orders = [list(itertools.permutations(row)) for row in values]
        mixed = brute.random_kernel(source, 2)
        patches = [patch for listed in orders for patch in listed]
        chances = [c / len(listed) for c, listed in zip(mixed, orders) for _ in listed]
        shares = _shares(patches, chances)
        for tap in range(taps):
            yield {"k": taps, "a": tap, "R": lambda at, row=shares: brute.entry(row, at)}


def _windows() -> Iterator[Point]:
    for side in (1, 2, 3):
        cells = list(itertools.product(range(side), repeat=2))
        counts = dict.fromkeys(cells, 0)
        placed = list(itertools.permutations(cells, min(2, len(cells))))
        for largest, *_ in placed:
            counts[largest] += 1
        for row, column in cells:
            yield {
                "k": side,
                "a": row,
                "b": column,
                "R": lambda a, b, known=counts, rows=placed: Fraction(known[a, b], len(rows)),
            }


def _mirrored() -> Iterator[Point]:
    for point in _mirrored_once():
        for tap in range(point["k"]):
            yield {**point, "a": tap}


def _mirrored_once() -> Iterator[Point]:
    source = brute.generator(42)
    for taps in (1, 2, 3, 4, 5):
        for _ in range(2):
            patches = [source.sample(range(1000), taps) for _ in range(5)]
            chances = [chance / 2 for chance in brute.random_kernel(source, 5)]
            shares = _shares([*patches, *(patch[::-1] for patch in patches)], chances * 2)
            yield {"k": taps, "Q": lambda at, row=shares: brute.entry(row, at)}


def _moving_sums() -> Iterator[Point]:
    """x = a random filter over white signs, all of them listed."""
    source = brute.generator(43)
    for taps in (1, 2, 3):
        row = [source.randint(1, 9) for _ in range(taps)]
        signals = [
            [sum(w * signs[at + tap] for tap, w in enumerate(row)) for at in range(4)]
            for signs in itertools.product((-1, 1), repeat=taps + 3)
        ]

        def leads(a: int, b: int, c: int, signals: Any = signals) -> Fraction:
            return Fraction(sum((x[a] - x[b]) * (x[a] - x[c]) for x in signals), len(signals))

        def covariance(d: int, signals: Any = signals) -> Fraction:
            return Fraction(sum(x[0] * x[d] for x in signals), len(signals))

        for a, b, c in itertools.product(range(3), repeat=3):
            yield {"a": a, "b": b, "c": c, "D": leads, "S": covariance}
