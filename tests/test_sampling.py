"""Sampled nets against the exact convolution, in standard errors, and against each other."""

import math

import jax
import numpy as np
import pytest
from scipy import stats
from test_execute import spread, uniform

from erftheory.empirical import batches, initialise, sample
from erftheory.network.base import Chain
from erftheory.network.combine import Branches, Residual
from erftheory.network.endless import GlobalAvgPool
from erftheory.network.layers import Activation, AvgPool, BatchNorm, Conv

RELU = Activation("relu")
THREE = np.ones(3)


def check_convolution(network, expected, samples, batches_wanted=40, **options):
    """Means of independent batches against theory, per pixel and pooled.

    Under the theory the batch means of g²(t) − p(t) m₀ have mean 0, so their t statistics follow
    Student's law; Bonferroni over pixels keeps the false-alarm rate below 1e-4.
    """
    tallies = batches(network, 7, samples, count=batches_wanted, **options)
    rows = np.stack([t.square / t.nets for t in tallies]).reshape(batches_wanted, -1)
    p = np.asarray(expected).ravel()
    assert rows.shape[1] == p.size
    gap = rows - p * rows.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = gap.mean(axis=0) / (gap.std(axis=0, ddof=1) / math.sqrt(batches_wanted))
    used = p > 1e-3 * p.max()
    level = 1e-4 / used.sum()
    values = 2 * stats.t.sf(np.abs(t[used]), batches_wanted - 1)
    assert values.min() > level
    return tallies


@pytest.mark.parametrize("weights", ["gaussian", "uniform", "rademacher"])
def test_sampled_linear_nets(weights):
    network = Chain(Conv(3), ndim=1) * 5
    check_convolution(network, uniform(3, 3, 3, 3, 3), 4000, channels=8, weights=weights)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "abs"])
def test_sampled_activations(name):
    network = Chain(*[Conv(3), Activation(name)] * 3, Conv(3, stride=2), Conv(2), ndim=1)
    expected = np.convolve(uniform(3, 3, 3, 3), spread(np.ones(2) / 2, 2))
    check_convolution(network, expected, 4000, channels=8)


def test_sampled_test_can_fail():
    network = Chain(Conv(3), AvgPool(2, stride=1), Conv(3), ndim=1)
    with pytest.raises(AssertionError):
        check_convolution(network, uniform(3, 3, 3), 2000, channels=4)
    with pytest.raises(AssertionError):
        check_convolution(
            Chain(Conv(3), Conv(3, taps=[2, 3, 2]), ndim=1), uniform(3, 3), 8000, channels=4
        )


def test_sampled_two_axes():
    network = Chain(Conv((3, 1)), RELU, Conv((3, 3), dilation=(1, 2)), RELU, Conv((2, 1)))
    expected = np.outer(uniform(3, 3, 2), spread(THREE, 2) / 3)
    check_convolution(network, expected, 3000, channels=8)


def test_sampled_record():
    network = Chain(Conv(3), RELU, ndim=1) * 4
    found = sample(network, jax.random.key(0), 3000, channels=8, init="lecun")
    expected = uniform(3, 3, 3, 3)
    assert found.offset == (-4,) and found.signal == "variance" and found.method == "sampled"
    assert found.samples == 3000 and found.map.shape == (9,)
    assert found.receptive_field.size == (9,)
    assert np.all(np.abs(found.map - expected) < 5 * found.stderr)
    assert abs(found.std[0] - math.sqrt(8 / 3)) < 5 * found.std_stderr[0]
    # the last activation kills about half of the nets
    assert 1300 < found.metadata["dead_nets"] < 1700
    assert 1 < found.metadata["effective_samples"] < 3000


def test_standard_errors_match_the_scatter_of_repetitions():
    network = Chain(Conv(3), ndim=1) * 3
    runs = [sample(network, seed, 400, channels=4) for seed in range(60)]
    scatter = np.std([r.map for r in runs], axis=0, ddof=1)
    claimed = np.mean([r.stderr for r in runs], axis=0)
    # χ with 59 degrees of freedom: ± 9 % a standard error, plus the heavy tails
    np.testing.assert_allclose(claimed, scatter, rtol=0.4)
    scatter = np.std([r.std[0] for r in runs], ddof=1)
    assert abs(np.mean([r.std_stderr[0] for r in runs]) / scatter - 1) < 0.4


def test_result_does_not_depend_on_the_chunk():
    network = Chain(Conv(3), RELU, Conv(3))
    whole = sample(network, 3, 150, channels=4)
    for chunk in (1, 37, 1000):
        part = sample(network, 3, 150, channels=4, chunk=chunk)
        np.testing.assert_allclose(part.map, whole.map, rtol=1e-13)
        np.testing.assert_allclose(part.stderr, whole.stderr, rtol=1e-9)
    assert not np.array_equal(sample(network, 4, 150, channels=4).map, whole.map)


def test_batches_add_up_to_the_sample():
    network = Chain(Conv(3), RELU, Conv(3), ndim=1)
    parts = batches(network, 3, 101, channels=4, count=7, symmetric=True, paired=True)
    assert sum(t.nets for t in parts) == 101 and {t.nets for t in parts} == {14, 15}
    total = sum(parts[1:], start=parts[0])
    found = sample(network, 3, 101, channels=4)
    np.testing.assert_allclose(total.square / total.square.sum(), found.map, rtol=1e-12)


def test_residual_and_concatenated_outputs_sample_all_channels():
    # two groups of output channels with different fields: both must appear
    network = Chain(Conv(1), Branches(Conv(1), Conv(3)), ndim=1)
    found = sample(network, 0, 2000, channels=8)
    # per channel Var w k C_out / C_in: equal masses
    np.testing.assert_allclose(found.map, [1 / 6, 2 / 3, 1 / 6], atol=5 * found.stderr.max())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 1}, "samples: got 1; takes an integer >= 2"),
        ({"samples": 2.5}, "samples: got 2.5"),
        ({"weights": "cauchy"}, "weights: got 'cauchy'; takes one of"),
        ({"init": None}, "init: got None; takes a positive number c"),
        ({"channels": 0}, "channels: got 0"),
        ({"chunk": 0}, "chunk: got 0"),
        ({"key": None}, "key: got None; takes a JAX random key or an int"),
        ({"key": "a"}, "key: got 'a'; takes"),
        ({"key": True}, "key: got True; takes"),
        ({"key": jax.numpy.zeros(2)}, "key: got an array of shape (2,) and dtype float32"),
    ],
)
def test_arguments_are_checked(options, message):
    arguments = {"key": 0, "samples": 10} | options
    with pytest.raises(ValueError) as caught:
        sample(Chain(Conv(3), ndim=1), **arguments)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", [np.int64(3), jax.random.key(3), jax.random.PRNGKey(3)])
def test_keys_of_all_kinds(key):
    net = Chain(Conv(3), ndim=1)
    assert (sample(net, key, 8).map == sample(net, 3, 8).map).all()


def test_networks_that_cannot_be_sampled_are_refused():
    with pytest.raises(ValueError, match="network: got a receptive field without end"):
        sample(Chain(Conv(3), GlobalAvgPool()), 0, 10)
    with pytest.raises(ValueError, match="gain: got a net with explicit gains"):
        initialise(Residual(Conv(3), gain=2), jax.random.key(0))
    with pytest.raises(ValueError, match="overflow"):
        sample(Chain(Conv(1), ndim=1) * 400, 0, 4, channels=32, init="he")


def test_batch_norm_nets_have_finite_fields():
    network = Chain(Conv(3, padding="valid"), BatchNorm(), RELU, ndim=1) * 3
    found = sample(network, 0, 500, channels=8)
    assert found.map.shape == (7,) and found.offset == (0,)
    np.testing.assert_allclose(found.map, uniform(3, 3, 3), atol=6 * found.stderr.max())
