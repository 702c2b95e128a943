"""Patches that a model picks pixel by pixel: `unfold`, and tables of indices."""

from __future__ import annotations

import numpy as np

from erftheory.importers.assemble import Assembler
from erftheory.importers.signals import CHANNEL, Constant, Signal, Unreadable, plain
from erftheory.network.imported import Spatial
from erftheory.network.kernel import Kernel
from erftheory.network.layers import Step


def unfolded(
    make: Assembler, value: Signal, indices: Constant, axis: int, by_row: bool | None = None
) -> Signal:
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

    after = s * (count - 1) + d * (k - 1) + 1 - atom.size + first
    rule = Step(
        Kernel(spread(k, 1)), spread(s, 1), spread(d, 1), spread(-first, 0), spread(after, 0),
        kind="routing",
    )  # fmt: skip
    make.note("patches picked pixel by pixel: what reads some pixels of one is read as reading all")
    node = make.add(Spatial("patches", rule, max(1, value.channels * k)), value.node)
    patches, pixels = plain(atom.axis, count), plain(CHANNEL, k)
    new = (patches, pixels) if by_row else (pixels, patches)
    return Signal(node, (*value.dims[:axis], *new, *value.dims[axis + 1 :]))
