"""Rules for ONNX operators that move entries of an array: slices, pads, reshapes, resizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from erftheory.importers.building import movement
from erftheory.importers.building.assemble import Assembler
from erftheory.importers.building.elementwise import ranked
from erftheory.importers.building.joining import concat
from erftheory.importers.building.operation import of_pixels
from erftheory.importers.building.resizing import resized
from erftheory.importers.onnx.opsets import argument
from erftheory.importers.values.constants import known
from erftheory.importers.values.dimensions import spatial
from erftheory.importers.values.pixels import Constant, Global, Listed, Pixels, Value
from erftheory.importers.values.refusals import MIRRORED, Unreadable
from erftheory.network.imported import OWN_PIXELS


def axes_of(inputs: Sequence[Value], place: int, rank: int) -> list[int]:
    """Dimensions that an input lists, all of them where it is left out or empty."""
    axes = argument(inputs, place, "axes")
    return [int(a) % rank for a in (range(rank) if axes is None or not axes.size else axes.ravel())]


@of_pixels
def _resize(make, at, inputs):
    value = inputs[0]
    value = make.flush(make.settle(value))
    shape, rank = value.shape, len(value.dims)
    given = argument(inputs, 2, "scales")
    if given is not None and given.size:
        scales = [float(s) for s in given]
        # a scale of float32 may lie below the ratio that it stands for
        sizes = [int(math.floor(n * s * (1 + 1e-6))) for n, s in zip(shape, scales)]
    else:
        sizes = [int(n) for n in known(inputs[3], "sizes")]
        scales = [m / n for m, n in zip(sizes, shape)]
    if len(sizes) != rank or "axes" in at:
        raise Unreadable("a resize of some axes")
    if at.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Unreadable("a resize that keeps the ratio of the sides")
    return resized(
        make, value, sizes, scales, at.get("mode", "nearest"),
        at.get("coordinate_transformation_mode", "half_pixel"),
        at.get("nearest_mode", "round_prefer_floor"), bool(at.get("antialias")),
        not at.get("exclude_outside"), at.get("cubic_coeff_a", -0.75),
    )  # fmt: skip


@of_pixels
def _pad(make, at, inputs):
    value = inputs[0]
    pads = [int(p) for p in known(inputs[1], "pads")]
    axes = axes_of(inputs, 3, len(value.dims))
    own = at.get("mode", "constant") != "constant"
    if own:
        make.note(OWN_PIXELS)
    config = [(0, 0, 0)] * len(value.dims)
    for j, axis in enumerate(axes):
        config[axis] = (pads[j], pads[len(axes) + j], 0)
    return movement.padded(make, value, config, own)


def _slice(make, at, inputs):
    value = inputs[0]
    if not isinstance(value, Pixels | Listed):
        return value
    shape = value.shape
    starts, ends = known(inputs[1], "starts"), known(inputs[2], "ends")
    axes, steps = argument(inputs, 3, "axes"), argument(inputs, 4, "steps")
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    first, last, stride = [0] * len(shape), list(shape), [1] * len(shape)
    for a, b, e, s in zip(axes, starts, ends, steps):
        a = int(a) % len(shape)
        span = range(*slice(int(b), int(e), int(s)).indices(shape[a]))
        if s < 1 and (isinstance(value, Listed) or spatial(value.dims[a])):
            if isinstance(value, Listed) or s < -1 or len(span) < shape[a]:
                raise Unreadable(MIRRORED)
            value = _mirrored(make, value, a)
            continue
        first[a], last[a] = (span.start, span.stop) if s > 0 else (span.stop + 1, span.start + 1)
        stride[a] = abs(int(s))
    return movement.sliced(make, value, first, last, stride)


def _mirrored(make: Assembler, value: Pixels, axis: int) -> Pixels:
    found = movement.reversed_(make, value, [axis])
    assert isinstance(found, Pixels)
    return found


def _split(make, at, inputs):
    value, axis = inputs[0], at.get("axis", 0)
    if not isinstance(value, Pixels | Listed):
        raise Unreadable("a split of a value without pixels")
    axis, shape = axis % len(value.shape), value.shape
    sizes = argument(inputs, 1, "split")
    if sizes is None:
        count = at["num_outputs"]
        each = -(-shape[axis] // count)
        sizes = [min(each, shape[axis] - i * each) for i in range(count)]
    return movement.parted(make, value, axis, list(sizes))


def _concat(make, at, inputs):
    first = next((v for v in inputs if isinstance(v, Pixels | Listed)), None)
    if first is None:
        return concat(make, inputs, 0, ())
    axis = at["axis"] % len(first.shape)
    shape = list(first.shape)
    shape[axis] = sum(1 if isinstance(v, Global) else v.shape[axis] for v in inputs)
    return concat(make, inputs, axis, shape)


@of_pixels
def _reshape(make, at, inputs):
    value = inputs[0]
    wanted = [int(n) for n in known(inputs[1], "shape")]
    total = math.prod(value.shape)
    shape = [value.shape[i] if n == 0 and not at.get("allowzero") else n
             for i, n in enumerate(wanted)]  # fmt: skip
    if -1 in shape:
        shape[shape.index(-1)] = total // -math.prod(shape)
    return movement.reshaped(make, value, shape)


@of_pixels
def _flatten(make, at, inputs):
    value = inputs[0]
    axis = at.get("axis", 1) % (len(value.dims) + 1)
    shape = value.shape
    return movement.reshaped(make, value, (math.prod(shape[:axis]), math.prod(shape[axis:])))


@of_pixels
def _transpose(make, at, inputs):
    value = inputs[0]
    return movement.transposed(make, value, at.get("perm") or range(len(value.dims))[::-1])


@of_pixels
def _squeeze(make, at, inputs):
    value = inputs[0]
    rank, shape, given = len(value.dims), value.shape, argument(inputs, 1, "axes")
    axes = [i for i in range(rank) if shape[i] == 1] if given is None else given % rank
    return movement.reshaped(make, value, [n for i, n in enumerate(shape) if i not in axes])


@of_pixels
def _unsqueeze(make, at, inputs):
    value = inputs[0]
    axes = known(inputs[1], "axes").ravel()
    rank = len(value.dims) + len(axes)
    new = {int(a) % rank for a in axes}
    dims = iter(value.dims)
    return replace(value, dims=tuple(() if i in new else next(dims) for i in range(rank)))


@of_pixels
def _expand(make, at, inputs):
    value = inputs[0]
    wanted = [int(n) for n in known(inputs[1], "shape")]
    rank = max(len(wanted), len(value.dims))
    moved = ranked(value, rank)
    wanted = [1] * (rank - len(wanted)) + wanted
    shape = [max(n, m) for n, m in zip(wanted, moved.shape)]  # type: ignore[union-attr]
    return movement.broadcast(make, moved, shape, range(rank))


def _tile(make, at, inputs):
    return movement.tiled(make, inputs[0], list(known(inputs[1], "repeats")))


def _gather(make, at, inputs):
    value, indices = inputs
    if not isinstance(value, Pixels) or not isinstance(indices, Constant):
        raise Unreadable("entries picked by indices that depend on the image")
    return movement.taken(make, value, indices, at.get("axis", 0) % len(value.dims))


def _blocks(deep: bool) -> Callable:
    def rule(make, at, inputs):
        value, b = inputs[0], at["blocksize"]
        if not isinstance(value, Pixels):
            return value
        n, c, h, w = value.shape
        if not deep:
            value = movement.reshaped(make, value, (n, c, h // b, b, w // b, b))
            value = movement.transposed(make, value, (0, 3, 5, 1, 2, 4))
            return movement.reshaped(make, value, (n, c * b * b, h // b, w // b))
        if at.get("mode", "DCR") == "DCR":
            value = movement.reshaped(make, value, (n, b, b, c // b // b, h, w))
            value = movement.transposed(make, value, (0, 3, 4, 1, 5, 2))
        else:
            value = movement.reshaped(make, value, (n, c // b // b, b, b, h, w))
            value = movement.transposed(make, value, (0, 1, 4, 2, 5, 3))
        return movement.reshaped(make, value, (n, c // b // b, h * b, w * b))

    return rule


MOVEMENT: dict[str, Callable] = {
    "Resize": _resize,
    "Pad": _pad,
    "Slice": _slice,
    "Split": _split,
    "Concat": _concat,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Expand": _expand,
    "Tile": _tile,
    "Gather": _gather,
    "DepthToSpace": _blocks(True),
    "SpaceToDepth": _blocks(False),
}
