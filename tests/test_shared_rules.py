"""Rules that the readers share: operators between values, bounds, and networks as rules."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import lax
from test_opsets import model, node
from torch import nn

from erftheory import Conv, from_jax, from_onnx, from_torch, receptive_field
from erftheory.importers.values.constants import root_of
from erftheory.importers.values.pixels import Constant


def kinds(network):
    return [type(n.op).__name__ for n in network.graph.nodes]


def test_a_maximum_with_zero_is_a_relu():
    made = from_onnx(model(13, [node("Max", "zero")], {"zero": np.zeros(1, np.float32)}))
    assert kinds(made) == ["Input", "Conv", "Activation", "Conv"]
    made = from_onnx(model(13, [node("Max", "one")], {"one": np.ones(1, np.float32)}))
    assert kinds(made) == ["Input", "Conv", "Conv"]


def test_a_constant_to_the_power_of_a_map_is_no_root():
    w = jnp.ones((3, 3, 4, 4))

    def conv(x):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers)

    def normed(power):
        def net(x):
            x = conv(x)
            squares = jnp.mean(x * x, -1, keepdims=True)
            return conv(x * power(squares))

        return kinds(from_jax(net, jnp.zeros((1, 9, 9, 4))))

    assert "RMSNorm" in normed(lambda v: v ** jnp.float32(-0.5))
    assert "RMSNorm" not in normed(lambda v: jnp.float32(-0.5) ** v)


class Clamped(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.bound = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 7, padding=3)

    def forward(self, x):
        return torch.clamp(self.first(x), min=self.bound(x))


def test_a_bound_that_depends_on_the_image_is_seen():
    assert receptive_field(from_torch(Clamped(), torch.zeros(1, 3, 16, 16))).size == (7, 7)


@pytest.mark.parametrize("rule", [Conv(3, 2), Conv(3, padding="valid")])
def test_a_rule_of_another_size_is_refused(rule):
    def net(x):
        return jnp.sort(x, 1)

    axes = {"spatial_axes": (1, 2), "rules": {"sort": rule}}
    with pytest.raises(ValueError, match="the rule makes .* pixels of an axis where there are 9"):
        from_jax(net, jnp.zeros((1, 9, 9, 4)), **axes)


def test_roots_of_constants():
    """A normalisation divides by a root of an array: a number divided by an array has none."""
    array, number, root = Constant((4,)), Constant(()), Constant((4,))
    root.root = "sqrt"
    assert root_of("sqrt", [array]) == "sqrt" and root_of("sqrt", [number]) == ""
    assert root_of("pow", [array], -0.5) == "rsqrt" and root_of("pow", [array], 2.0) == ""
    assert root_of("div", [number, root]) == "rsqrt" == root_of("reciprocal", [root])
    assert root_of("div", [number, array]) == "" == root_of("exp", [root])
    assert root_of("kept", [array, root]) == "sqrt"
