"""Fixed layers in the variance signal: runs, repetitions, and where correlations matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from erftheory import AvgPool, Chain, Conv, Upsample, exact, moments
from erftheory.network.base import Network


def powers(*layers: Network) -> np.ndarray:
    """E g² by the whole covariance E g_i g_j, pixel by pixel, on an image too large for a rim.

    A convolution of independent weights of variance v maps it to Σ_a v_a R(i - a, j - a), a fixed
    layer F to Fᵀ R F.
    """
    steps = [layer.step(1) for layer in layers]
    sizes = [96]
    for s in steps:
        sizes.append(sizes[-1] * s.stride[0] if s.up else sizes[-1] // s.stride[0])
    unit = sizes[-1] // 2
    covariance = np.zeros((sizes[-1],) * 2)
    covariance[unit, unit] = 1
    for s, size in zip(reversed(steps), reversed(sizes[:-1])):
        total = np.zeros((size, size))
        matrices = []
        for a, tap in enumerate(s.kernel.exact):
            matrix = np.zeros((len(covariance), size))  # outputs, inputs
            place = s.dilation[0] * a - s.before[0]
            for out in range(len(covariance)):
                if s.up:  # output stride·i + place is made of input i
                    inside, rest = divmod(out - place, s.stride[0])
                else:
                    inside, rest = s.stride[0] * out + place, 0
                if not rest and 0 <= inside < size:
                    matrix[out, inside] = 1
            matrices.append((float(tap), matrix))
        if s.kind == "random":
            total = sum(tap * m.T @ covariance @ m for tap, m in matrices)
        else:
            fixed = sum(tap * m for tap, m in matrices)
            total = fixed.T @ covariance @ fixed
        covariance = total / np.trace(total)
    return np.diag(covariance)


LAYERS = st.sampled_from(
    [
        Conv(3),
        Conv(2, padding="causal"),
        Conv(3, taps=[1, 0, 2]),
        Conv(3, 2),
        AvgPool(2),
        AvgPool(3, 1, padding=1),
        AvgPool(3, 2, padding=1),
        Upsample(2),
        Upsample(2, "bilinear"),
    ]
)


@settings(max_examples=40, deadline=None)
@given(st.lists(LAYERS, min_size=1, max_size=4))
def test_a_bound_is_given_only_where_powers_are_enough(layers):
    assume(sum(isinstance(layer, Upsample) for layer in layers) < 3)
    try:
        erf = exact(Chain(*layers, ndim=1), unit=(0,))
    except ValueError as refused:  # a pooling right below an up-sampling
        assert "pooling right below" in str(refused)
        return
    wanted = powers(*layers)
    if erf.error.kind == "approximation":
        return
    ours = np.zeros_like(wanted)
    # the referee's unit lies in the middle: compare about the peak of the support
    inside = np.flatnonzero(wanted)
    first = inside[0] - np.flatnonzero(erf.map)[0]
    ours[first : first + len(erf.map)] = erf.map
    assert ours == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(
    "layers, peak",
    [
        # the peak of E g² over all 2^9 nets of weights -1 and 1, and without correlations
        ((Conv(3), AvgPool(3, 1, padding=1)) * 2 + (Conv(3),), (0.2281, 0.2099)),
    ],
)
def test_overlapping_fixed_layers_apart_are_an_approximation(layers, peak):
    erf = exact(Chain(*layers, ndim=1))
    assert erf.error.kind == "approximation" and erf.error.value == np.inf
    assert "correlations" in erf.error.note
    assert powers(*layers).max() == pytest.approx(peak[0], abs=1e-4)
    assert erf.map.max() == pytest.approx(peak[1], abs=1e-4)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_repeated_fixed_layers_are_summed_before_they_are_squared(count):
    pool = AvgPool(3, 1, padding=1)
    taps = np.ones(1)
    for _ in range(count):
        taps = np.convolve(taps, np.ones(3))
    wanted = taps**2 / (taps**2).sum()
    erf = exact(Chain(pool, ndim=1) * count)
    assert erf.map == pytest.approx(wanted, rel=1e-12)
    place = np.arange(len(wanted)) - count
    assert float(moments(Chain(pool, ndim=1) * count).variance[0]) == pytest.approx(
        wanted @ place**2, rel=1e-12
    )


def test_a_repeated_block_remembers_across_its_repetitions():
    block = Chain(Conv(3), AvgPool(3, 1, padding=1), ndim=1)
    assert exact(block).error.kind == "relative"
    assert exact(block * 2).error.kind == "approximation"
    assert exact(Chain(Conv(3), AvgPool(2), ndim=1) * 2).error.kind == "relative"
