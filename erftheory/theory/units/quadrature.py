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
_FINEST = 0.01  # deviation of a Gaussian over the length of a panel that still resolves it


def density(x: np.ndarray) -> np.ndarray:
    return np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _bell(x: np.ndarray) -> np.ndarray:
    """exp(−x²/2), and 0 beyond 12, where exp would take several times as long."""
    y = x * x
    y *= -0.5
    return np.exp(y, where=y > -72, out=np.zeros_like(y))


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


def smoothed(
    points: Points,
    within: float,
    between: float,
    breaks: tuple[float, ...],
    levels: int,
    positive: bool = False,
    beside: np.ndarray | None = None,
) -> Points:
    """X + N(0, within + between) as points, classes split by `levels` values of the channel mean.

    Gauss–Legendre panels meet at `breaks`, where an activation bends, so sums converge spectrally.
    With `positive`, all that lies below 0 may become one atom at 0. `beside`, shape (K,), is one
    more class, in the last row, that has no say in where the points lie (one level, `resolved`).
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
    longest = max(right - left for left, right in pairwise(edges))
    if sd < _FINEST * longest:  # panels would not resolve the Gaussian
        return _sampled(centers, probs, weights, sd)
    if beside is not None:
        probs = np.vstack([probs, beside])
    y, w = [], []
    for left, right in pairwise(edges):
        t, u = _legendre(64 if right - left < 30 * sd else 96)
        y.append((left + right) / 2 + (right - left) / 2 * t)
        w.append((right - left) / 2 * u)
    places, width = np.concatenate(y), np.concatenate(w)
    kernel = _bell(places / sd - centers[:, :, None] / sd)  # (levels, K, Y)
    rows = (np.matmul(probs, kernel) * width).reshape(-1, len(places))  # up to their masses
    mass = np.outer(weights, probs.sum(1)).ravel()
    atom = np.zeros_like(mass)
    if positive:
        atom = (ndtr(-centers / sd) @ probs.T * weights[:, None]).ravel()
    total = rows.sum(1)  # 0 for a class that lies too far below 0
    rows *= ((mass - atom) / np.where(total > 0, total, 1.0))[:, None]
    if not positive:
        return places, rows
    return np.append(0.0, places), np.hstack([atom[:, None], rows])


def resolved(nodes: np.ndarray, within: float) -> bool:
    """True if `smoothed` resolves X + N(0, within) by panels for sure, so that it bins nothing."""
    sd = math.sqrt(within)
    return sd > _FINEST * (float(nodes.max() - nodes.min()) + 20 * sd)


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


def rectified(x: np.ndarray, variance: float) -> tuple[np.ndarray, np.ndarray]:
    """E[h⁺] and E[(h⁺)²] for h = x + N(0, variance)."""
    if variance == 0:
        top = np.maximum(x, 0.0)
        return top, top**2
    sd = math.sqrt(variance)
    p, d = ndtr(x / sd), sd * density(x / sd)
    return x * p + d, (x * x + variance) * p + x * d


def two_replicas(within: float, between: float, s: float) -> float:
    """E[φ(h₁)φ(h₂)] for Gaussians that share their channel mean."""
    variance = within + between
    if variance == 0:
        return 0.0
    rho = between / variance

    def kernel(r: float) -> float:
        side = math.sqrt(max(1 - r * r, 0.0))
        return variance * (side + r * (math.pi - math.acos(r))) / (2 * math.pi)

    return (1 + s * s) * kernel(rho) - 2 * s * kernel(-rho)
