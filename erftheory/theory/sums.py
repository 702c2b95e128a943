"""Sums of units that share a part: x + (x + f(x)) is 2x + f(x), of variance 4 and not 1 + 1.

The forward pass adds laws as if units were independent. Where identities meet again, the inputs of
a sum are written as multiples of the units that they are made of, and multiples of one unit add up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import reduce

from erftheory.network.graph import Concat, Graph, Loop, Sum
from erftheory.network.imported import Scale
from erftheory.network.layers import Activation, Dropout, Layer
from erftheory.theory import distribution as dist
from erftheory.theory.distribution import Group, Law
from erftheory.theory.weights import Weight, root, to_float

Unit = tuple[int, int]  # node and group; a repetition's is what it adds to its input


def joint(
    graph: Graph,
    states: Sequence[Sequence[Group]],
    factors: dict[int, Weight],
    through: Callable[[int], list[list[Weight]]],
    inputs: Sequence[tuple[int, int]],
    factor: Weight,
) -> Law:
    """The law of a sum of groups (node, group) that have parts in common.

    Args:
      states: laws of the nodes so far.
      factors: power by which earlier sums scaled their first input.
      through: by repetition, amplitudes of its paths without weights, from group to group.
      factor: power by which this sum scales its first input.
    """
    total: dict[Unit, Weight] = defaultdict(int)

    def spread(node: int, group: int, size: Weight) -> None:
        op, reads = graph.nodes[node].op, graph.nodes[node].inputs
        if isinstance(op, Sum):
            for place, source in enumerate(reads):
                own = root(factors.get(node, 1)) if place == 0 else 1
                spread(source, _part(states, node, group, source), size * own)
            return
        if isinstance(op, Concat):
            for source in reads:
                if group < len(states[source]):
                    return spread(source, group, size)
                group -= len(states[source])
        if isinstance(op, Loop):
            for source, row in enumerate(through(node)):
                if row[group]:
                    spread(reads[0], source, size * row[group])
        elif isinstance(op, Layer) and (own := _multiple(op, graph.ndim)) is not None:
            return spread(reads[0], group, size * own)
        total[node, group] += size

    for place, (node, group) in enumerate(inputs):
        spread(node, group, root(factor) if place == 0 else 1)
    laws = []
    for (node, group), size in total.items():
        law = states[node][group][1]
        if isinstance(graph.nodes[node].op, Loop):
            law = _added(states[graph.nodes[node].inputs[0]], through(node), group, law)
        if size:
            laws.append(dist.scaled(law, size * size, size < 0))
    return reduce(dist.add, laws)


def _multiple(op: Layer, ndim: int) -> Weight | None:
    """What an operation multiplies its input by, if it does nothing else."""
    if isinstance(op, Scale):
        return op.factor
    if isinstance(op, Activation) and op.name == "linear":
        return 1
    if isinstance(op, Dropout) and not op.rate:
        return 1
    step = op.step(ndim)
    if step is None or step.kind != "fixed" or step.up or max(step.kernel.shape) > 1:
        return None
    return (step.signed or step.kernel).exact[0]


def _part(states: Sequence[Sequence[Group]], node: int, group: int, source: int) -> int:
    """The group of an input that a sum's group lies in."""
    start = sum(count for count, _ in states[node][:group])
    for part, (count, _) in enumerate(states[source]):
        if start < count:
            return part
        start -= count
    raise AssertionError("a sum has the channels of its inputs")


def _added(before: Sequence[Group], through: list[list[Weight]], group: int, law: Law) -> Law:
    """What a repetition adds to the multiple of its input that it hands on."""
    second, level = law.second, law.level
    for source, row in enumerate(through):
        square, own = row[group] * row[group], before[source][1]
        second, level = second - square * own.second, level - square * own.level
    return dist.gaussian(max(to_float(second), 0.0), max(to_float(level), 0.0))
