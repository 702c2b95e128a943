"""Which operation makes a receptive field infinite, and what can be done about it."""

from __future__ import annotations

from erftheory.network.base import Network
from erftheory.network.graph import Graph, GraphNetwork, Input, Loop
from erftheory.network.layers import GlobalAvgPool


def unbounded(network: Network) -> str:
    """What sees the whole image, by name, and how to read the network without it; "" if nothing."""
    graph = network.graph
    found = _globals(graph, "")
    if not found:
        return ""
    more = f" (the first of {len(found)})" if len(found) > 1 else ""
    if _imported(network) and _passes(graph):
        how = 'read the model with hold="global" to hold constant what it gives'
    else:
        how = "until() gives the network up to a map before it"
    return f"{found[0]} sees the whole image{more}; {how}"


def _globals(graph: Graph, scope: str) -> list[str]:
    """All global operations, by their names in `until` where they have one."""
    found = []
    for node in graph.nodes:
        name = scope + ("/" if scope and node.name else "") + node.name
        if isinstance(node.op, Loop):
            found += _globals(node.op.graph, f"{name}[0]" if name else "")
        elif isinstance(node.op, GlobalAvgPool):
            found.append(f"the global average {name!r}" if name else "a global average")
    return found


def _passes(graph: Graph) -> bool:
    """True if a path leads past the global operations, so that they only weigh what is on it."""
    past: list[bool] = []
    for node in graph.nodes:
        if isinstance(node.op, Input):
            past.append(True)
        elif isinstance(node.op, Loop):
            past.append(past[node.inputs[0]] and _passes(node.op.graph))
        else:
            reads = any(past[i] for i in node.inputs)
            past.append(reads and not isinstance(node.op, GlobalAvgPool))
    return past[-1]


def _imported(network: Network) -> bool:
    return isinstance(network, GraphNetwork) or any(map(_imported, network.parts))
