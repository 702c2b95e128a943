"""What the outputs near a tile's rim lose of their influence, when the network runs on the tile.

Paths that leave the tile on the way are lost even where they would come back, so the share of the
plane's map that lies on the tile is not what the tile keeps: near its rim a random walk leaves
about twice as often as it ends outside. What every unit of the tile keeps is known from one
forward pass (arrivals.py), of one rim alone and of all together. Where signs or rims change
weights, what is lost is not all that is off: maps on tiles (grid.py) are laid beside the plane's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import product

import numpy as np

from erftheory.erf import ERF
from erftheory.network.base import Network
from erftheory.network.initialisation import Init
from erftheory.theory.advice.fitting import size_behind
from erftheory.theory.gains.prepare import prepare
from erftheory.theory.image.arrivals import Arrived, Axis, Unlike, arrived
from erftheory.theory.image.graph import Flat, flatten
from erftheory.theory.image.matrices import TORUS
from erftheory.theory.image.pull import Cancelled, Unreached
from erftheory.theory.image.units import exact_units, ring_of
from erftheory.theory.lowering.branches import rescales
from erftheory.theory.plane.axis import Marginal

PHASES = 64  # phases up to which maps are made of all; beyond, of so many on diagonals
KEPT = 20_000_000  # pixels of maps that are kept, or made for one corner
ROUNDING = 1e-13  # below it a share is what floats leave of none

Sides = tuple[tuple[int, int], ...]  # input pixels (before, after) an axis


class Influence:
    """One output map of a network on tiles of the plane.

    Args:
      fields: margins that lose nothing.
      grid: input pixels after which the output repeats, of `phases` units, one entry an axis.
      tile: input pixels on which the network runs, as it does with any whole grids more.
    """

    def __init__(
        self,
        network: Network,
        signal: str,
        init: Init | None,
        fields: Sides,
        grid: tuple[int, ...],
        phases: tuple[int, ...],
        tile: tuple[int, ...],
    ):
        self.network, self.signal, self.init = network, signal, init
        self.grid, self.phases, self.like = grid, phases, tile
        self.whole = tuple(
            (up(before, g), up(after, g, n)) for (before, after), g, n in zip(fields, grid, tile)
        )
        self.walk = prepare(network, signal, init)
        # where signs or rims change weights, what is lost is not all that is off
        self.rescales = rescales(network.graph)
        self.moved = self.walk.signed or self.rescales
        self.some = list(chosen(phases))
        behind = size_behind(network.graph, tile)
        self.output = tuple(n or 0 for n in behind)
        self._kept: list[ERF] | None = None
        self._shares: dict[tuple[int, ...], np.ndarray] = {}

    def reach(self, share: float) -> Sides:
        """Margins that are needed on each side for itself, as its rim alone takes more than
        `share`; where rims change weights, as more lies beyond of the plane's map."""
        ends = tuple(
            (0, max(0, math.ceil(n - out * rate)))  # output that a tile has
            for n, out, rate in zip(self.like, self.output, self.network.graph.rate)
        )
        if self.moved:
            found = self._beyond(share)
        else:
            try:
                found = tuple(self._rims(axis, share) for axis in range(len(self.grid)))
            except Unlike:
                found = self._beyond(share)
        return tuple((a, max(b, end)) for (a, b), (_, end) in zip(found, ends))

    def _rims(self, axis: int, share: float) -> tuple[int, int]:
        """Margins that leave no unit which loses more than `share` beyond one rim of the axis."""
        flat, ring = self._lone
        rows = [Axis(flat, a) if a == axis else Axis(ring, a, g) for a, g in enumerate(self.grid)]
        lost = self._lost(rows)
        g, count = self.grid[axis], self.phases[axis]
        size, cells = flat.nodes[0].shape[axis], lost.shape[axis] // count
        others = tuple(a for a in range(lost.ndim) if a != axis)
        line = lost.max(axis=others)[: cells * count].reshape(cells, count).max(axis=1)
        bad, low = np.flatnonzero(line > share), self.whole[axis][0] // g
        before = max((int(c) + 1 for c in bad if c < low), default=0)
        end = min((int(c) for c in bad if c >= low), default=cells)
        return before * g, size - end * g

    @cached_property
    def _lone(self) -> tuple[Flat, Flat]:
        """The network on an image on which no unit sees two opposite rims, and on a torus."""
        sizes = tuple(
            up(low + high + 2 * g, g, n)
            for (low, high), g, n in zip(self.whole, self.grid, self.like)
        )
        flat = flatten(self.network, sizes, self.signal, self.init, "zeros")
        torus = ring_of(self.network.graph, flat, self.grid)
        return flat, flatten(self.network, torus, self.signal, self.init, TORUS)

    @cached_property
    def _plane_sums(self) -> Arrived:
        ring = self._lone[1]
        return arrived([Axis(ring, a, g) for a, g in enumerate(self.grid)])

    def _lost(self, axes: list[Axis]) -> np.ndarray:
        """The share that each unit loses, over the units of the axes."""
        here, plane = arrived(axes), self._plane_sums
        scale = math.exp(min(here.log - plane.log, 700.0))
        found, whole = here.full(), plane.full()
        place = np.ix_(*(np.arange(n) % count for n, count in zip(found.shape, whole.shape)))
        whole = whole[place]
        lost = 1 - scale * found / np.where(whole > 0, whole, 1)
        lost[(whole <= 0) | (lost < ROUNDING)] = 0.0  # units that read nothing lose nothing
        return lost

    def lost(self, tile: tuple[int, ...], margin: Sides) -> float:
        """The largest share that a kept output loses."""
        if self.moved:
            corners = product((0, 1), repeat=len(tile))
            return max(self._corner(tile, margin, sides) for sides in corners)
        # a tile on which no unit sees two opposite rims is as good as a larger one
        size = tuple(
            min(n, up(low + high + 2 * g, g, n))
            for n, (low, high), g in zip(tile, self.whole, self.grid)
        )
        if size not in self._shares:
            flat = flatten(self.network, size, self.signal, self.init, "zeros")
            self._shares[size] = self._lost([Axis(flat, a) for a in range(len(size))])
        found, kept = self._shares[size], []
        for n, (before, after), rate in zip(size, margin, self.network.graph.rate):
            kept.append(slice(int(before / rate), int((n - after) / rate)))
        if any(k.stop > n for k, n in zip(kept, found.shape)):
            return 1.0  # output that the tile has not
        return float(found[tuple(kept)].max(initial=0.0))

    def _corner(self, tile: tuple[int, ...], margin: Sides, sides: tuple[int, ...]) -> float:
        """The largest share by which the map of a unit near a corner is off.

        A rim that changes weights may do more to a unit farther from it, so all cells count then
        whose units see it; of large maps those near the corner, along its edges and diagonal.
        """
        image, cells = [], []
        for axis, (side, n, (before, after)) in enumerate(zip(sides, tile, margin)):
            g, (low, high) = self.grid[axis], self.whole[axis]
            first, last = before // g, max(before, low) // g
            if side == 1:
                first, last = after // g, max(after, high) // g
            last = last if self.rescales else first
            # what lies farther than the field makes no difference
            size = min(n, up((last + 1) * g + (high if side == 0 else low), g, n))
            last = min(last, size // g - 1 - (after if side == 0 else before) // g)
            image.append(size)
            ways = range(first, max(first, last) + 1)
            cells.append([c if side == 0 else (size - c * g) // g - 1 for c in ways])
        worst = 0.0
        try:
            for cell in _near_corner(cells, math.prod(image) * len(self.some)):
                starts = [low - c * g for (low, _), c, g in zip(self.whole, cell, self.grid)]
                beside = self._plane_maps()
                for erf in self._units(tuple(image), list(cell)):
                    lost = erf.metadata["lost"]
                    if lost is None:
                        return math.inf
                    lost = _apart(next(beside).map, erf.map * (1 - lost), starts)
                    worst = max(worst, lost)
        except Unreached:
            return 1.0
        except Cancelled:  # a map without a sum, of which no share is known
            return math.inf
        return worst

    def _plane_maps(self) -> Iterator[ERF]:
        """`_plane`, kept where that takes little memory."""
        if self._kept is None:
            pixels = math.prod(
                low + g + high for (low, high), g in zip(self.whole, self.grid)
            ) * len(self.some)  # fmt: skip
            if pixels > KEPT:
                return self._plane()
            self._kept = list(self._plane())
        return iter(self._kept)

    def _beyond(self, share: float) -> Sides:
        """Margins that leave out at most `share` of the plane's map on each side, any phase."""
        if not self.walk.restricted and not self.walk.signed:
            rows = []
            for axis, g in enumerate(self.grid):
                first, last = Marginal(self.walk.axis(axis), None).window(share)
                rows.append((max(0, -first), max(0, last - g + 1)))
            return tuple(rows)
        sides = [[0, 0] for _ in self.grid]
        for erf in self._plane():
            for axis, g in enumerate(self.grid):
                others = tuple(a for a in range(len(self.grid)) if a != axis)
                line = np.abs(erf.map).sum(axis=others) if self.walk.signed else erf.marginals[axis]
                first, last = _window(line, share)
                start = self.whole[axis][0]  # of the unit's own cell
                for side, found in enumerate((start - first, last - start - g + 1)):
                    sides[axis][side] = max(sides[axis][side], found)
        return tuple((before, after) for before, after in sides)

    def _plane(self) -> Iterator[ERF]:
        """Maps of the units of one cell, on an image that holds all that they read."""
        image = tuple(
            up(low + g + high, g, n) for (low, high), g, n in zip(self.whole, self.grid, self.like)
        )
        return self._units(image, [low // g for (low, _), g in zip(self.whole, self.grid)])

    def _units(self, image: tuple[int, ...], cell: list[int]) -> Iterator[ERF]:
        """Maps of the units of all phases in a cell of the grid."""
        units = [
            tuple(c * count + i for c, count, i in zip(cell, self.phases, phase))
            for phase in self.some
        ]
        return exact_units(self.network, image, units, self.signal, self.init)


def _near_corner(cells: list[list[int]], cost: int) -> list[tuple[int, ...]]:
    """The cells whose units are looked at, of `cost` pixels each: all, or those on the corner's
    edges and its diagonal, or the corner's own."""
    every = list(product(*cells))
    if cost * len(every) <= KEPT:
        return every
    found = [every[0]]
    for k in range(1, max(map(len, cells))):
        near = [line[min(k, len(line) - 1)] for line in cells]
        found.append(tuple(near))
        for axis, n in enumerate(near):
            found.append(tuple(n if a == axis else c[0] for a, c in enumerate(cells)))
    return list(dict.fromkeys(found))[: max(1, KEPT // cost)]


def _apart(plane: np.ndarray, tile: np.ndarray, starts: list[int]) -> float:
    """Σ|plane − tile| / Σ|plane|, where the tile's map starts at `starts` of the plane's."""
    found = np.zeros_like(plane)
    into, out = [], []
    for start, n, wide in zip(starts, tile.shape, plane.shape):
        into.append(slice(max(0, start), min(wide, start + n)))
        out.append(slice(max(0, -start), min(wide, start + n) - start))
    found[tuple(into)] = tile[tuple(out)]
    return float(np.abs(plane - found).sum() / np.abs(plane).sum())


def chosen(phases: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """All output phases, or those of some diagonals."""
    if math.prod(phases) <= PHASES:
        yield from product(*map(range, phases))
        return
    longest = max(phases)
    diagonals = max(1, PHASES // longest)
    for k in range(diagonals):
        shift = k * longest // diagonals
        for i in range(longest):
            yield tuple((i + shift * a) % p for a, p in enumerate(phases))


def grown(lost: Callable[[int], float | None], share: float, most: int) -> tuple[int, float] | None:
    """The fewest steps after which at most `share` is lost, and what is; None if there are none.

    `lost` gives the share, or None where no output would be left; after `most` steps it is 0.
    """
    low, high = -1, 0
    while True:
        high = min(high, most)
        found = lost(high)
        if found is None or found <= share:
            break
        low, high = high, max(1, 2 * high)
    best = None if found is None else (high, found)
    while high - low > 1:
        middle = (low + high) // 2
        found = lost(middle)
        if found is None or found <= share:
            high, best = middle, best if found is None else (middle, found)
        else:
            low = middle
    return best


def up(value: int, grid: int, like: int = 0) -> int:
    """The least number from `value` on that is `like` modulo the grid."""
    return value + (like - value) % grid


def _window(line: np.ndarray, share: float) -> tuple[int, int]:
    """First and last index of the smallest window that leaves out at most `share` on each side."""
    share = share * float(line.sum())
    count: Callable[[np.ndarray], int] = lambda x: int(  # noqa: E731
        np.searchsorted(np.cumsum(x), share, side="right")
    )
    return count(line), len(line) - 1 - count(line[::-1])
