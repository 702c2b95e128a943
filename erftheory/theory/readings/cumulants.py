"""Exact cumulants of any order: they add along the walk, so no depth costs more than one layer.

A signal is its mass and its cumulants κ₁ … κ_r. Convolution adds them, a power multiplies them,
and only where branches meet does one go through raw moments: of the differences between the
branches, because what all branches share adds in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import sqrt

from erftheory.network.arguments import integer
from erftheory.network.base import Network
from erftheory.network.initialisation import Init
from erftheory.network.kernel import Kernel
from erftheory.theory.gains.prepare import prepare
from erftheory.theory.readings.phased import phased_moments
from erftheory.theory.readings.raw import cumulants_of, kernel_moments, raw_moments
from erftheory.theory.walk.algebra import ConvolutionAlgebra
from erftheory.theory.walk.walk import Walk

Series = tuple[Fraction, tuple[Fraction, ...]]  # mass, κ₁ … κ_r
_FLOAT_SUM = 1e-12  # float weights whose sum is that near to 1 are meant to sum to 1


class CumulantAlgebra(ConvolutionAlgebra[Series]):
    """One axis, no up-sampling: mass and cumulants up to `order`, exact."""

    def __init__(self, order: int):
        self.order = order

    def unit(self, position):
        return Fraction(1), (Fraction(position[0]), *[Fraction(0)] * (self.order - 1))

    def kernel(self, kernel, spacing):
        mass, values = _kernel_cumulants(kernel, self.order)
        return mass, tuple(v * spacing[0] ** r for r, v in enumerate(values, 1))

    def convolve(self, a, b):
        return a[0] * b[0], tuple(x + y for x, y in zip(a[1], b[1]))

    def power(self, a, count):
        mass = a[0] if a[0] == 1 else a[0] ** count
        return mass, tuple(count * x for x in a[1])

    def shift(self, a, by):
        return a[0], (a[1][0] + by[0], *a[1][1:])

    def mix(self, parts):
        weights = [w * mass for w, (mass, _) in zip(_exact_weights(parts), (s for _, s in parts))]
        total = sum(weights, Fraction(0))
        if total == 0:
            raise _massless()
        shared = parts[0][1][1]
        moments = [Fraction(0)] * (self.order + 1)
        for weight, (_, (_, values)) in zip(weights, parts):
            raw = raw_moments([x - y for x, y in zip(values, shared)])
            moments = [m + weight / total * x for m, x in zip(moments, raw)]
        return total, tuple(x + y for x, y in zip(shared, cumulants_of(moments)))


def _exact_weights(parts: Sequence) -> list[Fraction]:
    """The weights as fractions; rounded ones of sum 1 are made to sum to 1 exactly.

    A mixture divides by their sum, and its denominators would multiply from fork to fork.
    """
    weights = [Fraction(w) for w, _ in parts]
    lack = 1 - sum(weights, Fraction(0))
    if lack and any(isinstance(w, float) for w, _ in parts) and abs(lack) < _FLOAT_SUM:
        weights[weights.index(max(weights))] += lack
    return weights


@lru_cache(maxsize=4096)
def _kernel_cumulants(kernel: Kernel, order: int) -> Series:
    raw = kernel_moments(kernel, order)
    if raw[0] == 0:
        raise _massless()
    return raw[0], tuple(cumulants_of([m / raw[0] for m in raw]))


def _massless() -> ValueError:
    return ValueError(
        "taps: got a gradient signal of mass 0, which has no cumulants; "
        "takes taps whose sum is not 0"
    )


@dataclass(frozen=True)
class Cumulants:
    """κ₁ … κ_order of the ERF's marginals, exact.

    Attributes:
      values: one tuple of `order` fractions an axis; κ_r in input pixels to the power r, κ₁ the
        mean for output 0 and κ₂ the variance.
    """

    values: tuple[tuple[Fraction, ...], ...]

    @property
    def order(self) -> int:
        return len(self.values[0])

    def standardised(self, axis: int = 0) -> tuple[float, ...]:
        """λ₃ … λ_order of one axis, λ_r = κ_r / κ₂^{r/2}, without units.

        Of n equal layers λ_r falls like n^{1 − r/2}.

        Raises:
          ValueError: the variance is not positive.
        """
        integer("axis", axis, 0)
        if axis >= len(self.values):
            raise ValueError(f"axis: got {axis}; takes an integer < {len(self.values)}")
        variance = self.values[axis][1] if self.order > 1 else Fraction(0)
        if variance <= 0:
            raise ValueError(f"axis: got one of variance {variance}; takes one of variance > 0")
        return tuple(_ratio(k, variance, r) for r, k in enumerate(self.values[axis][2:], 3))


def _ratio(cumulant: Fraction, variance: Fraction, order: int) -> float:
    whole = float(cumulant / variance ** (order // 2))
    return whole if order % 2 == 0 else whole / sqrt(variance)


def cumulants(
    network: Network, signal: str = "variance", init: Init | None = "he", order: int = 6
) -> Cumulants:
    """Exact cumulants of the ERF's marginals on the unbounded plane, at any depth.

    Args:
      signal: "variance" or "gradient".
      init: as for `exact` (it only matters where branches meet; gains that are floats are taken for
        the fractions that they are); None counts raw paths.
      order: the highest order, at least 1.

    Raises:
      ValueError: another argument, a global operation, signed taps in the variance signal, or a
        gradient signal of mass 0, here or where branches meet.

    Source: cumulants of independent sums add (e.g. Kendall, Advanced Theory of Statistics, 3.12).
    """
    integer("order", order)
    if signal == "magnitude":
        raise ValueError(
            'signal: got "magnitude", whose cumulants are not rational; takes "variance" or '
            '"gradient" (see exact() for the magnitude)'
        )
    walk = prepare(network, signal, init)
    if walk.restricted:
        return _from_phases(walk, order)
    known: dict[Walk, tuple[Fraction, ...]] = {}
    lines = [walk.axis(axis) for axis in range(walk.ndim)]
    for line in lines:
        if line not in known:
            known[line] = CumulantAlgebra(order).fold(line)[1]
    rows = zip(lines, walk.fine)
    return Cumulants(
        tuple(
            tuple(value / Fraction(fine) ** r for r, value in enumerate(known[line], 1))
            for line, fine in rows
        )
    )


def _from_phases(walk: Walk, order: int) -> Cumulants:
    """Up-sampling: from the moments of the phase."""
    rows = []
    for raw, fine in zip(phased_moments(walk, order), walk.fine):
        if raw[0] == 0:
            raise _massless()
        values = cumulants_of([m / raw[0] for m in raw])
        rows.append(tuple(value / Fraction(fine) ** r for r, value in enumerate(values, 1)))
    return Cumulants(tuple(rows))
