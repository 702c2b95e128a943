"""Which dimension of an array runs over which axis of the image.

A dimension is a list of atoms, the first varying slowest. A plain spatial dimension is one atom.
A reshape splits and joins atoms, so that patches, windows, tokens and pixel shuffles stay
readable: (H,) → (H/p, p) gives the atoms (axis, p, H/p) and (axis, 1, p).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from erftheory.importers.values.refusals import LAYOUTS, MIRRORED, Unreadable

CHANNEL, BATCH, COPY = -1, -2, -3


class Atom(NamedTuple):
    """A run of `size` indices: along spatial `axis`, `step` pixels apart (backwards where it is
    negative), or not spatial.

    `axis` is CHANNEL, BATCH or COPY (broadcast: all entries are equal) where it is not spatial.
    """

    axis: int
    step: int
    size: int


Dim = tuple[Atom, ...]


def length(dim: Dim) -> int:
    return math.prod(a.size for a in dim)


def plain(axis: int, size: int) -> Dim:
    return (Atom(axis, 1, size),) if size != 1 or axis >= 0 else ()


def spatial(dim: Dim) -> bool:
    return any(a.axis >= 0 for a in dim)


def join(atoms: Sequence[Atom]) -> Dim:
    """Atoms of one dimension, neighbours joined where they run on."""
    result: list[Atom] = []
    for atom in atoms:
        if atom.size == 1 and atom.axis < 0:
            continue
        if result:
            last = result[-1]
            same = last.axis == atom.axis
            if same and atom.axis < 0:
                result[-1] = Atom(atom.axis, 1, last.size * atom.size)
                continue
            if same and (last.step == atom.step * atom.size or 1 in (last.size, atom.size)):
                step = last.step if atom.size == 1 else atom.step
                result[-1] = Atom(atom.axis, step, last.size * atom.size)
                continue
        result.append(atom)
    return tuple(result)


def reshape(dims: Sequence[Dim], shape: Sequence[int]) -> tuple[Dim, ...]:
    """Dimensions after a row-major reshape.

    Raises:
      Unreadable: a dimension is cut where no atom ends.
    """
    queue = [atom for dim in dims for atom in dim]
    result: list[Dim] = []
    for wanted in shape:
        found: list[Atom] = []
        while wanted > 1:
            if not queue:
                raise Unreadable("a reshape to another number of elements")
            atom = queue.pop(0)
            if wanted % atom.size == 0:
                found.append(atom)
                wanted //= atom.size
            elif atom.size % wanted == 0:
                rest = atom.size // wanted
                coarse = atom.step * rest if atom.axis >= 0 else 1
                found.append(Atom(atom.axis, coarse, wanted))
                queue.insert(0, Atom(atom.axis, atom.step, rest))
                wanted = 1
            else:
                raise Unreadable(f"a reshape that cuts {atom.size} pixels or channels unevenly")
        # an axis of one pixel stays with the dimension that holds it
        while queue and queue[0].size == 1 and queue[0].axis >= 0 and not found:
            found.append(queue.pop(0))
        result.append(join(found))
    rest = [a for a in queue if a.size > 1]
    if rest:
        raise Unreadable("a reshape to another number of elements")
    lost = [a for a in queue if a.axis >= 0]
    if lost:
        for index in range(len(result) - 1, -1, -1):
            if not result[index]:
                result[index] = join(lost)
                break
    return tuple(result)


def unite(rows: Sequence[Sequence[Dim]]) -> tuple[Dim, ...]:
    """Dimensions of an elementwise operation on arrays of one shape.

    Raises:
      Unreadable: pixels of one meet channels, or other pixels, of another.
    """
    result: list[Dim] = []
    for dims in zip(*rows):
        ranked = sorted(dims, key=_weight, reverse=True)
        first = ranked[0]
        for other in ranked[1:]:
            if other != first and _weight(other) >= 3:
                raise Unreadable(LAYOUTS if turned(first) == turned(other) else MIRRORED)
        result.append(first)
    return tuple(result)


def turned(dim: Dim) -> bool:
    return any(a.axis >= 0 and a.step < 0 for a in dim)


def _weight(dim: Dim) -> int:
    """3 for pixels, 2 for channels or batch, 1 for copies, 0 for nothing."""
    if spatial(dim):
        return 3
    if any(a.axis in (CHANNEL, BATCH) for a in dim):
        return 2
    return 1 if dim else 0
