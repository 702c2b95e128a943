"""Studies of training: the exact test by enumeration, the trainer by its own ends, the controls."""

from fractions import Fraction
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from erftheory import (
    Activation,
    Chain,
    Conv,
    exact,
    from_jax,
    moments,
    receptive_field,
    trainable,
)
from erftheory.init import rim_taps
from erftheory.training import displaced
from erftheory.training.studies.controls import (
    CONTROLS,
    SPOILED,
    permuted,
    resigned,
    spoiled_growth,
)
from erftheory.training.studies.explained import explained, shapley, swapped
from erftheory.training.studies.initial import MEASURES, initial, rimmed
from erftheory.training.studies.initial import rows as initial_rows
from erftheory.training.studies.pairs import PAIRS
from erftheory.training.studies.study import Pair, study
from erftheory.training.studies.table import rows, text
from erftheory.training.studies.trials import holm, power, sign_flip

RELU = Activation("relu")
TASK = partial(lambda d: displaced(d, 200, 12, seed=1).split(0.5, 0), 2)
SMALL = Pair("small", Chain(Conv(3), RELU) * 3, TASK, 8, 150, 20, 1e-2)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(-20, 20), min_size=1, max_size=8))
def test_the_sign_flip_test_counts_all_patterns(differences):
    sums = [sum(s * d for s, d in zip(signs, differences))
            for signs in product((1, -1), repeat=len(differences))]  # fmt: skip
    want = sum(s >= sum(differences) for s in sums) / len(sums)
    assert sign_flip(differences) == pytest.approx(want)


def test_its_level_is_exact_and_ten_seeds_reach_one_per_mille():
    assert sign_flip([1.0] * 10) == 2**-10
    rng = np.random.default_rng(0)
    rejected = sum(sign_flip(rng.standard_t(2, 8)) <= 0.05 for _ in range(2000))
    assert abs(rejected - 12 / 256 * 2000) < 5 * np.sqrt(94)  # 12 of 256 patterns lie below 0.05


def test_holm_is_his_own_example():
    # Holm 1979: the smallest against α/m, the next against α/(m − 1), … until one fails
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.fixture(scope="module")
def found():
    return study(SMALL, 4, images=64, readings=2)


def test_a_study_measures_before_while_and_after(found):
    assert found.steps == [0, 75, 150] and found.axes.shape == (4, 3, 2)
    assert found.seen == (7, 7) and found.image == (12, 12)
    np.testing.assert_allclose(found.growth, np.log(found.std[:, 2] / found.std[:, 0]))
    for seed, pair in enumerate(found.states):
        for state, at in zip(pair, (0, 2), strict=True):
            np.testing.assert_allclose(found.measure(state).std, found.axes[seed, at], rtol=1e-6)
    # who is right sees both pixels, two apart along the last axis
    assert found.scores[:, -1].max() > 0.9 > found.scores[:, 0].max()
    best = found.axes[found.scores[:, -1].argmax(), 2]
    assert best[1] > best[0]


def test_a_study_is_its_seeds(found):
    again = study(SMALL, 2, images=64, readings=1, workers=1)
    np.testing.assert_array_equal(again.axes[:, -1], found.axes[:2, -1])


def test_verdicts_hold_at_a_family_wise_level(found):
    (row,) = rows([found])
    assert row["verdict"] == "undecided"  # four seeds have p >= 1/16
    assert row["p_grows"] + row["p_shrinks"] >= 1
    assert row["interval"][0] < row["growth"] < row["interval"][1]
    assert len(text([row]).splitlines()) == 2


def test_weight_decay_alone_leaves_the_erf(found):
    """Without biases a ReLU net's gradient is scaled by it, and the ERF is not."""
    decayed = CONTROLS["weight decay alone"](SMALL, 2, images=64, workers=1)
    np.testing.assert_allclose(decayed.axes[:, 1], decayed.axes[:, 0], rtol=1e-5)
    before, after = (jax.tree.leaves(s[0]) for s in decayed.states[0])
    assert all((abs(b) <= abs(a)).all() for a, b in zip(before, after, strict=True))
    assert max(np.abs(a).max() - np.abs(b).max() for a, b in zip(before, after, strict=True)) > 0


def test_permuted_weights_keep_the_law_of_every_filter(found):
    params = found.states[0][1][0]
    changed = permuted(params, jax.random.key(0))
    moved = 0
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(changed), strict=True):
        assert a.shape == b.shape
        if a.ndim == 4:
            rows_a, rows_b = (np.asarray(v).reshape(9, -1) for v in (a, b))
            np.testing.assert_array_equal(np.sort(rows_a, 0), np.sort(rows_b, 0))
            moved += (rows_a != rows_b).mean() > 0.5
        else:
            np.testing.assert_array_equal(a, b)
    assert moved == 3


def test_redrawn_signs_keep_every_square(found):
    params = found.states[0][1][0]
    changed = resigned(params, jax.random.key(0))
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(changed), strict=True):
        np.testing.assert_array_equal(abs(np.asarray(a)), abs(np.asarray(b)))
        assert a.ndim == 4 or (a == b).all()
        assert a.ndim < 4 or 0.4 < np.mean(np.asarray(a) == np.asarray(b)) < 0.6


def test_spoiled_weights_are_measured_against_the_start(found):
    same = spoiled_growth(found, lambda params, key: params)
    np.testing.assert_allclose(same, found.growth, rtol=1e-4, atol=1e-6)
    assert [spoiled_growth(found, spoil).shape for spoil in SPOILED.values()] == [(4,), (4,)]


def test_pairs_are_what_the_law_needs():
    kinds = {pair.task()[0].dense for pair in PAIRS}
    assert kinds == {True, False} and len(PAIRS) >= 6
    dilated = [pair for pair in PAIRS if pair.name.startswith("dilations")]
    counts = set()
    for pair in dilated:
        module = trainable(pair.network, nnx.Rngs(0), pair.channels)
        counts.add(sum(v.size for v in jax.tree.leaves(nnx.state(module, nnx.Param))))
    assert len(dilated) == 3 and len(counts) == 1  # equal parameters
    assert min(receptive_field(p.network).size[0] for p in PAIRS) > 8


def test_too_few_images_are_one_line():
    with pytest.raises(ValueError, match="images: got 101; takes at most the 100 held-out"):
        study(SMALL, 2, images=101)


def test_shapley_is_what_each_part_changes_averaged_over_orders():
    # f = 1 at {a}, 2 at {b}, 5 at both: a is worth (1 + (5 − 2))/2 = 2, b (2 + (5 − 1))/2 = 3
    assert shapley({(0, 0): 0, (1, 0): 1, (0, 1): 2, (1, 1): 5}) == [2.0, 3.0]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-3, 3), min_size=8, max_size=8))
def test_shapley_adds_up(values):
    keys = list(product((0, 1), repeat=3))
    found = shapley(dict(zip(keys, values, strict=True)))
    assert sum(found) == pytest.approx(values[-1] - values[0], abs=1e-12)


def test_parts_add_up_to_the_growth_and_are_what_was_swapped(found):
    said = explained(found)
    np.testing.assert_allclose(said.parts.sum(1), said.growth, atol=1e-12)
    np.testing.assert_allclose(said.parts[:, 1], 0, atol=1e-9)  # no branches meet: no gains
    # the taps' part, by hand: variances of a chain add; the rim of 12 pixels is far enough
    for seed, states in enumerate(found.states):
        std = []
        for params, _ in states:
            kernels = [np.asarray(v) for v in jax.tree.leaves(params) if v.ndim == 4]
            kernels = [k for k in kernels if k.shape[0] == 3]
            total = np.zeros(2)
            for kernel in kernels:
                law = (kernel**2).sum((2, 3)) / (kernel**2).sum()
                places = np.indices((3, 3))
                mean = (law * places).sum((1, 2))
                total += (law * places**2).sum((1, 2)) - mean**2
            std.append(np.sqrt(total).mean())
        np.testing.assert_allclose(said.theory[seed], std, rtol=1e-5)
        np.testing.assert_allclose(said.parts[seed, 0], np.log(std[1] / std[0]), atol=1e-5)
    assert said.taps.shape == (4, 2, 3) and len(said.layers) == 3


def test_gains_alone_move_the_share_of_a_branch():
    rng = np.random.default_rng(0)
    branch = rng.normal(size=(4, 4, 3, 3)) / 6

    def net(factor):
        return from_jax(
            lambda x: x + jax.lax.conv(x, jnp.float32(factor * branch), (1, 1), "SAME"),
            jax.ShapeDtypeStruct((1, 4, 12, 12), np.float32),
        ).weighted()  # fmt: skip

    light, heavy = net(1.0), net(3.0)
    mixed = swapped(light, heavy)
    np.testing.assert_allclose(exact(mixed).map, exact(heavy).map, rtol=1e-5, atol=1e-9)
    assert exact(heavy).std[0] > 1.2 * exact(light).std[0]


def test_heavy_rims_are_in_every_convolution_and_nothing_else():
    net = Chain(Chain(Conv(3), RELU) * 2, Conv((3, 5), 2), RELU)
    changed = rimmed(net, 1.0)
    assert receptive_field(changed) == receptive_field(net)
    want = 2 * Fraction(3, 4)  # of the 3×3
    tail = np.array(rim_taps((3, 5), 1.0), float)
    places = np.indices((3, 5))
    mean = (tail * places).sum((1, 2)) / tail.sum()
    last = (tail * places**2).sum((1, 2)) / tail.sum() - mean**2
    np.testing.assert_allclose(np.array(moments(changed).variance, float), float(want) + last)


def test_an_initialisation_is_compared_seed_by_seed():
    found = initial(SMALL, 3, images=64, readings=2)
    table = initial_rows([found])
    by = {row["measure"]: row for row in table}
    assert list(by) == list(MEASURES)
    start = by["std at the start"]
    assert start["effect"] == pytest.approx(
        np.exp(np.log(found.rim.std[:, 0] / found.uniform.std[:, 0]).mean())
    )
    assert 1 < start["effect"] < 1.15  # exactly 6 % on the plane of all channels
    assert by["score at the end"]["effect"] == pytest.approx(
        (found.rim.scores - found.uniform.scores)[:, -1].mean()
    )
    assert all(0.25 <= row["p"] <= 1 for row in table)  # three seeds: 2/8 at least


def test_power_is_that_of_all_signs_where_only_they_reach_the_level():
    # 10 seeds at 0.0011: all must be positive, each with probability Φ(growth / std)
    exact_power = 0.9772498680518208**10
    assert power(2.0, 1.0, 10, 0.0011) == pytest.approx(exact_power, abs=5 * 0.009)
    assert power(1.0, 1e-9, 10, 0.0011) == 1.0
