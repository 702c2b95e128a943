"""Random changes of a batch: functions (key, images, labels) to (images, labels).

Images are (batch, *spatial, channels); labels (batch,) or (batch, *spatial), moved along with the
pixels where there is one a pixel.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from erftheory.network.arguments import integer, number

Augment = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def flipped(axis: int = -1) -> Augment:
    """Half of the images mirrored along a spatial axis (-1 is the last, left and right)."""

    def change(key: jax.Array, images: jax.Array, labels: jax.Array):
        spatial = images.ndim - 2
        if not -spatial <= axis < spatial:
            raise ValueError(f"axis: got {axis}; takes a spatial axis, -{spatial} to {spatial - 1}")
        at = axis % spatial + 1
        turn = jax.random.bernoulli(key, 0.5, (len(images),))
        images = jnp.where(_along(turn, images), jnp.flip(images, at), images)
        if labels.ndim > 1:
            labels = jnp.where(_along(turn, labels), jnp.flip(labels, at), labels)
        return images, labels

    return change


def shifted(pixels: int) -> Augment:
    """Each image moved by up to `pixels` along every axis; what comes in at the rim is 0 (-1 in
    labels, which do not count)."""
    integer("pixels", pixels)

    def change(key: jax.Array, images: jax.Array, labels: jax.Array):
        ndim = images.ndim - 2
        moves = jax.random.randint(key, (len(images), ndim), 0, 2 * pixels + 1)

        def move(x: jax.Array, by: jax.Array, fill: float) -> jax.Array:
            ends = [(pixels, pixels)] * ndim + [(0, 0)] * (x.ndim - ndim)
            start = [*by, *[0] * (x.ndim - ndim)]
            return jax.lax.dynamic_slice(jnp.pad(x, ends, constant_values=fill), start, x.shape)

        images = jax.vmap(lambda x, by: move(x, by, 0))(images, moves)
        if labels.ndim > 1:
            labels = jax.vmap(lambda x, by: move(x, by, -1))(labels, moves)
        return images, labels

    return change


def noisy(std: float) -> Augment:
    """Gaussian noise of standard deviation `std` on every pixel."""
    if not number("std", std) >= 0:
        raise ValueError(f"std: got {std}; takes a number >= 0")
    return lambda key, images, labels: (
        images + std * jax.random.normal(key, images.shape, images.dtype), labels
    )  # fmt: skip


def _along(which: jax.Array, x: jax.Array) -> jax.Array:
    return which.reshape(-1, *(1,) * (x.ndim - 1))
