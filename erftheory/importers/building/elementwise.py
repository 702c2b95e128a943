"""Operators on each entry of two or more values, and what a constant beside a value does to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from erftheory.importers.building.pointwise import Pointwise
from erftheory.importers.values.dimensions import CHANNEL, COPY, length, plain, spatial
from erftheory.importers.values.pixels import Constant, Global, Pixels, Value

JOINING = ("add", "sub", "mul", "div")


def binary(make: Pointwise, kind: str, values: Sequence[Value]) -> Value:
    """An operator between values: "add", "sub", "mul", "div", "max", "min", "pow" or "other"."""
    values = _broadcast(values)
    inside = [v for v in values if not isinstance(v, Constant)]
    if not inside:
        return Constant(np.broadcast_shapes(*(v.shape for v in values)))
    if len(inside) > 1:
        return make.merge(kind if kind in JOINING else "other", *inside)
    (value,), first = inside, not isinstance(values[0], Constant)
    other = next((v for v in values if isinstance(v, Constant)), Constant(()))
    if kind in ("add", "sub"):
        value = make.negated(value) if kind == "sub" and not first else value
        return make.pointwise(value, "linear")
    if kind == "mul" or (kind == "div" and first):
        return make.scaled(value, other, divide=kind == "div")
    if kind == "div":
        return make.inverted(value)
    if kind in ("max", "min") or (kind == "pow" and first):
        return make.pointwise(value, _against(kind, value, other))
    return make.pointwise(value, "other")


def selected(make: Pointwise, which: Value, cases: Sequence[Value]) -> Value:
    """Entries of the cases, as another value says which."""
    which, *cases = _broadcast([which, *cases])
    inside = [v for v in cases if not isinstance(v, Constant)]
    if isinstance(which, Constant):
        return inside[0] if len(inside) == 1 else make.merge("select", *inside)
    if isinstance(which, Global):
        return make.merge("mul", *inside, which) if inside else which
    value = make.merge("select", *inside) if inside else which
    if isinstance(value, Pixels) and isinstance(which, Pixels) and value.node == which.node:
        return make.pointwise(value, "other")
    return make.merge("other", value, which)


def clipped(make: Pointwise, value: Value, low: Value, high: Value) -> Value:
    """Between two bounds; one that is not there is a constant that is not known."""
    for kind, bound in (("max", low), ("min", high)):
        if not isinstance(bound, Constant):
            value = binary(make, kind, [value, bound])
    if _statistic(value):
        return value
    least = _number(low)
    if isinstance(value, Pixels) and value.tag == "relu" and (least is None or least <= 0):
        return value
    return make.pointwise(value, "relu" if least == 0 else "other")


def _number(value: Value) -> float | None:
    """The one number that a constant is, None where it is none or not known."""
    known = value.get() if isinstance(value, Constant) and math.prod(value.shape) == 1 else None
    return None if known is None or known.size != 1 else float(np.ravel(known)[0])


def ranked(value: Value, rank: int) -> Value:
    """NumPy's broadcasting: leading dimensions of size 1."""
    if isinstance(value, Pixels) and len(value.dims) < rank:
        return replace(value, dims=((),) * (rank - len(value.dims)) + value.dims)
    if isinstance(value, Constant) and 0 < len(value.shape) < rank:
        shape = (1,) * (rank - len(value.shape)) + value.shape

        def get() -> np.ndarray | None:
            found = value.get()
            return None if found is None else np.reshape(found, shape)

        return Constant(shape, get)
    return value


def _broadcast(values: Sequence[Value]) -> list[Value]:
    """Values of one rank, whose dimensions of size 1 the constants among them stretch."""
    rank = max((len(v.shape) for v in values if not isinstance(v, Global)), default=0)
    values = [ranked(v, rank) for v in values]
    for constant in [v for v in values if isinstance(v, Constant)]:
        values = [_widened(v, constant) for v in values]
    return values


def _widened(value: Value, other: Constant) -> Value:
    if not isinstance(value, Pixels) or len(other.shape) != len(value.dims):
        return value
    dims = tuple(
        plain(CHANNEL if not d else COPY, n) if n > 1 and length(d) == 1 and not spatial(d) else d
        for d, n in zip(value.dims, other.shape)
    )
    return value if dims == value.dims else replace(value, dims=dims)


def _against(kind: str, value: Value, constant: Constant) -> str:
    """What max, min or pow with a constant does to a value."""
    bound = _number(constant)
    if kind == "pow":
        return {0.5: "sqrt", -0.5: "rsqrt", 1.0: "linear"}.get(bound or 0.0, "other")
    if _statistic(value):
        return "linear"
    if kind == "max" and bound == 0:
        return "relu"
    kept = isinstance(value, Pixels) and value.tag == "relu" and kind == "min"
    return "linear" if kept else "other"


def _statistic(value: Value) -> bool:
    return isinstance(value, Global) or (
        isinstance(value, Pixels) and value.tag in ("stat", "sstat")
    )
