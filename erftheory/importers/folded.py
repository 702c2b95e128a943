"""Channels that hold pixels: places within the blocks of a space to depth.

Until an operation mixes them, channels know which pixels they are, so some of them can be picked (a
split after a squeeze, every other phase) without the rest of the block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from erftheory.importers.signals import (
    CHANNEL,
    TOKENS,
    Atom,
    Signal,
    Unreadable,
    join,
    length,
    plain,
)
from erftheory.network.imported import Spatial
from erftheory.network.kernel import Kernel
from erftheory.network.layers import Step

if TYPE_CHECKING:
    from erftheory.importers.pointwise import Pointwise


def folded(signal: Signal, i: int) -> bool:
    """Whether array dimension `i` is one of channels that holds places within blocks."""
    coarse = {a.axis for j, d in enumerate(signal.dims) for a in d if j != i and a.step > 1}
    return any(a.axis >= 0 and a.step == 1 and a.axis in coarse for a in signal.dims[i])


def picked(make: Pointwise, signal: Signal, i: int, index: np.ndarray) -> Signal:
    """Entries `index` of a folded dimension: of every block the pixels that they hold."""
    dim = signal.dims[i]
    places = np.unravel_index(np.asarray(index), [a.size for a in dim])
    held = {atom.axis: place for atom, place in zip(dim, places) if atom.axis >= 0}
    found = blocked(make, signal, held, len(index) / length(dim))
    dims = list(found.dims)
    dims[i] = plain(CHANNEL, len(index))
    return Signal(found.node, tuple(dims))


def blocked(
    make: Pointwise, signal: Signal, held: Mapping[int, np.ndarray] | None = None, part: float = 1.0
) -> Signal:
    """Blocks of pixels whose places became channels: space to depth.

    `held` has for some axes the places within a block that are looked at, together, and `part` is
    their share of the channels.
    """
    signal, n, held = make.flush(signal), make.ndim, held or {}
    block = [1] * n
    for axis in range(n):
        atoms = sorted((a for d in signal.dims for a in d if a.axis == axis), key=lambda a: a.step)
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
    channels = max(1, round(signal.channels * math.prod(block) * part))
    node = make.add(Spatial("space to depth", step, channels), signal.node)
    return Signal(node, tuple(join([_plain(a, block) for a in d]) for d in signal.dims))


def _plain(atom: Atom, block: Sequence[int]) -> Atom:
    """An atom behind a space to depth: places within blocks are channels."""
    if atom.axis < 0 or block[atom.axis] == 1:
        return atom
    return Atom(CHANNEL if atom.step == 1 else atom.axis, 1, atom.size)
