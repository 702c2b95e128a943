"""Normalisations that are one operation of a framework."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from erftheory.importers.building.assemble import Assembler
from erftheory.importers.values.dimensions import CHANNEL
from erftheory.importers.values.pixels import Constant, Pixels, Value
from erftheory.importers.values.refusals import Unreadable
from erftheory.network.layers import BatchNorm, GroupNorm, LayerNorm, RMSNorm


def evaluated(
    make: Assembler, value: Value, weight: Constant | None, variance: Constant, epsilon: float
) -> Value:
    """A normalisation by running statistics, in evaluation mode: times weight / √(variance + ε)."""

    def get() -> np.ndarray | None:
        a, b = 1.0 if weight is None else weight.get(), variance.get()
        return None if a is None or b is None else a / np.sqrt(b + epsilon)

    return make.normalised(value, BatchNorm(), (Constant(variance.shape, get),), True)


def over_last(
    make: Assembler, value: Pixels, first: int, layer: LayerNorm | RMSNorm,
    factors: Sequence[Constant],
) -> Value:  # fmt: skip
    """By statistics over the dimensions from `first` on, which may hold pixels."""
    value = _with_blocks(make, value, first)
    gone = [a for d in value.dims[first:] for a in d]
    if not any(a.axis >= 0 for a in gone):
        return make.normalised(value, layer, factors)
    channels = math.prod(a.size for a in gone if a.axis == CHANNEL)
    groups = value.channels // channels
    held = GroupNorm(groups) if isinstance(layer, LayerNorm) else layer
    per_pixel = [c for c in factors if c.entries != channels]
    return make.held_norm(value, held, [] if per_pixel else factors)


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
