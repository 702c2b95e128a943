"""Laurent series of closed forms, and the limits that they give; SymPy's own are far slower.

A series Σ c_p ε^p is known below some power of ε > 0, and every operation says how far its result
is known, so that nothing is dropped unseen. Coefficients are expressions without ε. What has no
such series (a logarithm of ε, a fractional power, an essential singularity) is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import sympy as sp

from erftheory.symbolic.helpers.rewrites import as_ratio, in_depth
from erftheory.symbolic.proof.evidence import Rewrite
from erftheory.symbolic.proof.names import n

_HIGHEST = 24  # power below which series are carried at most
_ANALYTIC = (sp.exp, sp.log, sp.sin, sp.cos, sp.sinh, sp.cosh, sp.tanh, sp.asinh)
_Y: Any = sp.Symbol("y")


def polynomial(expression: Any, variable: Any, order: int) -> Any:
    """The terms of `expression` below variable^order; it has a finite value at 0."""
    terms = _series(expression, variable, order)
    return sum(factor * variable**power for power, factor in terms.items())


def value_at_zero(expression: Any, variable: Any) -> Any:
    """The limit of `expression` for a positive variable that vanishes."""
    return _series(expression, variable, 1).get(0, sp.Integer(0))


def series_of_rest(variable: Any) -> Rewrite:
    """What is left of a difference below the order O(variable^r) that the statement claims."""

    def rest(residual: Any) -> Any:
        terms = sp.Add.make_args(residual.removeO())
        return sp.expand(sum(polynomial(t, variable, residual.getO().getn()) for t in terms))

    return rest


def limit_in_depth(side: Any) -> Any:
    """Limits for n → ∞ evaluated in 1/√n, the variable in which the functions have series."""
    small = sp.Symbol("epsilon", positive=True)
    return in_depth(lambda function: value_at_zero(function.subs(n, 1 / small**2), small))(side)


@cache
def _series(expression: Any, variable: Any, order: int) -> dict[int, Any]:
    """Coefficients of the powers 0 … order − 1."""
    for top in range(max(order, 1), _HIGHEST, 2):
        # what is divided by powers of the variable is known less far
        expansion = _Expansion(variable, top)
        try:
            found = expansion.of(expression)
        except _TooShort:
            continue
        if found.known < order:
            continue
        terms = {power: expansion.plain(c) for power, c in found.terms.items() if power < order}
        if any(power < 0 and as_ratio(factor) != 0 for power, factor in terms.items()):
            raise ArithmeticError(f"no finite value at {variable} = 0: {expression}")
        return {power: factor for power, factor in terms.items() if power >= 0}
    raise ArithmeticError(f"no series in {variable}: {expression}")


class _TooShort(ArithmeticError):
    """A leading term that lies beyond the powers carried."""


@dataclass(frozen=True)
class _Laurent:
    """Coefficients by power, and the first power that is not known."""

    terms: dict[int, Any]
    known: int

    @property
    def low(self) -> int:
        """The least power that may have a coefficient."""
        return min(self.terms, default=self.known)

    def shifted(self, powers: int) -> _Laurent:
        """Times variable^powers."""
        return _Laurent({p + powers: c for p, c in self.terms.items()}, self.known + powers)


class _Expansion:
    """The rules, for series that are carried below variable^top.

    Sums under roots and in denominators go by names, so that a product of them stays one term.
    """

    def __init__(self, variable: Any, top: int):
        self.variable, self.top = variable, top
        self.names: dict[Any, Any] = {}  # of sums

    def of(self, expression: Any) -> _Laurent:
        if not expression.has(self.variable):
            return self._constant(expression)
        if expression == self.variable:
            return self._kept({1: sp.Integer(1)}, self.top)
        if isinstance(expression, sp.Add):
            return self._sum([self.of(part) for part in expression.args])
        if isinstance(expression, sp.Mul):
            return self._product(*(self.of(part) for part in expression.args))
        if isinstance(expression, sp.Pow):
            return self._power(*expression.args)
        if isinstance(expression, _ANALYTIC):
            return self._applied(expression.func(_Y), self.of(expression.args[0]))
        raise ArithmeticError(f"no series of {type(expression).__name__}")

    def plain(self, factor: Any) -> Any:
        """A coefficient with the sums for their names."""
        return factor.subs([(name, base) for base, name in reversed(self.names.items())])

    def _constant(self, expression: Any) -> _Laurent:
        return self._kept({0: expression.replace(_sum_in_power, self._named)}, self.top)

    def _named(self, power: Any) -> Any:
        base, exponent = power.args
        return self.names.setdefault(base, sp.Dummy("sum")) ** exponent

    def _kept(self, terms: dict[int, Any], known: int) -> _Laurent:
        known = min(known, self.top)
        written = {p: sp.expand(c, power_exp=False) for p, c in terms.items() if p < known}
        return _Laurent({p: c for p, c in written.items() if c != 0}, known)

    def _sum(self, parts: list[_Laurent]) -> _Laurent:
        terms: dict[int, Any] = {}
        for part in parts:
            for power, factor in part.terms.items():
                terms[power] = terms.get(power, 0) + factor
        return self._kept(terms, min(part.known for part in parts))

    def _product(self, *parts: _Laurent) -> _Laurent:
        product, *others = parts
        for other in others:
            known = min(product.known + other.low, other.known + product.low)
            terms: dict[int, Any] = {}
            for p, a in product.terms.items():
                for q, b in other.terms.items():
                    terms[p + q] = terms.get(p + q, 0) + a * b
            product = self._kept(terms, known)
        return product

    def _power(self, base: Any, exponent: Any) -> _Laurent:
        inside = self.of(base)
        if exponent.has(self.variable):
            logarithm = self._applied(sp.log(_Y), inside)
            return self._applied(sp.exp(_Y), self._product(self.of(exponent), logarithm))
        if exponent.is_Integer and exponent > 0:
            return self._product(*[inside] * int(exponent))
        inside = self._led(inside)
        shift = exponent * inside.low
        if not shift.is_Integer:
            raise ArithmeticError(f"a fractional power of {self.variable}")
        return self._applied(_Y**exponent, inside.shifted(-inside.low)).shifted(int(shift))

    def _applied(self, function: Any, inside: _Laurent) -> _Laurent:
        """A function of y at a series, by Taylor's formula at its value for variable 0."""
        if inside.known <= 0:
            raise _TooShort
        if inside.low < 0:
            inside = self._led(inside)
        if inside.low < 0:
            raise ArithmeticError(f"{function} of what has no finite value at 0")
        if inside.low == 0:
            inside = self._led(inside)
        value = self.plain(inside.terms.get(0, sp.Integer(0)))
        rest = _Laurent({p: c for p, c in inside.terms.items() if p > 0}, inside.known)
        parts, power = [], self._constant(sp.Integer(1))
        for degree in range(inside.known):
            parts.append(self._product(self._constant(_taylor(function, degree, value)), power))
            power = self._product(power, rest)
        return self._sum([*parts, _Laurent({}, inside.known)])

    def _led(self, found: _Laurent) -> _Laurent:
        """Without leading coefficients that are 0 in lowest terms only."""
        terms = dict(found.terms)
        while terms and as_ratio(self.plain(terms[min(terms)])) == 0:
            del terms[min(terms)]
        if not terms:
            raise _TooShort
        return _Laurent(terms, found.known)


def _sum_in_power(node: Any) -> bool:
    if not (isinstance(node, sp.Pow) and isinstance(node.base, sp.Add)):
        return False
    return not (node.exp.is_Integer and node.exp > 0)


@cache
def _taylor(function: Any, degree: int, value: Any) -> Any:
    found = sp.diff(function, _Y, degree).subs(_Y, value) / sp.factorial(degree)
    if found.has(sp.nan, sp.zoo, sp.oo, -sp.oo):
        raise ArithmeticError(f"{function} has no series at {value}")
    return found
