"""Rules for equations of a jaxpr that slide over the image, and contractions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from erftheory.importers.building.assemble import Assembler
from erftheory.importers.building.image import slid_over
from erftheory.importers.building.products import contracted
from erftheory.importers.building.windows import pool, slide
from erftheory.importers.values.dimensions import CHANNEL, Dim, plain
from erftheory.importers.values.pixels import Constant, Global, Pixels, Value
from erftheory.importers.values.refusals import Unreadable


def convolution(make: Assembler, eqn: Any, inputs: list[Value], search: bool) -> Value:
    image, weights = inputs
    if not isinstance(weights, Constant):
        if isinstance(image, Constant):
            raise Unreadable("a convolution of a constant with the image as its weights")
        if isinstance(weights, Pixels) or isinstance(image, Global):
            return make.mixed_pixels(image, weights)
        make.note("weights that depend on the whole image")
        assert isinstance(image, Pixels)
        return make.merge("mul", _conv(make, eqn, image, search), weights)
    if isinstance(image, Global):
        return image.mix()
    assert isinstance(image, Pixels)
    return _conv(make, eqn, image, search, weights)


def _conv(
    make: Assembler, eqn: Any, image: Pixels, search: bool, weights: Constant | None = None
) -> Pixels:
    params, numbers = eqn.params, eqn.params["dimension_numbers"]
    batch, feature, *places = numbers.lhs_spec
    if search:
        slid_over(image, places)
    if params["batch_group_count"] != 1:
        raise Unreadable("a convolution with groups of batches")
    kernel = [eqn.invars[1].aval.shape[d] for d in numbers.rhs_spec[2:]]
    channels = eqn.invars[1].aval.shape[numbers.rhs_spec[0]]
    rows = [
        (place, k, s, up, d, pads)
        for place, k, s, up, d, pads in zip(
            places, kernel, params["window_strides"], params["lhs_dilation"],
            params["rhs_dilation"], params["padding"],
        )
    ]  # fmt: skip
    shape = eqn.outvars[0].aval.shape
    sizes = {p: shape[o] for p, o in zip(places, numbers.out_spec[2:])}
    if any(a.axis >= 0 and a.size > 1 for a in image.dims[batch]):
        raise Unreadable("a convolution of blocks of the image (space to batch)")
    image = make.flush(make.settle(image))
    groups = params["feature_group_count"]
    own = weights and partial(_ordered, weights, numbers.rhs_spec)
    found = slide(make, image, rows, sizes, channels, groups, own)
    dims: list[Dim] = [()] * len(shape)
    for source, target in zip(numbers.lhs_spec, numbers.out_spec):
        dims[target] = found.dims[source]
    dims[numbers.out_spec[1]] = plain(CHANNEL, channels)
    return replace(found, dims=tuple(dims))


def _ordered(weights: Constant, spec: Sequence[int]) -> np.ndarray | None:
    known = weights.get()
    return None if known is None else np.transpose(known, spec)


def pooling(make: Assembler, eqn: Any, inputs: list[Value], search: bool) -> Value:
    image, params = inputs[0], eqn.params
    kind = "max" if eqn.primitive.name != "reduce_window_sum" else "sum"
    if not isinstance(image, Pixels):
        return image
    window, strides = params["window_dimensions"], params["window_strides"]
    busy = [i for i, (k, s) in enumerate(zip(window, strides)) if k > 1 or s > 1]
    if search and busy:
        slid_over(image, busy)
    if any(b != 1 for b in params["base_dilation"]):
        raise Unreadable("a pooling of a dilated image")
    rows = [
        (i, window[i], strides[i], params["window_dilation"][i], params["padding"][i])
        for i in range(len(window))
    ]
    return pool(make, image, rows, eqn.outvars[0].aval.shape, kind)


def contraction(make: Assembler, eqn: Any, inputs: list[Value], search: bool) -> Value:
    numbers, shape = eqn.params["dimension_numbers"], eqn.outvars[0].aval.shape
    return contracted(make, inputs[0], inputs[1], numbers, shape)


RULES = {
    "conv_general_dilated": convolution,
    "reduce_window_max": pooling,
    "reduce_window_min": pooling,
    "reduce_window_sum": pooling,
    "dot_general": contraction,
}
