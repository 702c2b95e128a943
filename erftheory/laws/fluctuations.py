"""The law of fluctuations: how far the power of one random net is from the mean."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
from scipy.special import ndtr

from erftheory.laws.machine.base import Context, Evidence, above, close, law, stack
from erftheory.laws.machine.trials import LEVELS
from erftheory.network.base import Chain, Network
from erftheory.network.layers import Activation, Conv
from erftheory.theory.fluctuations.power import power_fluctuation, shape_fluctuation

ENUMERATED_WEIGHTS = 12  # of the one-channel nets, 4096 of them
ROUNDING = 1e-12  # relative, of a second moment in floats
NETS, LEAST = 4, 8_000  # nets of a sampled test for each one of `Context.samples`; at least
# Two sampled tests, together a false alarm below 5e-6: of 60,000 tests on 16,000 nets each, drawn
# from 200,000, the p values below 1e-4 were 0.8 times (linear) and 1.8 times (ReLU) as many as they
# should be, and 1e-6 in all leaves room for five times.
LEVEL = LEVELS["FLU-1"] / 4


@law(
    "FLU-1",
    "how much the power of one net scatters",
    "E m^2 of one net's power m is exact for linear chains; a ReLU unit's layer gives 1 + 5/width",
    "Wick's theorem on two copies; Hanin and Nica, Commun. Math. Phys. 2020 (without space)",
)
def fluctuations(context: Context) -> list[Evidence]:
    """All nets with weights ±1 in integers, and sampled nets by a test of Var m₀.

    The statistic is the mean of (m₀/E m₀ − 1)² over nets, E m₀ known, less the predicted variance,
    in Hall's transformation of Student's t (J. R. Stat. Soc. B 1992), which removes its skewness;
    its null law is the standard normal. At 16,000 nets a variance that is 18 % off is found with
    probability 0.999. The ReLU net reads a window first and has no space behind it: a layer's gate
    sees one pixel then, and is independent of all products of four weights.
    """
    linear = Chain(Conv(3), ndim=2) * 3
    gated = Chain(Conv(5), Activation("relu"), Conv(1), Activation("relu"), Conv(1), ndim=2)
    # (1 + 5/c)² of the two gated layers and 1 + 2/taps of the window's Gaussian weights
    without_space = (1 + 5 / 32) ** 2 * (1 + 2 / 25) - 1
    found = power_fluctuation(gated, 32).relative_variance
    return [
        *_one_channel(context),
        *_two_channels(),
        close("fluctuations", "1 + 5/c", "Var m0 / (E m0)^2, ReLU behind a window", found,
              without_space, ROUNDING * without_space),
        # He weights double the power in every layer, a gate halves it
        _sampled(context, linear, "2-D, n=3, 8 channels", 8, 2.0**3,
                 power_fluctuation(linear, 8).relative_variance, "fluctuations"),
        _sampled(context, gated, "ReLU behind a window, 32 channels", 32, 2.0, without_space,
                 "1 + 5/c"),
    ]  # fmt: skip


def _one_channel(context: Context) -> list[Evidence]:
    """Power and spread of the ERF's variance, from all nets of one channel."""
    k = min(context.kernel, ENUMERATED_WEIGHTS // 2)
    if k < context.kernel:
        context.note(f"FLU-1: kernel {k} in place of {context.kernel} for the enumeration")
    n = context.reduced("FLU-1: enumeration", ENUMERATED_WEIGHTS // k)
    squares = _all_squares([1] * (n + 1), k)
    what = f"{len(squares)} nets, n={n}, k={k}"
    evidence = [_power(squares, stack(n, k), 1, what)]
    if k > 1:
        mean = Fraction(int(squares.sum()), len(squares))
        twice = 2 * np.arange(squares.shape[1]) - n * (k - 1)
        variance = Fraction(n * (k**2 - 1), 12)
        # 12 · 4 (m₂ − variance · m₀) in integers
        error = squares @ (12 * twice**2) - int(48 * variance) * squares.sum(1)
        exact = Fraction(sum(int(e) ** 2 for e in error), len(squares) * 48**2) / mean**2
        spread = shape_fluctuation(stack(n, k), 1, "rademacher").spread ** 2
        evidence.append(
            close("fluctuations", "enumeration", f"E (m2 - variance m0)^2 (px^4), {what}", spread,
                  float(exact), ROUNDING * float(exact + 10 * variance**2))
        )  # fmt: skip
    return evidence


def _two_channels() -> list[Evidence]:
    squares = _all_squares([1, 2, 2, 1], 2)
    what = f"{len(squares)} nets, n=3, k=2, 2 channels"
    return [_power(squares, stack(3, 2), 2, what)]


def _power(squares: np.ndarray, network: Network, channels: int, what: str) -> Evidence:
    power = [int(m) for m in squares.sum(1)]
    exact = Fraction(sum(m * m for m in power) * len(power), sum(power) ** 2)
    found = math.exp(power_fluctuation(network, channels, "rademacher").log_second_moment)
    return close("fluctuations", "enumeration", f"E m0^2 / (E m0)^2, {what}", found, float(exact),
                 ROUNDING * float(exact))  # fmt: skip


def _all_squares(widths: list[int], kernel: int) -> np.ndarray:
    """g² of all 1-D nets with weights ±1 and these channels from input to output, in integers.

    Shape (nets, pixels).
    """
    signals = np.ones((1, 1, 1), dtype=np.int64)
    for inward, outward in reversed(list(pairwise(widths))):
        count = inward * outward * kernel
        filters = np.array(list(product((-1, 1), repeat=count)), dtype=np.int64)
        filters = filters.reshape(-1, outward, inward, kernel)
        rows, _, size = signals.shape
        longer = np.zeros((rows, len(filters), inward, size + kernel - 1), dtype=np.int64)
        for tap in range(kernel):
            longer[..., tap : tap + size] += np.einsum("not,foi->nfit", signals, filters[..., tap])
        signals = longer.reshape(rows * len(filters), inward, -1)
    return signals[:, 0] ** 2


def _sampled(
    context: Context,
    network: Network,
    what: str,
    channels: int,
    mean: float,
    variance: float,
    against: str,
) -> Evidence:
    nets = max(LEAST, NETS * context.samples)
    powers = []
    for block in context.engines.gradients(network, context.seed, nets, channels=channels):
        g = np.asarray(block, dtype=np.float64).reshape(len(block), -1)
        powers.append((g**2).sum(1))
    power = np.concatenate(powers) / mean
    p = _hall_test((power - 1) ** 2, variance)
    return above("sampled", against, f"p of Var m0, {what}, {nets} nets", p, LEVEL)


def _hall_test(values: np.ndarray, mean: float) -> float:
    """p value, two sides, of a mean: Hall's transformed t, whose law is normal to order 1/n."""
    n, scale = len(values), float(values.std())
    if not scale > 0:
        return math.nan
    t = (float(values.mean()) - mean) / scale
    skewness = float(((values - values.mean()) ** 3).mean()) / scale**3
    # t + γt²/3 + γ²t³/27 + γ/6n, as a cube so that it is seen to grow with t
    cube = ((1 + skewness * t / 3) ** 3 - 1) / skewness if abs(skewness) > 1e-9 else t
    return float(2 * ndtr(-abs(math.sqrt(n) * (cube + skewness / (6 * n)))))
