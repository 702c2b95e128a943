"""Resizes of the image: a matrix along each axis, whose rule `resample` finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from erftheory.importers.building.assemble import Assembler
from erftheory.importers.building.resample import interpolation, steps
from erftheory.importers.values.dimensions import COPY, plain, spatial
from erftheory.importers.values.pixels import Pixels
from erftheory.importers.values.refusals import Unreadable
from erftheory.network.imported import ALIGNED, RESIZE, Spatial
from erftheory.network.kernel import Kernel
from erftheory.network.layers import Step, Upsample

PHASES = 64  # outputs of which each reads by weights of its own
MIDDLE = 8  # pixels of a map in whose middle linear and cubic interpolation follow their rule


def resized(
    make: Assembler, value: Pixels, sizes: Sequence[int], scales: Sequence[float], mode: str,
    coordinates: str, rounding: str, antialias: bool = False, outside: bool = True,
    cubic: float = -0.75,
) -> Pixels:  # fmt: skip
    """A resize to `sizes`; the further arguments are those of `resample.interpolation`."""
    spread = [m if n == 1 and not spatial(d) else n
              for n, m, d in zip(value.shape, sizes, value.dims)]  # fmt: skip
    if spread != list(value.shape):  # one entry, such as a mean over an axis
        dims = [plain(COPY, m) if m != n else d for m, n, d in zip(spread, value.shape, value.dims)]
        value = replace(value, dims=tuple(dims), parts=())
    shape = value.shape
    way, label = coordinates, RESIZE
    if coordinates == "align_corners" and tuple(sizes) != shape:
        make.note("a resize with aligned corners, read as on an unbounded image")
        found = _upsampled(make, value, sizes) if mode == "linear" else None
        if found is not None:
            return found
        way, label = "asymmetric", ALIGNED  # the limit in the middle of large images
    for i in range(len(shape)):
        if sizes[i] == shape[i]:
            continue
        if not spatial(value.dims[i]):
            raise Unreadable("a resize along channels")
        axis = value.dims[i][0].axis
        # a rule is read off the middle of a map, which small ones (of pyramid pools) do not have
        times = -(-MIDDLE // shape[i]) if shape[i] < MIDDLE and mode != "nearest" else 1
        matrix = interpolation(
            shape[i] * times, sizes[i] * times, mode, way, rounding, scales[i],
            antialias, outside, cubic,
        )  # fmt: skip
        try:
            value = resize(make, value, axis, matrix, label, (sizes[i], shape[i]))
        except Unreadable:
            if label == ALIGNED or Fraction(sizes[i], shape[i]).numerator > PHASES:
                raise
            make.note("a resize by a broken factor, whose weights are those of maps of this size")
            matrix = interpolation(
                shape[i], sizes[i], mode, way, rounding, scales[i], antialias, outside, cubic
            )
            value = resize(make, value, axis, matrix, label, whole=True)
    return value


def _upsampled(make: Assembler, value: Pixels, sizes: Sequence[int]) -> Pixels | None:
    """Interpolation by whole factors as the layer that finite images know exactly."""
    factor, pixels = [1] * make.ndim, [1] * make.ndim
    for dim, n, m in zip(value.dims, value.shape, sizes):
        if m != n and (not spatial(dim) or m % n):
            return None
        if spatial(dim):
            factor[dim[0].axis], pixels[dim[0].axis] = m // n, m
    op = Upsample(tuple(factor), "bilinear", align_corners=True)
    return make.window(value, op.step(make.ndim), pixels, op)


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
