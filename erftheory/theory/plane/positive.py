"""Maps of weights ≥ 0 and no up-sampling: axis by axis with every digit wherever they can be."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from erftheory.erf import ERF, ErrorBound
from erftheory.erf.measures import magnitude
from erftheory.theory.plane import window as windows
from erftheory.theory.plane.axis import Marginal
from erftheory.theory.plane.convolution import (
    bound,
    log_convolved,
    work,
)
from erftheory.theory.plane.reading import CHEAP, Reading
from erftheory.theory.plane.tilted import Line
from erftheory.theory.readings.lattice import has_gaps

NEGLIGIBLE = 1e-17  # share of a map whose aliasing no digit sees


class Positive(Reading):
    """Weights ≥ 0 and no up-sampling: every axis has its tilts, tails and window."""

    def __init__(self, *arguments):
        self.axes: dict = {}
        super().__init__(*arguments)

    def axis(self, axis: int) -> Marginal:
        place = None if self.position is None else (self.position[axis],)
        key = (self.walk.axis(axis), place)
        if key not in self.axes:
            self.axes[key] = Marginal(*key)
        return self.axes[key]

    def pixels(self, axis: int, request: windows.Window) -> tuple[int, int]:
        support = self.support[axis]
        if request == windows.Window() and support[1] - support[0] < windows.WHOLE:
            return support
        marginal = self.axis(axis)
        share = windows.OUTSIDE / (2 * self.walk.ndim)
        return request.resolve(
            support, marginal.mean, marginal.std, lambda: marginal.window(share, self.root)
        )

    def line(self, axis: int) -> tuple[Line, str]:
        first, size = self.offset[axis], self.shape[axis]
        return self.axis(axis).line(first, first + size - 1, self.method)

    @property
    def outside(self) -> float:
        """A bound for the share of the signal that the window leaves out."""
        if self.whole:
            return 0.0
        ends = zip(self.offset, self.shape)
        shares = (self.axis(a).outside(f, f + n - 1, self.root) for a, (f, n) in enumerate(ends))
        return min(1.0, sum(shares))

    def erf(self) -> ERF:
        if self.method in ("spectrum", "direct"):
            return self.by_transform(self.method, self.walk.separable)
        if self.walk.separable or self.walk.ndim == 1:
            return self.product()
        if self.method == "tilted":
            raise ValueError(
                'method: got "tilted" for paths that meet in more than one dimension; takes "auto"'
            )
        asked = self.method == "convolution"
        if self.whole and (asked or work(self.walk) * math.prod(self.shape) <= CHEAP):
            return self.by_convolution()
        if asked:
            raise ValueError(
                'method: got "convolution" for a window of paths that meet in more than one '
                'dimension; takes "auto"'
            )
        return self.by_transform("spectrum", False)

    def product(self) -> ERF:
        """An outer product of axes, each with all its digits."""
        lines: list[tuple[Line, str]] = []
        known: dict = {}  # of axes alike, one is computed
        for axis in range(self.walk.ndim):
            same = id(self.axis(axis)), self.offset[axis], self.shape[axis]
            if same not in known:
                known[same] = self.line(axis)
            lines.append(known[same])
        logs = [line.log for line, _ in lines]
        self.meets_signal(all(np.isfinite(log.max()) for log in logs))
        inside = 1.0
        if not self.whole:
            inside = math.prod(_each(lambda log: float(np.exp(log).sum()), logs))
        errors = [line.error for line, _ in lines]
        bound = sum(_each(lambda error: float(error.max()), errors))
        if self.root:
            logs = _each(lambda log: log / 2, logs)
            bound /= 2
        logs = _each(lambda log: log - _log_sum(log), logs)
        return self.record(
            "convolution" if any(how == "convolution" for _, how in lines) else "tilted",
            ErrorBound("relative", bound, "every pixel", self.outside),
            marginals=_each(np.exp, logs),
            log_map=tuple(logs),
            holes=tuple(_each(np.isneginf, logs)),
            metadata={} if self.whole else {"inside": inside},
        )

    def by_convolution(self) -> ERF:
        """Paths that meet in several dimensions: marginals by tilts, the map when it is read."""

        @cache
        def logs() -> np.ndarray:
            log, _ = log_convolved(self.walk, self.position, self.offset, self.holes)
            log = log / 2 if self.root else log
            return log - _log_sum(log)

        return self.record(
            "convolution",
            ErrorBound("relative", bound(self.walk) / (2 if self.root else 1), "every pixel"),
            map=lambda: np.exp(logs()),
            log_map=logs,
            marginals=None if self.root else self._marginals(),
            holes=lambda: self.holes,
        )

    def _marginals(self) -> list[np.ndarray]:
        return [np.exp(self.line(a)[0].log) for a in range(self.walk.ndim)]

    def by_transform(self, method: str, separable: bool) -> ERF:
        from erftheory.theory.plane.transform import transform_map

        error = self.rounding(method, self.outside)
        if separable:
            lines = []
            for a, (first, size) in enumerate(zip(self.offset, self.shape)):
                place = None if self.position is None else (self.position[a],)
                around = None if self.whole else (self._around(a),)
                line = self.walk.axis(a)
                lines.append(transform_map(line, place, (first,), (size,), method, around))
            self.meets_signal(all(x.any() for x in lines))
            metadata = {} if self.whole else {"inside": math.prod(float(x.sum()) for x in lines)}
            sides = [magnitude(x) for x in lines] if self.root else lines
            gaps = tuple(x == 0 for x in lines) if has_gaps(self.walk) else None
            return self.record(method, error, marginals=sides, metadata=metadata, holes=gaps)
        around = None if self.whole else tuple(map(self._around, range(self.walk.ndim)))
        if not self.whole:
            values = self.transformed(method, around)
            self.meets_signal(values.any())
            inside = {"inside": float(values.sum())}
            kept = magnitude(values) if self.root else values
            return self.record(method, error, map=kept, metadata=inside, holes=lambda: self.holes)

        def full() -> np.ndarray:
            values = self.transformed(method)
            return np.asarray(magnitude(values)) if self.root else values

        sides = None if self.root else self._marginals()
        return self.record(method, error, map=full, marginals=sides, holes=lambda: self.holes)

    def _around(self, axis: int) -> tuple[int, int]:
        """Lattice points that hold the window and all but a negligible share of the signal."""
        first, last = self.axis(axis).window(NEGLIGIBLE)
        start = self.offset[axis]
        return min(first, start), max(last, start + self.shape[axis] - 1)


def _each(function: Callable[[Any], Any], values: list[Any]) -> list[Any]:
    """The function of each value, found once for one that several axes share."""
    known: dict[int, Any] = {}
    for value in values:
        if id(value) not in known:
            known[id(value)] = function(value)
    return [known[id(value)] for value in values]


def _log_sum(log: np.ndarray) -> float:
    top = float(log.max())
    return top + math.log(float(np.exp(log - top).sum()))
