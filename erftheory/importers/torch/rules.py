"""ATen operations that act on each pixel, reduce, multiply matrices or normalise.

A rule takes the `Assembler`, the shape of the result (a list of them for several) and the
operation's own arguments, positional in the order of ATen's schema.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from erftheory.importers.build import windows
from erftheory.importers.build.assemble import Assembler
from erftheory.importers.onnx import rules as onnx_rules
from erftheory.importers.onnx.norms import layer_norm
from erftheory.importers.torch import movement
from erftheory.importers.torch import windows as sliding
from erftheory.importers.torch.values import listed, mapped, pixels, value
from erftheory.importers.values.dimensions import CHANNEL, plain, spatial
from erftheory.importers.values.pixels import Constant, Global, Listed, Partial, Pixels, Value
from erftheory.importers.values.refusals import BESIDE, Unreadable
from erftheory.network.layers import (
    BatchNorm,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    RMSNorm,
)

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
    "add": "Add", "sub": "Sub", "subtract": "Sub", "mul": "Mul", "multiply": "Mul", "div": "Div",
    "divide": "Div", "true_divide": "Div", "maximum": "Max", "minimum": "Min", "max.other": "Max",
    "min.other": "Min", "pow": "Pow", "remainder": "Mod", "fmod": "Mod", "floor_divide": "Mod",
    "eq": "Equal", "ne": "Equal", "lt": "Less", "gt": "Greater", "le": "Less", "ge": "Greater",
    "logical_and": "And", "logical_or": "Or", "logical_xor": "Xor", "bitwise_and": "And",
    "bitwise_or": "Or", "atan2": "Mod", "float_power": "Pow", "__and__": "And", "__or__": "Or",
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
    first: Any = args[0] if args else None
    if any(isinstance(v, Partial) for v in pixels((args, kwargs))):
        found = _going_on(make, name, out, args, kwargs)
        if found is not None:
            return found
        args, kwargs = mapped(make.opened, args), mapped(make.opened, kwargs)
        first = args[0] if args else None
    if any(isinstance(v, Listed) for v in pixels((args, kwargs))):
        return _of_listed(make, name, full, out, args, kwargs)
    if name in LINEAR:
        return make.pointwise(first, "linear")
    if name in CURVES:
        if name in NEARLY:
            make.note(f"{name} taken as {CURVES[name]}", first)
        return make.pointwise(first, CURVES[name])
    if name in OTHER:
        return make.pointwise(first, "other")
    kind = BINARY.get(full) or BINARY.get(name)
    if kind is not None:
        return _binary(make, kind, *args, **kwargs)
    if name in REDUCTIONS:
        return _reduced(make, name, out, *args, **kwargs)
    rule = RULES.get(name)
    if rule is None:
        raise Unreadable("an operation without a rule")
    return rule(make, out, *args, **kwargs)


def _going_on(make: Assembler, name: str, out: Any, args: Any, kwargs: dict) -> Any:
    """A reduction over some axes goes on over the others, or is scaled; else None."""
    (found, *more) = pixels((args, kwargs))
    if name in REDUCTIONS and not more:
        return _reduced(make, name, out, *args, **kwargs)
    scaled = name in ("mul", "div") and found is args[0] and not more
    if name in ("sub", "div") and any(isinstance(v, Pixels) for v in (found, *more)):
        return _binary(make, BINARY[name], *args, **kwargs)  # a statistic
    return found if name in LINEAR or scaled else None


def _of_listed(make: Assembler, name: str, full: str, out: Any, args: Any, kwargs: dict) -> Any:
    """Different pixels one behind the other: what acts on each alone, or cuts them apart."""
    x, *rest = args
    if not isinstance(x, Listed) or len(pixels((args, kwargs))) > 1:
        if name in ("cat", "concat", "concatenate"):
            return movement.RULES[name](make, out, *args, **kwargs)
        raise Unreadable(BESIDE)
    if name in CUTS:
        return movement.RULES[name](make, out, x, *rest, **kwargs)
    alone = (
        name in LINEAR or name in CURVES or name in OTHER or name in ALONE
        or (BINARY.get(full) or BINARY.get(name))
        or (name.startswith("conv") and math.prod(args[1].shape[2:]) == 1)
    )  # fmt: skip
    if not alone or isinstance(out, list):
        raise Unreadable(BESIDE)
    return x.mapped(lambda v, shape: apply(make, name, full, shape, (v, *rest), kwargs), out)


def _binary(make, kind, a, b, *more, alpha=1, **_):
    a, b = value(a), value(b)
    if alpha != 1 and not isinstance(b, Constant):
        b = make.scaled(b, Constant((), lambda: np.asarray(alpha)))
    return onnx_rules.binary(make, kind, [a, b])


def _backwards(make, out, a, b, alpha=1):
    return _binary(make, "Sub", b, a)


def _fused(kind: str) -> Callable:
    def rule(make, out, x, a, b, value=1):
        found = onnx_rules.binary(make, kind, [_value(a), _value(b)])
        return _binary(make, "Add", x, found)

    return rule


_value = value  # where an argument of ATen has that name


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
    x = value(x)
    if isinstance(x, Global) or (isinstance(x, Pixels) and x.tag in ("stat", "sstat")):
        return x
    if isinstance(low, Constant):
        known = low.get()
        low = None if known is None or known.size != 1 else float(known.ravel()[0])
    if low is None and isinstance(x, Pixels) and x.tag == "relu":
        return x
    return make.pointwise(x, "relu" if low == 0 else "other")


def _leaky(make, out, x, slope=0.01):
    return make.leaky(x, slope)


def _elu(make, out, x, alpha=1, scale=1, input_scale=1):
    return make.pointwise(x, "elu" if alpha == scale == input_scale == 1 else "other")


def _random_leaky(make, out, x, low=1 / 8, high=1 / 3, *more):
    return make.leaky(x, (low + high) / 2)  # in evaluation mode


def _gelu(make, out, x, *, approximate="none"):
    return make.pointwise(x, "gelu_tanh" if approximate == "tanh" else "gelu")


def _gated(make, out, x, axis=-1):
    """Half of the channels times the sigmoid of the others."""
    if not isinstance(x, Pixels):
        return x
    axis %= len(x.dims)
    half = x.shape[axis] // 2
    a, b = (movement.cut(make, x, axis, i, i + half) for i in (0, half))
    return make.merge("mul", a, make.pointwise(b, "sigmoid"))


def _where(make, out, which, a=None, b=None):
    values = [value(v) for v in (which, a, b)]
    return onnx_rules.binary(make, "Where", values)


def _masked(make, out, x, mask, fill):
    return onnx_rules.binary(make, "Where", [value(mask), value(x), value(fill)])


def _softmax(make, out, x, axis, *more, **_):
    return onnx_rules.softmax(make, {"axis": axis}, [x])


def _running_sum(make, out, x, axis, **_):
    if not isinstance(x, Pixels) or not spatial(x.dims[axis]):
        return _along(make, out, x, axis)
    found = make.running(x, int(axis) % len(x.dims))
    return [found] * len(out) if isinstance(out, list) else found


def _along(make, out, x, *args, **kwargs):
    """Sorting: along channels each pixel is alone."""
    axis = args[0] if args and isinstance(args[0], int) else kwargs.get("dim", -1)
    if isinstance(x, Pixels) and spatial(x.dims[axis]):
        raise Unreadable("an operation that runs along the whole image")
    found = make.pointwise(x, "other")
    return [found] * len(out) if isinstance(out, list) else found


def _top(make, out, x, k, axis=-1, *more, **_):
    if not isinstance(x, Pixels):
        return [x, x]
    if spatial(x.dims[axis]):
        raise Unreadable("an operation that runs along the whole image")
    dims = list(x.dims)
    dims[axis] = plain(CHANNEL, k)
    return [make.pointwise(make.select(x, tuple(dims)), "other")] * 2


# ---- products -----------------------------------------------------------------------------------


def _linear(make, out, x, weight, bias=None):
    if not isinstance(x, Pixels) or not isinstance(weight, Constant):
        turned = movement.RULES["t"](make, weight.shape[::-1], weight) if not isinstance(
            weight, Constant) else weight  # fmt: skip
        return _product(make, out, x, turned)
    numbers = (([len(x.dims) - 1], [len(weight.shape) - 1]), ([], []))
    return windows.contracted(make, x, weight, numbers, out)


def _product(make, out, a, b):
    if isinstance(a, Constant) and isinstance(b, Global):
        return make.mixed_pixels(b)
    return onnx_rules.matmul(make, {}, [a, b])


def _added_product(make, out, bias, a, b, *, beta=1, alpha=1):
    return _binary(make, "Add", _product(make, out, a, b), bias)


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
    return onnx_rules.einsum(make, {"equation": f"{','.join(labels)}->{result}"}, list(operands))


def _attention(make, out, q, k, v, mask=None, dropout=0.0, is_causal=False, **more):
    if is_causal:
        make.note("causal attention, read as seeing what comes behind as well")
    if any(isinstance(x, Global) for x in (q, k, v)):
        return make.mixed_pixels(*(x for x in (q, k, v) if not isinstance(x, Constant)))
    r = len(out)
    batch = list(range(r - 2))
    scores = (*out[:-1], k.shape[-2])
    a = windows.contracted(make, q, k, (([r - 1], [r - 1]), (batch, batch)), scores)
    a = onnx_rules.softmax(make, {"axis": -1}, [a])
    return windows.contracted(make, a, v, (([r - 1], [r - 2]), (batch, batch)), out)


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


# ---- normalisations -----------------------------------------------------------------------------


def _batch_norm(make, out, x, weight, bias, mean, variance, training, momentum, eps, *more):
    found: Value
    factors = () if weight is None else (weight,)
    if mean is None or training:
        found = make.held_norm(x, BatchNorm(), factors)
    else:
        found = _running(make, x, weight, variance, eps)
    return [found] * len(out) if isinstance(out, list) else found


def _without_training(make, out, x, weight, bias, mean, variance, momentum, eps):
    return [_running(make, x, weight, variance, eps)] * len(out)


def _running(make, x, weight, variance, eps) -> Value:
    """Batch normalisation in evaluation mode."""
    def get():
        a, b = (1.0 if weight is None else weight.get()), variance.get()
        return None if a is None or b is None else a / np.sqrt(b + eps)

    return make.normalised(x, BatchNorm(), (Constant(variance.shape, get),), True)


def _instance_norm(make, out, x, weight, bias, mean, variance, by_input, momentum, eps, *more):
    if not by_input:
        return _running(make, x, weight, variance, eps)
    return make.held_norm(x, InstanceNorm(), () if weight is None else (weight,))


def _group_norm(make, out, x, groups, weight=None, bias=None, *more):
    return make.held_norm(x, GroupNorm(groups), () if weight is None else (weight,))


def _native_group_norm(make, out, x, weight, bias, n, c, pixels, groups, eps):
    return [_group_norm(make, out, x, groups, weight)] * len(out)


def _over_last(layer: Callable[[], Layer]) -> Callable:
    def rule(make, out, x, shape, weight=None, *more):
        make.normal = True
        if not isinstance(x, Pixels):
            return x
        factors = [] if weight is None else [weight]
        found = layer_norm(make, x, len(x.dims) - len(shape), layer(), factors)
        return [found] * len(out) if isinstance(out, list) else found

    return rule


# further operations of each pixel alone
ALONE = ("batch_norm", "leaky_relu", "prelu", "elu", "gelu", "clamp", "clip", "hardtanh")
CUTS = ("split", "split_with_sizes", "chunk", "slice", "narrow")
RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
RULES: dict[str, Callable] = {
    **movement.RULES,
    **sliding.RULES,
    "neg": lambda make, out, x: make.negated(x),
    "reciprocal": lambda make, out, x: make.inverted(x),
    "rsub": _backwards,
    "addcmul": _fused("Mul"),
    "addcdiv": _fused("Div"),
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
    "batch_norm": _batch_norm, "native_batch_norm": _batch_norm, "instance_norm": _instance_norm,
    "_native_batch_norm_legit_no_training": _without_training,
    "group_norm": _group_norm, "native_group_norm": _native_group_norm,
    "layer_norm": _over_last(LayerNorm), "native_layer_norm": _over_last(LayerNorm),
    "rms_norm": _over_last(RMSNorm), "_fused_rms_norm": _over_last(RMSNorm),
}  # fmt: skip
