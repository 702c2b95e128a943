"""One large kernel against a stack of small ones, and a row after a column against a square."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from itertools import product
from typing import Any

import sympy as sp

from erftheory.symbolic.helpers.rewrites import as_ratio, closed_sums
from erftheory.symbolic.proof import brute
from erftheory.symbolic.proof.derivation import Derivation, ProofStep
from erftheory.symbolic.proof.evidence import ExactPoints, Point, SymbolicIdentity
from erftheory.symbolic.proof.names import equation, i, j, k, m, n, o, t, total, w, z
from erftheory.symbolic.topics.moments import uniform_variance

REACH: Any = n * (k - 1) + 1  # taps of one kernel with the field of n layers of k taps
_FIELD: Any = sp.Function("R")  # R(n, k): offsets that n layers of k taps reach
_SPREAD: Any = sp.Function("V")  # V(n, k): variance of the signal of n layers of k taps
_A, _B = sp.symbols("a b", integer=True)  # row and column
_U: Any = sp.Symbol("u", integer=True)  # offset on the second axis
_Y: Any = sp.Symbol("y")  # marks the row
_MEAN: Any = sp.Symbol("mu", real=True)
_H: Any = sp.IndexedBase("h")  # the column kernel, of sum 1 as the row kernel w
_GRADIENT: Any = sp.Function("H")  # H(a, b): gradient of a 1×k and a k×1 layer
_SQUARE: Any = sp.Function("S")  # S(a, b): its mean square for random weights
_ROW, _COLUMN = sp.Function("Vr"), sp.Function("Vc")  # variances of their weights
_PATHS: Any = sp.Function("O")  # O(n, t, u): paths of n layers of k×k taps
_PAIRS: Any = sp.Function("Q")  # Q(n, t, u): paths of n pairs of 1×k and k×1


@cache
def large_kernel() -> Derivation:
    """One uniform kernel with the field of n layers of k taps has (n(k−1) + 2)/(k + 1) times
    their variance.

    Both reach n(k − 1) + 1 offsets. The effective size of the one kernel is √n times that of the
    stack up to a factor, so width pays more than depth; the number of weights grows as well.

    Source: Ding et al., CVPR 2022, section 3 (k√n against kn); the exact ratio is own.
    """
    return Derivation(
        title="One large kernel against a stack of small ones",
        source="Ding et al., CVPR 2022, section 3; Luo et al., NIPS 2016 (L16), section 2",
        steps=(*_against_stack(), *_sevens()),
        key="ratio",
    )


@cache
def separable() -> Derivation:
    """A 1×k and a k×1 layer have the field and the paths of a k×k layer, with 2k weights.

    w and h are the kernels of the row and of the column, of sum 1. With random weights the mean
    squared gradient is the outer product of the variances, the uniform square if they are equal.

    Source: own; compare Szegedy et al., CVPR 2016, section 3.2 (asymmetric convolutions).
    """
    return Derivation(
        title="A row and a column kernel in place of a square one",
        source="own; compare Szegedy et al., CVPR 2016, section 3.2",
        steps=(*_outer(), *_same_shape()),
        key="paths",
    )


def _against_stack() -> tuple[ProofStep, ...]:
    taps = (m, 0, REACH - 1)
    single = total(m**2 / REACH, taps) - total(m / REACH, taps) ** 2
    ratio = (n * (k - 1) + 2) / (k + 1)
    sums = SymbolicIdentity("sums of powers for all n and k", closed_sums, as_ratio)
    limit = SymbolicIdentity("limit for all k", reduce=as_ratio)
    return (
        ProofStep(
            "field",
            "One kernel with the field of a stack",
            equation(_FIELD(1, REACH), _FIELD(n, k)),
            "Each of the n layers adds k - 1 offsets to the first.",
            ExactPoints("offsets with a path counted", _shapes),
        ),
        ProofStep(
            "variance",
            "The variance of the one kernel",
            equation(single, n * (k - 1) * (n * (k - 1) + 2) / 12),
            "That of a uniform law on the whole field.",
            sums,
        ),
        ProofStep(
            "ratio",
            "Its ratio to that of the stack",
            equation(single / uniform_variance(), ratio),
            "For k = 3 it is (n + 1)/2.",
            sums,
        ),
        ProofStep(
            "deep stacks",
            "The ratio grows like depth",
            equation(sp.Limit(ratio / n, n, sp.oo), (k - 1) / (k + 1)),
            "The stack's deviation falls behind like the square root of depth.",
            limit,
        ),
        ProofStep(
            "layers for the same size",
            "Layers that it takes to have the variance of the one kernel",
            equation(single, uniform_variance().subs(n, n * ratio)),
            "Depth times the ratio: 120 layers of 3 for one kernel of 31, where 15 have its field.",
            sums,
        ),
        ProofStep(
            "weights",
            "The price in two dimensions: weights per channel pair",
            equation(sp.Limit(REACH**2 / (n * k**2) / n, n, sp.oo), (1 - 1 / k) ** 2),
            "The ratio of weights grows like depth too: those of the one kernel are quadratic in "
            "its size.",
            limit,
        ),
    )


def _sevens() -> tuple[ProofStep, ...]:
    deviation = {size: (m - sp.Rational(size - 1, 2)) ** 2 / size for size in (7, 3)}
    exact = SymbolicIdentity("sums written out")
    return (
        ProofStep(
            "seven taps",
            "Seven taps: standard deviation 2",
            equation(sp.sqrt(total(deviation[7], (m, 0, 6))), 2),
            "In pixels along one axis.",
            exact,
        ),
        ProofStep(
            "three times three taps",
            "Three layers of three: the root of 2",
            equation(sp.sqrt(3 * total(deviation[3], (m, 0, 2))), sp.sqrt(2)),
            "The same field of 7 pixels.",
            exact,
        ),
        ProofStep(
            "seven against three",
            "Twice the variance",
            equation(_SPREAD(1, 7), 2 * _SPREAD(3, 3)),
            "By listing all paths of both.",
            ExactPoints("listed paths", _variances),
        ),
    )


def _outer() -> tuple[ProofStep, ...]:
    rows, columns = (_A, 0, k - 1), (_B, 0, k - 1)
    marked = _GRADIENT(_A, _B) * _Y**_A * z**_B
    listed = ExactPoints("impulses run through both layers", _kernels)
    return (
        ProofStep(
            "outer product",
            "A row after a column: the outer product",
            equation(_GRADIENT(_A, _B), w[_B] * _H[_A]),
            "One path leads to each pixel, through one tap of either layer.",
            ExactPoints("impulses run through both layers, all pixels", _pixels),
        ),
        ProofStep(
            "generating function",
            "so the generating function is a product",
            equation(
                total(total(marked, columns), rows),
                total(w[m] * z**m, (m, 0, k - 1)) * total(_H[m] * _Y**m, (m, 0, k - 1)),
            ),
            "y marks the row and z the column.",
            listed,
        ),
        ProofStep(
            "variance",
            "Along each axis the variance is that of the axis' own kernel",
            equation(
                total(total((_B - _MEAN) ** 2 * _GRADIENT(_A, _B), columns), rows),
                total((m - _MEAN) ** 2 * w[m], (m, 0, k - 1)),
            ),
            "The other kernel has mass 1; mu is the mean of w.",
            listed,
        ),
        ProofStep(
            "random weights",
            "Random weights: the outer product of the variances",
            equation(_SQUARE(_A, _B), _ROW(_B) * _COLUMN(_A)),
            "Both layers' weights are independent, of mean 0.",
            ExactPoints("all signs of weights of fixed sizes, all pixels", _random),
        ),
    )


def _same_shape() -> tuple[ProofStep, ...]:
    taps = (i, 0, k - 1)
    both = (j, 0, k - 1)
    return (
        ProofStep(
            "paths",
            "n pairs have the paths of n square layers",
            equation(_PAIRS(n, t, _U), _PATHS(n, t, _U)),
            "Choosing a tap of the square is choosing its row and its column.",
            ExactPoints("paths listed in two dimensions", _planes),
        ),
        ProofStep(
            "axes",
            "and those are products over the axes",
            equation(_PATHS(n, t, _U), o(n, t) * o(n, _U)),
            "Steps along both axes are independent.",
            ExactPoints("paths listed in two dimensions", _planes),
        ),
        ProofStep(
            "weights",
            "with 2/k of the weights",
            equation((total(1, taps) + total(1, both)) / total(total(1, taps), both), 2 / k),
            "2k in place of k squared, for each pair of channels.",
            SymbolicIdentity("all k"),
        ),
    )


def _shapes() -> Iterator[Point]:
    def count(depth: int, kernel: int) -> int:
        return sum(value > 0 for value in brute.repeated_convolution((1,) * kernel, depth))

    for depth, kernel in product((1, 2, 3, 5), (1, 2, 3, 5)):
        yield {"n": depth, "k": kernel, "R": count}


def _variances() -> Iterator[Point]:
    def variance(depth: int, kernel: int) -> Fraction:
        field = range(depth * (kernel - 1) + 1)
        law = [Fraction(brute.path_count(depth, kernel, at), kernel**depth) for at in field]
        return brute.cumulants(law, 2)[2]

    yield {"V": variance}


def _impulse(row: Any, column: Any, at: tuple[int, ...]) -> Any:
    """Output of a 1×k layer that reads a k×1 layer, for an impulse in a k × k image."""
    size = len(row)
    image = [[int((r, c) == at) for c in range(size)] for r in range(size)]
    below = [sum(column[r] * image[r][c] for r in range(size)) for c in range(size)]
    return sum(weight * value for weight, value in zip(row, below))


def _kernels() -> Iterator[Point]:
    source = brute.generator(71)
    for size in (1, 2, 3, 4):
        row, column = (brute.random_kernel(source, size) for _ in range(2))
        cells = list(product(range(size), repeat=2))
        known = {cell: _impulse(row, column, cell) for cell in cells}
        yield {
            "k": size,
            "w": row,
            "h": column,
            "mu": brute.cumulants(row, 1)[1],
            "y": brute.random_fraction(source),
            "z": brute.random_fraction(source),
            "H": lambda a, b, known=known: known.get((a, b), Fraction(0)),
        }


def _pixels() -> Iterator[Point]:
    for point in _kernels():
        for row, column in product(range(point["k"]), repeat=2):
            yield {**point, "a": row, "b": column}


def _random() -> Iterator[Point]:
    source = brute.generator(72)
    for size in (1, 2, 3):
        row, column = (source.sample(range(1, 10), size) for _ in range(2))
        signs = list(product((-1, 1), repeat=size))
        for a, b in product(range(size), repeat=2):
            nets = [
                _impulse(
                    [x * s for x, s in zip(row, one)], [x * s for x, s in zip(column, two)], (a, b)
                )
                for one, two in product(signs, repeat=2)
            ]
            square = Fraction(sum(value**2 for value in nets), len(nets))
            yield {
                "a": a,
                "b": b,
                "S": lambda r, c, at=(a, b), square=square: square if (r, c) == at else 0,
                "Vr": lambda tap, row=row: row[tap] ** 2,
                "Vc": lambda tap, column=column: column[tap] ** 2,
            }


@cache
def _plane(depth: int, taps: tuple[tuple[tuple[int, int], ...], ...]) -> dict[Any, int]:
    """Paths to each place of `depth` rounds of layers, each a tuple of its taps, listed."""
    counts: dict[Any, int] = {}
    for path in product(*(taps * depth)):
        place = (sum(step[0] for step in path), sum(step[1] for step in path))
        counts[place] = counts.get(place, 0) + 1
    return counts


def _planes() -> Iterator[Point]:
    for depth, size in ((1, 1), (1, 2), (2, 2), (3, 2), (1, 3), (2, 3)):
        square = tuple(product(range(size), repeat=2))
        column = tuple((tap, 0) for tap in range(size))
        row = tuple((0, tap) for tap in range(size))
        for at in product(range(-1, depth * (size - 1) + 2), repeat=2):
            yield {
                "n": depth,
                "k": size,
                "t": at[0],
                "u": at[1],
                "O": lambda n, t, u, taps=(square,): _plane(n, taps).get((t, u), 0),
                "Q": lambda n, t, u, taps=(row, column): _plane(n, taps).get((t, u), 0),
                "o": lambda n, t, size=size: brute.path_count(n, size, t),
            }
