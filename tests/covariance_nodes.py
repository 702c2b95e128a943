"""The nodes of a description, and the pixels of every node, for the referee of tests/covariance.py.

Descriptions are read by their public arguments alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from covariance_layers import Span, reads, resized

from erftheory import (
    Branches,
    Chain,
    Conv,
    ConvTranspose,
    GlobalAvgPool,
    Named,
    Network,
    Repeat,
    Residual,
)

WINDOWS = (Conv, ConvTranspose)
WIDTH = 16  # of convolutions that state no channels


class Unequal(ValueError):
    """Inputs of a sum that differ in channels or in pixels."""


@dataclass(frozen=True)
class Node:
    """`op` is a layer, "input", "sum" or "concat"; `channels` that it has."""

    op: Any
    inputs: tuple[int, ...]
    channels: int


class Again(Exception):
    """The channels of a node left open are known now: read once more."""


@dataclass
class Reader:
    """Collects the nodes of a description.

    `width` is that of the input and of convolutions that state none, unless a sum says more, which
    `forced` remembers by node.
    """

    width: int
    forced: dict[int, int]
    tied: bool = False  # an open convolution reads the input: it is as wide as the net
    nodes: list[Node] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)

    def add(self, op: Any, inputs: tuple[int, ...], channels: int) -> int:
        self.nodes.append(Node(op, inputs, channels))
        return len(self.nodes) - 1

    def read(self, network: Network, source: int) -> int:
        if isinstance(network, Chain):
            for part in network.parts:
                source = self.read(part, source)
            return source
        if isinstance(network, Repeat):
            for _ in range(network.times):
                source = self.read(network.part, source)
            return source
        if isinstance(network, Named):
            found = self.names[network.name] = self.read(network.part, source)
            return found
        if isinstance(network, Residual):
            if network.gain is not None:
                raise NotImplementedError("an explicit gain")
            return self.merge("sum", (network.branch, network.shortcut), source)
        if isinstance(network, Branches):
            return self.merge(network.merge, network.branches, source)
        channels = self.nodes[source].channels
        if isinstance(network, WINDOWS):
            if network.weights is not None:
                raise NotImplementedError("weights of its own")
            if network.channels:
                channels = network.channels
            elif network.groups != "depthwise":
                channels = self.forced.get(len(self.nodes), self.width)
                if self.origin(source) == 0 and not self.tied and 0 not in self.forced:
                    self.tied = True
                    raise Again
        return self.add(network, (source,), channels)

    def merge(self, how: str, branches: tuple[Network | None, ...], source: int) -> int:
        ends = tuple(source if b is None else self.read(b, source) for b in branches)
        counts = [self.nodes[e].channels for e in ends]
        if how == "concat":
            return self.add(how, ends, sum(counts))
        if len(set(counts)) > 1:
            origins = [self.origin(e) for e in ends]
            free = [o for o in origins if o is not None and o not in self.forced]
            said = [n for n, o in zip(counts, origins) if o not in free]
            if not free or len(set(said)) > 1:
                raise Unequal(f"a sum of {counts} channels")
            self.forced.update(dict.fromkeys(free, said[0] if said else self.width))
            raise Again
        return self.add(how, ends, counts[0])

    def origin(self, index: int) -> int | None:
        """The open convolution, or the input, whose channels these are; None if stated."""
        node = self.nodes[index]
        if node.op == "input":
            return index
        if isinstance(node.op, WINDOWS) and node.op.groups != "depthwise":
            return None if node.op.channels else index
        return None if node.op == "concat" else self.origin(node.inputs[0])


def layers_of(network: Network) -> Iterator[Network]:
    """Every layer of a description, repetitions once."""
    parts = network.parts
    if not parts:
        yield network
    for part in parts:
        yield from layers_of(part)


def read(network: Network, width: int | None, in_channels: int | None) -> Reader:
    """The nodes. Open convolutions are 16 wide, as the readings make them.

    Where the input is as wide as they are and no layer states its channels, the width is a factor
    of all masses and no more: there they are as wide as there are groups.
    """
    convolutions = [layer for layer in layers_of(network) if isinstance(layer, WINDOWS)]
    given, least = width, math.lcm(*(c.groups for c in convolutions if c.groups != "depthwise"))
    if width is None:
        width = WIDTH if any(c.channels for c in convolutions) else least
    forced = {0: in_channels} if in_channels else {}
    tied = False
    while True:
        reader = Reader(width, forced, tied)
        reader.add("input", (), forced.get(0, width if tied else 1))
        try:
            reader.read(network, 0)
        except Again:
            tied = reader.tied
            continue
        opened = any(isinstance(n.op, WINDOWS) and reader.origin(i) == i
                     for i, n in enumerate(reader.nodes))  # fmt: skip
        if given is None and width != WIDTH and opened and not tied and 0 not in forced:
            width = WIDTH
            continue
        for node in reader.nodes:
            groups = getattr(node.op, "groups", 1)
            if groups != "depthwise" and reader.nodes[node.inputs[0] if node.inputs else 0
                                                      ].channels % groups:  # fmt: skip
                raise Unequal(f"{groups} groups that do not divide the channels")
        return reader


# ---- the pixels of every node ------------------------------------------------------------------


def on_image(nodes: list[Node], image: Span) -> list[Span]:
    """Spans from 0, from the input on."""
    ndim, spans = len(image), [image]
    for node in nodes[1:]:
        before = [spans[i] for i in node.inputs]
        if len(set(before)) > 1:
            raise Unequal(f"a {node.op} of {before}")
        if isinstance(node.op, str):
            spans.append(before[0])
            continue
        sizes = [resized(node.op, a, ndim, before[0][a][1]) for a in range(ndim)]
        if min(sizes) < 1:
            raise Unequal(f"an image too small for {node.op}")
        spans.append(tuple((0, n) for n in sizes))
    return spans


def on_plane(nodes: list[Node], unit: tuple[int, ...]) -> list[Span | None]:
    """Spans that hold all that the unit reads, from the output down; None is nothing."""
    ndim = len(unit)
    spans: list[Any] = [None] * len(nodes)
    spans[-1] = tuple((u, u + 1) for u in unit)
    for index in range(len(nodes) - 1, 0, -1):
        node, span = nodes[index], spans[index]
        if span is None:
            continue
        if isinstance(node.op, GlobalAvgPool):
            raise Unequal("a global mean on the plane")
        if hasattr(node.op, "dilation") or hasattr(node.op, "factor"):
            seen = [
                [i for o in range(*span[a]) for _, i in reads(node.op, a, ndim, None, o)]
                for a in range(ndim)
            ]
            if not all(seen):
                continue
            span = tuple((min(row), max(row) + 1) for row in seen)
        for i in node.inputs:
            old = spans[i] or span
            spans[i] = tuple((min(a, c), max(b, d)) for (a, b), (c, d) in zip(old, span))
    return spans
