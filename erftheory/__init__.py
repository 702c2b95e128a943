"""Effective receptive fields of convolutional networks: derive, compute, measure, verify.

Importing this package changes no JAX setting and starts no device.
"""

from importlib import import_module as _import
from typing import TYPE_CHECKING

from erftheory.network.base import Network
from erftheory.network.combine import Branches, Chain, Named, Repeat, Residual
from erftheory.network.endless import GlobalAvgPool, Recurrent
from erftheory.network.layers import (
    Activation,
    AvgPool,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dropout,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    MaxPool,
    RMSNorm,
    Upsample,
)

if TYPE_CHECKING:
    from erftheory import derive, zoo
    from erftheory.comparison import compare
    from erftheory.empirical import enumerated, gradient_erf, probe_receptive_field, sample
    from erftheory.erf import ERF
    from erftheory.importers.from_jax import from_jax
    from erftheory.importers.from_onnx import from_onnx
    from erftheory.importers.torch.from_torch import from_torch
    from erftheory.theory.advice.advise import advise
    from erftheory.theory.advice.tiling import tiling
    from erftheory.theory.gains.between import between
    from erftheory.theory.image.units import exact_units
    from erftheory.theory.limits.approximations import approximate
    from erftheory.theory.limits.conditions import conditions
    from erftheory.theory.limits.normality import berry_esseen, local_limit_bound
    from erftheory.theory.plane.exact import exact
    from erftheory.theory.readings.counting import counting
    from erftheory.theory.readings.cumulants import cumulants
    from erftheory.theory.readings.moments import moments
    from erftheory.theory.readings.receptive_field import receptive_field

__version__ = "0.1.0"

_LAZY = {
    "derive": "erftheory.derive",
    "zoo": "erftheory.zoo",
    "ERF": "erftheory.erf",
    "advise": "erftheory.theory.advice.advise",
    "approximate": "erftheory.theory.limits.approximations",
    "berry_esseen": "erftheory.theory.limits.normality",
    "between": "erftheory.theory.gains.between",
    "compare": "erftheory.comparison",
    "conditions": "erftheory.theory.limits.conditions",
    "counting": "erftheory.theory.readings.counting",
    "cumulants": "erftheory.theory.readings.cumulants",
    "exact": "erftheory.theory.plane.exact",
    "exact_units": "erftheory.theory.image.units",
    "from_jax": "erftheory.importers.from_jax",
    "from_onnx": "erftheory.importers.from_onnx",
    "from_torch": "erftheory.importers.torch.from_torch",
    "gradient_erf": "erftheory.empirical",
    "receptive_field": "erftheory.theory.readings.receptive_field",
    "local_limit_bound": "erftheory.theory.limits.normality",
    "moments": "erftheory.theory.readings.moments",
    "sample": "erftheory.empirical",
    "tiling": "erftheory.theory.advice.tiling",
    "enumerated": "erftheory.empirical",
    "probe_receptive_field": "erftheory.empirical",
}

__all__ = [
    "Activation",
    "AvgPool",
    "BatchNorm",
    "Branches",
    "Chain",
    "Conv",
    "ConvTranspose",
    "Dropout",
    "ERF",
    "GlobalAvgPool",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "MaxPool",
    "Named",
    "Network",
    "RMSNorm",
    "Recurrent",
    "Repeat",
    "Residual",
    "Upsample",
    "advise",
    "approximate",
    "berry_esseen",
    "between",
    "compare",
    "conditions",
    "counting",
    "cumulants",
    "derive",
    "enumerated",
    "exact",
    "exact_units",
    "from_jax",
    "from_onnx",
    "from_torch",
    "gradient_erf",
    "local_limit_bound",
    "moments",
    "probe_receptive_field",
    "receptive_field",
    "sample",
    "tiling",
    "zoo",
]


def __getattr__(name: str):
    # JAX and SymPy take most of a second to import: only who uses them waits for them
    if name not in _LAZY:
        raise AttributeError(f"module 'erftheory' has no attribute {name!r}")
    module = _import(_LAZY[name])
    value = module if name in ("derive", "zoo") else getattr(module, name)
    globals()[name] = value
    return value
