"""From a graph to its walk: links to edges, edges to probabilities, runs to single edges."""

from __future__ import annotations

from fractions import Fraction
from math import lcm

from erftheory.network.base import Network
from erftheory.network.graph import Graph, Loop
from erftheory.network.kernel import Kernel
from erftheory.network.layers import Dropout, Layer, Step
from erftheory.theory.fixed import square_fixed
from erftheory.theory.gains import Gains, Link, structural_gains
from erftheory.theory.lags import agreement
from erftheory.theory.walk import Edge, Factor, Port, RawEdge, Walk, Weight, merge_factors


def build(
    network: Network,
    signal: str = "variance",
    gains: Gains | None = None,
    raw: bool = False,
    lifted: bool = False,
) -> Walk:
    """The walk of a network.

    Args:
      signal: "variance" squares fixed taps, "gradient" takes all taps as weights.
      gains: power gain of every link, from the forward pass; None weights every tap as given.
      raw: weights of edges are the numbers of equal edges, not probabilities.
      lifted: follow correlations of gradients behind fixed layers; repetitions are written out.

    Raises:
      ValueError: a global operation, whose receptive field has no end.
    """
    graph = network.graph
    if graph.has_global:
        raise ValueError(
            "network: got a global operation (its receptive field is unbounded); takes a network "
            'up to its last feature map, see until(), or one read with hold="global"'
        )
    if gains is None:
        gains = structural_gains(graph, signal)
    return _Lowering(graph, _fine(graph), signal, gains, raw, lifted).walk()


def raw_edges(
    graph: Graph, signal: str, gains: Gains
) -> tuple[dict[Port, list[RawEdge]], tuple[int, ...]]:
    """The edges of a walk before they are normalised, by the port they arrive at, and `fine`."""
    fine = _fine(graph)
    lowering = _Lowering(graph, fine, signal, gains)
    return lowering.edges()[0], fine


def _fine(graph: Graph) -> tuple[int, ...]:
    return tuple(lcm(*(rate[a].denominator for rate in graph.rates)) for a in range(graph.ndim))


class _Lowering:
    def __init__(
        self,
        graph: Graph,
        fine: tuple[int, ...],
        signal: str,
        gains: Gains,
        raw: bool = False,
        lifted: bool = False,
    ):
        self.graph, self.fine, self.signal, self.gains = graph, fine, signal, gains
        self.raw, self.lifted = raw, lifted
        self.ndim = graph.ndim
        self.still = (0,) * self.ndim
        # lattice points per pixel of every node
        self.jumps = [tuple(int(r * f) for r, f in zip(rate, fine)) for rate in graph.rates]

    def edges(self) -> tuple[dict[Port, list[RawEdge]], bool]:
        """Edges by the port they arrive at, fixed layers squared; `Walk.correlated`."""
        raw = self._edges()
        if self.signal == "gradient":
            return raw, False
        return square_fixed(raw, self._order(raw), self._outputs(), self.jumps, self.lifted)

    def walk(self) -> Walk:
        raw, correlated = self.edges()
        vertices = _normalise(raw, self._order(raw), self._outputs(), self._inputs(), self.raw)
        vertices = _contract(vertices, self.still)
        return Walk(self.ndim, self.fine, self.jumps[-1], vertices, correlated)

    def _outputs(self) -> list[tuple[Port, Weight]]:
        last = len(self.graph.nodes) - 1
        return [((last, g), c) for g, c in enumerate(self.gains.channels[last])]

    def _inputs(self) -> list[tuple[Port, Weight]]:
        return [((0, g), c) for g, c in enumerate(self.gains.channels[0])]

    def _order(self, raw: dict[Port, list[RawEdge]]) -> list[Port]:
        outputs = [p for p, _ in self._outputs()]
        return sorted(set(raw) | set(outputs), key=lambda p: (-p[0], p[1]))

    def _edges(self) -> dict[Port, list[RawEdge]]:
        """All links of the graph as raw edges, by the port they arrive at."""
        raw: dict[Port, list[RawEdge]] = {}
        for index in range(len(self.graph.nodes) - 1, 0, -1):
            node = self.graph.nodes[index]
            for link in self.gains.links[index]:
                arrive = (node.inputs[link.input], link.source)
                raw.setdefault(arrive, []).append(self._edge(index, link))
        return raw

    def _edge(self, index: int, link: Link) -> RawEdge:
        node = self.graph.nodes[index]
        reader = (index, link.target)
        frame = self.jumps[node.inputs[link.input]]
        if isinstance(node.op, Loop):
            factors, shift = (), self.still
            for count, inner in self.gains.runs[index]:
                part = _Lowering(node.op.graph, frame, self.signal, inner, self.raw).walk()
                more, by = _powered(part, count)
                factors += more
                shift = tuple(a + b for a, b in zip(shift, by))
            return RawEdge(reader, link.gain, factors, shift, None, "random")
        step = node.op.step(self.ndim) if isinstance(node.op, Layer) else None
        if step is None:
            masked = isinstance(node.op, Dropout) and node.op.rate > 0
            kind = "masked" if masked else "plain"
            memory = self._memory(index, link) if self.lifted else 1.0
            nearly = memory != 1 and not masked
            return RawEdge(
                reader, link.gain, (), self.still, None, kind, memory=memory, nearly=nearly
            )
        return self._step_edge(reader, link.gain, step.of(self.signal), frame, index)

    def _memory(self, index: int, link: Link) -> float:
        op = self.graph.nodes[index].op
        if isinstance(op, Dropout):
            return 1 - op.rate
        name, laws = self.gains.gates.get(index, ("linear", ()))
        return agreement(laws[link.source], name) if laws else 1.0

    def _step_edge(
        self, reader: Port, gain: Weight, step: Step, frame: tuple[int, ...], index: int
    ) -> RawEdge:
        kernel, restrict = step.kernel, None
        if step.up:
            # g_in(i) = Σ_a g_out(s·i + d·a − p) v(a): steps of −(d·a − p) at the output's jump
            out = self.jumps[index]
            spacing = tuple(d * j for d, j in zip(step.dilation, out))
            shift = tuple(
                j * (p - d * (k - 1))
                for j, p, d, k in zip(out, step.before, step.dilation, kernel.shape)
            )
            kernel = Kernel(kernel.shape, kernel.taps and tuple(reversed(kernel.taps)))
            restrict = frame if any(s > 1 for s in step.stride) else None
        else:
            spacing = tuple(d * j for d, j in zip(step.dilation, frame))
            shift = tuple(-p * j for p, j in zip(step.before, frame))
        if self.signal == "variance" and step.kind == "random" and kernel.signed:
            raise ValueError(
                "taps: got a negative tap in the variance signal; takes variances >= 0 there "
                '(signed weights belong to signal="gradient")'
            )
        kind = "fixed" if step.kind == "fixed" else "random"
        if kind == "fixed" and step.kernel.trivial and restrict is None:
            kind = "plain"  # a crop, a pad, a slice: pixels move together
        factor = (Factor(kernel, spacing),)
        routes = step.kind == "routing" and not step.up and step.kernel.mass > 1
        memory = 0.0 if routes else 1.0
        return RawEdge(
            reader, gain, factor, shift, restrict, kind, memory=memory, nearly=routes
        )


def _powered(walk: Walk, count: int) -> tuple[tuple[Factor, ...], tuple[int, ...]]:
    """A repeated walk as factors and a shift: an unforked one is just more of its kernels."""
    edge = walk.vertices[-1][0] if len(walk.vertices[-1]) == 1 else None
    if len(walk.vertices) == 2 and edge is not None and edge.weight == 1:
        factors = tuple(Factor(f.kernel, f.spacing, f.count * count) for f in edge.factors)
        return factors, tuple(count * s for s in edge.shift)
    return (Factor(walk, (1,) * walk.ndim, count),), (0,) * walk.ndim


def _normalise(
    raw: dict[Port, list[RawEdge]],
    order: list[Port],
    outputs: list[tuple[Port, Weight]],
    inputs: list[tuple[Port, Weight]],
    counted: bool,
) -> list[list[Edge]]:
    """Scale every signal to mass 1; ports whose mixtures agree share one vertex.

    With M the mass of each port, g/M obeys the same recursion with weights gain·M(reader)/M, so
    the scales of a deep net never overflow and the weights at a fork are probabilities.
    """
    vertices: list[list[Edge]] = [[]]
    known: dict[object, int] = {}
    place: dict[Port, int] = {}
    mass: dict[Port, Weight] = {port: 1 for port, _ in outputs}
    start = set(mass)
    for port in order:
        edges = raw.get(port, [])
        arrivals = [(e.gain * mass[e.reader], place[e.reader], e) for e in edges]
        if port in start:
            arrivals.append((1, 0, RawEdge(port, 1, (), (), None, "plain")))
        if not arrivals:
            continue
        total = sum(a[0] for a in arrivals)
        mass[port] = total
        merged: dict[object, Weight] = {}
        for part, source, e in arrivals:
            key = (source, e.factors, e.shift, e.restrict)
            share = 1 if counted or len(arrivals) == 1 else _ratio(part, total)
            merged[key] = merged.get(key, 0) + share
        place[port] = _vertex(merged, vertices, known)
    parts = [(c, p) for p, c in inputs if p in mass]
    whole = sum(c * mass[p] for c, p in parts)
    if len({place[p] for _, p in parts}) > 1:
        still = (0,) * len(next(e.shift for v in vertices for e in v))
        merged = {}
        for c, p in parts:
            key = (place[p], (), still, None)
            merged[key] = merged.get(key, 0) + _ratio(c * mass[p], whole)
        _vertex(merged, vertices, known)
        return vertices
    last = place[parts[0][1]]
    return vertices[: last + 1]


def _ratio(part: Weight, total: Weight) -> Weight:
    exact = not isinstance(part, float) and not isinstance(total, float)
    return Fraction(part) / total if exact else part / total


def _vertex(merged: dict, vertices: list[list[Edge]], known: dict[object, int]) -> int:
    if len(merged) == 1:
        (source, factors, shift, restrict), weight = next(iter(merged.items()))
        if not factors and not any(shift) and restrict is None and weight == 1:
            return source  # nothing happened: the same vertex
    # mixtures that agree to 12 digits are one: rounding must not split what theory shares
    key = tuple(
        (k, w if isinstance(w, (int, Fraction)) else float(f"{w:.12e}")) for k, w in merged.items()
    )
    if key not in known:
        vertices.append([Edge(k[0], w, k[1], k[2], k[3]) for k, w in merged.items()])
        known[key] = len(vertices) - 1
    return known[key]


def _contract(vertices: list[list[Edge]], still: tuple[int, ...]) -> tuple[tuple[Edge, ...], ...]:
    """Join unforked runs: a vertex of one unrestricted edge that one edge reads disappears."""
    readers = [0] * len(vertices)
    for edges in vertices:
        for e in edges:
            readers[e.source] += 1
    new: list[list[Edge]] = [[]]
    place = {0: 0}
    joined: dict[int, Edge] = {}
    for v, edges in enumerate(vertices[1:], start=1):
        row = []
        for e in edges:
            shift = e.shift or still
            before = joined.get(e.source)
            if before is None:
                row.append(Edge(place[e.source], e.weight, e.factors, shift, e.restrict))
            else:
                shift = tuple(a + b for a, b in zip(before.shift, shift))
                factors = before.factors + e.factors
                row.append(Edge(before.source, e.weight, factors, shift, e.restrict))
        last = v == len(vertices) - 1
        lone = len(row) == 1 and row[0].weight == 1 and row[0].restrict is None
        if lone and readers[v] == 1 and not last:
            joined[v] = row[0]
        else:
            new.append(row)
            place[v] = len(new) - 1
    return tuple(
        tuple(Edge(e.source, e.weight, merge_factors(e.factors), e.shift, e.restrict) for e in row)
        for row in new
    )
