"""One axis of an ERF with full relative accuracy on any window of its support."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from math import gcd

import numpy as np

from erftheory.network.kernel import Kernel
from erftheory.theory.plane.convolution import log_convolved, work
from erftheory.theory.plane.tilted import Line, Survey
from erftheory.theory.readings.lattice import has_gaps, holes
from erftheory.theory.readings.receptive_field import IntervalAlgebra
from erftheory.theory.walk.algebra import ConvolutionAlgebra
from erftheory.theory.walk.walk import Edge, Factor, Walk

CERTIFIED = 8e-11  # relative; points with a larger bound are computed by direct convolution
LARGEST_WORK = 2**29  # taps times points of a direct convolution
FEW = 400  # taps in a row up to which a line is convolved at once
MOST = 64  # how much longer than a window a line may be that is summed for what lies outside


class ReachAlgebra(IntervalAlgebra):
    """First and last offset with weight: edge taps that are zero do not count."""

    def kernel(self, kernel, spacing):
        held = [a for a, tap in enumerate(kernel.marginal(0)) if tap]
        return ((held[0] * spacing[0], held[-1] * spacing[0]),)


class SpanAlgebra(ConvolutionAlgebra[tuple[int, int]]):
    """One axis: a point with a path, and the greatest common divisor of the way to all others."""

    def unit(self, position):
        return position[0], 0

    def kernel(self, kernel, spacing):
        first, stride = _stride(kernel)
        return first * spacing[0], stride * spacing[0]

    def convolve(self, a, b):
        return a[0] + b[0], gcd(a[1], b[1])

    def power(self, a, count):
        return count * a[0], a[1]

    def mix(self, parts):
        first = parts[0][1][0]
        return first, gcd(*(s[1] for _, s in parts), *(s[0] - first for _, s in parts))


class Marginal:
    """A walk of one axis, weights ≥ 0, no up-sampling, seen from an output unit.

    All is computed on the lattice of points base + span·i that paths can reach at all, `span`
    being the greatest common divisor of all steps.
    """

    def __init__(self, walk: Walk, position: tuple[int, ...] | None):
        self.walk, self.position = walk, position
        span = ReachAlgebra().fold(walk, position)
        assert span is not None
        self.ends = span[0]  # first and last lattice point with weight
        self.span = SpanAlgebra().fold(walk, position)[1]
        self.base, self.compact, self.place = 0, walk, position
        if self.span > 1:
            self.compact, moved = compressed(walk, self.span)
            self.base, self.place = moved + (position[0] if position else 0), None
        self.span = max(1, self.span)
        self.gappy = has_gaps(self.compact)

    @cached_property
    def survey(self) -> Survey:
        """Tilts and tail bounds, on the lattice."""
        return Survey(self.compact, self.place, self._to_lattice(*self.ends))

    def _to_lattice(self, first: int, last: int) -> tuple[int, int]:
        """The lattice points among first … last, themselves the first and the last."""
        return -((self.base - first) // self.span), (last - self.base) // self.span

    def _from_lattice(self, place: int) -> int:
        return self.base + place * self.span

    def window(self, share: float, root: bool = False) -> tuple[int, int]:
        """The smallest window that leaves out at most `share` of the signal beyond each end.

        `root` asks for the share of the signal's square root, of which there is a bound only.
        """
        if self.survey.single:
            return self.ends
        first, last = self.survey.window(share, root)
        if not root:
            first, last = self._trimmed(share)
        return self._from_lattice(first), self._from_lattice(last)

    def _trimmed(self, share: float) -> tuple[int, int]:
        """Shorter than Chernoff's bound allows: what it leaves in is summed."""
        margin = share / 64
        first, last = self.survey.window(margin)
        held = np.exp(self._survey_line(first, last).log)
        left = int(np.searchsorted(np.cumsum(held), share - margin))
        right = int(np.searchsorted(np.cumsum(held[::-1]), share - margin))
        return first + left, last - right

    def _survey_line(self, first: int, last: int) -> Line:
        """The survey's line, of which the last one computed is kept."""
        known = self.__dict__.get("_known")
        if known is None or first < known[0] or last > known[1]:
            known = self.__dict__["_known"] = (first, last, self.survey.line(first, last))
        inside = slice(first - known[0], last - known[0] + 1)
        return Line(known[2].log[inside], known[2].error[inside])

    def outside(self, first: int, last: int, root: bool = False) -> float:
        """A bound for the share of the signal (or of its root) that lies outside first … last."""
        if self.survey.single:
            return 0.0 if first <= self.ends[0] <= last else 1.0
        first, last = self._to_lattice(first, last)
        if root:
            return min(1.0, self.survey.outside(first, last, True))
        wide = self.survey.window(1e-15)
        begin, end = min(first, wide[0]), max(last, wide[1])
        if end - begin > MOST * max(1, last - first + 1):
            return min(1.0, self.survey.outside(first, last))
        line = self._survey_line(begin, end)
        held = np.exp(line.log) * (1 + line.error)
        beyond = held[: first - begin].sum() + held[last + 1 - begin :].sum()
        return min(1.0, float(beyond) + self.survey.outside(begin, end))

    @property
    def mean(self) -> float:
        """Centre of mass, a lattice point."""
        if self.survey.single:
            return float(self.ends[0])
        return float(self.base + self.span * self.survey.mean)

    @property
    def std(self) -> float:
        return 0.0 if self.survey.single else self.span * self.survey.std

    def line(self, first: int, last: int, method: str = "auto") -> tuple[Line, str]:
        """log g at lattice points first … last (−inf where there is none), and the method.

        `method` "convolution" convolves the whole support, "tilted" never does, "auto" does where
        the net is small or no tilt certifies a point (a rough signal).
        """
        log = np.full(last - first + 1, -np.inf)
        gaps = self._gaps(log, first)
        line = Line(log, np.where(gaps, 0.0, np.inf))
        length = self.ends[1] - self.ends[0] + 1
        taps, used = work(self.compact), "tilted"
        if method == "auto" and taps <= FEW and length <= FEW * 16 and not gaps.all():
            used = self._convolve(line, gaps, first)
        worst = line.error.max()
        if method != "convolution" and worst > CERTIFIED:
            self._tilt(line, gaps, first, last)
            worst = line.error.max()
        cheap = method == "convolution" or taps * length <= LARGEST_WORK
        if method != "tilted" and cheap and worst > CERTIFIED:
            used = self._convolve(line, gaps, first)
        return line, used

    def _tilt(self, line: Line, gaps: np.ndarray, first: int, last: int) -> None:
        begin, end = self._to_lattice(max(first, self.ends[0]), min(last, self.ends[1]))
        if begin > end:
            return
        found = self._survey_line(begin, end)
        start = self._from_lattice(begin) - first
        place = slice(start, self._from_lattice(end) - first + 1, self.span)
        self._keep(line, gaps, place, found)

    def _convolve(self, line: Line, gaps: np.ndarray, first: int) -> str:
        begin, end = self._to_lattice(*self.ends)
        missing = np.zeros(end - begin + 1, dtype=bool)
        if self.gappy:
            missing = holes(self.compact, self.place, (begin,), (end - begin + 1,))
        log, error = log_convolved(self.compact, self.place, (begin,), missing)
        low, high = self._to_lattice(first, first + len(gaps) - 1)
        low, high = max(low, begin), min(high, end)
        inside = slice(low - begin, high - begin + 1)
        start = self._from_lattice(low) - first
        place = slice(start, self._from_lattice(high) - first + 1, self.span)
        self._keep(line, gaps, place, Line(log[inside], error[inside]))
        return "convolution"

    def _keep(self, line: Line, gaps: np.ndarray, place: slice, found: Line) -> None:
        """Take what is known better."""
        better = (found.error < line.error[place]) & ~gaps[place]
        line.log[place] = np.where(better, found.log, line.log[place])
        line.error[place] = np.where(better, found.error, line.error[place])

    def _gaps(self, log: np.ndarray, first: int) -> np.ndarray:
        """True where there is no path, from lattice point `first` on."""
        inside = self.ends[0] <= first and first + len(log) - 1 <= self.ends[1]
        if inside and self.span == 1 and not self.gappy:
            return np.zeros(len(log), dtype=bool)
        points = first + np.arange(len(log))
        gaps = (points < self.ends[0]) | (points > self.ends[1])
        gaps |= (points - self.base) % self.span != 0
        if self.gappy:
            begin, end = self._to_lattice(first, first + len(log) - 1)
            found = holes(self.compact, self.place, (begin,), (end - begin + 1,))
            start = self._from_lattice(begin) - first
            gaps[start :: self.span] |= found
        return gaps


def compressed(walk: Walk, span: int) -> tuple[Walk, int]:
    """The walk on the lattice `span`·i, its first paths at 0, and where they were."""
    algebra = SpanAlgebra()
    first = [0]
    vertices: list[tuple[Edge, ...]] = [()]
    for edges in walk.vertices[1:]:
        row, starts = [], []
        for e in edges:
            factors, start = [], first[e.source] + e.shift[0]
            for f in e.factors:
                if isinstance(f.kernel, Walk):
                    inner, moved = compressed(f.kernel, span)
                    factors.append(Factor(inner, (1,), f.count))
                else:
                    moved = algebra.kernel(f.kernel, f.spacing)[0]
                    factors.append(_dense(f.kernel, f.spacing[0], f.count, span))
                start += f.count * moved
            row.append(replace(e, factors=tuple(factors)))
            starts.append(start)
        base = min(starts)
        first.append(base)
        vertices.append(tuple(replace(e, shift=((s - base) // span,)) for e, s in zip(row, starts)))
    return replace(walk, vertices=tuple(vertices)), first[-1]


def _stride(kernel: Kernel) -> tuple[int, int]:
    """Index of the first tap that is not zero, and the common divisor of the way to others."""
    held = [a for a, tap in enumerate(kernel.marginal(0)) if tap]
    return held[0], gcd(*(a - held[0] for a in held))


def _dense(kernel: Kernel, spacing: int, count: int, span: int) -> Factor:
    """The kernel without its zero edges, in units of `span`."""
    first, stride = _stride(kernel)
    taps = kernel.marginal(0)
    last = max(a for a, tap in enumerate(taps) if tap)
    kept = tuple(taps[first : last + 1 : stride or 1])
    distance = stride * spacing // span if stride else 1
    return Factor(Kernel((len(kept),), kept), (distance,), count)
