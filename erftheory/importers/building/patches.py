"""Patches and blocks: pixels that became channels.

A model picks patches pixel by pixel (`unfolded`), or folds blocks into channels (a space to depth).
Until an operation mixes them, channels know which pixels they are, so some of them can be picked (a
split after a squeeze, every other phase) without the rest of the block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from erftheory.importers.building.pointwise import Pointwise
from erftheory.importers.values.dimensions import CHANNEL, Atom, join, length, plain
from erftheory.importers.values.pixels import Constant, Pixels
from erftheory.importers.values.refusals import TOKENS, Unreadable
from erftheory.network.imported import Spatial
from erftheory.network.kernel import Kernel, line_span
from erftheory.network.layers import Step


def unfolded(
    make: Pointwise, value: Pixels, indices: Constant, axis: int, by_row: bool | None = None
) -> Pixels:
    """Patches along an array dimension: a table of indices first + s·patch + d·pixel of it.

    The table's two dimensions, in its order, take the place of `axis`: patches, and channels; each
    row is a patch if `by_row`, which the numbers tell if it is None.
    """
    known = indices.get()
    value = make.flush(make.settle(value))
    if known is None or min(indices.shape) < 1:
        raise Unreadable("pixels picked by indices that are not known")
    atom = value.dims[axis][0]
    table = np.where(np.asarray(known) < 0, np.asarray(known) + atom.size, known).astype(int)
    (rows, columns), first = table.shape, int(table[0, 0])
    down = int(table[1, 0]) - first if rows > 1 else atom.size
    right = int(table[0, 1]) - first if columns > 1 else atom.size
    regular = first + down * np.arange(rows)[:, None] + right * np.arange(columns)
    if (table != regular).any() or min(down, right) < 1:
        raise Unreadable("single pixels picked from the image")
    # patches are more than a patch has pixels, unless they do not overlap
    if by_row is None:
        by_row = down >= right * columns or (rows >= columns and right < down * rows)
    (count, s), (k, d) = ((rows, down), (columns, right))[:: 1 if by_row else -1]
    s, d = (1 if n == 1 else v for n, v in ((count, s), (k, d)))

    def spread(mine: int, others: int) -> tuple[int, ...]:
        return tuple(mine if a == atom.axis else others for a in range(make.ndim))

    after = s * (count - 1) + line_span(k, d) + 1 - atom.size + first
    rule = Step(
        Kernel(spread(k, 1)), spread(s, 1), spread(d, 1), spread(-first, 0), spread(after, 0),
        kind="routing",
    )  # fmt: skip
    make.note("patches picked pixel by pixel: what reads some pixels of one is read as reading all")
    node = make.add(Spatial("patches", rule, max(1, value.channels * k)), value.node)
    patches, pixels = plain(atom.axis, count), plain(CHANNEL, k)
    new = (patches, pixels) if by_row else (pixels, patches)
    return Pixels(node, (*value.dims[:axis], *new, *value.dims[axis + 1 :]))


def folded(pixels: Pixels, i: int) -> bool:
    """Whether array dimension `i` is one of channels that holds places within blocks."""
    coarse = {a.axis for j, d in enumerate(pixels.dims) for a in d if j != i and a.step > 1}
    return any(a.axis >= 0 and a.step == 1 and a.axis in coarse for a in pixels.dims[i])


def picked(make: Pointwise, pixels: Pixels, i: int, index: np.ndarray) -> Pixels:
    """Entries `index` of a folded dimension: of every block the pixels that they hold."""
    dim = pixels.dims[i]
    places = np.unravel_index(np.asarray(index), [a.size for a in dim])
    held = {atom.axis: place for atom, place in zip(dim, places) if atom.axis >= 0}
    found = blocked(make, pixels, held, len(index) / length(dim))
    dims = list(found.dims)
    dims[i] = plain(CHANNEL, len(index))
    return Pixels(found.node, tuple(dims))


def blocked(
    make: Pointwise, pixels: Pixels, held: Mapping[int, np.ndarray] | None = None, part: float = 1.0
) -> Pixels:
    """Blocks of pixels whose places became channels: space to depth.

    `held` has for some axes the places within a block that are looked at, together, and `part` is
    their share of the channels.
    """
    pixels, n, held = make.flush(pixels), make.ndim, held or {}
    block = [1] * n
    for axis in range(n):
        atoms = sorted((a for d in pixels.dims for a in d if a.axis == axis), key=lambda a: a.step)
        if len(atoms) == 2 and atoms[0].step == 1 and atoms[1].step == atoms[0].size:
            block[axis] = atoms[0].size
        elif len(atoms) != 1 or atoms[0].step != 1:
            raise Unreadable(TOKENS)
    mask = np.zeros(block, bool)
    # an axis that is not held takes all its places with each of these
    np.moveaxis(mask, list(held), range(len(held)))[tuple(held.values())] = True
    seen = [np.flatnonzero(mask.any(axis=tuple(b for b in range(n) if b != a))) for a in range(n)]
    first, last = [int(p[0]) for p in seen], [int(p[-1]) for p in seen]
    box = mask[tuple(slice(f, e + 1) for f, e in zip(first, last))]
    kernel = Kernel(box.shape, None if box.all() else tuple(int(v) for v in box.ravel()))
    before, after = tuple(-f for f in first), tuple(e + 1 - b for e, b in zip(last, block))
    step = Step(kernel, tuple(block), (1,) * n, before, after, kind="routing")
    channels = max(1, round(pixels.channels * math.prod(block) * part))
    node = make.add(Spatial("space to depth", step, channels), pixels.node)
    return Pixels(node, tuple(join([_plain(a, block) for a in d]) for d in pixels.dims))


def _plain(atom: Atom, block: Sequence[int]) -> Atom:
    """An atom behind a space to depth: places within blocks are channels."""
    if atom.axis < 0 or block[atom.axis] == 1:
        return atom
    return Atom(CHANNEL if atom.step == 1 else atom.axis, 1, atom.size)
