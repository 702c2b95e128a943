"""Exact moments: signals are raw moments, cumulants where a kernel repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import lcm
from typing import Any

from erftheory.network.base import Network
from erftheory.network.initialisation import Init
from erftheory.network.kernel import Kernel
from erftheory.theory.gains.between import between
from erftheory.theory.gains.prepare import prepare
from erftheory.theory.readings.phased import phased_moments
from erftheory.theory.readings.raw import cumulants_of, kernel_moments, raw_moments
from erftheory.theory.readings.spacing import Spacing, parse_spacing
from erftheory.theory.walk.algebra import ConvolutionAlgebra
from erftheory.theory.walk.walk import Walk

# Σ g(t)·t^r for r = 0 … 4 as numerators over one denominator: a gcd only where it pays
Raw = tuple[tuple[int, ...], int]


class MomentAlgebra(ConvolutionAlgebra[Raw]):
    """One axis: raw moments convolve by the binomial theorem and add where branches meet."""

    def unit(self, position):
        return tuple(position[0] ** r for r in range(5)), 1

    def kernel(self, kernel, spacing):
        numerators, denominator = _kernel_moments(kernel)
        return tuple(m * spacing[0] ** r for r, m in enumerate(numerators)), denominator

    def convolve(self, a, b):
        (a0, a1, a2, a3, a4), (b0, b1, b2, b3, b4) = a[0], b[0]
        return (
            a0 * b0,
            a0 * b1 + a1 * b0,
            a0 * b2 + 2 * a1 * b1 + a2 * b0,
            a0 * b3 + 3 * (a1 * b2 + a2 * b1) + a3 * b0,
            a0 * b4 + 4 * (a1 * b3 + a3 * b1) + 6 * a2 * b2 + a4 * b0,
        ), a[1] * b[1]

    def power(self, a, count):
        if count == 1:
            return a
        return super().power(a, count) if a[0][0] == 0 else _power(a, count)

    def shift(self, a, by):
        return self.convolve(a, self.unit(by))

    def mix(self, parts):
        terms = [(w.numerator, w.denominator * d, m) for w, (m, d) in _exact(parts)]
        whole = lcm(*(d for _, d, _ in terms))
        scaled = [(p * (whole // d), m) for p, d, m in terms]
        return tuple(sum(f * m[r] for f, m in scaled) for r in range(5)), whole


@lru_cache(maxsize=4096)
def _power(a: Raw, count: int) -> Raw:
    """A signal of some mass, convolved with itself: cumulants add."""
    mass = Fraction(a[0][0], a[1])
    cumulants = [count * k for k in cumulants_of([Fraction(m, a[0][0]) for m in a[0]])]
    scale = mass if mass == 1 else mass**count
    return _common([scale * m for m in raw_moments(cumulants)])


def _exact(parts):
    return [(Fraction(w), signal) for w, signal in parts]


def _common(values: Sequence[Fraction]) -> Raw:
    whole = lcm(*(v.denominator for v in values))
    return tuple(v.numerator * (whole // v.denominator) for v in values), whole


@lru_cache(maxsize=4096)
def _kernel_moments(kernel: Kernel) -> Raw:
    return _common(kernel_moments(kernel, 4))


@dataclass(frozen=True)
class Moments:
    """Mean (input pixels, for output 0), variance (pixels²) and excess kurtosis, an entry an axis.

    The kurtosis is None where the variance is 0. `spacing` is the distance of pixels in a physical
    unit, if one was given; the numbers stay in pixels, `extent` is the deviation in that unit.
    """

    mean: tuple[Fraction, ...]
    variance: tuple[Fraction, ...]
    excess_kurtosis: tuple[Fraction | None, ...]
    spacing: Spacing | None = None

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation in pixels; nan where a signed signal has a negative variance."""
        return tuple(float(v) ** 0.5 if v >= 0 else float("nan") for v in self.variance)

    @property
    def extent(self) -> tuple[float, ...]:
        """Standard deviation in the unit of `spacing`.

        Raises:
          ValueError: no spacing was given.
        """
        if self.spacing is None:
            raise ValueError("spacing: got None; takes moments(network, spacing=...) for lengths")
        return self.spacing.of(self.std)


def moments(
    network: Network,
    signal: str = "variance",
    init: Init | None = "he",
    source: str | None = None,
    output: str | None = None,
    spacing: Any = None,
) -> Moments:
    """Exact mean, variance and excess kurtosis of the signal on the unbounded plane.

    Args:
      signal: "variance" or "gradient".
      init: as for `exact` (it only matters where branches meet); None counts raw paths.
      source: a name that `until` takes: the signal at that part's output, in its pixels, along the
        paths through it; None is the network's input.
      output: a name that `until` takes; None is the network's output.
      spacing: distance of the pixels, a number or one an axis, or text with a unit ("0.5 mm").

    Raises:
      ValueError: another signal or init, a global operation, signed taps in the variance signal,
        a gradient signal of mass 0, an unknown name, a bad spacing.
    """
    if signal == "magnitude":
        raise ValueError(
            'signal: got "magnitude", whose moments are not rational; takes "variance" or '
            '"gradient" (see exact() for the magnitude)'
        )
    walk = prepare(between(network, source, output), signal, init)
    unit = parse_spacing(spacing, walk.ndim)
    if walk.restricted:
        raw = phased_moments(walk, 4)
        rows = [_summary(axis, fine) for axis, fine in zip(raw, walk.fine)]
        return Moments(*(tuple(column) for column in zip(*rows)), spacing=unit)
    seen: dict[Walk, tuple] = {}
    rows = []
    for axis in range(walk.ndim):
        line = walk.axis(axis)
        if line not in seen:
            seen[line] = _summary(MomentAlgebra().fold(line)[0], walk.fine[axis])
        rows.append(seen[line])
    return Moments(*(tuple(column) for column in zip(*rows)), spacing=unit)


def _summary(raw: Sequence, fine: int) -> tuple[Fraction, Fraction, Fraction | None]:
    if raw[0] == 0:
        raise ValueError(
            "taps: got a gradient signal of mass 0, which has no mean; "
            "takes taps whose sum is not 0"
        )
    k = cumulants_of([Fraction(m) / raw[0] for m in raw])
    return k[0] / fine, k[1] / fine**2, k[3] / k[1] ** 2 if k[1] else None
