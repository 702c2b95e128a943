"""Which operation makes a receptive field infinite, and what can be done about it."""

from __future__ import annotations

from erftheory.network.base import Network
from erftheory.network.endless import Endless
from erftheory.network.graph import Graph, Input, Loop
from erftheory.network.imported import GraphNetwork


def unbounded(network: Network) -> str:
    """What reads axes of the image to their ends, by name, and how to read the network without it;
    "" if nothing."""
    what, how = _reasons(network)
    return f"{what}; {how}" if what else ""


def refuse_unbounded(network: Network) -> None:
    """
    Raises:
      ValueError: the receptive field has no end, along some axis.
    """
    what, how = _reasons(network)
    if what:
        raise ValueError(
            f"network: got a receptive field without end ({what}); takes one with an end: {how}"
        )


def _reasons(network: Network) -> tuple[str, str]:
    """What has no end, and what to do about it."""
    graph = network.graph
    if not graph.has_global:
        return "", ""
    found = _endless(graph, "", network.axis_names)
    more = f", the first of {len(found)}" if len(found) > 1 else ""
    if _imported(network) and _passes(graph):
        how = 'read the model with hold="global" to hold constant what it gives'
    else:
        how = "until() gives the network up to a map before it"
    return found[0] + more, how


def _endless(graph: Graph, scope: str, axes: tuple[str, ...]) -> list[str]:
    """What all endless operations read, by their names in `until` where they have one."""
    found = []
    for node in graph.nodes:
        name = scope + ("/" if scope and node.name else "") + node.name
        if isinstance(node.op, Loop):
            found += _endless(node.op.graph, f"{name}[0]" if name else "", axes)
        elif isinstance(node.op, Endless):
            what = node.op.called(axes)
            said = f"the {what} {name!r}" if name else f"{_article(what)} {what}"
            found.append(f"{said} {_reads(node.op, graph.ndim)}")
    return found


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _reads(op: Endless, ndim: int) -> str:
    ways = op.reach(ndim)
    if all(map(all, ways)):
        return "sees the whole image"
    before, behind = (any(w) for w in zip(*ways))
    if before and behind:
        return "sees all of it"
    return "looks back without end" if before else "looks ahead without end"


def _passes(graph: Graph) -> bool:
    """True if a path leads past the endless operations, so that they only weigh what is on it."""
    past: list[bool] = []
    for node in graph.nodes:
        if isinstance(node.op, Input):
            past.append(True)
        elif isinstance(node.op, Loop):
            past.append(past[node.inputs[0]] and _passes(node.op.graph))
        else:
            reads = any(past[i] for i in node.inputs)
            past.append(reads and not isinstance(node.op, Endless))
    return past[-1]


def _imported(network: Network) -> bool:
    return isinstance(network, GraphNetwork) or any(map(_imported, network.parts))
