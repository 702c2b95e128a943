"""Laws of layers without weights: dropout and pooling."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import numpy as np

from erftheory.laws.machine.base import (
    Context,
    Evidence,
    above,
    below,
    equal,
    information,
    law,
    shares,
)
from erftheory.laws.machine.trials import (
    ALTERNATIVE,
    BATCHES,
    LEVELS,
    NETS,
    draw,
    flip_test,
    judge,
    power,
    shape_trial,
)
from erftheory.network.base import Chain, Network
from erftheory.network.layers import Activation, AvgPool, Conv, Dropout, Layer, MaxPool

ROUNDING = 1e-12  # allowed deviation of a float map, relative to its peak
RATE = Fraction(1, 4)
DROPPED_LAYERS = 2


@law(
    "DRP-1",
    "dropout adds power and leaves the shape",
    "Dropout of rate p multiplies E g^2 by 1/(1-p) a layer and leaves its shape",
    "Srivastava et al., JMLR 2014 (inverted dropout); E m^2 = 1/(1-p) for its mask",
)
def dropout(context: Context) -> list[Evidence]:
    """All weights ±1 with all masks in exact arithmetic, the exact engines, and paired nets."""
    engines = context.engines
    maps, whole = _all_masks(RATE)
    counts = list(engines.counting(Chain(Conv(2), ndim=1) * 3).marginal(0))
    scaled = [m * (1 - RATE) ** 2 for m in maps]
    what = f"{whole} nets and masks, 3 layers, rate {RATE}"
    evidence = [
        equal("enumeration", "counting", f"E g^2 (1-p)^2, {what}: largest", max(scaled),
              max(counts), of=(scaled, counts))
    ]  # fmt: skip
    n = context.reduced("DRP-1", 64)
    dropped = _stack(n, Dropout(float(RATE)))
    plain = list(engines.counting(_stack(n, Activation("linear"))).marginal(0))
    gap = _gap(np.asarray(engines.exact(dropped).map), _shares(plain))
    evidence += [
        below("exact", "counting without dropout", f"map / peak, n={n}", gap, ROUNDING),
        equal("moments", "theory", f"variance (px²), n={n}",
              engines.moments(dropped).variance[0], Fraction(2 * n, 3)),
    ]  # fmt: skip
    return evidence + _dropped_nets(context)


def _stack(depth: int, layer: Layer) -> Network:
    """`depth` convolutions of three taps with `layer` behind each but the last."""
    return Chain(Chain(Conv(3), layer, ndim=1) * (depth - 1), Conv(3), ndim=1) if depth > 1 else (
        Chain(Conv(3), ndim=1)
    )  # fmt: skip


def _all_masks(rate: Fraction) -> tuple[list[Fraction], int]:
    """E g² of three 2-tap layers with dropout between them, over all weights ±1 and all masks.

    Returns:
      the exact map of four pixels, and the number of weight settings times masks.
    """
    weights = np.array(list(product((-1, 1), repeat=6)), dtype=np.int64)
    total = [Fraction(0)] * 4
    keep = 1 - rate
    for mask in product((0, 1), repeat=5):  # the two pixels above, the three below
        upper, lower = np.array(mask[:2]), np.array(mask[2:])
        g = weights[:, :2] * upper
        g = _spread(g, weights[:, 2:4]) * lower
        g = _spread(g, weights[:, 4:])
        kept = sum(mask)
        # each mask that keeps divides g² by keep²
        chance = keep**kept * rate ** (5 - kept)
        for t, square in enumerate((g**2).sum(0).tolist()):
            total[t] += chance * square
    # two dropouts on every path
    return [t / len(weights) / keep**4 for t in total], len(weights) * 2**5


def _spread(g: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Every row of g (nets, n) convolved with its own two taps."""
    out = np.zeros((len(g), g.shape[1] + 1), dtype=g.dtype)
    out[:, :-1] += g * taps[:, :1]
    out[:, 1:] += g * taps[:, 1:]
    return out


def _dropped_nets(context: Context) -> list[Evidence]:
    """Total power of nets with dropout against the same weights without, and the shape.

    Both nets get one key, so they share their weights, which takes most of the noise out; were
    they not to share them, the test would stay right and lose power.
    """
    level, n = LEVELS["DRP-1"] / 2, DROPPED_LAYERS
    network = _stack(n + 1, Dropout(float(RATE)))
    dropped = draw(context, network)
    plain = draw(context, _stack(n + 1, Activation("linear")))
    name = f"{n} dropouts of rate {RATE}"
    scale = (1 - float(RATE)) ** n
    with_, without = dropped.batch_power, plain.batch_power
    pairs = (scale * with_ - without) / without.mean()
    error = pairs.std(ddof=1) / math.sqrt(BATCHES)
    ratio = float(with_.mean() / without.mean())
    theory = context.engines.exact(network, signal="variance").map
    return [
        above("sampled", "sampled without dropout",
              f"{name}: p of total power = (1-p)^-{n} by sign flips, "
              f"{dropped.describe(context, 'DRP-1')}",
              flip_test(pairs[:, None], context.seed), level),
        information("sampled", "theory", f"{name}: power ratio, standard error "
                    f"{error / scale:.2g}", ratio, 1 / scale),
        information("sampled", "noncentral t", f"{name}: power against a scale "
                    f"{ALTERNATIVE:.0%} off, level {level:.2g}",
                    power(ALTERNATIVE / error, level, 1), "near 1"),
        *judge(context, dropped, theory, name, level=level, against="exact"),
    ]  # fmt: skip


@law(
    "POOL-1",
    "average pools spread, max pools pick alike",
    "An average pool is a uniform kernel; a max pool routes to each input alike up to correlation",
    "Luo et al., NIPS 2016, section 2.2 (pooling as a layer); symmetry of the window",
)
def pooling(context: Context) -> list[Evidence]:
    """Average pools by hand, by counting and sampled; where max pools route, exactly.

    At 2×2 the reflections of a window carry each of its pixels to every other, so behind a
    convolution with iid weights each is the largest with probability 1/4 exactly. Behind wider
    windows it is 1/k² for independent pixels only: what overlapping windows share makes pixels
    at the rim of a pool, which have fewer neighbours, the largest more often.
    """
    engines, level = context.engines, LEVELS["POOL-1"]
    evidence = []
    for k in (2, 3):
        network = Chain(Conv(3), AvgPool(k), Conv(3), ndim=1)
        by_hand = _pooled(k)
        counts = list(engines.counting(network).marginal(0))
        found = np.asarray(engines.exact(network).map)
        name = f"average of {k} between convolutions"
        evidence += [
            equal("counting", "theory", f"{name}: most paths", max(counts), max(by_hand),
                  of=(counts, by_hand)),
            below("exact", "theory", f"{name}: map / peak", _gap(found, _shares(by_hand)),
                  ROUNDING),
        ]  # fmt: skip
    # without weights between them two pools are one kernel (1, 2, 1), squared as a whole
    twice = Chain(Conv(3), AvgPool(2, stride=1), AvgPool(2, stride=1), ndim=1)
    squares = np.convolve([1, 1, 1], [1, 4, 1]).tolist()
    found = np.asarray(engines.exact(twice).map)
    evidence.append(below("exact", "theory", "two averages of 2 in a row: map / peak",
                          _gap(found, _shares(squares)), ROUNDING))  # fmt: skip
    evidence += shape_trial(
        context, Chain(Conv(3), AvgPool(2), Conv(3), ndim=1), "average of 2 between convolutions",
        level=level / 2, theory=_shares(_pooled(2)),
    )  # fmt: skip
    return evidence + _routing(context, level / 4)


def _pooled(k: int) -> list[int]:
    """Path counts of conv 3, average pool k, conv 3, by hand: the deeper taps k pixels apart."""
    apart = np.zeros(2 * k + 1, dtype=np.int64)
    apart[::k] = 1
    return np.convolve(np.convolve(apart, np.ones(k, dtype=np.int64)), [1, 1, 1]).tolist()


def _shares(weights: list[int]) -> np.ndarray:
    return np.asarray(shares(weights))


def _routing(context: Context, level: float) -> list[Evidence]:
    """Which pixel of its window a max pool chose, read off where the gradient lies."""
    square = Chain(Conv(3), MaxPool(2), ndim=2)
    line = Chain(Conv(2), MaxPool(3), ndim=1)
    middle = middle_of_three()
    cases = (
        ("2x2 behind 3x3", square, (2, 2), np.full(4, 0.25), "symmetry"),
        ("3 behind 2 taps", line, (3,), np.array([1 - middle, 2 * middle, 1 - middle]) / 2,
         "integral"),
    )  # fmt: skip
    evidence = []
    for name, network, shape, expected, against in cases:
        seen = _chosen(context, network, shape)
        drawn, nets = NETS * context.samples, int(seen.sum())
        statistic = float(((seen - nets * expected) ** 2 / (nets * expected)).sum())
        p = _chi_square_tail(statistic, len(expected) - 1)
        evidence += [
            equal("sampled", "theory", f"max of {name}: nets without a gradient", drawn - nets, 0),
            above("sampled", against, f"max of {name}: p of the routing, {nets} nets", p, level),
            information("sampled", against, f"max of {name}: routing",
                        tuple((seen / nets).tolist()), tuple(expected.tolist())),
        ]  # fmt: skip
    return evidence


def _chosen(context: Context, network: Network, shape: tuple[int, ...]) -> np.ndarray:
    """How many nets chose each pixel of the window `shape`, row-major.

    Raises:
      ValueError: a gradient that is not one kernel at one place of the window.
    """
    seen = np.zeros(shape, dtype=np.int64)
    blocks = context.engines.gradients(network, context.seed, NETS * context.samples, channels=1)
    for block in blocks:
        touched = np.asarray(block) != 0
        places = []
        for axis in range(len(shape)):
            others = tuple(a + 1 for a in range(len(shape)) if a != axis)
            places.append(touched.any(axis=others).argmax(1))
        np.add.at(seen, tuple(places), touched.reshape(len(touched), -1).any(1))
    return seen.ravel()


def _chi_square_tail(statistic: float, freedom: int) -> float:
    from scipy.special import chdtrc

    return float(chdtrc(freedom, statistic))


def middle_of_three(points: int = 20_000) -> float:
    """Probability that a max pool of three takes its middle pixel, behind two Gaussian taps.

    Neighbours h₀, h₁, h₂ with h_i = w₀x_i + w₁x_{i+1} have correlation ρ = w₀w₁/(w₀² + w₁²) =
    sin(2θ)/2, θ uniform, the outer two none. The middle is the largest where h₁ − h₀ and h₁ − h₂
    are positive, two Gaussians of correlation r = (1 − 2ρ)/(2 − 2ρ): 1/4 + asin(r)/2π. The mean
    over θ by the midpoint rule, which is exact up to rounding for smooth periodic functions.
    """
    theta = (np.arange(points) + 0.5) * (2 * math.pi / points)
    rho = np.sin(2 * theta) / 2
    r = (1 - 2 * rho) / (2 - 2 * rho)
    return float((0.25 + np.arcsin(r) / (2 * math.pi)).mean())


def _gap(a: np.ndarray, b: np.ndarray) -> float:
    """max |a − b| / max b, infinite for other shapes."""
    return float(np.abs(a - b).max() / b.max()) if a.shape == b.shape else math.inf
