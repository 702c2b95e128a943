"""Rules for ONNX operators that move entries of an array: slices, pads, reshapes, resizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from erftheory.importers.build import movement, windows
from erftheory.importers.build.assemble import Assembler
from erftheory.importers.build.patches import unfolded
from erftheory.importers.build.resample import interpolation
from erftheory.importers.values.dimensions import CHANNEL, plain, spatial
from erftheory.importers.values.pixels import Constant, Global, Listed, Pixels, Value
from erftheory.importers.values.refusals import MIRRORED, Unreadable
from erftheory.network.imported import ALIGNED, OWN_PIXELS, RESIZE
from erftheory.network.layers import Upsample

PHASES = 64  # outputs of which each reads by weights of its own
MIDDLE = 8  # pixels of a map in whose middle linear and cubic interpolation follow their rule


def known(value: Value, name: str) -> np.ndarray:
    found = value.get() if isinstance(value, Constant) else None
    if found is None:
        raise Unreadable(f"{name} that depends on the image")
    return np.asarray(found)


def ranked(value: Value, rank: int) -> Value:
    """NumPy's broadcasting: leading dimensions of size 1."""
    if isinstance(value, Pixels) and len(value.dims) < rank:
        return replace(value, dims=((),) * (rank - len(value.dims)) + value.dims)
    if isinstance(value, Constant) and 0 < len(value.shape) < rank:
        shape = (1,) * (rank - len(value.shape)) + value.shape

        def get(value=value, shape=shape):
            found = value.get()
            return None if found is None else np.reshape(found, shape)

        return Constant(shape, get)
    return value


def axes_of(at: dict, inputs: list[Value], place: int, rank: int) -> list[int]:
    axes = at.get("axes")
    if axes is None and len(inputs) > place and np.prod(inputs[place].shape or (0,)):  # type: ignore[union-attr]
        axes = known(inputs[place], "axes")
    return [int(a) % rank for a in (range(rank) if axes is None else np.ravel(axes))]


def _resize(make, at, inputs):
    value = inputs[0]
    if not isinstance(value, Pixels):
        return value
    value = make.flush(make.settle(value))
    shape, rank = value.shape, len(value.dims)
    given = at.get("scales")
    place = 1 if len(inputs) == 2 else 2
    if given is None and len(inputs) > place and np.prod(inputs[place].shape or (0,)):
        given = known(inputs[place], "scales")
    if given is not None and len(given):
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
    plainly = "asymmetric" if len(inputs) == 2 else "half_pixel"  # Upsample, and Resize's default
    coordinates = at.get("coordinate_transformation_mode", plainly)
    rounding = at.get("nearest_mode", "round_prefer_floor" if plainly == "half_pixel" else "floor")
    return resized(
        make, value, sizes, scales, str(at.get("mode", "nearest")).replace("bilinear", "linear"),
        coordinates, rounding, bool(at.get("antialias")), not at.get("exclude_outside"),
        at.get("cubic_coeff_a", -0.75),
    )  # fmt: skip


def resized(
    make: Assembler, value: Pixels, sizes: Sequence[int], scales: Sequence[float], mode: str,
    coordinates: str, rounding: str, antialias: bool = False, outside: bool = True,
    cubic: float = -0.75,
) -> Pixels:  # fmt: skip
    """A resize to `sizes`; the further arguments are those of `resample.interpolation`."""
    spread = [m if n == 1 and not spatial(d) else n
              for n, m, d in zip(value.shape, sizes, value.dims)]  # fmt: skip
    if spread != list(value.shape):  # one entry, such as a mean over an axis
        wide = movement.broadcast(make, value, spread, range(len(spread)))
        assert isinstance(wide, Pixels)
        value = wide
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
            value = windows.resize(make, value, axis, matrix, label, (sizes[i], shape[i]))
        except Unreadable:
            if label == ALIGNED or Fraction(sizes[i], shape[i]).numerator > PHASES:
                raise
            make.note("a resize by a broken factor, whose weights are those of maps of this size")
            matrix = interpolation(
                shape[i], sizes[i], mode, way, rounding, scales[i], antialias, outside, cubic
            )
            value = windows.resize(make, value, axis, matrix, label, whole=True)
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


def _pad(make, at, inputs):
    value = inputs[0]
    if not isinstance(value, Pixels):
        return value
    pads = at.get("pads")
    pads = [int(p) for p in (known(inputs[1], "pads") if pads is None else pads)]
    axes = list(range(len(value.dims)))
    if len(inputs) > 3 and inputs[3].shape:
        axes = [int(a) % len(value.dims) for a in known(inputs[3], "axes")]
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
    if "starts" in at:
        starts, ends = at["starts"], at["ends"]
        axes = at.get("axes", range(len(starts)))
        steps = [1] * len(starts)
    else:
        starts, ends = known(inputs[1], "starts"), known(inputs[2], "ends")
        given = len(inputs) > 3 and inputs[3].shape
        axes = known(inputs[3], "axes") if given else range(len(starts))
        stepped = len(inputs) > 4 and inputs[4].shape
        steps = known(inputs[4], "steps") if stepped else [1] * len(starts)
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
    sizes = at.get("split")
    if sizes is None and len(inputs) > 1:
        sizes = known(inputs[1], "split")
    if sizes is None:
        count = at.get("num_outputs")
        if count is None:
            raise Unreadable("a split into an unknown number of parts")
        each = -(-shape[axis] // count)
        sizes = [min(each, shape[axis] - i * each) for i in range(count)]
    results, start = [], 0
    for size in map(int, sizes):
        first, last = [0] * len(shape), list(shape)
        first[axis], last[axis] = start, start + size
        results.append(movement.sliced(make, value, first, last, [1] * len(shape)))
        start += size
    return results


def _concat(make, at, inputs):
    first = next((v for v in inputs if isinstance(v, Pixels)), None)
    if first is None:
        return make.concat(inputs, 0, ())
    axis = at["axis"] % len(first.dims)
    shape = list(first.shape)
    shape[axis] = sum(1 if isinstance(v, Global) else v.shape[axis] for v in inputs)
    return make.concat(inputs, axis, shape)


def _reshape(make, at, inputs):
    value = inputs[0]
    if not isinstance(value, Pixels):
        return value
    wanted = [int(n) for n in known(inputs[1], "shape")]
    total = math.prod(value.shape)
    shape = [value.shape[i] if n == 0 and not at.get("allowzero") else n
             for i, n in enumerate(wanted)]  # fmt: skip
    if -1 in shape:
        shape[shape.index(-1)] = total // -math.prod(shape)
    return movement.reshaped(make, value, shape)


def _flatten(make, at, inputs):
    value = inputs[0]
    if not isinstance(value, Pixels):
        return value
    axis = at.get("axis", 1) % (len(value.dims) + 1)
    shape = value.shape
    return movement.reshaped(make, value, (math.prod(shape[:axis]), math.prod(shape[axis:])))


def _transpose(make, at, inputs):
    value = inputs[0]
    if not isinstance(value, Pixels):
        return value
    return movement.transposed(make, value, at.get("perm") or range(len(value.dims))[::-1])


def _squeeze(make, at, inputs):
    value = inputs[0]
    if not isinstance(value, Pixels):
        return value
    given = at.get("axes") is not None or len(inputs) > 1
    rank, shape = len(value.dims), value.shape
    axes = axes_of(at, inputs, 1, rank) if given else [i for i in range(rank) if shape[i] == 1]
    return movement.reshaped(make, value, [n for i, n in enumerate(shape) if i not in axes])


def _unsqueeze(make, at, inputs):
    value = inputs[0]
    if not isinstance(value, Pixels):
        return value
    axes = at["axes"] if "axes" in at else np.ravel(known(inputs[1], "axes"))
    rank = len(value.dims) + len(axes)
    new = {int(a) % rank for a in axes}
    dims = iter(value.dims)
    return replace(value, dims=tuple(() if i in new else next(dims) for i in range(rank)))


def _expand(make, at, inputs):
    value = inputs[0]
    if not isinstance(value, Pixels):
        return value
    wanted = [int(n) for n in known(inputs[1], "shape")]
    rank = max(len(wanted), len(value.dims))
    moved = ranked(value, rank)
    wanted = [1] * (rank - len(wanted)) + wanted
    shape = [max(n, m) for n, m in zip(wanted, moved.shape)]  # type: ignore[union-attr]
    return movement.broadcast(make, moved, shape, range(rank))


def tile(make, at, inputs):
    value = inputs[0]
    if not isinstance(value, Pixels):
        return value
    times = known(inputs[1], "repeats")
    if any(t > 1 and spatial(d) for t, d in zip(times, value.dims)):
        raise Unreadable("an image repeated beside itself")
    return movement.broadcast(
        make, value, [n * int(t) for n, t in zip(value.shape, times)], range(len(value.dims))
    )


def _gather(make, at, inputs):
    value, indices = inputs
    if not isinstance(value, Pixels) or not isinstance(indices, Constant):
        raise Unreadable("entries picked by indices that depend on the image")
    axis = at.get("axis", 0) % len(value.dims)
    if len(indices.shape) == 1:
        return movement.taken(make, value, indices, axis)
    if spatial(value.dims[axis]):
        if len(indices.shape) != 2:
            raise Unreadable("single pixels picked from the image")
        return unfolded(make, value, indices, axis)
    new = tuple(plain(CHANNEL, n) for n in indices.shape)
    dims = (*value.dims[:axis], *new, *value.dims[axis + 1 :])
    return make.select(value, dims)


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
    "Upsample": _resize,
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
    "Tile": tile,
    "Gather": _gather,
    "DepthToSpace": _blocks(True),
    "SpaceToDepth": _blocks(False),
}
