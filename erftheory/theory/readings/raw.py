"""Raw moments Σ g(t) t^r and cumulants, of any order, exact."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import comb
from typing import Any

from erftheory.network.kernel import Kernel


def cumulants_of(moments: Sequence[Any]) -> list[Any]:
    """κ₁ … κ_r from raw moments m₀ = 1, m₁ … m_r: κ_r = m_r − Σ C(r−1, i−1) κ_i m_{r−i}."""
    found: list[Any] = [0]
    for r in range(1, len(moments)):
        known = sum(comb(r - 1, i - 1) * found[i] * moments[r - i] for i in range(1, r))
        found.append(moments[r] - known)
    return found[1:]


def raw_moments(cumulants: Sequence[Any]) -> list[Any]:
    """Raw moments m₀ = 1, m₁ … m_r from κ₁ … κ_r, the inverse of `cumulants_of`."""
    found: list[Any] = [cumulants[0] * 0 + 1]
    for r in range(1, len(cumulants) + 1):
        terms = (comb(r - 1, i - 1) * cumulants[i - 1] * found[r - i] for i in range(1, r + 1))
        found.append(sum(terms))
    return found


def kernel_moments(kernel: Kernel, order: int) -> list[Fraction]:
    """m₀ … m_order of a line's taps over their scale, the first at 0, one pixel apart."""
    scale = Fraction(kernel.scale)
    taps = [Fraction(v) / scale for v in kernel.exact]
    powers = range(order + 1)
    return [sum((v * a**r for a, v in enumerate(taps)), Fraction(0)) for r in powers]
