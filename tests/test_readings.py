"""Every reading of every network against brute force, and the exact engines against counting."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from networks import NETWORKS, network, unet
from oracle import weights

from erftheory import (
    AvgPool,
    Branches,
    Chain,
    Conv,
    ConvTranspose,
    GlobalAvgPool,
    MaxPool,
    Residual,
    Upsample,
    counting,
    exact,
    moments,
    receptive_field,
)

names = pytest.mark.parametrize("name", NETWORKS)


def dense(found: dict, offset, shape) -> np.ndarray:
    out = np.zeros(shape, dtype=object)
    for t, v in found.items():
        out[tuple(i - o for i, o in zip(t, offset))] = v
    return out


@names
def test_counting_equals_brute_force(name):
    net = NETWORKS[name]
    counts = counting(net)
    assert (counts.map == dense(weights(net), counts.offset, counts.shape)).all()
    for axis in range(net.ndim):
        others = tuple(a for a in range(net.ndim) if a != axis)
        assert list(counts.map.sum(axis=others) if others else counts.map) == counts.marginal(axis)


@names
@pytest.mark.parametrize("method", ["spectrum", "direct"])
def test_exact_equals_counting(name, method):
    net = NETWORKS[name]
    counts = counting(net)
    truth = (counts.map / counts.map.sum()).astype(float)
    erf = exact(net, "gradient", init=None, method=method)
    assert erf.offset == counts.offset
    assert np.abs(erf.map - truth).sum() <= erf.error.value
    seen = truth > 1e-6 * truth.max()
    assert (np.abs(erf.map - truth)[seen] / truth[seen]).max() <= 1e-8
    assert ((erf.map == 0) >= (truth == 0)).all()  # holes are exact zeros


@given(network())
@settings(max_examples=60)
def test_random_networks(net):
    found = weights(net)
    counts = counting(net)
    assert (counts.map == dense(found, counts.offset, counts.shape)).all()
    truth = (counts.map / counts.map.sum()).astype(float)
    for method in ("spectrum", "direct"):
        erf = exact(net, "gradient", init=None, method=method)
        assert np.abs(erf.map - truth).sum() <= erf.error.value
        seen = truth > 1e-6 * truth.max()
        assert (np.abs(erf.map - truth)[seen] / truth[seen]).max() <= 1e-8
    m = moments(net, "gradient", init=None)
    for axis in range(net.ndim):
        mean, variance, kurtosis = brute_moments(found, axis)
        assert m.mean[axis] == mean
        assert m.variance[axis] == variance
        assert m.excess_kurtosis[axis] == kurtosis


def brute_moments(found: dict, axis: int):
    mass = Fraction(sum(found.values()))
    mean = sum(v * t[axis] for t, v in found.items()) / mass
    central = [sum(v * (t[axis] - mean) ** r for t, v in found.items()) / mass for r in range(5)]
    return mean, central[2], central[4] / central[2] ** 2 - 3 if central[2] else None


@names
def test_moments_equal_brute_force(name):
    net = NETWORKS[name]
    found = weights(net)
    m = moments(net, "gradient", init=None)
    for axis in range(net.ndim):
        assert (m.mean[axis], m.variance[axis], m.excess_kurtosis[axis]) == brute_moments(
            found, axis
        )


@names
def test_moments_equal_the_map(name):
    net = NETWORKS[name]
    m, erf = moments(net), exact(net)
    assert m.std == pytest.approx(erf.std, rel=1e-9)
    assert [float(x) for x in m.mean] == pytest.approx(erf.mean, abs=1e-9)


# the field of aligned corners is larger than what its weights on the plane reach, see below
@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"aligned corners"}))
def test_receptive_field_is_the_extent_of_the_paths(name):
    net = NETWORKS[name]
    rf = receptive_field(net)
    phases = list(np.ndindex(*(round(len(rf.phases) ** (1 / net.ndim)),) * net.ndim))
    for unit, phase in zip(phases, rf.phases):
        found = weights(net, tuple(map(int, unit)))
        for axis in range(net.ndim):
            places = [t[axis] for t in found]
            assert -phase.padding[axis] == min(places)
            assert phase.size[axis] == max(places) - min(places) + 1
    assert rf.size == tuple(map(max, zip(*(p.size for p in rf.phases))))


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_the_field_of_aligned_corners_is_all_that_is_read_on_any_map(factor):
    """Output o of n pixels lies at o (n − 1) / (f n − 1), with exact fractions; its ends apart."""
    reads = {phase: set() for phase in range(factor)}
    for n in range(3, 40):
        for o in range(factor, factor * (n - 1)):
            low, rest = divmod(o * (n - 1), factor * n - 1)
            place = o // factor
            reads[o % factor] |= {low - place} | ({low + 1 - place} if rest else set())
    field = receptive_field(Chain(Upsample(factor, "bilinear", align_corners=True), ndim=1))
    for phase, found in zip(field.phases, reads.values(), strict=True):
        assert phase.padding == (-min(found),) and phase.size == (max(found) - min(found) + 1,)


def test_known_fields():
    dilated = receptive_field(NETWORKS["dilated"])
    assert (dilated.size, dilated.center) == ((31, 31), (0.0, 0.0))
    assert receptive_field(unet(2)).size == (44, 44)
    assert receptive_field(NETWORKS["unequal 3-D"]).size == (5, 27, 27)
    wavenet = Chain(*(Conv(2, dilation=2**i, padding="causal") for i in range(10)), ndim=1)
    assert receptive_field(wavenet).size == (1024,)
    assert receptive_field(wavenet).padding == (1023,)
    assert not receptive_field(NETWORKS["misaligned"]).aligned
    assert receptive_field(NETWORKS["residual"]).aligned
    assert receptive_field(Chain(Upsample(2), Conv(3))).stride == (Fraction(1, 2),) * 2


def test_bilinear_unet_depends_on_the_phase():
    net = unet(2, lambda: Chain(Upsample(2, "bilinear"), Conv(1)))
    assert {p.size for p in receptive_field(net).phases} == {
        (a, b) for a in (48, 52) for b in (48, 52)
    }


def test_gridding_has_extent_and_holes():
    erf = exact(NETWORKS["gridding"])
    assert erf.shape == (17, 17)
    assert (~erf.holes).sum() == 25
    assert counting(NETWORKS["gridding"]).touched.sum() == 25


def test_zero_taps_count_for_the_field():
    net = Chain(Conv(3, taps=[0, 1, 0]), ndim=1)
    assert receptive_field(net).size == (3,)
    assert list(counting(net).touched) == [False, True, False]


def test_global_operation_is_unbounded():
    net = Chain(Conv(3), GlobalAvgPool())
    rf = receptive_field(net)
    assert rf.size == (math.inf, math.inf)
    assert "unbounded" in str(rf)
    for reading in (moments, counting, exact):
        with pytest.raises(ValueError, match="global"):
            reading(net)


def test_counting_is_exact_at_depth_2000():
    counts = counting(Chain(Conv(3), ndim=1) * 2000)
    assert counts.total == 3**2000
    assert counts.map[:3].tolist() == [1, 2000, 2000 * 2001 // 2]


def test_magnitude_is_the_root_of_the_variance():
    for net in (Conv(3) * 5, Residual(Conv(3), gain=2) * 3):
        v = exact(net).map
        root = np.sqrt(v) / np.sqrt(v).sum()
        assert exact(net, "magnitude").map == pytest.approx(root, rel=1e-12)


def test_fixed_layers_compose_before_squaring():
    two = exact(Chain(Conv(1), AvgPool(2, 1), AvgPool(2, 1), Conv(1), ndim=1))
    assert two.map == pytest.approx(np.array([1, 4, 1]) / 6)  # (1, 2, 1)², not (1, 2, 1)
    one = exact(Chain(AvgPool(2, 1), Conv(1), AvgPool(2, 1), ndim=1))
    assert one.map == pytest.approx(np.array([1, 4, 1]) / 6)  # one weight for all pixels
    parallel = Branches(AvgPool(3, 1, padding=1), None, merge="sum")
    both = exact(Chain(Conv(1), parallel, Conv(1), ndim=1), init=None)
    assert both.map == pytest.approx(np.array([1, 4, 1]) / 6)


def test_gain_is_the_mass_ratio():
    for gain in (Fraction(1, 3), 2):
        net = Chain(Residual(Conv(3), gain=gain), ndim=1) * 4
        expected = 4 * Fraction(2, 3) * gain / (1 + gain)
        assert moments(net).variance[0] == expected
        line = np.array([1, 1, 1]) * float(gain) / 3 + np.array([0, 1, 0])
        power = np.array([1.0])
        for _ in range(4):
            power = np.convolve(power, line)
        assert exact(net).map == pytest.approx(power / power.sum(), rel=1e-12)


def test_signed_taps():
    net = Chain(Conv(3, taps=[-1, 4, -1]), ndim=1) * 3
    truth = np.array([1.0])
    for _ in range(3):
        truth = np.convolve(truth, [-1, 4, -1])
    for method in ("spectrum", "direct"):
        found = exact(net, "gradient", method=method).map
        assert found == pytest.approx(truth / truth.sum(), abs=1e-13)
    with pytest.raises(ValueError, match="^taps: "):
        exact(net)
    with pytest.raises(ValueError, match="mass"):
        exact(Conv((3,), taps=[1, -2, 1]), "gradient")
    with pytest.raises(ValueError, match="mass"):
        moments(Conv((3,), taps=[1, -2, 1]), "gradient")


def test_float_taps_are_binary_rationals():
    m = moments(Conv((3,), taps=[0.1, 0.2, 0.3]))
    v = [Fraction(x) for x in (0.1, 0.2, 0.3)]
    mean = sum(a * x for a, x in enumerate(v)) / sum(v) - 1
    assert m.mean[0] == mean


def test_long_kernels_span_several_tables():
    taps = list(range(1, 52))
    truth = np.convolve(taps, taps[::-1])
    net = Chain(Conv(51, taps=taps), Conv(51, taps=taps[::-1]), ndim=1)
    assert exact(net).map == pytest.approx(truth / truth.sum(), rel=1e-11)


def test_phase_of_the_unit():
    net = Chain(ConvTranspose(3, 2), ndim=1)
    for unit in range(-3, 4):
        erf, found = exact(net, unit=(unit,)), weights(net, (unit,))
        assert erf.offset == (min(t[0] for t in found),)
        assert erf.shape == (len(found),)


def test_depth_is_data():
    import jax

    exact(Chain(Conv(3), ndim=1) * 60)
    exact(Chain(Conv(11), ndim=1) * 7)  # more taps than one table
    counter = []
    with jax.log_compiles(False):
        listener = lambda name, *_, **__: counter.append(name) if "compile" in name else None  # noqa: E731
        jax.monitoring.register_event_duration_secs_listener(listener)
        exact(Chain(Conv(3), ndim=1) * 55)
        exact(Chain(Conv(3, taps=[1, 5, 2]), ndim=1) * 58)
        exact(Chain(Conv(5, dilation=3), Conv(4, 2), Conv(7, 3), Conv(11), ndim=1))
        exact(Chain(Conv(3), MaxPool(2), ndim=1) * 5)
    assert not counter


def test_bad_arguments():
    for kwargs, word in [
        ({"signal": "power"}, "signal"),
        ({"init": "zeros"}, "init"),
        ({"method": "magic"}, "method"),
        ({"unit": (1, 2, 3)}, "unit"),
    ]:
        with pytest.raises(ValueError, match=f"^{word}: got"):
            exact(Conv(3), **kwargs)
    with pytest.raises(ValueError, match="^signal: got"):
        moments(Conv(3), "magnitude")
    with pytest.raises(ValueError, match="^network: got"):
        exact("conv")  # type: ignore[arg-type]


def test_array_shapes_are_checked():
    from erftheory.theory.plane.spectrum import _add

    ones = np.ones(4, np.complex64)
    assert _add(ones, 2.0, ones).shape == (4,)
    with pytest.raises(Exception, match="_add"):
        _add(ones, 2.0, ones[:3])
    with pytest.raises(Exception, match="_add"):
        _add(ones, ones, ones)
