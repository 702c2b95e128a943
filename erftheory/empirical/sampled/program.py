"""The compiled program that draws nets, runs them and returns their gradients."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
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
# XLA's CPU compiler takes half as long with these, for programs up to a fifth slower: of runs of
# fewer products (some 20 s) that is the better bargain.
_QUICK = {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": False}
_LONG = 10**10


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
    name = route or choose(devices[0].platform, max(_widths(made)))
    engine = Engine(Layout(name), linear, batch_norm, _pieces(made, cone, graph))
    each = _bytes(made, cone, graph, name)
    if each > memory:
        raise ValueError(f"memory: got {memory}; takes at least {each} bytes, one net")
    calls = _calls(devices, memory, each)
    width = 1 if name == "map" else _width(devices[0].platform, name, made, canvas)
    while width > 1 and width * each > memory // (2 * calls):
        width //= 2
    scale = factors(graph, init, channels, in_channels)
    function = gradients(graph, made, engine, cone, field, scale)
    inputs = partial(_drawn, made, weights, init, (in_channels, *canvas))
    out_shape = (in_channels, *size_of(field))
    products = max(1, _products(made, cone, graph))
    evaluate, compiled = _evaluated(partial(_block, inputs, function, out_shape), devices, products)
    # one call of heavy nets is short, so that few nets too can share the cores
    steps = 16 if name != "map" else max(1, min(16, _CALL // products))
    # and one of light nets would be all overhead
    steps = max(steps, min(_NETS, _FEW // products) // width)
    return Nets(
        field, cone.source, width, steps * len(devices), calls, memory, init, devices, out_shape,
        evaluate, compiled,
    )  # fmt: skip


def _calls(devices: tuple[Device, ...], memory: int, each: int) -> int:
    """Calls under way at once."""
    platform = devices[0].platform
    if len(devices) > 1:
        return 1
    calls = min(1 + (os.cpu_count() or 1), 4) if platform == "cpu" else 2
    return max(1, min(calls, memory // (2 * each)))


def _width(platform: str, route: str, made: Plan, canvas: tuple[int, ...]) -> int:
    """Nets side by side, a power of two; lanes are whole vectors."""
    cached = _CACHED if platform == "cpu" else 1 << 24
    side = max(1, cached // (math.prod(canvas) * (1 if route == "lanes" else max(_widths(made)))))
    return max(16 if route == "lanes" else 1, 1 << min(10, side.bit_length() - 1))


def _drawn(
    made: Plan,
    weights: str,
    init: str | float,
    shape: tuple[int, ...],
    key: jax.Array,
    index: jax.Array,
    images: jax.Array | None,
) -> tuple:
    """Weights, input, signs of the output channels and a key for masks, of the net `index`."""
    keys = jax.random.split(jax.random.fold_in(key, index), 4)
    params = draw(made, keys[0], weights, init)
    signs = jnp.ones((made.channels_out,), jnp.float32)
    if made.channels_out > 1:
        signs = jax.random.rademacher(keys[3], (made.channels_out,), jnp.float32)
    if images is None:
        x = jax.random.normal(keys[1], shape, jnp.float32)
    else:
        room = jnp.array([0, *(n - m for n, m in zip(images.shape[2:], shape[1:]))])
        start = jax.random.randint(keys[1], room.shape, 0, room + 1)
        x = lax.dynamic_slice(images[index % len(images)], start, shape)
    return params, x, signs, keys[2]


def _block(
    inputs: Callable[..., tuple],
    function: Callable[..., tuple],
    out_shape: tuple[int, ...],
    key: jax.Array,
    index: jax.Array,
    samples: jax.Array,
    images: Any,
) -> tuple:
    """Rows of nets one after another.

    Rows past the last sample cost nothing, and no number of samples compiles anew.
    """

    def row(i: jax.Array) -> tuple:
        return function(*jax.vmap(lambda one: inputs(key, one, images))(i))

    def nothing(i: jax.Array) -> tuple:
        zeros = jnp.zeros(i.shape, jnp.float32)
        return jnp.zeros((*i.shape, *out_shape), jnp.float32), zeros, zeros

    found = lax.map(lambda i: lax.cond(i[0] < samples, row, nothing, i), index)
    return tuple(f.reshape(-1, *f.shape[2:]) for f in found)


def _evaluated(
    block: Callable[..., tuple], devices: tuple[Device, ...], products: int
) -> tuple[Callable[..., Any], Any]:
    """The program on its devices, and the jitted one that long runs take."""
    platform = devices[0].platform
    if len(devices) > 1:
        rows, whole = PartitionSpec("nets"), PartitionSpec()
        block = jax.shard_map(
            block, mesh=Mesh(np.array(devices), ("nets",)),
            in_specs=(whole, rows, whole, whole), out_specs=rows, check_vma=False,
        )  # fmt: skip
    compiled = jax.jit(block)
    quick = compiled
    if platform == "cpu" and _quickly():
        quick = jax.jit(block, compiler_options=_QUICK)

    def evaluate(key: jax.Array, index: Any, samples: Any, images: Any = None) -> Any:
        program = quick if int(samples) * products < _LONG else compiled
        if len(devices) == 1:
            with jax.default_device(devices[0]):
                return program(key, jnp.asarray(index), samples, images)
        return program(key, jnp.asarray(index), samples, images)

    return evaluate, compiled


@lru_cache(maxsize=1)
def _quickly() -> bool:
    """True if this XLA has the options of `_QUICK`."""
    try:
        jax.jit(lambda x: x, compiler_options=_QUICK).lower(np.float32(0)).compile()
    except Exception:  # noqa: BLE001  whatever another version says to an unknown option
        return False
    return True


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
