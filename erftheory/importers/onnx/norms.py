"""Rules for ONNX operators that normalise."""

from __future__ import annotations

import math
from collections.abc import Callable

from erftheory.importers.building.norms import evaluated, over_last
from erftheory.importers.building.operation import of_pixels
from erftheory.importers.values.dimensions import CHANNEL
from erftheory.importers.values.pixels import Global
from erftheory.network.layers import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm


def _batch_norm(make, at, inputs):
    value, scale, _, mean, variance = inputs[:5]
    if isinstance(mean, Global) or isinstance(variance, Global):  # of this very image
        return make.held_norm(value, BatchNorm(), (scale,))
    return evaluated(make, value, scale, variance, at.get("epsilon", 1e-5))


@of_pixels
def _instance_norm(make, at, inputs):
    """Of channels; reshaped, of groups of them."""
    value = inputs[0]
    groups = math.prod(a.size for a in value.dims[1] if a.axis == CHANNEL)
    if groups == value.channels:
        return make.held_norm(value, InstanceNorm(), inputs[1:2])
    return make.held_norm(value, GroupNorm(groups))


def _group_norm(make, at, inputs):
    return make.held_norm(inputs[0], GroupNorm(at["num_groups"]), inputs[1:2])


@of_pixels
def _mean_variance(make, at, inputs):
    value, axes = inputs[0], at.get("axes", [0, 2, 3])
    whole = any(a.axis == CHANNEL for i in axes for a in value.dims[i])
    return make.held_norm(value, GroupNorm(1) if whole else BatchNorm())


def _layer_norm(kind: type[LayerNorm | RMSNorm]) -> Callable:
    @of_pixels
    def rule(make, at, inputs):
        value = inputs[0]
        return over_last(make, value, at.get("axis", -1) % len(value.dims), kind(), inputs[1:2])

    return rule


NORMS: dict[str, Callable] = {
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "MeanVarianceNormalization": _mean_variance,
    "LayerNormalization": _layer_norm(LayerNorm),
    "RMSNormalization": _layer_norm(RMSNorm),
}
