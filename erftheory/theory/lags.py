"""Correlated gradients: powers, and the products of neighbours that lead back to them.

With R(t, τ) = E[g_t g_{t+τ}], a random layer of variances v keeps the lag,
R_in(·, τ) = v ∗ R_out(·, τ), and a fixed one of taps f mixes lags,
R_in(t, τ) = Σ_ab f_a f_b R_out(t − a, τ + a − b). So lags that one fixed layer makes come back to
lag 0, the power, at the next. Here every port that a lag can
come back from is repeated for that lag: (node, group) is lag 0, (node, group, τ) another, and what
reads them need not know. R(t, −τ) = R(t − τ, τ) leaves one of τ and −τ.

An activation multiplies a lag by E[φ′φ′_τ] / E[φ′²], where all pixels of a channel count as equally
correlated, as in the forward pass. A max pool ends it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from functools import lru_cache
from typing import Any

import numpy as np

from erftheory.theory.distribution import Law, sloped
from erftheory.theory.points import CLASSES, grid

MOST = 1000  # edges up to which all lags are followed; beyond, those that one fixed layer makes
Lag = tuple[int, ...]
Port = tuple


def lift(arriving: dict[Port, list], order: list[Port], outputs: list[Port], moves: Any):
    """Repeat the ports of a walk for every lag that can lead back to lag 0.

    Args:
      arriving: edges by the port they arrive at.
      order: ports from the output to the input.
      moves: what edges do to lags (`Moves`).

    Returns:
      the edges, and whether they are all there is to say: no activation, no max pool and no limit
      met a lag.
    """
    limit: Lag | None = None
    while True:
        found = _lifted(arriving, order, outputs, moves, limit)
        if found is not None:
            edges, exact = found
            return edges, exact and limit is None
        spans = [moves.span(e, port) for port, edges in arriving.items() for e in edges if e.run]
        single = tuple(map(max, zip(*spans)))
        if limit is not None:
            single = tuple(n // 2 for n in limit)
        limit = single


def _lifted(arriving, order, outputs, moves, limit: Lag | None):
    reach = _reach(arriving, order, moves)
    still: Lag = (0,) * moves.ndim
    live: dict[Port, set[Lag]] = defaultdict(set)
    for port in outputs:
        live[port].add(still)
    result: dict[Port, list] = {}
    exact, count = True, 0
    for port in order:
        farthest = reach[port]
        if limit is not None:
            farthest = tuple(map(min, farthest, limit))
        for e in arriving.get(port, ()):
            for lag in sorted(live[e.reader]):
                for sign in (1, -1) if e.run and any(lag) else (1,):
                    out = tuple(sign * n for n in lag)
                    for to, edge, kept in moves.of(e, port, lag, out, farthest):
                        if to < still:  # −to has it
                            continue
                        exact = exact and kept
                        live[port].add(to)
                        result.setdefault(reader(port, to), []).append(edge)
                        count += 1
                if count > MOST and any(limit or (1,)):
                    return None
            if not e.run and any(map(any, live[e.reader])) and e.memory == 0:
                exact = False
    return result, exact


def within(lag: Lag, farthest: Lag) -> bool:
    return all(abs(n) <= most for n, most in zip(lag, farthest))


def _reach(arriving, order, moves) -> dict[Port, Lag]:
    """The largest lag that fixed layers towards the input can take back, by port and axis."""
    reach: dict[Port, Lag] = defaultdict(lambda: (0,) * moves.ndim)
    for port in reversed(order):
        for e in arriving.get(port, ()):
            if not e.run and e.memory == 0:
                continue
            own = moves.back(e, port, reach[port])
            reach[e.reader] = tuple(map(max, reach[e.reader], own))
    return reach


def reader(port: Port, lag: Lag) -> Port:
    return (*port[:2], lag) if any(lag) else port


@lru_cache(maxsize=1024)
def agreement(law: Law, name: str) -> float:
    """E[φ′(h) φ′(h′)] / E[φ′²] for two pixels of one channel."""
    if name == "linear":
        return 1.0
    variance = law.within + law.between
    if law.gaussian and name in ("relu", "leaky_relu", "abs") and variance:
        s = float(sloped(name)[1](np.array(-1.0)))
        angle = math.asin(min(1.0, law.between / variance)) / (2 * math.pi)
        return ((1 + s) ** 2 / 4 + (1 - s) ** 2 * angle) / ((1 + s * s) / 2)
    _, slope, breaks = sloped(name)
    places, rows = grid(law.points, law.within, law.between, breaks, CLASSES)
    slopes, mass = slope(places), rows.sum(1)
    square = float(rows.sum(0) @ slopes**2)
    return float(mass @ (rows @ slopes / mass) ** 2) / square if square else 1.0
