"""Rational functions of a power b^n, as geometric sums over n layers give: reduction and limits."""

from __future__ import annotations

from typing import Any

import sympy as sp

from erftheory.symbolic.helpers.rewrites import as_ratio, in_depth
from erftheory.symbolic.proof.evidence import Rewrite
from erftheory.symbolic.proof.names import n

_POWER: Any = sp.Symbol("Q", positive=True)  # b^n


def deep_limit(base: Any) -> Rewrite:
    """Evaluates limits for n → ∞ of rational functions of base^n, for a base above 1."""

    def limit(function: Any) -> Any:
        parts = sp.fraction(sp.cancel(_named(function, base)))
        above, below = (sp.Poly(part, _POWER) for part in parts)
        if above.degree() > below.degree():
            raise ArithmeticError(f"no finite limit: {function}")
        return above.coeff_monomial(_POWER ** below.degree()) / below.LC()

    return in_depth(limit)


def power_ratio(base: Any) -> Rewrite:
    """Brings a rational function of base^n to lowest terms; 0 if it is 0."""
    return lambda residual: as_ratio(_named(residual, base))


def _named(expression: Any, base: Any) -> Any:
    """base^(an + c) as Q^a base^c, with Q for base^n."""

    def name(exponent: Any) -> Any:
        exponent = sp.expand(exponent)
        layers = exponent.coeff(n, 1)
        return _POWER**layers * base ** (exponent - layers * n)

    def powered(node: Any) -> bool:
        return isinstance(node, sp.Pow) and node.base == base and node.exp.has(n)

    named = expression.replace(powered, lambda node: name(node.exp))
    if named.has(n):
        raise ArithmeticError(f"{expression} is no function of a power of {base}")
    return named
