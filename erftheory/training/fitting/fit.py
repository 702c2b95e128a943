"""The training loop."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from erftheory.empirical.nets.keys import random_key
from erftheory.network.arguments import integer, number
from erftheory.training.data.dataset import Dataset
from erftheory.training.fitting.augment import Augment
from erftheory.training.fitting.batches import indices
from erftheory.training.fitting.checkpoints import Checkpoints
from erftheory.training.fitting.score import accuracy, mean_iou
from erftheory.training.fitting.step import Update, evaluation, structure

EVALUATED = 256  # images a pass where nothing is learned


@dataclass
class Fit:
    """What a training run did.

    Attributes:
      module: the trained module, in evaluation mode.
      rows: one dictionary an evaluation: step, loss (mean over the steps since the last), and with
        a held-out part its loss and score (accuracy, or mean IoU of dense labels).
      steps: updates behind the weights that the module has now.
      stopped: "steps" (all were done), "patience" or "diverged".
    """

    module: nnx.Module
    rows: list[dict[str, float]] = field(repr=False)
    steps: int
    stopped: str

    @property
    def score(self) -> float:
        """Best score on the held-out part; NaN without one."""
        return max((row["score"] for row in self.rows if "score" in row), default=math.nan)

    def to_pandas(self) -> Any:
        """The rows as a pandas.DataFrame, indexed by step."""
        import pandas

        return pandas.DataFrame(self.rows).set_index("step")


def fit(
    module: nnx.Module,
    data: Dataset,
    steps: int,
    key: jax.Array | int,
    *,
    batch: int = 32,
    optimizer: Callable[[Any], optax.GradientTransformation] = optax.adam,
    learning_rate: float | Callable[[Any], Any] = 1e-3,
    augment: Sequence[Augment] = (),
    label_smoothing: float = 0.0,
    class_weights: Any = None,
    held_out: Dataset | None = None,
    every: int = 100,
    patience: int | None = None,
    checkpoint: str | Path | None = None,
    callback: Callable[[int, nnx.Module], None] | None = None,
    progress: bool | None = None,
) -> Fit:
    """Train a module; the same key, data and machine give the same weights, bit for bit.

    Args:
      module: a Flax NNX module from images (batch, *spatial, channels) to scores (batch, classes),
        or (batch, *spatial, classes) for dense labels, as `trainable` makes it. It is changed.
      steps: updates, one batch each.
      key: a JAX random key or an int: order of images, augmentation.
      optimizer: Optax's, a function of the learning rate (`optax.adamw`, `partial(optax.sgd,
        momentum=0.9)`); learning_rate: a number or an Optax schedule.
      augment: changes to batches, see `erftheory.training.fitting.augment`.
      class_weights: of the classes, or "balanced" (inverse to how often they occur).
      held_out: images on which the loss and the score are measured every `every` steps.
      patience: stop after so many evaluations without a better score, with the best weights.
      checkpoint: a folder; the state is saved there every `every` steps, and the same call after a
        crash goes on from the last one to the identical end.
      callback: called with (step, module in evaluation mode) before the first step and after every
        evaluation.
      progress: a progress bar; by default only on a terminal.

    Returns:
      a `Fit`. Of a run whose loss becomes infinite or NaN one line is said (a warning), and the
      module has the weights of the last evaluation before.

    Raises:
      ValueError: an argument out of range, scores that do not match the labels, a checkpoint of
        another run.
    """
    random = random_key(key)
    if not isinstance(data, Dataset):
        raise ValueError(f"data: got {type(data).__name__}; takes an erftheory.training Dataset")
    integer("steps", steps)
    integer("every", every)
    integer("batch", batch)
    if batch > data.count:
        raise ValueError(f"batch: got {batch}; takes at most the {data.count} images there are")
    if not 0 <= number("label_smoothing", label_smoothing) < 1:
        raise ValueError(f"label_smoothing: got {label_smoothing}; takes a number in [0, 1)")
    if patience is not None:
        integer("patience", patience)
        if held_out is None:
            raise ValueError("patience: got a number without held_out; takes a held-out part too")
    update = Update(
        structure(module, True), optimizer(learning_rate), float(label_smoothing),
        _class_weights(class_weights, data), tuple(augment),
    )  # fmt: skip
    _check_scores(module, data)
    run = _Run(module, data, held_out, update, random, batch)
    saved = None
    if checkpoint is not None:
        saved = Checkpoints(checkpoint, {
            "steps": steps, "every": every, "batch": batch, "key": list(run.seed),
            "label_smoothing": label_smoothing, "data": [data.name, *data.images.shape],
        })  # fmt: skip
    try:
        return _loop(run, steps, every, patience, saved, callback, progress)
    finally:
        if saved is not None:
            saved.close()


class _Run:
    """The state of a run and what it takes to go on."""

    def __init__(
        self,
        module: nnx.Module,
        data: Dataset,
        held_out: Dataset | None,
        update: Update,
        random: jax.Array,
        batch: int,
    ):
        self.module, self.data, self.held_out = module, data, held_out
        self.random, self.batch = random, batch
        self.seed = tuple(int(v) for v in np.asarray(jax.random.key_data(random)).ravel())
        self.state = update.start(module)
        self.best = self.state
        self.update = jax.jit(update)
        self.images, self.labels = _channels_last(data.images), data.labels
        self.evaluate = jax.jit(evaluation(structure(module, False)))
        self.score = mean_iou if data.dense else accuracy

    def advance(self, first: int, last: int, told: Callable[[], None]) -> float:
        """Steps first … last − 1; the mean loss."""
        losses = []
        for step in range(first, last):
            chosen = indices(self.seed, step, self.batch, self.data.count)
            key = jax.random.fold_in(self.random, step)
            self.state, value = self.update(
                self.state, self.images[chosen], self.labels[chosen], key
            )
            losses.append(value)
            told()
        return float(np.mean(jax.device_get(losses)))

    def measured(self) -> dict[str, float]:
        """Loss and score on the held-out part."""
        if self.held_out is None:
            return {}
        held = self.held_out
        images, total = _channels_last(held.images), 0.0
        counts = np.zeros((len(self.data.classes),) * 2, int)
        size = min(EVALUATED, held.count)
        for start in range(0, held.count, size):
            rows = slice(start, start + size)
            x, y = images[rows], held.labels[rows]
            missing = size - len(x)
            if missing:  # no second compilation
                x = np.concatenate([x, np.repeat(x[-1:], missing, 0)])
                y = np.concatenate([y, np.full((missing, *y.shape[1:]), -1, y.dtype)])
            value, found = self.evaluate(self.state[0], self.state[1], x, y)
            total += float(value)
            counts = counts + np.asarray(found)
        return {"held_out_loss": total / max(counts.sum(), 1), "score": self.score(counts)}

    def give(self, state: Any) -> nnx.Module:
        """The module with the weights of a state, in evaluation mode."""
        nnx.update(self.module, *jax.tree.map(jnp.copy, state[:2]))
        self.module.eval()
        return self.module


def _loop(
    run: _Run,
    steps: int,
    every: int,
    patience: int | None,
    saved: Checkpoints | None,
    callback: Callable[[int, nnx.Module], None] | None,
    progress: bool | None,
) -> Fit:
    step, rows, kept, bad = 0, [], 0, 0  # kept: the step of the best state
    before = None if saved is None else saved.load((run.state, run.best))
    if before is not None:
        (run.state, run.best), said = before
        step, rows, kept, bad = said["step"], said["rows"], said["kept"], said["bad"]
    elif callback is not None:
        callback(0, run.give(run.state))
    stopped = "patience" if patience is not None and bad >= patience else "steps"
    with _bar(steps, step, progress) as told:
        while step < steps and stopped == "steps":
            last, good = min(steps, (step // every + 1) * every), run.state
            value = run.advance(step, last, told)
            finite = math.isfinite(value) and all(
                bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(run.state[0])
            )
            if not finite:
                warnings.warn(
                    f"training diverged between steps {step} and {last} (loss {value}); the module "
                    f"has the weights of step {step}; takes a smaller learning_rate",
                    stacklevel=3,
                )
                run.state, stopped = good, "diverged"
                break
            step = last
            rows.append({"step": step, "loss": value, **run.measured()})
            if patience is None or rows[-1]["score"] > max(
                (row["score"] for row in rows[:-1]), default=-math.inf
            ):
                run.best, kept, bad = run.state, step, 0
            else:
                bad += 1
                stopped = "patience" if bad >= patience else "steps"
            if saved is not None:
                said = {"step": step, "rows": rows, "kept": kept, "bad": bad}
                saved.save(step, (run.state, run.best), said)
            if callback is not None:
                callback(step, run.give(run.state))
    state, at = (run.state, step) if patience is None else (run.best, kept)
    return Fit(run.give(state), rows, at, stopped)


def _channels_last(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(images, 1, -1))


def _class_weights(given: Any, data: Dataset) -> Any:
    if given is None:
        return None
    classes = len(data.classes)
    if isinstance(given, str):
        if given != "balanced":
            raise ValueError(f"class_weights: got {given!r}; takes 'balanced', numbers or None")
        counts = np.bincount(data.labels[data.labels >= 0].ravel(), minlength=classes)
        return jnp.asarray(counts.sum() / np.maximum(counts, 1) / classes, jnp.float32)
    found = np.asarray(given, np.float32)
    if found.shape != (classes,) or not np.isfinite(found).all() or found.min() < 0:
        raise ValueError(
            f"class_weights: got shape {found.shape}; takes {classes} finite numbers >= 0, one a "
            "class"
        )
    return jnp.asarray(found)


def _check_scores(module: nnx.Module, data: Dataset) -> None:
    shape = (2, *data.shape, data.channels)
    graph, state = nnx.split(module)
    try:
        made = jax.eval_shape(
            lambda x: nnx.merge(graph, state, copy=True)(x), jax.ShapeDtypeStruct(shape, "float32")
        )
    except (TypeError, ValueError) as wrong:
        said = (str(wrong).splitlines() or [type(wrong).__name__])[0]
        raise ValueError(
            f"data: got images of {data.channels} channels and {data.shape} pixels, on which the "
            f"module fails ({said}); takes images as the module does"
        ) from wrong
    wanted = (2, *(data.shape if data.dense else ()), len(data.classes))
    if made.shape != wanted:
        raise ValueError(
            f"module: got scores of shape {made.shape} for images {shape}; takes a module of "
            f"{wanted}: head={'Dense' if data.dense else 'Classifier'}({len(data.classes)})"
        )


@contextmanager
def _bar(total: int, done: int, progress: bool | None) -> Iterator[Callable[[], None]]:
    """A progress bar with rate and remaining time on the error stream, or nothing."""
    if not (sys.stderr.isatty() if progress is None else progress):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("steps"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("steps", total=total, completed=done, rate="")

        def told() -> None:
            bar.advance(task)
            speed = bar.tasks[0].speed
            if speed:
                bar.update(task, rate=f"{speed:.1f} a second")

        yield told
