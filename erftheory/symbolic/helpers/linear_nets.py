"""Small linear nets in exact arithmetic, every choice of weights and masks listed.

A net reads its input without padding, so that the last layer has one output, and every layer is
run forwards. The gradient at a pixel is the output for an impulse there: no backward pass, no
formula. Layers are counted from the output. Weights are independent; each takes the values
2s, −s, −s with equal chances, of mean 0, variance 2s² and a skew law.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from typing import Any

from erftheory.symbolic.proof import brute
from erftheory.symbolic.proof.evidence import Point

_ATOMS = (2, -1, -1)
_SHAPES = ((0, 2), (1, 2), (2, 2), (3, 2), (1, 3), (2, 3))  # layers, taps
_FIXED = 2  # taps of the fixed layers
Filter = Sequence[Any]


def _size(layer: int, tap: int) -> int:
    """s of a weight; no two taps or layers of a net share it."""
    return layer + 3 * tap + 1


def _variance(layer: int, tap: int) -> Fraction:
    return sum((Fraction((a * _size(layer, tap)) ** 2, 3) for a in _ATOMS), Fraction(0))


def _filters(layer: int, taps: int) -> Iterator[tuple[int, ...]]:
    """All filters of a layer, equally likely."""
    for atoms in itertools.product(_ATOMS, repeat=taps):
        yield tuple(a * _size(layer, tap) for tap, a in enumerate(atoms))


def _run(filters: Sequence[Filter], signal: Sequence[Any]) -> list[Any]:
    """Forwards: the last of `filters`, nearest to the input, is the first to read."""
    for weights in reversed(filters):
        places = range(len(signal) - len(weights) + 1)
        signal = [sum(w * signal[at + tap] for tap, w in enumerate(weights)) for at in places]
    return list(signal)


def _gradient(filters: Sequence[Filter]) -> tuple[Any, ...]:
    """The output for an impulse at each of the pixels that the net reads."""
    field = 1 + sum(len(weights) - 1 for weights in filters)
    impulses = ([int(at == pixel) for at in range(field)] for pixel in range(field))
    return tuple(_run(filters, impulse)[0] for impulse in impulses)


@cache
def _all_gradients(depth: int, taps: int, fixed: tuple[Filter, ...] = ()) -> list[tuple[Any, ...]]:
    """Of all nets of random layers, with `fixed` layers between them and the input."""
    layers = [list(_filters(layer, taps)) for layer in range(1, depth + 1)]
    return [_gradient([*net, *fixed]) for net in itertools.product(*layers)]


@cache
def _products(depth: int, taps: int, fixed: tuple[Filter, ...] = ()) -> dict[tuple, Fraction]:
    nets = _all_gradients(depth, taps, fixed)
    pixels = range(len(nets[0]))
    return {
        (p, q): Fraction(sum(g[p] * g[q] for g in nets), len(nets))
        for p, q in itertools.product(pixels, repeat=2)
    }


def _names(depth: int, taps: int) -> dict[str, Any]:
    def product(layers: int, p: int, q: int) -> Fraction:
        return _products(layers, taps).get((p, q), Fraction(0))

    def mean(layers: int, p: int) -> Fraction:
        nets = _all_gradients(layers, taps)
        return Fraction(sum(brute.entry(g, p) for g in nets), len(nets))

    return {"n": depth, "L": depth, "k": taps, "V": _variance, "C": product, "A": mean}


def pixel_pairs() -> Iterator[Point]:
    """All nets of 0 to 3 layers; all pixels p and q, one beyond the field included."""
    for depth, taps in _SHAPES:
        filters = list(_filters(depth, taps))
        pixels = range(-1, depth * (taps - 1) + 2)
        for p, q in itertools.product(pixels, repeat=2):
            yield {
                **_names(depth, taps),
                "p": p,
                "q": q,
                "N": len(filters),
                "P": lambda _, rows=filters: Fraction(1, len(rows)),
                "w": lambda at, tap, rows=filters: rows[at][tap],
            }


def layer_pairs() -> Iterator[Point]:
    """`pixel_pairs` with a layer at least."""
    return (point for point in pixel_pairs() if point["n"] > 0)


def marks() -> Iterator[Point]:
    """All nets of 1 to 3 layers and a random z."""
    source = brute.generator(21)
    for depth, taps in _SHAPES[1:]:
        yield {**_names(depth, taps), "z": brute.random_fraction(source)}


def drawn() -> Iterator[Point]:
    """One net each, of random weights, and all pixels."""
    source = brute.generator(22)
    for depth, taps in _SHAPES[1:]:
        net = [[source.randint(-9, 9) for _ in range(taps)] for _ in range(depth)]
        gradients = {layers: _gradient(net[:layers]) for layers in range(depth + 1)}
        for p in range(-1, depth * (taps - 1) + 2):
            yield {
                "n": depth,
                "k": taps,
                "p": p,
                "w": lambda tap, row=net[-1]: row[tap],
                "g": lambda layers, at, known=gradients: brute.entry(known[layers], at),
            }


def filter_laws() -> Iterator[Point]:
    """Laws of filters with independent entries, and all pairs of taps."""
    for layer, taps in ((1, 1), (2, 2), (1, 3)):
        rows = list(_filters(layer, taps))
        for a, b in itertools.product(range(taps), repeat=2):
            yield {
                "N": len(rows),
                "a": a,
                "b": b,
                "P": lambda _, rows=rows: Fraction(1, len(rows)),
                "w": lambda at, tap, rows=rows: rows[at][tap],
                "V": lambda tap, layer=layer: _variance(layer, tap),
            }


def fixed_layers() -> Iterator[Point]:
    """Random layers, and one or two random fixed layers between them and the input."""
    source = brute.generator(23)
    for depth, taps in _SHAPES[1:5]:
        if taps != _FIXED:
            continue
        lower, upper = (tuple(source.randint(1, 9) for _ in range(taps)) for _ in range(2))
        squares = {
            "B": lambda n, fixed=(lower,), taps=taps: _products(n, taps, fixed),
            "D": lambda n, fixed=(upper, lower), taps=taps: _products(n, taps, fixed),
        }
        for p in range(-1, (depth + 2) * (taps - 1) + 2):
            yield {
                **_names(depth, taps),
                "p": p,
                "f": lambda tap, row=lower: brute.entry(row, tap),
                "h": lambda tap, row=upper: brute.entry(row, tap),
                **{
                    name: lambda n, at, known=known: known(n).get((at, at), Fraction(0))
                    for name, known in squares.items()
                },
            }


def fixed_pairs() -> Iterator[Point]:
    """Two random fixed kernels."""
    source = brute.generator(24)
    for taps in (1, 2, 3, 5):
        lower, upper = ([source.randint(-9, 9) for _ in range(taps)] for _ in range(2))
        yield {
            "k": taps,
            "f": lambda tap, row=lower: brute.entry(row, tap),
            "h": lambda tap, row=upper: brute.entry(row, tap),
        }


def wide_nets() -> Iterator[Point]:
    """All nets with N hidden channels, one input and one output channel, weights ±s."""
    source = brute.generator(25)
    for channels, depth, taps in ((1, 2, 2), (2, 2, 2), (3, 2, 1), (2, 3, 1), (2, 1, 3)):
        yield {
            "N": channels,
            "n": depth,
            "k": taps,
            "z": brute.random_fraction(source),
            "S": lambda layers, at, net=(channels, taps): brute.entry(
                _wide_squares(net[0], layers, net[1]), at
            ),
            "V": lambda tap: _size(1, tap) ** 2,
        }


@cache
def _wide_squares(channels: int, depth: int, taps: int) -> list[Fraction]:
    """Mean squared gradient at each pixel."""
    widths = [1, *[channels] * (depth - 1), 1]
    slots = [
        (layer, out, into, tap)
        for layer in range(depth)
        for out in range(widths[layer])
        for into in range(widths[layer + 1])
        for tap in range(taps)
    ]
    field = depth * (taps - 1) + 1
    sums = [0] * field
    for signs in itertools.product((-1, 1), repeat=len(slots)):
        net = {slot: sign * _size(1, slot[-1]) for slot, sign in zip(slots, signs)}
        for pixel in range(field):
            rows = [[int(at == pixel) for at in range(field)]]
            for layer in reversed(range(depth)):
                rows = [
                    [
                        sum(
                            net[layer, out, into, tap] * row[at + tap]
                            for into, row in enumerate(rows)
                            for tap in range(taps)
                        )
                        for at in range(len(rows[0]) - taps + 1)
                    ]
                    for out in range(widths[layer])
                ]
            sums[pixel] += rows[0][0] ** 2
    return [Fraction(value, 2 ** len(slots)) for value in sums]
