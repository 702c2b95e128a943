"""Where a false statement is visibly false, in numbers, before anything slow is done to it.

A number never proves anything here: what is not seen to be false is decided by its check.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import mpmath
import numpy as np
import sympy as sp

from erftheory.symbolic.proof.names import n


class Undecided(ArithmeticError):
    """Numbers do not tell here; the check itself has to."""


# what SymPy and mpmath raise where a side has no value at the numbers tried
_UNCLEAR = (ArithmeticError, TypeError, ValueError, NameError, NotImplementedError)
_FAR = (sp.Integer(10**12), sp.Integer(10**24))
_NEAR = (sp.Rational(1, 10**4), sp.Rational(1, 10**8))


def far_off(left: Any, right: Any) -> str:
    """Where functions visibly do not tend to the limits stated; empty if no difference is seen.

    Errors that fall like 1/log n are given time: they halve from n to n².
    """
    limits = left.atoms(sp.Limit) | right.atoms(sp.Limit)
    if {limit.args[1:3] for limit in limits} != {(n, sp.oo)}:
        return ""
    values = _samples((left.free_symbols | right.free_symbols) - {n})
    gaps = []
    for depth in _FAR:
        try:
            one, other = (_at(_inside(side), n, depth, values) for side in (left, right))
        except _UNCLEAR:
            return ""
        gaps.append(abs(one - other) / (1 + abs(other)))
    if not gaps[1] > max(0.1, 0.75 * gaps[0]):
        return ""
    return f"{_shown(values)}, n = 1e24: the sides differ by {mpmath.nstr(gaps[1], 5)}"


def beyond_order(left: Any, right: Any) -> str:
    """Where a difference visibly does not fall like the order O(x^r) stated, for x to 0.

    Only for sides that say all there is: no name in them stands for anything else.
    """
    orders = left.atoms(sp.Order) | right.atoms(sp.Order)
    if len(orders) != 1:
        return ""
    order = next(iter(orders))
    (variable,), power = order.variables, order.getn()
    values = _samples((left.free_symbols | right.free_symbols) - {variable})
    gaps = []
    for place in _NEAR:
        try:
            one, other = (_at(_exact(side), variable, place, values) for side in (left, right))
        except _UNCLEAR:
            return ""
        gaps.append(abs(one - other))
    # one power less leaves a gap 10⁴ times as large
    if not gaps[1] > max(100 * gaps[0] * mpmath.mpf("1e-4") ** int(power), 1e-90):
        return ""
    return f"{_shown(values)}, {variable} = 1e-8: the sides differ by {mpmath.nstr(gaps[1], 5)}"


def by_quadrature(left: Any, right: Any) -> str:
    """Where integrals visibly have other values than stated; for sides that say all there is."""
    if not (left.has(sp.Integral) or right.has(sp.Integral)):
        return ""
    values = _samples(left.free_symbols | right.free_symbols)
    try:
        one, other = (_integrated(side, values) for side in (left, right))
    except _UNCLEAR:
        return ""
    gap = abs(one - other) / (1 + abs(other))
    if not gap > 1e-4:
        return ""
    return f"{_shown(values) or 'as numbers'}: the sides differ by {gap:.5g}"


def in_numbers(residual: Any) -> str:
    """Where a difference is visibly not 0; empty if it is not seen."""
    if residual.has(sp.Order):
        return ""
    values = _samples(residual.free_symbols)
    number = residual.subs(values).evalf(20)
    if not number.is_number or not number.is_finite or abs(number) < sp.Float("1e-9"):
        return ""
    return f"{_shown(values) or 'as numbers'}: left − right = {sp.N(number, 5)}"


def _inside(side: Any) -> Any:
    return side.replace(sp.Limit, lambda function, *_: function)


def _exact(side: Any) -> Any:
    return side.replace(sp.Order, lambda *_: sp.Integer(0))


# One side of a false neighbour is that of the true statement, so both of these come again.
@lru_cache(4096)
def _at(side: Any, variable: Any, place: Any, values: tuple[tuple[Any, Any], ...]) -> Any:
    with mpmath.workdps(120):
        return _function(side, variable, values)(mpmath.mpf(int(place.p)) / int(place.q))


@lru_cache(4096)
def _integrated(side: Any, values: tuple[tuple[Any, Any], ...]) -> complex:
    return complex(side.subs(values).replace(sp.Integral, _quadrature))


def _quadrature(integrand: Any, *limits: Any) -> Any:
    """An integral by the double exponential rule, whose nodes crowd at the ends."""
    if len(limits) != 1 or len(limits[0]) != 3:
        raise Undecided("an integral over several variables")
    variable, *ends = limits[0]
    low, high = (float(end) for end in ends)
    u = np.linspace(-3.2, 3.2, 321)
    inner, slope = np.pi / 2 * np.sinh(u), np.pi / 2 * np.cosh(u)
    if np.isfinite(low) and np.isfinite(high):
        half = (high - low) / 2
        x, weight = low + half * (1 + np.tanh(inner)), half * slope / np.cosh(inner) ** 2
    elif np.isfinite(low) and high > 0:
        x, weight = low + np.exp(inner), slope * np.exp(inner)
    elif low < 0 < high and not np.isfinite(high):
        x, weight = np.sinh(inner), slope * np.cosh(inner)
    else:
        raise Undecided("no rule for these ends")
    with np.errstate(all="ignore"):
        heights = sp.lambdify(variable, integrand, "numpy")(x.astype(complex)) * weight
    fine, coarse = heights.sum() * (u[1] - u[0]), heights[::2].sum() * (u[2] - u[0])
    if not abs(fine - coarse) < 1e-8 * (1 + abs(fine)):
        raise ArithmeticError("the rule does not settle")
    return sp.sympify(complex(fine))


@lru_cache(4096)
def _function(side: Any, variable: Any, values: tuple[tuple[Any, Any], ...]) -> Any:
    return sp.lambdify(variable, side.subs(values).doit(), "mpmath")


def _samples(names: Any) -> tuple[tuple[Any, Any], ...]:
    return tuple((name, _sample(name, place)) for place, name in enumerate(sorted(names, key=str)))


def _sample(name: Any, place: int) -> Any:
    if name.is_integer:
        return sp.Integer(5 + 2 * place)
    return sp.Rational(3 + 2 * place, 11 + place)


def _shown(values: tuple[tuple[Any, Any], ...]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in values)
