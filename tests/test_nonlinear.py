"""The laws of activations, and the two routes by hand that they rest on."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from erftheory import Activation, AvgPool, Chain, Conv, ConvTranspose, MaxPool
from erftheory.laws import Context, Engines, select
from erftheory.laws import nonlinear as laws
from erftheory.laws.nonlinear import RELU, SINE, boundary, piecewise
from erftheory.laws.referees import byhand as hand
from erftheory.laws.referees import wide

SIGNS = hand.signs(1, 1, 1)
CONV = hand.Convolve(SIGNS)


@pytest.fixture(scope="module")
def engines() -> Engines:
    return Engines.load()


# Nets by hand


def one_net(seed: int, *sizes: int) -> list[hand.Filters]:
    """Laws of a single filter each, with a bias."""
    rng = np.random.default_rng(seed)
    return [hand.Filters(rng.standard_normal((1, k + 1)), np.ones(1)) for k in sizes]


def test_gradients_by_hand_are_difference_quotients():
    a, b, c, d = one_net(1, 3, 2, 3, 3)
    parts = (
        hand.Pool(2, largest=True),
        hand.Convolve(a, stride=2, padding=1),
        SINE,
        hand.Pool(3),
        hand.Skip((hand.Convolve(c, dilation=2), piecewise(0.3), hand.Convolve(d))),
        hand.Convolve(b, dilation=3),
    )
    x = np.random.default_rng(2).standard_normal(hand.all_reads(parts, 3))
    weights = [law.rows for law in hand.all_laws(parts)]

    def unit(x: np.ndarray) -> float:
        return float(hand.all_run(parts, x[None], iter(weights))[0][0, 1])

    step = 1e-5
    quotients = [
        (unit(x + step * e) - unit(x - step * e)) / (2 * step) for e in np.eye(len(x))
    ]
    found = hand.mean_square(parts, x, pixels=3)
    assert np.count_nonzero(found) > 10
    np.testing.assert_allclose(np.square(quotients), found, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "parts, network",
    [
        ((CONV, RELU, CONV, RELU, CONV),
         Chain(Conv(3), Activation("relu"), Conv(3), Activation("relu"), Conv(3), ndim=1)),
        ((hand.Convolve(SIGNS, stride=2), piecewise(-1.0), hand.Convolve(SIGNS, dilation=2)),
         Chain(Conv(3, stride=2), Activation("abs"), Conv(3, dilation=2), ndim=1)),
        ((hand.Pool(3), CONV, hand.Convolve(hand.signs(1, 1))),
         Chain(AvgPool(3, 1), Conv(3), Conv(2), ndim=1)),
        ((CONV, hand.Pool(2, largest=True), CONV),
         Chain(Conv(3), MaxPool(2, 1), Conv(3), ndim=1)),
    ],
)  # fmt: skip
def test_independent_is_the_convolution_of_the_theory(engines, parts, network):
    theory = np.asarray(engines.exact(network, signal="variance").map)
    found = hand.independent(parts)
    np.testing.assert_allclose(found / found.sum(), theory, rtol=1e-12, atol=1e-15)


def test_enumeration_by_hand_is_the_enumerated_network(engines):
    """tanh, whose map depends on the input, at the referee's own input and weights' size."""
    conv = hand.Convolve(hand.signs(*(math.sqrt(2 / 3),) * 3))
    smooth = laws._smooth("tanh")
    network = Chain(Conv(3), Activation("tanh"), Conv(3), Activation("tanh"), Conv(3), ndim=1)
    with jax.enable_x64(True):
        x = np.asarray(jax.random.normal(jax.random.key(0), (1, 7), jnp.float64))[0]
    found = hand.mean_square((conv, smooth, conv, smooth, conv), x)
    theirs = engines.enumerated(network, seed=0).map
    assert np.abs(found / found.sum() - theirs).max() < 1e-12
    plain = hand.independent((CONV, CONV, CONV))
    assert np.abs(theirs - plain / plain.sum()).max() > 0.005


@pytest.mark.parametrize(
    "network, channels",
    [
        (Chain(Conv(2), Activation("relu"), Conv(2), Activation("abs"), Conv(2), ndim=1), 2),
        (Chain(Conv(2), Activation("leaky_relu"), Conv(2, groups="depthwise"),
               Activation("relu"), Conv(2), ndim=1), 2),
        (Chain(Conv(2), Activation("relu"), Conv(2), Activation("relu"), Conv(2), ndim=2), 1),
        (Chain(Conv(3), Activation("relu"), ConvTranspose(3, stride=2, padding=1),
               Activation("relu"), Conv(3), ndim=1), 1),
    ],
    ids=["two channels", "groups", "two axes", "transposed"],
)  # fmt: skip
def test_the_law_holds_for_networks_that_are_not_by_hand(engines, network, channels):
    found = np.asarray(engines.enumerated(network, channels=channels).map)
    theory = np.asarray(engines.exact(network, signal="variance").map)
    assert np.abs(found - theory).max() < 1e-13


@pytest.mark.parametrize("padded", [1, 2])
def test_zero_padding_of_a_finite_image_keeps_the_cropped_convolution(padded):
    """Against products of banded matrices, squares of weights cut off at the image's rim."""
    parts = (hand.Convolve(SIGNS, padding=1), RELU) * 3 + (hand.Convolve(SIGNS, padding=1),)
    band = (np.abs(np.subtract.outer(np.arange(5), np.arange(5))) <= 1).astype(float)
    expected = np.linalg.matrix_power(band, 4)[2] / 8
    x = np.random.default_rng(padded).standard_normal(5)
    np.testing.assert_array_equal(hand.mean_square(parts, x, pixels=5), expected)
    assert len(set(expected[:3])) == 3


# The boundary


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_boundary_is_sharp(seed):
    rows = boundary(seed)
    assert len({row.name for row in rows}) == len(rows)
    assert sum(row.keeps for row in rows) >= 15 and sum(not row.keeps for row in rows) >= 10
    for row in rows:
        if row.keeps:
            assert row.deviation < 1e-12, row
        else:
            assert row.deviation > laws.BROKEN, row


def test_the_kept_rows_keep_the_scale_too():
    """E g² itself, not only its shape: the factor is E φ′² for each activation."""
    rng = np.random.default_rng(5)
    for name, keeps, parts, dead in laws._ingredients():
        if not keeps:
            continue
        x = rng.standard_normal(hand.all_reads(parts, 1))
        x[dead] = 0
        np.testing.assert_allclose(
            hand.mean_square(parts, x), hand.independent(parts), rtol=1e-11, err_msg=name
        )


def test_a_fixed_bias_matters_where_a_gate_reads_it():
    def deviation(*biases: float) -> float:
        convs = [hand.Convolve(hand.signs(1, 1, 1, bias=(b,))) for b in biases]
        parts = [part for conv in convs for part in (conv, RELU)][:-1]
        x = np.random.default_rng(3).standard_normal(hand.all_reads(parts, 1))
        found, theory = hand.mean_square(parts, x), hand.independent(parts)
        return float(np.abs(found / found.sum() - theory / theory.sum()).max())

    assert deviation(0, 0, 0) == deviation(0, 0, 0.5) == 0
    assert deviation(0, 0.5, 0) > 1e-3 and deviation(0.5, 0, 0) > 1e-3


# Smooth activations: one layer sampled, the others averaged


@pytest.mark.parametrize("name", wide.SMOOTH)
def test_derivatives_are_those_of_the_executed_activations(name):
    from erftheory.empirical.nets.rules import activation

    h = np.linspace(-6, 6, 41)
    with jax.enable_x64(True):
        function = lambda v: activation(name, v)  # noqa: E731
        for found in (*wide.slopes(name, h), *wide.bends(name, h)):
            expected = np.asarray(jax.vmap(function)(jnp.asarray(h)))
            np.testing.assert_allclose(found, expected, atol=1e-12)
            function = jax.grad(function)


@pytest.mark.parametrize("name", wide.SMOOTH)
@pytest.mark.parametrize("s", [0.02, 0.5, 1.7])
def test_tables_by_adaptive_quadrature(name, s):
    """ψ″ and the growth of E φ² as derivatives in s: d E f / d s² = E f″ / 2."""

    def mean(which: int, s: float) -> float:
        def term(z: float) -> float:
            at = np.array(s * z)
            value = (*wide.slopes(name, at), *wide.bends(name, at))[which]
            return float(value) ** 2 * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

        return quad(term, -9, 9, points=[0.0], epsabs=1e-13, epsrel=1e-13, limit=200)[0]

    def slope(which: int) -> float:
        step = 1e-3 * s
        return (mean(which, s + step) - mean(which, s - step)) / (4 * s * step)

    expected = {
        "psi": mean(1, s), "square": mean(0, s), "growth": slope(0), "bend": 2 * slope(1)
    }  # fmt: skip
    for which, value in expected.items():
        found = wide.table(name).at(which, np.array(s**2))
        assert float(found) == pytest.approx(value, abs=2e-6), which


def test_unknown_activation():
    with pytest.raises(ValueError, match="name: got 'relu'; takes one of tanh, sigmoid"):
        wide.slopes("relu", np.zeros(1))


def full_nets(name: str, width: int, channels: int, nets: int, seed: int) -> np.ndarray:
    """g² of three-layer nets, all weights sampled; shape (nets, 7), the mean over channels."""
    rng = np.random.default_rng(seed)
    sizes = [(width, channels), (width, width), (1, width)]
    w = [rng.standard_normal((nets, 3, o, i)) * math.sqrt(2 / (3 * i)) for o, i in sizes]
    x, gates = rng.standard_normal((nets, channels, 7)), []
    for layer in range(3):
        pixels = x.shape[2] - 2
        h = np.asarray(sum(w[layer][:, a] @ x[:, :, a : a + pixels] for a in range(3)))
        x, slope = wide.slopes(name, h)
        gates.append(slope)
    g = np.ones((nets, 1, 1))
    for layer in (2, 1, 0):
        if layer < 2:
            g = g * gates[layer]
        back = np.zeros((nets, w[layer].shape[3], g.shape[2] + 2))
        for a in range(3):
            back[:, :, a : a + g.shape[2]] += w[layer][:, a].transpose(0, 2, 1) @ g
        g = back
    return np.square(g).mean(1)


@pytest.mark.parametrize("name, width, channels", [("silu", 3, 2), ("tanh", 2, 1), ("gelu", 4, 3)])
def test_averaging_two_layers_changes_no_mean(name, width, channels):
    """Pixel by pixel in standard errors, |z| < 4.9 of 7: a false alarm below 1e-5 each."""
    squares = full_nets(name, width, channels, 60_000, seed=4)
    found = wide.three_layers([name], width, channels, 30_000, seed=5)[name]
    total = squares.sum(1)
    share = squares.mean(0) / total.mean()
    error = (squares - share * total[:, None]).std(0) / total.mean() / math.sqrt(len(total))
    assert np.abs((found.map - share) / error).max() < 4.9
    # all nets at once tell less than the averages do
    offsets = (np.arange(7.0) - 3) ** 2 / 2 - 1
    value = float(squares.mean(0) @ offsets / total.mean())
    spread = (squares @ offsets - value * total).std() / total.mean() / math.sqrt(len(total))
    assert abs(found.value - value) < 4.9 * spread and found.error < spread / 2


def test_standard_errors_are_those_of_repeated_runs():
    """48 runs: χ² of their scatter in units of the stated error, inside 1e-5 tails."""
    runs = [wide.three_layers(["silu"], 4, 4, 500, seed)["silu"] for seed in range(48)]
    values = np.array([r.value for r in runs])
    stated = np.mean([r.error for r in runs])
    scatter = float(((values - values.mean()) ** 2).sum() / stated**2)
    assert 15.5 < scatter < 101  # χ² with 47 degrees of freedom


def kernel_map(name: str, x: np.ndarray) -> np.ndarray:
    """E g² of infinitely wide nets as the mixed second difference of their covariance.

    The covariance of the output at two inputs, from layer to layer by quadrature in two
    dimensions; nothing of gates, and no derivative of an activation.
    """
    z = np.linspace(-7, 7, 141)
    chance = np.exp(-(z**2) / 2)
    chance /= chance.sum()

    def mean(q: float, r: float, other: float) -> float:
        """E φ(a) φ(b) for covariance ((q, r), (r, other))."""
        left = math.sqrt(q) * z
        right = r / math.sqrt(q) * z[:, None] + math.sqrt(max(other - r * r / q, 0.0)) * z[None]
        f = wide.slopes(name, left)[0][:, None] * wide.slopes(name, right)[0]
        return float(chance @ f @ chance)

    def covariance(x: np.ndarray, y: np.ndarray) -> float:
        depth = (len(x) - 1) // 2
        rows = np.stack([x * x, x * y, y * y])
        rows = np.stack([np.convolve(row, np.ones(3), "valid") for row in rows]) * 2 / 3
        for _ in range(depth - 1):
            q, r, other = rows
            rows = np.array([
                [mean(a, a, a) for a in q],
                [mean(a, b, c) for a, b, c in zip(q, r, other)],
                [mean(c, c, c) for c in other],
            ])  # fmt: skip
            rows = np.stack([np.convolve(row, np.ones(3), "valid") for row in rows]) * 2 / 3
        return float(rows[1, 0])

    def quotients(step: float) -> np.ndarray:
        out = []
        for e in step * np.eye(len(x)):
            ends = covariance(x + e, x + e) + covariance(x - e, x - e)
            out.append((ends - 2 * covariance(x + e, x - e)) / (4 * step**2))
        return np.array(out)

    return (4 * quotients(0.02) - quotients(0.04)) / 3  # the error of second order cancels


@pytest.mark.parametrize("name", ["silu", "tanh"])
def test_the_wide_limit_is_the_curvature_of_the_covariance(name):
    x = np.random.default_rng(3).standard_normal(7)
    found = wide.limit_of(name, x[None, None])[0][0]
    expected = kernel_map(name, x)
    assert np.abs(found - expected).max() < 1e-4 * expected.max()
    plain = np.convolve(np.convolve(np.ones(3), np.ones(3)), np.ones(3))
    assert np.abs(found / found.sum() - plain / 27).max() > 0.02 * 7 / 27


def test_controls_have_mean_zero():
    """They may shift no result: 4.9 standard errors, false alarms below 1e-5 in all."""
    x = np.random.default_rng(8).standard_normal((40_000, 2, 9))
    _, controls = wide.limit_of("gelu", x)
    z = controls.mean(0) / controls.std(0) * math.sqrt(len(controls))
    assert np.abs(z).max() < 4.9 and (controls.std(0) > 0).all()


def test_deep_nets_with_one_input_channel_keep_a_deviation():
    """Infinite width is not enough: GELU and SiLU narrow the field by percents at six layers."""
    found = {name: wide.limit(name, 6, 1, 1000, seed=1) for name in ("gelu", "silu")}
    assert found["gelu"].value + 5 * found["gelu"].error < -0.03
    assert found["silu"].value + 5 * found["silu"].error < -0.06
    many = wide.limit("silu", 6, 16, 1000, seed=1)
    assert many.value - 5 * many.error > -0.01


def test_executed_deep_nets_with_one_input_channel_are_narrower_than_the_convolution(engines):
    """Six SiLU layers of 16 channels: below the convolution by over 4.3 standard errors."""
    hidden = Chain(Conv(3), Activation("silu")) * 5
    found = engines.sample(Chain(hidden, Conv(3), ndim=1), 7, 16_000, channels=16)
    assert (found.std[0] - 2) / found.std_stderr[0] < -4.3
    predicted = 2 * math.sqrt(1 + wide.limit("silu", 6, 1, 1000, seed=1).value)
    assert abs(found.std[0] - predicted) < abs(found.std[0] - 2) / 2


# The laws


def run(engines: Engines, id: str, **options):
    return select(id)[0].run(Context(engines, **options))


@pytest.mark.parametrize("id", ["ACT-1", "ACT-2"])
def test_laws_hold_by_several_routes(engines, id):
    verdict = run(engines, id, samples=1500)
    assert verdict.holds, (verdict.error, [e for e in verdict.evidence if not e.holds])
    assert len(verdict.routes) >= 4
    assert any(id in note for note in verdict.notes)


def test_act_2_fails_where_an_engine_or_the_proof_is_broken(engines, monkeypatch):
    monkeypatch.setattr(laws, "_sampled", lambda context: [])

    def enumerated(network, **options):
        found = engines.enumerated(network, **options)
        return SimpleNamespace(map=np.asarray(found.map) * (1 + 1e-9 * np.arange(found.map.size)))

    def counting(network):
        found = engines.counting(network)
        return SimpleNamespace(marginal=lambda axis: [c + 1 for c in found.marginal(axis)])

    def exact(network, **options):
        return engines.exact(Chain(Conv(2), network), **options)

    proof = engines.symbolic.nonlinearity()
    steps = [s.replace(statement=s.statement.func(s.statement.lhs, 2 * s.statement.rhs,
                                                  evaluate=False)) for s in proof]  # fmt: skip
    names = {n: getattr(engines.symbolic, n) for n in dir(engines.symbolic) if n[0] != "_"}
    wrong = proof.replace(steps=(*proof[:-1], steps[-1]))
    symbolic = SimpleNamespace(**{**names, "nonlinearity": lambda: wrong})
    assert run(engines, "ACT-2").holds
    for change in (
        {"enumerated": enumerated},
        {"counting": counting},
        {"exact": exact},
        {"symbolic": symbolic},
    ):
        assert not run(replace(engines, **change), "ACT-2").holds, change


def test_act_2_fails_where_a_counterexample_holds_or_an_example_fails(engines, monkeypatch):
    monkeypatch.setattr(laws, "_sampled", lambda context: [])
    rows = boundary()
    flip = {True: 0.02, False: 0.0}
    for keeps in (True, False):
        place = next(at for at, row in enumerate(rows) if row.keeps == keeps)
        changed = (*rows[:place], rows[place]._replace(deviation=flip[keeps]), *rows[place + 1 :])
        monkeypatch.setattr(laws, "boundary", lambda seed, changed=changed: changed)
        assert not run(engines, "ACT-2").holds


def test_sampled_relu_nets_with_a_heavy_middle_fail(engines):
    def gradients(*args, **options):
        for block in engines.gradients(*args, **options):
            block = np.array(block)
            block[:, block.shape[1] // 2] *= 1.6
            yield block

    context = Context(replace(engines, gradients=gradients), samples=4000)
    assert not all(e.holds for e in laws._sampled(context))


def test_act_1_tells_a_deviation_that_stays_from_one_that_fades():
    def deviations(values, error):
        return {n: wide.Deviation(v, error, np.ones(7)) for n, v in zip((1, 4, 16, 64), values)}

    level = 4e-7
    fades = deviations((0.02, 0.008, 0.002, 0.0005), 1e-4)
    stays = deviations((0.02, 0.008, 0.0078, 0.0079), 1e-4)
    turns = deviations((0.02, 0.008, -0.001, -0.0079), 1e-4)
    assert all(e.holds for e in laws._falls("x", "r", fades, level))
    for wrong in (stays, turns):
        assert not all(e.holds for e in laws._falls("x", "r", wrong, level))
    del fades[1]
    exponent, spread = laws._exponent(fades)
    assert exponent == pytest.approx(-1) and 0.02 < spread < 0.05
    assert laws._tail(laws._quantile(1e-6)) == pytest.approx(1e-6)


def test_act_1_fails_where_the_wide_limit_or_the_nets_are_wrong(engines, monkeypatch):
    context = Context(engines, samples=1000)
    monkeypatch.setattr(laws, "_executed", lambda context, theory: [])
    assert select("ACT-1")[0].run(context).holds
    true = wide.limit

    def doubled(name, depth, channels, inputs, seed):
        found = true(name, depth, channels, inputs, seed)
        return replace(found, value=found.value * (2 if channels == 1 else 1))

    monkeypatch.setattr(wide, "limit", doubled)
    assert not select("ACT-1")[0].run(context).holds


def test_slope_one_at_zero_matters_only_on_a_zero_patch():
    """The convention at 0 changes nothing for generic inputs, and everything on a dark patch."""
    x = np.random.default_rng(0).standard_normal(9)
    dark = np.where((np.arange(9) > 2) & (np.arange(9) < 6), 0.0, x)
    values = []
    for at_zero in (0.0, math.sqrt(0.5), 1.0):
        parts = laws._alternate(piecewise(0.0, at_zero))
        values.append([hand.mean_square(parts, signal) for signal in (x, dark)])
    for other in values[1:]:
        np.testing.assert_array_equal(values[0][0], other[0])
    expected = hand.independent(laws._alternate(RELU))
    np.testing.assert_allclose(values[1][1], expected, rtol=1e-12)
    assert values[0][1][4] < expected[4] < values[2][1][4]
