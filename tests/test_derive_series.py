"""Series and limits of the derivations against numbers far closer to 0 than any term dropped."""

from __future__ import annotations

from typing import Any

import mpmath
import pytest
import sympy as sp

from erftheory.symbolic.helpers.series import limit_in_depth, polynomial, value_at_zero
from erftheory.symbolic.proof.names import k, n, s

E = sp.Symbol("epsilon", positive=True)
A, B = sp.symbols("a b", positive=True)
ROOT = sp.sqrt(A**2 - 1)
FORMS = {
    "ratio": sp.sin(A * E) / (A * sp.sinh(E)),
    "logarithm": sp.log(sp.sin(A * E / 2) / (A * sp.sin(E / 2))) / E,
    "power of a power": sp.cos(E / ROOT) ** (1 / E**2),
    "cancelled start": (sp.exp(E) - 1 - E) / (1 - sp.cos(E)),
    "start that is 0 in lowest terms": ((1 / (A**2 - 1) - 1 / ROOT**2 + E) / E) ** -2,
    "root": sp.sqrt(A + E**2 + B * E) / (1 + E),
    "any exponent": (1 + A * E) ** B * (B + E) ** sp.Rational(-3, 2),
    "even root": sp.sqrt(E**2 * (1 + A * E)),
    "inside": sp.tanh(A + E) * sp.asinh(B + sp.sinh(E)) + sp.exp(A + E) * sp.log(B + E),
    "complex": sp.log(sp.exp(sp.I * A * E) / 3 + 2 * sp.exp(-sp.I * B * E) / 3),
    "poles that cancel": (1 / sp.sin(E) - 1 / E) * sp.cosh(E),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("order", [1, 4, 7])
def test_a_polynomial_leaves_the_order_stated(form: Any, order: int) -> None:
    found = polynomial(form, E, order)
    values = {A: sp.Rational(17, 10), B: sp.Rational(5, 7)}
    rest = sp.lambdify(E, (form - found).subs(values), "mpmath")
    with mpmath.workdps(120):
        one, other = (abs(rest(mpmath.mpf(10) ** -power)) for power in (6, 9))
        assert other <= one * mpmath.mpf(10) ** (-3 * order) * 1.01 + mpmath.mpf(10) ** -90
        # and the next power is looked at: what is dropped is not larger than a few units of it
        assert other < 1000 * mpmath.mpf(10) ** (-9 * order)


@pytest.mark.parametrize(
    "form",
    [sp.log(E), sp.sqrt(E), sp.exp(1 / E), 1 / sp.sin(E), sp.Abs(E - 1), sp.gamma(E), E**A,
     sp.cos(1 / E), sp.log(sp.sin(E)), sp.Integral(E * A, (A, 0, 1)), (1 + 1 / E) ** B],
    ids=str,
)  # fmt: skip
def test_what_has_no_such_series_is_refused(form: Any) -> None:
    with pytest.raises(ArithmeticError):
        polynomial(form, E, 3)


def test_values_and_limits() -> None:
    assert value_at_zero(sp.sin(A * E) / E, E) == A
    assert value_at_zero(E * A, E) == 0
    compound = sp.Limit((1 + s / n + k / n**2) ** n, n, sp.oo)
    assert limit_in_depth(compound + 1) == sp.exp(s) + 1
    for refused in (sp.Limit(n * s, n, sp.oo), sp.Limit(1 / k, k, sp.oo), sp.Limit(1 / n, n, 0)):
        with pytest.raises(ArithmeticError):
            limit_in_depth(refused)
