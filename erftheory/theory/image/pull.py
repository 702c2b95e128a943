"""Maps of units pulled back through a network on an image, from the last node to the input.

A batch of maps is an outer product of lines, one an axis, as long as no branches meet. Every signal
is divided by the mass it would have on the unbounded plane, as in `lowering`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from erftheory.theory.image import matrices as layers
from erftheory.theory.image.graph import Flat


class Cancelled(ValueError):
    """The entries of a signed map cancel: it has no share of anything."""

    def __init__(self) -> None:
        super().__init__(
            "taps: got signed taps whose signal cancels to a mass below the rounding error; takes "
            "taps of another sum or fewer layers"
        )


class Unreached(ValueError):
    """No input pixel reaches a unit."""


@dataclass
class Maps:
    """A batch of maps, divided by the mass on the plane: lines an axis (units, n), or one array.

    Attributes:
      parts: the lines, or the array alone.
      scale: the maps are e^scale times the parts.
      mass: log of what they were divided by.
      rounds: roundings on the longest path, for the error bound.
      least: log of a lower bound for the weights of single paths.
      missing: whether a path was left out because a layer on it reads nothing but padding; the
        mass is then not that of the plane.
    """

    parts: tuple[np.ndarray, ...]
    product: bool
    scale: float = 0.0
    mass: float = 0.0
    rounds: float = 4.0
    least: float = 0.0
    missing: bool = False

    def full(self) -> np.ndarray:
        if not self.product:
            return self.parts[0]
        found = self.parts[0]
        for line in self.parts[1:]:
            found = found[..., None] * line.reshape(len(line), *(1,) * (found.ndim - 1), -1)
        return found


def pull(flat: Flat, units: list[tuple[int, ...]], absolute: bool = False) -> Maps:
    """Maps of a batch of units, pulled back from the last node to the input."""
    seeds = tuple(np.zeros((len(units), n)) for n in flat.shape)
    for a, line in enumerate(seeds):
        line[range(len(units)), [u[a] for u in units]] = 1.0
    arriving, outputs = flat.moments.arriving, flat.outputs
    left: dict[Any, int] = {}
    for found in arriving.values():
        for edge in found:
            left[edge.reader] = left.get(edge.reader, 0) + 1
    known: dict[Any, Maps] = {}
    missing = False
    moved: dict[Any, Maps | None] = {}
    for port in flat.moments.order:
        parts: list[Maps] = [Maps(seeds, True)] if port in outputs else []
        for edge in arriving.get(port, []):
            if edge.reader not in known or not edge.gain:
                missing = missing or bool(edge.gain)
                continue
            key = edge.reader, edge.key
            if key not in moved:
                terms = edge.terms()  # none where a layer reads nothing but its padding
                moved[key] = _moved(known[edge.reader], terms, absolute) if terms else None
            found = moved[key]
            missing = missing or found is None
            if found is not None:
                parts.append(_gained(found, edge.gain))
            left[edge.reader] -= 1
            if not left[edge.reader]:
                for old in [k for k in moved if k[0] == edge.reader]:
                    del moved[old]
                if edge.reader[0] != 0:
                    del known[edge.reader]
        if parts:
            known[port] = _added(parts)
    inputs = flat.nodes[0].channels
    parts = [_gained(known[0, g], c) for g, c in enumerate(inputs) if (0, g) in known]
    if not parts:
        raise Unreached("unit: got one which no input reaches; takes a connected unit")
    return replace(_added(parts), missing=missing)


def _gained(signal: Maps, gain: float) -> Maps:
    parts = signal.parts
    if gain < 0:  # of a product of gradients of opposite signs
        parts = (-parts[0], *parts[1:])
    mass = signal.mass + math.log(abs(gain))
    return Maps(parts, signal.product, signal.scale, mass, signal.rounds, signal.least)


def _moved(signal: Maps, terms: layers.Terms, absolute: bool) -> Maps:
    """A signal behind a layer, seen from its input."""
    if all(m is None for _, axes in terms for m in axes) and len(terms) == 1 and terms[0][0] == 1:
        return signal
    if absolute:
        terms = tuple((abs(w), tuple(m if m is None else abs(m) for m in x)) for w, x in terms)
    matrices = [m for _, axes in terms for m in axes if m is not None]
    work = sum(max((int(np.diff(m.indptr).max(initial=0)) for m in matrices), default=0) + 2.0
               for _ in terms) * max(1, len(terms[0][1]))  # fmt: skip
    small = min(
        math.log(abs(w)) + sum(_least(m) for m in axes)
        for w, axes in terms
    )
    rounds, least = signal.rounds + work, signal.least + min(small, 0.0)
    if signal.product and len(terms) == 1:
        weight, axes = terms[0]
        parts = tuple(line if m is None else (m @ line.T).T for line, m in zip(signal.parts, axes))
        if weight != 1:
            parts = (parts[0] * weight, *parts[1:])
        return _settled(Maps(parts, True, signal.scale, signal.mass, rounds, least))
    total: Any = 0.0
    array = signal.full()
    for weight, axes in terms:
        found = layers.pulled(array, axes)
        total = total + (found if weight == 1 else weight * found)
    return _settled(Maps((total,), False, signal.scale, signal.mass, rounds, least))


def _settled(signal: Maps) -> Maps:
    """Keep the largest weight within reach of floats: small images lose a share a layer."""
    parts, scale = list(signal.parts), signal.scale
    for i, part in enumerate(parts):
        top = float(np.abs(part).max(initial=0.0))
        if 0 < top < 1e-60:
            parts[i], scale = part / top, scale + math.log(top)
    signal.parts, signal.scale = tuple(parts), scale
    return signal


def _added(parts: list[Maps]) -> Maps:
    """Signals that meet, weighted by their masses on the plane."""
    if len(parts) == 1:
        return parts[0]
    top = max(part.mass for part in parts)
    shares = [math.exp(part.mass - top) for part in parts]
    mass = top + math.log(sum(shares))
    shares = [share / sum(shares) for share in shares]
    scale = max(part.scale for part in parts)
    rounds = max(part.rounds for part in parts) + len(parts) + 2
    least = min(p.least + math.log(s) if s else -math.inf for p, s in zip(parts, shares))
    first = parts[0]
    weights = [s * math.exp(p.scale - scale) for p, s in zip(parts, shares)]
    if all(part.parts is first.parts for part in parts):
        return Maps(first.parts, first.product, scale, mass, rounds, least)
    total: Any = 0.0
    for part, weight in zip(parts, weights):
        total = total + weight * part.full()
    return _settled(Maps((total,), False, scale, mass, rounds, least))


def _least(matrix: layers.Matrix) -> float:
    """Log of the least weight of a matrix; 0 where it is the identity, or has none."""
    if matrix is None:
        return 0.0
    found = np.abs(matrix.data[matrix.data != 0])  # signed taps that meet on a ring may cancel
    return math.log(float(found.min(initial=1.0)))
