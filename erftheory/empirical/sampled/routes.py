"""Convolutions of many nets at once, each net with weights of its own.

`vmap` over weights makes a grouped convolution, which XLA's backends run far from peak (and its
partitioner gathers). So the nets are laid out by hand, and a route says how they convolve:

- "map": one net after another, each by the backend's own convolution. Best on CPUs.
- "batched": patches times weights as one batched matrix product. For GPUs and TPUs.
- "lanes": the nets on the last axis and shifted multiply-adds over it, which vectorise whatever
  the number of channels. Best for a few channels.

An array is (nets, *spatial, channels), with "lanes" (channels, *spatial, nets): the spatial axes
are 1 … ndim in both. Weights come as (nets, out, in / groups, *kernel) and are turned once, by
`Layout.prepare`, into what the forward and the reverse pass read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from erftheory.empirical.nets.windows import slices, spread
from erftheory.network.layers import Step

NAMES = ("map", "batched", "lanes")

Weights = tuple[jax.Array, jax.Array]  # of the forward and of the reverse pass


@dataclass(frozen=True)
class Layout:
    """Where a route keeps nets and channels."""

    name: str

    @property
    def lanes(self) -> bool:
        return self.name == "lanes"

    @property
    def nets(self) -> int:
        return -1 if self.lanes else 0

    @property
    def channels(self) -> int:
        return 0 if self.lanes else -1

    def image(self, x: jax.Array) -> jax.Array:
        """From (nets, channels, *spatial)."""
        return jnp.moveaxis(x, 0, -1) if self.lanes else jnp.moveaxis(x, 1, -1)

    def back(self, x: jax.Array) -> jax.Array:
        """To (nets, channels, *spatial)."""
        return jnp.moveaxis(x, -1, 0) if self.lanes else jnp.moveaxis(x, -1, 1)

    def prepare(self, weight: jax.Array, step: Step, groups: int, stacked: int) -> Weights:
        """Forward and reverse weights of (nets, *stack, out, in / groups, *kernel), stack first.

        Turned here, a whole stack of layers at a time, they cost nothing in the layers.
        """
        ndim = len(step.stride)
        weight = jnp.moveaxis(weight, 0, stacked)
        spatial = tuple(range(weight.ndim - ndim, weight.ndim))
        flipped = jnp.flip(weight, spatial)
        straight, back = (flipped, weight) if step.up else (weight, flipped)
        return self._turned(straight, ndim), self._turned(_swapped(back, ndim, groups), ndim)

    def _turned(self, weight: jax.Array, ndim: int) -> jax.Array:
        out = weight.ndim - ndim - 2
        if self.lanes:
            return jnp.moveaxis(weight, out - 1, -1)
        return jnp.moveaxis(weight, (out, out + 1), (-1, -2))

    def convolve(self, x: jax.Array, weights: Weights, step: Step, groups: int) -> jax.Array:
        """The step's outputs that x, its whole input, determines (up-sampling: that it touches)."""
        if step.up:
            x, step = spread(x, step), step.sliding
        inside = {"map": _library, "batched": _patches, "lanes": _few}[self.name]
        if not self.lanes and groups == x.shape[-1] == weights[0].shape[-1] > 1:
            inside = _depthwise
        return _with_rule(inside, x, *weights, step, groups)

    def fixed(self, x: jax.Array, taps: np.ndarray, step: Step) -> jax.Array:
        """The same taps in every net and channel."""
        if step.up:
            x, taps = spread(x, step), np.flip(taps)
        total = None
        parts = slices(x, step)
        for tap, part in zip(np.ndindex(*step.kernel.shape), parts):
            if taps[tap]:
                term = part * jnp.asarray(taps[tap], x.dtype)
                total = term if total is None else total + term
        assert total is not None
        return total


def choose(platform: str, channels: int) -> str:
    """The fastest route that was measured (benchmarks/sampling.py)."""
    if channels <= 2:
        return "lanes"
    return "map" if platform == "cpu" else "batched"


def _swapped(weight: jax.Array, ndim: int, groups: int) -> jax.Array:
    """Channels in and out change places within each group: (…, out, in / groups, *kernel)."""
    at = weight.ndim - ndim - 2
    lead, out, inner, *kernel = weight.shape[:at], *weight.shape[at:]
    split = weight.reshape(*lead, groups, out // groups, inner, *kernel)
    turned = jnp.swapaxes(split, at + 1, at + 2)
    return turned.reshape(*lead, groups * inner, out // groups, *kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0, 4, 5))
def _with_rule(inside, x, weight, reverse, step, groups):
    """A convolution whose reverse pass is one too, with flipped weights and stride 1.

    Autodiff would scatter-add once a tap. No gradient reaches the weights: nobody asks for one.
    """
    return inside(x, weight, step, groups)


def _rule_forward(inside, x, weight, reverse, step, groups):
    return inside(x, weight, step, groups), (weight, reverse)


def _rule_backward(inside, step, groups, weights, g):
    weight, reverse = weights
    x = inside(spread(g, step), reverse, replace(step, up=True).sliding, groups)
    return x, jnp.zeros_like(weight), jnp.zeros_like(reverse)


_with_rule.defvjp(_rule_forward, _rule_backward)


def _library(x: jax.Array, weight: jax.Array, step: Step, groups: int) -> jax.Array:
    """One net by the backend's convolution.

    Only in this order of axes, without padding or zeros between the pixels, does XLA's CPU backend
    hand it to its fast kernel; the transpose that autodiff would take was 15 times slower.
    """
    if x.shape[0] != 1:
        raise ValueError(f"x: got {x.shape[0]} nets; the route takes one at a time")
    spatial = "DHW"[5 - x.ndim :]
    return lax.conv_general_dilated(
        x, weight[0], step.stride, "VALID",
        rhs_dilation=step.dilation, feature_group_count=groups,
        dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        precision=lax.Precision.HIGHEST,
    )  # fmt: skip


def _patches(x: jax.Array, weight: jax.Array, step: Step, groups: int) -> jax.Array:
    """(nets, *spatial, channels): patches times weights, batched over nets and groups."""
    nets, inner, out = x.shape[0], *weight.shape[-2:]
    parts = slices(x, step)
    size = parts[0].shape[1:-1]
    # order of a patch: taps, then channels, as in the weights
    grouped = [p.reshape(nets, math.prod(size), groups, inner) for p in parts]
    patch = jnp.stack(grouped, axis=3).reshape(nets, math.prod(size), groups, -1)
    matrix = weight.reshape(nets, -1, groups, out // groups)
    y = jnp.einsum("npgk,nkgo->npgo", patch, matrix, precision=lax.Precision.HIGHEST)
    return y.reshape(nets, *size, out)


def _depthwise(x: jax.Array, weight: jax.Array, step: Step, groups: int) -> jax.Array:
    """(nets, *spatial, channels), one filter a channel: shifted multiply-adds along channels."""
    parts = slices(x, step)
    shape = (weight.shape[0], *[1] * (x.ndim - 2), groups)
    total = None
    for tap, part in zip(np.ndindex(*step.kernel.shape), parts):
        term = part * weight[(slice(None), *tap, 0)].reshape(shape)
        total = term if total is None else total + term
    assert total is not None
    return total


def _few(x: jax.Array, weight: jax.Array, step: Step, groups: int) -> jax.Array:
    """(channels, *spatial, nets): shifted multiply-adds along the nets."""
    kernel = step.kernel.shape
    parts = slices(x, step)
    out, inner = weight.shape[:2]
    size, nets = parts[0].shape[1:-1], x.shape[-1]
    w = weight.reshape(groups, out // groups, inner, *kernel, nets)
    ones = (1,) * len(size)
    total = None
    for tap, part in zip(np.ndindex(*kernel), parts):
        here = part.reshape(groups, inner, *size, nets)
        for c in range(inner):
            scale = w[(slice(None), slice(None), c, *tap)]
            term = scale.reshape(groups, out // groups, *ones, nets) * here[:, None, c]
            total = term if total is None else total + term
    assert total is not None
    return total.reshape(out, *size, nets)
