"""A graph with its repetitions written out and a grid at every node, for readings of an image."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

from erftheory.network.base import Network
from erftheory.network.endless import Endless, GlobalAvgPool
from erftheory.network.graph import Concat, Graph, Input, Loop, Sum
from erftheory.network.imported import Channels
from erftheory.network.initialisation import Init
from erftheory.network.layers import Activation, Dropout, Layer, MaxPool, Step
from erftheory.theory.gains.prepare import gains_of, written_out
from erftheory.theory.gains.transport import plain, product
from erftheory.theory.image import matrices as layers
from erftheory.theory.image.lags import STILL, GridEdge, ImageLags, folds
from erftheory.theory.image.matrices import Shape, Terms
from erftheory.theory.image.rims import shares
from erftheory.theory.lowering.branches import fixed_layers, meets
from erftheory.theory.lowering.lags import Moments, second_moments
from erftheory.theory.units.slopes import mask_gate, slope_gate
from erftheory.theory.walk.links import Gains, Link, Power, structural_gains
from erftheory.theory.walk.walk import Gate, Port
from erftheory.theory.walk.weights import to_float


@dataclass(frozen=True)
class FlatNode:
    """An operation on its grid: pixels in (`before`) and out (`shape`), `channels` of groups."""

    op: Any
    step: Step | None
    inputs: tuple[int, ...]
    links: tuple[Link, ...]
    channels: tuple[int, ...]
    before: Shape
    shape: Shape
    gates: tuple[str, tuple] | None = None
    powers: tuple[Power, ...] = ()

    @property
    def spatial(self) -> bool:
        return self.step is not None or isinstance(self.op, GlobalAvgPool)


@dataclass
class Flat:
    """Nodes in topological order, for one kind of signal and one way to fill paddings."""

    ndim: int
    kind: str
    mode: str
    nodes: list[FlatNode] = field(default_factory=list)
    made: dict[Any, Terms] = field(default_factory=dict)

    # by norm and group, the variance on this image over that of the plane
    rims: dict[tuple[int, int], float] = field(default_factory=dict)

    @property
    def shape(self) -> Shape:
        return self.nodes[-1].shape

    def divide(self, rims: dict[tuple[int, int], float]) -> None:
        """Norms divide by what this image has in place of the plane."""
        for index in dict.fromkeys(i for i, _ in rims):
            node = self.nodes[index]
            power = 1.0 if self.kind == "variance" else 0.5
            links = tuple(
                k._replace(gain=to_float(k.gain) / rims.get((index, k.target), 1.0) ** power)
                for k in node.links
            )
            self.nodes[index] = replace(node, links=links)

    @property
    def outputs(self) -> list[Port]:
        last = len(self.nodes) - 1
        return [(last, g) for g in range(len(self.nodes[last].channels))]

    def still(self) -> Terms:
        """The operator that leaves pixels where they are."""
        return ((1.0, (None,) * self.ndim),)

    @cached_property
    def jumps(self) -> list[tuple[int, ...]]:
        """Lattice points per pixel of every node, one entry an axis."""
        rates = [(Fraction(1),) * self.ndim]
        for node in self.nodes[1:]:
            before, step = rates[node.inputs[0]], node.step
            if step is not None:
                before = tuple(r / s if step.up else r * s for r, s in zip(before, step.stride))
            rates.append(before)
        fine = [math.lcm(*(r[a].denominator for r in rates)) for a in range(self.ndim)]
        return [tuple(int(r * f) for r, f in zip(rate, fine)) for rate in rates]

    @cached_property
    def moments(self) -> Moments:
        """What arrives at each port: gradients, or their second moments."""
        raw = edges(self)
        outputs = self.outputs
        order = sorted(set(raw) | set(outputs), key=lambda port: (-port[0], port[1]))
        if self.kind == "gradient":
            return Moments(raw, order, True, False)
        inputs = [(0, g) for g in range(len(self.nodes[0].channels))]
        return second_moments(raw, order, outputs, inputs, self._moves)

    @cached_property
    def _moves(self) -> ImageLags:
        ring = None
        if self.mode == layers.TORUS:
            ring = tuple(n * j for n, j in zip(self.nodes[0].shape, self.jumps[0]))
        folded = {
            i for i, n in enumerate(self.nodes) if folds(n.step, n.before, n.shape, self.mode)
        }
        return ImageLags(self.jumps, [n.shape for n in self.nodes], ring, folded)

    @property
    def approximate(self) -> bool:
        """True if correlations of gradients matter that are followed only nearly."""
        found = self.moments
        own = self.mode in ("reflect", "replicate", "circular")
        return not found.exact or (found.lagged and own)

    @property
    def uneven(self) -> bool:
        """True if units differ in mass on the plane: up-sampling, runs of fixed layers."""
        up = any(node.step is not None and node.step.up for node in self.nodes)
        return up or (self.moments is not None and self._moves.uneven)

    @property
    def signed(self) -> bool:
        """True if parts of a map may cancel."""
        if self.kind == "gradient":
            return any(n.step is not None and n.step.kernel.signed for n in self.nodes)
        return any(e.gain < 0 for found in self.moments.arriving.values() for e in found)

    def terms(self, index: int) -> Terms:
        """The normalised taps of a node, as gradients."""
        node = self.nodes[index]
        key = node.op, node.before
        if key not in self.made:
            linear = self.kind == "gradient"
            self.made[key] = layers.terms(node.op, node.step, node.before, self.mode, linear)
        return self.made[key]


def flatten(network: Network, image: Shape, kind: str, init: Init | None, mode: str) -> Flat:
    """Write out a network on an image.

    Raises:
      ValueError: a layer without output pixels, or maps of different sizes that meet.
    """
    graph = network.graph
    correlates = kind == "variance" and fixed_layers(graph) > 1
    if correlates:  # lags pass activations, whose laws differ from one repetition to the next
        network = written_out(network)
        graph = network.graph
    known = gains_of(network, kind, init) if meets(graph) or correlates else None
    gains = structural_gains(graph, kind) if known is None else known
    flat = Flat(graph.ndim, kind, mode)
    powers = gains.powers[0] if gains.powers else ()
    flat.nodes.append(
        FlatNode(Input(), None, (), (), gains.channels[0], image, image, None, powers)
    )
    _write(flat, graph, gains, 0, image)
    if known is not None and mode != layers.TORUS:
        flat.rims = shares(flat)
        flat.divide(flat.rims)
    return flat


def _write(flat: Flat, graph: Graph, gains: Gains, source: int, image: Shape) -> int:
    """Append a graph that reads node `source`; returns its output node."""
    place = [_bridge(flat, source, gains.channels[0])]
    for index, node in enumerate(graph.nodes[1:], start=1):
        inputs = tuple(place[i] for i in node.inputs)
        before = flat.nodes[inputs[0]].shape
        op, step, after = node.op, None, before
        if isinstance(op, Loop):
            place.append(_repeated(flat, op, gains, index, inputs[0], image))
            continue
        label = node.name or (repr(op) if isinstance(op, Layer) else type(op).__name__.lower())
        if isinstance(op, Sum | Concat):
            shapes = list(dict.fromkeys(flat.nodes[i].shape for i in inputs))
            widest = tuple(map(max, zip(*shapes)))
            if len(shapes) > 1 and all(n in (1, m) for s in shapes for n, m in zip(s, widest)):
                raise ValueError(
                    f"network: got {label}, where a mean over the image (attention, a gate, a "
                    'pooled branch) meets a map; takes hold="global" in the importer, or the '
                    "network up to there"
                )
            if len(shapes) > 1:
                raise ValueError(
                    f"image: got {image}, where {label} joins maps of "
                    f"{' and '.join('x'.join(map(str, s)) for s in shapes)} pixels; takes an "
                    "image on which they agree"
                )
        elif isinstance(op, Endless) and not isinstance(op, GlobalAvgPool):
            raise ValueError(
                f"network: got {label} ({op.called()}), through which no ERF is predicted; takes "
                "the network up to a map before it, see until()"
            )
        else:
            assert isinstance(op, Layer)
            step = op.step(graph.ndim)
            if step is not None:
                signs = step.kind == "fixed" and step.signed  # amplitudes add with their signs
                step = replace(step, kernel=signs) if signs else step.of(flat.kind)
            after = layers.size_after(op, step, before, flat.mode)
            if min(after) < 1:
                raise ValueError(
                    f"image: got {image}, which leaves {label} without output pixels; takes a "
                    "larger image"
                )
        links, channels = gains.links[index], gains.channels[index]
        gates = gains.gates.get(index)
        powers = gains.powers[index] if gains.powers else ()
        made = FlatNode(op, step, inputs, links, channels, before, after, gates, powers)
        flat.nodes.append(made)
        place.append(len(flat.nodes) - 1)
    return place[-1]


def _repeated(flat: Flat, op: Loop, gains: Gains, index: int, source: int, image: Shape) -> int:
    for times, inner in reversed(gains.runs[index]):
        for _ in range(times):
            source = _write(flat, op.graph, inner, source, image)
    if not plain(op.graph):
        return source
    # a chain's gains stand for those of its iterations; their product is the link's
    start = len(flat.nodes[source].channels)
    if start != 1 or len(gains.links[index]) != 1:
        return source
    within = product(op.graph, gains.runs[index], 1)[0][0]
    wanted = gains.links[index][0].gain
    if not within or math.isclose(float(wanted / within), 1, rel_tol=1e-12):
        return source
    return _joint(flat, source, (Link(0, 0, 0, wanted / within),), flat.nodes[source].channels)


def _bridge(flat: Flat, source: int, channels: tuple[int, ...]) -> int:
    """A node whose groups are as many as a repetition's next iteration reads."""
    found = flat.nodes[source].channels
    if len(found) == len(channels):
        return source
    whole = sum(channels)
    links = tuple(
        Link(0, s, t, Fraction(c, whole)) for s in range(len(found)) for t, c in enumerate(channels)
    )
    return _joint(flat, source, links, channels)


def _joint(flat: Flat, source: int, links: tuple[Link, ...], channels: tuple[int, ...]) -> int:
    shape, powers = flat.nodes[source].shape, flat.nodes[source].powers
    if len(powers) != len(channels):
        powers = powers[:1] * len(channels)
    made = FlatNode(None, None, (source,), links, channels, shape, shape, None, powers)
    flat.nodes.append(made)
    return len(flat.nodes) - 1


def edges(flat: Flat) -> dict[Port, list[GridEdge]]:
    """All links, by the port they arrive at, last readers first."""
    found: dict[Port, list[GridEdge]] = {}
    for index in range(len(flat.nodes) - 1, 0, -1):
        node = flat.nodes[index]
        for link in node.links:
            port = (node.inputs[link.input], link.source)
            found.setdefault(port, []).append(_edge(flat, index, link))
    return found


def _edge(flat: Flat, index: int, link: Link) -> GridEdge:
    node, reader = flat.nodes[index], (index, link.target)
    if not node.spatial:
        mixes = (
            isinstance(node.op, Channels)
            or not isinstance(node.op, Sum | Concat)
            and (sum(k.target == link.target and k.input == link.input for k in node.links) > 1)
        )
        kind = "random" if mixes else "fixed"
        return GridEdge(reader, link.gain, kind, STILL, flat.still, _gate(node, link.source))
    step, terms = node.step, lambda: flat.terms(index)
    if step is None:  # the power that a mean of so many pixels keeps
        size = math.prod(node.before) // math.prod(node.shape)
        gain = link.gain / size if flat.kind == "variance" else link.gain
        return GridEdge(reader, gain, "fixed", index, terms, None, 1 / size)
    if isinstance(node.op, MaxPool):
        return GridEdge(reader, link.gain, "routing", index, terms)
    if step.kind != "fixed":
        return GridEdge(reader, link.gain, "random", index, terms)
    kernel = step.kernel
    square = sum(Fraction(t) ** 2 for t in kernel.exact) / Fraction(kernel.scale) ** 2
    return GridEdge(reader, link.gain, "fixed", index, terms, None, square)


def _gate(node: FlatNode, group: int) -> Gate | None:
    if isinstance(node.op, Dropout) and node.op.rate > 0:
        return mask_gate(node.op.rate)
    if not isinstance(node.op, Activation) or node.op.name == "linear":
        return None
    if node.gates is None:
        return Gate(exact=False)
    name, laws = node.gates
    return slope_gate(laws[group], name)
