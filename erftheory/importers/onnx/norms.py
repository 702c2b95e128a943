"""Rules for ONNX operators that normalise."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from erftheory.importers.build.assemble import Assembler
from erftheory.importers.values.dimensions import CHANNEL
from erftheory.importers.values.pixels import Constant, Global, Pixels, Value
from erftheory.importers.values.refusals import Unreadable
from erftheory.network.layers import (
    BatchNorm,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    RMSNorm,
)


def _batch_norm(make, at, inputs):
    value, scale, _, mean, variance = inputs[:5]
    if isinstance(mean, Global) or isinstance(variance, Global):  # of this very image
        return make.held_norm(value, BatchNorm(), (scale,))

    def get():
        a, b = scale.get(), variance.get()
        return None if a is None or b is None else a / np.sqrt(b + at.get("epsilon", 1e-5))

    return make.normalised(value, BatchNorm(), (Constant(scale.shape, get),), True)


def _instance_norm(make, at, inputs):
    """Of channels; reshaped, of groups of them."""
    value = inputs[0]
    if not isinstance(value, Pixels):
        return value
    groups = math.prod(a.size for a in value.dims[1] if a.axis == CHANNEL)
    if groups == value.channels:
        return make.held_norm(value, InstanceNorm(), inputs[1:2])
    return make.held_norm(value, GroupNorm(groups))


def _group_norm(make, at, inputs):
    return make.held_norm(inputs[0], GroupNorm(at["num_groups"]), inputs[1:2])


def _mean_variance(make, at, inputs):
    value, axes = inputs[0], at.get("axes", [0, 2, 3])
    if not isinstance(value, Pixels):
        return value
    whole = any(a.axis == CHANNEL for i in axes for a in value.dims[i])
    return make.held_norm(value, GroupNorm(1) if whole else BatchNorm())


def _layer_norm(kind: type[LayerNorm | RMSNorm]) -> Callable:
    def rule(make, at, inputs):
        value = inputs[0]
        if not isinstance(value, Pixels):
            return value
        return layer_norm(make, value, at.get("axis", -1) % len(value.dims), kind(), inputs[1:2])

    return rule


def layer_norm(make: Assembler, value: Pixels, first: int, layer: Layer, factors: list) -> Value:
    """Statistics over the dimensions from `first` on, which may hold pixels."""
    value = _with_blocks(make, value, first)
    gone = [a for d in value.dims[first:] for a in d]
    if not any(a.axis >= 0 for a in gone):
        return make.normalised(value, layer, factors)
    channels = math.prod(a.size for a in gone if a.axis == CHANNEL)
    if isinstance(layer, LayerNorm):
        layer = GroupNorm(value.channels // channels)
    per_pixel = [c for c in factors if c.entries != channels]
    return make.held_norm(value, layer, [] if per_pixel else factors)


def _with_blocks(make: Assembler, value: Pixels, first: int) -> Pixels:
    """Channels that hold the pixels of a block (a space to depth) become channels alone."""
    held = value.dims[first:]
    pixels = {a.axis for d in held for a in d if a.axis >= 0 and a.size > 1}
    if not pixels or not all(make.fragment(value, axis, held) for axis in pixels):
        return value
    try:
        return make.settle(value)
    except Unreadable:  # tokens
        return value


NORMS: dict[str, Callable] = {
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "MeanVarianceNormalization": _mean_variance,
    "LayerNormalization": _layer_norm(LayerNorm),
    "RMSNormalization": _layer_norm(RMSNorm),
}
