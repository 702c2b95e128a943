"""Channel counts: a graph with a number of channels at every node, ready to be executed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from erftheory.network.channels import output_alone, widths
from erftheory.network.graph import Graph, Loop, Op
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
def plan(
    graph: Graph, channels: int = 16, in_channels: int = 1, out_channels: int | None = None
) -> Plan:
    """Give every node its channels.

    A convolution gives `Conv(channels=)` if set. Otherwise it gives what a sum demands that it
    reaches through operations which keep channels (an identity shortcut: the trunk's channels),
    `out_channels` (1 if None) if it makes the output, and `channels` elsewhere.

    Raises:
      ValueError: a sum of unequal channels, or groups that do not divide them.
    """
    alone = out_channels or 1 if output_alone(graph) else None
    return _build(graph, widths(graph, channels, in_channels, alone), channels)


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


def _build(graph: Graph, count: list[int], channels: int) -> Plan:
    parts = []
    for index, node in enumerate(graph.nodes):
        op, after = node.op, count[index]
        before = count[node.inputs[0]] if node.inputs else after
        groups, runs = 1, ()
        if isinstance(op, Loop):
            runs = _iterations(op, before, after, channels)
        elif isinstance(op, (Conv, ConvTranspose)):
            groups = before if op.groups == "depthwise" else int(op.groups)
            if before % groups or after % groups:
                raise ValueError(
                    f"groups: got {groups} with {before} channels in and {after} out; takes a "
                    'divisor of both, or "depthwise"'
                )
        parts.append(Part(op, node.inputs, before, after, groups, runs))
    return Plan(graph.ndim, tuple(parts), _growth(graph))


def _iterations(
    op: Loop, before: int, after: int, channels: int
) -> tuple[tuple[int, Plan], ...]:
    """The iterations of a repetition, the last as wide as its reader asks."""
    runs: list[tuple[int, Plan]] = []
    for i in range(op.times):
        last = i == op.times - 1
        count = widths(op.graph, channels, before, after if last else None)
        made = _build(op.graph, count, channels)
        before = count[-1]
        if runs and runs[-1][1] == made:
            runs[-1] = (runs[-1][0] + 1, made)
        else:
            runs.append((1, made))
    return tuple(runs)
