"""Executable nets: a network description with random weights, run forward in JAX.

`initialise` draws the weights, `apply` runs the net on one unbatched, channel-first input; both
are traceable, so `jax.vmap`, `jax.grad` and `jax.jit` compose with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from erftheory.empirical.nets import rules
from erftheory.empirical.nets.canvas import Canvas, canvas, frame
from erftheory.empirical.nets.draw import Params, ones_params
from erftheory.empirical.nets.plan import Part, Plan, single
from erftheory.empirical.nets.windows import padded, slices
from erftheory.network.arguments import one_of
from erftheory.network.base import Network, check_network
from erftheory.network.endless import GlobalAvgPool
from erftheory.network.graph import Concat, Loop, Sum
from erftheory.network.layers import AvgPool, Conv, ConvTranspose, Layer, Step

# Up to this many taps a convolution is a sum of shifted products, which batches over nets well.
_UNROLL = 49


@dataclass(frozen=True)
class Mode:
    """How a net runs.

    Attributes:
      linear: the path-counting net: identities for pointwise layers, sums for pools.
      framed: repetitions keep their size (see `cone.frame`); only where padding is never felt.
      statistics: those of normalisations, "live" (their gradient flows), "frozen" (constants), or
        "skip" (no normalisation).
    """

    linear: bool = False
    framed: bool = False
    statistics: str = "live"


def apply(
    network: Network,
    params: Params,
    x: jax.Array,
    *,
    key: jax.Array | None = None,
    linear: bool | None = None,
    statistics: str = "live",
) -> jax.Array:
    """Run the net on `x`, shape (in_channels, *spatial); returns (channels out, *spatial').

    Args:
      key: for dropout; without one dropout is the identity.
      linear: identities for pointwise layers, sums for pools, sums for concatenations; by default
        as `params` are from `ones_params`.
      statistics: of normalisations: "live" as in training, "frozen" (no gradient through them),
        "skip" (no normalisation).
    """
    one_of("statistics", statistics, ("live", "frozen", "skip"))
    graph = check_network("network", network).graph
    if x.ndim != graph.ndim + 1 or x.shape[0] != params.in_channels:
        axes = ", ".join(["spatial"] * graph.ndim)
        raise ValueError(f"x: got shape {x.shape}; takes ({params.in_channels}, {axes})")
    mode = Mode(params.ones if linear is None else linear, False, statistics)
    return run(params.plan(graph), params.weights, x, mode, key)


def gradient_of_ones(
    network: Network, size: int | tuple[int, ...] | None = None
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Path counts by autodiff: the gradient of one output unit of the all-ones linear net.

    The unit sits where no padding is felt, nearest to the middle of a canvas of `size` input
    pixels (the smallest one if None).

    Returns:
      the map over the receptive field, float64 (counts are exact below 2⁵³), and the input index
      of its first pixel for output index 0 (the convention of `ERF.offset`).

    Raises:
      ValueError: a global operation, or `size` too small.
    """
    graph = check_network("network", network).graph
    shape = (size,) * graph.ndim if isinstance(size, int) else size
    if shape is not None and len(shape) != graph.ndim:
        raise ValueError(f"size: got {len(shape)} entries; takes one per axis, {graph.ndim}")
    place, program = _ones_program(network, shape)
    with jax.enable_x64(True):
        found = np.asarray(program(jnp.zeros((1, *place.shape), jnp.float64)))[0]
    inside = tuple(slice(f, f + n) for f, n in zip(place.first, place.size))
    return found[inside].copy(), place.offset


@lru_cache(maxsize=32)
def _ones_program(
    network: Network, shape: tuple[int, ...] | None
) -> tuple[Canvas, Callable[[jax.Array], jax.Array]]:
    """Where the unit lies, and the gradient as a program that compiles once a network and size."""
    graph = network.graph
    place = canvas(graph, shape=shape)
    mode = Mode(linear=True, framed=True)

    def unit(x: jax.Array) -> jax.Array:
        weights = ones_params(network, jnp.float64).weights
        return run(single(graph), weights, x, mode, None)[(0, *place.unit)]

    return place, jax.jit(jax.grad(unit))


def run(plan: Plan, weights: Any, x: jax.Array, mode: Mode, key: jax.Array | None) -> jax.Array:
    """Execute a plan on `x`, shape (channels, *spatial)."""
    values = [x]
    for index, part in enumerate(plan.parts[1:], start=1):
        here = None if key is None else jax.random.fold_in(key, index)
        reads = [values[i] for i in part.inputs]
        values.append(_node(plan.ndim, part, weights[index], reads, mode, here))
    return values[-1]


def _node(
    ndim: int, part: Part, weight: Any, reads: list[jax.Array], mode: Mode, key: jax.Array | None
) -> jax.Array:
    op, x = part.op, reads[0]
    if isinstance(op, Loop):
        return _repeat(part, weight, x, mode, key)
    if isinstance(op, Sum) or (isinstance(op, Concat) and mode.linear):
        return sum(reads[1:], start=x)
    if isinstance(op, Concat):
        return jnp.concatenate(reads, axis=0)
    if isinstance(op, GlobalAvgPool):
        pool = jnp.sum if mode.linear else jnp.mean
        whole = tuple(a + 1 for a, ways in enumerate(op.reach(ndim)) if any(ways))
        return pool(x, axis=whole, keepdims=True)
    assert isinstance(op, Layer)
    step = op.step(ndim)
    if type(op) in rules.POINTWISE or step is None:
        return x if mode.linear else rules.pointwise(op, x, _pixels(mode, key))
    if isinstance(op, (Conv, ConvTranspose)):
        weight, bias = weight if isinstance(weight, tuple) else (weight, None)
        y = convolve(x, weight, step, part.groups)
        return y if bias is None else y + bias.reshape(-1, *(1,) * ndim)
    if mode.linear and not step.up:
        return _window_sum(x, step)
    kind = "taps" if mode.linear else rules.window(op)
    if isinstance(kind, rules.Over):  # reduce_window's maximum has no gradient with dilation
        return kind.value(op, slices(padded(x, step, kind.fill), step))
    if kind == "mean":
        total = _window_sum(x, step)
        if isinstance(op, AvgPool) and not op.count_include_pad:
            return total / _window_sum(jnp.ones_like(x[:1]), step)
        return total / math.prod(step.kernel.shape)
    if kind == "moves":
        return _moved(op, x, step)
    taps = rules.fixed_taps(op, step)[None, None]
    spread = jax.vmap(lambda row: convolve(row[None], jnp.asarray(taps, x.dtype), step, 1)[0])
    return spread(x)


def _pixels(mode: Mode, key: jax.Array | None) -> rules.Place:
    def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        axes = tuple(range(1, x.ndim))
        return x.mean(axes, keepdims=True), x.var(axes, keepdims=True)

    mask = None if key is None else lambda keep, x: jax.random.bernoulli(key, keep, x.shape)
    return rules.Place(0, mode.statistics, moments, mask)


def _moved(op: Any, x: jax.Array, step: Step) -> jax.Array:
    if step.up:
        x = rules.moved(op, x)
        ends = [(-b, -a, 0) for b, a in zip(step.before, step.after)]
        return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *ends])
    return rules.moved(op, padded(x, step))


def _repeat(part: Part, weights: Any, x: jax.Array, mode: Mode, key: jax.Array | None) -> jax.Array:
    for index, ((count, body), stack) in enumerate(zip(part.runs, weights)):
        here = None if key is None else jax.random.fold_in(key, index)
        keys = None if here is None else jax.random.split(here, count)

        def once(v: jax.Array, xs: Any, body: Plan = body) -> tuple[jax.Array, None]:
            y = run(body, xs[0], v, mode, xs[1])
            if mode.framed and body.growth is not None and any(body.growth):
                pads = [(0, 0, 0), *((*frame(g), 0) for g in body.growth)]
                y = lax.pad(y, jnp.zeros((), y.dtype), pads)
            return y, None

        def at(t: int, stack: Any = stack, keys: Any = keys) -> Any:
            return jax.tree.map(lambda a: a[t], (stack, keys))

        after = jax.eval_shape(lambda v, once=once, at=at: once(v, at(0))[0], x)
        if count > 1 and after.shape == x.shape:
            x = lax.scan(once, x, (stack, keys), length=count)[0]
        else:
            for t in range(count):
                x = once(x, at(t))[0]
    return x


def convolve(x: jax.Array, weight: jax.Array, step: Step, groups: int) -> jax.Array:
    """A step's convolution of x (channels in, *spatial); weight (out, in / groups, *kernel)."""
    ndim, kernel = x.ndim - 1, step.kernel.shape
    if step.up:
        weight = jnp.flip(weight, tuple(range(2, ndim + 2)))
    x = padded(x, step)
    if math.prod(kernel) > _UNROLL:
        return lax.conv_general_dilated(
            x[None],
            weight,
            step.sliding.stride,
            "VALID",
            rhs_dilation=step.dilation,
            feature_group_count=groups,
            precision=lax.Precision.HIGHEST,
        )[0]
    weight = weight.reshape(groups, -1, *weight.shape[1:])
    total = None
    for tap, part in zip(np.ndindex(*kernel), slices(x, step)):
        part = part.reshape(groups, -1, *part.shape[1:])
        term = jnp.einsum(
            "goi,gi...->go...", weight[(..., *tap)], part, precision=lax.Precision.HIGHEST
        )
        total = term if total is None else total + term
    assert total is not None
    return total.reshape(-1, *total.shape[2:])


def _window_sum(x: jax.Array, step: Step) -> jax.Array:
    return lax.reduce_window(
        x,
        np.zeros((), x.dtype),  # a constant: a traced zero hides the sum from autodiff
        lax.add,
        (1, *step.kernel.shape),
        (1, *step.stride),
        [(0, 0), *zip(step.before, step.after)],
        window_dilation=(1, *step.dilation),
    )
