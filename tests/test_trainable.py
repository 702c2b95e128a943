"""The Flax module of a network beside the package's executor, PyTorch, and its own reading."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from networks import NETWORKS

from erftheory import (
    Activation,
    AvgPool,
    BatchNorm,
    Chain,
    Conv,
    ConvTranspose,
    Dropout,
    GlobalAvgPool,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    MaxPool,
    Recurrent,
    Residual,
    RMSNorm,
    exact,
    from_jax,
    from_torch,
    moments,
    receptive_field,
    zoo,
)
from erftheory.empirical import apply, initialise
from erftheory.network.activations import ACTIVATIONS
from erftheory.training.modules.heads import Classifier, Dense
from erftheory.training.modules.module import trainable

RELU, WIDE = Activation("relu"), Conv(3, channels=8)
NORMED = {
    kind: Chain(WIDE, norm, RELU, Residual(Chain(WIDE, norm, RELU)) * 2, Conv(3, 2))
    for kind, norm in {
        "batch": BatchNorm(), "instance": InstanceNorm(), "group": GroupNorm(2),
        "layer": LayerNorm(), "root mean square": RMSNorm(),
    }.items()
}  # fmt: skip
OTHERS = {
    "curves": Chain(*(Chain(Conv(3), Activation(name)) for name in ACTIVATIONS), ndim=1),
    "leaky": Chain(Conv(3), Activation("leaky_relu", 0.3), Conv(3)),
    "pools": Chain(
        Conv(3), AvgPool(3, 2, padding=1, count_include_pad=False), MaxPool(3, 1, dilation=2),
        MaxPool(2, padding=(0, 1)), Conv(3),
    ),
    "grouped": Chain(
        Conv(3), Conv(3, groups="depthwise"), Conv(1, groups=2), ConvTranspose(3, 2, groups=4),
        Conv(3),
    ),
    "last mean": Chain(Conv(3), RELU, GlobalAvgPool()),
    "repetition that narrows": Chain(Conv(3, padding="valid"), Activation("tanh")) * 4,
    "torch's biases": Chain(Conv(3), RELU, Conv(3)),
}  # fmt: skip
ALL = NETWORKS | NORMED | OTHERS
SMOOTH = {"bilinear unet", "super-resolution"}  # the rim repeats here, as in PyTorch; zeros there
SIZES = {1: 64, 2: 24, 3: 16}


@pytest.mark.parametrize("name", ALL)
def test_outputs_and_gradients_are_those_of_the_executor(name):
    net, init = ALL[name], "torch" if name.startswith("torch") else "he"
    params = initialise(net, jax.random.key(1), 4, init=init, in_channels=2)
    size = 40 if name == "bilinear unet" else SIZES[net.ndim]
    x = jax.random.normal(jax.random.key(2), (2, *(size,) * net.ndim))
    module = trainable(net, nnx.Rngs(0), 4, in_channels=2, params=params)
    graph, state = nnx.split(module)

    def executed(x):
        return apply(net, params, x)

    def trained(x):
        merged = nnx.merge(graph, state, copy=True)
        return jnp.moveaxis(merged(jnp.moveaxis(x, 0, -1)[None])[0], -1, 0)

    def unit(function, x):
        y = function(x)
        centre = y[(slice(None), *(n // 2 for n in y.shape[1:]))]
        return (centre * jnp.arange(1.0, len(centre) + 1)).sum(), y

    found, wanted = (
        jax.jit(jax.value_and_grad(lambda x, f=f: unit(f, x), has_aux=True))(x)
        for f in (trained, executed)
    )
    np.testing.assert_allclose(found[1], wanted[1], atol=2e-5 * np.abs(wanted[1]).max())
    assert np.abs(wanted[1]).max() > 0
    scale = float(jnp.abs(wanted[0][1]).max())
    np.testing.assert_allclose(found[0][0], wanted[0][0], atol=2e-5 * scale)
    if name not in SMOOTH:
        np.testing.assert_allclose(found[0][1], wanted[0][1], atol=2e-5 * scale)


READ = {k: v for k, v in NETWORKS.items() if k not in ("taps", "separable taps", "aligned corners")}


@pytest.mark.parametrize("name", [*READ, *NORMED, "leaky"])
def test_what_reads_it_again_finds_the_same_network(name):
    net = ALL[name]
    module = trainable(net, nnx.Rngs(0), 1)
    module.eval()
    image = jax.ShapeDtypeStruct((1, *(SIZES[net.ndim] * 2,) * net.ndim, 1), jnp.float32)
    read = from_jax(lambda x: module(x), image)
    assert receptive_field(read) == receptive_field(net)
    want, got = moments(net), moments(read)
    for a, b in zip(want.variance, got.variance):
        assert float(a) == pytest.approx(float(b), rel=1e-5)  # taps of resizing are float32
    if net.ndim < 3:
        np.testing.assert_allclose(exact(read).map, exact(net).map, atol=1e-5)


def test_given_weights_are_copied():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(6, 2, 3, 3)), rng.normal(size=(6, 3, 4, 4))
    net = Chain(
        Conv(3, 2, weights=first, padding=1), RELU,
        ConvTranspose(4, 3, padding=1, output_padding=1, groups=2, weights=second),
    )  # fmt: skip
    module = trainable(net, nnx.Rngs(0), in_channels=2)
    x = rng.normal(size=(1, 2, 11, 9)).astype(np.float32)
    y = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(first).float(), None, 2, 1)
    grouped = second.reshape(2, 3, 3, 4, 4).swapaxes(1, 2).reshape(6, 3, 4, 4)
    y = torch.nn.functional.conv_transpose2d(
        torch.relu(y), torch.tensor(grouped).float(), None, 3, 1, 1, 2
    )
    found = module(np.moveaxis(x, 1, -1))
    np.testing.assert_allclose(np.moveaxis(found, -1, 1), y.numpy(), atol=2e-5)


def test_an_imported_model_goes_on_with_its_own_weights():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1, bias=False),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(8, 5, 3, padding=2, dilation=2, bias=False),
        torch.nn.GELU(),
    ).eval()
    read = from_torch(model, torch.zeros(1, 3, 32, 32))
    x = torch.randn(2, 3, 32, 32)
    want = np.moveaxis(model(x).detach().numpy(), 1, -1)
    own, drawn = (
        trainable(net, nnx.Rngs(0), in_channels=3)(np.moveaxis(x.numpy(), 1, -1))
        for net in (read.weighted(), read)
    )
    np.testing.assert_allclose(own, want, atol=1e-5)
    assert np.abs(drawn - want).max() > 0.1


def test_batch_norm_is_live_in_training_and_frozen_in_evaluation():
    module = trainable(Chain(Conv(3), BatchNorm(), RELU), nnx.Rngs(0), 4, Dense(2))
    rng = np.random.default_rng(0)
    x, far = rng.normal(size=(4, 8, 8, 1)), rng.normal(size=(4, 8, 8, 1)) * 30
    alone, beside = (module(v)[:4] for v in (x, np.concatenate([x, far])))
    assert not np.allclose(alone, beside)
    for _ in range(80):  # 0.9⁸⁰ of the first deviation is left
        module(x)
    module.eval()
    np.testing.assert_allclose(module(x), module(np.concatenate([x, far]))[:4], atol=1e-6)
    np.testing.assert_allclose(module(x), alone, atol=0.02 * float(jnp.abs(alone).max()))


def test_dropout_is_on_in_training_and_off_in_evaluation():
    net = Chain(Conv(3), Dropout(0.5), Conv(3))
    module = trainable(net, nnx.Rngs(0), 4)
    x = np.ones((1, 8, 8, 1), np.float32)
    assert not np.array_equal(module(x), module(x))
    module.eval()
    np.testing.assert_array_equal(module(x), module(x))


def test_a_gain_of_a_residual_block_is_the_power_it_says():
    net = Chain(Conv(3), Residual(Chain(Conv(3), RELU, Conv(3)), gain=4) * 2)
    modules = [trainable(net, nnx.Rngs(i), 32) for i in range(64)]
    powers = []
    for module in modules:
        block = module.body.layers["repeat"][0]
        x = jax.random.normal(jax.random.key(0), (1, 24, 24, 32))
        branch = (block(x) - x)[:, 4:-4, 4:-4]
        powers.append(float(jnp.square(branch).mean()))
    error = np.std(powers, ddof=1) / 8
    assert abs(np.mean(powers) - 4) < 5 * error  # false alarms: 6e-7
    assert error < 0.4


def test_names_are_those_of_the_description():
    layers = trainable(zoo.resnet18(), nnx.Rngs(0)).body.layers
    assert "stem_conv" in layers and "layer2_first_shortcut_conv" in layers
    assert len(layers) == len(set(layers))


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (Classifier(3), (3,)),
        (Classifier(3, "center"), (3,)),
        (Dense(5), (17, 23, 5)),
        (None, (9, 12, 1)),  # the last convolution of a bare network has one channel, as in sample
    ],
)
def test_heads(head, size):
    module = trainable(Chain(Conv(3, 2), RELU), nnx.Rngs(0), 8, head, bias=True)
    assert module(np.zeros((2, 17, 23, 1), np.float32)).shape == (2, *size)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(network=Chain(Recurrent(), ndim=1)), "network: got a"),
        (dict(channels=0), "channels: got 0"),
        (dict(head="ten"), "head: got 'ten'; takes Classifier"),
        (dict(init="best"), "init: got 'best'"),
        (dict(weights="cauchy"), "weights: got 'cauchy'"),
    ],
)
def test_bad_arguments_are_one_line(change, said):
    options = dict(network=Conv(3)) | change
    with pytest.raises(ValueError, match=said) as caught:
        trainable(options.pop("network"), nnx.Rngs(0), **options)
    assert "\n" not in str(caught.value)


def test_an_image_of_another_shape_is_one_line():
    with pytest.raises(ValueError, match=r"x: got shape \(8, 8\); takes \(batch, spatial"):
        trainable(Chain(Conv(3), RELU), nnx.Rngs(0))(np.zeros((8, 8)))
