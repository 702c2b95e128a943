"""Maps of signed taps, or behind up-sampling: no tilts, the window is cut from the whole map."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from erftheory.erf import ERF, ErrorBound
from erftheory.erf.measures import magnitude
from erftheory.theory.plane import window as windows
from erftheory.theory.plane.convolution import (
    EPS,
    PLAIN,
    deepest,
    steps,
    work,
)
from erftheory.theory.plane.lattices import LatticeAlgebra
from erftheory.theory.plane.reading import CHEAP, Reading


class Signed(Reading):
    """Signed taps or up-sampling: no tilts; the window is cut from the whole map."""

    def pixels(self, axis: int, request: windows.Window) -> tuple[int, int]:
        support = self.support[axis]
        size = support[1] - support[0] + 1
        if request == windows.Window():
            return support
        if request.deviations is not None:
            why = "signed taps" if self.walk.signed else "up-sampling"
            raise ValueError(f"window: got deviations for {why}; takes pixels or ranges")
        return request.resolve(support, support[0] + (size - 1) / 2, 0.0, lambda: support)

    def erf(self) -> ERF:
        if self.method == "tilted":
            why = "signed taps" if self.walk.signed else "up-sampling"
            raise ValueError(f'method: got "{self.method}" for {why}; takes "auto"')
        method = "spectrum" if self.method == "auto" else self.method
        cheap = work(self.walk) * math.prod(self.shape) <= CHEAP
        if self.method == "auto" and not self.walk.signed and cheap:
            method = "convolution"
        separable = self.walk.separable and not self.walk.restricted
        values, metadata = None, {}
        if not self.whole:
            values, metadata = self._cut(method)
        elif not separable:
            values = self._map(method, self.offset, self.shape)
        if self.whole and not self.walk.signed and values is not None and not values.any():
            raise self.unreached()  # its path leads between the taps of a layer
        error = self.rounding(method)
        if method != "spectrum" and values is not None and not self.walk.signed:
            if deepest(self.walk) < PLAIN:  # nothing underflows
                value = EPS * (steps(self.walk) + 4)
                error = ErrorBound("relative", value / 2 if self.root else value, "every pixel")
        if values is None:
            lines = self._lines(method)
            error = self._cancelled(error, lines)
            return self.record(method, error, marginals=lines, holes=lambda: self.holes)
        error = self._cancelled(error, [values])
        kept = np.asarray(magnitude(values)) if self.root else values
        return self.record(method, error, map=kept, metadata=metadata, holes=lambda: self.holes)

    def _cut(self, method: str) -> tuple[np.ndarray, dict[str, float]]:
        """The window of the whole map, and its share: units of other phases have other sums."""
        first = tuple(low for low, _ in self.support)
        shape = tuple(high - low + 1 for low, high in self.support)
        whole = self._map(method, first, shape)
        rows = zip(self.offset, first, self.shape)
        values = whole[tuple(slice(o - f, o - f + n) for o, f, n in rows)]
        self.meets_signal(values.any())
        total = float(whole.sum())
        return values, {"inside": float(values.sum()) / total if total else math.nan}

    def _map(self, method: str, first: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
        if method == "convolution":
            start = tuple(a * f for a, f in zip(first, self.walk.fine))
            return LatticeAlgebra().window(self.walk, self.position, start, shape)
        from erftheory.theory.plane.transform import transform_map

        return transform_map(self.walk, self.position, first, shape, method)

    def _cancelled(self, error: ErrorBound, parts: list[np.ndarray]) -> ErrorBound:
        """The error of the map of sum 1: signed weights cancel, and their errors do not."""
        if not self.walk.signed:
            return error
        left = math.prod(abs(float(part.sum())) for part in parts)
        if left <= error.value:
            raise ValueError(
                f"taps: got signed taps whose signal cancels to a mass of {left:.1g} of that of "
                f"|taps|, below the rounding error {error.value:.1g}; takes taps of another sum or "
                "fewer layers (counting has the exact weights)"
            )
        # the sum is off as well, and every pixel is divided by it
        whole = math.prod(float(np.abs(part).sum()) for part in parts)
        return replace(error, value=error.value / left * (1 + whole / left))

    def _lines(self, method: str) -> list[np.ndarray]:
        from erftheory.theory.plane.transform import transform_map

        if method == "convolution":
            rows = zip(self.offset, self.shape, self.walk.fine)
            return [
                LatticeAlgebra().window(
                    self.walk.axis(a), None if self.position is None else (self.position[a],),
                    (first * fine,), (size,),
                )
                for a, (first, size, fine) in enumerate(rows)
            ]  # fmt: skip

        lines = []
        for a, (first, size) in enumerate(zip(self.offset, self.shape)):
            place = None if self.position is None else (self.position[a],)
            lines.append(transform_map(self.walk.axis(a), place, (first,), (size,), method))
        return lines
