"""Runs of layers without random weights, of which only all paths together act on powers.

Between two random layers gradients are correlated: paths of fixed and plain edges that part and
meet again add up as gradients, and are squared afterwards. A path is the tuple of edges from a
source port (uncorrelated gradients) down to some port. Edges are those of the plane or of a grid:
they have a `reader` and a `kind` as in `walk.RawEdge`.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from erftheory.theory.walk import Port


def joined(
    raw: dict[Port, list], order: Sequence[Port], outputs: Sequence[Port], squared: Callable
) -> dict[Port, list[Any]]:
    """Edges by the port they arrive at: random ones as they are, the others run by run.

    Args:
      raw: edges by the port they arrive at; `order` has all ports, readers first.
      outputs: where gradients start.
      squared: one edge for a source and all paths from it.

    Raises:
      ValueError: a fixed layer behind a port where other signals arrive that are uncorrelated.
    """
    under = _below(raw)
    ahead = _fixed_ahead(under, order)
    wide = _recombining(under, order, ahead)
    paths: dict = {port: {port: [()]} for port in outputs}
    result: dict[Port, list] = {}
    for port in order:
        found = defaultdict(list, {s: list(p) for s, p in paths.get(port, {}).items()})
        random = []
        for e in raw.get(port, []):
            if e.kind == "random":
                random.append(e)
                continue
            for source, before in paths[e.reader].items():
                found[source] += [(*path, e) for path in before]
        own = found.pop(port, None)  # an output unit starts here
        result[port] = random + [squared(s, p) for s, p in found.items()]
        bare = all(e.kind != "fixed" for ps in found.values() for p in ps for e in p)
        settled = (bare or not ahead[port]) and not wide & set(found)
        if settled or not found:
            paths[port] = {port: [()]}
        elif random or own:  # a source of their own beside the open ones
            raise ValueError(
                "network: got fixed layers (average pooling, interpolation) on a path that "
                "also carries other signals; takes a convolution between fixed layers there"
            )
        else:
            paths[port] = dict(found)
    return result


def _below(raw) -> dict:
    """For each port, the (port, edge) pairs that plain and fixed edges lead to."""
    below = defaultdict(list)
    for port, edges in raw.items():
        for e in edges:
            if e.kind != "random":
                below[e.reader].append((port, e))
    return below


def _fixed_ahead(below: dict, order) -> dict:
    """For each port, whether a fixed layer follows towards the input before a random one."""
    ahead: dict = {}
    for port in reversed(order):
        ahead[port] = any(e.kind == "fixed" or ahead[p] for p, e in below.get(port, ()))
    return ahead


def _recombining(below: dict, order, ahead: dict) -> set:
    """Ports from which two paths, one of them through a fixed layer, meet again unrandomised."""
    rank = {port: i for i, port in enumerate(order)}
    wide = set()
    for source in below:
        if not ahead[source]:
            continue
        count = {source: (1, False)}
        queue = [(rank[source], source)]
        while queue:  # in topological order, so that every count is complete when it is read
            _, port = heapq.heappop(queue)
            paths, through = count[port]
            for target, e in below.get(port, ()):
                if target not in count:
                    heapq.heappush(queue, (rank[target], target))
                had, was = count.get(target, (0, False))
                count[target] = (had + paths, was or through or e.kind == "fixed")
        if any(n > 1 and through for n, through in count.values()):
            wide.add(source)
    return wide


def memories(path) -> tuple[float, float, bool]:
    """What a path keeps of a lag before its first fixed layer, and after; and whether nearly."""
    first = next((i for i, e in enumerate(path) if e.kind == "fixed"), 0)
    before, after = (math.prod(e.memory for e in part) for part in (path[:first], path[first:]))
    return before, after, any(e.nearly for e in path)


def unmasked(path) -> None:
    """Refuse dropout between fixed layers: masks keep E g² = (f∗h)² + ρ/(1−ρ) f²∗h² apart."""
    places = [i for i, e in enumerate(path) if e.kind == "fixed"]
    if len(places) > 1 and any(e.kind == "masked" for e in path[places[0] : places[-1]]):
        raise ValueError(
            "network: got dropout between fixed layers (average pooling, interpolation), where it "
            "changes the shape; takes a convolution between them, or no dropout there"
        )
