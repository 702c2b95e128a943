"""Images with labels, and the few things that training does with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from erftheory.network import arguments


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images, a label for each image or for each pixel, and what the labels mean. Read-only.

    Attributes:
      images: float32 (count, channels, *spatial), one to three spatial axes; readers give
        pixels / 255.
      labels: int32 (count,), classification, or (count, *spatial), dense prediction: the index of a
        class, or -1 for what is not counted.
      classes: names of the classes, no two alike.
      name: for titles and tables.

    Raises:
      ValueError: shapes that do not fit, a label outside the classes, pixels that are not finite,
        no image.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ValueError(f"name: got {self.name!r}; takes text")
        for name, value in (
            ("classes", class_names(self.classes)),
            ("images", _images(self.images)),
            ("labels", self.labels),
        ):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "labels", _labels(self.labels, self.images, len(self.classes)))

    def __repr__(self) -> str:
        sizes = "x".join(map(str, self.images.shape[1:]))
        kind = "labels of pixels" if self.dense else "labels of images"
        return f"Dataset({self.name}: {self.count} of {sizes}, {len(self.classes)} {kind})"

    @property
    def dense(self) -> bool:
        """Whether every pixel has a label of its own."""
        return self.labels.ndim > 1

    @property
    def count(self) -> int:
        return self.images.shape[0]

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels along each spatial axis."""
        return self.images.shape[2:]

    def take(self, indices: Any) -> Dataset:
        """The images at these indices (0 to count - 1), in this order.

        Raises:
          ValueError: none, or not a flat list of integers in this range.
        """
        chosen = np.asarray(indices)
        takes = f"takes a list of at least one integer from 0 to {self.count - 1}"
        if chosen.ndim != 1 or not chosen.size or chosen.dtype.kind not in "iu":
            raise ValueError(f"indices: got {chosen.dtype} of shape {chosen.shape}; {takes}")
        least, largest = chosen.min(), chosen.max()
        if least < 0 or largest >= self.count:
            raise ValueError(f"indices: got {least if least < 0 else largest}; {takes}")
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])

    def split(self, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
        """Two parts without a common image, drawn at random; the second has `fraction` of them.

        Raises:
          ValueError: a fraction that leaves one of the two parts empty.
        """
        share = float(arguments.number("fraction", fraction))
        second = round(self.count * share)
        if not 0 < second < self.count:
            raise ValueError(
                f"fraction: got {fraction}, {second} of {self.count} images; takes a number from 0 "
                "to 1 that leaves at least one image to either part"
            )
        order = _generator(seed).permutation(self.count)
        return self.take(order[: self.count - second]), self.take(order[self.count - second :])

    def shuffled(self, seed: int) -> Dataset:
        """A control: the same images, the labels dealt out again at random."""
        order = _generator(seed).permutation(self.count)
        return replace(self, labels=self.labels[order], name=f"{self.name}, labels shuffled")

    def noise(self, seed: int) -> Dataset:
        """A control: the same labels, Gaussian noise of each channel's mean and deviation."""
        generator = _generator(seed)
        means, deviations = self.moments()
        images = generator.standard_normal(self.images.shape, dtype=np.float32)
        images *= self._per_channel(deviations.astype(np.float32))
        images += self._per_channel(means.astype(np.float32))
        return replace(self, images=images, name=f"{self.name}, noise for images")

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each channel over images and pixels, float64."""
        planes = [self.images[:, c] for c in range(self.channels)]
        means = np.array([plane.mean(dtype=np.float64) for plane in planes])
        return means, np.array([plane.std(dtype=np.float64) for plane in planes])

    def standardised(self, mean: Any = None, std: Any = None) -> Dataset:
        """Each channel minus its mean, over its deviation: this dataset's, or those given.

        Args:
          mean, std: a number, or one a channel; `moments` of the training part, for a test part.

        Raises:
          ValueError: another number of entries, or a deviation that is not positive, as of a
            channel that is constant.
        """
        means, deviations = self.moments() if mean is None or std is None else (None, None)
        means = means if mean is None else self._entries("mean", mean)
        deviations = deviations if std is None else self._entries("std", std)
        assert means is not None and deviations is not None
        if not (deviations > 0).all():
            channel = int(np.argmin(deviations > 0))
            raise ValueError(
                f"std: got {deviations[channel]} for channel {channel}; takes numbers > 0 (a "
                "constant channel has no scale)"
            )
        centred = self.images - self._per_channel(means.astype(np.float32))
        centred /= self._per_channel(deviations.astype(np.float32))
        return replace(self, images=centred)

    def _entries(self, name: str, value: Any) -> np.ndarray:
        single = np.ndim(value) == 0
        given = [value] * self.channels if single else list(value)
        if np.ndim(value) > 1 or len(given) != self.channels:
            raise ValueError(
                f"{name}: got shape {np.shape(value)}; takes a number or {self.channels}, one a "
                "channel"
            )
        return np.array([float(arguments.number(name, v)) for v in given])

    def _per_channel(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(-1, *[1] * len(self.shape))


def _generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(arguments.integer("seed", seed, 0))


def class_names(classes: Any) -> tuple[str, ...]:
    """The names; ValueError where there are none, or two alike."""
    several = isinstance(classes, Sequence) and not isinstance(classes, (str, bytes))
    names: tuple[Any, ...] = tuple(classes) if several else ()
    if not names or not all(isinstance(n, str) for n in names) or len(set(names)) < len(names):
        raise ValueError(f"classes: got {classes!r}; takes at least one name, no two alike")
    return names


def _array(name: str, value: Any, kinds: str, takes: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"{name}: got rows of several lengths; takes {takes}") from None
    if array.dtype.kind not in kinds:
        raise ValueError(f"{name}: got dtype {array.dtype}; takes {takes}")
    return array


def _locked(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def _images(value: Any) -> np.ndarray:
    takes = "numbers (count, channels, *spatial), one to three spatial axes"
    images = _array("images", value, "iuf", takes)
    if not 3 <= images.ndim <= 5 or not images.size:
        raise ValueError(f"images: got shape {images.shape}; takes {takes}, none of them 0")
    with np.errstate(over="ignore"):
        images = images.astype(np.float32, copy=False)
    if not np.isfinite([images.min(), images.max()]).all():  # NaN passes through min
        raise ValueError("images: got pixels that are not finite in float32; takes finite numbers")
    return _locked(images)


def _labels(value: Any, images: np.ndarray, classes: int) -> np.ndarray:
    dense = (images.shape[0], *images.shape[2:])
    takes = f"integers of shape {dense[:1]} (an image) or {dense} (a pixel)"
    labels = _array("labels", value, "iu", takes)
    if labels.shape not in (dense[:1], dense):
        raise ValueError(f"labels: got shape {labels.shape}; takes {takes}")
    least, largest = int(labels.min()), int(labels.max())
    if least < -1 or largest >= classes:
        raise ValueError(
            f"labels: got {least if least < -1 else largest}; takes 0 to {classes - 1}, or -1 for "
            "what is not counted"
        )
    return _locked(labels.astype(np.int32, copy=False))
