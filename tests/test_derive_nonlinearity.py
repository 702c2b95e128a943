"""The proof that ReLU-like activations keep the convolution: every altered step fails."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import sympy as sp

from erftheory import derive
from erftheory.symbolic.helpers import nets
from erftheory.symbolic.proof.names import equation, i, n

PROOF = derive.nonlinearity()
P, Q = sp.symbols("p q", integer=True)
Y = sp.Symbol("y", real=True)
C, RHO = sp.Function("C"), sp.Function("rho")


def swap(old: Any, new: Any) -> Any:
    return lambda side: side.subs(old, new)


def slopes(power: int) -> Any:
    """φ′ to another power than 2, wherever it stands."""
    phi = sp.Function("phiprime")
    return lambda side: side.replace(
        lambda e: isinstance(e, sp.Pow) and isinstance(e.base, phi), lambda e: e.base**power
    )


def once(old: Any, new: Any) -> Any:
    """The outermost function `old` replaced by `new` of its arguments."""
    return lambda side: side.replace(old, new)


# One wrong left side a step, beyond the wrong right sides that test_derive.py makes: a sign, an
# exponent or an index.
WRONG = {
    "ReLU": lambda left: left.args[0],
    "leaky ReLU": lambda left: left.args[0] - left.args[1],
    "absolute value": lambda left: left.args[0] * left.args[1] + 2 * left.args[1],
    "shifted sine": swap(sp.pi, 2 * sp.pi),
    "smooth ramp": once(sp.asinh, sp.sinh),
    "tanh": swap(sp.tanh(Y), sp.tanh(2 * Y)),
    "flip": once(sp.Sum, lambda term, limits: sp.Sum(-term, limits)),
    "pair": once(sp.Sum, lambda term, limits: sp.Sum(term * (2 * i - 1), limits)),
    "symmetric law": slopes(1),
    "uncorrelated weights": slopes(3),
    "gradient": swap(P, P + 1),
    "output": swap(P, P + 1),
    "double sum": once(RHO, lambda tap: RHO(tap) ** 2),
    "induction": swap(Q, Q + 1),
    "conclusion": once(C, lambda layers, p, q: C(layers, p, q) ** 2),
    "share": once(C, lambda layers, p, q: C(layers, p, q) ** 2),
    "coupling": slopes(1),
    "small weights": once(sp.tanh, lambda y: sp.tanh(2 * y)),
    "Gaussian coupling": swap(sp.Symbol("w_0", real=True), sp.Symbol("w_1", real=True)),
    "Gaussian square": lambda left: left.replace(sp.Function("psi"), lambda y: y),
    "mean field": once(sp.Function("D"), lambda at: sp.Function("D")(at) ** 2),
}


def test_every_step_has_a_wrong_left_side_here() -> None:
    assert [step.name for step in PROOF] == list(WRONG)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_left_side_fails(name: str) -> None:
    step = PROOF[name]
    left, right = step.statement.args
    changed: Any = WRONG[name](left)
    assert changed != left and step.check()
    assert not step.replace(statement=equation(changed, right)).check()


def test_a_wrong_index_in_the_induction_fails() -> None:
    step = PROOF["induction"]
    left, right = step.statement.args
    for wrong in (
        right.replace(RHO, lambda tap: RHO(tap + 1)),
        right.replace(C, lambda layers, p, q: C(layers, p + 1, q + 1)),
        right.replace(C, lambda layers, p, q: C(layers + 1, p, q)),
        right.subs(sp.KroneckerDelta(P, Q), 1),
    ):
        assert wrong != right
        assert not step.replace(statement=equation(left, wrong)).check()


def test_the_complement_is_needed() -> None:
    """Without 2c for φ′(y)² + φ′(−y)² the pair of a filter and its flip proves nothing."""
    step = PROOF["pair"]
    phi = sp.Function("phiprime")
    left, right = step.statement.args
    other = left.replace(phi, lambda y: phi(y) * phi(sp.Abs(y)))
    assert not step.replace(statement=equation(other, right)).check()


def test_correlated_weights_fail_the_step_that_excludes_them() -> None:
    step = PROOF["uncorrelated weights"]
    check: Any = step.verify
    correlated = type(check)(check.method, nets.symmetric_laws)
    assert not step.replace(verify=correlated).check()


def test_what_a_relu_does_at_zero_is_of_no_account_above_the_first_layer(monkeypatch) -> None:
    """A layer that is off on a whole patch feeds 0 to the next; the means stay as they are."""
    results = []
    for at_zero in (0, 1, 7):
        monkeypatch.setattr(nets, "AT_ZERO", at_zero)
        nets._means.cache_clear()
        results.append(nets._means(3, (1, 2), nets.SLOPES[0]))
    assert results[0] == results[1] == results[2]
    signal = nets._values(4, salt=302)
    first = [nets._read((a, 2 * b), signal) for a, b in itertools.product((-1, 1), repeat=2)]
    assert any(max(pair) < 0 for row in first for pair in zip(row, row[1:]))  # it does happen


@pytest.mark.parametrize("sigma, x0, x1", [(0.6, 1.3, -0.4), (1.1, 0.2, 0.9)])
def test_gaussian_steps_by_quadrature(sigma: float, x0: float, x1: float) -> None:
    """Both for ψ = (1 − tanh²)², no polynomial, on a grid of two weights."""
    nodes, chances = np.polynomial.hermite_e.hermegauss(80)
    w = sigma * nodes
    chance = np.outer(chances, chances) / chances.sum() ** 2
    y = w[:, None] * x0 + w[None, :] * x1
    t = np.tanh(y)
    psi = (1 - t**2) ** 2
    bend = 4 * (1 - t**2) ** 2 * (5 * t**2 - 1)
    values = {
        "Gaussian coupling": (w[:, None] * w[None, :] * psi, sigma**4 * x0 * x1 * bend),
        "Gaussian square": (w[:, None] ** 2 * psi, sigma**2 * psi + sigma**4 * x0**2 * bend),
    }
    for name, (left, right) in values.items():
        assert (chance * left).sum() == pytest.approx((chance * right).sum(), abs=1e-7), name
    formula = PROOF["Gaussian square"].statement.rhs
    assert formula.has(sp.Symbol("sigma", positive=True) ** 4) and not formula.has(n)
