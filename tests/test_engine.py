"""The sampling engine: its gradients are autodiff's, whatever the route, memory or device."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import NETWORKS

from erftheory import (
    Activation,
    AvgPool,
    BatchNorm,
    Chain,
    Conv,
    ConvTranspose,
    Dropout,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    MaxPool,
    Residual,
    RMSNorm,
    sample,
)
from erftheory.empirical import batches
from erftheory.empirical.nets.canvas import canvas
from erftheory.empirical.nets.draw import draw
from erftheory.empirical.nets.execute import Mode, run
from erftheory.empirical.nets.plan import plan
from erftheory.empirical.sampled import cone as windows
from erftheory.empirical.sampled.engine import Engine, gradients
from erftheory.empirical.sampled.routes import NAMES, Layout
from erftheory.empirical.sampled.sampling import gradients as sampled_gradients
from erftheory.empirical.sampled.symmetry import images
from erftheory.theory.readings.receptive_field import receptive_field

RELU = Activation("relu")

# Networks whose nodes keep matching sizes on the padded canvas that the referee runs on.
TRUE = {name: NETWORKS[name] for name in ("strided", "inception", "bilinear unet", "nested")} | {
    "3-D": NETWORKS["unequal 3-D"],
    "transposed": Chain(ConvTranspose(5, 3, padding=2, dilation=2), RELU, Conv(3, 2), ndim=1),
    "residual": Chain(Conv(3), Residual(Chain(RELU, Conv(3), RELU, Conv(3))) * 3, RELU, Conv(3)),
    "scanned": Chain(Conv(3), Activation("abs"), ndim=1) * 16,
    "scanned, growing": Chain(
        Conv(3), Residual(Chain(Conv(3, padding="valid"), RELU, Conv(3, padding=2))) * 8, ndim=1
    ),
    "groups": Chain(Conv(3), RELU, Conv(3, groups=2), RELU, Conv(3, groups="depthwise"), Conv(1)),
    "pools": Chain(Conv(3), RELU, MaxPool(3, 2, padding=1), AvgPool(2), Conv(3), ndim=1),
    "dilated": Chain(Conv((3, 2), dilation=2), RELU, Conv((2, 4), dilation=(1, 3)), RELU, Conv(1)),
}


# Dear to compile: two routes each, which take turns.
DEAR = ("3-D", "bilinear unet", "residual", "nested", "inception")


def routes_of(name):
    first = DEAR.index(name) if name in DEAR else 0
    return [NAMES[(first + i) % len(NAMES)] for i in range(2 if name in DEAR else len(NAMES))]


@pytest.mark.parametrize("name", TRUE)
def test_every_route_gives_the_gradient_of_autodiff(name):
    """Against `jax.grad` of the plain executor, which pads, unrolls and knows no cone."""
    graph, nets = TRUE[name].graph, 2
    made, place = plan(graph, 4, 1), canvas(graph)
    cone = windows.cone_of(graph, ((0, 0),) * graph.ndim)
    assert windows.size_of(cone.source) == place.size
    keys = jax.random.split(jax.random.key(5), nets)
    weights = jax.vmap(lambda key: draw(made, key, "gaussian", "he"))(keys)
    wide = jax.random.normal(keys[0], (nets, 1, *place.shape))
    inside = (..., *(slice(f, f + n) for f, n in zip(place.first, place.size)))

    def autodiff(params, x):
        def unit(x):
            return run(made, params, x, Mode(framed=True), None)[(slice(None), *place.unit)].sum()

        return jax.grad(unit)(x)

    wanted = jax.jit(jax.vmap(autodiff))(weights, wide)[inside]
    assert np.abs(wanted).max() > 0
    signs = jnp.ones((nets, made.channels_out))
    for route in routes_of(name):
        function = jax.jit(gradients(graph, made, Engine(Layout(route)), cone, cone.source))
        rows = [slice(i, i + 1) for i in range(nets)] if route == "map" else [slice(None)]
        parts = []
        for row in rows:
            own = jax.tree.map(lambda a, row=row: a[row], weights)
            g, plus, _ = function(own, wide[inside][row], signs[row], keys[row])
            parts.append(g * plus.reshape(-1, *[1] * (g.ndim - 1)))
        found = np.concatenate(parts)
        np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


NORMS = BatchNorm(), InstanceNorm(), GroupNorm(2), LayerNorm(), RMSNorm()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("statistics", ["live", "frozen"])
@pytest.mark.parametrize("pieces", [1, 9])
def test_statistics_are_those_of_the_canvas(statistics, pieces, norm):
    """Valid convolutions shrink the canvas as the cone does: autodiff of the plain executor sees
    the same statistics, however many iterations are scanned on arrays of one size."""
    part = Chain(Conv(3, padding="valid"), norm, RELU, ndim=1)
    # the output has one channel: too few for norms that look across them
    network, nets = Chain(part * 5, Conv(3, padding="valid"), Activation("leaky_relu")), 2
    graph = network.graph
    made = plan(graph, 4, 1)
    cone = windows.cone_of(graph, ((-6, 6),))
    field = windows.cone_of(graph, ((0, 0),)).source
    keys = jax.random.split(jax.random.key(8), nets)
    weights = jax.vmap(lambda key: draw(made, key, "gaussian", "he"))(keys)
    x = jax.random.normal(keys[0], (nets, 1, *windows.size_of(cone.source)))
    mode = Mode(statistics=statistics)

    def autodiff(params, x):
        return jax.grad(lambda x: run(made, params, x, mode, None)[:, 6].sum())(x)

    wanted = jax.jit(jax.vmap(autodiff))(weights, x)[(..., *windows.inside(field, cone.source))]
    assert np.abs(wanted).max() > 0
    engine = Engine(Layout("batched"), statistics=statistics, pieces=pieces)
    function = jax.jit(gradients(graph, made, engine, cone, field))
    g, plus, _ = function(weights, x, jnp.ones((nets, made.channels_out)), keys)
    found = g * plus[:, None, None]
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("name", ["plain", "even kernel", "residual", "unet", "misaligned"])
def test_the_cone_of_a_unit_is_its_receptive_field(name):
    graph = NETWORKS[name].graph
    field = windows.cone_of(graph, ((0, 0),) * graph.ndim).source
    expected = receptive_field(NETWORKS[name])
    if name != "unet":  # there the size is the largest over output phases
        assert windows.size_of(field) == expected.size
        assert tuple(-first for first, _ in field) == tuple(expected.padding)


def test_routes_memory_and_chunks_agree():
    network = Chain(Conv(3), RELU, Dropout(0.25), Conv(3, stride=2), RELU)
    whole = sample(network, 3, 70, channels=4)
    for options in (
        {"route": "batched"},
        {"route": "lanes"},
        {"route": "batched", "memory": 30_000},
        {"chunk": 7},
    ):
        part = sample(network, 3, 70, channels=4, **options)
        np.testing.assert_allclose(part.map, whole.map, rtol=1e-5)
        np.testing.assert_allclose(part.stderr, whole.stderr, rtol=1e-4)
    with pytest.raises(ValueError, match="memory: got 100; takes at least"):
        sample(network, 3, 70, channels=4, memory=100)


def test_the_program_keeps_to_its_memory():
    from erftheory.empirical.sampled.program import nets

    for route in ("map", "batched", "lanes"):
        made = nets((Conv(3) * 12).graph, 8, "gaussian", "he", memory=1 << 24, route=route)
        index = jnp.zeros((2, made.width), jnp.uint32)
        lowered = made.compiled.lower(jax.random.key(0), index, jnp.uint32(4), None)
        assert lowered.compile().memory_analysis().temp_size_in_bytes < 1 << 24


def test_eight_devices_agree_with_one():
    code = (
        "import jax, numpy as np\n"
        "from erftheory import Chain, Conv, Activation, sample\n"
        "net = Chain(Conv(3), Activation('relu'), Conv(3), ndim=1)\n"
        "assert len(jax.devices()) == 8\n"
        "many = sample(net, 1, 333, channels=4)\n"
        "one = sample(net, 1, 333, channels=4, devices=jax.devices()[:1])\n"
        "np.testing.assert_allclose(many.map, one.map, rtol=1e-6)\n"
        "np.testing.assert_allclose(many.stderr, one.stderr, rtol=1e-5)\n"
    )
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "XLA_FLAGS": flags})


def test_symmetries():
    def count(network):
        return len(images(network.graph))

    assert count(Conv(3) * 3) == 8
    assert count(Chain(Conv(3, 2), MaxPool(2), Conv(4))) == 8
    assert count(Conv((3, 5))) == 4
    assert count(Conv(3, taps=[[1, 2, 1], [1, 3, 1], [1, 2, 1]])) == 4
    assert count(Conv(2, taps=[[1, 2], [3, 4]])) == 1
    assert count(Conv(2, taps=[[1, 2], [2, 5]])) == 2
    assert count(Conv((3, 3, 3))) == 48
    assert count(Residual(Conv(2))) == 2  # the skip is half a pixel off the kernel's centre
    assert count(Chain(Conv(3, padding="causal"), ndim=1)) == 2
    assert count(Residual(Chain(Conv(3, padding="causal")))) == 2
    assert count(Chain(ConvTranspose(3, 2), Conv(3), ndim=1)) == 1


@pytest.mark.parametrize("option", ["symmetric", "paired"])
def test_less_noise_and_the_same_expectation(option):
    """Averaging over equally likely nets: unbiased, and never more spread.

    The mean over seeds of the difference of paired estimates, against its own error: |t| < 4.9
    at 59 degrees of freedom has a false-alarm rate below 1e-5.
    """
    network = Chain(Conv(3), Activation("tanh"), Conv(3), RELU)
    center = np.zeros(25)
    center[12] = 1
    rows = {}
    for on in (False, True):
        options = {"symmetric": False, "paired": False} | {option: on}
        found = batches(network, 5, 2400, channels=3, count=60, **options)
        rows[on] = np.stack([t.square.ravel() / t.nets for t in found])
    gap = rows[True] - rows[False]
    pooled = gap @ np.linspace(-1, 2, 25)  # a contrast that no symmetry cancels
    t = pooled.mean() / (pooled.std(ddof=1) / np.sqrt(60))
    assert abs(t) < 4.9
    assert rows[True].var(0).sum() < rows[False].var(0).sum()


def test_linear_nets_on_the_same_weights():
    network = Chain(Conv(3), Activation("tanh"), Conv(3), Activation("tanh"), ndim=1)
    plain = Chain(Conv(3), Conv(3), ndim=1)
    linear = np.concatenate(list(sampled_gradients(network, 1, 9, channels=4, linear=True)))
    wanted = np.concatenate(list(sampled_gradients(plain, 1, 9, channels=4)))
    np.testing.assert_allclose(linear, wanted, rtol=1e-5)


@pytest.mark.parametrize("gain", [0.25, 3])
@pytest.mark.parametrize("branch", [Conv(3), Chain(Conv(3), RELU, Conv(3))], ids=["one", "two"])
def test_explicit_gains_are_the_ratio_of_powers(gain, branch):
    """Against a walk by hand: the branch's step with probability gain/(1 + gain), at every block.

    Batch means of a mean-zero contrast: |t| < 5.9 at 39 degrees of freedom, a false alarm < 1e-6.
    """
    blocks = 12  # scanned, and a last one of one channel
    taken = gain / (1 + gain)
    step = np.ones(3) / 3 if isinstance(branch, Conv) else np.convolve([1, 1, 1], [1, 1, 1]) / 9
    one = taken * step
    one[len(one) // 2] += 1 - taken
    wanted = np.ones(1)
    for _ in range(blocks):
        wanted = np.convolve(wanted, one)
    wanted = np.convolve(np.convolve(wanted, np.ones(3) / 3), np.ones(3) / 3)
    network = Chain(Conv(3), Residual(branch, gain=gain) * blocks, Conv(3), ndim=1)
    rows = batches(network, 2, 1600, channels=6, count=40, symmetric=True)
    square = np.stack([tally.square / tally.nets for tally in rows])
    t = np.arange(len(wanted)) - len(wanted) // 2
    contrast = square @ (t**2 - wanted @ t**2)
    assert abs(contrast.mean()) < 5.9 * contrast.std(ddof=1) / np.sqrt(40)
    error = contrast.std(ddof=1) / np.sqrt(40) / square.sum(1).mean()
    assert error < 0.1 * (wanted @ t**2)  # sharp enough to see a wrong gain


def test_images_as_inputs():
    pictures = np.random.default_rng(0).normal(size=(3, 2, 9, 8)) ** 2
    network = Chain(Conv(3), RELU, Conv(3), RELU, Conv(2))
    found = sample(network, 0, 400, channels=4, images=pictures)
    assert found.map.shape == (6, 6)
    uniform = sample(network, 0, 400, channels=4)
    assert np.abs(found.map - uniform.map).max() < 6 * (found.stderr + uniform.stderr).max()
    with pytest.raises(ValueError, match=r"images: got \(5, 8\) pixels; takes at least \(6, 6\)"):
        sample(network, 0, 4, images=pictures[:, :, :5])
    with pytest.raises(ValueError, match=r"images: got shape \(9, 8\)"):
        sample(network, 0, 4, images=pictures[0, 0])


def test_given_gains_scale_the_weights():
    network = Chain(Conv(3), Conv(3), ndim=1)
    power = [batches(network, 0, 64, channels=4, init=a, count=1)[0].square.sum() for a in (1, 3)]
    assert power[1] / power[0] == pytest.approx(9, rel=1e-5)
    with pytest.raises(ValueError, match="init: got -1; takes a positive number"):
        sample(network, 0, 4, init=-1)


def test_standard_errors_of_measures_match_the_scatter_of_repetitions():
    """Ratio of claimed to seen variance over 40 repetitions: within F(1e-5) of about (39, 31 · 40)
    degrees of freedom for a smooth measure, [0.35, 2.3] with room for excess kurtosis."""
    network = Chain(Conv(3), ndim=1) * 4
    runs = [sample(network, seed, 320, channels=6) for seed in range(40)]
    for measure, arguments in (("std", ()), ("excess_kurtosis", ())):
        values = np.array([getattr(r, measure)[0] for r in runs])
        claimed = np.mean([r.standard_error(measure, *arguments)[0] ** 2 for r in runs])
        assert 0.35 < claimed / values.var(ddof=1) < 2.3
    assert runs[0].standard_error("std") == runs[0].std_stderr
    for measure in ("size", lambda m: m.max()):
        assert np.isfinite(runs[0].standard_error(measure))
    assert np.isfinite(runs[0].standard_error("mass_radius", 0.5))
    with pytest.raises(ValueError, match="measure: got 'width'; takes"):
        runs[0].standard_error("width")


def test_few_effective_nets_are_said():
    network = Chain(Conv(3), RELU, ndim=1) * 20
    found = sample(network, 0, 60, channels=4)
    assert found.metadata["effective_samples"] < 30
    assert "unreliable, it rests on" in found.error.note
    assert "unreliable" not in sample(Chain(Conv(3), ndim=1), 0, 200).error.note


def test_saved_and_loaded_with_replicates(tmp_path):
    from erftheory import ERF

    found = sample(Chain(Conv(3), Conv(3)), 0, 64, channels=4)
    found.save(tmp_path / "erf.npz")
    again = ERF.load(tmp_path / "erf.npz")
    assert again == found
    assert again.standard_error("size") == found.standard_error("size")
