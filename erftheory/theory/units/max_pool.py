"""What a max pooling makes of the law of its inputs, and of the gates below it.

The gradient goes to the largest unit of a window, and behind an activation that unit's gate is
likelier to be open: of 2×2 pixels behind a ReLU 15/16 are, not 1/2. So a pooled path carries up to
twice the power of one that reads every pixel. Pixels of a channel share its mean, and the more they
do the less is left of this: with all pixels equal, nothing.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from erftheory.network.activations import CURVES
from erftheory.theory.units.law import UnitLaw, discrete, discrete_law
from erftheory.theory.units.quadrature import CLASSES, density, smoothed

_FAR = 8.0  # deviations beyond which nothing counts


def maximum(law: UnitLaw, count: int) -> UnitLaw:
    """The largest of `count` independent pixels of one channel."""
    if count == 1:
        return law
    plain = _maximum(law, count)
    if law.gaussian:
        found = _gaussian(law.within, law.between, "linear", count)
    elif law.pooled is not None:
        found = law.pooled(count)
    else:
        return plain
    make = lambda: plain.points  # noqa: E731
    return replace(plain, second=found.second, level=found.level, mean=found.mean, make=make)


def opened(law: UnitLaw, count: int) -> int | float:
    """What a max pooling's gradient gains over a mean one at the gates below: 1 without gates."""
    if law.gates is None or count == 1:
        return 1
    return law.gates(count)


class Pooled(NamedTuple):
    """Moments of the largest of so many activations, and E[φ′²] there over E[φ′²] everywhere."""

    second: float
    level: float
    mean: float
    gates: float


def behind(out: UnitLaw, law: UnitLaw, name: str) -> UnitLaw:
    """`out`, the law behind an activation of `law`, with what a max pooling makes of it."""
    if name == "abs":  # the largest of |h| may lie on either side; every gate is open
        return out
    if law.gaussian:
        known = partial(_gaussian, law.within, law.between, name)
        # GELU and SiLU dip below 0 on the left: the largest h gives the gate, not quite the value
        rises = CURVES[name].rises
        return replace(out, pooled=known if rises else None, gates=lambda count: known(count).gates)
    return replace(out, gates=lru_cache(partial(_gates, law, name)))


@lru_cache(maxsize=256)
def _gaussian(within: float, between: float, name: str, count: int) -> Pooled:
    """φ(max h) for h = √between·z + √within·t, z common to the pixels: Legendre panels."""
    curve = CURVES[name]
    sd, spread = math.sqrt(within), math.sqrt(between)
    z, p = np.zeros(1), np.ones(1)
    if spread:
        z, p = _panels(np.array([-_FAR, *_edges(sd / spread), _FAR])[None])
        z, p = z[0], p[0] * density(z[0])
        p = p / p.sum()
    mean = spread * z
    if not sd:
        values, squares = curve(mean)[:, None], curve.slope(mean)[:, None] ** 2
        law = most = np.ones((1, 1))
    else:
        inner = [np.clip((b - mean) / sd, -_FAR, _FAR) for b in curve.bends]
        far = np.full_like(mean, _FAR)
        t, w = _panels(np.stack([-far, *inner, far], axis=1))
        places = mean[:, None] + sd * t
        values, squares = curve(places), curve.slope(places) ** 2
        law = w * density(t)
        most = law * count * ndtr(t) ** (count - 1)
        law, most = (x / x.sum(1, keepdims=True) for x in (law, most))
    means = (most * values).sum(1)
    base = float(p @ (law * squares).sum(1))
    return Pooled(
        float(p @ (most * values**2).sum(1)),
        float(p @ means**2),
        float(p @ means),
        float(p @ (most * squares).sum(1)) / base if base else 1.0,
    )


def _edges(ratio: float) -> tuple[float, ...]:
    """Where the share of open gates changes fast with the common part."""
    near = min(8 * ratio, _FAR / 2)
    return -near, 0.0, near


def _panels(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gauss–Legendre nodes and weights between edges, shape (rows, panels + 1)."""
    x, w = np.polynomial.legendre.leggauss(32)
    middle, half = (edges[:, 1:] + edges[:, :-1]) / 2, np.diff(edges, axis=1) / 2
    nodes = middle[..., None] + half[..., None] * x
    return nodes.reshape(len(edges), -1), (half[..., None] * w).reshape(len(edges), -1)


def _maximum(law: UnitLaw, count: int) -> UnitLaw:
    nodes, probs = discrete(law)
    order = np.argsort(nodes, kind="stable")
    nodes, probs = nodes[order], probs[:, order]
    return discrete_law(nodes, _largest(probs, count))


def _largest(probs: np.ndarray, count: int) -> np.ndarray:
    """Probabilities that the largest of `count` draws is each node, by class; nodes ascend."""
    mass = probs.sum(1, keepdims=True)
    below = np.cumsum(probs, axis=1) / mass
    largest = np.diff(np.minimum(below, 1.0) ** count, axis=1, prepend=0.0)
    return mass * largest / largest.sum(1, keepdims=True)


def _gates(law: UnitLaw, name: str, count: int) -> float:
    curve = CURVES[name]
    places, probs = smoothed(law.points, law.within, law.between, curve.bends, CLASSES)
    order = np.argsort(curve(places), kind="stable")
    squares, probs = curve.slope(places[order]) ** 2, probs[:, order]
    base = float(probs.sum(0) @ squares)
    return float(_largest(probs, count).sum(0) @ squares) / base if base else 1.0
