"""Channel counts: a graph with a number of channels at every node, ready to be executed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from erftheory.network.graph import Concat, Graph, Input, Loop, Op, Sum
from erftheory.network.layers import Conv, ConvTranspose


@dataclass(frozen=True)
class Part:
    """A node with channel counts.

    Attributes:
      inputs: indices of the nodes it reads.
      channels_in: channels of its first input.
      channels_out: channels it gives.
      groups: groups of a convolution, else 1.
      runs: for a `Loop`, consecutive iterations that are alike, as (count, plan of the body).
    """

    op: Op
    inputs: tuple[int, ...]
    channels_in: int
    channels_out: int
    groups: int = 1
    runs: tuple[tuple[int, Plan], ...] = ()


@dataclass(frozen=True)
class Plan:
    """The parts of a graph in topological order; the first is the input, the last the output.

    `growth` is the output's size minus the input's, an int an axis; None if the graph resamples.
    """

    ndim: int
    parts: tuple[Part, ...]
    growth: tuple[int, ...] | None

    @property
    def channels_out(self) -> int:
        return self.parts[-1].channels_out


@lru_cache(maxsize=128)
def plan(graph: Graph, channels: int = 16, in_channels: int = 1) -> Plan:
    """Give every node its channels.

    A convolution gives `Conv(channels=)` if set. Otherwise it gives what a sum demands that it
    reaches through operations which keep channels (an identity shortcut: the trunk's channels),
    1 if it makes the output, and `channels` elsewhere.

    Raises:
      ValueError: a sum of unequal channels, or groups that do not divide them.
    """
    classes = _Classes(in_channels)
    expanded = _expand(graph, 0, classes)
    count = classes.resolve(expanded.ids[-1], channels)
    return _build(graph, expanded, count)


@lru_cache(maxsize=128)
def single(graph: Graph) -> Plan:
    """The plan of one channel everywhere, for path counts: a concatenation then acts as a sum."""
    parts = []
    for node in graph.nodes:
        runs = ((node.op.times, single(node.op.graph)),) if isinstance(node.op, Loop) else ()
        parts.append(Part(node.op, node.inputs, 1, 1, 1, runs))
    return Plan(graph.ndim, tuple(parts), _growth(graph))


def _growth(graph: Graph) -> tuple[int, ...] | None:
    if graph.resamples or graph.has_global:
        return None
    return tuple(int(low) for _, low, _ in graph.size_rule)


@dataclass
class _Expanded:
    """For each node its channel class, and for each `Loop` node its iterations."""

    ids: list[int]
    loops: dict[int, list[_Expanded]]


class _Classes:
    """Nodes that must agree in channels share a class (union-find)."""

    def __init__(self, in_channels: int):
        self.parent = [0]
        self.fixed: dict[int, int] = {0: in_channels}
        self.joins: dict[int, list[int]] = {}
        self.read: set[int] = set()  # classes that a convolution mixes

    def new(self) -> int:
        self.parent.append(len(self.parent))
        return len(self.parent) - 1

    def root(self, i: int) -> int:
        while self.parent[i] != i:
            self.parent[i] = self.parent[self.parent[i]]
            i = self.parent[i]
        return i

    def union(self, a: int, b: int) -> int:
        a, b = sorted((self.root(a), self.root(b)))
        self.parent[b] = a
        return a

    def resolve(self, output: int, channels: int) -> Callable[[int], int]:
        """The function from class member to channels."""
        output = self.root(output)
        read = {self.root(i) for i in self.read}
        rows: dict[int, list[int | list[int]]] = {}
        for i, value in self.fixed.items():
            rows.setdefault(self.root(i), []).append(value)
        for i, joined in self.joins.items():
            rows.setdefault(self.root(i), []).append(joined)
        known: dict[int, int] = {}
        pending: set[int] = set()

        def count(member: int) -> int:
            root = self.root(member)
            if root in known:
                return known[root]
            if root in pending:
                raise ValueError(
                    "channels: got a sum of a concatenation with its own part; takes a "
                    "convolution between them"
                )
            pending.add(root)
            found = {v if isinstance(v, int) else sum(map(count, v)) for v in rows.get(root, [])}
            if len(found) > 1:
                raise ValueError(
                    f"channels: got a sum of {' and '.join(map(str, sorted(found)))} channels; "
                    "takes branches of equal channels (set channels= of their last convolutions)"
                )
            alone = root == output and root not in read
            known[root] = found.pop() if found else 1 if alone else channels
            return known[root]

        return count


def _expand(graph: Graph, source: int, classes: _Classes) -> _Expanded:
    out = _Expanded([], {})
    for index, node in enumerate(graph.nodes):
        op, reads = node.op, [out.ids[i] for i in node.inputs]
        if isinstance(op, Input):
            found = source
        elif isinstance(op, Loop):
            found, out.loops[index] = reads[0], []
            for _ in range(op.times):
                out.loops[index].append(_expand(op.graph, found, classes))
                found = out.loops[index][-1].ids[-1]
        elif isinstance(op, Sum):
            found = reads[0]
            for other in reads[1:]:
                found = classes.union(found, other)
        elif isinstance(op, Concat) and len(reads) > 1:
            found = classes.new()
            classes.joins[found] = reads
        elif isinstance(op, (Conv, ConvTranspose)) and (
            op.groups != "depthwise" or op.channels is not None
        ):
            found = classes.new()
            classes.read.add(reads[0])
            if op.channels is not None:
                classes.fixed[found] = op.channels
        else:
            found = reads[0]
        out.ids.append(found)
    return out


def _build(graph: Graph, expanded: _Expanded, count: Callable[[int], int]) -> Plan:
    parts = []
    for index, node in enumerate(graph.nodes):
        op, channels = node.op, count(expanded.ids[index])
        before = count(expanded.ids[node.inputs[0]]) if node.inputs else channels
        groups, runs = 1, ()
        if isinstance(op, Loop):
            runs = _runs([_build(op.graph, e, count) for e in expanded.loops[index]])
        elif isinstance(op, (Conv, ConvTranspose)):
            groups = before if op.groups == "depthwise" else int(op.groups)
            if before % groups or channels % groups:
                raise ValueError(
                    f"groups: got {groups} with {before} channels in and {channels} out; takes a "
                    'divisor of both, or "depthwise"'
                )
        parts.append(Part(op, node.inputs, before, channels, groups, runs))
    return Plan(graph.ndim, tuple(parts), _growth(graph))


def _runs(plans: list[Plan]) -> tuple[tuple[int, Plan], ...]:
    runs: list[tuple[int, Plan]] = []
    for p in plans:
        if runs and runs[-1][1] == p:
            runs[-1] = (runs[-1][0] + 1, p)
        else:
            runs.append((1, p))
    return tuple(runs)
