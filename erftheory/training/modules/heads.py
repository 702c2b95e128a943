"""What stands behind the last map: nothing, a class an image, or a class a pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from erftheory.network.arguments import integer


@dataclass(frozen=True)
class Classifier:
    """The mean of the last map, or its centre unit alone, and a dense layer to `classes` scores.

    With `pool="center"` all that a score can know lies in the receptive field of one unit.
    """

    classes: int
    pool: str = "mean"

    def __post_init__(self) -> None:
        integer("classes", self.classes, 2)
        if self.pool not in ("mean", "center"):
            raise ValueError(f"pool: got {self.pool!r}; takes 'mean' or 'center'")


@dataclass(frozen=True)
class Dense:
    """A 1×1 convolution to `classes` scores a pixel, resized to the image where the map is not."""

    classes: int

    def __post_init__(self) -> None:
        integer("classes", self.classes, 2)


Head = Classifier | Dense | None


class HeadModule(nnx.Module):
    """Scores (batch, classes) or (batch, *spatial, classes) from the last map."""

    def __init__(self, head: Classifier | Dense, features: int, rngs: nnx.Rngs):
        self.head = head
        self.linear = nnx.Linear(features, head.classes, rngs=rngs)

    def __call__(self, features: jax.Array, size: tuple[int, ...]) -> jax.Array:
        """`size` is the image's, an int a spatial axis."""
        axes = tuple(range(1, features.ndim - 1))
        if isinstance(self.head, Dense):
            scores = self.linear(features)
            if scores.shape[1:-1] == size:
                return scores
            return jax.image.resize(scores, (len(scores), *size, scores.shape[-1]), "bilinear")
        if self.head.pool == "mean":
            return self.linear(features.mean(axes))
        centre: Any = tuple(features.shape[a] // 2 for a in axes)
        return self.linear(jnp.asarray(features)[(slice(None), *centre)])
