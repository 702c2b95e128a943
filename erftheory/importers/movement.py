"""Rules for what moves entries of an array: reshapes, slices, pads, joins, gathers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from erftheory.importers import windows
from erftheory.importers.assemble import Assembler
from erftheory.importers.constants import lazy
from erftheory.importers.folded import folded, picked
from erftheory.importers.patches import unfolded
from erftheory.importers.resample import selection
from erftheory.importers.signals import (
    BESIDE,
    CHANNEL,
    COPY,
    MIRRORED,
    Constant,
    Listed,
    Signal,
    Unreadable,
    Value,
    length,
    plain,
    reshape,
    spatial,
)


def reshaped(make: Assembler, value: Value, shape: Sequence[int]) -> Value:
    if not isinstance(value, Signal):
        return value
    return replace(value, dims=reshape(value.dims, shape), parts=())


def transposed(make: Assembler, value: Value, order: Sequence[int]) -> Value:
    if not isinstance(value, Signal):
        return value
    parts = [(a, b, transposed(make, part, order)) for a, b, part in value.parts]
    return replace(value, dims=tuple(value.dims[i] for i in order), parts=tuple(parts))


def broadcast(make: Assembler, value: Value, shape: Sequence[int], places: Sequence[int]) -> Value:
    """Dimension i goes to places[i]; the others, and those of size 1, are copies."""
    if not isinstance(value, Signal):
        return value
    dims = [plain(COPY, n) for n in shape]
    for dim, place in zip(value.dims, places):
        if dim and (spatial(dim) or shape[place] > 1):
            dims[place] = dim
    for dim, place in zip(value.dims, places):
        if spatial(dim) and len(dim) == 1 and dim[0].size == 1 and shape[place] > 1:
            raise Unreadable("one pixel spread over the image")
    return replace(value, dims=tuple(dims), parts=())


def sliced(
    make: Assembler, value: Value, starts: Sequence[int], limits: Sequence[int],
    strides: Sequence[int],
) -> Value:  # fmt: skip
    if isinstance(value, Listed):
        rows = [*zip(starts, limits, strides, value.shape)]
        if any((b, e, s) != (0, n, 1) for i, (b, e, s, n) in enumerate(rows) if i != value.place):
            raise Unreadable(BESIDE)
        first, last, step, _ = rows[value.place]
        if step != 1:
            raise Unreadable(BESIDE)
        return value.cut(first, last)
    if not isinstance(value, Signal):
        return value
    back = [i for i, d in enumerate(value.dims) if len(d) == 1 and d[0].axis >= 0 > d[0].step]
    if back:  # in the image's own order
        starts, limits = list(starts), list(limits)
        for i in back:
            last = starts[i] + (limits[i] - 1 - starts[i]) // strides[i] * strides[i]
            starts[i], limits[i] = value.shape[i] - 1 - last, value.shape[i] - starts[i]
        found = sliced(make, _reversed(value, back), starts, limits, strides)
        return _reversed(found, back) if isinstance(found, Signal) else found
    shape = value.shape
    busy = [
        i for i, (b, e, s, n) in enumerate(zip(starts, limits, strides, shape))
        if (b, e) != (0, n) or s != 1
    ]  # fmt: skip
    for i in [i for i in busy if folded(value, i)]:
        value = picked(make, value, i, np.arange(starts[i], limits[i], strides[i]))
        busy.remove(i)
    along = [i for i in busy if spatial(value.dims[i])]
    across = [i for i in busy if i not in along]
    for i in across:
        value = _split(make, value, i, starts[i], limits[i], strides[i])
        if not isinstance(value, Signal):
            rows = zip(starts, limits, strides)
            return Constant(tuple(-(-(e - b) // s) for b, e, s in rows))
    if not along:
        return value
    if any(len(value.dims[i]) > 1 or value.dims[i][0].step > 1 for i in along):
        value = make.settle(value)
    n = make.ndim
    before, after, stride = [0] * n, [0] * n, [1] * n
    sizes = [value.size(a) for a in range(n)]
    for i in along:
        dim = value.dims[i]
        if len(dim) != 1 or dim[0].size != value.size(dim[0].axis):
            raise Unreadable("a slice of blocks of the image")
        a = dim[0].axis
        before[a], after[a], stride[a] = -starts[i], limits[i] - shape[i], strides[i]
        sizes[a] = -(-(limits[i] - starts[i]) // strides[i])
    return replace(make.moved(value, before, after, stride, sizes), cropped=max(stride) == 1)


def _split(
    make: Assembler, value: Signal, axis: int, start: int, limit: int, stride: int
) -> Value:
    """Some channels; of an untouched concatenation only the parts that hold them."""
    count = -(-(limit - start) // stride)
    dims = (*value.dims[:axis], plain(CHANNEL, count), *value.dims[axis + 1 :])
    if not value.parts or stride > 1 or all(a.axis != CHANNEL for a in value.dims[axis]):
        return make.select(value, dims)
    pieces, done = [], start

    def skip(end: int) -> None:  # constants of the concatenation
        if end > done:
            shape = list(value.shape)
            shape[axis] = end - done
            pieces.append(Constant(tuple(shape)))

    for first, last, part in value.parts:
        low, high = max(start, first), min(limit, last)
        if low < high:
            skip(low)
            whole = (low, high) == (first, last)
            pieces.append(
                part if whole else _split(make, part, axis, low - first, high - first, 1)
            )
            done = high
    skip(limit)
    if len(pieces) == 1:
        return pieces[0]
    return make.concat(pieces, axis, [length(d) for d in dims])


def padded(
    make: Assembler, value: Value, config: Sequence[tuple[int, int, int]], own: bool = False
) -> Value:
    """`config` is (before, after, between) a dimension, negative ones crop; `own` as in `moved`."""
    if not isinstance(value, Signal):
        return value
    busy = [i for i, c in enumerate(config) if any(c)]
    if not busy:
        return value
    if any(folded(value, i) for i in busy):
        value = make.settle(value)
    shape = [n + lo + hi + max(0, n - 1) * mid for n, (lo, hi, mid) in zip(value.shape, config)]
    along = [i for i in busy if spatial(value.dims[i])]
    for i in busy:
        if i not in along:
            dims = (*value.dims[:i], plain(CHANNEL, shape[i]), *value.dims[i + 1 :])
            value = make.select(value, dims)
    if not along:
        return value
    value = make.settle(value)
    if any(config[i][2] for i in along):
        rows = [(i, 1, 1, config[i][2] + 1, 1, config[i][:2]) for i in along]
        sizes = {i: shape[i] for i in along}
        count = value.channels
        ones = partial(np.ones, (count, 1, *[1] * len(rows)))
        return windows.slide(make, value, rows, sizes, count, count, ones)
    n = make.ndim
    before, after = [0] * n, [0] * n
    sizes = [value.size(a) for a in range(n)]
    for i in along:
        a = value.dims[i][0].axis
        before[a], after[a], _ = config[i]
        sizes[a] = shape[i]
    return make.moved(value, before, after, (1,) * n, sizes, own)


def reversed_(make: Assembler, value: Value, axes: Sequence[int]) -> Value:
    if not isinstance(value, Signal) or not any(spatial(value.dims[i]) for i in axes):
        return value
    if any(folded(value, i) for i in axes):
        value = make.settle(value)
        return reversed_(make, value, axes)
    if value.cropped:  # padding by reflection
        return replace(value, flipped=True)
    if any(spatial(value.dims[i]) and len(value.dims[i]) > 1 for i in axes):
        raise Unreadable(MIRRORED)
    return _reversed(value, axes)


def _reversed(value: Signal, axes: Sequence[int]) -> Signal:
    dims = list(value.dims)
    for i in axes:
        dims[i] = tuple(a._replace(step=-a.step) if a.axis >= 0 else a for a in dims[i])
    return replace(value, dims=tuple(dims), parts=())


def taken(make: Assembler, value: Value, indices: Constant, axis: int) -> Value:
    """Entries `indices` (one dimension) along an array dimension."""
    if not isinstance(value, Signal):
        return value
    if folded(value, axis):
        known = indices.get()
        if known is not None:
            entries, n = np.asarray(known).astype(int), value.shape[axis]
            return picked(make, value, axis, np.where(entries < 0, entries + n, entries))
        value = make.settle(value)
    if not spatial(value.dims[axis]):
        dims = (*value.dims[:axis], plain(CHANNEL, indices.shape[0]), *value.dims[axis + 1 :])
        return make.select(value, dims)
    known = indices.get()
    value = make.settle(value)
    atom = value.dims[axis][0]
    if known is None:
        raise Unreadable("pixels picked by indices that are not known")
    places = np.asarray(known).astype(int)
    places = np.where(places < 0, places + atom.size, places)
    return windows.resize(make, value, atom.axis, selection(places, atom.size))


# ---- as equations of a jaxpr --------------------------------------------------------------------


def _reshape(make, eqn, inputs, search):
    return reshaped(make, inputs[0], eqn.outvars[0].aval.shape)


def _transpose(make, eqn, inputs, search):
    return transposed(make, inputs[0], eqn.params["permutation"])


def _broadcast(make, eqn, inputs, search):
    shape, places = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    return broadcast(make, inputs[0], shape, places)


def _squeeze(make, eqn, inputs, search):
    value = inputs[0]
    if not isinstance(value, Signal):
        return value
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
    if not isinstance(value, Signal):
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
    axis, results, start = eqn.params["axis"], [], 0
    value = inputs[0]
    for size in map(int, eqn.params["sizes"]):  # NumPy's, whose products overflow
        if not isinstance(value, Signal | Listed):
            results.append(value)
            continue
        starts, limits = [0] * len(value.shape), list(value.shape)
        starts[axis], limits[axis] = start, start + size
        results.append(sliced(make, value, starts, limits, [1] * len(starts)))
        start += size
    return results


def _pad(make, eqn, inputs, search):
    return padded(make, inputs[0], eqn.params["padding_config"])


def _concatenate(make, eqn, inputs, search):
    return make.concat(inputs, eqn.params["dimension"], eqn.outvars[0].aval.shape)


def _stack(make, eqn, inputs, search):
    axis, values = eqn.params["axis"], []
    for v in inputs:
        if isinstance(v, Signal):
            v = replace(v, dims=(*v.dims[:axis], (), *v.dims[axis:]), parts=())
        elif isinstance(v, Constant):
            v = Constant((*v.shape[:axis], 1, *v.shape[axis:]))
        values.append(v)
    return make.concat(values, axis, eqn.outvars[0].aval.shape)


def _tile(make, eqn, inputs, search):
    value, dims = inputs[0], []
    if not isinstance(value, Signal):
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
    if isinstance(value, Signal):
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
    if not isinstance(value, Signal) or not isinstance(indices, Constant):
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
    assert isinstance(found, Signal)
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
