"""Rules for equations of a jaxpr, by primitive; what moves or slides has files of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from erftheory.importers.building.assemble import Assembler
from erftheory.importers.building.elementwise import binary, clipped, selected
from erftheory.importers.building.operation import Operation, read
from erftheory.importers.jax import movement, windows
from erftheory.importers.values.pixels import Pixels, Value
from erftheory.importers.values.refusals import WHOLE, Unreadable

LINEAR = frozenset((
    "convert_element_type", "copy", "copy_p", "stop_gradient", "real", "reduce_precision",
    "device_put", "sharding_constraint", "name", "pvary", "optimization_barrier",
))  # fmt: skip
CURVES = {
    "tanh": "tanh", "logistic": "sigmoid", "abs": "abs", "erf": "erf", "erfc": "erf",
    "sqrt": "sqrt", "rsqrt": "rsqrt",
}  # fmt: skip
OTHER = frozenset((
    "exp", "exp2", "log", "log1p", "expm1", "sin", "cos", "tan", "asin", "acos", "atan", "sinh",
    "cosh", "asinh", "acosh", "atanh", "floor", "ceil", "round", "sign", "is_finite", "not",
    "square", "cbrt", "erf_inv", "lgamma", "digamma", "imag", "conj", "population_count", "clz",
))  # fmt: skip
BINARY = {
    "add": "add", "add_any": "add", "sub": "sub", "mul": "mul", "div": "div", "max": "max",
    "min": "min", "pow": "pow",
    **dict.fromkeys((
        "atan2", "rem", "nextafter", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor",
        "shift_left", "shift_right_logical", "shift_right_arithmetic", "complex",
    ), "other"),
}  # fmt: skip
REDUCTIONS = {
    "reduce_sum": "sum", "reduce_max": "max", "reduce_min": "max", "reduce_prod": "sum",
    "reduce_and": "max", "reduce_or": "max", "reduce_xor": "max", "argmax": "max",
    "argmin": "max",
}  # fmt: skip
ALONG = ("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
PARTS = {"concatenate": "concat", "slice": "cut", "split": "cut"}
RULES = {**movement.RULES, **windows.RULES}


def moves(name: str) -> bool:
    """Whether an operation is one of those that every model has."""
    return name in RULES or name in BINARY


def apply(make: Assembler, eqn: Any, inputs: Sequence[Value], search: bool) -> Any:
    """The value (or list of values) of an equation; `search` as in `Reader`.

    Raises:
      Unreadable: no rule for it, or none for these arguments.
    """
    name = eqn.primitive.name
    kind = "linear" if name in LINEAR else "reduce" if name in REDUCTIONS else PARTS.get(name, "")
    alone = (
        name in LINEAR or name in CURVES or name in OTHER or name in BINARY
        or name in ("neg", "clamp") or (name == "conv_general_dilated" and _one_tap(eqn))
    )  # fmt: skip

    def run(values: Sequence[Value], shape: Any) -> Any:
        return _operation(make, _shaped(eqn, shape), values, search)

    out = [tuple(v.aval.shape) for v in eqn.outvars]
    return read(make, Operation(BINARY.get(name, kind), alone, inputs, run), out[0])


def _one_tap(eqn: Any) -> bool:
    shape, spec = eqn.invars[1].aval.shape, eqn.params["dimension_numbers"].rhs_spec
    return math.prod(shape[d] for d in spec[2:]) == 1


def _shaped(eqn: Any, shape: tuple[int, ...]) -> Any:
    """An equation whose result has a shape: one of several maps that are listed."""
    if shape == tuple(eqn.outvars[0].aval.shape):
        return eqn
    out = SimpleNamespace(aval=SimpleNamespace(shape=shape))
    return SimpleNamespace(
        primitive=eqn.primitive, params=eqn.params, invars=eqn.invars, outvars=[out]
    )


def _operation(make: Assembler, eqn: Any, inputs: Sequence[Value], search: bool) -> Any:
    name, params = eqn.primitive.name, eqn.params
    if name == "neg":
        return make.negated(inputs[0])
    if name in LINEAR:
        return [make.pointwise(v, "linear") for v in inputs]
    if name in CURVES:
        return make.pointwise(inputs[0], CURVES[name])
    if name in OTHER:
        return make.pointwise(inputs[0], "other")
    if name == "integer_pow":
        return make.inverted(inputs[0]) if params["y"] < 0 else make.pointwise(inputs[0], "other")
    if name in BINARY:
        return binary(make, BINARY[name], inputs)
    if name == "clamp":
        low, value, high = inputs
        return clipped(make, value, low, high)
    if name == "select_n":
        return selected(make, inputs[0], inputs[1:])
    if name in REDUCTIONS:
        return make.reduce(inputs[0], params["axes"], REDUCTIONS[name])
    if name in ALONG or name == "sort":
        return _along(make, name, params, inputs)
    if name not in RULES:
        raise Unreadable("an operation without a rule")
    return RULES[name](make, eqn, inputs, search)


def _along(make: Assembler, name: str, params: Any, inputs: Sequence[Value]) -> list[Value]:
    axis = params.get("axis", params.get("dimension"))
    for value in inputs:
        if isinstance(value, Pixels) and any(a.axis >= 0 for a in value.dims[axis]):
            if name in ALONG:
                way = "backward" if params.get("reverse") else "forward"
                return [make.running(value, axis, way)]
            raise Unreadable(WHOLE)
    return [make.pointwise(v, "other") for v in inputs]
