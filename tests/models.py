"""Small JAX models, one for each thing that real models do with pixels."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

C = 4


def w(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def conv(x, kernel, stride=1, padding="SAME", dilation=1, **more):
    pair = [v if isinstance(v, tuple) else (v, v) for v in (stride, dilation)]
    return lax.conv_general_dilated(
        x, kernel, pair[0], padding, rhs_dilation=pair[1],
        dimension_numbers=("NHWC", "HWIO", "NHWC"), **more,
    )  # fmt: skip


def k3(x, stride=1, **more):
    return conv(x, w(0, 3, 3, C, C), stride, **more)


def stem(x):
    return jax.nn.relu(conv(x, w(2, 3, 3, 3, C)))


def line(x):
    """A stem without ReLU, for models that a NaN does not pass but a change does."""
    return conv(x, w(2, 3, 3, 3, C), 2)


def pool(x, kind, window, stride, padding):
    start, function = (-jnp.inf, lax.max) if kind == "max" else (0.0, lax.add)
    return lax.reduce_window(x, start, function, (1, *window, 1), (1, *stride, 1), padding)


def shuffled(x, r=2):
    n, h, v, c = x.shape
    x = x.reshape(n, h, v, r, r, c // r**2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h * r, v * r, c // r**2)


def blocks(x, r=2):
    n, h, v, c = x.shape
    x = x.reshape(n, h // r, r, v // r, r, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h // r, v // r, r * r * c)


def nested_slice(x):
    y = stem(x)
    inner = jnp.concatenate([y, conv(y, w(3, 7, 7, C, C))], -1)
    return jnp.concatenate([inner, conv(y, w(3, 5, 5, C, C))], -1)[..., :2]


def middle_slice(x):
    """Of three parts the end of one and the start of the next, sliced in another layout."""
    y = stem(x)
    parts = [conv(y, w(3, 7, 7, C, C)), y, conv(y, w(3, 5, 5, C, C))]
    all_ = jnp.concatenate(parts, -1).transpose(0, 3, 1, 2)
    return all_[:, 6:10].transpose(0, 2, 3, 1)


def picked(pick, count):
    """Some of the channels that a space to depth makes of pixels."""
    return lambda x: conv(pick(blocks(stem(x))), w(16, 3, 3, count, C))


def single_channels(x):
    y = stem(x)
    return jnp.concatenate([y[..., :1], conv(y, w(3, 7, 7, C, 1))], -1)[..., :1]


def windowed(y, p=4):
    """Attention within windows of p × p pixels (Swin)."""
    n, h, v, c = y.shape
    z = y.reshape(n, h // p, p, v // p, p, c).transpose(0, 1, 3, 2, 4, 5).reshape(-1, p * p, c)
    a = jax.nn.softmax(jnp.einsum("bqc,bkc->bqk", z, z))
    o = jnp.einsum("bqk,bkc->bqc", a, z).reshape(n, h // p, v // p, p, p, c)
    return o.transpose(0, 1, 3, 2, 4, 5).reshape(n, h, v, c)


def nearest(x, r=2):
    n, h, v, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (n, h, r, v, r, c))
    return x.reshape(n, h * r, v * r, c)


def layer_norm(y):
    centred = y - y.mean(-1, keepdims=True)
    return centred * lax.rsqrt(y.var(-1, keepdims=True) + 1e-5)


def four(x):
    return jnp.concatenate([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], -1)


def misaligned(x):
    y = stem(x)
    other = conv(y, w(9, 2, 2, C, C), 2, "VALID")
    return jnp.concatenate([other, conv(y, w(1, 3, 3, C, C), 2)], -1)


def shifted(x):
    y = stem(x)
    z = windowed(jnp.roll(y @ w(1, C, C), (-2, -2), (1, 2)))
    return y + jnp.roll(z, (2, 2), (1, 2))


def padded(mode):
    return lambda x: k3(
        jnp.pad(stem(x), ((0, 0), (1, 1), (2, 2), (0, 0)), mode=mode), padding="VALID"
    )


def transposed(k, s, padding="SAME"):
    return lambda x: k3(lax.conv_transpose(k3(stem(x), 2), w(8, k, k, C, C), (s, s), padding))


def resized(shape, how):
    return lambda x: conv(jax.image.resize(line(x), (1, *shape, C), how), w(0, 3, 3, C, C))


def scanned(x):
    weights = w(11, 3, 3, 3, C, C)
    return lax.scan(lambda y, k: (jax.nn.relu(conv(y, k)), None), stem(x), weights)[0]


def upsampled(how):
    """A coarse map beside itself, made by `how`, and a gate of one channel in front of it."""

    def net(x):
        y = k3(stem(x), 2)
        y = how(y * jax.nn.sigmoid(conv(y, w(14, 3, 3, C, 1))))
        return k3(y.reshape(1, 36, -1, C))

    return net


# what a NaN passes
MODELS = {
    "strided": lambda x: k3(stem(x), 2),
    "dilated": lambda x: k3(k3(stem(x), dilation=2), dilation=(2, 3)),
    "valid": lambda x: k3(k3(stem(x), 2, padding="VALID"), padding="VALID"),
    "repeat": lambda x: k3(jnp.repeat(jnp.repeat(k3(stem(x), 2), 2, axis=1), 2, axis=2)),
    "nearest": lambda x: k3(nearest(k3(stem(x), 2))),
    "gathered": lambda x: k3(jax.image.resize(k3(stem(x), 2), (1, 36, 32, C), "nearest")),
    "pixel shuffle": lambda x: k3(shuffled(conv(stem(x), w(5, 3, 3, C, 16), 2))),
    "space to depth": lambda x: conv(blocks(stem(x)), w(6, 3, 3, 16, C)),
    "strided slices": lambda x: conv(four(stem(x)), w(4, 3, 3, 16, C)),
    "patches": lambda x: k3(
        jnp.einsum("nhpwqc,pqcd->nhwd", x.reshape(1, 9, 4, 8, 4, 3), w(7, 4, 4, 3, C))
    ),
    "overlapping patches": lambda x: k3(
        jnp.einsum("npkwc,kcd->npwd", stem(x)[:, 3 * np.arange(10)[:, None] + np.arange(5)],
                   w(9, 5, C, C))
    ),
    "transposed 2": transposed(2, 2),
    "transposed 3": transposed(3, 2),
    "transposed 5 valid": transposed(5, 3, "VALID"),
    "transposed 1": transposed(1, 2),
    "max pool": lambda x: k3(pool(stem(x), "max", (3, 3), (2, 2), "SAME")),
    "average pool": lambda x: k3(pool(stem(x), "sum", (3, 2), (2, 2), "VALID") / 6),
    "misaligned": misaligned,
    "concat and slice": lambda x: (
        lambda y: jnp.concatenate([y, conv(y, w(3, 7, 7, C, C))], -1)[..., :C]
    )(stem(x)),
    "reflect": padded("reflect"),
    "edge": padded("edge"),
    "wrap": padded("wrap"),
    "crop": lambda x: k3(stem(x)[:, 3:-2, 1:-4]),
    "negative pad": lambda x: k3(
        lax.pad(stem(x), 0.0, ((0, 0, 0), (-2, 1, 0), (3, -1, 0), (0, 0, 0)))
    ),
    "roll": lambda x: k3(jnp.roll(stem(x), (-2, -3), (1, 2))),
    "scan": scanned,
    "repeat beside": lambda x: k3(
        jnp.repeat(jnp.repeat(k3(stem(x), 2), 2, axis=1), 2, axis=2) + stem(x)
    ),
    "nested slice": nested_slice,
    "single channels": single_channels,
    "middle slice": middle_slice,
    "half of the blocks": picked(lambda y: jnp.split(y, 2, -1)[1], 8),
    "across the blocks": picked(lambda y: lax.dynamic_slice_in_dim(y, 6, 4, axis=-1), 4),
    "blocks by index": picked(lambda y: jnp.take(y, jnp.array([0, 5, -3]), axis=-1), 3),
    "blocks reversed": picked(lambda y: jnp.pad(y[..., ::-1], ((0, 0),) * 3 + ((0, 1),)), 17),
    "blocks beside": picked(lambda y: jnp.concatenate([y, jnp.roll(y, 1, -1)[..., :2]], -1), 18),
    "stacked rows": upsampled(lambda y: jnp.stack([y, -y], 2)),
    "tiled rows": upsampled(lambda y: jnp.tile(y[:, :, None], (1, 1, 2, 1, 1))),
    "shuffled at the end": lambda x: shuffled(conv(stem(x), w(5, 3, 3, C, 16), 2)),
    "channels reversed": lambda x: k3(stem(x[..., ::-1])),
    "top channels": lambda x: conv(lax.top_k(stem(x), 2)[0], w(15, 3, 3, 2, C)),
    "channels shuffled": lambda x: k3(
        jnp.concatenate(jnp.split(stem(x), 2, -1)[::-1], -1)
        .reshape(1, 36, 32, 2, C // 2).swapaxes(3, 4).reshape(1, 36, 32, C)
    ),
    "cond": lambda x: lax.cond(True, k3, lambda y: y, stem(x)),
    "remat": lambda x: jax.checkpoint(lambda y: k3(jax.nn.gelu(y)))(stem(x)),
    "depthwise": lambda x: conv(stem(x), w(12, 5, 5, 1, C), feature_group_count=C),
    "dense": lambda x: jnp.dot(k3(stem(x), 2), w(13, C, 7)),
    "layer norm": lambda x: layer_norm(k3(stem(x))),
    "window attention": lambda x: windowed(stem(x)),
    "shifted windows": shifted,
    "vmap": lambda x: jax.vmap(lambda z: conv(z[None], w(2, 3, 3, 3, C), 2)[0])(x),
    "channels first": lambda x: lax.conv_general_dilated(
        x.transpose(0, 3, 1, 2), w(2, C, 3, 3, 3), (1, 1), "SAME"
    ).transpose(0, 2, 3, 1),
}

# linear ones, where a NaN meets zeros of a matrix
RESIZED = {
    "bilinear": resized((36, 32), "bilinear"),
    "bicubic": resized((36, 32), "cubic"),
    "antialiased": resized((18, 16), "bilinear"),
    "3 to 2": resized((27, 24), "bilinear"),
}
