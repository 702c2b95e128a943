"""`from_jax` on models of Keras, Flax (Linen, NNX), Equinox and Haiku, against what is executed."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probing import check

from erftheory import ErfTracker, from_jax, gradient_erf, moments, receptive_field

RGB = (1, 32, 28, 3)
FIRST = (1, 3, 32, 28)  # channels first
SOUND = (1, 40, 2)


def library(name):
    """Imported here: Keras takes three seconds, and its backend is chosen before."""
    os.environ["KERAS_BACKEND"] = "jax"
    return pytest.importorskip(name)


def weights(shape):
    """Positive, and drawn here: a library's initialisers compile once for each shape."""
    fan_in = max(1, int(np.prod(shape[:-1])))
    return jnp.asarray(np.random.default_rng(fan_in).uniform(0.5, 1.5, shape) / fan_in, jnp.float32)


def filled(shapes):
    return jax.tree.map(lambda s: weights(s.shape) if hasattr(s, "shape") else s, shapes)


def through_max(function):
    """Max pools of XLA's CPU backend lose NaN at some sizes, and infinity with a positive weight
    passes them: it stands in for NaN."""

    def run(x):
        y = function(jnp.where(jnp.isnan(x), jnp.inf, x))
        return jnp.where(jnp.isfinite(y), y, jnp.nan)

    return run


@pytest.fixture
def keras(monkeypatch):
    keras = library("keras")
    if keras.config.backend() != "jax":
        pytest.skip("Keras runs on another backend in this process")
    draw = lambda self, shape, dtype=None: weights(shape)  # noqa: E731
    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", draw)
    return keras


# ---- the models: function, shape of the image, its spatial axes -----------------------------


def keras_residual(keras):
    """Batch norm, dropout, a projection, depthwise separable convolution, average pooling."""
    layers = keras.layers
    image = layers.Input(RGB[1:])
    x = layers.Conv2D(4, 5, strides=2, padding="same", activation="relu")(image)
    y = layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same", use_bias=False)(x))
    y = layers.Dropout(0.5)(layers.ReLU(max_value=6.0)(y))
    y = layers.SeparableConv2D(6, 3, padding="same")(y)
    x = layers.Add()([layers.Conv2D(6, 1)(x), y])
    x = layers.AveragePooling2D(2)(layers.LayerNormalization()(x))
    return keras.Model(image, layers.ZeroPadding2D(1)(x)), RGB, (1, 2)


def keras_u_net(keras):
    layers = keras.layers
    image = layers.Input(RGB[1:])
    a = layers.Conv2D(4, 3, padding="same")(image)
    b = layers.DepthwiseConv2D(3, padding="same")(layers.MaxPooling2D()(a))
    up = layers.Conv2DTranspose(4, 3, strides=2, padding="same")(b)
    both = layers.Concatenate()([a, layers.SpatialDropout2D(0.2)(up)])
    nearest = layers.UpSampling2D(2)(layers.Cropping2D(1)(b))
    nearest = layers.ZeroPadding2D(2)(nearest)
    net = keras.Model(image, layers.Conv2D(4, 3)(both + 2 * nearest[..., :1]))
    return net, RGB, (1, 2)


def keras_causal(keras):
    layers = keras.layers
    net = keras.Sequential([layers.Input(SOUND[1:])])
    for dilation in (1, 2, 4):
        net.add(layers.Conv1D(4, 3, padding="causal", dilation_rate=dilation, activation="silu"))
        net.add(layers.UnitNormalization())
    return net, SOUND, (1,)


def applied(net, shape, axes):
    variables = filled(jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(shape)))
    return lambda x: net.apply(variables, x), shape, axes


def linen_residual(norm=True):
    """Batch norm as in inference, dropout, group norm, whose statistics run over the image."""
    nn = library("flax.linen")

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(4, (3, 3), strides=2, use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
            y = nn.Conv(4, (3, 3))(nn.Dropout(0.5, deterministic=True)(x))
            y = nn.GroupNorm(2)(y) if norm else y
            return x + nn.Conv(4, (3, 5), feature_group_count=2)(nn.gelu(y))

    return applied(Net(), RGB, (1, 2))


def linen_u_net():
    nn = library("flax.linen")

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            a = nn.silu(nn.Conv(4, (3, 3))(x))
            b = nn.LayerNorm()(nn.Conv(8, (3, 3))(nn.max_pool(a, (2, 2), strides=(2, 2))))
            b = nn.RMSNorm()(b)
            c = nn.ConvTranspose(4, (2, 2), strides=(2, 2))(b)
            return nn.Conv(4, (3, 3))(jnp.concatenate([a, c], -1))

    return applied(Net(), RGB, (1, 2))


def linen_wrap():
    """Circular padding, average pooling that leaves the padding out, a dense head."""
    nn = library("flax.linen")

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(4, (3, 3), padding="CIRCULAR")(x)
            x = nn.avg_pool(x, (3, 3), strides=(2, 2), padding="SAME", count_include_pad=False)
            return nn.Dense(3)(nn.Conv(4, (3, 3), kernel_dilation=2, padding="REFLECT")(x))

    return applied(Net(), RGB, (1, 2))


def nnx_dilated():
    nnx = library("flax.nnx")
    plain = {"kernel_init": lambda key, shape, *_: weights(shape), "rngs": nnx.Rngs(0)}
    rngs = nnx.Rngs(0)
    net = nnx.Sequential(
        nnx.Conv(3, 4, (3, 3), **plain), nnx.BatchNorm(4, rngs=rngs), nnx.relu,
        nnx.Dropout(0.5, rngs=rngs), nnx.Conv(4, 4, (3, 3), kernel_dilation=(2, 3), **plain),
        nnx.LayerNorm(4, rngs=rngs), nnx.Conv(4, 4, (3, 3), strides=2, padding="VALID", **plain),
    )  # fmt: skip
    net.eval()
    return net, RGB, (1, 2)


def nnx_causal():
    nnx = library("flax.nnx")
    plain = {"kernel_init": lambda key, shape, *_: weights(shape), "rngs": nnx.Rngs(0)}
    first, *rest = [
        nnx.Conv(2 if d == 1 else 4, 4, (2,), kernel_dilation=(d,), padding="CAUSAL", **plain)
        for d in (1, 2, 4, 8)
    ]

    def net(x):  # WaveNet's gate
        x = first(x)
        for layer in rest:
            y = layer(x)
            x = x + jnp.tanh(y) * nnx.sigmoid(y)
        return x

    return net, SOUND, (1,)


def equinox_residual():
    eqx = library("equinox")
    key = jax.random.key(0)
    conv = eqx.nn.Conv2d
    first, second, third = filled(
        eqx.filter_eval_shape(
            lambda: (
                conv(3, 4, 3, 2, padding=1, key=key),
                conv(4, 4, 3, padding="SAME", padding_mode="REFLECT", key=key),
                conv(4, 4, 3, padding=2, dilation=2, groups=2, key=key),
            )
        )
    )
    norm = eqx.nn.BatchNorm(4, "batch", mode="batch", inference=True)
    state = eqx.nn.State(norm)
    branch = eqx.nn.Sequential(
        [second, eqx.nn.Lambda(jax.nn.elu), eqx.nn.Dropout(0.5, inference=True), third]
    )
    pool = eqx.nn.AvgPool2d(2, 2)

    def net(image):
        x, _ = norm(first(image), state, inference=True)
        return pool(jax.nn.softplus(x) + branch(x))

    return lambda x: jax.vmap(net, axis_name="batch")(x), FIRST, (2, 3)


def equinox_u_net():
    eqx = library("equinox")
    key = jax.random.key(0)
    enter, down, up, leave = filled(
        eqx.filter_eval_shape(
            lambda: (
                eqx.nn.Conv2d(3, 4, 3, padding=1, key=key),
                eqx.nn.Conv2d(4, 8, 3, padding=1, key=key),
                eqx.nn.ConvTranspose2d(8, 4, 3, 2, padding=1, output_padding=1, key=key),
                eqx.nn.Conv2d(8, 4, 1, key=key),
            )
        )
    )
    pool, norm = eqx.nn.MaxPool2d(2, 2), eqx.nn.LayerNorm(8)

    def net(image):
        a = jax.nn.leaky_relu(enter(image))
        b = jax.vmap(jax.vmap(norm, 1, 1), 2, 2)(down(pool(a)))
        return leave(jnp.concatenate([a, up(b)]))

    return jax.vmap(net), FIRST, (2, 3)


def haiku_residual():
    """Batch norm as in inference, whose state comes beside the parameters; a dilated branch."""
    hk = library("haiku")

    def forward(x, training):
        x = hk.Conv2D(4, 5, stride=2)(x)
        x = jax.nn.relu(hk.BatchNorm(True, True, 0.9)(x, training))
        y = hk.DepthwiseConv2D(1, 3)(jax.nn.gelu(hk.Conv2D(4, 3, rate=2)(x)))
        return x + hk.avg_pool(y, (1, 3, 3, 1), 1, "SAME")

    net = hk.transform_with_state(forward)
    made = jax.eval_shape(lambda k, x: net.init(k, x, True), jax.random.key(0), jnp.zeros(RGB))
    params, state = filled(made)
    return lambda x: net.apply(params, state, None, x, False)[0], RGB, (1, 2)


MODELS = {
    make.__name__: make
    for make in (
        keras_residual, keras_u_net, keras_causal, linen_u_net, linen_wrap, nnx_dilated,
        nnx_causal, equinox_residual, equinox_u_net, haiku_residual,
    )
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_field_of_every_unit_is_what_nan_reaches(name, request):
    own = (request.getfixturevalue("keras"),) if "keras" in name else ()
    function, shape, axes = MODELS[name](*own)
    network = from_jax(function, jax.ShapeDtypeStruct(shape, jnp.float32))
    check(network, through_max(function) if "u_net" in name else function, shape, axes, margin=3)
    for made in (network, network.weighted()):
        widths = zip(moments(made).std, receptive_field(made).size)
        assert all(0 < std < size / 2 for std, size in widths)


def test_group_norm_is_held_constant():
    """Its statistics see the image, and NaN there all pixels: the probe leaves it out."""
    function, shape, axes = linen_residual()
    network = from_jax(function, jax.ShapeDtypeStruct(shape, jnp.float32))
    assert "statistics of a normalisation held constant" in network.notes[0]
    check(network, linen_residual(norm=False)[0], shape, axes, margin=3)


def test_layer_norm_of_keras_is_a_norm(keras):
    """It comes as x·a + (b − mean·a): three functions of one node that are one normalisation."""
    layers = keras.layers
    norm = layers.LayerNormalization()
    net = keras.Sequential([layers.Input(RGB[1:]), layers.Conv2D(4, 3), norm, layers.Conv2D(4, 3)])
    network = from_jax(lambda x: net(x), jax.ShapeDtypeStruct(RGB, jnp.float32))
    kinds = [type(node.op).__name__ for node in network.graph.nodes]
    assert kinds == ["Input", "Conv", "LayerNorm", "Conv"] and not network.notes


def test_parts_of_a_split_have_plain_widths():
    """`jnp.split` has sizes of NumPy, whose powers overflow or fail."""

    def net(x):
        kernel = jnp.ones((3, 3, 3, 4))
        numbers = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
        a, b = jnp.split(y, 2, -1)
        kernel = jnp.ones((3, 3, 2, 4))
        return a + jax.lax.conv_general_dilated(
            b, kernel[..., :2], (1, 1), "SAME", dimension_numbers=numbers
        )

    network = from_jax(net, jax.ShapeDtypeStruct(RGB, jnp.float32))
    assert 0 < moments(network).std[0] < 2.5


def ends(network, function, shape, axis):
    """NaN up to the pixel before the field's first, and up to it: only the second arrives.

    Likewise at its other end, of the unit in the middle.
    """
    field = receptive_field(network)
    out = jax.eval_shape(function, jax.ShapeDtypeStruct(shape, jnp.float32)).shape
    unit, a = tuple(n // 2 for n in out[1:-1]), axis - 1
    first = -field.padding[a] + unit[a] * field.stride[a]
    last, n = first + field.size[a] - 1, shape[axis]
    assert 1 <= first and last <= n - 2, "the field reaches the rim: no test"
    index = np.arange(n).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    masks = [index < first, index <= first, index > last, index >= last]
    batch = np.concatenate([np.where(m, np.nan, np.ones((1, *shape[1:]))) for m in masks])
    found = np.asarray(jax.jit(function)(jnp.asarray(batch, jnp.float32)))
    return np.isnan(found[(slice(None), *unit)]).any(-1).tolist()


@pytest.mark.parametrize(
    ("family", "more", "shape"),
    [("MobileNetV2", {"alpha": 0.35}, (1, 600, 32, 3)), ("VGG16", {}, (1, 32, 300, 3))],
)
def test_published_models(family, more, shape, keras):
    build = getattr(keras.applications, family)
    model = build(weights=None, include_top=False, input_shape=shape[1:], **more)
    function = through_max(model) if family == "VGG16" else lambda x: model(x)
    network = from_jax(lambda x: model(x), jax.ShapeDtypeStruct(shape, jnp.float32))
    axis = int(np.argmax(shape))
    assert ends(network, function, shape, axis) == [False, True, False, True]


# A tracker inside the training loops of these frameworks

WATCHED = np.random.default_rng(0).normal(size=(6, 12, 12, 3)).astype(np.float32)


def test_a_tracker_in_an_equinox_loop():
    eqx = library("equinox")
    keys = jax.random.split(jax.random.key(0), 2)
    model = eqx.nn.Sequential([
        eqx.nn.Conv2d(3, 4, 3, padding=1, key=keys[0]), eqx.nn.Lambda(jax.nn.relu),
        eqx.nn.Conv2d(4, 4, 3, padding=1, key=keys[1]),
    ])  # fmt: skip
    images = np.moveaxis(WATCHED, -1, 1)
    params, static = eqx.partition(model, eqx.is_array)
    run = lambda p, x: jax.vmap(eqx.combine(p, static))(x)  # noqa: E731
    tracker = ErfTracker(run, images, every=2, spatial_axes=(2, 3), output_axes=(2, 3))
    step = jax.jit(jax.grad(lambda p: (run(p, images) ** 2).mean()))
    for t in range(5):
        erf = tracker(t, params)
        if erf is not None:
            want = gradient_erf(
                lambda x, p=params: run(p, x), images, spatial_axes=(2, 3), output_axes=(2, 3)
            )
            np.testing.assert_allclose(erf.map, want.map, atol=1e-6)
        params = jax.tree.map(lambda w, g: w - 0.3 * g, params, step(params))
    assert tracker.readings.steps == [0, 2, 4]
    assert len({row[0] for row in tracker.readings.values["power"]}) == 3


def test_a_tracker_in_a_keras_loop(keras):
    layers = keras.layers
    model = keras.Sequential([
        layers.Input((12, 12, 3)), layers.Conv2D(4, 3, padding="same", activation="relu"),
        layers.Conv2D(4, 3, padding="same"),
    ])  # fmt: skip
    weights = [v.value for v in model.trainable_variables]
    run = lambda p, x: model.stateless_call(p, [], x)[0]  # noqa: E731
    tracker = ErfTracker(run, WATCHED, every=2)
    step = jax.jit(jax.grad(lambda p: (run(p, WATCHED) ** 2).mean()))
    for t in range(3):
        erf = tracker(t, weights)
        if erf is not None:
            for variable, value in zip(model.trainable_variables, weights, strict=True):
                variable.assign(value)
            want = gradient_erf(lambda x: model(x, training=False), WATCHED)
            np.testing.assert_allclose(erf.map, want.map, atol=1e-6)
        weights = jax.tree.map(lambda w, g: w - 0.3 * g, weights, step(weights))
    assert tracker.readings.steps == [0, 2]
    assert len({row[0] for row in tracker.readings.values["power"]}) == 2
