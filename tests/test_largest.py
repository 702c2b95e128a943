"""Max pooling in mean field: order statistics, open gates, and sampled nets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from erftheory import (
    Activation,
    Branches,
    Chain,
    Conv,
    ConvTranspose,
    MaxPool,
    exact,
    sample,
)
from erftheory.network.activations import CURVES
from erftheory.theory.gains.forward import meanfield_gains
from erftheory.theory.units import law as dist
from erftheory.theory.units.conditioned import behind
from erftheory.theory.units.max_pool import maximum, opened
from erftheory.theory.walk.links import transfer

RELU = Activation("relu")


def law_behind(name: str, rho: float, variance: float = 1.0):
    law = dist.gaussian(variance, rho * variance)
    out, _ = dist.activated(law, name)
    return behind(law, name, out)


def drawn(name: str, rho: float, count: int, seed: int = 0):
    """Largest activations, and φ′² there over φ′² everywhere: 400,000 windows."""
    rng = np.random.default_rng(seed)
    h = math.sqrt(rho) * rng.normal(size=(400_000, 1))
    h = h + math.sqrt(1 - rho) * rng.normal(size=(400_000, count))
    function, slope = CURVES[name], CURVES[name].slope
    values = function(h)
    at = values.argmax(1)[:, None]
    squares = slope(h) ** 2
    return values.max(1), np.take_along_axis(squares, at, 1)[:, 0], squares.mean()


def test_the_largest_of_four_halves_of_a_normal():
    top = maximum(law_behind("relu", 0.0), 4)

    def moment(k):
        def density(x):
            return x**k * 4 * stats.norm.cdf(x) ** 3 * stats.norm.pdf(x)

        return integrate.quad(density, 0, 10)[0]

    assert top.mean == pytest.approx(moment(1), rel=1e-9)
    assert top.second == pytest.approx(moment(2), rel=1e-9)
    assert opened(law_behind("relu", 0.0), 4) == pytest.approx(15 / 8, rel=1e-9)


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.8, 0.98, 1.0])
@pytest.mark.parametrize("name", ["relu", "leaky_relu", "tanh", "sigmoid", "gelu", "silu", "abs"])
def test_gates_and_moments_against_draws(name, rho):
    law = law_behind(name, rho)
    values, squares, base = drawn(name, rho, 4)
    error = 5 * squares.std() / base / math.sqrt(len(squares)) + 1e-3
    assert opened(law, 4) == pytest.approx(squares.mean() / base, abs=error)
    if name not in ("gelu", "silu", "abs"):  # these fall somewhere, and keep the coarser law
        top = maximum(law, 4)
        for found, wanted in ((top.mean, values), (top.second, values**2)):
            assert found == pytest.approx(
                wanted.mean(), abs=5 * wanted.std() / math.sqrt(len(wanted)) + 1e-9
            )


def test_equal_pixels_and_windows_of_one_gain_nothing():
    assert opened(law_behind("relu", 1.0), 9) == pytest.approx(1, rel=1e-12)
    assert opened(law_behind("relu", 0.5), 1) == 1
    assert opened(dist.STANDARD, 4) == 1  # no gate below
    # 2 P(largest of n is positive) grows with n
    grown = [opened(law_behind("relu", 0.5), n) for n in (2, 4, 9, 25)]
    assert grown == sorted(grown) and grown[-1] < 2


def test_a_sum_in_front_of_the_activation_keeps_the_factor_between_its_limits():
    law = dist.add(law_behind("relu", 0.2), dist.gaussian(1.0, 0.2))
    out, _ = dist.activated(law, "relu")
    factor = opened(behind(law, "relu", out), 4)
    assert 1 < factor < 1 / float(dist.gate(law, "relu"))


def test_the_pooled_branch_carries_the_gates():
    """conv, ReLU, pool 2×2: of a window's four gates the largest unit's is open 15/16."""
    net = Chain(Conv(3, channels=64), RELU, MaxPool(2))
    power = transfer(net.graph, meanfield_gains(net.graph))
    bare = transfer(net.graph, meanfield_gains(Chain(Conv(3, channels=64), RELU).graph), 0, 2)
    assert float(power) == pytest.approx(15 / 8 * float(bare), rel=1e-9)


def test_a_sampled_net_has_the_predicted_width():
    net = Chain(
        Conv(3), RELU,
        Branches(None, Chain(MaxPool(4), Conv(3), RELU, ConvTranspose(4, 4)), merge="concat"),
        Conv(3), ndim=1,
    )  # fmt: skip
    predicted = exact(net).std[0]
    found = sample(net, 1, 3000, channels=64, progress=False)
    # five standard errors: one false alarm in a million; and 1 % for what 64 channels change
    assert predicted == pytest.approx(found.std[0], abs=5 * found.std_stderr[0] + 0.01 * predicted)
    # with gates as open as elsewhere it would be 14 % narrower
    assert 5 * found.std_stderr[0] < 0.06 * predicted
