"""Initialisers with a heavy rim: exact taps, the drawn variances, and the ERF that follows."""

import math
from fractions import Fraction

import equinox
import haiku
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import torch
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from erftheory import Chain, Conv, init, init_rim_, moments
from erftheory.init import rim, rim_taps


@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple),
    st.fractions(0, 1, max_denominator=50),
)
def test_taps_have_their_share_in_the_ring_and_mean_one(kernel, share):
    taps = np.array(rim_taps(kernel, share), dtype=object)
    assert taps.shape == kernel and taps.mean() == 1
    if min(kernel) > 2:
        inside = taps[tuple(slice(1, -1) for _ in kernel)]
        assert 1 - inside.sum() / taps.sum() == share
        assert len(set(inside.ravel().tolist())) == 1
    else:
        assert set(taps.ravel().tolist()) == {1}
    uniform = 1 - Fraction(math.prod(max(0, n - 2) for n in kernel), math.prod(kernel))
    assert set(np.ravel(rim_taps(kernel, uniform)).tolist()) == {1}


@pytest.mark.parametrize("share", [0, Fraction(1, 2), Fraction(8, 9), 1])
def test_variance_of_the_erf_is_in_closed_form(share):
    """3×3: six of the ring's eight taps are one pixel off along an axis; brute force for 5×5."""
    depth = 7
    found = moments(Chain(*[Conv(3, taps=rim_taps(3, share))] * depth)).variance
    assert found == (depth * Fraction(3, 4) * share,) * 2
    taps = np.array(rim_taps(5, share), dtype=object)
    wanted = sum(taps[i, j] * (i - 2) ** 2 for i in range(5) for j in range(5)) / taps.sum()
    assert moments(Conv(5, taps=rim_taps(5, share))).variance[0] == wanted


def shares(weights, kernel_axes):
    """Share of the squared weights in the ring, and the sum of all squares."""
    squares = np.square(np.asarray(weights, float))
    inside = tuple(slice(1, -1) if a in kernel_axes else slice(None) for a in range(squares.ndim))
    return 1 - squares[inside].sum() / squares.sum(), squares.sum()


def by_flax(key):
    return nnx.Conv(32, 64, (3, 3), kernel_init=rim(0.95), rngs=nnx.Rngs(0)).kernel[...]


def by_equinox(key):
    shape = equinox.nn.Conv2d(32, 64, 3, key=key).weight.shape
    return rim(0.95, in_axis=1, out_axis=0)(key, shape)


def by_haiku(key):
    def w_init(shape, dtype):
        return rim(0.95)(haiku.next_rng_key(), shape, dtype)

    net = haiku.transform(lambda x: haiku.Conv2D(64, 3, w_init=w_init)(x))
    return net.init(key, jnp.zeros((1, 8, 8, 32)))["conv2_d"]["w"]


CASES = {
    "flax": (by_flax, (0, 1)),
    "equinox": (by_equinox, (2, 3)),
    "haiku": (by_haiku, (0, 1)),
    "normal": (lambda key: rim(0.95, distribution="normal")(key, (3, 3, 32, 64)), (0, 1)),
    "uniform": (lambda key: rim(0.95, distribution="uniform")(key, (3, 3, 32, 64)), (0, 1)),
    "torch": (lambda key: init_rim_(torch.empty(64, 32, 3, 3), 0.95), (2, 3)),
}


@pytest.mark.parametrize("name", CASES)
def test_drawn_weights_have_the_variance_and_the_share(name):
    """64 filters of fan-in 288: Σw² is 2·64, with a relative error of at most √(2/18432)."""
    torch.manual_seed(0)
    draw, axes = CASES[name]
    share, total = shares(draw(jax.random.key(0)), axes)
    assert abs(total / 128 - 1) < 6 * math.sqrt(2 / 18432)
    assert abs(share - 0.95) < 6 * 0.95 * 0.05 * math.sqrt(2 / 2048 + 2 / 16384)


def test_uniform_share_is_kaiming_normal():
    torch.manual_seed(1)
    mine = init_rim_(torch.empty(64, 32, 3, 3), 8 / 9).ravel().numpy()
    theirs = torch.nn.init.kaiming_normal_(torch.empty(64, 32, 3, 3)).ravel().numpy()
    assert scipy.stats.ks_2samp(mine, theirs).pvalue > 1e-4


def test_a_matrix_of_one_tap_is_the_even_initialiser():
    key = jax.random.key(0)
    even = jax.nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")
    np.testing.assert_array_equal(rim(1.0)(key, (1, 1, 8, 8)), even(key, (1, 1, 8, 8)))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: rim(1.5), "share: got 1.5; takes a number from 0 to 1"),
        (lambda: rim(0.9, distribution="cauchy"), "distribution: got 'cauchy'"),
        (lambda: rim(0.9, mode="fan"), "mode: got 'fan'"),
        (lambda: rim_taps(0, 0.5), "kernel: got 0"),
        (lambda: init_rim_(torch.empty(3, 4), 0.9), r"tensor: got shape \(3, 4\)"),
        (lambda: init_rim_(torch.empty(3, 4, 3), -1), "share: got -1"),
    ],
)
def test_bad_arguments_are_one_line(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_it_is_public():
    assert init.rim is rim
