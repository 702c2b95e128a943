"""ATen operations that move entries of an array: views, slices, joins, indices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from erftheory.importers.building import movement
from erftheory.importers.building.elementwise import ranked
from erftheory.importers.building.joining import concat
from erftheory.importers.building.operation import of_pixels
from erftheory.importers.torch.values import constant, listed
from erftheory.importers.values.dimensions import CHANNEL, plain, spatial
from erftheory.importers.values.pixels import Constant, Global, Listed, Pixels
from erftheory.importers.values.refusals import Unreadable
from erftheory.network.imported import OWN_PIXELS


def _shaped(make, out, x, *args, **more):
    return movement.reshaped(make, x, out)


def _permuted(make, out, x, order):
    rank = len(out)
    return movement.transposed(make, x, [int(a) % rank for a in order])


def _swapped(make, out, x, a=0, b=1):
    order = list(range(len(out)))
    if order:
        order[a], order[b] = order[b], order[a]
    return movement.transposed(make, x, order)


def _reversed_order(make, out, x):
    return movement.transposed(make, x, range(len(out))[::-1])


def _moved(make, out, x, source, target):
    rank = len(out)
    source, target = listed([source], rank) if isinstance(source, int) else listed(source, rank), \
        listed([target], rank) if isinstance(target, int) else listed(target, rank)
    rest = iter([a for a in range(rank) if a not in source])
    order = [source[target.index(a)] if a in target else next(rest) for a in range(rank)]
    return movement.transposed(make, x, order)


@of_pixels
def _unsqueezed(make, out, x, axis):
    axis %= len(out)
    return replace(x, dims=(*x.dims[:axis], (), *x.dims[axis:]), parts=())


@of_pixels
def _expanded(make, out, x, *args, **more):
    return movement.broadcast(make, ranked(x, len(out)), out, range(len(out)))


def _repeated(make, out, x, times):
    times = [1] * (len(out) - len(times)) + list(times)
    return movement.tiled(make, ranked(x, len(out)), times)


@of_pixels
def _interleaved(make, out, x, times, axis=None, output_size=None):
    if not isinstance(times, int) or axis is None:
        raise Unreadable("entries repeated by unequal numbers")
    axis %= len(out)
    wide = _unsqueezed(make, (*out, 1), x, axis + 1)
    shape = (*out[:axis], x.shape[axis], times, *out[axis + 1 :])
    return movement.reshaped(make, _expanded(make, shape, wide), out)


def _joined(make, out, values, axis=0):
    # an empty tensor in front is PyTorch's way to start a list
    values = [v for v in values if not (isinstance(v, Constant) and v.shape == (0,))]
    return concat(make, values, int(axis) % max(len(out), 1), out)


def _stacked(make, out, values, axis=0):
    axis = int(axis) % len(out)
    wide = []
    for v in values:
        if isinstance(v, Constant):
            v = Constant((*v.shape[:axis], 1, *v.shape[axis:]))
        wide.append(_unsqueezed(make, out, v, axis))
    return concat(make, wide, axis, out)


def _parts(make, out, x, sizes=None, axis=0, *more):
    """Pieces whose sizes the result's shapes tell."""
    return movement.parted(make, x, int(axis), [shape[axis] for shape in out])


@of_pixels
def _selected(make, out, x, axis, index):
    axis, n = axis % len(x.dims), x.shape[axis % len(x.dims)]
    index %= n
    piece = movement.cut(make, x, axis, index, index + 1)
    if not isinstance(piece, Pixels):
        return Constant(out)
    if not spatial(piece.dims[axis]):
        return replace(piece, dims=(*piece.dims[:axis], *piece.dims[axis + 1 :]), parts=())
    free = next((i for i, d in enumerate(piece.dims) if not d), None)
    if free is None:
        return movement.reshaped(make, piece, out)
    # the pixel's axis stays, beside the dimensions of the others
    dims = [piece.dims[axis] if i == free else d for i, d in enumerate(piece.dims) if i != axis]
    return replace(piece, dims=tuple(dims), parts=())


def _unbound(make, out, x, axis=0):
    return [_selected(make, shape, x, axis, i) for i, shape in enumerate(out)]


def _sliced(make, out, x, axis=0, start=None, end=None, step=1):
    if not isinstance(x, Pixels | Listed):
        return x
    axis %= len(x.shape)
    span = range(*slice(start, end, step).indices(x.shape[axis]))
    return movement.cut(make, x, axis, span.start, max(span.start, span.stop), step)


def _narrowed(make, out, x, axis, start, length):
    if not isinstance(x, Pixels | Listed):
        return x
    axis %= len(x.shape)
    start %= x.shape[axis]
    return movement.cut(make, x, axis, start, start + length)


@of_pixels
def _index_select(make, out, x, axis, index):
    return movement.taken(make, x, constant(index, "indices"), int(axis) % len(x.dims))


@of_pixels
def _indexed(make, out, x, indices):
    """x[:, a, b]: tables of constants, each of one dimension or along its own."""
    tables = {i: constant(t, "indices") for i, t in enumerate(indices) if t is not None}
    places = list(tables)
    if len(places) == 1:
        (place,) = places
        return movement.taken(make, x, _positions(tables[place]), place)
    if not any(spatial(x.dims[p]) for p in places):
        if places != list(range(places[0], places[-1] + 1)):
            raise Unreadable("entries picked from dimensions that are apart")
        count = len(out) - len(x.dims) + len(places)
        new = tuple(plain(CHANNEL, n) for n in out[places[0] : places[0] + count])
        return make.select(x, (*x.dims[: places[0]], *new, *x.dims[places[-1] + 1 :]))
    rank = max(len(t.shape) for t in tables.values())
    axes = [_only_axis(t.shape, rank) for t in tables.values()]
    if axes != list(range(rank)) or places != list(range(places[0], places[0] + rank)):
        raise Unreadable("single pixels picked from the image")
    for place, table in tables.items():
        found = _positions(table)
        line = Constant((max(1, int(np.prod(found.shape))),), lambda t=found: _raveled(t))
        x = movement.taken(make, x, line, place)
    return x


def _positions(table: Constant) -> Constant:
    """A mask of one dimension is the list of its entries."""
    known = table.get()
    if known is None or known.dtype != bool:
        return table
    if known.ndim != 1:
        raise Unreadable("pixels picked by a mask of the image")
    found = np.flatnonzero(known)
    return Constant(found.shape, lambda: found)


def _raveled(table: Constant) -> np.ndarray | None:
    known = table.get()
    return None if known is None else np.ravel(known)


def _only_axis(shape: Sequence[int], rank: int) -> int:
    """The one dimension along which an index varies, of `rank` after broadcasting."""
    long = [i + rank - len(shape) for i, n in enumerate(shape) if n > 1]
    return long[0] if len(long) == 1 else -1


@of_pixels
def _rolled(make, out, x, shifts, axes=()):
    shifts = [shifts] if isinstance(shifts, int) else shifts
    axes = [axes] if isinstance(axes, int) else axes
    if not axes:
        raise Unreadable("a roll of all dimensions as one")
    for shift, axis in zip(shifts, axes):
        axis %= len(out)
        n = out[axis]
        shift %= n
        if shift:
            pieces = movement.parted(make, x, axis, (n - shift, shift))[::-1]
            x = concat(make, pieces, axis, out)
    return x


def _flipped(make, out, x, axes):
    return movement.reversed_(make, x, listed(axes, len(out)))


@of_pixels
def _padded(make, out, x, pads, mode="constant", fill=None):
    own = mode != "constant"
    if own:
        make.note(OWN_PIXELS)
    config = [(0, 0, 0)] * len(x.dims)
    for i in range(len(pads) // 2):
        config[len(x.dims) - 1 - i] = (int(pads[2 * i]), int(pads[2 * i + 1]), 0)
    return movement.padded(make, x, config, own)


def _own_pad(make, out, x, pads):
    return _padded(make, out, x, pads, "own")


@of_pixels
def _shuffled(make, out, x, r):
    """Channels to pixels: (…, c·r², h, w) to (…, c, h·r, w·r)."""
    *rest, c, h, w = x.shape
    n = len(rest)
    x = movement.reshaped(make, x, (*rest, c // r // r, r, r, h, w))
    order = (*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return movement.reshaped(make, movement.transposed(make, x, order), out)


@of_pixels
def _unshuffled(make, out, x, r):
    *rest, c, h, w = x.shape
    n = len(rest)
    x = movement.reshaped(make, x, (*rest, c, h // r, r, w // r, r))
    order = (*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return movement.reshaped(make, movement.transposed(make, x, order), out)


@of_pixels
def _channels_shuffled(make, out, x, groups):
    n, c, *rest = x.shape
    x = movement.reshaped(make, x, (n, groups, c // groups, *rest))
    return movement.reshaped(make, _swapped(make, x.shape, x, 1, 2), out)


def _gathered(make, out, x, axis, index, **more: Any):
    if isinstance(x, Pixels) and not spatial(x.dims[axis]):
        raise Unreadable("entries picked one by one")
    if isinstance(x, Global):
        return x
    raise Unreadable("single pixels picked from the image")


_SHAPED = (
    "view", "reshape", "_unsafe_view", "unflatten", "flatten", "squeeze", "view_as", "reshape_as",
    "ravel",
)  # fmt: skip
RULES: dict[str, Callable] = {
    **dict.fromkeys(_SHAPED, _shaped),
    "permute": _permuted, "transpose": _swapped, "t": _swapped, "swapaxes": _swapped,
    "swapdims": _swapped, "mT": lambda make, out, x: _swapped(make, out, x, -1, -2),
    "adjoint": lambda make, out, x: _swapped(make, out, x, -1, -2),
    "numpy_T": _reversed_order, "movedim": _moved, "moveaxis": _moved,
    "unsqueeze": _unsqueezed, "expand": _expanded, "expand_as": _expanded,
    "broadcast_to": _expanded, "repeat": _repeated, "tile": _repeated,
    "repeat_interleave": _interleaved, "cat": _joined, "concat": _joined, "concatenate": _joined,
    "stack": _stacked, "chunk": _parts, "split": _parts, "split_with_sizes": _parts,
    "tensor_split": _parts, "unsafe_chunk": _parts, "unsafe_split": _parts, "unbind": _unbound,
    "select": _selected, "slice": _sliced, "narrow": _narrowed, "index_select": _index_select,
    "index": _indexed, "roll": _rolled, "flip": _flipped, "pad": _padded,
    "constant_pad_nd": lambda make, out, x, pads, fill=0: _padded(make, out, x, pads),
    "pixel_shuffle": _shuffled, "pixel_unshuffle": _unshuffled,
    "channel_shuffle": _channels_shuffled, "gather": _gathered,
}  # fmt: skip
RULES |= {f"{kind}_pad{n}d": _own_pad for kind in ("reflection", "replication") for n in (1, 2, 3)}
# results that share memory with their argument
VIEWS = frozenset((
    *_SHAPED, "permute", "transpose", "t", "unsqueeze", "expand", "expand_as", "chunk", "split",
    "split_with_sizes", "unbind", "select", "slice", "narrow", "movedim", "swapaxes", "detach",
    "alias", "unfold", "mT", "numpy_T",
))  # fmt: skip
