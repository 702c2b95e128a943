"""Designs by the shape of their map: candidates by rising cost, read unless a bound settles them.

A chain's map is, up to a shift, the convolution of its layers in any order: chains of equal layers
(taps, spacing in input pixels, skip) share one map, and the cheapest of them stands for all. They
are taken by cost, so that the front is the list of those closer than all before; a map is read only
if a bound from moments does not show that it is no closer. With x measured from the centre of mass,
V = E|x|², M ≥ E|x|⁴, R the largest |x| of the field, and s the share 0.95:

- mass radius r: V ≤ r² + √((1 − s)·M) (Cauchy–Schwarz on what lies beyond r), and
  V ≤ s·r² + (1 − s)·R² (what lies beyond is at most R away); both bound r from below. From above
  r ≤ R and r² ≤ V + √((M − V²)·s/(1 − s)) (Cantelli for |x|²).
- total variation to any law Q: f = min(|x|², R²) lies in [0, R²] and is |x|² on the map, so
  TV ≥ |V − E_Q f| / R²; and of the mass of Q beyond R the map has none, so TV ≥ Q(|x| > R).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache

import numpy as np

from erftheory.designing.chains import Final, Layer, Table
from erftheory.erf.measures import SHARE_TOLERANCE, GaussianFit, pad, total_variation
from erftheory.erf.record import ERF
from erftheory.network.base import Network
from erftheory.theory.plane.exact import exact

SHARE = 0.95
MOST = 20_000  # maps that are read
SLACK = 1e-9  # of rounding, relative, that bounds leave


def front_of_maps(table: Table) -> list[tuple[Final, float]]:
    """The chains that keep all bounds, none of them both cheaper and closer, with their distances
    to 12 decimals; by cost.

    Raises:
      ValueError: more than `MOST` maps have to be read.
    """
    query, read = table.query, 0
    cheapest: dict[int, Final] = {}
    for final in table.finals():
        if table.meets(final.totals, final.place, final.cost):
            known = cheapest.get(final.totals.layers)
            if known is None or final.cost < known.cost:
                cheapest[final.totals.layers] = final
    goal = Goal(query.kind, query.value, query.space.ndim)
    rows = [(f.cost, goal.least(_spread(table, f)), f) for f in cheapest.values()]
    found: list[tuple[Final, float]] = []
    for cost, least, final in sorted(rows, key=lambda row: row[:2]):
        best = found[-1][1] if found else math.inf
        if best == 0:
            break
        if least - SLACK * (1 + least) >= best:
            continue
        read += 1
        if read > MOST:
            raise ValueError(
                f"allowed: got a space with more than {MOST:,} maps to read; takes fewer layers, "
                "or bounds (field, budget)"
            )
        distance = goal.distance(query.space.network(table.bricks(final), query.image))
        if distance < best:
            if found and found[-1][0].cost == cost:
                found.pop()
            found.append((final, distance))
    return found


class Spread:
    """Moments of a map about its centre of mass.

    Attributes:
      below, above: pixels an axis from its first pixel to the centre, and from there to its last.
      second, fourth: cumulants an axis, pixels² and pixels⁴.
      product: False if axes depend on each other, behind skips.
      ndim: number of axes.
    """

    def __init__(self, layers: Iterable[tuple[Layer, int]], ndim: int) -> None:
        """Of each layer and how often it occurs."""
        self.below = self.above = Fraction(0)
        self.second = self.fourth = 0.0
        self.product, self.ndim = True, ndim
        for layer, times in layers:
            below, above, second, fourth = _layer(layer)
            self.product = self.product and layer[2] is None
            self.below += times * below
            self.above += times * above
            self.second += times * second
            self.fourth += times * fourth

    @property
    def variance(self) -> float:
        """E|x|², pixels²."""
        return self.ndim * self.second

    @property
    def fourth_moment(self) -> float:
        """E|x|⁴, or if axes depend on each other a bound for it, from E x²y² ≤ E x⁴."""
        axis, n = self.fourth + 3 * self.second**2, self.ndim
        cross = self.second**2 if self.product else axis
        return n * axis + n * (n - 1) * cross

    @property
    def radius(self) -> float:
        """No pixel of the map is farther from its centre."""
        return math.sqrt(self.ndim) * float(max(self.below, self.above))


@lru_cache(maxsize=4096)
def _layer(layer: Layer) -> tuple[Fraction, Fraction, float, float]:
    """Pixels from a layer's first tap to its mean and from there to the last, and two cumulants."""
    apart, taps, skip, place = layer
    share = Fraction(1) if skip is None else skip / (1 + skip)
    law = {Fraction(0): Fraction(0)}
    for a in range(taps):
        law[Fraction(a * apart)] = law.get(Fraction(a * apart), Fraction(0)) + share / taps
    if skip is not None:
        law[Fraction(place)] = law.get(Fraction(place), Fraction(0)) + 1 - share
    mean = sum((x * p for x, p in law.items()), Fraction(0))
    second = sum(((x - mean) ** 2 * p for x, p in law.items()), Fraction(0))
    fourth = sum(((x - mean) ** 4 * p for x, p in law.items()), Fraction(0))
    return mean, max(law) - mean, float(second), float(fourth - 3 * second**2)


def _spread(table: Table, final: Final) -> Spread:
    base, rest = table.query.space.depth[1] + 1, final.totals.layers
    found = []
    for layer in table.layers:
        if not rest:
            break
        rest, times = divmod(rest, base)
        if times:
            found.append((layer, times))
    return Spread(found, table.query.space.ndim)


class Goal:
    """What is asked of a map: `distance` to it, and the `least` that moments leave possible."""

    def __init__(self, kind: str, value: float, ndim: int) -> None:
        self.kind, self.value, self.ndim = kind, value, ndim
        self.laws: dict[Fraction, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def distance(self, network: Network) -> float:
        """Of a network: pixels, or a total variation; to 12 decimals."""
        erf = exact(network)
        if self.kind == "mass_radius":
            return round(abs(erf.mass_radius(SHARE) - self.value), 12)
        if self.kind == "gaussian":
            spread = np.eye(self.ndim) * self.value**2
            fit = GaussianFit(erf.mean, (self.value,) * self.ndim, spread)
            return round(erf.distance(fit), 12)
        return round(flatness(erf, self.value), 12)

    def least(self, spread: Spread) -> float:
        """A bound from below for `distance`, by the page's inequalities."""
        if self.kind == "mass_radius":
            low, high = radii(spread)
            return max(0.0, low - self.value, self.value - high)
        phase = spread.below % 1
        if phase not in self.laws:
            self.laws[phase] = self._law(float(phase))
        squares, mass, moment = self.laws[phase]
        edge = spread.radius**2
        inside = int(np.searchsorted(squares, edge * (1 + SLACK), side="right"))
        beyond = mass[-1] - mass[inside]
        if not edge:
            return float(beyond)
        cut = moment[inside] + edge * beyond
        return max(float(beyond), abs(spread.variance - cut) / edge)

    def _law(self, phase: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Squared distances of the wanted law's pixels, rising, and sums before each: of mass, and
        of mass times squared distance."""
        if self.kind == "flat":
            reach = math.ceil(self.value) + 1
            line = (np.arange(-reach, reach + 1) - phase) ** 2
            squares = _outer(line, self.ndim)
            squares = squares[squares <= _edge(self.value)]
            weights = np.full(len(squares), 1 / max(1, len(squares)))
        else:
            fit = GaussianFit((phase,), (self.value,), np.array([[self.value**2]]))
            line = (np.arange(fit.offset[0], fit.offset[0] + fit.shape[0]) - phase) ** 2
            side = fit.windowed(fit.offset, fit.shape)
            side = side[0] if isinstance(side, tuple) else side
            squares = _outer(line, self.ndim)
            weights = np.exp(_outer(np.log(np.maximum(side, 1e-300)), self.ndim))
        order = np.argsort(squares)
        squares, weights = squares[order], weights[order]
        sums = [np.concatenate([[0.0], np.cumsum(v)]) for v in (weights, weights * squares)]
        return squares, sums[0], sums[1]


def radii(spread: Spread) -> tuple[float, float]:
    """Between what the 95 % mass radius of a map lies, from its moments; pixels."""
    share = SHARE * (1 - SHARE_TOLERANCE)
    variance, fourth, most = spread.variance, spread.fourth_moment, spread.radius
    low = max(
        0.0,
        variance - math.sqrt((1 - share) * fourth),
        (variance - (1 - share) * most**2) / share,
    )
    high = variance + math.sqrt(max(0.0, fourth - variance**2) * share / (1 - share))
    return math.sqrt(low), min(most, math.sqrt(high))


def flatness(erf: ERF, radius: float) -> float:
    """Total variation between a map and the uniform law on the pixels whose centres lie in a closed
    disc (interval, ball) of `radius` pixels about its centre of mass; 1 if there is no such pixel.
    """
    mean = erf.mean
    first = tuple(min(o, math.floor(m - radius)) for o, m in zip(erf.offset, mean))
    last = (max(o + n, math.ceil(m + radius) + 1) for o, n, m in zip(erf.offset, erf.shape, mean))
    shape = tuple(end - f for f, end in zip(first, last))
    squares = np.zeros(())
    for f, n, m in zip(first, shape, mean):
        squares = np.add.outer(squares, (np.arange(f, f + n) - m) ** 2)
    inside = squares <= _edge(radius)
    if not inside.any():
        return 1.0
    wide = pad(erf.map, erf.offset, first, shape)
    return total_variation(wide, inside / inside.sum())


def _edge(radius: float) -> float:
    """The square of a radius, with room for a centre that is rounded."""
    return radius**2 * (1 + SLACK) + SLACK


def _outer(line: np.ndarray, ndim: int) -> np.ndarray:
    """Sums of one entry of `line` an axis, flat."""
    found = line
    for _ in range(ndim - 1):
        found = np.add.outer(found, line).ravel()
    return found
