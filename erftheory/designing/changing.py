"""Networks with some of their operations exchanged, their structure kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from erftheory.network.base import Chain, Named, Network, Repeat
from erftheory.network.combine import Branches, Residual
from erftheory.network.graph import Concat, Graph, Loop, Sum, unrolled
from erftheory.network.imported import GraphNetwork
from erftheory.network.layers import Layer

Change = Callable[[int, Any], Any]


def with_ops(graph: Graph, ops: dict[int, Any]) -> GraphNetwork:
    """A graph with the operations of some nodes exchanged, all else as it is."""
    nodes = tuple(replace(n, op=ops.get(i, n.op)) for i, n in enumerate(graph.nodes))
    return GraphNetwork(Graph(graph.ndim, nodes))


def rewritten(network: Network, change: Change, apart: bool = False) -> Network:
    """The network with every operation exchanged for what `change` makes of it.

    Args:
      change: of a number and an operation the operation to take in its place: a layer, or the `Sum`
        of a residual block, whose gain alone counts. Operations are numbered from 1 on as their
        nodes in the graph, repetitions counted once, or written out if `apart`.
      apart: True changes the rounds of a repetition one by one; those that stay equal stay one.

    Raises:
      ValueError: what results is no network (strides that differ where branches meet).
    """
    return _Rewriting(change, apart).of(network)


def slots(network: Network) -> dict[int, tuple[str, Any]]:
    """Of every operation, by its number (repetitions counted once): its name and itself."""
    found: dict[int, tuple[str, Any]] = {}

    def seen(at: int, op: Any) -> Any:
        found[at] = work.scope, op
        return op

    work = _Rewriting(seen, False)
    work.of(network)
    return found


class _Rewriting:
    def __init__(self, change: Change, apart: bool) -> None:
        self.change, self.apart, self.at, self.scope = change, apart, 0, ""

    def _next(self, op: Any) -> Any:
        self.at += 1
        return self.change(self.at, op)

    def _within(self, name: str, part: Network) -> Network:
        before, self.scope = self.scope, f"{self.scope}/{name}".strip("/")
        found = self.of(part)
        self.scope = before
        return found

    def of(self, part: Network) -> Network:
        if isinstance(part, Chain):
            return Chain(*map(self.of, part.parts), ndim=part._ndim)
        if isinstance(part, Named):
            return Named(self._within(part.name, part.part), part.name)
        if isinstance(part, Repeat):
            return self._repeat(part)
        if isinstance(part, Residual):
            branch, shortcut = self._within("branch", part.branch), part.shortcut
            shortcut = None if shortcut is None else self._within("shortcut", shortcut)
            return Residual(branch, shortcut, self._next(Sum(part.gain)).gain)
        if isinstance(part, Branches):
            rows = enumerate(part.branches)
            branches = [None if b is None else self._within(f"branch{i}", b) for i, b in rows]
            self._next(Concat() if part.merge == "concat" else Sum())
            return Branches(*branches, merge=part.merge)
        if isinstance(part, Layer):
            return self._next(part)
        return self._graph(part.graph)

    def _repeat(self, part: Repeat) -> Network:
        if not self.apart:
            return Repeat(self.of(part.part), part.times)
        rounds = [self.of(part.part) for _ in range(part.times)]
        if all(r == rounds[0] for r in rounds):
            return Repeat(rounds[0], part.times)
        return Chain(*rounds)

    def _graph(self, graph: Graph) -> GraphNetwork:
        graph = unrolled(graph) if self.apart else graph
        nodes, before = [graph.nodes[0]], self.scope
        for node in graph.nodes[1:]:
            op = node.op
            self.scope = f"{before}/{node.name}".strip("/")
            if isinstance(op, Loop):
                op = Loop(self._graph(op.graph).graph, op.times)
            elif isinstance(op, Sum):
                op = replace(op, gain=self._next(op).gain)
            else:
                op = self._next(op)
            nodes.append(replace(node, op=op))
        self.scope = before
        return GraphNetwork(Graph(graph.ndim, tuple(nodes)))
