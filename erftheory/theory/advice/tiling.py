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
from fractions import Fraction
from typing import Any

from erftheory.erf.measures import check_share
from erftheory.network.arguments import integer, one_of, per_axis
from erftheory.network.base import Network, check_network
from erftheory.network.imported import aligned_corners
from erftheory.network.initialisation import Init, check_init
from erftheory.theory.advice.fitting import Fitting, size_behind
from erftheory.theory.advice.influence import Influence, Sides, grown, up
from erftheory.theory.image.graph import flatten
from erftheory.theory.image.needed import rates, reads
from erftheory.theory.lowering.lowering import build
from erftheory.theory.readings.receptive_field import extent, receptive_field
from erftheory.theory.walk.walk import Walk


@dataclass(frozen=True)
class Margins:
    """What a tile must hold around the outputs that are kept, input pixels, one entry an axis.

    Attributes:
      needed: (before, after) as the field says; of effective margins, the margin.
      margin: the same, `before` rounded up to the grid and `after` so that the `core` of a tile,
        which is left for output, is a multiple of the grid.
      efficiency: share of the tile's pixels that is output.
      valid: indices of the tile's output that are kept, (first, last + 1) an axis; of several
        outputs, those of the last.
      halo: output pixels of the tile before and after those that are kept.
      lost: the largest share of the influence that a kept output loses, found in the corners.
      tiles: number of tiles for the image, if one was given.
    """

    needed: Sides
    margin: Sides
    core: tuple[int, ...]
    efficiency: float
    valid: Sides
    halo: Sides
    lost: float = 0.0
    tiles: int | None = None


@dataclass(frozen=True)
class Tiling:
    """Overlaps for tiled inference; `overlap` of neighbouring tiles is before + after.

    Attributes:
      tile: input pixels of a tile, and `grid`: tiles start at multiples of so many pixels.
      fits: sizes of tiles and images on which the network runs, modulo the grid, for each axis.
      output: output pixels of a tile; of several outputs, of the last.
      offset: input pixels from the tile's edge to the edge of its output map, by the centres of
        the receptive fields (mean over the output phases); 92 of the 572 of an unpadded U-Net.
      exact: margins with which tiles give the whole image's output (the receptive field).
      effective: those with which every kept output of a tile has `mass` of the influence, or more,
        that it has in the whole image.
    """

    tile: tuple[int, ...]
    grid: tuple[int, ...]
    fits: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    offset: tuple[float, ...]
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
        if any(found != (0,) and len(found) < g for found, g in zip(self.fits, self.grid)):
            rest = _times("/".join(map(str, found)) for found in self.fits)
            lines[0] += f"; sizes that fit are {rest} more than multiples"
        if any(way >= 1 for way in self.offset):
            inside = _times(f"{way:g}" for way in self.offset)
            lines.append(
                f"output {_times(self.output)} pixels, which begins {inside} input pixels inside "
                "the tile"
            )
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

    A network with several outputs gets margins that are enough for each of them. Unpadded layers
    and crops make the output smaller than the tile: what they take is in the margins as well.

    Args:
      tile: input pixels of a tile, an int or one an axis; one of the sizes on which the network's
        branches meet (a U-Net's multiples of 16; the unpadded one's 12 more than these).
      mass: share of the influence that every kept output must have when the network runs on the
        tile: 1 − Σ|g − g_tile| / Σ|g|, with what leaves the tile at any layer lost.
      signal, init: of the ERF, as for `exact` ("variance" or "gradient").
      image: input pixels of the image, to count tiles.

    Raises:
      ValueError: a tile on which the network does not run (its branches meet on some sizes only)
        or that is too small for any output, a global operation (it sees the whole image: no overlap
        is enough), interpolation with aligned corners (its places depend on the size of the map).
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
    grids = [tuple(max(1, j * p // f) for j, p, f in zip(w.jump, w.phases, w.fine)) for w in walks]
    grid = tuple(math.lcm(*axis) for axis in zip(*grids))
    sizes = _sizes("tile", tile, len(grid))
    whole = None if image is None else _sizes("image", image, len(grid))
    fitting = Fitting([part.graph for part in parts], grid)
    _check_fit(fitting, walks, sizes)
    fields, found = [], []
    for part, walk, own in zip(parts, walks, grids):
        fields.append(_field_margins(part, sizes, own, walk.phases))
        found.append(Influence(part, signal, init, fields[-1], own, walk.phases, sizes))
    field = _largest(fields)
    output = tuple(n or 0 for n in size_behind(network.graph, sizes))
    frame = _Frame(sizes, grid, network.graph.rate, output, whole)
    exact = frame.margins(field)
    # what the plane's map has beyond a margin is lost in any case, so no margin is smaller
    reach = _largest([influence.reach(1 - mass) for influence in found])
    # rounding a tail bound may not ask for more than the field holds
    least = tuple((min(a, b), min(c, d)) for (a, c), (b, d) in zip(reach, field))
    effective = _effective(found, field, least, sizes, grid, 1 - mass)
    if effective is None:
        wanted = _enough(found, field, least, sizes, grid, 1 - mass)
        raise ValueError(
            f"tile: got {_times(sizes)}; takes at least {_times(wanted)} pixels for {mass:g} of "
            f"the {signal} signal"
        )
    needed, lost = effective
    margins = frame.margins(needed)
    assert margins is not None
    residues = tuple(fitting.residues(axis, n) for axis, n in enumerate(sizes))
    return Tiling(
        sizes, grid, residues, output, _offset(network), mass, signal, exact,
        replace(margins, lost=lost),
    )  # fmt: skip


def _check_fit(fitting: Fitting, walks: list[Walk], sizes: tuple[int, ...]) -> None:
    """Refuse sizes on which branches do not meet, or of which no output is left."""
    for axis, n in enumerate(sizes):
        if fitting.fits(n)[axis]:
            continue
        spans = [extent(walk, loose=True) for walk in walks]
        far = max(abs(end) // w.fine[axis] for s, w in zip(spans, walks) if s for end in s[axis])
        most = max(n, 2 * far) + 2 * fitting.grid[axis]
        below, above = fitting.near(axis, n, most)
        if below is None and above is not None:
            takes = f"{above} pixels or more"
        else:
            takes = " or ".join(str(k) for k in (below, above) if k) or "another network"
        raise ValueError(
            f"tile: got {n} on axis {axis}, where the network's branches do not meet or no output "
            f"is left; takes {takes}, the nearest that fit{'s' if below is None else ''}"
        )


def _offset(network: Network) -> tuple[float, ...]:
    """Input pixels from the edge of an image to that of the output map."""
    field: Any = receptive_field(network)
    # pixel i of a map covers i − 1/2 to i + 1/2 of its own pixels
    rows = zip(field.phases.middle(), network.graph.rate)
    return tuple(way + 0.5 - float(rate) / 2 for way, rate in rows)


def _largest(sides: list[Sides]) -> Sides:
    return tuple((max(a for a, _ in axis), max(b for _, b in axis)) for axis in zip(*sides))


def _wider(
    least: Sides, field: Sides, tile: tuple[int, ...], grid: tuple[int, ...]
) -> tuple[Callable[[int], Sides], int]:
    """Margins on the grid by steps beyond the least, up to the field's, and how many steps."""
    ends = [
        ((up(low[0], g), up(high[0], g)), (up(low[1], g, n), up(high[1], g, n)))
        for low, high, n, g in zip(least, field, tile, grid)
    ]

    def wider(steps: int) -> Sides:
        rows = ([min(low + steps * g, high) for low, high in s] for s, g in zip(ends, grid))
        return tuple((before, after) for before, after in rows)

    most = max((high - low) // g for s, g in zip(ends, grid) for low, high in s)
    return wider, most


def _effective(
    found: list[Influence], field: Sides, least: Sides, tile, grid, share: float
) -> tuple[Sides, float] | None:
    """The first margins from the least on with which a tile loses no more than `share`."""
    wider, most = _wider(least, field, tile, grid)

    def lost(steps: int) -> float | None:
        margin = wider(steps)
        if any(n - sum(sides) < 1 for n, sides in zip(tile, margin)):
            return None
        return 0.0 if steps == most else max(part.lost(tile, margin) for part in found)

    best = grown(lost, share, most)
    return best and (wider(best[0]), best[1])


def _enough(found: list[Influence], field: Sides, least: Sides, tile, grid, share) -> list[int]:
    """The smallest tile, of those as large as `tile` modulo the grid, that leaves output."""
    wider, most = _wider(least, field, tile, grid)
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


@dataclass(frozen=True)
class _Frame:
    """A tile: input pixels, grid, input pixels per output pixel, output pixels; the image's."""

    sizes: tuple[int, ...]
    grid: tuple[int, ...]
    rates: tuple[Fraction, ...]
    output: tuple[int, ...]
    whole: tuple[int, ...] | None

    def margins(self, needed: Sides) -> Margins | None:
        """Margins on the grid that hold those needed; None where they leave no output."""
        rows = list(zip(needed, self.sizes, self.grid))
        margin = tuple((up(b, g), up(a, g, n)) for (b, a), n, g in rows)
        core = tuple(n - b - a for n, (b, a) in zip(self.sizes, margin))
        if min(core) < 1:
            return None
        valid = tuple(
            (int(b / r), int((b + c) / r)) for (b, _), c, r in zip(margin, core, self.rates)
        )
        halo = tuple((first, n - end) for (first, end), n in zip(valid, self.output))
        tiles = None
        if self.whole is not None:
            # the image's own rim is padding in the whole image too: the first tile starts there
            tiles = math.prod(
                1 if w <= n else 1 + -(-(w - n) // c)
                for w, n, c in zip(self.whole, self.sizes, core)
            )
        share = math.prod(c / n for c, n in zip(core, self.sizes))
        return Margins(needed, margin, core, share, valid, halo, tiles=tiles)


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
