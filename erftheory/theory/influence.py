"""What the outputs near a tile's rim lose of their influence, when the network runs on the tile.

Paths that leave the tile on the way are lost even where they would come back, so the share of the
plane's map that lies on the tile is not what the tile keeps: near its rim a random walk leaves
about twice as often as it ends outside. So the plane's map proposes margins, and maps on tiles
(grid.py) decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np

from erftheory.erf import ERF
from erftheory.network.base import Network
from erftheory.network.initialisation import Init
from erftheory.theory.branches import rescales
from erftheory.theory.grid import exact_units
from erftheory.theory.marginal import Marginal
from erftheory.theory.prepare import prepare
from erftheory.theory.pulling import Unreached

PHASES = 64  # output phases up to which all are looked at; beyond, so many on diagonals

Sides = tuple[tuple[int, int], ...]  # input pixels (before, after) an axis


class Influence:
    """One output map of a network on tiles of the plane.

    Args:
      fields: margins that lose nothing.
      grid: input pixels after which the output repeats, of `phases` units, one entry an axis.
    """

    def __init__(
        self,
        network: Network,
        signal: str,
        init: Init | None,
        fields: Sides,
        grid: tuple[int, ...],
        phases: tuple[int, ...],
    ):
        self.network, self.signal, self.init = network, signal, init
        self.grid, self.phases = grid, phases
        self.whole = tuple(tuple(up(m, g) for m in side) for side, g in zip(fields, grid))
        self.walk = prepare(network, signal, init)
        # where signs or rims change weights, what is lost is not all that is off
        self.moved = self.walk.signed or rescales(network.graph)
        self.some = list(chosen(phases))

    def reach(self, share: float) -> Sides:
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

    def lost(self, tile: tuple[int, ...], margin: Sides) -> float:
        """The largest share that a kept output loses: in the corners, over the output phases."""
        return max(self._corner(tile, margin, sides) for sides in product((0, 1), repeat=len(tile)))

    def _corner(self, tile: tuple[int, ...], margin: Sides, sides: tuple[int, ...]) -> float:
        image, cell = [], []
        for axis, (side, n, (before, after)) in enumerate(zip(sides, tile, margin)):
            g, (low, high) = self.grid[axis], self.whole[axis]
            # what lies farther than the field makes no difference
            size = min(n, before + g + high) if side == 0 else min(n, low + g + after)
            image.append(size)
            cell.append(before // g if side == 0 else (size - after) // g - 1)
        worst = 0.0
        beside = self._plane() if self.moved else iter(())
        try:
            for erf in self._units(tuple(image), cell):
                lost = erf.metadata["lost"]
                if lost is not None and self.moved:
                    starts = [low - c * g for (low, _), c, g in zip(self.whole, cell, self.grid)]
                    lost = _apart(next(beside).map, erf.map * (1 - lost), starts)
                worst = max(worst, math.inf if lost is None else lost)
        except Unreached:
            return 1.0
        return worst

    def _plane(self) -> Iterator[ERF]:
        """Maps of the units of one cell, on an image that holds all that they read."""
        image = tuple(low + g + high for (low, high), g in zip(self.whole, self.grid))
        return self._units(image, [low // g for (low, _), g in zip(self.whole, self.grid)])

    def _units(self, image: tuple[int, ...], cell: list[int]) -> Iterator[ERF]:
        """Maps of the units of all phases in a cell of the grid."""
        units = [
            tuple(c * count + i for c, count, i in zip(cell, self.phases, phase))
            for phase in self.some
        ]
        return exact_units(self.network, image, units, self.signal, self.init)


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


def grown(
    lost: Callable[[int], float | None], share: float, most: int
) -> tuple[int, float] | None:
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


def up(value: int, grid: int) -> int:
    return -(-value // grid) * grid


def _window(line: np.ndarray, share: float) -> tuple[int, int]:
    """First and last index of the smallest window that leaves out at most `share` on each side."""
    share = share * float(line.sum())
    count: Callable[[np.ndarray], int] = lambda x: int(  # noqa: E731
        np.searchsorted(np.cumsum(x), share, side="right")
    )
    return count(line), len(line) - 1 - count(line[::-1])
