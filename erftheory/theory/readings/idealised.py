"""What the theory idealises of a model that was read.

A described network is one of the theory: its units are those of many channels. A model has the
channels, the image and the functions that it has, so where the law of its units matters, a bound
for rounding errors says too little; `note` lists why, and the size of the difference is unknown
(docs/predicted_against_measured.md has it for public models).
"""

from __future__ import annotations

import math

from erftheory.erf import ErrorBound
from erftheory.erf.bound import IDEALISED
from erftheory.network.activations import CURVES
from erftheory.network.base import Network
from erftheory.network.graph import Graph, Loop
from erftheory.network.initialisation import Init
from erftheory.network.layers import Activation, AvgPool, MaxPool, Norm
from erftheory.theory.lowering.branches import meets

MANY = "gains where branches meet are those of many channels"
SMOOTH = "smooth activations, exact for many channels"
POOLS = "pools behind activations, whose pixels count as independent"


def idealised(network: Network, signal: str, init: Init | None) -> str:
    """What is idealised of a model that was read; "" for described networks and raw paths."""
    read: tuple[str, ...] | None = getattr(network, "idealised", None)
    if read is None or init is None or signal == "gradient":
        return ""
    found = [*read, *_of(network.graph)]
    return IDEALISED + "; ".join(dict.fromkeys(found)) if found else ""


def marked(error: ErrorBound, why: str) -> ErrorBound:
    """A bound that covers rounding alone, as one of a model that is idealised."""
    if not why or error.kind == "approximation":
        return error
    return ErrorBound("approximation", math.inf, why, error.outside)


def _bends(graph: Graph) -> bool:
    """True if gains depend on the laws of units: activations, norms, largest pixels."""
    return any(
        isinstance(op, Norm | MaxPool) or isinstance(op, Activation) and op.name != "linear"
        for op in graph.operations()
    )


def _of(graph: Graph) -> list[str]:
    found = [MANY] if meets(graph) and _bends(graph) else []
    bent: set[int] = set()  # nodes behind an activation, with no weights in between
    for index, node in enumerate(graph.nodes):
        op = node.op
        if isinstance(op, Loop):
            found += _of(op.graph)
        elif isinstance(op, Activation) and op.name != "linear":
            if CURVES[op.curve].below is None:
                found.append(SMOOTH)
            bent.add(index)
        elif isinstance(op, MaxPool | AvgPool) and bent & set(node.inputs):
            found.append(POOLS)
            bent.add(index)
    return found
