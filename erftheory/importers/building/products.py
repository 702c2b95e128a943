"""Sums of products: contractions with constants, and of pixels with pixels (attention)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from erftheory.importers.building.assemble import Assembler
from erftheory.importers.building.elementwise import ranked
from erftheory.importers.building.movement import transposed
from erftheory.importers.building.patches import blocked
from erftheory.importers.building.resizing import resize
from erftheory.importers.building.whole import ATTENTION
from erftheory.importers.values.dimensions import CHANNEL, Atom, Dim, join, plain, spatial
from erftheory.importers.values.pixels import Constant, Global, Pixels, Value
from erftheory.importers.values.refusals import Unreadable
from erftheory.network.endless import Along
from erftheory.network.graph import Sum
from erftheory.network.imported import Spatial
from erftheory.network.kernel import Kernel
from erftheory.network.layers import Step


def contracted(make: Assembler, a: Value, b: Value, numbers: Any, shape: Sequence[int]) -> Value:
    """A product summed over dimensions; `numbers` are those of `lax.dot_general`."""
    (left, right), (left_batch, right_batch) = numbers
    if not isinstance(a, Constant) and not isinstance(b, Constant):
        return _both(make, a, b, numbers, shape)
    first = not isinstance(a, Constant)
    value, other = (a, b) if first else (b, a)
    axes, batch = (left, left_batch) if first else (right, right_batch)
    matrix_axes = (*right, *right_batch) if first else (*left, *left_batch)
    assert isinstance(other, Constant)
    free = [n for i, n in enumerate(other.shape) if i not in matrix_axes]
    if isinstance(value, Global):
        return value.mix()
    assert isinstance(value, Pixels)
    kept = [i for i in range(len(value.dims)) if i not in axes]
    resized = _resize(make, value, other, axes, right if first else left, batch)
    if resized is not None:
        found, new = resized, [resized.dims[axes[0]]]
        rest = {i: found.dims[i] for i in kept}
    else:
        along, beside = (right, right_batch) if first else (left, left_batch)
        own = None if beside else partial(_matrix, other, along)
        dense = make.dense(value, axes, free, own)
        if not isinstance(dense, Pixels):
            return dense
        found = dense
        rest = dict(zip(kept, found.dims))
        new = list(found.dims[len(kept) :])
    heads = [rest[i] for i in batch]
    tail = [rest[i] for i in kept if i not in batch]
    dims = (*heads, *tail, *new) if first else (*heads, *new, *tail)
    return replace(found, dims=tuple(dims))


def _matrix(constant: Constant, axes: Sequence[int]) -> np.ndarray | None:
    """A contraction's constant as an array (*axes, out)."""
    known = constant.get()
    if known is None:
        return None
    known = np.moveaxis(known, list(axes), range(len(axes)))
    return known.reshape(*known.shape[: len(axes)], -1)


def _resize(make, value: Pixels, other: Constant, axes, along, batch) -> Pixels | None:
    """Contraction of one axis of the image with a known matrix, if it is one."""
    if len(axes) != 1 or batch or len(other.shape) != 2:
        return None
    dim = value.dims[axes[0]]
    if len(dim) != 1 or dim[0].axis < 0 or dim[0].size != value.size(dim[0].axis):
        return None
    known = other.get()
    if known is None:
        return None
    matrix = np.asarray(known, dtype=np.float64)
    matrix = matrix.T if along[0] == 0 else matrix
    if min(matrix.shape) > 1 and np.count_nonzero(matrix) > matrix.size // 2 > 8:
        return None  # dense: every output reads the whole image
    return resize(make, value, dim[0].axis, matrix)


def _both(make: Assembler, a: Value, b: Value, numbers: Any, shape: Sequence[int]) -> Value:
    """Contraction of two values that depend on the image."""
    (left, right), (left_batch, right_batch) = numbers
    if not (isinstance(a, Pixels) and isinstance(b, Pixels)):
        pixels = next((v for v in (a, b) if isinstance(v, Pixels)), None)
        if pixels is None:
            return make.mixed_pixels(a, b)
        axes = left if pixels is a else right
        held = b if pixels is a else a
        if any(spatial(pixels.dims[i]) for i in axes):
            return make.mixed_pixels(a, b)
        batch = left_batch if pixels is a else right_batch
        heads = [pixels.dims[i] for i in batch]
        tail = [d for i, d in enumerate(pixels.dims) if i not in (*axes, *batch)]
        extra = len(shape) - len(heads) - len(tail)
        free = shape[-extra:] if pixels is a else shape[len(heads) : len(heads) + extra]
        new = [plain(CHANNEL, n) for n in (free if extra else ())]
        dims = (*heads, *tail, *new) if pixels is a else (*heads, *new, *tail)
        mixed = make.merge("mul", make.select(pixels, dims), held.mix())  # type: ignore[arg-type]
        return mixed
    if _aligned(a, left_batch) and _aligned(b, right_batch):
        heads = [a.dims[i] for i in left_batch]
        rest = [d for i, d in enumerate(a.dims) if i not in (*left, *left_batch)]
        more = [d for i, d in enumerate(b.dims) if i not in (*right, *right_batch)]
        dims = (*heads, *rest, *more)
        thin = tuple(d if spatial(d) else () for d in dims)
        joined = make.merge("mul", replace(a, dims=thin, parts=()), replace(b, dims=thin, parts=()))
        assert isinstance(joined, Pixels)
        return replace(joined, dims=dims)
    return _attended(make, a, b, numbers)


def _aligned(pixels: Pixels, batch: Sequence[int]) -> bool:
    """True if all pixels lie in batch dimensions: each pixel is contracted alone."""
    return not any(spatial(d) for i, d in enumerate(pixels.dims) if i not in batch)


def _attended(make: Assembler, a: Pixels, b: Pixels, numbers: Any) -> Value:
    """A contraction of pixels with pixels: within blocks where blocks are its batch, else
    over the whole image."""
    (left, right), (left_batch, right_batch) = numbers
    if make.jump(a.node) != make.jump(b.node):  # windows that overlap beside blocks
        a, b = (blocked(make, v) if _in_blocks(v) else v for v in (a, b))
        if make.jump(a.node) != make.jump(b.node):
            return make.mixed_pixels(a, b)
    block, whole = [1] * make.ndim, set()
    for pixels, batch in ((a, left_batch), (b, right_batch)):
        inner = [d for i, d in enumerate(pixels.dims) if i not in batch]
        axes = {x.axis for d in inner for x in d if x.axis >= 0 and x.size > 1}
        whole |= {axis for axis in axes if not make.fragment(pixels, axis, inner)}
        for axis in axes:
            size = math.prod(x.size for d in inner for x in d if x.axis == axis)
            block[axis] = max(block[axis], size)
    alone = all(
        x.axis in whole or x.size == 1 for s in (a, b) for d in s.dims for x in d if x.axis >= 0
    )
    if whole and (alone or make.hold == "global"):
        return make.mixed_pixels(a, b)
    block = [1 if axis in whole else size for axis, size in enumerate(block)]
    a, b = make.flush(a), make.flush(b)
    node = a.node if a.node == b.node else make.add(Sum(None, None), a.node, b.node)
    size, nothing, ones = tuple(block), (0,) * make.ndim, (1,) * make.ndim
    down = Step(Kernel(size), size, ones, nothing, nothing, kind="routing")
    up = Step(Kernel(size), size, ones, nothing, nothing, up=True, kind="routing")
    if max(block) > 1:
        node = make.add(Spatial("all of a window", down), node)
        node = make.add(Spatial("to all of a window", up), node)
    if whole:
        axes = tuple(sorted(whole))
        node = make.along(node, axes, (), Along(ATTENTION, axes)).node
    heads = [a.dims[i] for i in left_batch]
    rest = [d for i, d in enumerate(a.dims) if i not in (*left, *left_batch)]
    more = [d for i, d in enumerate(b.dims) if i not in (*right, *right_batch)]
    if any(spatial(d) for d in rest):  # keys: pixels of the window that each query has in it
        more = [_as_channels(d) for d in more]
    return Pixels(node, (*heads, *rest, *more))


def _in_blocks(pixels: Pixels) -> bool:
    """Whether places within the blocks of some axis have a dimension of their own."""
    return any(a.axis >= 0 and a.step > 1 for d in pixels.dims for a in d)


def _as_channels(dim: Dim) -> Dim:
    return join([Atom(CHANNEL, 1, a.size) for a in dim])


def matmul(make: Assembler, a: Value, b: Value) -> Value:
    """A product of matrices in the last two dimensions, as NumPy's `matmul`."""
    if isinstance(a, Global) or isinstance(b, Global):
        return make.mixed_pixels(a, b)
    rank = max(len(a.shape), len(b.shape))
    if isinstance(a, Pixels) and isinstance(b, Pixels):
        a, b = ranked(a, rank), ranked(b, rank)
        batch = list(range(rank - 2))
        return contracted(make, a, b, (([rank - 1], [rank - 2]), (batch, batch)), ())
    if len((b if isinstance(a, Pixels) else a).shape) != 2:
        raise Unreadable("a product with a stack of matrices")
    if isinstance(a, Pixels):
        return contracted(make, a, b, (([len(a.dims) - 1], [0]), ([], [])), ())
    assert isinstance(b, Pixels)
    found = contracted(make, a, b, (([1], [len(b.dims) - 2]), ([], [])), ())
    if not isinstance(found, Pixels):
        return found
    first, *heads, last = found.dims
    return replace(found, dims=(*heads, first, last))


def einsum(make: Assembler, equation: str, inputs: Sequence[Value]) -> Value:
    """A sum of products of two values: a contraction, then a transposition."""
    terms, _, out = equation.replace(" ", "").partition("->")
    labels = terms.split(",")
    plainly = all(len(set(t)) == len(t) == len(v.shape) for t, v in zip(labels, inputs))
    if len(labels) != 2 or not out or not plainly:  # diagonals, ellipses, more than two
        raise Unreadable(f"the sum {equation!r}")
    a, b = labels
    batch = [c for c in a if c in b and c in out]
    summed = [c for c in a if c in b and c not in out]
    order = [*batch, *(c for c in a if c not in b), *(c for c in b if c not in a)]
    if set(order) != set(out):
        raise Unreadable(f"the sum {equation!r}")
    sizes = {c: n for t, v in zip(labels, inputs) for c, n in zip(t, v.shape)}
    numbers = tuple(tuple([t.index(c) for c in part] for t in labels) for part in (summed, batch))
    shape = [sizes[c] for c in order]
    found = contracted(make, inputs[0], inputs[1], numbers, shape)
    return transposed(make, found, [order.index(c) for c in out])


def softmax(make: Assembler, value: Value, axes: Sequence[int]) -> Value:
    """Entries by their share of a sum over dimensions: attention, where those are pixels."""
    if isinstance(value, Pixels) and any(spatial(value.dims[i]) for i in axes):
        return make.mixed_pixels(value)
    return make.pointwise(value, "other")
