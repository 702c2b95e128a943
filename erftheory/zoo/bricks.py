"""What most networks of the zoo are made of."""

from __future__ import annotations

from erftheory.network.arguments import Padding
from erftheory.network.base import Chain
from erftheory.network.layers import Activation, BatchNorm, Conv

RELU = Activation("relu")


def unit(channels: int, kernel, stride=1, padding: Padding = "same", **options) -> Chain:
    """Convolution, batch norm, ReLU: the brick of most networks below."""
    return Chain(
        Conv(kernel, stride, padding=padding, channels=channels, **options), BatchNorm(), RELU
    )
