"""What one asks of an ERF map: moments, sizes, radii, a Gaussian fit, distances.

Every function takes the map `signal` in one of two forms:

- an array `map (n0, n1, …)`, one axis for each spatial axis of the input;
- a *tuple* of marginals `(n0,), (n1,), …` whose outer product, seldom built, is the map.

Lengths are in input pixels, indices count from the map's first pixel, second moments are variances.
Signed maps are legal: their moments are signed, their sizes, radii and areas are those of |map|.
A share of mass is reached at `SHARE_TOLERANCE` below it, so that a tie does not hang on rounding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from numbers import Real
from typing import TypeAlias

import numpy as np

Map: TypeAlias = np.ndarray | tuple[np.ndarray, ...]

MAX_PIXELS = 2**27
SIZE_THRESHOLD = 1 - 0.9545
SHARE_TOLERANCE = 1e-12
_SMOOTH_VARIANCE = 1.5**2  # a Gaussian's lattice sum is its integral to 2·exp(−2π²σ²) = 1e−19
_GAUSSIAN_REACH = 9.0  # deviations; 2e−19 of the mass lies beyond
_CROP_ABOVE = 2**24
_TAIL = 1e-17


def check_share(name: str, value: float) -> float:
    """`value` as a float; ValueError unless it lies strictly between 0 and 1."""
    if not isinstance(value, Real) or not 0 < value < 1:
        raise ValueError(f"{name}: got {value!r}, takes a number strictly between 0 and 1")
    return float(value)


def check_pixels(count: int, what: str) -> None:
    """ValueError if an array of `count` pixels is more than one should build."""
    if count > MAX_PIXELS:
        raise ValueError(f"{what} needs {count} pixels at once, at most {MAX_PIXELS} are built")


def _factors(signal: Map) -> list[np.ndarray]:
    """The map as factors over disjoint axes: one for an array, one an axis for marginals."""
    parts = signal if isinstance(signal, tuple) else (signal,)
    return [np.asarray(part, dtype=np.float64) for part in parts]


def _shape(signal: Map) -> tuple[int, ...]:
    return tuple(n for factor in _factors(signal) for n in factor.shape)


def build(signal: Map, combine: np.ufunc = np.multiply) -> np.ndarray:
    """The map as an array `(n0, n1, …)`; ValueError above `MAX_PIXELS`."""
    if not isinstance(signal, tuple):
        return np.asarray(signal)
    check_pixels(math.prod([len(part) for part in signal]), "the map")
    return reduce(combine.outer, signal)


def marginals(signal: Map) -> tuple[np.ndarray, ...]:
    """One marginal `(n_i,)` an axis, up to a common factor: the sum over all other axes."""
    sides = []
    for factor in _factors(signal):
        axes = range(factor.ndim)
        sides += [factor.sum(axis=tuple(b for b in axes if b != a)) for a in axes]
    return tuple(sides)


def magnitude(signal: Map) -> Map:
    """√map, normalised to sum 1, in the form that came in; ValueError where map is negative."""
    if min(factor.min() for factor in _factors(signal)) < 0:
        raise ValueError("signal: got negative entries, takes a map that is nowhere negative")
    roots = tuple(np.sqrt(f) / np.sqrt(f).sum() for f in _factors(signal))
    return roots if isinstance(signal, tuple) else roots[0]


def mean(marginal: np.ndarray) -> float:
    """Centre of mass of a marginal `(n,)`, in pixels from its first."""
    return float(marginal @ np.arange(len(marginal)) / marginal.sum())


def central_moment(marginal: np.ndarray, order: int) -> float:
    """Σ p(i)·(i − mean)^order of a marginal `(n,)`, in pixels^order."""
    steps = np.arange(len(marginal)) - mean(marginal)
    return float(marginal @ steps**order / marginal.sum())


def variance(marginal: np.ndarray) -> float:
    """Variance of a marginal `(n,)` in pixels²; may be negative where the marginal is signed."""
    return central_moment(marginal, 2)


def excess_kurtosis(marginal: np.ndarray) -> float | None:
    """m₄/m₂² − 3 of a marginal `(n,)`; None where the variance is 0."""
    second = variance(marginal)
    return None if second == 0 else central_moment(marginal, 4) / second**2 - 3


def covariance(signal: Map) -> np.ndarray:
    """Covariance `(ndim, ndim)` in pixels²; diagonal for marginals."""
    sides = marginals(signal)
    result = np.diag([variance(side) for side in sides])
    if isinstance(signal, tuple):
        return result
    steps = [np.arange(len(side)) - mean(side) for side in sides]
    for a, b in itertools.combinations(range(signal.ndim), 2):
        plane = signal.sum(axis=tuple(c for c in range(signal.ndim) if c not in (a, b)))
        result[a, b] = result[b, a] = steps[a] @ plane @ steps[b] / plane.sum()
    return result


def peak(signal: Map) -> float:
    """The largest |map|."""
    return float(reduce(lambda a, b: a * b, (np.abs(f).max() for f in _factors(signal))))


def size(signal: Map, threshold: float = SIZE_THRESHOLD) -> float:
    """Side in pixels of the square with as many pixels as the map has above `threshold` × peak.

    count^(1/ndim) with count = #{|map| > threshold · max|map|}; 4.406 std for a Gaussian in 2-D.
    Source: L16, who compare with the centre value. On their maps the centre is the peak; on a
    skewed map, or one with a hole in the middle, the centre is lower and would let in pixels that
    matter little, so the peak is the reference. ValueError for a threshold outside (0, 1).
    """
    threshold = check_share("threshold", threshold)
    factors = [np.abs(factor) for factor in _factors(signal)]
    whole, floor = peak(signal), threshold * peak(signal)
    # Drops what is below the floor at the other axes' peak; the slack leaves ties to the count.
    kept = [f[f * (whole / f.max()) > floor * (1 - 1e-12)].ravel() for f in factors]
    *head, last = kept
    if head:
        check_pixels(math.prod(map(len, head)), "size")
        count = _count_products(reduce(np.multiply.outer, head).ravel(), np.sort(last), floor)
    else:
        count = int((last > floor).sum())
    return float(count ** (1 / len(_shape(signal))))


def _count_products(left: np.ndarray, right: np.ndarray, floor: float) -> int:
    """#{(i, j): left[i]·right[j] > floor} for non-negative `left` and sorted `right`.

    Bisects on the comparison itself: rounding is monotone, so ties fall as in the built map.
    """
    low = np.zeros(len(left), dtype=np.int64)
    high = np.full(len(left), len(right))
    for _ in range(len(right).bit_length()):
        middle = np.minimum((low + high) // 2, len(right) - 1)
        above = left * right[middle] > floor
        open_ = low < high
        high = np.where(open_ & above, middle, high)
        low = np.where(open_ & ~above, middle + 1, low)
    return int((len(right) - low).sum())


def mass_radius(signal: Map, share: float) -> float:
    """Radius in pixels of the smallest disc that holds `share` of the mass.

    A closed disc (segment, ball) about the centre of mass of |map|, which holds the pixels whose
    centres it holds. Marginals cost one sort over the smaller axes and some 60 sums over the
    largest. ValueError for a share outside (0, 1).
    """
    share = check_share("t", share)
    signal = _take(signal, _crop(signal, signal))
    discs = sorted((_distances(np.abs(f)) for f in _factors(signal)), key=lambda pair: len(pair[0]))
    far, far_mass = discs.pop() if len(discs) > 1 else (np.zeros(1), np.ones(1))
    check_pixels(math.prod(len(pair[0]) for pair in discs), "mass_radius")
    near = reduce(np.add.outer, (pair[0] for pair in discs)).ravel()
    near_mass = reduce(np.multiply.outer, (pair[1] for pair in discs)).ravel()
    order = np.argsort(near)
    near = near[order]
    held = np.concatenate([[0.0], np.cumsum(near_mass[order])])
    target = share * (1 - SHARE_TOLERANCE) * held[-1] * far_mass.sum()

    low, high = -1.0, float(near[-1] + far.max())
    while low < (middle := (low + high) / 2) < high:
        inside = np.searchsorted(near, middle - far, side="right")
        low, high = (low, middle) if far_mass @ held[inside] >= target else (middle, high)
    inside = np.searchsorted(near, high - far, side="right")
    # The bisection ends within one rounding of a pixel: give that pixel's distance.
    return math.sqrt(float((near[inside - 1] + far)[inside > 0].max()))


def _distances(factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared distance of every pixel from the centre of mass, and its mass, both flat."""
    steps = [(np.arange(len(side)) - mean(side)) ** 2 for side in marginals(factor)]
    return reduce(np.add.outer, steps).ravel(), factor.ravel()


def square_sides(signal: Map, center: Sequence[int], share: float) -> tuple[int, ...]:
    """Sides in pixels, one an axis, of the smallest square that holds `share` of the mass.

    It has side 2h + 1 about the pixel `center` and is cut at the map's edges to a rectangle.
    ValueError for a share outside (0, 1). Source: D22 (RepLKNet), without their script's logarithm.
    """
    share = check_share("t", share)
    curves, first = [], 0
    for factor in _factors(signal):
        own = center[first : first + factor.ndim]
        first += factor.ndim
        steps = [np.abs(np.arange(n) - c) for n, c in zip(factor.shape, own, strict=True)]
        rings = reduce(np.maximum.outer, steps).ravel()
        curves.append(np.cumsum(np.bincount(rings, weights=np.abs(factor).ravel())))
    longest = max(map(len, curves))
    held = math.prod(np.pad(c / c[-1], (0, longest - len(c)), constant_values=1.0) for c in curves)
    half = int(np.argmax(held >= share * (1 - SHARE_TOLERANCE)))
    spans = zip(_shape(signal), center, strict=True)
    return tuple(min(c + half, n - 1) - max(c - half, 0) + 1 for n, c in spans)


def total_variation(p: Map, q: Map) -> float:
    """½ Σ|p − q|; 0 to 1 for distributions."""
    return sum(float(np.abs(gap).sum()) for gap in _differences(p, q, _crop(p, q))) / 2


def kolmogorov(p: Map, q: Map) -> float:
    """max over pixels x of |P(≤ x) − Q(≤ x)|, with ≤ on every axis (lower orthants).

    Kolmogorov–Smirnov in 1-D; in more axes reversing one gives another distance.
    """
    below, other = (
        tuple(map(np.cumsum, s)) if isinstance(s, tuple) else reduce(np.cumsum, range(s.ndim), s)
        for s in (p, q)
    )
    return max(float(np.abs(gap).max()) for gap in _differences(below, other, _crop(p, q)))


def kullback_leibler(p: Map, q: Map, log_p: Map, log_q: Map) -> float:
    """Σ p·(log p − log q) in nats, ∞ where p has mass and q none.

    A tail may underflow in q while its log is known. ValueError where p or q is negative.
    """
    if any(v.min() < -1e-9 * np.abs(v).max() for v in (*_factors(p), *_factors(q))):
        raise ValueError("kind: 'kullback_leibler' takes maps that are nowhere negative")
    if all(isinstance(part, tuple) for part in (p, q, log_p, log_q)):
        return sum(map(_relative_entropy, p, log_p, log_q))
    return _relative_entropy(build(p), build(log_p, np.add), build(log_q, np.add))


def _relative_entropy(p: np.ndarray, log_p: np.ndarray, log_q: np.ndarray) -> float:
    held = p > 0
    return float((p[held] * (log_p[held] - log_q[held])).sum())


def _crop(p: Map, q: Map) -> tuple[slice, ...]:
    """The grid, or if it is large the window outside which neither map has mass above rounding."""
    window = []
    small = math.prod(_shape(p)) <= _CROP_ABOVE
    for a, b in zip(marginals(p), marginals(q), strict=True):
        both = np.abs(a) + np.abs(b)
        kept = np.flatnonzero(np.minimum(both.cumsum(), both[::-1].cumsum()[::-1]) > _TAIL)
        window.append(slice(None) if small else slice(int(kept[0]), int(kept[-1]) + 1))
    return tuple(window)


def _take(signal: Map, window: tuple[slice, ...]) -> Map:
    if not isinstance(signal, tuple):
        return signal[window]
    return tuple(side[part] for side, part in zip(signal, window, strict=True))


def _differences(p: Map, q: Map, window: tuple[slice, ...]) -> Iterator[np.ndarray]:
    """p − q on a window, in blocks along the first axis if both are outer products."""
    p, q = _take(p, window), _take(q, window)
    if not (isinstance(p, tuple) and isinstance(q, tuple)):
        yield build(p) - build(q)
        return
    pixels = math.prod(_shape(p))
    check_pixels(pixels, "distance")
    rows = max(1, len(p[0]) * 2**20 // pixels)
    for start in range(0, len(p[0]), rows):
        part = slice(start, start + rows)
        yield build((p[0][part], *p[1:])) - build((q[0][part], *q[1:]))


def union(*windows: tuple[tuple[int, ...], tuple[int, ...]]):
    """Offset and shape of the smallest window that covers all `(offset, shape)` given."""
    firsts = tuple(min(axis) for axis in zip(*(w[0] for w in windows), strict=True))
    ends = [max(axis) for axis in zip(*(map(sum, zip(*w)) for w in windows), strict=True)]
    return firsts, tuple(end - first for end, first in zip(ends, firsts, strict=True))


def pad(signal: Map, offset, first, shape, fill: float = 0.0) -> Map:
    """The map, whose first pixel has index `offset`, on the window `first`, `shape` around it."""
    axes = zip(offset, first, shape, _shape(signal), strict=True)
    gaps = [(o - f, f + total - o - n) for o, f, total, n in axes]
    parts = []
    for factor in _factors(signal):
        own, gaps = gaps[: factor.ndim], gaps[factor.ndim :]
        check_pixels(math.prod(n + sum(w) for n, w in zip(factor.shape, own)), "distance")
        parts.append(np.pad(factor, own, constant_values=fill))
    return tuple(parts) if isinstance(signal, tuple) else parts[0]


@dataclass(frozen=True, eq=False)
class GaussianFit:
    """The Gaussian with an ERF's mean and covariance, and how well it fits.

    `mean` and `std` in input pixels, `covariance` `(ndim, ndim)` in pixels². Discretised by the
    density at pixel centres, normalised over the plane, it keeps the variance (integrals over
    pixels would add 1/12). `peak_ratio` is the map's peak over the Gaussian's, `r_squared` the
    share of the map's variation over its own pixels that the Gaussian explains.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    covariance: np.ndarray
    total_variation: float = math.nan
    peak_ratio: float = math.nan
    r_squared: float = math.nan

    @property
    def ndim(self) -> int:
        return len(self.mean)

    @property
    def offset(self) -> tuple[int, ...]:
        """First pixel, per axis, of the window that holds all but 1e−18 of the mass."""
        return tuple(math.floor(m - _GAUSSIAN_REACH * s) for m, s in zip(self.mean, self.std))

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels, per axis, of that window."""
        ends = (math.ceil(m + _GAUSSIAN_REACH * s) for m, s in zip(self.mean, self.std))
        return tuple(end - first + 1 for end, first in zip(ends, self.offset))

    def windowed(self, first: tuple[int, ...], shape: tuple[int, ...], log: bool = False) -> Map:
        """The discretised Gaussian on a window: marginals if its axes are uncorrelated."""
        crossed = self.covariance - np.diag(np.diag(self.covariance))
        if (np.abs(crossed) <= 1e-12 * np.outer(self.std, self.std)).all():
            axes = zip(first, shape, self.mean, np.diag(self.covariance), strict=True)
            logs = tuple(_gaussian_log_marginal(*axis) for axis in axes)
            return logs if log else tuple(map(np.exp, logs))
        values = self._log_correlated(first, shape)
        return values if log else np.exp(values)

    def _log_correlated(self, first: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
        start, extent = union((first, shape), (self.offset, self.shape))
        check_pixels(math.prod(extent), "the Gaussian")
        spread, axes = np.linalg.eigh(self.covariance)
        if spread[0] <= 1e-12 * spread[-1]:
            raise ValueError("covariance: got a singular matrix, takes one with an inverse")
        steps = [np.arange(f, f + n) - m for f, n, m in zip(start, extent, self.mean)]
        grid = np.meshgrid(*steps, indexing="ij")
        along = (sum(a * g for a, g in zip(axis, grid)) for axis in axes.T)
        logs = -sum(x**2 / v for x, v in zip(along, spread)) / 2
        logs -= np.log(np.exp(logs).sum())
        return logs[tuple(slice(f - s, f - s + n) for f, s, n in zip(first, start, shape))]


def _gaussian_log_marginal(first: int, n: int, centre: float, spread: float) -> np.ndarray:
    """log of the discretised Gaussian with variance `spread` on n pixels from `first`."""
    steps = np.arange(first, first + n) - centre
    if spread == 0:
        return np.where(np.arange(first, first + n) == round(centre), 0.0, -np.inf)
    if spread >= _SMOOTH_VARIANCE:
        return -(steps**2) / (2 * spread) - math.log(2 * math.pi * spread) / 2
    lattice = -((np.arange(round(centre) - 40, round(centre) + 41) - centre) ** 2) / (2 * spread)
    top = lattice.max()
    return -(steps**2) / (2 * spread) - top - math.log(np.exp(lattice - top).sum())


def gaussian_fit(signal: Map, offset: tuple[int, ...], centre, spread: np.ndarray) -> GaussianFit:
    """The Gaussian of mean `centre`, covariance `spread`; ValueError for a negative variance."""
    variances = np.diag(spread)
    if not (variances >= 0).all():
        raise ValueError(f"variance: got {variances.tolist()}, a Gaussian takes one that is >= 0")
    fit = GaussianFit(tuple(centre), tuple(np.sqrt(variances).tolist()), spread)
    shape = _shape(signal)
    first, extent = union((offset, shape), (fit.offset, fit.shape))
    model = fit.windowed(first, extent)
    own = tuple(slice(o - f, o - f + n) for o, f, n in zip(offset, first, shape, strict=True))
    return replace(
        fit,
        total_variation=total_variation(pad(signal, offset, first, extent), model),
        peak_ratio=peak(signal) / peak(model),
        r_squared=_r_squared(signal, _take(model, own)),
    )


def _r_squared(signal: Map, model: Map) -> float:
    """1 − Σ(map − model)²/Σ(map − mean map)², by inner products, which factor over the axes."""
    if not (isinstance(signal, tuple) and isinstance(model, tuple)):
        signal, model = build(signal), build(model)
    left, right = _factors(signal), _factors(model)
    square, cross, other = (
        math.prod(float(np.vdot(x, y)) for x, y in zip(a, b, strict=True))
        for a, b in ((left, left), (left, right), (right, right))
    )
    residual = square - 2 * cross + other
    total = square - math.prod(float(f.sum()) for f in left) ** 2 / math.prod(_shape(signal))
    if total <= 1e-15 * square:
        return math.nan
    return 1 - max(residual, 0.0) / total
