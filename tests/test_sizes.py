"""The grid of a model that was read, and every row of it, against the executed model."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx.reference
import pytest
import torch
import torch.nn.functional as F
from models import MODELS, RESIZED
from onnx import TensorProto, helper

from erftheory import exact, from_jax, from_onnx
from erftheory.theory.image.graph import flatten
from erftheory.theory.image.units import exact_units

FLOATS = {"w": np.ones((1, 1, 2)), "v": np.ones((1, 1, 5)), "u": np.ones((1, 1, 4))}


def model(n, node, **constants):
    """One operator on an image of n pixels in a row."""
    constants = {k: v for k, v in {**FLOATS, **constants}.items() if k in node.input}
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 1, n))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(_array(v), k) for k, v in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def _array(value):
    value = np.asarray(value)
    return value.astype(np.float32) if value.dtype == np.float64 else value


def op(kind, *inputs, **attributes):
    return helper.make_node(kind, ["x", *inputs], ["y"], **attributes)


def resize(**attributes):
    return op("Resize", "", "s", **attributes)


def pool(kind, k, **attributes):
    return op(kind, kernel_shape=[k], **attributes)


def executed(made):
    evaluator: Any = onnx.reference.ReferenceEvaluator(made)
    return lambda x: evaluator.run(None, {"x": x})[0]


def shares(function, n):
    """What each output of a linear function takes of each pixel, in shares: (outputs, n)."""
    columns = [function(np.eye(n, dtype=np.float32)[i].reshape(1, 1, n)).ravel() for i in range(n)]
    matrix = np.asarray(np.stack(columns, 1))
    return matrix / np.where(matrix.any(1), matrix.sum(1), 1.0)[:, None]


def agree(network, wanted, rim=(0, 0)):
    """The grid has the rows of `wanted`, and all but `rim` at the ends have its shares.

    A resize reads pixels beyond the rim as the outermost ones, the package as zeros.
    """
    outputs, n = wanted.shape
    assert flatten(network, (n,), "gradient", None, "zeros").shape == (outputs,)
    units = [(o,) for o in range(rim[0], outputs - rim[1]) if wanted[o].any()]
    assert len(units) > outputs // 4
    for (o,), erf in zip(units, exact_units(network, n, units, signal="gradient", init=None)):
        row, start = np.zeros(n), erf.offset[0]
        row[start : start + len(erf.map)] = erf.map
        np.testing.assert_allclose(row / row.sum(), wanted[o], atol=2e-5)


@pytest.mark.parametrize("name", [*MODELS, *RESIZED])
def test_the_grid_of_a_traced_model(name):
    function = {**MODELS, **RESIZED}[name]
    image = jax.ShapeDtypeStruct((1, 36, 32, 3), jnp.float32)
    network = from_jax(function, image, spatial_axes=(1, 2))
    wanted = jax.eval_shape(function, image).shape[1:3]
    assert flatten(network, (36, 32), "gradient", None, "zeros").shape == wanted


def test_the_central_unit_is_that_of_the_models_grid():
    def net(x):
        return jax.image.resize(x, (1, 24, 30, 3), "cubic")

    network = from_jax(net, jax.ShapeDtypeStruct((1, 12, 10, 3), jnp.float32), spatial_axes=(1, 2))
    found = exact(network, image=(12, 10), signal="gradient", init=None)
    assert found.metadata["unit"] == (12, 15)


POOLS = [
    (20, 3, 2, (0, 0)), (20, 3, 2, (1, 1)), (20, 2, 3, (1, 1)), (19, 2, 3, (0, 1)),
    (21, 3, 2, (1, 1)),
]  # fmt: skip


@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize(("n", "k", "s", "pads"), POOLS)
def test_ceil_mode_of_pools(n, k, s, pads, include):
    more = {"strides": [s], "pads": pads, "ceil_mode": 1}
    mean = model(n, pool("AveragePool", k, count_include_pad=include, **more))
    wanted = shares(executed(mean), n)
    if pads[0] == pads[1]:
        p, ones = pads[0], torch.zeros(1, 1, n)
        # PyTorch has the same rule for the last window
        assert F.avg_pool1d(ones, k, s, p, ceil_mode=True).shape[2] == len(wanted)
    agree(from_onnx(mean), wanted)
    most = from_onnx(model(n, pool("MaxPool", k, **more)))
    assert flatten(most, (n,), "gradient", None, "zeros").shape == (len(wanted),)


TRANSPOSED = {
    "upper": ("v", {"strides": [2], "auto_pad": "SAME_UPPER"}),
    "upper even": ("u", {"strides": [3], "auto_pad": "SAME_UPPER"}),
    "lower": ("v", {"strides": [2], "auto_pad": "SAME_LOWER"}),
    "cut behind": ("v", {"strides": [3], "pads": [0, 2]}),
    "cut in front": ("v", {"strides": [3], "pads": [2, 0], "output_padding": [1]}),
    "dilated": ("v", {"strides": [2], "pads": [1, 4], "dilations": [2]}),
}


@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolutions(name):
    weights, attributes = TRANSPOSED[name]
    made = model(7, op("ConvTranspose", weights, **attributes))
    agree(from_onnx(made), shares(executed(made), 7))


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER"])
def test_a_transposed_kernel_shorter_than_its_stride_is_not_padded(auto):
    network = from_onnx(model(7, op("ConvTranspose", "w", strides=[3], auto_pad=auto)))
    # as onnxruntime does it; the standard says 21 pixels and a padding of -1
    plain = shares(lambda x: F.conv_transpose1d(torch.tensor(x), torch.ones(1, 1, 2), stride=3), 7)
    agree(network, plain)


SYMMETRIC = {"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric"}
CLEAN = {"mode": "cubic", "antialias": 1, "exclude_outside": 1}
RESIZES = {
    "linear x2": (9, 2, {"mode": "linear"}, (1, 1)),
    "linear x3": (9, 3, {"mode": "linear"}, (1, 1)),
    "cubic x2": (9, 2, {"mode": "cubic"}, (3, 3)),
    "linear x1.5": (12, 1.5, {"mode": "linear"}, (1, 1)),
    "nearest 1/3": (20, 1 / 3, {"coordinate_transformation_mode": "asymmetric"}, (0, 0)),
    "nearest 2/5": (20, 0.4, {"nearest_mode": "floor"}, (0, 0)),
    "symmetric": (11, 0.5, SYMMETRIC, (1, 0)),
    "half": (18, 0.5, {"mode": "linear", "antialias": 1}, (1, 1)),
    "two thirds": (18, 2 / 3, {"mode": "linear", "antialias": 1}, (1, 1)),
    "cubic third": (18, 1 / 3, {"mode": "cubic", "antialias": 1}, (2, 2)),
    "enlarged": (9, 2, {"mode": "linear", "antialias": 1}, (1, 1)),
    "without the outside": (18, 0.5, CLEAN, (2, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", RESIZES)
def test_resizes(name):
    n, scale, attributes, rim = RESIZES[name]
    made = model(n, resize(**attributes), s=np.array([1, 1, scale], np.float32))
    agree(from_onnx(made), shares(executed(made), n), rim)


PICKED = [
    (24, [0, 5, 10, 15, 20]), (24, [3, 4, 5, 6]), (20, [0, 0, 1, 1, 2, 2, 3, 3]), (24, [7]),
    (6, [0, 1, 3, 4]), (10, [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
]  # fmt: skip
WITHOUT_A_PATTERN = [
    [3, 1, 4, 1, 5, 9],
    [0, 1, 2, 3, 5, 4],
    [6, 2],
    [0] * 6,
    [0, 1, 0, 1, 2, 3, 2, 3],
]


def gather(n, indices):
    return model(n, op("Gather", "i", axis=2), i=np.array(indices))


@pytest.mark.parametrize(("n", "indices"), PICKED)
def test_picked_pixels(n, indices):
    made = gather(n, indices)
    first = indices[:2] == [0, 0] and len(indices) > n  # beyond the rim
    agree(from_onnx(made), shares(executed(made), n), (int(first), 0))


@pytest.mark.parametrize("indices", WITHOUT_A_PATTERN)
def test_picked_pixels_without_a_pattern_are_refused(indices):
    with pytest.raises(ValueError, match="rows disagree|no row lies inside|unequal weights"):
        from_onnx(gather(24, indices))
    image = jax.ShapeDtypeStruct((1, 24, 24, 3), jnp.float32)
    with pytest.raises(ValueError, match="rows disagree|no row lies inside|unequal weights"):
        from_jax(lambda x: x[:, :, jnp.array(indices)], image, spatial_axes=(1, 2))
