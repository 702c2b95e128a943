"""Links: which channel group of a node feeds which group of its reader, with what power.

A node's channels fall into groups that share one law (a concatenation keeps its parts apart,
because a batch norm divides each by its own deviation). The power of a signal at a link is
per channel: g²(source channel) = gain · g²(target channel), summed over the taps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from erftheory.network.graph import Graph, Loop
from erftheory.network.imported import Scale
from erftheory.network.layers import Layer
from erftheory.theory.walk.weights import Weight


class Link(NamedTuple):
    """Input number `input` of a node, its group `source`, read by the node's group `target`."""

    input: int
    source: int
    target: int
    gain: Weight


class Power(NamedTuple):
    """Of a unit of a group: E x², and the mean over channels of (E x)²."""

    second: float
    level: float


@dataclass
class Gains:
    """Channel counts of the groups of every node, and the links of every node.

    Attributes:
      channels: for each node, the number of channels of its groups.
      links: for each node, its links.
      runs: for a `Loop` node, its iterations as (count, gains inside), output first.
      powers: for each node, what its groups' units have; empty if no forward pass was made.
      gates: for an activation, its name and the laws of the groups that it reads.
    """

    channels: list[tuple[int, ...]] = field(default_factory=list)
    links: list[tuple[Link, ...]] = field(default_factory=list)
    powers: list[tuple[Power, ...]] = field(default_factory=list)
    runs: dict[int, list[tuple[int, Gains]]] = field(default_factory=dict)
    gates: dict[int, tuple[str, tuple]] = field(default_factory=dict)


def structural_gains(graph: Graph, signal: str = "gradient") -> Gains:
    """One group a node and every tap counted at its own weight: raw paths."""
    gains = Gains()
    for index, node in enumerate(graph.nodes):
        gains.channels.append((1,))
        gain: Weight = 1
        if isinstance(node.op, Loop):
            inner = structural_gains(node.op.graph, signal)
            gains.runs[index] = [(node.op.times, inner)]
            gain = transfer(node.op.graph, inner) ** min(node.op.times, 4096)
        elif isinstance(node.op, Layer):
            step = graph.own_steps[index]
            if isinstance(node.op, Scale):
                gain = abs(Fraction(node.op.factor)) ** (1 if signal == "gradient" else 2)
            elif step is not None and step.kind == "fixed" and signal == "variance":
                gain = sum(tap * tap for tap in step.kernel.exact)
            elif step is not None:
                gain = step.of(signal).kernel.scale
        gains.links.append(tuple(Link(i, 0, 0, gain) for i in range(len(node.inputs))))
    return gains


# What `ErrorBound.note` says of a model's own weights.
MIXED = (
    "weights summed over channels, layer by layer: exact where channels carry equal power, or "
    "share their taps, and no two layers share weights"
)


def mixed_weights(graph: Graph) -> bool:
    """True if some layer has weights of its own on several channels."""
    given = (getattr(op, "weights", None) for op in graph.operations())
    return any(own is not None and own.mixes for own in given)


def transfer(graph: Graph, gains: Gains, start: int = 0, end: int | None = None) -> Weight:
    """Power that arrives at node `start` (its first group) for 1 per channel at node `end`."""
    end = len(graph.nodes) - 1 if end is None else end
    mass: dict[tuple[int, int], Weight] = {(end, g): 1 for g in range(len(gains.channels[end]))}
    for index in range(end, start, -1):
        node = graph.nodes[index]
        for link in gains.links[index]:
            reader = mass.get((index, link.target))
            if reader is not None:
                port = (node.inputs[link.input], link.source)
                mass[port] = mass.get(port, 0) + link.gain * reader
    return mass.get((start, 0), 0)
