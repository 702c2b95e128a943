"""What the taps of a window read, and what is made of it: shared by both executors.

The spatial axes of an array are 1 … ndim; what lies behind them (channels or nets) is carried
along.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from erftheory.network.step import Step


def slices(x: jax.Array, step: Step) -> list[jax.Array]:
    """What each tap of `step.sliding` reads, in row-major order of the taps; `x` is padded.

    Raises:
      ValueError: fewer pixels than the window has.
    """
    step, ndim = step.sliding, len(step.stride)
    sizes = [step.size(axis, n) for axis, n in enumerate(x.shape[1 : 1 + ndim])]
    if min(sizes) < 1:
        raise ValueError(
            f"x: got {x.shape[1 : 1 + ndim]} pixels (padded) at a kernel of {step.kernel.shape}; "
            "takes at least the kernel's extent"
        )
    rest = x.shape[1 + ndim :]
    strides = (1, *step.stride, *(1 for _ in rest))
    out = []
    for tap in np.ndindex(*step.kernel.shape):
        start = [t * d for t, d in zip(tap, step.dilation)]
        limit = [b + s * (m - 1) + 1 for b, m, s in zip(start, sizes, step.stride)]
        ends = (x.shape[0], *limit, *rest)
        out.append(lax.slice(x, (0, *start, *(0 for _ in rest)), ends, strides))
    return out


def spread(x: jax.Array, step: Step) -> jax.Array:
    """Zeros between the pixels of `x` and around them, over which a transposed window slides."""
    pads = [(n, n, s - 1) for n, s in zip(step.span, step.stride)]
    rest = [(0, 0, 0)] * (x.ndim - 1 - len(pads))
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *pads, *rest])


def padded(x: jax.Array, step: Step, fill: float = 0.0) -> jax.Array:
    """`x`, or with `up` what `spread` makes of it, with the step's own padding or cropping."""
    if step.up:
        rows = zip(step.span, step.before, step.after, step.stride)
        pads = [(n - b, n - a, s - 1) for n, b, a, s in rows]
    else:
        pads = [(b, a, 0) for b, a in zip(step.before, step.after)]
    rest = [(0, 0, 0)] * (x.ndim - 1 - len(pads))
    return lax.pad(x, jnp.asarray(fill, x.dtype), [(0, 0, 0), *pads, *rest])


def largest(parts: list[jax.Array]) -> jax.Array:
    """The elementwise maximum; its gradient goes to exactly one of the parts, NaN survives.

    `jnp.max` compares the parts with the maximum again in its reverse pass. Where XLA computes them
    anew there, rounded otherwise, none may be equal and the gradient is lost.
    """
    best = parts[0]
    for part in parts[1:]:
        best = jnp.where((part > best) | jnp.isnan(part), part, best)
    return best
