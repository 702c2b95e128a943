"""Finite images: what leaves the image is lost, and the ERF does not fill what is left."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from erftheory.laws.machine.base import (
    L16,
    Context,
    Evidence,
    below,
    close,
    equal,
    information,
    law,
)
from erftheory.network.base import Chain, Network
from erftheory.network.combine import Branches, Residual
from erftheory.network.layers import AvgPool, Conv, MaxPool

IMAGE = 224
# (network of the zoo, whether its receptive field exceeds the image)
PUBLISHED = (
    ("resnet34", True),
    ("resnet50", True),
    ("resnet101", True),
    ("resnet152", True),
    ("vgg16", False),
)


@law(
    "BND-1",
    "the ERF never fills a finite image",
    "On a finite image the ERF is no crop of the plane's, and never fills the image, although the "
    "receptive field exceeds it",
    f"{L16} section 1; He et al. 2016 and Simonyan & Zisserman 2015 for the networks",
)
def finite_images(context: Context) -> list[Evidence]:
    """Maps against gradients of the executed all-ones net; published networks on 224 pixels."""
    evidence = []
    exact = context.engines.exact
    for name, (network, image) in _nets(context).items():
        shape, gradients = executed(network, image)
        center = tuple(n // 2 for n in shape)
        for place in dict.fromkeys((tuple(0 for _ in shape), (0, *center[1:]), center)):
            found = exact(network, signal="gradient", init=None, image=image, unit=place)
            wanted = gradients(place)
            far = float(np.abs(found.map - wanted).max() / wanted.max())
            allowed = found.error.value + 2.0**-52 * 4 * len(network.graph.nodes) + 1e-13
            what = f"{name} on {'x'.join(map(str, image))}, unit {place}: difference / peak"
            evidence.append(close("grid", "autodiff", what, far, 0.0, allowed))
    evidence += saturated(context)
    for name, exceeds in PUBLISHED:
        evidence += _published(context, name, exceeds)
    return evidence


def _nets(context: Context) -> dict[str, tuple[Network, tuple[int, ...]]]:
    depth = context.reduced("BND-1: the deep net", 64)
    conv = Conv(context.kernel)
    return {
        "deep": (Chain(conv, ndim=1) * depth, (2 * context.kernel + 1,)),
        "strided, dilated": (
            Chain(Conv(3, 2), MaxPool(3, 2, padding=1), Conv(3, dilation=2), AvgPool(2, 1), ndim=1),
            (23,),
        ),
        "branching": (
            Chain(Conv((3, 2), 2), Residual(Conv(3)), Branches(Conv(3), Conv(1))),
            (9, 7),
        ),
    }


def executed(network: Network, image: tuple[int, ...]) -> tuple[tuple[int, ...], Any]:
    """The all-ones net on an image: its output grid, and normalised gradients of its units."""
    import jax
    import jax.numpy as jnp

    from erftheory.empirical.nets.draw import ones_params
    from erftheory.empirical.nets.execute import apply

    with jax.enable_x64(True):
        params = ones_params(network, jnp.float64)
        x = jnp.zeros((1, *image), jnp.float64)
        net = jax.jit(lambda v: apply(network, params, v, linear=True))
        shape = jax.eval_shape(net, x).shape[1:]
        back = jax.jit(lambda seed: jax.vjp(net, x)[1](seed)[0][0])

    def gradients(place: tuple[int, ...]) -> np.ndarray:
        seed = np.zeros((1, *shape))
        seed[(0, *place)] = 1.0
        with jax.enable_x64(True):
            found = np.asarray(back(jnp.asarray(seed)))
        return found / found.sum()

    return shape, gradients


def _published(context: Context, name: str, exceeds: bool) -> list[Evidence]:
    engines = context.engines
    network = getattr(engines.zoo, name)()
    field = engines.receptive_field(network).size[0]
    evidence = [
        equal("interval", "input", f"{name}: RF {field} exceeds {IMAGE}", field > IMAGE, exceeds)
    ]
    center = engines.exact(network, image=(IMAGE, IMAGE))
    corner = engines.exact(network, image=(IMAGE, IMAGE), unit=(0, 0))
    label = f"{name} on {IMAGE}x{IMAGE}"
    pixels = IMAGE**2
    share = center.size() ** 2 / pixels
    what = f"{label}: ERF size² / image area"
    evidence.append(below("grid", "image", what, share, 1 - 1 / pixels))
    flat = math.sqrt((pixels - 1) / 12)
    what = f"{label}: ERF std over a full image's"
    evidence.append(below("grid", "image", what, center.std[0] / flat, 0.9))
    lost = (center.metadata["lost"], corner.metadata["lost"])
    for route, quantity, value, other in (
        ("plane", "ERF std at the centre, px", center.std[0], engines.exact(network).std[0]),
        ("image", "share of pixels with 95 % of the signal", covered(center.map), 0.95),
        ("image", "share of the signal lost at the centre, at the corner", lost, (0.0, 0.0)),
    ):
        what = f"{label}: {quantity}"
        evidence.append(information("grid", route, what, _short(value), _short(other)))
    return evidence


def _short(value: Any) -> Any:
    return tuple(map(_short, value)) if isinstance(value, tuple) else round(value, 4)


def saturated(context: Context) -> list[Evidence]:
    """Without end, 3-tap layers on n pixels keep the leading eigenvector: half a sine."""
    n, depth = 9, 400
    found = context.engines.exact(Chain(Conv(3), ndim=1) * depth, image=(n,), unit=(0,)).map
    wave = np.sin(np.pi * np.arange(1, n + 1) / (n + 1))
    second = (1 + 2 * math.cos(2 * math.pi / (n + 1))) / (1 + 2 * math.cos(math.pi / (n + 1)))
    # the unit's share of each eigenvector is at most √n times that of the first
    allowed = n / wave[0] * second**depth + 1e-12
    far = float(np.abs(found - wave / wave.sum()).max())
    what = f"{depth} layers on {n} pixels, corner unit: difference from half a sine"
    return [close("grid", "eigenvector", what, far, 0.0, allowed)]


def covered(weights: np.ndarray, mass: float = 0.95) -> float:
    """Share of the pixels that the fewest ones which hold `mass` of a map make up."""
    descending = np.sort(weights, axis=None)[::-1]
    count = int(np.searchsorted(np.cumsum(descending), mass * descending.sum())) + 1
    return count / weights.size
