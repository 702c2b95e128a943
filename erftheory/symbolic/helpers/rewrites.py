"""How a side of a statement is evaluated and a difference reduced: sums, series and limits."""

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


def taylor(expression: Any, variable: sp.Symbol, order: int) -> Any:
    """The Taylor polynomial of `expression` at 0, the terms below variable^order."""
    return sum(_taylor(term, variable, order) for term in sp.Add.make_args(expression))


@cache
def _taylor(term: Any, variable: sp.Symbol, order: int) -> Any:
    return sp.series(term, variable, 0, order).removeO()


def series_of_rest(variable: Any) -> Rewrite:
    """What is left of a difference below the order O(variable^r) that the statement claims."""

    def rest(residual: Any) -> Any:
        return sp.expand(taylor(residual.removeO(), variable, residual.getO().getn()))

    return rest


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


def limit_in_depth(side: Any) -> Any:
    """Limits for n → ∞ evaluated in 1/√n, the variable in which the functions have series."""
    small = sp.Symbol("epsilon", positive=True)

    def limit(function: Any) -> Any:
        shallow = function.subs(n, 1 / small**2)
        if not isinstance(shallow, sp.Pow):
            return sp.limit(shallow, small, 0)
        # the limit of a power through its logarithm, term by term: SymPy finds these faster
        exponents = sp.Add.make_args(sp.expand(shallow.exp))
        parts = [sp.limit(part * sp.log(shallow.base), small, 0) for part in exponents]
        if any(part.has(sp.oo, -sp.oo, sp.zoo, sp.nan) for part in parts):
            raise ArithmeticError(f"no finite limit term by term: {function}")
        return sp.exp(sum(parts))

    return in_depth(limit)(side)
