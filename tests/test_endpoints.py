"""Fields between two layers, several outputs, and lengths in physical units."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NETWORKS

from erftheory import (
    BatchNorm,
    Branches,
    Chain,
    Conv,
    ConvTranspose,
    GlobalAvgPool,
    MaxPool,
    Residual,
    Upsample,
    moments,
    receptive_field,
    zoo,
)
from erftheory.theory.endpoints import between
from erftheory.theory.summary import summary

LAYERS = st.builds(
    lambda k, s, d: Conv(k, s, d), st.integers(1, 4), st.integers(1, 3), st.integers(1, 2)
)


@given(st.lists(LAYERS, min_size=3, max_size=5), st.data())
@settings(max_examples=25, deadline=None)
def test_a_chain_between_two_layers_is_its_middle(layers, data):
    first = data.draw(st.integers(0, len(layers) - 2))
    last = data.draw(st.integers(first + 1, len(layers) - 1))
    net = Chain(*(layer.named(f"n{i}") for i, layer in enumerate(layers)), ndim=1)
    middle = layers[first + 1 : last + 1]
    size, jump, start = 1, 1, 0
    for layer in middle:
        span = layer.dilation * (layer.kernel - 1)
        size, start, jump = size + span * jump, start + span // 2 * jump, jump * layer.stride
    rf = receptive_field(net, source=f"n{first}", output=f"n{last}")
    assert (rf.size, rf.padding, rf.stride) == ((size,), (start,), (jump,))
    m = moments(net, source=f"n{first}", output=f"n{last}")
    variance, jump = Fraction(0), 1
    for layer in middle:
        variance += Fraction((layer.kernel**2 - 1) * (layer.dilation * jump) ** 2, 12)
        jump *= layer.stride
    assert m.variance == (variance,)


def block():
    return Residual(Chain(BatchNorm(), Conv(3)))


@pytest.mark.parametrize(
    "stages, name",
    [
        ([block().named("b0"), block(), block()], "b0"),
        ([(block() * 3).named("b")], "b[0]"),
        ([(block() * 3).named("b")], "[0]"),
    ],
)
def test_gains_are_those_of_the_whole_network(stages, name):
    """x' = x + conv(norm x) with weights of variance 1/fan_in adds 1 to Var x at each block, so
    block k carries 1/(k + 2) of the power along its branch, wherever the field is seen from."""
    if name == "[0]":
        net = Chain(stages[0], ndim=1)
        name = "b[0]"
    else:
        net = Chain(Conv(3).named("stem"), *stages, ndim=1)
    expected = Fraction(2, 3) * (Fraction(1, 3) + Fraction(1, 4))
    assert float(moments(net, init="lecun", source=name).variance[0]) == pytest.approx(expected)
    alone = Chain(block(), block(), ndim=1)
    assert float(moments(alone, init="lecun").variance[0]) == pytest.approx(Fraction(5, 9))


def test_paths_around_the_source_do_not_count():
    net = Chain(
        Conv(3).named("stem"), Branches(Conv(7), Chain(Conv(3).named("low"), Conv(5))), ndim=1
    )
    assert receptive_field(net, source="stem").size == (7,)
    assert receptive_field(net, source="low").size == (5,)
    assert moments(net, source="low").variance == (2,)
    inner = Chain(Residual(Chain(Conv(3).named("f"), Conv(3))), Conv(3), ndim=1)
    assert receptive_field(inner, source="f").size == (5,)
    assert moments(inner, source="f").variance == (Fraction(4, 3),)


def test_residual_networks_between_stages():
    net = zoo.resnet18()  # stage: 3x3/2, 3x3, 3x3, 3x3 along the longest path
    rf = receptive_field(net, source="layer1", output="layer2")
    assert (rf.size, rf.stride) == ((15, 15), (2, 2))  # 1 + 2·1 + 3·2·2
    assert receptive_field(net, output="layer1").size == (43, 43)
    assert between(net) is net
    for bad in ({"source": "layer9"}, {"output": "layer9"}):
        with pytest.raises(ValueError, match="^endpoint: got 'layer9'"):
            receptive_field(net, **bad)
    with pytest.raises(ValueError, match="^source: got 'layer3', which layer1 does not read"):
        receptive_field(net, source="layer3", output="layer1")


def test_up_sampling_makes_finer_pixels_than_the_source():
    net = Chain(Conv(3).named("low"), Upsample(2), Conv(3).named("high"), ndim=1)
    rf = receptive_field(net, source="low", output="high")
    assert rf.stride == (Fraction(1, 2),)
    assert rf.size == (2,)  # three pixels in a row meet two cells of two


def test_several_outputs_get_a_row_each():
    class Pyramid(Chain):
        outputs = ("fine", "coarse")

    net = Pyramid(Conv(3).named("fine"), Conv(3, 2), Conv(3).named("coarse"))
    rows = summary(net).rows
    assert [(r.name, r.receptive_field) for r in rows[-2:]] == [
        ("fine", (3, 3)),
        ("coarse", (9, 9)),
    ]
    assert receptive_field(net, output="fine").size == (3, 3)


def test_causal_nets_look_back_and_have_no_latency():
    rf = receptive_field(zoo.wavenet(), spacing="0.0625 ms")
    assert (rf.size, rf.lookback, rf.lookahead) == ((1024,), (1023,), (0,))
    assert rf.extent == (64.0,)
    assert "look-back 1023, latency 0 (63.94 ms, 0 ms)" in str(rf)
    pooled = receptive_field(Chain(Conv(3, padding="causal"), MaxPool(2), ndim=1))
    assert (pooled.lookback, pooled.lookahead) == ((2,), (1,))
    finer = receptive_field(Chain(ConvTranspose(2, 2), ndim=1))  # output 1 lies at 1/2, reads 0
    assert (finer.lookback, finer.lookahead) == ((Fraction(1, 2),), (0,))


def test_lengths():
    net = Conv((3, 5)) * 2
    rf = receptive_field(net, spacing=(0.5, 2))
    assert rf.extent == (2.5, 18.0)
    assert receptive_field(net, spacing="0.5 x 2 mm").extent == rf.extent
    m = moments(net, spacing=(0.5, 2))
    assert m.extent == pytest.approx((0.5 * math.sqrt(4 / 3), 2 * 2))
    text = str(summary(net, spacing="0.5 x 2 mm"))
    assert "RF mm" in text and "2.5 x 18" in text
    assert "RF mm" not in str(summary(net))
    with pytest.raises(ValueError, match="^spacing: got None"):
        receptive_field(net).extent  # noqa: B018
    for bad in (0, (1, 2, 3), "wide", "mm 1", -1.0, "1 x -2 mm", float("nan"), [True, 1]):
        with pytest.raises(ValueError, match="^spacing: got"):
            receptive_field(net, spacing=bad)


def test_a_global_operation_stays_unbounded():
    rf = receptive_field(Chain(Conv(3).named("a"), GlobalAvgPool()), source="a", spacing=2.0)
    assert rf.size == rf.extent == rf.lookback == (math.inf, math.inf)


def test_branches_that_see_less():
    net = Branches(Conv(1).named("narrow"), Conv(5).named("wide"))
    assert receptive_field(net).size == (5, 5)  # the union over channels
    assert receptive_field(net, output="narrow").size == (1, 1)
    assert receptive_field(NETWORKS["unequal 3-D"]).size == (5, 27, 27)
