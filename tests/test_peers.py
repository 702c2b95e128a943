"""Jobs on which other tools were wrong: a published or hand-counted truth, and every route to it.

Each network is described with layers (or taken from the zoo), written once more in plain JAX and
read by `from_jax`, and executed with NaN pixels, its one-dimensional twin where the plane is large.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from erftheory import (
    ERF,
    Activation,
    Branches,
    Chain,
    Conv,
    MaxPool,
    counting,
    exact,
    from_jax,
    gradient_erf,
    moments,
    probe_receptive_field,
    receptive_field,
    zoo,
)
from erftheory.empirical.measured.replknet import area_ratios
from erftheory.theory.advice.advise import advise

LETTERS = "DHW"


def tuples(value, ndim):
    return value if isinstance(value, tuple) else (value,) * ndim


def conv(x, kernel=3, stride=1, dilation=1, pads=None, channels=2):
    """Any number of axes, channels last; pads are symmetric, as PyTorch's, unless given."""
    ndim = x.ndim - 2
    kernel, stride, dilation = (tuples(v, ndim) for v in (kernel, stride, dilation))
    if pads is None:
        pads = [(d * (k // 2),) * 2 for k, d in zip(kernel, dilation)]
    shape = (*kernel, x.shape[-1], channels)
    weights = np.full(shape, 1 / math.prod(shape[:-1]), np.float32)
    axes = LETTERS[-ndim:]
    return lax.conv_general_dilated(
        x, weights, stride, pads, rhs_dilation=dilation,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
    )  # fmt: skip


def pooled(x, kernel, stride, pad=0, mean=False):
    ndim = x.ndim - 2
    kernel, stride, pad = (tuples(v, ndim) for v in (kernel, stride, pad))
    pads = ((0, 0), *((p, p) for p in pad), (0, 0))
    start, function = (0.0, lax.add) if mean else (-jnp.inf, lax.max)
    return lax.reduce_window(x, start, function, (1, *kernel, 1), (1, *stride, 1), pads)


relu = jax.nn.relu


def resnet(x, plan, bottleneck=False):
    """torchvision's: the stride in the (first) 3x3 of the first block of a stage."""
    x = pooled(relu(conv(x, 7, 2)), 3, 2, 1)
    for stage, depth in enumerate(plan):
        for i in range(depth):
            stride = 2 if stage and not i else 1
            if bottleneck:
                y = conv(relu(conv(relu(conv(x, 1)), 3, stride)), 1)
            else:
                y = conv(relu(conv(x, 3, stride)))
            x = relu(y + (x if i else conv(x, 1, stride)))
    return x


def densenet121(x):
    x = pooled(relu(conv(x, 7, 2)), 3, 2, 1)
    for block, depth in enumerate((6, 12, 24, 16)):
        for _ in range(depth):
            x = jnp.concatenate([x, conv(relu(conv(relu(x), 1)), channels=1)], -1)
        if block < 3:
            x = pooled(conv(relu(x), 1), 2, 2, mean=True)
    return x


def stacked(x, dilations):
    for d in dilations:
        x = conv(x, dilation=d)
    return x


def wavenet(x):
    for i in range(10):
        x = x + conv(jnp.tanh(conv(x, 2, dilation=2**i, pads=[(2**i, 0)])), 1)
    return x


def unequal(x):
    """3-D with unequal kernels and strides."""
    x = pooled(relu(conv(x, (1, 7, 7), (1, 2, 2))), (1, 3, 3), (1, 2, 2))
    return conv(conv(x), stride=2)


def misaligned(x):
    return jnp.concatenate([conv(x, 2, 2, pads=[(0, 0)] * (x.ndim - 2)), conv(x, 3, 2)], -1)


@dataclass(frozen=True)
class Job:
    described: Any
    function: Any
    size: tuple[int, ...]  # in pixels
    padding: tuple[int, ...]  # the field of output 0 starts at −padding
    image: tuple[int, ...]  # of the executed net: one axis for the twin of a plane


def plane(described, function, size, padding, image) -> Job:
    return Job(described, function, (size,) * 2, (padding,) * 2, (image,))


JOBS = {
    # 3 + 2·1 for the stem, then 2 times 2, 4, 8, 16 for each 3x3, symmetric about output 0
    "ResNet-34": plane(zoo.resnet34(), partial(resnet, plan=(3, 4, 6, 3)), 899, 449, 1024),
    "ResNet-50": plane(
        zoo.resnet50(), partial(resnet, plan=(3, 4, 6, 3), bottleneck=True), 427, 213, 512
    ),
    # each 2x2 mean reaches one of its pixels (4, 8, 16) further behind than before
    "DenseNet-121": plane(zoo.densenet121(), densenet121, 2071, (2071 - 1 - 28) // 2, 2176),
    "dilations 1 2 4 8": plane(
        Chain(*(Conv(3, dilation=d) for d in (1, 2, 4, 8))),
        partial(stacked, dilations=(1, 2, 4, 8)), 31, 15, 64,
    ),
    "dilations 4 4": plane(
        Conv(3, dilation=4) * 2, partial(stacked, dilations=(4, 4)), 17, 8, 40
    ),
    "96 layers": plane(Conv(3) * 96, partial(stacked, dilations=(1,) * 96), 193, 96, 256),
    "128 layers": plane(Conv(3) * 128, partial(stacked, dilations=(1,) * 128), 257, 128, 320),
    "WaveNet": Job(zoo.wavenet(), wavenet, (1024,), (1023,), (1100,)),
    "unequal axes": Job(
        Chain(Conv((1, 7, 7), (1, 2, 2)), MaxPool((1, 3, 3), (1, 2, 2)), Conv(3), Conv(3, 2)),
        unequal, (5, 27, 27), (2, 11, 11), (8, 40, 40),
    ),
    "not aligned": plane(
        Branches(Conv(2, 2, padding="valid"), Conv(3, 2, padding=1)), misaligned, 3, 1, 16
    ),
}  # fmt: skip


def imported(function, ndim, pixels=64):
    example = jax.ShapeDtypeStruct((1, *(pixels,) * ndim, 2), jnp.float32)
    return from_jax(function, example, spatial_axes=range(1, ndim + 1))


@pytest.mark.parametrize("name", JOBS)
def test_described_and_imported(name):
    job = JOBS[name]
    for network in (job.described, imported(job.function, len(job.size))):
        field = receptive_field(network)
        assert (field.size, field.padding) == (job.size, job.padding)
        assert field.aligned == (name not in ("not aligned", "WaveNet"))  # a skip beside the past
        assert len(field.phases) == 1


@pytest.mark.parametrize("name", JOBS)
def test_executed_with_nan(name):
    job = JOBS[name]
    example = jax.ShapeDtypeStruct((1, *job.image, 2), jnp.float32)
    out = jax.eval_shape(job.function, example).shape[1:-1]
    unit = tuple(n // 2 for n in out)
    if name == "WaveNet":
        unit = (out[0] - 1,)
    found = probe_receptive_field(
        job.function, example, unit, holes=name == "dilations 4 4", batch=8
    )
    stride = receptive_field(job.described).stride
    assert found.size == job.size[: len(unit)]
    assert found.first == tuple(u * s - p for u, s, p in zip(unit, stride, job.padding))
    assert name == "WaveNet" or found.clipped == (False,) * len(unit)


def test_gridding_has_an_extent_and_holes():
    """Rows 0, 4, 8, 12, 16 of 17."""
    network = JOBS["dilations 4 4"].described
    weights = np.array(counting(network).map, float)
    assert weights.shape == (17, 17)
    for axis in (0, 1):
        assert list(np.flatnonzero(weights.any(axis))) == [0, 4, 8, 12, 16]
    assert exact(network).holes.sum() == 17**2 - 5**2
    assert "an output reads 5 of 17 rows" in str(advise(network, 64))
    probe = probe_receptive_field(
        JOBS["dilations 4 4"].function, jax.ShapeDtypeStruct((1, 40, 2), jnp.float32), 20
    )
    assert probe.holes == (tuple(r for r in range(12, 29) if r % 4),)


def test_a_channel_that_sees_less_than_the_others():
    """Output channel 0 of DenseNet-121 is what enters the last block: 16 layers of 2·32 less."""
    assert receptive_field(zoo.densenet121().until("transition3")).size == (1047, 1047)
    one = imported(lambda x: densenet121(x)[..., :1], 2)
    assert receptive_field(one).size == (2071 - 16 * 2 * 32,) * 2 == (1047, 1047)


def test_causal_nets_look_back_only():
    for network in (zoo.wavenet(), imported(wavenet, 1)):
        field = receptive_field(network)
        assert (field.size, field.lookback, field.lookahead) == ((1024,), (1023,), (0,))


def doubled(x):
    return relu(conv(relu(conv(x))))


def unet(x, up):
    a = doubled(x)
    b = doubled(pooled(a, 2, 2))
    c = doubled(pooled(b, 2, 2))
    b = doubled(jnp.concatenate([up(c), b], -1))
    return doubled(jnp.concatenate([up(b), a], -1))


def transposed(x):
    ndim = x.ndim - 2
    axes = LETTERS[-ndim:]
    return lax.conv_transpose(
        x, np.ones((*(2,) * ndim, x.shape[-1], 2), np.float32) / 2, (2,) * ndim, "VALID",
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
    )  # fmt: skip


def bilinear(x):
    shape = (x.shape[0], *(2 * n for n in x.shape[1:-1]), x.shape[-1])
    return conv(jax.image.resize(x, shape, "bilinear"), 1)


# counted by hand: every level adds to both sides what its own layers read
UNETS = {"transposed": (transposed, {44}), "bilinear": (bilinear, {48, 52})}


@pytest.mark.parametrize("up", UNETS)
def test_the_field_of_a_unet_depends_on_the_output_phase(up):
    function, sizes = UNETS[up]
    net = partial(unet, up=function)
    for network in (zoo.unet(2, up=up), imported(net, 2)):
        field = receptive_field(network)
        assert len(field.phases) == 16
        assert {n for phase in field.phases for n in phase.size} == sizes
        assert field.size == (max(sizes),) * 2
    field = receptive_field(imported(net, 1))
    probe = probe_receptive_field(
        net, jax.ShapeDtypeStruct((1, 128, 2), jnp.float32), 64, phases=4, mode="perturb",
        holes=False,
    )  # fmt: skip
    assert [p.size for p in probe.phases] == [p.size for p in field.phases]
    assert [p.first[0] for p in probe.phases] == [64 - p.padding[0] for p in field.phases]
    assert probe.size == field.size == (max(sizes),)


@pytest.mark.parametrize("depth", [96, 128])
def test_gradients_of_one_precision_end_before_the_field(depth):
    """The reason for NaN: 3^-96 is below the smallest number of 32 bits, and the rim is lost."""
    function = partial(stacked, dilations=(1,) * depth)
    x = jnp.ones((1, 320, 1), jnp.float32)
    g = np.asarray(jax.grad(lambda x: conv(function(x), 1, channels=1)[0, 160, 0])(x))[0, :, 0]
    seen = np.flatnonzero(g)
    assert seen[-1] - seen[0] + 1 < 2 * depth + 1
    line = exact(Chain(Conv(3), ndim=1) * depth).log_map
    assert line.shape == (2 * depth + 1,) and np.isfinite(line).all()
    assert line[0] == line[-1] == pytest.approx(-depth * math.log(3), rel=1e-12)


def test_the_std_of_forty_layers_belongs_to_a_signal():
    """Variance 40·2/3; the square root of the map, a magnitude, is about √2 wider."""
    line = np.ones(1)
    for _ in range(40):
        line = np.convolve(line, np.full(3, 1 / 3))
    t = np.arange(-40, 41)
    wide = np.sqrt(line) / np.sqrt(line).sum()
    truth = {"variance": math.sqrt(80 / 3), "magnitude": math.sqrt((wide * t**2).sum())}
    assert math.sqrt((line * t**2).sum()) == pytest.approx(truth["variance"])
    assert truth["variance"] == pytest.approx(5.164, abs=5e-4)
    assert truth["magnitude"] / truth["variance"] == pytest.approx(math.sqrt(2), rel=0.01)
    layers = Chain(Conv(3), Activation("relu")) * 40

    def written(x):
        for _ in range(40):
            x = relu(conv(x))
        return x

    for network in (layers, imported(written, 2)):
        assert moments(network).variance[0] * 3 == 80
        for signal, std in truth.items():
            assert exact(network, signal).std == pytest.approx((std, std))


def test_replknets_square_depends_on_the_scale_and_ours_does_not():
    """Its side is 41 for a faint map of 40 layers and 49 for the same map times 1000."""
    erf = exact(Conv(3) * 40, "magnitude")
    faint = erf.map / erf.map.max() / 10
    sides = [area_ratios(faint * scale, (0.99,))[0].side for scale in (1, 1000)]
    assert sides == [41, 49]
    half = next(
        i for i in range(41) if erf.map[40 - i : 41 + i, 40 - i : 41 + i].sum() > 0.99
    )  # fmt: skip
    for scale in (1, 1000):
        scaled = ERF(
            map=erf.map * scale, offset=erf.offset, signal="magnitude", method="direct",
            error=erf.error, receptive_field=erf.receptive_field,
        )  # fmt: skip
        assert scaled.area_ratio(0.99) == pytest.approx(((2 * half + 1) / 81) ** 2)


def test_a_zero_image_is_no_end_of_the_field():
    """Rectifiers without biases pass nothing on an image of zeros: the field is what it was."""
    function, zeros = JOBS["ResNet-34"].function, np.zeros((1, 1024, 2), np.float32)
    assert probe_receptive_field(function, zeros, 16, holes=False, batch=8).size == (899,)
    with pytest.raises(ValueError, match="^images: got gradients that are all 0"):
        gradient_erf(lambda x: relu(conv(x)), np.zeros((2, 16, 2), np.float32))
