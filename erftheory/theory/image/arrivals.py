"""How much of every unit's signal arrives at an image, for all units of a map in one pass.

It takes no maps: ones at the input, carried forward by the transposed matrices of `matrices`,
arrive at every unit as the sum of its map. They are a sum of few products of axes (one product more
where branches meet), which is written out as one array only when there are many. On the plane, axes
are rings that hold one period.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
from scipy import sparse

from erftheory.theory.image.graph import Flat
from erftheory.theory.image.matrices import Matrix

RANK = 32  # products up to which a sum of them is kept as it is


class Unlike(ValueError):
    """Two readings of a network follow different products of gradients."""


@dataclass(eq=False)
class Arrived:
    """Sums of all units' maps: e^log times added products of lines, one an axis; or an array."""

    products: list[tuple[np.ndarray, ...]] = field(default_factory=list)
    whole: np.ndarray | None = None
    log: float = 0.0

    def full(self) -> np.ndarray:
        """The array, without e^log."""
        if self.whole is not None:
            return self.whole
        return sum(reduce(np.multiply.outer, lines) for lines in self.products)  # type: ignore

    def top(self) -> float:
        if self.whole is not None:
            return float(self.whole.max(initial=0.0))
        return max(math.prod(float(line.max(initial=0.0)) for line in p) for p in self.products)

    def scaled(self, by: float) -> Arrived:
        products = [(lines[0] * by, *lines[1:]) for lines in self.products]
        return Arrived(products, None if self.whole is None else self.whole * by, self.log)

    def settled(self) -> Arrived:
        """Within reach of floats: on small images every layer loses a share."""
        top = self.top()
        if not 0 < top < 1e-60:
            return self
        found = self.scaled(1 / top)
        found.log += math.log(top)
        return found


@dataclass
class Axis:
    """How one axis is read: of a network on an image, or of the plane's period.

    Attributes:
      flat: the network on an image, or on a torus of `torus` pixels on this axis.
      period: pixels after which the plane repeats; None for an image.
    """

    flat: Flat
    axis: int
    period: int | None = None
    made: dict[int, tuple[Matrix, Matrix]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return self.flat.nodes[0].shape[self.axis] if self.period is None else self.period

    def carried(self, matrix: Matrix) -> Matrix:
        """The transposed matrix, of one period on the plane."""
        if id(matrix) not in self.made:
            found = matrix.T.tocsr()
            if self.period is not None:
                torus = self.flat.nodes[0].shape[self.axis]
                n, m = (side * self.period // torus for side in matrix.shape)
                coo = found[:m].tocoo()  # later rows are these, moved by a period
                entries = coo.data, (coo.row, coo.col % n)
                found = sparse.csr_array(entries, shape=(m, n))
            self.made[id(matrix)] = found, matrix  # an id is only good while its matrix lives
        return self.made[id(matrix)][0]


def arrived(axes: Sequence[Axis]) -> Arrived:
    """The sums of the maps of all units; gains are those of the first axis's network.

    Raises:
      Unlike: the axes' networks follow different products of gradients.
    """
    flats = list({id(a.flat): a.flat for a in axes}.values())
    lead, outputs = flats[0], set(flats[0].outputs)
    moments = [flat.moments for flat in flats]
    if any(m.order != moments[0].order for m in moments[1:]):
        raise Unlike("image: got one whose lags are not the plane's")
    channels = lead.nodes[0].channels
    seeds = {
        (0, g): Arrived([tuple(np.ones(a.size) for a in axes)], log=math.log(c))
        for g, c in enumerate(channels)
    }
    waiting: dict[Any, dict[Any, tuple[list, list]]] = {}
    ends: list[tuple[float, Arrived]] = []
    for state in reversed(moments[0].order):
        parts = [(1.0, seeds[state])] if state in seeds else []
        for edges, found in waiting.pop(state, {}).values():
            behind = _through(_added(found), axes, flats, edges)
            if behind is not None:
                parts.append((1.0, behind))
        if not parts:
            continue
        value = _added(parts)
        if state in outputs:
            ends.append((1.0, value))
        rows = [m.arriving.get(state, []) for m in moments]
        if any(len(row) != len(rows[0]) for row in rows[1:]):
            raise Unlike("image: got one whose lags are not the plane's")
        for edges in zip(*rows):
            edge = edges[0]
            if any(
                e.reader != edge.reader or not math.isclose(e.gain, edge.gain, rel_tol=1e-9)
                for e in edges[1:]
            ):
                raise Unlike("image: got one whose lags are not the plane's")
            if edge.gain:
                held = waiting.setdefault(edge.reader, {})
                held.setdefault(edge.key, (list(edges), []))[1].append((float(edge.gain), value))
    if not ends:
        return Arrived([tuple(np.zeros(0) for _ in axes)])
    return _added(ends)


def _added(parts: list[tuple[float, Arrived]]) -> Arrived:
    """Weighted arrivals that meet."""
    if len(parts) == 1:
        gain, one = parts[0]
        return Arrived(one.products, one.whole, one.log + math.log(gain))
    together: dict[int, tuple[float, Arrived]] = {}
    for gain, part in parts:
        before = together.get(id(part), (0.0, part))[0]
        together[id(part)] = before + gain, part
    logs = [part.log + math.log(gain) for gain, part in together.values()]
    top = max(logs)
    scaled = [part.scaled(math.exp(log - top)) for log, (_, part) in zip(logs, together.values())]
    products = [lines for part in scaled for lines in part.products]
    arrays = [part.whole for part in scaled if part.whole is not None]
    found = Arrived(products, None, top)
    if arrays or len(products) > RANK:
        whole = sum(arrays) + (found.full() if products else 0.0)  # type: ignore[arg-type]
        found = Arrived([], whole, top)  # type: ignore[arg-type]
    return found.settled()


def _through(
    value: Arrived, axes: Sequence[Axis], flats: list[Flat], edges: list
) -> Arrived | None:
    """What arrives behind a layer; None if it reads nothing but its padding."""
    by_flat = {id(flat): edge.terms() for flat, edge in zip(flats, edges)}
    rows = [by_flat[id(a.flat)] for a in axes]
    if any(len(row) != len(rows[0]) for row in rows[1:]):
        raise Unlike("image: got one whose lags are not the plane's")
    if not rows[0]:
        return None
    terms = []
    for found in zip(*rows):
        weight = found[0][0]
        if any(not math.isclose(w, weight, rel_tol=1e-9) for w, _ in found[1:]):
            raise Unlike("image: got one whose lags are not the plane's")
        each = [row[1][a.axis] for row, a in zip(found, axes)]
        matrices = [None if m is None else a.carried(m) for m, a in zip(each, axes)]
        terms.append((float(weight), matrices))
    if all(m is None for _, matrices in terms for m in matrices) and len(terms) == 1:
        return value if terms[0][0] == 1 else value.scaled(terms[0][0])
    if value.whole is None and len(value.products) * len(terms) <= RANK:
        products = []
        for weight, matrices in terms:
            for lines in value.products:
                moved = [line if m is None else m @ line for m, line in zip(matrices, lines)]
                products.append((moved[0] * weight, *moved[1:]))
        return Arrived(products, None, value.log).settled()
    array, total = value.full(), None
    for weight, matrices in terms:
        found = array
        for axis, matrix in enumerate(matrices):
            if matrix is not None:
                found = _along(found, matrix, axis)
        found = found if weight == 1 else weight * found
        total = found if total is None else total + found
    return Arrived([], total, value.log).settled()


def _along(array: np.ndarray, matrix: Matrix, axis: int) -> np.ndarray:
    moved = np.moveaxis(array, axis, 0)
    found = matrix @ np.ascontiguousarray(moved).reshape(moved.shape[0], -1)
    return np.moveaxis(found.reshape(matrix.shape[0], *moved.shape[1:]), 0, axis)
