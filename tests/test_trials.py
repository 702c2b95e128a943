"""The machinery of sampled laws on nets made by NumPy, whose law is known."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy.stats import binom, kstest, nct, norm

from erftheory import Chain, Conv
from erftheory.laws import Context, Engines, layers, sampled_growth
from erftheory.laws.machine import trials
from erftheory.laws.machine.trials import (
    BATCHES,
    LEVELS,
    Draws,
    draw,
    flip_test,
    judge,
    shape_trial,
)

ALARM = 1e-4  # false alarm of one statistical test below, at fixed seeds
P = np.array([1.0, 4, 10, 16, 19, 16, 10, 4, 1]) / 81  # four layers of three taps
NET = Chain(Conv(3), ndim=1) * 4


@pytest.fixture(scope="module")
def engines() -> Engines:
    return Engines.load()


def made(engines: Engines, p: np.ndarray = P, heavy: float = 0.0) -> Engines:
    """Engines whose nets are g(t) = r √p(t) z(t), z and r independent, log r of std `heavy`."""

    def gradients(network, seed, samples, channels=16, **options):
        rng = np.random.default_rng(seed)
        for start in range(0, samples, 700):  # blocks that do not fit the batches
            n = min(700, samples - start)
            r = np.exp(heavy * rng.standard_normal((n, *(1 for _ in p.shape))))
            yield (r * np.sqrt(p) * rng.standard_normal((n, *p.shape))).astype(np.float32)

    return replace(engines, gradients=gradients)


def context_of(engines: Engines, seed: int = 0, samples: int = 500) -> Context:
    return Context(engines, samples=samples, seed=seed)


# The budget


def test_the_false_alarms_of_a_run_stay_in_the_budget():
    assert sum(LEVELS.values()) <= 1e-4
    assert all(level > 0 for level in LEVELS.values())
    # a p value must be able to fall below every level
    assert 2 / (trials.FLIPS + 1) <= min(LEVELS.values())


# Sign flips


def test_flips_are_those_of_all_signs(monkeypatch):
    monkeypatch.setattr(trials, "BATCHES", 9)
    rows = np.random.default_rng(3).exponential(size=(9, 4)) - 0.7
    units = rows / np.sqrt((rows**2).sum(0))
    signs = np.array(list(product((-1, 1), repeat=9)))
    exact = (np.abs(signs @ units).max(1) >= np.abs(units.sum(0)).max() * (1 - 1e-12)).mean()
    found = [flip_test(rows, seed) for seed in range(200)]
    # the stopped estimate has relative standard error √((1 − p)/ENOUGH) and a bias of 1/ENOUGH
    error = exact * math.sqrt((1 - exact) / trials.ENOUGH / len(found))
    assert abs(np.mean(found) - exact) < norm.isf(ALARM / 2) * error + exact / trials.ENOUGH


def test_p_values_are_uniform_for_symmetric_heavy_tails():
    rng = np.random.default_rng(5)
    mixing = rng.standard_normal((6, 6))
    values = [flip_test(rng.standard_t(3, (200, 6)) @ mixing, s) for s in range(400)]
    assert kstest(values, "uniform").pvalue > ALARM


def test_a_shift_gives_a_small_p_value_and_the_smallest_is_resolved():
    rng = np.random.default_rng(6)
    rows = rng.standard_normal((4000, 3))
    rows[:, 1] += 0.2  # twelve standard errors
    assert flip_test(rows, 0) == pytest.approx(1 / (trials.FLIPS + 1), rel=20)
    assert flip_test(rows, 0) < min(LEVELS.values())


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_a_dead_column_or_nan_never_passes(value):
    rows = np.random.default_rng(7).standard_normal((80, 3))
    rows[:, 2] = value
    assert math.isnan(flip_test(rows, 0))


# Contrasts


@pytest.mark.parametrize(
    "line", [P, np.array([0.5, 0, 0.2, 0, 0.3]), np.array([0.25, 0.75]), np.ones(27) / 27]
)
def test_polynomials_are_orthonormal_and_miss_the_constant(line):
    rows = trials.polynomials(line)
    assert len(rows) == min(4, np.count_nonzero(line) - 1)
    assert rows * line @ rows.T == pytest.approx(np.eye(len(rows)), abs=1e-12)
    assert rows @ line == pytest.approx(np.zeros(len(rows)), abs=1e-12)
    assert not rows[:, line == 0].any()


def test_polynomials_are_krawtchouk_of_a_binomial():
    n = 12
    t = np.arange(n + 1)
    rows = trials.polynomials(binom.pmf(t, n, 0.5))
    z = t - n / 2
    known = (z, z**2 - n / 4, z**3 - (3 * n - 2) / 4 * z)
    for row, poly in zip(rows, known):
        ratio = row[poly != 0] / poly[poly != 0]
        assert ratio == pytest.approx(np.full(len(ratio), ratio[0]), rel=1e-9)


@pytest.mark.parametrize("p", [P, np.outer(P, P[2:7] / P[2:7].sum())])
def test_contrasts_vanish_at_the_theory_whatever_the_power(p):
    power = np.random.default_rng(8).exponential(size=BATCHES)
    contrasts = trials.shape_contrasts(power.reshape(-1, *(1,) * p.ndim) * p, p)
    assert {"mean, axis 0", "variance, axis 0", "kurtosis, axis 0"} <= contrasts.keys()
    assert ("rim" in contrasts) == bool((p < 0.05 * p.max()).any())
    assert sum(k.startswith("pixel") for k in contrasts) == np.count_nonzero(p >= 0.05 * p.max())
    for values in contrasts.values():
        assert values == pytest.approx(np.zeros(BATCHES), abs=1e-12)


# Nets


def test_batch_means_by_hand(engines):
    nets = 1234
    blocks = list(made(engines).gradients(NET, 3, nets))
    found = Draws.of(blocks, nets)
    g = np.concatenate(blocks).astype(float)
    ends = [np.flatnonzero(np.arange(nets) * BATCHES // nets == b) for b in range(BATCHES)]
    assert found.first == pytest.approx(np.stack([g[i].mean(0) for i in ends]), abs=1e-14)
    assert found.second == pytest.approx(np.stack([(g[i] ** 2).mean(0) for i in ends]))
    power = (g**2).sum(1)
    assert found.power == pytest.approx(power)
    assert found.effective == pytest.approx(power.sum() ** 2 / (power**2).sum())
    with pytest.raises(ValueError, match="gradients: got 1234 nets; takes 1300"):
        Draws.of(blocks, 1300)


def test_too_few_nets(engines):
    with pytest.raises(ValueError, match="samples: got 39; takes at least 40"):
        draw(context_of(engines), NET, samples=39)


def test_heavy_tails_are_told(engines):
    fine, heavy = context_of(made(engines)), context_of(made(engines, heavy=2.0))
    for context, doubt in ((fine, False), (heavy, True)):
        evidence = shape_trial(context, NET, "a net", level=1e-6, theory=P)
        assert any("too few" in note for note in context.notes) == doubt
        assert ("too few" in evidence[0].quantity) == doubt


def test_shape_of_another_size(engines):
    with pytest.raises(ValueError, match=r"theory: got a map of shape \(8,\); takes \(9,\)"):
        shape_trial(context_of(made(engines)), NET, "a net", level=1e-6, theory=P[1:])


# The trial as a test


@pytest.mark.parametrize("heavy", [0.0, 0.6])
def test_p_is_uniform_where_the_theory_is_right(engines, heavy):
    right = made(engines, heavy=heavy)
    values = [
        shape_trial(context_of(right, s), NET, "a net", level=1e-6, theory=P)[0].measured
        for s in range(300)
    ]
    assert kstest(values, "uniform").pvalue > ALARM


def test_power_is_what_it_says(engines, monkeypatch):
    monkeypatch.setattr(trials, "FLIPS", 5_000)  # plenty for a level of 0.05
    level, runs = 0.05, 300
    # the variance a twentieth too large, along the variance polynomial
    spread = P @ (np.arange(9) - 4.0) ** 2
    row = trials.polynomials(P)[1]
    off = 1 + 0.05 * spread / (P @ ((np.arange(9) - 4.0) ** 2 * row)) * row
    assert P * off @ (np.arange(9) - 4.0) ** 2 == pytest.approx(1.05 * spread)
    wrong = made(engines, P * off)
    seen, stated = 0, []
    for seed in range(runs):
        evidence = shape_trial(
            context_of(wrong, seed, 400), NET, "a net", level=level, theory=P
        )
        seen += not evidence[0].holds
        stated.append(next(e for e in evidence if "power" in e.quantity).measured)
        assert not any(e.tested for e in evidence[1:])
    mean = float(np.mean(stated))
    assert 0.3 < mean < 0.95  # in the range where the statement says something
    # a lower bound (Bonferroni) that is not far off
    error = math.sqrt(mean * (1 - mean) / runs)
    assert mean - norm.isf(ALARM) * error < seen / runs < mean + 0.2


def test_noncentral_power_and_its_far_ends():
    threshold = trials.power(0.0, 0.01, 5)  # one of the five, both tails, of level 0.01 / 10
    assert threshold == pytest.approx(0.001, rel=1e-6)
    for delta in (1.0, 4.0, 8.0):
        from scipy.stats import t

        expected = nct.sf(t.isf(1e-6 / 20, BATCHES - 1), BATCHES - 1, delta)
        assert trials.power(delta, 1e-6, 10) == pytest.approx(expected, rel=1e-6)
    assert trials.power(500.0, 1e-6, 10) == 1.0


def test_a_gradient_in_a_hole_fails_exactly(engines):
    p = np.array([1.0, 0, 2, 0, 1]) / 4
    clean = made(engines, p)
    leak = made(engines, p + np.array([0, 0, 0, 1e-9, 0]))
    for nets, holds in ((clean, True), (leak, False)):
        evidence = shape_trial(context_of(nets), NET, "a net", level=1e-6, theory=p)
        assert evidence[0].holds == holds and "holes" in evidence[0].quantity
        assert evidence[1].holds


def test_a_plane_is_judged_on_both_axes(engines):
    p = np.outer(P, P)
    wrong = np.outer(P, np.convolve(P, [0.05, 0.9, 0.05], mode="same"))
    evidence = shape_trial(context_of(made(engines, p)), NET, "a net", level=1e-6, theory=p)
    assert evidence[0].holds
    assert sum("variance (px²)" in e.quantity for e in evidence) == 2
    nets = made(engines, wrong / wrong.sum())
    assert not shape_trial(context_of(nets, samples=4000), NET, "x", level=1e-6, theory=p)[0].holds


def test_judge_measures_the_variance_in_pixels(engines):
    context = context_of(made(engines), samples=4000)
    evidence = judge(context, draw(context, NET), P, "a net", level=1e-6)
    e = next(e for e in evidence if "variance (px²)" in e.quantity)
    assert e.expected == pytest.approx(8 / 3)
    error = float(e.quantity.rsplit(" ", 1)[1])
    assert 0 < error < 0.05
    assert abs(e.measured - 8 / 3) < 1.1 * norm.isf(ALARM / 2) * error


# Lengths, routing, masks


def test_magnitude_size_of_a_gaussian():
    # √(p⊗p) of a Gaussian is above a share s of its peak within r² = 4σ² ln(1/s)
    t = np.arange(-150, 151)
    expected = math.sqrt(4 * math.pi * math.log(1 / (1 - 0.9545)))
    for std in (8.0, 20.0):
        line = np.exp(-(t**2) / (2 * std**2))
        line /= line.sum()
        assert sampled_growth.magnitude_size(line) == pytest.approx(expected * std, rel=3e-3)
        # d log size / d log σ = 1; d p / d log σ = p (t²/σ² − 1)
        slope = sampled_growth.magnitude_size_gradient(line) @ (line * (t**2 / std**2 - 1))
        assert slope == pytest.approx(1, rel=0.02)
        assert sampled_growth.std_gradient(line) @ (line * (t**2 / std**2 - 1)) == (
            pytest.approx(1, rel=1e-6)
        )
        assert sampled_growth.line_std(line) == pytest.approx(std, rel=1e-6)


def test_middle_of_three_by_simulation():
    nets = 1_000_000
    rng = np.random.default_rng(9)
    x, w = rng.standard_normal((nets, 4)), rng.standard_normal((nets, 2))
    h = w[:, :1] * x[:, :-1] + w[:, 1:] * x[:, 1:]
    share = float((h.argmax(1) == 1).mean())
    known = layers.middle_of_three()
    error = math.sqrt(known * (1 - known) / nets)
    assert abs(share - known) < norm.isf(ALARM / 2) * error
    assert abs(known - 1 / 3) > 50 * error / 5  # and it is not one third


def test_all_masks_against_simulation():
    """Gaussian weights in the place of ±1: E g² does not know the difference."""
    maps, settings = layers._all_masks(layers.RATE)
    assert settings == 2**11
    rng, nets, keep = np.random.default_rng(10), 200_000, 1 - float(layers.RATE)
    w = rng.standard_normal((3, nets, 2))
    mask = [(rng.random((nets, n)) < keep) / keep for n in (2, 3)]
    g = layers._spread(layers._spread(w[0] * mask[0], w[1]) * mask[1], w[2])
    squares = g**2
    z = (squares.mean(0) - np.array(maps, dtype=float)) / (squares.std(0) / math.sqrt(nets))
    assert np.abs(z).max() < norm.isf(ALARM / 8)


# The calibration script


def test_calibration_sees_p_values_that_are_not_uniform(tmp_path, monkeypatch, capsys):
    import importlib.util
    import json
    import sys
    from pathlib import Path

    path = Path(__file__).parents[1] / "benchmarks" / "calibration.py"
    spec = importlib.util.spec_from_file_location("calibration", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    uniform = np.random.default_rng(11).random(500)
    assert module.uniformity(list(uniform))["ks_p"] > ALARM
    biased = module.uniformity(list(uniform**2))
    assert biased["ks_p"] < ALARM and biased["below 0.01"] > biased["below 0.05"] / 4
    target, picture = tmp_path / "out.json", tmp_path / "out.png"
    monkeypatch.setattr(sys, "argv", [
        "calibration.py", "--laws", "SUB-1", "--runs", "2", "--samples", "64", "--tails", "0",
        "--json", str(target), "--plot", str(picture),
    ])  # fmt: skip
    module.main()
    found = json.loads(target.read_text())
    assert [len(p) for p in found["p"].values()] == [2]
    assert picture.stat().st_size > 5_000 and "SUB-1" in capsys.readouterr().out
