"""The map of a network as a differentiable function of all taps and all skip ratios.

From the input on, M(f) = Σ over edges p·K(f)·M_reader(f): the walk's map at frequency f is a sum
over ports of products of spectra, one factor an edge. K is the Fourier sum of a layer's taps at the
field's size, where nothing wraps around, so one pass over the ports and one inverse transform give
the map, and JAX differentiates both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from erftheory.designing.passes import Passes
from erftheory.network.graph import Sum
from erftheory.network.kernel import line_span
from erftheory.network.layers import Conv, ConvTranspose
from erftheory.theory.walk.walk import RawEdge

MOST = 2**27  # complex numbers held for a gradient: 2 GiB

Taps = dict[int, Any]
Ratios = dict[int, Any]


@dataclass(frozen=True)
class Spectra:
    """A walk with its window.

    Attributes:
      offset, shape: first pixel and size of the map, the whole field.
    """

    walk: Passes
    offset: tuple[int, ...]
    shape: tuple[int, ...]

    def taps(self) -> Taps:
        """Relative taps of every convolution by node, as given, shape of its kernel."""
        found: Taps = {}
        for port in self.walk.order:
            for _, edge in self.walk.edges[port]:
                node = edge.reader[0]
                if node not in found and is_weighted(self.walk.graph.nodes[node].op):
                    found[node] = raw_taps(edge, self.walk.graph.ndim)
        return dict(sorted(found.items()))

    def ratios(self) -> Ratios:
        """Zeros for every input of every sum, by node: logs of factors of its power ratio."""
        return {
            index: np.zeros(len(node.inputs))
            for index, node in enumerate(self.walk.graph.nodes)
            if is_sum(node) and any(e.reader[0] == index for e in self._edges())
        }

    def _edges(self) -> list[RawEdge]:
        return [edge for port in self.walk.order for _, edge in self.walk.edges[port]]

    def map(self, taps: Taps, ratios: Ratios) -> jax.Array:
        """The map of mass 1, shape `shape`, for other taps and ratios.

        A sum keeps its power: exp θ(i) / Σ P(k)·exp θ(k) multiplies input i, P being the shares.
        """
        walk, shares = self.walk, self.shares()
        found: dict[Any, Any] = {}
        waves = _Waves(self.shape)
        for port in walk.order:
            total = jnp.asarray(1 - sum(p for p, _ in walk.edges[port]) + 0j)
            if port not in walk.ends:
                total = jnp.asarray(0j)
            for p, edge in walk.edges[port]:
                node = edge.reader[0]
                weight: Any = p
                if node in ratios and port[0] in walk.graph.nodes[node].inputs:
                    grown = jnp.exp(ratios[node])
                    place = walk.graph.nodes[node].inputs.index(port[0])
                    weight = p * grown[place] / jnp.dot(shares[node], grown)
                total = total + weight * waves.through(edge, taps.get(node)) * found[edge.reader]
            found[port] = total
        whole = sum(p * found[port] for port, p in walk.starts.items())
        whole = jnp.broadcast_to(whole * waves.shifted([-o for o in self.offset]), waves.size)
        signal = jnp.fft.irfftn(whole, self.shape, axes=tuple(range(len(self.shape))))
        return signal / signal.sum()

    def shares(self) -> dict[int, np.ndarray]:
        """Of every sum, how likely the walk takes each input, given that it takes one."""
        walk, passed = self.walk, {port: 0.0 for port in self.walk.order}
        passed.update(walk.starts)
        chances: dict[int, np.ndarray] = {}
        for port in reversed(walk.order):
            for p, edge in walk.edges[port]:
                passed[edge.reader] += p * passed[port]
                node = walk.graph.nodes[edge.reader[0]]
                if is_sum(node):
                    row = chances.setdefault(edge.reader[0], np.zeros(len(node.inputs)))
                    row[node.inputs.index(port[0])] += p * passed[port]
        return {node: row / row.sum() for node, row in chances.items()}


def is_weighted(op: Any) -> bool:
    return isinstance(op, Conv | ConvTranspose)


def is_sum(node: Any) -> bool:
    """A sum of several different nodes."""
    return isinstance(node.op, Sum) and len(set(node.inputs)) == len(node.inputs) > 1


def raw_taps(edge: RawEdge, ndim: int) -> np.ndarray:
    """The taps of a layer's edge as given, ones where none are."""
    if not edge.factors:
        return np.ones((1,) * ndim)
    kernel: Any = edge.factors[0].kernel
    return np.array([float(t) for t in kernel.exact]).reshape(kernel.shape)


def spectra(walk: Passes, limit: bool = True) -> Spectra:
    """The window of a walk; with `limit` one whose map can be differentiated.

    Raises:
      ValueError: a map too large to differentiate.
    """
    ndim = walk.graph.ndim
    low: dict[Any, np.ndarray] = {}
    high: dict[Any, np.ndarray] = {}
    for port in walk.order:
        ends = [(np.zeros(ndim), np.zeros(ndim))] if port in walk.ends else []
        for _, edge in walk.edges[port]:
            factors: Any = edge.factors
            span = np.array([
                sum(line_span(f.kernel.shape[a], int(f.spacing[a])) * f.count for f in factors)
                for a in range(ndim)
            ])  # fmt: skip
            start = np.array(edge.shift, dtype=float)
            ends.append((start + low[edge.reader], start + span + high[edge.reader]))
        low[port] = np.min([e[0] for e in ends], axis=0)
        high[port] = np.max([e[1] for e in ends], axis=0)
    first = np.min([low[p] for p in walk.starts], axis=0)
    last = np.max([high[p] for p in walk.starts], axis=0)
    shape = tuple(int(n) + 1 for n in last - first)
    held = int(np.prod(shape)) * sum(map(len, walk.edges.values()))
    if limit and held > MOST:
        size = " x ".join(map(str, shape))
        raise ValueError(
            f"network: got a map of {size} pixels behind {len(walk.order)} layers; takes at most "
            f"{MOST:,} pixels times layers to differentiate a map (measure='std' has no limit)"
        )
    return Spectra(walk, tuple(int(o) for o in first), shape)


class _Waves:
    """Frequencies of a window; the last axis has the half that a real signal needs."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.size = (*shape[:-1], shape[-1] // 2 + 1)

    def _line(self, axis: int, places: np.ndarray) -> np.ndarray:
        """exp(−2πi·f·x/n), a row a frequency and a column a place."""
        n = self.shape[axis]
        turns = np.outer(np.arange(self.size[axis]), places) % n
        return np.exp(-2j * np.pi * turns / n)

    def shifted(self, shift: Any) -> np.ndarray:
        """The spectrum of one pixel."""
        found = np.ones(())
        for axis, place in enumerate(shift):
            line = self._line(axis, np.array([int(place)]))[:, 0]
            found = np.multiply.outer(found, line)
        return found

    def through(self, edge: RawEdge, taps: Any) -> Any:
        """The spectrum of an edge's law, its first kernel replaced by `taps` if there are any."""
        found: Any = self.shifted(edge.shift)
        for i, factor in enumerate(edge.factors):
            kernel: Any = factor.kernel
            law = kernel.array() if taps is None or i else taps / jnp.sum(taps)
            spectrum: Any = law
            for axis in range(len(self.shape)):
                places = np.arange(kernel.shape[axis]) * int(factor.spacing[axis])
                # contracts the first axis that is left, and appends its frequencies
                spectrum = jnp.tensordot(spectrum, self._line(axis, places), axes=((0,), (1,)))
            found = found * spectrum**factor.count
        return found


def slopes_of(model: Spectra, measure: Callable[[jax.Array], Any]) -> tuple[float, Taps, Ratios]:
    """A measure of the map, and its derivatives by all taps and the logs of all ratios.

    Raises:
      ValueError: a measure that is no number, or has no derivative.
    """

    def number(taps: Taps, ratios: Ratios) -> Any:
        value = measure(model.map(taps, ratios))
        kind: Any = getattr(value, "dtype", None)
        if getattr(value, "shape", None) != () or not jnp.issubdtype(kind, jnp.floating):
            what = type(value).__name__ if kind is None else f"{kind} of shape {value.shape}"
            raise ValueError(f"measure: got {what}; takes a JAX function to one real number")
        return value

    with jax.enable_x64(True):
        both = jax.value_and_grad(number, (0, 1))(model.taps(), model.ratios())
        value, (by_taps, by_ratios) = jax.tree.map(np.asarray, both)
    rows = [*by_taps.values(), *by_ratios.values()]
    if not all(np.isfinite(row).all() for row in rows):
        raise ValueError("measure: got derivatives that are not finite; takes a smooth function")
    return float(value), by_taps, by_ratios
