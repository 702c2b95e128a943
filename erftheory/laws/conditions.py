"""Where the laws of depth fail, and what is true there instead."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from erftheory.laws.machine.base import (
    L16,
    Context,
    Evidence,
    below,
    close,
    equal,
    law,
    shares,
    slope,
    stack,
)
from erftheory.network.base import Chain, Network
from erftheory.network.layers import Conv

SPAN = 3  # dilation of every layer
DEPTHS = (16, 32, 64, 128)
CURVATURE = (1, -2, 1)


@law(
    "LAT-1",
    "steps of a common divisor leave holes",
    "Steps with a common divisor d leave holes: a lattice sees d times the Gaussian, the rest 0",
    "lattice local limit theorem (Petrov 1975, ch. VII); gridding of dilated nets",
)
def lattice(context: Context) -> list[Evidence]:
    """Local errors on the lattice from exact counts and exact maps; nothing in between."""
    routes = {
        "counting": lambda net: shares(context.engines.counting(net).marginal(0)),
        "exact": lambda net: context.engines.exact(net).map,
    }
    evidence = []
    for route, weights in routes.items():
        errors = []
        for n in DEPTHS:
            p = np.asarray(weights(_dilated(n)), dtype=np.float64)
            errors.append(_local_error(p[::SPAN] / SPAN, math.sqrt(2 * n / 3) * SPAN))
        between = float(sum(np.abs(p[i::SPAN]).sum() for i in range(1, SPAN)))
        n = DEPTHS[-1]
        evidence += [
            equal(route, "theory", f"weight between lattice points, n={n}", between, 0.0),
            close(route, "theory", "exponent of the local error on the lattice",
                  slope(DEPTHS, errors), -1.0, 0.02),
        ]  # fmt: skip
        # a limit without the factor d is wrong by (d − 1)/d of the density at every depth
        flat = _local_error(p[::SPAN], math.sqrt(2 * n / 3) * SPAN)
        gap = (SPAN - 1) / math.sqrt(2 * math.pi)
        evidence.append(
            close(route, "theory", f"error of the plain local limit, n={n}", flat, gap, 0.01)
        )
    return evidence


def _dilated(depth: int) -> Network:
    return Chain(Conv(3, dilation=SPAN), ndim=1) * depth


def _local_error(p: np.ndarray, std: float) -> float:
    """max |std·p − φ| where the entries of p lie `SPAN` pixels apart, centred."""
    z = SPAN * (np.arange(len(p)) - (len(p) - 1) / 2) / std
    return float(np.abs(std * p - np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)).max())


@law(
    "SGN-1",
    "signed taps give no distribution",
    "Signed taps give no distribution: (1, -2, 1) n times is (-1)^t C(2n, n+t), without a limit",
    f"{L16}, section 2, asks for weights >= 0; second differences",
)
def signed(context: Context) -> list[Evidence]:
    """The closed form, its vanishing sum, its alternating signs, and a negative second moment."""
    n = context.reduced("SGN-1", 64)
    m = min(n, 12)
    counted = list(context.engines.counting(stack(n, 3, CURVATURE)).marginal(0))
    closed, shallow = _second_differences(n), np.array(_second_differences(m), dtype=float)
    ones, _ = context.engines.gradient_of_ones(stack(m, 3, CURVATURE))
    gap = float(np.abs(np.asarray(ones) - shallow).max() / np.abs(shallow).max())
    sharpened = context.engines.moments(stack(n, 3, (1, -3, 1)), signal="gradient", init=None)
    changes = sum(a * b < 0 for a, b in zip(counted, counted[1:]))
    return [
        equal("counting", "binomials", f"largest weight, n={n}", max(map(abs, counted)),
              math.comb(2 * n, n), of=(counted, closed)),
        equal("counting", "theory", f"sum of all weights, n={n}", sum(counted), 0),
        equal("counting", "theory", f"sign changes, n={n}", changes, 2 * n),
        below("autodiff", "binomials", f"map / peak, n={m}", gap, 1e-12),
        equal("moments", "by hand", f"second moment of (1, -3, 1), n={n} (px²)",
              sharpened.variance[0], Fraction(-2 * n)),
    ]  # fmt: skip


def _second_differences(depth: int) -> list[int]:
    return [(-1) ** t * math.comb(2 * depth, t) for t in range(2 * depth + 1)]


@law(
    "DRF-1",
    "even kernels drift half a pixel a layer",
    "Even kernels drift: with 'same' padding the centre moves half a pixel a layer, past the width",
    "by the first cumulant; the half pixel of even kernels",
)
def drift(context: Context) -> list[Evidence]:
    """The mean n/2 against the deviation √n/2: their ratio grows like √n."""
    engines, evidence = context.engines, []
    for n in (4, 100, 10**6):
        m = engines.moments(stack(n, 2))
        evidence += [
            equal("moments", "theory", f"mean, n={n} (px)", m.mean[0], Fraction(n, 2)),
            equal("moments", "theory", f"variance, n={n} (px²)", m.variance[0], Fraction(n, 4)),
        ]
    n = context.integer_depth("DRF-1: exact path counts")
    net = stack(min(n, 256), 2)
    erf, counts = engines.exact(net), engines.counting(net)
    weights = counts.marginal(0)
    center = counts.offset[0] + Fraction(sum(t * w for t, w in enumerate(weights)), sum(weights))
    evidence.append(
        close("exact", "counting", f"mean, n={min(n, 256)} (px)", erf.mean[0], float(center), 1e-9)
    )
    return evidence
