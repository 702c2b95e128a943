"""Exact numbers taken from the formulas of the derivations themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cache
from typing import Any

import sympy as sp

from erftheory.symbolic.proof.exact import compile_exact
from erftheory.symbolic.proof.names import n as _depth
from erftheory.symbolic.proof.names import sigma, tau
from erftheory.symbolic.topics.convolution import n_fold_convolution
from erftheory.symbolic.topics.growth import LUO_THRESHOLD, growth
from erftheory.symbolic.topics.moments import moments
from erftheory.symbolic.topics.skip import CONVOLUTIONS, skip


def coefficient(n: int, k: int, t: int) -> int:
    """The coefficient of z^t in (1 + z + … + z^(k−1))^n, by the extended binomial formula.

    It is the uniform, unnormalised signal of n layers of k taps at offset t, 0 outside
    0 … n(k−1). Cost: min(n, t/k) terms.
    """
    _require_whole("n", n, 0)
    _require_whole("k", k, 1)
    _require_whole("t", t, None)
    if n == 0:
        # the formula counts n ≥ 1 summands; no layer leaves the impulse
        return int(t == 0)
    return _formula("n_fold_convolution", "extended binomial")({"n": n, "k": k, "t": t})


def coefficients(n: int, k: int) -> tuple[int, ...]:
    """`coefficient` at every offset t = 0 … n(k−1)."""
    _require_whole("n", n, 0)
    _require_whole("k", k, 1)
    return tuple(coefficient(n, k, t) for t in range(n * (k - 1) + 1))


def mean(n: int, k: int) -> Fraction:
    """Mean offset n(k−1)/2 of n uniform layers of k taps, from the first tap on."""
    return _moment("uniform mean", n, k)


def variance(n: int, k: int) -> Fraction:
    """Variance n(k²−1)/12 of n uniform layers of k taps, in pixels squared."""
    return _moment("uniform variance", n, k)


def fourth_cumulant(n: int, k: int) -> Fraction:
    """Fourth cumulant −n(k⁴−1)/120 of n uniform layers of k taps."""
    return _moment("uniform fourth cumulant", n, k)


def excess_kurtosis(n: int, k: int) -> Fraction:
    """Excess kurtosis −6(k²+1)/(5n(k²−1)) of n uniform layers of k ≥ 2 taps."""
    return _moment("uniform excess kurtosis", n, k, least=2)


def receptive_field(n: int, k: int) -> int:
    """Theoretical receptive field n(k−1) + 1 of n layers of k taps, in pixels."""
    _require_whole("n", n, 1)
    _require_whole("k", k, 1)
    return int(_formula("growth", "theoretical field")({"n": n, "k": k}))


def rf_ratio_limit() -> Any:
    """The limit of std/RF for n → ∞ at any k, computed by SymPy from the derivation's limit."""
    return growth()["vanishing share"].statement.lhs.doit()


def gaussian_size(ndim: int, threshold: Any = LUO_THRESHOLD) -> Any:
    """L16's size of a Gaussian of standard deviation 1, an exact SymPy number.

    Size is count^(1/ndim), for the pixels above `threshold` times the centre value; 4.972 in
    1-D and 4.406 in 2-D at L16's threshold 1 − 0.9545.
    """
    if ndim not in (1, 2) or isinstance(ndim, bool):
        raise ValueError(f"ndim: got {ndim!r}, expected 1 or 2")
    level = sp.nsimplify(threshold, rational=True)
    if not (level.is_number and 0 < level < 1):
        raise ValueError(f"threshold: got {threshold!r}, expected a number between 0 and 1")
    return growth()[f"size in {ndim}-D"].statement.rhs.subs({sigma: 1, tau: level})


@cache
def _formula(topic: str, step: str) -> Callable[[Mapping[str, Any]], Any]:
    """The right side of a step, compiled once."""
    derivation = {"n_fold_convolution": n_fold_convolution, "moments": moments, "growth": growth}
    return compile_exact(derivation[topic]()[step].statement.rhs)


def _moment(step: str, n: int, k: int, least: int = 1) -> Fraction:
    _require_whole("n", n, 1)
    _require_whole("k", k, least)
    return Fraction(_formula("moments", step)({"n": n, "k": k}))


def residual_variance(n: int, convolutions: int, step: float) -> float:
    """ERF variance of n pre-activation blocks with batch norm, in pixels squared.

    `step` is the variance of one convolution's taps; from the result of `skip()`.
    """
    _require_whole("n", n, 1)
    _require_whole("convolutions", convolutions, 1)
    return _at(skip().result.rhs, {_depth: n, CONVOLUTIONS: convolutions}, step)


def residual_doubling(convolutions: int, step: float) -> float:
    """What twice the blocks add to that variance when there are many, in pixels squared."""
    _require_whole("convolutions", convolutions, 1)
    return _at(skip()["doubling"].statement.rhs, {CONVOLUTIONS: convolutions}, step)


def _at(formula: Any, values: dict[Any, Any], step: float) -> float:
    return float(sp.N(formula.subs({**values, sigma: sp.sqrt(sp.Float(step, 30))}), 17))


def _require_whole(name: str, value: Any, least: int | None) -> None:
    if isinstance(value, int) and not isinstance(value, bool) and (least is None or value >= least):
        return
    bound = "" if least is None else f" of at least {least}"
    raise ValueError(f"{name}: got {value!r}, expected an int{bound}")
