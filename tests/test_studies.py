"""Studies of training: the exact test by enumeration, the trainer by its own ends, the controls."""

from functools import partial
from itertools import product

import jax
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from erftheory import Activation, Chain, Conv, receptive_field, trainable
from erftheory.training import displaced
from erftheory.training.studies.controls import CONTROLS, permuted, permuted_growth
from erftheory.training.studies.pairs import PAIRS
from erftheory.training.studies.study import Pair, study
from erftheory.training.studies.table import rows, text
from erftheory.training.studies.trials import holm, sign_flip

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
    assert found.scores.max() > 0.9
    best = found.axes[found.scores.argmax(), 2]
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
    assert permuted_growth(found).shape == (4,)


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
