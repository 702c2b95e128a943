"""What docs/architecture.md promises: a layer, an algebra and a law of one's own, added here with
what that page says and nothing else, and put through every reading and both executors.

The layer is root-mean-square pooling, y = √(mean of x² over a window) (Lᵖ pooling with p = 2). Its
slopes are x_i/(k y), so their squares add up to 1/k whatever the pixels are, and those of two
pixels are uncorrelated where the pixels are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import roots_genlaguerre

import erftheory
from erftheory import AvgPool, Chain, Conv, Residual
from erftheory.empirical.nets import rules
from erftheory.empirical.nets.draw import draw, initialise
from erftheory.empirical.nets.execute import Mode, apply, run
from erftheory.empirical.nets.plan import plan
from erftheory.empirical.sampled.cone import cone_of, inside, size_of
from erftheory.empirical.sampled.engine import Engine, gradients
from erftheory.empirical.sampled.routes import NAMES, Layout
from erftheory.laws import Context, Engines, Evidence, law, select
from erftheory.laws.machine import base
from erftheory.laws.machine.base import equal
from erftheory.network.base import Network
from erftheory.network.kernel import Kernel
from erftheory.network.layers import Layer
from erftheory.network.step import Step
from erftheory.theory.gains.prepare import prepare
from erftheory.theory.units.law import UnitLaw, discrete_law
from erftheory.theory.units.unit_laws import UNIT_LAWS, Passed
from erftheory.theory.walk.algebra import ConvolutionAlgebra
from erftheory.theory.walk.weights import to_float

# ---- a layer ------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class LpPool(Layer):
    """Root mean square over windows."""

    kernel: int
    stride: int
    padding: int = 0

    def step(self, ndim: int) -> Step:
        kernel, stride = (self.kernel,) * ndim, (self.stride,) * ndim
        pads = (self.padding,) * ndim
        return Step(Kernel(kernel), stride, (1,) * ndim, pads, pads, kind="random")


def unit_law(op: LpPool, ndim: int, before: UnitLaw) -> Passed:
    """√(mean of squares of k normal pixels) is σ√(2t/k) with t of the Gamma law of shape k/2."""
    count = op.kernel**ndim
    t, weight = roots_genlaguerre(32, count / 2 - 1)
    nodes = np.sqrt(2 * t / count * to_float(before.second))
    return Passed(discrete_law(nodes, (weight / weight.sum())[None]), Fraction(1, count))


def value(op: LpPool, parts: list[jax.Array]) -> jax.Array:
    return jnp.sqrt(sum(jnp.square(part) for part in parts) / len(parts))


@pytest.fixture(autouse=True)
def rows(monkeypatch):
    monkeypatch.setitem(UNIT_LAWS, LpPool, unit_law)
    monkeypatch.setitem(rules.WINDOWS, LpPool, rules.Over(value))


POOL = LpPool(3, 2, 1)
# Conv reads 3, the pool 3 of stride 2, and Conv 3 of a grid of 2
LINE = Chain(Conv(3), POOL, Conv(3), ndim=1)
PLANE = Chain(Conv(3), POOL, Conv(3), ndim=2)


def by_hand(ndim: int) -> tuple[np.ndarray, int]:
    """Numbers of paths of LINE by adding them one by one, and the first pixel of output 0."""
    found: dict[int, int] = {}
    for a in range(3):
        for b in range(3):
            for c in range(3):
                pooled = a - 1  # of the last convolution, "same"
                middle = 2 * pooled + b - 1
                pixel = middle + c - 1
                found[pixel] = found.get(pixel, 0) + 1
    first, last = min(found), max(found)
    line = np.array([found.get(p, 0) for p in range(first, last + 1)])
    return (line if ndim == 1 else np.multiply.outer(line, line)), first


@pytest.mark.parametrize("network, ndim", [(LINE, 1), (PLANE, 2)], ids=["1-D", "2-D"])
def test_every_reading_knows_the_layer(network, ndim):
    counts, first = by_hand(ndim)
    pixels = np.arange(len(counts)) + first
    line = counts if ndim == 1 else counts.sum(1)
    mean = Fraction(int(line @ pixels), int(line.sum()))
    variance = Fraction(int(line @ pixels**2), int(line.sum())) - mean**2

    assert erftheory.receptive_field(network).size == counts.shape
    assert np.array_equal(erftheory.counting(network).map, counts)
    assert erftheory.moments(network).variance == (variance,) * ndim
    assert erftheory.cumulants(network, order=2).values == ((mean, variance),) * ndim
    for method in ("auto", "tilted", "convolution", "spectrum", "direct"):
        found = erftheory.exact(network, method=method)
        assert found.offset == (first,) * ndim
        np.testing.assert_allclose(found.map, counts / counts.sum(), rtol=1e-9, atol=1e-15)
    wide = 2 * len(counts) + 20
    found = erftheory.exact(network, image=wide)
    np.testing.assert_allclose(np.sort(found.map[found.map > 0]),
                               np.sort(counts[counts > 0] / counts.sum()), rtol=1e-9)  # fmt: skip
    for kind in ("normal", "edgeworth", "saddlepoint"):
        assert erftheory.approximate(network, kind=kind).map.sum() == pytest.approx(1, abs=0.05)
    assert "LpPool" in str(network.summary())
    assert erftheory.advise(network, 64)


def test_its_gain_counts_where_branches_meet():
    """Behind a He convolution of gain 2 the pool passes 1/3; the identity passes 1."""
    block = Chain(Residual(Chain(Conv(3), LpPool(3, 1, 1))), ndim=1)
    share, spread = Fraction(2, 3), Fraction(2, 3) + Fraction(2, 3)
    found = erftheory.moments(block, "variance", "he").variance
    assert found == (share / (1 + share) * spread,)


def test_padding_is_felt_on_an_image():
    """Four pixels, window of three: outputs 0 and 1 read pixels 0, 1 and 1, 2, 3."""
    chain = Chain(LpPool(3, 2, 1), ndim=1)
    found = erftheory.exact(chain, image=4, unit=0)
    np.testing.assert_allclose(found.map, [1 / 2, 1 / 2, 0, 0])
    found = erftheory.exact(chain, image=4, unit=1)
    np.testing.assert_allclose(found.map, [0, 1 / 3, 1 / 3, 1 / 3])


def test_it_is_executed_as_written():
    x = np.random.default_rng(0).normal(size=(1, 9, 8))
    with jax.enable_x64(True):
        net = Chain(LpPool(3, 2, 1), ndim=2)
        y = np.asarray(apply(net, initialise(net, jax.random.key(0)), jnp.asarray(x)))[0]
    framed = np.pad(x[0], 1)
    wanted = [
        [math.sqrt((framed[2 * i : 2 * i + 3, 2 * j : 2 * j + 3] ** 2).mean()) for j in range(4)]
        for i in range(5)
    ]
    np.testing.assert_allclose(y, wanted, rtol=1e-12)


def test_nan_finds_its_field():
    found = erftheory.probe_receptive_field(PLANE)
    assert found.size == erftheory.receptive_field(PLANE).size
    assert found.offset == tuple(-p for p in erftheory.receptive_field(PLANE).padding)


@pytest.mark.parametrize("route", NAMES)
def test_both_executors_agree(route):
    """The gradient of one unit of every net, by autodiff of the plain executor and by the engine.

    Without padding a canvas as large as the cone has the unit alone.
    """
    valid = "valid"
    network = Chain(Conv(3, padding=valid), LpPool(3, 2), Conv(2, padding=valid), ndim=2)
    graph, nets = network.graph, 3 if route != "map" else 1
    made, cone = plan(graph, 4, 2), cone_of(graph, ((0, 0),) * 2)
    keys = jax.random.split(jax.random.key(3), nets)
    weights = jax.vmap(lambda key: draw(made, key, "gaussian", "he"))(keys)
    x = jax.random.normal(keys[0], (nets, 2, *size_of(cone.source)))

    def autodiff(params, x):
        return jax.grad(lambda x: run(made, params, x, Mode(), None).sum())(x)

    wanted = jax.jit(jax.vmap(autodiff))(weights, x)
    assert np.abs(wanted).min() > 0
    function = jax.jit(gradients(graph, made, Engine(Layout(route)), cone, cone.source))
    found, _, _ = function(weights, x, jnp.ones((nets, made.channels_out)), keys)
    spot = inside(cone.source, cone.source)
    np.testing.assert_allclose(found[(..., *spot)], wanted, atol=1e-5 * np.abs(wanted).max())


def test_sampled_nets_have_the_map_of_the_theory():
    """On iid pixels the law of powers is exact, also where windows overlap."""
    network = Chain(LpPool(3, 2, 1), Conv(3), ndim=1)
    found = erftheory.sample(network, 4, 4000, channels=4)
    exact = erftheory.exact(network)
    (error,) = found.standard_error("std")
    assert error < 0.02
    assert abs(found.std[0] - exact.std[0]) < 4.9 * error  # false alarm 1e-6


# ---- an algebra ---------------------------------------------------------------------------------


class PathAlgebra(ConvolutionAlgebra[int]):
    """The number of paths from the unit to the input."""

    def unit(self, position):
        return 1

    def kernel(self, kernel, spacing):
        return sum(1 for tap in kernel.exact if tap)

    def convolve(self, a, b):
        return a * b

    def shift(self, a, by):
        return a

    def mix(self, parts):
        return sum(signal for _, signal in parts)


def paths(network: Network) -> int:
    return PathAlgebra().fold(prepare(network, "gradient", None))


def test_an_algebra_of_ones_own():
    assert paths(LINE) == by_hand(1)[0].sum() == 27
    assert paths(PLANE * 3) == 27**6
    counted = Chain(Residual(Conv(3)) * 2, AvgPool(2), ndim=1)
    assert paths(counted) == (1 + 3) ** 2 * 2


def test_an_algebra_must_say_what_its_signals_do():
    class Half(ConvolutionAlgebra[int]):
        def unit(self, position):
            return 1

    with pytest.raises(TypeError, match="abstract"):
        Half()  # type: ignore[abstract]


# ---- a law --------------------------------------------------------------------------------------


@pytest.fixture
def own_law(monkeypatch):
    monkeypatch.setattr(base, "_LAWS", dict(base._LAWS))

    @law("TOY-1", "pools add", "a pool of k pixels adds (k² − 1)/12 to the variance", "this test")
    def pooled(context: Context) -> list[Evidence]:
        found = []
        for k in range(1, 6):
            adds = context.engines.moments(Chain(LpPool(k, 1), ndim=1)).variance[0]
            found.append(equal("moments", "closed form", f"k={k}", adds, Fraction(k * k - 1, 12)))
        return found

    return pooled


def test_a_law_of_ones_own(own_law):
    assert select("TOY-*") == (own_law,)
    engines = Engines.load()
    verdict = own_law.run(Context(engines))
    assert verdict.holds and len(verdict.evidence) == 5
    assert verdict.routes == ("moments", "closed form")

    def broken(network):
        return engines.moments(Chain(network, Conv(3)))

    assert not own_law.run(Context(replace(engines, moments=broken))).holds


def test_the_law_is_gone_again():
    with pytest.raises(ValueError, match="TOY"):
        select("TOY-1")
