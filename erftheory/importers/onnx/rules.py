"""Rules for ONNX operators: each is handed to the `Assembler` as in jaxpr.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from erftheory.importers.build import movement, windows
from erftheory.importers.build.assemble import Assembler
from erftheory.importers.onnx import recurrent
from erftheory.importers.onnx.movement import MOVEMENT, axes_of, known, ranked
from erftheory.importers.onnx.norms import NORMS
from erftheory.importers.values.dimensions import CHANNEL, plain, spatial
from erftheory.importers.values.pixels import Constant, Global, Listed, Partial, Pixels, Value
from erftheory.importers.values.refusals import BESIDE, Unreadable
from erftheory.network.base import Chain, Network
from erftheory.network.graph import Builder

CURVES = {
    "Relu": "relu", "Sigmoid": "sigmoid",
    "Tanh": "tanh", "Gelu": "gelu", "Swish": "silu", "Abs": "abs", "Erf": "erf", "Sqrt": "sqrt",
    "HardSwish": "silu", "HardSigmoid": "sigmoid",
}  # fmt: skip
LINEAR = (
    "Identity", "Dropout", "Cast", "CastLike", "QuantizeLinear", "DequantizeLinear",
    "Bernoulli",
)  # fmt: skip
OTHER = (
    "Selu", "Celu", "Softplus", "Softsign", "Mish", "ThresholdedRelu", "Exp", "Log", "Sin",
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
    if any(isinstance(v, Partial) for v in inputs):
        found = _going_on(make, kind, at, inputs)
        if found is not None:
            return found
        inputs = [make.opened(v) if isinstance(v, Partial) else v for v in inputs]
    if any(isinstance(v, Listed) for v in inputs):
        return _of_listed(make, kind, at, inputs)
    if kind == "Neg":
        return make.negated(inputs[0])
    if kind in LINEAR:
        return make.pointwise(inputs[0], "linear")
    if kind in CURVES:
        if kind.startswith("Hard"):
            make.note(f"{kind} taken as {CURVES[kind]}", inputs[0])
        tanh = kind == "Gelu" and at.get("approximate") == "tanh"
        return make.pointwise(inputs[0], "gelu_tanh" if tanh else CURVES[kind])
    if kind == "LeakyRelu":
        return make.leaky(inputs[0], at.get("alpha", 0.01))
    if kind == "Elu":
        return make.pointwise(inputs[0], "elu" if at.get("alpha", 1.0) == 1 else "other")
    if kind == "PRelu":
        return make.leaky(inputs[0], inputs[1] if isinstance(inputs[1], Constant) else None)
    if kind in OTHER:
        return make.pointwise(inputs[0], "other")
    if kind in BINARY:
        return binary(make, kind, inputs)
    if kind.startswith("Reduce"):
        return _reduce(make, kind, at, inputs)
    rule: Callable | None = RULES.get(kind)
    if rule is None:
        raise Unreadable("an operator without a rule")
    return rule(make, at, inputs)


def _going_on(make: Assembler, kind: str, at: dict, inputs: list[Value]) -> Value | None:
    """A reduction over some axes goes on over the others, or is scaled; else None."""
    value = next(v for v in inputs if isinstance(v, Partial))
    if kind.startswith("Reduce") and value is inputs[0]:
        return _reduce(make, kind, at, inputs)
    scaled = kind in ("Mul", "Div") and value is inputs[0] and isinstance(inputs[1], Constant)
    if kind in ("Sub", "Div") and any(isinstance(v, Pixels) for v in inputs):  # a statistic
        return binary(make, kind, inputs)
    return value if kind in LINEAR or scaled else None


def _of_listed(make: Assembler, kind: str, at: dict, inputs: list[Value]) -> Any:
    """Different pixels one behind the other: what acts on each alone, or cuts them apart."""
    x, *rest = inputs
    if kind == "Concat":
        return make.concat(inputs, at["axis"] % len(inputs[0].shape), ())
    if not isinstance(x, Listed) or not all(isinstance(v, Constant) for v in rest):
        raise Unreadable(BESIDE)
    if kind in ("Split", "Slice"):
        return MOVEMENT[kind](make, at, inputs)
    alone = kind in (*LINEAR, *CURVES, *OTHER, *BINARY, *ALONE) or (
        kind == "Conv" and math.prod(rest[0].shape[2:]) == 1
    )
    if not alone:
        raise Unreadable(BESIDE)

    def run(part: Pixels, _: tuple[int, ...]) -> Value:
        found = apply(make, kind, at, [part, *rest])
        return found[0] if isinstance(found, list) else found

    return x.mapped(run)


def binary(make: Assembler, kind: str, inputs: list[Value]) -> Value:
    rank = max((len(v.shape) for v in inputs if not isinstance(v, Global)), default=0)
    values = [ranked(v, rank) for v in inputs]
    pixels = [v for v in values if not isinstance(v, Constant)]
    constants = [v for v in values if isinstance(v, Constant)]
    for c in constants:
        pixels = [windows.widened(v, c) for v in pixels]
    if len(pixels) > 1:
        return make.merge(BINARY[kind], *pixels)
    value = pixels[0]
    first = not isinstance(values[0], Constant)
    if kind in ("Add", "Sub", "Sum", "Where"):
        value = make.negated(value) if kind == "Sub" and not first else value
        return make.pointwise(value, "linear")
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


def _reduce(make: Assembler, kind: str, at: dict, inputs: list[Value]) -> Value:
    value = inputs[0]
    if not isinstance(value, Pixels | Partial):
        return value
    axes = axes_of(at, inputs, 1, len(value.dims))
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


def _rows(make: Assembler, image: Pixels, at: dict, kernel: Sequence[int]):
    """Rows of a sliding window, the pixels behind it, and how far windows overhang the padding."""
    n = len(kernel)
    s, d = at.get("strides") or [1] * n, at.get("dilations") or [1] * n
    shape = image.shape[2:]
    pads, sizes, over = _pads(at, shape, kernel, s, d), [], []
    for m, (low, high), k, b, c in zip(shape, pads, kernel, s, d):
        room = m + low + high - c * (k - 1) - 1
        size = room // b + 1
        if at.get("ceil_mode") and room % b and size * b < m + low:
            size += 1  # a last window counts unless it starts behind the image
        sizes.append(size)
        over.append(max(0, (size - 1) * b - room))
    return list(zip(range(2, 2 + n), kernel, s, d, pads)), sizes, over


def conv(make, at, inputs):
    image, weights = inputs[:2]
    if not isinstance(weights, Constant):
        return make.mixed_pixels(image, weights)
    if isinstance(image, Global):
        return image.mix()
    make.biased |= len(inputs) > 2 and inputs[2].shape != ()
    kernel = at.get("kernel_shape") or list(weights.shape[2:])
    alone = {1} == {*kernel, *(at.get("strides") or ())} and not any(at.get("pads") or ())
    if alone and at.get("group", 1) == 1:  # on tokens and blocks as well
        return make.pixelwise(image, 1, weights.shape[0], weights.get)
    image = make.flush(make.settle(image))
    rows, sizes, _ = _rows(make, image, at, kernel)
    full = [(i, k, s, 1, d, p) for i, k, s, d, p in rows]
    group, out = at.get("group", 1), weights.shape[0]
    found = windows.slide(make, image, full, dict(enumerate(sizes, 2)), out, group, weights.get)
    return replace(found, dims=(found.dims[0], plain(CHANNEL, out), *found.dims[2:]))


def conv_transpose(make, at, inputs):
    image, weights = inputs[:2]
    if isinstance(image, Global):
        return image.mix()
    image = make.flush(make.settle(image))
    make.biased |= len(inputs) > 2 and inputs[2].shape != ()
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
            half = max(0, total) // 2  # a kernel shorter than the stride leaves nothing to cut
            low = half if auto == "SAME_UPPER" else max(0, total) - half
            size = size if wanted else size + min(0, total)
            high = s * (m - 1) + e + span + 1 - size - low
        rows.append((i + 2, k, 1, s, d, (span - low, span - high + e)))
        sizes[i + 2] = size
    out = weights.shape[1] * group
    own = partial(_turned, weights, group)
    found = windows.slide(make, image, rows, sizes, out, group, own)
    dims = (found.dims[0], plain(CHANNEL, out), *found.dims[2:])
    return replace(found, dims=dims)


def _turned(weights: Constant, group: int) -> np.ndarray | None:
    """Weights (in, out / groups, *k) of a transposed convolution as those of the convolution."""
    known = weights.get()
    if known is None:
        return None
    inside, out, *kernel = known.shape
    grouped = known.reshape(group, inside // group, out, *kernel).swapaxes(1, 2)
    return np.flip(grouped.reshape(-1, inside // group, *kernel), tuple(range(2, known.ndim)))


def pool(operator: str, kind: str) -> Callable:
    def rule(make, at, inputs):
        image = inputs[0]
        if not isinstance(image, Pixels):
            return image
        image = make.flush(make.settle(image))
        rows, sizes, over = _rows(make, image, at, at["kernel_shape"])
        counted = operator != "AveragePool" or bool(at.get("count_include_pad", 0))
        if any(over):
            if counted and operator == "AveragePool" and any(any(r[-1]) for r in rows):
                # the mean counts the padding, but not what overhangs it
                config = [(0, 0, 0)] * 2 + [(*r[-1], 0) for r in rows]
                image = movement.padded(make, image, config)
                assert isinstance(image, Pixels)
                rows = [(*r[:-1], (0, 0)) for r in rows]
            counted = operator == "LpPool"
            rows = [(*r[:-1], (r[-1][0], r[-1][1] + o)) for r, o in zip(rows, over)]
        found = windows.pool(make, image, rows, (*image.shape[:2], *sizes), kind, counted)
        return [found, Constant(found.shape)]

    return rule


def _global_pool(make, at, inputs):
    value = inputs[0]
    if not isinstance(value, Pixels):
        return value
    return make.reduce(value, range(2, len(value.dims)), "mean", keep=True)


def _gemm(make, at, inputs):
    a, b = inputs[:2]
    numbers = (([0 if at.get("transA") else 1], [1 if at.get("transB") else 0]), ([], []))
    return windows.contracted(make, a, b, numbers, ())


def matmul(make, at, inputs):
    a, b = inputs
    if isinstance(a, Global) or isinstance(b, Global):
        return make.mixed_pixels(a, b)
    rank = max(len(a.shape), len(b.shape))
    if isinstance(a, Pixels) and isinstance(b, Pixels):
        a, b = ranked(a, rank), ranked(b, rank)
        batch = list(range(rank - 2))
        return windows.contracted(make, a, b, (([rank - 1], [rank - 2]), (batch, batch)), ())
    if isinstance(a, Pixels):
        if len(b.shape) != 2:
            raise Unreadable("a product with a stack of matrices")
        numbers = (([len(a.dims) - 1], [0]), ([], []))
        return windows.contracted(make, a, b, numbers, ())
    if len(a.shape) != 2:
        raise Unreadable("a product with a stack of matrices")
    found = windows.contracted(make, a, b, (([1], [len(b.dims) - 2]), ([], [])), ())
    if not isinstance(found, Pixels):
        return found
    first, *heads, last = found.dims
    return replace(found, dims=(*heads, first, last))


def einsum(make, at, inputs):
    """A sum of products of two values: a contraction, then a transposition."""
    terms, _, out = at["equation"].replace(" ", "").partition("->")
    labels = terms.split(",")
    plainly = all(len(set(t)) == len(t) == len(v.shape) for t, v in zip(labels, inputs))
    if len(labels) != 2 or not out or not plainly:  # diagonals, ellipses, more than two
        raise Unreadable(f"the sum {at['equation']!r}")
    a, b = labels
    batch = [c for c in a if c in b and c in out]
    summed = [c for c in a if c in b and c not in out]
    order = [*batch, *(c for c in a if c not in b), *(c for c in b if c not in a)]
    if set(order) != set(out):
        raise Unreadable(f"the sum {at['equation']!r}")
    sizes = {c: n for t, v in zip(labels, inputs) for c, n in zip(t, v.shape)}
    numbers = tuple(tuple([t.index(c) for c in part] for t in labels) for part in (summed, batch))
    shape = [sizes[c] for c in order]
    found = windows.contracted(make, inputs[0], inputs[1], numbers, shape)
    return movement.transposed(make, found, [order.index(c) for c in out])


def softmax(make, at, inputs):
    value = inputs[0]
    if isinstance(value, Pixels) and spatial(value.dims[at.get("axis", -1)]):
        return make.mixed_pixels(value)
    return make.pointwise(value, "other")


def along(kind, make, at, inputs):
    value = inputs[0]
    axis = at.get("axis", -1)
    if kind == "CumSum":
        axis = int(known(inputs[1], "axis").ravel()[0])
    if isinstance(value, Pixels):
        if spatial(value.dims[axis]):
            if kind == "CumSum":
                way = "backward" if at.get("reverse") else "forward"
                return make.running(value, axis % len(value.dims), way)
            raise Unreadable("an operator that runs along the whole image")
        if kind == "TopK":
            count = int(known(inputs[1], "k").ravel()[0])
            dims = list(value.dims)
            dims[axis] = plain(CHANNEL, count)
            value = make.select(value, tuple(dims))
    return make.pointwise(value, "other")


def described(make: Assembler, pixels: Pixels, rule: Network) -> Pixels:
    """A network that a user gave as the rule of an operator; sizes follow its stride."""
    builder = Builder(make.ndim)
    builder.nodes = make.nodes
    node = rule.lower(builder, pixels.node, make.scope)
    rates = Chain(rule, ndim=make.ndim).graph.rate
    sizes = [max(1, int(pixels.size(a) / rates[a])) for a in range(make.ndim)]
    return Pixels(node, make.resized(pixels.dims, sizes))


# further operators of each pixel alone
ALONE = ("Neg", "LeakyRelu", "Elu", "PRelu", "Clip", "BatchNormalization")
RECURRENT = ("LSTM", "GRU", "RNN")
RULES: dict[str, Callable] = {
    **MOVEMENT,
    **NORMS,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MaxPool": pool("MaxPool", "max"),
    "AveragePool": pool("AveragePool", "mean"),
    "LpPool": pool("LpPool", "mean"),
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "GlobalLpPool": _global_pool,
    "Gemm": _gemm,
    "MatMul": matmul,
    "Einsum": einsum,
    "Softmax": softmax,
    "LogSoftmax": softmax,
    "Clip": _clip,
    "Reciprocal": lambda make, at, inputs: make.inverted(inputs[0]),
    **dict.fromkeys(RECURRENT, recurrent.operator),
    "CumSum": partial(along, "CumSum"),
    "TopK": partial(along, "TopK"),
}
