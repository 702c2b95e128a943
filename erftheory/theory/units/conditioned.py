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

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, reduce

import numpy as np

from erftheory.network.activations import CURVES
from erftheory.theory.units import max_pool as largest
from erftheory.theory.units.law import (
    Group,
    UnitLaw,
    activated,
    add,
    discrete,
    gate,
    viewed,
)
from erftheory.theory.units.quadrature import Points, binned, merged, resolved, smoothed
from erftheory.theory.walk.links import Gains, Link
from erftheory.theory.walk.weights import Weight, to_float

# input, source, target; gain of power, and of amplitude where that is asked for
Row = tuple[int, int, int, tuple[Weight, ...]]
Flow = tuple[int, int, int, float]  # input, source, target, share of the power


@lru_cache(maxsize=256)
def behind(law: UnitLaw, name: str, out: UnitLaw) -> UnitLaw:
    """`out`, the law behind an activation of `law`, with what power sees of it."""
    if name == "linear":
        return out
    out = largest.behind(out, law, name)
    if name != "relu" or law.between or not law.within:
        return viewed(out, lambda: _passed(law.seen, name))
    both = _Both(law, out)
    return replace(out, make=lambda: both.laws[0], view=lambda: both.laws[1])


@dataclass
class _Both:
    """`out`, the law behind a ReLU of `law`, and what power sees there, of one quadrature."""

    law: UnitLaw
    out: UnitLaw

    @cached_property
    def laws(self) -> tuple[Points, UnitLaw]:
        """Points of `out`, and the law that power sees."""
        law, seen = self.law, self.law.seen
        (nodes, _), (others, row) = law.points, seen.points
        if others is not nodes or seen.within != law.within or not resolved(nodes, law.within):
            return self.out.points, _passed(seen, "relu")
        places, rows = smoothed(law.points, law.within, 0.0, (0.0,), 1, True, row.sum(0))
        values, passed = np.maximum(places, 0.0), rows[-1:] * (places > 0)
        if not passed.any():
            return self.out.points, seen
        return merged(values, rows[:-1]), _of(values, passed / passed.sum(), 0.0)


def _passed(law: UnitLaw, name: str) -> UnitLaw:
    """φ(u) where u, of law `law`, is weighted by φ′(u)²."""
    curve = CURVES[name]
    nodes, probs = law.points
    whole = nodes, probs.sum(0, keepdims=True)
    # a closed ReLU passes nothing, whatever the value below 0 is
    places, row = smoothed(whole, law.within + law.between, 0.0, curve.bends, 1, name == "relu")
    mass = row * curve.slope(places) ** 2
    if not mass.sum() > 0:
        return law
    kept = mass[0] > 0
    return _of(*binned(curve(places[kept]), mass[:, kept] / mass.sum()), 0.0)


def _of(nodes: np.ndarray, probs: np.ndarray, within: float) -> UnitLaw:
    """All channels alike: only averages over everything are asked of a seen law."""
    mean, square = float(probs.sum(0) @ nodes), float(probs.sum(0) @ nodes**2)
    return UnitLaw(square + within, mean**2, mean, within, 0.0, False, lambda: (nodes, probs))


def summed(
    laws: Sequence[UnitLaw], shares: Sequence[float]
) -> tuple[UnitLaw, list[UnitLaw] | None]:
    """The law of a sum, and that law as the power that goes on to each input sees it.

    `shares` is how the power divides over the inputs. The second is None, and `shares` is not
    needed, if power sees the plain law.
    """
    plain = reduce(add, laws)
    if all(law.view is None for law in laws):
        return plain, None
    blind = [law if law.view is None else viewed(law, None) for law in laws]
    parts = [
        plain if law.view is None else reduce(add, [*blind[:i], law.seen, *blind[i + 1 :]])
        for i, law in enumerate(laws)
    ]
    return viewed(plain, lambda: _together(parts, shares)), parts


def _together(parts: Sequence[UnitLaw], shares: Sequence[float]) -> UnitLaw:
    """The sum's law seen by the power that goes on to any input."""
    width = parts[0].within + parts[0].between
    points = [p.points for p in parts]
    if any(p.within + p.between != width for p in parts):
        points, width = [discrete(p) for p in parts], 0.0
    nodes = points[0][0]
    probs = [s * p.sum(0) for s, (_, p) in zip(shares, points)]
    if all(n is nodes for n, _ in points):
        return _of(nodes, reduce(np.add, probs)[None], width)
    nodes = np.concatenate([n for n, _ in points])
    return _of(*binned(nodes, np.concatenate(probs)[None]), width)


def correlated(
    name: str,
    index: int,
    groups: list[Group],
    links: list[Row],
    parts: dict[tuple[int, int], list[UnitLaw]],
    listed: Sequence[Gains],
) -> list[Row]:
    """Links of an activation that reads node `index`, where the slopes below are not independent.

    Where `parts` has the summands of that node's group, the factors go to its own links, in the
    gains that `listed` holds (of power, maybe of amplitude); else the activation's links take one.
    """
    new = []
    for i, s, t, values in links:
        law = groups[s][1]
        if (index, s) in parts:
            factors = _slopes(parts[index, s], law, name)
            for gains, exponent in zip(listed, (1.0, 0.5)):
                gains.links[index] = tuple(
                    Link(k.input, k.source, s, to_float(k.gain) * factors[k.input] ** exponent)
                    if k.target == s
                    else k
                    for k in gains.links[index]
                )
        elif law.view is not None:
            (factor,) = _slopes([law.seen], law, name)
            if factor != 1:  # exact gains stay exact
                values = tuple(to_float(v) * factor**e for v, e in zip(values, (1.0, 0.5)))
        new.append((i, s, t, values))
    return new


def _slopes(parts: Sequence[UnitLaw], law: UnitLaw, name: str) -> list[float]:
    """E[φ′²] under each of `parts` over E[φ′²] under `law`."""
    base = to_float(activated(law, name)[1])
    width = law.within, law.between
    return [
        1.0
        if not base or (part.points is law.points and (part.within, part.between) == width)
        else to_float(gate(part, name)) / base
        for part in parts
    ]


def flow(
    links: Sequence[Link], inputs: Sequence[Sequence[Group]], output: Sequence[Group]
) -> list[Flow]:
    """What part of the power at the input a channel of each group hands on, by link."""
    return [
        (
            k.input,
            k.source,
            k.target,
            to_float(k.gain) * inputs[k.input][k.source][0] / output[k.target][0],
        )
        for k in links
    ]


def reached(flows: Sequence[Flow], before: Sequence[Sequence[float]], groups: int) -> list[float]:
    """Power at the input for 1 in each channel of a node's groups, from that of its inputs."""
    found = [0.0] * groups
    for i, s, t, share in flows:
        found[t] += share * before[i][s]
    return [to_float(f) for f in found]
