"""One update of a module as a pure function, and its scores on images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from erftheory.training.fitting.augment import Augment

State = tuple[Any, Any, Any]  # parameters, other variables (statistics, keys), optimiser


@dataclass(frozen=True)
class Update:
    """What an update does.

    Attributes:
      graph: the module's structure in training mode.
      optimizer: Optax's.
      smoothing: share of a label that goes to all classes alike.
      weights: of the classes, shape (classes,), or None.
      augment: changes to a batch, in order.
    """

    graph: Any
    optimizer: optax.GradientTransformation
    smoothing: float = 0.0
    weights: Any = None
    augment: Sequence[Augment] = ()

    def start(self, module: nnx.Module) -> State:
        _, params, rest = nnx.split(module, nnx.Param, ...)
        return params, rest, self.optimizer.init(params)

    def __call__(
        self, state: State, images: jax.Array, labels: jax.Array, key: jax.Array
    ) -> tuple[State, jax.Array]:
        """The state behind one batch, and the loss before it."""
        params, rest, memory = state
        for i, change in enumerate(self.augment):
            images, labels = change(jax.random.fold_in(key, i), images, labels)

        def objective(params: Any) -> tuple[jax.Array, Any]:
            module = nnx.merge(self.graph, params, rest, copy=True)
            found = loss(module(images), labels, self.smoothing, self.weights)
            return found, nnx.split(module, nnx.Param, ...)[2]

        (value, rest), gradient = jax.value_and_grad(objective, has_aux=True)(params)
        changes, memory = self.optimizer.update(gradient, memory, params)
        return (optax.apply_updates(params, changes), rest, memory), value


def structure(module: nnx.Module, training: bool) -> Any:
    """The module's structure in one of its modes, and the module left in that mode."""
    module.train() if training else module.eval()
    return nnx.split(module, nnx.Param, ...)[0]


def loss(scores: jax.Array, labels: jax.Array, smoothing: float, weights: Any) -> jax.Array:
    """Mean cross-entropy of scores (…, classes) at labels (…); those of -1 do not count."""
    classes = scores.shape[-1]
    counts = labels >= 0
    target = jax.nn.one_hot(jnp.maximum(labels, 0), classes)
    target = (1 - smoothing) * target + smoothing / classes
    each = optax.softmax_cross_entropy(scores, target)
    share = counts.astype(each.dtype)
    if weights is not None:
        share = share * jnp.asarray(weights, each.dtype)[jnp.maximum(labels, 0)]
    return (each * share).sum() / jnp.maximum(share.sum(), 1e-12)


def confusion(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """Counts (true class, found class); labels of -1 do not count."""
    classes = scores.shape[-1]
    found = scores.argmax(-1).ravel()
    true = labels.ravel()
    place = jnp.where(true >= 0, true * classes + found, classes * classes)
    counts = jnp.bincount(place, length=classes * classes + 1)
    return counts[:-1].reshape(classes, classes)


def evaluation(graph: Any) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """(parameters, rest, images, labels) to the summed loss and the confusion of a batch."""

    def run(params: Any, rest: Any, images: jax.Array, labels: jax.Array):
        scores = nnx.merge(graph, params, rest, copy=True)(images)
        return loss(scores, labels, 0.0, None) * (labels >= 0).sum(), confusion(scores, labels)

    return run
