"""One network on one task, from several seeds: the ERF before, while and after training."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from erftheory.empirical.measured.gradients import gradient_erf
from erftheory.erf import ERF
from erftheory.network.arguments import integer
from erftheory.network.base import Network
from erftheory.training.data.dataset import Dataset
from erftheory.training.fitting.batches import indices
from erftheory.training.fitting.score import accuracy, mean_iou
from erftheory.training.fitting.step import Update, evaluation, structure
from erftheory.training.modules.heads import Classifier, Dense
from erftheory.training.modules.module import trainable
from erftheory.training.studies.trials import sign_flip
from erftheory.training.watching.parameters import Parametrised

_SETTLED = 50  # forward passes for the running statistics of batch norm, before anything is learned
_COVERS = 0.95  # of the power


@dataclass(frozen=True)
class Pair:
    """A network with a task.

    Attributes:
      network, channels: what is trained, with a head for the task.
      task: training images, and held-out ones on which the ERF and the score are measured.
      steps, batch, learning_rate: of Adam with a cosine schedule to 0.
      seeds: of a study that is not told how many.
    """

    name: str
    network: Network
    task: Callable[[], tuple[Dataset, Dataset]] = field(repr=False)
    channels: int = 16
    steps: int = 300
    batch: int = 32
    learning_rate: float = 3e-3
    seeds: int = 10


@dataclass
class Study:
    """What several seeds of a pair gave.

    Attributes:
      steps: at which ERF and score were measured, 0 first.
      axes: (seeds, steps, axes), std in pixels; radius: (seeds, steps), the 95 % mass radius.
      scores: (seeds, steps), accuracy or mean IoU on the held-out images.
      maps: (steps, *image), averaged over seeds.
      seen, image: receptive field and image, pixels an axis.
      states: weights and running statistics of every seed, (before, after).
      channels: of the images.
      features: the last map (batch, *spatial, channels) of a state and of images.
      settle: running statistics for (weights, statistics, seed), on the training images.
      measure: the ERF of such a state, on the held-out images.
    """

    pair: Pair
    steps: list[int]
    axes: np.ndarray = field(repr=False)
    radius: np.ndarray = field(repr=False)
    scores: np.ndarray
    maps: np.ndarray = field(repr=False)
    seen: tuple[int, ...]
    image: tuple[int, ...]
    channels: int
    states: list[tuple[Any, Any]] = field(repr=False)
    features: Callable[[Any, Any], Any] = field(repr=False)
    settle: Callable[[Any, Any, int], Any] = field(repr=False)
    measure: Callable[[Any], ERF] = field(repr=False)

    @property
    def std(self) -> np.ndarray:
        """(seeds, steps), averaged over the axes."""
        return self.axes.mean(-1)

    @property
    def growth(self) -> np.ndarray:
        """log(std after / std before), one a seed."""
        return np.log(self.std[:, -1] / self.std[:, 0])

    @property
    def p_value(self) -> float:
        """Of growth, one-sided: see `trials.sign_flip`."""
        return sign_flip(self.growth)

    @property
    def shrinks(self) -> float:
        """The p value of the opposite."""
        return sign_flip(-self.growth)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the mean growth of the std, as a factor (Student's t)."""
        from scipy.stats import t

        n = len(self.growth)
        half = t.ppf(0.975, n - 1) * self.growth.std(ddof=1) / math.sqrt(n)
        mean = self.growth.mean()
        return math.exp(mean - half), math.exp(mean + half)

    @property
    def covers(self) -> np.ndarray:
        """(before, after): mass radius over half the image, mean over seeds; covers means >= 1."""
        return self.radius[:, [0, -1]].mean(0) / (min(self.image) / 2)


def study(
    pair: Pair,
    seeds: int | None = None,
    *,
    images: int = 256,
    readings: int = 1,
    workers: int | None = None,
    spoil: Callable[[Dataset], Dataset] | None = None,
    optimizer: Callable[[Any], optax.GradientTransformation] = optax.adam,
) -> Study:
    """Train a pair from several seeds and measure its ERF.

    Args:
      seeds: weights, order of images and augmentation of seed s all come from s; None takes the
        pair's. Fewer than 10 cannot reach 0.01 after Holm's correction over six pairs.
      images: held-out images of an ERF, `gradient_erf(contribution="squared")`, the sum of the
        channels of the last map's centre unit.
      readings: measurements after the one before training, evenly spaced, the last at the end.
      workers: seeds trained at once; None takes the cores.
      spoil: a change of the training images (a control).
      optimizer: Optax's, a function of the learning rate.

    Raises:
      ValueError: an argument out of range, fewer held-out images than `images`.
    """
    seeds = integer("seeds", pair.seeds if seeds is None else seeds, 2)
    integer("readings", readings)
    train, held = pair.task()
    if spoil is not None:
        train = spoil(train)
    if held.count < integer("images", images):
        raise ValueError(f"images: got {images}; takes at most the {held.count} held-out ones")
    trainer = _Trainer(pair, train, held, images, readings, optimizer)
    count = min(seeds, workers or os.cpu_count() or 1)
    trainer.seed(0, only_compile=True)
    with ThreadPoolExecutor(count) as pool:
        rows = list(pool.map(trainer.seed, range(seeds)))
    erfs = [row[0] for row in rows]
    from erftheory.theory.readings.receptive_field import receptive_field

    return Study(
        pair, trainer.measured,
        np.array([[e.std for e in row] for row in erfs]),
        np.array([[e.mass_radius(_COVERS) for e in row] for row in erfs]),
        np.array([row[1] for row in rows]),
        np.mean([[e.map for e in row] for row in erfs], axis=0),
        tuple(int(n) if math.isfinite(n) else 0 for n in receptive_field(pair.network).size),
        held.shape, held.channels, [row[2] for row in rows],
        trainer.features, trainer.settled, trainer.erf,
    )  # fmt: skip


class _Trainer:
    """Everything that is compiled once for all seeds of a pair."""

    def __init__(
        self,
        pair: Pair,
        train: Dataset,
        held: Dataset,
        images: int,
        readings: int,
        optimizer: Callable[[Any], optax.GradientTransformation],
    ):
        self.pair, self.train, self.held = pair, train, held
        self.images = np.ascontiguousarray(np.moveaxis(train.images, 1, -1))
        held_out = np.ascontiguousarray(np.moveaxis(held.images, 1, -1))
        self.seen, self.tested = held_out[:images], held_out
        self.measured = np.linspace(0, pair.steps, readings + 1).round().astype(int).tolist()
        module = self._module(0)
        schedule = optax.cosine_decay_schedule(pair.learning_rate, pair.steps)
        self.learn = Update(structure(module, True), optimizer(schedule))
        self.advance = jax.jit(self.learn)
        graph = structure(module, False)
        self.evaluate = jax.jit(evaluation(graph))
        self.settle = jax.jit(partial(_settled, self.learn.graph))
        _, params, rest = nnx.split(module, nnx.Param, ...)
        self.features = lambda state, x: nnx.merge(graph, *state, copy=True).features(x)
        self.model = Parametrised(
            self.features, (params, rest), (1, *held_out.shape[1:]), np.float32, None, None
        )

    def _module(self, seed: int) -> Any:
        dense, classes = self.train.dense, len(self.train.classes)
        head = Dense(classes) if dense else Classifier(classes)
        return trainable(
            self.pair.network, nnx.Rngs(seed), self.pair.channels, head,
            in_channels=self.train.channels,
        )  # fmt: skip

    def erf(self, state: Any) -> ERF:
        return gradient_erf(self.model.at(state[:2]), self.seen, batch=64)

    def score(self, state: Any) -> float:
        counts: Any = 0
        for start in range(0, len(self.tested), 128):
            x, y = self.tested[start : start + 128], self.held.labels[start : start + 128]
            counts = counts + np.asarray(self.evaluate(state[0], state[1], x, y)[1])
        return (mean_iou if self.held.dense else accuracy)(counts)

    def order(self, seed: int) -> Callable[[int], np.ndarray]:
        return partial(indices, (seed, 0), batch=self.pair.batch, count=len(self.images))

    def settled(self, params: Any, rest: Any, seed: int, passes: int = _SETTLED) -> Any:
        chosen = self.order(seed)
        for i in range(passes):
            rest = self.settle(params, rest, self.images[chosen(i)])
        return rest

    def seed(self, seed: int, only_compile: bool = False) -> Any:
        """ERFs and scores at every reading, first and last weights of one seed."""
        pair = self.pair
        state = self.learn.start(self._module(seed))
        key, chosen = jax.random.key(seed), self.order(seed)
        passes = 1 if only_compile else _SETTLED
        state = (state[0], self.settled(*state[:2], seed, passes), state[2])
        first, found, scores = state[:2], [self.erf(state)], [self.score(state)]
        for step in range(1 if only_compile else pair.steps):
            at = chosen(step)
            state, _ = self.advance(
                state, self.images[at], self.train.labels[at], jax.random.fold_in(key, step)
            )
            if step + 1 in self.measured:
                found.append(self.erf(state))
                scores.append(self.score(state))
        return found, scores, (first, state[:2])


def _settled(graph: Any, params: Any, rest: Any, images: jax.Array) -> Any:
    """Running statistics behind one more forward pass."""
    module = nnx.merge(graph, params, rest, copy=True)
    module(images)
    return nnx.split(module, nnx.Param, ...)[2]
