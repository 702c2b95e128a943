"""How a side of a statement is evaluated and a difference reduced: sums, waves and limits."""

from __future__ import annotations

from functools import cache
from typing import Any

import sympy as sp

from erftheory.symbolic.proof.evidence import Rewrite
from erftheory.symbolic.proof.names import n


def generic_branch(expression: Any) -> Any:
    """The expression with every case distinction replaced by its last, generic case."""
    return expression.replace(
        lambda node: isinstance(node, sp.Piecewise), lambda node: node.args[-1][0]
    )


def closed_sums(expression: Any) -> Any:
    """Every sum of a polynomial in its index in closed form (Faulhaber)."""
    return expression.replace(sp.Sum, _closed_sum)


def _closed_sum(term: Any, *limits: Any) -> Any:
    (index, first, last), *others = limits
    if others:
        raise ArithmeticError(f"a sum over several indices: {term}")
    powers = sp.Poly(term, index).terms()
    return sum(share * _power_sum(degree, first, last) for (degree,), share in powers)


@cache
def _power_sum(degree: int, first: Any, last: Any) -> Any:
    """Σ i^degree over i = first … last."""
    index = sp.Symbol("i", integer=True)
    return sp.factor(sp.Sum(index**degree, (index, first, last)).doit())


def as_ratio(residual: Any) -> Any:
    """A rational function in lowest terms; 0 if it is 0."""
    return sp.cancel(sp.together(residual))


def geometric_sums(expression: Any) -> Any:
    """Every geometric sum Σ c·b^(a·i + e) in closed form, for a ratio b^a that is not 1."""
    return expression.replace(sp.Sum, _geometric_sum)


def _geometric_sum(term: Any, limits: Any) -> Any:
    index, first, last = limits
    term = sp.powsimp(term)
    ratio = sp.powsimp(term.subs(index, index + 1) / term)
    if ratio.has(index):
        raise ArithmeticError(f"not geometric: {term}")
    if ratio == 1:
        return term * (last - first + 1)
    return (term.subs(index, last + 1) - term.subs(index, first)) / (ratio - 1)


def half_powers(unit: Any) -> Rewrite:
    """Geometric sums evaluated and waves written out, in e^{unit/2} as one positive name."""
    root = sp.Symbol("q", positive=True)

    def write(side: Any) -> Any:
        summed = side.replace(sp.Sum, lambda *args: generic_branch(sp.Sum(*args).doit()))
        waves = sp.expand(summed.rewrite([sp.sin, sp.sinh], sp.exp), power_exp=True)
        return waves.replace(sp.exp, lambda power: root ** sp.expand(2 * power / unit))

    return write


def split_logs(residual: Any) -> Any:
    """Simplified with log ab = log a + log b, for positive numbers."""
    return sp.simplify(sp.expand_log(residual, force=True))


def in_depth(limit: Rewrite) -> Rewrite:
    """Evaluates limits for n → ∞ by `limit`, which gets the function."""

    def evaluate(function: Any, variable: Any, target: Any, *_: Any) -> Any:
        if (variable, target) != (n, sp.oo):
            raise ArithmeticError(f"no limit of infinite depth: {variable} to {target}")
        return limit(function)

    return lambda side: side.replace(sp.Limit, evaluate)
