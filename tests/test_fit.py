"""Training: losses beside PyTorch's, scores beside scikit-learn's, and kills at any moment."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.metrics
import torch
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from erftheory import Activation, BatchNorm, Chain, Conv, Dropout, fit, trainable
from erftheory.training import Classifier, Dense, digits, displaced, flipped, noisy, shifted
from erftheory.training.fitting.batches import indices
from erftheory.training.fitting.score import accuracy, mean_iou
from erftheory.training.fitting.step import confusion, loss

RELU = Activation("relu")
SMALL = Chain(Conv(3, 2), BatchNorm(), RELU, Dropout(0.1), Conv(3, 2), RELU)


def digit_net(seed=0):
    return trainable(SMALL, nnx.Rngs(seed), 16, Classifier(10))


@pytest.fixture(scope="module")
def parts():
    return digits(12).split(0.25, 0)


def weights(module):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(module, nnx.Param))]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dense", [False, True])
def test_loss_is_pytorchs(smoothing, weighted, dense):
    rng = np.random.default_rng(0)
    shape = (6, 5, 4) if dense else (6,)
    scores, labels = rng.normal(size=(*shape, 3)), rng.integers(-1, 3, shape)
    weight = np.array([0.5, 2.0, 1.0]) if weighted else None
    if weighted and smoothing:  # PyTorch weighs the smoothed part by each class's own weight
        smoothing = 0.0
    want = torch.nn.functional.cross_entropy(
        torch.tensor(np.moveaxis(scores, -1, 1)), torch.tensor(labels), ignore_index=-1,
        weight=None if weight is None else torch.tensor(weight), label_smoothing=smoothing,
    )  # fmt: skip
    found = loss(jnp.asarray(scores), jnp.asarray(labels), smoothing, weight)
    assert float(found) == pytest.approx(float(want), rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 5), st.integers(0, 10**6))
def test_scores_are_scikit_learns(classes, seed):
    rng = np.random.default_rng(seed)
    scores, labels = rng.normal(size=(40, classes)), rng.integers(-1, classes, 40)
    counts = np.asarray(confusion(jnp.asarray(scores), jnp.asarray(labels)))
    true, found = labels[labels >= 0], scores.argmax(-1)[labels >= 0]
    np.testing.assert_array_equal(
        counts, sklearn.metrics.confusion_matrix(true, found, labels=range(classes))
    )
    assert accuracy(counts) == pytest.approx(sklearn.metrics.accuracy_score(true, found))
    seen = sorted({*true, *found})
    want = sklearn.metrics.jaccard_score(true, found, labels=seen, average="macro")
    assert mean_iou(counts) == pytest.approx(want)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 5))
def test_an_epoch_shows_every_image_once(batch, count, epoch):
    batch = min(batch, count)
    each = count // batch
    shown = np.concatenate([indices((1, 2), epoch * each + i, batch, count) for i in range(each)])
    assert len(shown) == len(set(shown)) == each * batch
    assert shown.min() >= 0 and shown.max() < count


def test_changes_move_labels_with_their_pixels():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 9, (64, 7, 6))
    images = labels[..., None].astype(np.float32)
    key = jax.random.key(0)
    for change in (flipped(), flipped(0), shifted(2)):
        x, y = (np.asarray(a) for a in change(key, jnp.asarray(images), jnp.asarray(labels)))
        inside = y >= 0
        np.testing.assert_array_equal(x[..., 0][inside], y[inside])
        assert not x[..., 0][~inside].any()
        assert (x != images).any() and (y != labels).any()
    moved = {tuple(np.argwhere(row >= 0)[0]) + tuple(np.argwhere(row >= 0)[-1]) for row in y}
    assert len(moved) > 15  # of 25 places
    x, y = noisy(0.5)(key, jnp.asarray(images), jnp.asarray(labels))
    assert abs(float((x - images).std()) - 0.5) < 0.03  # 64·42 pixels: 4 standard errors
    np.testing.assert_array_equal(y, labels)


def test_digits_are_learned_and_the_held_out_score_says_so(parts):
    train, held = parts
    seen = []
    done = fit(digit_net(), train, 300, 0, held_out=held, every=100, learning_rate=3e-3,
               callback=lambda step, module: seen.append(step))  # fmt: skip
    scores = [row["score"] for row in done.rows]
    assert scores[-1] > 0.3 and done.score == max(scores)  # chance is 0.1 ± 0.014
    assert seen == [0, 100, 200, 300] and done.steps == 300 and done.stopped == "steps"
    assert list(done.to_pandas().columns) == ["loss", "held_out_loss", "score"]
    found = np.asarray(done.module(np.moveaxis(held.images, 1, -1))).argmax(-1)
    assert sklearn.metrics.accuracy_score(held.labels, found) == pytest.approx(scores[-1])


def test_pixels_are_learned_as_far_as_the_receptive_field_reaches():
    net = Chain(Conv(3, padding="same"), RELU, Conv(1), RELU)
    scores = []
    for distance in (1, 2):
        data, held = displaced(distance, 160, 16, seed=1).split(0.2, 0)
        module = trainable(net, nnx.Rngs(0), 16, Dense(2))
        scores.append(fit(module, data, 300, 0, held_out=held, learning_rate=1e-2).rows[-1])
    assert scores[0]["score"] > 0.99
    # 32 images of 16 · 14 fair signs: five standard errors above one half of a log(2) coin
    assert scores[1]["held_out_loss"] > np.log(2) - 0.01


def test_a_key_is_a_run_bit_for_bit(parts):
    train, _ = parts
    options = dict(augment=(shifted(1), noisy(0.1)), label_smoothing=0.1, every=10)
    runs = [weights(fit(digit_net(), train, 25, key, **options).module) for key in (1, 1, 2)]
    assert all(np.array_equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(runs[0], runs[2], strict=True))


def test_a_run_that_diverges_says_so_in_one_line_and_keeps_what_it_had(parts):
    train, held = parts
    module = digit_net()
    with pytest.warns(UserWarning, match="training diverged between steps 10 and 20") as caught:
        done = fit(
            module, train, 40, 0, every=10, held_out=held, optimizer=optax.sgd,
            learning_rate=lambda step: jnp.where(step < 12, 1e-2, 1e30),
        )  # fmt: skip
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    assert done.stopped == "diverged" and done.steps == 10 and len(done.rows) == 1
    same = fit(digit_net(), train, 10, 0, every=10, optimizer=optax.sgd, learning_rate=1e-2)
    assert all(map(np.array_equal, weights(module), weights(same.module)))


def test_patience_ends_with_the_best_weights(parts):
    train, held = parts
    rates = lambda step: jnp.where(step < 60, 3e-3, 0.3)  # noqa: E731  then it forgets
    done = fit(digit_net(), train, 400, 0, held_out=held, every=20, patience=3, learning_rate=rates)
    best = max(row["score"] for row in done.rows)
    assert done.stopped == "patience" and len(done.rows) < 20
    assert next(r["step"] for r in done.rows if r["score"] == best) == done.steps
    found = np.asarray(done.module(np.moveaxis(held.images, 1, -1))).argmax(-1)
    assert accuracy(np.asarray(sklearn.metrics.confusion_matrix(held.labels, found))) == best


RUN = """
    import hashlib, sys
    import jax, numpy as np
    from flax import nnx
    from erftheory import Activation, BatchNorm, Chain, Conv, Dropout, fit, trainable
    from erftheory.training import Classifier, digits, shifted
    train, held = digits(12).split(0.25, 0)
    net = Chain(Conv(3, 2), BatchNorm(), Activation("relu"), Dropout(0.1), Conv(3, 2))
    module = trainable(net, nnx.Rngs(0), 16, Classifier(10))
    print("ready", flush=True)
    done = fit(module, train, 40, 3, held_out=held, every=4, patience=100,
               augment=[shifted(1)], checkpoint=sys.argv[1] or None,
               callback=lambda step, module: print("step", step, flush=True))
    leaves = jax.tree.leaves(nnx.state(done.module, nnx.Param))
    digest = hashlib.sha256(b"".join(np.asarray(w).tobytes() for w in leaves)).hexdigest()
    print("end", digest, [row["loss"] for row in done.rows], flush=True)
"""


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(RUN), str(folder)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip


def killed(folder, evaluations, seconds):
    """Kill a run so many evaluations and seconds after it went on; what it said."""
    process = start(folder)
    assert process.stdout is not None
    said = [next(process.stdout).strip() for _ in range(1 + evaluations)]
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    said += process.stdout.read().splitlines()
    process.wait()
    return said


def finished(folder):
    return start(folder).communicate()[0].splitlines()


def test_a_run_that_is_killed_goes_on_to_the_identical_end(tmp_path):
    """Two kills at random moments; tests/long_kills.py has as many as one likes."""
    rng = np.random.default_rng(0)
    whole = finished("")[-1]
    said = [killed(tmp_path / "run", rng.integers(2, 6), rng.uniform(0, 0.2)) for _ in range(2)]
    assert not any(line.startswith("end") for lines in said for line in lines)
    assert said[0][1:3] == ["step 0", "step 4"] and "step 0" not in said[1]
    last = finished(tmp_path / "run")
    assert last[-1] == whole
    assert "step 8" not in last  # it went on, and did not begin again


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(data=[1, 2]), "data: got list"),
        (dict(steps=0), "steps: got 0"),
        (dict(batch=10**6), "batch: got 1000000; takes at most the"),
        (dict(label_smoothing=1.0), "label_smoothing: got 1.0"),
        (dict(class_weights=[1, 2]), r"class_weights: got shape \(2,\); takes 10"),
        (dict(class_weights="equal"), "class_weights: got 'equal'"),
        (dict(patience=2), "patience: got a number without held_out"),
        (dict(module=trainable(SMALL, nnx.Rngs(0), 16, Classifier(3))), "module: got scores of"),
        (dict(module=trainable(SMALL, nnx.Rngs(0), in_channels=3)), "data: got images of 1 ch"),
    ],
)
def test_bad_arguments_are_one_line(parts, change, said):
    options = dict(module=None, data=parts[0], steps=10, key=0) | change
    module = options.pop("module")
    with pytest.raises(ValueError, match=said) as caught:
        fit(digit_net() if module is None else module, **options)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_run_is_refused(parts, tmp_path):
    fit(digit_net(), parts[0], 4, 0, every=2, checkpoint=tmp_path / "a")
    with pytest.raises(ValueError, match="checkpoint: got .* of a run with batch=32; takes"):
        fit(digit_net(), parts[0], 4, 0, every=2, batch=16, checkpoint=tmp_path / "a")
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match="a file; takes a folder"):
        fit(digit_net(), parts[0], 4, 0, checkpoint=file)
