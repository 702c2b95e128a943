"""What a check returns, and the two ways of checking a statement.

Both work on the statement they are given: they know what its names mean, never what it should
say. So a wrong statement fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any, Literal

import sympy as sp

from erftheory.symbolic.exact import Gaussian, compile_exact
from erftheory.symbolic.names import n

Kind = Literal["symbolic identity", "exact arithmetic at random points"]
SYMBOLIC: Kind = "symbolic identity"
EXACT: Kind = "exact arithmetic at random points"

Check = Callable[[sp.Eq], "CheckResult"]
Rewrite = Callable[[Any], Any]
Point = Mapping[str, Any]


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check: whether the statement holds and what was compared."""

    holds: bool
    kind: Kind
    detail: str

    def __bool__(self) -> bool:
        return self.holds


@dataclass(frozen=True)
class SymbolicIdentity:
    """left − right reduces to 0.

    `prepare` writes the names of a side out and evaluates it (sums, limits, integrals);
    `reduce` must bring the difference to 0. Each of `cases` is a substitution under which the
    statement is decided separately.
    """

    method: str
    prepare: Rewrite = lambda side: side.doit()
    reduce: Rewrite = sp.simplify
    cases: tuple[Mapping[Any, Any], ...] = ({},)
    kind: Kind = SYMBOLIC

    def __call__(self, statement: sp.Eq) -> CheckResult:
        for case in self.cases:
            left, right = (self.prepare(side.subs(case)) for side in statement.args)
            residual = sp.sympify(left - right)
            counterexample = _counterexample(residual)
            if counterexample:
                return CheckResult(False, self.kind, counterexample)
            reduced = self.reduce(residual)
            if reduced != 0:
                return CheckResult(False, self.kind, f"left − right = {reduced}, not 0")
        return CheckResult(True, self.kind, self.method)


@dataclass(frozen=True)
class ExactPoints:
    """left = right, exactly, at every one of `points`.

    A point gives exact numbers to the symbols and brute-force meanings to the functions.
    `prepare` first brings a side into the reach of exact arithmetic.
    """

    method: str
    points: Callable[[], Iterable[Point]]
    prepare: Rewrite = lambda side: side
    kind: Kind = EXACT

    def __call__(self, statement: sp.Eq) -> CheckResult:
        left, right = (compile_exact(self.prepare(side)) for side in statement.args)
        count = 0
        for point in self.points():
            ours, theirs = left(point), right(point)
            if ours != theirs:
                return CheckResult(False, self.kind, f"{_show(point)}: {ours} ≠ {theirs}")
            count += 1
        if count == 0:
            return CheckResult(False, self.kind, "no point was compared")
        return CheckResult(True, self.kind, f"{count} points: {self.method}")


def generic_branch(expression: Any) -> Any:
    """The expression with every case distinction replaced by its last, generic case."""
    return expression.replace(
        lambda node: isinstance(node, sp.Piecewise), lambda node: node.args[-1][0]
    )


def taylor(expression: Any, variable: sp.Symbol, order: int) -> Any:
    """The Taylor polynomial of `expression` at 0, the terms below variable^order."""
    return sum(_taylor(term, variable, order) for term in sp.Add.make_args(expression))


@cache
def _taylor(term: Any, variable: sp.Symbol, order: int) -> Any:
    return sp.series(term, variable, 0, order).removeO()


def series_of_rest(residual: Any, variable: sp.Symbol) -> Any:
    """What is left of a difference below the order O(variable^r) that the statement claims."""
    order = residual.getO().getn()
    return sp.expand(taylor(residual.removeO(), variable, order))


def limit_in_depth(side: Any) -> Any:
    """Limits for n → ∞ evaluated in 1/√n, the variable in which the functions have series."""
    small = sp.Symbol("epsilon", positive=True)

    def evaluate(function: Any, variable: Any, target: Any, *_: Any) -> Any:
        if (variable, target) != (n, sp.oo):
            raise ArithmeticError(f"no limit of infinite depth: {variable} to {target}")
        shallow = function.subs(n, 1 / small**2)
        if not isinstance(shallow, sp.Pow):
            return sp.limit(shallow, small, 0)
        # the limit of a power through its logarithm, which SymPy finds twice as fast
        return sp.exp(sp.limit(shallow.exp * sp.log(shallow.base), small, 0))

    return side.replace(sp.Limit, evaluate)


def _counterexample(residual: Any) -> str:
    """Where the two sides visibly differ; empty if no difference is seen.

    It spares the slow simplification of a false statement, and tells where it is false.
    """
    if residual.has(sp.Order):
        return ""
    names = sorted(residual.free_symbols, key=str)
    values = {name: _sample(name, place) for place, name in enumerate(names)}
    number = residual.subs(values).evalf(20)
    if not number.is_number or not number.is_finite or abs(number) < sp.Float("1e-9"):
        return ""
    shown = ", ".join(f"{name} = {value}" for name, value in values.items())
    return f"{shown or 'as numbers'}: left − right = {sp.N(number, 5)}"


def _sample(name: Any, place: int) -> Any:
    if name.is_integer:
        return sp.Integer(5 + 2 * place)
    return sp.Rational(3 + 2 * place, 11 + place)


def _show(point: Point) -> str:
    numbers = (int, Fraction, Gaussian, tuple)
    return "at " + ", ".join(
        f"{name} = {_text(value)}" for name, value in point.items() if isinstance(value, numbers)
    )


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(map(str, value)) + ")"
    return str(value)
