"""Weights of an executable net: random draws, and the all-ones net."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from erftheory.empirical.nets.balance import explicit
from erftheory.empirical.nets.plan import Part, Plan, plan, single
from erftheory.network.arguments import integer, one_of
from erftheory.network.base import Network, check_network
from erftheory.network.graph import Graph, Loop
from erftheory.network.initialisation import bias_variance, check_init, weight_variance
from erftheory.network.layers import Conv, ConvTranspose

WEIGHTS = ("gaussian", "uniform", "rademacher")


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["weights"],
    meta_fields=["channels", "in_channels", "ones"],
)
@dataclass(frozen=True)
class Params:
    """Weights of a net, a pytree.

    Attributes:
      weights: one entry a node; arrays (channels out, channels in / groups, *kernel) of
        convolutions, with arrays (channels out) where biases are drawn; for a repetition a list of
        such trees stacked over alike iterations.
      channels, in_channels: the numbers that `initialise` got.
      ones: True for the all-ones net of `ones_params`.
    """

    weights: Any
    channels: int = 16
    in_channels: int = 1
    ones: bool = False

    def plan(self, graph: Graph) -> Plan:
        return single(graph) if self.ones else plan(graph, self.channels, self.in_channels)


def initialise(
    network: Network,
    key: jax.Array,
    channels: int = 16,
    weights: str = "gaussian",
    init: str | float = "he",
    in_channels: int = 1,
    dtype: Any = jnp.float32,
) -> Params:
    """Draw independent zero-mean weights; biases are 0, unless `init` draws them ("torch").

    Args:
      weights: law of a weight: "gaussian", "uniform" or "rademacher" (±1).
      init: its variance, see `network.initialisation`, times the relative taps (mean 1); a number
        c is c/fan_in, fan_in = channels in / groups · taps.

    Raises:
      ValueError: an unknown name, channels that do not match, negative taps, an explicit gain.
    """
    check_network("network", network)
    one_of("weights", weights, WEIGHTS)
    check_init(init)
    if explicit(network.graph):
        raise ValueError(
            "gain: got a net with explicit gains, which its weights cannot hold; takes gain=None "
            "there (the ratio that the initialisation gives), or use sample"
        )
    integer("channels", channels)
    integer("in_channels", in_channels)
    drawn = draw(plan(network.graph, channels, in_channels), key, weights, init, dtype)
    return Params(drawn, channels, in_channels)


def ones_params(network: Network, dtype: Any = jnp.float32) -> Params:
    """The all-ones net: one channel, every tap at its own weight, 1 if uniform."""
    return Params(_ones(single(check_network("network", network).graph), dtype), 1, 1, True)


def draw(
    plan: Plan, key: jax.Array, law: str, init: str | float, dtype: Any = jnp.float32
) -> list[Any]:
    """The weights of a plan, cut from one vector of noise: one generator compiles, not many."""
    tree = _scales(plan, init)
    leaves, structure = jax.tree.flatten(tree, is_leaf=lambda v: isinstance(v, _Scale))
    sizes = [math.prod(leaf.shape) for leaf in leaves]
    noise = _noise(key, (sum(sizes),), law, dtype)
    rows, start = [], 0
    for leaf, size in zip(leaves, sizes):
        row = lax.slice(noise, (start,), (start + size,)).reshape(leaf.shape)
        rows.append(row * jnp.asarray(leaf.std, dtype))
        start += size
    return structure.unflatten(rows)


@dataclass(frozen=True)
class _Scale:
    shape: tuple[int, ...]
    std: np.ndarray


def _scales(plan: Plan, init: str | float) -> list[Any]:
    """The tree of a plan's weights with a `_Scale` in the place of every array."""
    out: list[Any] = []
    for part in plan.parts:
        op = part.op
        if isinstance(op, Loop):
            out.append(
                [
                    jax.tree.map(
                        lambda s, n=count: _Scale((n, *s.shape), s.std),
                        _scales(body, init),
                        is_leaf=lambda v: isinstance(v, _Scale),
                    )
                    for count, body in part.runs
                ]
            )
        elif isinstance(op, (Conv, ConvTranspose)):
            out.append(_drawn(part, plan.ndim, init))
        else:
            out.append(None)
    return out


def _drawn(part: Part, ndim: int, init: Any) -> Any:
    """The scale of a convolution's weights, and, where they are drawn too, of its biases."""
    assert isinstance(part.op, (Conv, ConvTranspose))
    weights = _Scale(*weight_scale(part, ndim, init))
    if part.op.weights is not None:
        return weights
    taps, step = math.prod(weights.shape[2:]), part.op.step(ndim)
    outward = part.channels_out // part.groups
    bias = bias_variance(init, weights.shape[1], outward, taps, step.up)
    return (weights, _Scale((part.channels_out,), np.sqrt(float(bias)))) if bias else weights


def weight_scale(part: Part, ndim: int, init: str | float) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape of a convolution's weights, and their standard deviations, shape of the kernel."""
    assert isinstance(part.op, (Conv, ConvTranspose))
    step = part.op.step(ndim)
    taps = np.array([float(t) for t in step.kernel.exact]).reshape(step.kernel.shape)
    if taps.min() < 0:
        raise ValueError("taps: got a negative tap for random weights; takes variances >= 0")
    shape = (part.channels_out, part.channels_in // part.groups, *taps.shape)
    if part.op.weights is not None:
        return shape, np.sqrt(taps / part.op.weights.outward)
    outward = part.channels_out // part.groups
    variance = float(weight_variance(init, shape[1], outward, taps.size, step.up))
    return shape, np.sqrt(variance * taps / taps.mean())


def _noise(key: jax.Array, shape: tuple[int, ...], law: str, dtype: Any) -> jax.Array:
    if law == "gaussian":
        return jax.random.normal(key, shape, dtype)
    if law == "uniform":
        return jax.random.uniform(key, shape, dtype, -math.sqrt(3), math.sqrt(3))
    return jax.random.rademacher(key, shape, dtype)


def _ones(plan: Plan, dtype: Any) -> list[Any]:
    out: list[Any] = []
    for part in plan.parts:
        if isinstance(part.op, Loop):
            stack = [
                jax.tree.map(lambda a, n=count: jnp.broadcast_to(a, (n, *a.shape)), _ones(b, dtype))
                for count, b in part.runs
            ]
            out.append(stack)
        elif isinstance(part.op, (Conv, ConvTranspose)):
            kernel = part.op.step(plan.ndim).kernel
            taps = np.array([float(t) for t in kernel.exact]).reshape(1, 1, *kernel.shape)
            out.append(jnp.asarray(taps, dtype))
        else:
            out.append(None)
    return out
