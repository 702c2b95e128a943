"""The law of a unit as the power that passes it sees it.

Power that reaches a unit and goes on to the input has passed the derivatives of activations above
and will pass those below. Where no convolution comes between two activations (an identity whose
sum feeds an activation, as in post-activation residual blocks) the second derivative is not
independent of the first: an open ReLU leaves a large unit, which keeps the next gate open. So a
law carries, where they differ, a second law of the same unit: each value weighted by the power
that it hands on to the input, E[Π φ′² below | value]. Averages of φ′² under it give the exact mean
power along the identity. A convolution mixes units and ends the dependence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from erftheory.network.graph import Graph
from erftheory.theory.distribution import (
    Law,
    Weight,
    activated,
    add,
    discrete,
    sloped,
    to_float,
)
from erftheory.theory.gains import Gains
from erftheory.theory.points import binned, grid

Group = tuple[int, Law]  # channels, law of a unit
Row = tuple[int, int, int, Weight, Weight]  # input, source, target, gains of power and amplitude


def behind(law: Law, name: str, out: Law) -> Law:
    """`out`, the law behind an activation of `law`, with what power sees of it."""
    return out if name == "linear" else replace(out, view=lambda: _passed(law.seen, name))


def _passed(law: Law, name: str) -> Law:
    """φ(u) where u, of law `law`, is weighted by φ′(u)²."""
    function, slope, breaks = sloped(name)
    nodes, probs = law.points
    whole = nodes, probs.sum(0, keepdims=True)
    places, row = grid(whole, law.within + law.between, 0.0, breaks, 1)
    mass = row * slope(places) ** 2
    if not mass.sum() > 0:
        return law
    kept = mass[0] > 0
    return _of(*binned(function(places[kept]), mass[:, kept] / mass.sum()), 0.0)


def _of(nodes: np.ndarray, probs: np.ndarray, within: float) -> Law:
    """All channels alike: only averages over everything are asked of a seen law."""
    mean, square = float(probs.sum(0) @ nodes), float(probs.sum(0) @ nodes**2)
    return Law(square + within, mean**2, mean, within, 0.0, False, lambda: (nodes, probs))


def summands(laws: Sequence[Law]) -> list[Law] | None:
    """The sum's law seen by the power that goes on to each input; None if it is the plain law."""
    if all(law.view is None for law in laws):
        return None
    found = []
    for which in range(len(laws)):
        total: Law | None = None
        for place, law in enumerate(laws):
            part = law.seen if place == which else replace(law, view=None)
            total = part if total is None else add(total, part)
        assert total is not None
        found.append(total)
    return found


def together(parts: Sequence[Law], powers: Sequence[float]) -> Law:
    """The sum's law seen by the power that goes on to any input, `powers` to each."""
    share = np.array(powers, float)
    share = share / share.sum() if share.sum() > 0 else np.full(len(parts), 1 / len(parts))
    widths = {(p.within + p.between) for p in parts}
    alike = len(widths) == 1
    points = [p.points if alike else discrete(p) for p in parts]
    nodes = np.concatenate([n for n, _ in points])
    probs = np.concatenate([s * p.sum(0) for s, (_, p) in zip(share, points)])[None]
    return _of(*binned(nodes, probs), widths.pop() if alike else 0.0)


def correlated(
    name: str,
    index: int,
    groups: list[Group],
    links: list[Row],
    parts: dict[tuple[int, int], list[Law]],
    listed: Sequence[Gains],
) -> list[Row]:
    """Links of an activation that reads node `index`, where the slopes below are not independent.

    Where `parts` has the summands of that node's group, the factors go to its own links, in the
    power and the amplitude gains that `listed` holds; else the activation's links take one.
    """
    new = []
    for i, s, t, gain, root in links:
        law = groups[s][1]
        if (index, s) in parts:
            factors = _slopes(parts[index, s], law, name)
            for gains, exponent in zip(listed, (1.0, 0.5)):
                gains.links[index] = tuple(
                    replace(k, gain=to_float(k.gain) * factors[k.input] ** exponent)
                    if k.target == s
                    else k
                    for k in gains.links[index]
                )
        elif law.view is not None:
            (factor,) = _slopes([law.seen], law, name)
            if factor != 1:  # exact gains stay exact
                gain, root = to_float(gain) * factor, to_float(root) * math.sqrt(factor)
        new.append((i, s, t, gain, root))
    return new


def _slopes(parts: Sequence[Law], law: Law, name: str) -> list[float]:
    """E[φ′²] under each of `parts` over E[φ′²] under `law`."""
    base = to_float(activated(law, name)[1])
    return [to_float(activated(part, name)[1]) / base if base else 1.0 for part in parts]


def reached(
    graph: Graph,
    index: int,
    states: list[list[Group]],
    power: Gains,
    reaches: list[list[float]],
) -> list[float]:
    """Power at the input for 1 in each channel of a group of node `index`."""
    found = [0.0] * len(states[index])
    for k in power.links[index]:
        before = graph.nodes[index].inputs[k.input]
        share = states[before][k.source][0] / states[index][k.target][0]
        part = to_float(to_float(k.gain) * share * reaches[before][k.source])
        found[k.target] = to_float(found[k.target] + part)
    return found
