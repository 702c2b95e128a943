"""ATen operations whose windows slide over the image: convolutions, pools, resizes, patches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from erftheory.importers.building import movement, windows
from erftheory.importers.building.layers import Window, conv, pooled, transposed
from erftheory.importers.building.operation import of_pixels
from erftheory.importers.building.patches import unfolded
from erftheory.importers.building.resizing import resize, resized
from erftheory.importers.torch.values import integers, value
from erftheory.importers.values.dimensions import plain, spatial
from erftheory.importers.values.pixels import Constant, Partial, Pixels, Value
from erftheory.network.kernel import span_of


def batched(rule: Callable, axes: int) -> Callable:
    """A rule for an image of N, C and `axes` dimensions that also takes one without N."""

    def run(make, out, image, *args, **more):
        if not isinstance(image, Pixels) or len(image.dims) != axes + 1:
            return rule(make, out, image, *args, **more)
        found = rule(make, out, replace(image, dims=((), *image.dims), parts=()), *args, **more)
        listed = found if isinstance(found, list) else [found]
        cut = [replace(v, dims=v.dims[1:]) if isinstance(v, Pixels) else v for v in listed]
        return cut if isinstance(found, list) else cut[0]

    return run


def _convolution(n: int) -> Callable:
    def rule(make, out, image, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
        kernel, dilation = weight.shape[2:], integers(dilation, n)
        if isinstance(padding, str):
            spans = span_of(kernel, dilation) if padding == "same" else (0,) * n
            pads = [(s // 2, s - s // 2) for s in spans]
        else:
            pads = [(p, p) for p in integers(padding, n)]
        make.biased |= bias is not None
        window = Window(kernel, integers(stride, n), dilation, pads)
        return conv(make, image, weight, window, groups)

    return rule


def _transposed(n: int) -> Callable:
    def rule(
        make, out, image, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1,
        dilation=1,
    ):  # fmt: skip
        make.biased |= bias is not None
        pads = [(p, p) for p in integers(padding, n)]
        window = Window(weight.shape[2:], integers(stride, n), integers(dilation, n), pads)
        return transposed(make, image, weight, window, integers(output_padding, n), groups)

    return rule


def _either(
    make, out, image, weight, bias, stride, padding, dilation, transposed, output_padding, groups
):
    n = len(weight.shape) - 2
    if transposed:
        more = stride, padding, output_padding, groups, dilation
        return _transposed(n)(make, out, image, weight, bias, *more)
    return _convolution(n)(make, out, image, weight, bias, stride, padding, dilation, groups)


def _pool(n: int, kernel, stride, padding, dilation, ceil: bool) -> Window:
    pads = [(p, p) for p in integers(padding, n)]
    steps = integers(stride or kernel, n)
    return Window(integers(kernel, n), steps, integers(dilation, n), pads, ceil)


def _max_pool(n: int) -> Callable:
    def rule(make, out, image, kernel, stride=(), padding=0, dilation=1, ceil_mode=False):
        window = _pool(n, kernel, stride, padding, dilation, ceil_mode)
        found = pooled(make, image, window, "max")
        return [found, Constant(found.shape)] if isinstance(out, list) else found

    return rule


def _average_pool(n: int) -> Callable:
    def rule(
        make, out, image, kernel, stride=(), padding=0, ceil_mode=False, count_include_pad=True,
        divisor_override=None,
    ):  # fmt: skip
        window = _pool(n, kernel, stride, padding, 1, ceil_mode)
        found = pooled(make, image, window, "mean", count_include_pad)
        if divisor_override:
            return make.scaled(found, value(math.prod(window.kernel) / divisor_override))
        return found

    return rule


# ---- pools of a given size ----------------------------------------------------------------------


def _adaptive(n: int, kind: str) -> Callable:
    def rule(make, out, image, size):
        several = isinstance(out, list)
        found = _adapted(make, image, integers(size, n), kind)
        return [found, found] if several else found

    return rule


def _adapted(make: Any, image: Value, sizes: Sequence[int], kind: str) -> Value:
    """Output o of an axis has pixels ⌊o·n/m⌋ to ⌈(o+1)·n/m⌉ − 1."""
    if not isinstance(image, Pixels):
        return image
    rank = len(image.dims)
    places = list(range(rank - len(sizes), rank))
    if set(sizes) == {1}:
        return make.reduce(image, places, kind, keep=True)
    ends = [p for p, m in zip(places, sizes) if m == 1 and image.shape[p] > 1]
    if any(spatial(image.dims[p]) for p in ends):
        image = make.reduce(image, ends, kind, keep=True)
        image = make.opened(image) if isinstance(image, Partial) else image
    found: Pixels = make.flush(make.settle(image))
    rows, shape = [], list(found.shape)
    for place, m in zip(places, sizes):
        if shape[place] % m == 0:
            k = shape[place] // m
            rows.append((place, k, k, 1, (0, 0)))
            shape[place] = m
    found = windows.pool(make, found, rows, shape, kind) if rows else found
    for place, m in zip(places, sizes):
        if found.shape[place] != m:
            found = _uneven(make, found, place, m, kind)
    return found


def _uneven(make, image: Pixels, place: int, m: int, kind: str) -> Pixels:
    image, n = make.flush(image), image.shape[place]
    if not spatial(image.dims[place]):
        return make.select(image, (*image.dims[:place], plain(-1, m), *image.dims[place + 1 :]))
    if kind == "max":
        make.note("adaptive max pooling by a broken factor, its gains read as those of a mean")
    matrix = np.zeros((m, n))
    for o in range(m):
        first, end = o * n // m, -(-(o + 1) * n // m)
        matrix[o, first:end] = 1 / (end - first)
    axis = image.dims[place][0].axis
    return resize(make, image, axis, matrix, "adaptive pool", whole=True)


# ---- resizes ------------------------------------------------------------------------------------

_AA: dict[str, Any] = {"antialias": True, "outside": False}


def _resize(mode: str, n: int, rounding: str = "floor", where: str = "", **more: Any) -> Callable:
    @of_pixels
    def rule(make, out, image, size, *rest):
        image = make.flush(make.settle(image))
        rest = list(rest)
        aligned = rest.pop(0) if mode != "nearest" else False
        factors = rest[0] if len(rest) == 1 else rest
        given = [f for f in (factors or ()) if f is not None]
        if len(given) != n:
            given = [m / k for m, k in zip(out[-n:], image.shape[-n:])]
        coordinates = where or ("align_corners" if aligned else "half_pixel")
        scales = [1.0] * (len(out) - n) + [float(f) for f in given]
        return resized(make, image, out, scales, mode, coordinates, rounding, **more)

    return rule


# ---- patches ------------------------------------------------------------------------------------


@of_pixels
def _unfold(make, out, image, axis, size, step):
    """The windows of one dimension, their pixels in a further one at the end."""
    axis %= len(image.dims)
    if not spatial(image.dims[axis]):
        dims = [plain(-1, n) if i in (axis, len(out) - 1) else d
                for i, (n, d) in enumerate(zip(out, (*image.dims, ())))]  # fmt: skip
        return make.select(image, tuple(dims))
    count = (image.shape[axis] - size) // step + 1
    table = step * np.arange(count)[:, None] + np.arange(size)
    found = unfolded(make, image, Constant(table.shape, lambda: table), axis, True)
    order = [i for i in range(len(found.dims)) if i != axis + 1] + [axis + 1]
    return movement.transposed(make, found, order)


@of_pixels
def _im2col(make, out, image, kernel, dilation, padding, stride):
    k, d, p, s = (integers(x, 2) for x in (kernel, dilation, padding, stride))
    image = movement.padded(make, image, [(0, 0, 0), (0, 0, 0), *((b, b, 0) for b in p)])
    assert isinstance(image, Pixels)
    sizes = [
        (image.shape[2 + i] - d[i] * (k[i] - 1) - 1) // s[i] + 1 for i in range(2)
    ]  # read before the first table takes a dimension's place
    for i, place in enumerate((2, 4)):
        table = d[i] * np.arange(k[i])[:, None] + s[i] * np.arange(sizes[i])
        image = unfolded(make, image, Constant(table.shape, lambda t=table: t), place, False)
    turned = movement.transposed(make, image, (0, 1, 2, 4, 3, 5))
    return movement.reshaped(make, turned, out)


@of_pixels
def _col2im(make, out, image, size, kernel, dilation, padding, stride):
    """Patches added up where they overlap: a transposed convolution, whose taps read a channel
    each."""
    k, d, p, s = (integers(x, 2) for x in (kernel, dilation, padding, stride))
    n, c = image.shape[0], out[1]
    grid = [(m + 2 * b - e * (a - 1) - 1) // t + 1 for m, a, e, b, t in zip(out[2:], k, d, p, s)]
    more = [m - ((g - 1) * t - 2 * b + e * (a - 1) + 1)
            for m, g, a, e, b, t in zip(out[2:], grid, k, d, p, s)]  # fmt: skip
    count = k[0] * k[1]
    taps = np.tile(np.eye(count).reshape(count, 1, *k), (c, 1, 1, 1))
    weight = Constant(taps.shape, lambda: taps)
    image = make.settle(movement.reshaped(make, image, (n, c * count, *grid)))
    return _transposed(2)(make, out, image, weight, None, s, p, more, c, d)


RULES: dict[str, Callable] = {
    "convolution": _either, "unfold": _unfold, "im2col": batched(_im2col, 2),
    "col2im": batched(_col2im, 1),
}  # fmt: skip
OVER: dict[str, int] = {}  # operations whose windows say which axes are pixels, and how many
for _n in (1, 2, 3):
    RULES[f"conv{_n}d"] = batched(_convolution(_n), _n)
    RULES[f"conv_transpose{_n}d"] = batched(_transposed(_n), _n)
    RULES[f"max_pool{_n}d"] = batched(_max_pool(_n), _n)
    RULES[f"max_pool{_n}d_with_indices"] = batched(_max_pool(_n), _n)
    RULES[f"avg_pool{_n}d"] = batched(_average_pool(_n), _n)
    for _name in ("conv{}d", "conv_transpose{}d", "max_pool{}d", "max_pool{}d_with_indices",
                  "avg_pool{}d"):  # fmt: skip
        OVER[_name.format(_n)] = _n
    RULES[f"adaptive_avg_pool{_n}d"] = _adaptive(_n, "mean")
    RULES[f"adaptive_max_pool{_n}d"] = _adaptive(_n, "max")
    RULES[f"upsample_nearest{_n}d"] = _resize("nearest", _n, where="asymmetric")
    RULES[f"_upsample_nearest_exact{_n}d"] = _resize(
        "nearest", _n, "round_prefer_ceil", "half_pixel"
    )
    _line = {1: "linear1d", 2: "bilinear2d", 3: "trilinear3d"}[_n]
    RULES[f"upsample_{_line}"] = _resize("linear", _n)
OVER["im2col"] = 2
RULES["upsample_bicubic2d"] = _resize("cubic", 2)
RULES["_upsample_bilinear2d_aa"] = _resize("linear", 2, **_AA)
RULES["_upsample_bicubic2d_aa"] = _resize("cubic", 2, cubic=-0.5, **_AA)
