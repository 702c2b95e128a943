"""The difference of two ERFs, with its uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from erftheory.erf import measures
from erftheory.erf.bound import IDEALISED
from erftheory.erf.record import ERF

_KNOWN = ("exact", "relative", "rounding")


@dataclass(frozen=True, eq=False)
class Difference:
    """How far two ERFs are apart, with 95 % confidence intervals; lengths in pixels.

    Attributes:
      std, other_std: the deviations, one entry an axis.
      difference: std − other_std; `stderr` one standard error of it.
      interval: (low, high) an axis, by Student's t with Welch's degrees of freedom. A side counts
        as no more draws than its `effective_samples`: where few images carry the sum, errors are
        known less well (without this, intervals held as little as 86 % of the time).
      total_variation: ½ Σ|p − q|; `noise` is what sampling noise alone would make of it for two
        equal truths (normal, independent pixels), so that a distance near it says nothing.
    """

    std: tuple[float, ...]
    other_std: tuple[float, ...]
    difference: tuple[float, ...]
    stderr: tuple[float, ...]
    interval: tuple[tuple[float, float], ...]
    total_variation: float
    noise: float

    @property
    def significant(self) -> tuple[bool, ...]:
        """Per axis, whether the interval excludes 0."""
        return tuple(low > 0 or high < 0 for low, high in self.interval)

    def __str__(self) -> str:
        lines = [
            f"axis {axis}: std {a:.4g} - {b:.4g} = {d:+.3g}, 95 % interval "
            f"[{low:+.3g}, {high:+.3g}] px"
            for axis, (a, b, d, (low, high)) in enumerate(
                zip(self.std, self.other_std, self.difference, self.interval)
            )
        ]
        note = f"total variation {self.total_variation:.3g} (noise alone {self.noise:.2g})"
        return "\n".join([*lines, note])

    __repr__ = __str__


def difference(erf: ERF, other: ERF) -> Difference:
    """The difference of two independent ERFs; exact ones count as free of error.

    Raises:
      ValueError: another number of axes, an ERF without a standard error that is not exact, or one
        without a deviation (a signed map whose variance is negative).
    """
    from scipy.stats import t

    distance = erf.distance(other)  # checks `other`
    errors = [_error("erf", erf), _error("other", other)]
    for name, side in (("erf", erf), ("other", other)):
        if any(map(math.isnan, side.std)):
            raise ValueError(
                f"{name}: got a signed ERF whose variance is negative; takes one with a deviation"
            )
    free = [_freedom(side) for side in (erf, other)]
    gaps, spread, intervals = [], [], []
    for axis in range(erf.ndim):
        variances = [side[axis] ** 2 for side in errors]
        total = sum(variances)
        gap = erf.std[axis] - other.std[axis]
        error = math.sqrt(total)
        freedom = sum(v**2 / f for v, f in zip(variances, free))
        reach = error * float(t.ppf(0.975, total**2 / freedom)) if freedom > 0 else 0.0
        gaps.append(gap)
        spread.append(error)
        intervals.append((gap - reach, gap + reach))
    return Difference(
        erf.std, other.std, tuple(gaps), tuple(spread), tuple(intervals), distance,
        _noise(erf, other),
    )  # fmt: skip


def _freedom(erf: ERF) -> float:
    """Degrees of freedom of the standard error."""
    if erf.replicates is None:
        return 1.0
    draws = min(len(erf.replicates.maps), erf.metadata.get("effective_samples") or math.inf)
    return max(0.5, draws - 1)


def _error(name: str, erf: ERF) -> tuple[float, ...]:
    """Standard error of the deviation, one an axis."""
    if erf.std_stderr is not None and not any(map(math.isnan, erf.std_stderr)):
        return erf.std_stderr
    # One image has a rounding error too, and an unknown one beside it.
    known = erf.error.kind in _KNOWN or erf.error.note.startswith(IDEALISED)
    if known and erf.method != "measured":
        return (0.0,) * erf.ndim
    raise ValueError(
        f"{name}: got an ERF by {erf.method!r} without a standard error; takes an exact one, or "
        "one sampled or measured with at least 2 nets or images that respond"
    )


def _noise(erf: ERF, other: ERF) -> float:
    errors = [(e.stderr, e) for e in (erf, other) if e.stderr is not None]
    if not errors:
        return 0.0
    window = measures.union(*((e.offset, e.shape) for e in (erf, other)))
    squares: Any = 0.0
    for values, e in errors:
        square = measures.pad(np.square(values), e.offset, *window, 0.0)
        squares = squares + square
    return float(np.sqrt(squares).sum() / math.sqrt(2 * math.pi))
