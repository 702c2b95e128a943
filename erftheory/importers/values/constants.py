"""Values that do not depend on the image, computed only when a rule asks for them."""

from __future__ import annotations

import math
from collections.abc import Callable
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


def known(value: Any, name: str) -> np.ndarray:
    """What a value is.

    Raises:
      Unreadable: it depends on the image, or cannot be computed.
    """
    found = value.get() if isinstance(value, Constant) else None
    if found is None:
        raise Unreadable(f"{name} that depends on the image")
    return np.asarray(found)


def lazy(shape: tuple[int, ...], compute: Callable[[], np.ndarray | None]) -> Constant:
    return Constant(shape, compute if math.prod(shape) <= LARGEST else None)














