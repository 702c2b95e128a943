"""The nets and tasks of TRN-1, at a size for two cores."""

from __future__ import annotations

from functools import lru_cache, partial

from erftheory.network.base import Chain, Network
from erftheory.network.combine import Branches, Residual
from erftheory.network.layers import Activation, BatchNorm, Conv, ConvTranspose, MaxPool
from erftheory.training.data.dataset import Dataset
from erftheory.training.data.dialled import displaced
from erftheory.training.data.shipped import digits
from erftheory.training.studies.study import Pair

CANVAS = 24
_RELU = Activation("relu")


@lru_cache(maxsize=1)
def on_digits() -> tuple[Dataset, Dataset]:
    """Which digit? scikit-learn's 1,797, each somewhere on 24×24 pixels."""
    return digits(CANVAS).split(0.25, 0)


@lru_cache(maxsize=16)
def on_signs(distance: int) -> tuple[Dataset, Dataset]:
    """Has the pixel `distance` to the right the same sign? See `data.dialled.displaced`."""
    return displaced(distance, 1200, CANVAS, seed=1).split(0.25, 0)


def plain(layers: int, norm: bool = False) -> Network:
    """3×3 convolutions and ReLU, with batch norm between them or without."""
    parts = (Conv(3), BatchNorm(), _RELU) if norm else (Conv(3), _RELU)
    return Chain(*parts) * layers


def dilated(*dilations: int) -> Network:
    return Chain(*(Chain(Conv(3, dilation=d), BatchNorm(), _RELU) for d in dilations))


def vgg() -> Network:
    block = lambda stride: Chain(Conv(3, stride), BatchNorm(), _RELU)  # noqa: E731
    return Chain(block(1), block(2), block(1), block(2), block(1))


def after() -> Network:
    """Residual blocks with the activation behind the sum (He et al. 2016a)."""
    block = Residual(Chain(Conv(3), BatchNorm(), _RELU, Conv(3), BatchNorm()))
    return Chain(Conv(3), BatchNorm(), _RELU, Chain(block, _RELU) * 3)


def before() -> Network:
    """Residual blocks with norm and activation first (He et al. 2016b)."""
    block = Residual(Chain(BatchNorm(), _RELU, Conv(3), BatchNorm(), _RELU, Conv(3)))
    return Chain(Conv(3), block * 3, BatchNorm(), _RELU)


def unet() -> Network:
    block = Chain(Conv(3), BatchNorm(), _RELU)
    return Chain(
        block, Branches(None, Chain(MaxPool(2), block, block, ConvTranspose(2, 2))), block
    )


PAIRS = (
    Pair("plain, digits", plain(6), on_digits),
    Pair("small VGG, digits", vgg(), on_digits),
    # seeds of this one differ most of those that learn: 16 see a growth of 10 % as the others do
    Pair("residual, digits", after(), on_digits, seeds=16),
    Pair("plain, signs 5 px away", plain(6, True), partial(on_signs, 5)),
    Pair("pre-activation, signs 6 px away", before(), partial(on_signs, 6)),
    Pair("U-Net, signs 4 px away", unet(), partial(on_signs, 4)),
    Pair("dilations 2 2 2 2, signs 4 px", dilated(2, 2, 2, 2), partial(on_signs, 4)),
    Pair("dilations 1 2 5 1, signs 4 px", dilated(1, 2, 5, 1), partial(on_signs, 4)),
    Pair("dilations 1 2 4 8, signs 4 px", dilated(1, 2, 4, 8), partial(on_signs, 4)),
)
