"""Values that do not depend on the image, computed only when a rule asks for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from erftheory.importers.values.pixels import Constant
from erftheory.importers.values.refusals import Unreadable

LARGEST = 1 << 25  # entries up to which a value is worth computing


def given(value: Any) -> Constant:
    """A constant that came with the model, if it is an array and not a mere shape."""
    shape = tuple(getattr(value, "shape", ()))
    if hasattr(value, "shape") and not hasattr(value, "__array__"):
        return Constant(shape)
    return Constant(shape, partial(np.asarray, value))


def root_of(kind: str, inputs: Sequence[Constant], power: float | None = None) -> str:
    """`Constant.root` of the result of "sqrt", "rsqrt", "reciprocal", "div", "pow" to some power,
    and of operations through which a factor of a normalisation stays one ("kept")."""
    if not inputs:
        return ""
    first, *more = (c.root for c in inputs)
    if kind in ("sqrt", "rsqrt"):
        return kind if inputs[0].entries else ""
    if kind == "reciprocal":
        return "rsqrt" if first == "sqrt" else ""
    if kind == "pow":
        return {0.5: "sqrt", -0.5: "rsqrt"}.get(power or 0.0, "") if inputs[0].entries else ""
    if kind == "div" and not first and "sqrt" in more:
        return "rsqrt"
    return next(filter(None, (first, *more)), "") if kind in ("kept", "div") else ""


def known(value: Any, name: str) -> np.ndarray:
    """What a value is.

    Raises:
      Unreadable: it depends on the image, or cannot be computed.
    """
    found = value.get() if isinstance(value, Constant) else None
    if found is None:
        raise Unreadable(f"{name} that depend on the image")
    return np.asarray(found)


def lazy(shape: tuple[int, ...], compute: Callable[[], np.ndarray | None]) -> Constant:
    return Constant(shape, compute if math.prod(shape) <= LARGEST else None)














