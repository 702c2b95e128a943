"""The exact effective receptive field on the unbounded plane."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from erftheory.erf import ERF, ErrorBound
from erftheory.measures import magnitude
from erftheory.network.arguments import one_of
from erftheory.network.base import Network
from erftheory.theory.direct import DirectAlgebra
from erftheory.theory.interval import extent, receptive_field
from erftheory.theory.reading import prepare
from erftheory.theory.spectrum import SpectrumAlgebra
from erftheory.theory.support import has_gaps, holes
from erftheory.theory.walk import Walk

LARGEST = 2**26  # lattice points of one map


def exact(
    network: Network,
    signal: str = "variance",
    init: str | None = "he",
    unit: str | tuple[int, ...] = "center",
    method: str = "spectrum",
) -> ERF:
    """The ERF of one output unit, float64, normalised to sum 1.

    Args:
      signal: "variance" E[g²] of random weights, "magnitude" its square root, or "gradient" g with
        the taps as weights.
      init: "he", "lecun" or "xavier" give the gains where branches meet; None counts raw paths.
      unit: index of the output unit, one int an axis; "center" is index 0 of the unbounded
        plane. It matters for up-sampling networks, where it chooses the output phase.
      method: "spectrum" (one inverse FFT) or "direct" (repeated convolution).

    Raises:
      ValueError: an argument out of range, a global operation, signed taps in the variance signal,
        or a signal of mass 0.

    Reference: Luo et al., NIPS 2016, section 2.
    """
    one_of("method", method, ("spectrum", "direct"))
    walk = prepare(network, signal, init)
    position = _position(walk, unit)
    span = extent(walk, position)
    if span is None:
        raise ValueError(f"unit: got {unit!r}, which no input reaches; takes a connected unit")
    offset = tuple(first // f for (first, _), f in zip(span, walk.fine))
    shape = tuple(last // f + 1 - o for (_, last), f, o in zip(span, walk.fine, offset))
    marginals, full = _engines(walk, position, offset, shape, method)
    gaps = has_gaps(walk)
    arguments: dict[str, Any] = {
        "offset": offset,
        "signal": signal,
        "method": method,
        "error": _rounding(walk, shape, method),
        "receptive_field": _LazyField(network),
        "holes": _holes(walk, position, offset, shape) if gaps else _no_holes(shape),
    }
    if walk.separable:
        lines = marginals()
        if signal == "magnitude":
            lines = [magnitude(line) for line in lines]
        return ERF(marginals=lines, **arguments)
    if signal == "magnitude":
        return ERF(map=lambda: magnitude(full()), **arguments)
    if walk.restricted:
        return ERF(map=full(), **arguments)
    return ERF(map=full, marginals=marginals(), **arguments)


class _LazyField:
    """The receptive field, computed when a figure asks for it."""

    def __init__(self, network: Network):
        self._network = network

    def __getattr__(self, name: str):
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(receptive_field(self._network), name)


def _position(walk: Walk, unit) -> tuple[int, ...] | None:
    if unit == "center":
        return None
    if not isinstance(unit, tuple) or len(unit) != walk.ndim:
        raise ValueError(f'unit: got {unit!r}; takes "center" or {walk.ndim} ints')
    return tuple(int(u) * j for u, j in zip(unit, walk.jump))


def _size(width: int, lattice: int) -> int:
    """Transform length: a power of two, times the odd part of the up-sampling grid."""
    odd = lattice
    while odd % 2 == 0:
        odd //= 2
    size = max(1, lattice // odd)
    while size * odd < width:
        size *= 2
    return size * odd


def _engines(walk: Walk, position, offset, shape, method) -> tuple[Callable, Callable]:
    """Functions that compute the marginals and the full map."""

    def run(part: Walk, place, start, size) -> np.ndarray:
        if part.restricted:
            loose = extent(part, place, loose=True)
            assert loose is not None
        else:
            loose = tuple((s, s + n - 1) for s, n in zip(start, size))
        grid = tuple(_size(last - first + 1, m) for (first, last), m in zip(loose, part.lattice))
        if math.prod(grid) > LARGEST:
            raise ValueError(
                f"network: got a map of {' x '.join(map(str, grid))} lattice points; takes at most "
                f"{LARGEST} (marginals and moments have no such limit)"
            )
        first = tuple(s * f for s, f in zip(start, part.fine))
        with jax.enable_x64(True):
            if method == "direct":
                found = DirectAlgebra(grid).map(part, place, first)
            else:
                found = SpectrumAlgebra(grid, not part.restricted).map(part, place, first)
        kept = found[tuple(slice(0, n * f, f) for n, f in zip(size, part.fine))]
        # all weights are >= 0: what rounding leaves below zero is zero
        return kept if part.signed else np.maximum(kept, 0)

    def marginals() -> list[np.ndarray]:
        seen: dict = {}
        found: list[np.ndarray] = []
        for axis in range(walk.ndim):
            line = walk.axis(axis)
            place = None if position is None else (position[axis],)
            key = (line, place, offset[axis], shape[axis])
            if key not in seen:
                values = run(line, place, (offset[axis],), (shape[axis],))
                if has_gaps(line):
                    values = values * ~holes(line, place, (offset[axis],), (shape[axis],))
                seen[key] = values
            found.append(seen[key])
        return found

    def full() -> np.ndarray:
        values = run(walk, position, offset, shape)
        return values * ~holes(walk, position, offset, shape) if has_gaps(walk) else values

    return marginals, full


def _no_holes(shape: tuple[int, ...]):
    return lambda: tuple(np.zeros(n, dtype=bool) for n in shape)


def _holes(walk: Walk, position, offset, shape):
    def found():
        if not walk.separable:
            return holes(walk, position, offset, shape)
        return tuple(
            holes(
                walk.axis(a),
                None if position is None else (position[a],),
                (offset[a],),
                (shape[a],),
            )
            for a in range(walk.ndim)
        )

    return found


def _rounding(walk: Walk, shape: tuple[int, ...], method: str) -> ErrorBound:
    """A bound for Σ|error|: every pixel may be off by ε times the operations on its way."""
    eps = float(np.finfo(np.float64).eps)
    layers = sum(_depth(f) for f in walk.factors) + len(walk.vertices)
    if method == "direct":
        return ErrorBound("rounding", eps * 2 * layers * 8, "sum over pixels")
    points = math.prod(_size(n, 1) for n in shape)
    # Parseval: spectral errors of ε·layers an entry are ε·layers·√N in the sum over N pixels
    value = eps * 4 * (math.log2(points + 1) + layers) * math.sqrt(points)
    return ErrorBound("rounding", value, "sum over pixels")


def _depth(factor) -> int:
    inner = factor.kernel
    return factor.count * (sum(map(_depth, inner.factors)) if isinstance(inner, Walk) else 1)
