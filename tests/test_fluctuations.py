"""Second moments of one net's gradient power, against enumerated nets, closed forms and samples."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from erftheory import Activation, AvgPool, Chain, Conv, Residual, exact, receptive_field
from erftheory.empirical import apply, initialise
from erftheory.laws import Context, Engines, select
from erftheory.laws.fluctuations import _hall_test
from erftheory.theory.fluctuations import power as fluctuations
from erftheory.theory.fluctuations.chains import extent, read_chain
from erftheory.theory.fluctuations.mean_field import four_places, gate_moments, two_walks
from erftheory.theory.fluctuations.power import power_fluctuation, shape_fluctuation


def stack(depth: int, kernel: int = 3, ndim: int = 1, act: str | None = None):
    if depth == 1:
        return Chain(Conv(kernel), ndim=ndim)
    layers = [Conv(kernel)] if act is None else [Conv(kernel), Activation(act)]
    return Chain(Chain(*layers, ndim=ndim) * (depth - 1), Conv(kernel))


# Weights of three values carry the first five moments of a law: E w = E w³ = 0, E w² = 1, E w⁴.
FOURTH = {"rademacher": 1.0, "uniform": 9 / 5, "gaussian": 3.0}


def three_points(weights: str) -> tuple[np.ndarray, np.ndarray]:
    fourth = FOURTH[weights]
    if fourth == 1:
        return np.array([-1.0, 1.0]), np.array([0.5, 0.5])
    side = math.sqrt(fourth)
    return np.array([-side, 0.0, side]), np.array([0.5, fourth - 1, 0.5]) / [
        fourth, fourth, fourth,
    ]  # fmt: skip


def enumerated(network, channels: int, weights: str) -> tuple[np.ndarray, np.ndarray]:
    """g² of every net of three-valued weights, executed and differentiated, and its probability.

    The network must use padding="valid", so that an input of its receptive field has one output.
    """
    values, chances = three_points(weights)
    size = receptive_field(network).size
    with jax.enable_x64(True):
        params = initialise(network, jax.random.key(0), channels, "rademacher", dtype=jnp.float64)
        leaves, tree = jax.tree.flatten(jax.tree.map(jnp.abs, params.weights))
        bounds = np.cumsum([leaf.size for leaf in leaves])
        index = np.array(list(product(range(len(values)), repeat=int(bounds[-1]))))

        def gradient(drawn):
            parts = jnp.split(drawn, bounds[:-1])
            made = tree.unflatten([a * p.reshape(a.shape) for a, p in zip(leaves, parts)])
            net = replace(params, weights=made)
            return jax.grad(lambda x: apply(network, net, x).sum())(jnp.zeros((1, *size)))[0]

        nets = jax.jit(jax.vmap(gradient))(jnp.asarray(values[index]))
        return np.asarray(nets, np.float64) ** 2, chances[index].prod(1)


V = {"padding": "valid"}
ENUMERATED = [
    pytest.param(Chain(Conv(3, **V), ndim=1) * 3, 1, "rademacher", id="stack"),
    pytest.param(Chain(Conv(2, **V), ndim=1) * 3, 1, "gaussian", id="gaussian"),
    pytest.param(Chain(Conv(2, **V), ndim=1) * 3, 1, "uniform", id="uniform"),
    pytest.param(Chain(Conv(2, **V), ndim=1) * 2, 2, "gaussian", id="two channels"),
    pytest.param(Chain(Conv(2, **V), ndim=1) * 2, 2, "uniform", id="two channels, uniform"),
    pytest.param(
        Chain(Conv(2, **V), Conv(2, dilation=2, **V), Conv(1), ndim=1), 2, "rademacher",
        id="three layers, dilated",
    ),
    pytest.param(
        Chain(Conv(3, stride=2, **V), Conv(2, channels=3, **V), ndim=1), 2, "rademacher",
        id="strided, three output channels",
    ),
    pytest.param(
        Chain(Conv(3, taps=[1, 2, 5], **V), Activation("linear"), Conv(3, taps=[1, 0, 1], **V),
              ndim=1), 1, "gaussian", id="taps",
    ),
    pytest.param(Chain(Conv(2, **V), ndim=2) * 2, 1, "gaussian", id="2-D"),
    pytest.param(
        Chain(Conv(2, taps=[[1, 2], [3, 1]], **V), Conv((2, 3), **V)), 1, "rademacher",
        id="2-D, not separable",
    ),
]  # fmt: skip


@pytest.mark.parametrize("network, channels, weights", ENUMERATED)
def test_exact_moments_equal_those_of_all_nets(network, channels, weights):
    squares, chance = enumerated(network, channels, weights)
    power = squares.reshape(len(squares), -1).sum(1)
    mean = chance @ power
    allowed = max(1e-12, 2.3e-16 * len(power))  # rounding of a sum over all nets
    found = power_fluctuation(network, channels, weights)
    assert found.method == "exact"
    assert found.relative_variance == pytest.approx(chance @ power**2 / mean**2 - 1, abs=allowed)
    for axis in range(network.ndim):
        side = squares.sum(tuple(a + 1 for a in range(network.ndim) if a != axis))
        t = np.arange(side.shape[1])
        share = chance @ side / mean
        centre = share @ t
        variance = share @ (t - centre) ** 2
        shape = shape_fluctuation(network, channels, weights, axis)
        error = side @ ((t - centre) ** 2 - variance) / mean
        assert shape.variance == pytest.approx(variance, abs=allowed)
        assert shape.spread**2 == pytest.approx(chance @ error**2, abs=10 * allowed)
        assert shape.centre**2 == pytest.approx(chance @ (side @ (t - centre) / mean) ** 2,
                                                abs=allowed)  # fmt: skip
        assert shape.power == found


@pytest.mark.parametrize("depth", [1, 2, 7, 40])
@pytest.mark.parametrize("channels", [1, 5])
def test_linear_nets_without_space_are_products_of_chi_squares(depth, channels):
    # Hanin & Nica 2018: each inner layer multiplies by χ²_c/c, the last by χ²_1
    found = power_fluctuation(stack(depth, 1), channels).log_second_moment
    assert found == pytest.approx((depth - 1) * math.log1p(2 / channels) + math.log(3))


@pytest.mark.parametrize("ndim", [1, 2])
@pytest.mark.parametrize("depth, channels", [(2, 3), (9, 1), (30, 16)])
def test_relu_nets_without_space_have_five_over_width(ndim, depth, channels):
    # E (2 b z²)² = 6 of a gate b and a normal z: 1 + 5/c a layer; the input's layer has no gate
    network = stack(depth, 1, ndim, "relu")
    found = power_fluctuation(network, channels)
    assert found.method == ("mean field" if ndim == 1 else "walks and detours")
    expected = (depth - 1) * math.log1p(5 / channels) + math.log(3)
    assert found.log_second_moment == pytest.approx(expected)
    gated = power_fluctuation(Chain(network, Activation("relu")), channels)
    assert gated.log_second_moment == pytest.approx(expected + math.log(2))


@pytest.mark.parametrize("rho", [0.0, 0.2, 1 / math.pi, 0.9, 0.9999, 1.0])
def test_gate_moments_are_orthant_probabilities(rho):
    found = gate_moments(rho)
    if rho in (0.0, 1.0):
        expected = [0.5**m if rho == 0 else 0.5 for m in range(1, 5)]
        assert found == pytest.approx(expected, abs=1e-12)
        return
    for m, value in enumerate(found, start=1):
        cov = np.full((m, m), rho) + (1 - rho) * np.eye(m)
        law = multivariate_normal(np.zeros(m), cov, seed=1, abseps=1e-7, releps=1e-7)
        assert value == pytest.approx(law.cdf(np.zeros(m)), abs=3e-5 if m == 4 else 1e-6)


def gated_nets(kernel: int, channels: int, depth: int) -> float:
    """E[m₀²]/E[m₀]² of the mean-field model by its definition: all weights, all gates.

    Gates of depth 1 are fair and independent, gates of depth 2 have correlation 1/π.
    """
    values, chances = three_points("gaussian")
    widths = [1, *[channels] * (depth - 1), 1]
    shapes = [(o, i, kernel) for i, o in pairwise(widths)]
    bounds = np.cumsum([math.prod(s) for s in shapes])
    index = np.array(list(product(range(3), repeat=int(bounds[-1]))))
    parts = np.split(values[index], bounds[:-1], axis=1)
    filters = [p.reshape(-1, *s) for p, s in zip(parts, shapes)]
    weight = chances[index].prod(1)
    # gates of each layer below the output, at the pixels its gradient reaches
    pixels = [(depth - layer) * (kernel - 1) + 1 for layer in range(1, depth)]
    rho = [0.0, 1 / math.pi][: depth - 1]
    count = [channels * n for n in pixels]
    first, second = 0.0, 0.0
    for setting in product((0, 1), repeat=sum(count)):
        gates, chance, start = [], 1.0, 0
        for r, n, c in zip(rho, pixels, count):
            gate = np.array(setting[start : start + c]).reshape(channels, n)
            start += c
            gates.append(gate)
            for row in gate:
                chance *= orthant(tuple(row), r)
        g = np.ones((len(index), 1, 1))
        for layer in range(depth, 0, -1):
            if layer < depth:
                g = g * gates[layer - 1]
            longer = np.zeros((len(index), widths[layer - 1], g.shape[2] + kernel - 1))
            for a in range(kernel):
                longer[:, :, a : a + g.shape[2]] += np.einsum(
                    "noi,not->nit", filters[layer - 1][..., a], g
                )
            g = longer
        power = (g**2).sum((1, 2))
        first += chance * (weight @ power)
        second += chance * (weight @ power**2)
    return second / first**2


def orthant(signs: tuple[int, ...], rho: float) -> float:
    """Probability of these signs of standard normals of correlation ρ; for ρ > 0 at most two."""
    if rho == 0:
        return 0.5 ** len(signs)
    assert len(signs) == 2
    both = 1 / 4 + math.asin(rho) / (2 * math.pi)
    return both if signs[0] == signs[1] else 1 / 2 - both


@pytest.mark.parametrize("kernel, channels, depth", [(3, 1, 2), (2, 2, 2), (2, 1, 3)])
def test_mean_field_equals_all_weights_and_gates(kernel, channels, depth):
    found = power_fluctuation(stack(depth, kernel, act="relu"), channels)
    assert found.method == "mean field"
    assert math.exp(found.log_second_moment) == pytest.approx(gated_nets(kernel, channels, depth))


def test_mean_field_without_gates_is_the_exact_chain():
    network = Chain(Conv(3, dilation=2), Conv(2, stride=2), Conv(3, taps=[1, 4, 1]), ndim=1)
    for channels, weights, kappa in ((1, "gaussian", 0.0), (3, "uniform", -1.2)):
        layers = read_chain(network, channels)
        assert extent(layers) == receptive_field(network).size
        found = power_fluctuation(network, channels, weights).log_second_moment
        assert four_places(layers, kappa) == pytest.approx(found, rel=1e-12)


@pytest.mark.parametrize("ndim", [1, 2])
def test_two_walks_are_the_mean_reward_of_all_pairs_of_paths(ndim):
    depth, channels = 3, 4
    network = stack(depth, 2, ndim, "relu")
    taps = list(product(range(2), repeat=ndim))
    rho = [0.0, 1 / math.pi]  # of the gates of layers 1 and 2
    total = 0.0
    for steps in product(product(taps, repeat=2), repeat=depth):
        reward, apart = 1.0, np.zeros(ndim, int)
        for layer, (a, b) in zip(range(depth, 0, -1), steps):
            apart = apart + np.array(a) - np.array(b)
            width = channels if layer > 1 else 1
            if not apart.any():
                reward *= 1 + (5 if layer > 1 else 2) / width
            elif layer > 1:
                reward *= 1 + 2 / math.pi * math.asin(rho[layer - 2]) / width
        total += reward
    layers = read_chain(network, channels)
    expected = total / len(taps) ** (2 * depth)
    assert math.exp(two_walks(layers, 0.0)) == pytest.approx(expected)


def test_walks_and_detours_are_exact_where_gates_see_one_pixel():
    # a window read first: (1 + 5/c) of a gated layer, 1 + 2/taps of the window
    network = Chain(Conv(5), Activation("relu"), Conv(1), Activation("relu"), Conv(1), ndim=2)
    found = power_fluctuation(network, 6)
    assert found.method == "walks and detours"
    assert found.relative_variance == pytest.approx((1 + 5 / 6) ** 2 * (1 + 2 / 25) - 1)


@pytest.mark.parametrize(
    "ndim, depth, method",
    [(1, 50, "mean field"), (1, 51, "walks and detours"), (2, 89, "walks and detours"),
     (2, 90, "two walks")],
)  # fmt: skip
def test_method_goes_by_the_receptive_field(ndim, depth, method, monkeypatch):
    for name in ("four_places", "_exact"):  # which method, not its minutes
        monkeypatch.setattr(fluctuations, name, lambda layers, kappa: 1.0)
    found = power_fluctuation(stack(depth, 3, ndim, "relu"))
    assert found.method == method
    assert found.log_second_moment > 0


def test_wide_nets_fluctuate_by_their_input_layer_alone():
    """There one channel is left, and two walks that meet at its pixels count twice."""
    walk = np.ones(1)
    for _ in range(9):
        walk = np.convolve(walk, np.full(3, 1 / 3))
    found = [power_fluctuation(stack(9), c).relative_variance for c in (10**4, 10**6)]
    floor = 2 * float(walk @ walk)
    # what is left falls like 1/width
    assert found[0] - floor == pytest.approx(100 * (found[1] - floor), rel=1e-3)
    assert 0 < found[1] - floor < 1e-5


def test_effective_samples_follow_from_the_moments():
    found = power_fluctuation(stack(4), 8)
    assert found.effective(1000) == pytest.approx(1000 / (1 + found.relative_variance))
    assert found.nets_for(0.01) == pytest.approx(found.relative_variance * 1e4)
    shape = shape_fluctuation(stack(4), 8)
    assert shape.variance == pytest.approx(8 / 3)
    assert shape.std_stderr(shape.nets_for(0.01)) == pytest.approx(0.01 * math.sqrt(8 / 3))
    assert shape.variance == pytest.approx(exact(stack(4)).std[0] ** 2)


def test_deep_narrow_chains_do_not_overflow():
    found = power_fluctuation(stack(600), 1)
    # at u = v = 0 alone every layer triples
    assert 600 * math.log(3) - 2 * math.log(1201) < found.log_second_moment < 600 * math.log(3)
    assert found.relative_variance > 1e250 or found.relative_variance == math.inf
    assert 0 <= found.effective(10) < 1e-200


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: power_fluctuation(Chain(Conv(3), AvgPool(2))), "network: got the layer AvgPool"),
        (lambda: power_fluctuation(Chain(Conv(4, groups=2, channels=4))), "network: got the layer"),
        (lambda: power_fluctuation(Residual(Conv(3))), "network: got branches"),
        (lambda: power_fluctuation(Chain(Activation("relu"), Conv(3))), "network: got a ReLU"),
        (lambda: power_fluctuation(Chain(Activation("linear"))), "network: got no convolution"),
        (lambda: power_fluctuation(Chain(Conv((3,), taps=[1, -1, 1]))), "taps: got a negative tap"),
        (lambda: power_fluctuation(Conv(3), 0), "channels: got 0"),
        (lambda: power_fluctuation(Conv(3), weights="cauchy"), "weights: got 'cauchy'"),
        (lambda: power_fluctuation(stack(200, ndim=2)), "network: got a receptive field of"),
        (lambda: shape_fluctuation(stack(3, act="relu")), "network: got a ReLU"),
        (lambda: shape_fluctuation(stack(3), axis=1), "axis: got 1"),
        (lambda: power_fluctuation(stack(3)).nets_for(0), "precision: got 0"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(call, message):
    with pytest.raises(ValueError) as raised:
        call()
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)
    assert "takes" in str(raised.value)


# The law


@pytest.fixture(scope="module")
def engines() -> Engines:
    return Engines.load()


def check(engines: Engines, **options):
    return select("FLU-1")[0].run(Context(engines, **options))


@pytest.mark.parametrize("depth, kernel", [(1, 3), (12, 4), (3, 1)])
def test_law_holds(engines, depth, kernel):
    verdict = check(engines, depth=depth, kernel=kernel)
    assert verdict.holds, (verdict.error, [e for e in verdict.evidence if not e.holds])
    assert {"enumeration", "fluctuations", "sampled"} <= set(verdict.routes)
    assert all(e.route != e.against for e in verdict.evidence)


def failed(verdict) -> set[str]:
    return {e.route for e in verdict.evidence if not e.holds}


def test_law_fails_if_nets_fluctuate_more(engines):
    """Powers times 0.6 or 1.4 keep their mean; their variance grows by 0.16 (1 + variance)."""

    def gradients(*arguments, **options):
        rng = np.random.default_rng(0)
        for block in engines.gradients(*arguments, **options):
            factor = rng.choice(np.sqrt([0.6, 1.4]), len(block))
            yield np.asarray(block) * factor.reshape(-1, *[1] * (np.ndim(block) - 1))

    verdict = check(replace(engines, gradients=gradients), depth=3)
    assert [e.holds for e in verdict.evidence if e.route == "sampled"] == [False, False]
    assert failed(verdict) == {"sampled"}


def test_law_fails_without_the_fourth_cumulant(engines, monkeypatch):
    monkeypatch.setitem(fluctuations.CUMULANTS, "rademacher", 0.0)
    verdict = check(engines, depth=3, samples=500)
    assert failed(verdict) == {"fluctuations"}


def test_law_fails_if_gates_count_less(engines, monkeypatch):
    """Gates taken for linear ones: 2/c a layer in place of 5/c."""
    plain = fluctuations.read_chain

    def ungated(network, channels):
        return [replace(layer, gate=None) for layer in plain(network, channels)]

    monkeypatch.setattr(fluctuations, "read_chain", ungated)
    verdict = check(engines, depth=3, samples=500)
    assert failed(verdict) == {"fluctuations"}


def test_hall_test_is_calibrated_for_skewed_values():
    """2000 means of 400 exponentials (skewness 2): p < 0.05 by chance in 100 ± 44, at 4.5 sigma."""
    values = np.random.default_rng(7).exponential(size=(2000, 400))
    low = sum(_hall_test(row, 1.0) < 0.05 for row in values)
    assert abs(low - 100) < 4.5 * math.sqrt(2000 * 0.05 * 0.95)
    assert _hall_test(values[0], 1.5) < 1e-6
    assert math.isnan(_hall_test(np.ones(9), 1.0))
