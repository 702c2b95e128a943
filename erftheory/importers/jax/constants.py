"""Results of equations that do not depend on the image, computed only when a rule asks for them.

The few operations that models put on their parameters run in NumPy; the rest in JAX, one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from erftheory.importers.values.constants import LARGEST, lazy, root_of
from erftheory.importers.values.pixels import Constant


def computed(eqn: Any, inputs: Sequence[Any]) -> list[Constant]:
    """The results of an equation whose inputs do not depend on the image."""
    if len(eqn.outvars) == 1:
        return [_Computed(eqn, inputs)]
    results = _Results(eqn, inputs)
    return [lazy(v.aval.shape, partial(results.pick, i)) for i, v in enumerate(eqn.outvars)]


class _Computed(Constant):
    """The one result of an equation. Two thirds of a model's equations are such: one object each
    keeps the reader, and Python's collector, short."""

    __slots__ = ("_eqn", "_inputs")

    def __init__(self, eqn: Any, inputs: Sequence[Constant]):
        self.shape = eqn.outvars[0].aval.shape
        self.root, self.entries = _rooted(eqn, inputs, self.shape)
        self._compute = self._value = None
        self._eqn, self._inputs = eqn, inputs

    def get(self) -> np.ndarray | None:
        if self._eqn is not None:
            eqn, inputs = self._eqn, self._inputs
            self._eqn, self._inputs = None, ()
            if math.prod(self.shape) <= LARGEST:
                values = [c.get() for c in inputs]
                if all(v is not None for v in values):
                    self._value = _evaluate(eqn, values)[0]
        return self._value


# what keeps a factor of a normalisation one, and (all but the last) entries as they are
_PASSED = frozenset((
    "mul", "convert_element_type", "copy", "max", "min", "add", "sub", "div", "reshape", "squeeze",
    "expand_dims", "broadcast_in_dim",
))  # fmt: skip


def _rooted(eqn: Any, inputs: Sequence[Constant], shape: tuple[int, ...]) -> tuple[str, int]:
    """`root` and `entries` of an equation's result."""
    name, params = eqn.primitive.name, eqn.params
    plainly = math.prod(shape) if shape else 0
    if name in _PASSED:
        root = root_of("div" if name == "div" else "kept", inputs)
        return root, min(plainly, max(c.entries for c in inputs))
    if name in ("sqrt", "rsqrt"):
        return root_of(name, inputs), inputs[0].entries
    if name == "integer_pow" and params["y"] == -1 and inputs[0].root == "sqrt":
        return "rsqrt", inputs[0].entries
    if name == "pow" and inputs[0].entries and not inputs[1].entries:
        known = inputs[1].get()
        power = None if known is None else float(np.ravel(known)[0])
        return root_of(name, inputs, power), inputs[0].entries
    return "", plainly


class _Results:
    """The results of one equation, computed together when the first of them is asked for."""

    __slots__ = ("eqn", "inputs", "done", "found")

    def __init__(self, eqn: Any, inputs: Sequence[Constant]):
        self.eqn, self.inputs = eqn, inputs
        self.done = False
        self.found: list[np.ndarray] | None = None

    def pick(self, index: int) -> np.ndarray | None:
        if not self.done:
            self.done = True
            values = [c.get() for c in self.inputs]
            if all(v is not None for v in values):
                self.found = _evaluate(self.eqn, values)
        return None if self.found is None else self.found[index]


_NUMPY: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative,
    "sqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x), "max": np.maximum, "min": np.minimum,
    "exp": np.exp, "abs": np.abs, "square": np.square, "copy": np.asarray,
}  # fmt: skip


def _evaluate(eqn: Any, values: list[Any]) -> list[np.ndarray]:
    name, params = eqn.primitive.name, eqn.params
    if name in _NUMPY:
        return [np.asarray(_NUMPY[name](*values))]
    if name == "reshape":
        return [np.reshape(values[0], params["new_sizes"])]
    if name == "convert_element_type":
        return [np.asarray(values[0]).astype(params["new_dtype"])]
    if name == "broadcast_in_dim":
        shape = [1] * len(params["shape"])
        for n, d in zip(values[0].shape, params["broadcast_dimensions"]):
            shape[d] = n
        return [np.broadcast_to(values[0].reshape(shape), params["shape"])]
    import jax
    from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

    inner = next((p for p in params.values() if isinstance(p, ClosedJaxpr)), None)
    with jax.ensure_compile_time_eval():
        if inner is not None and len(inner.jaxpr.invars) == len(values):
            found = jaxpr_as_fun(inner)(*values)
        else:
            found = eqn.primitive.bind(*values, **params)
    listed = found if isinstance(found, (list, tuple)) else [found]
    return [np.asarray(v) for v in listed]
