"""The default `exact`: every coefficient, tails included, against exact integers; any window."""

from __future__ import annotations

import math
from fractions import Fraction

import flint
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NETWORKS

from erftheory import (
    AvgPool,
    Branches,
    Chain,
    Conv,
    Residual,
    Upsample,
    counting,
    exact,
    moments,
    zoo,
)
from erftheory.theory.gains.prepare import prepare
from erftheory.theory.readings.counting import Counts
from erftheory.theory.readings.lattice import SupportAlgebra

ULP = 4 * 2.0**-52  # below this an error bound has nothing to say


def logs(weights) -> list:
    """log of each weight's share, as balls of 160 bits; None where the weight is 0."""
    before, flint.ctx.prec = flint.ctx.prec, 160
    try:
        total = Fraction(sum(weights))
        whole = flint.arb(total.numerator).log() - flint.arb(total.denominator).log()
        found = []
        for w in map(Fraction, weights):
            one = None if w == 0 else flint.arb(w.numerator).log() - flint.arb(w.denominator).log()
            found.append(None if one is None else one - whole)
        return found
    finally:
        flint.ctx.prec = before


def worst(found: np.ndarray, truth: list) -> float:
    """Largest relative error over all coefficients; holes must be holes."""
    before, flint.ctx.prec = flint.ctx.prec, 160
    try:
        error = 0.0
        for log, exact_log in zip(found, truth, strict=True):
            if exact_log is None:
                assert log == -math.inf
            else:
                error = max(error, abs(float((flint.arb(float(log)) - exact_log).expm1())))
        return error
    finally:
        flint.ctx.prec = before


def check(erf, truth, tight: float = 100) -> float:
    error = worst(erf.log_map, truth)
    assert error <= erf.error.value <= tight * max(error, ULP)
    assert erf.error.kind == "relative" and error <= 1e-10
    return error


@pytest.mark.parametrize("kernel", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("depth", [1, 2, 7, 64, 1024])
def test_every_coefficient_of_a_stack(kernel, depth):
    net = Chain(Conv(kernel), ndim=1) * depth
    truth = logs(counting(net).marginal(0))
    erf = exact(net)
    check(erf, truth)
    assert erf.method == ("convolution" if kernel * depth <= 400 else "tilted")
    held = np.array([-math.inf if t is None else float(t) for t in truth])
    seen = held > -700
    assert np.allclose(np.log(erf.map[seen]), held[seen], rtol=1e-13, atol=1e-10)


@pytest.mark.parametrize("method", ["tilted", "convolution"])
@pytest.mark.parametrize(
    "layers",
    [
        [(Conv(3, taps=(1, 2, 6)), 200)],
        [(Conv(4, taps=(1, 0, 0, 5)), 64)],
        [(Conv(5, taps=(0, 0.3, 0, 0.7, 0)), 50)],
        [(Conv(3, dilation=2), 32), (Conv(2, dilation=3), 32)],
        [(Conv(7, stride=2), 1), (Conv(3), 20), (Conv(3, stride=2), 1), (Conv(3), 30)],
        [(AvgPool(2), 1), (Conv(3, taps=(Fraction(1, 3), 5, Fraction(1, 7))), 90)],
        [(Residual(Conv(3)), 64)],
        [(Residual(Chain(Conv(3), Conv(3))), 1), (Conv(3, 2), 1), (Residual(Conv(5)), 8)],
        [(Branches(Conv(3), Conv(5, dilation=2)), 3), (Branches(Conv(1), Conv(9)), 1)],
    ],
    ids=[
        "skewed", "gapped", "zero edges", "dilations", "strides", "pool", "residual", "stages",
        "branches",
    ],
)  # fmt: skip
def test_both_routes_on_other_nets(layers, method):
    net = Chain(*(Chain(part) * count for part, count in layers), ndim=1)
    truth = logs(Counts(prepare(net, "variance", "he"), weighted=True).marginal(0))
    erf = exact(net, method=method)
    assert erf.method == method
    # a tilt's bound for a few pixels is further from the truth; the default convolves those
    check(erf, truth, tight=100 if method == "convolution" else 300)


@pytest.mark.parametrize(
    "net",
    [
        Chain(Conv(3, taps=(1, 1e-20, 1)), ndim=1) * 8,
        Chain(Chain(Conv(3)) * 64, Chain(Conv(3, dilation=129)) * 8, ndim=1),
        Chain(Chain(Conv(2, taps=(1, 1e-9))) * 130, Conv(2, dilation=200), ndim=1),
    ],
    ids=["rough taps", "gridding", "rough and deep"],
)
def test_where_no_tilt_helps(net):
    """Between neighbours of very different weight a transform sees noise; convolution does not."""
    truth = logs(counting(net).marginal(0))
    erf = exact(net)
    assert erf.method == "convolution"
    check(erf, truth)
    tilted = exact(net, method="tilted")
    assert tilted.error.value > 1e-9  # and it says so


@st.composite
def chains(draw):
    tap = st.sampled_from([0, 1, 2, 5, Fraction(1, 3), 0.3, 1e-3])
    parts = []
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.integers(1, 6))
        taps = draw(st.none() | st.lists(tap, min_size=size, max_size=size).filter(any))
        dilation, stride = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 1, 2]))
        conv = Conv(size, stride, dilation, taps=None if taps is None else tuple(taps))
        if stride == 1:
            times = draw(st.sampled_from([1, 1, 2, 9, 70]))
            branch = draw(st.booleans()) and draw(st.booleans())
            parts.append(Chain(Residual(conv) if branch else conv) * times)
        else:
            parts.append(conv)
    return Chain(*parts, ndim=1)


@given(chains(), st.sampled_from(["auto", "auto", "tilted"]))
@settings(max_examples=60)
def test_random_nets(net, method):
    walk = prepare(net, "variance", None)
    if walk.factors == ():
        return
    truth = logs(Counts(walk, weighted=True).marginal(0))
    erf = exact(net, init=None, method=method)
    error = worst(erf.log_map, truth) if math.isfinite(erf.error.value) else 0.0
    assert error <= erf.error.value
    if method == "auto":
        assert erf.error.value <= 1e-10
        assert erf.error.value <= 200 * max(error, ULP)


@pytest.mark.parametrize("signal", ["variance", "magnitude", "gradient"])
def test_maps_of_branching_nets_in_2d(signal):
    """Not a product of axes: every pixel against exact rational weights."""
    for name in ("residual", "taps", "projected", "inception", "nested"):
        net = NETWORKS[name]
        kind = "gradient" if signal == "gradient" else "variance"
        counts = Counts(prepare(net, kind, "he"), weighted=True)
        erf = exact(net, signal)
        truth = logs(counts.map.ravel().tolist())
        if signal == "magnitude":
            roots = np.sqrt(np.array(counts.map, dtype=float))
            assert np.allclose(erf.map, roots / roots.sum(), rtol=1e-12, atol=0)
        else:
            error = worst(erf.log_map.ravel(), truth)
            assert error <= erf.error.value <= 1e-12
        assert erf.method in ("convolution", "tilted")


def test_logs_go_on_below_the_smallest_float():
    faint = [[1e-6, 1, 1e-6], [1, 9, 1], [1e-6, 1, 1e-6]]
    erf = exact(Residual(Conv(3, taps=faint)) * 70)
    share = float(moments(Residual(Conv(3, taps=faint))).variance[0])
    one = share / ((2 + 4e-6) / (13 + 4e-6))  # probability of the branch
    assert erf.map[0, 0] == 0
    wanted = 70 * math.log(one * 1e-6 / (13 + 4e-6))
    assert erf.log_map[0, 0] == pytest.approx(wanted, rel=1e-12)
    deep = exact(Chain(Conv(3)) * 1024)
    assert deep.log_map[0, 0] == pytest.approx(-2048 * math.log(3), rel=1e-13)
    root = exact(Chain(Conv(3)) * 1024, "magnitude")
    assert root.log_map[0, 0] - root.log_map[1024, 1024] == pytest.approx(
        (deep.log_map[0, 0] - deep.log_map[1024, 1024]) / 2, rel=1e-12
    )


# windows


def binomial_log(depth: int, t: int, p: Fraction) -> float:
    """log of a binomial probability, in balls of 200 bits."""
    before, flint.ctx.prec = flint.ctx.prec, 200
    try:
        ways = flint.arb(depth + 1).lgamma() - flint.arb(t + 1).lgamma()
        ways -= flint.arb(depth - t + 1).lgamma()
        logs = [flint.arb(q.numerator).log() - flint.arb(q.denominator).log() for q in (p, 1 - p)]
        return float(ways + t * logs[0] + (depth - t) * logs[1])
    finally:
        flint.ctx.prec = before


@pytest.mark.parametrize("depth", [10**4, 10**6, 10**9])
@pytest.mark.parametrize("taps", [(1, 1), (3, 1), (1, 999)])
def test_any_depth_against_the_binomial(depth, taps):
    p = Fraction(taps[1], sum(taps))
    net = Chain(Conv(2, taps=taps, padding="valid"), ndim=1) * depth
    for window in ("7 std", 64, range(depth // 3, depth // 3 + 5)):
        erf = exact(net, window=window)
        inside = erf.metadata.get("inside", 1.0)
        size = erf.shape[0]
        for i in {0, size // 3, size // 2, size - 1}:
            wanted = binomial_log(depth, erf.offset[0] + i, p)
            got = erf.log_map[i] + (math.log(inside) if inside > 0 else -math.inf)
            if inside > 0:  # the far tail at 10^9 is below the smallest float
                assert got == pytest.approx(wanted, rel=1e-12, abs=1e-10)


def test_the_default_window_is_the_smallest_that_holds_all_but_1e_12():
    depth = 40_000
    net = Chain(Conv(3), ndim=1) * depth
    whole = exact(net, window=range(-depth, depth + 1))
    erf = exact(net)
    assert whole.error.outside == 0 and whole.shape == (2 * depth + 1,)
    first = erf.offset[0] - whole.offset[0]
    left = math.fsum(whole.map[:first])
    right = math.fsum(whole.map[first + erf.shape[0] :])
    assert left + right <= erf.error.outside <= 1e-12
    assert left + whole.map[first] > 0.98 * 5e-13  # one pixel less would leave out too much
    assert np.allclose(
        whole.map[first : first + erf.shape[0]], erf.map * erf.metadata["inside"], rtol=1e-11
    )


@pytest.mark.parametrize("signal", ["variance", "magnitude"])
def test_a_crop_is_a_crop(signal):
    net = Chain(Conv(3), Chain(Residual(Conv(3))) * 9, Conv(5, 2))
    whole = exact(net, signal)
    crop = exact(net, signal, window=(range(-3, 6), np.int64(7)))
    spot = tuple(
        slice(o - w, o - w + n) for o, w, n in zip(crop.offset, whole.offset, crop.shape)
    )
    cut = whole.map[spot]
    assert crop.shape == (9, 7) and crop.offset[0] == -3
    assert np.allclose(crop.map, cut / cut.sum(), rtol=1e-9)
    outside = 1 - cut.sum()
    assert crop.error.outside >= outside * (1 - 1e-9)
    if signal == "variance":
        assert crop.metadata["inside"] == pytest.approx(cut.sum(), rel=1e-10)


def test_bounds_for_what_lies_outside_hold_for_both_signals():
    net = Chain(Conv(3, taps=(1, 2, 6)), ndim=1) * 60
    for signal in ("variance", "magnitude"):
        whole = exact(net, signal)
        for window in ("2 std", "4 std", 9, range(20, 40)):
            erf = exact(net, signal, window=window)
            first = erf.offset[0] - whole.offset[0]
            inside = whole.map[first : first + erf.shape[0]].sum()
            assert erf.error.outside >= (1 - inside) * (1 - 1e-9)


def test_windows_of_deep_dilated_nets_know_their_holes():
    erf = exact(Chain(Conv(3, dilation=2), ndim=1) * 10**6)
    places = erf.offset[0] + np.arange(erf.shape[0])
    assert erf.holes is not None and (erf.holes == (places % 2 != 0)).all()
    deep = exact(Chain(Residual(Conv(3, dilation=4)), ndim=1) * 10**5)
    places = deep.offset[0] + np.arange(deep.shape[0])
    assert deep.holes is not None and (deep.holes == (places % 4 != 0)).all()


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.integers(1, 300))
def test_holes_of_deep_stacks_settle(taps, depth):
    """Adding a set to itself many times, by the settled pattern and by brute force."""
    bits = sum(1 << i for i, t in enumerate(taps) if t)
    if not bits:
        return
    found, _ = SupportAlgebra((10**6,)).power((bits, (0,)), depth)
    brute = {0}
    for _ in range(min(depth, 60)):
        brute = {a + i for a in brute for i, t in enumerate(taps) if t}
    if depth <= 60:
        assert {i for i in range(found.bit_length()) if found >> i & 1} == brute
    else:
        first = min(brute) // 60
        assert found.bit_count() >= len(brute) and found >> (depth * first) & 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": 0}, "window: got 0"),
        ({"window": "wide"}, "window: got 'wide'"),
        ({"window": (3, 3, 3)}, "window: got .* one entry or 2"),
        ({"window": range(900, 910)}, "window: got pixels 900 to 909; takes a range that meets"),
        ({"window": range(0, 8, 2)}, "window: got range"),
        ({"window": True}, "window: got True"),
        ({"method": "fft"}, "method: got 'fft'"),
    ],
)
def test_bad_arguments_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        exact(Conv(3) * 4, **arguments)
    assert "\n" not in str(caught.value)


def test_methods_that_do_not_apply_say_why():
    with pytest.raises(ValueError, match='method: got "tilted" for signed taps'):
        exact(Conv(3, taps=[[1, -2, 1]] * 3), "gradient", method="tilted")
    with pytest.raises(ValueError, match='method: got "tilted" for up-sampling'):
        exact(Chain(Upsample(2), Conv(3)), method="tilted")
    with pytest.raises(ValueError, match="more than one dimension"):
        exact(Residual(Conv(3)), method="tilted")
    with pytest.raises(ValueError, match="window: got deviations for up-sampling"):
        exact(Chain(Upsample(2), Conv(3)), window="3 std")


def test_published_nets_have_all_their_digits():
    for net in (zoo.vgg16(), zoo.resnet18()):
        erf = exact(net)
        assert erf.error.kind == "relative" and erf.error.value <= 1e-10
        plain = exact(net, method="spectrum")
        assert erf.distance(plain) <= plain.error.value
