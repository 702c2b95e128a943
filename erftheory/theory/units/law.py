"""Laws of one unit of a random network, as the forward mean-field pass carries them.

A unit of one channel group is X + N(0, within + between) over inputs and weights. X is discrete
(what nonlinearities leave behind) and falls into classes of channels with a common mean; `between`
is the Gaussian part of the spread of channel means, `within` the rest. Batch normalisation needs
the difference: it takes each channel's mean out and divides by the variance inside the channel.
The channel-mean recursion for ReLU is the arc-cosine kernel (Cho & Saul 2009).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from scipy.special import ndtr

from erftheory.network.activations import CURVES
from erftheory.theory.units.quadrature import (
    CLASSES,
    Points,
    binned,
    class_means,
    hermite,
    merged,
    rectified,
    smoothed,
    two_replicas,
)
from erftheory.theory.walk.weights import Weight, to_float


@dataclass(frozen=True, eq=False)
class UnitLaw:
    """X + N(0, within + between).

    Attributes:
      second: E of the square, exact where it can be.
      level: E over channels of (mean over inputs)², exact where it can be.
      mean: mean over everything.
      within, between: Gaussian variance inside a channel, and of the channel means.
      symmetric: True if the law of a whole channel is that of its negative.
      make: computes `points` when first asked.
      view: computes `seen` when first asked; None if power sees the same law.
      gates: behind an activation, E[φ′²] below the largest of so many pixels over E[φ′²]; None
        if units pass power whatever their value is.
      pooled: moments of the largest of so many pixels, where they are known closely
        (`theory/units/max_pool.py`).
    """

    second: Weight
    level: Weight
    mean: float
    within: float
    between: float
    symmetric: bool
    make: Callable[[], Points] | None = None
    view: Callable[[], UnitLaw] | None = None
    gates: Callable[[int], float] | None = None
    pooled: Callable[[int], Any] | None = None

    @cached_property
    def points(self) -> Points:
        """X as nodes, shape (K,), and probabilities, shape (classes, K), of sum 1."""
        if self.make is None:
            return np.zeros(1), np.ones((1, 1))
        return self.make()

    @cached_property
    def seen(self) -> UnitLaw:
        """The law weighted by the power that a value hands on to the input (`conditioned.py`)."""
        return self if self.view is None else self.view()

    @property
    def gaussian(self) -> bool:
        return self.make is None

    @property
    def variance(self) -> Weight:
        """Variance over inputs inside a channel."""
        return self.second - self.level


Group = tuple[int, UnitLaw]  # channels, law of a unit


def viewed(law: UnitLaw, view: Callable[[], UnitLaw] | None) -> UnitLaw:
    """`law` as power sees it otherwise; both compute their points once, together."""
    make = law.make and (lambda: law.points)
    return replace(law, make=make, view=view)


STANDARD = UnitLaw(1, 0, 0.0, 1.0, 0.0, True)


def gaussian(second: Weight, level: Weight) -> UnitLaw:
    """A convolution's output: Gaussian, the channel means too."""
    between = to_float(level)
    return UnitLaw(second, level, 0.0, max(to_float(second) - between, 0.0), between, True)


def scaled(law: UnitLaw, power: Weight, negative: bool = False) -> UnitLaw:
    """The unit times √power, or −√power."""
    factor = to_float(power)
    negative = negative and not law.symmetric
    if factor == 1 and not negative:
        return law
    root = -math.sqrt(factor) if negative else math.sqrt(factor)

    def make() -> Points:
        nodes, probs = law.points
        return nodes * root, probs

    return UnitLaw(
        law.second * power,
        law.level * power,
        law.mean * root,
        law.within * factor,
        law.between * factor,
        law.symmetric,
        law.make and make,
        law.view and (lambda: scaled(law.seen, power, negative)),
        None if negative else law.gates,
    )


def normalised(law: UnitLaw) -> UnitLaw:
    """Batch normalisation.

    Raises:
      ValueError: the variance inside a channel is 0.
    """
    variance = to_float(law.variance)
    if variance <= 0:
        raise ValueError("BatchNorm: got channels of variance 0; takes channels that vary")
    if law.gaussian:
        return STANDARD

    def make() -> Points:
        nodes, probs = law.points
        means = class_means(nodes, probs)
        if len(means) == 1:
            return (nodes - means[0]) / math.sqrt(variance), probs
        flat = (nodes[None, :] - means[:, None]).ravel() / math.sqrt(variance)
        return binned(flat, probs.reshape(1, -1))

    view = _normal_view(law)
    return UnitLaw(1, 0, 0.0, law.within / variance, 0.0, law.symmetric, make, view, law.gates)


def _normal_view(law: UnitLaw) -> Callable[[], UnitLaw] | None:
    """What power sees behind a batch norm; channels of different means are not told apart."""
    if law.view is None or law.between or len(law.points[1]) > 1:
        return None

    def view() -> UnitLaw:
        seen, variance = law.seen, to_float(law.variance)
        nodes, probs = seen.points
        moved = (nodes - law.mean) / math.sqrt(variance)
        out, within = discrete_law(moved, probs.sum(0)[None]), seen.within + seen.between
        return replace(out, second=out.second + within / variance, within=within / variance)

    return view


def dropped(law: UnitLaw, rate: float) -> UnitLaw:
    """Inverted dropout: 0 with probability `rate`, else divided by 1 − rate."""
    if rate == 0:
        return law
    keep = 1 - Fraction(rate)

    def make() -> Points:
        nodes, probs = discrete(law)
        kept = np.hstack([probs.sum(1, keepdims=True) * rate, probs * float(keep)])
        return np.append(0.0, nodes / float(keep)), kept

    kept = UnitLaw(law.second / keep, law.level, law.mean, 0.0, 0.0, law.symmetric, make)
    # a gradient passes where the mask is open
    return viewed(kept, lambda: scaled(law.seen, keep**-2))


def discrete_law(nodes: np.ndarray, probs: np.ndarray) -> UnitLaw:
    total, means = probs.sum(0), class_means(nodes, probs)
    level = float(probs.sum(1) @ means**2)
    second, mean = float(total @ nodes**2), float(total @ nodes)
    return UnitLaw(second, level, mean, 0.0, 0.0, False, lambda: (nodes, probs))


def averaged(law: UnitLaw, share: Weight) -> UnitLaw:
    """A weighted mean of independent pixels of one channel; `share` is the sum of weights²."""
    if share == 1:
        return law
    level, variance = law.level, law.variance * share

    def make() -> Points:
        nodes, probs = law.points
        means = class_means(nodes, probs)
        return means, np.diag(probs.sum(1))

    return UnitLaw(
        level + variance,
        level,
        law.mean,
        max(to_float(variance), 0.0),
        law.between,
        law.symmetric,
        law.make and make,
    )


def add(a: UnitLaw, b: UnitLaw) -> UnitLaw:
    """The sum of independent units."""
    cross: Weight = 2 * a.mean * b.mean if a.mean and b.mean else 0

    def make() -> Points:
        if a.gaussian or b.gaussian:
            return (b if a.gaussian else a).points
        nodes = np.add.outer(a.points[0], b.points[0]).ravel()
        rows = [np.outer(p, q).ravel() for p in a.points[1] for q in b.points[1]]
        return merged(*binned(nodes, np.array(rows)))

    return UnitLaw(
        a.second + b.second + cross,
        a.level + b.level + cross,
        a.mean + b.mean,
        a.within + b.within,
        a.between + b.between,
        a.symmetric and b.symmetric,
        None if a.gaussian and b.gaussian else make,
    )


def discrete(law: UnitLaw) -> Points:
    """The whole law, Gaussian part included, as points."""
    if law.within == law.between == 0:
        return law.points
    return merged(*smoothed(law.points, law.within, law.between, (0.0,), CLASSES))


# ---- nonlinearities ---------------------------------------------------------------------------


@lru_cache(maxsize=256)
def activated(law: UnitLaw, name: str) -> tuple[UnitLaw, Weight]:
    """The law behind an activation, and E[φ′²] before it."""
    curve = CURVES[name]
    if name == "linear":
        return law, 1
    if curve.below is not None:
        return _bent(law, name)
    nodes, probs = smoothed(law.points, law.within, law.between, curve.bends, 16)
    values, total = curve(nodes), probs.sum(0)
    means = class_means(values, probs)
    symmetric = law.symmetric and curve.odd
    one_mean = len(means) == 1
    level = 0 if symmetric and one_mean else float(probs.sum(1) @ means**2)
    result = UnitLaw(
        float(total @ values**2),
        level,
        0.0 if symmetric else float(total @ values),
        0.0,
        0.0,
        symmetric,
        lambda: merged(values, probs),
    )
    return result, float(total @ curve.slope(nodes) ** 2)


@lru_cache(maxsize=256)
def gate(law: UnitLaw, name: str) -> Weight:
    """E[φ′²] in front of an activation: the second value of `activated`, alone."""
    s = CURVES[name].below
    if s is None:
        return activated(law, name)[1]
    if law.symmetric or s == -1:
        return (1 + s * s) / 2
    nodes, probs = law.points
    sd = math.sqrt(law.within + law.between)
    open_ = float(probs.sum(0) @ (ndtr(nodes / sd) if sd else nodes > 0))
    return open_ + float(s) ** 2 * (1 - open_)


def _bent(law: UnitLaw, name: str) -> tuple[UnitLaw, Weight]:
    """ReLU, leaky ReLU and abs: slope 1 above 0 and s below, in closed form."""
    s = float(CURVES[name].below or 0)
    nodes, probs = law.points
    total = probs.sum(0)
    variance = law.within + law.between
    first, square = rectified(nodes, variance)
    mean = float(total @ (first + s * (nodes - first)))
    gain = gate(law, name)
    second: Weight = law.second * gain
    if not law.symmetric:
        second = float(total @ (square + s * s * (nodes**2 + variance - square)))
    if law.gaussian:
        level = two_replicas(law.within, law.between, s)
    else:
        at, weights = nodes[:, None], np.ones(1)
        first = first[:, None]
        if law.between:
            z, weights = hermite(20)
            at = at + math.sqrt(law.between) * z
            first = rectified(at, law.within)[0]
        mass = probs.sum(1)
        means = probs @ (first + s * (at - first)) / mass[:, None]
        level = float(mass @ means**2 @ weights)

    def make() -> Points:
        places, rows = smoothed(
            law.points, law.within, law.between, (0.0,), CLASSES, positive=name == "relu"
        )
        return merged(np.where(places > 0, places, s * places), rows)

    return UnitLaw(second, level, mean, 0.0, 0.0, False, make), gain
