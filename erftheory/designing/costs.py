"""What a network costs: additive over layers, whole numbers or exact fractions.

Of a layer with k taps an axis from c channels to c' (in g groups) and n output pixels:
multiply-accumulates n·kᵈ·c·c'/g, parameters kᵈ·c·c'/g (no biases), memory 4·n·c' bytes (float32
activations, all kept; a sum adds none). Pools cost memory alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from erftheory.designing.spaces import Brick, Place
from erftheory.network import arguments as arg
from erftheory.network.base import Network
from erftheory.network.channels import widths
from erftheory.network.graph import Graph, unrolled
from erftheory.network.layers import Conv, MaxPool

KINDS = ("macs", "parameters", "memory")
BYTES = 4  # of an activation
Cost = int | Fraction


def check_cost(cost: Any) -> Any:
    """A kind of cost, a mapping from layers to seconds, or a function (layer, size, channels) to
    seconds."""
    if callable(cost) or isinstance(cost, Mapping):
        return cost
    if not isinstance(cost, str) or cost not in KINDS:
        kinds = ", ".join(map(repr, KINDS))
        raise ValueError(
            f"cost: got {cost!r}; takes {kinds}, a mapping from layers to seconds, or a function "
            "(layer, size, channels) to seconds"
        )
    return cost


def unit_of(cost: Any) -> str:
    return {"macs": "MACs", "memory": "bytes"}.get(cost, cost) if isinstance(cost, str) else "s"


def of_layer(
    cost: Any, layer: Conv | MaxPool, ndim: int, into: int, out: int, channels: int, behind: int
) -> Cost:
    """Cost of one layer.

    Args:
      into, out: pixels a side before and behind it.
      channels, behind: channels that it reads and makes.

    Raises:
      ValueError: a mapping without this layer, or seconds below 0.
    """
    if not isinstance(cost, str):
        return _seconds(cost, layer, into, channels)
    pixels = out**ndim
    if cost == "memory":
        return BYTES * pixels * behind
    if not isinstance(layer, Conv):
        return 0
    kernel = layer.kernel if isinstance(layer.kernel, int) else 0
    shape = layer.kernel if isinstance(layer.kernel, tuple) else (kernel,) * ndim
    groups = channels if layer.groups == "depthwise" else int(layer.groups)
    weights = math.prod(shape) * (channels // groups) * behind
    return weights if cost == "parameters" else pixels * weights


def _seconds(cost: Mapping | Callable, layer: Any, size: int, channels: int) -> Fraction:
    if isinstance(cost, Mapping):
        if layer not in cost:
            raise ValueError(f"cost: got no seconds for {layer!r}; takes every layer of the space")
        value = cost[layer]
    else:
        value = cost(layer, size, channels)
    if arg.number("cost", value) < 0:
        raise ValueError(f"cost: got {value} for {layer!r}; takes seconds >= 0")
    return Fraction(value)


def of_brick(cost: Any, brick: Brick, ndim: int, place: Place, to: Place) -> Cost:
    """Cost of a brick between two places."""
    total: Cost = 0
    size, channels = place.size, place.channels
    layers = brick.layers(to.channels)
    for i, layer in enumerate(layers):
        behind = to.channels if i == len(layers) - 1 else channels
        total += of_layer(cost, layer, ndim, size, to.size, channels, behind)
        size, channels = to.size, behind
    return total


def of_network(cost: Any, network: Network, image: int, inputs: int) -> Cost:
    """Cost of a network of convolutions and max pools, read from its graph.

    Args:
      image: pixels a side of the input.
      inputs: its channels.
    """
    graph: Graph = unrolled(network.graph)
    channels = widths(graph, 1, inputs)
    sizes, total = [image], 0
    for index, node in enumerate(graph.nodes[1:], start=1):
        source, step = node.inputs[0], graph.own_steps[index]
        sizes.append(sizes[source] if step is None else step.size(0, sizes[source]))
        if isinstance(node.op, Conv | MaxPool):
            total += of_layer(
                cost, node.op, graph.ndim, sizes[source], sizes[index],
                channels[source], channels[index],
            )  # fmt: skip
    return total
