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
    leaves, shape = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))

    def change(leaf: jax.Array, key: jax.Array) -> jax.Array:
        if leaf.ndim < 3:
            return leaf
        taps = int(np.prod(leaf.shape[:-2]))
        rows = leaf.reshape(taps, -1)
        order = jnp.argsort(jax.random.uniform(key, rows.shape), axis=0)
        return jnp.take_along_axis(rows, order, axis=0).reshape(leaf.shape)

    return shape.unflatten([change(leaf, k) for leaf, k in zip(leaves, keys, strict=True)])


def permuted_growth(found: Study) -> np.ndarray:
    """log(std with permuted trained weights / std before), one a seed."""
    out = []
    for seed, (_, (params, rest)) in enumerate(found.states):
        erf = found.measure((permuted(params, jax.random.key(seed)), rest))
        out.append(np.log(np.mean(erf.std) / found.std[seed, 0]))
    return np.array(out)


def controlled(pair: Pair, seeds: int | None = None, **options: Any) -> dict[str, Study]:
    """The pair's study under every control that is trained anew."""
    return {name: run(pair, seeds, **options) for name, run in CONTROLS.items()}
