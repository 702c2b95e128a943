"""Rules for ONNX operators: each is handed to the `Assembler` as in jaxpr.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from erftheory.importers import movement, windows
from erftheory.importers.assemble import Assembler
from erftheory.importers.resample import interpolation
from erftheory.importers.signals import (
    CHANNEL,
    Constant,
    Global,
    Signal,
    Unreadable,
    Value,
    plain,
    spatial,
)
from erftheory.network.base import Network
from erftheory.network.graph import Builder

CURVES = {
    "Relu": "relu", "LeakyRelu": "leaky_relu", "PRelu": "leaky_relu", "Sigmoid": "sigmoid",
    "Tanh": "tanh", "Gelu": "gelu", "Swish": "silu", "Abs": "abs", "Erf": "erf", "Sqrt": "sqrt",
    "HardSwish": "silu", "HardSigmoid": "sigmoid",
}  # fmt: skip
LINEAR = (
    "Identity", "Dropout", "Cast", "CastLike", "Neg", "QuantizeLinear", "DequantizeLinear",
    "Bernoulli",
)  # fmt: skip
OTHER = (
    "Elu", "Selu", "Celu", "Softplus", "Softsign", "Mish", "ThresholdedRelu", "Exp", "Log", "Sin",
    "Cos", "Tan", "Floor", "Ceil", "Round", "Sign", "Not", "IsNaN", "IsInf", "Shrink", "LRN",
    "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh",
)  # fmt: skip
BINARY = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Sum": "add", "Mean": "add",
    "Max": "other", "Min": "other", "Pow": "other", "Mod": "other", "Equal": "other",
    "Less": "other", "Greater": "other", "LessOrEqual": "other", "GreaterOrEqual": "other",
    "And": "other", "Or": "other", "Xor": "other", "Where": "select",
}  # fmt: skip


def apply(make: Assembler, kind: str, at: dict[str, Any], inputs: list[Value]) -> Any:
    """The value (or list of values) of an operator.

    Raises:
      Unreadable: no rule for it, or none for these arguments.
    """
    if kind in LINEAR:
        return make.pointwise(inputs[0], "linear")
    if kind in CURVES:
        if kind.startswith("Hard"):
            make.note(f"{kind} taken as {CURVES[kind]}")
        return make.pointwise(inputs[0], CURVES[kind])
    if kind in OTHER:
        return make.pointwise(inputs[0], "other")
    if kind in BINARY:
        return _binary(make, kind, inputs)
    if kind.startswith("Reduce"):
        return _reduce(make, kind, at, inputs)
    rule: Callable | None = RULES.get(kind)
    if rule is None:
        raise Unreadable("an operator without a rule")
    return rule(make, at, inputs)


def known(value: Value, name: str) -> np.ndarray:
    found = value.get() if isinstance(value, Constant) else None
    if found is None:
        raise Unreadable(f"{name} that depends on the image")
    return np.asarray(found)


def ranked(value: Value, rank: int) -> Value:
    """NumPy's broadcasting: leading dimensions of size 1."""
    if isinstance(value, Signal) and len(value.dims) < rank:
        return replace(value, dims=((),) * (rank - len(value.dims)) + value.dims)
    if isinstance(value, Constant) and 0 < len(value.shape) < rank:
        shape = (1,) * (rank - len(value.shape)) + value.shape

        def get(value=value, shape=shape):
            found = value.get()
            return None if found is None else np.reshape(found, shape)

        return Constant(shape, get)
    return value


def _binary(make: Assembler, kind: str, inputs: list[Value]) -> Value:
    rank = max(len(v.shape) for v in inputs if not isinstance(v, Global))
    values = [ranked(v, rank) for v in inputs]
    pixels = [v for v in values if not isinstance(v, Constant)]
    constants = [v for v in values if isinstance(v, Constant)]
    for c in constants:
        pixels = [windows.widened(v, c) for v in pixels]
    if len(pixels) > 1:
        return make.merge(BINARY[kind], *pixels)
    value = pixels[0]
    if kind in ("Add", "Sub", "Sum", "Where"):
        return make.pointwise(value, "linear")
    first = not isinstance(values[0], Constant)
    if kind == "Mul" or (kind == "Div" and first):
        return make.scaled(value, constants[0], divide=kind == "Div")
    if kind == "Div":
        return make.inverted(value)
    if kind == "Pow":
        number = constants[0].get()
        power = float(np.ravel(number)[0]) if number is not None and first else 0.0
        curve = {0.5: "sqrt", -0.5: "rsqrt", 1.0: "linear"}.get(power, "other")
        return make.pointwise(value, curve)
    return make.pointwise(value, "other")


def _clip(make, at, inputs):
    low = at.get("min", None)
    if len(inputs) > 1 and isinstance(inputs[1], Constant):
        found = inputs[1].get()
        low = None if found is None or not np.size(found) else float(np.ravel(found)[0])
    return make.pointwise(inputs[0], "relu" if low == 0 else "other")


def _axes(at: dict, inputs: list[Value], place: int, rank: int) -> list[int]:
    axes = at.get("axes")
    if axes is None and len(inputs) > place and np.prod(inputs[place].shape or (0,)):  # type: ignore[union-attr]
        axes = known(inputs[place], "axes")
    return [int(a) % rank for a in (range(rank) if axes is None else np.ravel(axes))]


def _reduce(make: Assembler, kind: str, at: dict, inputs: list[Value]) -> Value:
    value = inputs[0]
    if not isinstance(value, Signal):
        return value
    axes = _axes(at, inputs, 1, len(value.dims))
    how = {"ReduceMax": "max", "ReduceMin": "max", "ReduceSum": "sum"}.get(kind, "mean")
    return make.reduce(value, axes, how, keep=bool(at.get("keepdims", 1)))


def _pads(at: dict, shape: Sequence[int], k, s, d) -> list[tuple[int, int]]:
    n = len(k)
    auto = at.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        rows = []
        for size, a, b, c in zip(shape, k, s, d):
            total = max(0, (-(-size // b) - 1) * b + c * (a - 1) + 1 - size)
            small, large = total // 2, total - total // 2
            rows.append((small, large) if auto == "SAME_UPPER" else (large, small))
        return rows
    pads = at.get("pads", [0] * 2 * n) if auto == "NOTSET" else [0] * 2 * n
    return list(zip(pads[:n], pads[n:]))


def _rows(make: Assembler, image: Signal, at: dict, kernel: Sequence[int]):
    n = len(kernel)
    s, d = at.get("strides") or [1] * n, at.get("dilations") or [1] * n
    shape = image.shape[2:]
    pads = _pads(at, shape, kernel, s, d)
    up = -1 if at.get("ceil_mode") else 1
    sizes = [
        up * (up * (m + sum(p) - c * (k - 1) - 1) // b) + 1
        for m, p, k, b, c in zip(shape, pads, kernel, s, d)
    ]
    return list(zip(range(2, 2 + n), kernel, s, d, pads)), sizes


def _conv(make, at, inputs):
    image, weights = inputs[:2]
    if not isinstance(weights, Constant):
        return make.mixed_pixels(image, weights)
    if isinstance(image, Global):
        return replace(image, mixed=True)
    image = make.flush(make.settle(image))
    kernel = at.get("kernel_shape") or list(weights.shape[2:])
    rows, sizes = _rows(make, image, at, kernel)
    full = [(i, k, s, 1, d, p) for i, k, s, d, p in rows]
    group, out = at.get("group", 1), weights.shape[0]
    found = windows.slide(make, image, full, dict(enumerate(sizes, 2)), out, group)
    return replace(found, dims=(found.dims[0], plain(CHANNEL, out), *found.dims[2:]))


def _conv_transpose(make, at, inputs):
    image, weights = inputs[:2]
    if isinstance(image, Global):
        return replace(image, mixed=True)
    image = make.flush(make.settle(image))
    kernel = at.get("kernel_shape") or list(weights.shape[2:])
    n = len(kernel)
    stride, dilation = at.get("strides") or [1] * n, at.get("dilations") or [1] * n
    extra, wanted = at.get("output_padding") or [0] * n, at.get("output_shape")
    pads = at.get("pads") or [0] * 2 * n
    auto, group = at.get("auto_pad", "NOTSET"), at.get("group", 1)
    rows, sizes = [], {}
    for i, (m, k, s, d, e) in enumerate(zip(image.shape[2:], kernel, stride, dilation, extra)):
        span = d * (k - 1)
        low, high = pads[i], pads[n + i]
        size = s * (m - 1) + e + span + 1 - low - high
        if wanted or auto.startswith("SAME"):
            size = wanted[-n:][i] if wanted else m * s
            total = s * (m - 1) + e + span + 1 - size
            half = total // 2
            low, high = (half, total - half) if auto == "SAME_UPPER" else (total - half, half)
        rows.append((i + 2, k, 1, s, d, (span - low, span - high + e)))
        sizes[i + 2] = size
    out = weights.shape[1] * group
    found = windows.slide(make, image, rows, sizes, out, group)
    dims = (found.dims[0], plain(CHANNEL, out), *found.dims[2:])
    return replace(found, dims=dims)


def _pool(kind: str) -> Callable:
    def rule(make, at, inputs):
        image = inputs[0]
        if not isinstance(image, Signal):
            return image
        image = make.flush(make.settle(image))
        rows, sizes = _rows(make, image, at, at["kernel_shape"])
        found = windows.pool(make, image, rows, (*image.shape[:2], *sizes), kind)
        return [found, Constant(found.shape)]

    return rule


def _global_pool(make, at, inputs):
    value = inputs[0]
    if not isinstance(value, Signal):
        return value
    return make.reduce(value, range(2, len(value.dims)), "mean", keep=True)


def _gemm(make, at, inputs):
    a, b = inputs[:2]
    numbers = (([0 if at.get("transA") else 1], [1 if at.get("transB") else 0]), ([], []))
    return windows.contracted(make, a, b, numbers, ())


def _matmul(make, at, inputs):
    a, b = inputs
    if isinstance(a, Global) or isinstance(b, Global):
        return make.mixed_pixels(a, b)
    rank = max(len(a.shape), len(b.shape))
    if isinstance(a, Signal) and isinstance(b, Signal):
        a, b = ranked(a, rank), ranked(b, rank)
        batch = list(range(rank - 2))
        return windows.contracted(make, a, b, (([rank - 1], [rank - 2]), (batch, batch)), ())
    if isinstance(a, Signal):
        if len(b.shape) != 2:
            raise Unreadable("a product with a stack of matrices")
        numbers = (([len(a.dims) - 1], [0]), ([], []))
        return windows.contracted(make, a, b, numbers, ())
    if len(a.shape) != 2:
        raise Unreadable("a product with a stack of matrices")
    found = windows.contracted(make, a, b, (([1], [len(b.dims) - 2]), ([], [])), ())
    if not isinstance(found, Signal):
        return found
    first, *heads, last = found.dims
    return replace(found, dims=(*heads, first, last))


def _resize(make, at, inputs):
    value = inputs[0]
    if not isinstance(value, Signal):
        return value
    value = make.flush(make.settle(value))
    shape, rank = value.shape, len(value.dims)
    given = at.get("scales")
    place = 1 if len(inputs) == 2 else 2
    if given is None and len(inputs) > place and np.prod(inputs[place].shape or (0,)):
        given = known(inputs[place], "scales")
    if given is not None and len(given):
        scales = [float(s) for s in given]
        sizes = [int(math.floor(n * s + 1e-6)) for n, s in zip(shape, scales)]
    else:
        sizes = [int(n) for n in known(inputs[3], "sizes")]
        scales = [m / n for m, n in zip(sizes, shape)]
    if len(sizes) != rank or "axes" in at:
        raise Unreadable("a resize of some axes")
    mode = str(at.get("mode", "nearest")).replace("bilinear", "linear")
    plainly = "asymmetric" if len(inputs) == 2 else "half_pixel"  # Upsample, and Resize's default
    coordinates = at.get("coordinate_transformation_mode", plainly)
    rounding = at.get("nearest_mode", "round_prefer_floor" if plainly == "half_pixel" else "floor")
    for i in range(rank):
        if sizes[i] == shape[i]:
            continue
        if not spatial(value.dims[i]):
            raise Unreadable("a resize along channels")
        axis = value.dims[i][0].axis
        way = coordinates
        if coordinates == "align_corners":
            way = "asymmetric"  # what aligned corners tend to in the middle of large images
            make.note("a resize with aligned corners, read as on an unbounded image")
        matrix = interpolation(shape[i], sizes[i], mode, way, rounding, scales[i])
        value = windows.resize(make, value, axis, matrix)
    return value


def _pad(make, at, inputs):
    value = inputs[0]
    if not isinstance(value, Signal):
        return value
    pads = at.get("pads")
    pads = [int(p) for p in (known(inputs[1], "pads") if pads is None else pads)]
    axes = list(range(len(value.dims)))
    if len(inputs) > 3 and inputs[3].shape:
        axes = [int(a) % len(value.dims) for a in known(inputs[3], "axes")]
    if at.get("mode", "constant") != "constant":
        make.note("padding by the image's own pixels, which only its rim sees")
    config = [(0, 0, 0)] * len(value.dims)
    for j, axis in enumerate(axes):
        config[axis] = (pads[j], pads[len(axes) + j], 0)
    return movement.padded(make, value, config)


def _slice(make, at, inputs):
    value = inputs[0]
    if not isinstance(value, Signal):
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
        if s < 1 and spatial(value.dims[a]):
            raise Unreadable("a reflection of the image")
        span = range(*slice(int(b), int(e), int(s)).indices(shape[a]))
        first[a], last[a] = (span.start, span.stop) if s > 0 else (span.stop + 1, span.start + 1)
        stride[a] = abs(int(s))
    return movement.sliced(make, value, first, last, stride)


def _split(make, at, inputs):
    value, axis = inputs[0], at.get("axis", 0)
    if not isinstance(value, Signal):
        raise Unreadable("a split of a value without pixels")
    axis, shape = axis % len(value.dims), value.shape
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
    first = next((v for v in inputs if isinstance(v, Signal)), None)
    if first is None:
        return make.concat(inputs, 0, ())
    axis = at["axis"] % len(first.dims)
    shape = list(first.shape)
    shape[axis] = sum(1 if isinstance(v, Global) else v.shape[axis] for v in inputs)
    return make.concat(inputs, axis, shape)


def _reshape(make, at, inputs):
    value = inputs[0]
    if not isinstance(value, Signal):
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
    if not isinstance(value, Signal):
        return value
    axis = at.get("axis", 1) % (len(value.dims) + 1)
    shape = value.shape
    return movement.reshaped(make, value, (math.prod(shape[:axis]), math.prod(shape[axis:])))


def _transpose(make, at, inputs):
    value = inputs[0]
    if not isinstance(value, Signal):
        return value
    return movement.transposed(make, value, at.get("perm") or range(len(value.dims))[::-1])


def _squeeze(make, at, inputs):
    value = inputs[0]
    if not isinstance(value, Signal):
        return value
    given = at.get("axes") is not None or len(inputs) > 1
    rank, shape = len(value.dims), value.shape
    axes = _axes(at, inputs, 1, rank) if given else [i for i in range(rank) if shape[i] == 1]
    return movement.reshaped(make, value, [n for i, n in enumerate(shape) if i not in axes])


def _unsqueeze(make, at, inputs):
    value = inputs[0]
    if not isinstance(value, Signal):
        return value
    axes = at["axes"] if "axes" in at else np.ravel(known(inputs[1], "axes"))
    rank = len(value.dims) + len(axes)
    new = {int(a) % rank for a in axes}
    dims = iter(value.dims)
    return replace(value, dims=tuple(() if i in new else next(dims) for i in range(rank)))


def _expand(make, at, inputs):
    value = inputs[0]
    if not isinstance(value, Signal):
        return value
    wanted = [int(n) for n in known(inputs[1], "shape")]
    rank = max(len(wanted), len(value.dims))
    moved = ranked(value, rank)
    wanted = [1] * (rank - len(wanted)) + wanted
    shape = [max(n, m) for n, m in zip(wanted, moved.shape)]  # type: ignore[union-attr]
    return movement.broadcast(make, moved, shape, range(rank))


def _tile(make, at, inputs):
    value = inputs[0]
    if not isinstance(value, Signal):
        return value
    times = known(inputs[1], "repeats")
    if any(t > 1 and spatial(d) for t, d in zip(times, value.dims)):
        raise Unreadable("an image repeated beside itself")
    return movement.broadcast(
        make, value, [n * int(t) for n, t in zip(value.shape, times)], range(len(value.dims))
    )


def _gather(make, at, inputs):
    value, indices = inputs
    if not isinstance(value, Signal) or not isinstance(indices, Constant):
        raise Unreadable("entries picked by indices that depend on the image")
    axis = at.get("axis", 0) % len(value.dims)
    if len(indices.shape) == 1:
        return movement.taken(make, value, indices, axis)
    if spatial(value.dims[axis]):
        raise Unreadable("single pixels picked from the image")
    new = tuple(plain(CHANNEL, n) for n in indices.shape)
    dims = (*value.dims[:axis], *new, *value.dims[axis + 1 :])
    return make.select(value, dims)


def _blocks(deep: bool) -> Callable:
    def rule(make, at, inputs):
        value, b = inputs[0], at["blocksize"]
        if not isinstance(value, Signal):
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


def _batch_norm(make, at, inputs):
    value, scale, _, _, variance = inputs[:5]
    rank = len(value.shape) if isinstance(value, Signal) else 4

    def get():
        a, b = scale.get(), variance.get()
        if a is None or b is None:
            return None
        return (a / np.sqrt(b + at.get("epsilon", 1e-5))).reshape(1, -1, *[1] * (rank - 2))

    return make.scaled(value, Constant((1, *scale.shape, *[1] * (rank - 2)), get))


def _normalised(make, at, inputs):
    """Instance and group normalisation: statistics over the image."""
    value = inputs[0]
    if not isinstance(value, Signal):
        return value
    held = Global(value.node, root=True, inverse=True)
    return make.merge("mul", value, held)


def _layer_norm(make, at, inputs):
    value = inputs[0]
    if not isinstance(value, Signal):
        return value
    first = at.get("axis", -1) % len(value.dims)
    if any(spatial(d) for d in value.dims[first:]):
        return _normalised(make, at, inputs)
    return make.pointwise(value, "norm")


def _softmax(make, at, inputs):
    value = inputs[0]
    if isinstance(value, Signal) and spatial(value.dims[at.get("axis", -1)]):
        return make.mixed_pixels(value)
    return make.pointwise(value, "other")


def _along(make, at, inputs):
    value = inputs[0]
    if isinstance(value, Signal) and any(spatial(d) for d in value.dims):
        raise Unreadable("an operator that runs along the whole image")
    return make.pointwise(value, "other")


def described(make: Assembler, signal: Signal, rule: Network) -> Signal:
    """A network that a user gave as the rule of an operator; sizes follow its stride."""
    builder = Builder(make.ndim)
    builder.nodes = make.nodes
    node = rule.lower(builder, signal.node, make.scope)
    rates = rule.graph.rate
    sizes = [max(1, int(signal.size(a) / rates[a])) for a in range(make.ndim)]
    return Signal(node, make.resized(signal.dims, sizes))


RULES: dict[str, Callable] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _pool("max"),
    "AveragePool": _pool("mean"),
    "LpPool": _pool("mean"),
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "GlobalLpPool": _global_pool,
    "Gemm": _gemm,
    "MatMul": _matmul,
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
    "Tile": _tile,
    "Gather": _gather,
    "DepthToSpace": _blocks(True),
    "SpaceToDepth": _blocks(False),
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _normalised,
    "GroupNormalization": _normalised,
    "MeanVarianceNormalization": _normalised,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _layer_norm,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "Clip": _clip,
    "Reciprocal": lambda make, at, inputs: make.inverted(inputs[0]),
    "CumSum": _along,
    "TopK": _along,
}
