"""All single steps of the walk behind an ERF, each layer apart, and how likely each is.

The readings join layers that follow each other; a derivative needs them one by one. From the input
on, the walk stands at ports (a channel group of a node) and takes an edge with probability
gain · M(reader) / M(port), M being the power that reaches a port from the output.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from erftheory.network.base import Network, check_network
from erftheory.network.graph import Graph
from erftheory.network.initialisation import Init, check_init
from erftheory.theory.gains.prepare import gains_of, written_out
from erftheory.theory.lowering.branches import meets
from erftheory.theory.lowering.lowering import states
from erftheory.theory.lowering.unbounded import refuse_unbounded
from erftheory.theory.walk.links import structural_gains
from erftheory.theory.walk.walk import Port, RawEdge


@dataclass(frozen=True)
class Passes:
    """The walk of a network, every repetition written out.

    Attributes:
      graph: its operations.
      order: ports from the output to the input; `ends` are those of the output.
      edges: of each port, (probability, edge) to ports before it in the order.
      starts: probability that the walk begins at a port.
    """

    graph: Graph
    order: tuple[Port, ...]
    ends: frozenset[Port]
    edges: dict[Port, list[tuple[float, RawEdge]]]
    starts: dict[Port, float]


def passes(network: Network, init: Init | None) -> Passes:
    """The walk of the variance signal, layer by layer.

    Raises:
      ValueError: a global operation, up-sampling, or gradients of different pixels that fixed
        layers (average pools in a row) correlate.
    """
    check_network("network", network)
    check_init(init, counting=True)
    refuse_unbounded(network)
    network = written_out(network)
    graph = network.graph
    gains = gains_of(network, "variance", init) if meets(graph) else None
    gains = structural_gains(graph, "variance") if gains is None else gains
    found, fine = states(graph, "variance", gains)
    if max(fine) > 1 or any(e.restrict for row in found.arriving.values() for e in row):
        raise ValueError("network: got up-sampling; takes networks whose strides only add up")
    if any(len(state) == 3 for state in found.order):
        raise ValueError(
            "network: got gradients that fixed layers correlate; takes networks whose average "
            "pools and skips do not follow or join each other without a convolution"
        )
    last = len(graph.nodes) - 1
    ends = frozenset((last, g) for g in range(len(gains.channels[last])))
    mass, edges = {}, {}
    for port in found.order:
        logs = [_log(e.gain) + mass[e.reader] for e in found.arriving.get(port, ())]
        mass[port] = _total([*logs, *([0.0] if port in ends else [])])
        shares = [math.exp(x - mass[port]) for x in logs]
        edges[port] = list(zip(shares, found.arriving.get(port, ())))
    begin = {(0, g): math.log(c) for g, c in enumerate(gains.channels[0]) if (0, g) in mass}
    whole = _total([log + mass[port] for port, log in begin.items()])
    starts = {port: math.exp(log + mass[port] - whole) for port, log in begin.items()}
    return Passes(graph, tuple(found.order), ends, edges, starts)  # type: ignore[arg-type]


def _log(value: Any) -> float:
    return math.log(value) if value > 0 else -math.inf


def _total(logs: list[float]) -> float:
    top = max(logs)
    return top + math.log(sum(math.exp(x - top) for x in logs))


def places(edge: RawEdge, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the taps of an edge lie along an axis, in input pixels, and their probabilities."""
    where, law = np.zeros(1), np.ones(1)
    for factor in edge.factors:
        kernel: Any = factor.kernel
        taps = np.array([float(t) for t in kernel.marginal(axis)])
        steps = np.arange(len(taps)) * float(factor.spacing[axis])
        for _ in range(factor.count):
            where = np.add.outer(where, steps).ravel()
            law = np.multiply.outer(law, taps / taps.sum()).ravel()
    return where + edge.shift[axis], law
