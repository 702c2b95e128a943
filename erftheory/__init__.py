"""Effective receptive fields of convolutional networks: derive, compute, measure, verify.

Importing this package changes no JAX setting and starts no device.
"""

from importlib import import_module as _import
from typing import TYPE_CHECKING
from typing import Any as _Any

from erftheory.erf.record import ERF
from erftheory.network.base import Chain, Named, Network, Repeat
from erftheory.network.combine import Branches, Residual
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


# What stands on a record or a network is attached to it here, which always runs first, so that
# nothing low imports what is high.


def _plot(self: ERF, **options: _Any) -> _Any:
    """The journal figure; options as for `plotting.plot_erf`."""
    from erftheory.plotting import plot_erf

    return plot_erf(self, **options)


def _html(self: ERF) -> str:
    from erftheory.plotting import html_table

    return html_table(self)


def _compared(self: ERF, other: ERF) -> _Any:
    """The difference of two independent ERFs, with 95 % intervals; see `Difference`.

    ERFs that are not sampled count as exact; ValueError for one of unknown error.
    """
    from erftheory.erf.difference import difference

    return difference(self, other)


def _summary(
    self: Network, signal: str = "variance", init: _Any = "he", spacing: _Any = None
) -> _Any:
    """One row a layer: receptive field, jump, ERF std (pixels) and their ratio."""
    from erftheory.theory.readings.summary import summary

    return summary(self, signal=signal, init=init, spacing=spacing)


for _kind, _name, _method in (
    (ERF, "plot", _plot),
    (ERF, "compare", _compared),
    (ERF, "_repr_html_", _html),
    (Network, "summary", _summary),
    (Network, "_repr_html_", lambda self: self.summary()._repr_html_()),
):
    _method.__name__ = _name
    _method.__qualname__ = f"{_kind.__name__}.{_name}"
    setattr(_kind, _name, _method)


def __getattr__(name: str):
    # JAX and SymPy take most of a second to import: only who uses them waits for them
    if name not in _LAZY:
        raise AttributeError(f"module 'erftheory' has no attribute {name!r}")
    module = _import(_LAZY[name])
    value = module if name in ("derive", "zoo") else getattr(module, name)
    globals()[name] = value
    return value
