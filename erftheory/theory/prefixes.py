"""How wide the field of every layer is: all outputs of a network in one pass.

A reading folds the walk of one output. Here the same edges run the other way: what arrives at the
input from a unit of node v is, over v's edges, kernel ∗ what arrives from the node that is read.
Mass, mean and variance suffice, so a pass costs a few operations an edge, for all outputs together.
"""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np

from erftheory.network.graph import Graph, Loop
from erftheory.network.kernel import Kernel
from erftheory.theory.gains import structural_gains
from erftheory.theory.lowering import raw_edges
from erftheory.theory.reading import meets
from erftheory.theory.walk import Port, RawEdge, Walk

State = tuple[float, np.ndarray, np.ndarray]  # log of the mass; mean and variance an axis


def deviations(graph: Graph, signal: str, init: str | None) -> list[tuple[float, ...] | None]:
    """Standard deviation (input pixels, one entry an axis) of the signal of each node's units.

    The gains are those of the whole graph. None where this pass does not know it: behind
    up-sampling (units differ by phase), signed taps or repetitions, inside a run of fixed layers,
    and where no path leads.
    """
    if init is None or not meets(graph):
        gains = structural_gains(graph, signal)
    else:
        from erftheory.theory.meanfield import meanfield_gains

        gains = meanfield_gains(graph, signal, init)
    arriving, fine = raw_edges(graph, signal, gains)
    reading: dict[Port, list[tuple[Port, RawEdge]]] = defaultdict(list)
    for port, edges in arriving.items():
        for e in edges:
            reading[e.reader].append((port, e))
    still = np.zeros(graph.ndim)
    known: dict[Port, State] = {
        (0, g): (math.log(c), still, still) for g, c in enumerate(gains.channels[0])
    }
    found: list[tuple[float, ...] | None] = [(0.0,) * graph.ndim]
    taken: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    unknown: set[int] = set()
    for index in range(1, len(graph.nodes)):
        node = graph.nodes[index]
        if isinstance(node.op, Loop) or any(i in unknown for i in node.inputs):
            unknown.add(index)
            found.append(None)
            continue
        groups = []
        for g in range(len(gains.channels[index])):
            arrived = reading.get((index, g), ())
            parts = [(known[p], e) for p, e in arrived if p in known and e.gain]
            if any(e.restrict or any(f.kernel.signed for f in e.factors) for _, e in parts):
                unknown.add(index)
                parts = []
            if parts:
                known[index, g] = _mixed([_pulled(state, e, taken) for state, e in parts])
                groups.append(known[index, g])
        if not groups:
            found.append(None)
            continue
        _, _, variance = _mixed(groups)
        found.append(tuple(math.sqrt(v) / f for v, f in zip(variance, fine)))
    return found


def _mixed(parts: list[State]) -> State:
    top = max(mass for mass, _, _ in parts)
    shares = np.array([math.exp(mass - top) for mass, _, _ in parts])
    total = float(shares.sum())
    shares /= total
    means = np.array([mean for _, mean, _ in parts])
    mean = shares @ means
    variance = shares @ (np.array([v for _, _, v in parts]) + (means - mean) ** 2)
    return top + math.log(total), mean, variance


def _pulled(state: State, edge: RawEdge, taken: dict) -> State:
    mass, mean, variance = state
    mean = mean + np.array(edge.shift, dtype=float)
    for f in edge.factors:
        assert not isinstance(f.kernel, Walk)
        if id(f.kernel) not in taken:
            taken[id(f.kernel)] = _spread(f.kernel)
        own, spread = taken[id(f.kernel)]
        spacing = np.array(f.spacing, dtype=float)
        mean = mean + f.count * own * spacing
        variance = variance + f.count * spread * spacing**2
    return mass + math.log(edge.gain), mean, variance


def _spread(kernel: Kernel) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the taps' places, one entry an axis."""
    rows = []
    for axis, size in enumerate(kernel.shape):
        weights = np.array([float(t) for t in kernel.marginal(axis)])
        weights /= weights.sum()
        mean = weights @ np.arange(size)
        rows.append((mean, weights @ (np.arange(size) - mean) ** 2))
    mean, variance = np.array(rows).T
    return mean, variance
