"""What one call of `exact` knows and gives, whichever way the map is computed."""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import numpy as np

from erftheory.erf import ERF, ErrorBound
from erftheory.network.base import Network
from erftheory.theory.lowering.squares import CORRELATED
from erftheory.theory.plane import window as windows
from erftheory.theory.plane.convolution import (
    EPS,
    steps,
)
from erftheory.theory.readings.idealised import marked
from erftheory.theory.readings.lattice import has_gaps, holes
from erftheory.theory.readings.receptive_field import LazyField, extent
from erftheory.theory.walk.links import MIXED, mixed_weights
from erftheory.theory.walk.walk import Walk

CHEAP = 2**32  # taps times pixels up to which direct convolution is the default for a map


class Reading(ABC):
    """One call of `exact`: the walk, the unit, and the window `offset`, `shape`; `why` the model
    is idealised."""

    why = ""

    def __init__(self, network: Network, walk: Walk, signal: str, unit, method: str, window: Any):
        self.network, self.walk, self.signal, self.method = network, walk, signal, method
        self.root = signal == "magnitude"
        self.position = _position(walk, unit)
        span = extent(walk, self.position)
        self.unit = unit
        if span is None:
            raise self.unreached()
        self.support = tuple((first // f, last // f) for (first, last), f in zip(span, walk.fine))
        requests = windows.parse(window, walk.ndim)
        pixels = tuple(self.pixels(axis, request) for axis, request in enumerate(requests))
        self.offset = tuple(first for first, _ in pixels)
        self.shape = tuple(last - first + 1 for first, last in pixels)
        self.whole = pixels == self.support

    def unreached(self) -> ValueError:
        return ValueError(
            f"unit: got {self.unit!r}, which no input reaches; takes a connected unit"
        )

    @abstractmethod
    def pixels(self, axis: int, request: windows.Window) -> tuple[int, int]:
        """First and last pixel of the window along an axis."""

    @abstractmethod
    def erf(self) -> ERF: ...

    def record(self, method: str, error: ErrorBound, **what: Any) -> ERF:
        if mixed_weights(self.network.graph):
            error = ErrorBound("approximation", math.inf, MIXED, error.outside)
        if self.walk.correlated:
            error = ErrorBound("approximation", math.inf, CORRELATED, error.outside)
        error = marked(error, self.why)
        return ERF(
            offset=self.offset,
            signal=self.signal,  # pyright: ignore[reportArgumentType]
            method=method,
            error=error,
            receptive_field=LazyField(self.network),
            **what,
        )

    def meets_signal(self, some: bool | np.bool_) -> None:
        """Refuse a window of holes alone."""
        if not some and not self.whole:
            spans = " x ".join(f"{o} to {o + n - 1}" for o, n in zip(self.offset, self.shape))
            raise ValueError(
                f"window: got pixels {spans}, holes that no path reaches; takes a window with "
                "some of the signal in it"
            )

    def transformed(self, method: str, around=None) -> np.ndarray:
        from erftheory.theory.plane.transform import transform_map  # JAX, which few readings need

        return transform_map(self.walk, self.position, self.offset, self.shape, method, around)

    def rounding(self, method: str, outside: float = 0.0) -> ErrorBound:
        if method == "convolution":
            return ErrorBound("rounding", EPS * (steps(self.walk) + 4), "sum over pixels", outside)
        from erftheory.theory.plane.transform import transform_bound

        bound = transform_bound(self.walk, self.shape, method)
        return ErrorBound("rounding", bound, "sum over pixels", outside)

    @cached_property
    def holes(self) -> np.ndarray:
        """True where no path arrives, shape `shape`."""
        if not has_gaps(self.walk):
            return np.zeros(self.shape, dtype=bool)
        return holes(self.walk, self.position, self.offset, self.shape)


def _position(walk: Walk, unit) -> tuple[int, ...] | None:
    if unit == "center":
        return None
    place = (unit,) if walk.ndim == 1 and np.ndim(unit) == 0 else unit
    try:
        if isinstance(place, str) or len(place) != walk.ndim:
            raise TypeError
        return tuple(operator.index(u) * j for u, j in zip(place, walk.jump))
    except TypeError:
        raise ValueError(f'unit: got {unit!r}; takes "center" or {walk.ndim} ints') from None
