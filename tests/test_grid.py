"""Finite images against the plane, executed nets, all nets with weights ±1, and by hand."""

from __future__ import annotations

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NETWORKS, network

from erftheory import (
    Activation,
    AvgPool,
    BatchNorm,
    Chain,
    Conv,
    GlobalAvgPool,
    MaxPool,
    Residual,
    Upsample,
    exact,
)
from erftheory.empirical.nets.draw import ones_params
from erftheory.empirical.nets.execute import apply
from erftheory.theory.image import units as grid
from erftheory.theory.image.units import exact_units

JNP_PAD = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
# positions of aligned corners depend on the image's size
ON_THE_PLANE = sorted(set(NETWORKS) - {"aligned corners", "transposed"})


def ones_gradients(net, image, units):
    """The executed all-ones net, float64: normalised gradients, one compiled program a net."""
    with jax.enable_x64(True):
        params = ones_params(net, jnp.float64)
        x = jnp.zeros((1, *image), jnp.float64)
        shape = (1, *output_shape(net, image))

        @jax.jit
        def back(place):
            seed = jnp.zeros(shape).at[(0, *place)].set(1.0)
            return jax.vjp(lambda v: apply(net, params, v, linear=True), x)[1](seed)[0][0]

        found = [np.asarray(back(tuple(unit))) for unit in units]
    return [one / one.sum() for one in found]


def output_shape(net, image):
    params = ones_params(net)
    return jax.eval_shape(
        lambda v: apply(net, params, v, linear=True), jnp.zeros((1, *image), jnp.float32)
    ).shape[1:]


# The plane


BY_GRADIENT = ("inception", "residual")


@pytest.mark.parametrize(
    "name, signal",
    [*((n, "variance") for n in ON_THE_PLANE), *((n, "gradient") for n in BY_GRADIENT)],
)
def test_an_interior_unit_sees_the_plane(name, signal):
    net = NETWORKS[name]
    support = exact(net, signal=signal).shape
    size = tuple(8 * (-(-(2 * n + 40) // 8) + 1) for n in support)
    found = exact(net, image=size, signal=signal)
    plane = exact(net, unit=found.metadata["unit"], signal=signal)
    wanted = np.zeros(found.shape)
    wanted[tuple(slice(o, o + n) for o, n in zip(plane.offset, plane.shape))] = plane.map
    assert found.shape == size and found.offset == (0,) * len(size)
    bound = found.error.value + (plane.error.value if plane.error.kind == "relative" else 1e-12)
    np.testing.assert_allclose(found.map, wanted, rtol=bound, atol=1e-13 * wanted.max())
    assert abs(found.metadata["lost"]) < 1e-13


# Autodiff of the all-ones net; its interpolation has zeros beyond the rim, PyTorch's has not


EXECUTED = ("causal", "inception", "projected", "resampling loop", "strided", "transposed by 3",
            "unequal 3-D")  # fmt: skip


@pytest.mark.parametrize("name", EXECUTED)
def test_gradients_are_those_of_the_executed_net(name):
    net = NETWORKS[name]
    image = {"strided": (19, 23)}.get(name, (11, 13, 9)[: net.ndim])
    shape = output_shape(net, image)
    spots = {tuple(0 for _ in shape), tuple(n // 2 for n in shape), tuple(n - 1 for n in shape)}
    spots.add((0, *(n // 2 for n in shape[1:])))
    spots = sorted(spots)
    for unit, wanted in zip(spots, ones_gradients(net, image, spots)):
        found = exact(net, image=image, unit=unit, signal="gradient", init=None)
        bound = found.error.value + 1e-12
        np.testing.assert_allclose(found.map, wanted, rtol=bound, err_msg=f"{name} {unit}")


@settings(max_examples=5, deadline=None)
@given(network(ndims=(1,)), st.integers(17, 24), st.data())
def test_any_network_on_any_image_is_the_executed_one(net, size, data):
    try:
        shape = output_shape(net, (size,))
        found = exact_units(net, size, signal="gradient", init=None)
    except (ValueError, TypeError):  # too small for a layer, or maps that do not fit: both refuse
        with pytest.raises(ValueError):
            exact(net, image=size, signal="gradient", init=None)
        return
    place = data.draw(st.integers(0, shape[0] - 1))
    (wanted,) = ones_gradients(net, (size,), [(place,)])
    if not np.isfinite(wanted).all():
        return  # a unit that sees padding alone
    found = exact(net, image=size, unit=(place,), signal="gradient", init=None)
    np.testing.assert_allclose(found.map, wanted, rtol=1e-12)


def padded(x, low, high, mode):
    return jnp.pad(x, [(low, high)] * x.ndim, mode=JNP_PAD[mode])


def convolved(x, weight, mode, stride=1):
    """A 1-D convolution written as one line a tap."""
    k = len(weight)
    x = padded(x, (k - 1) // 2, k - 1 - (k - 1) // 2, mode)
    n = (len(x) - k) // stride + 1
    return sum(w * x[a : a + stride * (n - 1) + 1 : stride] for a, w in enumerate(weight))


@pytest.mark.parametrize("mode", JNP_PAD)
def test_paddings_are_those_of_jnp_pad(mode):
    net = Chain(Conv(5), Conv(3, 2), Conv(4), ndim=1)

    def run(x):
        for k, stride in ((5, 1), (3, 2), (4, 1)):
            low, high = (k - 1) // 2, k - 1 - (k - 1) // 2
            x = padded(x, low, high, mode)
            n = (len(x) - k) // stride + 1
            x = sum(x[a : a + stride * (n - 1) + 1 : stride] for a in range(k))
        return x

    with jax.enable_x64(True):
        jacobian = np.asarray(jax.jit(jax.jacobian(run))(jnp.zeros(7, jnp.float64)))
    for unit, row in enumerate(jacobian):
        found = exact(net, image=7, unit=(unit,), signal="gradient", padding_mode=mode)
        np.testing.assert_allclose(found.map, row / row.sum(), rtol=found.error.value)
        whole = 5 * 3 * 4
        assert found.metadata["lost"] == pytest.approx(1 - row.sum() / whole, abs=1e-14)
        assert (mode == "zeros") == (found.metadata["lost"] > 1e-3)


# Powers: every net with weights ±1, enumerated


def enumerated(run, weights, size):
    """Mean of squared Jacobians over all ±1 weights, shape (units, pixels)."""
    signs = np.array(list(product((-1.0, 1.0), repeat=weights)))
    with jax.enable_x64(True):
        one = jax.jit(jax.vmap(lambda w: jax.jacobian(lambda x: run(x, w))(jnp.zeros(size)) ** 2))
        return np.asarray(one(jnp.asarray(signs)).mean(0))


def averaged(x, k, stride, pad, count):
    total = sum(
        jnp.pad(x, pad)[a : a + stride * ((len(x) + 2 * pad - k) // stride) + 1 : stride]
        for a in range(k)
    )
    if count:
        return total / k
    return total / averaged(jnp.ones_like(x), k, stride, pad, True) / k


def linear(x, factor):
    return jax.image.resize(x, (len(x) * factor,), "linear")


CASES = {
    "convolutions": (
        Chain(Conv(3), Conv(3, 2), Conv(2), ndim=1),
        8,
        lambda x, w, m: convolved(
            convolved(convolved(x, w[:3], m), w[3:6], m, 2), w[6:], m
        ),
    ),
    "one pool": (
        Chain(Conv(3), AvgPool(3, 2, padding=1), Conv(3), ndim=1),
        6,
        lambda x, w, m: convolved(averaged(convolved(x, w[:3], m), 3, 2, 1, True), w[3:], m),
    ),
    "two pools, uncounted": (
        Chain(
            Conv(3), AvgPool(3, 1, padding=1, count_include_pad=False), Activation("linear"),
            AvgPool(3, 2, padding=1), Conv(2), ndim=1,
        ),
        5,
        lambda x, w, m: convolved(
            averaged(averaged(convolved(x, w[:3], m), 3, 1, 1, False), 3, 2, 1, True), w[3:], m
        ),
    ),
    "repeated pools": (
        Chain(Conv(3), AvgPool(3, 1, padding=1) * 3, Conv(2), ndim=1),
        5,
        lambda x, w, m: convolved(
            averaged(averaged(averaged(convolved(x, w[:3], m), 3, 1, 1, True), 3, 1, 1, True),
                     3, 1, 1, True), w[3:], m
        ),
    ),
    "interpolation": (
        Chain(Conv(3), Upsample(2, "bilinear"), Upsample(3, "bilinear"), Conv(3), ndim=1),
        6,
        lambda x, w, m: convolved(linear(linear(convolved(x, w[:3], m), 2), 3), w[3:], m),
    ),
    "pool beside identity": (
        Chain(Conv(3), Residual(AvgPool(3, 1, padding=1)), Conv(3), ndim=1),
        6,
        lambda x, w, m: (
            lambda y: convolved(y + averaged(y, 3, 1, 1, True), w[3:], m)
        )(convolved(x, w[:3], m)),
    ),
    "global mean": (
        Chain(Conv(3), Conv(3), GlobalAvgPool(), Conv(1), ndim=1),
        6,
        lambda x, w, m: jnp.mean(convolved(convolved(x, w[:3], m), w[3:6], m), keepdims=True),
    ),
}  # fmt: skip


OTHER = [("convolutions", "reflect"), ("convolutions", "circular"), ("interpolation", "reflect"),
         ("global mean", "reflect")]  # fmt: skip


@pytest.mark.parametrize("name, mode", [*((name, "zeros") for name in CASES), *OTHER])
def test_powers_are_means_over_all_nets(name, mode):
    net, weights, run = CASES[name]
    if mode == "reflect" and name != "convolutions":
        assert exact(net, image=9, padding_mode=mode).error.kind == "approximation"
        return
    squares = enumerated(lambda x, w: run(x, w, mode), weights, 9)
    units = list(exact_units(net, 9, padding_mode=mode))
    assert len(units) == len(squares)
    for found, wanted in zip(units, squares):
        np.testing.assert_allclose(
            found.map, wanted / wanted.sum(), rtol=found.error.value + 1e-13, atol=1e-16
        )
    # E g² of all units alike, up to one factor a net: what is lost is told apart
    kept = np.array([1 - (u.metadata["lost"] or 0) for u in units])
    if name in ("convolutions", "one pool"):
        np.testing.assert_allclose(kept / kept[4], squares.sum(1) / squares[4].sum(), rtol=1e-12)


def test_correlations_of_a_fixed_layer_reach_the_next():
    """Shared weights carry them through a convolution."""
    pool = AvgPool(3, 1, padding=1)
    net = Chain(Conv(3), pool, Conv(3), pool, ndim=1)

    def run(x, w):
        for part in (w[:3], w[3:]):
            x = averaged(convolved(x, part, "zeros"), 3, 1, 1, True)
        return x

    for wanted, found in zip(enumerated(run, 6, 11), exact_units(net, 11)):
        assert found.error.kind == "relative"
        np.testing.assert_allclose(found.map, wanted / wanted.sum(), rtol=1e-12, atol=1e-16)
    # a padding that repeats pixels adds gradients of pixels far apart
    assert exact(net, image=11, padding_mode="circular").error.kind == "approximation"


def test_a_max_pool_routes_inside_the_image():
    net = Chain(MaxPool(3, 1, padding=1), ndim=1)
    corner = exact(net, image=5, unit=(0,))
    np.testing.assert_allclose(corner.map, [0.5, 0.5, 0, 0, 0])
    assert abs(corner.metadata["lost"]) < 1e-15
    assert corner.holes is not None and corner.holes.tolist() == [False, False, True, True, True]
    linear_net = exact(net, image=5, unit=(0,), signal="gradient")
    assert linear_net.metadata["lost"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("signal", ["variance", "gradient"])
def test_a_global_mean_reads_all_pixels(signal):
    found = exact(Chain(Conv(3), GlobalAvgPool(), ndim=1), image=9, signal=signal)
    np.testing.assert_allclose(found.map, np.array([2, *[3] * 7, 2]) / 25)
    assert found.metadata["unit"] == (0,)
    assert found.metadata["lost"] == pytest.approx(2 / 27)  # one tap in three at either end


def test_aligned_corners_by_their_formula():
    net = Chain(Upsample(2, "bilinear", align_corners=True), ndim=1)
    for unit in range(10):
        place = unit * 4 / 9
        wanted = np.maximum(0, 1 - np.abs(np.arange(5) - place))
        found = exact(net, image=5, unit=(unit,), signal="gradient")
        np.testing.assert_allclose(found.map, wanted, atol=1e-15)


# Branches: gains of the plane, signals of the grid


def test_branches_carry_the_gains_of_the_plane():
    alpha = 3
    branch = exact(Chain(Conv(3), Conv(3), ndim=1), image=9, unit=(1,))
    kept = 1 - branch.metadata["lost"]
    found = exact(Residual(Chain(Conv(3), Conv(3), ndim=1), gain=alpha), image=9, unit=(1,))
    wanted = alpha * kept * branch.map + np.eye(9)[1]
    np.testing.assert_allclose(found.map, wanted / wanted.sum(), rtol=1e-13)
    assert found.metadata["lost"] == pytest.approx(alpha * (1 - kept) / (1 + alpha))


def test_a_repetition_in_a_branch_keeps_its_power():
    chain = Chain(BatchNorm(), Activation("relu"), Conv(3), ndim=1)
    written = Chain(*[chain] * 6)
    maps = [exact(Residual(body), image=11, unit=(2,)).map for body in (chain * 6, written)]
    np.testing.assert_allclose(*maps, rtol=1e-9)


def test_all_units_are_the_single_ones(monkeypatch):
    monkeypatch.setattr(grid, "BATCH", 400)  # several batches
    for name in ("residual", "unet", "taps"):
        net = NETWORKS[name]
        many = list(exact_units(net, (8, 12), signal="magnitude"))
        shape = many[-1].metadata["unit"]
        assert len(many) == np.prod([n + 1 for n in shape])
        for one in many[::7]:
            alone = exact(net, image=(8, 12), unit=one.metadata["unit"], signal="magnitude")
            np.testing.assert_allclose(one.map, alone.map, rtol=1e-14)
            assert one.metadata["lost"] == pytest.approx(alone.metadata["lost"], abs=1e-14)


def test_deep_nets_on_small_images_do_not_underflow():
    """A stack on n pixels tends to the leading eigenvector of its matrix, a half sine."""
    found = exact(Chain(Conv(3), ndim=1) * 3000, image=9)
    wave = np.sin(np.pi * np.arange(1, 10) / 10)
    np.testing.assert_allclose(found.map, wave / wave.sum(), rtol=1e-10)
    assert found.metadata["lost"] == pytest.approx(1)


def test_signed_taps_say_how_they_cancel():
    net = Chain(Conv(3, taps=[1, -3, 1]), Conv(3), ndim=1)
    found = exact(net, image=6, unit=(0,), signal="gradient")
    rows = np.array([np.convolve(np.eye(8)[i], [1, -3, 1])[1:9] for i in range(8)])[1:7, 1:7]
    wanted = rows[0] + rows[1]
    np.testing.assert_allclose(found.map, wanted / wanted.sum(), rtol=1e-13)
    assert found.error.kind == "rounding"
