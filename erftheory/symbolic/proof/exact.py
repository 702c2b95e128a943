"""Exact evaluation of SymPy expressions in integers, fractions and Gaussian rationals.

`compile_exact` turns a formula into a Python function without any rounding: division gives a
`Fraction`, a floor gives an int, a complex number is a pair of fractions. What it cannot do
exactly (a root, a logarithm, an infinite sum) it refuses.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef

Environment = dict[str, Any]
Evaluator = Callable[[Environment], Any]


@dataclass(frozen=True)
class Gaussian:
    """The Gaussian rational re + j·im, with exact arithmetic."""

    re: Fraction
    im: Fraction = Fraction(0)

    def __add__(self, other: Gaussian | Fraction | int) -> Gaussian:
        right = _gaussian(other)
        return Gaussian(self.re + right.re, self.im + right.im)

    def __mul__(self, other: Gaussian | Fraction | int) -> Gaussian:
        right = _gaussian(other)
        return Gaussian(
            self.re * right.re - self.im * right.im, self.re * right.im + self.im * right.re
        )

    __radd__ = __add__
    __rmul__ = __mul__

    def __pow__(self, exponent: int) -> Gaussian:
        base = self if exponent >= 0 else self._inverse()
        product = Gaussian(Fraction(1))
        for _ in range(abs(exponent)):
            product = product * base
        return product

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Gaussian | Fraction | int):
            return NotImplemented
        right = _gaussian(other)
        return self.re == right.re and self.im == right.im

    def __str__(self) -> str:
        return f"({self.re}) + ({self.im})j"

    def _inverse(self) -> Gaussian:
        power = self.re**2 + self.im**2
        return Gaussian(self.re / power, -self.im / power)


def compile_exact(expression: sp.Basic) -> Callable[[Mapping[str, Any]], Any]:
    """A function from values of the names in `expression` to its exact value.

    The mapping gives an exact number for each symbol, a callable for each undefined function
    and a sequence for each indexed base. Sums and products run over whole numbers; an empty
    sum is 0, an empty product 1; binomials follow C(n, r) = n(n−1)…(n−r+1)/r!, and 0 for r < 0.
    """
    run = _compile(expression)
    return lambda values: run(dict(values))


def _compile(expression: sp.Basic) -> Evaluator:
    if isinstance(expression, sp.Symbol):
        name = expression.name
        return lambda values: values[name]
    if isinstance(expression, sp.Integer):
        whole = int(expression)
        return lambda values: whole
    if isinstance(expression, sp.Rational):
        ratio = Fraction(int(expression.p), int(expression.q))
        return lambda values: ratio
    if expression is sp.I:
        return lambda values: Gaussian(Fraction(0), Fraction(1))
    for kind, build in _BUILDERS:
        if isinstance(expression, kind):
            return build(expression)
    raise ArithmeticError(f"no exact value for {expression}")


def _add(expression: sp.Basic) -> Evaluator:
    parts = [_compile(part) for part in expression.args]

    def run(values: Environment) -> Any:
        total: Any = 0
        for part in parts:
            total = total + part(values)
        return total

    return run


def _multiply(expression: sp.Basic) -> Evaluator:
    parts = [_compile(part) for part in expression.args]

    def run(values: Environment) -> Any:
        product: Any = 1
        for part in parts:
            product = product * part(values)
        return product

    return run


def _power(expression: sp.Basic) -> Evaluator:
    base, exponent = (_compile(part) for part in expression.args)

    def run(values: Environment) -> Any:
        low, high = base(values), whole_number(exponent(values))
        return Fraction(low) ** high if high < 0 and isinstance(low, int) else low**high

    return run


def _sum(expression: sp.Basic) -> Evaluator:
    return _folded(expression, 0, operator.add)


def _product(expression: sp.Basic) -> Evaluator:
    return _folded(expression, 1, operator.mul)


def _folded(expression: sp.Basic, empty: int, combine: Callable[[Any, Any], Any]) -> Evaluator:
    """A sum or product over whole numbers; of several limits the first is the innermost."""
    run = _compile(expression.args[0])
    for limits in expression.args[1:]:
        run = _over(run, limits.args, empty, combine)
    return run


def _over(
    term: Evaluator, limits: Sequence[Any], empty: int, combine: Callable[[Any, Any], Any]
) -> Evaluator:
    index, first, last = limits
    name, start, stop = str(index), _compile(first), _compile(last)

    def run(values: Environment) -> Any:
        outer = values.get(name)
        folded: Any = empty
        for value in range(whole_number(start(values)), whole_number(stop(values)) + 1):
            values[name] = value
            folded = combine(folded, term(values))
        values[name] = outer
        return folded

    return run


def _apply(expression: sp.Basic) -> Evaluator:
    arguments = [_compile(part) for part in expression.args]
    if isinstance(expression, AppliedUndef):
        name = expression.func.__name__
        return lambda values: values[name](*(part(values) for part in arguments))
    function = next(f for kind, f in _FUNCTIONS.items() if isinstance(expression, kind))
    return lambda values: function(*(part(values) for part in arguments))


def _indexed(expression: sp.Basic) -> Evaluator:
    assert isinstance(expression, sp.Indexed)
    name, index = str(expression.base), _compile(expression.indices[0])

    def run(values: Environment) -> Any:
        position = whole_number(index(values))
        if position < 0:
            raise ArithmeticError(f"{name} has no entry {position}")
        return values[name][position]

    return run


def binomial(top: int | Fraction, bottom: int | Fraction) -> int:
    """C(top, bottom) for whole numbers, 0 for a negative bottom."""
    n, r = whole_number(top), whole_number(bottom)
    if r < 0:
        return 0
    return math.comb(n, r) if n >= 0 else (-1) ** r * math.comb(r - n - 1, r)


def whole_number(value: Any) -> int:
    """`value` as an int; an `ArithmeticError` if it is no whole number."""
    if isinstance(value, int):
        return value
    if isinstance(value, Fraction) and value.denominator == 1:
        return value.numerator
    raise ArithmeticError(f"{value} is no whole number")


def _gaussian(value: Gaussian | Fraction | int) -> Gaussian:
    return value if isinstance(value, Gaussian) else Gaussian(Fraction(value))


_FUNCTIONS: dict[type, Callable[..., Any]] = {
    sp.binomial: binomial,
    sp.floor: math.floor,
    sp.Min: min,
    sp.Abs: abs,
    sp.KroneckerDelta: lambda left, right: int(left == right),
}

_BUILDERS: tuple[tuple[type | tuple[type, ...], Callable[[sp.Basic], Evaluator]], ...] = (
    (sp.Add, _add),
    (sp.Mul, _multiply),
    (sp.Pow, _power),
    (sp.Sum, _sum),
    (sp.Product, _product),
    (sp.Indexed, _indexed),
    ((AppliedUndef, *_FUNCTIONS), _apply),
)
