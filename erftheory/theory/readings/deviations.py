"""How wide the field of every layer is: all outputs of a network in one pass.

A reading folds the walk of one output. Here the same edges run the other way: what arrives at the
input from a unit of node v is, over v's edges, kernel ∗ what arrives from the node that is read.
Mass, mean and variance suffice, so a pass costs a few operations an edge, for all outputs together.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from erftheory.network.base import Network
from erftheory.network.initialisation import Init
from erftheory.network.kernel import Kernel
from erftheory.theory.gains.prepare import gains_of
from erftheory.theory.lowering.branches import meets
from erftheory.theory.lowering.lowering import states
from erftheory.theory.walk.links import structural_gains
from erftheory.theory.walk.walk import RawEdge, Walk

Part = tuple[float, np.ndarray, np.ndarray]  # log of the mass; mean and variance an axis


def deviations(network: Network, signal: str, init: Init | None) -> list[tuple[float, ...] | None]:
    """Standard deviation (input pixels, one entry an axis) of the signal of each node's units.

    The gains are those of the whole network. None where this pass does not know it: behind
    up-sampling (units differ by phase), signed taps or repetitions, and where no path leads.
    """
    graph = network.graph
    gains = gains_of(network, signal, init) if meets(graph) else None
    if gains is None:
        gains = structural_gains(graph, signal)
    moments, fine = states(graph, signal, gains)
    still = np.zeros(graph.ndim)
    parts: dict[Any, list[Part]] = {
        (0, g): [(math.log(c), still, still)] for g, c in enumerate(gains.channels[0])
    }
    known: dict[Any, Part] = {}
    unknown: set[Any] = set()
    taken: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for state in reversed(moments.order):
        if state in parts:
            known[state] = _mixed(parts.pop(state))
        for e in moments.arriving.get(state, ()):
            if state in unknown or not _spreads(e):
                unknown.add(e.reader)
            elif state in known:
                parts.setdefault(e.reader, []).append(_pulled(known[state], e, taken))
    found: list[tuple[float, ...] | None] = []
    for index, channels in enumerate(gains.channels):
        ports = [(index, g) for g in range(len(channels))]
        groups = [known[p] for p in ports if p in known]
        if not groups or any(p in unknown for p in ports):
            found.append(None)
            continue
        _, _, variance = _mixed(groups)
        found.append(tuple(math.sqrt(max(v, 0.0)) / f for v, f in zip(variance, fine)))
    return found


def _spreads(edge: RawEdge) -> bool:
    """Whether an edge adds to variances, with a weight > 0."""
    plain = all(isinstance(f.kernel, Kernel) and not f.kernel.signed for f in edge.factors)
    return plain and not edge.restrict and edge.gain > 0


def _mixed(parts: list[Part]) -> Part:
    top = max(mass for mass, _, _ in parts)
    shares = np.array([math.exp(mass - top) for mass, _, _ in parts])
    total = float(shares.sum())
    shares /= total
    means = np.array([mean for _, mean, _ in parts])
    mean = shares @ means
    variance = shares @ (np.array([v for _, _, v in parts]) + (means - mean) ** 2)
    return top + math.log(total), mean, variance


def _pulled(state: Part, edge: RawEdge, taken: dict) -> Part:
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
