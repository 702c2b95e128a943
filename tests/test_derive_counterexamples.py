"""False statements are seen to be false in numbers, and true ones never are."""

from __future__ import annotations

from typing import Any

import pytest
import sympy as sp

from erftheory import derive
from erftheory.symbolic.proof.counterexample import beyond_order, by_quadrature, far_off, in_numbers
from erftheory.symbolic.proof.names import h, k, n, s, x

SLOW = sp.Limit(1 / sp.log(n), n, sp.oo)  # nears its limit 0 like 1/log n
WAVE = sp.Integral(sp.exp(-(s**2) / 2) * sp.cos(s * x), (s, -sp.oo, sp.oo))
GAUSS = sp.sqrt(2 * sp.pi) * sp.exp(-(x**2) / 2)
HALF = sp.Integral(x * sp.exp(-(x**2) / 2), (x, 0, sp.oo))
COSINE = 1 - h**2 / 2 + h**4 / 24


@pytest.mark.parametrize(
    ("see", "left", "right", "wrong"),
    [
        (far_off, sp.Limit((1 + s / n) ** n, n, sp.oo), sp.exp(s), sp.exp(s) + 1),
        (far_off, SLOW + k, k, k + 1),
        (far_off, sp.Limit(n * sp.Derivative(sp.log(n**2), n), n, sp.oo), 2, 1),
        (beyond_order, sp.cos(h), COSINE + sp.Order(h**6), COSINE + h**5 + sp.Order(h**6)),
        (beyond_order, sp.cos(h), COSINE + sp.Order(h**6), COSINE + sp.Order(h**7)),
        (beyond_order, sp.cos(k * h) + h, 1 + h + sp.Order(h**2), 1 + sp.Order(h**2)),
        (by_quadrature, WAVE, GAUSS, 2 * GAUSS),
        (by_quadrature, HALF, 1, sp.Rational(99, 100)),
        (by_quadrature, sp.Integral(x**2, (x, -1, k)), (k**3 + 1) / 3, (k**3 - 1) / 3),
        (in_numbers, s * (s + 1) - s**2 - s, 0, s),
    ],
)
def test_the_false_is_seen_and_the_true_is_not(see: Any, left: Any, right: Any, wrong: Any) -> None:
    if see is in_numbers:
        assert not see(left - right) and see(left - wrong)
        return
    left, right, wrong = (sp.sympify(side) for side in (left, right, wrong))
    assert not see(left, right) and not see(right, left)
    assert "differ by" in see(left, wrong) and see(wrong, left)


def test_what_is_unclear_is_left_to_the_check() -> None:
    double = sp.Integral(1, (x, 0, 1), (s, 0, 1))
    wild = sp.Integral(sp.cos(x), (x, 0, sp.oo))
    unknown = sp.Integral(sp.Function("V")(x), (x, 0, 1))
    for side in (double, wild, unknown, sp.Integral(x, (x, -sp.oo, 0)), sp.Integer(2)):
        assert not by_quadrature(side, sp.Integer(5))
    assert not far_off(sp.Limit(sp.Function("V")(n), n, sp.oo), k)
    assert not beyond_order(sp.Function("V")(h), 1 + sp.Order(h**2))
    assert not in_numbers(h + sp.Order(h**2)) and not in_numbers(sp.Function("V")(h))


def test_no_true_step_is_refuted() -> None:
    for step in (step for topic in derive.TOPICS for step in derive.topic(topic)):
        left, right = step.statement.args
        assert not far_off(left, right), step.name
