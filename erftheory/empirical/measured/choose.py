"""Which reader of gradients a function of the user needs: JAX's, or PyTorch's."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from erftheory.empirical.measured.model import Model


def model(
    function: Any,
    shape: tuple[int, ...],
    dtype: Any,
    spatial_axes: Any = None,
    output_axes: Any = None,
    rectified: bool = False,
) -> Model:
    """The `Model` of a JAX callable or of a PyTorch module; one that is made already stays."""
    if isinstance(function, Model):
        return function
    kind = Model
    torch = sys.modules.get("torch")
    # Whoever passes a module has imported torch; nobody else should wait for it.
    if torch is not None and isinstance(function, torch.nn.Module):
        from erftheory.empirical.measured.torch_model import TorchModel

        kind = TorchModel
    elif not callable(function):
        raise ValueError(
            f"function: got {type(function).__name__}; takes a function of a batch of images, or "
            "a torch.nn.Module"
        )
    if not np.issubdtype(np.dtype(dtype), np.floating) and "float" not in str(dtype):
        raise ValueError(f"images: got dtype {dtype}; takes floating point, scaled as for training")
    return kind(function, shape, dtype, spatial_axes, output_axes, rectified)
