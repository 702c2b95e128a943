"""Channel counts of every node, where the description leaves some of them open.

Nodes that must agree in channels (a sum and all that it adds, an operation that keeps channels and
what it reads) share one class. A class is as wide as a convolution or the input says, else as a
concatenation makes it, else as wide as the net.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from erftheory.network.endless import Along, Recurrent
from erftheory.network.graph import Concat, Graph, Input, Loop, Sum
from erftheory.network.imported import Channels, Spatial
from erftheory.network.layers import Conv, ConvTranspose

# layers that may say their channels
_OWN = (Conv, ConvTranspose, Channels, Spatial, Recurrent, Along)


@dataclass
class _Classes:
    """Nodes of one graph by class; node 0, the input, is in the class `of[0]`.

    Attributes:
      of: class of each node.
      parent: union-find forest over classes.
      fixed: widths that are given.
      joins: classes that a concatenation joins, by the class it makes.
      loops: (body, times, class read) of loops that widen, by the class they make.
      kept: classes that a convolution of open width reads.
      opened: classes that such a convolution makes.
      read: classes that any convolution reads.
    """

    of: list[int] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    fixed: list[tuple[int, int, str]] = field(default_factory=list)
    joins: dict[int, list[int]] = field(default_factory=dict)
    loops: dict[int, tuple[Graph, int, int]] = field(default_factory=dict)
    kept: list[int] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)
    read: list[int] = field(default_factory=list)

    def new(self) -> int:
        self.parent.append(len(self.parent))
        return len(self.parent) - 1

    def root(self, i: int) -> int:
        while self.parent[i] != i:
            i = self.parent[i]
        return i

    def union(self, a: int, b: int) -> int:
        a, b = sorted((self.root(a), self.root(b)))
        self.parent[b] = a
        return a

    def roots(self, members) -> set[int]:
        return {self.root(i) for i in members}

    def given(self) -> dict[int, int]:
        found: dict[int, int] = {}
        for member, width, name in self.fixed:
            before = found.setdefault(self.root(member), width)
            if before != width:
                raise ValueError(
                    f"{name or 'channels'}: got a sum of {before} and {width} channels; takes "
                    "branches of equal channels"
                )
        return found


@lru_cache(maxsize=256)
def _classes(graph: Graph) -> _Classes:
    c = _Classes()
    for node in graph.nodes:
        reads, op = [c.of[i] for i in node.inputs], node.op
        if isinstance(op, Conv | ConvTranspose):
            c.read.append(reads[0])
        if isinstance(op, Input):
            found = c.new()
        elif isinstance(op, Sum):
            found = reads[0]
            for other in reads[1:]:
                found = c.union(found, other)
        elif isinstance(op, Concat) and len(reads) > 1:
            found = c.new()
            c.joins[found] = reads
        elif isinstance(op, Loop):
            found = _loop_class(c, op, reads[0], node.name)
        elif isinstance(op, _OWN) and op.channels is not None:
            found = c.new()
            c.fixed.append((found, op.channels, node.name))
        elif isinstance(op, Conv | ConvTranspose) and op.groups != "depthwise":
            found = c.new()
            c.kept.append(reads[0])
            c.opened.append(found)
        else:
            found = reads[0]
        c.of.append(found)
    return c


def _loop_class(c: _Classes, op: Loop, read: int, name: str) -> int:
    body = _classes(op.graph)
    given, first, last = body.given(), body.root(body.of[0]), body.root(body.of[-1])
    if first in body.roots(body.read):
        c.read.append(read)
    if first in given:
        c.fixed.append((read, given[first], name))
    elif first in body.roots(body.kept):
        c.kept.append(read)
    if first == last:
        if first in body.roots(body.opened):
            c.opened.append(read)
        return read
    found = c.new()
    if last in given:
        c.fixed.append((found, given[last], name))
    elif last in body.roots(body.opened):
        c.opened.append(found)
    else:
        c.loops[found] = (op.graph, op.times, read)
    return found


def output_alone(graph: Graph) -> bool:
    """Whether nothing but the output's reader says how many channels it has: no convolution reads
    what must have as many."""
    c = _classes(graph)
    return c.root(c.of[-1]) not in c.roots(c.read)


def widths(
    graph: Graph, channels: int, source: int | None = None, target: int | None = None
) -> list[int]:
    """Channels of every node.

    Args:
      channels: width of what nothing else determines.
      source: channels of the input; None makes it as wide as the net if a sum or a convolution
        of open width ties it to the net, else 1.
      target: channels that a reader asks of the output, where it is open.

    Raises:
      ValueError: a sum of unequal channels.
    """
    c = _classes(graph)
    given = c.given()
    first, last = c.root(c.of[0]), c.root(c.of[-1])
    opened = c.roots(c.opened)
    if source is None:
        tied = first in opened or first in c.roots(c.kept)
        source = given.get(first, channels if tied else 1)
    if given.setdefault(first, source) != source:
        raise ValueError(
            f"channels: got a sum of {source} and {given[first]} channels; takes branches of "
            "equal channels"
        )
    if target is not None and last in opened:
        given.setdefault(last, target)
    joins: dict[int, list[list[int]]] = {}
    for member, parts in c.joins.items():
        joins.setdefault(c.root(member), []).append(parts)
    loops = {c.root(member): value for member, value in c.loops.items()}
    pending: set[int] = set()

    def width(member: int) -> int:
        root = c.root(member)
        if root in given:
            return given[root]
        if root in pending:
            raise ValueError(
                "channels: got a sum of a concatenation with its own part; takes a convolution "
                "between them"
            )
        pending.add(root)
        if root in joins:
            given[root] = sum(map(width, joins[root][0]))
        elif root in loops:
            body, times, read = loops[root]
            count = width(read)
            for _ in range(times):
                count = widths(body, channels, count)[-1]
            given[root] = count
        else:
            given[root] = channels
        return given[root]

    return [width(i) for i in c.of]
