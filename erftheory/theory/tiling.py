"""Tiled inference: how far tiles must overlap so that their seams do not show.

An output unit is right where the tile holds all that it reads, of the input and of every map on the
way (needed.py). The largest over all output phases is the exact margin; the effective receptive
field says how much less is enough for a given share of the influence (influence.py).
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from erftheory.measures import check_share
from erftheory.network.arguments import integer, one_of, per_axis
from erftheory.network.base import Network, check_network
from erftheory.network.imported import aligned_corners
from erftheory.network.initialisation import Init, check_init
from erftheory.theory.grid_graph import flatten
from erftheory.theory.influence import Influence, Sides, grown, up
from erftheory.theory.lowering import build
from erftheory.theory.needed import rates, reads


@dataclass(frozen=True)
class Margins:
    """What a tile must hold around the outputs that are kept, input pixels, one entry an axis.

    Attributes:
      needed: (before, after) as the field says; of effective margins, the margin.
      margin: the same rounded up to the grid, and the `core` of a tile that is left for output.
      efficiency: share of the tile's pixels that is output.
      valid: indices of the tile's output that are right, (first, last + 1) an axis; of several
        outputs, those of the last.
      lost: the largest share of the influence that a kept output loses, found in the corners.
      tiles: number of tiles for the image, if one was given.
    """

    needed: Sides
    margin: Sides
    core: tuple[int, ...]
    efficiency: float
    valid: Sides
    lost: float = 0.0
    tiles: int | None = None


@dataclass(frozen=True)
class Tiling:
    """Overlaps for tiled inference; `overlap` of neighbouring tiles is before + after.

    Attributes:
      tile: input pixels of a tile, and `grid`, the pixels that tiles and steps are multiples of.
      exact: margins with which tiles give the whole image's output (the receptive field).
      effective: those with which every kept output of a tile has `mass` of the influence, or more,
        that it has in the whole image.
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
    init: Init | None = "he",
    image: int | tuple[int, ...] | None = None,
) -> Tiling:
    """The overlap that tiled inference needs, by the receptive field and by the ERF.

    A network with several outputs gets margins that are enough for each of them.

    Args:
      tile: input pixels of a tile, an int or one an axis.
      mass: share of the influence that every kept output must have when the network runs on the
        tile: 1 − Σ|g − g_tile| / Σ|g|, with what leaves the tile at any layer lost.
      signal, init: of the ERF, as for `exact` ("variance" or "gradient").
      image: input pixels of the image, to count tiles.

    Raises:
      ValueError: a tile that is no multiple of the grid or too small for any output, a global
        operation (it sees the whole image: no overlap is enough), interpolation with aligned
        corners (its places depend on the size of the map).
    """
    check_network("network", network)
    mass = check_share("mass", mass)
    outputs: tuple[str, ...] = getattr(network, "outputs", ())
    parts = [network.until(name) for name in outputs] if len(outputs) > 1 else [network]
    if any(aligned_corners(part.graph) for part in parts):
        raise ValueError(
            "network: got interpolation with aligned corners, whose places depend on the size of "
            "the map, so that no overlap makes tiles agree; takes align_corners=False"
        )
    one_of("signal", signal, ("variance", "gradient"))
    check_init(init, counting=True)
    walks = [build(part, "gradient") for part in parts]  # one line for a global operation
    grids = [
        tuple(max(1, j * p // f) for j, p, f in zip(w.jump, w.phases, w.fine)) for w in walks
    ]
    grid = tuple(math.lcm(*axis) for axis in zip(*grids))
    sizes = _sizes("tile", tile, len(grid))
    whole = None if image is None else _sizes("image", image, len(grid))
    for axis, (n, g) in enumerate(zip(sizes, grid)):
        if n % g:
            raise ValueError(
                f"tile: got {n} on axis {axis}; takes a multiple of {g}, the pixels after which "
                "the network repeats"
            )
    fields, found = [], []
    for part, walk, own in zip(parts, walks, grids):
        fields.append(_field_margins(part, sizes, own, walk.phases))
        found.append(Influence(part, signal, init, fields[-1], own, walk.phases))
    field = _largest(fields)
    exact = _margins(field, sizes, grid, network.graph.rate, whole)
    # what the plane's map has beyond a margin is lost in any case, so no margin is smaller
    reach = _largest([influence.reach(1 - mass) for influence in found])
    # rounding a tail bound may not ask for more than the field holds
    least = tuple((min(a, b), min(c, d)) for (a, c), (b, d) in zip(reach, field))
    effective = _effective(found, field, least, sizes, grid, 1 - mass)
    if effective is None:
        wanted = _enough(found, field, least, grid, 1 - mass)
        raise ValueError(
            f"tile: got {_times(sizes)}; takes at least {_times(wanted)} pixels for {mass:g} of "
            f"the {signal} signal"
        )
    needed, lost = effective
    margins = _margins(needed, sizes, grid, network.graph.rate, whole)
    assert margins is not None
    return Tiling(sizes, grid, mass, signal, exact, replace(margins, lost=lost))


def _largest(sides: list[Sides]) -> Sides:
    return tuple((max(a for a, _ in axis), max(b for _, b in axis)) for axis in zip(*sides))


def _wider(least: Sides, field: Sides, grid: tuple[int, ...]) -> tuple[Callable[[int], Sides], int]:
    """Margins on the grid by steps beyond the least, up to the field's, and how many steps."""
    ends = [[(up(a, g), up(b, g)) for a, b in zip(*s)] for *s, g in zip(least, field, grid)]

    def wider(steps: int) -> Sides:
        rows = ([min(low + steps * g, high) for low, high in s] for s, g in zip(ends, grid))
        return tuple((before, after) for before, after in rows)

    most = max((high - low) // g for s, g in zip(ends, grid) for low, high in s)
    return wider, most


def _effective(
    found: list[Influence], field: Sides, least: Sides, tile, grid, share: float
) -> tuple[Sides, float] | None:
    """The first margins from the least on with which a tile loses no more than `share`."""
    wider, most = _wider(least, field, grid)

    def lost(steps: int) -> float | None:
        margin = wider(steps)
        if any(n - sum(sides) < 1 for n, sides in zip(tile, margin)):
            return None
        return 0.0 if steps == most else max(part.lost(tile, margin) for part in found)

    best = grown(lost, share, most)
    return best and (wider(best[0]), best[1])


def _enough(found: list[Influence], field: Sides, least: Sides, grid, share: float) -> list[int]:
    """The smallest tile that leaves output."""
    wider, most = _wider(least, field, grid)
    size = lambda steps: [sum(m) + g for m, g in zip(wider(steps), grid)]  # noqa: E731

    def lost(steps: int) -> float:
        tile = tuple(size(steps))
        return 0.0 if steps == most else max(part.lost(tile, wider(steps)) for part in found)

    best = grown(lost, share, most)
    assert best is not None
    return size(best[0])


def _sizes(name: str, value, ndim: int) -> tuple[int, ...]:
    entries = per_axis(name, value)
    sizes = entries if isinstance(entries, tuple) else (entries,) * ndim
    if len(sizes) != ndim:
        raise ValueError(f"{name}: got {value!r}; takes an integer or {ndim}, one an axis")
    return tuple(integer(name, n) for n in sizes)


def _field_margins(network: Network, tile: tuple[int, ...], grid, phases) -> Sides:
    """How far what the units of one period read, of any map, sticks out of that period's pixels.

    Maps of a tile end where their layers' paddings let them, `over` pixels beyond the tile's share.
    """
    try:
        flat = flatten(network, tile, "gradient", None, "zeros")
    except ValueError as wrong:
        raise ValueError(str(wrong).replace("image:", "tile:", 1)) from None
    sides = []
    for axis, (n, g) in enumerate(zip(tile, grid)):
        before, after, scale = 0, 0, rates(flat, axis)
        for phase in range(phases[axis]):
            for node, rate, span in zip(flat.nodes, scale, reads(flat, axis, phase)):
                if span is not None:
                    over = node.shape[axis] - n / rate
                    before = max(before, math.ceil(-span[0] * rate))
                    after = max(after, math.ceil((span[1] + 1 - over) * rate) - g)
        sides.append((before, after))
    return tuple(sides)


def _margins(needed: Sides, sizes, grid, rates, whole) -> Margins | None:
    margin = tuple((up(b, g), up(a, g)) for (b, a), g in zip(needed, grid))
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
    return Margins(needed, margin, core, share, valid, tiles=tiles)


def _times(values) -> str:
    return " x ".join(map(str, values))


def _line(m: Margins) -> str:
    sides = _times(f"{before}+{after}" for before, after in m.margin)
    raw = "" if m.needed == m.margin else _times(f"{b}+{a}" for b, a in m.needed)
    count = f", loses up to {m.lost:.2g}" if m.lost else ""
    count += "" if m.tiles is None else f", {m.tiles} tiles"
    return (
        f"margin {sides} pixels before+after{raw and f' (needed {raw})'}, step {_times(m.core)}, "
        f"{100 * m.efficiency:.1f} % of a tile is output{count}"
    )
