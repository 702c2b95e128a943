"""A function of image batches, read at some of its output units.

A `Model` hides what kind of function it is: a JAX callable, or a PyTorch module
(`torch_model.py`). It knows where the spatial axes are, what a unit says, and its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from erftheory.network.arguments import integer, output_unit

Unit = tuple[int, ...]


class Model:
    """A function from batches (n, …) to batches, its spatial axes, and the units that are read.

    Attributes:
      spatial: spatial axes of the input, the batch axis being 0.
      image: pixels an axis.
      output: shape of the output, batch axis included.
      out_axes: spatial axes of the output.
      units: the units that are read, one index an output axis each.
    """

    first_spatial = 1  # JAX models keep channels last

    def __init__(
        self,
        function: Any,
        shape: tuple[int, ...],
        dtype: Any,
        spatial_axes: Any,
        output_axes: Any,
        rectified: bool = False,
    ) -> None:
        self.function, self.rectified = function, rectified
        self.spatial = self._spatial(shape, spatial_axes)
        self.image = tuple(shape[a] for a in self.spatial)
        self.output = self.trace(shape, dtype)
        self.out_axes = self._out(len(shape), output_axes)
        self.units: list[Unit] = []

    def trace(self, shape: tuple[int, ...], dtype: Any) -> tuple[int, ...]:
        """The output's shape for an input's."""
        try:
            made = jax.eval_shape(self.function, jax.ShapeDtypeStruct(shape, dtype))
        except (TypeError, ValueError) as wrong:
            said = (str(wrong).splitlines() or [type(wrong).__name__])[0]
            raise ValueError(
                f"images: got batches of shape {shape}, on which the function fails ({said}); "
                "takes images as the function does, the batch axis first"
            ) from wrong
        return self._output_shape(made, shape)

    def _output_shape(self, made: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
        if not hasattr(made, "shape"):
            raise ValueError(
                f"function: got a {type(made).__name__} as its result; takes a function that "
                "returns one array"
            )
        if not made.shape or made.shape[0] != shape[0]:
            raise ValueError(
                f"function: got output shape {tuple(made.shape)} for a batch {shape}; takes a "
                "function that keeps the batch axis first"
            )
        return tuple(made.shape)

    def _spatial(self, shape: tuple[int, ...], wanted: Any) -> tuple[int, ...]:
        if wanted is not None:
            return axes("spatial_axes", wanted, len(shape))
        first = self.first_spatial
        chosen = tuple(range(first, len(shape) - 2 + first))
        channels = shape[-1 if first == 1 else 1]
        # Not a guess at the layout, only a refusal to go on with one that cannot be meant.
        if not 1 <= len(chosen) <= 3 or min(shape[a] for a in chosen) <= 4 < channels:
            layout = "channels-last" if first == 1 else "channels-first"
            raise ValueError(
                f"spatial_axes: got None for images of shape {shape}, which do not look "
                f"{layout}; takes the spatial axes, batch axis 0"
            )
        return chosen

    def _out(self, ndim: int, wanted: Any) -> tuple[int, ...]:
        if wanted is not None:
            return axes("output_axes", wanted, len(self.output))
        if len(self.output) != ndim:
            raise ValueError(
                f"output_axes: got None for an output of shape {self.output}; takes its spatial "
                "(or token) axes, batch axis 0"
            )
        return self.spatial

    @property
    def grid(self) -> tuple[int, ...]:
        """Output units an axis."""
        return tuple(self.output[a] for a in self.out_axes)

    @property
    def features(self) -> int:
        """Output channels of a unit."""
        return int(np.prod(self.output[1:])) // int(np.prod(self.grid))

    def unit(self, unit: Any) -> Unit:
        """The index of a unit; "center" is n // 2."""
        return output_unit("unit", unit, self.grid)

    def at_units(self, y: Any, units: Sequence[Unit] | None = None) -> list[Any]:
        """What each unit says: arrays (n, features); None for those of `.units`."""
        rows = []
        for unit in self.units if units is None else units:
            index: list[Any] = [slice(None)] * y.ndim
            for axis, u in zip(self.out_axes, unit):
                index[axis] = u
            rows.append(y[tuple(index)].reshape(y.shape[0], -1))
        return rows

    def read(self, x: np.ndarray) -> np.ndarray:
        """Outputs (units, n, features) of a batch."""
        return np.asarray(self._forward(x))

    def gradient(self, x: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
        """Gradient, shape of `x`, of Σ cotangent · features at the first unit; (n, features)."""
        return np.asarray(self._pull(x, cotangent))

    def spatial_first(self, array: np.ndarray) -> np.ndarray:
        """(n, …) as (n, *image, channels)."""
        array = np.moveaxis(array, self.spatial, range(1, 1 + len(self.spatial)))
        return array.reshape(*array.shape[: 1 + len(self.spatial)], -1)

    @property
    def _forward(self) -> Callable[..., Any]:
        if "forward" not in self.__dict__:
            self.__dict__["forward"] = jax.jit(lambda x: jnp.stack(self.at_units(self.function(x))))
        return self.__dict__["forward"]

    @property
    def _pull(self) -> Callable[..., Any]:
        def scalar(x: jax.Array, cotangent: jax.Array) -> jax.Array:
            said = self.at_units(self.function(x))[0]
            if self.rectified:
                said = jax.nn.relu(said)
            return (said * cotangent.astype(said.dtype)).sum()

        if "pull" not in self.__dict__:
            self.__dict__["pull"] = jax.jit(jax.grad(scalar))
        return self.__dict__["pull"]


def axes(name: str, value: Any, ndim: int) -> tuple[int, ...]:
    """Axes as positive numbers; the batch axis 0 is none of them."""
    given = tuple(value) if isinstance(value, Sequence | np.ndarray) else (value,)
    wrong = f"{name}: got {value!r}; takes 1 to 3 different axes of {ndim}, not the batch axis 0"
    try:
        found = tuple(a + ndim if a < 0 else integer(name, a, 1) for a in given)
    except (TypeError, ValueError):
        raise ValueError(wrong) from None
    if not 1 <= len(set(found)) == len(found) <= 3 or not all(0 < a < ndim for a in found):
        raise ValueError(wrong)
    return found
