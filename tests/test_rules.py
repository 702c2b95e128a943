"""Every layer has a row wherever layers differ, and one without a row is an error."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import erftheory
from erftheory import Branches, Chain, Conv, Residual, exact, from_jax, moments, sample
from erftheory.empirical.nets import rules
from erftheory.empirical.nets.draw import initialise
from erftheory.empirical.nets.execute import apply
from erftheory.network import imported, layers, sliding
from erftheory.network.endless import Endless
from erftheory.network.graph import Builder, Sum
from erftheory.network.imported import Channels, GraphNetwork, Scale
from erftheory.network.kernel import Kernel
from erftheory.network.layers import Layer
from erftheory.theory.units.unit_laws import UNIT_LAWS

# what mixes channels: their laws stand in the forward pass itself and in theory/gains/norms.py
MIXING = {
    layers.Conv,
    layers.ConvTranspose,
    layers.GroupNorm,
    layers.LayerNorm,
    layers.RMSNorm,
}


def every(kind: type) -> set[type]:
    found = {kind} if kind.__module__.startswith("erftheory") else set()
    return found.union(*(every(child) for child in kind.__subclasses__()))


BASES = (Layer, sliding.Sliding, sliding.Weighted, layers.Norm, Endless)
LAYERS = sorted(
    (
        kind
        for kind in every(Layer)
        if kind.__name__[0] != "_" and kind not in BASES
    ),
    key=lambda kind: kind.__name__,
)


def test_the_list_has_all_public_layers():
    public = {
        value
        for name in erftheory.__all__
        if isinstance(value := getattr(erftheory, name), type) and issubclass(value, Layer)
    }
    assert public <= set(LAYERS)
    assert {imported.Spatial, imported.Channels, imported.Scale} <= set(LAYERS)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_has_a_law_and_is_executed(kind):
    assert (kind in UNIT_LAWS) != (kind in MIXING)
    assert (kind in rules.POINTWISE) != (kind in rules.WINDOWS)


@dataclass(frozen=True, repr=False)
class _Swirl(Layer):
    """A layer that nobody gave a rule."""


def test_a_layer_without_a_row_is_an_error():
    beside = Residual(Chain(Conv(3), _Swirl()))
    for read in (moments, exact):
        with pytest.raises(ValueError, match=r"network: got the layer _Swirl\(\), whose units"):
            read(beside)
    with pytest.raises(ValueError, match=r"network: got the layer _Swirl\(\), which cannot be"):
        sample(Chain(Conv(3), _Swirl()), 0, 4)
    net = Chain(Conv(3), _Swirl(), ndim=1)
    params = initialise(net, jax.random.key(0))
    with pytest.raises(ValueError, match=r"network: got the layer _Swirl\(\), which cannot be"):
        apply(net, params, jnp.ones((1, 8)))


def test_the_oracle_of_the_tests_knows_every_layer():
    import oracle

    with pytest.raises(ValueError, match="_Swirl"):
        oracle.weights(Chain(Conv(3), _Swirl()))


def farthest(drawn, wanted):
    """The largest deviation of a pixel in its standard errors: beyond 6 once in 10^7 maps."""
    return np.abs((drawn.map - wanted.map) / drawn.stderr).max()


def shuffled(block: bool):
    """Convolution, pixels of blocks from channels (or the other way round), convolution."""

    def net(x, *kernels):
        def conv(x, w):
            numbers = ("NCHW", "OIHW", "NCHW")
            return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers)

        x = conv(x, kernels[0])
        b, c, h, w = x.shape
        if block:
            x = x.reshape(b, c, h // 2, 2, w // 2, 2).transpose(0, 1, 3, 5, 2, 4)
            x = x.reshape(b, c * 4, h // 2, w // 2)
        else:
            x = x.reshape(b, c // 4, 2, 2, h, w).transpose(0, 1, 4, 2, 5, 3)
            x = x.reshape(b, c // 4, 2 * h, 2 * w)
        return conv(x, kernels[1])

    inner = 4 if block else 16
    last = (1, 16, 3, 3) if block else (1, 4, 3, 3)
    kernels = jnp.ones((inner, 1, 3, 3)), jnp.ones(last)
    return from_jax(net, jax.ShapeDtypeStruct((1, 1, 8, 8), jnp.float32), *kernels)


@pytest.mark.parametrize("block", [False, True])
def test_channels_that_hold_pixels_are_sampled_as_such(block):
    """A shuffled pixel reads channels of its own, which have filters of their own."""
    network = shuffled(block)
    drawn, wanted = sample(network, 3, 4000, symmetric=False), exact(network, unit=(0, 0))
    assert drawn.map.shape == wanted.map.shape
    assert farthest(drawn, wanted) < 6


@pytest.mark.parametrize("factor", [2, 3])
def test_channels_become_pixels_as_in_pytorch(factor):
    import torch
    from torch.nn.functional import pixel_shuffle, pixel_unshuffle

    def moved(x, up):
        size, nothing = (factor,) * 2, (0, 0)
        rule = layers.Step(Kernel(size), size, (1, 1), nothing, nothing, up, "routing")
        channels = len(x) // factor**2 if up else len(x) * factor**2
        net = Chain(_graph(imported.Spatial("moves", rule, channels), 2), ndim=2)
        return apply(net, initialise(net, jax.random.key(0), in_channels=len(x)), x)

    x = np.random.default_rng(1).normal(size=(factor**2 * 3, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(moved(x, True), pixel_shuffle(torch.tensor(x), factor))
    y = x.reshape(-1, 4 * factor, 5 * factor)
    np.testing.assert_array_equal(moved(y, False), pixel_unshuffle(torch.tensor(y), factor))


def net_of(*ops):
    """Convolution, then two paths of the same channels: the identity and some layers."""
    builder = Builder(1)
    start = at = builder.add(Conv(1, channels=4), (0,))
    for op in ops:
        at = builder.add(op, (at,))
    total = builder.add(Sum(), (start, at))
    return GraphNetwork(builder.finish(builder.add(Conv(3), (total,))))


@pytest.mark.parametrize("factor", [0.5, -0.5])
def test_both_executors_know_scales_and_their_signs(factor):
    network = net_of(layers.AvgPool(3, 1, padding=1), Scale(factor))
    params = initialise(network, jax.random.key(2), 4)
    x = jax.random.normal(jax.random.key(3), (1, 12))
    y = apply(network, params, x)
    before = params.weights[1][:, 0, 0, None] * x[0]
    padded = np.pad(before, ((0, 0), (1, 1)))
    mean = (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3
    total = np.pad(before + factor * mean, ((0, 0), (1, 1)))
    (weights,) = params.weights[5]
    wanted = sum(weights[:, a] @ total[:, a : a + 12] for a in range(3))
    np.testing.assert_allclose(y[0], wanted, atol=1e-5)
    drawn, predicted = sample(network, 1, 3000, channels=4), exact(network)
    assert farthest(drawn, predicted) < 6


def test_a_gate_of_one_channel_is_spread_and_picked_channels_are_refused():
    net = Chain(Conv(1, channels=1), _graph(Channels(4)), Conv(3), ndim=1)
    drawn, wanted = sample(net, 1, 2000), exact(net)
    assert farthest(drawn, wanted) < 6
    picked = Chain(Conv(1, channels=4), _graph(Channels(2)), Conv(3), ndim=1)
    with pytest.raises(ValueError, match="does not know which of them"):
        sample(picked, 1, 10)


def _graph(op, ndim=1):
    builder = Builder(ndim)
    return GraphNetwork(builder.finish(builder.add(op, (0,))))


def test_parts_of_a_split_are_not_one_path():
    """x[:2] + x[2:]: two channels each, which share nothing that could add up."""
    builder = Builder(1)
    x = builder.add(Conv(3, channels=4), (0,))
    halves = tuple(builder.add(Channels(2), (x,)) for _ in range(2))
    net = GraphNetwork(builder.finish(builder.add(Conv(1), (builder.add(Sum(), halves),))))
    assert exact(net).map == pytest.approx([1 / 3] * 3)
    two = Branches(_graph(Channels(2)), Chain(_graph(Channels(2)), Conv(3)), merge="sum")
    found = exact(Chain(Conv(1, channels=4), two, Conv(1), ndim=1), init=1)
    assert found.map == pytest.approx(np.array([1, 4, 1]) / 6)
