"""How much of a trained net's ERF the theory explains, part by part.

Read back with its weights, a net has *taps* (the squares of its weights, summed over channels,
relative to their sum) and *gains* (those sums, and the factors of its norms), which decide the
shares of branches that meet. `exact` of it has a std T; what was measured is M, and
log M = log T(taps, gains) + log(M / T). The last term, the *rest*, has what one number a pixel
cannot know: correlations between layers, gates, and channels that carry unequal power. The growth
is split by swapping one part after the other from the untrained net to the trained one, averaged
over all orders (Shapley 1953), so that the three parts add up to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import permutations, product
from typing import Any

import jax
import numpy as np

from erftheory.importers.jax.from_jax import from_jax
from erftheory.network.base import Network
from erftheory.network.imported import GraphNetwork, Scale
from erftheory.network.kernel import Kernel
from erftheory.network.layers import Conv, ConvTranspose
from erftheory.theory.plane.exact import exact
from erftheory.training.studies.study import Study

PARTS = ("taps", "gains", "rest")


@dataclass(frozen=True)
class Explained:
    """What the growth of a study consists of.

    Attributes:
      growth: (seeds,), measured, log(std after / std before).
      parts: (seeds, 3), what taps, gains and the rest contribute to it (`PARTS`).
      theory: (seeds, 2), std by `exact` with the weights before and after, pixels.
      layers: names of the convolutions, from the input on.
      taps: (seeds, 2, layers), std of each one's taps, before and after, in steps between taps,
        averaged over the axes; three equal taps have 0.816.
    """

    growth: np.ndarray
    parts: np.ndarray
    theory: np.ndarray
    layers: tuple[str, ...]
    taps: np.ndarray

    def interval(self, values: np.ndarray) -> tuple[float, float]:
        """Mean over seeds and half its 95 % confidence interval (Student's t)."""
        from scipy.stats import t

        n = len(values)
        half = t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n)
        return float(values.mean()), float(half)


def explained(found: Study) -> Explained:
    """Split the growth of every seed of a study into taps, gains and the rest."""
    rows, theory, taps = [], [], []
    names: tuple[str, ...] = ()
    for seed, states in enumerate(found.states):
        nets = [read(found, state) for state in states]
        std = {
            (t, g): float(np.mean(exact(swapped(nets[t], nets[g]), image=found.image).std))
            for t, g in product((0, 1), repeat=2)
        }
        measured = found.std[seed, [0, -1]]
        rest = [math.log(measured[i] / std[i, i]) for i in (0, 1)]
        rows.append(shapley({
            (t, g, r): math.log(std[t, g]) + rest[r] for t, g, r in product((0, 1), repeat=3)
        }))  # fmt: skip
        theory.append([std[0, 0], std[1, 1]])
        taps.append([tap_stds(net) for net in nets])
        names = tuple(node.name for node in nets[0].graph.nodes if isinstance(node.op, _WEIGHTED))
    return Explained(found.growth, np.array(rows), np.array(theory), names, np.array(taps))


_WEIGHTED = (Conv, ConvTranspose)


def read(found: Study, state: Any) -> Network:
    """The network of a study as `from_jax` reads it from a state, with the state's weights."""
    image = jax.ShapeDtypeStruct((1, *found.image, found.channels), np.float32)
    return from_jax(lambda x: found.features(state[:2], x), image).weighted()


def swapped(shape: Network, power: Network) -> Network:
    """The taps of one network with the gains of another of the same graph."""
    nodes = list(shape.graph.nodes)
    for i, (node, other) in enumerate(zip(nodes, power.graph.nodes, strict=True)):
        op: Any = node.op
        if isinstance(op, Scale):
            nodes[i] = replace(node, op=other.op)
        elif isinstance(op, _WEIGHTED) and op.weights is not None:
            own: Any = other.op
            factor = own.weights.power.mass / op.weights.power.mass
            taps = tuple(float(v * factor) for v in op.weights.power.exact)
            changed = replace(op.weights, power=Kernel(op.weights.power.shape, taps))
            nodes[i] = replace(node, op=replace(op, weights=changed))
    return GraphNetwork(replace(shape.graph, nodes=tuple(nodes)))


def tap_stds(network: Network) -> list[float]:
    """Std of the taps of every convolution, in steps between taps, averaged over the axes."""
    found = []
    for node in network.graph.nodes:
        op: Any = node.op
        if isinstance(op, _WEIGHTED) and op.weights is not None:
            law = op.weights.power.array()
            places = np.indices(law.shape)
            axes = tuple(range(1, law.ndim + 1))
            mean = (law * places).sum(axes)
            found.append(float(np.sqrt((law * places**2).sum(axes) - mean**2).mean()))
    return found


def shapley(values: Mapping[tuple[int, ...], float]) -> list[float]:
    """What each part changes, swapped in after those before it, averaged over all orders.

    Args:
      values: of every choice of parts, 0 the old one and 1 the new one; a key has an entry a part.
    """
    count = len(next(iter(values)))
    found = [0.0] * count
    orders = list(permutations(range(count)))
    for order in orders:
        chosen = [0] * count
        for part in order:
            before = values[tuple(chosen)]
            chosen[part] = 1
            found[part] += (values[tuple(chosen)] - before) / len(orders)
    return found
