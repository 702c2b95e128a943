"""Normalisations of models are layers; their statistics and scales wait for weighted()."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from onnx import helper
from test_frameworks import (
    equinox_residual,
    haiku_residual,
    keras,  # noqa: F401, a fixture
    keras_residual,
    linen_residual,
    linen_u_net,
    nnx_dilated,
)
from test_from_onnx import Made, model
from torch import nn

from erftheory import (
    Activation,
    BatchNorm,
    Chain,
    Conv,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    MaxPool,
    Residual,
    RMSNorm,
    exact,
    from_jax,
    from_onnx,
    from_torch,
    moments,
    receptive_field,
    zoo,
)
from erftheory.empirical.nets.draw import initialise
from erftheory.empirical.nets.execute import apply
from erftheory.network.imported import Scale
from erftheory.network.layers import Norm

RELU = Activation("relu")


class Block(nn.Module):
    """Basic block of ResNet."""

    def __init__(self, inside, outside, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outside), nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.downsample = None
        if stride > 1 or inside != outside:
            one = nn.Conv2d(inside, outside, 1, stride, bias=False)
            self.downsample = nn.Sequential(one, nn.BatchNorm2d(outside))

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


def norms(network):
    return [node.op for node in network.graph.nodes if isinstance(node.op, Norm)]


def first(channels, kernel=3, **more):
    conv = nn.Conv2d(3, channels, kernel, bias=False, **more)
    return conv, nn.BatchNorm2d(channels), nn.ReLU()


def test_batch_norms_in_evaluation_mode_are_those_of_a_description():
    net = nn.Sequential(*first(16, padding=1), *[Block(16, 16) for _ in range(6)])
    conv = Conv(3, channels=16)
    branch = Chain(conv, BatchNorm(), RELU, conv, BatchNorm())
    hand = Chain(conv, BatchNorm(), RELU, Chain(Residual(branch), RELU) * 6)
    example = torch.zeros(1, 3, 64, 64)
    plain = from_torch(net, example)
    assert moments(plain).std == pytest.approx(moments(hand).std) and not plain.notes
    trained = moments(plain.weighted()).std[0]
    for block in net[3:]:
        block.bn2.running_var.fill_(100.0)
    loud = from_torch(net, example)
    assert moments(loud) == moments(plain)
    assert moments(loud.weighted()).std[0] < 0.9 * trained < moments(plain).std[0]


def test_resnet_18_of_a_module_is_that_of_the_zoo():
    layers, inside = [], 64
    for i, outside in enumerate((64, 128, 256, 512)):
        layers += [Block(inside, outside, 1 + (i > 0)), Block(outside, outside)]
        inside = outside
    stem = *first(64, 7, stride=2, padding=3), nn.MaxPool2d(3, 2, 1)
    network = from_torch(nn.Sequential(*stem, *layers), torch.zeros(1, 3, 64, 64))
    # the description's first convolution reads as many channels as it likes
    assert moments(network).std == pytest.approx(moments(zoo.resnet18()).std, rel=1e-3)


def test_scales_and_running_deviations_are_those_of_the_model_when_it_is_weighted():
    norm = nn.BatchNorm2d(4)
    norm.weight.data = torch.tensor([1.0, -2.0, 3.0, -4.0])
    norm.running_var = torch.tensor([1.0, 4.0, 9.0, 1.0])
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), norm)
    network = from_torch(net, torch.zeros(1, 3, 8, 8))
    assert norms(network) == [BatchNorm()]
    last = network.weighted().graph.nodes[-1].op
    assert isinstance(last, Scale)
    assert last.factor == pytest.approx(-np.sqrt((1 + 1 + 1 + 16) / 4), rel=1e-4)
    assert norms(network) == [BatchNorm()]

    norm = nn.LayerNorm(4)
    norm.weight.data = torch.tensor([1.0, 2.0, 3.0, 4.0])
    net = nn.Sequential(nn.Conv1d(4, 4, 3, bias=False), Turned(norm), nn.Conv1d(4, 4, 3))
    network = from_torch(net, torch.zeros(1, 4, 12))
    for made in (network, network.weighted(), network.weighted().until("2")):
        assert norms(made) == [LayerNorm()]
    scales = [n.op for n in network.weighted().graph.nodes if isinstance(n.op, Scale)]
    assert [s.factor for s in scales] == pytest.approx([np.sqrt(30 / 4)])


class Turned(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.transpose(1, -1)).transpose(1, -1)


TORCH = {
    "batch": (nn.BatchNorm2d(8), BatchNorm()),
    "batch, of this image": (nn.BatchNorm2d(8, track_running_stats=False), BatchNorm()),
    "instance": (nn.InstanceNorm2d(8), InstanceNorm()),
    "instance, affine": (nn.InstanceNorm2d(8, affine=True), InstanceNorm()),
    "instance, running": (nn.InstanceNorm2d(8, track_running_stats=True), BatchNorm()),
    "group": (nn.GroupNorm(4, 8), GroupNorm(4)),
    "group, one channel each": (nn.GroupNorm(8, 8), InstanceNorm()),
    "layer, over channels": (Turned(nn.LayerNorm(8)), LayerNorm()),
    "layer, over all": (nn.LayerNorm((8, 14, 14)), GroupNorm(1)),
    "rms": (Turned(nn.RMSNorm(8)), RMSNorm()),
}


@pytest.mark.parametrize("name", TORCH)
def test_norms_of_pytorch(name):
    module, wanted = TORCH[name]
    net = nn.Sequential(nn.Conv2d(3, 8, 3), module, nn.Conv2d(8, 8, 3))
    network = from_torch(net, torch.zeros(1, 3, 16, 16))
    assert norms(network) == [wanted]
    running = wanted == BatchNorm() and module.running_var is not None
    assert norms(network.weighted()) == ([] if running else [wanted])


def test_a_norm_over_the_channels_of_a_block_is_one_of_channels():
    """Swin's merging of patches: four pixels are channels, and are normalised as such."""
    def merged(m, x):
        y = m[0](x).permute(0, 2, 3, 1)
        y = y.reshape(1, 6, 2, 6, 2, 4).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return m[2](m[1](y)).permute(0, 3, 1, 2)

    made = Made(merged, nn.Conv2d(3, 4, 3, padding=1), nn.LayerNorm(16), nn.Linear(16, 8))
    network = from_torch(made, torch.zeros(1, 3, 12, 12))
    assert norms(network) == [LayerNorm()] and receptive_field(network).size == (4, 4)
    assert not any("held constant" in note for note in network.notes)


@pytest.mark.parametrize("form", ["none", "tanh"])
def test_the_two_forms_of_gelu(form):
    wanted = {"none": "gelu", "tanh": "gelu_tanh"}[form]
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(form), nn.Conv2d(4, 4, 3))
    w = {"w": np.ones((4, 3, 3, 3), np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Gelu", ["a"], ["y"], approximate=form),
    ]

    def function(x):
        y = jax.lax.conv_general_dilated(x, jnp.ones((4, 3, 3, 3)), (1, 1), "SAME")
        return jax.nn.gelu(y, approximate=form == "tanh")

    found = from_torch(net, torch.zeros(1, 3, 8, 8)), from_onnx(model(nodes, w))
    for network in (*found, from_jax(function, jnp.zeros((1, 3, 8, 8)))):
        names = [n.op.name for n in network.graph.nodes if isinstance(n.op, Activation)]
        assert names == [wanted]


CHANNELS = {k: np.ones(4, np.float32) for k in ("s", "b", "m", "v")}
ONNX = {
    "batch": (("BatchNormalization", ["a", "s", "b", "m", "v"], {}), BatchNorm()),
    "instance": (("InstanceNormalization", ["a", "s", "b"], {}), InstanceNorm()),
    "group": (("GroupNormalization", ["a", "s", "b"], {"num_groups": 2}), GroupNorm(2)),
    "moments": (("MeanVarianceNormalization", ["a"], {}), BatchNorm()),
    "moments of all": (("MeanVarianceNormalization", ["a"], {"axes": [1, 2, 3]}), GroupNorm(1)),
    "layer of all": (("LayerNormalization", ["a", "w1"], {"axis": 1}), GroupNorm(1)),
}  # fmt: skip


@pytest.mark.parametrize("name", ONNX)
def test_norms_of_onnx(name):
    (kind, inputs, more), wanted = ONNX[name]
    w = {"w": np.ones((4, 3, 3, 3), np.float32), "w1": np.ones((4, 34, 30), np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node(kind, inputs, ["y"], **more),
    ]
    assert norms(from_onnx(model(nodes, {**w, **CHANNELS}))) == [wanted]


@pytest.mark.parametrize("kind, wanted", [("Layer", LayerNorm()), ("RMS", RMSNorm())])
def test_norms_of_onnx_over_the_channels_of_a_pixel(kind, wanted):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Transpose", ["a"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node(kind + "Normalization", ["t", "s"], ["y"], axis=-1),
    ]
    network = from_onnx(model(nodes, {"w": np.ones((4, 3, 3, 3), np.float32), **CHANNELS}))
    assert norms(network) == [wanted] and not network.notes


FRAMEWORKS = {
    keras_residual: [BatchNorm(), LayerNorm()],
    linen_residual: [BatchNorm(), GroupNorm(2)],
    linen_u_net: [LayerNorm(), RMSNorm()],
    nnx_dilated: [BatchNorm(), LayerNorm()],
    equinox_residual: [BatchNorm()],
    haiku_residual: [BatchNorm()],
}


@pytest.mark.parametrize("make", FRAMEWORKS)
def test_norms_of_jax_libraries_in_inference(make, request):
    own = (request.getfixturevalue("keras"),) if "keras" in make.__name__ else ()
    function, shape, _ = make(*own)
    network = from_jax(function, jax.ShapeDtypeStruct(shape, jnp.float32))
    assert norms(network) == FRAMEWORKS[make]
    scales = [node.op.factor for node in network.graph.nodes if isinstance(node.op, Scale)]
    assert all(abs(factor) == 1 for factor in scales)  # of softplus
    kept = [norm for norm in FRAMEWORKS[make] if norm != BatchNorm()]
    assert norms(network.weighted()) == kept


def test_running_statistics_of_jax_wait_for_weighted():
    def net(x, variance, gain):
        y = jax.lax.conv_general_dilated(x, jnp.ones((4, 3, 3, 3)), (1, 1), "SAME")
        by_channel = lambda v: v.reshape(1, 4, 1, 1)  # noqa: E731
        return (y - 0.5) / jnp.sqrt(by_channel(variance) + 1e-5) * by_channel(gain)

    variance, gain = jnp.array([1.0, 4.0, 9.0, 1.0]), jnp.array([1.0, 2.0, 3.0, 4.0])
    network = from_jax(net, jnp.zeros((1, 3, 8, 8)), variance, gain)
    assert norms(network) == [BatchNorm()]
    (scale,) = [n.op for n in network.weighted().graph.nodes if isinstance(n.op, Scale)]
    assert scale.factor == pytest.approx(np.sqrt((1 + 1 + 1 + 16) / 4), rel=1e-4)
    shapes = [jax.ShapeDtypeStruct((4,), jnp.float32)] * 2
    network = from_jax(net, jax.ShapeDtypeStruct((1, 3, 8, 8), jnp.float32), *shapes)
    assert norms(network) == [BatchNorm()]
    with pytest.raises(ValueError, match="got none for 1 of the model's convolutions and norms"):
        network.weighted()


def test_a_scale_that_is_no_norm_stays_a_scale():
    """One root of a number, and factors by channel without a root."""
    for factor in (1 / jnp.sqrt(8.0), jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1, 1)):
        def net(x, factor=factor):
            y = jax.lax.conv_general_dilated(x, jnp.ones((4, 3, 3, 3)), (1, 1), "SAME")
            return y * factor

        network = from_jax(net, jnp.zeros((1, 3, 8, 8)))
        kinds = [type(node.op) for node in network.graph.nodes[1:]]
        assert kinds == [Conv, Scale]


def test_biases_without_a_norm_leave_a_note():
    conv, bare = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3, bias=False)
    example = torch.zeros(1, 3, 8, 8)
    for net, said in ((conv, 1), (bare, 0), (nn.Sequential(conv, nn.BatchNorm2d(4)), 0)):
        notes = from_torch(net, example).notes
        assert sum("norms that were folded into convolutions" in note for note in notes) == said


def moved(norm, x):
    """The norms in NumPy, of one image (channels, pixels)."""
    if isinstance(norm, RMSNorm):
        return x / np.sqrt((x**2).mean(0))
    if isinstance(norm, LayerNorm):
        return (x - x.mean(0)) / x.std(0)
    rows = x.reshape(norm.groups if isinstance(norm, GroupNorm) else len(x), -1)
    rows = (rows - rows.mean(1, keepdims=True)) / rows.std(1, keepdims=True)
    return rows.reshape(x.shape)


@pytest.mark.parametrize(
    "norm", [BatchNorm(), InstanceNorm(), GroupNorm(2), LayerNorm(), RMSNorm()]
)
def test_norms_are_executed(norm):
    network = Chain(norm, ndim=1)
    x = np.random.default_rng(0).normal(2, 3, (4, 50)).astype(np.float32)
    params = initialise(network, jax.random.key(0), in_channels=4)
    found = apply(network, params, jnp.asarray(x))
    assert found == pytest.approx(moved(norm, x.astype(float)), abs=1e-4)
    assert (apply(network, params, jnp.asarray(x), statistics="skip") == x).all()


def test_groups_are_checked():
    for wrong in (0, 2.5, "4"):
        with pytest.raises(ValueError, match="groups: got .*; takes an integer >= 1"):
            GroupNorm(wrong)
    branched = Chain(Conv(3, channels=16), Residual(Chain(GroupNorm(3), Conv(3, channels=16))))
    with pytest.raises(ValueError, match="groups: got 3; takes a divisor of its 16 channels"):
        moments(branched)
    assert exact(Chain(Conv(3), GroupNorm(4), RELU, MaxPool(2))).map.sum() > 0
