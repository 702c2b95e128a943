"""Laws of the theoretical receptive field: which inputs can influence a unit at all."""

from __future__ import annotations

from collections.abc import Iterable

from erftheory.laws.machine.base import Context, Evidence, equal, law
from erftheory.network.base import Chain, Network
from erftheory.network.combine import Branches, Residual
from erftheory.network.layers import AvgPool, Conv, MaxPool

Extent = tuple[tuple[int, int], ...]  # first and last input index, an entry an axis


@law(
    "RF-1",
    "the RF follows from kernels and strides",
    "The receptive field follows from kernels, strides, dilations and padding alone",
    "Araujo, Norris, Sim, Distill 2019; L16 section 1",
)
def recursion(context: Context) -> list[Evidence]:
    """Interval arithmetic, the extent of the exact path counts, and NaNs in a real network."""
    evidence = []
    for name, network in _nets(context).items():
        interval = _interval(context, network)
        reached = _touched(context.engines.counting(network).touched)
        start = context.engines.counting(network).offset
        counted = tuple((o + f, o + last) for o, (f, last) in zip(start, reached))
        evidence.append(equal("interval", "counting", f"{name}: extent", interval, counted))
        if name == "deep":
            continue  # its canvas is the largest, and the strided ones say more
        probed = _span(context.engines.probe_receptive_field(network))
        evidence.append(equal("NaN probe", "interval", f"{name}: extent", probed, interval))
    return evidence


def _nets(context: Context) -> dict[str, Network]:
    depth = context.integer_depth("RF-1: exact path counts of the deep net")
    conv = Conv(context.kernel)
    return {
        "deep": Chain(conv, ndim=1) * depth,
        "strided": Chain(Conv(3, stride=2), Conv(3), Conv(3, stride=3), Conv(3), ndim=1),
        "dilated": Chain(Conv(3), Conv(3, dilation=3), Conv(3, padding="causal"), ndim=1),
        "pooled": Chain(Conv(3), MaxPool(3, 2, padding=1), Conv(3), AvgPool(2), Conv(3), ndim=1),
        "branching": Chain(
            Conv(3, stride=2),
            Residual(Chain(Conv(3), Conv(3))),
            Branches(Conv(3), Conv(3, dilation=2)),
            ndim=1,
        ),
        "two axes": Chain(Conv((2, 3), stride=(1, 2)), MaxPool(2), Conv((2, 3))),
    }


def _interval(context: Context, network: Network) -> Extent:
    found = context.engines.receptive_field(network)
    return tuple(
        (int(-before), int(size - before - 1)) for size, before in zip(found.size, found.padding)
    )


def _touched(touched) -> Extent:
    """First and last True an axis."""
    axes = range(touched.ndim)
    spans = []
    for axis in axes:
        line = touched.any(axis=tuple(a for a in axes if a != axis)).nonzero()[0]
        spans.append((int(line[0]), int(line[-1])))
    return tuple(spans)


def _span(probe) -> Extent:
    """The extent that a probe reports."""
    return tuple((first, first + size - 1) for size, first in zip(probe.size, probe.offset))


# (network of the zoo, its arguments, pixels, who published the number)
PUBLISHED: tuple[tuple[str, dict, int, str], ...] = (
    ("resnet18", {}, 435, "torchvision"),
    ("resnet34", {}, 899, "torchvision"),
    ("resnet50", {}, 427, "torchvision"),
    ("alexnet", {}, 195, "A19"),
    ("vgg16", {}, 212, "A19"),
    ("resnet50", {"stride": "1x1"}, 483, "A19"),
    ("resnet101", {"stride": "1x1"}, 1027, "A19"),
    ("resnet152", {"stride": "1x1"}, 1507, "A19"),
)


@law(
    "RF-2",
    "published receptive field sizes come out",
    "Published receptive field sizes come out; ResNet-34's exceeds its 224-pixel input",
    "Araujo, Norris, Sim, Distill 2019, table 1; torchvision's definitions",
)
def published(context: Context) -> list[Evidence]:
    """The interval of the zoo's networks against published numbers and exact path counts."""
    evidence = []
    for name, arguments, pixels, source in PUBLISHED:
        network = getattr(context.engines.zoo, name)(**arguments)
        label = f"{name}({', '.join(f'{k}={v!r}' for k, v in arguments.items())}) size"
        size = context.engines.receptive_field(network).size[0]
        evidence.append(equal("interval", source, label, size, pixels))
        reached = _reached(context.engines.counting(network).marginal(0))
        evidence.append(equal("counting", source, label, reached, pixels))
    size = context.engines.receptive_field(context.engines.zoo.resnet34()).size[0]
    evidence.append(
        equal("interval", "input", "ResNet-34: pixels beyond 224", size > 224, True)
    )
    return evidence


def _reached(weights: Iterable) -> int:
    """Pixels from the first to the last that a path reaches."""
    touched = [i for i, weight in enumerate(weights) if weight]
    return touched[-1] - touched[0] + 1

