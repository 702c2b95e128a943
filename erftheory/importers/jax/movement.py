"""Rules for equations of a jaxpr that move entries of an array."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from erftheory.importers.building.joining import concat
from erftheory.importers.building.movement import (
    broadcast,
    padded,
    parted,
    reshaped,
    reversed_,
    sliced,
    taken,
    transposed,
)
from erftheory.importers.building.operation import of_pixels
from erftheory.importers.building.patches import unfolded
from erftheory.importers.values.constants import lazy
from erftheory.importers.values.dimensions import CHANNEL, COPY, length, plain, spatial
from erftheory.importers.values.pixels import Constant, Pixels
from erftheory.importers.values.refusals import Unreadable


def _reshape(make, eqn, inputs, search):
    return reshaped(make, inputs[0], eqn.outvars[0].aval.shape)


def _transpose(make, eqn, inputs, search):
    return transposed(make, inputs[0], eqn.params["permutation"])


def _broadcast(make, eqn, inputs, search):
    shape, places = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    return broadcast(make, inputs[0], shape, places)


@of_pixels
def _squeeze(make, eqn, inputs, search):
    value = inputs[0]
    gone = eqn.params["dimensions"]
    if any(spatial(value.dims[i]) for i in gone):
        return reshaped(make, value, eqn.outvars[0].aval.shape)
    dims = tuple(d for i, d in enumerate(value.dims) if i not in gone)
    return replace(value, dims=dims)


def _slice(make, eqn, inputs, search):
    starts, limits = eqn.params["start_indices"], eqn.params["limit_indices"]
    return sliced(make, inputs[0], starts, limits, eqn.params["strides"] or [1] * len(starts))


def _dynamic_slice(make, eqn, inputs, search):
    value, *starts = inputs
    if not isinstance(value, Pixels):
        return value
    known = [s.get() if isinstance(s, Constant) else None for s in starts]
    sizes = eqn.params["slice_sizes"]
    where = []
    for i, (start, size, n) in enumerate(zip(known, sizes, value.shape)):
        if size == n:
            where.append(0)
        elif start is None and not spatial(value.dims[i]):
            where.append(0)  # which channels does not matter
        elif start is None:
            raise Unreadable("a slice of the image at a place that is not known")
        else:
            where.append(int(np.clip(int(start), 0, n - size)))
    limits = [b + n for b, n in zip(where, sizes)]
    return sliced(make, value, where, limits, [1] * len(sizes))


def _split_equation(make, eqn, inputs, search):
    return parted(make, inputs[0], eqn.params["axis"], eqn.params["sizes"])


def _pad(make, eqn, inputs, search):
    return padded(make, inputs[0], eqn.params["padding_config"])


def _concatenate(make, eqn, inputs, search):
    return concat(make, inputs, eqn.params["dimension"], eqn.outvars[0].aval.shape)


def _stack(make, eqn, inputs, search):
    axis, values = eqn.params["axis"], []
    for v in inputs:
        if isinstance(v, Pixels):
            v = replace(v, dims=(*v.dims[:axis], (), *v.dims[axis:]), parts=())
        elif isinstance(v, Constant):
            v = Constant((*v.shape[:axis], 1, *v.shape[axis:]))
        values.append(v)
    return concat(make, values, axis, eqn.outvars[0].aval.shape)


def _tile(make, eqn, inputs, search):
    value, dims = inputs[0], []
    if not isinstance(value, Pixels):
        return value
    for dim, times in zip(value.dims, eqn.params["reps"]):
        if times > 1 and spatial(dim):
            raise Unreadable("an image repeated beside itself")
        if spatial(dim):
            dims.append(dim)
        else:
            dims.append(plain(CHANNEL, length(dim) * times) if dim else plain(COPY, times))
    return make.select(value, tuple(dims))


def _top_k(make, eqn, inputs, search):
    value, axis = inputs[0], eqn.params["axis"]
    if isinstance(value, Pixels):
        if spatial(value.dims[axis]):
            raise Unreadable("an operation that runs along the whole image")
        dims = (*value.dims[:axis], plain(CHANNEL, eqn.params["k"]), *value.dims[axis + 1 :])
        value = make.select(value, dims)
    return [make.pointwise(value, "other")] * 2


def _rev(make, eqn, inputs, search):
    return reversed_(make, inputs[0], eqn.params["dimensions"])


def _gather(make, eqn, inputs, search):
    value, indices = inputs
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    if not isinstance(value, Pixels) or not isinstance(indices, Constant):
        raise Unreadable("entries picked by indices that depend on the image")
    picked = numbers.start_index_map
    whole = all(n == m for i, (n, m) in enumerate(zip(sizes, value.shape)) if i not in picked)
    single = len(picked) == 1 and numbers.collapsed_slice_dims == picked
    table = single and whole and len(indices.shape) == 3 and not numbers.operand_batching_dims
    if table and spatial(value.dims[picked[0]]):
        axis, entries = picked[0], lazy(indices.shape[:2], lambda: _column(indices))
        found = unfolded(make, value, entries, axis)
        offsets = iter(d for i, d in enumerate(found.dims) if i not in (axis, axis + 1))
        new = iter(found.dims[axis : axis + 2])
        count = len(found.dims)
        dims = tuple(next(offsets if i in numbers.offset_dims else new) for i in range(count))
        return replace(found, dims=dims)
    if not single or not whole or len(indices.shape) != 2 or numbers.operand_batching_dims:
        if whole and not any(spatial(value.dims[i]) for i in picked):
            shape = eqn.outvars[0].aval.shape
            kept = iter(d for i, d in enumerate(value.dims) if i not in picked)
            dims = tuple(
                next(kept) if i in numbers.offset_dims else plain(CHANNEL, n)
                for i, n in enumerate(shape)
            )
            return make.select(value, dims)
        raise Unreadable("a gather along several axes, or of single pixels")
    axis = picked[0]
    found = taken(make, value, Constant(indices.shape[:1], lambda: _column(indices)), axis)
    assert isinstance(found, Pixels)
    rest = [d for i, d in enumerate(found.dims) if i != axis]
    offsets = iter(rest)
    count = len(found.dims)
    dims = tuple(
        next(offsets) if i in numbers.offset_dims else found.dims[axis] for i in range(count)
    )
    return replace(found, dims=dims)


def _column(indices: Constant) -> np.ndarray | None:
    known = indices.get()
    return None if known is None else known[..., 0]


RULES = {
    "reshape": _reshape,
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "squeeze": _squeeze,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "split": _split_equation,
    "pad": _pad,
    "concatenate": _concatenate,
    "stack": _stack,
    "tile": _tile,
    "top_k": _top_k,
    "rev": _rev,
    "gather": _gather,
}
