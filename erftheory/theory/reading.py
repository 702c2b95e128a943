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
    kind = "variance" if signal == "magnitude" else signal
    if kind == "variance" and repeats_fixed(network.graph):
        network = GraphNetwork(unrolled(network.graph))
    if init is None or not meets(network.graph):
        return build(network, kind)
    from erftheory.theory.meanfield import meanfield_gains

    return build(network, kind, meanfield_gains(network.graph, kind, init))


def repeats_fixed(graph: Graph) -> bool:
    """True if fixed layers are repeated: their runs, and what these correlate, cross iterations."""
    return any(
        isinstance(node.op, Loop) and (_has_fixed(node.op.graph) or repeats_fixed(node.op.graph))
        for node in graph.nodes
    )


def _has_fixed(graph: Graph) -> bool:
    steps = (node.op.step(graph.ndim) for node in graph.nodes if isinstance(node.op, Layer))
    return any(s is not None and s.kind == "fixed" and not s.kernel.trivial for s in steps)


def meets(graph: Graph) -> bool:
    """True if branches meet somewhere, so that their gains matter."""
    return any(
        isinstance(node.op, (Sum, Concat)) or (isinstance(node.op, Loop) and meets(node.op.graph))
        for node in graph.nodes
    )
