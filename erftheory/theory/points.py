"""Discrete laws by classes of channels: quadrature over Gaussian parts, and compression.

A law is `nodes`, shape (K,), and `probs`, shape (classes, K), of sum 1.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy.special import ndtr

Points = tuple[np.ndarray, np.ndarray]

CLASSES = 8
_BINS = 64


def density(x: np.ndarray) -> np.ndarray:
    return np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


@lru_cache(maxsize=32)
def hermite(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for E f(z), z standard normal."""
    z, w = np.polynomial.hermite_e.hermegauss(count)
    return z, w / w.sum()


@lru_cache(maxsize=32)
def _legendre(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(count)


def class_means(nodes: np.ndarray, probs: np.ndarray) -> np.ndarray:
    return probs @ nodes / probs.sum(1)


def grid(
    points: Points,
    within: float,
    between: float,
    breaks: tuple[float, ...],
    levels: int,
    positive: bool = False,
) -> Points:
    """X + N(0, within + between) as points, classes split by `levels` values of the channel mean.

    Gauss–Legendre panels meet at `breaks`, where an activation bends, so sums converge spectrally.
    With `positive`, all that lies below 0 may become one atom at 0.
    """
    nodes, probs = points
    if within == between == 0:
        return nodes, probs
    shifts, weights = hermite(levels if between else 1)
    shifts = shifts * math.sqrt(between)
    centers = np.add.outer(shifts, nodes)  # (levels, K)
    sd = math.sqrt(within)
    sizes = weights[:, None] * probs.sum(0)
    seen = sizes > 1e-15
    reach = sd * np.sqrt(2 * np.log(sizes[seen] / 1e-16))
    low, high = float((centers[seen] - reach).min()), float((centers[seen] + reach).max())
    positive = positive and low < 0 < high
    low = 0.0 if positive else low
    edges = [low, *(b for b in breaks if low < b < high), high]
    if sd < 0.01 * max(np.diff(edges)):  # panels would not resolve the Gaussian
        return _sampled(centers, probs, weights, sd)
    y, w = [], []
    for left, right in pairwise(edges):
        t, u = _legendre(64 if right - left < 30 * sd else 96)
        y.append((left + right) / 2 + (right - left) / 2 * t)
        w.append((right - left) / 2 * u)
    places, width = np.concatenate(y), np.concatenate(w)
    kernel = density((places - centers[:, :, None]) / sd) * (width / sd)  # (levels, K, Y)
    rows = (np.matmul(probs, kernel) * weights[:, None, None]).reshape(-1, len(places))
    mass = np.outer(weights, probs.sum(1)).ravel()
    if not positive:
        return places, rows * (mass / rows.sum(1))[:, None]
    atom = (ndtr(-centers / sd) @ probs.T * weights[:, None]).ravel()
    rows *= ((mass - atom) / rows.sum(1))[:, None]
    return np.append(0.0, places), np.hstack([atom[:, None], rows])


def _sampled(centers: np.ndarray, probs: np.ndarray, weights: np.ndarray, sd: float) -> Points:
    z, u = hermite(8 if sd else 1)
    flat = np.add.outer(centers, sd * z).ravel()
    rows = np.zeros((len(weights), len(probs), *centers.shape, len(z)))
    for h, weight in enumerate(weights):
        rows[h, :, h] = weight * probs[:, :, None] * u
    return binned(flat, rows.reshape(-1, flat.size))


def binned(nodes: np.ndarray, probs: np.ndarray) -> Points:
    """At most 4·_BINS points, none astride 0, that keep mass, mean and square of every bin."""
    if len(nodes) <= 4 * _BINS:
        return nodes, probs
    low, high = min(float(nodes.min()), 0.0), max(float(nodes.max()), 0.0)
    down = np.clip((nodes / low * _BINS) if low else np.zeros_like(nodes), 0, _BINS - 1)
    up = np.clip((nodes / high * _BINS) if high else np.zeros_like(nodes), 0, _BINS - 1)
    index = np.where(nodes > 0, _BINS + up, down).astype(int)
    total = probs.sum(0)
    mass, first, square = (
        np.bincount(index, total * nodes**k, minlength=2 * _BINS) for k in range(3)
    )
    used = mass > 0
    middle = first[used] / mass[used]
    half = np.sqrt(np.maximum(square[used] / mass[used] - middle**2, 0.0))
    half = np.minimum(half, np.abs(middle))  # stay on one side of 0
    rows = np.array([np.bincount(index, p, minlength=2 * _BINS)[used] for p in probs]) / 2
    return np.concatenate([middle - half, middle + half]), np.hstack([rows, rows])


def merged(nodes: np.ndarray, probs: np.ndarray) -> Points:
    """Classes of similar mean joined until at most `CLASSES` are left."""
    mass = probs.sum(1)
    probs = probs[mass > 0]
    if len(probs) <= CLASSES:
        return nodes, probs
    order = np.argsort(class_means(nodes, probs), kind="stable")
    probs = probs[order]
    place = np.cumsum(probs.sum(1)) - probs.sum(1) / 2
    label = np.unique(np.minimum((place * CLASSES).astype(int), CLASSES - 1), return_inverse=True)
    joined = np.zeros((label[1].max() + 1, len(nodes)))
    np.add.at(joined, label[1], probs)
    return nodes, joined
