"""Measures against closed forms, SciPy and loops over their definitions."""

import itertools
import math
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special, stats

from erftheory.erf import measures


def uniform(k, n):
    return reduce(np.convolve, [np.ones(k) / k] * n)


def arrays(shape):
    """Small integers, so that ties are frequent; never all zero."""
    return hnp.arrays(np.float64, shape, elements=st.integers(0, 8).map(float)).filter(np.any)


sides = hnp.array_shapes(min_dims=1, max_dims=1, max_side=7).flatmap(arrays)
marginals = st.lists(sides, min_size=1, max_size=3).map(tuple)
maps = hnp.array_shapes(min_dims=1, max_dims=3, max_side=6).flatmap(arrays)
shares = st.sampled_from([0.1, 0.25, 0.36, 0.5, 0.75, 0.9, 0.99])


@pytest.mark.parametrize(("k", "n"), [(2, 1), (2, 9), (3, 20), (5, 7), (7, 3)])
def test_moments_of_uniform_stacks(k, n):
    side = uniform(k, n)
    assert measures.mean(side) == pytest.approx(n * (k - 1) / 2, rel=1e-13)
    assert measures.variance(side) == pytest.approx(n * (k * k - 1) / 12, rel=1e-13)
    kurtosis = -6 * (k * k + 1) / (5 * n * (k * k - 1))
    assert measures.excess_kurtosis(side) == pytest.approx(kurtosis, rel=1e-9)


def test_binomial_variance_and_point():
    side = special.comb(40, np.arange(41)) / 2.0**40
    assert measures.variance(side) == pytest.approx(10, rel=1e-13)
    assert measures.excess_kurtosis(np.array([0.0, 1.0, 0.0])) is None


def test_covariance_of_a_correlated_map():
    values = np.random.default_rng(0).random((5, 4, 3))
    points = np.array(list(np.ndindex(values.shape)))
    wanted = np.cov(points.T, aweights=values.ravel(), ddof=0)
    assert measures.covariance(values) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("n", "variance", "magnitude"),
    [(5, 8.307, 10.440), (10, 11.705, 15.524), (20, 16.155, 22.738), (40, 22.738, 31.953)],
)
def test_sizes_of_3x3_stacks(n, variance, magnitude):
    pair = (uniform(3, n),) * 2
    assert measures.size(pair) == pytest.approx(variance, abs=6e-4)
    assert measures.size(measures.magnitude(pair)) == pytest.approx(magnitude, abs=6e-4)
    built = measures.magnitude(measures.build(pair))
    assert measures.build(measures.magnitude(pair)) == pytest.approx(built, rel=1e-12)


@given(marginals, shares)
def test_size_of_marginals_is_that_of_their_product(parts, threshold):
    values = measures.build(parts)
    count = sum(v > threshold * values.max() for v in values.ravel())
    assert measures.size(parts, threshold) == measures.size(values, threshold)
    assert measures.size(values, threshold) == pytest.approx(count ** (1 / values.ndim))


def disc_by_definition(values, share):
    points = list(np.ndindex(values.shape))
    weights = np.array([values[p] for p in points])
    centre = np.average(points, axis=0, weights=weights)
    radii = np.array([math.dist(p, centre) for p in points])
    for radius in sorted(radii):
        inside = weights[radii <= radius * (1 + 1e-12) + 1e-12].sum()
        if inside >= share * (1 - 1e-12) * weights.sum():
            return radius
    raise AssertionError


@given(maps, shares)
def test_mass_radius_by_definition(values, share):
    wanted = disc_by_definition(values, share)
    assert measures.mass_radius(values, share) == pytest.approx(wanted, rel=1e-9, abs=1e-7)


def test_mass_radius_of_marginals():
    # Irregular masses: no two radii or cumulated shares coincide.
    rng = np.random.default_rng(1)
    for lengths in ([9], [5, 8], [4, 6, 5]):
        parts = tuple(rng.random(n) for n in lengths)
        for share in (0.1, 0.5, 0.9, 0.999):
            wanted = disc_by_definition(measures.build(parts), share)
            assert measures.mass_radius(parts, share) == pytest.approx(wanted, rel=1e-12)


def test_mass_radius_of_a_wide_gaussian():
    side = np.exp(-((np.arange(60_001) - 30_000.0) ** 2) / 2 / 141.0**2)
    wanted = 141.0 * math.sqrt(stats.chi2(2).ppf(0.9545))
    assert measures.mass_radius((side, side), 0.9545) == pytest.approx(wanted, abs=0.05)


@given(maps, shares, st.data())
def test_square_sides_by_definition(values, share, data):
    center = [data.draw(st.integers(0, n - 1)) for n in values.shape]
    for half in itertools.count():
        square = values[tuple(slice(max(c - half, 0), c + half + 1) for c in center)]
        if square.sum() >= share * (1 - 1e-12) * values.sum():
            break
    assert measures.square_sides(values, center, share) == square.shape


@given(marginals, shares)
def test_square_sides_of_marginals(parts, share):
    center = [len(side) // 2 for side in parts]
    built = measures.square_sides(measures.build(parts), center, share)
    assert measures.square_sides(parts, center, share) == built


def test_distances_against_scipy():
    p, q = stats.binom(12, 0.4).pmf(range(13)), stats.binom(12, 0.5).pmf(range(13))
    x = np.arange(13)
    cdfs = stats.binom(12, 0.4).cdf(x) - stats.binom(12, 0.5).cdf(x)
    assert measures.kolmogorov(p, q) == pytest.approx(np.abs(cdfs).max(), rel=1e-12)
    entropy = measures.kullback_leibler(p, q, np.log(p), np.log(q))
    assert entropy == pytest.approx(stats.entropy(p, q), rel=1e-12)
    assert measures.total_variation(p, q) == pytest.approx(np.maximum(p - q, 0).sum(), rel=1e-12)


@pytest.mark.parametrize("crop_above", [0, 10**9])
def test_distances_of_products_are_those_of_the_maps(crop_above, monkeypatch):
    deep = (uniform(3, 30),) * 2, (np.pad(uniform(3, 29), 1), uniform(3, 30))
    both = (measures.total_variation, measures.kolmogorov)
    wholes = [(distance, distance(*map(measures.build, deep))) for distance in both]
    monkeypatch.setattr(measures, "_CROP_ABOVE", crop_above)
    p = tuple(np.pad(uniform(3, n), 7 - n) for n in (3, 5, 4))
    q = tuple(np.pad(uniform(3, n), 7 - n) for n in (4, 4, 6))
    dense = measures.build(p), measures.build(q)
    for distance in both:
        assert distance(p, q) == pytest.approx(distance(*dense), rel=1e-12)
    for distance, whole in wholes:
        assert distance(*deep) == pytest.approx(whole, rel=1e-12)
    with np.errstate(divide="ignore"):
        logs = [tuple(np.log(side) for side in sides) for sides in (p, q)]
        full = [np.log(values) for values in dense]
    product = measures.kullback_leibler(q, q, logs[1], logs[1])
    assert product == measures.kullback_leibler(dense[1], dense[1], full[1], full[1]) == 0
    assert measures.kullback_leibler(p, q, *logs) == math.inf


@settings(deadline=None)
@given(st.floats(0.3, 6), st.floats(-3, 3))
def test_discrete_gaussian_is_normalised(std, mean):
    fit = measures.GaussianFit((mean,), (std,), np.array([[std**2]]))
    (side,) = fit.windowed((-80,), (161,))
    assert side.sum() == pytest.approx(1, abs=1e-13)
    if std > 1.5:
        assert measures.variance(side) == pytest.approx(std**2, rel=1e-12)


def test_correlated_gaussian_against_scipy():
    spread = np.array([[9.0, 4.0], [4.0, 6.0]])
    fit = measures.GaussianFit((0.5, -1.0), (3.0, math.sqrt(6)), spread)
    values = fit.windowed((-5, -4), (9, 8))
    grid = np.stack(np.mgrid[-5:4, -4:4], axis=-1)
    wanted = stats.multivariate_normal([0.5, -1.0], spread).pdf(grid)
    assert values == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("bad", [0, 1, -0.5, math.nan, "half", None])
def test_shares_outside_the_unit_interval(bad):
    for call in (measures.size, measures.mass_radius):
        with pytest.raises(ValueError, match="takes a number strictly between 0 and 1"):
            call(np.ones(3), bad)


def test_refusals():
    with pytest.raises(ValueError, match="nowhere negative"):
        measures.magnitude(np.array([1.0, -1.0]))
    with pytest.raises(ValueError, match="at most"):
        measures.build((np.ones(60_000),) * 2)
    negative = np.array([1.5, -0.5])
    with pytest.raises(ValueError, match="kullback_leibler"):
        measures.kullback_leibler(negative, negative, negative, negative)
