"""The zoo's definitions against published parameter counts, output sizes, and longest paths.

Nothing here reads a receptive field from the package: `longest` walks a hand-written list of
windows, `interval` walks the graph's layers pixel by pixel.
"""

from __future__ import annotations

import math

import pytest

from erftheory import zoo
from erftheory.network.graph import Concat, Input, Loop, Sum
from erftheory.network.layers import BatchNorm, Conv, ConvTranspose, MaxPool

# Published totals less classifier (and, for ConvNeXt, its final norm and 6624 layer scales):
# torchvision's `num_params`; Keras for MobileNet-v1 (trainable) and, with one input channel, U-Net.
PARAMETERS = {
    "alexnet": (61_100_840 - 58_631_144, "all"),
    "vgg11": (132_863_336 - 123_642_856, "all"),
    "vgg13": (133_047_848 - 123_642_856, "all"),
    "vgg16": (138_357_544 - 123_642_856, "all"),
    "vgg19": (143_667_240 - 123_642_856, "all"),
    "resnet18": (11_689_512 - 513_000, "none"),
    "resnet34": (21_797_672 - 513_000, "none"),
    "resnet50": (25_557_032 - 2_049_000, "none"),
    "resnet101": (44_549_160 - 2_049_000, "none"),
    "resnet152": (60_192_808 - 2_049_000, "none"),
    "deeplab": (25_557_032 - 2_049_000, "none"),
    "googlenet": (6_624_904 - 1_025_000, "none"),
    "inception_v3": (23_834_568 - 2_049_000, "none"),
    "densenet121": (7_978_856 - 1_025_000, "none"),
    "densenet169": (14_149_480 - 1_665_000, "none"),
    "densenet201": (20_013_928 - 1_921_000, "none"),
    "mobilenet_v1": (4_231_976 - 1_025_000, "none"),
    "mobilenet_v2": (3_504_872 - 1_281_000, "none"),
    "convnext_tiny": (28_589_128 - 769_000 - 1536 - 6624, "all"),
    "unet": (31_031_685 - 1154 - 3, "all"),
    "c3d": (27_655_936, "all"),
}


def parameters(graph, channels: int, bias: bool) -> tuple[int, int]:
    """(number of parameters, output channels); fails where summed channels differ."""
    widths, total = [], 0
    for node in graph.nodes:
        op, before = node.op, [widths[i] for i in node.inputs]
        out = before[0] if before else channels
        if isinstance(op, Concat):
            out = sum(before)
        elif isinstance(op, Sum):
            assert len(set(before)) == 1, node.name
        elif isinstance(op, Loop):
            for _ in range(op.times):  # the first round may change the width
                part, out = parameters(op.graph, out, bias)
                total += part
        elif isinstance(op, BatchNorm):
            total += 2 * out
        elif isinstance(op, (Conv, ConvTranspose)):
            groups = before[0] if op.groups == "depthwise" else op.groups
            out = op.channels or before[0]
            assert before[0] % groups == 0 and out % groups == 0, node.name
            taps = math.prod(op.step(graph.ndim).kernel.shape)
            total += before[0] // groups * out * taps + bias * out
        widths.append(out)
    return total, widths[-1]


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name):
    truth, bias = PARAMETERS[name]
    found, _ = parameters(zoo.get(name).graph, 1 if name == "unet" else 3, bias == "all")
    assert found == truth


def size_after(graph, size: int, axis: int) -> int:
    """Output pixels as a framework computes them; fails where merged sizes differ."""
    sizes = []
    for node in graph.nodes:
        op, before = node.op, [sizes[i] for i in node.inputs]
        assert len(set(before)) <= 1, (node.name, before)
        n = before[0] if before else size
        if isinstance(op, Loop):
            for _ in range(op.times):
                n = size_after(op.graph, n, axis)
        elif not isinstance(op, (Input, Sum, Concat)) and (s := op.step(graph.ndim)):
            span = s.dilation[axis] * (s.kernel.shape[axis] - 1)
            pads = s.before[axis] + s.after[axis]
            if s.up:
                n = (n - 1) * s.stride[axis] + span + 1 - pads
            else:
                n = (n + pads - span - 1) // s.stride[axis] + 1
        sizes.append(n)
    return sizes[-1]


# (network, arguments, axis, input, output); padding=1 in GoogLeNet would give 208 -> 6
SIZES = [
    ("alexnet", {}, 0, 224, 6), ("vgg16", {}, 0, 224, 7), ("resnet50", {}, 0, 224, 7),
    ("resnet50", {"stride": "1x1"}, 0, 225, 8), ("deeplab", {}, 0, 224, 14),
    ("deeplab", {"output_stride": 8, "aspp": True}, 0, 224, 28), ("googlenet", {}, 0, 224, 7),
    ("googlenet", {}, 0, 208, 7), ("inception_v3", {}, 1, 299, 8), ("densenet121", {}, 0, 224, 7),
    ("mobilenet_v1", {}, 0, 224, 7), ("mobilenet_v2", {}, 0, 224, 7),
    ("convnext_tiny", {}, 0, 224, 7), ("replknet31b", {}, 0, 224, 7), ("unet", {}, 1, 512, 512),
    ("unet", {"up": "bilinear"}, 1, 512, 512), ("wavenet", {}, 0, 2000, 2000),
    ("c3d", {}, 0, 16, 1), ("c3d", {}, 1, 112, 4),
]  # fmt: skip


@pytest.mark.parametrize("name, arguments, axis, size, out", SIZES)
def test_output_sizes(name, arguments, axis, size, out):
    assert size_after(zoo.get(name, **arguments).graph, size, axis) == out


def interval(graph, axis: int, unit: int) -> tuple[int, int]:
    """First and last input pixel that output `unit` reads."""
    reach: dict[int, tuple[int, int]] = {len(graph.nodes) - 1: (unit, unit)}
    for index in range(len(graph.nodes) - 1, 0, -1):
        if index not in reach:
            continue
        node, (lo, hi) = graph.nodes[index], reach[index]
        op = node.op
        if isinstance(op, Loop):
            for _ in range(op.times):  # no resampling inside: offsets shift with the unit
                lo, hi = interval(op.graph, axis, lo)[0], interval(op.graph, axis, hi)[1]
        elif not isinstance(op, (Sum, Concat)) and (s := op.step(graph.ndim)):
            stride, before = s.stride[axis], s.before[axis]
            span = s.dilation[axis] * (s.kernel.shape[axis] - 1)
            if s.up:
                lo, hi = -(-(lo + before - span) // stride), (hi + before) // stride
            else:
                lo, hi = stride * lo - before, stride * hi + span - before
        for i in node.inputs:
            a, b = reach.get(i, (lo, hi))
            reach[i] = min(a, lo), max(b, hi)
    return reach[0]


def longest(*windows: tuple[int, int, int]) -> int:
    """Pixels seen through windows (kernel, stride, times), first layer first."""
    size, jump = 1, 1
    for kernel, stride, times in windows:
        for _ in range(times):
            size += (kernel - 1) * jump
            jump *= stride
    return size


POOL = (2, 2, 1)
STEM = [(7, 2, 1), (3, 2, 1)]


def _vgg(*depths):
    return [w for depth in depths for w in ((3, 1, depth), POOL)]


def _deep(first, *rest):
    """Residual stages whose first block strides in its first 3x3 convolution."""
    return [*STEM, (3, 1, first), *(w for n in rest for w in ((3, 2, 1), (3, 1, n - 1)))]


def _early(first, *rest):
    return [*STEM, (3, 1, first), *(w for n in rest for w in ((1, 2, 1), (3, 1, n)))]


def _dense(*depths):
    stages = [w for n in depths for w in ((3, 1, n), POOL)]
    return [*STEM, *stages[:-1]]


# network, arguments, axis, longest path by hand, the pixels that follow from it
PATHS = [
    ("alexnet", {}, 0, [(11, 4, 1), (3, 2, 1), (5, 1, 1), (3, 2, 1), (3, 1, 3), (3, 2, 1)], 195),
    ("vgg11", {}, 0, _vgg(1, 1, 2, 2, 2), 150),
    ("vgg13", {}, 0, _vgg(2, 2, 2, 2, 2), 156),
    ("vgg16", {}, 0, _vgg(2, 2, 3, 3, 3), 212),
    ("vgg19", {}, 0, _vgg(2, 2, 4, 4, 4), 268),
    ("resnet18", {}, 0, _deep(4, 4, 4, 4), 435),
    ("resnet34", {}, 0, _deep(6, 8, 12, 6), 899),
    ("resnet50", {}, 0, _deep(3, 4, 6, 3), 427),
    ("resnet101", {}, 0, _deep(3, 4, 23, 3), 971),
    ("resnet152", {}, 0, _deep(3, 8, 36, 3), 1451),
    ("resnet50", {"stride": "1x1"}, 0, _early(3, 4, 6, 3), 483),
    ("resnet101", {"stride": "1x1"}, 0, _early(3, 4, 23, 3), 1027),
    ("resnet152", {"stride": "1x1"}, 0, _early(3, 8, 36, 3), 1507),
    ("deeplab", {}, 0, _deep(3, 4, 6, 3), 427),
    ("deeplab", {"output_stride": 8}, 0, _deep(3, 4, 6, 3), 427),
    ("googlenet", {}, 0,
     [*STEM, (3, 1, 1), (3, 2, 1), (3, 1, 2), (3, 2, 1), (3, 1, 5), POOL, (3, 1, 2)], 379),
    ("inception_v3", {}, 0,
     [(3, 2, 1), (3, 1, 2), (3, 2, 1), (3, 1, 1), (3, 2, 1), (5, 1, 3),  # A: 1x1-3x3-3x3
      (3, 1, 1), (3, 2, 1), (13, 1, 4),  # B, then C with two 7s an axis
      (7, 1, 1), (3, 2, 1), (5, 1, 2)], 1311),
    ("densenet121", {}, 0, _dense(6, 12, 24, 16), 2071),
    ("densenet169", {}, 0, _dense(6, 12, 32, 32), 3351),
    ("densenet201", {}, 0, _dense(6, 12, 48, 32), 3863),
    ("mobilenet_v1", {}, 0,
     [(3, 2, 1), (3, 1, 1), (3, 2, 1), (3, 1, 1), (3, 2, 1), (3, 1, 1), (3, 2, 1), (3, 1, 5),
      (3, 2, 1), (3, 1, 1)], 315),
    ("mobilenet_v2", {}, 0,
     [(3, 2, 1), (3, 1, 1), (3, 2, 1), (3, 1, 1), (3, 2, 1), (3, 1, 2), (3, 2, 1), (3, 1, 6),
      (3, 2, 1), (3, 1, 3)], 491),
    ("convnext_tiny", {}, 0,
     [(4, 4, 1), (7, 1, 3), POOL, (7, 1, 3), POOL, (7, 1, 9), POOL, (7, 1, 3)], 1688),
    ("replknet31b", {}, 0,
     [(3, 2, 1), (3, 1, 1), (3, 2, 1), (31, 1, 2), (3, 2, 1), (29, 1, 2), (3, 2, 1), (27, 1, 18),
      (3, 2, 1), (13, 1, 2)], 9011),
    ("wavenet", {}, 0, [(2**i + 1, 1, 1) for i in range(10)], 1024),
    ("wavenet", {"stacks": 3}, 0, [(2**i + 1, 1, 3) for i in range(10)], 3070),
    ("c3d", {}, 1, _vgg(1, 1, 2, 2, 2), 150),
    ("c3d", {}, 0, [(3, 1, 2), POOL, (3, 1, 2), POOL, (3, 1, 2), POOL, (3, 1, 2), POOL], 76),
]  # fmt: skip


@pytest.mark.parametrize("name, arguments, axis, path, size", PATHS)
def test_receptive_fields(name, arguments, axis, path, size):
    assert longest(*path) == size
    first, last = interval(zoo.get(name, **arguments).graph, axis, 0)
    assert last - first + 1 == size


@pytest.mark.parametrize("levels, size", [(1, 18), (2, 44), (3, 100), (4, 204)])
def test_unet(levels, size):
    """The largest field over all output phases."""
    graph = zoo.unet(levels).graph
    spans = [interval(graph, 0, unit) for unit in range(2**levels)]
    assert max(last - first + 1 for first, last in spans) == size


def test_googlenet_pools_as_torchvision():
    """ceil_mode pads after, never before: the windows start at pixel 0."""
    pools = [n.op for n in zoo.googlenet().graph.nodes if isinstance(n.op, MaxPool)]
    assert [p.step(2).before for p in pools if p.stride != 1] == [(0, 0)] * 4
