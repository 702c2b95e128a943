"""What a referee would ask: is it the task, the images, the law of the weights, or the decay?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from erftheory.training.studies.study import Pair, Study, study


def decay_alone(rate: Any, weight_decay: float = 0.1) -> optax.GradientTransformation:
    """Weight decay without a task."""
    return optax.chain(
        optax.set_to_zero(),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(rate),
    )


CONTROLS: dict[str, Callable[..., Study]] = {
    "labels shuffled": partial(study, spoil=lambda data: data.shuffled(0)),
    "images of noise": partial(study, spoil=lambda data: data.noise(0)),
    "weight decay alone": partial(study, optimizer=decay_alone),
}


def permuted(params: Any, key: jax.Array) -> Any:
    """Weights whose taps are permuted, in every filter and channel by itself.

    The law of the weights stays, the shape of the filters goes. Kernels are (*kernel, in, out).
    """

    def change(leaf: jax.Array, key: jax.Array) -> jax.Array:
        rows = leaf.reshape(int(np.prod(leaf.shape[:-2])), -1)
        order = jnp.argsort(jax.random.uniform(key, rows.shape), axis=0)
        return jnp.take_along_axis(rows, order, axis=0).reshape(leaf.shape)

    return _kernels(change, params, key)


def resigned(params: Any, key: jax.Array) -> Any:
    """Weights whose signs are drawn anew.

    All squares stay, of every tap and between every two channels; what the signs agreed on goes.
    """

    def change(leaf: jax.Array, key: jax.Array) -> jax.Array:
        return leaf * jax.random.rademacher(key, leaf.shape, leaf.dtype)

    return _kernels(change, params, key)


def _kernels(change: Callable[..., jax.Array], params: Any, key: jax.Array) -> Any:
    leaves, shape = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    return shape.unflatten([
        leaf if leaf.ndim < 3 else change(leaf, k) for leaf, k in zip(leaves, keys, strict=True)
    ])  # fmt: skip


SPOILED: dict[str, Callable[[Any, jax.Array], Any]] = {
    "trained, taps permuted": permuted,
    "trained, signs redrawn": resigned,
}


def spoiled_growth(found: Study, spoil: Callable[[Any, jax.Array], Any]) -> np.ndarray:
    """log(std with spoiled trained weights / std before), one a seed; norms settle on them."""
    out = []
    for seed, (_, (params, rest)) in enumerate(found.states):
        changed = spoil(params, jax.random.key(seed))
        erf = found.measure((changed, found.settle(changed, rest, seed)))
        out.append(np.log(np.mean(erf.std) / found.std[seed, 0]))
    return np.array(out)


def controlled(pair: Pair, seeds: int | None = None, **options: Any) -> dict[str, Study]:
    """The pair's study under every control that is trained anew."""
    return {name: run(pair, seeds, **options) for name, run in CONTROLS.items()}
