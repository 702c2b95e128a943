"""Laws of depth: moments, the Gaussian limit, and growth with depth and kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from erftheory.laws.machine.base import (
    L16,
    Context,
    Evidence,
    below,
    close,
    equal,
    information,
    law,
    shares,
    slope,
    stack,
)
from erftheory.laws.machine.trials import LEVELS
from erftheory.laws.sampled_growth import (
    line_std,
    magnitude_size,
    magnitude_size_gradient,
    sampled_growth,
    std_gradient,
)
from erftheory.network.base import Network

SKEWED = (1, 2, 6)  # relative taps of a kernel without symmetry
BERRY_ESSEEN = 0.4690  # Shevtsova 2013, identically distributed summands
LUO_DEPTHS = (5, 10, 20, 40)
DEEP = (256, 4096, 65_536, 10**6)


@law(
    "CLT-1",
    "mean, variance, kurtosis add up by layers",
    "Mean, variance and kurtosis add up layer by layer: n E X, n Var X, kurtosis / n",
    f"{L16}, section 2; cumulants of independent sums",
)
def cumulants(context: Context) -> list[Evidence]:
    """The derivation's formulas, the exact path counts, and the moment algebra."""
    n, k = context.integer_depth("CLT-1: exact path counts"), context.kernel
    symbolic, network = context.engines.symbolic, stack(n, k)
    counts = context.engines.counting(network)
    counted = _moments_of(counts.marginal(0), counts.offset[0])
    algebra = context.engines.moments(network)
    # "same" padding of one layer puts its first tap at −(k−1)//2
    formula = (
        symbolic.mean(n, k) - n * ((k - 1) // 2),
        symbolic.variance(n, k),
        symbolic.excess_kurtosis(n, k),
    )
    folded = (algebra.mean[0], algebra.variance[0], algebra.excess_kurtosis[0])
    names = ("mean (px)", "variance (px²)", "excess kurtosis")
    evidence = [
        equal("counting", "symbolic", f"{name}, n={n}", c, f)
        for name, c, f in zip(names, counted, formula)
    ]
    evidence += [
        equal("moments", "symbolic", f"{name}, n={n}", m, f)
        for name, m, f in zip(names, folded, formula)
    ]
    skewed = context.engines.moments(stack(n, 3, SKEWED))
    weights = [Fraction(w, sum(SKEWED)) for w in SKEWED]
    one = sum(m * w for m, w in enumerate(weights))
    spread = n * (sum(m * m * w for m, w in enumerate(weights)) - one**2)
    evidence.append(
        equal("moments", "by hand", f"variance of {SKEWED}, n={n}", skewed.variance[0], spread)
    )
    return evidence


def _moments_of(weights: Sequence, first: int) -> tuple[Fraction, Fraction, Fraction]:
    """Mean, variance and excess kurtosis of exact weights on first, first + 1, …"""
    total = sum(weights)
    center = Fraction(sum(t * w for t, w in enumerate(weights)), total)
    double = [2 * t * center.denominator - 2 * center.numerator for t in range(len(weights))]
    second = Fraction(sum(d**2 * w for d, w in zip(double, weights)), total)
    fourth = Fraction(sum(d**4 * w for d, w in zip(double, weights)), total)
    return first + center, second / (2 * center.denominator) ** 2, fourth / second**2 - 3


@law(
    "CLT-2",
    "the field tends to a Gaussian",
    "The field tends to a Gaussian: distance below the Berry-Esseen bound, local error like 1/n",
    f"{L16}, section 2; Berry-Esseen with 0.4690 (Shevtsova 2013)",
)
def gaussian(context: Context) -> list[Evidence]:
    """Distances to the normal law, from exact counts and from the spectrum."""
    evidence = []
    limit = context.integer_depth("CLT-2: exact path counts")
    depths = sorted({n for n in (1, 4, 16, 64) if n < limit} | {limit})
    for k, taps in ((context.kernel, None), (3, SKEWED)):
        for n in depths:
            bound = _berry_esseen(k, taps, n)
            name = f"Kolmogorov distance, {'uniform' if taps is None else taps}, n={n}"
            counted = shares(context.engines.counting(stack(n, k, taps)).marginal(0))
            evidence.append(below("counting", "Berry-Esseen", name, _kolmogorov(counted), bound))
        map_ = _spectrum(context, stack(depths[-1], k, taps))
        gap = abs(_kolmogorov(map_) - _kolmogorov(counted))
        evidence.append(below("spectrum", "counting", f"difference of {name}", gap, 1e-10))
    return evidence + _local_limit(context)


def _local_limit(context: Context) -> list[Evidence]:
    """sup |σ√n p − φ| falls like 1/n and n times it tends to |κ| φ(0) / 8 (Edgeworth)."""
    depths = [n for n in (32, 64, 128, 256) if n == context.reduced("CLT-2: local limit", 256, n)]
    k = min(context.kernel, 9)
    if k < context.kernel:
        context.note(f"CLT-2: local limit at kernel {k} in place of {context.kernel}")
    engines = context.engines
    kurtosis = abs(float(engines.symbolic.excess_kurtosis(1, k)))
    constant = kurtosis / 8 / math.sqrt(2 * math.pi)
    routes = {
        "counting": [shares(engines.counting(stack(n, k)).marginal(0)) for n in depths],
        "spectrum": [_spectrum(context, stack(n, k)) for n in depths],
    }
    evidence = []
    for route, maps in routes.items():
        errors = [_local_error(p) for p in maps]
        exponent = slope(depths, errors)
        evidence.append(close(route, "theory", "local-limit exponent", exponent, -1.0, 0.02))
        scaled = depths[-1] * errors[-1]
        allowed = 0.02 * constant
        evidence.append(
            close(route, "symbolic", f"n x local error, n={depths[-1]}", scaled, constant, allowed)
        )
    # far deeper than integers reach: four orders of magnitude of depth, seven digits of the density
    maps = [np.asarray(engines.exact(stack(n, k), window="8 std").map) for n in DEEP]
    errors = [_local_error(p) for p in maps]
    span = f"n={DEEP[0]} to {DEEP[-1]}"
    last = DEEP[-1] * errors[-1]
    evidence += [
        close("exact", "theory", f"local-limit exponent, {span}", slope(DEEP, errors), -1.0, 1e-3),
        close("exact", "symbolic", f"n x local error, n={DEEP[-1]}", last, constant,
              1e-3 * constant),
    ]  # fmt: skip
    return evidence


def _spectrum(context: Context, network: Network) -> np.ndarray:
    return np.asarray(context.engines.exact(network, signal="variance", method="spectrum").map)


def _berry_esseen(kernel: int, taps: Sequence[int] | None, depth: int) -> float:
    weights = np.ones(kernel) if taps is None else np.asarray(taps, dtype=float)
    weights = weights / weights.sum()
    steps = np.arange(len(weights)) - weights @ np.arange(len(weights))
    third, spread = weights @ np.abs(steps) ** 3, weights @ steps**2
    return float(BERRY_ESSEEN * third / (spread**1.5 * math.sqrt(depth)))


def _standardised(shares: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Shares (n,), their standardised places (n,), and the standard deviation in pixels."""
    p = np.asarray(shares, dtype=np.float64)
    t = np.arange(len(p))
    center = p @ t
    std = math.sqrt(p @ (t - center) ** 2)
    return p, (t - center) / std, std


def _kolmogorov(p: Sequence[float] | np.ndarray) -> float:
    """sup |F − Φ| of the standardised law: a step function, so both sides of every jump."""
    p, z, _ = _standardised(p)
    after = np.cumsum(p)
    normal = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in z])
    return float(max(np.abs(after - normal).max(), np.abs(after - p - normal).max()))


def _local_error(p: Sequence[float] | np.ndarray) -> float:
    p, z, std = _standardised(p)
    return float(np.abs(std * p - np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)).max())


@law(
    "GRW-1",
    "the std grows like the root of depth",
    "The std grows like the square root of depth; size exponent to 1/2, its share's to -1/2",
    f"{L16}, sections 2 and 3",
)
def growth(context: Context) -> list[Evidence]:
    """Exact variances to a million layers, sizes of exact maps and by plain convolution."""
    k, engines = context.kernel, context.engines
    evidence = []
    for n in (10, context.depth, 10**3, 10**6):
        spread = engines.moments(stack(n, k)).variance[0]
        formula = engines.symbolic.variance(n, k)
        evidence.append(equal("moments", "symbolic", f"variance, n={n} (px²)", spread, formula))
    deep = [10**2, 10**4, 10**6]
    spreads = [engines.moments(stack(n, k)).variance[0] for n in deep]
    exponent = slope(deep, [math.sqrt(v) for v in spreads])
    evidence.append(close("moments", "theory", "std exponent", exponent, 0.5, 1e-12))
    shares_ = [
        math.sqrt(v) / engines.receptive_field(stack(n, k)).size[0] for v, n in zip(spreads, deep)
    ]
    last = slope(deep[1:], shares_[1:])
    evidence.append(close("moments", "interval", "std/RF exponent", last, -0.5, 1e-3))
    n = context.depth
    std = engines.exact(stack(n, k), signal="variance").std[0]
    expected = math.sqrt(engines.symbolic.variance(n, k))
    allowed = 1e-9 * expected
    evidence.append(close("exact", "symbolic", f"std, n={n} (px)", std, expected, allowed))
    sampled = sampled_growth(
        context, min(k, 5), LEVELS["GRW-1"], name="std", measure=line_std, gradient=std_gradient,
        exponent=0.5, unlike=0.55,
    )  # fmt: skip
    return evidence + _size_exponent(context) + sampled


def _size_exponent(context: Context) -> list[Evidence]:
    """Log-log slope of L16's size in 2-D between 64 and 256 layers, by two routes."""
    depths, k = (64, 256), min(context.kernel, 9)
    if k < context.kernel:
        context.note(f"GRW-1: size exponent at kernel {k} in place of {context.kernel}")
    maps = [context.engines.exact(stack(n, k, ndim=2), signal="variance") for n in depths]
    sizes = {
        "exact": [m.size() for m in maps],
        "plain convolution": [_plain_size(_plain_power(k, n)) for n in depths],
    }
    evidence = []
    for route, values in sizes.items():
        exponent = slope(depths, values)
        evidence.append(close(route, "theory", "size exponent, n=64 to 256", exponent, 0.5, 0.01))
        share = [s / (n * (k - 1) + 1) for s, n in zip(values, depths)]
        exponent = slope(depths, share)
        evidence.append(
            close(route, "theory", "size/RF exponent, n=64 to 256", exponent, -0.5, 0.02)
        )
    return evidence


def _plain_power(kernel: int, depth: int) -> np.ndarray:
    """One axis of the normalised signal by `depth` plain convolutions."""
    signal = np.ones(1)
    for _ in range(depth):
        signal = np.convolve(signal, np.full(kernel, 1 / kernel))
    return signal


def _plain_size(line: np.ndarray) -> float:
    """L16's size of the separable 2-D map: the root of the count above 1 − 0.9545 of the peak."""
    plane = np.outer(line, line)
    return math.sqrt(np.count_nonzero(plane > (1 - 0.9545) * plane.max()))


@law(
    "GRW-2",
    "at 5-40 layers exponents 0.539 and -0.421",
    "At 5 to 40 layers the magnitude's size grows with exponent 0.539, its share of RF with -0.421",
    f"{L16}, section 3 and figure on growth (reported there: 0.56 and -0.43)",
)
def finite_depth(context: Context) -> list[Evidence]:
    """Slopes of 3×3 stacks at L16's depths; L16's own numbers as information."""
    fields = [2 * n + 1 for n in LUO_DEPTHS]
    sizes = {
        "exact": [
            context.engines.exact(stack(n, 3, ndim=2), signal="magnitude").size()
            for n in LUO_DEPTHS
        ],
        "plain convolution": [_plain_size(np.sqrt(_plain_power(3, n))) for n in LUO_DEPTHS],
    }
    evidence = []
    for route, values in sizes.items():
        share = [s / f for s, f in zip(values, fields)]
        size_slope, share_slope = slope(LUO_DEPTHS, values), slope(LUO_DEPTHS, share)
        evidence += [
            close(route, "theory", "magnitude size exponent", size_slope, 0.539, 5e-4),
            close(route, "theory", "magnitude size/RF exponent", share_slope, -0.421, 5e-4),
            information(route, "L16 as reported", "size exponent", size_slope, 0.56),
            information(route, "L16 as reported", "size/RF exponent", share_slope, -0.43),
        ]
    pairs = zip(sizes["exact"], sizes["plain convolution"], LUO_DEPTHS)
    evidence += [
        equal("exact", "plain convolution", f"size², n={n} (px²)", round(a * a), round(b * b))
        for a, b, n in pairs
    ]
    sampled = sampled_growth(
        context, 3, LEVELS["GRW-2"], name="smooth magnitude size", measure=magnitude_size,
        gradient=magnitude_size_gradient, unlike=0.5,
    )  # fmt: skip
    return evidence + sampled


@law(
    "GRW-3",
    "the std grows like k sqrt(n)",
    "The std grows like k sqrt(n): at equal RF the variance is (RF - 1)(k + 1)/12",
    f"{L16}, section 2.1: O(k sqrt n)",
)
def kernel_against_depth(context: Context) -> list[Evidence]:
    """Stacks with the same receptive field, 61 pixels, from 60 layers of 2 taps to one of 61."""
    engines, reach = context.engines, 60
    evidence = []
    for k in (2, 3, 5, 7, 11, 31, 61):
        n = reach // (k - 1)
        size = engines.receptive_field(stack(n, k)).size[0]
        evidence.append(equal("interval", "symbolic", f"RF, {n} layers of {k} (px)", size,
                              engines.symbolic.receptive_field(n, k)))  # fmt: skip
        spread = engines.moments(stack(n, k)).variance[0]
        formula = Fraction(reach * (k + 1), 12)
        name = f"variance, {n} layers of {k} (px²)"
        evidence.append(equal("moments", "theory", name, spread, formula))
        counts = engines.counting(stack(n, k)).marginal(0)
        evidence.append(equal("counting", "theory", name, _moments_of(counts, 0)[1], formula))
    wide = [engines.moments(stack(1, k)).std[0] / k for k in (101, 10001)]
    evidence.append(
        close("moments", "theory", "std/(k sqrt n), k=10001", wide[1], 12**-0.5, 1e-8)
    )
    return evidence


@law(
    "LIM-1",
    "the share of the RF that counts vanishes",
    "The effective share of the receptive field vanishes: std/RF tends to 0 like 1/sqrt(n)",
    f"{L16}, section 2.1",
)
def vanishing_share(context: Context) -> list[Evidence]:
    """The symbolic limit, and the share itself to a million layers."""
    engines, k = context.engines, context.kernel
    limit = engines.symbolic.rf_ratio_limit()
    evidence = [equal("symbolic", "theory", "lim std/RF, all k", int(limit), 0)]
    rate = math.sqrt((k + 1) / (12 * (k - 1)))
    for n in (10**2, 10**4, 10**6):
        network = stack(n, k)
        share = engines.moments(network).std[0] / engines.receptive_field(network).size[0]
        # the RF is one more than n(k−1): a relative error 1/n(k−1) in the rate
        allowed = 1.1 * rate / (n * (k - 1))
        name = f"sqrt(n) std/RF, n={n}"
        evidence.append(
            close("moments / interval", "theory", name, math.sqrt(n) * share, rate, allowed)
        )
    return evidence
