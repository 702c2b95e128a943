"""The exact effective receptive field on a finite image: what leaves it is lost at every layer.

The walk of the unbounded plane knows no sizes, so this pass stays on the graph: repetitions are
written out, every node has a grid, and signals on ports (node, channel group) are pulled back by
the matrices of `matrices` (pull.py). Gains are those of the unbounded plane, and of norms
those of the image (`rims`); the sum of a map is the share of that plane's signal that arrived.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import lcm
from typing import Any

import numpy as np

from erftheory.erf import ERF, ErrorBound
from erftheory.network.arguments import integer, one_of, output_unit
from erftheory.network.base import Network, check_network
from erftheory.network.graph import Graph
from erftheory.network.imported import ALIGNED, Spatial, own_rims
from erftheory.network.initialisation import Init, check_init
from erftheory.network.kernel import NegativeTaps
from erftheory.theory.gains.between import between
from erftheory.theory.image import matrices as layers
from erftheory.theory.image.graph import Flat, flatten
from erftheory.theory.image.pull import Cancelled, Maps, Unreached, pull
from erftheory.theory.lowering.squares import CORRELATED
from erftheory.theory.readings.idealised import idealised, marked
from erftheory.theory.readings.receptive_field import LazyField
from erftheory.theory.walk.links import MIXED, mixed_weights
from erftheory.theory.walk.walk import SIGNALS

EPS = float(np.finfo(np.float64).eps)
TINY = math.log(1e-280)  # weights above it have all their digits
RIMS = "the model fills its rims itself, which are read as zeros, and the unit sees them"
BATCH = 2**22  # pixels of a batch of maps
_Mass = tuple[float, float]  # log of its size, sign


def on_image(
    network: Network,
    image: Any,
    unit: Any = "center",
    signal: str = "variance",
    init: Init | None = "he",
    padding_mode: str = "zeros",
    source: str | None = None,
    output: str | None = None,
) -> ERF:
    """The ERF of one unit on an image; arguments and errors as for `exact`."""
    part = between(network, source, output)
    if source is not None:  # seen from an inner layer, the image is what that layer makes of it
        one_of("padding_mode", padding_mode, tuple(layers.PADDING))
        before = network.until(source)
        image = flatten(before, _image(image, before.ndim), "gradient", None, padding_mode).shape
    grid = _Grid(part, image, signal, init, padding_mode)
    return next(grid.erfs([grid.unit(unit)]))


def exact_units(
    network: Network,
    image: int | tuple[int, ...],
    units: Sequence[tuple[int, ...]] | str = "all",
    signal: str = "variance",
    init: Init | None = "he",
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


class _Grid:
    """One network on one image."""

    def __init__(self, network: Network, image: Any, signal: str, init: Init | None, mode: str):
        self.network = check_network("network", network)
        self.signal = one_of("signal", signal, SIGNALS)
        self.init = check_init(init, counting=True)
        self.mode = one_of("padding_mode", mode, tuple(layers.PADDING))
        self.root = signal == "magnitude"
        self.why = idealised(network, signal, init)
        self.kind = "variance" if self.root else signal
        ndim = network.ndim
        self.image = _image(image, ndim)
        try:
            self.flat = flatten(network, self.image, self.kind, init, mode)
        except MemoryError:
            raise self._too_large() from None
        if self.kind == "variance" and any(
            node.step is not None and node.step.kind == "random" and node.step.kernel.signed
            for node in self.flat.nodes
        ):
            raise NegativeTaps

    def unit(self, unit: Any, name: str = "unit") -> tuple[int, ...]:
        """The index of a unit of the output grid."""
        return output_unit(name, unit, self.flat.shape)

    def erfs(self, units: list[tuple[int, ...]]) -> Iterator[ERF]:
        try:
            self._ask_for_memory()
            yield from self._erfs(units)
        except MemoryError:
            raise self._too_large() from None

    def _too_large(self) -> ValueError:
        return ValueError(
            f"image: got {self.image}, whose maps do not fit in memory; takes a smaller image"
        )

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
            found = pull(self.flat, batch)
            plane = self._plane(batch, found)
            beside = pull(self.flat, batch, absolute=True) if self.flat.signed else None
            for i, unit in enumerate(batch):
                yield self._record(found, i, unit, plane[i], beside)

    def _record(
        self,
        found: Maps,
        i: int,
        unit: tuple[int, ...],
        plane: _Mass | None,
        beside: Maps | None,
    ) -> ERF:
        parts = [part[i] for part in found.parts]
        total = math.prod(float(part.sum()) for part in parts)
        lost = None if plane is None else 1 - plane[1] * total * math.exp(found.scale - plane[0])
        metadata = {"unit": unit, "image": self.image, "padding_mode": self.mode, "lost": lost}
        error, holes = self._error(found, parts, i, total, beside)
        if any(isinstance(n.op, Spatial) and n.op.label == ALIGNED for n in self.flat.nodes):
            error = ErrorBound("approximation", math.inf, f"{ALIGNED}, read as on the plane")
        elif own_rims(self.network.graph) and (lost is None or abs(lost) > 1e-9):
            error = ErrorBound("approximation", math.inf, RIMS)
        error = marked(error, self.why)
        if total <= 0 and not self.flat.signed:
            raise Unreached(f"unit: got {unit}, which no input reaches; takes a connected unit")
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
            receptive_field=LazyField(self.network),
            metadata=metadata,
            **forms,
        )

    def _error(
        self, found: Maps, parts: list[np.ndarray], i: int, total: float, beside: Maps | None
    ) -> tuple[ErrorBound, bool]:
        """The bound, and whether zeros are holes and not underflow."""
        bound = EPS * found.rounds * (0.5 if self.root else 1.0)
        if beside is not None:
            whole = math.prod(float(part[i].sum()) for part in beside.parts)
            whole *= math.exp(beside.scale - found.scale)
            if abs(total) <= bound * whole:
                raise Cancelled
            value = bound * whole / abs(total) * (1 + whole / abs(total))
            return ErrorBound("rounding", value, "sum over pixels"), False
        if mixed_weights(self.network.graph):
            return ErrorBound("approximation", math.inf, MIXED), found.least > TINY
        if self.flat.approximate:
            return ErrorBound("approximation", math.inf, CORRELATED), found.least > TINY
        if found.least > TINY:
            return ErrorBound("relative", bound, "every pixel"), True
        return ErrorBound("rounding", bound + 1e-270, "sum over pixels"), False

    def _plane(self, units: list[tuple[int, ...]], found: Maps) -> list[_Mass | None]:
        """Each unit's mass on the unbounded plane over e^mass, which the map that was found on the
        image was divided by, as log and sign; None where it is not known."""
        mass = found.mass
        if not self.flat.uneven and not self.flat.signed and not found.missing:
            return [(0.0, 1.0)] * len(units)
        graph = self.network.graph
        aligned = any(getattr(node.op, "align_corners", False) for node in self.flat.nodes)
        if graph.has_global or aligned:
            return [None] * len(units)
        # output units after which the pattern of strides repeats
        period = [
            int(lcm(*(rate[a].numerator for rate in graph.rates)) / graph.rate[a])
            for a in range(graph.ndim)
        ]
        phases = [tuple(v % n for v, n in zip(u, period)) for u in units]
        torus = ring_of(graph, self.flat)
        sums = _torus_masses(
            self.network, getattr(self.network, "whole", None), self.kind, self.init, torus,
            tuple(sorted(set(phases))), tuple(sorted(self.flat.rims.items())), self.flat.signed,
        )  # fmt: skip
        return [s and (s[0] - mass, s[1]) for s in (sums[phase] for phase in phases)]


@lru_cache(maxsize=64)
def _torus_masses(
    network: Network, whole: Graph | None, kind: str, init: Init | None, torus: tuple[int, ...],
    chosen: tuple[tuple[int, ...], ...], rims: tuple, signed: bool,
) -> dict[tuple[int, ...], _Mass | None]:  # fmt: skip
    """Logs and signs of the masses of units on the plane; `whole` tells parts of networks apart."""
    flat = flatten(network, torus, kind, init, layers.TORUS)
    flat.divide(dict(rims))
    found = pull(flat, list(chosen))
    beside = pull(flat, list(chosen), absolute=True) if signed else found
    sums: dict[tuple[int, ...], _Mass | None] = {}
    for i, phase in enumerate(chosen):
        total, all_of_it = (
            math.prod(float(part[i].sum()) for part in s.parts) * math.exp(s.scale)
            for s in (found, beside)
        )
        sums[phase] = (
            (found.mass + math.log(abs(total)), math.copysign(1.0, total))
            if abs(total) > 1e-9 * all_of_it  # else what is left of a signed sum is rounding
            else None
        )
    return sums


def ring_of(graph: Graph, flat: Flat, grid: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """Pixels of a torus a few of the coarsest pixels wide, and a multiple of `grid`, around which
    no run of fixed layers or windows of pools reaches, neither forward nor back."""
    spans = [n.step for n in flat.nodes if n.step is not None and n.step.kind != "random"]
    wide = 4 + 2 * max(
        (sum(s.dilation[a] * s.kernel.shape[a] for s in spans) for a in range(graph.ndim)),
        default=0,
    )
    period = [lcm(*(rate[a].numerator for rate in graph.rates)) for a in range(graph.ndim)]
    return tuple(lcm(p, g) * wide for p, g in zip(period, grid or (1,) * graph.ndim))


def _image(image: Any, ndim: int) -> tuple[int, ...]:
    """Pixels an axis."""
    entries = image if isinstance(image, tuple | list | np.ndarray) else (image,) * ndim
    if len(entries) != ndim:
        raise ValueError(f"image: got {len(entries)} entries; takes one per axis, {ndim}")
    return tuple(integer(f"image[{a}]", n) for a, n in enumerate(entries))
