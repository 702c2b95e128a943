"""First and last offsets of all output phases in one pass.

Up-sampling makes units differ by their phase. A signal's ends on an axis are an array along that
axis alone, as long as no phase leaves it empty; where some do, arrays broadcast to all phases.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from erftheory.theory.walk.algebra import ConvolutionAlgebra
from erftheory.theory.walk.walk import Walk

Ends = tuple[tuple[Any, Any], ...]  # (first, last) an axis: ints, or arrays over phases
PhaseEnds = tuple[Ends, Any]  # ends, and where the signal is empty: False, or an array over phases


class PhaseAlgebra(ConvolutionAlgebra[PhaseEnds]):
    """`IntervalAlgebra` for many units at once; `uneven` says where branches' centres differ."""

    def __init__(self) -> None:
        self.uneven: Any = False

    def unit(self, position):
        return tuple((p, p) for p in position), False

    def kernel(self, kernel, spacing):
        return tuple((0, span) for span in kernel.span(spacing)), False

    def convolve(self, a, b):
        ends = tuple((p[0] + q[0], p[1] + q[1]) for p, q in zip(a[0], b[0]))
        return ends, a[1] | b[1]

    def power(self, a, count):
        return tuple((count * p[0], count * p[1]) for p in a[0]), a[1]

    def mix(self, parts):
        signals = [s for _, s in parts]
        empty = signals[0][1]
        for _, gone in signals[1:]:
            empty = empty & gone
        for axis in zip(*(ends for ends, _ in signals)):
            centres = [(first + last, s[1]) for (first, last), s in zip(axis, signals)]
            self.uneven = self.uneven | (_most(centres, np.maximum) > _most(centres, np.minimum))
        rows = zip(*(ends for ends, _ in signals))
        gone = [s[1] for s in signals]
        ends = tuple(
            (
                _most([(first, g) for (first, _), g in zip(axis, gone)], np.minimum),
                _most([(last, g) for (_, last), g in zip(axis, gone)], np.maximum),
            )
            for axis in rows
        )
        return ends, empty

    def restrict(self, a, grid):
        ends = tuple((-(-p[0] // g) * g, p[1] // g * g) for p, g in zip(a[0], grid))
        empty = a[1]
        for first, last in ends:
            gone = first > last
            empty = empty | (gone if np.any(gone) else False)
        return ends, empty


def _most(parts: list[tuple[Any, Any]], choose: Any) -> Any:
    """The largest or smallest of values that are not empty; anything where all are."""
    found, none = parts[0]
    for value, gone in parts[1:]:
        both = choose(found, value)
        if none is not False:
            both = np.where(none, value, both)
        if gone is not False:
            both = np.where(gone, found, both)
        found, none = both, none & gone
    return found


@dataclass(frozen=True, eq=False)
class PhaseSpans:
    """First and last input pixel that the outputs of all phases read.

    Attributes:
      counts: output phases, one entry an axis.
      ends: (first, last) an axis, which broadcast over the phases.
      empty, uneven: where nothing is read, and where branches' centres differ; they broadcast.
    """

    counts: tuple[int, ...]
    ends: Ends
    empty: Any
    uneven: Any

    def at(self, phase: tuple[int, ...]) -> tuple[tuple[int, int], ...] | None:
        """First and last input pixel an axis that an output reads; None if it reads nothing."""
        if self._of(self.empty, phase):
            return None
        return tuple((int(self._of(a, phase)), int(self._of(b, phase))) for a, b in self.ends)

    def aligned_at(self, phase: tuple[int, ...]) -> bool:
        return not self._of(self.uneven, phase)

    @property
    def aligned(self) -> bool:
        return not np.any(self.uneven)

    def _of(self, value: Any, phase: tuple[int, ...]) -> Any:
        shape = np.shape(value)
        return value[tuple(p if n > 1 else 0 for p, n in zip(phase, shape))] if shape else value

    def _read(self, value: Any) -> np.ndarray:
        """Values over the phases that read something; all at once if every phase does."""
        if not np.any(self.empty):
            return np.ravel(np.asarray(value))
        return np.broadcast_to(value, self.counts)[~np.broadcast_to(self.empty, self.counts)]

    def largest(self) -> tuple[int, ...]:
        """The size of the field, one entry an axis: the largest over the phases."""
        return tuple(int(self._read(last - first + 1).max(initial=0)) for first, last in self.ends)

    def widest(self) -> int:
        """Index, row-major, of the phase whose size comes last in the order of tuples."""
        kept: Any = True
        for first, last in self.ends:
            size = np.where(self.empty, 0, last - first + 1)
            size = np.broadcast_to(size, self.counts)
            kept = kept & (size == np.where(kept, size, -1).max())
        return int(np.argmax(np.broadcast_to(kept, self.counts)))

    def _ways(self, rate: tuple[Fraction, ...]):
        """Pixels before and after the output's own place, times the rate's denominator."""
        for axis, ((first, last), r) in enumerate(zip(self.ends, rate)):
            shape = tuple(n if a == axis else 1 for a, n in enumerate(self.counts))
            own = np.arange(self.counts[axis]).reshape(shape) * r.numerator
            yield own - first * r.denominator, last * r.denominator - own, r.denominator

    def ways(self, rate: tuple[Fraction, ...]) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]]:
        """The most pixels before and after an output's own place; () if no phase reads anything."""
        if np.all(self.empty):
            return (), ()
        found = [
            (Fraction(int(self._read(back).max()), d), Fraction(int(self._read(ahead).max()), d))
            for back, ahead, d in self._ways(rate)
        ]
        return tuple(back for back, _ in found), tuple(ahead for _, ahead in found)

    def middle(self, rate: tuple[Fraction, ...]) -> tuple[float, ...]:
        """The mean over the phases of the way from an output's own place to its field's centre."""
        if np.all(self.empty):
            return (float("nan"),) * len(self.counts)
        lines = [self._read(ahead - back) / (2 * d) for back, ahead, d in self._ways(rate)]
        return tuple(float(line.mean()) for line in lines)


def phase_spans(walk: Walk, extent: Any) -> PhaseSpans:
    """The spans of all output phases; `extent` covers every signal on the way."""
    size = max(abs(end) for span in extent for end in span)
    kind = np.int64 if size < 2**60 else object
    alone = all(count == 1 for count in walk.phases)
    position: list[Any] = []
    for axis, (count, jump) in enumerate(zip(walk.phases, walk.jump)):
        shape = tuple(count if a == axis else 1 for a in range(walk.ndim))
        position.append(0 if alone else np.arange(count, dtype=kind).reshape(shape) * jump)
    algebra = PhaseAlgebra()
    ends, empty = algebra.fold(walk, tuple(position))
    pixels = tuple((first // f, last // f) for (first, last), f in zip(ends, walk.fine))
    return PhaseSpans(walk.phases, pixels, empty, algebra.uneven)
