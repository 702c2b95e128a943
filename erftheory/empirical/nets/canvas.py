"""Where a unit looks: the smallest canvas on which one output unit feels no padding.

Everything is index arithmetic along one axis; pixel o of a layer reads s·o + d·a − p.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, lcm

from erftheory.network.endless import GlobalAvgPool
from erftheory.network.graph import Graph, Loop
from erftheory.network.layers import Layer
from erftheory.network.step import Interval


@dataclass(frozen=True)
class Canvas:
    """An input on which the output unit `unit` sees no padding.

    Attributes:
      shape: input pixels an axis.
      unit: index of the unit in the output of the framed network (`frame`).
      first: canvas index of the receptive field's first pixel, one an axis.
      size: the receptive field's size an axis.
      offset: input index of its first pixel for output index 0, the convention of `ERF.offset`.
    """

    shape: tuple[int, ...]
    unit: tuple[int, ...]
    first: tuple[int, ...]
    size: tuple[int, ...]
    offset: tuple[int, ...]


def frame(growth: int) -> tuple[int, int]:
    """Pixels to add before and after a repeated body's output so that it keeps its size.

    Where padding is never felt this changes indices only, and lets `lax.scan` run the repetition.
    """
    before = -growth // 2
    return before, -growth - before


def canvas(graph: Graph, margin: int = 0, shape: tuple[int, ...] | None = None) -> Canvas:
    """The smallest canvas, with `margin` more output pixels on every side; or one of `shape`.

    Raises:
      ValueError: a global operation, or `shape` too small.
    """
    if graph.has_global:
        raise ValueError(
            "network: got a receptive field without end (a global mean, attention, a recurrence); "
            "takes a network whose field ends, see until() and receptive_field(network).unbounded"
        )
    rows = []
    for axis in range(graph.ndim):
        row = _axis(graph, axis, margin, None if shape is None else shape[axis])
        if row is None:
            least = (_axis(graph, axis, margin, None) or (0,))[0]
            raise ValueError(f"size: got {shape}; takes at least {least} pixels on axis {axis}")
        rows.append(row)
    return Canvas(*map(tuple, zip(*rows)))


def _axis(graph: Graph, axis: int, margin: int, wanted: int | None) -> tuple[int, ...] | None:
    needs: list[tuple[int, int, Fraction]] = []
    first, last = _back(graph, axis, 0, 0, Fraction(1), needs)
    offset = _back(graph, axis, 0, 0, Fraction(1), [], framed=False)[0]
    rate = graph.rate[axis]
    period = lcm(1, *(scale.denominator for _, _, scale in needs), rate.denominator)
    low = max([ceil(-f / scale) for f, _, scale in needs] + [ceil(-first / rate), 0]) + margin
    unit = -(-low // period) * period
    size = _back(graph, axis, unit, unit + margin, Fraction(1), [])[1] + 1
    while wanted is None:
        short = _short(graph, axis, size, unit, margin)
        if short <= 0:
            break
        size += short
    if wanted is not None:
        # the unit nearest to the middle that still fits
        if _short(graph, axis, wanted, unit, margin) > 0 or wanted < size:
            return None
        size = wanted
        while True:
            moved = unit + period
            middle = 2 * (int(moved * rate) + first) + last - first < wanted
            if not middle or _short(graph, axis, size, moved, margin) > 0:
                break
            unit = moved
    return size, unit, int(unit * rate) + first, last - first + 1, offset


def _back(
    graph: Graph,
    axis: int,
    first: int,
    last: int,
    scale: Fraction,
    needs: list[tuple[int, int, Fraction]],
    framed: bool = True,
) -> Interval:
    """Input interval of the output interval [first, last]; appends every node's to `needs`.

    `scale` is the pixels of the graph's output per pixel of the whole network's output.
    """
    reach: list[Interval | None] = [None] * len(graph.nodes)
    reach[-1] = (first, last)
    for index in range(len(graph.nodes) - 1, 0, -1):
        node, interval = graph.nodes[index], reach[index]
        assert interval is not None  # every node of a graph leads to its output
        local = scale * graph.rate[axis] / graph.rates[index][axis]
        needs.append((*interval, local))
        arrived = _through(node.op, graph.ndim, axis, interval, local, needs, framed)
        for i in node.inputs:
            reach[i] = _hull(reach[i], arrived)
    assert reach[0] is not None
    return reach[0]


def _through(op, ndim, axis, interval, local, needs, framed) -> Interval:
    if isinstance(op, Loop):
        body, shift = op.graph, 0
        if framed and not body.resamples:
            shift = frame(int(body.size_rule[axis][1]))[0]
        for _ in range(op.times):
            first, last = (i - shift for i in interval)
            interval = _back(body, axis, first, last, local, needs, framed)
            local = local * body.rate[axis]
            needs.append((*interval, local))
        return interval
    step = op.step(ndim) if isinstance(op, Layer) else None
    if step is None:
        return interval
    found = step.reads(axis, interval)
    if found is None:
        raise ValueError(
            f"network: got an output unit that reads nothing at {op!r} (kernel smaller than the "
            "stride); takes a unit that every path reaches"
        )
    return found


def _hull(a: Interval | None, b: Interval) -> Interval:
    if a is None:
        return b
    return min(a[0], b[0]), max(a[1], b[1])


def _short(graph: Graph, axis: int, size: int, unit: int, margin: int) -> int:
    """Input pixels missing at least for every node to hold what the unit reads; <= 0 if none."""
    sizes: list[int] = []
    _sizes(graph, axis, size, sizes)
    needs: list[tuple[int, int, Fraction]] = []
    _back(graph, axis, unit, unit + margin, Fraction(1), needs)
    # both lists walk every node once, one forward and one backward
    rate = graph.rate[axis]
    short = 0
    for have, (_, last, scale) in zip(reversed(sizes), needs, strict=True):
        if have <= last:
            short = max(short, ceil((last + 1 - have) * rate / scale))
    return short


def _sizes(graph: Graph, axis: int, size: int, out: list[int]) -> int:
    sizes = [size]
    for node in graph.nodes[1:]:
        n = min(sizes[i] for i in node.inputs)
        if isinstance(node.op, Loop):
            for _ in range(node.op.times):
                out.append(n)
                grown = _sizes(node.op.graph, axis, n, out)
                n = n if not node.op.graph.resamples else grown
        elif isinstance(node.op, GlobalAvgPool) and any(node.op.reach(graph.ndim)[axis]):
            n = 1
        elif isinstance(node.op, Layer) and (step := node.op.step(graph.ndim)) is not None:
            n = step.size(axis, n)
        sizes.append(n)
        out.append(n)
    return sizes[-1]
