"""From the arguments of a reading to the walk it reads."""

from __future__ import annotations

from erftheory.network.arguments import one_of
from erftheory.network.base import Network, check_network
from erftheory.network.graph import Concat, Graph, GraphNetwork, Loop, Sum, unrolled
from erftheory.network.layers import Layer
from erftheory.theory.lowering import build
from erftheory.theory.walk import SIGNALS, Walk

INITS = ("he", "lecun", "xavier", None)


def prepare(network: Network, signal: str, init: str | None) -> Walk:
    """The walk of `network` for a signal, with gains from the forward pass where branches meet."""
    check_network("network", network)
    one_of("signal", signal, SIGNALS)
    one_of("init", init, INITS)
    from erftheory.theory.meanfield import meanfield_gains

    kind = "variance" if signal == "magnitude" else signal
    if kind == "variance" and repeats_fixed(network.graph):
        network = GraphNetwork(unrolled(network.graph))
    if init is None or not meets(network.graph):
        walk = build(network, kind)
    else:
        walk = build(network, kind, meanfield_gains(network.graph, kind, init))
    if not walk.correlated:
        return walk
    network = GraphNetwork(unrolled(network.graph))
    gains = None if init is None else meanfield_gains(network.graph, kind, init)
    return build(network, kind, gains, lifted=True)


def repeats_fixed(graph: Graph) -> bool:
    """True if fixed layers are repeated: their runs, and what these correlate, cross iterations."""
    return any(
        isinstance(node.op, Loop) and fixed_layers(node.op.graph) > 0
        for node in graph.nodes
    )


def fixed_layers(graph: Graph) -> int:
    """Number of layers of fixed weights, repetitions counted."""
    found = 0
    for node in graph.nodes:
        if isinstance(node.op, Loop):
            found += node.op.times * fixed_layers(node.op.graph)
        elif isinstance(node.op, Layer):
            step = node.op.step(graph.ndim)
            found += step is not None and step.kind == "fixed" and not step.kernel.trivial
    return found


def meets(graph: Graph) -> bool:
    """True if branches meet somewhere, so that their gains matter."""
    return any(
        isinstance(node.op, (Sum, Concat)) or (isinstance(node.op, Loop) and meets(node.op.graph))
        for node in graph.nodes
    )
