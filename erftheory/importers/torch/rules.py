"""ATen operations that act on each pixel, reduce, multiply matrices or normalise.

A rule takes the `Assembler`, the shape of the result (a list of them for several) and the
operation's own arguments, positional in the order of ATen's schema.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from erftheory.importers.building.assemble import Assembler
from erftheory.importers.building.elementwise import binary, clipped, selected
from erftheory.importers.building.movement import cut, largest
from erftheory.importers.building.operation import Operation, of_pixels, read
from erftheory.importers.building.products import contracted, einsum, matmul, softmax
from erftheory.importers.torch import movement
from erftheory.importers.torch import windows as sliding
from erftheory.importers.torch.norms import NORMS
from erftheory.importers.torch.values import flat, listed, pixels, refilled, value
from erftheory.importers.values.dimensions import CHANNEL, plain, spatial
from erftheory.importers.values.pixels import Constant, Global, Partial, Pixels
from erftheory.importers.values.refusals import WHOLE, Unreadable

# also of nothing but shapes: their results do not depend on the image
SHAPES = frozenset((
    "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "new_zeros",
    "new_ones", "new_full", "new_empty", "sym_size", "size", "numel",
))  # fmt: skip
LINEAR = frozenset((
    "clone", "contiguous", "detach", "alias", "lift_fresh_copy", "to", "_to_copy", "type_as",
    "dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout",
    "view_as_real", "real", "positive", "float", "requires_grad", "bernoulli",
))  # fmt: skip
CURVES = {
    "relu": "relu", "relu6": "relu", "sigmoid": "sigmoid", "tanh": "tanh", "silu": "silu",
    "abs": "abs", "erf": "erf", "erfc": "erf", "sqrt": "sqrt", "rsqrt": "rsqrt",
    "hardswish": "silu",
    "hardsigmoid": "sigmoid", "special_expit": "sigmoid",
}  # fmt: skip
NEARLY = ("hardswish", "hardsigmoid")
OTHER = frozenset((
    "selu", "celu", "softplus", "softsign", "mish", "threshold", "exp", "exp2", "expm1",
    "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh",
    "asinh", "acosh", "atanh", "floor", "ceil", "round", "trunc", "frac", "sign", "sgn", "square",
    "logical_not", "bitwise_not", "isnan", "isinf", "isfinite", "softshrink", "hardshrink",
    "tanhshrink", "log_sigmoid", "logit", "nan_to_num", "xlogy", "special_erf", "glu_jvp",
    "local_response_norm", "logsigmoid", "hardtanh_backward",
))  # fmt: skip
BINARY = {
    "add": "add", "sub": "sub", "subtract": "sub", "mul": "mul", "multiply": "mul", "div": "div",
    "divide": "div", "true_divide": "div", "maximum": "max", "minimum": "min", "max.other": "max",
    "min.other": "min", "pow": "pow", "float_power": "pow",
    **dict.fromkeys((
        "remainder", "fmod", "floor_divide", "eq", "ne", "lt", "gt", "le", "ge", "logical_and",
        "logical_or", "logical_xor", "bitwise_and", "bitwise_or", "atan2", "__and__", "__or__",
    ), "other"),
}  # fmt: skip
# how values go together, and whether a root of them follows
REDUCTIONS = {
    "mean": ("mean", ""), "sum": ("sum", ""), "nansum": ("sum", ""), "amax": ("max", ""),
    "amin": ("max", ""), "max": ("max", ""), "min": ("max", ""), "prod": ("sum", ""),
    "var": ("mean", ""), "std": ("mean", "sqrt"), "norm": ("mean", "sqrt"),
    "logsumexp": ("sum", ""), "any": ("max", ""), "all": ("max", ""), "argmax": ("max", ""),
    "argmin": ("max", ""), "linalg_vector_norm": ("mean", "sqrt"), "var_mean": ("mean", ""),
    "std_mean": ("mean", "sqrt"), "median": ("max", ""), "count_nonzero": ("sum", ""),
}  # fmt: skip


def moves(name: str) -> bool:
    """Whether an operation is one of those that every model has."""
    return name in movement.RULES or name in sliding.RULES or name in BINARY or name in LINEAR


def apply(make: Assembler, name: str, full: str, out: Any, args: Any, kwargs: dict) -> Any:
    """The value (or list of values) of an operation; `full` is its name with the overload.

    Raises:
      Unreadable: no rule for it, or none for these arguments.
    """
    operator = BINARY.get(full) or BINARY.get(name)
    kind = "linear" if name in LINEAR else "reduce" if name in REDUCTIONS else PARTS.get(name, "")
    alone = (
        name in LINEAR or name in CURVES or name in OTHER or name in ALONE or operator is not None
        or (name.startswith("conv") and set(args[1].shape[2:]) <= {1})
    )  # fmt: skip

    def run(values: Sequence[Any], shape: Any) -> Any:
        given, more = refilled((args, kwargs), iter(values))
        if operator is not None:
            return _binary(make, operator, *given, **more)
        return _operation(make, name, shape, given, more)

    return read(make, Operation(operator or kind, alone, flat((args, kwargs)), run), out)


def _operation(make: Assembler, name: str, out: Any, args: Any, kwargs: dict) -> Any:
    if name in LINEAR:
        return make.pointwise(args[0], "linear")
    if name in CURVES:
        if name in NEARLY:
            make.note(f"{name} taken as {CURVES[name]}", args[0])
        return make.pointwise(args[0], CURVES[name])
    if name in OTHER:
        return make.pointwise(args[0], "other")
    if name in REDUCTIONS:
        return _reduced(make, name, out, *args, **kwargs)
    rule = RULES.get(name)
    if rule is None:
        raise Unreadable("an operation without a rule")
    return rule(make, out, *args, **kwargs)


def _binary(make, kind, a, b, *more, alpha=1, **_):
    a, b = value(a), value(b)
    if alpha != 1 and not isinstance(b, Constant):
        b = make.scaled(b, Constant((), lambda: np.asarray(alpha)))
    return binary(make, kind, [a, b])


def _backwards(make, out, a, b, alpha=1):
    return _binary(make, "sub", b, a)


def _fused(kind: str) -> Callable:
    def rule(make, out, x, a, b, value=1):
        return _binary(make, "add", x, _binary(make, kind, a, b))

    return rule


def _reduced(make, name, out, x, *args, **kwargs):
    if not isinstance(x, Pixels | Partial):
        return [x] * len(out) if isinstance(out, list) else x
    args = list(args)
    if name in ("norm", "linalg_vector_norm") and args:
        args.pop(0)  # the order
    dims, rest = (args[0], args[1:]) if args else (kwargs.get("dim"), [])
    flags = [a for a in rest if isinstance(a, bool)]
    if isinstance(dims, bool):  # unbiased, of everything
        dims, flags = None, []
    keep = bool(kwargs.get("keepdim", flags[-1] if flags else False))
    how, curve = REDUCTIONS[name]
    found = make.reduce(x, listed(dims, len(x.dims)), how, keep)
    if isinstance(out, list):  # largest and where, or variance and mean
        return [make.pointwise(found, curve) if curve else found, found]
    return make.pointwise(found, curve) if curve else found


def _clamped(make, out, x, low=None, high=None):
    return clipped(make, value(x), value(low), value(high))


def _leaky(make, out, x, slope=0.01):
    return make.leaky(x, slope)


def _elu(make, out, x, alpha=1, scale=1, input_scale=1):
    return make.pointwise(x, "elu" if alpha == scale == input_scale == 1 else "other")


def _random_leaky(make, out, x, low=1 / 8, high=1 / 3, *more):
    return make.leaky(x, (low + high) / 2)  # in evaluation mode


def _gelu(make, out, x, *, approximate="none"):
    return make.pointwise(x, "gelu_tanh" if approximate == "tanh" else "gelu")


@of_pixels
def _gated(make, out, x, axis=-1):
    """Half of the channels times the sigmoid of the others."""
    axis %= len(x.dims)
    half = x.shape[axis] // 2
    a, b = (cut(make, x, axis, i, i + half) for i in (0, half))
    return make.merge("mul", a, make.pointwise(b, "sigmoid"))


def _where(make, out, which, *cases):
    return selected(make, value(which), [value(v) for v in cases])


def _masked(make, out, x, mask, fill):
    return selected(make, value(mask), [value(x), value(fill)])


def _softmax(make, out, x, axis, *more, **_):
    return softmax(make, x, [axis])


def _running_sum(make, out, x, axis, **_):
    if not isinstance(x, Pixels) or not spatial(x.dims[axis]):
        return _along(make, out, x, axis)
    found = make.running(x, int(axis) % len(x.dims))
    return [found] * len(out) if isinstance(out, list) else found


def _along(make, out, x, *args, **kwargs):
    """Sorting: along channels each pixel is alone."""
    axis = args[0] if args and isinstance(args[0], int) else kwargs.get("dim", -1)
    if isinstance(x, Pixels) and spatial(x.dims[axis]):
        raise Unreadable(WHOLE)
    found = make.pointwise(x, "other")
    return [found] * len(out) if isinstance(out, list) else found


def _top(make, out, x, k, axis=-1, *more, **_):
    return [largest(make, x, axis, k)] * 2


# ---- products -----------------------------------------------------------------------------------


def _linear(make, out, x, weight, bias=None):
    if not isinstance(x, Pixels) or not isinstance(weight, Constant):
        turned = movement.RULES["t"](make, weight.shape[::-1], weight) if not isinstance(
            weight, Constant) else weight  # fmt: skip
        return _product(make, out, x, turned)
    numbers = (([len(x.dims) - 1], [len(weight.shape) - 1]), ([], []))
    return contracted(make, x, weight, numbers, out)


def _product(make, out, a, b):
    if isinstance(a, Constant) and isinstance(b, Global):
        return make.mixed_pixels(b)
    return matmul(make, a, b)


def _added_product(make, out, bias, a, b, *, beta=1, alpha=1):
    return _binary(make, "add", _product(make, out, a, b), bias)


def _einsum(make, out, equation, operands, path=None):
    if any(isinstance(x, Global) for x in operands):
        return make.mixed_pixels(*pixels(operands))
    terms, _, result = equation.replace(" ", "").partition("->")
    free = [c for c in string.ascii_uppercase if c not in equation]
    labels = []
    for term, x in zip(terms.split(","), operands):
        count = len(x.shape) - len(term.replace("...", ""))
        labels.append(term.replace("...", "".join(free[:count][::-1])))
    widest = max((len(x.shape) - len(t.replace("...", "")) for t, x in zip(
        terms.split(","), operands)), default=0)  # fmt: skip
    result = result.replace("...", "".join(free[:widest][::-1]))
    return einsum(make, f"{','.join(labels)}->{result}", operands)


def _attention(make, out, q, k, v, mask=None, dropout=0.0, is_causal=False, **more):
    if is_causal:
        make.note("causal attention, read as seeing what comes behind as well")
    if any(isinstance(x, Global) for x in (q, k, v)):
        return make.mixed_pixels(*(x for x in (q, k, v) if not isinstance(x, Constant)))
    r = len(out)
    batch = list(range(r - 2))
    scores = (*out[:-1], k.shape[-2])
    a = contracted(make, q, k, (([r - 1], [r - 1]), (batch, batch)), scores)
    a = softmax(make, a, [-1])
    return contracted(make, a, v, (([r - 1], [r - 2]), (batch, batch)), out)


def _recurrent(make, out, x, states, params, biases, layers, dropout, train, both, first=False):
    """Along an axis of the image it looks back without end; in another dimension, such as
    channels, each pixel is alone."""
    if isinstance(x, Constant):
        raise Unreadable("a recurrence whose state alone depends on the image")
    if not isinstance(x, Pixels):
        return [x.mix()] * len(out)
    time = runs_along(x.shape, first)
    channels = plain(CHANNEL, out[0][-1])
    if not spatial(x.dims[time]):
        found = make.select(x, (*x.dims[:-1], channels))
        return [make.pointwise(found, "other")]
    return make.recurrence(x, time, len(x.dims) - 1, out[0][-1], "both" if both else "forward")


def runs_along(shape: Sequence[int], first: bool) -> int:
    """The dimension that a recurrence runs along; `first`: the batch is the first one."""
    return int(first) if len(shape) == 3 else 0


# further operations of each pixel alone
ALONE = ("batch_norm", "leaky_relu", "prelu", "elu", "gelu", "clamp", "clip", "hardtanh")
PARTS = {
    **dict.fromkeys(("cat", "concat", "concatenate"), "concat"),
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "slice", "narrow"), "cut"),
}
RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
RULES: dict[str, Callable] = {
    **movement.RULES,
    **sliding.RULES,
    **NORMS,
    "neg": lambda make, out, x: make.negated(x),
    "reciprocal": lambda make, out, x: make.inverted(x),
    "rsub": _backwards,
    "addcmul": _fused("mul"),
    "addcdiv": _fused("div"),
    "lerp": lambda make, out, a, b, weight: make.merge("add", *pixels((a, b))),
    "clamp": _clamped, "clip": _clamped, "clamp_min": _clamped,
    "clamp_max": lambda make, out, x, high: _clamped(make, out, x, None, high),
    "hardtanh": lambda make, out, x, low=-1, high=1: _clamped(make, out, x, low, high),
    "leaky_relu": _leaky, "prelu": _leaky, "rrelu": _random_leaky,
    "elu": _elu,
    "gelu": _gelu, "glu": _gated, "where": _where, "masked_fill": _masked,
    "softmax": _softmax, "_softmax": _softmax, "log_softmax": _softmax, "_log_softmax": _softmax,
    "softmin": _softmax, "cumsum": _running_sum, "cumprod": _running_sum, "cummax": _running_sum,
    "cummin": _running_sum, "logcumsumexp": _running_sum, "sort": _along, "argsort": _along,
    "topk": _top,
    "linear": _linear, "matmul": _product, "mm": _product, "bmm": _product,
    "addmm": _added_product, "baddbmm": _added_product, "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
    **dict.fromkeys(RECURRENT, _recurrent),
}  # fmt: skip
