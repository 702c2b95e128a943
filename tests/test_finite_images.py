"""Finite images as users meet them: published networks, the law BND-1, error messages."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from erftheory import (
    Activation,
    AvgPool,
    Branches,
    Chain,
    Conv,
    ConvTranspose,
    MaxPool,
    exact,
    from_jax,
    zoo,
)
from erftheory.laws import Context, Engines, boundary, select


def test_the_published_network_on_its_image():
    found = exact(zoo.resnet34(), image=(224, 224))
    assert found.metadata["unit"] == (3, 3) and found.error.kind == "relative"
    assert found.box is not None
    first, last = found.box[0]
    assert first < 0 and last > 223  # the receptive field exceeds the image, the ERF does not
    assert found.size() < 224
    assert 0 < found.metadata["lost"] < 0.5


# Errors


@pytest.mark.parametrize(
    "net, options, message",
    [
        (Conv(3), {"image": (5, 5, 5)}, r"image: got 3 entries; takes one per axis, 2"),
        (Conv(3), {"image": 0}, r"image\[0\]: got 0; takes an integer >= 1"),
        (Conv(7, padding="valid"), {"image": 5}, r"image: got \(5, 5\), which leaves Conv\("),
        (Conv(3, 2), {"image": 9, "unit": (5, 0)}, r"unit: got \(5, 0\); .* grid of 5x5"),
        (Conv(3, 2), {"image": 9, "unit": (-1, 0)}, r"unit: got \(-1, 0\); .* grid of 5x5"),
        (Conv(3), {"image": 9, "unit": 4}, r"unit: got 4; takes \"center\" or an index"),
        (Conv(3), {"image": 9, "window": 3}, r"window: got 3 beside image; takes one of the two"),
        (Conv(3), {"image": 9, "method": "direct"}, r"method: got 'direct' beside image"),
        (Conv(3), {"padding_mode": "reflect"}, r"padding_mode: got 'reflect' without image"),
        (Conv(3), {"image": 9, "padding_mode": "same"}, r"padding_mode: got 'same'; takes one of"),
        (Branches(MaxPool(2), Conv(3, 2)), {"image": 9}, r"joins maps of 4x4 and 5x5 pixels"),
        (Conv(3, taps=np.eye(3) - 1), {"image": 9}, r"taps: got a negative tap in the variance"),
        (Conv(1, padding=2), {"image": 3, "unit": (0, 0)}, r"unit: got \(0, 0\), which no input"),
        (
            Chain(ConvTranspose(1, 2), ConvTranspose(1, 2)),
            {"image": 3, "unit": (1, 0)},
            r"unit: got \(1, 0\), which no input",
        ),
    ],
)  # fmt: skip
def test_errors_name_the_argument(net, options, message):
    with pytest.raises(ValueError, match=message):
        exact(net, **options)


# The law


@pytest.mark.parametrize("broken", [None, "crop"])
def test_the_law_holds_and_can_fail(broken, monkeypatch):
    monkeypatch.setattr(boundary, "PUBLISHED", (("resnet34", True),))
    engines = Engines.load()

    def wrong(net, image=None, **options):
        if broken == "crop" and image is not None:  # the plane's map, cut at the rim
            full = exact(
                net, image=tuple(3 * n for n in image), signal=options.get("signal", "variance")
            )
            cut = full.map[tuple(slice(n, 2 * n) for n in image)]
            return type(full)(
                map=cut, offset=full.offset, signal=full.signal, method="crop",
                error=full.error, metadata=full.metadata,
            )  # fmt: skip
        return exact(net, image=image, **options)

    context = Context(replace(engines, exact=wrong) if broken else engines, depth=6)
    verdict = select("BND-1")[0].run(context)
    assert verdict.holds == (broken is None), verdict.error
    assert len(verdict.routes) >= 4


def test_images_as_large_as_memory_allows():
    n = 2_000_000
    erf = exact(Chain(Conv(5), Conv(3, 2), ndim=1), image=n, unit=(7,))
    np.testing.assert_allclose(erf.map[11:18], np.array([1, 2, 3, 3, 3, 2, 1]) / 15)
    with pytest.raises(ValueError, match=r"image: got .* whose maps do not fit in memory"):
        exact(Branches(Conv(3), Conv(5)), image=10**9)


def test_a_mean_beside_a_map_says_what_to_do():
    net = from_jax(lambda x: x + x.mean((1, 2), keepdims=True), jnp.zeros((1, 8, 8, 2)),
                   spatial_axes=(1, 2))  # fmt: skip
    with pytest.raises(ValueError, match='hold="global"'):
        exact(net, image=8)


@pytest.mark.parametrize("fill", ["resize", "pad"])
def test_rims_that_a_model_fills_itself_have_no_bound(fill):
    def run(x):
        if fill == "pad":
            return jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")[:, 1:-1, 1:-1]
        return jax.image.resize(x, (1, 32, 32, 1), "bilinear")

    def model(x):
        with jax.named_scope("body"):
            x = k3(run(x))
        return x + 1

    net = from_jax(model, jnp.zeros((1, 16, 16, 1)), spatial_axes=(1, 2))
    for part in (net, net.until("body")):
        assert exact(part, image=16).error.kind == "relative"
        corner = exact(part, image=16, unit=(0, 0)).error
        assert corner.kind == "approximation" and "rims" in corner.note


def k3(x):
    kernel = jnp.ones((3, 3, 1, 1))
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


# The share that is lost


@pytest.mark.parametrize("taps", [(1, -2, 3), (-1, -1, -1), (1, -1.5, 0.25)])
def test_signed_signals_lose_what_leaves_the_image(taps):
    net = Chain(Conv(3, taps=taps), Conv(5), ndim=1)
    for unit in (0, 1, 9):
        seed = np.zeros(20)
        seed[unit] = 1
        inner = np.convolve(seed, np.ones(5), "same")
        total = np.convolve(inner, taps, "same").sum()  # of the gradient; order is of no matter
        found = exact(net, signal="gradient", image=20, unit=unit).metadata["lost"]
        assert found == pytest.approx(1 - total / (5 * sum(taps)), abs=1e-12)


def test_a_sum_that_cancels_on_the_plane_has_no_share():
    erf = exact(Chain(Conv(3, taps=(1, 0, -1)), ndim=1), signal="gradient", image=9, unit=0)
    assert erf.metadata["lost"] is None


def test_signals_that_never_arrive_are_refused_in_two_dimensions():
    net = Chain(
        Conv((3, 2), stride=(2, 2), dilation=(2, 2), padding=((0, 2), (0, 1))),
        Conv((2, 2), stride=(2, 3), dilation=(1, 2), padding=((2, 1), (2, 1))),
        Conv((1, 1), stride=(3, 3), dilation=(2, 1), padding=((1, 2), (2, 0))),
    )
    with pytest.raises(ValueError, match="unit: got .* which no input reaches"):
        exact(net, image=(6, 5), unit=(0, 0))


# Seen from an inner layer


def test_an_inner_layer_of_an_image_by_autodiff():
    branches = Branches(Conv(3), AvgPool(3, 1, padding=1))
    net = Chain(Conv(3, 2).named("a"), branches, Conv(5), ndim=1)

    def tail(x):  # the all-ones net; an average counts its padding
        x = ones(x, 3) + ones(x, 3) / 3
        return ones(x, 5)[0, 1, 0]

    options: dict = {"signal": "gradient", "init": None, "source": "a"}
    erf = exact(net, image=11, unit=(1,), **options)
    expected = jax.grad(tail)(jnp.zeros((1, 6, 1)))[0, :, 0]
    assert erf.shape == (6,) and erf.offset == (0,)
    np.testing.assert_allclose(erf.map, expected / expected.sum(), rtol=1e-6)


def ones(x, width):
    return jax.lax.conv_general_dilated(
        x, jnp.ones((width, 1, 1)), (1,), "SAME", dimension_numbers=("NHC", "HIO", "NHC")
    )


def test_an_inner_layer_keeps_what_fixed_layers_correlate():
    n, i = 9, np.arange(9)
    pool = (abs(i[:, None] - i) < 2) / 3
    covariance = np.outer(pool[4], pool[4])  # of the gradients, behind the last pool
    pairs = np.zeros((n, n))
    for shift in (-1, 0, 1):  # a convolution: both pixels by the same random tap
        line = np.eye(n, k=shift)
        pairs += line @ covariance @ line.T
    expected = np.diag(pool.T @ pairs @ pool)
    tail = Chain(AvgPool(3, 1, padding=1), Conv(3), AvgPool(3, 1, padding=1), ndim=1)
    erf = exact(Chain(Conv(3, 2).named("a"), tail), image=18, unit=(4,), source="a")
    np.testing.assert_allclose(erf.map, expected / expected.sum(), rtol=1e-12)
    plane = exact(Chain(Conv(3, 2).named("a"), tail), source="a")
    np.testing.assert_allclose(plane.map, expected[expected > 0] / expected.sum(), rtol=1e-12)
    assert plane.error.kind == erf.error.kind == "relative"


@pytest.mark.parametrize("image", [None, 20])
def test_an_inner_layer_keeps_the_gates(image):
    pool = AvgPool(3, 1, padding=1)
    tail = Chain(pool, Conv(3), Activation("relu"), pool, ndim=1)
    options: dict = {} if image is None else {"image": image}
    whole = exact(Chain(Conv(3).named("a"), tail * 2), source="a", **options)
    alone = exact(Chain(tail * 2, ndim=1), **options)
    np.testing.assert_allclose(whole.map, alone.map, rtol=1e-12)
    linear = exact(Chain(pool, Conv(3), pool, pool, Conv(3), pool, ndim=1), **options)
    assert abs(whole.std[0] / linear.std[0] - 1) > 0.01  # ReLU forgets half of what pools correlate


@pytest.mark.parametrize("cut", [2, 5])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_shortcuts_that_crop_or_shift_are_read_on_an_image(cut, times):
    """x[2:] + conv(x) of WaveNets with valid convolutions, against the whole covariance."""
    n, taps = 30, 3

    def model(x):
        for i in range(times):
            y = jax.lax.conv_general_dilated(x, jnp.ones((taps, 1, 1)), (1,), "VALID",
                                             dimension_numbers=("NHC", "HIO", "NHC"))  # fmt: skip
            if cut == 2:
                x = y + x[:, 2:]
            else:  # to the left by more than the kernel, zeros behind
                x = y + jnp.pad(x, ((0, 0), (0, cut), (0, 0)))[:, cut:][:, : n - 2 * i - 2]
        return x

    network = from_jax(model, jax.ShapeDtypeStruct((1, n, 1), jnp.float32))
    size = n - 2 * times
    covariance = np.zeros((size, size))
    covariance[size // 2, size // 2] = 1
    for i in reversed(range(times)):
        m = n - 2 * i
        moves = [np.eye(m - 2, m, k) for k in range(taps)]
        skip = np.eye(m - 2, m, cut)
        # one channel, he: each of the taps has variance 1 / 3
        covariance = sum(t.T @ covariance @ t for t in moves) / taps + skip.T @ covariance @ skip
    found = exact(network, image=n, init="lecun")
    assert found.error.kind != "approximation"
    assert found.map == pytest.approx(np.diag(covariance) / np.trace(covariance), abs=1e-13)
