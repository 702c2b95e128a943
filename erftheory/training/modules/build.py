"""From a node of a network to the module that computes it: one row a layer and no default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from erftheory.empirical.nets import rules
from erftheory.empirical.nets.plan import Part
from erftheory.network.endless import Endless, GlobalAvgPool
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
    RMSNorm,
    Upsample,
)
from erftheory.training.modules import layers

_EPSILON = 1e-5
MOMENTUM = 0.9  # of the running statistics of batch norm, as in PyTorch and Keras

# Flax's curve for the name of an activation; others are the package's own
_CURVES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
}


@dataclass(frozen=True)
class Site:
    """A node as its module is made.

    Attributes:
      part: operation and channels.
      ndim: spatial axes.
      weights: drawn (or given) weights, (out, in / groups, *kernel), with biases (weights, bias)
        where those are drawn too; None without weights.
      bias: whether a convolution learns biases.
      rngs: of dropout.
    """

    part: Part
    ndim: int
    weights: Any
    bias: bool
    rngs: nnx.Rngs

    @property
    def op(self) -> Any:
        return self.part.op

    @property
    def step(self) -> Any:
        return self.op.step(self.ndim)


def _constant(value: jax.Array) -> Callable[..., jax.Array]:
    return lambda key, shape, dtype: value.astype(dtype).reshape(shape)


def _kernel(site: Site) -> tuple[jax.Array, jax.Array | None]:
    """(*kernel, in / groups, out), Flax's order, and biases."""
    weights, bias = site.weights if isinstance(site.weights, tuple) else (site.weights, None)
    return jnp.moveaxis(weights, (0, 1), (-1, -2)), bias


def _convolution(site: Site) -> nnx.Module:
    part, step = site.part, site.step
    kernel, bias = _kernel(site)
    return nnx.Conv(
        part.channels_in, part.channels_out, step.kernel.shape, step.stride,
        padding=tuple(zip(step.before, step.after)), kernel_dilation=step.dilation,
        feature_group_count=part.groups, use_bias=site.bias or bias is not None,
        kernel_init=_constant(kernel),
        bias_init=nnx.initializers.zeros if bias is None else _constant(bias), rngs=site.rngs,
    )  # fmt: skip


def _transposed(site: Site) -> nnx.Module:
    kernel, bias = _kernel(site)
    turned = jnp.flip(kernel, tuple(range(site.ndim)))
    made = layers.ConvTranspose(turned, site.step, site.part.groups, site.bias or bias is not None)
    if bias is not None:
        assert made.bias is not None
        made.bias[...] = bias
    return made


def _activation(site: Site) -> nnx.Module:
    op = site.op
    if op.slope is not None:
        return layers.Call(partial(jax.nn.leaky_relu, negative_slope=float(op.slope)))
    return layers.Call(_CURVES.get(op.name, partial(rules.activation, op.curve)))


def _upsampled(site: Site) -> nnx.Module:
    """The rim repeats, as in PyTorch; with aligned corners by taps, whose rim fades."""
    op, step = site.op, site.step
    if op.align_corners:
        return layers.Call(layers.fixed(rules.fixed_taps(op, step), step))

    def resized(x: jax.Array) -> jax.Array:
        sizes = (n * f for n, f in zip(x.shape[1:-1], step.stride))
        return jax.image.resize(x, (len(x), *sizes, x.shape[-1]), op.mode)

    return layers.Call(resized)


def _spatial(site: Site) -> nnx.Module:
    op, step = site.op, site.step
    if rules.window(op) == "moves":
        return layers.Call(layers.moved(op, step))
    return layers.Call(layers.fixed(rules.fixed_taps(op, step), step))


def _global(site: Site) -> nnx.Module:
    axes = tuple(a + 1 for a, ways in enumerate(site.op.reach(site.ndim)) if any(ways))
    return layers.Call(lambda x: x.mean(axes, keepdims=True))


def _repeated(site: Site) -> nnx.Module:
    times = site.part.channels_out // site.part.channels_in
    return layers.Call(lambda x: jnp.repeat(x, times, -1))


def _norm(kind: Any, **options: Any) -> Callable[[Site], nnx.Module]:
    return lambda site: kind(
        site.part.channels_out, epsilon=_EPSILON, rngs=site.rngs, **options
    )


_EXACT = {"use_fast_variance": False}  # E[x²] − E[x]² loses digits

ROWS: dict[type, Callable[[Site], nnx.Module]] = {
    Conv: _convolution,
    ConvTranspose: _transposed,
    Activation: _activation,
    MaxPool: lambda site: layers.Call(layers.largest(site.step)),
    AvgPool: lambda site: layers.Call(layers.mean(site.step, site.op.count_include_pad)),
    GlobalAvgPool: _global,
    Upsample: _upsampled,
    Spatial: _spatial,
    Dropout: lambda site: nnx.Dropout(float(site.op.rate), rngs=site.rngs),
    BatchNorm: _norm(nnx.BatchNorm, momentum=MOMENTUM, **_EXACT),
    InstanceNorm: _norm(nnx.InstanceNorm, **_EXACT),
    GroupNorm: lambda site: _norm(nnx.GroupNorm, num_groups=site.op.groups, **_EXACT)(site),
    LayerNorm: _norm(nnx.LayerNorm, **_EXACT),
    RMSNorm: _norm(nnx.RMSNorm, **_EXACT),
    Scale: lambda site: layers.Call(lambda x, factor=float(site.op.factor): x * factor),
    Channels: _repeated,
}


def module(site: Site) -> nnx.Module:
    """The module of a node.

    Raises:
      ValueError: a layer without a row, or one that only a given model can execute.
    """
    op = site.op
    if type(op) in ROWS:
        return ROWS[type(op)](site)
    if isinstance(op, Endless):
        raise ValueError(
            f"network: got a {op.called()}, which is not trained; takes the network up to a map "
            "before it, see until()"
        )
    if isinstance(op, Layer) and type(op) in rules.WINDOWS:
        kind = rules.window(op)
        if isinstance(kind, rules.Over):  # a layer that somebody added
            return layers.Call(layers.over(partial(kind.value, op), kind.fill, site.step))
    here = rules.Place(-1, "live", lambda x: (x, x), None)
    return layers.Call(partial(rules.pointwise, op, on=here))
