"""From a graph to its walk: links to edges, edges to probabilities, runs to single edges."""

from __future__ import annotations

from functools import partial
from typing import Any

from erftheory.network.base import Network
from erftheory.network.graph import Concat, Graph, Loop, Sum
from erftheory.network.imported import Channels, Scale
from erftheory.network.kernel import Kernel, NegativeTaps
from erftheory.network.layers import Activation, Dropout, MaxPool, Step
from erftheory.theory.lowering.branches import leads_through
from erftheory.theory.lowering.lags import Moments, second_moments
from erftheory.theory.lowering.squares import PlaneLags
from erftheory.theory.lowering.unbounded import refuse_unbounded
from erftheory.theory.lowering.vertices import contracted, normalised
from erftheory.theory.units.slopes import mask_gate, slope_gate
from erftheory.theory.walk.links import Gains, Link, structural_gains
from erftheory.theory.walk.walk import Edge, Factor, Gate, Port, RawEdge, Walk, merge_factors
from erftheory.theory.walk.weights import Weight, power, to_float


def build(
    network: Network,
    signal: str = "variance",
    gains: Gains | None = None,
    raw: bool = False,
    endless: bool = False,
) -> Walk:
    """The walk of a network.

    Args:
      signal: "variance" squares fixed taps, "gradient" takes all taps as weights.
      gains: power gain of every link, from the forward pass; None weights every tap as given.
      raw: weights of edges are the numbers of equal edges, not probabilities.
      endless: what reads whole axes is taken as passing every pixel alone.

    Raises:
      ValueError: a global operation, whose receptive field has no end.
    """
    graph = network.graph
    if not endless:
        refuse_unbounded(network)
    if gains is None:
        line = None if raw else _Lowering(graph, graph.fine, signal, Gains()).line()
        if line is not None:
            return line
        gains = structural_gains(graph, signal)
    return _Lowering(graph, graph.fine, signal, gains, raw).walk()


def states(graph: Graph, signal: str, gains: Gains) -> tuple[Moments, tuple[int, ...]]:
    """What arrives at every port before it is normalised, and lattice points per pixel."""
    fine = graph.fine
    lowering = _Lowering(graph, fine, signal, gains)
    raw, outputs = lowering.gradients(), [p for p, _ in lowering.outputs()]
    if signal == "gradient":
        return Moments(raw, lowering.order(raw, outputs), True, False), fine
    inputs = [p for p, _ in lowering.inputs()]
    return lowering.moments(raw, outputs, inputs, runs=False), fine


def transferred(
    graph: Graph, gains: Gains, start: dict[Port, Weight], stop: int = 0
) -> dict[Port, Weight]:
    """Power that arrives at the ports of node `stop` from powers, uncorrelated, at some ports."""
    lowering = _Lowering(graph, graph.fine, "variance", gains)
    raw = lowering.gradients(max(node for node, _ in start), stop)
    ends = [(stop, g) for g in range(len(gains.channels[stop]))]
    found = lowering.moments(raw, list(start), ends)
    mass: dict[Any, Weight] = dict(start)
    for state in found.order:
        for e in found.arriving.get(state, ()):
            mass[state] = mass.get(state, 0) + _times(e.gain, mass[e.reader])
    return {port: mass[port] for port in ends if port in mass}


def through(graph: Graph, gains: Gains, index: int) -> list[list[Weight]]:
    """Amplitudes of the paths without weights through a repetition, from group to group."""
    return _Lowering(graph, graph.fine, "variance", gains).passed(index)


def _times(a: Weight, b: Weight) -> Weight:
    if isinstance(a, float) or isinstance(b, float):
        return to_float(to_float(a) * to_float(b))
    return a * b


class _Lowering:
    def __init__(
        self, graph: Graph, fine: tuple[int, ...], signal: str, gains: Gains, raw: bool = False
    ):
        self.graph, self.fine, self.signal, self.gains = graph, fine, signal, gains
        self.raw = raw
        self.means: dict[int, list[list[Weight]]] = {}  # `passed`, by repetition
        self.ndim = graph.ndim
        self.still = (0,) * self.ndim
        # lattice points per pixel of every node
        self.jumps = graph.jumps(fine)

    def walk(self) -> Walk:
        raw, outputs, inputs = self.gradients(), self.outputs(), self.inputs()
        exact, lagged = True, False
        if self.signal == "gradient":
            order = self.order(raw, [p for p, _ in outputs])
        else:
            found = self.moments(raw, [p for p, _ in outputs], [p for p, _ in inputs])
            raw, order, exact, lagged = found.arriving, found.order, found.exact, found.lagged
        vertices = normalised(raw, order, outputs, inputs, self.raw)
        vertices = contracted(vertices, self.still)
        return Walk(self.ndim, self.fine, self.jumps[-1], vertices, not exact, lagged)

    def line(self) -> Walk | None:
        """The walk of layers in a row, whose gains cancel; None if it takes more to tell."""
        factors, shift = (), self.still
        for index in range(len(self.graph.nodes) - 1, 0, -1):
            node, step = self.graph.nodes[index], self.graph.own_steps[index]
            if node.inputs != (index - 1,) or isinstance(node.op, Sum | Concat | Scale):
                return None
            frame = self.jumps[index - 1]
            if isinstance(node.op, Loop):
                body = _Lowering(node.op.graph, frame, self.signal, self.gains).line()
                if body is None:
                    return None
                more, by = _powered(body, node.op.times)
            elif step is None:
                continue
            elif step.up or step.kind != "random":  # grids, and correlations behind fixed taps
                return None
            else:
                more, by = self._window(step, frame, index)[:2]
            factors += more
            shift = tuple(a + b for a, b in zip(shift, by))
        if not factors:
            return None
        edge = Edge(0, 1, merge_factors(factors), shift)
        return Walk(self.ndim, self.fine, self.jumps[-1], ((), (edge,)))

    def moments(
        self,
        raw: dict[Port, list[RawEdge]],
        outputs: list[Port],
        inputs: list[Port],
        runs: bool = True,
    ) -> Moments:
        order = self.order(raw, outputs)
        return second_moments(raw, order, outputs, inputs, PlaneLags(self.jumps), runs)

    def outputs(self) -> list[tuple[Port, Weight]]:
        last = len(self.graph.nodes) - 1
        return [((last, g), c) for g, c in enumerate(self.gains.channels[last])]

    def inputs(self) -> list[tuple[Port, Weight]]:
        return [((0, g), c) for g, c in enumerate(self.gains.channels[0])]

    def order(self, raw: dict[Port, list[RawEdge]], outputs: list[Port]) -> list[Port]:
        return sorted(set(raw) | set(outputs), key=lambda p: (-p[0], p[1]))

    def gradients(self, last: int | None = None, stop: int = 0) -> dict[Port, list[RawEdge]]:
        """All links of the graph between two nodes as raw edges, by the port they arrive at."""
        raw: dict[Port, list[RawEdge]] = {}
        last = len(self.graph.nodes) - 1 if last is None else last
        for index in range(last, stop, -1):
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
            return self._repeated(node.op, index, link, frame)
        step = self.graph.own_steps[index]
        if step is not None:
            known = self.graph.__dict__.setdefault("_windows", {})
            key = self.signal, frame, index
            if key not in known:
                known[key] = self._window(step, frame, index)
            return RawEdge(reader, link.gain, *known[key])
        # which channels are picked is not known, and those of several laws stay apart in truth
        mixes = not isinstance(node.op, Sum | Concat) and len(self._feeding(index, link)) > 1
        kind = "random" if mixes or isinstance(node.op, Channels) else "fixed"
        gate = self._gate(index, link)
        return RawEdge(reader, link.gain, (), self.still, None, kind, gate)

    def _feeding(self, index: int, link: Link) -> list[Link]:
        links = self.gains.links[index]
        return [k for k in links if k.target == link.target and k.input == link.input]

    def _gate(self, index: int, link: Link) -> Gate | None:
        op = self.graph.nodes[index].op
        if isinstance(op, Dropout) and op.rate > 0:
            return mask_gate(op.rate)
        if not isinstance(op, Activation) or op.name == "linear":
            return None
        name, laws = self.gains.gates.get(index, (op.curve, ()))
        return slope_gate(laws[link.source], name) if laws else Gate(exact=False)

    def _repeated(
        self, op: Loop, index: int, link: Link, frame: tuple[int, ...]
    ) -> RawEdge:
        factors, shift = (), self.still
        for count, inner in self.gains.runs[index]:
            body = _Lowering(op.graph, frame, self.signal, inner, self.raw)
            more, by = _powered(body.walk(), count)
            factors += more
            shift = tuple(a + b for a, b in zip(shift, by))
        reader, mean = (index, link.target), None
        if self.signal == "variance":
            mean = partial(self._mean, index, link)
        return RawEdge(reader, link.gain, factors, shift, None, "random", through=mean)

    def _mean(self, index: int, link: Link) -> Weight:
        if index not in self.means:
            self.means[index] = self.passed(index)
        return self.means[index][link.source][link.target]

    def passed(self, index: int) -> list[list[Weight]]:
        """`through` a repetition."""
        op, total = self.graph.nodes[index].op, None
        assert isinstance(op, Loop)
        channels = self.gains.channels
        groups = len(channels[self.graph.nodes[index].inputs[0]]), len(channels[index])
        if not leads_through(op.graph):
            return [[0] * groups[1] for _ in range(groups[0])]
        frame = self.jumps[self.graph.nodes[index].inputs[0]]
        for count, inner in self.gains.runs[index]:  # output first
            once = _power(_Lowering(op.graph, frame, "variance", inner).through(), count)
            total = once if total is None else _product(once, total)
        assert total is not None
        if (len(total), len(total[0])) != groups:  # a chain's gains are those of one group
            return [[total[0][0] * (s == t) for t in range(groups[1])] for s in range(groups[0])]
        return total

    def through(self) -> list[list[Weight]]:
        """Amplitudes of the paths without random weights, by group of the input and the output.

        Fixed layers with taps are written out where they repeat (`prepare`), so that paths stay
        at one pixel here.
        """
        raw, found = self.gradients(), []
        for port, _ in self.outputs():
            mean: dict[Port, Weight] = {port: 1}
            for at in self.order(raw, [port]):
                for e in raw.get(at, ()):
                    if e.mean and e.reader in mean and len(e.amplitudes) == 1:
                        tap = next(iter(e.amplitudes.values()))
                        mean[at] = mean.get(at, 0) + e.mean * tap * mean[e.reader]
            found.append([mean.get(p, 0) for p, _ in self.inputs()])
        return [list(row) for row in zip(*found)]

    def _window(
        self, step: Step, frame: tuple[int, ...], index: int
    ) -> tuple[tuple[Factor, ...], tuple[int, ...], tuple[int, ...] | None, str]:
        """Factors, shift, grid and kind of the edge of a layer."""
        signed = step.signed if step.kind == "fixed" else None
        step = step.of(self.signal)
        kernel, restrict = step.kernel, None
        if self.signal == "variance" and signed is not None:
            kernel = signed  # amplitudes, whose signs matter where paths meet
        if step.up:
            # g_in(i) = Σ_a g_out(s·i + d·a − p) v(a): steps of −(d·a − p) at the output's jump
            out = self.jumps[index]
            spacing = tuple(d * j for d, j in zip(step.dilation, out))
            shift = tuple(j * (p - span) for j, p, span in zip(out, step.before, step.span))
            kernel = Kernel(kernel.shape, kernel.taps and tuple(reversed(kernel.taps)))
            restrict = frame if any(s > 1 for s in step.stride) else None
        else:
            spacing = tuple(d * j for d, j in zip(step.dilation, frame))
            shift = tuple(-p * j for p, j in zip(step.before, frame))
        if self.signal == "variance" and step.kind == "random" and kernel.signed:
            raise NegativeTaps
        if step.kind == "fixed" and self.signal == "variance" and kernel.trivial and not restrict:
            return (), shift, None, "fixed"  # a crop, a pad, a slice
        routes = isinstance(self.graph.nodes[index].op, MaxPool)
        kind = "routing" if routes else "fixed" if step.kind == "fixed" else "random"
        return (Factor(kernel, spacing),), shift, restrict, kind


def _power(matrix: list[list[Weight]], count: int) -> list[list[Weight]]:
    if len(matrix) == len(matrix[0]) == 1:
        value = matrix[0][0]
        size = value if value in (0, 1) else power(abs(to_float(value)), count)
        return [[-size if value < 0 and count % 2 else size]]
    result = matrix
    for _ in range(count - 1):
        result = _product(result, matrix)
    return result


def _product(a: list[list[Weight]], b: list[list[Weight]]) -> list[list[Weight]]:
    return [[sum(x * y for x, y in zip(row, column)) for column in zip(*b)] for row in a]


def _powered(walk: Walk, count: int) -> tuple[tuple[Factor, ...], tuple[int, ...]]:
    """A repeated walk as factors and a shift: an unforked one is just more of its kernels."""
    edge = walk.vertices[-1][0] if len(walk.vertices[-1]) == 1 else None
    if len(walk.vertices) == 2 and edge is not None and edge.weight == 1:
        factors = tuple(Factor(f.kernel, f.spacing, f.count * count) for f in edge.factors)
        return factors, tuple(count * s for s in edge.shift)
    return (Factor(walk, (1,) * walk.ndim, count),), (0,) * walk.ndim
