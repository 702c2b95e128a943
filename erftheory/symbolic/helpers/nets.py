"""Small nets and laws of filters in exact arithmetic: what the checks of activations compare with.

Each function gives points (see `evidence.ExactPoints`): numbers for the symbols of a statement
and brute-force meanings for its functions. Activations have slope 1 above 0 and α below; inputs
are large random whole numbers. Nothing here uses the statements.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from typing import Any

from erftheory.symbolic.proof import brute
from erftheory.symbolic.proof.evidence import Point

SLOPES = (Fraction(0), Fraction(-1), Fraction(3), Fraction(1, 4))
SIZES = ((1, 2), (2, 1, 3))
Filter = Sequence[Fraction | int]
# A ReLU layer that is off on a whole patch gives the next one 0 to read. What slope that has must
# not matter, because every path from there ends in a slope 0; so it is an absurd one.
AT_ZERO = Fraction(7)


def _slope_of(alpha: Fraction) -> Any:
    def slope(y: Any) -> Fraction:
        if y == 0:
            return AT_ZERO
        return Fraction(1) if y > 0 else alpha

    return slope


def _half_sum(alpha: Fraction) -> Fraction:
    return (1 + alpha**2) / 2


def _values(count: int, salt: int) -> list[int]:
    source = brute.generator(salt)
    return [source.choice((-1, 1)) * source.randint(10**5, 10**6) for _ in range(count)]


def _read(weights: Filter, signal: Sequence[Any]) -> list[Any]:
    """What the activations of a layer read."""
    places = range(len(signal) - len(weights) + 1)
    return [sum(w * signal[p + tap] for tap, w in enumerate(weights)) for p in places]


def _gradients(filters: Sequence[Filter], signal: Sequence[Any], alpha: Fraction) -> list[Any]:
    """Gradient of the last layer's only unit with respect to `signal`, backwards by hand."""
    gates, slope = [], _slope_of(alpha)
    for weights in filters:
        read = _read(weights, signal)
        gates.append([slope(y) for y in read])
        signal = [g * y for g, y in zip(gates[-1], read)]
    back: list[Any] = [1]
    for weights, gate in zip(reversed(filters), reversed(gates)):
        wider = [Fraction(0)] * (len(back) + len(weights) - 1)
        for p, value in enumerate(back):
            for tap, w in enumerate(weights):
                wider[p + tap] += w * gate[p] * value
        back = wider
    return back


@cache
def _means(depth: int, sizes: tuple[int, ...], alpha: Fraction) -> list[list[Fraction]]:
    """Means of g(p) g(q) over all signs of `depth` filters, on an input of that depth's own."""
    taps = len(sizes)
    signal = _values(depth * (taps - 1) + 1, salt=100 * depth + taps)
    patterns = list(itertools.product((-1, 1), repeat=taps))
    nets = list(itertools.product(patterns, repeat=depth))
    sums = [[Fraction(0)] * len(signal) for _ in signal]
    for net in nets:
        g = _gradients([[s * e for s, e in zip(sizes, signs)] for signs in net], signal, alpha)
        for p, left in enumerate(g):
            for q, right in enumerate(g):
                sums[p][q] += left * right
    return [[value / len(nets) for value in row] for row in sums]


def _nets(depths: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Depth and the names of small nets."""
    for sizes, alpha, depth in itertools.product(SIZES, SLOPES, depths):
        if len(sizes) * depth <= 6:
            yield depth, _names(depth, sizes, alpha)


def _names(depth: int, sizes: tuple[int, ...], alpha: Fraction) -> dict[str, Any]:
    def product(layers: int, p: int, q: int) -> Fraction:
        rows = _means(layers, sizes, alpha)
        inside = 0 <= p < len(rows) and 0 <= q < len(rows)
        return rows[p][q] if inside else Fraction(0)

    return {
        "n": depth,
        "k": len(sizes),
        "c": _half_sum(alpha),
        "rho": lambda tap: sizes[tap] ** 2,
        "C": product,
    }


def inductions() -> Iterator[Point]:
    """Depth 1 to 3 and all pixels p, q, one beyond the field included."""
    for depth, names in _nets((1, 2, 3)):
        pixels = range(-1, depth * (names["k"] - 1) + 2)
        for p, q in itertools.product(pixels, repeat=2):
            yield {**names, "p": p, "q": q}


def impulses() -> Iterator[Point]:
    """No layer."""
    for depth, names in _nets((0,)):
        for p, q in itertools.product(range(-1, 2), repeat=2):
            yield {**names, "n": depth, "p": p, "q": q}


def generating() -> Iterator[Point]:
    """Depth 1 to 3 and a random z."""
    source = brute.generator()
    for _, names in _nets((1, 2, 3)):
        yield {**names, "z": brute.random_fraction(source)}


def shares() -> Iterator[Point]:
    """Weights ±1, and the paths listed, at every offset."""
    for taps, depth in ((2, 1), (2, 2), (2, 3), (3, 1), (3, 2)):
        for alpha in SLOPES:
            names = _names(depth, (1,) * taps, alpha)
            for offset in range(depth * (taps - 1) + 1):
                yield {**names, "t": offset, "o": lambda n, t, k=taps: _paths(n, k, t)}


def _paths(depth: int, taps: int, offset: int) -> int:
    return brute.path_count(depth, taps, offset)


def quotients() -> Iterator[Point]:
    """Random nets and every input pixel; g is an exact difference quotient."""
    step = Fraction(1, 10**12)  # too small to reach a kink
    for taps, depth, alpha in itertools.product((2, 3), (1, 2, 3), SLOPES):
        signal = _values(depth * (taps - 1) + 1, salt=taps)
        drawn = _values(depth * taps, salt=depth)
        filters = [drawn[at : at + taps] for at in range(0, depth * taps, taps)]
        read = _read(filters[0], signal)
        slope = _slope_of(alpha)
        fed = [slope(y) * y for y in read]

        def gradient(
            layers: int, p: int, depth: int = depth, filters: Any = filters, alpha: Any = alpha,
            inputs: Any = (signal, fed),
        ) -> Fraction:  # fmt: skip
            below = inputs[depth - layers]
            if not 0 <= p < len(below):
                return Fraction(0)
            moved = [value + step * (at == p) for at, value in enumerate(below)]
            ends = [_output(filters[depth - layers :], side, alpha) for side in (below, moved)]
            return (ends[1] - ends[0]) / step

        for p in range(len(signal)):
            yield {
                "n": depth,
                "k": taps,
                "p": p,
                "w": lambda tap, row=filters[0]: row[tap],
                "y": lambda at, read=read: read[at] if 0 <= at < len(read) else 1,
                "phiprime": slope,
                "g": gradient,
            }


def _output(filters: Sequence[Filter], signal: Sequence[Any], alpha: Fraction) -> Any:
    slope = _slope_of(alpha)
    for weights in filters:
        signal = [slope(y) * y for y in _read(weights, signal)]
    return signal[0]


def patches() -> Iterator[Point]:
    """Random filters on random patches."""
    for taps in (1, 2, 3, 5):
        drawn, patch = _values(taps, salt=taps), _values(taps, salt=50 + taps)
        yield {"k": taps, "w": lambda m, row=drawn: row[m], "x": lambda m, row=patch: row[m]}


def _law(rows: list[list[Any]], chances: list[Fraction], salt: int) -> Iterator[Point]:
    """Points for a law of filters on a random patch: all pairs of taps, all slopes."""
    taps = len(rows[0])
    patch = _values(taps, salt)
    read = [sum(w * value for w, value in zip(row, patch)) for row in rows]
    spread = [sum(c * row[a] ** 2 for c, row in zip(chances, rows)) for a in range(taps)]
    for alpha, a, b in itertools.product(SLOPES, range(taps), range(taps)):
        yield {
            "N": len(rows),
            "a": a,
            "b": b,
            "c": _half_sum(alpha),
            "P": lambda at: chances[at],
            "w": lambda at, tap: rows[at][tap],
            "y": lambda at: read[at],
            "rho": lambda tap: spread[tap],
            "phiprime": _slope_of(alpha),
        }


def symmetric_laws() -> Iterator[Point]:
    """Laws of filters and their flips, equally likely; entries correlated."""
    source = brute.generator()
    for salt, taps in enumerate((2, 3, 3)):
        half = [[source.randint(-9, 9) + Fraction(1, 2) for _ in range(taps)] for _ in range(4)]
        chances = [chance / 2 for chance in brute.random_kernel(source, 4)]
        yield from _law([*half, *([-w for w in row] for row in half)], chances * 2, salt)


def _uncorrelated_law(salt: int, taps: int) -> tuple[list[list[Any]], list[Fraction]]:
    """Independent signs on sizes that depend on each other."""
    source = brute.generator(salt)
    sizes = [[source.randint(1, 9) for _ in range(taps)] for _ in range(2)]
    weights = brute.random_kernel(source, 2)
    rows, chances = [], []
    for row, chance in zip(sizes, weights):
        for signs in itertools.product((-1, 1), repeat=taps):
            rows.append([s * e for s, e in zip(row, signs)])
            chances.append(chance / 2**taps)
    return rows, chances


def uncorrelated_laws() -> Iterator[Point]:
    """Laws whose entries are uncorrelated and dependent."""
    for salt, taps in enumerate((2, 3, 3)):
        yield from _law(*_uncorrelated_law(salt, taps), salt)


def independent_gates() -> Iterator[Point]:
    """The same, with a law of gates that the weights do not know."""
    source = brute.generator()
    for salt, taps in enumerate((2, 3)):
        chances = brute.random_kernel(source, 3)
        gates = [brute.random_fraction(source) for _ in range(3)]
        for point in _law(*_uncorrelated_law(salt, taps), salt):
            yield {
                **point,
                "M": 3,
                "Q": lambda at, row=chances: row[at],
                "D": lambda at, row=gates: row[at],
            }


def double_sums() -> Iterator[Point]:
    """Random variances and mean squares, all pixels of the field."""
    source = brute.generator()
    for depth, taps in ((1, 2), (2, 2), (2, 3), (3, 3)):
        spread = [brute.random_fraction(source) for _ in range(taps)]
        behind = [brute.random_fraction(source) for _ in range((depth - 1) * (taps - 1) + 1)]
        pixels = range(depth * (taps - 1) + 1)
        for p, q in itertools.product(pixels, repeat=2):
            yield {
                "n": depth,
                "k": taps,
                "p": p,
                "q": q,
                "c": Fraction(3, 7),
                "rho": lambda tap, row=spread: row[tap],
                "C": lambda layers, u, v, above=depth - 1, row=behind: (
                    brute.entry(row, u) if (layers, u) == (above, v) else 0
                ),
            }
