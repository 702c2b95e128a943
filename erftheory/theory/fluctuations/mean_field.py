"""Fluctuations of ReLU chains in mean field, where all pixels of a layer share one correlation.

`erftheory.theory.fluctuations.power` tells the setting: four gradients, paired in three ways.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr

from erftheory.theory.fluctuations.chains import BackwardLayer


def gate_moments(rho: float) -> tuple[float, float, float, float]:
    """Probability that 1, 2, 3, 4 standard normals of common correlation ρ ≥ 0 are all positive.

    Given what they share, they are independent: the mean of Φ(z √(ρ/(1−ρ)))^m over a normal z.
    """
    two = 1 / 4 + math.asin(rho) / (2 * math.pi)
    three = 1 / 8 + 3 * math.asin(rho) / (4 * math.pi)
    if rho == 1:
        return 1 / 2, 1 / 2, 1 / 2, 1 / 2
    slope = math.sqrt(rho / (1 - rho))
    # the trapezoid rule converges geometrically once it resolves both the step and the normal
    z = np.linspace(-9, 9, 4001 + 2 * int(20 * slope) * 9)
    density = np.exp(-z * z / 2)
    four = float(density @ ndtr(slope * z) ** 4 / density.sum())
    return 1 / 2, two, three, four


def four_places(layers: list[BackwardLayer], kappa: float) -> float:
    """log E[m₀²]/E[m₀]² of a 1-D chain, from arrays over (q − p, r − p, s − p).

    The three pairings are one array with its axes exchanged, so (pq)(rs) is kept alone, beside the
    part of it where all four share a channel.
    """
    distinct = _distinct(sum(len(layer.lags()) // 2 for layer in layers))
    apart = np.ones((1, 1, 1))
    same = apart / layers[0].outward
    for layer in layers:
        if layer.gate is not None:
            one, two, three, four = gate_moments(layer.gate)
            count = _middle(distinct, len(apart))
            together = np.array([0, one, two, three, four])[count] * 4
            place = np.arange(len(apart)) - len(apart) // 2
            first = np.where(place == 0, 1, 2 * two)[:, None, None]
            second = np.where(place[:, None] == place, 1, 2 * two)
            apart = (apart - same) * first * second + same * together
            same = same * together
        lags, half = layer.lags(), len(layer.lags()) // 2
        moved = np.zeros([n + 2 * half for n in apart.shape])
        n = len(apart)
        for lag, weight in enumerate(lags):
            if weight:
                moved[half : half + n, lag : lag + n, lag : lag + n] += weight * apart
        total = moved + moved.transpose(1, 0, 2) + moved.transpose(2, 1, 0)
        if kappa:
            total[(slice(half, half + n),) * 3] += kappa * float(layer.taps @ layer.taps) * same
        same = total / layer.inward
        apart = (1 - 1 / layer.inward) * moved + same
    index = np.arange(len(apart))
    return math.log(float(apart[len(apart) // 2, index, index].sum()))


def _distinct(reach: int) -> np.ndarray:
    """How many of 0, a, b, c differ, for offsets up to `reach`: shape (2 · reach + 1,)³."""
    place = np.arange(-reach, reach + 1)
    a, b, c = np.meshgrid(place, place, place, indexing="ij", sparse=True)
    new = [a != 0, (b != 0) & (b != a), (c != 0) & (c != a) & (c != b)]
    return 1 + new[0].astype(np.int8) + new[1] + new[2]


def _middle(array: np.ndarray, size: int) -> np.ndarray:
    start = (len(array) - size) // 2
    return array[(slice(start, start + size),) * array.ndim]


def two_walks(layers: list[BackwardLayer], kappa: float) -> float:
    """log of E Π (1 + rewards) over two walks, from the law of their distance, on any axes."""
    from scipy.signal import fftconvolve  # half a second to import

    meet = np.ones((1,) * layers[0].places.shape[1])
    same = 1 / layers[0].outward  # the part of the meeting walks that shares a channel
    share = same
    for layer in layers:
        if layer.gate is not None:
            middle = tuple(n // 2 for n in meet.shape)
            here = meet[middle] + same
            meet = meet * (1 + share * 2 / math.pi * math.asin(layer.gate))
            meet[middle], same = here, 2 * same
        c = layer.inward
        fourth = kappa * float(layer.taps @ layer.taps) * same
        meet = fftconvolve(meet, layer.lags())
        middle = tuple(n // 2 for n in meet.shape)
        arrived = float(meet[middle])
        same, share = (3 * arrived + fourth) / c, 1 / c
        meet[middle] = (1 - 1 / c) * arrived + same
    return math.log(float(meet.sum()))
