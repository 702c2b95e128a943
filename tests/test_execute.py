"""Executed nets against brute force, against each other, and enumerated ones against theory."""

import math
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from erftheory.empirical import (
    apply,
    enumerated,
    gradient_of_ones,
    initialise,
    ones_params,
    probe_receptive_field,
)
from erftheory.empirical.nets.canvas import canvas
from erftheory.empirical.nets.plan import plan
from erftheory.network.base import Chain
from erftheory.network.combine import Branches, Residual
from erftheory.network.endless import GlobalAvgPool
from erftheory.network.layers import (
    Activation,
    AvgPool,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dropout,
    MaxPool,
    Upsample,
)

RELU = Activation("relu")
ONE = np.ones(1)


def spread(taps, step):
    """Taps at distance `step`."""
    out = np.zeros((len(taps) - 1) * step + 1)
    out[::step] = taps
    return out


def uniform(*kernels):
    """Normalised n-fold convolution of uniform kernels."""
    return reduce(np.convolve, [np.ones(k) / k for k in kernels], ONE)


def centred(a, b):
    """Sum of two odd-length centred arrays."""
    n = max(len(a), len(b))
    return sum(np.pad(v, (n - len(v)) // 2) for v in (a, b))


# --- all-ones nets ---------------------------------------------------------------------------

THREE = np.ones(3)
CASES = [
    (Conv(3), THREE, -1),
    (Conv(3, padding="valid"), THREE, 0),
    (Conv(4), np.ones(4), -1),
    (Conv(3, taps=[1, 2, 5]), np.array([1.0, 2, 5]), -1),
    (Conv(3, padding="causal", dilation=2), spread(THREE, 2), -4),
    (Chain(Conv(3, stride=2), Conv(3)), np.convolve(THREE, spread(THREE, 2)), -3),
    (
        Chain(Conv(3, dilation=2), RELU, MaxPool(2), Conv(5, padding=((0, 3),))),
        reduce(np.convolve, [spread(THREE, 2), np.ones(2), spread(np.ones(5), 2)]),
        -2,
    ),
    (
        Chain(Conv(3), AvgPool(3, stride=2, padding=1), BatchNorm(), Dropout(0.5), Conv(3)),
        reduce(np.convolve, [THREE, THREE, spread(THREE, 2)]),
        -4,
    ),
    (Conv(3, padding="valid") * 5, reduce(np.convolve, [THREE] * 5), 0),
    (Conv(3, stride=2, padding=1) * 3,
     reduce(np.convolve, [THREE, spread(THREE, 2), spread(THREE, 4)]), -7),
    (Residual(Chain(Conv(3), Conv(3))), centred(np.convolve(THREE, THREE), ONE), -2),
    (Chain(Conv(3, channels=8), Branches(Conv(1), Conv(3), None), Conv(3)),
     reduce(np.convolve, [THREE, np.array([1.0, 3, 1]), THREE]), -3),
    (Residual(Conv(3)) * 4, reduce(np.convolve, [np.array([1.0, 2, 1])] * 4), -4),
]  # fmt: skip


@pytest.mark.parametrize(("network", "counts", "offset"), CASES)
def test_all_ones_autodiff_is_brute_force(network, counts, offset):
    found, first = gradient_of_ones(Chain(network, ndim=1))
    np.testing.assert_array_equal(found, counts)
    assert first == (offset,)
    assert found.dtype == np.float64


@pytest.mark.parametrize("size", [9, 20, 41])
def test_all_ones_autodiff_does_not_depend_on_the_canvas(size):
    network = Chain(Conv(3), MaxPool(2), Conv(3), ndim=1)
    found, offset = gradient_of_ones(network, size)
    expected = reduce(np.convolve, [THREE, np.ones(2), spread(THREE, 2)])
    np.testing.assert_array_equal(found, expected)
    assert offset == (-3,)


def test_all_ones_two_axes_keep_their_own_kernel():
    found, offset = gradient_of_ones(Chain(Conv((1, 3)), Conv((5, 1)), MaxPool((2, 1))))
    np.testing.assert_array_equal(found, np.outer(np.convolve(np.ones(5), np.ones(2)), np.ones(3)))
    assert offset == (-2, -1)


def up_matrix(n, k, s, p, extra=0, dilation=1):
    """PyTorch's transposed convolution of ones as a matrix (out, in)."""
    size = (n - 1) * s - 2 * p + dilation * (k - 1) + extra + 1
    matrix = np.zeros((size, n))
    for i in range(n):
        for a in range(k):
            o = s * i + dilation * a - p
            if 0 <= o < size:
                matrix[o, i] += 1
    return matrix


@pytest.mark.parametrize(
    ("k", "s", "p", "extra", "dilation"),
    [(3, 2, 1, 1, 1), (4, 2, 1, 0, 1), (2, 2, 0, 0, 1), (5, 3, 0, 1, 1), (3, 2, 0, 0, 2)],
)
def test_transposed_convolution_is_its_matrix(k, s, p, extra, dilation):
    layer = Chain(ConvTranspose(k, s, p, extra, dilation), ndim=1)
    with jax.enable_x64(True):
        params = ones_params(layer, jnp.float64)
        jacobian = jax.jacobian(lambda x: apply(layer, params, x[None])[0])(jnp.zeros(7))
    np.testing.assert_array_equal(jacobian, up_matrix(7, k, s, p, extra, dilation))


def test_transposed_convolution_in_a_chain():
    # the unit's row of (conv matrix) · (up matrix)
    network = Chain(ConvTranspose(4, 2, 1), Conv(3), ndim=1)
    up = up_matrix(9, 4, 2, 1)
    row = up[7] + up[8] + up[9]
    found, offset = gradient_of_ones(network)
    np.testing.assert_array_equal(found, row[np.flatnonzero(row)])
    assert offset == (np.flatnonzero(row)[0] - 4,)


def test_nearest_and_bilinear_upsampling():
    x = jnp.arange(1.0, 6.0)[None]
    nearest, linear = Chain(Upsample(3), ndim=1), Chain(Upsample(2, "bilinear"), ndim=1)
    np.testing.assert_array_equal(
        apply(nearest, initialise(nearest, jax.random.key(0)), x)[0], np.repeat(x[0], 3)
    )
    # half-pixel centres; the rim is zero padding here
    got = apply(linear, initialise(linear, jax.random.key(0)), x)[0]
    np.testing.assert_allclose(got[1:-1], np.interp(np.arange(1, 9) / 2 - 0.25, range(5), x[0]))


# --- forward semantics -----------------------------------------------------------------------


def test_unrolled_and_library_convolution_agree(monkeypatch):
    from erftheory.empirical.nets import execute

    network = Chain(
        Conv(3, stride=2, dilation=2, channels=4),
        Conv(3, padding=((0, 2), (1, 0)), groups=2, channels=6),
        ConvTranspose((2, 3), (2, 3), output_padding=1, groups=3, channels=3),
        Conv(3, groups="depthwise"),
    )
    params = initialise(network, jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (1, 17, 14))
    ours = apply(network, params, x)
    monkeypatch.setattr(execute, "_UNROLL", 0)
    np.testing.assert_allclose(ours, apply(network, params, x), rtol=2e-5, atol=2e-5)


def test_pools_with_dilation_and_padding():
    x = jnp.array([[3.0, -1, 4, -1, 5, -9, 2, 6]])

    def value(layer):
        chain = Chain(layer, ndim=1)
        return apply(chain, initialise(chain, jax.random.key(0)), x)[0].tolist()

    assert value(MaxPool(2)) == [3, 4, 5, 6]
    assert value(MaxPool(2, stride=1, dilation=3)) == [3, 5, 4, 2, 6]
    assert value(MaxPool(3, stride=2, padding=1)) == [3, 4, 5, 6]
    assert value(AvgPool(2, padding=((1, 1),))) == [1.5, 1.5, 2, -3.5, 3]
    assert value(AvgPool(2, padding=((1, 1),), count_include_pad=False)) == [3, 1.5, 2, -3.5, 6]
    np.testing.assert_allclose(value(GlobalAvgPool()), [x.mean()], rtol=1e-6)


def test_batch_norm_normalises_and_frozen_statistics_stop_the_gradient():
    network = Chain(BatchNorm(), ndim=1)
    params = initialise(network, jax.random.key(0))
    x = 5 + 3 * jax.random.normal(jax.random.key(1), (1, 50))
    y = apply(network, params, x)
    assert abs(float(y.mean())) < 1e-5 and abs(float(y.std()) - 1) < 1e-4

    def gradient(how):
        return jax.grad(lambda v: apply(network, params, v, statistics=how)[0, 7])(x)[0]

    assert np.count_nonzero(gradient("live")) == 50
    assert np.flatnonzero(gradient("frozen")).tolist() == [7]


def test_dropout_needs_a_key_and_keeps_the_mean():
    network = Chain(Dropout(0.25), ndim=1)
    params = initialise(network, jax.random.key(0))
    x = jnp.ones((1, 4000))
    np.testing.assert_array_equal(apply(network, params, x), x)
    y = np.asarray(apply(network, params, x, key=jax.random.key(2)))
    assert set(np.unique(y)) == {0.0, np.float32(4 / 3)}
    assert abs((y == 0).mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 4000)


def test_scan_runs_what_the_unrolled_chain_runs():
    part = Chain(Conv(3), RELU, ndim=1)
    looped, unrolled = part * 4, Chain(*[part] * 4)
    a = initialise(looped, jax.random.key(0), 3)
    first, middle, last = (run[1] for run in a.weights[1])
    b = initialise(unrolled, jax.random.key(0), 3)
    weights = [None] * len(b.weights)
    weights[1::2] = [first[0], middle[0], middle[1], last[0]]
    x = jax.random.normal(jax.random.key(1), (1, 12))
    b = type(b)(weights, b.channels, b.in_channels)
    np.testing.assert_allclose(apply(looped, a, x), apply(unrolled, b, x), rtol=1e-5)


# --- channels and initialisation -------------------------------------------------------------


def outs(network, channels=8):
    return [p.channels_out for p in plan(network.graph, channels, 1).parts[1:]]


def test_channel_rules():
    assert outs(Chain(Conv(3), RELU, Conv(3), RELU)) == [8, 8, 1, 1]
    assert outs(Chain(Conv(3), Conv(3, channels=5))) == [8, 5]
    assert outs(Chain(Conv(3), Residual(Chain(Conv(3), Conv(3))), Conv(1))) == [8, 8, 8, 8, 1]
    assert outs(Chain(Conv(3, channels=6), Residual(Chain(Conv(3), Conv(3))))) == [6, 8, 6, 6]
    assert outs(Chain(Conv(3), Residual(Conv(3), shortcut=Conv(1)))) == [8, 1, 1, 1]
    assert outs(Chain(Branches(Conv(1), Conv(3), None), Conv(1))) == [8, 8, 17, 1]
    assert outs(Chain(Conv(3), Conv(3, groups="depthwise"), Conv(1))) == [8, 8, 1]
    loop = plan((Conv(3) * 64).graph, 8, 1).parts[1]
    assert [(n, b.parts[1].channels_in, b.channels_out) for n, b in loop.runs] == [
        (1, 1, 8), (62, 8, 8), (1, 8, 1),
    ]  # fmt: skip


def test_sums_of_unequal_channels_are_refused():
    with pytest.raises(ValueError, match="channels: got a sum of 1 and 4 channels"):
        initialise(Residual(Conv(3, channels=4)), jax.random.key(0))


@pytest.mark.parametrize(
    ("init", "variance"), [("he", 2 / 90), ("lecun", 1 / 90), ("xavier", 2 / (90 + 450))]
)
@pytest.mark.parametrize("weights", ["gaussian", "uniform", "rademacher"])
def test_weight_laws(weights, init, variance):
    network = Chain(Conv(1, channels=20), Conv(3, channels=100, groups=2))
    w = np.asarray(initialise(network, jax.random.key(3), 4, weights, init).weights[2], float)
    assert w.shape == (100, 10, 3, 3)
    kurtosis = {"gaussian": 3.0, "uniform": 1.8, "rademacher": 1.0}[weights]
    assert abs(w.mean()) < 5 * math.sqrt(variance / w.size)
    slack = 5 * math.sqrt((kurtosis - 1) / w.size) + 1e-6
    assert abs((w**2).mean() / variance - 1) < slack
    assert abs((w**4).mean() / variance**2 / kurtosis - 1) < 0.1
    limit = {"gaussian": np.inf, "uniform": math.sqrt(3), "rademacher": 1}[weights]
    assert np.abs(w).max() <= limit * math.sqrt(variance) * (1 + 1e-6)


def test_taps_are_relative_variances():
    network = Chain(Conv(3, taps=[1, 2, 3]), ndim=1)
    w = initialise(network, jax.random.key(0), weights="rademacher").weights[1]
    np.testing.assert_allclose(w[0, 0] ** 2, np.array([1, 2, 3]) / 3, rtol=1e-6)


# --- enumeration -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear", "relu", "leaky_relu", "abs"])
@pytest.mark.parametrize("seed", [0, 1])
def test_enumerated_is_the_convolution(name, seed):
    network = Chain(*[Conv(3), Activation(name)] * 3, Conv(3), ndim=1)
    found = enumerated(network, seed=seed)
    assert found.samples == 4096 and found.offset == (-4,) and found.method == "enumerated"
    np.testing.assert_allclose(found.map, uniform(3, 3, 3, 3), rtol=1e-12)


def test_enumerated_with_taps_stride_and_residual():
    block = Residual(Chain(Conv(3), RELU, Conv(3)))
    network = Chain(
        Conv(3, taps=[1, 2, 3]), RELU, Conv(3, stride=2, dilation=2), RELU, Conv(2), ndim=1
    )
    expected = reduce(np.convolve, [np.array([1, 2, 3.0]), spread(THREE, 2), spread(np.ones(2), 2)])
    np.testing.assert_allclose(enumerated(network).map, expected / expected.sum(), rtol=1e-12)
    found = enumerated(Chain(Conv(3), block, ndim=1))
    # one channel: Var w = 2/3 a tap; the activation halves; mass 2 · 1/2 · 2 for the branch
    expected = np.convolve(uniform(3), centred(2 * uniform(3, 3), ONE))
    np.testing.assert_allclose(found.map, expected / expected.sum(), rtol=1e-12)


@pytest.mark.parametrize(
    "between", [AvgPool(2, stride=1), MaxPool(2, stride=1)], ids=["average", "max"]
)
def test_pooling_between_relu_layers_breaks_the_convolution(between):
    network = Chain(Conv(3), RELU, between, Conv(3), RELU, Conv(3), ndim=1)
    found = enumerated(network).map
    expected = uniform(3, 3, 3, 2)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() > 0.05 * expected.max()


def test_enumeration_has_a_limit():
    with pytest.raises(
        ValueError, match=r"network: got 21 weights, 2\*\*21 nets; takes at most 20"
    ):
        enumerated(Chain(Conv(3), ndim=1) * 7)


# --- the NaN probe ---------------------------------------------------------------------------

PROBES = [
    (Chain(Conv(3), RELU, ndim=1) * 5, (11,), (-5,)),
    (Chain(Conv(3, padding="valid"), ndim=1) * 5, (11,), (0,)),
    (Chain(Conv(3, dilation=4), Conv(2), ndim=1), (10,), (-4,)),
    (Chain(Conv(3, padding="causal"), Conv(3, padding="causal", dilation=2), ndim=1), (7,), (-6,)),
    (Chain(Conv(7, stride=2, padding=3), MaxPool(3, 2, padding=1), Conv(3)), (19, 19), (-9, -9)),
    (Chain(Conv(3), AvgPool(2), BatchNorm(), Dropout(0.9), Conv((1, 5))), (4, 12), (-1, -5)),
    (Chain(ConvTranspose(4, 2, 1), Conv(3), ndim=1), (3,), (-1,)),
    (Chain(Upsample(2, "bilinear"), Conv(5), ndim=1), (4,), (-2,)),
    (Residual(Chain(Conv(5), RELU, Conv(3)), shortcut=Conv(1)), (7, 7), (-3, -3)),
    (Chain(Conv(3, taps=[0, 1, 0]), ndim=1), (3,), (-1,)),
    (Conv((3, 1, 5)), (3, 1, 5), (-1, 0, -2)),
]


@pytest.mark.parametrize(("network", "size", "offset"), PROBES)
def test_probe_finds_known_receptive_fields(network, size, offset):
    found = probe_receptive_field(network)
    assert found.size == size and found.offset == offset


@pytest.mark.parametrize(("network", "size", "offset"), PROBES)
def test_canvas_agrees_with_the_probe(network, size, offset):
    place = canvas(network.graph)
    assert place.size == size and place.offset == offset
