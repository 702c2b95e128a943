"""E[g²] over all weight settings of a tiny net, without sampling error."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from erftheory.empirical.nets.canvas import canvas
from erftheory.empirical.nets.draw import initialise
from erftheory.empirical.nets.execute import Mode, run
from erftheory.empirical.nets.plan import plan
from erftheory.erf import ERF, ErrorBound
from erftheory.network.arguments import integer
from erftheory.network.base import Network, check_network

LIMIT = 20
_WIDTH = 1 << 10


def enumerated(network: Network, channels: int = 1, seed: int = 0) -> ERF:
    """The exact mean of g² over all nets whose weights are ± their standard deviation.

    A net of K weights has 2^K settings, K at most 20; all run in float64 on one fixed generic
    input (iid normal from `seed`). For a ReLU net it equals the convolution of the variance
    kernels, whatever the input; see the law ACT-2.

    Returns:
      an `ERF` of the variance signal with `.samples` = 2^K.

    Raises:
      ValueError: more than 20 weights, or a global operation.
    """
    graph = check_network("network", network).graph
    integer("channels", channels)
    place = canvas(graph)
    made = plan(graph, channels, 1)
    mode = Mode(framed=True, statistics="frozen")
    inside = tuple(slice(f, f + n) for f, n in zip(place.first, place.size))
    with jax.enable_x64(True):
        # rademacher weights are ± their standard deviation: their sizes are the magnitudes
        drawn = initialise(
            network, jax.random.key(0), channels, "rademacher", "he", 1, jnp.float64
        ).weights
        leaves, tree = jax.tree.flatten(jax.tree.map(jnp.abs, drawn))
        count = sum(leaf.size for leaf in leaves)
        if count > LIMIT:
            raise ValueError(
                f"network: got {count} weights, 2**{count} nets; takes at most {LIMIT} weights"
            )
        x = jax.random.normal(jax.random.key(seed), (1, *place.shape), jnp.float64)
        bounds = np.cumsum([leaf.size for leaf in leaves])[:-1]

        def gradient(index: jax.Array) -> jax.Array:
            signs = 1.0 - 2.0 * ((index >> jnp.arange(count)) & 1)
            parts = jnp.split(signs.astype(jnp.float64), bounds)
            weights = tree.unflatten(
                [leaf * part.reshape(leaf.shape) for leaf, part in zip(leaves, parts)]
            )

            def unit(x: jax.Array) -> jax.Array:
                return run(made, weights, x, mode, None)[(slice(None), *place.unit)].sum()

            return jax.grad(unit)(x)[(0, *inside)]

        width = min(_WIDTH, 1 << count)

        @jax.jit
        def total() -> jax.Array:
            rows = jnp.arange(1 << count).reshape(-1, width)
            means = lax.map(lambda row: jnp.square(jax.vmap(gradient)(row)).mean(axis=0), rows)
            return means.mean(axis=0)

        mean = np.asarray(total())
    return ERF(
        offset=place.offset,
        signal="variance",
        method="enumerated",
        error=ErrorBound("rounding", 1e-13 * math.sqrt(mean.size)),
        map=mean,
        samples=1 << count,
        metadata={"channels": channels, "weights": "rademacher", "power": float(mean.sum())},
    )
