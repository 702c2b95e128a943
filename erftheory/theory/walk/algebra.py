"""One reverse pass, generic over an algebra of signals.

An algebra says what a signal is, and how signals convolve, mix, shift and thin out. `fold` does
the rest: it walks from the output unit to the input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from erftheory.network.kernel import Kernel
from erftheory.theory.walk.walk import Edge, Walk
from erftheory.theory.walk.weights import Weight

S = TypeVar("S")


class Algebra(ABC, Generic[S]):
    """What a signal is to the fold: how it starts, goes back through an edge, and mixes."""

    @abstractmethod
    def unit(self, position: tuple[int, ...]) -> S:
        """The signal 1 at `position`, 0 elsewhere."""

    @abstractmethod
    def pull(self, signal: S, edge: Edge) -> S:
        """The signal behind an edge, whose weight is not counted."""

    @abstractmethod
    def mix(self, parts: Sequence[tuple[Weight, S]]) -> S:
        """The sum of signals with weights, at least one."""

    def fold(self, walk: Walk, position: tuple[int, ...] | None = None) -> S:
        """The signal at the input for a unit at `position` (lattice points; default 0)."""
        return self.through(self.unit(position or (0,) * walk.ndim), walk)

    def through(self, start: S, walk: Walk) -> S:
        """The signal at the input, of any signal at the output."""
        if len(walk.vertices) == 2 and len(only := walk.vertices[1]) == 1 and only[0].weight == 1:
            return self.pull(start, only[0])
        signals: list[Any] = [start]
        last_use = {e.source: v for v, edges in enumerate(walk.vertices) for e in edges}
        for v, edges in enumerate(walk.vertices[1:], start=1):
            parts = [(e.weight, self.pull(signals[e.source], e)) for e in edges]
            alone = len(parts) == 1 and parts[0][0] == 1
            signals.append(parts[0][1] if alone else self.mix(parts))
            for e in edges:
                if last_use[e.source] == v:
                    signals[e.source] = None  # free what no later vertex reads
        return signals[-1]


class ConvolutionAlgebra(Algebra[S]):
    """An algebra whose signals are convolved with taps one factor at a time.

    `power` and `shift` have defaults, by repeated squaring and by a shifted unit; `restrict` is
    needed where a network up-samples.
    """

    @abstractmethod
    def kernel(self, kernel: Kernel, spacing: tuple[int, ...]) -> S:
        """The taps of a kernel at distance `spacing`, the first at 0."""

    @abstractmethod
    def convolve(self, a: S, b: S) -> S: ...

    def shift(self, a: S, by: tuple[int, ...]) -> S:
        return self.convolve(a, self.unit(by))

    def restrict(self, a: S, grid: tuple[int, ...]) -> S:
        """Keep the positions that are multiples of `grid`."""
        raise TypeError(f"{type(self).__name__} does not up-sample")

    def power(self, a: S, count: int) -> S:
        result: S | None = None
        while count:
            if count & 1:
                result = a if result is None else self.convolve(result, a)
            count >>= 1
            if count:
                a = self.convolve(a, a)
        assert result is not None
        return result

    def pull(self, signal: S, edge: Edge) -> S:
        for f in edge.factors:
            if isinstance(f.kernel, Walk):
                taps = self.fold(f.kernel)
            else:
                taps = self.kernel(f.kernel, f.spacing)
            signal = self.convolve(signal, self.power(taps, f.count))
        if any(edge.shift):
            signal = self.shift(signal, edge.shift)
        return signal if edge.restrict is None else self.restrict(signal, edge.restrict)
