"""Rules for what slides over the image: convolutions, pooling, contractions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from erftheory.importers.building.assemble import Assembler
from erftheory.importers.building.draft import Own
from erftheory.importers.values.dimensions import CHANNEL, plain, spatial
from erftheory.importers.values.pixels import Pixels
from erftheory.network.kernel import Kernel, span_of
from erftheory.network.layers import AvgPool, MaxPool, Step


def slide(
    make: Assembler, image: Pixels, rows: Sequence[tuple], sizes: dict[int, int],
    channels: int, groups: int, own: Own | None = None,
) -> Pixels:  # fmt: skip
    """Convolves along array dimensions; rows are (dimension, k, stride, up, dilation, pads).

    `own` gives the weights, shape (out, in / groups, *k), k in the order of the rows.
    """
    n = make.ndim
    kernel, stride, dilation, lift = [1] * n, [1] * n, [1] * n, [1] * n
    pads, extent = [(0, 0)] * n, [image.size(a) for a in range(n)]
    for place, k, s, up, d, pad in rows:
        if not spatial(image.dims[place]):
            continue  # along channels, or a dimension of size 1: no pixel moves
        axis = image.dims[place][0].axis
        kernel[axis], stride[axis], dilation[axis], lift[axis] = map(int, (k, s, d, up))
        pads[axis], extent[axis] = (int(pad[0]), int(pad[1])), sizes[place]
    shape = tuple(kernel)
    order = [image.dims[r[0]][0].axis if spatial(image.dims[r[0]]) else -1 for r in rows]
    own = own and partial(_oriented, own, order, n, max(lift) > 1)
    if max(lift) == 1:
        before, after = tuple(p[0] for p in pads), tuple(p[1] for p in pads)
        rule = Step(Kernel(shape), tuple(stride), tuple(dilation), before, after)
        return make.convolution(image, rule, extent, channels, groups, own)
    # input i writes to up·i + d·a − p, with the taps counted backwards
    span = span_of(kernel, dilation)
    before = tuple(s - p[0] for s, p in zip(span, pads))
    after = tuple(s - p[1] for s, p in zip(span, pads))
    rule = Step(Kernel(shape), tuple(lift), tuple(dilation), before, after, up=True)
    fine = [
        u * (image.size(a) - 1) + 1 + sum(p) - s
        for a, (u, p, s) in enumerate(zip(lift, pads, span))
    ]
    # a transposed layer pads behind its map but never cuts more there than in front
    surplus = [max(0, b - max(0, a)) for a, b in zip(before, after)]
    made = [n + extra for n, extra in zip(fine, surplus)]
    found = make.convolution(image, rule, made, channels, groups, own)
    if max(stride) > 1 or any(surplus):
        cut = tuple(-extra for extra in surplus)
        found = make.moved(found, (0,) * n, cut, tuple(stride), extent)
    return found


def _oriented(own: Own, order: Sequence[int], ndim: int, back: bool) -> np.ndarray | None:
    """Weights with one dimension an axis of the image; `back` counts the taps backwards."""
    known = own()
    if known is None or any(axis < 0 and known.shape[2 + i] > 1 for i, axis in enumerate(order)):
        return None  # taps in a dimension that holds no pixels
    places = [order.index(a) + 2 if a in order else None for a in range(ndim)]
    kept = [p for p in places if p is not None]
    gone = [i for i in range(2, known.ndim) if i not in kept]  # of one entry
    kernel = [1 if p is None else known.shape[p] for p in places]
    known = np.transpose(known, [0, 1, *kept, *gone]).reshape(*known.shape[:2], *kernel)
    return np.flip(known, tuple(range(2, known.ndim))) if back else known


def pool(
    make: Assembler, image: Pixels, rows: Sequence[tuple], shape: Sequence[int], kind: str,
    counted: bool = True,
) -> Pixels:  # fmt: skip
    """Slides a "max", "sum" or "mean"; rows are (dimension, k, stride, dilation, pads).

    `counted` is False for a mean of the pixels in the image alone.
    """
    if all(k == s == 1 and not any(pads) for _, k, s, _, pads in rows):
        return image
    image = make.flush(make.settle(image))
    n = make.ndim
    kernel, stride, dilation = [1] * n, [1] * n, [1] * n
    pads, sizes = [(0, 0)] * n, [image.size(a) for a in range(n)]
    dims = list(image.dims)
    for place, k, s, d, pad in rows:
        dim = image.dims[place]
        if spatial(dim):
            axis = dim[0].axis
            kernel[axis], stride[axis], dilation[axis] = map(int, (k, s, d))
            pads[axis], sizes[axis] = (int(pad[0]), int(pad[1])), shape[place]
        elif k > 1 or s > 1 or any(pad):
            dims[place] = plain(CHANNEL, shape[place])  # over channels: no pixel moves
    if max(kernel) == max(stride) == 1 and not any(map(any, pads)):
        return make.select(image, tuple(dims))
    low = tuple(min(0, p[0]) for p in pads)
    high = tuple(min(0, p[1]) for p in pads)
    if any(low) or any(high):
        inner = [image.size(a) + low[a] + high[a] for a in range(n)]
        image = make.moved(image, low, high, (1,) * n, inner)
    outer = tuple((max(0, p[0]), max(0, p[1])) for p in pads)
    padding = outer if any(map(any, outer)) else 0
    arguments = tuple(kernel), tuple(stride), 1 if max(dilation) == 1 else tuple(dilation), padding
    op = MaxPool(*arguments) if kind == "max" else AvgPool(*arguments, counted or not padding)
    node = make.add(op, image.node)
    scale = float(math.prod(kernel)) if kind == "sum" else 1.0
    return Pixels(node, make.resized(dims, sizes), scale=scale)
