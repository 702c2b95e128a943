"""Rules for what moves entries of an array: reshapes, slices, pads, joins, gathers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from erftheory.importers.building.assemble import Assembler
from erftheory.importers.building.joining import concat
from erftheory.importers.building.patches import folded, picked, unfolded
from erftheory.importers.building.resample import selection
from erftheory.importers.building.resizing import resize
from erftheory.importers.building.windows import slide
from erftheory.importers.values.dimensions import CHANNEL, COPY, length, plain, reshape, spatial
from erftheory.importers.values.pixels import Constant, Listed, Pixels, Value
from erftheory.importers.values.refusals import BESIDE, MIRRORED, WHOLE, Unreadable


def reshaped(make: Assembler, value: Value, shape: Sequence[int]) -> Value:
    """A row-major reshape.

    Raises:
      Unreadable: it cuts pixels or channels where no atom of a dimension ends.
    """
    if not isinstance(value, Pixels):
        return value
    return replace(value, dims=reshape(value.dims, shape), parts=())


def transposed(make: Assembler, value: Value, order: Sequence[int]) -> Value:
    """Dimension order[i] in place i."""
    if not isinstance(value, Pixels):
        return value
    parts = [(a, b, transposed(make, part, order)) for a, b, part in value.parts]
    return replace(value, dims=tuple(value.dims[i] for i in order), parts=tuple(parts))


def broadcast(make: Assembler, value: Value, shape: Sequence[int], places: Sequence[int]) -> Value:
    """Dimension i goes to places[i]; the others, and those of size 1, are copies."""
    if not isinstance(value, Pixels):
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
    """Entries start, start + stride, … before limit, one of each a dimension: channels are picked,
    pixels cropped and subsampled.

    Raises:
      Unreadable: a slice of blocks of the image, or through one of several listed maps.
    """
    if isinstance(value, Listed):
        rows = [*zip(starts, limits, strides, value.shape)]
        if any((b, e, s) != (0, n, 1) for i, (b, e, s, n) in enumerate(rows) if i != value.place):
            raise Unreadable(BESIDE)
        first, last, step, _ = rows[value.place]
        if step != 1:
            raise Unreadable(BESIDE)
        return value.cut(first, last)
    if not isinstance(value, Pixels):
        return value
    back = [i for i, d in enumerate(value.dims) if len(d) == 1 and d[0].axis >= 0 > d[0].step]
    if back:  # in the image's own order
        starts, limits = list(starts), list(limits)
        for i in back:
            last = starts[i] + (limits[i] - 1 - starts[i]) // strides[i] * strides[i]
            starts[i], limits[i] = value.shape[i] - 1 - last, value.shape[i] - starts[i]
        found = sliced(make, _reversed(value, back), starts, limits, strides)
        return _reversed(found, back) if isinstance(found, Pixels) else found
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
        if not isinstance(value, Pixels):
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


def cut(make: Assembler, value: Value, axis: int, start: int, end: int, step: int = 1) -> Value:
    """Entries start, start + step, … before `end` of a dimension."""
    if not isinstance(value, Pixels | Listed):
        return value
    first, last, stride = [0] * len(value.shape), list(value.shape), [1] * len(value.shape)
    first[axis], last[axis], stride[axis] = start, end, step
    return sliced(make, value, first, last, stride)


def parted(make: Assembler, value: Value, axis: int, sizes: Sequence[int]) -> list[Value]:
    """Pieces of some sizes, one after the other."""
    ends = np.cumsum([0, *sizes]).tolist()
    return [cut(make, value, axis, a, b) for a, b in zip(ends, ends[1:])]


def _split(
    make: Assembler, value: Pixels, axis: int, start: int, limit: int, stride: int
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
    return concat(make, pieces, axis, [length(d) for d in dims])


def padded(
    make: Assembler, value: Value, config: Sequence[tuple[int, int, int]], own: bool = False
) -> Value:
    """`config` is (before, after, between) a dimension, negative ones crop; `own` as in `moved`."""
    if not isinstance(value, Pixels):
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
        return slide(make, value, rows, sizes, count, count, ones)
    n = make.ndim
    before, after = [0] * n, [0] * n
    sizes = [value.size(a) for a in range(n)]
    for i in along:
        a = value.dims[i][0].axis
        before[a], after[a], _ = config[i]
        sizes[a] = shape[i]
    return make.moved(value, before, after, (1,) * n, sizes, own)


def reversed_(make: Assembler, value: Value, axes: Sequence[int]) -> Value:
    """Entries of some dimensions in reverse order: pixels are mirrored until turned back."""
    if not isinstance(value, Pixels) or not any(spatial(value.dims[i]) for i in axes):
        return value
    if any(folded(value, i) for i in axes):
        value = make.settle(value)
        return reversed_(make, value, axes)
    if value.cropped:  # padding by reflection
        return replace(value, flipped=True)
    if any(spatial(value.dims[i]) and len(value.dims[i]) > 1 for i in axes):
        raise Unreadable(MIRRORED)
    return _reversed(value, axes)


def _reversed(value: Pixels, axes: Sequence[int]) -> Pixels:
    dims = list(value.dims)
    for i in axes:
        dims[i] = tuple(a._replace(step=-a.step) if a.axis >= 0 else a for a in dims[i])
    return replace(value, dims=tuple(dims), parts=())


def taken(make: Assembler, value: Value, indices: Constant, axis: int) -> Value:
    """Entries `indices` along an array dimension, in whose place the table's dimensions stand."""
    if not isinstance(value, Pixels):
        return value
    if len(indices.shape) != 1:
        if spatial(value.dims[axis]) and len(indices.shape) == 2:
            return unfolded(make, value, indices, axis)
        if spatial(value.dims[axis]):
            raise Unreadable("single pixels picked from the image")
        new = tuple(plain(CHANNEL, n) for n in indices.shape)
        return make.select(value, (*value.dims[:axis], *new, *value.dims[axis + 1 :]))
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
    return resize(make, value, atom.axis, selection(places, atom.size))


































def tiled(make: Assembler, value: Value, times: Sequence[int]) -> Value:
    """A value beside itself, so many times along each dimension."""
    if not isinstance(value, Pixels):
        return value
    dims = []
    for dim, n in zip(value.dims, map(int, times)):
        if n > 1 and spatial(dim):
            raise Unreadable("an image repeated beside itself")
        if n > 1:
            dim = plain(CHANNEL, length(dim) * n) if dim else plain(COPY, n)
        dims.append(dim)
    return make.select(value, tuple(dims))


def largest(make: Assembler, value: Value, axis: int, count: int) -> Value:
    """So many of the entries along a dimension, by their size."""
    if isinstance(value, Pixels):
        if spatial(value.dims[axis]):
            raise Unreadable(WHOLE)
        dims = list(value.dims)
        dims[axis] = plain(CHANNEL, count)
        value = make.select(value, tuple(dims))
    return make.pointwise(value, "other")
