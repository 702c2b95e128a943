"""Fixed layers in the variance signal: composed as gradients first and squared afterwards.

Zero-mean random weights make gradients on different paths uncorrelated; fixed taps (average
pooling, linear interpolation) do not. So all fixed paths between two random layers act on powers by
the squares of their summed taps T: E g_in² = T² ∗ E g_out². That needs a g_out without correlation
from pixel to pixel; `remembers` says where there is some.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from fractions import Fraction
from itertools import product

from erftheory.network.kernel import Kernel
from erftheory.theory.lags import lift, reader, within
from erftheory.theory.runs import joined, memories, unmasked
from erftheory.theory.walk import Factor, Port, RawEdge

# What `ErrorBound.note` says where correlations matter (`remembers`).
CORRELATED = "correlations of gradients behind fixed layers are followed only nearly"


def square_fixed(raw, order, outputs, jumps, lifted=False):
    """Replace fixed edges, and runs of them, by their effect on powers; `raw` by arrival port.

    Returns the edges, and whether powers alone fall short (`remembers`); `jumps` are the lattice
    points per pixel of every node. With `lifted`, lags are followed as well (`theory/lags.py`), and
    the second value says whether something was left out.
    """
    if not any(e.kind == "fixed" for edges in raw.values() for e in edges):
        return raw, False
    ports = [p for p, _ in outputs]
    result = joined(raw, order, ports, _squared)

    def shared(edge, node: int) -> bool:
        places = edge.run
        return len({tuple(p % j for p, j in zip(q, jumps[node])) for q in places}) < len(places)

    apart = {
        id(e): (shared(e, port[0]), shared(e, e.reader[0]))
        for port, edges in result.items()
        for e in edges
        if e.run
    }
    if lifted:
        result, whole = lift(result, order, ports, _Moves(jumps))
        return result, not whole
    return result, remembers(result, order, lambda e: apart.get(id(e), (False, False)))


def remembers(arriving, order, ends) -> bool:
    """Whether correlations of gradients matter, which powers alone do not know.

    A fixed layer whose outputs read several inputs each correlates the gradients at these inputs,
    and shared weights carry that through convolutions: E g_t g_{t+τ} = v ∗ E g_t g_{t+τ}. It
    comes back to the powers in a fixed layer some of whose inputs are read by several outputs.
    `ends` says of an edge whether it does the one, and whether the other.
    """
    correlated: set[Port] = set()
    for port in order:
        for e in arriving.get(port, ()):
            correlates, adds = ends(e)
            if e.reader in correlated and adds:
                return True
            if correlates or e.reader in correlated:
                correlated.add(port)
    return False


def _taps(edge, shift) -> dict[tuple[int, ...], Fraction]:
    """Amplitudes of one fixed edge by lattice point, the run's shift included."""
    found = {shift: Fraction(1)}
    for f in edge.factors:
        taps = zip(product(*map(range, f.kernel.shape)), f.kernel.exact)
        steps = [(tuple(a * s for a, s in zip(i, f.spacing)), Fraction(v)) for i, v in taps if v]
        found = {tuple(map(sum, zip(p, q))): u * v for p, u in found.items() for q, v in steps}
    return found


class _Moves:
    """What edges of the plane do to lags, in lattice points."""

    def __init__(self, jumps):
        self.jumps, self.ndim = jumps, len(jumps[0])
        self.products: dict[int, dict] = {}  # by run: difference of lags to squared taps

    def span(self, edge, port) -> tuple[int, ...]:
        return tuple(max(axis) - min(axis) for axis in zip(*edge.run)) if edge.run else ()

    def back(self, edge, port, reach) -> tuple[int, ...]:
        return tuple(map(sum, zip(reach, self.span(edge, port)))) if edge.run else reach

    def of(self, edge, port, lag, out, farthest):
        """Yields (lag at the port, edge, whether exact) for lags up to `farthest`; `out` is `lag`
        of the reader or −lag."""
        origin, jump = reader(edge.reader, lag), self.jumps[port[0]]
        if not edge.run:
            memory = edge.memory if any(lag) else 1.0
            aligned = not any(n % j for n, j in zip(lag, jump))
            if memory and aligned and within(lag, farthest):
                gain = edge.gain if memory == 1 else edge.gain * memory
                exact = not (edge.nearly and any(lag))
                yield lag, replace(edge, reader=origin, gain=gain), exact
            return
        back = (0,) * self.ndim if out == lag else lag  # R(t, −τ) = R(t − τ, τ)
        for step, (factor, kernel, spacing, shift) in self._products(edge).items():
            to = tuple(map(sum, zip(out, step)))
            if any(n % j for n, j in zip(to, jump)) or not within(to, farthest):
                continue
            memory = (edge.memory if any(to) else 1.0) * (edge.before if any(lag) else 1.0)
            if memory:
                gain = edge.gain * factor if memory == 1 else edge.gain * factor * memory
                place = tuple(map(sum, zip(shift, back)))
                factors = (Factor(kernel, spacing),)
                yield (
                    to,
                    RawEdge(origin, gain, factors, place, edge.restrict, "random"),
                    not edge.nearly or memory == 1,
                )

    def _products(self, edge) -> dict:
        """By δ, Σ_a f_a f_{a+δ} over Σ f_a², and the kernel of the products of mass 1."""
        if id(edge) not in self.products:
            taps, found = edge.run, {}
            whole = sum(v * v for v in taps.values())
            steps = {tuple(b - a for a, b in zip(p, q)) for p in taps for q in taps}
            for step in sorted(steps):
                pairs = {
                    p: v * taps[q]
                    for p, v in taps.items()
                    if (q := tuple(map(sum, zip(p, step)))) in taps
                }
                mass = sum(pairs.values())
                if mass:
                    kernel = _dense({p: v / mass for p, v in pairs.items()})
                    found[step] = (mass / whole, *kernel)
            self.products[id(edge)] = found
        return self.products[id(edge)]


def _squared(source, paths):
    """One edge from `source` that acts on powers as all `paths` together."""
    fixed = [e for path in paths for e in path if e.kind == "fixed"]
    if len(paths) == 1 and len(fixed) <= 1:
        path = paths[0]
        factors = tuple(
            Factor(f.kernel.map(lambda tap: tap * tap), f.spacing, f.count)
            for e in fixed
            for f in e.factors
        )
        shift = tuple(map(sum, zip(*(e.shift for e in path))))
        gain = math.prod(e.gain for e in path)
        grid = next((e.restrict for e in fixed if e.restrict), None)
        run = _taps(fixed[0], shift) if fixed else None
        return RawEdge(source, gain, factors, shift, grid, "random", run, **_kept(path))
    return _composed(source, paths)


def _kept(path) -> dict:
    before, memory, nearly = memories(path)
    return {"memory": memory, "before": before, "nearly": nearly}


def _composed(source, paths):
    """Sum the taps of all paths as gradients, then square."""
    total: dict = defaultdict(lambda: 0)
    common: Fraction | float = 1
    grid = None
    for path in paths:
        unmasked(path)
        taps: dict = {(0,) * len(path[0].shift): Fraction(1)}
        power: Fraction | float = 1
        for e in path:
            if grid is not None and e.restrict is None and _off(e, grid):
                raise ValueError(
                    "network: got a pooling right below an up-sampling in the variance signal; "
                    "takes a convolution between them"
                )
            taps, factor = _through(taps, e)
            power = power * factor
            grid = e.restrict or grid
        if len(paths) == 1:
            amplitude, common = Fraction(1), power
        else:  # amplitudes of different paths add: square roots of their powers
            amplitude = Fraction(math.sqrt(power))
        for place, tap in taps.items():
            total[place] += amplitude * tap
    power = sum(t * t for t in total.values())
    kernel, spacing, shift = _dense({p: t * t / power for p, t in total.items()})
    factor = (Factor(kernel, spacing),)
    kept = _kept(paths[0])
    return RawEdge(source, common * power, factor, shift, grid, "random", dict(total), **kept)


def _off(e, grid) -> bool:
    places = [s for f in e.factors for s in f.spacing] and [
        (s, g) for f in e.factors for s, g, k in zip(f.spacing, grid, f.kernel.shape) if k > 1
    ]
    return any(s % g for s, g in places)


def _through(taps: dict, e):
    """Taps after one edge, mass 1 kept, and the power by which the edge scales amplitudes²."""
    power: Fraction | float = e.gain
    for f in e.factors:
        mass = Fraction(f.kernel.scale)
        entries = [
            (tuple(a * s for a, s in zip(index, f.spacing)), Fraction(v) / mass)
            for index, v in zip(product(*map(range, f.kernel.shape)), f.kernel.exact)
        ]
        power = power / sum(v * v for _, v in entries)
        new: dict = defaultdict(lambda: Fraction(0))
        for place, tap in taps.items():
            for step, v in entries:
                new[tuple(a + b for a, b in zip(place, step))] += tap * v
        taps = new
    moved = {tuple(a + b for a, b in zip(p, e.shift)): t for p, t in taps.items()}
    return moved, power


def _dense(taps: dict) -> tuple[Kernel, tuple[int, ...], tuple[int, ...]]:
    """Scattered taps as a kernel on the coarsest lattice that holds them."""
    shift = tuple(min(axis) for axis in zip(*taps))
    spacing = tuple(
        math.gcd(*(p - first for p in axis)) or 1 for axis, first in zip(zip(*taps), shift)
    )
    index = {
        tuple((p - first) // s for p, first, s in zip(place, shift, spacing)): tap
        for place, tap in taps.items()
    }
    shape = tuple(max(axis) + 1 for axis in zip(*index))
    values = tuple(index.get(i, 0) for i in product(*map(range, shape)))
    return Kernel(shape, values), spacing, shift
