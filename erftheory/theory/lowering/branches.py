"""What a graph has: branches that meet, fixed layers, paths without weights that meet again."""

from __future__ import annotations

from erftheory.network.endless import Endless
from erftheory.network.graph import Concat, Graph, Loop, Sum, step_of
from erftheory.network.imported import Channels
from erftheory.network.layers import AvgPool, MaxPool, Upsample


def repeats_fixed(graph: Graph) -> bool:
    """True if fixed layers are repeated: their runs, and what these correlate, cross iterations."""
    return any(
        isinstance(node.op, Loop) and fixed_layers(node.op.graph) > 0 for node in graph.nodes
    )


def fixed_layers(graph: Graph) -> int:
    """Number of layers of fixed weights, repetitions counted."""
    found = 0
    for node, step in zip(graph.nodes, graph.own_steps):
        if isinstance(node.op, Loop):
            found += node.op.times * fixed_layers(node.op.graph)
        else:
            found += step is not None and step.kind == "fixed" and not step.kernel.trivial
    return found


def meets(graph: Graph) -> bool:
    """True if branches meet somewhere, so that their gains matter."""
    return any(isinstance(op, Sum | Concat) for op in graph.operations())


def coheres(graph: Graph) -> bool:
    """True if paths without random weights meet again in a sum, so that amplitudes add."""
    return any(meeting(part) for part in graph.graphs())


def rescales(graph: Graph) -> bool:
    """True if a layer shares the mass of what it reads among the pixels that the image has."""
    for op in graph.operations():
        inside = isinstance(op, MaxPool) or isinstance(op, AvgPool) and not op.count_include_pad
        step = step_of(op, graph.ndim)
        if inside and step is not None and any((*step.before, *step.after)):
            return True
        if isinstance(op, Upsample) and op.mode == "bilinear":  # positions beyond stay on the rim
            return True
    return False


def leads_through(graph: Graph) -> bool:
    """True if a path without random weights leads from the input to the output."""
    return graph.known(_weightless)[1]


def meeting(graph: Graph) -> frozenset[int]:
    """The sums in which paths without random weights from one node meet again."""
    return graph.known(_weightless)[0]


def _weightless(graph: Graph) -> tuple[frozenset[int], bool]:
    """These sums, and whether a path without random weights leads through the graph."""
    above: list[int] = [1]  # bits of the nodes that paths without random weights come from
    found = []
    for index, node in enumerate(graph.nodes[1:], start=1):
        reads = [above[i] for i in node.inputs]
        if isinstance(node.op, Loop):
            ends = not node.op.graph.known(_weightless)[1]
        else:
            step = graph.own_steps[index]
            ends = step is not None and step.kind == "random"
            ends = ends or isinstance(node.op, Endless | Channels)
        own = 0
        for bits in () if ends else reads:
            if own & bits and isinstance(node.op, Sum):
                found.append(index)
            own |= bits
        above.append(own | 1 << index)
    return frozenset(found), bool(above[-1] & 1)
