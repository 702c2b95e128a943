"""The exact sign-flip test of paired differences, and Holm's correction over several pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_MOST = 20  # differences whose sign patterns are all counted


def sign_flip(differences: Sequence[float] | np.ndarray) -> float:
    """One-sided p value of "each difference is as likely as its opposite" against larger ones.

    The share of the 2^n sign patterns whose sum is at least the one found, which is among them: the
    smallest p is 2^-n (Fisher 1935, "The Design of Experiments", chapter 3). Exact, whatever the
    law of the differences.

    Raises:
      ValueError: none, more than 20, or one that is not finite.
    """
    found = np.asarray(differences, float)
    if found.ndim != 1 or not 1 <= len(found) <= _MOST or not np.isfinite(found).all():
        raise ValueError(
            f"differences: got shape {found.shape}; takes 1 to {_MOST} finite numbers"
        )
    sums = np.zeros(1)
    for value in found:
        sums = np.concatenate([sums + value, sums - value])
    # the pattern found is one of them; rounding must not lose it
    return float((sums >= found.sum() - 1e-12 * np.abs(found).sum()).mean())


def holm(values: Sequence[float]) -> list[float]:
    """P values such that those below α are rejected at family-wise level α (Holm 1979)."""
    order = np.argsort(values, kind="stable")
    out, largest = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * float(values[index])))
        out[index] = largest
    return out


def power(growth: float, std: float, count: int, level: float, trials: int = 2000) -> float:
    """Probability that the sign-flip test sees a growth, from simulated normal differences.

    Args:
      growth: mean of the differences.
      std: their standard deviation over seeds.
      count: seeds.
      level: of the test.
    """
    rng = np.random.default_rng(0)
    drawn = growth + std * rng.standard_normal((trials, count))
    return float(np.mean([sign_flip(row) <= level for row in drawn]))
