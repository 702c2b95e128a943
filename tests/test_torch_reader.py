"""`from_torch`: the forms of ATen that models are made of, against executed modules."""

import math
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from probing import predicted
from test_from_onnx import Made, Resized, check, down
from test_sizes import agree, shares
from torch import nn

from erftheory import Conv, exact, from_onnx, from_torch, moments, receptive_field, zoo
from erftheory.network.imported import Scale

K3 = nn.Conv2d(4, 4, 3)


class Frozen(nn.Module):
    """Batch normalisation written out, as detectors freeze it."""

    def __init__(self):
        super().__init__()
        for name in ("weight", "bias", "mean", "var"):
            self.register_buffer(name, torch.rand(4) + 0.5)

    def forward(self, x):
        scale = self.weight * (self.var + 1e-5).rsqrt()
        shift = self.bias - self.mean * scale
        return x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)


def windows(x, p=2, attention=F.scaled_dot_product_attention):
    """Attention within windows of p x p pixels."""
    n, c, h, w = x.shape
    y = x.reshape(n, c, h // p, p, w // p, p).permute(0, 2, 4, 3, 5, 1).reshape(-1, 1, p * p, c)
    y = attention(y, y, y).reshape(n, h // p, w // p, p, p, c)
    return y.permute(0, 5, 1, 3, 2, 4).reshape(n, c, h, w)


def in_place(m, x):
    y = m[0](x)
    z = F.relu(y, inplace=True)
    y += m[1](z)
    return m[2](y.mul_(2.0) + z)


def quietly(m, x):
    with torch.no_grad():
        y = m[0](x)
    return m[1](y)


ROWS, COLUMNS = torch.arange(0, 18, 2), torch.arange(15, -1, -1).flip(0)[::3]
FORMS = {
    "prelu": (down(), nn.PReLU(4), K3),
    "glu": (nn.Conv2d(3, 8, 3), nn.GLU(1), K3),
    "frozen": (down(), Frozen(), K3),
    "weight norm": (nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), K3),
    "in place": (Made(in_place, down(), nn.Conv2d(4, 4, 3, padding=1), K3),),
    "no gradients": (Made(quietly, down(), K3),),
    "dropout": (down(), nn.Dropout(), nn.Dropout2d(), nn.Identity(), K3),
    "one by name": (Made(lambda m, x: m[1](m[0](x).index_select(1, torch.tensor([0, 2, 3, 1]))),
                         down(), K3),),
    "channels by list": (Made(lambda m, x: m[1](m[0](x)[:, [3, 2, 0, 1]]), down(), K3),),
    "rows by table": (Made(lambda m, x: m[1](m[0](x)[:, :, ROWS]), down(), K3),),
    "rows and columns": (Made(lambda m, x: m[1](m[0](x)[:, :, ROWS[:, None], COLUMNS]), down(),
                              nn.Conv2d(4, 4, 2)),),
    "negative slices": (Made(lambda m, x: m[1](m[0](x)[..., 1:-2, -13:-1]), down(), K3),),
    "chunks": (Made(lambda m, x: torch.cat([m[1](p) for p in m[0](x).chunk(2, 1)], 1), down(),
                    nn.Conv2d(2, 2, 3)),),
    "first of a split": (Made(lambda m, x: torch.cat([m[0](x), m[1](x)], 1).split([4, 4], 1)[0],
                              down(), nn.Conv2d(3, 4, 7, stride=2, padding=3)),),
    "stack and unbind": (Made(lambda m, x: torch.stack([m[0](x), m[0](x)], 2).unbind(2)[1],
                              down()),),
    "einops": (Made(lambda m, x: m[0](x.unflatten(3, (16, 2)).unflatten(2, (18, 2)).permute(
                    0, 1, 3, 5, 2, 4).flatten(1, 3)), nn.Conv2d(12, 4, 3)),),
    "rolled": (Made(lambda m, x: m[1](torch.roll(m[0](x), (2, -3), (2, 3))), down(), K3),),
    "interleaved": (Made(lambda m, x: m[1](m[0](x).repeat_interleave(2, 2)), down(), K3),),
    "windows": (Made(lambda m, x: windows(m[0](x)), down()),),
    "shifted windows": (Made(lambda m, x: torch.roll(windows(torch.roll(
                             m[0](x), (-1, -1), (2, 3))), (1, 1), (2, 3)), down()),),
    "same": (nn.Conv2d(3, 4, 4, padding="same"), nn.Conv2d(4, 4, (2, 3), padding="same")),
    "products": (Made(lambda m, x: torch.einsum("...chw,oc->...ohw", m[0](x), m[1].weight),
                      down(), nn.Linear(4, 8)),),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_field_of_every_unit_is_what_nan_reaches(name):
    check(nn.Sequential(*FORMS[name]))


def test_pixels_and_channels_picked_one_by_one():
    conv, x = nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 16, 16)
    for pick in (
        lambda y: y[:, :, 3, 5],
        lambda y: y[:, torch.tensor([True, False, True, True])],
        lambda y: y[:, -1:],
        lambda y: y[:, :, 7],
    ):
        made = Made(lambda m, x, pick=pick: pick(m[0](x)), conv)
        assert receptive_field(from_torch(made, x)).size == (3, 3)


def test_a_module_that_decides_by_values_says_so_in_one_line_and_nothing_else(capfd):
    class Decides(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match="module: got one that PyTorch cannot export: ") as caught:
        from_torch(Decides(), torch.zeros(1, 3, 8, 8))
    assert "\n" not in str(caught.value) and capfd.readouterr() == ("", "")


def test_images_without_a_batch():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.ConvTranspose2d(4, 4, 2, 2))
    one, other = (from_torch(net, torch.zeros(shape)) for shape in ((3, 16, 16), (1, 3, 16, 16)))
    assert receptive_field(one) == receptive_field(other)


def test_norms_that_are_written_out_are_norms():
    network = from_torch(nn.Sequential(*FORMS["frozen"]), torch.zeros(1, 3, 36, 32))
    kinds = [type(node.op).__name__ for node in network.graph.nodes]
    assert kinds == ["Input", "Conv", "BatchNorm", "Conv"]
    scales = [n.op for n in network.weighted().graph.nodes if isinstance(n.op, Scale)]
    frozen = FORMS["frozen"][1]
    wanted = (frozen.weight**2 / (frozen.var + 1e-5)).mean().sqrt()
    assert scales[0].factor == pytest.approx(float(wanted), rel=1e-5)


ADAPTIVE = {
    "3 of 16, 6 of 7": (nn.AdaptiveAvgPool2d((3, 6)), (16, 7)),
    "4 of 6, 7 of 3": (nn.AdaptiveAvgPool2d((4, 7)), (6, 3)),
    "3 of 16": (nn.AdaptiveAvgPool1d(3), (16,)),
    "7 of 3": (nn.AdaptiveAvgPool1d(7), (3,)),
    "4 of 8, 5 of 15": (nn.AdaptiveAvgPool2d((4, 5)), (8, 15)),
    "largest": (nn.AdaptiveMaxPool2d((3, 6)), (16, 7)),
}


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_pools_read_the_windows_of_their_outputs(name):
    """Every unit, also at the rim: its windows are inside the image. The map is the gradient."""
    pool, shape = ADAPTIVE[name]
    axes = tuple(range(2, 2 + len(shape)))
    x = torch.rand(1, 1, *shape, requires_grad=True)
    network = from_torch(pool, torch.zeros(1, 1, *shape), spatial_axes=axes)
    y = pool(x)
    fields = predicted(network, y.shape[2:])
    for unit in np.ndindex(*y.shape[2:]):
        (gradient,) = torch.autograd.grad(y[(0, 0, *unit)], x, retain_graph=True)
        found = exact(network, image=shape, unit=unit, signal="gradient").map
        if "largest" in name:
            ranges = [range(o * n // m, -(-(o + 1) * n // m))
                      for o, n, m in zip(unit, shape, y.shape[2:])]  # fmt: skip
            wanted = np.zeros(shape)
            wanted[np.ix_(*ranges)] = 1
            assert ((found > 0) == (wanted > 0)).all()
        else:
            wanted = gradient[0, 0].numpy()
            assert found / found.sum() == pytest.approx(wanted / wanted.sum(), abs=1e-6)
        for axis, (first, last) in enumerate(fields):
            others = tuple(a for a in range(len(shape)) if a != axis)
            rows = np.flatnonzero(wanted.any(others))
            assert (first[unit], last[unit]) == (rows[0], rows[-1])


@pytest.mark.parametrize(
    ("n", "rim", "more"),
    [
        (16, 2, {"size": (1, 24), "mode": "bilinear"}),
        (16, 4, {"scale_factor": (1, 2), "mode": "bicubic"}),
        (24, 2, {"scale_factor": (1, 0.5), "mode": "bilinear", "antialias": True}),
        (24, 2, {"size": (1, 8), "mode": "bilinear", "antialias": True}),
        (15, 0, {"size": (1, 10), "mode": "nearest-exact"}),
        (12, 0, {"size": (1, 30), "mode": "nearest"}),
        (16, 0, {"size": (1, 7), "mode": "bilinear"}),
        (16, 0, {"size": (1, 33), "mode": "bilinear"}),
        (16, 2, {"size": (1, 7), "mode": "bicubic", "antialias": True}),
    ],
)
def test_interpolations(n, rim, more):
    module = Resized(**more)
    network = from_torch(module, torch.zeros(1, 1, 1, n), spatial_axes=(3,))
    agree(network, shares(lambda x: module(torch.tensor(x)[:, :, None]).numpy(), n), (rim, rim))


def whole(m, x):
    return m[2](m[1](m[0](x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)).flatten(1)


class Tokens(nn.Module):
    """A vision transformer's classifier, small."""

    def __init__(self, take):
        super().__init__()
        self.patches, self.take = nn.Conv2d(3, 8, 8, 8), take
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.places = nn.Parameter(torch.zeros(17, 8))
        self.blocks = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True), 2,
            enable_nested_tensor=False,
        )
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        y = self.patches(x).flatten(2).transpose(1, 2)
        y = self.blocks(torch.cat([self.token, y], 1) + self.places)
        return self.head(self.take(y))


TAKEN = lambda y: y[:, 0], lambda y: y.mean(1), lambda y: y[:, 1:].mean(1)


@pytest.mark.parametrize("take", TAKEN)
def test_classifiers_of_tokens_see_the_whole_image(take):
    network = from_torch(Tokens(take), torch.zeros(1, 3, 32, 32))
    assert receptive_field(network).size == (math.inf,) * 2
    assert receptive_field(network.until("patches")).size == (8, 8)
    assert not any("folded" in note for note in network.notes)


def test_a_pool_of_a_permuted_map_sees_the_whole_image():
    made = Made(whole, nn.Conv2d(3, 4, 3), nn.LayerNorm(4), nn.AdaptiveAvgPool2d(1))
    network = from_torch(made, torch.zeros(1, 3, 12, 12))
    assert receptive_field(network).size == (math.inf,) * 2


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrences_along_channels_leave_pixels_alone(kind):
    def across(m, x):  # over channels, each pixel alone
        y = m[0](x)
        return m[1](y.permute(0, 2, 1).reshape(-1, 4, 1))[0].reshape(1, 18, 20).transpose(1, 2)

    made = Made(across, nn.Conv1d(2, 4, 3), kind(1, 5, batch_first=True))
    assert receptive_field(from_torch(made, torch.zeros(1, 2, 20))).size == (3,)


class Detector(nn.Module):
    """Two maps, and a head that flattens them and warps one."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.down = nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU())

    def forward(self, x):
        a = self.stem(x)
        b = self.down(a)
        grid = torch.zeros(1, 4, 4, 2)
        return torch.cat([F.grid_sample(a, grid, align_corners=False).flatten(2), b.flatten(2)], 2)


def test_a_network_ends_where_it_is_asked_to(tmp_path):
    net, x = Detector().eval(), torch.zeros(1, 3, 16, 16)
    with pytest.raises(ValueError) as caught:
        from_torch(net, x)
    said = str(caught.value)
    assert "aten.grid_sampler" in said and "\n" not in said and "outputs=['stem'" in said
    network = from_torch(net, x, outputs=["stem", "down"])
    assert network.outputs == ("stem", "down")
    assert receptive_field(network).size == (5, 5)
    assert receptive_field(network.until("stem")).size == (3, 3)
    cases = (["neck"], "got 'neck'; takes names of"), ([], "takes a list"), ([3], "takes a list")
    for wrong, message in cases:
        with pytest.raises(ValueError, match=f"outputs: .*{message}"):
            from_torch(net, x, outputs=wrong)

    path = str(tmp_path / "detector.onnx")
    torch.onnx.export(net, (x,), path, dynamo=True, verbose=False)
    with pytest.raises(ValueError, match="GridSample.*the last maps that can be read are outputs="):
        from_onnx(path)
    network = from_onnx(path, outputs=["down"])
    assert network.outputs == ("down",) and receptive_field(network).size == (5, 5)
    with pytest.raises(ValueError, match="outputs: got 'neck'; takes names of"):
        from_onnx(path, outputs=["neck"])


def test_rules_are_by_operation_or_by_class_of_module():
    class Warp(nn.Module):
        def forward(self, x):
            return F.grid_sample(x, torch.zeros(1, *x.shape[2:], 2), align_corners=False) * 2

    net = nn.Sequential(nn.Conv2d(3, 4, 3), Warp(), nn.Conv2d(4, 4, 3))
    x, said = torch.zeros(1, 3, 16, 16), r"'aten.grid_sampler' of \(1, 4, 14, 14\).* at 1: an op"
    with pytest.raises(ValueError, match=said):
        from_torch(net, x)
    for key in ("aten.grid_sampler", "aten.grid_sampler.default", "Warp"):
        network = from_torch(net, x, rules={key: Conv(5)})
        assert receptive_field(network).size == (9, 9)
        assert receptive_field(from_torch(net, x, rules={key: "identity"})).size == (5, 5)
    both = from_torch(net, x, rules={"Warp": Conv(5), "aten.warp": "identity"})
    assert "rules['aten.warp'] was not used: no operation of that name" in both.notes


def test_what_is_written_into_a_part_of_an_array_is_refused():
    def part(m, x):
        y = m[0](x)
        y[:, :, 0] = 0.0
        return y + m[1](y)

    made = Made(part, nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1))
    with pytest.raises(ValueError, match="a write into a part of an array that is read later"):
        from_torch(made, torch.zeros(1, 3, 12, 12))


def test_outputs_have_the_names_of_the_model_s_structure():
    def several(m, x):
        y = m[0](x)
        return {"low": y, "high": [m[1](y), y]}

    made = Made(several, nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    network = from_torch(made, torch.zeros(1, 3, 12, 12))
    assert network.outputs == ("low", "high/0", "high/1")
    assert from_torch(made.m[0], torch.zeros(1, 3, 12, 12)).outputs == ("output",)


class Bottleneck(nn.Module):
    def __init__(self, inside, width, stride=1):
        super().__init__()
        out, plainly = 4 * width, {"bias": False}
        self.conv1, self.bn1 = nn.Conv2d(inside, width, 1, **plainly), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, **plainly)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, out, 1, **plainly), nn.BatchNorm2d(out)
        self.relu, self.downsample = nn.ReLU(inplace=True), None
        if inside != out:
            one = nn.Conv2d(inside, out, 1, stride, **plainly)
            self.downsample = nn.Sequential(one, nn.BatchNorm2d(out))

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class ResNet50(nn.Module):
    """Modules, names and order of torchvision's, up to its last map."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        inside = 64
        for i, depth in enumerate((3, 4, 6, 3)):
            blocks, width = [], 64 * 2**i
            for j in range(depth):
                blocks.append(Bottleneck(inside, width, 1 + (i > 0 and j == 0)))
                inside = 4 * width
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def test_resnet_50_is_that_of_the_zoo_and_is_read_in_a_second():
    with torch.device("meta"):
        net = ResNet50()
    x = torch.zeros(1, 3, 224, 224, device="meta")
    from_torch(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8))  # PyTorch imports its exporter
    start = time.perf_counter()
    network = from_torch(net, x)
    assert time.perf_counter() - start < 20  # 1 second; a loaded machine has room
    assert moments(network).std == pytest.approx(moments(zoo.resnet50()).std, rel=1e-3)
    assert receptive_field(network).size == (427, 427)
    wanted = receptive_field(zoo.resnet50().until("layer2")).size
    assert receptive_field(network.until("layer2")).size == wanted
    assert receptive_field(network.until("layer1.0.conv1")).size == (11, 11)
    with pytest.raises(ValueError, match="weights: got none"):
        network.weighted()
