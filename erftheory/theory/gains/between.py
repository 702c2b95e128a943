"""Layer to layer: the part of a network between two of its endpoints.

A field seen from an inner layer counts the paths that pass through that layer, as the gradient
d output / d source does: what reaches the output around the source is left out. Its weights are
those of the whole network, because the power at an inner layer is what the layers before it make
of the input; a sub-network read alone would start from N(0, 1) instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from erftheory.network.base import Network, check_network
from erftheory.network.graph import Builder, Graph, Input, Node, Sum, unrolled
from erftheory.network.imported import GraphNetwork
from erftheory.network.initialisation import Init
from erftheory.theory.gains.forward import meanfield_gains
from erftheory.theory.lowering.branches import repeats_fixed
from erftheory.theory.walk.links import Gains


class Between(GraphNetwork):
    """The paths of `whole` from node `source` to its output; `graph` has the source as input.

    `kept` are the nodes of `whole` in the order of `graph`, the source first; `unrolled` makes the
    same part with every repetition written out.
    """

    def __init__(
        self, graph: Graph, whole: Graph, kept: tuple[int, ...], unrolled: Callable[[], Between]
    ):
        super().__init__(graph)
        object.__setattr__(self, "whole", whole)
        object.__setattr__(self, "kept", kept)
        object.__setattr__(self, "unrolled", unrolled)

    whole: Graph
    kept: tuple[int, ...]
    idealised: tuple[str, ...] | None = None  # as of the whole, where that was read
    unrolled: Callable[[], Between]

    def gains(self, signal: str, init: Init) -> Gains:
        """Those of the whole network, on the nodes that are left."""
        found, place = meanfield_gains(self.whole, signal, init), set(self.kept)
        gains = Gains()
        for new, old in enumerate(self.kept):
            gains.channels.append(found.channels[old])
            gains.powers.append(found.powers[old])
            inputs = [i for i in self.whole.nodes[old].inputs]
            moved, count = {}, 0
            for position, before in enumerate(inputs):
                if before in place:
                    moved[position] = count
                    count += 1
            links = () if new == 0 else found.links[old]
            gains.links.append(
                tuple(k._replace(input=moved[k.input]) for k in links if k.input in moved)
            )
            if new and old in found.runs:
                gains.runs[new] = found.runs[old]
            if new and old in found.gates:
                gains.gates[new] = found.gates[old]
        return gains


def ending_at(network: Network, node: int) -> Network:
    """The network up to a node of its graph; of a part, written out, with the whole's gains."""
    builder = Builder(network.graph.ndim)
    builder.nodes = list(network.graph.nodes)
    graph = builder.finish(node)
    if not isinstance(network, Between):
        return GraphNetwork(graph)
    needed = {node}
    for index in range(node, -1, -1):
        if index in needed:
            needed.update(network.graph.nodes[index].inputs)
    kept = tuple(network.kept[i] for i in sorted(needed | {0}))
    found = Between(graph, network.whole, kept, lambda: found)
    return found


def between(network: Network, source: str | None = None, output: str | None = None) -> Network:
    """The network from `source` to `output`, two names that `until` takes.

    Args:
      source: the part whose output takes the input's place; None is the network's input.
      output: the part whose output is looked at; None is the network's output.

    Returns:
      `network` itself, `network.until(output)`, or a `Between` in the pixels of the source.

    Raises:
      ValueError: no part has that name, or no path leads from the source to the output.
    """
    check_network("network", network)
    last = network if output is None else _until(network, "output", output)
    if source is None:
        return last
    _until(network, "source", source)
    start = None
    if not repeats_fixed(last.graph):
        start = _locate(last.graph, network, source, False)
    if start is None:
        found = _deep(last.graph, network, source, output)
    else:
        found = _cut(last.graph, start, lambda: _deep(last.graph, network, source, output))
    object.__setattr__(found, "idealised", getattr(last, "idealised", None))
    object.__setattr__(found, "_axis_names", network.axis_names)
    return found


def _until(network: Network, argument: str, name: str) -> Network:
    try:
        return network.until(name)
    except ValueError as wrong:
        raise ValueError(str(wrong).replace("endpoint:", f"{argument}:", 1)) from None


def _deep(graph: Graph, network: Network, source: str, output: str | None) -> Between:
    """`between` with every repetition written out."""
    whole = unrolled(graph)
    start = _locate(whole, network, source, True)
    if start is None:
        raise ValueError(
            f"source: got {source!r}, which {output or 'the output'} does not read; takes a part "
            "on the way to the output"
        )
    return _cut(whole, start, lambda: _deep(graph, network, source, output))


def _cut(whole: Graph, start: int, deep: Callable[[], Between]) -> Between:
    reached = {start}
    for index, node in enumerate(whole.nodes):
        if any(i in reached for i in node.inputs):
            reached.add(index)
    kept = tuple(sorted(reached))
    place = {old: new for new, old in enumerate(kept)}
    nodes = [Node(Input(), (), whole.nodes[start].name or "input")]
    for old in kept[1:]:
        node = whole.nodes[old]
        op = Sum(None, place.get(node.op.fork or 0)) if isinstance(node.op, Sum) else node.op
        nodes.append(Node(op, tuple(place[i] for i in node.inputs if i in place), node.name))
    # a node of the whole graph leads to its output, so all that the source reaches does too
    return Between(Graph(whole.ndim, tuple(nodes)), whole, kept, deep)


def _locate(whole: Graph, network: Network, source: str, unroll: bool) -> int | None:
    """The node of `whole` that computes what `until(source)` does, under a name that fits."""
    part = network.until(source).graph
    known: dict[tuple, int] = {}
    wanted = _keys(unrolled(part) if unroll else part, known)[-1]
    candidates = [i for i, key in enumerate(_keys(whole, known)) if key == wanted]
    own = part.nodes[-1].op

    def rank(index: int) -> tuple[bool, bool]:
        # branches may compute alike up to here: imported parts often have no name in the graph,
        # and described ones may share a layer object
        return whole.nodes[index].op is own, _fits(source, whole.nodes[index].name)

    return max(candidates, key=rank, default=None)


def _keys(graph: Graph, known: dict[tuple, int]) -> list[int]:
    """One number a node, equal for nodes that compute the same from the input."""
    keys: list[int] = []
    for node in graph.nodes:
        op = (Sum, node.op.gain) if isinstance(node.op, Sum) else node.op
        key = (op, *(keys[i] for i in node.inputs))
        keys.append(known.setdefault(key, len(known)))
    return keys


def _fits(endpoint: str, scope: str) -> bool:
    """Whether the names of the endpoint occur in the scope in their order."""
    rest: Iterable[str] = iter(scope.replace("[", "/[").split("/"))
    return all(name in rest for name in endpoint.replace("[", "/[").split("/") if name)
