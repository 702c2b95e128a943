"""The exact effective receptive field on a finite image: what leaves it is lost at every layer.

The walk of the unbounded plane knows no sizes, so this pass stays on the graph: repetitions are
written out, every node has a grid, and signals on ports (node, channel group) are pulled back by
the matrices of `grid_layers`, an outer product as long as no branches meet. Gains are those of
the unbounded plane. Every signal is divided by the mass it would have on that plane, as in
`lowering`, so that its sum is the share that arrived.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import lcm
from typing import Any

import numpy as np

from erftheory.erf import ERF, ErrorBound
from erftheory.network.arguments import integer, one_of
from erftheory.network.base import Network, check_network
from erftheory.network.imported import own_rims
from erftheory.theory import grid_layers as layers
from erftheory.theory.endpoints import between
from erftheory.theory.fixed import CORRELATED
from erftheory.theory.gains import MIXED, mixed_weights
from erftheory.theory.grid_graph import Flat, Port, edges, flatten, squares
from erftheory.theory.interval import receptive_field
from erftheory.theory.reading import INITS
from erftheory.theory.walk import SIGNALS

EPS = float(np.finfo(np.float64).eps)
TINY = math.log(1e-280)  # weights above it have all their digits
RIMS = "the model fills its rims itself, which are read as zeros, and the unit sees them"
BATCH = 2**22  # pixels of a batch of maps


def on_image(
    network: Network,
    image: Any,
    unit: Any = "center",
    signal: str = "variance",
    init: str | None = "he",
    padding_mode: str = "zeros",
    source: str | None = None,
    output: str | None = None,
) -> ERF:
    """The ERF of one unit on an image; arguments and errors as for `exact`."""
    if source is not None:  # seen from an inner layer, the image is what that layer makes of it
        check_network("network", network)
        one_of("signal", signal, SIGNALS)
        one_of("padding_mode", padding_mode, tuple(layers.PADDING))
        part = network.until(source)
        image = flatten(part, _image(image, part.ndim), "gradient", None, padding_mode).shape
    grid = _Grid(between(network, source, output), image, signal, init, padding_mode)
    return next(grid.erfs([grid.unit(unit)]))


def exact_units(
    network: Network,
    image: int | tuple[int, ...],
    units: Sequence[tuple[int, ...]] | str = "all",
    signal: str = "variance",
    init: str | None = "he",
    padding_mode: str = "zeros",
) -> Iterator[ERF]:
    """The ERFs of many units of one output map on an image, one after the other.

    Args:
      image: pixels an axis; the other arguments are those of `exact`.
      units: indices of the output grid, or "all" of it, row by row.

    Returns:
      an iterator of `ERF`, in the order of `units`, equal to `exact(network, image=…, unit=u)`
      each. Units are computed in batches of some 4 million pixels, so memory stays bounded
      however many there are.

    Raises:
      ValueError: as for `exact`, before the first unit is computed.
    """
    grid = _Grid(network, image, signal, init, padding_mode)
    if isinstance(units, str):
        one_of("units", units, ("all",))
        chosen = list(np.ndindex(*grid.flat.shape))
    else:
        chosen = [grid.unit(unit, "units") for unit in units]
    return grid.erfs(chosen)


@dataclass
class _Signal:
    """A batch of maps, divided by the mass on the plane: lines an axis (units, n), or one array.

    Attributes:
      parts: the lines, or the array alone.
      scale: the maps are e^scale times the parts.
      mass: log of what they were divided by.
      rounds: roundings on the longest path, for the error bound.
      least: log of a lower bound for the weights of single paths.
    """

    parts: tuple[np.ndarray, ...]
    product: bool
    scale: float = 0.0
    mass: float = 0.0
    rounds: float = 4.0
    least: float = 0.0

    def full(self) -> np.ndarray:
        if not self.product:
            return self.parts[0]
        found = self.parts[0]
        for line in self.parts[1:]:
            found = found[..., None] * line.reshape(len(line), *(1,) * (found.ndim - 1), -1)
        return found


class _Grid:
    """One network on one image."""

    def __init__(self, network: Network, image: Any, signal: str, init: str | None, mode: str):
        self.network = check_network("network", network)
        self.signal = one_of("signal", signal, SIGNALS)
        self.init = one_of("init", init, INITS)
        self.mode = one_of("padding_mode", mode, tuple(layers.PADDING))
        self.root = signal == "magnitude"
        self.kind = "variance" if self.root else signal
        ndim = network.ndim
        self.image = _image(image, ndim)
        self.flat = flatten(network, self.image, self.kind, init, mode)
        self.signed = any(
            node.step is not None and node.step.kernel.signed for node in self.flat.nodes
        )
        if self.kind == "variance" and any(
            node.step is not None and node.step.kind == "random" and node.step.kernel.signed
            for node in self.flat.nodes
        ):
            raise ValueError(
                "taps: got a negative tap in the variance signal; takes variances >= 0 there "
                '(signed weights belong to signal="gradient")'
            )

    def unit(self, unit: Any, name: str = "unit") -> tuple[int, ...]:
        """The index of a unit of the output grid."""
        shape = self.flat.shape
        if isinstance(unit, str) and unit == "center":
            return tuple(n // 2 for n in shape)
        what = "x".join(map(str, shape))
        wrong = f'{name}: got {unit!r}; takes "center" or an index of the output grid of {what}'
        if isinstance(unit, str) or not isinstance(unit, Sequence | np.ndarray):
            raise ValueError(wrong)
        try:
            place = tuple(integer(name, u, 0) for u in unit)
        except ValueError:
            raise ValueError(wrong) from None
        if len(place) != len(shape) or any(u >= n for u, n in zip(place, shape)):
            raise ValueError(wrong)
        return place

    def erfs(self, units: list[tuple[int, ...]]) -> Iterator[ERF]:
        try:
            self._ask_for_memory()
            yield from self._erfs(units)
        except MemoryError:
            raise ValueError(
                f"image: got {self.image}, whose maps do not fit in memory; takes a smaller image"
            ) from None

    def _ask_for_memory(self) -> None:
        """Raises MemoryError for images beyond all reach, before anything of them is filled."""
        branching = any(len(node.inputs) > 1 for node in self.flat.nodes)
        sizes = [node.shape for node in self.flat.nodes]
        numbers = 3 * max(math.prod(s) if branching else 8 * max(s) for s in sizes)
        np.empty(min(numbers, 2**56))  # NumPy calls more than an address space another error

    def _erfs(self, units: list[tuple[int, ...]]) -> Iterator[ERF]:
        largest = max(math.prod(node.shape) for node in self.flat.nodes)
        size = max(1, BATCH // largest)
        for start in range(0, len(units), size):
            batch = units[start : start + size]
            found = _pull(self.flat, batch)
            plane = self._plane(batch, found.mass)
            beside = _pull(self.flat, batch, absolute=True) if self.signed else None
            for i, unit in enumerate(batch):
                yield self._record(found, i, unit, plane[i], beside)

    def _record(
        self,
        found: _Signal,
        i: int,
        unit: tuple[int, ...],
        plane: float | None,
        beside: _Signal | None,
    ) -> ERF:
        parts = [part[i] for part in found.parts]
        total = math.prod(float(part.sum()) for part in parts)
        lost = None if plane is None else 1 - total * math.exp(found.scale - plane)
        metadata = {"unit": unit, "image": self.image, "padding_mode": self.mode, "lost": lost}
        error, holes = self._error(found, parts, i, total, beside)
        if own_rims(self.network) and (lost is None or abs(lost) > 1e-9):
            error = ErrorBound("approximation", math.inf, RIMS)
        if total <= 0 and not self.signed:
            raise ValueError(f"unit: got {unit}, which no input reaches; takes a connected unit")
        if self.root:
            parts = [np.sqrt(part) for part in parts]
        forms: dict[str, Any] = {"marginals": parts} if found.product else {"map": parts[0]}
        if holes:
            gaps = [part == 0 for part in parts]
            forms["holes"] = tuple(gaps) if found.product else gaps[0]
        return ERF(
            offset=(0,) * len(unit),
            signal=self.signal,
            method="grid",
            error=error,
            receptive_field=_Field(self.network),
            metadata=metadata,
            **forms,
        )

    def _error(
        self, found: _Signal, parts: list[np.ndarray], i: int, total: float, beside: _Signal | None
    ) -> tuple[ErrorBound, bool]:
        """The bound, and whether zeros are holes and not underflow."""
        bound = EPS * found.rounds * (0.5 if self.root else 1.0)
        if beside is not None:
            whole = math.prod(float(part[i].sum()) for part in beside.parts)
            whole *= math.exp(beside.scale - found.scale)
            if abs(total) <= bound * whole:
                raise ValueError(
                    "taps: got signed taps whose signal cancels to a mass below the rounding "
                    "error; takes taps of another sum or fewer layers"
                )
            value = bound * whole / abs(total) * (1 + whole / abs(total))
            return ErrorBound("rounding", value, "sum over pixels"), False
        if mixed_weights(self.network.graph):
            return ErrorBound("approximation", math.inf, MIXED), found.least > TINY
        if self.flat.approximate:
            return ErrorBound("approximation", math.inf, CORRELATED), found.least > TINY
        if found.least > TINY:
            return ErrorBound("relative", bound, "every pixel"), True
        return ErrorBound("rounding", bound + 1e-270, "sum over pixels"), False

    def _plane(self, units: list[tuple[int, ...]], mass: float) -> list[float | None]:
        """Log of each unit's mass on the unbounded plane over e^mass, which the map on the image
        was divided by; None where it is not known."""
        if not self.flat.uneven:
            return [0.0] * len(units)
        graph = self.network.graph
        aligned = any(getattr(node.op, "align_corners", False) for node in self.flat.nodes)
        if graph.has_global or self.signed or aligned:
            return [None] * len(units)
        # a torus a few of the coarsest pixels wide, which no run of fixed layers wraps around
        fixed = [n.step for n in self.flat.nodes if n.step is not None and n.step.kind == "fixed"]
        wide = 4 + max(
            (sum(s.dilation[a] * s.kernel.shape[a] for s in fixed) for a in range(graph.ndim)),
            default=0,
        )
        period = [lcm(*(rate[a].numerator for rate in graph.rates)) for a in range(graph.ndim)]
        torus = tuple(p * wide for p in period)
        flat = flatten(self.network, torus, self.kind, self.init, layers.TORUS)
        phases = {u: tuple(v % n for v, n in zip(u, flat.shape)) for u in units}
        chosen = sorted(set(phases.values()))
        found = _pull(flat, chosen)
        sums: dict[tuple[int, ...], float | None] = {}
        for i, phase in enumerate(chosen):
            total = math.prod(float(part[i].sum()) for part in found.parts)
            log = found.scale + found.mass - mass
            sums[phase] = log + math.log(total) if total > 0 else None
        return [sums[phases[u]] for u in units]


def _pull(flat: Flat, units: list[tuple[int, ...]], absolute: bool = False) -> _Signal:
    """Maps of a batch of units, pulled back from the last node to the input."""
    seeds = tuple(np.zeros((len(units), n)) for n in flat.shape)
    for a, line in enumerate(seeds):
        line[range(len(units)), [u[a] for u in units]] = 1.0
    last = len(flat.nodes) - 1
    arriving = edges(flat)
    outputs = [(last, g) for g in range(len(flat.nodes[last].channels))]
    if flat.kind == "variance":
        arriving = squares(flat, arriving, outputs)
    ports = sorted(set(arriving) | set(outputs), key=lambda port: (-port[0], port[1]))
    left: dict[Port, int] = {}
    for found in arriving.values():
        for edge in found:
            left[edge.reader] = left.get(edge.reader, 0) + 1
    known: dict[Port, _Signal] = {}
    moved: dict[Any, _Signal] = {}
    for port in ports:
        parts: list[_Signal] = [_Signal(seeds, True)] if port in outputs else []
        for edge in arriving.get(port, []):
            if edge.reader not in known or not edge.gain:
                continue
            key = edge.reader, edge.key
            if key not in moved:
                moved[key] = _moved(known[edge.reader], edge.terms(), absolute)
            parts.append(_gained(moved[key], edge.gain))
            left[edge.reader] -= 1
            if not left[edge.reader]:
                for old in [k for k in moved if k[0] == edge.reader]:
                    del moved[old]
                if edge.reader[0]:
                    del known[edge.reader]
        if parts:
            known[port] = _added(parts)
    inputs = flat.nodes[0].channels
    parts = [_gained(known[0, g], c) for g, c in enumerate(inputs) if (0, g) in known]
    if not parts:
        raise ValueError("unit: got one which no input reaches; takes a connected unit")
    return _added(parts)


def _gained(signal: _Signal, gain: float) -> _Signal:
    return _Signal(
        signal.parts, signal.product, signal.scale, signal.mass + math.log(gain), signal.rounds,
        signal.least,
    )  # fmt: skip


def _moved(signal: _Signal, terms: layers.Terms, absolute: bool) -> _Signal:
    """A signal behind a layer, seen from its input."""
    if all(m is None for _, axes in terms for m in axes) and len(terms) == 1 and terms[0][0] == 1:
        return signal
    if absolute:
        terms = tuple((abs(w), tuple(m if m is None else abs(m) for m in x)) for w, x in terms)
    matrices = [m for _, axes in terms for m in axes if m is not None]
    work = sum(max((int(np.diff(m.indptr).max(initial=0)) for m in matrices), default=0) + 2.0
               for _ in terms) * max(1, len(terms[0][1]))  # fmt: skip
    small = min(
        math.log(abs(w)) + sum(math.log(float(np.abs(m.data).min())) for m in axes if m is not None)
        for w, axes in terms
    )
    rounds, least = signal.rounds + work, signal.least + min(small, 0.0)
    if signal.product and len(terms) == 1:
        weight, axes = terms[0]
        parts = tuple(line if m is None else (m @ line.T).T for line, m in zip(signal.parts, axes))
        if weight != 1:
            parts = (parts[0] * weight, *parts[1:])
        return _settled(_Signal(parts, True, signal.scale, signal.mass, rounds, least))
    total: Any = 0.0
    array = signal.full()
    for weight, axes in terms:
        found = layers.pulled(array, axes)
        total = total + (found if weight == 1 else weight * found)
    return _settled(_Signal((total,), False, signal.scale, signal.mass, rounds, least))


def _settled(signal: _Signal) -> _Signal:
    """Keep the largest weight within reach of floats: small images lose a share a layer."""
    parts, scale = list(signal.parts), signal.scale
    for i, part in enumerate(parts):
        top = float(np.abs(part).max(initial=0.0))
        if 0 < top < 1e-60:
            parts[i], scale = part / top, scale + math.log(top)
    signal.parts, signal.scale = tuple(parts), scale
    return signal


def _added(parts: list[_Signal]) -> _Signal:
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
        return _Signal(first.parts, first.product, scale, mass, rounds, least)
    total: Any = 0.0
    for part, weight in zip(parts, weights):
        total = total + weight * part.full()
    return _settled(_Signal((total,), False, scale, mass, rounds, least))


def _image(image: Any, ndim: int) -> tuple[int, ...]:
    """Pixels an axis."""
    entries = image if isinstance(image, tuple | list | np.ndarray) else (image,) * ndim
    if len(entries) != ndim:
        raise ValueError(f"image: got {len(entries)} entries; takes one per axis, {ndim}")
    return tuple(integer(f"image[{a}]", n) for a, n in enumerate(entries))


class _Field:
    """The receptive field, computed when a figure asks for it."""

    def __init__(self, network: Network):
        self._network = network

    def __getattr__(self, name: str):
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(receptive_field(self._network), name)
