"""Cumulants, asymptotic formulas and rigorous bounds against exact counts, closed forms, mpmath."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from networks import NETWORKS, network

from erftheory import (
    Activation,
    Chain,
    Conv,
    Residual,
    counting,
    derive,
    exact,
    moments,
    receptive_field,
)
from erftheory.laws import Context, Engines, select
from erftheory.symbolic.helpers.hermite import RHO, SMALL, He
from erftheory.symbolic.proof import brute
from erftheory.symbolic.proof.names import equation, k, n, x
from erftheory.symbolic.topics.edgeworth import edgeworth
from erftheory.symbolic.topics.saddlepoint import saddlepoint
from erftheory.theory.gains.prepare import prepare
from erftheory.theory.limits.approximations import approximate
from erftheory.theory.limits.normality import berry_esseen, local_limit_bound
from erftheory.theory.limits.saddlepoint import tilts
from erftheory.theory.plane.axis import Marginal
from erftheory.theory.readings.counting import Counts
from erftheory.theory.readings.cumulants import cumulants
from erftheory.theory.readings.raw import cumulants_of, raw_moments

UPSAMPLING = {name for name, net in NETWORKS.items() if prepare(net, "variance", "he").restricted}
LAWS = ("EDG-1", "SAD-1", "BE-1")


def stack(depth, kernel=3, taps=None, ndim=1):
    return Chain(Conv(kernel, taps=taps), ndim=ndim) * depth


def raw(found):
    """log of the formula before it was normalised on its window."""
    return found.log_map + math.log(found.metadata["mass"])


# Cumulants


@pytest.mark.parametrize("name", NETWORKS)
def test_cumulants_are_those_of_the_exact_map(name):
    net = NETWORKS[name]
    found = cumulants(net)
    counts = Counts(prepare(net, "variance", "he"), weighted=True)
    for axis, first in enumerate(counts.offset):
        weights = [Fraction(g) for g in counts.marginal(axis)]
        law = [g / sum(weights) for g in weights]
        expected = brute.cumulants(law, 6)[1:]
        expected[0] += first
        assert found.values[axis] == pytest.approx([float(e) for e in expected], rel=1e-9)
        if not any(isinstance(w, float) for w in _weights(net)):
            assert list(found.values[axis]) == expected


def _weights(net):
    return [e.weight for edges in prepare(net, "variance", "he").vertices for e in edges]


@settings(max_examples=30, deadline=None)
@given(net=network())
def test_cumulants_agree_with_moments(net):
    found, expected = cumulants(net, order=4), moments(net)
    for axis, values in enumerate(found.values):
        assert float(values[0]) == pytest.approx(float(expected.mean[axis]), abs=1e-12)
        assert float(values[1]) == pytest.approx(float(expected.variance[axis]), rel=1e-12)
        if values[1]:
            excess = float(values[3] / values[1] ** 2)
            assert excess == pytest.approx(float(expected.excess_kurtosis[axis] or 0), abs=1e-12)


def test_cumulants_at_any_depth_and_order():
    # Bernoulli numbers: κ_r of 0 … k − 1 uniform is B_r (k^r − 1)/r
    deep = cumulants(stack(10**9, 5), order=10).values[0]
    for r in range(2, 11):
        bernoulli = Fraction(int(sp.bernoulli(r).p), int(sp.bernoulli(r).q))
        assert deep[r - 1] == 10**9 * bernoulli * (5**r - 1) / r
    block = Residual(Chain(Conv(3), Activation("relu"), Conv(3)))
    one, many = cumulants(Chain(block, ndim=1)), cumulants(Chain(block * 10**9, ndim=1))
    assert many.values[0] == tuple(10**9 * v for v in one.values[0])
    assert cumulants(stack(7, 3, (1, 2, 6))).standardised()[0] == pytest.approx(
        cumulants(stack(1, 3, (1, 2, 6))).standardised()[0] / math.sqrt(7)
    )


def test_moments_and_cumulants_are_inverse():
    values = [Fraction(3, 7), Fraction(2), Fraction(-1, 3), Fraction(5), Fraction(0), Fraction(9)]
    assert cumulants_of(raw_moments(values)) == values
    assert raw_moments([Fraction(1)] * 6)[1:] == [1, 2, 5, 15, 52, 203]  # Bell numbers: Poisson


# The formulas against direct evaluations of their definitions


def test_saddlepoint_is_daniels_formula_by_mpmath():
    """K and its derivatives of one kernel in 40 digits, by its definition."""
    taps, depth = (1, 2, 6), 7
    found = raw(approximate(stack(depth, 3, taps), "saddlepoint", 2))
    with mpmath.workdps(40):

        def generating(h):
            total = sum(mpmath.mpf(tap) / 9 * mpmath.exp(h * a) for a, tap in enumerate(taps))
            return depth * mpmath.log(total)

        for place in (1, 5, 10, 13):
            h = mpmath.findroot(lambda h, t=place: mpmath.diff(generating, h) - t, 0.1)
            d = [mpmath.diff(generating, h, r) for r in range(7)]
            r3, r4, r5, r6 = (d[r] / d[2] ** (mpmath.mpf(r) / 2) for r in (3, 4, 5, 6))
            # the value at the mean of Edgeworth's expansion, from He_r(0)
            first = r4 * 3 / 24 + r3**2 * -15 / 72
            second = (r6 * -15 / 720 + (r4**2 / 1152 + r3 * r5 / 720) * 105
                      + r3**2 * r4 * -945 / 1728 + r3**4 * 10395 / 31104)  # fmt: skip
            value = d[0] - h * place - mpmath.log(2 * mpmath.pi * d[2]) / 2
            expected = value + mpmath.log(1 + first + second)
            assert found[place] == pytest.approx(float(expected), abs=1e-12)


def test_edgeworth_is_its_series_by_numpy_hermite():
    net = stack(9, 3, (1, 2, 6))
    values = [float(v) for v in cumulants(net).values[0]]
    std = math.sqrt(values[1])
    l3, l4, l5, l6 = (values[r - 1] / std**r for r in (3, 4, 5, 6))
    z = (np.arange(19) - 9 - values[0]) / std
    series = {3: l3 / 6, 4: l4 / 24, 6: l3**2 / 72}, {3: l3 / 6}
    more = {5: l5 / 120, 7: l3 * l4 / 144, 9: l3**3 / 1296}
    most = {6: l3**2 / 72 + l6 / 720, 8: l4**2 / 1152 + l3 * l5 / 720,
            10: l3**2 * l4 / 1728, 12: l3**4 / 31104}  # fmt: skip
    terms = {1: series[1], 2: series[0], 3: series[0] | more, 4: series[0] | more | most}
    for order, coefficients in terms.items():
        factor = np.polynomial.hermite_e.hermeval(z, [coefficients.get(r, 0) for r in range(13)])
        factor += 1
        expected = factor * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) / std
        found = np.exp(raw(approximate(net, "edgeworth", order)))
        assert found == pytest.approx(np.maximum(expected, 0), abs=1e-15)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in UPSAMPLING])
def test_errors_stay_below_their_bounds(name):
    """The largest error over the Gaussian's peak, or the largest relative one, of every axis."""
    net = NETWORKS[name]
    expected = exact(net)
    for kind, order in (("normal", 0), ("edgeworth", 2), ("edgeworth", 4), ("saddlepoint", 0)):
        found = approximate(net, kind, order, axis=0)
        p, q = expected.marginals[0], found.map
        assert found.offset == expected.offset[:1] and len(p) == len(q)
        held = np.flatnonzero(p)
        if kind == "saddlepoint":
            error = np.abs(q[held] / p[held] - 1).max()
        else:
            span = math.gcd(*(int(i) for i in held - held[0])) or 1
            std = math.sqrt(cumulants(net, order=2).values[0][1])
            error = np.abs(p - q).max() * std * math.sqrt(2 * math.pi) / span
        assert error <= found.error.value * (1 + 1e-9)


@pytest.mark.parametrize("signal", ["variance", "magnitude"])
def test_planes_and_the_magnitude(signal):
    net = stack(64, ndim=2)
    expected = exact(net, signal).map
    found = approximate(net, "saddlepoint", 1, signal)
    assert np.abs(found.map / expected - 1).max() < found.error.value < 0.03
    found = approximate(net, "edgeworth", 4, signal)
    square = found.map if signal == "variance" else found.map**2 / (found.map**2).sum()
    error = np.abs(square - exact(net).map).max() * 2 * math.pi * 64 * 2 / 3
    assert error < found.error.value < 1e-6


def test_branches_in_a_plane_axis_by_axis():
    net = Chain(Residual(Chain(Conv(3), Activation("relu"), Conv(3))) * 200)
    expected = exact(net, window="8 std").marginals[1]
    for kind, order, allowed in (("edgeworth", 4, 2e-6), ("saddlepoint", 1, 2e-5)):
        found = approximate(net, kind, order, axis=1, window="8 std")
        assert np.abs(found.map - expected).max() < allowed * expected.max()


def test_lattice_of_span_two_and_zero_taps_at_the_rim():
    net = Chain(Conv(3, dilation=2), Conv(5, taps=(0, 1, 0, 1, 0)), ndim=1) * 20
    expected = exact(net)
    assert not expected.map[1::2].any() or not expected.map[::2].any()
    for kind, order in (("edgeworth", 4), ("saddlepoint", 2)):
        found = approximate(net, kind, order)
        assert found.shape == expected.shape
        assert not found.map[expected.map == 0].any()
        assert np.abs(found.map - expected.map).max() < 1e-4 * expected.map.max()
        assert found.metadata["mass"] == pytest.approx(1, abs=1e-4)


def test_tails_at_depth_a_billion():
    """Cramér: log p at a share of the field, from the binomial in closed form."""
    depth, place = 10**9, 7 * 10**8
    net = stack(depth, 2, None)
    first = -int(receptive_field(net).padding[0])
    window = range(first + place - 1, first + place + 2)
    found = approximate(net, "saddlepoint", 1, window=window)
    with mpmath.workdps(40):
        count = [mpmath.log(mpmath.binomial(depth, place + j)) for j in (-1, 0, 1)]
        steps = [float(b - a) for a, b in zip(count, count[1:])]
    assert np.diff(found.log_map) == pytest.approx(steps, abs=1e-6)
    whole = approximate(net, "saddlepoint", 1, window="8 std")
    middle = whole.log_map[-whole.offset[0] + first + depth // 2]
    assert middle == pytest.approx(-math.log(depth * math.pi / 2) / 2, abs=1e-9)


def test_tilts_move_the_mean_to_the_pixel():
    net = Chain(Conv(3, 2), Residual(Chain(Conv(3), Conv(3))) * 2, Conv(4), ndim=1)
    marginal = Marginal(prepare(net, "variance", "he"), None)
    p = exact(net).map
    first = exact(net).offset[0]
    t = np.arange(first, first + len(p))
    places = np.array([-6, -1, 0, 3]) - marginal.base // marginal.span
    found = tilts(marginal, places)
    for i, place in enumerate(places):
        tilted = p * np.exp(found.theta[i] / marginal.span * (t - t.mean()))
        tilted /= tilted.sum()
        law = brute.cumulants([Fraction(float(v)) for v in tilted / math.fsum(tilted)], 6)
        pixel = marginal.base + marginal.span * place
        assert float(law[1]) + first == pytest.approx(pixel, abs=1e-7)
        std = math.sqrt(law[2])
        assert std == pytest.approx(math.sqrt(found.variance[i]) * marginal.span, rel=1e-9)
        for r, rho in enumerate(found.standardised, 3):
            assert float(law[r]) / std**r == pytest.approx(rho[i], abs=1e-7)


# Rigorous bounds


def _distances(p):
    t = np.arange(len(p))
    mean = p @ t
    std = math.sqrt(p @ (t - mean) ** 2)
    z = (t - mean) / std
    normal = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in z])
    after = np.cumsum(p)
    held = np.flatnonzero(p)
    span = math.gcd(*(int(i) for i in held - held[0]))
    density = np.exp(-(z[held] ** 2) / 2) / math.sqrt(2 * math.pi)
    far = max(np.abs(after - normal).max(), np.abs(after - p - normal).max())
    return far, np.abs(std * p[held] / span - density).max()


@pytest.mark.parametrize(
    "net",
    [
        stack(1), stack(2, 2), stack(40, 3, (1, 2, 6)), stack(6, 11), stack(3, 4, (1, 0, 0, 1)),
        Chain(*(Conv(3, dilation=d) for d in (1, 2, 4, 8)), ndim=1),
        Chain(Conv(3, 2), Conv(5), Conv(3, 2), Residual(Conv(3)), ndim=1),
        Chain(Residual(Chain(Conv(3), Activation("relu"), Conv(3))) * 9, ndim=1),
        Chain(Conv(3, dilation=2), Conv(3, taps=(1, 0, 1)), ndim=1) * 6,
    ],
)  # fmt: skip
def test_bounds_hold(net):
    far, near = _distances(exact(net).map)
    assert far <= berry_esseen(net)[0] <= 1
    assert near <= local_limit_bound(net)[0] * (1 + 1e-12)


def test_bounds_are_sharp_and_know_depth():
    for depth in (16, 256):
        _, near = _distances(exact(stack(depth)).map)
        # attained at the centre: both transforms' difference has one sign there
        assert local_limit_bound(stack(depth))[0] == pytest.approx(near, rel=1e-3)
    limit = 3 / 2 / 8 / math.sqrt(2 * math.pi)
    assert local_limit_bound(stack(10**6))[0] == pytest.approx(limit / 10**6, abs=3e-9)
    deep, shallow = berry_esseen(stack(10**8)), berry_esseen(stack(10**4))
    assert deep[0] * 100 == pytest.approx(shallow[0])
    third = 2 / 3 / (2 / 3) ** 1.5
    assert shallow[0] == pytest.approx(0.4690 * third / 100)
    assert berry_esseen(Chain(Conv(3), Conv(5), ndim=2))[0] < 1


# Derivations


@pytest.mark.parametrize(
    ("derivation", "name", "change"),
    [
        (edgeworth, "order 2", lambda side: side.subs(RHO[6], 2 * RHO[6])),
        (edgeworth, "order 1", lambda side: side.subs(RHO[3], -RHO[4])),
        (edgeworth, "series", lambda side: side.subs(RHO[5], RHO[6])),
        (edgeworth, "profile", lambda side: side.subs(SMALL, 2 * SMALL)),
        (edgeworth, "area", lambda side: 2 * side),
        (edgeworth, "level radius", lambda side: side * (1 + SMALL**4)),
        (edgeworth, "exponent of the size", lambda side: side.subs(k, k + 1)),
        (saddlepoint, "tilt", lambda side: 2 * side),
        (saddlepoint, "relative error", lambda side: side.subs(n, 2 * n)),
        (saddlepoint, "second correction", lambda side: side.subs(RHO[5], -RHO[5])),
    ],
)
def test_a_wrong_left_side_fails(derivation, name, change):
    step = derivation()[name]
    left, right = step.statement.args
    changed = change(left)
    assert changed != left
    assert not step.replace(statement=equation(changed, right)).check()


def test_hermite_polynomials_are_numpy_s():
    for r in range(13):
        ours = sp.Poly(He(r, x).doit(), x).all_coeffs()[::-1]
        theirs = np.polynomial.hermite_e.herme2poly([0] * r + [1])
        assert [int(c) for c in ours] == [int(c) for c in theirs]


def test_size_of_a_level_set():
    """The area of the exact level set, signal between pixels by tilts of n layers of real depth."""
    area = edgeworth()["area"].lambdify("numpy")
    values = cumulants(stack(1)).values[0]
    rho = {f"rho_{r}": float(values[r - 1] / values[1] ** (r // 2)) for r in (4, 6)}
    level, errors = 2 * math.log(1 / 0.0455), []
    for depth in (16, 64):
        p = counting(stack(depth)).marginal(0)
        log = np.array([math.log(c) for c in p]) - math.log(max(p))
        t = np.arange(-depth, depth + 1)
        # a smooth signal between the pixels: even polynomial through the inner ones
        inner = np.abs(t) <= 4.2 * math.sqrt(depth) / math.sqrt(1.5)
        fit = np.polynomial.Polynomial.fit(t[inner] ** 2.0, log[inner], 9)
        angle = (np.arange(4000) + 0.5) * math.pi / 8000
        low, high = np.zeros_like(angle), np.full_like(angle, 4 * math.sqrt(depth))
        for _ in range(50):
            r = (low + high) / 2
            above = fit((r * np.cos(angle)) ** 2) + fit((r * np.sin(angle)) ** 2) > -level
            low, high = np.where(above, r, low), np.where(above, high, r)
        exact_area = 2 * math.pi * (low**2 / 2).mean()
        ours = area(L=level, epsilon=depth**-0.5, **rho) * depth * 2 / 3
        errors.append(abs(ours / exact_area - 1))
    assert errors[1] < 2e-5
    assert errors[0] / errors[1] == pytest.approx(4**3, rel=0.35)  # what is left is 1/n³


# Functions of formulas


def test_lambdify_gives_functions_of_arrays():
    size = derive.growth()["standard deviation"].lambdify()
    depths = jnp.arange(1.0, 4.0)
    assert jax.jit(partial(size, k=3))(n=depths) == pytest.approx(np.sqrt(depths * 2 / 3), rel=1e-6)
    slope = jax.grad(lambda n: size(n=n, k=3.0))(6.0)
    assert float(slope) == pytest.approx(math.sqrt(2 / 3 / 6) / 2, rel=1e-6)
    blocks = derive.skip()["variance"]
    values = {"n": np.arange(1.0, 5.0), "c": 2.0, "sigma": 0.5}
    names = {s: values.get(s.name) for s in blocks.statement.rhs.free_symbols - {n}}
    formula = [float(blocks.statement.rhs.subs(names).subs(n, d).evalf()) for d in range(1, 5)]
    for modules in ("jax", "numpy"):
        assert np.asarray(blocks.lambdify(modules)(**values)) == pytest.approx(formula, rel=1e-5)
    gamma = replace(blocks, statement=equation(x, sp.loggamma(x) + sp.erf(x)))
    assert float(jax.jit(gamma.lambdify())(x=3.5)) == pytest.approx(
        math.lgamma(3.5) + math.erf(3.5), rel=1e-6
    )
    key = derive.gaussian_limit().lambdify("numpy")
    assert key(s=1.0) == pytest.approx(math.exp(-0.5))
    assert edgeworth()["area"].lambdify("numpy")(
        L=1.0, epsilon=0.0, rho_4=1.0, rho_6=1.0
    ) == pytest.approx(2 * math.pi)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: approximate(stack(3), "exact"), "kind: got 'exact'; takes"),
        (lambda: approximate(stack(3), order=5), "order: got 5; takes an integer from 0 to 4 for"),
        (lambda: approximate(stack(3), "normal", 1), "order: got 1; takes an integer from 0 to 0"),
        (lambda: approximate(stack(3), axis=1), "axis: got 1; takes an integer < 1"),
        (lambda: approximate(stack(3, 3, (1, -1, 1)), signal="gradient"), "taps: got signed ones"),
        (lambda: approximate(NETWORKS["unet"]), "network: got up-sampling"),
        (lambda: approximate(NETWORKS["residual"]), "axis: got None for paths that meet"),
        (lambda: approximate(NETWORKS["residual"], signal="magnitude", axis=0), "signal: got"),
        (lambda: cumulants(stack(3), "magnitude"), 'signal: got "magnitude", whose cumulants'),
        (lambda: cumulants(stack(3), order=0), "order: got 0; takes"),
        (lambda: cumulants(stack(1, 2, (1, -1)), "gradient"), "taps: got a gradient signal of"),
        (lambda: cumulants(stack(3)).standardised(1), "axis: got 1; takes an integer < 1"),
        (lambda: cumulants(stack(3, 1)).standardised(), "axis: got one of variance 0"),
        (lambda: berry_esseen(NETWORKS["unet"]), "network: got up-sampling"),
        (lambda: berry_esseen(stack(3, 1)), "network: got an axis of variance 0"),
        (lambda: edgeworth().lambdify("torch"), "modules: got 'torch'; takes one of jax, numpy"),
        (lambda: derive.moments()["mean"].lambdify(), "step: got 'mean', whose right side holds"),
        (lambda: edgeworth()["size"].lambdify("numpy")(x=1), "arguments: got x; takes L, rho_4"),
    ],
)
def test_a_bad_argument_is_named(call, message):
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_a_function_that_jax_lacks_is_named():
    step = replace(edgeworth()["size"], statement=equation(x, sp.besselj(0, x)))
    assert step.lambdify("numpy")(x=0.0) == 1
    with pytest.raises(ValueError, match="modules: got 'jax', which lacks besselj of step 'size'"):
        step.lambdify()


# Laws


@pytest.fixture(scope="module")
def engines():
    return Engines.load()


@pytest.mark.parametrize("id", LAWS)
@pytest.mark.parametrize("depth, kernel", [(1, 3), (5, 2), (12, 11)])
def test_laws_hold(engines, id, depth, kernel):
    verdict = select(id)[0].run(Context(engines, depth=depth, kernel=kernel))
    assert verdict.holds, (verdict.error, [e for e in verdict.evidence if not e.holds])
    assert {"counting", "convolution"} <= set(verdict.routes)


def test_laws_fail_on_a_broken_engine(engines):
    """Path counts of one layer more, whose variance and shape are 1/n off."""

    def deeper(net):
        return engines.counting(Chain(net, Conv(3), ndim=1))

    broken = replace(engines, counting=deeper)
    for id in ("EDG-1", "SAD-1"):
        assert not select(id)[0].run(Context(broken)).holds
    blind = replace(engines, counting=lambda net: engines.counting(Chain(Conv(9), ndim=1)))
    assert not select("BE-1")[0].run(Context(blind)).holds
