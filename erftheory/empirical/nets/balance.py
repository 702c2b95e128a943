"""Factors that give the branches of a random net their explicit gain.

`Residual(gain=a)` asks for branches of a times the skip's power. The initialisation gives another
ratio; the mean-field pass knows it, and with it the factor that an executed branch needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from erftheory.network.graph import Graph, Loop, Sum


def explicit(graph: Graph) -> bool:
    """Whether any sum has a gain of its own."""
    return any(isinstance(op, Sum) and op.gain is not None for op in graph.operations())


def factors(
    graph: Graph, init: str | float, channels: int, in_channels: int
) -> list[Any] | None:
    """Amplitude of the first input of every sum, None where it is 1; see `Engine.prepare`.

    A `Loop` has a list with one such list an iteration, from the input on. None for a graph
    without explicit gains.
    """
    if not explicit(graph):
        return None
    from erftheory.theory.gains.forward import meanfield_gains

    return _factors(graph, meanfield_gains(graph, "variance", init, channels, in_channels))


def _factors(graph: Graph, gains: Any) -> list[Any]:
    out: list[Any] = []
    for index, node in enumerate(graph.nodes):
        if isinstance(node.op, Loop):
            runs = [(n, _factors(node.op.graph, inner)) for n, inner in gains.runs[index]]
            out.append([rows for n, rows in reversed(runs) for _ in range(n)])
        elif isinstance(node.op, Sum) and node.op.gain is not None:
            first, second = ([k for k in gains.links[index] if k.input == i] for i in (0, 1))
            out.append(float(np.sqrt(float(first[0].gain) / float(second[0].gain))))
        else:
            out.append(None)
    return out
