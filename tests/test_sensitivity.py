"""Derivatives of the ERF's deviation, against differences of exact moments of changed networks."""

from __future__ import annotations

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from erftheory import (
    Activation,
    AvgPool,
    Chain,
    Conv,
    MaxPool,
    Residual,
    Upsample,
    exact,
    moments,
    sensitivity,
    zoo,
)

SMALL = Fraction(1, 10**6)


def slope(make, axis=0):
    """Central difference of the deviation of make(h), from exact variances."""
    sides = [moments(make(h)).variance[axis] for h in (SMALL, -SMALL)]
    middle = float(moments(make(Fraction(0))).variance[axis]) ** 0.5
    return float((sides[0] - sides[1]) / (2 * SMALL)) / (2 * middle)


def net(first=(1, 2, 4), second=(3, 1, 5, 2), inner=Fraction(1, 2), outer=Fraction(3)):
    within = Residual(Conv(4, taps=list(second), channels=8), gain=inner)
    block = Residual(Chain(Conv(3, dilation=2, channels=8), within), gain=outer)
    return Chain(
        Conv(3, 2, taps=list(first), channels=8), Activation("relu"), block, MaxPool(2),
        Conv(3, channels=8), ndim=1,
    )  # fmt: skip


def test_taps_and_ratios_against_differences():
    found = sensitivity(net())
    assert found.std[0] == pytest.approx(moments(net()).std[0], rel=1e-12)
    by_taps = {s.layer: s.values[0] for s in found.of("taps")}
    for values, change in (((1, 2, 4), "first"), ((3, 1, 5, 2), "second")):
        derivatives = next(v for k, v in by_taps.items() if "taps" in k and v.size == len(values))
        for a in range(len(values)):

            def make(h, a=a, values=values, change=change):
                return net(**{change: [v + h * (i == a) for i, v in enumerate(values)]})

            assert derivatives[a] == pytest.approx(slope(make), rel=1e-6, abs=1e-9)
    inner, outer = (s.values[0] for s in found.of("skip"))
    expected = slope(lambda h: net(inner=Fraction(1, 2) * (1 + h)))
    assert inner[0] == pytest.approx(expected, rel=1e-5)
    expected = slope(lambda h: net(outer=Fraction(3) * (1 + h)))
    assert outer[0] == pytest.approx(expected, rel=1e-5)
    assert inner.sum() == pytest.approx(0, abs=1e-12)  # the other input's ratio is its inverse


def test_taps_of_two_axes():
    taps = [[1, 2, 3], [4, 5, 6]]

    def make(h, place=None):
        changed = [[v + h * ((i, j) == place) for j, v in enumerate(row)]
                   for i, row in enumerate(taps)]  # fmt: skip
        return Chain(Conv(3), Conv((2, 3), taps=changed), ndim=2)

    values = sensitivity(make(0)).slopes[1].values
    assert values.shape == (2, 2, 3)
    for axis, i, j in np.ndindex(values.shape):
        expected = slope(lambda h, at=(i, j): make(h, at), axis)
        assert values[axis, i, j] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_resnet50():
    network = zoo.resnet50()
    found = sensitivity(network)
    assert found.std == pytest.approx(moments(network).std, rel=1e-12)
    assert len(found.of("taps")) == 53 and len(found.of("skip")) == 16
    assert "layer1/rest[0]" in str(found) and "<table>" in found._repr_html_()


@pytest.mark.parametrize(
    "network, message",
    [
        (Chain(Conv(3), Upsample(2), Conv(3)), "network: got up-sampling"),
        (Chain(Conv(3), AvgPool(3, 1), AvgPool(3, 1)), "network: got gradients that fixed"),
        (Chain(Conv(1), Conv(1)), "network: got an ERF of a single pixel"),
    ],
)
def test_what_has_no_closed_form_is_refused(network, message):
    with pytest.raises(ValueError, match=message):
        sensitivity(network)
    with pytest.raises(ValueError, match="measure: got 'size'; takes 'std' or a function"):
        sensitivity(zoo.vgg11(), "size")


def peak(signal):
    return jnp.sum(signal**4) ** 0.25


def std_of(signal):
    places = jnp.arange(signal.shape[0])
    line = signal.reshape(signal.shape[0], -1).sum(axis=1)
    mean = line @ places
    return jnp.sqrt(line @ (places - mean) ** 2)


def difference(make, measure, h=1e-4):
    """Central difference of a measure of the exact maps of make(h)."""
    with jax.enable_x64(True):
        sides = [float(measure(jnp.asarray(exact(make(s)).map))) for s in (h, -h)]
    return (sides[0] - sides[1]) / (2 * h)


def test_any_measure_of_the_map_against_differences():
    found = sensitivity(net(), peak)
    assert found.value == pytest.approx(float(peak(jnp.asarray(exact(net()).map))), rel=1e-5)
    first = found.of("taps")[0].values[0]
    for a in range(3):
        expected = difference(
            lambda h, a=a: net(first=[v + h * (i == a) for i, v in enumerate((1, 2, 4))]), peak
        )
        assert first[a] == pytest.approx(expected, rel=1e-5, abs=1e-9)
    inner, outer = (s.values[0] for s in found.of("skip"))
    expected = difference(lambda h: net(inner=Fraction(1, 2) * (1 + Fraction(h))), peak)
    assert inner[0] == pytest.approx(expected, rel=1e-5)
    expected = difference(lambda h: net(outer=3 * (1 + Fraction(h))), peak)
    assert outer[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("network", [net(), zoo.resnet18().until("layer1")], ids=("1-D", "resnet"))
def test_the_deviation_by_both_routes(network):
    closed, traced = sensitivity(network), sensitivity(network, std_of)
    assert traced.value == pytest.approx(closed.std[0], rel=1e-9)
    assert [s.name for s in traced.slopes] == [s.name for s in closed.slopes]
    for a, b in zip(closed.slopes, traced.slopes):
        assert b.values[0] == pytest.approx(a.values[0], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    "measure, message",
    [
        (lambda m: m, "measure: got float64 of shape .27,.; takes a JAX function"),
        (lambda m: jnp.sqrt(0 * m.sum()), "measure: got derivatives that are not finite"),
    ],
)
def test_what_is_no_measure_is_refused(measure, message):
    with pytest.raises(ValueError, match=message) as error:
        sensitivity(net(), measure)
    assert "\n" not in str(error.value)


def test_a_map_too_large_to_differentiate_is_refused():
    with pytest.raises(ValueError, match="network: got a map of .* pixels behind"):
        sensitivity(Chain(Conv(1001, dilation=20), Conv(3), ndim=2), peak)
