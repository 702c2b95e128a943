"""INI-1: does a heavy rim at the start (Luo et al., section 4) survive training?

The same nets with the same seeds, uniform taps against `rim_taps(kernel, share)`: the ERF at the
start and at the end, the score at the end, and the speed, the mean score over the training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from erftheory.init import rim_taps
from erftheory.network.base import Chain, Network
from erftheory.network.graph import Graph, Loop
from erftheory.network.imported import GraphNetwork
from erftheory.network.layers import Activation, BatchNorm, Conv
from erftheory.training.studies.pairs import PAIRS, on_digits, on_signs
from erftheory.training.studies.study import Pair, Study, study
from erftheory.training.studies.trials import holm, sign_flip

SHARE = 0.98  # of a filter's variance, in the outermost ring
READINGS = 6
MEASURES = ("std at the start", "std at the end", "score at the end", "mean score")


def large(kernel: int, layers: int) -> Network:
    return Chain(Conv(kernel), BatchNorm(), Activation("relu")) * layers


PAIRS_OF_INITIAL = (
    PAIRS[0],
    PAIRS[4],
    Pair("3 × 7×7, digits", large(7, 3), on_digits),
    Pair("3 × 7×7, signs 8 px away", large(7, 3), partial(on_signs, 8)),
)


def rimmed(network: Network, share: float = SHARE) -> Network:
    """The network with `rim_taps` in all its convolutions."""
    return GraphNetwork(_rimmed(network.graph, share))


def _rimmed(graph: Graph, share: float) -> Graph:
    def changed(op: Any) -> Any:
        if isinstance(op, Loop):
            return Loop(_rimmed(op.graph, share), op.times)
        if isinstance(op, Conv):
            return replace(op, taps=rim_taps(op.step(graph.ndim).kernel.shape, share, graph.ndim))
        return op

    return replace(graph, nodes=tuple(replace(n, op=changed(n.op)) for n in graph.nodes))


@dataclass(frozen=True)
class Initial:
    """One pair from uniform taps and from heavy rims, seed by seed.

    Attributes:
      uniform, rim: the two studies.
    """

    uniform: Study
    rim: Study

    @property
    def differences(self) -> dict[str, np.ndarray]:
        """(seeds,): log ratios of the std, differences of scores, rim against uniform."""
        u, r = self.uniform, self.rim
        return {
            MEASURES[0]: np.log(r.std[:, 0] / u.std[:, 0]),
            MEASURES[1]: np.log(r.std[:, -1] / u.std[:, -1]),
            MEASURES[2]: r.scores[:, -1] - u.scores[:, -1],
            MEASURES[3]: r.scores.mean(1) - u.scores.mean(1),
        }


def initial(
    pair: Pair,
    seeds: int | None = None,
    images: int = 256,
    share: float = SHARE,
    readings: int = READINGS,
) -> Initial:
    """Train a pair from uniform taps and from heavy rims, the same seeds."""
    other = replace(pair, network=rimmed(pair.network, share))
    options: dict[str, Any] = {"images": images, "readings": readings}
    return Initial(study(pair, seeds, **options), study(other, seeds, **options))


def rows(found: list[Initial]) -> list[dict[str, Any]]:
    """A row a pair and measure: mean, 95 % interval (Student's t), p value.

    The p value is that of the exact sign-flip test, two-sided, after Holm's correction over the
    pairs for each measure.
    """
    from scipy.stats import t

    table = []
    for measure in MEASURES:
        values = [one.differences[measure] for one in found]
        ps = holm([min(1.0, 2 * min(sign_flip(v), sign_flip(-v))) for v in values])
        for one, v, p in zip(found, values, ps, strict=True):
            half = float(t.ppf(0.975, len(v) - 1) * v.std(ddof=1) / math.sqrt(len(v)))
            mean, through = float(v.mean()), math.exp if measure.startswith("std") else float
            table.append({
                "pair": one.uniform.pair.name, "measure": measure, "seeds": len(v),
                "effect": through(mean), "interval": [through(mean - half), through(mean + half)],
                "p": p, "uniform": _level(one.uniform, measure), "rim": _level(one.rim, measure),
            })  # fmt: skip
    return table


def _level(one: Study, measure: str) -> float:
    values = {
        MEASURES[0]: one.std[:, 0], MEASURES[1]: one.std[:, -1],
        MEASURES[2]: one.scores[:, -1], MEASURES[3]: one.scores,
    }  # fmt: skip
    return float(values[measure].mean())
