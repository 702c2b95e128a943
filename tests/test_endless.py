"""Axes that are read to their ends: means over one, recurrences and attention along one.

The referee is the executed model: which pixels the gradient of one unit reaches. Along an axis
without end that is all of them (before the unit, behind it, or both), along the others exactly the
predicted ones.
"""

from __future__ import annotations

import math

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from jax import lax
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from reached import Net, agrees, torch_reached
from torch import nn

from erftheory import (
    Activation,
    AvgPool,
    Chain,
    Conv,
    GlobalAvgPool,
    Recurrent,
    Residual,
    Upsample,
    advise,
    approximate,
    cumulants,
    exact,
    from_jax,
    from_onnx,
    from_torch,
    moments,
    receptive_field,
    sample,
    tiling,
)
from erftheory.network.endless import Along

INF = math.inf


def conv(k=3, c=4, **more):
    return nn.Conv2d(c, 4, k, padding=k // 2, **more)


def strip_pooling(m, x):
    x = m.stem(x)
    rows = F.interpolate(m.wide(F.adaptive_avg_pool2d(x, (1, None))), size=x.shape[2:])
    return m.last(x * torch.sigmoid(rows))


def both_strips(m, x):
    x = m.stem(x)
    rows = m.wide(F.adaptive_avg_pool2d(x, (1, None))).expand_as(x)
    columns = F.interpolate(
        m.tall(F.adaptive_avg_pool2d(x, (None, 1))), x.shape[2:], mode="bilinear"
    )
    return m.last(x * torch.sigmoid(m.mix(F.silu(rows + columns))))


def coordinate_attention(m, x):
    """Hou, Zhou, Feng 2021: both means share a convolution, one behind the other."""
    x = m.stem(x)
    h, w = x.shape[2:]
    rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).permute(0, 1, 3, 2)
    y = F.hardswish(m.norm(m.mix(torch.cat([rows, columns], 2))))
    rows, columns = torch.split(y, [h, w], 2)
    gate = torch.sigmoid(m.tall1(rows)) * torch.sigmoid(m.wide1(columns.permute(0, 1, 3, 2)))
    return m.last(x * gate)


def row_attention(m, x):
    """Along the width, each row for itself; the batch holds the rows."""
    x = m.stem(x)
    n, c, h, w = x.shape
    q = x.permute(0, 2, 3, 1).reshape(n * h, w, c)
    y = F.scaled_dot_product_attention(q, q, q).reshape(n, h, w, c).permute(0, 3, 1, 2)
    return m.last(x + y)


def column_attention(m, x):
    q = m.stem(x).permute(0, 3, 2, 1)
    y = torch.softmax(q @ q.transpose(-1, -2), -1) @ q
    return m.last(y.permute(0, 3, 2, 1))


def row_recurrence(m, x):
    x = m.stem(x)
    n, c, h, w = x.shape
    y = m.rnn(x.permute(0, 2, 3, 1).reshape(n * h, w, c))[0]
    return m.last(y.reshape(n, h, w, 4).permute(0, 3, 1, 2))


TWO = {  # name: (function, layers, last dimensions that are the axes), gates that can be held
    "strip pooling": (strip_pooling, {"wide": nn.Conv2d(4, 4, (1, 3), padding=(0, 1))}, True),
    "both strips": (both_strips, {
        "wide": nn.Conv2d(4, 4, (1, 3), padding=(0, 1)), "mix": conv(1),
        "tall": nn.Conv2d(4, 4, (3, 1), padding=(1, 0))}, True),
    "coordinate attention": (coordinate_attention, {
        "mix": conv(1), "norm": nn.BatchNorm2d(4), "tall1": conv(1), "wide1": conv(1)}, True),
    "one axis in a residual": (
        lambda m, x: m.last((y := m.stem(x)) + m.line(y.mean(2))[:, :, None]),
        {"line": nn.Conv1d(4, 4, 3, padding=1)}, True),
    "row attention": (row_attention, {}, True),
    "column attention": (column_attention, {}, False),
    "rows by an LSTM": (row_recurrence, {"rnn": nn.LSTM(4, 4, batch_first=True)}, False),
    "running sum": (lambda m, x: m.last(torch.cumsum(m.stem(x), 2)), {}, False),
    "reversed running sum": (
        lambda m, x: m.last(torch.flip(torch.cumsum(torch.flip(m.stem(x), (2,)), 2), (2,))),
        {}, False),
}  # fmt: skip


@pytest.mark.parametrize("name", TWO)
def test_two_axes_against_the_model(name):
    function, layers, gate = TWO[name]
    model = Net(function, stem=nn.Conv2d(1, 4, 3, padding=1), last=conv(), **layers)
    shape, unit = (1, 1, 12, 14), (6, 7)
    network = from_torch(model, torch.zeros(shape))
    agrees(network, torch_reached(model, shape, unit, (2, 3)), unit)
    assert any("read to its ends along ax" in note for note in network.notes)
    if gate:
        held = from_torch(model, torch.zeros(shape), hold="global")
        assert receptive_field(held).size == (5, 5)
        assert any("held constant" in note for note in held.notes)


def collapsed(m, x):
    return m.rnn(m.stem(x).mean(2).transpose(1, 2))[0]


def flattened(m, x):
    """Features of the recurrence are pixels of the other axis as well."""
    x = m.stem(x)
    return m.rnn(x.permute(0, 3, 1, 2).flatten(2))[0]


def dense_columns(m, x):
    return m.head(m.stem(x).permute(0, 3, 1, 2).flatten(2)).transpose(1, 2)


@pytest.mark.parametrize("name", ["mean, then LSTM", "flattened, then GRU", "dense"])
def test_what_reads_one_axis_whole_and_goes_on_along_the_other(name):
    function, layers, place, both = {
        "mean, then LSTM": (collapsed, {"rnn": nn.LSTM(4, 3, batch_first=True)}, 1, False),
        "flattened, then GRU": (
            flattened, {"rnn": nn.GRU(48, 3, batch_first=True, bidirectional=True)}, 1, True),
        "dense": (dense_columns, {"head": nn.Linear(48, 3)}, 2, None),
    }[name]  # fmt: skip
    model = Net(function, stem=nn.Conv2d(1, 4, 5, padding=2), **layers)
    network = from_torch(model, torch.zeros(1, 1, 12, 14))
    reached = torch_reached(model, (1, 1, 12, 14), (7,), (place,))
    agrees(network, reached, (0, 7))
    field = receptive_field(network)
    assert field.lookahead[1] == {None: 2, True: INF, False: 2}[both]
    assert field.lookback[1] == {None: 2, True: INF, False: INF}[both]


RECURRENT = {
    "LSTM": (nn.LSTM(4, 3, batch_first=True), False),
    "two layers": (nn.GRU(4, 3, 2, batch_first=True), False),
    "both ways": (nn.LSTM(4, 3, batch_first=True, bidirectional=True), True),
    "time first": (nn.RNN(4, 3), False),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_streaming_models_get_their_latency(name):
    rnn, both = RECURRENT[name]
    order, back = ((0, 2, 1), (0, 2, 1)) if rnn.batch_first else ((2, 0, 1), (1, 2, 0))

    def run(m, x):
        return m.last(m.rnn(m.stem(x).permute(order))[0].permute(back))

    stem = nn.Conv1d(2, 4, 5, stride=2, padding=2)
    model = Net(run, stem=stem, rnn=rnn, last=nn.Conv1d(6 if both else 3, 2, 3, padding=1))
    network = from_torch(model, torch.zeros(1, 2, 40))
    agrees(network, torch_reached(model, (1, 2, 40), (9,), (2,)), (9,))
    field = receptive_field(network)
    assert field.lookahead == ((INF,) if both else (4,))
    assert ("latency inf" if both else "latency 4") in str(field)
    rows = network.summary().rows
    assert [row.receptive_field for row in rows] == [(5,), (INF,), (INF,)]
    assert not math.isnan(rows[0].std[0]) and math.isnan(rows[1].std[0])
    for read in (exact, moments, lambda n: exact(n, image=40), lambda n: sample(n, 0, 4)):
        with pytest.raises(ValueError, match="^network: got .*recurr.*until"):
            read(network)
    assert exact(network.until("stem")).map.shape == (5,)  # what the message says


def test_messages_call_axes_by_their_names():
    alone = Net(lambda m, x: m.rnn(x)[0], rnn=nn.LSTM(2, 3, batch_first=True))
    field = receptive_field(from_torch(alone, torch.zeros(1, 40, 2), spatial_axes={"time": 1}))
    assert "the recurrent layer along time 'rnn' looks back" in field.unbounded
    assert "inf (time) pixels" in str(field)


def test_a_recurrence_alone_and_what_only_its_end_knows():
    alone = Net(lambda m, x: m.rnn(x)[0], rnn=nn.LSTM(2, 3, batch_first=True))
    field = receptive_field(from_torch(alone, torch.zeros(1, 40, 2)))
    assert (field.size, field.lookback, field.lookahead) == ((INF,), (INF,), (0,))
    for k in (0, 1):
        end = Net(lambda m, x, k=k: m.rnn(x)[1][k][-1], rnn=nn.LSTM(2, 3, batch_first=True))
        field = receptive_field(from_torch(end, torch.zeros(1, 40, 2)))
        assert (field.lookback, field.lookahead) == ((INF,), (INF,))
        assert "a last state" in field.unbounded
    rows = Net(lambda m, x: m.rnn(x[0].permute(1, 2, 0))[1][0],
               rnn=nn.LSTM(2, 3, batch_first=True))  # fmt: skip
    network = from_torch(rows, torch.zeros(1, 2, 9, 40), spatial_axes=(2, 3))
    assert receptive_field(network).size == (1, INF)


def jax_reached(function, shape, unit, places) -> np.ndarray:
    x = jax.random.normal(jax.random.key(0), shape)
    taken = lambda x: jnp.square(jnp.moveaxis(function(x), places, range(len(places)))[unit]).sum()  # noqa: E731, E501
    g = np.abs(np.asarray(jax.grad(taken)(x)))
    return g.max(tuple(i for i in range(g.ndim) if i not in places)) > 0


KERNELS = [jax.random.normal(jax.random.key(i), (4, n, k, k)) / 4
           for i, (n, k) in enumerate([(1, 3), (4, 3), (4, 1)])]  # fmt: skip


def convolved(x, i):
    return lax.conv(x, KERNELS[i], (1, 1), "SAME")


def jax_strip(x):
    x = convolved(x, 0)
    return convolved(x * jax.nn.sigmoid(x.mean(2, keepdims=True)), 1)


def jax_coordinates(x):
    x = convolved(x, 0)
    rows, columns = x.mean(3, keepdims=True), x.mean(2, keepdims=True).transpose(0, 1, 3, 2)
    y = jax.nn.silu(convolved(jnp.concatenate([rows, columns], 2), 2))
    rows, columns = jnp.split(y, [12], 2)
    gate = jax.nn.sigmoid(rows) * jax.nn.sigmoid(columns.transpose(0, 1, 3, 2))
    return convolved(x * gate, 1)


def smoothed(x, reverse=False):
    """An exponential moving sum down the image."""
    rows = convolved(x, 0).transpose(2, 0, 1, 3)

    def step(state, row):
        state = 0.9 * state + 0.1 * row
        return state, state

    found = lax.scan(step, jnp.zeros(rows.shape[1:]), rows, reverse=reverse)[1]
    return convolved(found.transpose(1, 2, 0, 3), 1)


def convolutional_recurrence(x):
    rows = convolved(x, 0).transpose(2, 0, 1, 3)
    taps = jax.random.normal(jax.random.key(3), (4, 4, 3))

    def step(state, row):
        moved = lax.conv_general_dilated(
            state, taps, (1,), "SAME", dimension_numbers=("NCH", "OIH", "NCH")
        )
        state = jnp.tanh(moved) + row
        return state, state

    return lax.scan(step, jnp.zeros(rows.shape[1:]), rows)[1].transpose(1, 2, 0, 3)


JAX = {
    "strip": jax_strip,
    "coordinate attention": jax_coordinates,
    "running sum": lambda x: convolved(jnp.cumsum(convolved(x, 0), 3), 1),
    "exponential moving sum": smoothed,
    "the other way": lambda x: smoothed(x, True),
}  # fmt: skip


@pytest.mark.parametrize("name", JAX)
def test_jax_against_the_model(name):
    function, shape, unit = JAX[name], (1, 1, 12, 14), (6, 7)
    network = from_jax(function, jax.ShapeDtypeStruct(shape, jnp.float32))
    agrees(network, jax_reached(function, shape, unit, (2, 3)), unit)


def test_a_window_that_is_repeated_at_every_step_reads_its_axis_to_the_end():
    shape = jax.ShapeDtypeStruct((1, 1, 12, 14), jnp.float32)
    field = receptive_field(from_jax(convolutional_recurrence, shape))
    assert field.size == (INF, INF) and field.lookahead == (1, INF)


class Recurrence(linen.Module):
    reverse: bool

    @linen.compact
    def __call__(self, x):
        x = linen.Conv(4, (5,), strides=2)(x)
        return linen.RNN(linen.LSTMCell(3), reverse=self.reverse, keep_order=True)(x)


@pytest.mark.parametrize("reverse", [False, True])
def test_recurrent_layers_of_flax(reverse):
    model, x = Recurrence(reverse), jnp.zeros((1, 40, 2))
    parameters = model.init(jax.random.key(0), x)
    run = lambda x: model.apply(parameters, x)  # noqa: E731
    network = from_jax(run, x)
    agrees(network, jax_reached(run, x.shape, (9,), (1,)), (9,))
    kinds = [n.op.direction for n in network.graph.nodes if isinstance(n.op, Recurrent)]
    assert kinds == ["backward" if reverse else "forward"]


def made_onnx(nodes, shape, out, **constants):
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def onnx_reached(model, shape, place, unit) -> np.ndarray:
    """Pixels of one axis whose change moves a unit."""
    rng = np.random.default_rng(0)
    x, run = rng.normal(size=shape).astype(np.float32), ReferenceEvaluator(model)

    def value(x):
        return np.take(run.run(None, {"x": x})[0], unit, place)

    base, reached = value(x), []
    for i in range(shape[2]):
        moved = x.copy()
        moved[:, :, i] += 1
        reached.append(np.abs(value(moved) - base).max() > 0)
    return np.array(reached)


def onnx_recurrence(kind, direction):
    gates, count = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 2 if direction == "bidirectional" else 1
    rng = np.random.default_rng(1)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], pads=[2, 2], strides=[2]),
        helper.make_node("Transpose", ["c"], ["t"], perm=[2, 0, 1]),
        helper.make_node(kind, ["t", "w", "r"], ["y"], hidden_size=3, direction=direction),
    ]
    constants = {
        "k": draw(4, 2, 5), "w": draw(count, gates * 3, 4), "r": draw(count, gates * 3, 3),
    }  # fmt: skip
    return made_onnx(nodes, (1, 2, 40), (20, count, 1, 3), **constants)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_operators_of_onnx_against_the_evaluator(kind):
    model = onnx_recurrence(kind, "forward")
    agrees(from_onnx(model), onnx_reached(model, (1, 2, 40), 0, 9), (9,))


@pytest.mark.parametrize("direction", ["reverse", "bidirectional"])
def test_directions_of_onnx(direction):
    field = receptive_field(from_onnx(onnx_recurrence("LSTM", direction)))
    assert field.lookback == ((2,) if direction == "reverse" else (INF,))
    assert field.lookahead == (INF,)


@pytest.mark.parametrize("reverse", [0, 1])
def test_running_sums_and_means_over_an_axis_of_onnx(reverse):
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], pads=[1, 1]),
        helper.make_node("CumSum", ["c", "axis"], ["y"], reverse=reverse),
    ]
    kernel = np.ones((4, 2, 3), np.float32)
    model = made_onnx(nodes, (1, 2, 30), (1, 4, 30), k=kernel, axis=np.int64(2))
    agrees(from_onnx(model), onnx_reached(model, (1, 2, 30), 2, 14), (14,))
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], pads=[1] * 4),
        helper.make_node("ReduceMean", ["c"], ["m"], axes=[3], keepdims=1),
        helper.make_node("Sigmoid", ["m"], ["s"]),
        helper.make_node("Mul", ["c", "s"], ["y"]),
    ]
    kernel = np.ones((4, 1, 3, 3), np.float32)
    model = made_onnx(nodes, (1, 1, 12, 12), (1, 4, 12, 12), k=kernel)
    assert receptive_field(from_onnx(model)).size == (3, INF)
    assert receptive_field(from_onnx(model, hold="global")).size == (3, 3)


def onnx_coordinates(mixing):
    node, size = helper.make_node, {"kernel_shape": [3, 3], "pads": [1] * 4}
    nodes = [
        node("Conv", ["x", "stem"], ["s"], **size),
        node("ReduceMean", ["s"], ["rows"], axes=[3], keepdims=1),
        node("ReduceMean", ["s"], ["m"], axes=[2], keepdims=1),
        node("Transpose", ["m"], ["columns"], perm=[0, 1, 3, 2]),
        node("Concat", ["rows", "columns"], ["both"], axis=2),
        node("Conv", ["both", "mix"], ["mixed"], pads=[k // 2 for k in mixing.shape[2:]] * 2),
        node("Relu", ["mixed"], ["bent"]),
        node("Split", ["bent", "sizes"], ["a", "b"], axis=2),
        node("Transpose", ["b"], ["t"], perm=[0, 1, 3, 2]),
        node("Sigmoid", ["a"], ["ga"]), node("Sigmoid", ["t"], ["gb"]),
        node("Mul", ["s", "ga"], ["one"]), node("Mul", ["one", "gb"], ["two"]),
        node("Conv", ["two", "last"], ["y"], **size),
    ]  # fmt: skip
    rng = np.random.default_rng(2)
    return made_onnx(
        nodes, (1, 1, 12, 14), (1, 4, 12, 14), mix=mixing, sizes=np.array([12, 14]),
        stem=rng.normal(size=(4, 1, 3, 3)).astype(np.float32),
        last=rng.normal(size=(4, 4, 3, 3)).astype(np.float32),
    )  # fmt: skip


def test_coordinate_attention_of_onnx():
    ones = np.ones((4, 4, 1, 1), np.float32)
    model = onnx_coordinates(ones)
    assert receptive_field(from_onnx(model)).size == (INF, INF)
    assert receptive_field(from_onnx(model, hold="global")).size == (5, 5)
    with pytest.raises(ValueError, match="'Conv' of .*different values one behind the other"):
        from_onnx(onnx_coordinates(np.ones((4, 4, 3, 1), np.float32)))


def test_what_is_cut_across_two_maps_is_refused():
    def function(m, x):
        x = m.stem(x)
        both = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).mT], 2)
        return torch.sigmoid(both[:, :, 2:14]) * x

    model = Net(function, stem=nn.Conv2d(1, 4, 3, padding=1))
    with pytest.raises(ValueError, match="'aten.slice' of .*different values one behind the other"):
        from_torch(model, torch.zeros(1, 1, 12, 14))


# ---- described by hand --------------------------------------------------------------------------


def test_a_mean_over_one_axis_is_a_pool_as_long_as_the_image():
    mean, pool = GlobalAvgPool(0), AvgPool((9, 1), 1, padding="valid")
    for behind in (
        Conv((1, 3)),
        Chain(Activation("relu"), Conv(1), AvgPool((1, 3), 1), Conv((1, 3))),
    ):
        nets = [Chain(Conv(3), part, behind) for part in (mean, pool)]
        for kind in ("variance", "gradient"):
            one, other = (exact(n, image=9, unit=(0, 4), signal=kind) for n in nets)
            assert one.map == pytest.approx(other.map, abs=1e-12)
            assert one.metadata["lost"] == pytest.approx(other.metadata["lost"], abs=1e-12)
    assert receptive_field(nets[0]).size == (INF, 7)
    x = torch.randn(1, 1, 9, 9)
    field = receptive_field(from_torch(nn.AdaptiveAvgPool2d((3, 1)), x, spatial_axes=(2, 3)))
    assert field.size == (3, INF)


def test_both_ends_of_a_description():
    net = Chain(Conv(3, 2), Recurrent(5, direction="backward"), Conv(5), Upsample(2), ndim=1)
    field = receptive_field(net)
    assert (field.size, field.padding, field.lookahead) == ((INF,), (5,), (INF,))
    assert field.phases[1].lookahead == (INF,) and field.phases[1].lookback == (6,)
    assert "looks ahead without end" in field.unbounded
    loop = Chain(Residual(Chain(Conv(3), Recurrent())) * 3, ndim=1)
    field = receptive_field(loop)
    assert (field.lookback, field.lookahead) == ((INF,), (3,))
    assert (
        "the recurrent layer along the last axis 'branch' looks back without end" in field.unbounded
    )


REFUSING = {
    "exact": exact,
    "moments": moments,
    "cumulants": cumulants,
    "approximate": approximate,
    "advise": lambda n: advise(n, 32),
    "tiling": lambda n: tiling(n, 100),
    "sample": lambda n: sample(n, 0, 4),
}


@pytest.mark.parametrize("name", REFUSING)
def test_readings_of_an_erf_without_end_are_refused(name):
    for layer in (Recurrent().named("rnn"), GlobalAvgPool(1).named("rnn")):
        net = Chain(Conv(3).named("stem"), layer, Conv(3), ndim=2)
        with pytest.raises(ValueError, match="^network: got a receptive field without end") as said:
            REFUSING[name](net)
        assert "until()" in str(said.value) and "\n" not in str(said.value)
        REFUSING[name](Chain(net.until("stem"), Conv(3)))  # what the message says


def test_on_an_image_a_mean_is_exact_and_a_recurrence_is_refused():
    with pytest.raises(ValueError, match=r"network: got r \(recurrent layer .*no ERF is predicted"):
        exact(Chain(Conv(3), Recurrent().named("r"), ndim=1), image=12)
    beside = Chain(Conv(3), Residual(GlobalAvgPool(0)), ndim=2)
    with pytest.raises(ValueError, match="where a mean over the image"):
        exact(beside, image=12)


def test_bad_arguments_in_one_line():
    for make, said in (
        (lambda: GlobalAvgPool(()), "along: got no axis"),
        (lambda: GlobalAvgPool("x"), "along: got 'x'"),
        (lambda: Recurrent(axis=0.5), "axis: got 0.5"),
        (lambda: Recurrent(0), "channels: got 0"),
        (lambda: Recurrent(direction="up"), "direction: got 'up'"),
        (lambda: receptive_field(Chain(Conv(3), Recurrent(axis=1), ndim=1)), "axis: got 1; takes"),
        (lambda: receptive_field(Chain(Conv(3), GlobalAvgPool((0, 2)))), "along: got 2; takes"),
    ):
        with pytest.raises(ValueError, match=f"^{said}"):
            make()
    assert repr(Along("running sum", (0,))) == "Along('running sum', along=(0,))"
