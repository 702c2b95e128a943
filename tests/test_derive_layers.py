"""Derivations of layers and kernels against the other engines, which read real networks."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from erftheory import counting, derive, enumerated, exact, moments, receptive_field
from erftheory.network.base import Chain
from erftheory.network.layers import AvgPool, Conv, Dropout, MaxPool
from erftheory.symbolic.proof import brute
from erftheory.symbolic.proof.exact import compile_exact

SHAPES = [(1, 3), (2, 2), (3, 3), (4, 2), (5, 5)]  # layers, taps


def right(topic: str, step: str) -> Any:
    return derive.topic(topic)[step].statement.rhs


def value(topic: str, step: str, **names: Any) -> Any:
    """The right side of a step in exact arithmetic."""
    return compile_exact(right(topic, step))(names)


def number(topic: str, step: str, **names: Any) -> float:
    """The right side of a step as a float."""
    side = right(topic, step)
    return float(side.subs({name: names[str(name)] for name in side.free_symbols}))


def chain(*layers: Any) -> Chain:
    return Chain(*layers, ndim=1)


def excess(network: Chain, signal: str = "variance") -> float:
    return float(moments(network, signal).excess_kurtosis[0])


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize(("depth", "taps"), SHAPES)
def test_equal_strides(stride: int, depth: int, taps: int) -> None:
    network = chain(*[Conv(taps, stride=stride)] * depth)
    names = {"n": depth, "k": taps, "s": stride}
    assert receptive_field(network).size == (
        value("subsampling", "field of equal layers", **names),
    )
    wanted = value("subsampling", "variance of equal layers", **names)
    assert moments(network).variance == (wanted,)


def test_limits_of_strided_nets_are_reached_in_depth() -> None:
    deep = chain(*[Conv(3, stride=2)] * 24)
    share = float(moments(deep).variance[0]) / receptive_field(deep).size[0] ** 2
    assert share == pytest.approx(number("subsampling", "share of the field", k=3, s=2), rel=1e-6)
    assert excess(deep) == pytest.approx(number("subsampling", "excess kurtosis", k=3, s=2))
    last = moments(chain(*[Conv(3, stride=2)] * 23)).variance[0]
    lost = 1 - float(last / moments(deep).variance[0])
    assert lost == pytest.approx(number("subsampling", "last layer", s=2))


def test_chain_of_different_layers() -> None:
    layers = ((3, 2, 1), (2, 1, 3), (4, 3, 2), (5, 1, 2))  # taps, stride, dilation, from the input
    kernels, strides, dilations = (list(column) for column in zip(*layers))
    network = chain(*[Conv(size, stride=s, dilation=d) for size, s, d in layers])
    names = {"n": 4, "k": kernels, "s": strides, "d": dilations}
    assert receptive_field(network).size == (value("subsampling", "field", **names),)
    taps = lambda layer: Fraction(kernels[layer] ** 2 - 1, 12)  # noqa: E731
    assert moments(network).variance == (value("subsampling", "variance", **names, U=taps),)


@pytest.mark.parametrize(("depth", "taps"), SHAPES)
def test_powers_of_the_kernel_give_a_flat_field(depth: int, taps: int) -> None:
    network = chain(*[Conv(taps, dilation=taps**layer) for layer in range(depth)])
    assert moments(network).variance == (value("dilation", "flat variance", n=depth, k=taps),)
    assert receptive_field(network).size == (taps**depth,)
    if taps**depth < 1000:
        counts = [value("dilation", "one path", n=depth, k=taps, t=t) for t in range(taps**depth)]
        assert np.array_equal(np.array(counting(network).map, dtype=float), counts)


@pytest.mark.parametrize(("taps", "base"), [(3, 2), (2, 3), (5, 2), (3, 3)])
def test_other_bases_tend_to_their_shape(taps: int, base: int) -> None:
    network = chain(*[Conv(taps, dilation=base**layer) for layer in range(24)])
    wanted = number("dilation", "excess kurtosis", k=taps, b=base)
    assert excess(network) == pytest.approx(wanted, rel=1e-10)
    share = float(moments(network).variance[0]) / receptive_field(network).size[0] ** 2
    wanted = number("dilation", "share of the field", k=taps, b=base)
    assert share == pytest.approx(wanted, rel=1e-6)


def test_three_taps_and_doubled_dilations() -> None:
    network = chain(*[Conv(3, dilation=2**layer) for layer in range(30)])
    assert excess(network) == pytest.approx(
        float(right("dilation", "three taps, doubled dilations"))
    )


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize(("depth", "taps"), SHAPES)
def test_gridding(dilation: int, depth: int, taps: int) -> None:
    network = chain(*[Conv(taps, dilation=dilation)] * depth)
    reached = np.count_nonzero(np.array(counting(network).map, dtype=float))
    assert reached == value("dilation", "gridding", n=depth, k=taps)


@pytest.mark.parametrize("base", range(1, 7))
def test_holes_of_two_layers(base: int) -> None:
    network = chain(Conv(3), Conv(4, dilation=base))
    reached = np.count_nonzero(np.array(counting(network).map, dtype=float))
    assert reached == value("dilation", "two layers", k=3, K=4, b=base)


@pytest.mark.parametrize(("depth", "taps"), SHAPES)
def test_large_kernel_against_the_stack(depth: int, taps: int) -> None:
    stack, single = chain(*[Conv(taps)] * depth), chain(Conv(depth * (taps - 1) + 1))
    assert receptive_field(stack).size == receptive_field(single).size
    large, small = (moments(network).variance[0] for network in (single, stack))
    assert large == value("large_kernel", "variance", n=depth, k=taps)
    assert large / small == value("large_kernel", "ratio", n=depth, k=taps)


def test_seven_against_three_times_three() -> None:
    for step, network in (
        ("seven taps", chain(Conv(7))),
        ("three times three taps", chain(*[Conv(3)] * 3)),
    ):
        wanted = float(right("large_kernel", step))
        assert exact(network).std[0] == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(("depth", "taps"), [(1, 3), (2, 2), (3, 3)])
def test_separable_nets_are_square_nets(depth: int, taps: int) -> None:
    pairs = Chain(*[Conv((1, taps)), Conv((taps, 1))] * depth, ndim=2)
    square = Chain(*[Conv(taps)] * depth, ndim=2)
    counts = np.array(counting(pairs).map, dtype=float)
    assert np.array_equal(counts, np.array(counting(square).map, dtype=float))
    line = brute.repeated_convolution((1,) * taps, depth)
    signal = lambda layers, at: brute.entry(line, at)  # noqa: E731
    for (t, u), found in np.ndenumerate(counts):
        assert found == value("separable", "axes", n=depth, t=t, u=u, o=signal)


@pytest.mark.parametrize("taps", [2, 3, 5])
def test_pools_are_uniform_kernels(taps: int) -> None:
    strided = Conv(3, stride=3)
    for pool in (AvgPool(taps), MaxPool(taps)):
        below, alone = (moments(chain(strided, *rest)).variance[0] for rest in ((pool,), ()))
        assert below - alone == value("pooling", "pool variance", k=taps, J=3)


@pytest.mark.parametrize("taps", [2, 3, 4])
def test_two_average_pools_are_composed(taps: int) -> None:
    pools = [AvgPool(taps, stride=1)] * 2
    kernel = Fraction(9 - 1, 12)
    found = moments(chain(Conv(3), *pools)).variance[0] - kernel
    assert found == value("random_weights", "variance of two average pools", k=taps)
    # a convolution between does not part them: it passes the correlation of neighbours on
    between = moments(chain(pools[0], Conv(3), pools[1])).variance[0] - kernel
    assert between == found


def test_random_signs_enumerated() -> None:
    """All nets with weights ±1, by automatic differentiation, against the product of layers."""
    network = chain(*[Conv(2)] * 2, Conv(3))
    found = np.asarray(enumerated(network).map, dtype=float)
    sizes = (3, 2, 2)  # taps of the layers, counted from the output
    variance = lambda layer, tap: int(tap < sizes[layer - 1])  # noqa: E731
    for mark in (1, 2, 5):
        wanted = value("random_weights", "convolution", n=3, k=3, z=mark, V=variance)
        squares = 12 * found * float(mark) ** np.arange(len(found))
        assert squares.sum() == pytest.approx(float(wanted), rel=1e-12)


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_dropout_leaves_the_shape(rate: float) -> None:
    plain, dropped = chain(*[Conv(3)] * 3), chain(*[Dropout(rate), Conv(3)] * 3)
    found = np.asarray(exact(dropped).map, dtype=float)
    assert np.array_equal(found, np.asarray(exact(plain).map, dtype=float))
    law = brute.repeated_convolution((Fraction(1, 3),) * 3, 3)
    signal = lambda layers, at: law[at]  # noqa: E731
    wanted = [value("dropout", "share", n=3, t=at, p=signal) for at in range(7)]
    assert found == pytest.approx(np.array(wanted, dtype=float), rel=1e-12)


@pytest.mark.parametrize("taps", [2, 3, 5])
def test_mass_at_the_ends(taps: int) -> None:
    ends = [1, *[0] * (taps - 2), 1]
    network = chain(*[Conv(taps, taps=ends)] * 4)
    ratio = moments(network).variance[0] / moments(chain(*[Conv(taps)] * 4)).variance[0]
    assert ratio == value("initialisation", "ratio", k=taps)
    assert excess(network) == value("initialisation", "excess kurtosis of the ends", n=4, k=taps)
    reached = np.count_nonzero(np.array(counting(network).map, dtype=float))
    holes = value("initialisation", "holes", n=4, k=taps, z=1)
    assert reached == 5 and holes == 1


def test_initial_shares_between_uniform_and_the_ends() -> None:
    for rim in (Fraction(1, 5), Fraction(2, 3), Fraction(1)):
        shares = [rim / 2 * (tap in (0, 4)) + (1 - rim) / 5 for tap in range(5)]
        found = moments(chain(Conv(5, taps=shares))).variance[0]
        assert found == compile_exact(right("initialisation", "heavy rim"))({"k": 5, "lambda": rim})
    squares = [(2 * tap - 4) ** 2 for tap in range(5)]
    found = moments(chain(Conv(5, taps=squares))).variance[0]
    assert found == value("initialisation", "light centre", k=5)
