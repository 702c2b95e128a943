"""The networks of TF-Slim in plain JAX, a few channels wide: each a function to its endpoints.

"SAME" is TensorFlow's: how much is padded before depends on the size of the map.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def _pair(n):
    return n if isinstance(n, tuple) else (n, n)


def conv(x, kernel=1, stride=1, padding="SAME", channels=2, groups=1):
    weights = np.ones((*_pair(kernel), x.shape[-1] // groups, channels), np.float32)
    y = lax.conv_general_dilated(
        x, weights, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )  # fmt: skip
    return jax.nn.relu(y)


def explicit(x, kernel, stride):
    """Their conv2d_same: padding that does not depend on the map where it has a stride."""
    if stride == 1:
        return conv(x, kernel)
    before = (kernel - 1) // 2
    pads = (before, kernel - 1 - before)
    return conv(jnp.pad(x, ((0, 0), pads, pads, (0, 0))), kernel, stride, "VALID")


def pool(x, kernel, stride, padding="VALID"):
    window = (1, kernel, kernel, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, (1, stride, stride, 1), padding)


def average(x):
    return lax.reduce_window(x, 0.0, lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME") / 9


def run(x, *kernels, stride=1, padding="SAME"):
    """Convolutions in a row, the last of them with the stride and the padding."""
    for kernel in kernels[:-1]:
        x = conv(x, kernel)
    return conv(x, kernels[-1], stride, padding)


def concat(*branches):
    return jnp.concatenate(branches, -1)


def alexnet_v2(x):
    ends = {"conv1": conv(x, 11, 4, "VALID")}
    ends["pool1"] = pool(ends["conv1"], 3, 2)
    ends["conv2"] = conv(ends["pool1"], 5)
    ends["conv3"] = conv(pool(ends["conv2"], 3, 2), 3)
    ends["conv5"] = run(ends["conv3"], 3, 3)
    ends["pool5"] = pool(ends["conv5"], 3, 2)
    return ends


def vgg(x, plan):
    ends = {}
    for block, depth in enumerate(plan, start=1):
        x = ends[f"pool{block}"] = pool(run(x, *[3] * depth), 2, 2)
    return ends


def mobilenet_v1(x, channels):
    ends = {"0": conv(x, 3, 2, channels=channels)}
    x = ends["0"]
    for i, stride in enumerate((1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1), start=1):
        x = ends[str(i)] = conv(conv(x, 3, stride, "SAME", channels, channels), channels=channels)
    return ends


def resnet(x, plan):
    """The stride is in the last unit of a block, in its 3x3, and none in the last block."""
    x, ends = pool(explicit(x, 7, 2), 3, 2, "SAME"), {}
    for block, depth in enumerate(plan, start=1):
        for unit in range(depth):
            stride = 2 if unit == depth - 1 and block < 4 else 1
            shortcut = x[:, ::stride, ::stride] if unit else conv(x, 1, stride)
            x = jax.nn.relu(shortcut + conv(explicit(conv(x), 3, stride)))
        ends[f"block{block}"] = x
    return ends


def inception_v2(x):
    ends = {"Conv2d_1a_7x7": conv(conv(x, 7, 2, "SAME", 3, 3))}
    x = ends["MaxPool_2a_3x3"] = pool(ends["Conv2d_1a_7x7"], 3, 2, "SAME")
    x = ends["MaxPool_3a_3x3"] = pool(run(x, 1, 3), 3, 2, "SAME")
    for name in ("3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b", "5c"):
        if name[1] == "a":
            x = concat(run(x, 1, 3, stride=2), run(x, 1, 3, 3, stride=2), pool(x, 3, 2, "SAME"))
        else:
            last = conv(average(x)) if name != "5c" else conv(pool(x, 3, 1, "SAME"))
            x = concat(conv(x), run(x, 1, 3), run(x, 1, 3, 3), last)
        ends[f"Mixed_{name}"] = x
    return ends


def _reduced(x, *branches, padding="VALID"):
    """Branches that end in a 3x3 of stride 2, and a pool."""
    ends = [run(x, *branch, stride=2, padding=padding) for branch in branches]
    return concat(*ends, pool(x, 3, 2, padding))


WIDE, HIGH = (1, 7), (7, 1)


def _cross(x, *kernels):
    x = run(x, *kernels)
    return concat(conv(x, (1, 3)), conv(x, (3, 1)))


def inception_v3(x):
    ends = {"Conv2d_1a_3x3": conv(x, 3, 2, "VALID")}
    x = conv(conv(ends["Conv2d_1a_3x3"], 3, padding="VALID"), 3)
    x = ends["MaxPool_3a_3x3"] = pool(x, 3, 2)
    x = ends["MaxPool_5a_3x3"] = pool(conv(conv(x), 3, padding="VALID"), 3, 2)
    for name in "bcd":
        x = concat(conv(x), run(x, 1, 5), run(x, 1, 3, 3), conv(average(x)))
        ends[f"Mixed_5{name}"] = x
    x = ends["Mixed_6a"] = _reduced(x, (3,), (1, 3, 3))
    for name in "bcde":
        long = run(x, 1, HIGH, WIDE, HIGH, WIDE)
        x = ends[f"Mixed_6{name}"] = concat(conv(x), run(x, 1, WIDE, HIGH), long, conv(average(x)))
    x = ends["Mixed_7a"] = _reduced(x, (1, 3), (1, WIDE, HIGH, 3))
    for name in "bc":
        x = concat(conv(x), _cross(x, 1), _cross(x, 1, 3), conv(average(x)))
        ends[f"Mixed_7{name}"] = x
    return ends


def inception_v4(x):
    ends = {"Conv2d_1a_3x3": conv(x, 3, 2, "VALID")}
    x = conv(conv(ends["Conv2d_1a_3x3"], 3, padding="VALID"), 3)
    x = ends["Mixed_3a"] = _reduced(x, (3,))
    x = concat(run(x, 1, 3, padding="VALID"), run(x, 1, WIDE, HIGH, 3, padding="VALID"))
    ends["Mixed_4a"] = x
    x = ends["Mixed_5a"] = _reduced(x, (3,))
    for name in "bcde":
        x = concat(conv(x), run(x, 1, 3), run(x, 1, 3, 3), conv(average(x)))
        ends[f"Mixed_5{name}"] = x
    x = ends["Mixed_6a"] = _reduced(x, (3,), (1, 3, 3))
    for name in "bcdefgh":
        long = run(x, 1, HIGH, WIDE, HIGH, WIDE)
        x = ends[f"Mixed_6{name}"] = concat(conv(x), run(x, 1, WIDE, HIGH), long, conv(average(x)))
    x = ends["Mixed_7a"] = _reduced(x, (1, 3), (1, WIDE, HIGH, 3))
    for name in "bcd":
        x = concat(conv(x), _cross(x, 1), _cross(x, 1, (3, 1), (1, 3)), conv(average(x)))
        ends[f"Mixed_7{name}"] = x
    return ends


def _residual(x, *branches):
    joined = concat(conv(x), *(run(x, *branch) for branch in branches))
    return jax.nn.relu(x + 0.2 * conv(joined, channels=x.shape[-1]))


def inception_resnet_v2(x, padding="VALID"):
    ends = {"Conv2d_1a_3x3": conv(x, 3, 2, padding)}
    x = conv(conv(ends["Conv2d_1a_3x3"], 3, padding=padding), 3)
    x = ends["MaxPool_3a_3x3"] = pool(x, 3, 2, padding)
    x = ends["MaxPool_5a_3x3"] = pool(conv(conv(x), 3, padding=padding), 3, 2, padding)
    x = concat(conv(x), run(x, 1, 5), run(x, 1, 3, 3), conv(average(x)))
    ends["Mixed_5b"] = x
    for _ in range(10):
        x = _residual(x, (1, 3), (1, 3, 3))
    x = ends["Mixed_6a"] = _reduced(x, (3,), (1, 3, 3), padding=padding)
    for _ in range(20):
        x = _residual(x, (1, WIDE, HIGH))
    ends["PreAuxLogits"] = x
    x = ends["Mixed_7a"] = _reduced(x, (1, 3), (1, 3), (1, 3, 3), padding=padding)
    for _ in range(10):
        x = _residual(x, (1, (1, 3), (3, 1)))
    ends["Conv2d_7b_1x1"] = conv(x)
    return ends


NETWORKS = {
    "alexnet_v2": alexnet_v2,
    "vgg_a": partial(vgg, plan=(1, 1, 2, 2, 2)),
    "vgg_16": partial(vgg, plan=(2, 2, 3, 3, 3)),
    "mobilenet_v1": partial(mobilenet_v1, channels=4),
    "mobilenet_v1_075": partial(mobilenet_v1, channels=3),
    "resnet_v1_50": partial(resnet, plan=(3, 4, 6, 3)),
    "resnet_v1_101": partial(resnet, plan=(3, 4, 23, 3)),
    "resnet_v1_152": partial(resnet, plan=(3, 8, 36, 3)),
    "resnet_v1_200": partial(resnet, plan=(3, 24, 36, 3)),
    "inception_v2": inception_v2,
    "inception_v3": inception_v3,
    "inception_v4": inception_v4,
    "inception_resnet_v2": inception_resnet_v2,
    "inception_resnet_v2-same": partial(inception_resnet_v2, padding="SAME"),
}
