"""Which pixels of every node one output unit reads: its cone, as index windows.

All nodes live on the unbounded plane, so nothing is padded: a layer that computes the window
[first, last] of its output reads the window [s·first − p, s·last + d(k−1) − p] of its input.
"""

from __future__ import annotations

from dataclasses import dataclass

from erftheory.network.graph import Graph, Loop
from erftheory.network.layers import Layer, Step

Window = tuple[tuple[int, int], ...]  # first and last pixel, one pair an axis


@dataclass(frozen=True)
class Cone:
    """The windows of a graph's nodes; for every `Loop` node, by index, a cone an iteration."""

    windows: tuple[Window, ...]
    loops: dict[int, tuple[Cone, ...]]

    @property
    def source(self) -> Window:
        return self.windows[0]


def cone_of(graph: Graph, out: Window) -> Cone:
    """Windows of all nodes that the output pixels `out` read.

    Raises:
      ValueError: a global operation, or a path that reaches no input (see `read_by`).
    """
    if graph.has_global:
        raise ValueError(
            "network: got a receptive field without end (a global mean, attention, a recurrence); "
            "takes a network whose field ends, see until() and receptive_field(network).unbounded"
        )
    return _cone(graph, out)


def _cone(graph: Graph, out: Window) -> Cone:
    found: list[Window | None] = [None] * len(graph.nodes)
    found[-1] = out
    loops: dict[int, tuple[Cone, ...]] = {}
    for index in range(len(graph.nodes) - 1, 0, -1):
        node, window = graph.nodes[index], found[index]
        assert window is not None  # every node of a graph leads to its output
        op = node.op
        if isinstance(op, Loop):
            rows = []
            for _ in range(op.times):
                rows.append(_cone(op.graph, window))
                window = rows[-1].source
            loops[index] = tuple(reversed(rows))
        else:
            step = op.step(graph.ndim) if isinstance(op, Layer) else None
            window = window if step is None else read_by(step, window, repr(op))
        for i in node.inputs:
            found[i] = _hull(found[i], window)
    return Cone(tuple(w for w in found if w is not None), loops)


def read_by(step: Step, out: Window, name: str = "a layer") -> Window:
    """The input window that a step's output window reads.

    Raises:
      ValueError: along an axis it reads nothing.
    """
    rows = [step.reads(axis, ends) for axis, ends in enumerate(out)]
    found = tuple(ends for ends in rows if ends is not None)
    if len(found) < len(out):
        raise ValueError(
            f"network: got an output unit that reads nothing at {name} (kernel smaller than the "
            "stride); takes a unit that every path reaches"
        )
    return found


def forward(graph: Graph, source: Window) -> Cone:
    """Largest windows that `source` determines, for a graph that does not resample."""
    found = [source]
    loops: dict[int, tuple[Cone, ...]] = {}
    for index, node in enumerate(graph.nodes[1:], start=1):
        window = found[node.inputs[0]]
        for i in node.inputs[1:]:
            window = tuple(
                (max(a, c), min(b, d)) for (a, b), (c, d) in zip(window, found[i], strict=True)
            )
        if isinstance(node.op, Loop):
            rows = []
            for _ in range(node.op.times):
                rows.append(forward(node.op.graph, window))
                window = rows[-1].windows[-1]
            loops[index] = tuple(rows)
        elif isinstance(node.op, Layer) and (step := node.op.step(graph.ndim)) is not None:
            rows = (step.determined(axis, ends) for axis, ends in enumerate(window))
            window = tuple(ends for ends in rows if ends is not None)
        found.append(window)
    return Cone(tuple(found), loops)


def size_of(window: Window) -> tuple[int, ...]:
    return tuple(b - a + 1 for a, b in window)


def inside(window: Window, of: Window) -> tuple[slice, ...]:
    """Where `window` lies in an array that holds the window `of`."""
    return tuple(slice(a - c, b - c + 1) for (a, b), (c, _) in zip(window, of, strict=True))


def _hull(a: Window | None, b: Window) -> Window:
    if a is None:
        return b
    return tuple((min(x, z), max(y, w)) for (x, y), (z, w) in zip(a, b, strict=True))
