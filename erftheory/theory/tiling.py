"""Tiled inference: how far tiles must overlap so that their seams do not show.

An output unit is right where the tile holds all that it reads, of the input and of every map on the
way (needed.py). The largest over all output phases is the exact margin; the effective receptive
field says how much less is enough for a given share of the influence.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np

from erftheory.measures import check_share
from erftheory.network.arguments import integer, per_axis
from erftheory.network.base import Network, check_network
from erftheory.network.imported import aligned_corners
from erftheory.theory.grid_graph import flatten
from erftheory.theory.lowering import build
from erftheory.theory.marginal import Marginal
from erftheory.theory.needed import rates, reads
from erftheory.theory.reading import prepare
from erftheory.theory.walk import Walk

PHASES = 64  # output phases up to which all are looked at; beyond, those of the diagonal

Sides = tuple[tuple[int, int], ...]  # input pixels (before, after) an axis


@dataclass(frozen=True)
class Margins:
    """What a tile must hold around the outputs that are kept, input pixels, one entry an axis.

    Attributes:
      needed: (before, after) as the field says.
      margin: the same rounded up to the grid, and the `core` of a tile that is left for output.
      efficiency: share of the tile's pixels that is output.
      valid: indices of the tile's output that are right, (first, last + 1) an axis.
      tiles: number of tiles for the image, if one was given.
    """

    needed: Sides
    margin: Sides
    core: tuple[int, ...]
    efficiency: float
    valid: Sides
    tiles: int | None = None


@dataclass(frozen=True)
class Tiling:
    """Overlaps for tiled inference; `overlap` of neighbouring tiles is before + after.

    Attributes:
      tile: input pixels of a tile, and `grid`, the pixels that tiles and steps are multiples of.
      exact: margins with which tiles give the whole image's output (the receptive field).
      effective: those that keep `mass` of the influence, or more, at every output.
    """

    tile: tuple[int, ...]
    grid: tuple[int, ...]
    mass: float
    signal: str
    exact: Margins | None
    effective: Margins

    @property
    def overlap(self) -> tuple[int, ...]:
        """Input pixels that neighbouring tiles share for an exact result.

        Raises:
          ValueError: the tile is smaller than the receptive field asks for.
        """
        if self.exact is None:
            raise ValueError(f"tile: got {self.tile}, too small for an exact result; see effective")
        return tuple(before + after for before, after in self.exact.margin)

    def _lines(self) -> list[str]:
        tile, grid = (_times(v) for v in (self.tile, self.grid))
        lines = [f"tile {tile} pixels, starting at multiples of {grid}"]
        if self.exact is None:
            lines.append("receptive field: larger than the tile; no output of a tile is exact")
        else:
            lines.append("receptive field: " + _line(self.exact))
        lines.append(f"{self.mass:g} of the {self.signal} signal: " + _line(self.effective))
        return lines

    def __str__(self) -> str:
        return "\n".join(self._lines())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "<br>".join(html.escape(line) for line in self._lines())


def tiling(
    network: Network,
    tile: int | tuple[int, ...],
    mass: float = 0.999,
    signal: str = "variance",
    init: str | None = "he",
    image: int | tuple[int, ...] | None = None,
) -> Tiling:
    """The overlap that tiled inference needs, by the receptive field and by the ERF.

    Args:
      tile: input pixels of a tile, an int or one an axis.
      mass: share of the influence that every kept output must find inside its tile.
      signal, init: of the ERF, as for `exact` ("variance" or "gradient").
      image: input pixels of the image, to count tiles.

    Raises:
      ValueError: a tile that is no multiple of the grid or too small for any output, a global
        operation (it sees the whole image: no overlap is enough), interpolation with aligned
        corners (its places depend on the size of the map).
    """
    check_network("network", network)
    mass = check_share("mass", mass)
    if aligned_corners(network.graph):
        raise ValueError(
            "network: got interpolation with aligned corners, whose places depend on the size of "
            "the map, so that no overlap makes tiles agree; takes align_corners=False"
        )
    walk = build(network, "gradient")  # says what is wrong with a global operation
    ndim = walk.ndim
    grid = tuple(max(1, j * p // f) for j, p, f in zip(walk.jump, walk.phases, walk.fine))
    sizes = _sizes("tile", tile, ndim)
    whole = None if image is None else _sizes("image", image, ndim)
    for axis, (n, g) in enumerate(zip(sizes, grid)):
        if n % g:
            raise ValueError(
                f"tile: got {n} on axis {axis}; takes a multiple of {g}, the pixels after which "
                "the network repeats"
            )
    rate = network.graph.rate
    fields = _field_margins(network, walk, sizes)
    influence = _mass_margins(network, prepare(network, signal, init), mass, signal, init, rate)
    exact = _margins(fields, sizes, grid, rate, whole)
    # rounding a tail bound may not ask for more than the field holds
    least = tuple(tuple(map(min, a, b)) for a, b in zip(influence, fields))
    effective = _margins(least, sizes, grid, rate, whole)  # pyright: ignore[reportArgumentType]
    if effective is None:
        wanted = [sum(_up(m, g) for m in side) + g for side, g in zip(least, grid)]
        raise ValueError(
            f"tile: got {_times(sizes)}; takes at least {_times(wanted)} pixels for {mass:g} of "
            f"the {signal} signal"
        )
    return Tiling(sizes, grid, mass, signal, exact, effective)


def _sizes(name: str, value, ndim: int) -> tuple[int, ...]:
    entries = per_axis(name, value)
    sizes = entries if isinstance(entries, tuple) else (entries,) * ndim
    if len(sizes) != ndim:
        raise ValueError(f"{name}: got {value!r}; takes an integer or {ndim}, one an axis")
    return tuple(integer(name, n) for n in sizes)


def _cell(index: int, rate) -> tuple[int, int]:
    """First and last input pixel of an output unit's own cell."""
    first = math.floor(index * rate)
    return first, max(first, math.ceil((index + 1) * rate) - 1)


def _phases(walk: Walk):
    return product(*(range(count) for count in walk.phases))


def _field_margins(network: Network, walk: Walk, tile: tuple[int, ...]) -> Sides:
    """How far what a unit reads of any map sticks out of its own cell, in input pixels.

    Maps of a tile end where their layers' paddings let them, `over` pixels beyond the tile's share.
    """
    try:
        flat = flatten(network, tile, "gradient", None, "zeros")
    except ValueError as wrong:
        raise ValueError(str(wrong).replace("image:", "tile:", 1)) from None
    sides = []
    for axis, n in enumerate(tile):
        before, after, scale = 0, 0, rates(flat, axis)
        for phase in range(walk.phases[axis]):
            first, last = _cell(phase, scale[-1])
            for node, rate, span in zip(flat.nodes, scale, reads(flat, axis, phase)):
                if span is not None:
                    over = node.shape[axis] - n / rate
                    before = max(before, math.ceil(first - span[0] * rate))
                    after = max(after, math.ceil((span[1] + 1 - over) * rate) - 1 - last)
        sides.append((before, after))
    return tuple(sides)


def _mass_margins(network: Network, walk: Walk, mass: float, signal, init, rates) -> Sides:
    """Each side of each axis may lose an equal part of 1 − mass: together no more than that."""
    share = (1 - mass) / (2 * walk.ndim)
    if not walk.restricted and not walk.signed:
        rows = []
        for axis, rate in enumerate(rates):
            first, last = Marginal(walk.axis(axis), None).window(share)
            own = _cell(0, rate)
            rows.append((max(0, own[0] - first), max(0, last - own[1])))
        return tuple(rows)
    return _phase_margins(network, walk, share, signal, init, rates)


def _phase_margins(network: Network, walk: Walk, share: float, signal, init, rates) -> Sides:
    from erftheory.theory.exact import exact

    sides = [[0, 0] for _ in rates]
    every = math.prod(walk.phases) <= PHASES
    diagonal = (tuple(i % p for p in walk.phases) for i in range(max(walk.phases)))
    for phase in _phases(walk) if every else diagonal:
        erf = exact(network, signal, init, unit=phase)
        for axis, (line, start) in enumerate(zip(erf.marginals, erf.offset)):
            first, last = _cell(phase[axis], rates[axis])
            before, after = _window(np.abs(line), share)
            found = first - (start + before), start + after - last
            sides[axis] = [max(a, b) for a, b in zip(sides[axis], found)]
    return tuple((before, after) for before, after in sides)


def _window(line: np.ndarray, share: float) -> tuple[int, int]:
    """First and last index of the smallest window that leaves out at most `share` on each side."""
    share = share * float(line.sum())
    count: Callable[[np.ndarray], int] = lambda x: int(  # noqa: E731
        np.searchsorted(np.cumsum(x), share, side="right")
    )
    return count(line), len(line) - 1 - count(line[::-1])


def _up(value: int, grid: int) -> int:
    return -(-value // grid) * grid


def _margins(needed: Sides, sizes, grid, rates, whole) -> Margins | None:
    margin = tuple((_up(b, g), _up(a, g)) for (b, a), g in zip(needed, grid))
    core = tuple(n - b - a for n, (b, a) in zip(sizes, margin))
    if min(core) < 1:
        return None
    valid = tuple((int(b / r), int((n - a) / r)) for n, (b, a), r in zip(sizes, margin, rates))
    tiles = None
    if whole is not None:
        # the image's own rim is padding in the whole image too: the first tile starts there
        tiles = math.prod(
            1 if w <= n else 1 + -(-(w - n) // c) for w, n, c in zip(whole, sizes, core)
        )
    share = math.prod(c / n for c, n in zip(core, sizes))
    return Margins(needed, margin, core, share, valid, tiles)


def _times(values) -> str:
    return " x ".join(map(str, values))


def _line(m: Margins) -> str:
    sides = _times(f"{before}+{after}" for before, after in m.margin)
    raw = _times(f"{before}+{after}" for before, after in m.needed)
    count = "" if m.tiles is None else f", {m.tiles} tiles"
    return (
        f"margin {sides} pixels before+after (needed {raw}), step {_times(m.core)}, "
        f"{100 * m.efficiency:.1f} % of a tile is output{count}"
    )
