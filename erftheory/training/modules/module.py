"""The Flax NNX module of a network."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from erftheory.empirical.nets.balance import factors
from erftheory.empirical.nets.draw import WEIGHTS, draw
from erftheory.empirical.nets.plan import Plan, plan
from erftheory.network.arguments import integer, one_of
from erftheory.network.base import Network, check_network
from erftheory.network.graph import Concat, Graph, Loop, Sum
from erftheory.network.initialisation import check_init
from erftheory.network.layers import Conv, ConvTranspose, Norm
from erftheory.training.modules.build import Site, module
from erftheory.training.modules.heads import Classifier, Dense, Head, HeadModule


def trainable(
    network: Network,
    rngs: nnx.Rngs,
    channels: int = 16,
    head: Head = None,
    *,
    in_channels: int = 1,
    weights: str = "gaussian",
    init: str | float = "he",
    bias: bool | None = None,
    params: Any = None,
) -> NetworkModule:
    """The Flax NNX module of a network: the same layers under the same names.

    Args:
      rngs: `nnx.Rngs(seed)`; the weights are drawn from its stream "params" as `sample` draws them.
      channels: channels of convolutions that do not say their own (`Conv(channels=)`).
      head: `Classifier(classes)`, `Dense(classes)`, or None, the last map itself.
      in_channels: channels of the images.
      weights, init: law and variance of the drawn weights, as in `sample`.
      bias: whether convolutions learn biases, from 0 on; None means those that no normalisation
        follows.
      params: weights from `initialise` of the same network and channels, in place of drawn ones.

    Returns:
      a module from images (batch, *spatial, in_channels) to scores, or to the map without a head.
      `.train()` and `.eval()` switch batch norm between the batch's statistics and the running
      ones, and dropout on and off; it begins in training mode. `.features(x)` is the last map.
      `Conv(weights=)` keeps its weights.

    Raises:
      ValueError: an argument out of range, channels that do not match, a layer that is not
        executed (recurrent, attention).
    """
    graph = check_network("network", network).graph
    integer("channels", channels)
    integer("in_channels", in_channels)
    one_of("weights", weights, WEIGHTS)
    check_init(init)
    if not (head is None or isinstance(head, Classifier | Dense)):
        raise ValueError(f"head: got {head!r}; takes Classifier(classes), Dense(classes) or None")
    made = plan(graph, channels, in_channels, None if head is None else channels)
    if params is None:
        drawn = draw(made, rngs.params(), weights, init)
    else:
        made, drawn = params.plan(graph), params.weights
    gains = factors(graph, init, channels, in_channels)
    return NetworkModule(network, made, drawn, gains, head, bias, rngs)


class NetworkModule(nnx.Module):
    """A network as a Flax NNX module; made by `trainable`.

    Attributes:
      network: the description.
      body: the modules of its nodes.
      head: what turns the last map into scores, or None.
    """

    def __init__(
        self,
        network: Network,
        plan: Plan,
        weights: list[Any],
        gains: list[Any] | None,
        head: Head,
        bias: bool | None,
        rngs: nnx.Rngs,
    ):
        self.network = network
        self.body = Body(network.graph, plan, weights, gains, bias, rngs)
        self.head = None if head is None else HeadModule(head, plan.channels_out, rngs)

    def features(self, x: jax.Array) -> jax.Array:
        """The last map, (batch, *spatial', channels), of images (batch, *spatial, channels)."""
        ndim = self.network.graph.ndim
        if x.ndim != ndim + 2:
            axes = ", ".join(["spatial"] * ndim)
            raise ValueError(f"x: got shape {x.shape}; takes (batch, {axes}, channels)")
        return self.body(x)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.features(x)
        return y if self.head is None else self.head(y, x.shape[1:-1])


class Body(nnx.Module):
    """The nodes of a graph.

    Attributes:
      layers: modules by name (see `names`), of the nodes that compute something.
    """

    def __init__(
        self,
        graph: Graph,
        plan: Plan,
        weights: list[Any],
        gains: list[Any] | None,
        bias: bool | None,
        rngs: nnx.Rngs,
    ):
        self.graph, self.names = graph, names(graph)
        self.gains = [None] * len(graph.nodes) if gains is None else gains
        normed = _normed(graph)
        made: dict[str, Any] = {}
        for i, (node, part) in enumerate(zip(graph.nodes, plan.parts, strict=True)):
            own = None if gains is None else gains[i]
            if isinstance(node.op, Loop):
                made[self.names[i]] = _iterations(node.op, part.runs, weights[i], own, bias, rngs)
            elif self.names[i]:
                learns = i not in normed if bias is None else bias
                given = _given(node.op, weights[i])
                made[self.names[i]] = module(Site(part, graph.ndim, given, learns, rngs))
        self.layers = nnx.Dict(made)
        # plain Python, which jitted functions are compiled for anew when it changes
        self.gains = tuple(g if isinstance(g, float) else None for g in self.gains)

    def __call__(self, x: jax.Array) -> jax.Array:
        values = [x]
        for i, node in enumerate(self.graph.nodes[1:], start=1):
            reads = [values[j] for j in node.inputs]
            if isinstance(node.op, Sum):
                gain = self.gains[i]
                first = reads[0] if gain is None else reads[0] * gain
                values.append(sum(reads[1:], start=first))
            elif isinstance(node.op, Concat):
                values.append(jnp.concatenate(reads, axis=-1))
            elif isinstance(node.op, Loop):
                y = reads[0]
                for t, body in enumerate(self.layers[self.names[i]]):
                    with jax.named_scope(f"{node.name}[{t}]"):
                        y = body(y)
                values.append(y)
            else:
                with jax.named_scope(self.names[i]):
                    values.append(self.layers[self.names[i]](reads[0]))
        return values[-1]


def names(graph: Graph) -> tuple[str, ...]:
    """A name for each node that has a module: its scope and its kind, numbered where not alone."""
    found: list[str] = []
    seen: dict[str, int] = {}
    for node in graph.nodes:
        if not node.inputs or isinstance(node.op, Sum | Concat):
            found.append("")
            continue
        kind = "repeat" if isinstance(node.op, Loop) else type(node.op).__name__.lower()
        name = "_".join(filter(None, (*node.name.replace("]", "").split("/"), kind)))
        name = name.replace("[", "_")
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return tuple(found)


def _iterations(
    loop: Loop,
    runs: tuple[tuple[int, Plan], ...],
    weights: list[Any],
    gains: Any,
    bias: bool | None,
    rngs: nnx.Rngs,
) -> nnx.List:
    made, start = [], 0
    for (count, body), stack in zip(runs, weights, strict=True):
        for t in range(count):
            own = jax.tree.map(lambda a, t=t: a[t], stack)
            factor = None if gains is None else gains[start + t]
            made.append(Body(loop.graph, body, own, factor, bias, rngs))
        start += count
    return nnx.List(made)


def _normed(graph: Graph) -> set[int]:
    """Nodes that a normalisation alone reads, which would take a bias out again."""
    readers: dict[int, list[Any]] = {}
    for node in graph.nodes:
        for source in node.inputs:
            readers.setdefault(source, []).append(node.op)
    return {i for i, ops in readers.items() if all(isinstance(op, Norm) for op in ops)}


def _given(op: Any, drawn: Any) -> Any:
    """The weights of the layer itself where it has some, else the drawn ones."""
    if isinstance(op, Conv | ConvTranspose) and op.weights is not None:
        if op.weights.array is not None:
            return jnp.asarray(op.weights.array)
    return drawn
