"""The receptive field of a network, by watching NaN spread through the executed net."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from erftheory.empirical.nets.canvas import canvas
from erftheory.empirical.nets.draw import initialise
from erftheory.empirical.nets.execute import Mode, run
from erftheory.empirical.nets.plan import plan
from erftheory.network.arguments import integer
from erftheory.network.base import Network, check_network


@dataclass(frozen=True)
class Probe:
    """What a probe found, one entry an axis.

    Attributes:
      size: input pixels from the first to the last that reach the unit.
      offset: of a network, the input index of the first for output index 0 (the convention of
        `ERF.offset`); None for a function, whose stride nobody declared.
      first, last: of a function, those input pixels themselves.
      clipped: True where the field reaches the image's rim and may go on beyond it.
      holes: of a function, the rows between first and last that do not reach the unit.
      phases: one `Probe` for each of several units.
      mode: how it was found, "nan" or "perturb".
    """

    size: tuple[int, ...]
    offset: tuple[int, ...] | None
    first: tuple[int, ...] | None = None
    last: tuple[int, ...] | None = None
    clipped: tuple[bool, ...] = ()
    holes: tuple[tuple[int, ...], ...] = ()
    phases: tuple[Probe, ...] = ()
    mode: str = "nan"


def probe_network(network: Network, channels: int = 2, margin: int = 2) -> Probe:
    """The receptive field of the executed random net, by bisection with NaN.

    With all pixels up to index j of an axis NaN, the unit is NaN exactly if the receptive field
    starts at j or before; likewise from the other end. Batch norm and dropout act as identities,
    because statistics would carry NaN everywhere and masks would hide it.

    Raises:
      ValueError: a global operation.
      RuntimeError: the field reaches the rim of the canvas, so padding may hide some of it.
    """
    graph = check_network("network", network).graph
    integer("margin", margin, 1)
    # in input pixels: a net that up-samples has several output pixels to one of them
    place = canvas(graph, margin=margin * max(math.ceil(1 / rate) for rate in graph.rate))
    made = plan(graph, channels, 1)
    weights = initialise(network, jax.random.key(1), channels).weights
    mode = Mode(framed=True, statistics="skip")
    ndim = graph.ndim

    @jax.jit
    def reached(axis: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
        """Whether NaN at pixels [low, high) of `axis` arrives, for a batch."""

        def one(axis: Any, low: Any, high: Any) -> jax.Array:
            grids = jnp.stack(jnp.meshgrid(*map(jnp.arange, place.shape), indexing="ij"))
            position = grids[axis]
            x = jnp.where((position >= low) & (position < high), jnp.nan, 1.0)
            y = run(made, weights, x[None].astype(jnp.float32), mode, None)
            return jnp.isnan(y[(slice(None), *place.unit)]).any()

        return jax.vmap(one)(axis, low, high)

    # rows: per axis, the largest prefix and the largest suffix that do not reach the unit
    axes = np.repeat(np.arange(ndim), 2)
    lengths = np.array(place.shape)[axes]
    suffix = np.arange(2 * ndim) % 2 == 1
    silent, loud = np.zeros(2 * ndim, int), lengths.copy()
    while (loud - silent > 1).any():
        middle = (silent + loud) // 2
        low = np.where(suffix, lengths - middle, 0)
        high = np.where(suffix, lengths, middle)
        hit = np.asarray(reached(axes, low, high))
        silent, loud = np.where(hit, silent, middle), np.where(hit, middle, loud)
    first, last = loud[::2] - 1, lengths[1::2] - loud[1::2]
    if (silent == 0).any():
        raise RuntimeError("the NaN probe reached the rim of its canvas; a larger margin is needed")
    shift = [f - o for f, o in zip(place.first, place.offset)]
    return Probe(
        tuple(int(n) for n in last - first + 1),
        tuple(int(f - s) for f, s in zip(first, shift)),
    )
