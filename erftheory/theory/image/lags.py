"""What edges on an image do to second moments of gradients (`lags`).

Pixel i of a map of jump J lies at lattice point J·i, so that a lag is δ = J_B·j − J_A·i for pixels
i of A and j of B, whatever an operation does to its pixels. On a torus lags go round.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import count, product
from typing import Any

import numpy as np
from scipy import sparse

from erftheory.theory.image import matrices as layers
from erftheory.theory.image.matrices import Matrix, Shape, Terms
from erftheory.theory.walk.walk import Gate, amplitude
from erftheory.theory.walk.weights import Weight, quotient, root

Lag = tuple[int, ...]
STILL = "still"
_count = count()


def _fresh() -> tuple[str, int]:
    """A key of an operator made here; those of layers are their nodes."""
    return "made", next(_count)


@dataclass(frozen=True, eq=False)
class GridEdge:
    """From the reader's port back to a port: a gain, a kind as in `walk.RawEdge`, an operator.

    Attributes:
      key: equal for edges of the same operator.
      terms: the operator, for powers; of a fixed edge, its amplitudes up to a common factor.
      square: of a fixed edge, what `gain` is of the squared amplitudes, as on the plane.
    """

    reader: Any
    gain: Weight
    kind: str
    key: Any
    terms: Callable[[], Terms]
    gate: Gate | None = None
    square: Weight = 1

    @cached_property
    def mean(self) -> Weight:
        """What the amplitudes are multiplied by on average."""
        if self.kind != "fixed":
            return self.gain if self.kind == "routing" else 0
        return amplitude(self) * (1 if self.gate is None else self.gate.mean)

    @property
    def still(self) -> bool:
        """True if pixels stay where they are."""
        return self.key == STILL


class ImageLags:
    """Operators of edges on an image.

    Args:
      jumps, shapes: lattice points per pixel, and pixels, of every node.
      ring: lattice points around a torus, one entry an axis; None for an image with a rim.
      folded: nodes whose padding repeats pixels of the image, so that a tap reads one twice.

    `uneven` tells afterwards whether edges were made whose mass depends on the pixel.
    """

    @property
    def windows(self) -> bool:
        """Whether the chance that a pixel wins in two max pools is known: on a line."""
        return self.ndim == 1

    def __init__(
        self, jumps: Sequence[Lag], shapes: Sequence[Shape], ring: Lag | None, folded: set[int]
    ):
        self.jumps, self.shapes, self.ring, self.folded = jumps, shapes, ring, folded
        self.ndim = len(jumps[0])
        self.uneven = False
        self.still: Terms = ((1.0, (None,) * self.ndim),)
        self.hulls: dict[int, tuple] = {}
        self.lines: dict[tuple, tuple] = {}

    # ---- runs ---------------------------------------------------------------------------------

    def joined(self, e: GridEdge, on: GridEdge, port) -> GridEdge | None:
        """`e` and, nearer to the output, the fixed edge `on`, as one; None if they are none."""
        if on.still:
            return self._like(e, on.reader, e.gain * on.gain, e.key, e.terms, e.square)
        if e.kind == "routing":
            return None
        if e.still:
            return self._like(e, on.reader, e.gain * on.gain, on.key, on.terms, on.square)
        self.uneven = True
        common = quotient(e.gain, e.square) * quotient(on.gain, on.square)
        terms = cache(lambda: layers.composed(e.terms(), on.terms()))
        return self._like(e, on.reader, common, _fresh(), terms, 1)

    def _like(self, e: GridEdge, reader, gain, key, terms, square) -> GridEdge:
        return GridEdge(reader, gain, e.kind, key, terms, e.gate, square)

    def merged(self, edges: Sequence[GridEdge]) -> list[GridEdge]:
        """Parallel fixed edges as one: amplitudes add, whose squares are known."""
        first = edges[0]
        common = quotient(first.gain, first.square)
        sizes = [root(quotient(quotient(e.gain, e.square), common)) for e in edges]
        if all(e.still for e in edges):
            gain = common * sum(sizes) ** 2
            return [GridEdge(first.reader, gain, "fixed", STILL, first.terms)]
        self.uneven = True

        @cache
        def terms() -> Terms:
            return tuple((float(s) * w, x) for s, e in zip(sizes, edges) for w, x in e.terms())

        return [GridEdge(first.reader, common, "fixed", _fresh(), terms)]

    # ---- lags ---------------------------------------------------------------------------------

    def hull(self, e: GridEdge, port) -> tuple[Lag, Lag]:
        """How far pixels that are read lie before and behind the readers, in lattice points."""
        if e.still:
            return (0,) * self.ndim, (0,) * self.ndim
        if id(e) not in self.hulls:
            low, high = [0] * self.ndim, [0] * self.ndim
            for axis in range(self.ndim):
                for _, axes in e.terms():
                    row, column = self._entries(axes[axis], port, axis)
                    moves = self._round(self._place(port, row, axis)
                                        - self._place(e.reader, column, axis), axis)  # fmt: skip
                    if len(moves):
                        low[axis] = min(low[axis], int(moves.min()))
                        high[axis] = max(high[axis], int(moves.max()))
            self.hulls[id(e)] = e, (tuple(low), tuple(high))
        return self.hulls[id(e)][1]

    def overlaps(self, e: GridEdge, port) -> bool:
        """Whether several outputs of a max pool read one pixel, or one tap reads it twice."""
        if e.kind == "random":
            return e.key in self.folded
        return any(
            m is not None and int(np.diff(m.indptr).max(initial=0)) > 1
            for _, axes in e.terms()
            for m in axes
        )

    def kept(self, e: GridEdge, port, lag: Lag) -> GridEdge | None:
        """A random edge at a lag; None where the reader has no such pixels."""
        if not any(lag):
            return e
        if any(n % j for n, j in zip(lag, self.jumps[e.reader[0]])):
            return None
        if e.still or self.ring is not None:
            return e
        shape, jump = self.shapes[port[0]], self.jumps[port[0]]
        to = tuple(n // j for n, j in zip(lag, jump))
        terms = cache(lambda: layers.both_inside(e.terms(), shape, to))
        return GridEdge(e.reader, e.gain, "random", _fresh(), terms)

    def pair(
        self, port, lag: Lag, e: GridEdge, f: GridEdge, factor: Weight,
        allowed: Callable[[Lag], bool], turned: Callable[[Lag], bool],
    ) -> Iterator[tuple[Lag, GridEdge]]:  # fmt: skip
        """Products of two gradients that come to one port by two edges, by lag of the readers."""
        if e.still and f.still and not (any(lag) and turned(lag)):
            if allowed(lag):
                yield lag, GridEdge(None, factor, "random", STILL, e.terms)
            return
        own = e is f and not any(lag)
        if own and allowed(lag):
            size = e.square
            terms = cache(lambda: _scaled(layers.squared(e.terms()), 1 / float(size)))
            yield lag, GridEdge(None, factor * size, "random", ("square", e.key), terms)
        both = e.kind == f.kind == "routing" and self.windows
        rows = self._winners(port, e, f, turned) if both else self._pairs(port, lag, e, f, turned)
        for to in sorted(rows):
            if allowed(to) and not (own and not any(to)):
                self.uneven = True
                terms = lambda found=tuple(rows[to]): found  # noqa: E731
                yield to, GridEdge(None, factor, "random", _fresh(), terms)

    def _winners(self, port, e: GridEdge, f: GridEdge, turned) -> dict[Lag, list]:
        """Chances that a pixel is the largest of two windows of a line: 1 over their union."""
        ((_, (a,)),), ((_, (b,)),) = e.terms(), f.terms()
        first, second = (self._matrix(m, port, 0) > 0 for m in (a, b))
        shared = (first.T.astype(int) @ second.astype(int)).tocoo()
        sizes = [np.asarray(m.sum(0)).ravel() for m in (first, second)]
        chance = sparse.csr_array(
            (1 / (sizes[0][shared.row] + sizes[1][shared.col] - shared.data),
             (shared.row, shared.col)), shape=shared.shape
        )  # fmt: skip
        found: dict[Lag, list] = {}
        line = self._products(first * 1.0, second * 1.0, port, e.reader, f.reader, 0, 0)
        for step, ways in line.items():
            way = int(turned((step,)))
            entries = [matrix.tocoo() for matrix in ways]
            left, right = entries[0].col, entries[1].col
            rows, columns = entries[0].row, entries[way].col
            values = np.asarray(chance[left, right]).ravel()
            matrix = sparse.csr_array((values, (rows, columns)), shape=ways[way].shape)
            found.setdefault((step,), []).append((1.0, (matrix,)))
        return found

    def _pairs(self, port, lag: Lag, e, f, turned) -> dict[Lag, list]:
        """Terms of products by lag: per axis all products, then what their lags allow."""
        found: dict[Lag, list] = {}
        for one, left in e.terms():
            for two, right in f.terms():
                axes = [
                    self._line(a, b, port, e.reader, f.reader, lag[axis], axis)
                    for axis, (a, b) in enumerate(zip(left, right))
                ]
                for choice in product(*(line.items() for line in axes)):
                    to = tuple(n for n, _ in choice)
                    way = int(turned(to))
                    matrices = tuple(ways[way] for _, ways in choice)
                    found.setdefault(to, []).append((one * two, matrices))
        return found

    def _line(self, a: Matrix, b: Matrix, port, p, q, lag: int, axis: int) -> dict[int, tuple]:
        """Products of two matrices of an axis by lag of their readers, read from either."""
        key = id(a), id(b), port[0], p[0], q[0], lag, axis
        if key not in self.lines:  # a and b are kept beside, so that their ids stay theirs
            self.lines[key] = a, b, self._products(a, b, port, p, q, lag, axis)
        return self.lines[key][2]

    def _products(self, a, b, port, p, q, lag, axis) -> dict[int, tuple]:
        n, jump = self.shapes[port[0]][axis], self.jumps[port[0]][axis]
        first, second = self._matrix(a, port, axis), self._matrix(b, port, axis)
        rows = np.arange(n)
        beside = rows + lag // jump
        if self.ring is not None:
            beside = beside % n
        inside = (beside >= 0) & (beside < n)
        rows, beside = rows[inside], beside[inside]
        left, right = np.diff(first.indptr)[rows], np.diff(second.indptr)[beside]
        sizes = left * right
        which = np.repeat(np.arange(len(rows)), sizes)
        place = np.arange(len(which)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        i = first.indptr[rows][which] + place // np.maximum(right[which], 1)
        j = second.indptr[beside][which] + place % np.maximum(right[which], 1)
        o, other = first.indices[i], second.indices[j]
        to = self._round(self._place(q, other, axis) - self._place(p, o, axis), axis)
        values, at = first.data[i] * second.data[j], rows[which]
        shapes = (n, self.shapes[p[0]][axis]), (n, self.shapes[q[0]][axis])
        found = {}
        for step in np.unique(to):
            kept = to == step
            found[int(step)] = tuple(
                sparse.csr_array((values[kept], (at[kept], column[kept])), shape=shape)
                for column, shape in zip((o, other), shapes)
            )
        return found

    def single(
        self, port, lag: Lag, e: GridEdge, other,
        allowed: Callable[[Lag], bool], turned: Callable[[Lag], bool],
    ) -> Iterator[tuple[Lag, GridEdge]]:  # fmt: skip
        """A gradient that comes to a port by an edge, beside one at `other`."""
        if e.still and not turned(lag):
            if allowed(lag):
                yield lag, GridEdge(None, e.mean, "random", STILL, e.terms)
            return
        rows: dict[Lag, list] = {}
        for weight, axes in e.terms():
            lines = [
                self._beside(m, port, e.reader, other, lag[axis], axis)
                for axis, m in enumerate(axes)
            ]
            for choice in product(*(line.items() for line in lines)):
                to = tuple(n for n, _ in choice)
                way = int(turned(to))
                rows.setdefault(to, []).append((weight, tuple(ways[way] for _, ways in choice)))
        for to in sorted(rows):
            if allowed(to):
                self.uneven = self.uneven or not e.still
                terms = lambda found=tuple(rows[to]): found  # noqa: E731
                yield to, GridEdge(None, e.mean, "random", _fresh(), terms)

    def _beside(self, m: Matrix, port, reader, other, lag: int, axis: int) -> dict[int, tuple]:
        """A matrix by the lag of its readers from the pixel of `other`, read from either."""
        matrix = self._matrix(m, port, axis).tocoo()
        row, column, values = matrix.row, matrix.col, matrix.data
        n, size = self.shapes[port[0]][axis], self.shapes[other[0]][axis]
        at, rest = np.divmod(self._place(port, row, axis) + lag, self.jumps[other[0]][axis])
        if self.ring is not None:
            at = at % size
        kept = (rest == 0) & (at >= 0) & (at < size)
        row, column, values, at = row[kept], column[kept], values[kept], at[kept]
        to = self._round(
            self._place(port, row, axis) + lag - self._place(reader, column, axis), axis
        )
        shapes = (n, self.shapes[reader[0]][axis]), (n, size)
        return {
            int(step): tuple(
                sparse.csr_array(
                    (values[to == step], (row[to == step], c[to == step])), shape=shape
                )
                for c, shape in zip((column, at), shapes)
            )
            for step in np.unique(to)
        }

    # ---- places -------------------------------------------------------------------------------

    def _matrix(self, m: Matrix, port, axis: int) -> Any:
        return sparse.eye_array(self.shapes[port[0]][axis], format="csr") if m is None else m

    def _entries(self, m: Matrix, port, axis: int) -> tuple[np.ndarray, np.ndarray]:
        if m is None:
            place = np.arange(self.shapes[port[0]][axis])
            return place, place
        found = m.tocoo()
        return found.row, found.col

    def _place(self, port, index: np.ndarray, axis: int) -> np.ndarray:
        return index.astype(np.int64) * self.jumps[port[0]][axis]

    def _round(self, lags: np.ndarray, axis: int) -> np.ndarray:
        """Lags on a torus, about 0."""
        if self.ring is None:
            return lags
        half = self.ring[axis] // 2
        return (lags + half) % self.ring[axis] - half


def _scaled(terms: Terms, factor: float) -> Terms:
    return tuple((weight * factor, axes) for weight, axes in terms)


def folds(step: Any, before: Shape, after: Shape, mode: str) -> bool:
    """Whether one tap reads a pixel of the image at several places of the padded image."""
    if step is None or step.up:
        return False
    if mode == "circular":  # places a whole turn apart
        return any(m > n // math.gcd(n, s) for n, m, s in zip(before, after, step.stride))
    return mode in ("reflect", "replicate") and any((*step.before, *step.after))
