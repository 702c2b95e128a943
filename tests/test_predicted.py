"""What predictions for models of PyTorch take into account, and what they say of the rest."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from onnx import helper
from test_from_onnx import model
from torch import nn

from erftheory import (
    Activation,
    BatchNorm,
    Chain,
    Conv,
    ConvTranspose,
    MaxPool,
    Residual,
    exact,
    from_jax,
    from_onnx,
    from_torch,
    moments,
)
from erftheory.network.activations import CURVES
from erftheory.theory.gains.forward import meanfield_gains
from erftheory.theory.image.graph import flatten
from erftheory.theory.units.law import STANDARD, activated

RELU = Activation("relu")
IMAGE = torch.zeros(1, 3, 16, 16)


def curves(network):
    return [n.op for n in network.graph.nodes if isinstance(n.op, Activation)]


# ---- slopes ---------------------------------------------------------------------------------


def test_a_leaky_relu_has_the_slope_that_it_is_given():
    law, gain = activated(STANDARD, Activation("leaky_relu", slope=0.25).curve)
    assert gain == (1 + 1 / 16) / 2 and law.mean == pytest.approx(0.75 / math.sqrt(2 * math.pi))
    assert Activation("leaky_relu", slope=0.01).curve == Activation("leaky_relu").curve
    assert repr(Activation("leaky_relu", slope=0.2)) == "Activation('leaky_relu', slope=0.2)"
    x = np.linspace(-2, 2, 8)
    assert CURVES["leaky_relu 1/5"](x) == pytest.approx(np.where(x > 0, x, x / 5))
    with pytest.raises(KeyError):
        CURVES["relu 1/5"]
    with pytest.raises(ValueError, match="name: got 'relu'; takes one of 'leaky_relu'"):
        Activation("relu", slope=0.1)
    with pytest.raises(ValueError, match="slope: got 'steep'; takes real numbers"):
        Activation("leaky_relu", slope="steep")


@pytest.mark.parametrize(
    ("module", "wanted"),
    [
        (nn.LeakyReLU(0.2), 0.2), (nn.LeakyReLU(), 0.01), (nn.PReLU(), 0.25),
        (nn.PReLU(4, init=0.1), 0.1), (nn.RReLU(0.1, 0.3), 0.2), (nn.ELU(), "elu"),
        (nn.ELU(0.5), None), (nn.SELU(), None),
    ],
)  # fmt: skip
def test_slopes_of_pytorch(module, wanted):
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), module, nn.Conv2d(4, 4, 3, bias=False))
    network = from_torch(net, IMAGE)
    if wanted is None:
        assert not curves(network) and "taken as linear" in network.notes[0]
    elif wanted == "elu":
        assert curves(network) == [Activation("elu")]
    else:
        (found,) = curves(network)
        assert found.curve == Activation("leaky_relu", wanted).curve


def test_slopes_of_onnx_and_jax():
    w = {"w": np.ones((4, 3, 3, 3), np.float32), "s": np.full((4, 1, 1), 0.3, np.float32)}
    conv = helper.make_node("Conv", ["x", "w"], ["a"])
    leaky = helper.make_node("LeakyRelu", ["a"], ["y"], alpha=0.2)
    prelu = helper.make_node("PRelu", ["a", "s"], ["y"])
    elu = helper.make_node("Elu", ["a"], ["y"])
    slopes = [curves(from_onnx(model([conv, node], w)))[0].curve for node in (leaky, prelu, elu)]
    assert slopes == ["leaky_relu 1/5", "leaky_relu 3/10", "elu"]

    def net(x, slope):
        y = jax.lax.conv_general_dilated(x, jnp.ones((4, 3, 3, 3)), (1, 1), "SAME")
        return jax.nn.leaky_relu(y, slope)

    for slope in (0.01, 0.2):
        network = from_jax(lambda x, s=slope: net(x, s), jnp.zeros((1, 3, 8, 8)))
        assert curves(network)[0].curve == Activation("leaky_relu", slope).curve


# ---- phases of transposed convolutions --------------------------------------------------------


def test_a_transposed_convolution_has_taps_of_their_own_for_each_phase():
    """Means of its channels over all pixels are means over phases, as executed nets have them."""
    from erftheory.empirical.nets.draw import initialise
    from erftheory.empirical.nets.execute import apply

    net = Chain(Conv(3, channels=64), RELU, ConvTranspose(4, 2, channels=64), ndim=1)
    law = meanfield_gains(net.graph, channels=64).powers[-1][0]
    levels, seconds = [], []
    for i in range(12):
        params = initialise(net, jax.random.key(i), in_channels=64)
        x = jax.random.normal(jax.random.key(100 + i), (64, 2000))
        y = np.asarray(apply(net, params, x))[:, 8:-8]
        seconds.append((y**2).mean())
        levels.append((y.mean(1) ** 2).mean())
    assert law.second == pytest.approx(np.mean(seconds), rel=0.05)
    assert law.level == pytest.approx(np.mean(levels), rel=0.1)


# ---- rims -----------------------------------------------------------------------------------


def test_norms_divide_by_what_the_image_has():
    """On 3 pixels, a convolution of 3 taps reads 2, 3 and 2 of them."""
    net = Chain(Residual(Chain(Conv(3, channels=8), BatchNorm())), Conv(1, channels=8), ndim=1)
    flat = flatten(net, (3,), "variance", "he", "zeros")
    (share,) = flat.rims.values()
    assert share == pytest.approx(7 / 9)
    assert not flatten(net, (3,), "variance", "he", "circular").rims
    assert exact(net, image=3).map[1] == pytest.approx((1 + 3 / 7) / (1 + 9 / 7))
    assert flatten(net, (301,), "variance", "he", "zeros").rims[2, 0] == pytest.approx(1, abs=0.01)


# ---- endpoints ------------------------------------------------------------------------------


def test_an_endpoint_has_the_function_that_its_module_ends_in():
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
                        nn.Conv2d(4, 4, 3))  # fmt: skip
    network = from_torch(net, IMAGE)
    ends = [type(network.until(name).graph.nodes[-1].op) for name in ("0.0", "0.1", "0.2", "0")]
    assert ends == [Conv, BatchNorm, Activation, Activation]
    assert exact(network, source="0", output="1").shape == (3, 3)


# ---- what is idealised ------------------------------------------------------------------------


class Around(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


CONV = nn.Conv2d(4, 4, 3, padding=1, bias=False)
IDEAL = {
    "chain": ([nn.BatchNorm2d(4), nn.ReLU(), CONV], ""),
    "branches": ([Around(nn.Sequential(nn.ReLU(), CONV))], "branches meet"),
    "linear branches": ([Around(CONV)], ""),
    "gelu": ([nn.GELU(), CONV], "smooth"),
    "pool": ([nn.ReLU(), nn.MaxPool2d(2), CONV], "pools"),
    "pool in front": ([nn.MaxPool2d(2), CONV], ""),
    "instance": ([nn.InstanceNorm2d(4), nn.ReLU(), CONV], "statistics of a normalisation"),
    "selu": ([nn.SELU(), CONV], "taken as linear"),
    "hardswish": ([nn.Hardswish(), CONV], "taken as silu"),
}


@pytest.mark.parametrize("name", IDEAL)
@pytest.mark.parametrize("image", [None, 16])
def test_a_model_that_is_idealised_has_no_bound(name, image):
    layers, why = IDEAL[name]
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), *layers)
    network = from_torch(net, IMAGE)
    for part in (network, network.until(str(len(layers)))):
        error = exact(part, image=image).error
        assert error.kind == ("approximation" if why else "relative")
        assert why in error.note and (not why or error.value == math.inf)
    assert exact(network.until("0"), image=image).error.kind == "relative"
    raw = exact(network, init=None, image=image).error
    assert raw.kind != "approximation" and not raw.note.startswith("idealised")
    if why:
        inner = exact(network, source="0", output=str(len(layers)), image=image)
        assert inner.error.kind == "approximation"


def test_described_networks_keep_their_bounds():
    net = Chain(Conv(3, channels=4), Residual(Chain(Activation("gelu"), Conv(3, channels=4))),
                MaxPool(2))  # fmt: skip
    assert exact(net).error.kind == exact(net, image=16).error.kind == "relative"
    assert moments(net).std[0] > 0
