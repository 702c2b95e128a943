"""What a check returns, and the ways of checking a statement.

All work on the statement they are given: they know what its names mean, never what it should
say. So a wrong statement fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, Protocol

import mpmath
import sympy as sp

from erftheory.symbolic.proof.exact import Gaussian, compile_exact
from erftheory.symbolic.proof.names import equation, n

Kind = Literal["symbolic identity", "exact arithmetic at random points"]
SYMBOLIC: Kind = "symbolic identity"
EXACT: Kind = "exact arithmetic at random points"

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


class Check(Protocol):
    """Decides a statement, and knows what kind of evidence it gives."""

    @property
    def kind(self) -> Kind: ...

    def __call__(self, statement: sp.Eq, /) -> CheckResult: ...


def leave(side: Any) -> Any:
    """The side as it is: nothing to prepare or to reduce."""
    return side


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
    prepare: Rewrite = leave
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
    `left` again, for which the induction hypothesis puts `right`. `prepare` writes both so that
    it is found.
    """

    method: str
    prepare: Rewrite = leave
    reduce: Rewrite = sp.simplify
    kind: Kind = SYMBOLIC

    def __call__(self, statement: sp.Eq) -> CheckResult:
        left, right = _sides(statement)
        grown = left.subs(n, n + 1)
        for kind, joined in ((sp.Sum, sp.Add), (sp.Product, sp.Mul)):
            grown = grown.replace(kind, _split_last(kind, joined))
        step = self.prepare(grown).subs(self.prepare(left), right)
        identity = SymbolicIdentity(self.method, leave, self.reduce)
        base = identity(equation(left.subs(n, 1).doit(), right.subs(n, 1)))
        return base and identity(equation(step, right.subs(n, n + 1)))


def _sides(statement: sp.Eq) -> Any:
    return statement.args


def _split_last(kind: Any, joined: Any) -> Callable[[Any, Any], Any]:
    def split(term: Any, limits: Any) -> Any:
        index, first, last = limits
        if not last.has(n):
            return kind(term, limits)
        return joined(kind(term, (index, first, last - 1)), term.subs(index, last))

    return split


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
