"""How layers without weights are executed: one row a layer and no default, for both executors.

`execute` runs one net, channels first; `engine` many, in the layout of a route. What differs
between them is where the channels lie, over what statistics are taken and how masks are drawn
(`Place`); what a layer computes is said here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from erftheory.empirical.nets.windows import largest, slices
from erftheory.network.activations import CURVES, Mathematics
from erftheory.network.endless import Along, Endless, GlobalAvgPool, Recurrent
from erftheory.network.imported import Channels, Scale, Spatial
from erftheory.network.layers import (
    Activation,
    AvgPool,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dropout,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    MaxPool,
    Norm,
    RMSNorm,
    Step,
    Upsample,
)

JAX = Mathematics(jnp.where, jnp.abs, jnp.tanh, jax.scipy.special.erf, jnp.exp)


@dataclass(frozen=True)
class Place:
    """Where an executor keeps what layers of one pixel need.

    Attributes:
      channels: axis of the channels.
      statistics: those of normalisations: "live", "frozen" (no gradient through them), "skip".
      moments: mean and variance of every channel over its pixels.
      mask: booleans, true with a probability, of an array's shape; None where nothing is dropped.
    """

    channels: int
    statistics: str
    moments: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
    mask: Callable[[float, jax.Array], jax.Array] | None


def activation(name: str, x: jax.Array) -> jax.Array:
    """The curve of an `Activation`, which JAX differentiates by itself."""
    return CURVES[name].function(x, JAX)


def _dropped(op: Dropout, x: jax.Array, on: Place) -> jax.Array:
    if on.mask is None or op.rate == 0:
        return x
    keep = 1 - float(op.rate)
    return jnp.where(on.mask(keep, x), x / keep, jnp.zeros((), x.dtype))


def _normalised(op: Norm, x: jax.Array, on: Place) -> jax.Array:
    if on.statistics == "skip":
        return x
    channels = on.channels
    if isinstance(op, LayerNorm):
        mean, var = x.mean(channels, keepdims=True), x.var(channels, keepdims=True)
    elif isinstance(op, RMSNorm):
        mean = jnp.zeros((), x.dtype)
        var = jnp.square(x).mean(channels, keepdims=True)
    else:
        mean, var = on.moments(x)
    if isinstance(op, GroupNorm):
        count = x.shape[channels]
        if count % op.groups:
            raise ValueError(f"groups: got {op.groups}; takes a divisor of its {count} channels")

        def over(v: jax.Array) -> jax.Array:  # means over the channels of a group
            v = jnp.moveaxis(v, channels, -1)
            v = v.reshape(*v.shape[:-1], op.groups, -1).mean(-1)
            return jnp.moveaxis(jnp.repeat(v, count // op.groups, -1), -1, channels)

        whole = over(mean)
        mean, var = whole, over(var + jnp.square(mean - whole))
    if on.statistics == "frozen":
        mean, var = lax.stop_gradient((mean, var))
    return (x - mean) * lax.rsqrt(var + jnp.asarray(1e-5, x.dtype))


def _spread(op: Channels, x: jax.Array, on: Place) -> jax.Array:
    count = x.shape[on.channels]
    if op.channels % count:
        raise ValueError(
            f"network: got {op!r} behind {count} channels, and does not know which of them; takes "
            "a network without it, see until()"
        )
    return jnp.repeat(x, op.channels // count, on.channels)


def _never(op: Endless, x: jax.Array, on: Place) -> jax.Array:
    raise ValueError(
        f"network: got a {op.called()}, which is not executed; takes the network up to a map "
        "before it, see until(), or gradient_erf of the model itself"
    )


POINTWISE: dict[type, Callable[..., jax.Array]] = {
    Activation: lambda op, x, on: activation(op.curve, x),
    Dropout: _dropped,
    Scale: lambda op, x, on: x * jnp.asarray(op.factor, x.dtype),
    Channels: _spread,
    BatchNorm: _normalised,
    InstanceNorm: _normalised,
    GroupNorm: _normalised,
    LayerNorm: _normalised,
    RMSNorm: _normalised,
    Recurrent: _never,
    Along: _never,
}


@dataclass(frozen=True)
class Over:
    """A layer that makes each pixel of what its window reads, in every channel alike.

    Attributes:
      value: from the layer and what each tap reads (arrays of one shape, row-major order of the
        taps) to the output of that shape, elementwise.
      fill: what padding holds.
    """

    value: Callable[[Any, list[jax.Array]], jax.Array]
    fill: float = 0.0


# What slides over pixels: a function of what it reads, or what the executors do with it.
WINDOWS: dict[type, Over | str] = {
    Conv: "weights",
    ConvTranspose: "weights",
    MaxPool: Over(lambda op, parts: largest(parts), -math.inf),
    AvgPool: "mean",
    GlobalAvgPool: "mean",
    Upsample: "taps",
    Spatial: "taps",  # or pixels that become channels, and back
}


def pointwise(op: Layer, x: jax.Array, on: Place) -> jax.Array:
    """A layer of one pixel.

    Raises:
      ValueError: a layer without a row.
    """
    return _row(POINTWISE, op)(op, x, on)


def window(op: Layer) -> Over | str:
    """What a layer that slides over pixels does: `Over`, "weights", "mean", "taps" or "moves".

    Raises:
      ValueError: a layer without a row, or one that picks pixels by their values.
    """
    kind = _row(WINDOWS, op)
    if isinstance(op, Spatial) and op.rule.kind != "fixed":
        if op.channels is None:
            raise ValueError(
                f"network: got {op!r}, which picks pixels by their values or mixes them by others; "
                "takes a network without it, see until()"
            )
        return "moves"
    return kind


def _row(table: dict[type, Any], op: Layer) -> Any:
    if type(op) not in table:
        raise ValueError(
            f"network: got the layer {op!r}, which cannot be executed; takes layers with a row in "
            "erftheory.empirical.nets.rules"
        )
    return table[type(op)]


def fixed_taps(op: Layer, step: Step) -> np.ndarray:
    """The same taps in every net and channel, with their signs, shape of the kernel; of a pool or
    another function of a window, those of its mean."""
    kernel = step.signed or step.kernel
    taps = np.array([float(t) for t in kernel.exact]).reshape(kernel.shape)
    mean = WINDOWS.get(type(op)) == "mean" or isinstance(WINDOWS.get(type(op)), Over)
    return taps / math.prod(kernel.shape) if mean else taps


def moved(op: Any, x: jax.Array) -> jax.Array:
    """Place of blocks that become channels, or channels that become pixels.

    Args:
      x: shape (channels, *spatial), padded; all outputs of it are made.
    """
    step, ndim = op.rule, x.ndim - 1
    block = math.prod(step.stride)
    if not step.up:
        kept = [part for part, tap in zip(slices(x, step), step.kernel.exact) if tap]
        found = jnp.stack(kept, axis=1)
        found = found.reshape(-1, *found.shape[2:])
        if len(found) == op.channels:
            return found
    elif step.kernel.shape == step.stride and len(x) == (op.channels or 0) * block:
        found = x.reshape(-1, *step.stride, *x.shape[1:])
        order = [0, *(i for a in range(ndim) for i in (1 + ndim + a, 1 + a))]
        sizes = (n * s for n, s in zip(x.shape[1:], step.stride))
        return found.transpose(order).reshape(-1, *sizes)
    raise ValueError(
        f"network: got {op!r} from {len(x)} to {op.channels} channels, some of which it leaves "
        "out; takes a network without it, see until()"
    )
