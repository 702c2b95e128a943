"""Descriptions: what is refused, immutability, value equality, addressing."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from erftheory import (
    Activation,
    AvgPool,
    BatchNorm,
    Branches,
    Chain,
    Conv,
    ConvTranspose,
    Dropout,
    MaxPool,
    Residual,
    Upsample,
    counting,
    exact,
    moments,
    receptive_field,
    zoo,
)

BAD = [
    (lambda: Conv(0), "kernel: got 0"),
    (lambda: Conv(-3), "kernel: got -3"),
    (lambda: Conv(2.5), "kernel: got 2.5"),
    (lambda: Conv(True), "kernel: got True"),
    (lambda: Conv("3"), "kernel: got '3'"),
    (lambda: Conv((3, 0)), r"kernel\[1\]: got 0"),
    (lambda: Conv((3, 3, 3, 3)), "kernel: got 4 entries"),
    (lambda: Conv(3, 0), "stride: got 0"),
    (lambda: Conv(3, 1.5), "stride: got 1.5"),
    (lambda: Conv(3, dilation=0), "dilation: got 0"),
    (lambda: Conv(3, padding=-1), "padding: got -1"),
    (lambda: Conv(3, padding="full"), "padding: got 'full'"),
    (lambda: Conv((3, 3), padding=((1, 1),)), "padding: got 1 axes"),
    (lambda: Conv(3, padding=((1, 1, 1), 1)), r"padding\[0\]: got 3 entries"),
    (lambda: Conv((3, 3), (1, 1, 1)), "stride: got 3 axes"),
    (lambda: Conv(3, channels=0), "channels: got 0"),
    (lambda: Conv(3, channels=6, groups=4), "groups: got 4"),
    (lambda: Conv(3, taps=[1, 2]), r"taps: got shape \(2,\)"),
    (lambda: Conv(3, taps=[[1, 2], [3]]), "taps"),
    (lambda: Conv(3, taps=[0, 0, 0]), "taps: got all zeros"),
    (lambda: Conv(3, taps=[1, float("nan"), 1]), r"taps\[2?1?.*\]?: got nan"),
    (lambda: Conv(3, taps=["a", 1, 1]), "taps"),
    (lambda: Conv((3, 3), taps=[1, 2, 1]), "taps: got"),
    (lambda: MaxPool(0), "kernel: got 0"),
    (lambda: AvgPool(2, count_include_pad="no"), "count_include_pad: got"),
    (lambda: ConvTranspose(2, 2, padding="same"), "padding: got 'same'"),
    (lambda: ConvTranspose(2, 2, output_padding=-1), "output_padding: got -1"),
    (lambda: Upsample(0), "factor: got 0"),
    (lambda: Upsample(2, "cubic"), "mode: got 'cubic'"),
    (lambda: Upsample(2, align_corners=True), "align_corners: got True"),
    (lambda: Activation("swishy"), "name: got 'swishy'"),
    (lambda: Dropout(1.0), "rate: got 1.0"),
    (lambda: Chain(), "parts: got none"),
    (lambda: Chain(3), r"parts\[0\]: got 3"),
    (lambda: Chain(Conv(3), ndim=4), "ndim: got 4"),
    (lambda: Chain(Conv((3, 3)), ndim=1), "ndim: got parts of 1 and 2"),
    (lambda: Chain(Conv((3, 3)), Conv((3, 3, 3))), "ndim: got parts of 2 and 3"),
    (lambda: Conv(3) * 0, "times: got 0"),
    (lambda: Conv(3) * 1.5, "times: got 1.5"),
    (lambda: Residual(Conv(3), gain=0), "gain: got 0"),
    (lambda: Residual(Conv(3, padding="valid")), "branch: got an output of another size"),
    (lambda: Residual(Conv(3, 2)), "branch: got stride 2"),
    (lambda: Branches(), "branches: got none"),
    (lambda: Branches(Conv(3), merge="mean"), "merge: got 'mean'"),
    (lambda: Branches(Conv(3, 2), Conv(3)), r"branches\[0\]: got stride 2"),
    (
        lambda: Branches(Conv(3), Conv(3, padding=0)),
        r"branches\[0\]: got an output of another size",
    ),
    (lambda: Conv(3).named("a b"), "name: got 'a b'"),
    (lambda: Conv(3).named("a").until("b"), "endpoint: got 'b'; takes one of: a"),
]


@pytest.mark.parametrize("index", range(len(BAD)))
def test_bad_arguments_get_one_line(index):
    build, message = BAD[index]
    with pytest.raises(ValueError, match=f"^{message}") as error:
        build()
    assert "\n" not in str(error.value)
    assert "takes" in str(error.value) or "ndim" in message


def test_sizes_that_only_sometimes_agree_are_legal():
    Branches(MaxPool(2), Conv(3, 2))  # ⌊n/2⌋ and ⌈n/2⌉ agree for even n


def test_ndim():
    assert Conv(3).ndim == 2
    assert (Chain(Conv(3), ndim=1) * 64).ndim == 1
    assert Conv((3, 3, 3)).ndim == 3
    assert Conv((3,), taps=[1, 2, 1]).ndim == 1 == Conv(3, stride=(1,), taps=[1, 2, 1]).ndim
    assert Chain(Conv(3), Residual(Conv((3, 3, 3)))).graph.ndim == 3


@pytest.mark.parametrize("layer", [Conv, ConvTranspose])
def test_flat_taps_are_one_axis_only_where_that_is_stated(layer):
    """A 3 by 3 kernel of 1, 2, 1 an axis may have been meant: `Conv(3)` alone is 2-D."""
    flat = layer(3, taps=[2, 1, 2])
    for undecided in (
        flat,
        flat * 3,
        Chain(flat, Conv(3)),
        Residual(Chain(Activation("relu"), layer(3, padding=1, taps=[2, 1, 2]).named("a"))),
        Chain(flat.named("a"), Conv(3)).until("a"),
    ):
        for reading in (moments, receptive_field, exact, lambda net: net.graph):
            with pytest.raises(ValueError, match="^taps: got a flat sequence.*ndim=1") as wrong:
                reading(undecided)
            assert "\n" not in str(wrong.value)
    assert flat.axes == 1 and "taps=[2, 1, 2]" in repr(flat)  # legal until something reads it
    wanted = moments(Chain(flat, ndim=1)).variance
    for stated in (
        layer((3,), taps=[2, 1, 2]),
        layer(3, dilation=(1,), taps=[2, 1, 2]),
        Chain(flat, Conv(1, stride=(1,))),
        Chain(Chain(flat.named("a")), Conv(3), ndim=1).until("a"),
        Chain(Chain(flat), ndim=1),
    ):
        assert stated.ndim == 1 and moments(stated).variance == wanted
    assert layer(3, taps=[[2, 1, 2]] * 3).ndim == 2
    with pytest.raises(ValueError, match="^ndim: got parts of"):
        Chain(flat, Conv((3, 3)))
    one = np.ones((1, 1, 3))  # the shape (out, in, k) of weights states its axes
    assert layer(3, weights=one).ndim == 1


def test_values():
    def build():
        return Chain(
            Conv(3, channels=8), Activation("relu"), Residual(Conv(3), gain=Fraction(1, 2)) * 3
        )

    assert build() == build()
    assert hash(build()) == hash(build())
    assert build() != Chain(Conv(3, channels=9))
    assert Conv(3, taps=np.array([1, 2, 1])) == Conv(3, taps=[1, 2, 1])
    with pytest.raises(AttributeError):
        build().parts = ()
    with pytest.raises(AttributeError):
        Conv(3).kernel = 5  # type: ignore[misc]


def test_repr_reads_back():
    net = Chain(
        Conv(3, 2, padding=((1, 0), 1), channels=4, groups=2),
        BatchNorm(),
        Residual(Conv(1), shortcut=Conv(1), gain=2.0) * 2,
        Branches(None, MaxPool(3, 1, padding=1), merge="sum").named("mix"),
        Conv(3, taps=[[1, 2, 1], [0, 1, 0], [1, 2, 1]]),
    )
    names = {c.__name__: c for c in (Chain, Conv, BatchNorm, Residual, Branches, MaxPool)}
    assert eval(repr(net), names) == net


def test_an_operation_read_twice_is_stored_once():
    graph = Branches(Conv(3), None, Conv(5), merge="sum").graph
    assert len(graph.nodes) == 4
    assert len((Conv(3) * 10**6).graph.nodes) == 2


def test_until():
    net = Chain(
        Conv(7, 2).named("stem"),
        (Residual(Conv(3).named("conv")) * 3).named("layer1"),
        Chain(Conv(3, 2), Conv(3)).named("layer2"),
    )
    sizes = [receptive_field(net.until(n)).size[0] for n in ("stem", "layer1", "layer2")]
    assert sizes == [7, 7 + 3 * 4, 7 + 3 * 4 + 4 + 8]
    assert receptive_field(net.until("layer1[1]")).size[0] == 7 + 2 * 4
    assert receptive_field(net.until("layer1[1]/conv")).size[0] == 7 + 2 * 4
    assert counting(net.until("layer1[1]/conv")).total == 49 * 10 * 9
    deep = Chain(Conv(3), ndim=1).named("a")
    assert Chain(deep, Conv(3)).until("a").ndim == 1


def test_summary():
    net = Chain(Conv(3), Activation("relu"), MaxPool(2), Conv(3) * 4)
    rows = net.summary().rows
    assert [r.receptive_field[0] for r in rows] == [3, 4, 20]
    assert [r.jump[0] for r in rows] == [1, 2, 2]
    assert rows[-1].std[0] == pytest.approx((2 / 3 + 1 / 4 + 4 * 4 * 2 / 3) ** 0.5)
    assert "RF" in str(net.summary())
    assert net._repr_html_().startswith("<table>")


def test_the_rows_of_blocks_are_their_endpoints():
    """The activation behind a sum changes its width: the name says the block with it."""
    net = zoo.resnet18()
    rows = {row.name: row for row in net.summary().rows}
    for name in ("layer2/first", "layer4/rest"):
        assert rows[name].layer == "sum, relu"
        assert rows[name].std == pytest.approx(moments(net.until(name)).std, rel=1e-12)
    assert net.summary().rows[-1].std == pytest.approx(moments(net).std, rel=1e-12)


def test_depth_a_billion_is_closed():
    deep = Conv(3) * 10**9
    assert receptive_field(deep).size == (2 * 10**9 + 1,) * 2
