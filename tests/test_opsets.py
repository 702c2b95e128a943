"""Operators of older ONNX opsets read as those of today: written in both forms, one network."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, version_converter

from erftheory import exact, from_onnx, moments, receptive_field
from erftheory.importers.onnx.opsets import LEFT_OUT, MOVED, today
from erftheory.importers.values.pixels import Constant

SHAPE = (1, 4, 12, 10)
INT, FLOAT = TensorProto.INT64, TensorProto.FLOAT


def model(opset, nodes, constants=(), functions=(), shape=SHAPE):
    """Nodes from x to y behind a convolution that gives x three taps, and before one again."""
    weight = np.ones((4, 4, 3, 3), np.float32)
    first = helper.make_node("Conv", ["image", "w"], ["x"], pads=[1] * 4)
    last = helper.make_node("Conv", ["y", "w"], ["z"], pads=[1] * 4)
    arrays = {"w": weight, **dict(constants)}
    graph = helper.make_graph(
        [first, *nodes, last], "g",
        [helper.make_tensor_value_info("image", FLOAT, shape)],
        [helper.make_tensor_value_info("z", FLOAT, None)],
        [numpy_helper.from_array(a, k) for k, a in arrays.items()],
    )  # fmt: skip
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid("own", 1)] * bool(functions)
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=8)


def node(kind, *inputs, out=("y",), **attributes):
    return helper.make_node(kind, ["x", *inputs], list(out), **attributes)


def ints(*values):
    return np.array(values, np.int64)


ADD = helper.make_node("Add", ["a", "b"], ["y"])
TWO = np.array([1, 1, 2, 2], np.float32)
# operator: nodes of an old opset, nodes of today's, constants
FORMS = {
    "Clip": ((6, node("Clip", min=0.0, max=6.0)), (13, node("Clip", "lo", "hi")),
             {"lo": np.float32(0), "hi": np.float32(6)}),
    "Pad": ((2, node("Pad", pads=[0, 0, 1, 0, 0, 0, 2, 1])), (13, node("Pad", "p")),
            {"p": ints(0, 0, 1, 0, 0, 0, 2, 1)}),
    "Slice": ((1, node("Slice", axes=[3], starts=[2], ends=[9])),
              (13, node("Slice", "b", "e", "a")), {"b": ints(2), "e": ints(9), "a": ints(3)}),
    "Slice of all": ((1, node("Slice", starts=[0, 0, 1], ends=[1, 4, 7])),
                     (13, node("Slice", "b", "e")), {"b": ints(0, 0, 1), "e": ints(1, 4, 7)}),
    "Split": ((2, node("Split", axis=2, split=[6, 6], out="ab"), ADD),
              (13, node("Split", "s", axis=2, out="ab"), ADD), {"s": ints(6, 6)}),
    "Split evenly": ((2, node("Split", axis=2, out="ab"), ADD),
                     (18, node("Split", axis=2, num_outputs=2, out="ab"), ADD), {}),
    "Upsample": ((7, node("Upsample", scales=[1.0, 1.0, 2.0, 2.0])),
                 (13, node("Resize", "", "s", coordinate_transformation_mode="asymmetric",
                           nearest_mode="floor")), {"s": TWO}),
    "Upsample bilinear": ((9, node("Upsample", "s", mode="linear")),
                          (13, node("Resize", "", "s", mode="linear",
                                    coordinate_transformation_mode="asymmetric")), {"s": TWO}),
    "Resize": ((10, node("Resize", "s", mode="linear")),
               (13, node("Resize", "", "s", mode="linear",
                         coordinate_transformation_mode="asymmetric")), {"s": TWO}),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_old_and_new_form_are_one_network(name):
    old, new, constants = FORMS[name]
    a, b = (from_onnx(model(opset, nodes, constants)) for opset, *nodes in (old, new))
    assert a.graph == b.graph and receptive_field(a) == receptive_field(b)
    np.testing.assert_array_equal(exact(a).map, exact(b).map)


@pytest.mark.parametrize("kind", MOVED)
def test_an_attribute_that_became_an_input(kind):
    for name, place in MOVED[kind].items():
        image = Constant(SHAPE)
        _, at, inputs = today(kind, {name: [1, 2]}, [image], 9, 1)
        assert name not in at and inputs[0] is image
        known = inputs[place].get()
        assert known is not None and known.tolist() == [1, 2]
        left = {i for i, v in enumerate(inputs) if v is LEFT_OUT}
        assert left == set(range(1, len(inputs))) - {place}


def test_softmax_of_old_runs_over_all_dimensions_from_one_on():
    old = from_onnx(model(11, [node("Softmax", axis=1)]), hold="none")
    new = from_onnx(model(13, [node("Softmax", axis=1)]))
    assert receptive_field(new).size == (5, 5)
    assert any("whole image" in note or "unbounded" in note for note in old.notes)


# ---- why not onnx.version_converter -------------------------------------------------------------


def test_the_converter_of_onnx_changes_the_geometry_of_a_resize():
    """Resize of opset 10 has output o at o/2; today's, unless told, at (o + 1/2)/2 − 1/2."""
    old = model(10, [node("Resize", "s", mode="linear")], {"s": TWO})
    new = version_converter.convert_version(old, 13)
    (resize,) = [n for n in new.graph.node if n.op_type == "Resize"]
    assert "coordinate_transformation_mode" not in {a.name for a in resize.attribute}
    before, after = moments(from_onnx(old)), moments(from_onnx(new))
    assert before.mean != after.mean


def test_the_converter_of_onnx_drops_functions():
    twice = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Conv", ["a", "k"], ["b"])],
        [helper.make_opsetid("", 11)],
    )  # fmt: skip
    twice.input.append("k")
    call = helper.make_node("Twice", ["x", "w"], ["y"], domain="own")
    old = model(11, [call], functions=[twice])
    assert receptive_field(from_onnx(old)).size == (7, 7)
    new = version_converter.convert_version(old, 13)
    assert not new.functions and any(n.op_type == "Twice" for n in new.graph.node)
    with pytest.raises(ValueError, match="got 'Twice'"):
        from_onnx(new)
