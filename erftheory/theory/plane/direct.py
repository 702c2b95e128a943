"""The ERF by plain repeated convolution, in JAX: signals are arrays of weights.

Every layer is a sum of shifted copies. All weights stay positive, so each keeps its relative
accuracy; the cost grows with depth times size. It shares the walk with the spectrum, not a line of
arithmetic.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from erftheory.theory.plane.tables import tables
from erftheory.theory.walk.algebra import Algebra
from erftheory.theory.walk.walk import Edge, Walk


@jax.jit
def _once(
    total: Float[Array, "*pixel"],
    signal: Float[Array, "*pixel"],
    weight: Float[Array, " tap"],
    position: Int[Array, "tap axis"],
    used: Int[Array, ""],
) -> Float[Array, "*pixel"]:
    """`total` and the sum of `used` shifted copies of a signal."""
    axes = tuple(range(signal.ndim))

    def tap(i, total):
        return total + weight[i] * jnp.roll(signal, position[i], axes)

    return jax.lax.fori_loop(0, used, tap, total)


@jax.jit
def _repeat(
    signal: Float[Array, "*pixel"],
    weight: Float[Array, " tap"],
    position: Int[Array, "tap axis"],
    used: Int[Array, ""],
    count: Int[Array, ""],
) -> Float[Array, "*pixel"]:
    """`count` times the sum of `used` shifted copies."""
    layer = lambda _, g: _once(jnp.zeros_like(g), g, weight, position, used)  # noqa: E731
    return jax.lax.fori_loop(0, count, layer, signal)


@partial(jax.jit, static_argnums=0)
def _thin(grid, signal):
    for axis, g in enumerate(grid):
        shape = [1] * signal.ndim
        shape[axis] = signal.shape[axis]
        keep = jnp.arange(signal.shape[axis]) % g == 0
        signal = signal * keep.reshape(shape)
    return signal


class DirectAlgebra(Algebra):
    """Arrays on a ring of `grid` points, each long enough for the whole signal."""

    def __init__(self, grid: tuple[int, ...]):
        self.grid = grid

    def unit(self, position):
        signal = np.zeros(self.grid)
        signal[tuple(p % n for p, n in zip(position, self.grid))] = 1
        return jnp.asarray(signal)

    def pull(self, signal, edge: Edge):
        for f in edge.factors:
            if isinstance(f.kernel, Walk):
                for _ in range(f.count):
                    signal = self.through(signal, f.kernel)
                continue
            chunks = list(tables([(f.kernel, f.spacing, 1)], centred=False))
            if len(chunks) == 1:
                t = chunks[0]
                signal = _repeat(signal, t.weight, t.position, t.used, f.count)
                continue
            for _ in range(f.count):
                total = jnp.zeros_like(signal)
                for t in chunks:
                    total = _once(total, signal, t.weight, t.position, t.used)
                signal = total
        if any(edge.shift):
            signal = jnp.roll(signal, edge.shift, tuple(range(signal.ndim)))
        return signal if edge.restrict is None else _thin(edge.restrict, signal)

    def mix(self, parts):
        total = jnp.zeros(self.grid)
        for weight, signal in parts:
            total = total + float(weight) * signal
        return total

    def map(self, walk: Walk, position=None, first: tuple[int, ...] = ()) -> np.ndarray:
        """Signal at all N lattice points an axis, the one at `first` leading; shape `grid`."""
        signal = np.asarray(self.fold(walk, position))
        return np.roll(signal, [-f for f in first], tuple(range(signal.ndim)))
