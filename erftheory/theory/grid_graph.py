"""A graph with its repetitions written out and a grid at every node, for readings of an image."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache
from itertools import count
from typing import Any

import numpy as np

from erftheory.network.base import Network
from erftheory.network.graph import Concat, Graph, Input, Loop, Sum
from erftheory.network.layers import Dropout, GlobalAvgPool, Layer, Step
from erftheory.theory import grid_layers as layers
from erftheory.theory.endpoints import gains_of, written_out
from erftheory.theory.fixed import remembers
from erftheory.theory.gains import Gains, Link, structural_gains
from erftheory.theory.grid_layers import Shape, Terms
from erftheory.theory.lags import Lag, agreement, lift, reader, within
from erftheory.theory.masses import plain, product
from erftheory.theory.reading import fixed_layers, meets
from erftheory.theory.runs import joined, memories, unmasked

Port = tuple[int, int]


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
    uneven: bool = False  # units differ in mass on the plane: up-sampling, runs of fixed layers
    approximate: bool = False  # correlations of gradients that powers alone do not know
    made: dict[Any, Terms] = field(default_factory=dict)

    @property
    def shape(self) -> Shape:
        return self.nodes[-1].shape

    def terms(self, index: int) -> Terms:
        """The normalised taps of a node, as gradients."""
        node = self.nodes[index]
        key = node.op, node.before
        if key not in self.made:
            linear = self.kind == "gradient"
            self.made[key] = layers.terms(node.op, node.step, node.before, self.mode, linear)
        return self.made[key]


def flatten(network: Network, image: Shape, kind: str, init: str | None, mode: str) -> Flat:
    """Write out a network on an image.

    Raises:
      ValueError: a layer without output pixels, or maps of different sizes that meet.
    """
    graph = network.graph
    correlates = kind == "variance" and fixed_layers(graph) > 1
    if correlates:  # lags pass activations, whose laws differ from one repetition to the next
        network = written_out(network)
        graph = network.graph
    if init is None or not (meets(graph) or correlates):
        gains = structural_gains(graph, kind)
    else:
        gains = gains_of(network, kind, init)
    flat = Flat(graph.ndim, kind, mode)
    flat.nodes.append(FlatNode(Input(), None, (), (), gains.channels[0], image, image))
    _write(flat, graph, gains, 0, image)
    flat.uneven = any(node.step is not None and node.step.up for node in flat.nodes)
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
            means = [max(s) == 1 for s in shapes]
            if any(means) and not all(means):
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
        else:
            assert isinstance(op, Layer)
            step = op.step(graph.ndim)
            step = step and step.of(flat.kind)
            after = layers.size_after(op, step, before, flat.mode)
            if min(after) < 1:
                raise ValueError(
                    f"image: got {image}, which leaves {label} without output pixels; takes a "
                    "larger image"
                )
        links, channels = gains.links[index], gains.channels[index]
        gates = gains.gates.get(index)
        flat.nodes.append(FlatNode(op, step, inputs, links, channels, before, after, gates))
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
    shape = flat.nodes[source].shape
    flat.nodes.append(FlatNode(None, None, (source,), links, channels, shape, shape))
    return len(flat.nodes) - 1


@dataclass(frozen=True)
class GridEdge:
    """From the reader's port back to a port: a gain, a kind as in `walk.RawEdge`, an operator."""

    reader: Port
    gain: Any
    kind: str
    key: Any  # equal for edges of the same operator
    terms: Callable[[], Terms]
    run: Callable[[], Terms] | None = None  # of fixed layers: their amplitudes
    memory: float = 1.0  # of activations and dropout, what a product of neighbours keeps; in a run
    before: float = 1.0  # … that of those nearer to the output than its fixed layers
    nearly: bool = False  # `memory` is not the whole truth


def edges(flat: Flat) -> dict[Port, list[GridEdge]]:
    """All links, by the port they arrive at, last readers first."""
    found: dict[Port, list[GridEdge]] = {}
    still: Terms = ((1.0, (None,) * flat.ndim),)
    for index in range(len(flat.nodes) - 1, 0, -1):
        node = flat.nodes[index]
        if not node.spatial:
            masked = isinstance(node.op, Dropout) and node.op.rate > 0
            kind, key, terms = "masked" if masked else "plain", "still", lambda: still
        else:
            kind, key = _kind(node.step), index
            terms = lambda index=index: flat.terms(index)  # noqa: E731
        for link in node.links:
            port = (node.inputs[link.input], link.source)
            gain = link.gain
            if node.spatial and node.step is None and flat.kind == "variance":
                gain = gain / math.prod(node.before)  # the power that a mean of so many keeps
            memory = _memory(node, link.source)
            nearly = memory != 1 and not isinstance(node.op, Dropout)
            reads = index, link.target
            edge = GridEdge(reads, gain, kind, key, terms, memory=memory, nearly=nearly)
            found.setdefault(port, []).append(edge)
    return found


def _kind(step: Step | None) -> str:
    if step is None:
        return "fixed"
    if step.kind == "fixed" and step.kernel.trivial and not (step.up and max(step.stride) > 1):
        return "plain"  # a crop, a pad, a slice: pixels move together, as in `lowering`
    return "fixed" if step.kind == "fixed" else "random"


def _memory(node: FlatNode, group: int) -> float:
    if isinstance(node.op, Dropout):
        return 1 - node.op.rate
    if node.gates is not None:
        name, laws = node.gates
        return agreement(laws[group], name)
    step = node.step
    routes = step is not None and step.kind == "routing" and not step.up and step.kernel.mass > 1
    return 0.0 if routes else 1.0


_fresh = count()


def squares(
    flat: Flat, raw: dict[Port, list[GridEdge]], outputs: list[Port]
) -> dict[Port, list[GridEdge]]:
    """Fixed edges, and runs of them, as they act on powers: `fixed.square_fixed` on a grid."""
    if not any(e.kind == "fixed" for found in raw.values() for e in found):
        return raw
    order = sorted(set(raw) | set(outputs), key=lambda port: (-port[0], port[1]))
    result = joined(raw, order, outputs, lambda s, p: _powers(flat, s, p))
    flat.approximate = _remembers(flat, result, order)
    if flat.approximate:
        result, whole = lift(result, order, outputs, _Moves(flat))
        # a padding that repeats pixels of the image adds up gradients of pixels far apart
        flat.approximate = not whole or flat.mode in ("reflect", "replicate", "circular")
        flat.uneven = True
    return result


def _remembers(flat: Flat, arriving: dict[Port, list[GridEdge]], order: list[Port]) -> bool:
    """`fixed.remembers`; a padding by the image's own pixels adds up gradients of pixels too."""

    def ends(e: GridEdge) -> tuple[bool, bool]:
        if e.run:
            return _shared(e.terms(), outputs=True), _shared(e.terms(), outputs=False)
        return False, e.key != "still" and _folds(flat.nodes[e.key], flat.mode)

    return remembers(arriving, order, ends)


def _folds(node: FlatNode, mode: str) -> bool:
    """Whether one tap reads a pixel of the image at several places of the padded image."""
    step = node.step
    if step is None or step.up:
        return False
    if mode == "circular":  # places a whole turn apart
        rows = zip(node.before, node.shape, step.stride)
        return any(m > n // math.gcd(n, s) for n, m, s in rows)
    return mode in ("reflect", "replicate") and any((*step.before, *step.after))


def _shared(terms: Terms, outputs: bool) -> bool:
    """Whether some output pixel reads several input pixels, or is read with others by one."""
    return any(
        m is not None
        and int((np.bincount(m.indices) if outputs else np.diff(m.indptr)).max(initial=0)) > 1
        for _, axes in terms
        for m in axes
    )


def _powers(flat: Flat, source: Port, paths: list[tuple[GridEdge, ...]]) -> GridEdge:
    """One edge from `source` that acts on powers as all `paths` together."""
    moves = [e for path in paths for e in path if e.key != "still"]
    gains = [math.prod(float(e.gain) for e in path) for path in paths]
    before, memory, nearly = memories(paths[0])
    if not moves:
        gain = gains[0] if len(paths) == 1 else sum(map(math.sqrt, gains)) ** 2
        still = paths[0][0].terms
        return GridEdge(source, gain, "random", "still", still, None, memory, before, nearly)
    if len(paths) > 1 or sum(e.kind == "fixed" for e in moves) > 1:
        flat.uneven = True
    # taps of mass 1 as amplitudes: their own Σv² is part of the gain
    own = [math.prod(_power(flat, e) for e in path) for path in paths]
    total = sum(math.sqrt(g / p) for g, p in zip(gains, own)) ** 2 if len(paths) > 1 else gains[0]

    @cache
    def run() -> Terms:
        found: Terms = ()
        for path, gain, power in zip(paths, gains, own):
            run: Terms = ((1.0, (None,) * flat.ndim),)
            for e in path:
                run = layers.composed(e.terms(), run)
            amplitude = math.sqrt(gain / power / total)
            found += tuple((amplitude * w, axes) for w, axes in run)
        return found

    @cache
    def terms() -> Terms:
        return layers.squared(run())

    for path in paths:
        unmasked(path)
    return GridEdge(source, total, "random", next(_fresh), terms, run, memory, before, nearly)


class _Moves:
    """What edges on a grid do to lags, in pixels of the node that they arrive at."""

    def __init__(self, flat: Flat):
        self.flat, self.ndim = flat, flat.ndim
        self.shapes: dict[Any, tuple] = {}
        self.products: dict[Any, Any] = {}

    def _shape(self, edge: GridEdge) -> tuple[tuple[float, int], ...]:
        """By axis, pixels in per pixel out of a run, and how many one output reads."""
        if edge.key not in self.shapes:
            assert edge.run is not None
            rows = zip(*(axes for _, axes in edge.run()))
            self.shapes[edge.key] = tuple(
                layers.scale_and_reach(axis, self.flat.mode == layers.TORUS) for axis in rows
            )
        return self.shapes[edge.key]

    def span(self, edge: GridEdge, port: Port) -> Lag:
        return tuple(reach for _, reach in self._shape(edge))

    def back(self, edge: GridEdge, port: Port, reach: Lag) -> Lag:
        if edge.run is not None:
            return tuple(math.ceil((n + w) / s) for n, (s, w) in zip(reach, self._shape(edge)))
        step = None if edge.key == "still" else self.flat.nodes[edge.key].step
        if step is None:
            return reach
        return tuple(n * s if step.up else n // s for n, s in zip(reach, step.stride))

    def of(self, edge: GridEdge, port: Port, lag: Lag, out: Lag, farthest: Lag):
        """Yields (lag at the port, edge, whether exact) for lags up to `farthest`; `out` is `lag`
        of the reader or −lag."""
        origin = reader(edge.reader, lag)
        if edge.run is None:
            for to, new, exact in self._kept(edge, port, origin, lag):
                if within(to, farthest):
                    yield to, new, exact
            return
        found = edge.run()
        ranges = [
            range(max(-m, math.floor(s * n) - w), min(m, math.ceil(s * n) + w) + 1)
            for n, (s, w), m in zip(out, self._shape(edge), farthest)
        ]
        ring, sizes = self.flat.mode == layers.TORUS, self.flat.nodes[port[0]].shape
        for to in itertools.product(*ranges):
            if to < (0,) * self.ndim:
                continue  # −to has it
            terms = layers.lagged(found, sizes, to, lag, out == lag, ring, self.products)
            memory = (edge.memory if any(to) else 1.0) * (edge.before if any(lag) else 1.0)
            if terms and memory:
                gain, exact = edge.gain * memory, not edge.nearly or memory == 1
                new = replace(edge, reader=origin, gain=gain, run=None)
                key = edge.key if not any(to) and not any(lag) else next(_fresh)
                yield to, replace(new, key=key, terms=lambda t=terms: t), exact

    def _kept(self, edge: GridEdge, port: Port, origin: Port, lag: Lag):
        if not any(lag):
            yield lag, replace(edge, reader=origin), True
            return
        step = None if edge.key == "still" else self.flat.nodes[edge.key].step
        to, exact, terms = lag, not edge.nearly, edge.terms
        if step is not None:
            if step.up and any(n % s for n, s in zip(lag, step.stride)):
                return
            to = tuple(n // s if step.up else n * s for n, s in zip(lag, step.stride))
            if self.flat.mode != layers.TORUS:
                sizes = self.flat.nodes[port[0]].shape
                terms = cache(lambda: layers.both_inside(edge.terms(), sizes, to))
        if edge.memory:
            gain = edge.gain * edge.memory
            yield to, replace(edge, reader=origin, gain=gain, terms=terms), exact


def _power(flat: Flat, edge: GridEdge) -> float:
    """Σv² of the edge's taps of mass 1."""
    if edge.kind != "fixed":
        return 1.0
    node = flat.nodes[edge.key]
    if node.step is None:
        return 1 / math.prod(node.before)
    kernel = node.step.kernel
    return float(sum(Fraction(t) ** 2 for t in kernel.exact) / Fraction(kernel.scale) ** 2)
