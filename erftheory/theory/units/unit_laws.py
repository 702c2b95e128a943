"""What each layer does to the law of a unit in the forward pass, and to the power that comes back.

One row for each layer that acts on every channel alone, and no default: a layer without a row is an
error, not a linear one. What mixes channels (convolutions, sums, concatenations) is in `forward`,
norms across channels in `norms`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from erftheory.network.endless import Along, Endless, GlobalAvgPool, Recurrent
from erftheory.network.imported import Channels, Scale, Spatial
from erftheory.network.layers import (
    Activation,
    AvgPool,
    BatchNorm,
    Dropout,
    InstanceNorm,
    Layer,
    MaxPool,
    Upsample,
)
from erftheory.theory.units import law as dist
from erftheory.theory.units.conditioned import behind
from erftheory.theory.units.law import Group, UnitLaw
from erftheory.theory.units.max_pool import maximum, opened
from erftheory.theory.walk.weights import Weight, root, to_float


class Passed(NamedTuple):
    """The law behind a layer, its power gain, and its gain as a plain gradient where that is not
    the root of the power's (fixed weights)."""

    law: UnitLaw
    gain: Weight
    amplitude: Weight | None = None


def _activation(op: Activation, ndim: int, law: UnitLaw) -> Passed:
    out, gain = dist.activated(law, op.curve)
    return Passed(behind(law, op.curve, out), gain)


def _batch_norm(op: BatchNorm | InstanceNorm, ndim: int, law: UnitLaw) -> Passed:
    variance = law.variance
    exact = not isinstance(variance, float)
    return Passed(dist.normalised(law), 1 / (Fraction(variance) if exact else to_float(variance)))


def _dropout(op: Dropout, ndim: int, law: UnitLaw) -> Passed:
    return Passed(dist.dropped(law, op.rate), 1 / (1 - Fraction(op.rate)))


def _scale(op: Scale, ndim: int, law: UnitLaw) -> Passed:
    power = Fraction(op.factor) ** 2
    return Passed(dist.scaled(law, power, op.factor < 0), power)


def _max_pool(op: MaxPool, ndim: int, law: UnitLaw) -> Passed:
    count = len(op.step(ndim).kernel.exact)
    return Passed(maximum(law, count), opened(law, count))


def _avg_pool(op: AvgPool, ndim: int, law: UnitLaw) -> Passed:
    share = Fraction(1, len(op.step(ndim).kernel.exact))
    return Passed(dist.averaged(law, share), share, 1)


def _fixed(op: Layer, ndim: int, law: UnitLaw) -> Passed:
    step = op.step(ndim)
    assert step is not None
    if step.kind == "routing":
        return Passed(law, 1)
    taps = step.kernel.exact
    squares = sum(t * t for t in taps)
    spread = math.prod(step.stride) if step.up else 1
    return Passed(dist.averaged(law, Fraction(squares, spread)), squares, sum(taps))


def _same(op: Layer, ndim: int, law: UnitLaw) -> Passed:
    return Passed(law, 1)


def _none(op: Endless, ndim: int, law: UnitLaw) -> Passed:
    raise ValueError(
        f"network: got a {op.called()}, through which no ERF is predicted; takes the network up to "
        "a map before it, see until()"
    )


UNIT_LAWS: dict[type, Callable[..., Passed]] = {
    Activation: _activation,
    BatchNorm: _batch_norm,
    InstanceNorm: _batch_norm,
    Dropout: _dropout,
    Scale: _scale,
    MaxPool: _max_pool,
    AvgPool: _avg_pool,
    Upsample: _fixed,
    Spatial: _fixed,
    Channels: _same,
    GlobalAvgPool: _same,  # no gain of its own that a finite map could show
    Recurrent: _none,
    Along: _none,
}


def keeping(op: Layer, ndim: int, groups: list[Group]) -> tuple[list[Group], list]:
    """Groups behind an operation that acts on every channel alone, and its links.

    Raises:
      ValueError: a layer without a row in `UNIT_LAWS`.
    """
    rule = UNIT_LAWS.get(type(op))
    if rule is None:
        raise ValueError(
            f"network: got the layer {op!r}, whose units have no law; takes layers with a row in "
            "erftheory.theory.units.unit_laws.UNIT_LAWS"
        )
    output, links = [], []
    for g, (count, law) in enumerate(groups):
        law, gain, amplitude = rule(op, ndim, law)
        output.append((count, law))
        links.append((0, g, g, (gain, root(gain) if amplitude is None else amplitude)))
    return output, links
