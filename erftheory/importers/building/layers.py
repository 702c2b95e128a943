"""Layers of images of shape (N, C, *pixels), with the arguments that ONNX and PyTorch give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from erftheory.importers.building.assemble import Assembler
from erftheory.importers.building.movement import padded
from erftheory.importers.building.windows import pool, slide
from erftheory.importers.values.dimensions import CHANNEL, plain
from erftheory.importers.values.pixels import Constant, Global, Pixels, Value
from erftheory.network.kernel import line_span


class Window(NamedTuple):
    """A window with one entry a dimension of pixels; `pads` are (before, after).

    `ceil`: a last window may overhang the padding, unless it starts behind the image.
    """

    kernel: Sequence[int]
    stride: Sequence[int]
    dilation: Sequence[int]
    pads: Sequence[tuple[int, int]]
    ceil: bool = False

    @property
    def still(self) -> bool:
        """Whether each output reads one pixel, its own."""
        return {1} == {*self.kernel, *self.stride} and not any(map(any, self.pads))

    def rows(self, shape: Sequence[int]) -> tuple[list[tuple], list[int], list[int]]:
        """Rows as `windows.pool` takes them, the pixels behind the window, and how far it overhangs
        the padding of an image of a shape."""
        sizes, over = [], []
        for m, k, s, d, (low, high) in zip(
            shape[2:], self.kernel, self.stride, self.dilation, self.pads
        ):
            room = m + low + high - line_span(k, d) - 1
            size = room // s + 1
            if self.ceil and room % s and size * s < m + low:
                size += 1
            sizes.append(size)
            over.append(max(0, (size - 1) * s - room))
        places = range(2, 2 + len(self.kernel))
        rows = list(zip(places, self.kernel, self.stride, self.dilation, self.pads))
        return rows, sizes, over


def conv(make: Assembler, image: Value, weights: Value, window: Window, group: int = 1) -> Value:
    """A convolution with weights of shape (out, in / group, *kernel)."""
    if not isinstance(weights, Constant):
        return make.mixed_pixels(image, weights)
    if isinstance(image, Global):
        return image.mix()
    assert isinstance(image, Pixels)
    out = weights.shape[0]
    if window.still and group == 1:  # on tokens and blocks as well
        return make.pixelwise(image, 1, out, weights.get)
    image = make.flush(make.settle(image))
    rows, sizes, _ = window.rows(image.shape)
    full = [(i, k, s, 1, d, p) for i, k, s, d, p in rows]
    found = slide(make, image, full, dict(enumerate(sizes, 2)), out, group, weights.get)
    return replace(found, dims=(found.dims[0], plain(CHANNEL, out), *found.dims[2:]))


def transposed(
    make: Assembler, image: Value, weights: Value, window: Window, extra: Sequence[int],
    group: int = 1,
) -> Value:  # fmt: skip
    """A transposed convolution with weights of shape (in, out / group, *kernel); what the window
    pads is cut off the result, `extra` pixels are left behind it."""
    if isinstance(image, Global):
        return image.mix()
    if not isinstance(weights, Constant):
        return make.mixed_pixels(image, weights)
    assert isinstance(image, Pixels)
    image = make.flush(make.settle(image))
    rows, sizes = [], {}
    for i, (k, s, d, (low, high), e) in enumerate(zip(*window[:4], extra), start=2):
        span = line_span(k, d)
        rows.append((i, k, 1, s, d, (span - low, span - high + e)))
        sizes[i] = s * (image.shape[i] - 1) + e + span + 1 - low - high
    out = weights.shape[1] * group
    found = slide(make, image, rows, sizes, out, group, partial(_turned, weights, group))
    return replace(found, dims=(found.dims[0], plain(CHANNEL, out), *found.dims[2:]))


def _turned(weights: Constant, group: int) -> np.ndarray | None:
    """Weights (in, out / groups, *k) of a transposed convolution as those of the convolution."""
    known = weights.get()
    if known is None:
        return None
    inside, out, *kernel = known.shape
    grouped = known.reshape(group, inside // group, out, *kernel).swapaxes(1, 2)
    return np.flip(grouped.reshape(-1, inside // group, *kernel), tuple(range(2, known.ndim)))


def pooled(make: Assembler, image: Value, window: Window, kind: str, counted: bool = True) -> Value:
    """A pooling, `kind` "max", "mean" or "norm" (a root of a sum of powers, divided by nothing).

    `counted`: a mean counts the padding, though never what overhangs it.
    """
    if not isinstance(image, Pixels):
        return image
    image = make.flush(make.settle(image))
    rows, sizes, over = window.rows(image.shape)
    counted = kind != "mean" or counted
    if any(over):
        if kind == "mean" and counted and any(map(any, window.pads)):
            wide = padded(make, image, [(0, 0, 0)] * 2 + [(*p, 0) for p in window.pads])
            assert isinstance(wide, Pixels)
            image, rows = wide, [(*r[:-1], (0, 0)) for r in rows]
        counted = kind == "norm"
        rows = [(*r[:-1], (r[-1][0], r[-1][1] + o)) for r, o in zip(rows, over)]
    how = "mean" if kind == "norm" else kind
    return pool(make, image, rows, (*image.shape[:2], *sizes), how, counted)
