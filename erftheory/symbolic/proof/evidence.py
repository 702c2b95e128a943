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

import mpmath
import sympy as sp

from erftheory.symbolic.proof.exact import Gaussian, compile_exact
from erftheory.symbolic.proof.names import equation, n

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
            sides = [side.subs(case) for side in statement.args]
            counterexample = _far_off(*sides)
            if counterexample:
                return CheckResult(False, self.kind, counterexample)
            left, right = map(self.prepare, sides)
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


@dataclass(frozen=True)
class Induction:
    """left(1) = right(1), and left(n + 1) = right(n + 1) follows from left(n) = right(n), all n.

    The sums and products of `left` over layers grow by their last term; what is left of them is
    `left` again, for which the induction hypothesis puts `right`.
    """

    method: str
    reduce: Rewrite = sp.simplify
    kind: Kind = SYMBOLIC

    def __call__(self, statement: sp.Eq) -> CheckResult:
        left, right = _sides(statement)
        grown = left.subs(n, n + 1)
        for kind, joined in ((sp.Sum, sp.Add), (sp.Product, sp.Mul)):
            grown = grown.replace(kind, _split_last(kind, joined))
        claimed = right.subs(n, n + 1)
        identity = SymbolicIdentity(self.method, prepare=lambda side: side, reduce=self.reduce)
        base = identity(equation(left.subs(n, 1).doit(), right.subs(n, 1)))
        return base and identity(equation(grown.subs(left, right), claimed))


def _sides(statement: sp.Eq) -> Any:
    return statement.args


def _split_last(kind: Any, joined: Any) -> Callable[[Any, Any], Any]:
    def split(term: Any, limits: Any) -> Any:
        index, first, last = limits
        if not last.has(n):
            return kind(term, limits)
        return joined(kind(term, (index, first, last - 1)), term.subs(index, last))

    return split


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
        # the limit of a power through its logarithm, term by term: SymPy finds these faster
        exponents = sp.Add.make_args(sp.expand(shallow.exp))
        parts = [sp.limit(part * sp.log(shallow.base), small, 0) for part in exponents]
        if any(part.has(sp.oo, -sp.oo, sp.zoo, sp.nan) for part in parts):
            raise ArithmeticError(f"no finite limit term by term: {function}")
        return sp.exp(sum(parts))

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


def _far_off(left: Any, right: Any) -> str:
    """Where functions visibly do not tend to the limits stated; empty if no difference is seen.

    It spares slow limits of false statements. Errors that fall like 1/log n are given time: they
    halve from n to n².
    """
    limits = (left - right).atoms(sp.Limit)
    if {limit.args[1:3] for limit in limits} != {(n, sp.oo)}:
        return ""
    inside = [side.replace(sp.Limit, lambda function, *_: function) for side in (left, right)]
    names = sorted((left - right).free_symbols, key=str)
    values = {name: _sample(name, place) for place, name in enumerate(names)}
    arguments = [mpmath.mpf(int(value.p)) / int(value.q) for value in values.values()]
    gaps = []
    for depth in (10**12, 10**24):
        try:
            with mpmath.workdps(120):
                functions = [sp.lambdify([*names, n], side, "mpmath") for side in inside]
                one, other = (function(*arguments, mpmath.mpf(depth)) for function in functions)
                gaps.append(abs(one - other) / (1 + abs(other)))
        except (ArithmeticError, TypeError, ValueError, NameError, NotImplementedError):
            return ""
    if not gaps[1] > max(0.1, 0.75 * gaps[0]):
        return ""
    shown = ", ".join(f"{name} = {value}" for name, value in values.items())
    return f"{shown or 'as numbers'}, n = 1e24: the sides differ by {mpmath.nstr(gaps[1], 5)}"


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
