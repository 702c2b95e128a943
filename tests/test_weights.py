"""A model's own weights: taps of both signals, gains, and where they come from."""

from __future__ import annotations

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from erftheory import Chain, Conv, ConvTranspose, Residual, exact, from_jax, from_torch
from erftheory.empirical.nets.draw import initialise
from erftheory.theory.gains.forward import meanfield_gains
from erftheory.theory.walk.links import transfer

RNG = np.random.default_rng(5)


def drawn(*shape):
    return RNG.normal(size=shape)


def placed(erf, shape, unit):
    """The map on an array of input pixels, for a unit at `unit` (pixels)."""
    full = np.zeros(shape)
    starts = [o + u for o, u in zip(erf.offset, unit)]
    full[tuple(slice(s, s + n) for s, n in zip(starts, erf.map.shape))] = erf.map
    return full


def conv(x, w, stride=1, dilation=1, up=1, pads=None, numbers=("NCHW", "OIHW", "NCHW")):
    return lax.conv_general_dilated(
        x, jnp.asarray(w, x.dtype), (stride,) * 2, pads or ((1, 1), (1, 1)), (up,) * 2,
        (dilation,) * 2, numbers,
    )  # fmt: skip


def one_channel():
    a, b, c, d = drawn(3, 3), drawn(3, 3), drawn(2, 2), drawn(3, 3)

    def net(x):
        x = x + conv(conv(x, a[None, None]), 0.3 * b[None, None])
        x = conv(x, c[None, None], stride=2, pads=((0, 0), (0, 0)))
        x = conv(x, d[None, None], dilation=2, pads=((2, 2), (2, 2)))
        return conv(x, a[None, None], up=2, pads=((1, 2), (2, 1)))

    return net


def test_the_gradient_of_a_linear_net_of_one_channel():
    net, n = one_channel(), 40
    with jax.enable_x64(True):
        x = jnp.zeros((1, 1, n, n))
        network = from_jax(net, x).weighted()
        for unit in ((20, 20), (21, 20), (20, 21)):
            wanted = np.asarray(jax.grad(lambda y, u=unit: net(y)[(0, 0, *u)])(x))[0, 0]
            phase = tuple(u % 2 for u in unit)
            erf = exact(network, "gradient", unit=phase)
            found = placed(erf, (n, n), [u - p for u, p in zip(unit, phase)])
            assert found == pytest.approx(wanted / wanted.sum(), abs=1e-9)


SIGNED = {
    "difference": lambda x, a, b: a(x) - b(x),
    "negative": lambda x, a, b: a(x) + (-b(x)),
    "factor": lambda x, a, b: a(x) + b(x) * -2.0,
    "constant less": lambda x, a, b: a(x) + (3 - b(x)),
    "identity less": lambda x, a, b: x - a(b(x)),
    "twice": lambda x, a, b: -(a(x) - (-b(x))),
    "scale": lambda x, a, b: a(x) + jnp.asarray([[[-0.5]]], x.dtype) * b(x),
}


@pytest.mark.parametrize("name", SIGNED)
def test_signs_between_branches(name):
    u, v, n = drawn(1, 1, 3, 3), drawn(1, 1, 5, 5), 16

    def net(x):
        wide = lambda y: conv(y, v, pads=((2, 2), (2, 2)))  # noqa: E731
        return SIGNED[name](x, lambda y: conv(y, u), wide)

    with jax.enable_x64(True):
        x = jnp.zeros((1, 1, n, n))
        wanted = np.asarray(jax.grad(lambda y: net(y)[0, 0, 8, 8])(x))[0, 0]
        network = from_jax(net, x).weighted()
    for options in ({"image": n, "unit": (8, 8)}, {}):
        erf = exact(network, "gradient", **options)
        found = erf.map if options else placed(erf, (n, n), (8, 8))
        assert found == pytest.approx(wanted / wanted.sum(), abs=1e-9 * abs(found).max())
        assert exact(network, **options).error.kind == "relative"  # no sign in the variance


def test_what_channels_hide_is_said():
    one = exact(Chain(Conv(3, weights=drawn(1, 1, 3)), ndim=1))
    several = Chain(Conv(3, weights=drawn(4, 2, 3)), ndim=1)
    assert one.error.kind == "relative"
    for erf in (exact(several), exact(several, image=9), exact(several, "gradient", window=3)):
        assert erf.error.kind == "approximation" and "channels" in erf.error.note


@pytest.mark.parametrize("looped", [False, True])
def test_weights_used_twice_have_no_bound(looped):
    """Their signs are not independent: over all eight of three taps the map is another one."""
    w = np.array([0.4, -1.1, 0.7])

    def once(x):
        kernel = jnp.asarray(w.reshape(3, 1, 1))
        return jax.lax.conv_general_dilated(
            x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
        )

    def net(x):
        return jax.lax.fori_loop(0, 2, lambda i, y: once(y), x) if looped else once(once(x))

    with jax.enable_x64(True):
        found = exact(from_jax(net, jnp.zeros((1, 33, 1)), spatial_axes=(1,)).weighted())
    signs = np.array(np.meshgrid(*[[1, -1]] * 3)).reshape(3, -1).T
    true = np.mean([np.convolve(s * w, s * w) ** 2 for s in signs], axis=0)
    assert np.abs(found.map[::-1] - true / true.sum()).max() > 0.05
    assert found.error.kind == "approximation" and "share weights" in found.error.note


def test_the_variance_over_all_signs_of_the_weights():
    a, b, c = drawn(2), drawn(3), drawn(2)
    network = Chain(
        Residual(
            Chain(Conv(2, weights=a[None, None], padding="causal"), Conv(3, weights=b[None, None]))
        ),
        Conv(2, weights=c[None, None]), ndim=1,
    )  # fmt: skip
    total, size = 0.0, 5
    for signs in product((-1, 1), repeat=7):
        s = np.array(signs)
        # gradients run through the taps in their order: correlate, as a layer does
        block = np.convolve(a * s[:2], b * s[2:5])
        block[2] += 1  # the identity: one back by the first conv, one by the centre of the second
        total = total + np.convolve(block, c * s[5:]) ** 2
    erf = exact(network)
    assert len(total) == size == len(erf.map)
    assert erf.map == pytest.approx(total / total.sum(), rel=1e-12)


def test_dimension_numbers_groups_and_dense_layers_give_the_same_weights():
    w, shape = drawn(6, 2, 3, 2), (1, 4, 12, 10)
    x = jnp.zeros(shape)
    wanted = Conv((3, 2), weights=w, groups=2).weights

    def grouped(x):
        return lax.conv_general_dilated(
            x, jnp.asarray(w, x.dtype), (1, 1), "SAME", feature_group_count=2,
            dimension_numbers=("NCHW", "OIHW", "NCHW"),
        )  # fmt: skip

    def turned(x):  # height and width exchanged, channels last
        return lax.conv_general_dilated(
            x.transpose(3, 0, 2, 1)[..., :], jnp.asarray(w.transpose(3, 2, 1, 0), x.dtype), (1, 1),
            "SAME", feature_group_count=2, dimension_numbers=("WNHC", "WHIO", "NHWC"),
        )  # fmt: skip

    for function in (grouped, turned):
        ops = [n.op for n in from_jax(function, x).weighted().graph.nodes]
        found = next(op.weights for op in ops if isinstance(op, Conv))
        assert found.power.exact == pytest.approx(wanted.power.exact, rel=1e-6)
        assert found.signed.exact == pytest.approx(wanted.signed.exact, rel=1e-5, abs=1e-6)
        assert (found.inward, found.outward) == (2, 3)

    patch = drawn(3, 4, 2, 5)  # (rows, columns, channels, out) of a patch embedding

    def embedded(x):
        y = x.reshape(1, 2, 4, 3, 3, 4).transpose(0, 2, 4, 3, 5, 1).reshape(1, 4, 3, -1)
        return y @ jnp.asarray(patch.reshape(-1, 5), x.dtype)

    network = from_jax(embedded, jnp.zeros((1, 2, 12, 12)), spatial_axes=(2, 3)).weighted()
    found = next(n.op.weights for n in network.graph.nodes if isinstance(n.op, Conv))
    wanted = (patch**2).sum(axis=3).mean(axis=2)
    assert found.power.exact == pytest.approx(wanted.ravel(), rel=1e-6)


def test_pytorchs_transposed_convolutions_by_its_own_gradients():
    torch = pytest.importorskip("torch")
    # equal channels up to a factor: the sum over channels is then the whole gradient
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1, groups=2, bias=False),
        torch.nn.ConvTranspose2d(4, 2, (4, 3), 2, padding=1, groups=2, bias=False),
    ).double()
    with torch.no_grad():
        for layer in net:
            taps = torch.as_tensor(drawn(*layer.kernel_size))
            layer.weight.copy_(taps.expand_as(layer.weight))
    x = torch.zeros(1, 2, 16, 16, dtype=torch.float64, requires_grad=True)
    y = net(x)
    unit = (15, 16)
    y[0, :, unit[0], unit[1]].sum().backward()
    wanted = x.grad[0].sum(0).numpy()
    network = from_torch(net.float(), torch.zeros(1, 2, 16, 16)).weighted()
    erf = exact(network, "gradient", unit=(1, 0))
    found = placed(erf, (16, 16), (7, 8))
    assert found == pytest.approx(wanted / wanted.sum(), abs=1e-5 * abs(found).max())


def test_gains_are_those_of_the_weights():
    w, v = 0.5 * drawn(8, 8, 3), 0.1 * drawn(8, 8, 3)
    net = Chain(Conv(3, weights=w), Conv(3, weights=v), ndim=1)
    gains = meanfield_gains(net.graph)
    power = (w**2).sum() / 8 * (v**2).sum() / 8
    assert float(transfer(net.graph, gains)) == pytest.approx(power, rel=1e-12)
    # and decide what a branch weighs: 1 along the identity
    erf = exact(Chain(Residual(net), ndim=1))
    taps = np.convolve((w**2).sum((0, 1)) / 8, (v**2).sum((0, 1)) / 8)
    taps[2] += 1
    assert erf.map == pytest.approx(taps / taps.sum(), rel=1e-12)


def test_a_finite_image_takes_them_too():
    net, n = one_channel(), 12
    with jax.enable_x64(True):
        x = jnp.zeros((1, 1, n, n))
        network = from_jax(net, x).weighted()
        wanted = np.asarray(jax.grad(lambda y: net(y)[0, 0, 1, 10])(x))[0, 0]
        erf = exact(network, "gradient", image=n, unit=(1, 10))
    assert erf.map == pytest.approx(wanted / wanted.sum(), abs=1e-9)


def test_random_nets_draw_their_variances():
    w = drawn(128, 128, 3)
    net = Chain(Conv(3, weights=w), ndim=1)
    (found,) = jax.tree.leaves(initialise(net, jax.random.key(1), in_channels=128))
    ratio = (np.asarray(found) ** 2).mean((0, 1)) / (w**2).mean((0, 1))
    # the mean of 128² squares of normals deviates by √2/128; five of these in one of 2 million
    assert np.abs(ratio - 1).max() < 5 * np.sqrt(2) / 128


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Conv(3, weights=np.ones((4, 2, 3))[..., None]), "weights: got a kernel of (3, 1)"),
        (lambda: Conv(3, weights=np.ones(3)), "weights: got shape (3,)"),
        (lambda: Conv(3, weights=np.zeros((1, 1, 3))), "weights: got all zeros"),
        (lambda: Conv(3, weights=np.full((1, 1, 3), np.nan)), "weights: got NaN"),
        (lambda: Conv(3, weights="abc"), "weights: got str"),
        (lambda: Conv(3, weights=np.ones((1, 1, 3)), taps=[1, 1, 1]), "weights: got weights and"),
        (lambda: Conv(3, weights=np.ones((4, 1, 3)), channels=5), "weights: got 4 output"),
        (lambda: ConvTranspose(3, weights=np.ones((4, 1, 3)), groups=3), "weights: got shape"),
        (
            lambda: exact(Chain(Conv(2, weights=[[[1, 1]], [[-1, -1]]]), ndim=1), "gradient"),
            "weights: got taps whose sum over channels is 0",
        ),
        (
            lambda: from_jax(
                lambda x, w: conv(x, w),
                jnp.zeros((1, 1, 8, 8)),
                jax.ShapeDtypeStruct((1, 1, 3, 3), jnp.float32),
            ).weighted(),
            "weights: got none for 1 of the model's convolutions",
        ),
    ],
)  # fmt: skip
def test_one_line_for_weights_that_cannot_be(make, words):
    with pytest.raises(ValueError) as caught:
        make()
    assert words in str(caught.value) and "\n" not in str(caught.value)
