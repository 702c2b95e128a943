"""A model whose weights change between readings: they are an argument of what is compiled."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from erftheory.empirical.measured.choose import model
from erftheory.empirical.measured.model import Model


class Parametrised(Model):
    """A function (params, images) → outputs at the weights of `.params`."""

    def __init__(self, function: Callable[..., Any], params: Any, *arguments: Any):
        self.params = params
        super().__init__(lambda x: function(self.params, x), *arguments)

        def scalar(x: jax.Array, params: Any, cotangent: jax.Array, unit: Any) -> jax.Array:
            said = self.at_units(function(params, x), [unit])[0]
            return (said * cotangent.astype(said.dtype)).sum()

        self._compiled = jax.jit(jax.grad(scalar), static_argnums=3)

    def at(self, params: Any) -> Parametrised:
        """The same function at other weights; what is compiled is shared."""
        other = copy.copy(self)
        other.params = params
        return other

    def gradient(self, x: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
        return np.asarray(self._compiled(x, self.params, cotangent, self.units[0]))


class Watched:
    """What a tracker reads: a function of weights and images, a Flax NNX module, or PyTorch's.

    Attributes:
      takes_params: whether a reading needs the weights.
    """

    def __init__(self, function: Any, spatial_axes: Any, output_axes: Any):
        self.axes = (spatial_axes, output_axes)
        self.made: Model | None = None
        self.takes_params = True
        torch, nnx = sys.modules.get("torch"), sys.modules.get("flax.nnx")
        self.module = None
        if torch is not None and isinstance(function, torch.nn.Module):
            self.module, self.kind, self.takes_params = function, "torch", False
        elif nnx is not None and isinstance(function, nnx.Module):
            self.module, self.kind, self.takes_params = function, "nnx", False
            self.function = self._merged()
        elif callable(function):
            self.function, self.kind = function, "function"
        else:
            raise ValueError(
                f"function_or_module: got {type(function).__name__}; takes a function of "
                "(params, images), a Flax NNX module or a torch.nn.Module"
            )

    def _merged(self) -> Callable[..., Any]:
        from flax import nnx

        read = getattr(self.module, "features", self.module)
        name = "features" if read is not self.module else "__call__"

        def function(state: Any, x: Any) -> Any:
            graph = self.graph
            return getattr(nnx.merge(graph, state, copy=True), name)(x)

        return function

    def at(self, params: Any, images: np.ndarray) -> Model:
        """The model with its weights of this moment.

        Raises:
          ValueError: a module in training mode, weights where none are taken, or none.
        """
        if self.takes_params == (params is None):
            takes = "takes the weights" if self.takes_params else "the module has its own"
            raise ValueError(f"params: got {type(params).__name__}; {takes}")
        shape = (1, *images.shape[1:])
        if self.kind == "torch":
            # made anew: it checks the mode, and compiles nothing
            return model(self.module, shape, images.dtype, *self.axes)
        if self.kind == "nnx":
            from flax import nnx

            _check_mode(self.module)
            graph, params = nnx.split(self.module)
            if self.made is None:
                self.graph = graph
        if self.made is None:
            self.made = Parametrised(self.function, params, shape, images.dtype, *self.axes)
        assert isinstance(self.made, Parametrised)
        return self.made.at(params)


def _check_mode(module: Any) -> None:
    from flax import nnx

    for path, part in nnx.iter_modules(module):
        if getattr(part, "use_running_average", None) is False or (
            isinstance(part, nnx.Dropout) and part.deterministic is False
        ):
            raise ValueError(
                f"function_or_module: got a module in training mode ({'.'.join(map(str, path))}); "
                "takes one after .eval(), because batch statistics and dropout mix images and runs"
            )
