"""Convolutions of many nets at once, each net with weights of its own.

`vmap` over weights makes a grouped convolution, which XLA's backends run far from peak (and its
partitioner gathers). So the nets are laid out by hand, and a route says how they convolve:

- "map": one net after another, each by the backend's own convolution. Best on CPUs.
- "batched": patches times weights as one batched matrix product. For GPUs and TPUs.
- "lanes": the nets on the last axis and shifted multiply-adds over it, which vectorise whatever
  the number of channels. Best for a few channels.

An array is (nets, *spatial, channels), with "lanes" (channels, *spatial, nets): the spatial axes
are 1 … ndim in both. Weights are (nets, out, in / groups, *kernel), with "lanes" the nets last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from erftheory.network.layers import Step

NAMES = ("map", "batched", "lanes")


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

    def convolve(self, x: jax.Array, weight: jax.Array, step: Step, groups: int) -> jax.Array:
        """The step's outputs that x, its whole input, determines (up-sampling: that it touches)."""
        if self.name == "map":
            return _library(x, weight, step, groups)
        if step.up:
            x, weight = _spread(x, weight, step, self.lanes)
            step = _sliding(step)
        inside = _few if self.lanes else _patches
        if all(s == 1 for s in step.stride):
            return _with_rule(inside, x, weight, step, groups, self.lanes)
        return inside(x, weight, step, groups)

    def fixed(self, x: jax.Array, taps: np.ndarray, step: Step) -> jax.Array:
        """The same taps in every net and channel."""
        stride = (1,) * len(step.stride) if step.up else step.stride
        if step.up:
            low = [d * (k - 1) for k, d in zip(step.kernel.shape, step.dilation)]
            pads = [(n, n, s - 1) for n, s in zip(low, step.stride)]
            x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
            taps = np.flip(taps)
        total = None
        parts = slices(x, step.kernel.shape, stride, step.dilation)
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


def slices(
    x: jax.Array, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> list[jax.Array]:
    """What each tap reads, in row-major order of the taps; the spatial axes are 1 … ndim."""
    rows = list(zip(x.shape[1:-1], kernel, stride, dilation, strict=True))
    sizes = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in rows]
    out = []
    for tap in np.ndindex(*kernel):
        start = [t * d for t, (_, _, _, d) in zip(tap, rows)]
        limit = [b + s * (m - 1) + 1 for b, m, (_, _, s, _) in zip(start, sizes, rows)]
        ends = (x.shape[0], *limit, x.shape[-1])
        out.append(lax.slice(x, (0, *start, 0), ends, (1, *stride, 1)))
    return out


def _library(x: jax.Array, weight: jax.Array, step: Step, groups: int) -> jax.Array:
    """One net by the backend's convolution; its transpose is one too."""
    ndim = x.ndim - 2
    if x.shape[0] != 1:
        raise ValueError(f"x: got {x.shape[0]} nets; the route takes one at a time")
    pads = [(0, 0)] * ndim
    if step.up:
        weight = jnp.flip(weight, tuple(range(3, ndim + 3)))
        span = [d * (k - 1) for k, d in zip(step.kernel.shape, step.dilation)]
        pads = [(n, n) for n in span]
    weight = jnp.moveaxis(weight[0], (0, 1), (-1, -2))
    spatial = "DHW"[-ndim:]
    return lax.conv_general_dilated(
        x, weight, (1,) * ndim if step.up else step.stride, pads,
        lhs_dilation=step.stride if step.up else None, rhs_dilation=step.dilation,
        dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        feature_group_count=groups, precision=lax.Precision.HIGHEST,
    )  # fmt: skip


def _sliding(step: Step) -> Step:
    ones = (1,) * len(step.stride)
    return Step(step.kernel, ones, step.dilation, ones, ones)


def _spread(
    x: jax.Array, weight: jax.Array, step: Step, lanes: bool
) -> tuple[jax.Array, jax.Array]:
    """Input with zeros between and around, and flipped weights: up-sampling as a sliding window."""
    span = [d * (k - 1) for k, d in zip(step.kernel.shape, step.dilation)]
    pads = [(0, 0, 0), *((n, n, s - 1) for n, s in zip(span, step.stride)), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), pads), _flip(weight, len(span), lanes)


def _flip(weight: jax.Array, ndim: int, lanes: bool) -> jax.Array:
    first = 2 if lanes else 3
    return jnp.flip(weight, tuple(range(first, first + ndim)))


@partial(jax.custom_vjp, nondiff_argnums=(0, 3, 4, 5))
def _with_rule(inside, x, weight, step, groups, lanes):
    """A stride-1 convolution whose reverse pass is one too, with flipped weights.

    Autodiff would scatter-add once a tap. No gradient reaches the weights: nobody asks for one.
    """
    return inside(x, weight, step, groups)


def _rule_forward(inside, x, weight, step, groups, lanes):
    return inside(x, weight, step, groups), weight


def _rule_backward(inside, step, groups, lanes, weight, g):
    span = [d * (k - 1) for k, d in zip(step.kernel.shape, step.dilation)]
    padded = lax.pad(g, jnp.zeros((), g.dtype), [(0, 0, 0), *((n, n, 0) for n in span), (0, 0, 0)])
    flipped = _flip(weight, len(span), lanes)
    axis = 0 if lanes else 1
    # channels in and out change places within each group
    out, inner = flipped.shape[axis], flipped.shape[axis + 1]
    split = (*flipped.shape[:axis], groups, out // groups, *flipped.shape[axis + 1 :])
    turned = jnp.swapaxes(flipped.reshape(split), axis + 1, axis + 2)
    joined = (*flipped.shape[:axis], groups * inner, out // groups, *flipped.shape[axis + 2 :])
    return inside(padded, turned.reshape(joined), step, groups), jnp.zeros_like(weight)


_with_rule.defvjp(_rule_forward, _rule_backward)


def _patches(x: jax.Array, weight: jax.Array, step: Step, groups: int) -> jax.Array:
    """(nets, *spatial, channels): patches times weights, batched over nets and groups."""
    nets = x.shape[0]
    kernel = step.kernel.shape
    parts = slices(x, kernel, step.stride, step.dilation)
    size = parts[0].shape[1:-1]
    out, inner = weight.shape[1:3]
    # order of a patch: taps, then channels, as the weights are turned to be
    grouped = [p.reshape(nets, math.prod(size), groups, inner) for p in parts]
    patch = jnp.stack(grouped, axis=3).reshape(nets, math.prod(size), groups, -1)
    matrix = weight.reshape(nets, groups, out // groups, inner, *kernel)
    matrix = jnp.moveaxis(matrix, (2, 3), (-1, -2)).reshape(nets, groups, -1, out // groups)
    y = jnp.einsum("npgk,ngko->npgo", patch, matrix, precision=lax.Precision.HIGHEST)
    return y.reshape(nets, *size, out)


def _few(x: jax.Array, weight: jax.Array, step: Step, groups: int) -> jax.Array:
    """(channels, *spatial, nets): shifted multiply-adds along the nets."""
    kernel = step.kernel.shape
    parts = slices(x, kernel, step.stride, step.dilation)
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
