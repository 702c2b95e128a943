"""Dense prediction, sound and video."""

from __future__ import annotations

from erftheory.network.arguments import integer, one_of
from erftheory.network.base import Chain, Network
from erftheory.network.combine import Branches, Residual
from erftheory.network.layers import Activation, Conv, ConvTranspose, MaxPool, Upsample
from erftheory.zoo.bricks import RELU, unit
from erftheory.zoo.classifiers import resnet


def deeplab(output_stride: int = 16, aspp: bool = False) -> Network:
    """The dilated ResNet-50 of DeepLab-v3 (Chen et al. 2017), output stride 16 or 8.

    `aspp` adds the atrous pyramid (dilations 6, 12, 18; twice that at stride 8) without its image
    pooling, which would see everything. RF 427, with `aspp` 1003, at either output stride.
    """
    if one_of("output_stride", output_stride, (16, 8)) == 16:
        net = resnet((3, 4, 6, 3), "3x3", (1, 2, 2, 1), (1, 1, 1, 2))
    else:
        net = resnet((3, 4, 6, 3), "3x3", (1, 2, 1, 1), (1, 1, 2, 4))
    if not aspp:
        return net
    rates = (6, 12, 18) if output_stride == 16 else (12, 24, 36)
    pyramid = [unit(256, 1), *(unit(256, 3, dilation=r) for r in rates)]
    return Chain(*net.parts, Chain(Branches(*pyramid), unit(256, 1)).named("aspp"))




def unet(levels: int = 4, up: str = "transposed", channels: int = 64) -> Network:
    """U-Net (Ronneberger et al. 2015) with "same" padding; `up` is "transposed" or "bilinear".

    Bilinear up-sampling is followed by a 1x1 convolution. RF 44 for two levels, 204 for four.
    """
    integer("levels", levels)
    one_of("up", up, ("transposed", "bilinear"))

    def double(c: int) -> Network:
        return Chain(Conv(3, channels=c), RELU, Conv(3, channels=c), RELU)

    def level(depth: int, c: int) -> Network:
        if depth == 0:
            return double(c)
        raised: Network = ConvTranspose(2, 2, channels=c)
        if up == "bilinear":
            raised = Chain(Upsample(2, "bilinear"), Conv(1, channels=c))
        below = Chain(MaxPool(2), level(depth - 1, 2 * c), raised)
        return Chain(
            double(c).named(f"down{levels - depth}"),
            Branches(None, below),
            double(c).named(f"up{levels - depth}"),
        )

    return level(levels, channels)


def wavenet(stacks: int = 1, layers: int = 10, channels: int = 64) -> Network:
    """WaveNet (van den Oord et al. 2016): 1-D, causal, kernel 2, dilations 1 … 2^(layers−1).

    The gate tanh(f)·σ(g) stands as one tanh; RF 1 + stacks·(2^layers − 1): 1024 for one stack.
    """
    integer("stacks", stacks)
    integer("layers", layers)
    stack = [
        Residual(
            Chain(
                Conv(2, dilation=2**i, padding="causal", channels=channels),
                Activation("tanh"),
                Conv(1, channels=channels),
            )
        ).named(f"dilation{2**i}")
        for i in range(layers)
    ]
    net = Chain(*stack) * stacks if stacks > 1 else Chain(*stack)
    return Chain(Conv(1, channels=channels).named("stem"), net, ndim=1)


def c3d() -> Network:
    """C3D (Tran et al. 2015), time × height × width, up to pool5. RF 76 x 150 x 150."""
    plan = [(64, 1, (1, 2, 2)), (128, 1, 2), (256, 2, 2), (512, 2, 2), (512, 2, 2)]
    blocks = []
    for i, (channels, depth, pool) in enumerate(plan, start=1):
        padding = (0, 1, 1) if i == 5 else 0
        convolutions = Chain(Conv(3, padding=1, channels=channels), RELU) * depth
        blocks.append(Chain(convolutions, MaxPool(pool, padding=padding)).named(f"block{i}"))
    return Chain(*blocks, ndim=3)
