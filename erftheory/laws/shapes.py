"""Laws of architecture: subsampling, dilation, skips, large and separable kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import product

import numpy as np

from erftheory.laws.machine.base import Context, Evidence, below, close, equal, law, shares
from erftheory.laws.machine.trials import LEVELS, shape_trial
from erftheory.network.base import Chain, Network
from erftheory.network.combine import Residual
from erftheory.network.layers import Conv

ROUNDING = 1e-12  # allowed deviation of a float map, relative to its peak


def _counted_variance(context: Context, network: Network) -> Fraction:
    """Variance of the exact path counts, in squared pixels."""
    counts = context.engines.counting(network).marginal(0)
    total = sum(counts)
    mean = Fraction(sum(t * w for t, w in enumerate(counts)), total)
    return Fraction(sum(t * t * w for t, w in enumerate(counts)), total) - mean**2


def _std(context: Context, network: Network, expected: Fraction, name: str) -> Evidence:
    """Standard deviation of the exact map against an exact variance."""
    std, wanted = context.engines.exact(network).std[0], math.sqrt(expected)
    return close("exact", "theory", f"{name}: std (px)", std, wanted, 1e-9 * wanted)


def _sampled(
    context: Context,
    id: str,
    network: Network,
    name: str,
    theory: np.ndarray | None = None,
    against: str = "exact",
    init: str = "he",
) -> list[Evidence]:
    """One sampled trial at the law's level."""
    return shape_trial(
        context, network, name, level=LEVELS[id], theory=theory, against=against, init=init
    )


@law(
    "SUB-1",
    "a stride multiplies all deeper variances",
    "Subsampling by s multiplies the variance of all deeper layers by s squared",
    "Luo et al., NIPS 2016, section 2.2; Araujo et al., Distill 2019",
)
def subsampling(context: Context) -> list[Evidence]:
    """A stack behind a subsampling layer, with the layer's own kernel added by hand."""
    evidence = []
    deeper = context.reduced("SUB-1: layers behind the subsampling", 64)
    k = min(context.kernel, 15)
    if k < context.kernel:
        context.note(f"SUB-1: kernel {k} in place of {context.kernel}")
    for s, first in product((2, 3), (1, 5)):
        network = Chain(Conv(first, stride=s), Chain(Conv(k)) * deeper, ndim=1)
        by_hand = Fraction(first**2 - 1 + s**2 * deeper * (k**2 - 1), 12)
        name = f"s={s}, first kernel {first}"
        spread = context.engines.moments(network).variance[0]
        counted = _counted_variance(context, network)
        evidence += [
            equal("moments", "theory", f"{name}: variance (px²)", spread, by_hand),
            equal("counting", "theory", f"{name}: variance (px²)", counted, by_hand),
            _std(context, network, by_hand, name),
        ]  # fmt: skip
    network = Chain(Conv(3, stride=2), Chain(Conv(3)) * 3, ndim=1)
    return evidence + _sampled(context, "SUB-1", network, "s=2, 3 layers behind")


@law(
    "DIL-1",
    "dilation widens steps and leaves holes",
    "Dilation by d multiplies every step by d: variance times d squared, holes between",
    "Luo et al., NIPS 2016, section 2.2; Yu and Koltun, ICLR 2016",
)
def dilation(context: Context) -> list[Evidence]:
    """A dilated stack against the plain one, and the pixels that no path reaches."""
    n = context.reduced("DIL-1", 64)
    k = min(context.kernel, 15)
    if k < context.kernel:
        context.note(f"DIL-1: kernel {k} in place of {context.kernel}")
    plain = [context.engines.symbolic.coefficient(n, k, t) for t in range(n * (k - 1) + 1)]
    evidence = []
    for d in (2, 3):
        network = Chain(Conv(k, dilation=d), ndim=1) * n
        by_hand = d**2 * Fraction(n * (k**2 - 1), 12)
        spread = context.engines.moments(network).variance[0]
        weights = list(context.engines.counting(network).marginal(0))
        missing = [w for t, w in enumerate(weights) if t % d]
        evidence += [
            equal("moments", "theory", f"d={d}: variance (px²)", spread, by_hand),
            equal("counting", "theory", f"d={d}: paths in the holes", sum(missing), 0),
            equal("counting", "symbolic", f"d={d}: paths off the holes, first",
                  weights[0], plain[0], of=(weights[::d], plain)),
            _std(context, network, by_hand, f"d={d}"),
        ]  # fmt: skip
    network = Chain(Conv(3, dilation=2), ndim=1) * 4
    return evidence + _sampled(context, "DIL-1", network, "d=2, 4 layers")


@law(
    "DIL-2",
    "dilations k^l give a uniform field",
    "Dilations k^l give an exactly uniform field, one path a pixel; k=3 with 2^l kurtosis -0.9",
    "Positional number systems; van den Oord et al., WaveNet, 2016 (k = 2)",
)
def exponential_dilation(context: Context) -> list[Evidence]:
    """Counts that are all one, a flat map, and the geometric sums of the cumulants."""
    evidence = []
    for k, levels in ((2, 10), (3, 7), (5, 4)):
        network = Chain(*(Conv(k, dilation=k**level) for level in range(levels)), ndim=1)
        counts = list(context.engines.counting(network).marginal(0))
        name = f"k={k}, {levels} layers"
        fewest_most = (int(min(counts)), int(max(counts)))
        flat = np.asarray(context.engines.exact(network).map)
        gap = float(np.abs(flat * k**levels - 1).max())
        evidence += [
            equal("counting", "theory", f"{name}: pixels", len(counts), k**levels),
            equal("counting", "theory", f"{name}: paths a pixel", fewest_most, (1, 1)),
            below("exact", "theory", f"{name}: max |map x k^l - 1|", gap, 1e-10),
        ]
    deep = Chain(*(Conv(3, dilation=2**level) for level in range(20)), ndim=1)
    kurtosis = context.engines.moments(deep).excess_kurtosis[0]
    # per layer κ₄/κ₂² = −3/2; the sums of 16^l and of 4^l are geometric
    exact = Fraction(-3, 2) * Fraction(16**20 - 1, 15) / Fraction(4**20 - 1, 3) ** 2
    evidence += [
        equal("moments", "theory", "k=3, 2^l: kurtosis, 20 layers", kurtosis, exact),
        close("moments", "theory", "k=3, 2^l: limit kurtosis", float(kurtosis), -0.9, 1e-9),
    ]
    shallow = Chain(*(Conv(3, dilation=2**level) for level in range(8)), ndim=1)
    weights = shares(context.engines.counting(shallow).marginal(0))
    t = np.arange(len(weights)) - (len(weights) - 1) / 2
    second, fourth = (float(np.dot(weights, t**r)) for r in (2, 4))
    expected = float(Fraction(-3, 2) * Fraction(16**8 - 1, 15) / Fraction(4**8 - 1, 3) ** 2)
    evidence.append(
        close("counting", "theory", "k=3, 2^l: kurtosis, 8 layers", fourth / second**2 - 3,
              expected, 1e-9)
    )  # fmt: skip
    ternary = Chain(*(Conv(3, dilation=3**level) for level in range(3)), ndim=1)
    return evidence + _sampled(context, "DIL-2", ternary, "k=3, 3 layers", np.ones(27), "theory")


@law(
    "SKP-1",
    "skips scale the variance by a/(1+a)",
    "A skip with power ratio a scales the variance of centred kernels by a/(1+a)",
    "De and Smith, NeurIPS 2020 (the ratio); Luo et al., NIPS 2016, section 2.2 (skips)",
)
def skip(context: Context) -> list[Evidence]:
    """Moments and map of residual stacks against a binomial number of branches taken."""
    n = context.reduced("SKP-1", 64)
    k = min(context.kernel, 15)
    if k < context.kernel:
        context.note(f"SKP-1: kernel {k} in place of {context.kernel}")
    # a kernel of even size is centred half a pixel off the skip, which spreads the mixture
    shift = Fraction(k - 1, 2) - (k - 1) // 2
    evidence = []
    for ratio in (Fraction(1, 4), Fraction(1), Fraction(3)):
        network = Chain(Residual(Conv(k), gain=ratio), ndim=1) * n
        taken = ratio / (1 + ratio)
        by_hand = n * taken * (Fraction(k**2 - 1, 12) + (1 - taken) * shift**2)
        spread = context.engines.moments(network).variance[0]
        name = f"a={ratio}"
        evidence.append(equal("moments", "theory", f"{name}: variance (px²)", spread, by_hand))
        found = context.engines.exact(network)
        mixture = _binomial_mixture(n, k, float(taken))
        gap = _gap(np.asarray(found.map), mixture)
        evidence.append(below("exact", "binomial", f"{name}: map / peak", gap, ROUNDING * 10))
        evidence.append(_std(context, network, by_hand, name))
    # this init keeps the power of a signal through a convolution: ratio 1 without being told
    network = Chain(Conv(1), Residual(Conv(3)) * 5, ndim=1)
    mixture = _binomial_mixture(5, 3, 0.5)
    return evidence + _sampled(
        context, "SKP-1", network, "a=1, 5 blocks", mixture, "binomial", init="lecun"
    )


def _binomial_mixture(depth: int, kernel: int, taken: float) -> np.ndarray:
    """Σ_b P(b branches taken of `depth`) · uniform^{*b}, centred; shape (depth·(kernel−1)+1,)."""
    before, span = (kernel - 1) // 2, kernel - 1
    total, line = np.zeros(depth * span + 1), np.ones(1)
    for b in range(depth + 1):
        chance = math.comb(depth, b) * taken**b * (1 - taken) ** (depth - b)
        start = (depth - b) * before
        total[start : start + len(line)] += chance * line
        line = np.convolve(line, np.full(kernel, 1 / kernel))
    return total


def _gap(a: np.ndarray, b: np.ndarray) -> float:
    """max |a − b| / max b, infinite for other shapes."""
    return float(np.abs(a - b).max() / b.max()) if a.shape == b.shape else math.inf


@law(
    "LK-1",
    "one large kernel sees wider than small ones",
    "At equal RF one large kernel sees wider: 7x7 has std 2, three 3x3 have sqrt 2",
    "Ding et al., CVPR 2022; Luo et al., NIPS 2016, section 2.1",
)
def large_kernel(context: Context) -> list[Evidence]:
    """RF, variance and map of both nets."""
    evidence = []
    pairs: Sequence[tuple[str, Network, int]] = (
        ("one 7x7", Chain(Conv(7), ndim=2), 4),
        ("three 3x3", Chain(Conv(3), ndim=2) * 3, 2),
    )
    for name, network, spread in pairs:
        measured = context.engines.moments(network).variance
        size = context.engines.receptive_field(network).size
        counted = _counted_variance(context, network)
        evidence += [
            equal("interval", "theory", f"{name}: RF (px)", size, (7, 7)),
            equal("moments", "theory", f"{name}: variance (px²)", measured, (spread, spread)),
            equal("counting", "theory", f"{name}: variance (px²)", counted, spread),
            _std(context, network, Fraction(spread), name),
        ]  # fmt: skip
    return evidence


@law(
    "SEP-1",
    "1 x k then k x 1 equals k x k",
    "1 x k followed by k x 1 has the receptive field and the signal of k x k",
    "Szegedy et al., CVPR 2016 (factorised convolutions)",
)
def separable(context: Context) -> list[Evidence]:
    """Path counts, maps and moments of both nets."""
    evidence = []
    for k in dict.fromkeys((3, min(context.kernel, 15), 7)):
        split = Chain(Conv((1, k)), Conv((k, 1))) * 3
        square = Chain(Conv(k), ndim=2) * 3
        engines = context.engines
        counts = [engines.counting(net).map for net in (split, square)]
        paths = [int(c.max()) for c in counts]
        alike = counts[0].shape == counts[1].shape and bool((counts[0] == counts[1]).all())
        by_hand = 3 * Fraction(k**2 - 1, 12)
        map_ = np.asarray(engines.exact(split, method="direct").map)
        outer = np.asarray(engines.exact(square, method="spectrum").map)
        sizes = [engines.receptive_field(net).size for net in (split, square)]
        spread = engines.moments(split).variance
        name = f"k={k}"
        evidence += [
            equal("interval", "interval of k x k", f"{name}: RF (px)", *sizes),
            equal("counting", "counting of k x k", f"{name}: most paths", *paths, of=(alike, True)),
            equal("moments", "theory", f"{name}: variance (px²)", spread, (by_hand, by_hand)),
            below("direct", "spectrum of k x k", f"{name}: map / peak", _gap(map_, outer),
                  ROUNDING),
            below("spectrum", "counting", f"{name}: map of k x k / peak",
                  _gap(outer, (counts[0] / counts[0].sum()).astype(float)), ROUNDING),
        ]  # fmt: skip
    return evidence
