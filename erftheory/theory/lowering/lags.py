"""Second moments of gradients: powers, and the products that lead back to them.

With S_AB(t, δ) = E[g_A(t) g_B(t + δ)] for ports A and B of the network (the outputs of its
operations, group by group), the power at the input is S_II(t, 0). A random layer of variances v
keeps the lag, S_PP(·, δ) = v ∗ S_RR(·, δ), and ends every product with something else. Fixed
amplitudes f of a port's readers R mix ports and lags,

    S_PP(t, δ) = Σ f_a f′_b S_RR′(t − a, δ + a − b),

so that identities which meet again add amplitudes, and a fixed layer hands correlations on to the
next. A product of two ports opens the one nearer to the input, whose readers lie nearer to the
output: every state is a finite sum of states above it. Only states that the input asks for and that
an output reaches are kept; a power is called by its port, (node, group), another state (A, B, δ).

An activation multiplies by E[φ′²] where both gradients pass one pixel, by E[φ′φ′_δ] at two pixels
(as correlated as any two of a channel, as in the forward pass), by E[φ′] where the other goes
elsewhere. Max pooling sends a gradient to one pixel of its window: to a pixel with probability p,
beside an identity with the cross term p. At two pixels it ends the product.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from erftheory.theory.lowering.runs import contracted
from erftheory.theory.units.slopes import together
from erftheory.theory.walk.walk import amplitude, read_by
from erftheory.theory.walk.weights import Weight, quotient

MOST = 1000  # products up to which all lags are followed; beyond, those that one fixed layer makes
Lag = tuple[int, ...]
Port = tuple[int, int]
State = Any  # a port, for its power, or (port, port, lag)


@dataclass(frozen=True)
class Moments:
    """Edges of powers and products.

    Attributes:
      arriving: by state, edges from the states that it is a sum of.
      order: the states, from the output to the input.
      exact: whether they are all there is to say: no activation, no max pool, no limit met a lag.
      lagged: whether there are products of different pixels.
    """

    arriving: dict[State, list[Any]]
    order: list[State]
    exact: bool
    lagged: bool


def second_moments(
    raw: dict[Port, list],
    order: list[Port],
    outputs: list[Port],
    inputs: list[Port],
    moves: Any,
    runs: bool = True,
) -> Moments:
    """Edges of powers, and of what they need, from edges of gradients.

    Args:
      raw: edges by the port they arrive at; `order` has all ports, readers first.
      outputs, inputs: where gradients start, and whose powers are asked for.
      moves: what edges do, on the plane (`squares.PlaneLags`) or on an image (`ImageLags`).
      runs: fixed layers in a row become one edge; False keeps the states of all ports.
    """
    known = set(order)
    raw = {port: [e for e in found if e.reader in known] for port, found in raw.items()}
    if runs and any(e.kind != "random" for found in raw.values() for e in found):
        raw = contracted(raw, order, outputs, moves)
    if _stay_apart(raw, moves):
        return _powers(raw, order, outputs, inputs)
    bounds = _Bounds(raw, order, moves)
    limit: Lag | None = None
    while True:
        found = _States(raw, order, outputs, moves, bounds, limit).of(inputs)
        if found is not None:
            return found
        limit = bounds.single if limit is None else tuple(n // 2 for n in limit)


def _stay_apart(raw: dict[Port, list], moves: Any) -> bool:
    """True if for sure no gradient comes to another of its port or of a pixel beside it.

    One max pool may hand on to several pixels; it takes another, or a fixed layer, to tell.
    """
    pools = 0
    for edges in raw.values():
        loose = 0
        for e in edges:
            if e.kind == "random":
                loose += len(edges) > 1 and bool(e.mean)
                continue
            loose += 1
            pools += e.kind == "routing"
            if e.kind == "fixed" and not (e.still and e.square == 1):
                return False
        if loose > 1 or pools > 1 or pools and moves.folded:
            return False
    return True


def _powers(
    raw: dict[Port, list], order: list[Port], outputs: list[Port], inputs: list[Port]
) -> Moments:
    """Edges of powers alone, where nothing meets and pixels stay apart: those of gradients."""
    asked = set(inputs)
    for port in reversed(order):
        if port in asked:
            asked.update(e.reader for e in raw.get(port, ()))
    arriving: dict[State, list[Any]] = {}
    kept, reached = [], set(outputs)
    for port in order:
        if port in asked:
            edges = [e for e in raw.get(port, ()) if e.reader in reached and e.gain]
            if edges:
                reached.add(port)
                arriving[port] = edges
            if port in reached:
                kept.append(port)
    return Moments(arriving, kept, True, False)


class _Bounds:
    """Which lags can be other than 0, seen from the output.

    Paths of fixed edges from a port move gradients by `hull`, and at their ends there are lags
    that a random layer kept.
    """

    def __init__(self, raw: dict[Port, list], order: Sequence[Port], moves: Any):
        still = (0,) * moves.ndim
        self.hull: dict[Port, tuple[Lag, Lag]] = defaultdict(lambda: (still, still))
        self.kept: dict[Port, Lag] = defaultdict(lambda: still)
        self.single = still  # width of the widest fixed edge
        for port in order:
            low, high, kept = still, still, still
            for e in raw.get(port, ()):
                if e.kind == "random":
                    kept = tuple(map(max, kept, self.farthest(e.reader, e.reader)[1]))
                    if self.hull[e.reader] == (still, still) or not e.mean:
                        continue
                first, last = moves.hull(e, port)
                below, above = self.hull[e.reader]
                low = tuple(min(x, a + b) for x, a, b in zip(low, first, below))
                high = tuple(max(x, a + b) for x, a, b in zip(high, last, above))
                kept = tuple(map(max, kept, self.kept[e.reader]))
                if e.kind == "fixed":
                    width = tuple(b - a for a, b in zip(first, last))
                    self.single = tuple(map(max, self.single, width))
            self.hull[port], self.kept[port] = (low, high), kept

    def farthest(self, a: Port, b: Port) -> tuple[Lag, Lag]:
        """The smallest and largest lag of a product, one entry an axis."""
        kept = tuple(map(min, self.kept[a], self.kept[b]))
        (low, high), (first, last) = self.hull[a], self.hull[b]
        return (
            tuple(f - h - k for f, h, k in zip(first, high, kept)),
            tuple(n - m + k for n, m, k in zip(last, low, kept)),
        )


class _States:
    """One search for the states that the powers at the input need."""

    def __init__(self, raw, order, outputs, moves, bounds: _Bounds, limit: Lag | None):
        self.raw, self.moves, self.bounds, self.limit = raw, moves, bounds, limit
        self.rank = {port: i for i, port in enumerate(order)}
        self.outputs = set(outputs)
        self.still: Lag = (0,) * moves.ndim
        self.ranges: dict[tuple[Port, Port], tuple[Lag, Lag]] = {}

    def of(self, inputs: list[Port]) -> Moments | None:
        """The moments, or None if there are too many."""
        found: dict[State, list[tuple[Any, bool]]] = {}
        waiting: list[State] = [port for port in inputs if port in self.rank]
        products = 0
        while waiting:
            state = waiting.pop()
            if state in found:
                continue
            found[state] = list(self._edges(state))
            waiting += [e.reader for e, _ in found[state] if e.reader not in found]
            products += len(state) == 3 and any(state[2])  # pairs of ports at one pixel are few
            if products > MOST and any(self.limit or (1,)):
                return None
        return self._alive(found)

    def _alive(self, found: dict[State, list[tuple[Any, bool]]]) -> Moments:
        def place(state: State) -> tuple:
            return (self.rank[state],) if len(state) == 2 else (self.rank[state[0]], *state[1:])

        arriving: dict[State, list] = {}
        order, exact = [], self.limit is None
        reached = set(self.outputs)
        for state in sorted(found, key=place):
            edges = [(e, whole) for e, whole in found[state] if e.reader in reached and e.gain]
            if edges:
                reached.add(state)
                arriving[state] = [e for e, _ in edges]
                exact = exact and all(whole for _, whole in edges)
            if state in reached:
                order.append(state)
        lagged = any(len(s) == 3 and any(s[2]) for s in order)
        return Moments(arriving, order, exact, lagged)

    def _edges(self, state: State) -> Iterator[tuple[Any, bool]]:
        """Edges into a state, and whether each is exact."""
        if len(state) == 2:
            return self._together(state, self.still)
        a, b, lag = state
        return self._together(a, lag) if a == b else self._apart(a, b, lag)

    def _together(self, port: Port, lag: Lag) -> Iterator[tuple[Any, bool]]:
        """Both gradients at one port."""
        loose, edges = [], self.raw.get(port, ())
        for e in edges:
            # one alone that is not fixed has nothing to meet
            if e.kind == "fixed" or len(edges) > 1 and e.mean:
                loose.append(e)
            if e.kind != "fixed" and not (e.kind == "routing" and any(lag)):
                kept = self.moves.kept(e, port, lag)
                if kept is not None and self._allowed(e.reader, e.reader, lag):
                    whole = not self._shares(e, port)
                    yield kept if kept is e and not any(lag) else read_by(
                        kept, _state(e.reader, e.reader, lag)
                    ), whole
        for i, e in enumerate(loose):
            for j, f in enumerate(loose):
                if (j < i and not any(lag)) or (e is f and e.kind != "fixed"):
                    continue  # in a power, f beside e is e beside f
                factor, whole = self._factor(e, f, lag)
                factor = factor if any(lag) or i == j else 2 * factor
                if factor:
                    allowed, turned = self._ways(e.reader, f.reader)
                    for to, edge in self.moves.pair(port, lag, e, f, factor, allowed, turned):
                        yield self._to(edge, e.reader, f.reader, to), whole

    def _apart(self, a: Port, b: Port, lag: Lag) -> Iterator[tuple[Any, bool]]:
        """Gradients at two ports, opened at `a`, nearer to the input."""
        for e in self.raw.get(a, ()):
            if e.mean:
                allowed, turned = self._ways(e.reader, b)
                for to, edge in self.moves.single(a, lag, e, b, allowed, turned):
                    yield self._to(edge, e.reader, b, to), True

    def _factor(self, e: Any, f: Any, lag: Lag) -> tuple[Weight, bool]:
        """What products of amplitudes of two edges are multiplied by, and whether that is exact."""
        if e is f:
            square = quotient(e.gain, e.square)
            if e.gate is None or not any(lag):
                return square, True
            return square * e.gate.memory, e.gate.exact
        if e.gate is not None and f.gate is not None and not any(lag):
            return amplitude(e) * amplitude(f) * together(e.gate, f.gate), True
        return e.mean * f.mean, not (e.kind == f.kind == "routing" and not self.moves.windows)

    def _shares(self, e: Any, port: Port) -> bool:
        """Whether one draw hands several gradients on to a pixel, and they are correlated."""
        low, high = self.bounds.farthest(e.reader, e.reader)
        return any(low + high) and self.moves.overlaps(e, port)

    def _ways(self, a: Port, b: Port) -> tuple[Callable[[Lag], bool], Callable[[Lag], bool]]:
        """Which lags of a product can be other than 0, and which are read the other way round."""
        if a == b:
            return (lambda lag: self._allowed(a, b, lag)), (lambda lag: lag < self.still)
        swapped = self.rank[b] > self.rank[a]  # the port nearer to the input comes first
        return (lambda lag: self._allowed(a, b, lag)), (lambda lag: swapped)

    def _allowed(self, a: Port, b: Port, lag: Lag) -> bool:
        if (a, b) not in self.ranges:
            self.ranges[a, b] = self.bounds.farthest(a, b)
        low, high = self.ranges[a, b]
        if not all(x <= n <= y for x, n, y in zip(low, lag, high)):
            return False
        return self.limit is None or all(abs(n) <= most for n, most in zip(lag, self.limit))

    def _to(self, edge: Any, a: Port, b: Port, lag: Lag) -> Any:
        if self._ways(a, b)[1](lag):
            a, b, lag = b, a, tuple(-n for n in lag)
        return read_by(edge, _state(a, b, lag))


def _state(a: Port, b: Port, lag: Lag) -> State:
    return a if a == b and not any(lag) else (a, b, lag)
