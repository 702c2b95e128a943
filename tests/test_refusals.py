"""What a refusal proposes works: every rule in its message reads the operation, every endpoint ends
the network before it; and no message shows the reader's insides."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from jax import lax
from onnx import TensorProto, helper, numpy_helper
from reached import Net
from torch import nn

from erftheory import Conv, from_jax, from_onnx, from_torch, receptive_field

SHAPE = (1, 2, 16, 16)
RULE = re.compile(r"rules=\{'([^']+)': (\"identity\"|Conv\(3(?:, (\d))?\))\}")
INSIDES = ("Atom(", "Pixels(", "Constant", "Partial", "None", "node=", "object at")


class Shifted(nn.Module):
    """Relative positions as halo attention shifts them: pads of rows of blocks, cut unevenly."""

    def forward(self, q):
        n, h, w, c = q.shape
        x = q.reshape(n, h // 4, 4, w // 4, 4, c).transpose(2, 3).reshape(-1, 4, c)
        x = F.pad(F.pad(x, (0, 1)).flatten(1), (0, 5)).reshape(-1, 5, c + 1)[:, :4, 1:]
        return x.reshape(n, h // 4, w // 4, 4, 4, c).transpose(2, 3).reshape(q.shape)


def warped(m, x):
    y = m.stem(x)
    grid = y[:, :2].permute(0, 2, 3, 1)
    return m.last(F.grid_sample(y, grid, align_corners=False))


TORCH = {
    "grid_sample": warped,
    "sorted pixels": lambda m, x: m.last(torch.sort(m.stem(x), 2)[0]),
    "a reflection": lambda m, x: m.last(m.stem(x) + torch.flip(m.stem(x), (2,))),
    "shifted rows": lambda m, x: m.last(m.shift(m.stem(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)),
    "largest pixels": lambda m, x: m.line(torch.topk(m.stem(x).flatten(2), 5)[0]),
    "a table of pixels": lambda m, x: m.stem(x)[:, :, [1, 5, 2, 9], [3, 4, 4, 1]],
    "one after the other": lambda m, x: m.line(
        torch.cat([m.stem(x).flatten(2), m.last(m.stem(x)).flatten(2)], 2)
    ),
    "a spectrum": lambda m, x: m.last(torch.fft.rfft2(m.stem(x)).real),
    "a sum of two orders": lambda m, x: m.last(m.stem(x) + m.stem(x).transpose(2, 3)),
}


def asked(read, text: str, again) -> int:
    """Follows every proposal of a message; returns how many there were."""
    assert "\n" not in text and not any(word in text for word in INSIDES), text
    operation = re.search(r"got '([^']+)' of", text)
    assert operation, text
    rules = RULE.findall(text)
    for name, rule, stride in rules:
        key = {name: "identity" if rule == '"identity"' else Conv(3, int(stride or 1))}
        try:
            network = read(rules=key)
        except ValueError as other:  # something behind it, which was not reached before
            assert f"got {operation[1]!r} of" not in str(other), str(other)
        else:
            receptive_field(network)
    ends = re.search(r"outputs=\[([^\]]*)\]", text)
    names = re.findall(r"'([^']+)'", ends[1]) if ends else []
    for name in names:
        assert max(receptive_field(again(outputs=[name])).size) >= 3
    return len(rules) + len(names)


@pytest.mark.parametrize("name", TORCH)
def test_proposals_for_modules(name):
    model = Net(
        TORCH[name], stem=nn.Conv2d(2, 4, 3, padding=1), last=nn.Conv2d(4, 4, 3, padding=1),
        line=nn.Conv1d(4, 4, 3, padding=1), shift=Shifted(),
    )  # fmt: skip

    def read(**more):
        return from_torch(model, torch.zeros(SHAPE), **more)

    with pytest.raises(ValueError) as refused:
        read()
    assert asked(read, str(refused.value), read) > 0
    assert "outputs=" in str(refused.value)


class Strided(Shifted):
    """The same attention, which also halves the map in one of its places."""

    def __init__(self, halves):
        super().__init__()
        self.halves = halves

    def forward(self, x):
        x = super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return F.avg_pool2d(x, 2, 2) if self.halves else x


@pytest.mark.parametrize("wanted", ["identity", "Conv"])
def test_following_proposals_one_by_one_reads_the_model(wanted):
    """Of a class whose modules change sizes here and keep them there, each is named by its path."""
    conv = lambda: nn.Conv2d(4, 4, 3, padding=1)  # noqa: E731
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), Strided(False), conv(), Strided(True), conv(), Strided(False)
    )
    rules, seen = {}, []
    for _ in range(4):
        try:
            network = from_torch(model, torch.zeros(SHAPE), rules=rules)
            break
        except ValueError as refused:
            offers = RULE.findall(str(refused))
            name, _, stride = next((o for o in offers if wanted in o[1]), offers[0])
            assert name not in seen
            seen.append(name)
            here = any(o[0] == name and wanted in o[1] for o in offers)
            rules[name] = "identity" if wanted == "identity" and here else Conv(3, int(stride or 1))
    assert seen == ["1", "3", "5"]
    assert network.graph.rate == (2, 2)
    whole = from_torch(
        model[:3], torch.zeros(SHAPE), rules={"Strided": "identity"}
    )  # one that keeps its shape everywhere is named by its class
    assert receptive_field(whole).size == (5, 5)
    with pytest.raises(ValueError, match=r"rules=\{'Strided': \"identity\"\}"):
        from_torch(model[:3], torch.zeros(SHAPE))


def convolved(x):
    return lax.conv(x, jnp.ones((x.shape[1], x.shape[1], 3, 3)), (1, 1), "SAME")


@jax.jit
def turned(x):
    return jnp.flip(x, 2) + x


JAX = {
    "sort": lambda x: convolved(jnp.sort(convolved(x), 2)),
    "a jitted function": lambda x: convolved(turned(convolved(x))),
    "fft": lambda x: convolved(jnp.fft.fft2(convolved(x)).real),
    "scan of pairs": lambda x: convolved(lax.associative_scan(jnp.add, convolved(x), axis=2)),
    "picked": lambda x: convolved(x)[:, :, jnp.array([3, 1, 2]), jnp.array([2, 2, 5])],
    "an open loop": lambda x: lax.while_loop(
        lambda y: jnp.abs(y).max() < 9, lambda y: 2 * y, convolved(x)
    ),
}


@pytest.mark.parametrize("name", JAX)
def test_proposals_for_functions(name):
    def read(**more):
        return from_jax(JAX[name], jax.ShapeDtypeStruct(SHAPE, jnp.float32), **more)

    with pytest.raises(ValueError) as refused:
        read()
    text = str(refused.value)
    assert asked(read, text, read) > 0 or text.endswith("takes a model up to there")


ONNX = {
    "GridSample": ([helper.make_node("GridSample", ["c", "g"], ["s"])], True),
    "TopK": ([helper.make_node("TopK", ["c", "k"], ["s", "i"], axis=2)], False),
    "NonZero": ([helper.make_node("NonZero", ["c"], ["z"]),
                 helper.make_node("Cast", ["z"], ["s"], to=1)], False),
    "GatherND": ([helper.make_node("GatherND", ["c", "n"], ["s"])], False),
}  # fmt: skip


@pytest.mark.parametrize("name", ONNX)
def test_proposals_for_files(name):
    middle, whole = ONNX[name]
    ends = ["s"] if not whole else ["y"]
    behind = [helper.make_node("Conv", ["s", "w"], ["y"], pads=[1] * 4)] if whole else []
    kernel = np.ones((2, 2, 3, 3), np.float32)
    constants = {
        "w": kernel, "g": np.zeros((1, 16, 16, 2), np.float32), "k": np.array([3]),
        "n": np.array([[0, 1, 2, 3], [0, 0, 5, 5]]),
    }  # fmt: skip
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4), *middle, *behind]
    used = {n for node in nodes for n in node.input}
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ends],
        [numpy_helper.from_array(v, k) for k, v in constants.items() if k in used],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)

    def read(**more):
        return from_onnx(model, **more)

    with pytest.raises(ValueError) as refused:
        read()
    text = str(refused.value)
    assert f"got {name!r} of" in text and asked(read, text, read) > 0


def test_no_rule_is_proposed_that_another_operation_of_that_name_cannot_take():
    def twice(x):
        x = jax.lax.top_k(convolved(x), 8)[0]  # of the width, which it halves
        return jax.lax.top_k(x, 8)[0]

    with pytest.raises(ValueError, match="'top_k' of .*takes a model up to there"):
        from_jax(twice, jax.ShapeDtypeStruct(SHAPE, jnp.float32))
    kernel = numpy_helper.from_array(np.ones((2, 2, 3, 3), np.float32), "w")
    sizes = [numpy_helper.from_array(np.array([n]), f"k{n}") for n in (16, 8)]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        helper.make_node("TopK", ["c", "k16"], ["s", "i"], axis=2),
        helper.make_node("TopK", ["s", "k8"], ["y", "j"], axis=2),
    ]
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 2, 8, 16))], [kernel, *sizes],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    with pytest.raises(ValueError, match="'TopK' of .*takes a model up to there; the last maps"):
        from_onnx(model)
    assert receptive_field(from_onnx(model, outputs=["c"])).size == (3, 3)
