"""Sums of units that share a part: x + (x + f(x)) is 2x + f(x), of variance 4 and not 1 + 1.

The forward pass adds laws as if units were independent. Where identities meet again, the inputs of
a sum are written as multiples of the units that they are made of, and multiples of one unit add up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

from erftheory.network.graph import Concat, Graph, Loop, Sum
from erftheory.network.imported import Scale
from erftheory.network.layers import Activation, Dropout, Layer
from erftheory.theory.units import law as dist
from erftheory.theory.units.law import Group, UnitLaw
from erftheory.theory.walk.weights import Weight, root, to_float

Unit = tuple[int, int]  # node and group; a repetition's is what it adds to its input
Parts = dict[Unit, Weight]


class Shares:
    """The units of a graph as multiples of others, found once each.

    Args:
      states: laws of the nodes so far; grows while the forward pass runs.
      factors: power by which sums scale their first input, likewise.
      through: by repetition, amplitudes of its paths without weights, from group to group.
    """

    def __init__(
        self,
        graph: Graph,
        states: Sequence[Sequence[Group]],
        factors: dict[int, Weight],
        through: Callable[[int], list[list[Weight]]],
    ):
        self.graph, self.states, self.factors, self.through = graph, states, factors, through
        self.known: dict[Unit, Parts] = {}

    def total(self, inputs: Sequence[Unit], factor: Weight) -> UnitLaw:
        """The law of a sum of units that have parts in common, the first scaled in power."""
        sizes = [root(factor), *[1] * (len(inputs) - 1)]
        laws = []
        for (node, group), size in self._added(list(zip(inputs, sizes))).items():
            law = self.states[node][group][1]
            if isinstance(self.graph.nodes[node].op, Loop):
                before = self.states[self.graph.nodes[node].inputs[0]]
                law = _less(before, self.through(node), group, law)
            if size:
                laws.append(dist.scaled(law, size * size, size < 0))
        return reduce(dist.add, laws)

    def _added(self, terms: list[tuple[Unit, Weight]]) -> Parts:
        total: Parts = {}
        for unit, size in terms:
            for part, own in self._parts(unit).items():
                total[part] = total.get(part, 0) + size * own
        return total

    def _parts(self, unit: Unit) -> Parts:
        waiting = [unit]
        while waiting:  # no recursion: blocks may be nested thousands deep
            top = waiting[-1]
            terms = self._terms(top)
            missing = [u for u, _ in terms if u != top and u not in self.known]
            if missing:
                waiting += missing
                continue
            waiting.pop()
            if top not in self.known:
                others = self._added([(u, size) for u, size in terms if u != top])
                own = {u: size for u, size in terms if u == top}
                self.known[top] = {**others, **own}
        return self.known[unit]

    def _terms(self, unit: Unit) -> list[tuple[Unit, Weight]]:
        """A unit as a sum of multiples of units that it reads, and of itself."""
        (node, group), states = unit, self.states
        op, reads = self.graph.nodes[node].op, self.graph.nodes[node].inputs
        if isinstance(op, Sum):
            sizes = [root(self.factors.get(node, 1)), *[1] * (len(reads) - 1)]
            parts = ((source, _part(states, node, group, source)) for source in reads)
            return list(zip(parts, sizes))
        if isinstance(op, Concat):
            for source in reads:
                if group < len(states[source]):
                    return [((source, group), 1)]
                group -= len(states[source])
        if isinstance(op, Loop):
            rows = enumerate(self.through(node))
            return [*(((reads[0], s), row[group]) for s, row in rows if row[group]), (unit, 1)]
        if isinstance(op, Layer) and (own := _multiple(op, self.graph.ndim)) is not None:
            return [((reads[0], group), own)]
        return [(unit, 1)]


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


def _less(
    before: Sequence[Group], through: list[list[Weight]], group: int, law: UnitLaw
) -> UnitLaw:
    """What a repetition adds to the multiple of its input that it hands on, as a law."""
    second, level = law.second, law.level
    for source, row in enumerate(through):
        square, own = row[group] * row[group], before[source][1]
        second, level = second - square * own.second, level - square * own.level
    return dist.gaussian(max(to_float(second), 0.0), max(to_float(level), 0.0))
