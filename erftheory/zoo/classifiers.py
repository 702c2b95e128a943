"""Image classifiers, up to their last feature map."""

from __future__ import annotations

from collections.abc import Sequence

from erftheory.network.arguments import one_of
from erftheory.network.base import Chain, Network
from erftheory.network.combine import Branches, Residual
from erftheory.network.layers import (
    Activation,
    AvgPool,
    BatchNorm,
    Conv,
    MaxPool,
)
from erftheory.zoo.bricks import RELU, unit


def alexnet() -> Network:
    """AlexNet in torchvision's one-tower form (Krizhevsky 2014). RF 195, stride 32."""
    return Chain(
        Chain(Conv(11, 4, padding=2, channels=64), RELU, MaxPool(3, 2)).named("pool1"),
        Chain(Conv(5, padding=2, channels=192), RELU, MaxPool(3, 2)).named("pool2"),
        Chain(Conv(3, padding=1, channels=384), RELU).named("conv3"),
        Chain(Conv(3, padding=1, channels=256), RELU).named("conv4"),
        Chain(Conv(3, padding=1, channels=256), RELU, MaxPool(3, 2)).named("pool5"),
    )


def _vgg(depths: Sequence[int]) -> Network:
    blocks = []
    for i, (depth, channels) in enumerate(zip(depths, (64, 128, 256, 512, 512)), start=1):
        convolutions = Chain(Conv(3, padding=1, channels=channels), RELU) * depth
        blocks.append(Chain(convolutions, MaxPool(2)).named(f"block{i}"))
    return Chain(*blocks)


def vgg11() -> Network:
    """VGG-11 (Simonyan & Zisserman 2015). RF 150, stride 32."""
    return _vgg((1, 1, 2, 2, 2))


def vgg13() -> Network:
    """VGG-13 (Simonyan & Zisserman 2015). RF 156, stride 32."""
    return _vgg((2, 2, 2, 2, 2))


def vgg16() -> Network:
    """VGG-16 (Simonyan & Zisserman 2015). RF 212, stride 32."""
    return _vgg((2, 2, 3, 3, 3))


def vgg19() -> Network:
    """VGG-19 (Simonyan & Zisserman 2015). RF 268, stride 32."""
    return _vgg((2, 2, 4, 4, 4))


def _residual(channels: int, stride: int, dilation: int, project: bool, kind: str) -> Network:
    """A post-activation block: "basic", or a bottleneck with its stride in the "1x1" or "3x3"."""
    if kind == "basic":
        branch = Chain(
            unit(channels, 3, stride, dilation=dilation),
            Conv(3, dilation=dilation, channels=channels),
            BatchNorm(),
        )
        out = channels
    else:
        first, second = (stride, 1) if kind == "1x1" else (1, stride)
        out = 4 * channels
        branch = Chain(
            unit(channels, 1, first),
            unit(channels, 3, second, dilation=dilation),
            Conv(1, channels=out),
            BatchNorm(),
        )
    shortcut = Chain(Conv(1, stride, channels=out), BatchNorm()) if project else None
    return Chain(Residual(branch, shortcut), RELU)


def resnet(
    depths: Sequence[int],
    kind: str,
    strides: Sequence[int] = (1, 2, 2, 2),
    dilations: Sequence[int] = (1, 1, 1, 1),
) -> Chain:
    stages = []
    for i, (depth, stride, dilation) in enumerate(zip(depths, strides, dilations)):
        channels, before = 64 * 2**i, 1 if i == 0 else dilations[i - 1]
        project = kind != "basic" or i > 0
        blocks: list[Network] = [_residual(channels, stride, before, project, kind).named("first")]
        if depth > 1:
            rest = _residual(channels, 1, dilation, False, kind) * (depth - 1)
            blocks.append(rest.named("rest"))
        stages.append(Chain(*blocks).named(f"layer{i + 1}"))
    stem = Chain(unit(64, 7, 2, padding=3), MaxPool(3, 2, padding=1)).named("stem")
    return Chain(stem, *stages)


def resnet18() -> Network:
    """ResNet-18 (He et al. 2016). RF 435, stride 32."""
    return resnet((2, 2, 2, 2), "basic")


def resnet34() -> Network:
    """ResNet-34 (He et al. 2016). RF 899, stride 32."""
    return resnet((3, 4, 6, 3), "basic")


def resnet50(stride: str = "3x3") -> Network:
    """ResNet-50 with its strides in the "3x3" (torchvision, RF 427) or the first "1x1" (the paper
    and Keras, RF 483; A19 count 483 too, with the stride in the last 3x3 of the stage before)."""
    return resnet((3, 4, 6, 3), one_of("stride", stride, ("3x3", "1x1")))


def resnet101(stride: str = "3x3") -> Network:
    """ResNet-101 (He et al. 2016); `stride` as in `resnet50`. RF 971, with "1x1" 1027."""
    return resnet((3, 4, 23, 3), one_of("stride", stride, ("3x3", "1x1")))


def resnet152(stride: str = "3x3") -> Network:
    """ResNet-152 (He et al. 2016); `stride` as in `resnet50`. RF 1451, with "1x1" 1507."""
    return resnet((3, 8, 36, 3), one_of("stride", stride, ("3x3", "1x1")))


def googlenet() -> Network:
    """GoogLeNet / Inception-v1 (Szegedy et al. 2015) as in torchvision (3x3 for its 5x5).

    Its `ceil_mode` pools pad one pixel after, none before. RF 379, stride 32.
    """

    after = ((0, 1), (0, 1))

    def block(c1, r3, c3, r5, c5, pool):
        return Branches(
            unit(c1, 1),
            Chain(unit(r3, 1), unit(c3, 3)),
            Chain(unit(r5, 1), unit(c5, 3)),
            Chain(MaxPool(3, 1, padding=1), unit(pool, 1)),
        )

    return Chain(
        Chain(unit(64, 7, 2, padding=3), MaxPool(3, 2, padding=after)).named("pool1"),
        Chain(unit(64, 1), unit(192, 3), MaxPool(3, 2, padding=after)).named("pool2"),
        Chain(block(64, 96, 128, 16, 32, 32), block(128, 128, 192, 32, 96, 64)).named("inception3"),
        MaxPool(3, 2, padding=after).named("pool3"),
        Chain(
            block(192, 96, 208, 16, 48, 64),
            block(160, 112, 224, 24, 64, 64),
            block(128, 128, 256, 24, 64, 64),
            block(112, 144, 288, 32, 64, 64),
            block(256, 160, 320, 32, 128, 128),
        ).named("inception4"),
        MaxPool(2, 2, padding=after).named("pool4"),
        Chain(block(256, 160, 320, 32, 128, 128), block(384, 192, 384, 48, 128, 128)).named(
            "inception5"
        ),
    )


def inception_v3() -> Network:
    """Inception-v3 (Szegedy et al. 2016) as in torchvision. RF 1311, stride 32."""

    def a(pool):
        return Branches(
            unit(64, 1),
            Chain(unit(48, 1), unit(64, 5)),
            Chain(unit(64, 1), unit(96, 3) * 2),
            Chain(AvgPool(3, 1, padding=1), unit(pool, 1)),
        )

    def c(mid):
        row, column = (1, 7), (7, 1)
        return Branches(
            unit(192, 1),
            Chain(unit(mid, 1), unit(mid, row), unit(192, column)),
            Chain(unit(mid, 1), *(unit(mid, k) for k in (column, row, column)), unit(192, row)),
            Chain(AvgPool(3, 1, padding=1), unit(192, 1)),
        )

    def e():
        split = Branches(unit(384, (1, 3)), unit(384, (3, 1)))
        return Branches(
            unit(320, 1),
            Chain(unit(384, 1), split),
            Chain(unit(448, 1), unit(384, 3), split),
            Chain(AvgPool(3, 1, padding=1), unit(192, 1)),
        )

    b = Branches(
        unit(384, 3, 2, "valid"),
        Chain(unit(64, 1), unit(96, 3), unit(96, 3, 2, "valid")),
        MaxPool(3, 2),
    )
    d = Branches(
        Chain(unit(192, 1), unit(320, 3, 2, "valid")),
        Chain(unit(192, 1), unit(192, (1, 7)), unit(192, (7, 1)), unit(192, 3, 2, "valid")),
        MaxPool(3, 2),
    )
    stem = Chain(
        unit(32, 3, 2, "valid"),
        unit(32, 3, 1, "valid"),
        unit(64, 3),
        MaxPool(3, 2),
        unit(80, 1),
        unit(192, 3, 1, "valid"),
        MaxPool(3, 2),
    )
    return Chain(
        stem.named("stem"),
        Chain(a(32), a(64), a(64)).named("mixed5"),
        Chain(b, c(128), c(160), c(160), c(192)).named("mixed6"),
        Chain(d, e(), e()).named("mixed7"),
    )


def _densenet(depths: Sequence[int]) -> Network:
    growth, channels = 32, 64
    stages: list[Network] = [
        Chain(unit(64, 7, 2, padding=3), MaxPool(3, 2, padding=1)).named("stem")
    ]
    for i, depth in enumerate(depths):
        layer = Chain(
            BatchNorm(), RELU, Conv(1, channels=4 * growth), BatchNorm(), RELU,
            Conv(3, padding=1, channels=growth),
        )  # fmt: skip
        stages.append((Branches(None, layer) * depth).named(f"denseblock{i + 1}"))
        channels += depth * growth
        if i < len(depths) - 1:
            channels //= 2
            transition = Chain(BatchNorm(), RELU, Conv(1, channels=channels), AvgPool(2))
            stages.append(transition.named(f"transition{i + 1}"))
    return Chain(*stages, BatchNorm())


def densenet121() -> Network:
    """DenseNet-121 (Huang et al. 2017). RF 2071, stride 32."""
    return _densenet((6, 12, 24, 16))


def densenet169() -> Network:
    """DenseNet-169 (Huang et al. 2017). RF 3351, stride 32."""
    return _densenet((6, 12, 32, 32))


def densenet201() -> Network:
    """DenseNet-201 (Huang et al. 2017). RF 3863, stride 32."""
    return _densenet((6, 12, 48, 32))


def mobilenet_v1() -> Network:
    """MobileNet-v1 (Howard et al. 2017). RF 315, stride 32.

    Strided layers pad one pixel on both sides; Keras pads only after.
    """
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5]
    plan += [(1024, 2), (1024, 1)]
    blocks, channels = [unit(32, 3, 2).named("stem")], 32
    for i, (out, stride) in enumerate(plan, start=1):
        depthwise = unit(channels, 3, stride, groups="depthwise")
        blocks.append(Chain(depthwise, unit(out, 1)).named(f"block{i}"))
        channels = out
    return Chain(*blocks)


def mobilenet_v2() -> Network:
    """MobileNet-v2 (Sandler et al. 2018). RF 491, stride 32."""
    plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1)]
    plan += [(6, 160, 3, 2), (6, 320, 1, 1)]
    stages: list[Network] = [unit(32, 3, 2).named("stem")]
    channels = 32
    for number, (expand, out, depth, stride) in enumerate(plan, start=1):
        blocks = []
        for i in range(min(depth, 2)):
            wide = channels * expand
            branch = Chain(
                *([unit(wide, 1)] if expand > 1 else []),
                unit(wide, 3, stride if i == 0 else 1, groups="depthwise"),
                Conv(1, channels=out),
                BatchNorm(),
            )
            blocks.append(branch if i == 0 else Residual(branch) * (depth - 1))
            channels = out
        stages.append(Chain(*blocks).named(f"stage{number}"))
    return Chain(*stages, unit(1280, 1).named("head"))


def _inverted(channels: int, kernel: int) -> Network:
    branch = Chain(
        Conv(kernel, channels=channels, groups="depthwise"),
        BatchNorm(),
        Conv(1, channels=4 * channels),
        Activation("gelu"),
        Conv(1, channels=channels),
    )
    return Residual(branch)


def convnext_tiny() -> Network:
    """ConvNeXt-T (Liu et al. 2022), layer norms as `BatchNorm`. RF 1688, stride 32."""
    stages: list[Network] = [Chain(Conv(4, 4, padding=0, channels=96), BatchNorm()).named("stem")]
    for i, (channels, depth) in enumerate(zip((96, 192, 384, 768), (3, 3, 9, 3))):
        parts = [_inverted(channels, 7) * depth]
        if i:
            parts[:0] = [BatchNorm(), Conv(2, 2, padding=0, channels=channels)]  # type: ignore
        stages.append(Chain(*parts).named(f"stage{i + 1}"))
    return Chain(*stages)


def replknet31b() -> Network:
    """RepLKNet-31B (Ding et al. 2022): depthwise 31, 29, 27 and 13, the small kernels merged.

    RF 9011, stride 32.
    """
    stages: list[Network] = [
        Chain(
            unit(128, 3, 2),
            unit(128, 3, groups="depthwise"),
            unit(128, 1),
            unit(128, 3, 2, groups="depthwise"),
        ).named("stem")
    ]
    plan = zip((128, 256, 512, 1024), (31, 29, 27, 13), (2, 2, 18, 2))
    for i, (channels, kernel, depth) in enumerate(plan):
        large = Chain(
            BatchNorm(),
            unit(channels, 1),
            unit(channels, kernel, groups="depthwise"),
            Conv(1, channels=channels),
            BatchNorm(),
        )
        wide = Chain(
            BatchNorm(),
            Conv(1, channels=4 * channels),
            BatchNorm(),
            Activation("gelu"),
            Conv(1, channels=channels),
            BatchNorm(),
        )
        parts: list[Network] = [Chain(Residual(large), Residual(wide)) * depth]
        if i:
            parts[:0] = [unit(channels, 1), unit(channels, 3, 2, groups="depthwise")]
        stages.append(Chain(*parts).named(f"stage{i + 1}"))
    return Chain(*stages)
