"""`from_jax` against the executed functions, published sizes and the descriptions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from models import MODELS, RESIZED, C, conv, k3, stem, w
from probing import check

from erftheory import (
    Activation,
    BatchNorm,
    Chain,
    Conv,
    MaxPool,
    Residual,
    exact,
    from_jax,
    moments,
    receptive_field,
)

SHAPE = (1, 36, 32, 3)
IMAGE = jax.ShapeDtypeStruct(SHAPE, jnp.float32)


@pytest.mark.parametrize("name", MODELS)
def test_field_of_every_unit_is_what_nan_reaches(name):
    axes = (1, 2) if name == "patches" else None
    check(from_jax(MODELS[name], IMAGE, spatial_axes=axes), MODELS[name], SHAPE)


@pytest.mark.parametrize("name", RESIZED)
def test_field_of_every_unit_is_what_a_change_reaches(name):
    shape = (1, 72, 64, 3) if name == "antialiased" else SHAPE
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    check(from_jax(RESIZED[name], image), RESIZED[name], shape, nan=False)


def test_one_and_three_dimensions():
    def causal(x):
        for i, d in enumerate((1, 2, 4, 8)):
            x = lax.conv_general_dilated(
                x, w(i, 2, 3, 3), (1,), [(d, 0)], rhs_dilation=(d,),
                dimension_numbers=("NWC", "WIO", "NWC"),
            )  # fmt: skip
        return x

    network = from_jax(causal, jax.ShapeDtypeStruct((1, 40, 3), jnp.float32))
    assert receptive_field(network).size == (16,)
    check(network, causal, (1, 40, 3), axes=(1,))

    def solid(x):
        numbers = ("NDHWC", "DHWIO", "NDHWC")
        x = lax.conv_general_dilated(
            x, w(0, 1, 7, 7, 1, 2), (1, 2, 2), "SAME", dimension_numbers=numbers
        )
        x = lax.reduce_window(
            x, -jnp.inf, lax.max, (1, 1, 3, 3, 1), (1, 1, 2, 2, 1), "VALID"
        )
        x = lax.conv_general_dilated(x, w(1, 3, 3, 3, 2, 2), (1, 1, 1), "SAME",
                                     dimension_numbers=numbers)  # fmt: skip
        return lax.conv_general_dilated(x, w(2, 3, 3, 3, 2, 2), (2, 2, 2), "SAME",
                                        dimension_numbers=numbers)  # fmt: skip

    field = receptive_field(from_jax(solid, jax.ShapeDtypeStruct((1, 8, 48, 48, 1), jnp.float32)))
    assert field.size == (5, 27, 27)


def block(x, seed):
    y = jax.nn.relu(batch_norm(conv(x, w(seed, 3, 3, 16, 16))))
    return jax.nn.relu(x + batch_norm(conv(y, w(seed + 1, 3, 3, 16, 16))))


def batch_norm(y):
    axes = (0, 1, 2)
    return (y - y.mean(axes)) / jnp.sqrt(y.var(axes) + 1e-5) * jnp.ones(16) + jnp.zeros(16)


def test_gains_are_those_of_the_described_network():
    def net(x):
        y = jax.nn.relu(batch_norm(conv(x, w(0, 7, 7, 3, 16), 2)))
        y = lax.reduce_window(y, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
        return block(block(y, 1), 3)

    branch = Chain(
        Conv(3, channels=16), BatchNorm(), Activation("relu"), Conv(3, channels=16), BatchNorm()
    )
    described = Chain(
        Conv(7, 2, channels=16, padding=((2, 3), (2, 3))), BatchNorm(), Activation("relu"),
        MaxPool(3, 2, padding=((0, 1), (0, 1))), Chain(Residual(branch), Activation("relu")) * 2,
    )  # fmt: skip
    imported = from_jax(net, jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32))
    assert "statistics of a normalisation held constant" in imported.notes[0]
    a, b = moments(imported), moments(described)
    np.testing.assert_allclose(a.std, b.std, rtol=1e-12)
    np.testing.assert_allclose(exact(imported).map, exact(described).map, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(
    ("curve", "name"),
    [
        (jax.nn.relu, "relu"), (jax.nn.gelu, "gelu_tanh"), (jax.nn.silu, "silu"),
        (jnp.tanh, "tanh"), (jax.nn.sigmoid, "sigmoid"), (jnp.abs, "abs"),
        (jax.nn.leaky_relu, "leaky_relu"),
        (lambda x: jax.nn.gelu(x, approximate=False), "gelu"), (jax.nn.relu6, "relu"),
        (lambda x: jnp.maximum(x, 0), "relu"), (lambda x: x * jax.nn.sigmoid(x), "silu"),
    ],
)  # fmt: skip
def test_activations_are_recognised(curve, name):
    network = from_jax(lambda x: k3(curve(conv(x, w(2, 3, 3, 3, C)))), IMAGE)
    ops = [node.op for node in network.graph.nodes]
    assert Activation(name) in ops and not network.notes


def test_constants_in_front_of_a_sum_count():
    def net(x):
        y = conv(x, w(2, 3, 3, 3, C))
        return y + 0.25 * conv(y, w(3, 3, 3, C, C))

    branch = Chain(Conv(3, channels=C))
    network = from_jax(net, IMAGE)
    # He: a linear convolution doubles the power, so 0.25² of it against 1
    described = Chain(Conv(3, channels=C), Residual(branch, gain=0.125))
    np.testing.assert_allclose(moments(network).std, moments(described).std, rtol=1e-6)


def test_endpoints_are_scopes_outputs_and_intermediates():
    def net(x):
        with jax.named_scope("early"):
            y = stem(x)
        with jax.named_scope("late"):
            z = k3(k3(y, 2))
        return {"p3": z, "p2": y}, {"middle": k3(y)}

    network = from_jax(net, IMAGE, intermediates=True)
    assert network.outputs == ("p2", "p3")
    sizes = {name: receptive_field(network.until(name)).size for name in network.endpoints()}
    assert sizes == {
        "early": (3, 3), "late": (9, 9), "p2": (3, 3), "p3": (9, 9), "middle": (5, 5),
    }  # fmt: skip
    with pytest.raises(ValueError, match="endpoint: got 'p9'; takes one of: early, late"):
        network.until("p9")


def squeeze(x):
    y = stem(x)
    gate = jax.nn.sigmoid(y.mean((1, 2)) @ w(1, C, C))
    return k3(y * gate[:, None, None])


def test_global_paths_are_counted_or_held_and_said():
    open_ = from_jax(squeeze, IMAGE)
    assert receptive_field(open_).size == (float("inf"),) * 2
    assert "unbounded" in open_.notes[-1]
    held = from_jax(squeeze, IMAGE, hold="global")
    assert receptive_field(held).size == (5, 5)
    assert held.notes == ("a mean over the image held constant",)

    def attention(x):
        y = stem(x).reshape(1, -1, C)
        a = jax.nn.softmax(y @ y.transpose(0, 2, 1))
        return (a @ y).reshape(1, 36, 32, C)

    assert receptive_field(from_jax(attention, IMAGE)).size == (float("inf"),) * 2


def test_an_operation_without_a_rule_is_named_and_can_be_given_one():
    def net(x):
        return k3(jnp.sort(stem(x), axis=1))

    with pytest.raises(ValueError, match=r"got 'sort' of .*36, 32, 4.* at test_from_jax.py:\d+"):
        from_jax(net, IMAGE)
    network = from_jax(net, IMAGE, rules={"sort": "identity"})
    assert receptive_field(network).size == (5, 5)
    assert receptive_field(from_jax(net, IMAGE, rules={"sort": Conv(3)})).size == (7, 7)
    both = from_jax(net, IMAGE, rules={"sort": Conv(3), "top": "identity"})
    assert [n for n in both.notes if n.startswith("rules")] == [
        "rules['top'] was not used: no operation of that name"
    ]
    with pytest.raises(ValueError, match="takes 'identity' or a network|\"identity\" or a network"):
        from_jax(net, IMAGE, rules={"sort": "ignore"})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: from_jax(stem), "examples: got none"),
        (lambda: from_jax(lambda x: x + 1, IMAGE), "spatial_axes: got None"),
        (lambda: from_jax(stem, IMAGE, hold="all"), "hold: got 'all'"),
        (lambda: from_jax(stem, IMAGE, image=3), "image: got 3"),
        (lambda: from_jax(stem, "abc"), "examples: got 'abc' in example 0"),
        (lambda: from_jax(stem, None), "image: got None"),
        (lambda: from_jax(stem, IMAGE, spatial_axes=(1, 1)), "spatial_axes: got"),
        (lambda: from_jax(stem, IMAGE, intermediates=True), "intermediates: got True"),
        (lambda: from_jax(lambda x: conv(jnp.ones(SHAPE), w(2, 3, 3, 3, C)), IMAGE,
                          spatial_axes=(1, 2)), "outputs that do not depend"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_parameters_may_be_shapes_alone():
    def net(parameters, x):
        return conv(jax.nn.relu(conv(x, parameters["a"])), parameters["b"], 2)

    shapes = {
        "a": jax.ShapeDtypeStruct((5, 5, 3, 8), jnp.float32),
        "b": jax.ShapeDtypeStruct((3, 3, 8, 8), jnp.float32),
    }
    network = from_jax(net, shapes, IMAGE, image=1)
    assert receptive_field(network).size == (7, 7)
    key = jax.random.PRNGKey(0)  # neither parameters nor a key are taken for the image
    network = from_jax(lambda p, k, x: net(p, x), shapes, key, IMAGE)
    assert receptive_field(network).size == (7, 7)
    with pytest.raises(ValueError, match=r"image: got None; .* one of \[1, 2\]"):
        from_jax(lambda p, x, y: net(p, x + y), shapes, IMAGE, IMAGE)


def test_a_mean_in_two_steps_is_one_over_the_image_and_half_of_it_over_an_axis():
    def twice(x):
        y = stem(x)
        return y * jax.nn.sigmoid(y.mean(1).mean(1))[:, None, None]

    assert receptive_field(from_jax(twice, IMAGE)).size == (np.inf,) * 2
    assert receptive_field(from_jax(twice, IMAGE, hold="global")).size == (3, 3)
    found = receptive_field(from_jax(lambda x: jax.nn.sigmoid(stem(x).mean(1)), IMAGE))
    assert found.size == (np.inf, 3)


def test_a_mean_that_is_added_is_a_path_and_one_that_normalises_is_not():
    def normalised(y):
        m, v = y.mean((1, 2), keepdims=True), y.var((1, 2), keepdims=True)
        return (y - m) * jax.lax.rsqrt(v + 1e-5) * 2 + 1

    def folded(y):
        m, v = y.mean((1, 2), keepdims=True), y.var((1, 2), keepdims=True)
        inverse = jax.lax.rsqrt(v + 1e-5)
        return y * inverse + (0.5 - m * inverse)

    x = jnp.zeros((1, 12, 12, 3))
    for norm in (normalised, folded):
        assert receptive_field(from_jax(lambda x, f=norm: f(stem(x)), x)).size == (3, 3)
    for path in (
        lambda y: y + y.mean((1, 2), keepdims=True),
        lambda y: y + 0.5 * y.max((1, 2), keepdims=True),
        lambda y: y * y.mean((1, 2), keepdims=True),
    ):
        assert receptive_field(from_jax(lambda x, f=path: f(stem(x)), x)).size == (np.inf, np.inf)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((None,), "function: got None"),
        ((stem, {"rules": 3}), "rules: got 3"),
        ((stem, {"rules": {"conv_general_dilated": 5}}), "rules['conv_general_dilated']: got 5"),
        ((stem, {"spatial_axes": (9,)}), "spatial_axes: got (9,)"),
        ((stem, {"spatial_axes": "ab"}), "spatial_axes: got 'ab'"),
    ],
)
def test_arguments_that_cannot_be_in_one_line(arguments, words):
    function, options = arguments[0], arguments[1] if len(arguments) > 1 else {}
    with pytest.raises(ValueError) as caught:
        from_jax(function, jnp.zeros((1, 12, 12, 3)), **options)
    assert str(caught.value).startswith(words) and "\n" not in str(caught.value)


@pytest.mark.parametrize("network", [None, "resnet34"])
def test_no_network_no_field(network):
    with pytest.raises(ValueError, match="network: got"):
        receptive_field(network)
