"""The compiled program that draws nets, runs them and returns their gradients."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from erftheory.empirical.nets.balance import factors
from erftheory.empirical.nets.draw import draw
from erftheory.empirical.nets.plan import Plan, plan
from erftheory.empirical.sampled.cone import Cone, Window, cone_of, size_of
from erftheory.empirical.sampled.engine import Engine, gradients
from erftheory.empirical.sampled.routes import Layout, choose
from erftheory.network.arguments import integer
from erftheory.network.graph import Graph, Loop
from erftheory.network.layers import BatchNorm, Conv, ConvTranspose, GroupNorm, InstanceNorm

Device = Any  # jax.Device, which is no class to a type checker

# More output pixels on every side, so that batch statistics have something to average.
_MARGIN = {1: 16, 2: 4, 3: 2}
# Nets side by side: as many as this many values of one node hold, which stays in a CPU's cache.
_CACHED = 1 << 16
# Nets of more products than this, repeated no more often than that, are not scanned.
_HEAVY, _UNROLLED, _LIGHT = 10**7, 32, 8
_CALL = 4 * 10**8  # products of a call
_FEW, _NETS = 10**7, 1024  # products that a call is worth, of no more nets than these


@dataclass(frozen=True)
class Nets:
    """A program and what it is made for.

    Attributes:
      field: window of the receptive field of output unit 0.
      canvas: window of the input.
      width: nets side by side, a function of network, platform and memory.
      steps: rows of `width` nets that a call takes by default.
      calls: calls to keep under way at once.
      out_shape: gradients of one net, (channels in, *field).
      evaluate: (key, indices (steps, width), number of samples) to gradients and the factors of
        the last activation, one row a net (see `engine.gradients`).
      compiled: the jitted program behind it.
    """

    field: Window
    canvas: Window
    width: int
    steps: int
    calls: int
    memory: int
    init: str | float
    devices: tuple[Device, ...]
    out_shape: tuple[int, ...]
    evaluate: Callable[..., tuple[jax.Array, jax.Array, jax.Array]]
    compiled: Any


def nets(
    graph: Graph,
    channels: int,
    weights: str,
    init: str | float,
    *,
    in_channels: int = 1,
    images: Any = None,
    batch_norm: str = "live",
    linear: bool = False,
    memory: int = 2 << 30,
    devices: Sequence[Device] | None = None,
    route: str | None = None,
) -> Nets:
    """The program for a network and its options; compiled ones are kept."""
    integer("memory", memory)
    if images is not None:
        images = jnp.asarray(images, jnp.float32)
        if images.ndim != graph.ndim + 2 or not images.size:
            axes = ", ".join(["spatial"] * graph.ndim)
            raise ValueError(f"images: got shape {images.shape}; takes (count, channels, {axes})")
        in_channels = images.shape[1]
    integer("in_channels", in_channels)
    chosen = tuple(jax.local_devices() if devices is None else devices)
    if not chosen:
        raise ValueError("devices: got none; takes at least one")
    size = None if images is None else images.shape
    made = _made(
        graph, channels, weights, init, in_channels, size, batch_norm, linear, memory, chosen, route
    )
    if images is None:
        return made
    inner = made.evaluate
    return Nets(**{**made.__dict__, "evaluate": lambda *args: inner(*args, images)})


@lru_cache(maxsize=64)
def _made(
    graph: Graph,
    channels: int,
    weights: str,
    init: str | float,
    in_channels: int,
    size: tuple[int, ...] | None,
    batch_norm: str,
    linear: bool,
    memory: int,
    devices: tuple[Device, ...],
    route: str | None,
) -> Nets:
    unit = ((0, 0),) * graph.ndim
    field = cone_of(graph, unit).source
    made = plan(graph, channels, in_channels)
    margin = _MARGIN[graph.ndim] if _normalises(graph) else 0
    cone = cone_of(graph, ((-margin, margin),) * graph.ndim)
    canvas = size_of(cone.source)
    if size is not None and any(n < m for n, m in zip(size[2:], canvas)):
        raise ValueError(f"images: got {size[2:]} pixels; takes at least {canvas}, the unit's cone")
    widest = max(_widths(made))
    name = route or choose(devices[0].platform, widest)
    engine = Engine(Layout(name), linear, batch_norm, _pieces(made, cone, graph))
    each = _bytes(made, cone, graph, name)
    calls = 1
    if len(devices) == 1:
        calls = min(1 + (os.cpu_count() or 1), 4) if devices[0].platform == "cpu" else 2
        calls = max(1, min(calls, memory // (2 * each)))
    if each > memory:
        raise ValueError(f"memory: got {memory}; takes at least {each} bytes, one net")
    width = 1
    if name != "map":
        cached = _CACHED if devices[0].platform == "cpu" else 1 << 24
        side = max(1, cached // (math.prod(canvas) * (1 if name == "lanes" else widest)))
        # powers of two; lanes are whole vectors
        least = 16 if name == "lanes" else 1
        width = max(least, 1 << min(10, side.bit_length() - 1))
        while width > 1 and width * each > memory // (2 * calls):
            width //= 2
    scale = factors(graph, init, channels, in_channels)
    function = gradients(graph, made, engine, cone, field, scale)
    out_shape = (in_channels, *size_of(field))

    def drawn(key: jax.Array, index: jax.Array, images: jax.Array | None) -> tuple:
        keys = jax.random.split(jax.random.fold_in(key, index), 4)
        params = draw(made, keys[0], weights, init)
        signs = jnp.ones((made.channels_out,), jnp.float32)
        if made.channels_out > 1:
            signs = jax.random.rademacher(keys[3], (made.channels_out,), jnp.float32)
        if images is None:
            x = jax.random.normal(keys[1], (in_channels, *canvas), jnp.float32)
        else:
            room = jnp.array([0, *(n - m for n, m in zip(images.shape[2:], canvas))])
            start = jax.random.randint(keys[1], room.shape, 0, room + 1)
            x = lax.dynamic_slice(images[index % len(images)], start, (in_channels, *canvas))
        return params, x, signs, keys[2]

    def row(key: jax.Array, index: jax.Array, images: Any) -> tuple:
        params, x, signs, keys = jax.vmap(lambda i: drawn(key, i, images))(index)
        return function(params, x, signs, keys)

    def nothing(index: jax.Array) -> tuple:
        zeros = jnp.zeros(index.shape, jnp.float32)
        return jnp.zeros((*index.shape, *out_shape), jnp.float32), zeros, zeros

    def block(key: jax.Array, index: jax.Array, samples: jax.Array, images: Any) -> tuple:
        # rows past the last sample cost nothing, and no number of samples compiles anew
        def once(i: jax.Array) -> tuple:
            return lax.cond(i[0] < samples, lambda i: row(key, i, images), nothing, i)

        found = lax.map(once, index)
        return tuple(f.reshape(-1, *f.shape[2:]) for f in found)

    program = block
    if len(devices) > 1:
        mesh = Mesh(np.array(devices), ("nets",))
        rows = PartitionSpec("nets")
        whole = PartitionSpec()
        program = jax.shard_map(
            block, mesh=mesh, in_specs=(whole, rows, whole, whole), out_specs=rows, check_vma=False
        )
    compiled = jax.jit(program)

    def evaluate(key: jax.Array, index: Any, samples: Any, images: Any = None) -> Any:
        if len(devices) == 1:
            with jax.default_device(devices[0]):
                return compiled(key, jnp.asarray(index), samples, images)
        return compiled(key, jnp.asarray(index), samples, images)

    # one call of heavy nets is short, so that few nets too can share the cores
    products = max(1, _products(made, cone, graph))
    steps = 16 if name != "map" else max(1, min(16, _CALL // products))
    # and one of light nets would be all overhead
    steps = max(steps, min(_NETS, _FEW // products) // width)
    return Nets(
        field, cone.source, width, steps * len(devices), calls, memory, init, devices, out_shape,
        evaluate, compiled,
    )  # fmt: skip


def _normalises(graph: Graph) -> bool:
    """True if some statistics are those of pixels."""
    return any(isinstance(op, BatchNorm | InstanceNorm | GroupNorm) for op in graph.operations())


def _pieces(made: Plan, cone: Cone, graph: Graph) -> int:
    """Pieces of a repetition: every iteration its own where that is worth its compile time."""
    longest = max((count for part in made.parts for count, _ in part.runs), default=1)
    heavy = _products(made, cone, graph) > _HEAVY
    return (longest if longest <= _UNROLLED else 8) if heavy else _LIGHT


def _products(made: Plan, cone: Cone, graph: Graph) -> int:
    """Multiplications of one forward pass."""
    total = 0
    for index, (part, node) in enumerate(zip(made.parts, graph.nodes)):
        if isinstance(node.op, Loop):
            bodies = [body for count, body in part.runs for _ in range(count)]
            for body, inner in zip(bodies, cone.loops[index], strict=True):
                total += _products(body, inner, node.op.graph)
        elif isinstance(node.op, (Conv, ConvTranspose)):
            taps = math.prod(node.op.step(graph.ndim).kernel.shape)
            pixels = math.prod(size_of(cone.windows[index]))
            total += taps * pixels * part.channels_in * part.channels_out // part.groups
    return total


def _widths(made: Plan) -> list[int]:
    found = [part.channels_out for part in made.parts]
    for part in made.parts:
        for _, body in part.runs:
            found += _widths(body)
    return found


def _bytes(made: Plan, cone: Cone, graph: Graph, route: str) -> int:
    """Bytes of one net: every node's values forward and backward, patches, and the weights."""
    total = 0
    for index, (part, node) in enumerate(zip(made.parts, graph.nodes)):
        pixels = math.prod(size_of(cone.windows[index]))
        total += 2 * 4 * pixels * part.channels_out
        if isinstance(node.op, Loop):
            bodies = [body for count, body in part.runs for _ in range(count)]
            for body, inner in zip(bodies, cone.loops[index], strict=True):
                total += _bytes(body, inner, node.op.graph, route)
        elif (step := getattr(node.op, "step", lambda ndim: None)(graph.ndim)) is not None:
            taps = math.prod(step.kernel.shape)
            total += 4 * taps * part.channels_in * part.channels_out // part.groups
            if route == "batched":
                total += 4 * taps * pixels * part.channels_in
    return total
