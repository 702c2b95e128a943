"""Where laws fail: every condition says so, and what it says is true of the numbers."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from erftheory import (
    AvgPool,
    Chain,
    Conv,
    Dropout,
    MaxPool,
    Residual,
    conditions,
    counting,
    exact,
    moments,
    receptive_field,
    zoo,
)


def failing(network, **options) -> set[str]:
    return {c.name for c in conditions(network, **options) if not c.holds}


def test_a_plain_stack_fulfils_all():
    found = conditions(Conv(3) * 8)
    assert found and all(c.statement and c.laws for c in found)
    assert "holds" in str(found) and "FAILS" not in str(found)


@pytest.mark.parametrize(
    ("network", "names"),
    [
        (Chain(Conv(1)) * 3, {"the ERF has a width"}),
        (Chain(Conv(3, taps=(0, 1, 0)), ndim=1) * 3, {"the ERF has a width"}),
        (Chain(Conv(3, dilation=2), Conv(3, dilation=4)), {"lattice span 1"}),
        (Chain(Conv(5, taps=(1, 0, 1, 0, 1)), ndim=1) * 4, {"lattice span 1"}),
        (Chain(Residual(Conv(3, dilation=3)), ndim=1) * 4,
         {"lattice span 1", "gates are exact at any width"}),
        (Chain(Conv((3, 5))) * 4, {"axes are alike"}),
        (Chain(Conv(2), ndim=1) * 16, {"the ERF is centred"}),
        (Chain(Conv(3, taps=(1, 2, 6)), ndim=1) * 4, {"the ERF is centred"}),
        (Chain(Conv(3), AvgPool(2), Conv(3), MaxPool(2)),
         {"gates are exact at any width"}),
    ],
    ids=["1x1", "one tap", "dilated", "zero taps", "dilated residual", "anisotropic", "even",
         "skewed", "pools"],
)  # fmt: skip
def test_what_fails_is_named(network, names):
    assert failing(network) == names
    assert not conditions(network)


@pytest.mark.parametrize("taps", [(1, -2, 1), (1, -3, 1), (1, 0, -1)])
def test_signed_taps_are_no_distribution(taps):
    net = Chain(Conv(3, taps=taps), ndim=1) * 4
    for signal in ("variance", "gradient"):
        assert failing(net, signal=signal) == {"weights are probabilities"}
    weights = np.array(counting(net).marginal(0))
    assert (weights < 0).any()
    if sum(taps) == 0:
        with pytest.raises(ValueError, match="taps: got signed taps whose signal cancels"):
            exact(net, "gradient")
        with pytest.raises(ValueError, match="taps: got a gradient signal of mass 0"):
            moments(net, "gradient")
    else:
        erf = exact(net, "gradient")
        truth = weights / weights.sum()
        assert np.abs(erf.map - truth).sum() <= erf.error.value
        assert math.isnan(erf.std[0]) == (moments(net, "gradient").variance[0] < 0)


def test_the_error_of_signed_taps_grows_as_they_cancel():
    bounds = []
    for depth in (4, 8, 12):
        net = Chain(Conv(3, taps=(1, -3, 1)), ndim=1) * depth
        erf = exact(net, "gradient")
        weights = np.array(counting(net).marginal(0), dtype=float)
        assert np.abs(erf.map - weights / weights.sum()).sum() <= erf.error.value
        bounds.append(erf.error.value)
    assert bounds[0] < bounds[1] / 100 < bounds[2] / 1e4


def test_nets_without_width_are_one_pixel():
    for net in (Chain(Conv(1)) * 5, Chain(Conv(3, taps=(0, 1, 0)), ndim=1) * 5):
        erf = exact(net)
        assert set(erf.std) == {0.0} and erf.excess_kurtosis == (None,) * net.ndim
        assert erf.size() == 1 and erf.mass_radius(0.9) == 0
        assert (erf.map == (erf.map.max() == 1) * erf.map).all() and erf.map.max() == 1


def test_the_lattice_of_a_dilated_net_is_where_weight_is():
    net = Chain(Conv(3, dilation=4), Conv(3, dilation=6), ndim=1) * 5
    found = conditions(net)["lattice span 1"]
    assert not found.holds and "lattice of 2 px" in found.statement
    weights = np.array(counting(net).marginal(0), dtype=float)
    assert weights[1::2].sum() == 0 and weights[::2].sum() > 0


def test_drift_of_even_kernels_is_half_a_pixel_a_layer():
    for depth in (2, 16, 300):
        net = Chain(Conv(4), ndim=1) * depth
        assert float(moments(net).mean[0]) == receptive_field(net).center[0] == depth / 2
        past = depth / 2 > max(1, moments(net).std[0])
        assert ("the ERF is centred" in failing(net)) == past


def test_conditions_render_and_index():
    found = conditions(zoo.resnet18())
    assert "<table>" in found._repr_html_()
    assert found["axes are alike"].holds
    with pytest.raises(KeyError, match="no condition 'speed'"):
        found["speed"]
    with pytest.raises(ValueError, match="signal: got 'power'"):
        conditions(Conv(3), signal="power")


@pytest.mark.parametrize("image", [None, 15])
@pytest.mark.parametrize("rate", [0.25, 0.5])
def test_dropout_between_fixed_layers_keeps_its_masks_apart(rate, image):
    """(f * h)² of the mean gradient and rate / (1 - rate) f² * h² of the masks."""
    pool, ones = AvgPool(3, stride=1), np.ones(3)
    power = np.convolve(ones, ones) ** 2 + rate / (1 - rate) * np.convolve(ones, ones)
    wanted = np.convolve(power, ones)
    erf = exact(Chain(Conv(3), pool, Dropout(rate), pool, ndim=1), image=image)
    assert erf.error.kind == "relative"
    assert erf.map[erf.map > 0] == pytest.approx(wanted / wanted.sum(), rel=1e-12)


def test_dropout_beside_other_layers_changes_nothing():
    pool = AvgPool(3, stride=1)
    plain = moments(Chain(Conv(3), pool, pool, ndim=1))
    for net in (
        Chain(Conv(3), pool, Dropout(0), pool, ndim=1),  # drops nothing
        Chain(Conv(3), Dropout(0.5), pool, pool, ndim=1),  # next to a random layer
        Chain(Conv(3), pool, pool, Dropout(0.5), ndim=1),
    ):
        assert moments(net) == plain


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("image", [None, 9])
def test_dropout_weakens_what_neighbouring_gradients_share(last, image):
    """Two pools, a convolution and a dropout between, over all nets of signs and all masks."""
    pool = AvgPool(3, stride=1)
    middle = (Conv(3), Dropout(0.5)) if last else (Dropout(0.5), Conv(3))
    total = np.zeros(7)
    for weights in product((-1, 1), repeat=3):
        for masks in product((0, 2), repeat=3 if last else 5):
            g = np.ones(3)
            g = np.convolve(g * masks, weights) if last else np.convolve(g, weights) * masks
            total += np.convolve(g, np.ones(3)) ** 2
    erf = exact(Chain(pool, *middle, pool, ndim=1), image=image)
    assert erf.error.kind == "relative"
    assert erf.map[erf.map > 0] == pytest.approx(total / total.sum(), rel=1e-12)
