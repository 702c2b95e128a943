"""Paths without random weights that meet again: amplitudes add before they are squared."""

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
    MaxPool,
    Residual,
    Upsample,
    cumulants,
    exact,
    moments,
)
from erftheory.network.graph import Builder, Concat, Sum
from erftheory.network.imported import GraphNetwork, Scale
from erftheory.theory.gains.between import between

THREE = (1, 1, 1)


def power(*paths: tuple[int, tuple[int, ...]]) -> list[Fraction]:
    """Powers of an identity of an amplitude beside random kernels, as shares: (weight, taps)."""
    size = max(len(taps) for _, taps in paths)
    total = [Fraction(0)] * size
    for weight, taps in paths:
        for i, tap in enumerate(taps):
            total[(size - len(taps)) // 2 + i] += Fraction(weight * tap, sum(taps))
    return [t / sum(total) for t in total]


def middle(part, channels=4):
    return Chain(Conv(1, channels=channels), part, Conv(1), ndim=1)


CASES = {
    # x + (x + f): 2 on the identity
    "nested": (Residual(Residual(Conv(3))), power((4, (1,)), (1, THREE))),
    "two identities": (Branches(None, None, Conv(3), merge="sum"), power((4, (1,)), (1, THREE))),
    # x + (1 + c)³ x: 1 + 1, then 3 c, 3 c² and c³, each power once
    "around a repetition": (
        Residual(Residual(Conv(3)) * 3),
        power((4, (1,)), (3, THREE), (3, (1, 2, 3, 2, 1)), (1, (1, 3, 6, 7, 6, 3, 1))),
    ),
    "a pool of one pixel": (Residual(AvgPool(1)), [Fraction(1)]),
    "one tap beside f": (
        Branches(Chain(AvgPool(1), AvgPool(1)), None, Conv(3), merge="sum"),
        power((4, (1,)), (1, THREE)),
    ),
    # (1 + 1/3)² in the middle, 1/9 beside it
    "an average": (Residual(AvgPool(3, 1, padding=1)), [Fraction(n, 18) for n in (1, 16, 1)]),
    # 1 + 2/3 + 1/3 in the middle
    "a maximum": (Residual(MaxPool(3, 1, padding=1)), [Fraction(n, 8) for n in (1, 6, 1)]),
    # a gate of 1/2: 1 + 2·1/2·1/3 + 1/2·1/9 in the middle, 1/18 beside it
    "a gated average": (
        Chain(Conv(1), Residual(Chain(Activation("relu"), AvgPool(3, 1, padding=1)))),
        [Fraction(n, 27) for n in (1, 25, 1)],
    ),
}


@pytest.mark.parametrize("image", [None, 21])
@pytest.mark.parametrize("name", CASES)
def test_amplitudes_add_where_paths_meet(name, image):
    network, wanted = CASES[name]
    erf = exact(middle(network), init="lecun", image=image)
    assert erf.error.kind == "relative"
    assert erf.map[erf.map > 0] == pytest.approx([float(w) for w in wanted], rel=1e-12)
    if image is None:
        place = [i - len(wanted) // 2 for i in range(len(wanted))]
        variance = sum(w * i * i for w, i in zip(wanted, place))
        found = moments(middle(network), init="lecun").variance[0]
        assert float(found) == pytest.approx(float(variance), rel=1e-12)
        assert cumulants(middle(network), init="lecun").values[0][1] == found


def test_the_paths_of_two_maxima_share_a_pixel_of_both_windows():
    """E[(J + J′)²] at the pixel t of the one-pixel unit: every window of either holds t = o − a."""
    pools = Branches(MaxPool(3, 1, padding=1), MaxPool(5, 1, padding=2), merge="sum")
    windows = [set(range(-1, 2)), set(range(-2, 3))]
    wanted = np.zeros(5)
    for t in range(-2, 3):
        for one in windows:
            for two in windows:
                if t in one and t in two:
                    wanted[t + 2] += 1 / len(one | two)
    erf = exact(middle(pools), init="lecun")
    assert erf.map == pytest.approx(wanted / wanted.sum(), rel=1e-12)


@pytest.mark.parametrize("factor", [0.2, -0.2, -1.0, 3.0])
@pytest.mark.parametrize("image", [None, 15])
def test_factors_and_signs_of_imported_models_count(factor, image):
    """x + factor·x + f(x), and x + factor·average(x): (1 + factor)² and (δ + factor f)²."""

    def net(*branches):
        builder = Builder(1)
        start = builder.add(Conv(1, channels=4), (0,))
        ends = [start]
        for branch in branches:
            at = start
            for op in branch:
                at = builder.add(op, (at,))
            ends.append(at)
        total = builder.add(Sum(), tuple(ends))
        return GraphNetwork(builder.finish(builder.add(Conv(1), (total,))))

    if factor != -1:
        erf = exact(net([Scale(factor)], [Conv(3, channels=4)]), init="lecun", image=image)
        wanted = np.array([1 / 3, (1 + factor) ** 2 + 1 / 3, 1 / 3])
        assert erf.map[erf.map > 0] == pytest.approx(wanted / wanted.sum(), rel=1e-12)
    average = [AvgPool(3, 1, padding=1), Scale(factor)]
    erf = exact(net(average), init="lecun", image=image)
    wanted = (np.array([0, 1, 0]) + factor * np.ones(3) / 3) ** 2
    assert erf.map[erf.map > 0] == pytest.approx(wanted / wanted.sum(), rel=1e-12)


def test_channels_that_a_concatenation_keeps_apart_do_not_add():
    """x + (x + [f, g]): every channel has the identity twice, whatever it is joined with."""
    builder = Builder(1)
    x = builder.add(Conv(1, channels=4), (0,))
    f = builder.add(Conv(3, channels=2), (x,))
    g = builder.add(Conv(3, channels=2), (x,))
    joined = builder.add(Concat(), (f, g))
    inner = builder.add(Sum(), (x, joined))
    outer = builder.add(Sum(), (x, inner))
    network = GraphNetwork(builder.finish(builder.add(Conv(1), (outer,))))
    wanted = [float(w) for w in power((4, (1,)), (1, THREE))]
    assert exact(network, init="lecun").map == pytest.approx(wanted, rel=1e-12)


def test_repetitions_have_the_gains_of_their_copies():
    inner = Residual(Residual(Conv(3)))
    loop = middle(Residual(inner * 2, Conv(1)))
    copies = middle(Residual(Chain(inner, inner), Conv(1)))
    assert exact(loop, init="lecun").map == pytest.approx(
        exact(copies, init="lecun").map, rel=1e-12
    )


def test_an_explicit_gain_counts_the_power_of_what_meets():
    """Branch and shortcut of equal power: half of [1, 13, 1]/15, half of [1, 1, 1]/3."""
    branch = Chain(Residual(Residual(Conv(3))), Conv(1))
    erf = exact(middle(Residual(branch, Conv(3), gain=1)), init="lecun")
    assert erf.map == pytest.approx([0.2, 0.6, 0.2], rel=1e-12)


def test_the_forward_pass_adds_amplitudes_too():
    """2x + f has variance 5, by which a batch norm divides: the branch has its power over 5."""
    inner = Residual(Residual(Conv(3)))
    net = middle(Residual(Chain(inner, BatchNorm(), Conv(3))))
    branch = np.convolve(power((4, (1,)), (1, THREE)), np.ones(3) / 3).astype(float)
    wanted = np.array([0, 0, 1, 0, 0]) + branch * 5 / 5
    assert exact(net, init="lecun").map == pytest.approx(wanted / wanted.sum(), rel=1e-12)
    plain = middle(Residual(Chain(inner, Conv(3))))  # without the norm the branch has five times it
    wanted = np.array([0, 0, 1, 0, 0]) + branch * 5
    assert exact(plain, init="lecun").map == pytest.approx(wanted / wanted.sum(), rel=1e-12)


def test_a_part_of_a_network_has_one_answer():
    """The gains are those of the whole network, in every reading."""
    from erftheory import advise, approximate, berry_esseen

    b = Residual(Chain(BatchNorm(), Activation("relu"), Conv(3)))
    part = between(Chain(Conv(3), b, b, b.named("a"), b, b, ndim=1), "a")
    variance = float(moments(part).variance[0])
    assert variance == pytest.approx(0.2486, abs=5e-5)
    assert float(cumulants(part).values[0][1]) == variance
    assert exact(part).std[0] ** 2 == pytest.approx(variance, rel=1e-12)
    assert part.summary().rows[-1].std[0] ** 2 == pytest.approx(variance, rel=1e-12)
    near = approximate(part, kind="saddlepoint")
    assert near.std[0] ** 2 == pytest.approx(variance, rel=0.2)  # 0.57 without the whole's gains
    assert berry_esseen(part) is not None
    layers = advise(part, 20).layers
    assert layers[0].erf == (0.0,) and 0 < layers[-1].erf[0] < 4.97 * variance**0.5


def test_a_feature_pyramid_is_its_levels():
    """Coarse maps are up-sampled and added to finer ones: correlated gradients of several ports."""
    from covariance import judge

    builder = Builder(1)

    def add(network, source):
        return network.lower(builder, source, "")

    c1 = add(Conv(3, 2, channels=2), 0)
    c2 = add(Conv(3, 2, channels=2), c1)
    lateral = [add(Conv(1, channels=2), c) for c in (c1, c2)]
    top = builder.add(Sum(), (lateral[0], add(Upsample(2, "bilinear"), lateral[1])))
    pyramid = GraphNetwork(builder.finish(add(Conv(3, channels=1), top)))
    # the same as a description that the referee can read
    deeper = Chain(Conv(3, 2, channels=2), Conv(1, channels=2), Upsample(2, "bilinear"))
    net = Chain(Conv(3, 2, channels=2), Branches(Conv(1, channels=2), deeper, merge="sum"),
                Conv(3, channels=1), ndim=1)  # fmt: skip
    for image in (None, 16):
        found = exact(pyramid, init="lecun", image=image)
        assert found.map == pytest.approx(exact(net, init="lecun", image=image).map, rel=1e-12)
        judged = judge(net, image=image, init="lecun")
        mine = judged.over(found.offset, found.map.shape)
        assert found.error.kind == "relative"
        assert found.map == pytest.approx(mine / mine.sum(), abs=1e-13)
        assert float(moments(pyramid, init="lecun").variance[0]) > 0
