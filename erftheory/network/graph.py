"""The internal form of a network: a directed acyclic graph of operations, each stored once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from math import lcm
from typing import Any, Protocol, TypeVar

from erftheory.network.step import Step


@dataclass(frozen=True)
class Input:
    """Node 0 of every graph."""


@dataclass(frozen=True)
class Sum:
    """Adds its inputs. With a `gain`, the first carries `gain` times the power of the second,
    both counted from node `fork`, which they share."""

    gain: float | Fraction | None = None
    fork: int | None = None


@dataclass(frozen=True)
class Concat:
    """Joins its inputs by channels."""


@dataclass(frozen=True)
class Loop:
    """A graph with one input and one output, `times` times in a row."""

    graph: Graph
    times: int


class Operation(Protocol):
    """A layer, as far as a graph knows it."""

    def step(self, ndim: int) -> Step | None:
        """Its spatial rule; None if it acts on every pixel alone."""
        ...


V = TypeVar("V")
Op = Input | Sum | Concat | Loop | Operation
SizeRule = tuple[tuple[Fraction, Fraction, Fraction], ...]


def step_of(op: Any, ndim: int) -> Step | None:
    """The spatial rule of an operation; None for joins and for what acts on every pixel alone."""
    return None if isinstance(op, Input | Sum | Concat | Loop) else op.step(ndim)


@dataclass(frozen=True)
class Node:
    op: Op
    inputs: tuple[int, ...]
    name: str = ""


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order; node 0 is the input, the last one the output.

    An operation that several others read is one node.
    """

    ndim: int
    nodes: tuple[Node, ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:  # of thousands of nodes, asked for by every table of results
        return hash((self.ndim, self.nodes))

    def graphs(self) -> Iterator[Graph]:
        """This graph and the bodies of its repetitions, theirs too, each once."""
        yield self
        for node in self.nodes:
            if isinstance(node.op, Loop):
                yield from node.op.graph.graphs()

    def operations(self) -> Iterator[Any]:
        """What is done, in order: joins and layers, those of repetitions once."""
        for node in self.nodes:
            if isinstance(node.op, Loop):
                yield from node.op.graph.operations()
            elif not isinstance(node.op, Input):
                yield node.op

    @cached_property
    def own_steps(self) -> tuple[Step | None, ...]:
        """The spatial rule of each node; None for joins, repetitions and what moves no pixel."""
        return tuple(step_of(node.op, self.ndim) for node in self.nodes)

    def known(self, function: Callable[[Graph], V]) -> V:
        """What a function says of this graph, asked once."""
        found = self.__dict__.setdefault("_known", {})
        if function not in found:
            found[function] = function(self)
        return found[function]

    @cached_property
    def readers(self) -> tuple[int, ...]:
        """How many inputs of other nodes read each node."""
        found = [0] * len(self.nodes)
        for node in self.nodes:
            for source in node.inputs:
                found[source] += 1
        return tuple(found)

    @cached_property
    def fine(self) -> tuple[int, ...]:
        """Points of the coarsest lattice that holds the pixels of all nodes, per input pixel."""
        return tuple(lcm(*(rate[a].denominator for rate in self.rates)) for a in range(self.ndim))

    def jumps(self, fine: tuple[int, ...]) -> list[tuple[int, ...]]:
        """`rates` in points of a lattice of `fine` points per input pixel; not to be changed."""
        known = self.__dict__.setdefault("_jumps", {})
        if fine not in known:
            found: list[tuple[int, ...]] = []
            before = None
            for rate in self.rates:
                same = rate is before
                rows = zip(rate, fine)
                found.append(
                    found[-1] if same else tuple(f * r.numerator // r.denominator for r, f in rows)
                )
                before = rate
            known[fine] = found
        return known[fine]

    def steps(self) -> Iterator[Step]:
        """The windows of all layers that have one, those of repetitions once."""
        for node, step in zip(self.nodes, self.own_steps):
            if isinstance(node.op, Loop):
                yield from node.op.graph.steps()
            elif step is not None:
                yield step

    def backward(
        self, end: V, rule: Callable[[Any, V], V], join: Callable[[list[V]], V]
    ) -> list[V]:
        """A value for every node, from the output back.

        `join` makes one of what the readers of a node ask for (also of one alone), `rule` what an
        operation asks of its inputs, given what is asked of itself; repetitions likewise.
        """
        asked: list[list[V]] = [[] for _ in self.nodes]
        asked[-1] = [end]
        found = [end] * len(self.nodes)
        for index in range(len(self.nodes) - 1, -1, -1):
            found[index] = value = join(asked[index])
            op = self.nodes[index].op
            if isinstance(op, Loop):
                for _ in range(op.times):
                    value = op.graph.backward(value, rule, join)[0]
            elif not isinstance(op, Input):
                value = rule(op, value)
            for source in self.nodes[index].inputs:
                asked[source].append(value)
        return found

    @cached_property
    def rates(self) -> tuple[tuple[Fraction, ...], ...]:
        """Input pixels per pixel of each node ("jump"), one entry an axis."""
        found: list[tuple[Fraction, ...]] = []
        for node, step in zip(self.nodes, self.own_steps):
            if isinstance(node.op, Input):
                found.append((Fraction(1),) * self.ndim)
                continue
            before = found[node.inputs[0]]
            for other in node.inputs[1:]:
                if found[other] != before:
                    raise ValueError(
                        f"{node.name or 'merge'}: got inputs of stride {before} and "
                        f"{found[other]}; takes inputs of equal stride"
                    )
            factor = self._factor(node.op, step)
            found.append(tuple(b * f for b, f in zip(before, factor)) if factor else before)
        return tuple(found)

    def _factor(self, op: Op, step: Step | None) -> tuple[Fraction, ...]:
        """What an operation multiplies the jump by; () for 1."""
        if isinstance(op, Loop):
            return tuple(r**op.times for r in op.graph.rate)
        if step is None or max(step.stride) == 1:
            return ()
        return tuple(Fraction(1, s) if step.up else Fraction(s) for s in step.stride)

    @property
    def rate(self) -> tuple[Fraction, ...]:
        return self.rates[-1]

    @cached_property
    def resamples(self) -> bool:
        """True if some operation inside changes the pixel grid."""
        return any(s > 1 for step in self.steps() for s in step.stride)

    @cached_property
    def reach(self) -> tuple[tuple[bool, bool], ...]:
        """For each axis whether some operation reads all pixels before, and all behind."""
        found = [(False, False)] * self.ndim
        for op in self.operations():
            if (reach := getattr(op, "reach", None)) is not None:  # `Endless`
                found = [(b or x, a or y) for (b, a), (x, y) in zip(found, reach(self.ndim))]
        return tuple(found)

    @property
    def has_global(self) -> bool:
        """True if the receptive field has no end, along some axis."""
        return any(map(any, self.reach))

    @cached_property
    def size_rule(self) -> SizeRule:
        """Output size as (rate, low, high) an axis: rate·n + c with c in [low, high].

        The interval is what rounding in strided layers leaves open.
        """
        one = Fraction(1)
        rules: list[SizeRule] = [((one, Fraction(0), Fraction(0)),) * self.ndim]
        for node in self.nodes[1:]:
            inputs = [rules[i] for i in node.inputs]
            merged = tuple(
                (r[0][0], max(x[1] for x in r), min(x[2] for x in r)) for r in zip(*inputs)
            )
            rules.append(_after(node.op, merged, self.ndim))
        return rules[-1]


def _after(op: Op, rule: SizeRule, ndim: int) -> SizeRule:
    if isinstance(op, Loop):
        if not op.graph.resamples:
            shift = tuple(op.times * r[1] for r in op.graph.size_rule)
            return tuple((r, lo + d, hi + d) for (r, lo, hi), d in zip(rule, shift))
        for _ in range(op.times):
            rule = tuple(
                (r * f, lo * f + a, hi * f + b)
                for (r, lo, hi), (f, a, b) in zip(rule, op.graph.size_rule)
            )
        return rule
    step = step_of(op, ndim)
    if step is None:
        return rule
    out = []
    for axis, (rate, lo, hi) in enumerate(rule):
        factor, low, high = step.size_rule(axis)
        out.append((rate * factor, lo * factor + low, hi * factor + high))
    return tuple(out)


class Builder:
    """Collects the nodes of a graph."""

    def __init__(self, ndim: int):
        self.ndim = ndim
        self.nodes: list[Node] = [Node(Input(), (), "input")]

    def add(self, op: Op, inputs: tuple[int, ...], name: str = "") -> int:
        self.nodes.append(Node(op, inputs, name))
        return len(self.nodes) - 1

    def finish(self, output: int) -> Graph:
        """The graph of what `output` depends on, with `output` last."""
        needed = {output}
        for i in range(len(self.nodes) - 1, -1, -1):
            if i in needed:
                needed.update(self.nodes[i].inputs)
        kept = [i for i in range(output + 1) if i in needed or i == 0]
        if len(kept) == len(self.nodes):
            return Graph(self.ndim, tuple(self.nodes))
        new = {old: i for i, old in enumerate(kept)}
        nodes = []
        for i in kept:
            node, op = self.nodes[i], self.nodes[i].op
            if isinstance(op, Sum) and op.fork is not None:
                op = Sum(op.gain, new.get(op.fork))
            nodes.append(Node(op, tuple(new[j] for j in node.inputs), node.name))
        return Graph(self.ndim, tuple(nodes))


def unrolled(graph: Graph) -> Graph:
    """Every repetition as copies of its body, under names with [i]."""
    builder = Builder(graph.ndim)
    append(builder, graph, 0, "", True)
    return builder.finish(len(builder.nodes) - 1)


def append(builder: Builder, graph: Graph, source: int, scope: str, unroll: bool = False) -> int:
    """Add a graph that reads node `source`, under a scope; returns its output node."""
    place = [source]
    for node in graph.nodes[1:]:
        reads = tuple(place[i] for i in node.inputs)
        name = scope + ("/" if scope and node.name else "") + node.name
        if unroll and isinstance(node.op, Loop):
            at = reads[0]
            for i in range(node.op.times):
                at = append(builder, node.op.graph, at, f"{name}[{i}]", True)
            place.append(at)
            continue
        op = node.op
        if isinstance(op, Sum) and op.fork is not None:
            op = replace(op, fork=place[op.fork])
        place.append(builder.add(op, reads, name))
    return place[-1]
