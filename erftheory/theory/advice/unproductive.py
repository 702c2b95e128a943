"""Which layers of a network still gather context on an image: by fields, and by effective fields.

The rule by fields is that of Richter et al.'s toolbox (see advise.py): a layer is unproductive if
the image is no larger than the smallest receptive field of each of its inputs, and smaller than its
own, on every axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from erftheory.erf.measures import SIZE_THRESHOLD
from erftheory.network.base import Network
from erftheory.network.graph import Builder, Graph, Loop, Sum
from erftheory.network.imported import GraphNetwork
from erftheory.network.initialisation import Init
from erftheory.network.layers import Layer
from erftheory.theory.gains.between import Between, ending_at
from erftheory.theory.readings.deviations import deviations
from erftheory.theory.readings.extents import smallest_fields
from erftheory.theory.readings.moments import moments

MOST_COPIES = 300  # iterations of a repetition looked at one by one; beyond, it is one entry

Size = tuple[int | float | Fraction, ...]


@dataclass(frozen=True)
class Entry:
    """A layer: its own smallest field, the smallest of its inputs, and the ERF size it reads.

    All in input pixels, one entry an axis; the ERF size is `gaussian_side` times the deviation,
    NaN where signed taps leave none. A long repetition is one entry, of so many `rounds`: what its
    last round reads.
    """

    name: str
    layer: str
    smallest: Size
    reads: Size
    erf: Size
    by_field: bool
    by_erf: bool
    rounds: int = 0


def gaussian_side(ndim: int) -> float:
    """Deviations to the side of the cube that has the pixels of a Gaussian above 4.55 % of its peak
    (L16's size): 4.97 in 1-D, 4.406 in 2-D, 4.01 in 3-D."""
    ball = math.pi ** (ndim / 2) / math.gamma(ndim / 2 + 1)
    return ball ** (1 / ndim) * math.sqrt(-2 * math.log(SIZE_THRESHOLD))


def opened(network: Network) -> Network:
    """Repetitions as copies, as long as they are few; a copy's layers have the name with [i]."""
    if isinstance(network, Between):
        return network.unrolled()
    graph = network.graph
    builder = Builder(graph.ndim)

    def append(part: Graph, source: int, scope: str) -> int:
        place = [source]
        for node in part.nodes[1:]:
            reads, op = tuple(place[i] for i in node.inputs), node.op
            name = f"{scope}/{node.name}".strip("/")
            if isinstance(op, Loop) and op.times <= MOST_COPIES:
                at = reads[0]
                for i in range(op.times):
                    at = append(op.graph, at, f"{name}[{i}]")
                place.append(at)
                continue
            if isinstance(op, Sum) and op.fork is not None:
                op = Sum(op.gain, place[op.fork])
            place.append(builder.add(op, reads, name))
        return place[-1]

    return GraphNetwork(builder.finish(append(graph, 0, "")))


def entries(
    network: Network, image: tuple[int, ...], signal: str, init: Init | None
) -> tuple[Entry, ...]:
    """Every layer with a kernel, and every repetition, of a network as `opened` gives it."""
    graph = network.graph
    smallest = smallest_fields(graph)
    side = gaussian_side(graph.ndim)
    known: dict[int, Size] = {
        i: tuple(side * s for s in std)
        for i, std in enumerate(deviations(network, signal, init))
        if std is not None
    }

    def erf(index: int) -> Size:
        while (op := graph.nodes[index].op) and isinstance(op, Layer) and not op.step(graph.ndim):
            index = graph.nodes[index].inputs[0]  # it acts on every pixel alone
        if index not in known:
            part = ending_at(network, index)
            known[index] = tuple(side * s for s in moments(part, signal, init).std)
        return known[index]

    def erf_after(index: int, rounds: int) -> Size:
        """The same after so many rounds of a repetition."""
        node = graph.nodes[index]
        if not rounds:
            return erf(node.inputs[0])
        other = Builder(graph.ndim)
        other.nodes = list(graph.nodes)
        assert isinstance(node.op, Loop)
        other.nodes[index] = replace(node, op=replace(node.op, times=rounds))
        part = GraphNetwork(other.finish(index))
        return tuple(side * s for s in moments(part, signal, init).std)

    found = []
    for index, node in enumerate(graph.nodes):
        before = node.inputs[0] if node.inputs else 0
        if isinstance(node.op, Loop):
            start, end, times = smallest[before], smallest[index], node.op.times

            def field_after(rounds: int, start=start, end=end, times=times) -> Size:
                rows = zip(start, end)
                return tuple(a + Fraction(b - a) * rounds / times for a, b in rows)

            def passed(i: int, after=field_after) -> bool:
                rows = zip(image, after(i - 1), after(i))
                return all(n <= reads and n < own for n, reads, own in rows)

            def wide(i: int, index=index) -> bool:
                return _reaches(image, erf_after(index, i - 1))

            fields, spent = _first(times, passed), _first(times, wide)
            label = f"repeated {times} times"
            label += f", by the field from round {fields}" if fields <= times else ""
            label += f", by the ERF from round {spent}" if spent <= times else ""
            reads, size = field_after(times - 1), erf_after(index, times - 1)
            flags = fields <= times, spent <= times
            found.append(Entry(node.name or "layer", label, end, reads, size, *flags, times))
        elif isinstance(node.op, Layer) and node.op.step(graph.ndim) is not None:
            own, reads, size = smallest[index], smallest[before], erf(before)
            by_field = all(n <= r and n < o for n, r, o in zip(image, reads, own))
            flags = by_field, _reaches(image, size)
            found.append(Entry(node.name or "layer", repr(node.op), own, reads, size, *flags))
    return tuple(found)


def _reaches(image: tuple[int, ...], size: Size) -> bool:
    return all(n <= s for n, s in zip(image, size))


def _first(times: int, true: Callable[[int], bool]) -> int:
    """The first round, of 1 to `times`, for which it is true (and stays so); times + 1 if none."""
    low, high = 1, times + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if true(middle) else (middle + 1, high)
    return low
