"""The ERF during a training."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from erftheory.empirical.measured.gradients import CONTRIBUTIONS, gradient_erf
from erftheory.erf import ERF
from erftheory.network.arguments import integer, one_of
from erftheory.training.watching.parameters import Watched
from erftheory.training.watching.readings import Readings


class ErfTracker:
    """Reads a unit's ERF every so many steps of a training loop.

        tracker = ErfTracker(lambda params, x: model.apply(params, x), images, every=100)
        for step in range(steps):
            params = update(params, …)
            tracker(step, params)

    Args:
      function_or_module: a function of (params, images), whatever pytree the weights are (plain
        JAX, Flax, Haiku, Equinox by `eqx.combine`, Keras by `stateless_call`); a Flax NNX module,
        or a `torch.nn.Module`, both in evaluation mode when they are read. Of an NNX module that
        has `features`, as those of `trainable`, that is read: the last map, before the head.
      images: the images of every reading, (n, …) in the model's own layout.
      unit, contribution, cotangent, spatial_axes, output_axes, batch: as in `gradient_erf`.
      every: steps between readings; other calls do nothing and cost nothing.
      tensorboard: a `tensorboardX` (or PyTorch) `SummaryWriter`; scalars and the map are written.

    Calling it returns the `ERF`, or None between readings. `.dataset` (xarray) has std (a spatial
    axis), size, mass radius (95 %), share of the image (mass radius over half the image), total
    power, each with its standard error over images, and the maps; `.seconds` what it cost so far: a
    forward and a backward pass of the images each time, 20 readings of 256 images less than 3 % of
    two epochs of CIFAR-10 (benchmarks/tracker.py).

    Raises:
      ValueError: an argument out of range, a model in training mode, steps that do not grow.
    """

    def __init__(
        self,
        function_or_module: Any,
        images: Any,
        unit: Any = "center",
        every: int = 1,
        contribution: str = "squared",
        *,
        cotangent: Any = "sum",
        spatial_axes: Any = None,
        output_axes: Any = None,
        batch: int = 32,
        tensorboard: Any = None,
    ):
        self.every = integer("every", every)
        one_of("contribution", contribution, tuple(CONTRIBUTIONS))
        self._images = np.asarray(images)
        if self._images.ndim < 3 or not len(self._images):
            raise ValueError(f"images: got shape {self._images.shape}; takes (n, …), n >= 1 images")
        self._watched = Watched(function_or_module, spatial_axes, output_axes)
        self._options: dict[str, Any] = dict(
            unit=unit, contribution=contribution, cotangent=cotangent, batch=batch
        )
        self._writer = tensorboard
        self.readings = Readings()
        self.seconds = 0.0

    def __call__(self, step: int, params: Any = None) -> ERF | None:
        integer("step", step, 0)
        if step % self.every:
            return None
        last = self.readings.steps[-1] if self.readings.steps else -1
        if step <= last:
            raise ValueError(f"step: got {step} after {last}; takes steps that grow")
        start = time.perf_counter()
        made = self._watched.at(params, self._images)
        erf = gradient_erf(made, self._images, **self._options)
        self.readings.add(step, erf)
        if self._writer is not None:
            self._write(step, erf)
        self.seconds += time.perf_counter() - start
        return erf

    def _write(self, step: int, erf: ERF) -> None:
        for name, value in self.readings.row(-1).items():
            self._writer.add_scalar(f"erf/{name}", value, step)
        if erf.ndim == 2:
            self._writer.add_image("erf/map", (erf.map / erf.map.max())[None], step)

    @property
    def dataset(self) -> Any:
        """All readings as an `xarray.Dataset` over step, axis and pixels."""
        return self.readings.dataset

    def to_pandas(self) -> Any:
        """The numbers as a pandas.DataFrame, a row a step."""
        return self.readings.to_pandas()

    def plot(self, **options: Any) -> Any:
        """Curves with their standard errors over a strip of maps; returns the Figure."""
        from erftheory.training.watching.pictures import curves

        return curves(self.readings, **options)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all readings to a .npz file, whole or not at all."""
        self.readings.save(path)

    def load(self, path: str | os.PathLike[str]) -> ErfTracker:
        """Take over the readings of a file, to go on from; returns the tracker."""
        self.readings = Readings.load(path)
        return self
