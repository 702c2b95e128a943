"""What a check returns, and the ways of checking a statement.

All work on the statement they are given: they know what its names mean, never what it should
say. So a wrong statement fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal, Protocol

import sympy as sp

from erftheory.symbolic.proof import counterexample
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


def evaluated(side: Any) -> Any:
    """The side with its sums, integrals, limits and derivatives evaluated."""
    return side.doit()


@dataclass(frozen=True)
class SymbolicIdentity:
    """left − right reduces to 0.

    `prepare` writes the names of a side out and evaluates it (sums, limits, integrals);
    `reduce` must bring the difference to 0. Each of `cases` is a substitution under which the
    statement is decided separately.
    """

    method: str
    prepare: Rewrite = evaluated
    reduce: Rewrite = sp.simplify
    cases: tuple[Mapping[Any, Any], ...] = ({},)
    kind: Kind = SYMBOLIC

    def __call__(self, statement: sp.Eq) -> CheckResult:
        for case in self.cases:
            sides = [side.subs(case) for side in statement.args]
            seen = self._seen(*sides)
            if seen:
                return CheckResult(False, self.kind, seen)
            left, right = (_prepared(self.prepare, side) for side in sides)
            residual = sp.sympify(left - right)
            seen = counterexample.in_numbers(residual)
            if seen:
                return CheckResult(False, self.kind, seen)
            reduced = self.reduce(residual)
            if reduced != 0:
                return CheckResult(False, self.kind, f"left − right = {reduced}, not 0")
        return CheckResult(True, self.kind, self.method)

    def _seen(self, left: Any, right: Any) -> str:
        """Where both sides visibly differ, before the slow part."""
        seen = counterexample.far_off(left, right)
        if seen or self.prepare not in (evaluated, leave):
            return seen  # names may stand for what only `prepare` knows
        return counterexample.beyond_order(left, right) or counterexample.by_quadrature(left, right)


# One side of a false neighbour is that of the true statement, and comes again.
@lru_cache(4096)
def _prepared(prepare: Rewrite, side: Any) -> Any:
    return prepare(side)


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


def _show(point: Point) -> str:
    numbers = (int, Fraction, Gaussian, tuple)
    return "at " + ", ".join(
        f"{name} = {_text(value)}" for name, value in point.items() if isinstance(value, numbers)
    )


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(map(str, value)) + ")"
    return str(value)
