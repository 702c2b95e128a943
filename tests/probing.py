"""What each output unit of an executed model depends on, found without the package."""

import jax
import jax.numpy as jnp
import numpy as np

from erftheory import receptive_field
from erftheory.theory.lowering.lowering import build


def fields(function, shape, axes, nan=True, out_axes=None):
    """First and last pixel that reaches each output unit, by axis: arrays of the output's grid.

    All pixels up to every index of an axis, and from it on, are NaN (or moved) in one batch;
    a unit depends on them if it is NaN (or changes).
    """
    rng = np.random.default_rng(0)
    base = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    noise = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    out_axes = axes if out_axes is None else out_axes

    def reached(mask):
        moved = jnp.where(mask, jnp.nan if nan else base + noise, base)
        y = function(moved)
        hit = jnp.isnan(y) if nan else jnp.abs(y - function(base)) > 1e-4
        return hit.any(tuple(i for i in range(y.ndim) if i not in out_axes))

    result = []
    for axis in axes:
        n = shape[axis]
        index = np.arange(n).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        masks = [np.broadcast_to(index <= i, shape) for i in range(n)]
        masks += [np.broadcast_to(index >= i, shape) for i in range(n)]
        every = jax.jit(lambda m: jax.lax.map(reached, m, batch_size=16))
        hits = np.asarray(every(np.stack(masks)))
        first = hits[:n].argmax(0)  # the shortest prefix that reaches
        last = n - 1 - hits[n:][::-1].argmax(0)
        result.append((first, last))
    return result


def predicted(network, grid):
    """The same from `receptive_field`, for an unbounded image: arrays over the output grid."""
    field = receptive_field(network)
    periods = build(network, "gradient").phases
    rows = [(np.zeros(grid), np.zeros(grid)) for _ in range(network.ndim)]
    for unit in np.ndindex(*grid):
        phase = tuple(u % p for u, p in zip(unit, periods))
        found = field.phases[int(np.ravel_multi_index(phase, periods))]
        for a, (u, p) in enumerate(zip(unit, phase)):
            first = -found.padding[a] + (u - p) * found.stride[a]
            rows[a][0][unit], rows[a][1][unit] = first, first + found.size[a] - 1
    return rows


def check(network, function, shape, axes=(1, 2), nan=True, out_axes=None, margin=5):
    """Units whose field, and what lies `margin` around it, is inside the image have exactly it.

    The margin keeps the rims of the maps between out: padding and renormalised weights.
    """
    measured = fields(function, shape, axes, nan, out_axes)
    grid = measured[0][0].shape
    sizes = [shape[a] for a in axes]
    wanted = predicted(network, grid)
    inside = np.ones(grid, bool)
    for (first, last), n in zip(wanted, sizes):
        inside &= (first >= margin) & (last < n - margin)
    assert inside.any(), "no unit's field lies inside the image"
    for (first, last), (a, b) in zip(wanted, measured):
        assert (a[inside] == first[inside]).all()
        assert (b[inside] == last[inside]).all()
