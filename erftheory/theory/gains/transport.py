"""Power carried through parts of a graph: what balances a residual, what a loop amounts to."""

from __future__ import annotations

import math
from fractions import Fraction

from erftheory.network.graph import Graph, Loop
from erftheory.theory.lowering.branches import coheres
from erftheory.theory.lowering.lowering import transferred
from erftheory.theory.units.law import Group, scaled
from erftheory.theory.walk.links import Gains
from erftheory.theory.walk.weights import Weight, power, to_float


def _pull(
    graph: Graph, gains: Gains, mass: dict[tuple[int, int], Weight], top: int, stop: int
) -> dict[tuple[int, int], Weight]:
    """Carry masses on ports (node, group) from nodes ≤ `top` back to node `stop`."""
    for index in range(top, stop, -1):
        node = graph.nodes[index]
        for link in gains.links[index]:
            reader = mass.get((index, link.target))
            if reader:
                port = (node.inputs[link.input], link.source)
                mass[port] = mass.get(port, 0) + _times(link.gain, reader)
    return mass


def _second(
    graph: Graph, gains: Gains, mass: dict[tuple[int, int], Weight], top: int, stop: int
) -> dict[tuple[int, int], Weight]:
    """The same where paths without weights meet again, whose amplitudes add."""
    return transferred(graph, gains, mass, stop)


def _times(a: Weight, b: Weight) -> Weight:
    if isinstance(a, float) or isinstance(b, float):
        return to_float(to_float(a) * to_float(b))
    return a * b


def balance(
    graph: Graph, index: int, gains: Gains, rows: list, wanted: Weight, fork: int
) -> Weight:
    """What input 0 of a sum must be scaled by to carry `wanted` times input 1's power to `fork`."""
    totals: list[Weight] = []
    node = graph.nodes[index]
    pull = _second if coheres(graph) else _pull
    for which in (0, 1):
        mass: dict[tuple[int, int], Weight] = {}
        for i, g, _, share in rows:
            if i == which:
                port = (node.inputs[i], g)
                mass[port] = mass.get(port, 0) + share
        mass = pull(graph, gains, mass, index - 1, fork)
        counts = gains.channels[fork]
        totals.append(sum(_times(c, mass.get((fork, g), 0)) for g, c in enumerate(counts)))
    if not totals[0] or not totals[1]:
        return 1
    if any(isinstance(v, float) for v in (*totals, wanted)):
        return to_float(wanted) * to_float(totals[1]) / to_float(totals[0])
    return Fraction(wanted) * totals[1] / totals[0]


def plain(graph: Graph) -> bool:
    """True if nothing in the graph forks, so that gains scale and do not shape."""
    return not any(
        len(node.inputs) > 1 or (isinstance(node.op, Loop) and not plain(node.op.graph))
        for node in graph.nodes
    )


def same(a: Gains, b: Gains) -> bool:
    if a.channels != b.channels or a.runs.keys() != b.runs.keys():
        return False
    for left, right in zip(a.links, b.links):
        for one, two in zip(left, right):
            if one.gain != two.gain and not math.isclose(one.gain, two.gain, rel_tol=1e-14):
                return False
    for index, runs in a.runs.items():
        others = b.runs[index]
        if [c for c, _ in runs] != [c for c, _ in others]:
            return False
        if not all(same(x, y) for (_, x), (_, y) in zip(runs, others)):
            return False
    return True


def product(graph: Graph, runs: list[tuple[int, Gains]], start: int) -> list[list[Weight]]:
    """Gain of each output group at each input group of a loop, over all its iterations."""
    total: list[list[Weight]] = [[int(s == t) for t in range(start)] for s in range(start)]
    pull = _second if coheres(graph) else _pull
    for count, gains in reversed(runs):  # the first iteration acts nearest the input
        ends = range(len(gains.channels[-1]))
        last = len(graph.nodes) - 1
        once: list[list[Weight]] = [[0 for _ in ends] for _ in gains.channels[0]]
        for t in ends:
            mass = pull(graph, gains, {(last, t): 1}, last, 0)
            for s in range(len(once)):
                once[s][t] = mass.get((0, s), 0)
        total = _matrix_times(total, _matrix_power(once, count))
    return total


def _matrix_power(matrix: list[list[Weight]], count: int) -> list[list[Weight]]:
    if len(matrix) == 1 == len(matrix[0]):
        value = matrix[0][0]
        if not isinstance(value, float) and (count <= 4096 or value in (0, 1)):
            return [[value**count]]
        return [[power(to_float(value), count)]]
    result = matrix
    for bit in bin(count)[3:]:
        result = _matrix_times(result, result)
        if bit == "1":
            result = _matrix_times(result, matrix)
    return result


def _matrix_times(a: list[list[Weight]], b: list[list[Weight]]) -> list[list[Weight]]:
    return [
        [sum(_times(row[k], b[k][t]) for k in range(len(b))) for t in range(len(b[0]))] for row in a
    ]


def alike(before: list[Group], after: list[Group]) -> bool:
    """True if the states differ by their scales at most."""
    if len(before) != len(after):
        return False
    for (_, old), (_, new) in zip(before, after):
        size = to_float(old.second), to_float(new.second)
        for one, two, degree in (
            (to_float(old.level), to_float(new.level), 1.0),
            (old.within, new.within, 1.0),
            (old.between, new.between, 1.0),
            (old.mean, new.mean, 0.5),
        ):
            if abs(one / size[0] ** degree - two / size[1] ** degree) > 1e-12:
                return False
    return True


def extrapolate(before: list[Group], after: list[Group], times: int) -> list[Group]:
    """States `times` iterations later, where each iteration changes the scale as the last did."""
    if len(before) != len(after):
        return after
    output = []
    for (_, old), (count, new) in zip(before, after):
        if not to_float(old.second):
            return after
        ratio = to_float(new.second) / to_float(old.second)
        if not math.isclose(ratio, 1, rel_tol=1e-12):
            new = scaled(new, power(ratio, times))
        output.append((count, new))
    return output


def mean(parts: list[tuple[int, Weight]]) -> Weight:
    """Mean of values, each by its number of channels."""
    if len(parts) == 1:
        return parts[0][1]
    total = sum(c for c, _ in parts)
    if any(isinstance(v, float) for _, v in parts):
        return sum(c * to_float(v) for c, v in parts) / total
    return Fraction(sum(c * v for c, v in parts)) / total
