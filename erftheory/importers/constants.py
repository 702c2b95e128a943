"""Values that do not depend on the image, computed only when a rule asks for them.

The few operations that models put on their parameters run in NumPy; the rest in JAX, one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from erftheory.importers.signals import Constant

LARGEST = 1 << 22  # entries up to which a value is worth computing


def given(value: Any) -> Constant:
    """A constant that came with the model, if it is an array and not a mere shape."""
    shape = tuple(getattr(value, "shape", ()))
    if hasattr(value, "shape") and not hasattr(value, "__array__"):
        return Constant(shape)
    return lazy(shape, lambda: np.asarray(value))


def lazy(shape: tuple[int, ...], compute: Callable[[], np.ndarray | None]) -> Constant:
    kept: list[np.ndarray | None] = []

    def get() -> np.ndarray | None:
        if not kept:
            size = int(np.prod(shape, dtype=np.int64))
            kept.append(compute() if size <= LARGEST else None)
        return kept[0]

    return Constant(shape, get)


def computed(eqn: Any, inputs: list[Constant]) -> list[Constant]:
    """The results of an equation whose inputs do not depend on the image."""
    results: list[list[np.ndarray] | None] = []

    def run() -> list[np.ndarray] | None:
        if not results:
            values = [c.get() for c in inputs]
            known = all(v is not None for v in values)
            results.append(_evaluate(eqn, values) if known else None)
        return results[0]

    def pick(index: int) -> Callable[[], np.ndarray | None]:
        def get() -> np.ndarray | None:
            found = run()
            return None if found is None else found[index]

        return get

    return [lazy(tuple(v.aval.shape), pick(i)) for i, v in enumerate(eqn.outvars)]


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
