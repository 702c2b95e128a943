"""An infinite field says which operation makes it so, and how to read the network without it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from erftheory import Chain, Conv, GlobalAvgPool, Residual, from_jax, receptive_field
from erftheory.network.graph import Builder, Concat, Loop
from erftheory.network.imported import GraphNetwork

SHAPE = jax.ShapeDtypeStruct((1, 2, 16, 16), jnp.float32)


def gated(x):
    """Squeeze and excitation, twice."""
    for k in (3, 5):
        x = lax.conv(x, jnp.ones((2, 2, k, k)), (1, 1), "SAME")
        x = x * jax.nn.sigmoid(x.mean((2, 3)) @ jnp.ones((2, 2)))[:, :, None, None]
    return x


def classifier(x):
    return lax.conv(x, jnp.ones((2, 2, 3, 3)), (1, 1), "SAME").mean((2, 3)) @ jnp.ones((2, 5))


def test_gates_of_a_model_can_be_held():
    network = from_jax(gated, SHAPE)
    said = str(receptive_field(network))
    assert "a global average sees the whole image, the first of 2" in said
    assert 'hold="global"' in said and "\n" not in said
    table = network.summary()
    assert table.unbounded in str(table) and table.unbounded in said
    assert "hold=&quot;global&quot;" in table._repr_html_()
    assert 'hold="global"' in str(receptive_field(Chain(network, Conv(3))))
    held = from_jax(gated, SHAPE, hold="global")
    assert receptive_field(held).size == (7, 7) and not receptive_field(held).unbounded
    assert "unbounded" not in str(receptive_field(held)) + str(held.summary())


def test_what_lies_behind_a_mean_cannot():
    for network in (from_jax(classifier, SHAPE), Chain(Conv(3), GlobalAvgPool(), Conv(1))):
        said = str(receptive_field(network))
        assert "until() gives the network up to a map before it" in said and "hold" not in said
    assert ", the first of" not in said


def test_the_operation_has_the_name_that_until_takes():
    net = Chain(Conv(3), Chain(Residual(Conv(3)), GlobalAvgPool().named("pool")).named("head"))
    assert "the global average 'head/pool' sees" in receptive_field(net).unbounded
    assert net.until("head/pool")


@pytest.mark.parametrize("past", [False, True])
def test_a_global_operation_inside_a_repetition(past):
    inner = Builder(2)
    end = inner.add(GlobalAvgPool(), (0,), "mean")
    if past:
        end = inner.add(Concat(), (0, end))
    outer = Builder(2)
    loop = outer.add(Loop(inner.finish(end), 3), (0,), "block")
    said = receptive_field(GraphNetwork(outer.finish(loop))).unbounded
    assert "'block[0]/mean'" in said and ("hold=" in said) == past
