"""Cheapest chains by dynamic programming: one state for all networks that no bound can tell apart.

A state is a place (stride, map side, channels), a number of layers and the totals that the question
asks for: extent, pixels before the output's place, variance, the set of pixels read, or which
layers there are. Layers add to totals whatever came before them, and what a layer costs depends on
its place alone. Hence of two chains in one state every continuation of the dearer one has a
cheaper twin with the same totals, and only the cheaper one is kept (Bellman). Chains beyond an
upper bound are dropped because totals and costs never shrink, and a chain that meets all bounds
with at least the variance asked for is not continued: each layer would cost more and lead away.
Where holes are not allowed, a layer that reads r pixels makes the number of pixels read at most r
times as large: chains that cannot fill their field, or the least that is asked, are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm
from typing import Any, NamedTuple

from erftheory.designing.costs import Cost, of_brick
from erftheory.designing.queries import Query
from erftheory.designing.spaces import Brick, Place

MOST = 3_000_000  # states kept: about a gigabyte


class Totals(NamedTuple):
    """What a chain adds up to, an axis; 0 where the question does not ask for it.

    Attributes:
      extent: receptive field − 1.
      before: pixels of it before the output's own place.
      variance: pixels² times `Table.scale`.
      layers: how often each layer occurs that maps can tell apart, packed (`Table.layers`).
      reads: pixels that are read, as bits; 0 if holes are allowed.
    """

    extent: int
    before: int
    variance: int
    layers: int
    reads: int


class Final(NamedTuple):
    """A cheapest chain of its state."""

    cost: Cost
    totals: Totals
    depth: int
    place: Place
    key: Any


Entry = tuple[Cost, Place | None, Any, Brick | None]  # cost, and where it comes from by which layer
# A map's factor: input pixels between taps, taps, power ratio of a skip, and of such a one the
# input pixels from the first tap to the shortcut's.
Layer = tuple[int, int, Fraction | None, int]


@dataclass
class Table:
    """All states of a question.

    Attributes:
      scale: what variances are multiplied by to be whole numbers.
      layers: factors of maps, by their digit in `Totals.layers`, of base depth + 1.
      rows: after 0, 1, 2, … layers, the states of each place.
      fills: False keeps fields with holes that nothing can fill.
    """

    query: Query
    fills: bool = True
    scale: int = 1
    layers: dict[Layer, int] = field(default_factory=dict)
    rows: list[dict[Place, dict[Any, Entry]]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        query, space = self.query, self.query.space
        self.wants_layers = query.kind not in ("", "std")
        self.wants = (
            bool(query.field or query.latency),
            bool(query.lookback or query.latency),
            query.kind == "std",
            self.wants_layers,
        )
        self.scale = lcm(*(b.variance.denominator for b in space.bricks))
        places, most = {space.start(query.image)}, [0, 0, 0]
        for _ in range(space.depth[1]):
            moves = [(p, b, to) for p in places for b, to in space.steps(p)]
            if self.wants_layers:
                for p, b, _ in moves:
                    self.layers.setdefault(_factor(b, p.jump), len(self.layers))
            rows = [self._steps(b, p.jump)[:3] for p, b, _ in moves]
            most = [m + max((r[i] for r in rows), default=0) for i, m in enumerate(most)]
            places = {to for _, _, to in moves if self._strided(to)}
        self.sizes = [m + 1 for m in most] + [(space.depth[1] + 1) ** len(self.layers)]

    def _strided(self, place: Place) -> bool:
        return self.query.stride.high is None or place.jump <= self.query.stride.high

    def _steps(self, brick: Brick, jump: int) -> tuple[int, int, int, int]:
        layers = 0
        if self.wants_layers:
            layers = (self.query.space.depth[1] + 1) ** self.layers[_factor(brick, jump)]
        steps = (
            brick.extent * jump,
            brick.before * jump,
            int(brick.variance * self.scale) * jump * jump,
            layers,
        )
        return tuple(s * w for s, w in zip(steps, self.wants))  # type: ignore[return-value]

    def _packed(self, values: Sequence[int]) -> int:
        key = 0
        for value, size in zip(values, self.sizes):
            key = key * size + value
        return key

    def totals(self, key: Any) -> Totals:
        reads = 0
        if isinstance(key, tuple):
            key, reads = key
        values = []
        for size in reversed(self.sizes):
            key, value = divmod(key, size)
            values.append(value)
        layers, variance, before, extent = values
        return Totals(extent, before, variance, layers, reads)

    def fill(self) -> Table:
        """Every state, layer after layer.

        Raises:
          ValueError: more than `MOST` states.
        """
        query = self.query
        start = query.space.start(query.image)
        zero = 0 if query.gridding else (0, 1)
        self.rows = [{start: {zero: (0, None, None, None)}}]
        kept = 0
        for depth in range(query.space.depth[1]):
            row: dict[Place, dict[Any, Entry]] = {}
            for place, states in self.rows[-1].items():
                going = self._unfinished(states, place, depth)
                for brick, to in query.space.steps(place):
                    if self._strided(to):
                        self._extend(going, place, brick, to, row.setdefault(to, {}))
                kept_now = kept + sum(map(len, row.values()))
                if kept_now > MOST:
                    raise ValueError(
                        f"allowed: got a space of more than {MOST:,} states to tell apart; takes "
                        "fewer layers, dilations or kernels, or upper bounds (field, budget)"
                    )
            kept += sum(map(len, row.values()))
            self.rows.append(row)
        return self

    def _unfinished(self, states: dict[Any, Entry], place: Place, depth: int) -> dict[Any, Entry]:
        """The states that are worth another layer."""
        query, (shallow, deep) = self.query, self.query.space.depth
        if self.fills and not query.gridding:
            most = max(len(b.reads) for b in query.space.bricks) ** (deep - depth)
            least = max(query.field.low or 0, (query.lookback.low or 0) + 1)
            states = {
                key: entry
                for key, entry in states.items()
                if key[1].bit_count() * most >= max(least, key[1].bit_length())
            }
        if query.kind == "std" and depth >= max(1, shallow):
            wanted = Fraction(query.value) ** 2 * self.scale
            states = {
                key: entry
                for key, entry in states.items()
                if (t := self.totals(key)).variance < wanted or not self.meets(t, place, entry[0])
            }
        return states

    def _extend(
        self,
        states: dict[Any, Entry],
        place: Place,
        brick: Brick,
        to: Place,
        found: dict[Any, Entry],
    ) -> None:
        query = self.query
        price = of_brick(query.cost, brick, query.space.ndim, place, to)
        add = self._packed(self._steps(brick, place.jump))
        budget = None if query.budget is None else query.budget - price
        # the first digit is the extent: one comparison for an upper bound of the field
        stop = None
        if query.field.high is not None:
            stop = self._packed((query.field.high, 0, 0, 0))
        shifts = [place.jump * r for r in brick.reads]
        for key, entry in states.items():
            cost = entry[0]
            if budget is not None and cost > budget:
                continue
            if isinstance(key, tuple):
                number, bits = key
                reads = 0
                for shift in shifts:
                    reads |= bits << shift
                number += add
                new: Any = (number, reads)
            else:
                new = number = key + add
            if stop is not None and number >= stop:
                continue
            cost += price
            known = found.get(new)
            if known is None or cost < known[0]:
                found[new] = (cost, place, key, brick)

    def meets(self, totals: Totals, place: Place, cost: Cost) -> bool:
        return not any(gap for _, gap in self.gaps(totals, place, cost))

    def gaps(self, totals: Totals, place: Place, cost: Cost) -> Iterator[tuple[str, Any]]:
        """How far each bound is missed, by its name; 0 where it is kept."""
        query = self.query
        if query.field:
            yield "field", query.field.gap(totals.extent + 1)
        if query.lookback:
            yield "lookback", query.lookback.gap(totals.before)
        if query.latency:
            yield "latency", query.latency.gap(totals.extent - totals.before)
        if query.stride:
            yield "stride", query.stride.gap(place.jump)
        if query.budget is not None:
            yield "budget", max(0, cost - query.budget)
        if not query.gridding:
            yield "gridding", int(totals.reads & (totals.reads + 1) != 0)

    def finals(self) -> Iterator[Final]:
        """The states that may end, whatever the bounds say."""
        for depth in range(self.query.space.depth[0], len(self.rows)):
            for place, states in self.rows[depth].items():
                for key, entry in states.items():
                    yield Final(entry[0], self.totals(key), depth, place, key)

    def bricks(self, final: Final) -> tuple[Brick, ...]:
        """The layers of a chain, from the input on."""
        found, place, key = [], final.place, final.key
        for depth in range(final.depth, 0, -1):
            _, before, below, brick = self.rows[depth][place][key]
            assert before is not None and brick is not None
            found.append(brick)
            place, key = before, below
        return tuple(reversed(found))


def _factor(brick: Brick, jump: int) -> Layer:
    """What the map of a chain has of a layer, up to a shift."""
    apart = jump * brick.dilation if brick.kernel > 1 else 0
    return apart, brick.kernel, brick.skip, 0 if brick.skip is None else jump * brick.before


def front_of(table: Table) -> list[tuple[Final, float]]:
    """The chains that keep all bounds, none of them both cheaper and closer, with their distances;
    by cost."""
    best: dict[Cost, tuple[float, Final]] = {}
    for final in table.finals():
        if table.meets(final.totals, final.place, final.cost):
            distance = table.query.distance((final.totals.variance / table.scale) ** 0.5)
            known = best.get(final.cost)
            if known is None or distance < known[0]:
                best[final.cost] = distance, final
    return undominated([(c, d, f) for c, (d, f) in best.items()])


def undominated(rows: Sequence[tuple[Cost, float, Final]]) -> list[tuple[Final, float]]:
    """Of (cost, distance, chain) those that are closer than everything as cheap, by cost."""
    found: list[tuple[Final, float]] = []
    for _, distance, final in sorted(rows, key=lambda row: row[:2]):
        if not found or distance < found[-1][1]:
            found.append((final, distance))
    return found
