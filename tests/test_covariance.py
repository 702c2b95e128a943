"""The referee of tests/covariance.py judged: closed forms, and all nets of ±1 weights, executed."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from covariance import judge
from covariance_layers import winners

from erftheory import (
    Activation,
    AvgPool,
    Branches,
    Chain,
    Conv,
    ConvTranspose,
    Dropout,
    GlobalAvgPool,
    MaxPool,
    Named,
    Network,
    Repeat,
    Residual,
    Upsample,
)

RELU, POOL, MEAN = Activation("relu"), MaxPool(3, 1, padding=1), AvgPool(3, 1, padding=1)


# ---- closed forms ------------------------------------------------------------------------------


def test_closed_forms():
    def found(*parts, **what):
        return (judge(Chain(*parts, ndim=1), exact=True, **what).map).tolist()

    nested = Conv(1, channels=4), Residual(Residual(Conv(3))), Conv(1)
    assert found(*nested, init="lecun") == [Fraction(n, 15) for n in (1, 13, 1)]
    beside = Conv(1, channels=8), Residual(POOL), Conv(1)
    assert found(*beside) == [Fraction(n, 8) for n in (1, 6, 1)]
    # three averages: their taps are convolved, and squared afterwards
    taps = np.convolve(np.convolve([1, 1, 1], [1, 1, 1]), [1, 1, 1])
    assert found(MEAN, MEAN, MEAN) == [Fraction(int(t) ** 2, 141) for t in taps]
    # dropout between two layers: (f∗h)² + ρ/(1−ρ) f²∗h²
    both = np.convolve([1, 1, 1], [1, 1, 1])
    parts = both**2 + 1 * np.array([1, 2, 3, 2, 1])
    assert found(MEAN, Dropout(0.5), MEAN) == [Fraction(int(p), int(parts.sum())) for p in parts]
    known = max(found(Conv(3), MEAN, Conv(3), MEAN, Conv(3)))
    assert known == Fraction(13, 57) and float(known) == pytest.approx(0.2281, abs=1e-4)


@pytest.mark.parametrize("a, b", [((0, 1, 2), (1, 2, 3)), ((0, 1, 2), (2, 3)), ((0, 1), (0, 1)),
                                  ((0, 1, 2, 3), (1, 2)), ((0,), (1, 2))])  # fmt: skip
def test_winners_by_all_orders(a, b):
    union = sorted(set(a) | set(b))
    counts = dict.fromkeys(itertools.product(a, b), 0)
    for order in itertools.permutations(range(len(union))):
        rank = dict(zip(union, order))
        counts[max(a, key=rank.get), max(b, key=rank.get)] += 1
    orders = math.factorial(len(union))
    assert winners(a, b) == {st: Fraction(n, orders) for st, n in counts.items()}


# ---- every net of a tiny architecture, executed ------------------------------------------------


def run(network: Network, x: torch.Tensor, draw) -> torch.Tensor:
    """Runs a 1-D network on x, shape (1, channels, pixels); `draw` gives weights and masks."""
    if isinstance(network, Chain):
        for part in network.parts:
            x = run(part, x, draw)
        return x
    if isinstance(network, Repeat):
        for _ in range(network.times):
            x = run(network.part, x, draw)
        return x
    if isinstance(network, Named):
        return run(network.part, x, draw)
    if isinstance(network, Residual):
        other = x if network.shortcut is None else run(network.shortcut, x, draw)
        return run(network.branch, x, draw) + other
    if isinstance(network, Branches):
        ends = [x if b is None else run(b, x, draw) for b in network.branches]
        return torch.cat(ends, 1) if network.merge == "concat" else sum(ends)
    if isinstance(network, Conv | ConvTranspose):
        return convolved(network, x, draw)
    if isinstance(network, Activation):
        return {"relu": F.relu, "abs": torch.abs}[network.name](x)
    if isinstance(network, Dropout):
        return x * draw(x.shape) * 2 if network.rate == 0.5 else x
    if isinstance(network, Upsample):
        mode = {"nearest": "nearest", "bilinear": "linear"}[network.mode]
        aligned = {"align_corners": network.align_corners} if mode == "linear" else {}
        return F.interpolate(x, scale_factor=network.factor, mode=mode, **aligned)
    if isinstance(network, GlobalAvgPool):
        return x.mean(2, keepdim=True)
    assert isinstance(network, AvgPool | MaxPool) and isinstance(network.padding, int | str)
    pad = 0 if network.padding == "valid" else network.padding
    if isinstance(network, MaxPool):
        beyond = F.pad(x, (pad, pad), value=-1e9)  # max_pool1d is slow under vmap
        k, s = network.kernel, network.stride or network.kernel
        last = beyond.shape[2] - k
        return torch.stack([beyond[..., a : a + last + 1 : s] for a in range(k)]).amax(0)
    return F.avg_pool1d(x, network.kernel, network.stride, pad, False, network.count_include_pad)


def convolved(layer: Conv | ConvTranspose, x: torch.Tensor, draw) -> torch.Tensor:
    """He weights ±σ, as many signs as there are weights."""
    entered, k = x.shape[1], layer.kernel
    groups = entered if layer.groups == "depthwise" else layer.groups
    left = layer.channels or (entered if layer.groups == "depthwise" else 1)
    taps = np.array(layer.taps.values, dtype=float) if layer.taps else np.ones(k)
    deviations = torch.tensor(np.sqrt(2 / (entered * k // groups) * k * taps / taps.sum()))
    if isinstance(layer, ConvTranspose):
        w = (2 * draw((entered, left // groups, k)) - 1) * deviations
        s, p = layer.stride, layer.padding
        return F.conv_transpose1d(x, w, None, s, p, layer.output_padding, groups, layer.dilation)
    w = (2 * draw((left, entered // groups, k)) - 1) * deviations
    span = layer.dilation * (k - 1)
    both = {"same": (span // 2, span - span // 2), "causal": (span, 0), "valid": (0, 0)}
    x = F.pad(x, both[layer.padding] if isinstance(layer.padding, str) else (layer.padding,) * 2)
    return F.conv1d(x, w, None, layer.stride, 0, layer.dilation, groups)


class Bits:
    """Hands out bits in turn, one for every weight and every mask."""

    def __init__(self, bits: torch.Tensor | None):
        self.bits, self.used = bits, 0

    def __call__(self, shape) -> torch.Tensor:
        first, self.used = self.used, self.used + math.prod(shape)
        if self.bits is None:
            return torch.ones(tuple(shape), dtype=torch.float64)
        return self.bits[first : self.used].reshape(tuple(shape))


def enumerated(network: Network, image: int, unit: int, orders: bool) -> np.ndarray:
    """E g² over all signs and masks, and over all orders of the input's pixels."""

    def output(x: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
        return run(network, x[None, None], Bits(bits))[0, :, unit]

    values = np.random.default_rng(1).normal(size=image)
    inputs = list(itertools.permutations(values)) if orders else [values]
    counter = Bits(None)
    run(network, torch.tensor(values)[None, None], counter)
    nets = np.array(list(itertools.product((0.0, 1.0), repeat=counter.used)))
    assert len(inputs) * len(nets) <= 2**15
    x = torch.tensor(np.repeat(np.array(inputs), len(nets), 0))
    bits = torch.tensor(np.tile(nets, (len(inputs), 1)))
    slopes = torch.vmap(torch.func.jacrev(output), chunk_size=4096)(x, bits)
    return (slopes**2).sum(1).mean(0).numpy()


C1, C2, C3 = Conv(1), Conv(2), Conv(3)
TINY = {
    "two convolutions": (Chain(C3, C3), 6),
    "causal, strided, dilated": (
        Chain(Conv(2, padding="causal"), Conv(3, 2, dilation=2, taps=[1, 0, 3])), 8),
    "channels": (Chain(Conv(2, channels=2), Conv(2, channels=1)), 5),
    "groups": (Chain(Conv(1, channels=2), Conv(2, groups=2, channels=2), Conv(1, channels=1)), 5),
    "depthwise": (Chain(Conv(1, channels=2), Conv(2, groups="depthwise"), Conv(1, channels=1)), 5),
    "unequal channels": (
        Chain(Branches(Conv(1, channels=2), Conv(2, channels=1)), Conv(2, channels=1)), 5),
    "averages": (Chain(C2, MEAN, C2, AvgPool(2), C1), 9),
    "average that counts no padding": (
        Chain(C2, AvgPool(3, 2, padding=1, count_include_pad=False), C2), 6),
    "identities": (Chain(C1, Branches(None, None, C3, merge="sum"), C2), 5),
    "nested residuals": (Residual(Residual(C2) * 2), 5),
    "residual of an average": (Chain(C1, Residual(Chain(MEAN, Dropout(0.5), MEAN)), C2), 4),
    "one tap beside an identity": (Chain(C2, Branches(None, AvgPool(1), C2, merge="sum"), C2), 5),
    "concatenated": (Chain(C2, Branches(None, MEAN, Conv(2)), C2), 6),
    "nearest": (Chain(C2, Upsample(2), C3), 5),
    "bilinear": (Chain(C2, Upsample(2, "bilinear"), Upsample(2, "bilinear"), C3), 4),
    "aligned": (Chain(C2, Upsample(2, "bilinear", align_corners=True), C3), 4),
    "transposed": (Chain(C2, ConvTranspose(3, 2, padding=1, output_padding=1), C3), 4),
    "bilinear beside nearest": (
        Chain(C2, Branches(Upsample(2), Upsample(2, "bilinear"), merge="sum"), C2), 5),
    "global": (Chain(C3, MEAN, GlobalAvgPool(), C1), 5),
    "relu": (Chain(C3, RELU, C3, RELU, C2), 5),
    "abs behind dropout": (Chain(C2, Activation("abs"), Dropout(0.5), C2), 4),
    "relu in residuals": (Residual(Chain(C2, RELU, C2)) * 2, 5),
}  # fmt: skip
ORDERED = {
    "max pool": (Chain(POOL, C3), 5),
    "max pool and average": (Chain(POOL, MEAN, C2), 5),
    "max pool beside an identity": (Chain(C1, Residual(POOL), C1), 5),
    "pools of one map": (Branches(POOL, MaxPool(5, 1, padding=2), merge="sum"), 5),
    "three pools and an identity": (
        Branches(POOL, None, MaxPool(3, 1, padding=1), MEAN, merge="sum"), 5),
    "pool and relu": (Chain(POOL, C2, RELU, C2), 5),
    "pools in a row": (Chain(MaxPool(2), C1, MaxPool(2), C1), 6),
    "strided pool": (Chain(C1, MaxPool(3, 2, padding=1), MEAN), 5),
    "pool beside an average": (Branches(Chain(POOL, MEAN), MEAN, None, merge="sum"), 5),
}  # fmt: skip


@pytest.mark.parametrize("name", [*TINY, *ORDERED])
def test_all_nets_of_signs_agree(name):
    network, image = (TINY | ORDERED)[name]
    network = Chain(network, ndim=1)
    for unit in (0, None):
        judged = judge(network, image, unit, exact=True, width=1)
        assert not judged.doubts
        at = judged.outside[0][1] // 2 if unit is None else unit
        wanted = enumerated(network, image, at, name in ORDERED)
        assert judged.power.astype(float) == pytest.approx(wanted, rel=1e-12, abs=1e-12)


# ---- the referee's own arithmetic --------------------------------------------------------------


@pytest.mark.parametrize("name", [*TINY, *ORDERED])
def test_floats_and_fractions_agree(name):
    network = Chain((TINY | ORDERED)[name][0], ndim=1)
    for image in (None, (TINY | ORDERED)[name][1]):
        if image is None and name == "global":
            continue
        exact, floats = (judge(network, image, exact=e) for e in (True, False))
        assert floats.doubts == exact.doubts and floats.offset == exact.offset
        assert floats.power == pytest.approx(exact.power.astype(float), rel=1e-13, abs=1e-15)


@pytest.mark.parametrize("name", [n for n in [*TINY, *ORDERED] if n not in ("global", "aligned")])
def test_the_plane_is_an_image_too_large_to_notice(name):
    network = Chain((TINY | ORDERED)[name][0], ndim=1)
    image = judge(network, 24, exact=True)
    unit = image.outside[0][1] // 2
    plane = judge(network, unit=unit, exact=True)
    inside = plane.over((0,), (24,))
    assert inside.sum() == 1 and (image.map == inside).all() and image.mass == plane.mass


def test_widths_are_a_scale_where_none_is_stated():
    for network, _ in TINY.values():
        if not any(getattr(p, "channels", None) for p in network.parts):
            network = Chain(network, ndim=1)
            one, three = (judge(network, 16, width=w).map for w in (1, 3))
            assert one == pytest.approx(three, abs=1e-14)


DOUBTFUL = {
    "an average of gates": Chain(C3, RELU, MEAN),
    "an average above": Chain(C3, RELU, C3, MEAN),
    "a gate on the skip": Chain(C1, Residual(Chain(C3, RELU)), C1),
    "a gate of the input": Chain(RELU, C3),
    "a pool of a convolution": Chain(C3, POOL),
    "pools of pools": Chain(POOL, POOL),
    "pools of two maps": Branches(POOL, Chain(C1, POOL)),
    "tanh": Chain(C3, Activation("tanh"), C3),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_the_referee_knows_what_it_does_not_know(name):
    assert judge(Chain(DOUBTFUL[name], ndim=1), 8).doubts
