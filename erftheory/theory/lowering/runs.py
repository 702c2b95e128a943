"""Fixed layers in a row, and fixed paths that part and meet again: one edge of summed amplitudes.

Amplitudes that are the same in every net (identities, sums, scales, average pooling, interpolation)
compose as gradients do. Where all that reads a port is one such edge, whatever leads to the port
reads on through it, and paths of the same two ends add up before they are squared: x + (x + f(x))
has an identity of amplitude 2 and power 4.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

Port = tuple[int, int]  # (node, channel group)


def contracted(
    raw: dict[Port, list], order: Sequence[Port], outputs: Container[Port], moves: Any
) -> dict[Port, list]:
    """Edges by the port they arrive at, with runs of fixed edges as one each.

    Args:
      raw: edges by the port they arrive at; `order` has all ports, readers first.
      outputs: where gradients start.
      moves: composes (`joined`, None where it cannot) and adds (`merged`) edges.
    """
    found: dict[Port, list] = {}
    for port in order:
        edges, parallel = [], {}
        for e in raw.get(port, ()):
            while e.kind != "random" and e.reader not in outputs:
                on = found.get(e.reader, ())
                further = moves.joined(e, on[0], port) if len(on) == 1 and _fixed(on[0]) else None
                if further is None:
                    break
                e = further
            if _fixed(e):
                parallel.setdefault(e.reader, []).append(e)
            else:
                edges.append(e)
        for same in parallel.values():
            edges += same if len(same) == 1 else moves.merged(same)
        found[port] = edges
    return found


def _fixed(edge: Any) -> bool:
    return edge.kind == "fixed" and edge.gate is None
