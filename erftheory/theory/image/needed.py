"""What a unit reads of every map on the way, not of the input alone.

A shift that a later layer undoes leaves no trace in the receptive field, but what lies between must
exist: on a tile it is padding where the whole image has pixels.
"""

from __future__ import annotations

from fractions import Fraction

from erftheory.theory.image.graph import Flat


def reads(flat: Flat, axis: int, unit: int) -> list[tuple[int, int] | None]:
    """First and last index that one output unit reads of each node's map, as if none ended; None
    of a map that it does not read."""
    found: list[tuple[int, int] | None] = [None] * len(flat.nodes)
    found[-1] = (unit, unit)
    for index in range(len(flat.nodes) - 1, 0, -1):
        node, span = flat.nodes[index], found[index]
        if span is None:
            continue
        before = span if node.step is None else node.step.reads(axis, span)
        if before is None:
            continue
        for source in node.inputs:
            old = found[source]
            found[source] = before if old is None else (
                min(old[0], before[0]), max(old[1], before[1])
            )  # fmt: skip
    return found


def rates(flat: Flat, axis: int) -> list[Fraction]:
    """Input pixels per pixel of each node."""
    found = [Fraction(1)]
    for node in flat.nodes[1:]:
        before = found[node.inputs[0]]
        stride = 1 if node.step is None else node.step.stride[axis]
        found.append(before / stride if node.step is not None and node.step.up else before * stride)
    return found
