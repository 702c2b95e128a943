"""Published architectures up to their last feature map: no global pooling, no classifier.

Names and paddings are torchvision's (or Keras') unless a docstring says otherwise. Parts are
named, so that `zoo.resnet34().until("layer3")` is the network up to that endpoint. Layer norms
stand as `BatchNorm`: both act on every pixel alone. Begin with classifiers.py.
"""

from __future__ import annotations

from collections.abc import Callable

from erftheory.network.base import Network
from erftheory.zoo.classifiers import (
    alexnet,
    convnext_tiny,
    densenet121,
    densenet169,
    densenet201,
    googlenet,
    inception_v3,
    mobilenet_v1,
    mobilenet_v2,
    replknet31b,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    vgg11,
    vgg13,
    vgg16,
    vgg19,
)
from erftheory.zoo.others import c3d, deeplab, unet, wavenet

_ALL: tuple[Callable[..., Network], ...] = (
    alexnet, vgg11, vgg13, vgg16, vgg19, resnet18, resnet34, resnet50, resnet101, resnet152,
    deeplab, googlenet, inception_v3, densenet121, densenet169, densenet201, mobilenet_v1,
    mobilenet_v2, convnext_tiny, replknet31b, unet, wavenet, c3d,
)  # fmt: skip


def names() -> tuple[str, ...]:
    """Every network of the zoo."""
    return tuple(f.__name__ for f in _ALL)


def get(name: str, **variant) -> Network:
    """The network called `name`.

    Raises:
      ValueError: no network has that name.
    """
    for build in _ALL:
        if build.__name__ == name:
            return build(**variant)
    raise ValueError(f"name: got {name!r}; takes one of {', '.join(names())}")
