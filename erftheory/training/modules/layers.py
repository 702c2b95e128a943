"""Layers that Flax lacks, over arrays (batch, *spatial, channels)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from erftheory.empirical.nets import rules
from erftheory.empirical.nets.windows import padded, slices
from erftheory.network.step import Step


class ConvTranspose(nnx.Module):
    """PyTorch's transposed convolution, with groups and output padding.

    Attributes:
      kernel: (*kernel, in / groups, out), as a convolution over the spread input reads it.
      bias: (out,) or None.
    """

    def __init__(self, kernel: jax.Array, step: Step, groups: int, use_bias: bool):
        self.kernel = nnx.Param(kernel)
        self.bias = nnx.Param(jnp.zeros(kernel.shape[-1], kernel.dtype)) if use_bias else None
        self.step, self.groups = step, groups

    def __call__(self, x: jax.Array) -> jax.Array:
        step, ndim = self.step, x.ndim - 2
        spatial = "DHW"[3 - ndim :]
        y = lax.conv_general_dilated(
            x, self.kernel[...], (1,) * ndim,
            [(n - b, n - a) for n, b, a in zip(step.span, step.before, step.after)],
            lhs_dilation=step.stride, rhs_dilation=step.dilation, feature_group_count=self.groups,
            dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        )  # fmt: skip
        return y if self.bias is None else y + self.bias[...]


class Call(nnx.Module):
    """A function of an array, without weights: what it computes is `function(x)`."""

    def __init__(self, function: Callable[[jax.Array], jax.Array]):
        self.function = function

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.function(x)


def largest(step: Step) -> Callable[[jax.Array], jax.Array]:
    """Max pooling; of windows without dilation by the backend's own."""
    kernel, stride = step.kernel.shape, step.stride
    ends = tuple(zip(step.before, step.after))
    if set(step.dilation) == {1} and min(min(e) for e in ends) >= 0:
        return lambda x: nnx.max_pool(x, kernel, stride, ends)  # pyright: ignore[reportArgumentType]
    return over(lambda parts: rules.largest(parts), -np.inf, step)


def mean(step: Step, pad_counts: bool) -> Callable[[jax.Array], jax.Array]:
    """Average pooling; zeros of the padding count or do not."""
    window, strides = (1, *step.kernel.shape, 1), (1, *step.stride, 1)
    ends = [(0, 0), *zip(step.before, step.after), (0, 0)]
    size = math.prod(step.kernel.shape)

    def total(x: jax.Array) -> jax.Array:
        return lax.reduce_window(
            x, np.zeros((), x.dtype), lax.add, window, strides, ends,
            window_dilation=(1, *step.dilation, 1),
        )  # fmt: skip

    if pad_counts:
        return lambda x: total(x) / size
    return lambda x: total(x) / total(jnp.ones_like(x[:1, ..., :1]))


def over(
    value: Callable[[list[jax.Array]], jax.Array], fill: float, step: Step
) -> Callable[[jax.Array], jax.Array]:
    """A function of what each tap reads; padding holds `fill`."""
    return lambda x: value(slices(padded(x, step, fill), step))


def fixed(taps: np.ndarray, step: Step) -> Callable[[jax.Array], jax.Array]:
    """The same taps in every channel, as a sum of shifted images: constants, nothing to learn."""
    if step.up:
        taps = np.flip(taps)

    def run(x: jax.Array) -> jax.Array:
        total: Any = 0
        for tap, part in zip(np.ndindex(*taps.shape), slices(padded(x, step), step)):
            if taps[tap]:
                total = total + part * jnp.asarray(taps[tap], x.dtype)
        return total

    return run


def moved(op: Any, step: Step) -> Callable[[jax.Array], jax.Array]:
    """Blocks of pixels that become channels, or channels that become pixels."""

    def one(x: jax.Array) -> jax.Array:  # (channels, *spatial)
        if not step.up:
            return rules.moved(op, padded(x, step))
        ends = [(-b, -a, 0) for b, a in zip(step.before, step.after)]
        return lax.pad(rules.moved(op, x), jnp.zeros((), x.dtype), [(0, 0, 0), *ends])

    return lambda x: jnp.moveaxis(jax.vmap(one)(jnp.moveaxis(x, -1, 1)), 1, -1)
