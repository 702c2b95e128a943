"""Laws of a unit's values, and points that stand for them, against closed forms and quadrature."""

import math
from fractions import Fraction

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from erftheory.network.activations import ACTIVATIONS, CURVES
from erftheory.network.base import Chain
from erftheory.network.combine import Residual
from erftheory.network.layers import (
    Activation,
    BatchNorm,
    Conv,
)
from erftheory.theory.gains.forward import meanfield_gains
from erftheory.theory.units import conditioned as seen
from erftheory.theory.units import law as dist
from erftheory.theory.units.quadrature import smoothed

BN, RELU = BatchNorm(), Activation("relu")
KEPT = 1 - 1 / math.pi  # variance of a rectified unit over half its second moment


def test_relu_law_of_a_standard_unit():
    law, gain = dist.activated(dist.STANDARD, "relu")
    assert gain == Fraction(1, 2) and law.second == Fraction(1, 2)
    assert law.level == pytest.approx(1 / (2 * math.pi), rel=1e-14)
    assert law.variance == pytest.approx(KEPT / 2, rel=1e-14)
    nodes, probs = law.points
    assert probs.sum() == pytest.approx(1, abs=1e-14)
    assert (probs @ nodes)[0] == pytest.approx(law.mean, rel=1e-13)
    assert (probs @ nodes**2)[0] == pytest.approx(0.5, rel=1e-13)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "abs"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_channel_means_follow_the_arc_cosine_kernel(name, share):
    slope = {"relu": 0.0, "leaky_relu": 0.01, "abs": -1.0}[name]
    law = dist.gaussian(1.7, 1.7 * share)
    sd, spread = math.sqrt(1.7 * (1 - share)), math.sqrt(1.7 * share)

    def squared_mean(z):
        m = spread * z
        top = m * stats.norm.cdf(m / sd) + sd * stats.norm.pdf(m / sd)
        return (top + slope * (m - top)) ** 2 * stats.norm.pdf(z)

    wanted = integrate.quad(squared_mean, -10, 10, points=[0], epsabs=1e-13)[0]
    assert dist.activated(law, name)[0].level == pytest.approx(wanted, rel=1e-9)


SLOPES = {
    "tanh": lambda x: 1 - math.tanh(x) ** 2,
    "sigmoid": lambda x: 1 / (2 * math.cosh(x / 2)) ** 2,
    "silu": lambda x: (s := 1 / (1 + math.exp(-x))) + x * s * (1 - s),
}
FUNCTIONS = {
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "gelu": lambda x: x * stats.norm.cdf(x),
    "elu": lambda x: x if x > 0 else math.expm1(x),
    "gelu_tanh": lambda x: x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}
SLOPES["elu"] = lambda x: 1.0 if x > 0 else math.exp(x)
for _name in ("gelu", "gelu_tanh"):
    SLOPES[_name] = lambda x, f=FUNCTIONS[_name]: (f(x + 1e-5) - f(x - 1e-5)) / 2e-5


@pytest.mark.parametrize("name", list(FUNCTIONS))
@pytest.mark.parametrize("sd", [0.03, 0.7, 1.0, 3.0, 40.0])
def test_smooth_activations_against_quadrature(name, sd):
    def expected(f):
        return integrate.quad(
            lambda x: f(x) * stats.norm.pdf(x, scale=sd),
            *(-9 * sd, 9 * sd),
            points=[p for p in (-20, -3, 0, 3, 20) if abs(p) < 9 * sd],
            limit=400,
            epsabs=1e-12,
        )[0]

    law, gain = dist.activated(dist.gaussian(sd**2, 0), name)
    function, slope = FUNCTIONS[name], SLOPES[name]
    assert gain == pytest.approx(expected(lambda x: slope(x) ** 2), rel=1e-7)
    assert law.second == pytest.approx(expected(lambda x: function(x) ** 2), rel=1e-7)
    assert law.mean == pytest.approx(expected(function), rel=1e-7, abs=1e-10)


THEIRS = {  # by PyTorch
    "linear": lambda f, x: x,
    "relu": lambda f, x: f.relu(x),
    "leaky_relu": lambda f, x: f.leaky_relu(x),
    "abs": lambda f, x: x.abs(),
    "tanh": lambda f, x: x.tanh(),
    "sigmoid": lambda f, x: x.sigmoid(),
    "gelu": lambda f, x: f.gelu(x),
    "gelu_tanh": lambda f, x: f.gelu(x, approximate="tanh"),
    "silu": lambda f, x: f.silu(x),
    "elu": lambda f, x: f.elu(x),
}


# XLA's defaults, which conftest.py changes: its quick tanh is off by 4e-6 far out.
USERS = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_curve_and_its_slope_are_those_of_other_libraries(name):
    import torch

    from erftheory.empirical.nets.rules import activation

    x = np.linspace(-6, 6, 240)  # without 0, where slopes are a convention
    there = torch.tensor(x, requires_grad=True)
    theirs = THEIRS[name](torch.nn.functional, there)
    (slope,) = torch.autograd.grad(theirs.sum(), there)
    curve = CURVES[name]
    np.testing.assert_allclose(curve(x), theirs.detach().numpy(), atol=1e-14, rtol=1e-13)
    np.testing.assert_allclose(curve.slope(x), slope.numpy(), atol=1e-14, rtol=1e-12)
    both = jax.vmap(jax.value_and_grad(lambda v: activation(name, v)))
    executed = jax.jit(both, compiler_options=USERS)(x.astype(np.float32))
    for ours, other in zip(executed, (theirs.detach(), slope)):
        np.testing.assert_allclose(ours, other.numpy(), atol=3e-6)
    own = {"gelu_tanh": jax.nn.gelu, "gelu": lambda v: jax.nn.gelu(v, approximate=False)}
    if name in own:  # JAX's default is the approximation
        theirs = jax.jit(own[name], compiler_options=USERS)(x.astype(np.float32))
        np.testing.assert_allclose(curve(x), theirs, atol=2e-6)


def test_average_pool_divides_the_variance_inside_channels():
    law, _ = dist.activated(dist.gaussian(2, 1), "relu")
    mean = dist.averaged(law, Fraction(1, 9))
    assert mean.level == law.level
    assert mean.variance == pytest.approx(law.variance / 9, rel=1e-12)


@given(
    st.floats(0.05, 20), st.floats(0, 0.9), st.sampled_from(["relu", "abs", "leaky_relu", "tanh"])
)
@settings(max_examples=40, deadline=None)
def test_points_agree_with_the_moments(second, share, name):
    """relu(conv) + conv through a second activation: points, moments and bounds are consistent."""
    law, _ = dist.activated(dist.gaussian(second, second * share), name)
    law = dist.add(law, dist.gaussian(1.0, 0.25))
    after, gain = dist.activated(law, name)
    nodes, probs = after.points
    assert probs.sum() == pytest.approx(1, abs=1e-12)
    assert probs.sum(0) @ nodes == pytest.approx(after.mean, abs=3e-4 * math.sqrt(after.second))
    assert probs.sum(0) @ nodes**2 == pytest.approx(float(after.second), rel=3e-4)
    assert 0 <= after.mean**2 <= after.level * (1 + 1e-9) + 1e-12 <= after.second + 1e-9
    assert 0 < gain <= 1 + 1e-12


@pytest.mark.parametrize("share", [0.9, 0.98, 0.9894, 0.999])
def test_channels_far_below_zero_keep_their_mass(share):
    """A ReLU closes whole classes of channels; they stay in the law, at 0."""
    law = dist.gaussian(25.0, 25.0 * share)
    after, _ = dist.activated(law, "relu")
    nodes, probs = after.points
    assert np.isfinite(probs).all()
    assert probs.sum() == pytest.approx(1, abs=1e-12)
    assert nodes.min() == 0
    assert probs[:, nodes == 0].sum() == pytest.approx(1 / 2, abs=1e-12)  # the law is symmetric


@pytest.mark.parametrize(("name", "s"), [("relu", 0.0), ("leaky_relu", 0.01), ("abs", -1.0)])
def test_gates_of_a_mixture(name, s):
    after, _ = dist.activated(dist.gaussian(1.7, 0.4), "relu")
    law = dist.add(after, dist.gaussian(0.8, 0.1))
    nodes, probs = law.points
    open_ = float(probs.sum(0) @ stats.norm.sf(0, nodes, math.sqrt(0.8)))
    assert float(dist.gate(law, name)) == pytest.approx(open_ + s * s * (1 - open_), rel=1e-12)
    assert dist.activated(law, name)[1] == dist.gate(law, name)


def test_equal_blocks_of_several_stages_take_one_quadrature(monkeypatch):
    calls = []

    def counted(*args, **options):
        calls.append(args)
        return smoothed(*args, **options)

    for module in (seen, dist):
        monkeypatch.setattr(module, "smoothed", counted)

    def stage(channels, times):
        wide = Conv(3, channels=channels)
        first = Chain(Residual(Chain(wide, BN), Chain(wide, BN)), RELU)
        return Chain(first, Chain(Residual(Chain(wide, BN)), RELU) * times)

    def count(*stages):
        calls.clear()
        meanfield_gains(Chain(*stages).graph)
        return len(calls)

    longest = count(stage(16, 9))
    assert 9 <= longest <= 11  # one an iteration: the law and what power sees of it together
    assert count(stage(8, 4), stage(16, 9), stage(32, 6)) == longest
