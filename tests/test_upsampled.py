"""Readings behind up-sampling: moments by residue classes, maps on their own lattices."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from networks import NETWORKS

from erftheory import (
    AvgPool,
    Branches,
    Chain,
    Conv,
    ConvTranspose,
    MaxPool,
    Residual,
    Upsample,
    cumulants,
    exact,
    moments,
)
from erftheory.theory.gains.prepare import prepare
from erftheory.theory.readings.counting import Counts
from erftheory.theory.readings.phased import phased_moments
from erftheory.theory.readings.raw import raw_moments

RISING = {n: net for n, net in NETWORKS.items() if prepare(net, "variance", "he").restricted}


def of_counts(walk, position, order):
    """Raw moments of every pixel's exact weight."""
    counts = Counts(walk, position, weighted=True)
    rows = []
    for axis, first in enumerate(counts.offset):
        weights = [Fraction(w) for w in counts.marginal(axis)]
        rows.append(tuple(
            sum((w * (first + t) ** r for t, w in enumerate(weights)), Fraction(0))
            * walk.fine[axis] ** r
            for r in range(order + 1)
        ))  # fmt: skip
    return rows


@pytest.mark.parametrize("signal", ["variance", "gradient"])
@pytest.mark.parametrize("name", RISING)
def test_moments_of_every_phase_are_those_of_the_counts(name, signal):
    walk = prepare(RISING[name], signal, "he")
    for phase in list(product(*map(range, walk.phases)))[:6]:
        position = tuple(u * j for u, j in zip(phase, walk.jump))
        assert phased_moments(walk, 5, position) == of_counts(walk, position, 5)


@st.composite
def rising(draw):
    """1-D nets that go down and up, with skips, strides and dilations of all kinds."""
    k, s, d = (draw(st.integers(1, n)) for n in (4, 3, 3))
    up = draw(st.sampled_from([
        Upsample(s), Upsample(2, "bilinear"), ConvTranspose(k, s, dilation=d),
        ConvTranspose(4, 2, 1),
    ]))  # fmt: skip
    down = draw(st.sampled_from([Conv(k, s), MaxPool(2), AvgPool(2), Conv(3, dilation=d)]))
    part = draw(st.sampled_from([
        Chain(down, Conv(3), up), Chain(up, down), Chain(up, Residual(Conv(3, dilation=d))),
        Chain(Branches(None, Conv(3, taps=[1, 0, 2]), merge="sum"), up, up),
    ]))  # fmt: skip
    return Chain(Conv(2), part, draw(st.sampled_from([Conv(3), up])), ndim=1)


BETWEEN = Chain(*(ConvTranspose(2, 2, dilation=2),) * 2, ndim=1)  # writes to even pixels alone


@settings(max_examples=40, deadline=None)
@given(rising(), st.integers(-3, 3))
@example(BETWEEN, 1)
def test_drawn_nets_have_the_moments_and_the_map_of_their_counts(net, unit):
    walk = prepare(net, "variance", "he")
    if not walk.restricted:
        return
    position = tuple(unit * j for j in walk.jump)
    try:
        wanted = of_counts(walk, position, 4)
    except ValueError as unreached:
        assert "no input reaches" in str(unreached)
        return
    assert phased_moments(walk, 4, position) == wanted
    counts = Counts(walk, position, weighted=True)
    if not any(counts.map):
        with pytest.raises(ValueError, match="unit: got .* which no input reaches"):
            exact(net, unit=(unit,), method="convolution")
        return
    erf = exact(net, unit=(unit,), method="convolution")
    assert erf.offset == counts.offset and erf.method == "convolution"
    weights = np.array([float(w) for w in counts.map])
    assert erf.error.kind == "relative"
    np.testing.assert_allclose(erf.map, weights / weights.sum(), rtol=4 * erf.error.value)


@pytest.mark.parametrize("name", RISING)
def test_a_map_on_lattices_is_that_of_the_other_methods(name):
    phases = prepare(RISING[name], "variance", "he").phases
    for unit in list(product(*map(range, phases)))[:4]:
        ours = exact(RISING[name], unit=unit)
        assert ours.method == "convolution"
        for method in ("direct", "spectrum"):
            other = exact(RISING[name], unit=unit, method=method)
            assert ours.offset == other.offset
            np.testing.assert_allclose(ours.map, other.map, atol=1e-13)


def test_cumulants_behind_up_sampling_go_on_to_any_order():
    net = Chain(Conv(3, 2), Conv(3), Upsample(2), Conv(3), ndim=1)
    found = cumulants(net, order=7).values[0]
    erf = exact(net)
    place = erf.offset[0] + np.arange(len(erf.map))
    for r, raw in enumerate(raw_moments(found)):
        assert float(raw) == pytest.approx(float(erf.map @ place.astype(float) ** r), rel=1e-9)
    assert moments(net).variance[0] == found[1]


def test_signed_taps_behind_up_sampling():
    net = Chain(Conv(3, taps=[1, -3, 1]), Upsample(2), Conv(2, taps=[1, 2]), ndim=1)
    ours = exact(net, signal="gradient", init=None, method="convolution")
    other = exact(net, signal="gradient", init=None, method="direct")
    np.testing.assert_allclose(ours.map, other.map, atol=1e-13)


def test_a_window_is_a_share_of_the_units_own_signal():
    """Units of two phases see unequal masses; a window's share is of the unit's own."""
    net = Chain(Conv(3, 2), Conv(3), Upsample(2), ndim=1)
    for unit in (0, 1):
        whole = exact(net, unit=(unit,))
        spot = range(whole.offset[0] + 1, whole.offset[0] + 4)
        found = exact(net, unit=(unit,), window=spot)
        assert found.metadata["inside"] == pytest.approx(whole.map[1:4].sum(), rel=1e-12)
    assert exact(net, window=range(-3, 0)).metadata["inside"] == pytest.approx(4 / 9, rel=1e-12)


def test_blocks_nested_thousands_deep():
    """x + (x + (… + f(x))): 2,000 identities of amplitude 1, a power of 4 million."""
    net = Conv(3)
    for _ in range(2000):
        net = Residual(net)
    net = Chain(Conv(1, channels=4), net, ndim=1)
    depth, same = net.depth, hash(net) == hash(Chain(*net.parts, ndim=1))
    assert depth == 2002 and same
    wanted = np.array([1 / 3, 2000**2 + 1 / 3, 1 / 3])
    assert exact(net, init="lecun").map == pytest.approx(wanted / wanted.sum(), rel=1e-12)
