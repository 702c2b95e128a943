"""Rules for ONNX operators, in the form of today's opset (`opsets`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from erftheory.importers.building.assemble import Assembler
from erftheory.importers.building.elementwise import binary, clipped, selected
from erftheory.importers.building.layers import Window, conv, pooled, transposed
from erftheory.importers.building.movement import largest
from erftheory.importers.building.operation import Operation, of_pixels, read
from erftheory.importers.building.products import contracted, einsum, matmul, softmax
from erftheory.importers.onnx import recurrent
from erftheory.importers.onnx.movement import MOVEMENT, axes_of
from erftheory.importers.onnx.norms import NORMS
from erftheory.importers.onnx.opsets import LEFT_OUT, REDUCTIONS
from erftheory.importers.values.constants import known
from erftheory.importers.values.dimensions import spatial
from erftheory.importers.values.pixels import Constant, Partial, Pixels, Value
from erftheory.importers.values.refusals import Unreadable
from erftheory.network.kernel import line_span

CURVES = {
    "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Swish": "silu", "Abs": "abs",
    "Erf": "erf", "Sqrt": "sqrt", "HardSwish": "silu", "HardSigmoid": "sigmoid",
}  # fmt: skip
LINEAR = frozenset((
    "Identity", "Dropout", "Cast", "CastLike", "QuantizeLinear", "DequantizeLinear",
    "Bernoulli",
))  # fmt: skip
OTHER = frozenset((
    "Selu", "Celu", "Softplus", "Softsign", "Mish", "ThresholdedRelu", "Exp", "Log", "Sin",
    "Cos", "Tan", "Floor", "Ceil", "Round", "Sign", "Not", "IsNaN", "IsInf", "Shrink", "LRN",
    "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh",
))  # fmt: skip
BINARY = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Sum": "add", "Mean": "add",
    "Max": "max", "Min": "min", "Pow": "pow",
    **dict.fromkeys((
        "Mod", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "And", "Or", "Xor",
    ), "other"),
}  # fmt: skip
# further operators of each pixel alone
ALONE = frozenset((
    "Neg", "Gelu", "LeakyRelu", "Elu", "PRelu", "Clip", "BatchNormalization", "Where",
))  # fmt: skip
PARTS = {"Concat": "concat", "Split": "cut", "Slice": "cut"}


def apply(make: Assembler, kind: str, at: dict[str, Any], inputs: Sequence[Value]) -> Any:
    """The value (or list of values) of an operator.

    Raises:
      Unreadable: no rule for it, or none for these arguments.
    """
    sort = "linear" if kind in LINEAR else "reduce" if kind in REDUCTIONS else PARTS.get(kind, "")
    alone = (
        kind in LINEAR or kind in CURVES or kind in OTHER or kind in BINARY or kind in ALONE
        or (kind == "Conv" and set(inputs[1].shape[2:]) <= {1})
    )  # fmt: skip
    run = lambda values, _: _operator(make, kind, at, values)  # noqa: E731
    return read(make, Operation(BINARY.get(kind, sort), alone, inputs, run), ())


def _operator(make: Assembler, kind: str, at: dict[str, Any], inputs: Sequence[Value]) -> Any:
    if kind in LINEAR:
        return make.pointwise(inputs[0], "linear")
    if kind in CURVES:
        if kind.startswith("Hard"):
            make.note(f"{kind} taken as {CURVES[kind]}", inputs[0])
        return make.pointwise(inputs[0], CURVES[kind])
    if kind in OTHER:
        return make.pointwise(inputs[0], "other")
    if kind in BINARY:
        return binary(make, BINARY[kind], inputs)
    if kind in REDUCTIONS:
        return _reduce(make, kind, at, inputs)
    rule: Callable | None = RULES.get(kind)
    if rule is None:
        raise Unreadable("an operator without a rule")
    return rule(make, at, inputs)


# ---- of each entry ------------------------------------------------------------------------------


def _gelu(make, at, inputs):
    return make.pointwise(inputs[0], "gelu_tanh" if at.get("approximate") == "tanh" else "gelu")


def _elu(make, at, inputs):
    return make.pointwise(inputs[0], "elu" if at.get("alpha", 1.0) == 1 else "other")


def _prelu(make, at, inputs):
    return make.leaky(inputs[0], inputs[1] if isinstance(inputs[1], Constant) else None)


def _clip(make, at, inputs):
    return clipped(make, *[*inputs, LEFT_OUT, LEFT_OUT][:3])


# ---- along dimensions ---------------------------------------------------------------------------


def _reduce(make: Assembler, kind: str, at: dict, inputs: Sequence[Value]) -> Value:
    value = inputs[0]
    if not isinstance(value, Pixels | Partial):
        return value
    axes = axes_of(inputs, 1, len(value.dims))
    return make.reduce(value, axes, REDUCTIONS[kind], keep=bool(at.get("keepdims", 1)))


@of_pixels
def _global_pool(make, at, inputs):
    value = inputs[0]
    return make.reduce(value, range(2, len(value.dims)), "mean", keep=True)


def _running_sum(make, at, inputs):
    value, axis = inputs[0], int(known(inputs[1], "axis").ravel()[0])
    if not isinstance(value, Pixels) or not spatial(value.dims[axis]):
        return make.pointwise(value, "other")
    way = "backward" if at.get("reverse") else "forward"
    return make.running(value, axis % len(value.dims), way)


def _top(make, at, inputs):
    return largest(make, inputs[0], at.get("axis", -1), int(known(inputs[1], "k").ravel()[0]))


# ---- windows ------------------------------------------------------------------------------------


def _window(at: dict, kernel: Sequence[int], shape: Sequence[int]) -> Window:
    """The window of a convolution or pooling of an image of a shape."""
    n = len(kernel)
    stride, dilation = at.get("strides") or [1] * n, at.get("dilations") or [1] * n
    auto = at.get("auto_pad", "NOTSET")
    flat = (at.get("pads") if auto == "NOTSET" else None) or [0] * 2 * n
    pads = list(zip(flat[:n], flat[n:]))
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = []
        for m, k, s, d in zip(shape[2:], kernel, stride, dilation):
            total = max(0, (-(-m // s) - 1) * s + line_span(k, d) + 1 - m)
            half = total // 2 if auto == "SAME_UPPER" else -(-total // 2)
            pads.append((half, total - half))
    return Window(kernel, stride, dilation, pads, bool(at.get("ceil_mode")))


def _conv(make, at, inputs):
    image, weights = inputs[:2]
    make.biased |= len(inputs) > 2 and inputs[2] is not LEFT_OUT
    window = _window(at, weights.shape[2:], image.shape)
    return conv(make, image, weights, window, at.get("group", 1))


def _conv_transpose(make, at, inputs):
    image, weights = inputs[:2]
    make.biased |= len(inputs) > 2 and inputs[2] is not LEFT_OUT
    window = _window({**at, "auto_pad": "NOTSET"}, weights.shape[2:], image.shape)
    n = len(window.kernel)
    extra, wanted = at.get("output_padding") or [0] * n, at.get("output_shape")
    auto, pads = at.get("auto_pad", "NOTSET"), []
    if wanted or auto.startswith("SAME"):
        for i, (m, k, s, d, _) in enumerate(zip(image.shape[2:], *window[:4])):
            size = wanted[-n:][i] if wanted else m * s
            total = s * (m - 1) + extra[i] + line_span(k, d) + 1 - size
            half = max(0, total) // 2  # a kernel shorter than the stride leaves nothing to cut
            low = half if auto == "SAME_UPPER" else max(0, total) - half
            pads.append((low, (total if wanted else max(0, total)) - low))
        window = window._replace(pads=pads)
    return transposed(make, image, weights, window, extra, at.get("group", 1))


def _pool(kind: str) -> Callable:
    def rule(make, at, inputs):
        image = inputs[0]
        window = _window(at, at["kernel_shape"], image.shape)
        found = pooled(make, image, window, kind, bool(at.get("count_include_pad", 0)))
        return [found, Constant(found.shape)]

    return rule


# ---- products -----------------------------------------------------------------------------------


def _gemm(make, at, inputs):
    a, b = inputs[:2]
    numbers = (([0 if at.get("transA") else 1], [1 if at.get("transB") else 0]), ([], []))
    return contracted(make, a, b, numbers, ())


RECURRENT = ("LSTM", "GRU", "RNN")
RULES: dict[str, Callable] = {
    **MOVEMENT,
    **NORMS,
    "Neg": lambda make, at, inputs: make.negated(inputs[0]),
    "Reciprocal": lambda make, at, inputs: make.inverted(inputs[0]),
    "Gelu": _gelu,
    "LeakyRelu": lambda make, at, inputs: make.leaky(inputs[0], at.get("alpha", 0.01)),
    "Elu": _elu,
    "PRelu": _prelu,
    "Clip": _clip,
    "Where": lambda make, at, inputs: selected(make, inputs[0], inputs[1:]),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _pool("max"),
    "AveragePool": _pool("mean"),
    "LpPool": _pool("norm"),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), _global_pool),
    "Gemm": _gemm,
    "MatMul": lambda make, at, inputs: matmul(make, *inputs),
    "Einsum": lambda make, at, inputs: einsum(make, at["equation"], inputs),
    **dict.fromkeys(
        ("Softmax", "LogSoftmax"), lambda make, at, inputs: softmax(make, inputs[0], at["axes"])
    ),
    "CumSum": _running_sum,
    "TopK": _top,
    **dict.fromkeys(RECURRENT, recurrent.operator),
}
