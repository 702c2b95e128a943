"""Sizes of an image on which a network runs: found with its own arithmetic of sizes.

Where branches meet, their maps must be equally large. Which sizes allow it repeats with the
network's period, but need not be multiples of it: unpadded layers and crops shift them.
"""

from __future__ import annotations

from collections.abc import Sequence

from erftheory.network.graph import Concat, Graph, Loop, Sum
from erftheory.network.layers import Layer
from erftheory.theory.image.matrices import Shape, size_after

Sizes = tuple[int | None, ...]  # pixels an axis; None where an image does not fit


class Fitting:
    """The sizes that fit some graphs, which repeat every `grid` pixels, one entry an axis."""

    def __init__(self, graphs: Sequence[Graph], grid: tuple[int, ...]):
        self.graphs, self.grid = graphs, grid
        self._known: dict[int, tuple[bool, ...]] = {}

    def fits(self, n: int) -> tuple[bool, ...]:
        """For each axis, whether n pixels there leave output and let branches meet."""
        if n not in self._known:
            ends = [size_behind(graph, (n,) * len(self.grid)) for graph in self.graphs]
            self._known[n] = tuple(all(e is not None for e in axis) for axis in zip(*ends))
        return self._known[n]

    def near(self, axis: int, n: int, most: int) -> tuple[int | None, int | None]:
        """The nearest sizes below and above n, up to `most`, that fit; None where there is none."""
        period = self.grid[axis]
        below = (k for k in range(n - 1, max(0, n - period - 1), -1) if self.fits(k)[axis])
        above = (k for k in range(n + 1, most + 1) if self.fits(k)[axis])
        return next(below, None), next(above, None)

    def residues(self, axis: int, n: int) -> tuple[int, ...]:
        """What sizes that fit leave modulo the period, n being one of them."""
        period = self.grid[axis]
        return tuple(sorted(k % period for k in range(n, n + period) if self.fits(k)[axis]))


def size_behind(graph: Graph, image: Sizes) -> Sizes:
    """Pixels of the output, one entry an axis; None on axes where the image does not fit."""
    sizes: list[Sizes] = [image]
    for node in graph.nodes[1:]:
        reads = [sizes[i] for i in node.inputs]
        if isinstance(node.op, Sum | Concat):
            found = tuple(axis[0] if len(set(axis)) == 1 else None for axis in zip(*reads))
        elif isinstance(node.op, Loop):
            found = _repeated(node.op, reads[0])
        else:
            assert isinstance(node.op, Layer)
            found = _layer(node.op, graph.ndim, reads[0])
        sizes.append(found)
    return sizes[-1]


def _layer(op: Layer, ndim: int, before: Sizes) -> Sizes:
    whole: Shape = tuple(n or 0 for n in before)
    after = size_after(op, op.step(ndim), whole, "zeros")
    return tuple(None if n is None or m < 1 else m for n, m in zip(before, after))


def _repeated(op: Loop, size: Sizes) -> Sizes:
    for done in range(op.times):
        after = size_behind(op.graph, size)
        if after == size or None in after:
            return after
        change = [(b or 0) - (a or 0) for a, b in zip(size, after)]
        if not op.graph.resamples and done + 1 < op.times:  # every round takes or adds as much
            left = op.times - done - 1
            last = [(b or 0) + (left - 1) * c for b, c in zip(after, change)]
            return size_behind(op.graph, tuple(n if n >= 1 else None for n in last))
        size = after
    return size
