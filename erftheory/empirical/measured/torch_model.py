"""Gradients and outputs of PyTorch modules; everything after them is shared with JAX."""

from __future__ import annotations

from typing import Any

import numpy as np

from erftheory.empirical.measured.model import Model


class TorchModel(Model):
    """A `torch.nn.Module` in evaluation mode, on the device of its parameters."""

    first_spatial = 2

    def __init__(self, function: Any, *arguments: Any) -> None:
        if any(part.training for part in function.modules()):
            raise ValueError(
                "function: got a torch module in training mode; takes one after .eval(), because "
                "batch statistics and dropout mix images and runs"
            )
        super().__init__(function, *arguments)

    def _tensor(self, x: Any) -> Any:
        import torch

        place = next(self.function.parameters(), None)
        device = None if place is None else place.device
        return torch.as_tensor(np.array(x), device=device)

    def trace(self, shape: tuple[int, ...], dtype: Any) -> tuple[int, ...]:
        import torch

        try:
            with torch.no_grad():
                made = self.function(self._tensor(np.zeros(shape, dtype)))
        except (RuntimeError, TypeError, ValueError) as wrong:
            said = (str(wrong).splitlines() or [type(wrong).__name__])[0]
            raise ValueError(
                f"images: got batches of shape {shape} and dtype {dtype}, on which the module "
                f"fails ({said}); takes images as the module does, the batch axis first"
            ) from wrong
        return self._output_shape(made, shape)

    def read(self, x: np.ndarray) -> np.ndarray:
        import torch

        with torch.no_grad():
            said = torch.stack(self.at_units(self.function(self._tensor(x))))
        return said.cpu().numpy()

    def gradient(self, x: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
        import torch

        # The weights' gradients are the user's: neither computed nor touched.
        with torch.enable_grad():
            leaf = self._tensor(x).requires_grad_()
            said = self.at_units(self.function(leaf))[0]
            if self.rectified:
                said = torch.relu(said)
            scalar = (said * self._tensor(cotangent).to(said.dtype)).sum()
            (found,) = torch.autograd.grad(scalar, leaf)
        return found.cpu().numpy()
