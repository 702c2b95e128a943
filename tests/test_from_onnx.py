"""`from_onnx` and `from_torch` against executed modules, published sizes and hand counts."""

import logging.handlers
import os
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnx.backend
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from probing import predicted
from test_sizes import agree, shares
from torch import nn

from erftheory import Chain, Conv, exact, from_jax, from_onnx, from_torch, receptive_field
from erftheory.theory.image.graph import flatten

LIGHT = os.path.join(os.path.dirname(onnx.backend.__file__), "test", "data", "light")
SHAPE = (1, 3, 36, 32)


class Made(nn.Module):
    """Modules `m` and a function of them and the input."""

    def __init__(self, function, *modules):
        super().__init__()
        self.m, self.function = nn.ModuleList(modules), function

    def forward(self, x):
        return self.function(self.m, x)


def check(module, margin=6):
    """The field of every unit well inside the image, by NaN through PyTorch's own forward."""
    torch.manual_seed(0)
    module = module.eval()
    network = from_torch(module, torch.zeros(SHAPE))
    with torch.no_grad():
        grid = module(torch.zeros(SHAPE)).shape[2:]
        assert flatten(network, SHAPE[2:], "gradient", None, "zeros").shape == grid
        wanted = predicted(network, grid)
        inside = np.ones(grid, bool)
        for (first, last), n in zip(wanted, SHAPE[2:]):
            inside &= (first >= margin) & (last < n - margin)
        assert inside.any()
        base = torch.randn(SHAPE)
        for axis, (first, last) in enumerate(wanted, start=2):
            n = SHAPE[axis]
            batch = base.repeat(2 * n, 1, 1, 1)
            for i in range(n):
                batch[i].narrow(axis - 1, 0, i + 1).fill_(float("nan"))
                batch[n + i].narrow(axis - 1, i, n - i).fill_(float("nan"))
            hits = torch.isnan(module(batch)).any(1).numpy()
            found = hits[:n].argmax(0), n - 1 - hits[n:][::-1].argmax(0)
            assert (found[0][inside] == first[inside]).all()
            assert (found[1][inside] == last[inside]).all()
    return network


def down():
    return nn.Conv2d(3, 4, 3, stride=2, padding=1)


class Einsum(nn.Module):
    """A product on channels written as an einsum."""

    def __init__(self, before, dense):
        super().__init__()
        self.before, self.dense = before, dense

    def forward(self, x):
        return torch.einsum("nchw,dc->ndhw", self.before(x), self.dense.weight)


MODULES = {
    "einsum": (Einsum(down(), nn.Linear(4, 8)),),
    "transposed": (down(), nn.ConvTranspose2d(4, 4, 3, 2, padding=1, output_padding=1)),
    "transposed groups": (down(), nn.ConvTranspose2d(4, 4, 4, 2, padding=1, groups=2)),
    "bilinear": (down(), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(4, 4, 3)),
    "bicubic": (down(), nn.Upsample(scale_factor=2, mode="bicubic")),
    "nearest": (down(), nn.Upsample(scale_factor=3), nn.Conv2d(4, 4, 3)),
    "pixel shuffle": (nn.Conv2d(3, 16, 3, 2, 1), nn.PixelShuffle(2), nn.Conv2d(4, 4, 3)),
    "pixel unshuffle": (nn.Conv2d(3, 4, 3, padding=1), nn.PixelUnshuffle(2), nn.Conv2d(16, 4, 3)),
    "ceil": (nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(4, 4, 3)),
    "average": (nn.Conv2d(3, 4, 3), nn.AvgPool2d(3, 2, 1, count_include_pad=False)),
    "padding modes": tuple(
        nn.Conv2d(c, 4, 3, padding=1, padding_mode=mode)
        for c, mode in ((3, "reflect"), (4, "circular"), (4, "replicate"))
    ),
    "channel shuffle": (nn.Conv2d(3, 8, 3), nn.ChannelShuffle(2), nn.Conv2d(8, 8, 3, groups=4)),
    "curves": (down(), nn.Hardswish(), nn.Mish(), nn.SiLU(), nn.GELU(), nn.Conv2d(4, 4, 3)),
    "channels last": (
        Made(lambda m, x: m[1](m[0](x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2), down(),
             nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 8))),
    ),
    "first of two": (
        Made(lambda m, x: torch.cat([m[0](x), m[1](x)], 1)[:, :4], down(),
             nn.Conv2d(3, 4, 7, stride=2, padding=3)),
    ),
    "focus": (
        Made(lambda m, x: m[0](torch.cat([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)),
             nn.Conv2d(12, 4, 3, padding=1)),
    ),
    "corners": (
        nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        nn.Conv2d(4, 4, 3, padding=1),
    ),
    "unfold": (
        Made(lambda m, x: (m[0].weight.view(4, -1) @ F.unfold(x, 3, 2, stride=2)).unflatten(
             2, (16, 14)), nn.Conv2d(3, 4, 3)),
    ),
    "involution": (
        down(),
        Made(lambda m, x: (m[0](x)[:, None] * F.unfold(x, 3, padding=1).unflatten(
             1, (4, 9)).unflatten(3, x.shape[2:])).sum(2), nn.Conv2d(4, 9, 1)),
    ),
    "overlapping patches": (
        Made(lambda m, x: m[0](x).unfold(2, 5, 2).unfold(3, 3, 3).mean((-1, -2)), down()),
    ),
    "largest channels": (Made(lambda m, x: m[0](x).topk(2, 1)[0], down()),),
    "pyramid": (
        Made(lambda m, x: F.interpolate(m[1](m[0](x)), scale_factor=2) + m[0](x), down(),
             nn.Conv2d(4, 4, 3, stride=2, padding=1)),
    ),
}  # fmt: skip


def test_modules_that_hold_others_are_endpoints_and_the_export_is_silent():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3)
            block = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 5))
            self.layer2 = nn.Sequential(block, nn.MaxPool2d(2))
            self.head = nn.Sequential(nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

        def forward(self, x):
            return self.head(self.layer2(self.stem(x)))

    said, exporter = logging.handlers.BufferingHandler(10**6), logging.getLogger("torch.onnx")
    net, filters = Net(), list(warnings.filters)
    exporter.addHandler(said)
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            network = from_torch(net, torch.zeros(1, 3, 20, 20))
    finally:
        exporter.removeHandler(said)
    assert not seen and not [r for r in said.buffer if r.levelno >= logging.WARNING]
    assert warnings.filters == filters
    sizes = {"stem": 3, "layer2.0.0": 5, "layer2.0": 9, "layer2.1": 10, "layer2": 10}
    found = {name: receptive_field(network.until(name)).size[0] for name in sizes}
    assert found == sizes and set(sizes) < {name for name, _ in net.named_modules()}
    with pytest.raises(ValueError, match="head"):  # its output is no map
        network.until("head")


@pytest.mark.parametrize("name", MODULES)
def test_field_of_every_unit_is_what_nan_reaches(name):
    check(nn.Sequential(*MODULES[name]))


class Resized(nn.Module):
    def __init__(self, **more):
        super().__init__()
        self.more = more

    def forward(self, x):
        return F.interpolate(x, **self.more)


@pytest.mark.parametrize(
    ("n", "rim", "more"),
    [
        (18, 0, {"scale_factor": (1, 1 / 3), "mode": "nearest"}),
        (20, 2, {"size": (1, 8), "mode": "bicubic", "antialias": True}),
    ],
)
def test_resizes_of_pytorch(n, rim, more):
    module = Resized(**more)
    network = from_torch(module, torch.zeros(1, 1, 1, n), spatial_axes=(3,))
    wanted = shares(lambda x: module(torch.tensor(x)[:, :, None]).numpy(), n)
    agree(network, wanted, (rim, rim))


def test_a_published_network_has_its_published_field():
    sizes = {}
    for name, endpoint in (("bvlc_alexnet", "r15"), ("vgg19", "r37")):
        network = from_onnx(os.path.join(LIGHT, f"light_{name}.onnx"))
        assert receptive_field(network).size == (np.inf, np.inf)  # its classifier is dense
        sizes[name] = receptive_field(network.until(endpoint)).size
    assert sizes == {"bvlc_alexnet": (195, 195), "vgg19": (268, 268)}
    network = from_onnx(os.path.join(LIGHT, "light_resnet50.onnx"))
    assert receptive_field(network).size == (427 + 6 * 32,) * 2  # with its 7 × 7 pool at stride 32
    dense = onnx.load(os.path.join(LIGHT, "light_densenet121.onnx"))
    last = next(n.input[0] for n in dense.graph.node if n.op_type == "GlobalAveragePool")
    assert receptive_field(from_onnx(dense).until(last)).size == (2071, 2071)


def model(nodes, constants=(), shape=SHAPE, output="y"):
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in dict(constants).items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


@pytest.mark.parametrize(("auto", "padding"), [("SAME_UPPER", 0), ("SAME_LOWER", 1), ("VALID", 0)])
def test_auto_pad(auto, padding):
    w = {"w": np.ones((4, 3, 3, 3), np.float32)}
    node = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad=auto, strides=[2, 2])
    field = receptive_field(from_onnx(model([node], w)))
    # 36 and 32 are even: stride 2 needs one zero, which UPPER puts behind and LOWER before
    assert (field.size, field.padding) == ((3, 3), (padding, padding))


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_depends_on_the_phase(mode):
    w = {"w": np.ones((4, 3, 3, 3), np.float32), "v": np.ones((1, 1, 3, 3), np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("DepthToSpace", ["a"], ["b"], blocksize=2, mode=mode),
        helper.make_node("Conv", ["b", "v"], ["y"], pads=[1, 1, 1, 1]),
    ]
    field = receptive_field(from_onnx(model(nodes, w)))
    # three fine pixels touch two coarse ones, at either phase
    assert field.size == (5, 5) and len(field.phases) == 4
    assert {phase.padding for phase in field.phases} == {(3, 3), (3, 1), (1, 3), (1, 1)}


def test_unknown_operators_take_a_rule_and_bad_input_is_one_line(tmp_path):
    w = {"w": np.ones((4, 3, 3, 3), np.float32), "g": np.zeros((1, 2, 2, 2), np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first"),
        helper.make_node("GridSample", ["a", "g"], ["y"], name="warp"),
    ]
    made = model(nodes, w)
    with pytest.raises(ValueError, match="got 'GridSample' of .* at warp: an operator without"):
        from_onnx(made)
    with pytest.raises(ValueError, match="the rule makes 34 pixels of an axis where there are 2"):
        from_onnx(made, rules={"GridSample": Conv(3)})
    made = model(nodes, w | {"g": np.zeros((1, 34, 30, 2), np.float32)})
    assert receptive_field(from_onnx(made, rules={"GridSample": Conv(3)})).size == (5, 5)
    both = from_onnx(made, rules={"GridSample": Conv(3), "Warp": "identity"})
    assert "rules['Warp'] was not used: no operation of that name" in both.notes
    cases = [
        (lambda: from_onnx(tmp_path / "none.onnx"), "model: got"),
        (lambda: from_onnx(made, image="z"), "image: got 'z'"),
        (lambda: from_onnx(made, shape=(1, 3, 8)), "shape: got"),
        (lambda: from_onnx(made, spatial_axes=(9,)), "spatial_axes: got"),
        (lambda: from_onnx(made, rules=3), "rules: got 3"),
        (lambda: from_onnx(5), "model: got int; takes a path"),
        (lambda: from_onnx(None), "model: got NoneType; takes a path"),
        (lambda: from_torch(None, torch.zeros(1, 3, 8, 8)), "module: got NoneType; takes a"),
        (lambda: from_onnx(model(nodes[:1], w, (1, 3, "h", "w"), "a")), "shape: got None"),
    ]
    (tmp_path / "no.onnx").write_text("this is text, not a model")
    cases.append((lambda: from_onnx(tmp_path / "no.onnx"), "model: got"))
    for call, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    open_ = from_onnx(model(nodes[:1], w, (1, 3, "h", "w"), "a"), shape=(1, 3, 8, 8))
    assert receptive_field(open_).size == (3, 3)


def test_u_net_of_the_threads():
    """Two levels, double 3 × 3, 2 × 2 max pooling and transposed convolution: 44 pixels."""

    def double(i, o):
        first = nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU()
        return nn.Sequential(*first, nn.Conv2d(o, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU())

    def forward(m, x):
        a = m[0](x)
        b = m[1](F.max_pool2d(a, 2))
        c = m[2](F.max_pool2d(b, 2))
        b = m[4](torch.cat([m[3](c), b], 1))
        return m[6](torch.cat([m[5](b), a], 1))

    def net(up2, up1):
        return Made(forward, double(3, 4), double(4, 8), double(8, 16), up2, double(16, 8), up1,
                    double(8, 4))  # fmt: skip

    learned = net(nn.ConvTranspose2d(16, 8, 2, 2), nn.ConvTranspose2d(8, 4, 2, 2))
    field = receptive_field(from_torch(learned, torch.zeros(1, 3, 64, 64)))
    assert field.size == (44, 44)
    linear = net(
        *(nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(i, o, 1))
          for i, o in ((16, 8), (8, 4)))
    )  # fmt: skip
    field = receptive_field(from_torch(linear, torch.zeros(1, 3, 64, 64)))
    assert {phase.size[0] for phase in field.phases} == {48, 52} and field.size == (52, 52)


class Aligned(nn.Module):
    """Two levels, interpolation in the manner of `align_corners`."""

    def __init__(self, aligned):
        super().__init__()
        self.aligned = aligned
        self.first, self.deep, self.last = (nn.Conv2d(c, 4, 3, padding=1) for c in (1, 4, 8))

    def forward(self, x):
        a = torch.relu(self.first(x))
        b = F.max_pool2d(self.deep(F.max_pool2d(a, 2)), 2)
        up = F.interpolate(b, scale_factor=4, mode="bilinear", align_corners=self.aligned)
        return self.last(torch.cat([a, up], 1))


@pytest.mark.parametrize("aligned", [False, True])
def test_interpolations_on_their_image(aligned):
    """One operation for both axes, and on an image the pixels that a gradient reaches there."""
    module = Aligned(aligned)
    for p in module.parameters():
        p.data = p.data.abs() + 0.1
    network = from_torch(module, torch.zeros(1, 1, 40, 40))
    kinds = [type(node.op).__name__ for node in network.graph.nodes]
    assert kinds.count("Upsample") == aligned and kinds.count("Spatial") == (not aligned)
    assert ("aligned corners" in " ".join(network.notes)) == aligned
    for unit in ((0, 0), (13, 30), (20, 20), (39, 5)):
        image = torch.rand(1, 1, 40, 40, requires_grad=True)
        module(image)[0, :, *unit].sum().backward()
        reached = image.grad[0, 0].numpy() != 0
        predicted = exact(network, image=40, unit=unit).map > 0
        # a max pool passes one of its pixels, the map has them all
        assert not (reached & ~predicted).any()
        for axis in (0, 1):
            lines = np.flatnonzero(predicted.any(1 - axis)), np.flatnonzero(reached.any(1 - axis))
            assert abs(lines[0][[0, -1]] - lines[1][[0, -1]]).max() <= 3


def named_file(sizes):
    kernel = numpy_helper.from_array(np.ones((4, 1, 5, 3), np.float32), "k")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "k"], ["y"], pads=[2, 1, 2, 1])], "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], [kernel],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_axes_have_the_names_that_the_file_gives_them():
    network = from_onnx(named_file(["batch", 1, "mel", "time"]), shape=(1, 1, 32, 64))
    assert network.axis_names == ("mel", "time")
    said = "receptive field 5 (mel) x 3 (time) pixels"
    assert str(receptive_field(network)).startswith(said)
    for part in (network.until("y"), network * 2, Chain(network, Conv(1)), network.weighted()):
        assert receptive_field(part).axes == ("mel", "time")
    table = network.summary()
    assert "sizes in input pixels, mel x time;" in str(table)
    assert "Sizes in input pixels, mel x time;" in table._repr_html_()
    # numbers, and names that exporters make up, are none
    for sizes in ([1, 1, 32, 64], ["N", 1, "unk__1", "s77"]):
        network = from_onnx(named_file(sizes), shape=(1, 1, 32, 64))
        assert network.axis_names == () and "(" not in str(receptive_field(network))
    half = from_onnx(named_file([1, 1, 32, "time"]), shape=(1, 1, 32, 64))
    assert "5 x 3 (time) pixels" in str(receptive_field(half))
    assert "axis 0 x time" in str(half.summary())


def test_a_user_names_axes():
    axes = {"height": 2, "width": 3}
    model = torch.nn.Conv2d(1, 4, (5, 3))
    networks = [
        from_torch(model, torch.zeros(1, 1, 32, 64), spatial_axes=axes),
        from_onnx(named_file([1, 1, 32, 64]), spatial_axes=axes),
        from_jax(lambda x: jax.lax.conv(x, jnp.ones((4, 1, 5, 3)), (1, 1), "SAME"),
                 jax.ShapeDtypeStruct((1, 1, 32, 64), jnp.float32), spatial_axes=axes),
    ]  # fmt: skip
    for network in networks:
        assert "5 (height) x 3 (width) pixels" in str(receptive_field(network))
    with pytest.raises(ValueError, match="^spatial_axes: got 3; takes dimensions of the image"):
        from_torch(model, torch.zeros(1, 1, 32, 64), spatial_axes=3)


def test_sizes_of_minus_one_are_open():
    """As Paddle writes them; the field is that of two 3x3 convolutions of stride 1."""
    weights = numpy_helper.from_array(np.ones((3, 3, 3, 3), np.float32), "w")
    nodes = [helper.make_node("Conv", [a, "w"], [b]) for a, b in (("x", "y"), ("y", "z"))]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [-1, 3, -1, -1])
    out = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    model = helper.make_model(helper.make_graph(nodes, "g", [image], [out], [weights]))
    assert receptive_field(from_onnx(model, shape=(1, 3, 20, 24))).size == (5, 5)
    with pytest.raises(ValueError, match="shape: got None for an input of open sizes"):
        from_onnx(model)
