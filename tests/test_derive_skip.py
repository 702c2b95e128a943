"""The derivation of residual nets against numbers that do not come from it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy as sp

from erftheory import derive, moments
from erftheory.network.base import Chain
from erftheory.network.combine import Residual
from erftheory.network.layers import Activation, BatchNorm, Conv
from erftheory.symbolic.proof.names import equation, n, sigma
from erftheory.symbolic.topics.skip import ALPHA, BLOCK, CONVOLUTIONS

SKIP = derive.skip()


def value(step, **names):
    known = {"l": BLOCK, "c": CONVOLUTIONS, "n": n, "sigma": sigma, "alpha": ALPHA}
    return float(SKIP[step].statement.rhs.subs({known[k]: v for k, v in names.items()}))


@pytest.mark.parametrize("convolutions", [1, 2, 3])
@pytest.mark.parametrize("kernel", [2, 3, 5])
def test_variance_is_that_of_the_network(convolutions, kernel):
    body = Chain(*[BatchNorm(), Activation("relu"), Conv(kernel)] * convolutions)
    # even kernels are off centre, and the identity then adds variance of its own
    step = (kernel**2 - 1) / 12
    for blocks in (1, 4, 23):
        found = moments(Chain(Residual(body) * blocks, ndim=1))
        wanted = value("variance", n=blocks, c=convolutions, sigma=math.sqrt(step))
        if kernel % 2:
            assert float(found.variance[0]) == pytest.approx(wanted, rel=1e-12)
        else:
            assert float(found.variance[0]) > wanted * 1.01


def test_gain_by_running_a_wide_block():
    """Power through the branch of a third block with two convolutions of 1×1, drawn and run."""
    rng, width, inputs, found = np.random.default_rng(7), 256, 4096, []

    def normal(x):
        return (x - x.mean(1, keepdims=True)) / (sd := x.std(1, keepdims=True)), sd

    for _ in range(12):
        x = rng.standard_normal((width, inputs))
        for block in range(3):
            first, second = rng.standard_normal((2, width, width)) * math.sqrt(2 / width)
            a, sd = normal(x)
            b, inner = normal(first @ np.maximum(a, 0))
            if block == 2:
                g = rng.standard_normal(x.shape)
                g2 = (first.T @ ((second.T @ g) * (b > 0) / inner)) * (a > 0) / sd
                found.append((g2**2).mean() / (g**2).mean())
            x = x + second @ np.maximum(b, 0)
    error = np.std(found, ddof=1) / math.sqrt(len(found))
    wanted = value("gain", l=2, c=2)
    assert error < 0.01 * wanted
    # two-sided at 12 − 1 degrees of freedom: 5.9 standard errors are 1e-4, and 1/width is the bias
    assert abs(np.mean(found) - wanted) < 5.9 * error + 3 / width * wanted


def test_growth_with_depth():
    names = {"c": 2, "sigma": 1}
    rate = value("logarithm", **names)
    assert rate == pytest.approx(2 / (1 - 1 / math.pi) ** 2, rel=1e-14)
    assert value("radius", **names) == pytest.approx(math.sqrt(rate), rel=1e-14)
    by_sum = {}
    for blocks in (500, 1000):
        alpha = [(1 - 1 / math.pi) ** -1 / (1 + (1 - 1 / math.pi) * i) for i in range(blocks)]
        by_sum[blocks] = 2 * sum(a / (1 + a) for a in alpha)
        assert value("variance", n=blocks, **names) == pytest.approx(by_sum[blocks], rel=1e-12)
    added = by_sum[1000] - by_sum[500]
    assert value("doubling", **names) == pytest.approx(added, rel=5e-3)


def twice(integrand, limits):
    return 2 * sp.Integral(integrand, limits)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mixture", lambda side: side.subs(n, n + 1)),
        ("block variance", lambda side: side.subs(ALPHA, 2 * ALPHA)),
        ("channel variance", lambda side: side.replace(sp.Integral, twice)),
        ("trunk", lambda side: side.subs(BLOCK, BLOCK + 1)),
        ("gain", lambda side: side.subs(CONVOLUTIONS, CONVOLUTIONS + 1)),
        ("share", lambda side: side.subs(BLOCK, BLOCK + 1)),
        ("variance", lambda side: side.subs(n, n + 1)),
        ("variance", lambda side: side.subs(CONVOLUTIONS, CONVOLUTIONS + 1)),
        ("variance", lambda side: side.subs(sigma, sigma**2)),
        ("logarithm", lambda side: side.subs(n, n**2)),
        ("doubling", lambda side: 2 * side),
        ("against a stack", lambda side: side + 1),
    ],
)  # fmt: skip
def test_a_wrong_left_side_fails(name, change):
    step = SKIP[name]
    left, right = step.statement.args
    changed = change(left)
    assert changed != left
    assert not step.replace(statement=equation(changed, right)).check()
