"""What reads axes of the image whole: dense layers, attention, running sums, recurrences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from erftheory.importers.building.pointwise import Pointwise
from erftheory.importers.values.dimensions import CHANNEL, Dim, plain, spatial
from erftheory.importers.values.pixels import Constant, Global, Pixels, Value
from erftheory.importers.values.refusals import Unreadable
from erftheory.network.endless import Along, Recurrent
from erftheory.network.graph import Sum

ATTENTION, DENSE = "attention layer", "dense layer"


class WholeAxes(Pointwise):
    """Operations along whole axes, on top of the pointwise ones."""

    def over_axes(self, value: Pixels, axes: set[int], dims: tuple[Dim, ...]) -> Value:
        """What a dense layer makes of whole axes of the image, and of the channels."""
        node = self.flush(value).node
        if not any(a.axis >= 0 and a.size > 1 and a.axis not in axes for d in dims for a in d):
            return Global(node, mixed=True)
        if any(a.axis in axes for d in dims for a in d):
            raise Unreadable("a contraction of some of the pixels of an axis")
        along = tuple(sorted(axes))
        width = math.prod(a.size for d in dims for a in d if a.axis == CHANNEL)
        return self.along(node, along, dims, Along(DENSE, along, "both", max(1, width)))

    def running(self, pixels: Pixels, place: int, direction: str = "forward") -> Pixels:
        """A running sum along an array dimension of pixels: all before each, or all behind."""
        pixels = self.flush(pixels)
        axis = self.whole_axis(pixels, place)
        op = Along("running sum", (axis,), turned(pixels, place, direction))
        return self.along(pixels.node, (axis,), pixels.dims, op)

    def recurrence(
        self, pixels: Pixels, place: int, feature: int, channels: int, direction: str,
        batch: int | None = None,
    ) -> list[Value]:  # fmt: skip
        """A recurrent layer along an array dimension of pixels: its states at every pixel, and
        those at its end (hidden, cell), which have seen all of them."""
        pixels = self.flush(pixels)
        axis = self.whole_axis(pixels, place)
        dims = list(pixels.dims)
        dims[feature] = plain(CHANNEL, channels)
        read = {x.axis for x in pixels.dims[feature] if x.axis >= 0 and x.size > 1}
        if read:  # its features are pixels too
            whole = self.over_axes(pixels, read, tuple(dims))
            if not isinstance(whole, Pixels):
                raise Unreadable("a recurrence along pixels of several axes")
            pixels = replace(pixels, node=whole.node)
        op = Recurrent(channels, axis, turned(pixels, place, direction))
        found = self.along(pixels.node, (axis,), dims, op)
        left = [d for i, d in enumerate(pixels.dims) if i not in (place, feature)]
        each = channels // 2 if direction == "both" else channels
        dims = (() if direction != "both" else plain(CHANNEL, 2), *left, plain(CHANNEL, each))
        if any(spatial(d) for d in left):
            state: Value = self.along(
                pixels.node, (axis,), dims, Along("last state", (axis,), "both", channels)
            )
        else:
            state = Global(pixels.node, mixed=True, label="last state")
        return [found, state, state]

    def joined(self, maps: Sequence[Pixels]) -> int:
        """A node that reads all of them."""
        nodes = list(dict.fromkeys(s.node for s in maps))
        return nodes[0] if len(nodes) == 1 else self.add(Sum(None, None), *nodes)

    def whole_axis(self, pixels: Pixels, place: int) -> int:
        """The axis of the image that an array dimension is.

        Raises:
          Unreadable: it is none, or holds blocks of one, or pixels of several.
        """
        dim = pixels.dims[place]
        if len(dim) != 1 or dim[0].size != pixels.size(dim[0].axis):
            raise Unreadable("an operation that runs along pixels of several axes, or of blocks")
        return dim[0].axis

    def mixed_pixels(self, *values: Value) -> Value:
        """Every pixel with every other: attention over the image."""
        maps = [self.flush(v) for v in values if isinstance(v, Pixels)]
        if maps:
            return Global(maps[0].node, mixed=True, label=ATTENTION)
        held = [v for v in values if isinstance(v, Global)]
        return held[0].mix() if held else Constant(())


def turned(pixels: Pixels, place: int, direction: str) -> str:
    """The direction in which what runs along an array dimension runs along the image."""
    if pixels.dims[place][0].step > 0 or direction == "both":
        return direction
    return "backward" if direction == "forward" else "forward"
