"""Rules for what slides over the image: convolutions, pooling, contractions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from erftheory.importers.build.assemble import Assembler
from erftheory.importers.build.pointwise import Own
from erftheory.importers.build.resample import steps
from erftheory.importers.values.dimensions import CHANNEL, COPY, Dim, length, plain, spatial
from erftheory.importers.values.pixels import Constant, Global, Pixels, Value
from erftheory.importers.values.refusals import Unreadable
from erftheory.network.base import Network
from erftheory.network.graph import Builder
from erftheory.network.imported import ALIGNED, RESIZE, Spatial
from erftheory.network.kernel import Kernel
from erftheory.network.layers import AvgPool, MaxPool, Step


class SpatialAxes(Exception):
    """Ends the search for spatial axes: the input dimensions that a window slides over."""

    def __init__(self, axes: tuple[int, ...]):
        self.axes = axes


def widened(value: Value, other: Constant) -> Value:
    """A map whose dimensions of size 1 a constant's broadcast stretches."""
    if not isinstance(value, Pixels) or len(other.shape) != len(value.dims):
        return value
    dims = tuple(
        plain(CHANNEL if not d else COPY, n) if n > 1 and length(d) == 1 and not spatial(d) else d
        for d, n in zip(value.dims, other.shape)
    )
    return value if dims == value.dims else replace(value, dims=dims)


def slid_over(pixels: Pixels, places: Sequence[int]) -> None:
    """Ends the search for spatial axes, where a window slides over array dimensions `places`."""
    axes = tuple(sorted(a.axis for p in places for a in pixels.dims[p] if a.axis >= 0))
    if axes and len(axes) <= 3:
        raise SpatialAxes(axes)






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
    span = [d * (k - 1) for d, k in zip(dilation, kernel)]
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




def contracted(make: Assembler, a: Value, b: Value, numbers: Any, shape: Sequence[int]) -> Value:
    """A product summed over dimensions; `numbers` are those of `lax.dot_general`."""
    (left, right), (left_batch, right_batch) = numbers
    if not isinstance(a, Constant) and not isinstance(b, Constant):
        return _both(make, a, b, numbers, shape)
    first = not isinstance(a, Constant)
    value, other = (a, b) if first else (b, a)
    axes, batch = (left, left_batch) if first else (right, right_batch)
    matrix_axes = (*right, *right_batch) if first else (*left, *left_batch)
    assert isinstance(other, Constant)
    free = [n for i, n in enumerate(other.shape) if i not in matrix_axes]
    if isinstance(value, Global):
        return value.mix()
    assert isinstance(value, Pixels)
    kept = [i for i in range(len(value.dims)) if i not in axes]
    resized = _resize(make, value, other, axes, right if first else left, batch)
    if resized is not None:
        found, new = resized, [resized.dims[axes[0]]]
        rest = {i: found.dims[i] for i in kept}
    else:
        along, beside = (right, right_batch) if first else (left, left_batch)
        own = None if beside else partial(_matrix, other, along)
        dense = make.dense(value, axes, free, own)
        if not isinstance(dense, Pixels):
            return dense
        found = dense
        rest = dict(zip(kept, found.dims))
        new = list(found.dims[len(kept) :])
    heads = [rest[i] for i in batch]
    tail = [rest[i] for i in kept if i not in batch]
    dims = (*heads, *tail, *new) if first else (*heads, *new, *tail)
    return replace(found, dims=tuple(dims))


def _matrix(constant: Constant, axes: Sequence[int]) -> np.ndarray | None:
    """A contraction's constant as an array (*axes, out)."""
    known = constant.get()
    if known is None:
        return None
    known = np.moveaxis(known, list(axes), range(len(axes)))
    return known.reshape(*known.shape[: len(axes)], -1)


def _resize(make, value: Pixels, other: Constant, axes, along, batch) -> Pixels | None:
    """Contraction of one axis of the image with a known matrix, if it is one."""
    if len(axes) != 1 or batch or len(other.shape) != 2:
        return None
    dim = value.dims[axes[0]]
    if len(dim) != 1 or dim[0].axis < 0 or dim[0].size != value.size(dim[0].axis):
        return None
    known = other.get()
    if known is None:
        return None
    matrix = np.asarray(known, dtype=np.float64)
    matrix = matrix.T if along[0] == 0 else matrix
    if min(matrix.shape) > 1 and np.count_nonzero(matrix) > matrix.size // 2 > 8:
        return None  # dense: every output reads the whole image
    return resize(make, value, dim[0].axis, matrix)


def resize(
    make: Assembler, value: Pixels, axis: int, matrix: np.ndarray, label: str = RESIZE,
    pixels: tuple[int, int] | None = None, whole: bool = False,
) -> Pixels:  # fmt: skip
    """An axis of the image times a matrix (outputs, inputs); the rest is as in `resample.steps`."""
    found = value
    sizes = [value.size(a) for a in range(make.ndim)]
    for rule, kind, size in steps(
        make.ndim, axis, matrix, pixels, label == ALIGNED, whole
    ):  # fmt: skip
        sizes[axis] = size
        kind = label if kind == RESIZE else kind
        last = make.nodes[found.node]
        both = _of_both_axes(last.op, rule, kind) if (found.tag, found.scale) == ("", 1.0) else None
        if both is None:
            found = make.window(found, rule, sizes, kind)
        else:
            node = make.add(Spatial(kind, both), last.inputs[0])
            found = Pixels(node, make.resized(found.dims, sizes))
    return found


def _of_both_axes(last: Any, rule: Step, label: str) -> Step | None:
    """One rule for a resize right behind one of other axes, None where there is none."""
    if not isinstance(last, Spatial) or last.label != label or last.rule.up != rule.up:
        return None
    old = last.rule
    pairs = zip(old.kernel.shape, rule.kernel.shape), zip(old.stride, rule.stride)
    if any(min(pair) > 1 for row in pairs for pair in row):
        return None
    array = np.asarray(old.kernel.exact, object).reshape(old.kernel.shape) * np.asarray(
        rule.kernel.exact, object
    ).reshape(rule.kernel.shape)
    add: Any = lambda a, b: tuple(map(sum, zip(a, b)))  # noqa: E731
    return Step(
        Kernel(array.shape, tuple(map(float, array.ravel()))),
        tuple(map(max, zip(old.stride, rule.stride))), old.dilation,
        add(old.before, rule.before), add(old.after, rule.after), up=rule.up, kind="fixed",
    )  # fmt: skip


def _both(make: Assembler, a: Value, b: Value, numbers: Any, shape: Sequence[int]) -> Value:
    """Contraction of two values that depend on the image."""
    (left, right), (left_batch, right_batch) = numbers
    if not (isinstance(a, Pixels) and isinstance(b, Pixels)):
        pixels = next((v for v in (a, b) if isinstance(v, Pixels)), None)
        if pixels is None:
            return make.mixed_pixels(a, b)
        axes = left if pixels is a else right
        held = b if pixels is a else a
        if any(spatial(pixels.dims[i]) for i in axes):
            return make.mixed_pixels(a, b)
        batch = left_batch if pixels is a else right_batch
        heads = [pixels.dims[i] for i in batch]
        tail = [d for i, d in enumerate(pixels.dims) if i not in (*axes, *batch)]
        extra = len(shape) - len(heads) - len(tail)
        free = shape[-extra:] if pixels is a else shape[len(heads) : len(heads) + extra]
        new = [plain(CHANNEL, n) for n in (free if extra else ())]
        dims = (*heads, *tail, *new) if pixels is a else (*heads, *new, *tail)
        mixed = make.merge("mul", make.select(pixels, dims), held.mix())  # type: ignore[arg-type]
        return mixed
    if _aligned(a, left_batch) and _aligned(b, right_batch):
        heads = [a.dims[i] for i in left_batch]
        rest = [d for i, d in enumerate(a.dims) if i not in (*left, *left_batch)]
        more = [d for i, d in enumerate(b.dims) if i not in (*right, *right_batch)]
        dims = (*heads, *rest, *more)
        thin = tuple(d if spatial(d) else () for d in dims)
        joined = make.merge("mul", replace(a, dims=thin, parts=()), replace(b, dims=thin, parts=()))
        assert isinstance(joined, Pixels)
        return replace(joined, dims=dims)
    return make.attention(a, b, numbers)


def _aligned(pixels: Pixels, batch: Sequence[int]) -> bool:
    """True if all pixels lie in batch dimensions: each pixel is contracted alone."""
    return not any(spatial(d) for i, d in enumerate(pixels.dims) if i not in batch)


def described(make: Assembler, pixels: Pixels, rule: Network, out: Any) -> Pixels:
    """A network that a user gave as the rule of an operation."""
    pixels = make.flush(make.settle(pixels))
    shape = tuple(out.aval.shape)
    if len(shape) != len(pixels.dims):
        raise Unreadable(f"a network as the rule between {pixels.shape} and {shape}")
    builder = Builder(make.ndim)
    builder.nodes = make.nodes
    node = rule.lower(builder, pixels.node, make.scope)
    sizes = [pixels.size(a) for a in range(make.ndim)]
    for dim, n in zip(pixels.dims, shape):
        if spatial(dim):
            sizes[dim[0].axis] = n
    dims = make.resized(pixels.dims, sizes)
    dims = tuple(d if spatial(d) else plain(CHANNEL, n) for d, n in zip(dims, shape))
    return Pixels(node, dims)


