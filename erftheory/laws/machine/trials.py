"""Sampled laws as statistical tests: the mean square gradient of random nets against a theory.

A net's map g² has a total power m₀ = Σ g² of its own, which all its pixels share and which is
heavy-tailed. The theory predicts the shape p(t) of E g² and no scale, so the tests look at
**contrasts**, weighted sums Σ c(t) g²(t) with Σ c(t) p(t) = 0: their mean is 0 exactly where the
theory is right, at every width and for every law of m₀. Few of them tell what deviates: the
orthonormal polynomials of p (mean, variance, skewness, kurtosis of each axis) and the larger
pixels.

The **statistic** is the largest |t| of the contrasts' batch means, `BATCHES` of equally many nets.
Its **null law** is that of flipping the signs of whole batches, which keeps the correlation of the
contrasts; it is exact for contrasts with a symmetric law and near for sums of many nets. How near
is measured: `benchmarks/calibration.py`. `LEVELS` shares out the false alarms of a whole run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np

from erftheory.laws.machine.base import Context, Evidence, above, equal, information
from erftheory.network.base import Network

BATCHES = 40
CHANNELS = 8
NETS = 4  # nets of a test for each one of `Context.samples`
FLIPS, ENOUGH = 2_000_000, 100  # random flips at most; hits after which a p value is known
_CHUNKS = 512, 1 << 12  # flips at a time, at first and at most: larger ones leave the cache

_LOCKS = tuple(Lock() for _ in range(64))

DEGREE = 4  # polynomial contrasts of an axis: mean, variance, skewness, kurtosis
PIXEL_SHARE = 0.05  # pixels below this share of the peak are one contrast, the rim
ALTERNATIVE = 0.05  # relative deviation of the variance that the power is stated for

# Probability of a false alarm of a whole run by law. The sum stays far enough below 1e-4 for what
# calibration.py measures: at the default samples small p values of shapes are up to twice too
# small, and those of sizes at 20 layers 2.5 times at 2e-4, growing outward, so GRW has little.
LEVELS = {
    "VAR-1": 1e-5,
    "ACT-1": 1e-5,
    "ACT-2": 1e-5,
    "SKP-2": 1e-5,
    "GRW-1": 1e-6,
    "GRW-2": 1e-6,
    "DRP-1": 5e-6,
    "POOL-1": 5e-6,
    "SUB-1": 2.5e-6,
    "DIL-1": 2.5e-6,
    "DIL-2": 2.5e-6,
    "SKP-1": 2.5e-6,
    "FLU-1": 2e-6,
    "INI-1": 2.5e-6,
}


@dataclass(frozen=True)
class Draws:
    """Batch means over random nets, float64.

    Attributes:
      first: means of g, shape (BATCHES, *receptive field).
      second: means of g², same shape.
      power: m₀ of every net, shape (nets,).
    """

    first: np.ndarray
    second: np.ndarray
    power: np.ndarray

    @classmethod
    def of(cls, blocks: Iterable[np.ndarray], nets: int) -> Draws:
        """From stacks of gradients (any number, *receptive field), `nets` in all.

        Raises:
          ValueError: another number of nets, or nets without finite power.
        """
        batch = np.arange(nets) * BATCHES // nets
        sizes = np.bincount(batch, minlength=BATCHES)
        first: Any = 0.0
        second: Any = 0.0
        powers, done = [], 0
        for block in blocks:
            g = np.asarray(block, dtype=np.float64)
            if done == 0:
                first, second = np.zeros((2, BATCHES, *g.shape[1:]))
            square = g * g
            held, starts = np.unique(batch[done : done + len(g)], return_index=True)
            if len(held):  # nets of a batch follow each other
                first[held] += np.add.reduceat(g, starts)
                second[held] += np.add.reduceat(square, starts)
            powers.append(square.reshape(len(g), -1).sum(1))
            done += len(g)
        if done != nets:
            raise ValueError(f"gradients: got {done} nets; takes {nets}")
        power = np.concatenate(powers)
        if not 0 < power.sum() < math.inf:
            raise ValueError(f"gradients: got a total power of {power.sum()}; takes live nets")
        scale = sizes.reshape(-1, *(1 for _ in range(np.ndim(first) - 1)))
        return cls(first / scale, second / scale, power)

    @property
    def batch_power(self) -> np.ndarray:
        """Means of m₀, shape (BATCHES,)."""
        return self.second.reshape(BATCHES, -1).sum(1)

    @property
    def effective(self) -> float:
        """Effective sample size (Σ m₀)² / Σ m₀²: nets weighted by their power."""
        return float(self.power.sum() ** 2 / (self.power**2).sum())

    @property
    def largest(self) -> float:
        """Share of the net with the most power."""
        return float(self.power.max() / self.power.sum())

    @property
    def trusted(self) -> bool:
        """Whether a batch mean is a mean of many: 8 effective nets a batch, none above a tenth."""
        return self.effective >= 8 * BATCHES and self.largest <= 0.1

    def describe(self, context: Context, name: str) -> str:
        """The numbers that say how much a test on these nets is worth; a doubt leaves a note."""
        known = f"{len(self.power)} nets, {self.effective:.0f} effective"
        if self.trusted:
            return known
        context.note(
            f"{name}: {known}, the largest with {self.largest:.0%} of the power: too few for a "
            "trusted p value"
        )
        return f"{known}, too few"


def draw(
    context: Context,
    network: Network,
    *,
    channels: int = CHANNELS,
    samples: int | None = None,
    **options: Any,
) -> Draws:
    """Random nets of `network` by `context.engines.gradients`, key `context.seed`.

    Args:
      samples: number of nets; `NETS` times the context's own if None.
      options: further arguments of `gradients`, such as `weights` and `init`.

    Raises:
      ValueError: fewer nets than batches.
    """
    nets = NETS * context.samples if samples is None else samples
    engine = context.engines.gradients
    # two laws that want the same nets at once: the second waits for the first
    with _LOCKS[hash((network, nets, channels)) % len(_LOCKS)]:
        return drawn(engine, network, context.seed, nets, channels, **options)


@lru_cache(maxsize=8)
def drawn(
    gradients: Callable[..., Iterable[np.ndarray]],
    network: Network,
    seed: int,
    nets: int,
    channels: int = CHANNELS,
    **options: Any,
) -> Draws:
    """As `draw`, for one engine and one seed; laws that look at the same nets share them."""
    if nets < BATCHES:
        raise ValueError(f"samples: got {nets}; takes at least {BATCHES}, one a batch")
    return Draws.of(gradients(network, seed, nets, channels=channels, **options), nets)


def flip_test(deviations: np.ndarray, seed: int) -> float:
    """p value of mean zero in every column: the largest |t| of batch means against sign flips.

    Args:
      deviations: rows of independent nets, or of `BATCHES` batch means; shape (rows, columns).
      seed: of the flips.

    Returns:
      the share of sign flips of whole batches whose statistic is as large, from as many random
      flips as it takes to see `ENOUGH` of them, `FLIPS` at most (Besag and Clifford, Biometrika
      1991); NaN for a column of zeros, and for NaN: no random net does that.
    """
    ends = [len(deviations) * b // BATCHES for b in range(BATCHES + 1)]
    means = np.stack([deviations[a:b].mean(0) for a, b in zip(ends, ends[1:])])
    scale = np.sqrt((means**2).sum(0))
    if not (scale > 0).all():
        return math.nan
    # the sum of squares does not change with the signs, so flips need only the sums
    units = means / scale
    observed = np.abs(units.sum(0)).max() * (1 - 1e-12)
    rng, drawn, seen, chunk = np.random.default_rng(seed), 0, 0, _CHUNKS[0]
    while drawn < FLIPS:
        signs = rng.integers(0, 2, (chunk, BATCHES), dtype=np.int8) * 2.0 - 1.0
        hits = np.flatnonzero(np.abs(signs @ units).max(1) >= observed)
        if seen + len(hits) >= ENOUGH:
            return ENOUGH / (drawn + int(hits[ENOUGH - seen - 1]) + 1)
        drawn, seen, chunk = drawn + chunk, seen + len(hits), min(2 * chunk, _CHUNKS[1])
    return (seen + 1) / (drawn + 1)


def shape_trial(
    context: Context,
    network: Network,
    name: str,
    *,
    level: float,
    theory: Any = None,
    channels: int = CHANNELS,
    samples: int | None = None,
    against: str = "theory",
    **options: Any,
) -> list[Evidence]:
    """Whether E g² of random nets has the theory's shape: a test, its estimate and its power.

    Args:
      name: of the network, for the quantities shown.
      level: probability of a false alarm.
      theory: the map of E g² up to a factor, over the receptive field; None is the exact engine's
        for the same `init`.
      channels, samples, options: as for `draw`.
      against: the route that `theory` comes from.

    Returns:
      the p value (tested); the sampled variance of every axis in pixels² beside the theory's and
      the power against a variance `ALTERNATIVE` off (information); where the theory has holes,
      that no gradient falls into them (tested, exactly).

    Raises:
      ValueError: nets and theory of different shapes.
    """
    if theory is None:
        init = {"init": options["init"]} if "init" in options else {}
        theory = context.engines.exact(network, signal="variance", **init).map
        against = "exact"
    draws = draw(context, network, channels=channels, samples=samples, **options)
    return judge(context, draws, theory, name, level=level, against=against)


def judge(
    context: Context,
    draws: Draws,
    theory: Any,
    name: str,
    *,
    level: float,
    against: str = "theory",
) -> list[Evidence]:
    """The evidence of `shape_trial` for nets already drawn."""
    p = np.asarray(theory, dtype=np.float64)
    if p.shape != draws.second.shape[1:]:
        raise ValueError(f"theory: got a map of shape {p.shape}; takes {draws.second.shape[1:]}")
    p = p / p.sum()
    reached = p > 1e-12 * p.max()
    evidence = []
    if not reached.all():
        outside = float(draws.second[:, ~reached].sum())
        evidence.append(equal("sampled", against, f"{name}: power in the holes", outside, 0.0))
    contrasts = shape_contrasts(draws.second, p)
    values = np.stack(list(contrasts.values()), axis=1)
    known = draws.describe(context, name)
    evidence.append(
        above("sampled", against, f"{name}: p of E g^2 = theory by sign flips, {known}",
              flip_test(values, context.seed), level)
    )  # fmt: skip
    for axis in range(p.ndim):
        key = f"variance, axis {axis}"
        if key not in contrasts:
            continue
        line = p.sum(axis=tuple(a for a in range(p.ndim) if a != axis))
        spread, per_unit = _variance(line)
        rows = contrasts[key] * per_unit / draws.power.mean()
        error = rows.std(ddof=1) / math.sqrt(BATCHES)
        label = name if p.ndim == 1 else f"{name}, axis {axis}"
        evidence += [
            information("sampled", against,
                        f"{label}: variance (px²), standard error {error:.2g}",
                        spread + float(rows.mean()), spread),
            information("sampled", "noncentral t",
                        f"{label}: power against a variance {ALTERNATIVE:.0%} off, "
                        f"level {level:.2g}",
                        power(ALTERNATIVE * spread / error, level, values.shape[1]), "near 1"),
        ]  # fmt: skip
    return evidence


def shape_contrasts(second: np.ndarray, p: np.ndarray) -> dict[str, np.ndarray]:
    """Contrasts of batch means `second`, shape (BATCHES, *map), with the shape p of sum 1.

    Returns:
      by name an array (BATCHES,): of each axis the polynomials up to `DEGREE`, orthonormal under
      p, then the pixels with at least `PIXEL_SHARE` of the peak, and the rim.
    """
    names = ("mean", "variance", "skewness", "kurtosis")
    out: dict[str, np.ndarray] = {}
    for axis in range(p.ndim):
        others = tuple(a for a in range(p.ndim) if a != axis)
        rows = polynomials(p.sum(axis=others))
        sides = second.sum(axis=tuple(a + 1 for a in others))
        for degree, row in enumerate(rows):
            out[f"{names[degree]}, axis {axis}"] = sides @ row
    power = second.reshape(len(second), -1).sum(1)
    large = p >= PIXEL_SHARE * p.max()
    if large.sum() > 1:
        for place in np.argwhere(large):
            pixel = tuple(int(i) for i in place)
            out[f"pixel {pixel}"] = second[(slice(None), *pixel)] - p[pixel] * power
    if not large.all():
        rim = second[:, ~large].sum(1)
        if float(p[~large].sum()) > 1e-12:
            out["rim"] = rim - p[~large].sum() * power
    return out


def polynomials(line: np.ndarray) -> np.ndarray:
    """Polynomials of degree 1 … `DEGREE`, orthonormal under the weights `line` of sum 1.

    Returns:
      shape (degrees, pixels); fewer degrees where the line has too few pixels.
    """
    reached = line > 1e-12 * line.max()
    t = np.arange(len(line), dtype=np.float64)
    center = line @ t
    scale = math.sqrt(line @ (t - center) ** 2) or 1.0
    degrees = min(DEGREE, int(reached.sum()) - 1)
    root = np.sqrt(line[reached])
    powers = np.vander((t[reached] - center) / scale, degrees + 1, increasing=True)
    q, r = np.linalg.qr(root[:, None] * powers)
    rows = np.zeros((degrees, len(line)))
    rows[:, reached] = (q / root[:, None] * np.sign(np.diag(r))).T[1:]
    return rows


def _variance(line: np.ndarray) -> tuple[float, float]:
    """Variance of `line` (px²), and by how much a unit of the variance contrast raises it."""
    t = np.arange(len(line)) - line @ np.arange(len(line))
    return float(line @ t**2), float(line @ (t**2 * polynomials(line)[1]))


def power(noncentrality: float, level: float, contrasts: int) -> float:
    """Probability that one of `contrasts` t statistics with this noncentrality is seen.

    A lower bound: the threshold is Bonferroni's, and the other contrasts are taken to see nothing.
    """
    from scipy.special import nctdtr, stdtrit

    threshold = float(stdtrit(BATCHES - 1, 1 - level / (2 * contrasts)))
    # nctdtr fails far out, where the power is 1 or 0 to all digits
    if abs(noncentrality - threshold) > 20:
        return float(noncentrality > threshold)
    return 1 - float(nctdtr(BATCHES - 1, noncentrality, threshold))
