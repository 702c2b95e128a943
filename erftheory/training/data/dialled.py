"""Tasks whose needed distance d is known, because they are generated: labels are parities.

A label is the product of two fair signs, d pixels apart. Either sign alone, and all else in the
image, is independent of it, so that whoever sees less than both signs has nothing but the coin.
"""

from __future__ import annotations

import numpy as np

from erftheory.network import arguments
from erftheory.training.data.dataset import Dataset

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.float32)
_RING = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.float32)
_CLASSES = ("different", "equal")


def relation(
    distance: int, count: int, size: int = 64, seed: int = 0, noise: float = 0.0
) -> Dataset:
    """Do a cross and a ring have the same sign? Classification of 1 x size x size images.

    Each is 3x3 pixels of +1 or -1 on 0. From the cross, the ring is `distance` pixels right, left,
    below or above, centre to centre, anywhere in the image. The label is 1 if the signs are equal;
    signs are independent of each other, of the places and of the direction.

    A window tells nothing about the label unless it reaches both marks, whose nearest pixels are
    distance - 2 apart: distance - 1 pixels along the axis at least, distance + 3 for both whole.
    That binds networks that add up features of windows and read them out linearly: a sum
    f(cross) + g(ring) is on no side of a parity, its cross-entropy is at least log 2, its accuracy
    at most 3/4. A network with a nonlinearity after pooling can join signs over any distance.

    Args:
      distance: 3 (the marks touch) to size - 3. noise: deviation of Gaussian noise on each pixel.

    Raises:
      ValueError: marks that overlap or have no place in the image; no image; a negative noise.
    """
    distance = arguments.integer("distance", distance, 3)
    count = arguments.integer("count", count)
    size = arguments.integer("size", size, 6)
    if distance > size - 3:
        raise ValueError(f"distance: got {distance}; takes 3 to size - 3 = {size - 3}")
    level = float(arguments.number("noise", noise))
    if level < 0:
        raise ValueError(f"noise: got {noise}; takes a number >= 0")
    generator = np.random.default_rng(arguments.integer("seed", seed, 0))
    axis, backward, *signs = generator.integers(0, 2, (4, count))
    # The box around both marks: its first corner, from all that leave it in the image.
    along = generator.integers(0, size - distance - 3, count, endpoint=True)
    across = generator.integers(0, size - 3, count, endpoint=True)
    cross, ring = along + distance * backward, along + distance * (1 - backward)
    images = np.zeros((count, 1, size, size), np.float32)
    image = np.arange(count)[:, None, None]
    for mark, place, sign in ((_CROSS, cross, signs[0]), (_RING, ring, signs[1])):
        rows = np.where(axis == 0, place, across)[:, None, None] + np.arange(3)[:, None]
        columns = np.where(axis == 0, across, place)[:, None, None] + np.arange(3)
        images[image, 0, rows, columns] = mark * (2 * sign - 1).astype(np.float32)[:, None, None]
    if level:
        images += np.float32(level) * generator.standard_normal(images.shape, dtype=np.float32)
    labels = (signs[0] == signs[1]).astype(np.int32)
    return Dataset(images, labels, _CLASSES, f"relation over {distance} pixels")


def displaced(distance: int, count: int, size: int = 64, seed: int = 0) -> Dataset:
    """Has the pixel `distance` to the right the same sign? Dense prediction, 1 x size x size.

    Pixels are independent fair signs x = ±1; the label of p is [x(p) x(p + d e) > 0], e the unit
    of the last axis, and -1 where p + d e is outside. Right everywhere for who sees p and p + d e;
    who lacks either is right half of the time, whatever else is seen: x(p + d e) is independent of
    all other pixels. The receptive field of p must reach d to the right.

    Args:
      distance: 1 to size - 1.

    Raises:
      ValueError: a distance outside that; no image.
    """
    distance = arguments.integer("distance", distance)
    count = arguments.integer("count", count)
    size = arguments.integer("size", size, 2)
    if distance > size - 1:
        raise ValueError(f"distance: got {distance}; takes 1 to size - 1 = {size - 1}")
    generator = np.random.default_rng(arguments.integer("seed", seed, 0))
    signs = 2 * generator.integers(0, 2, (count, 1, size, size), np.int8) - 1
    labels = displaced_labels(signs[:, 0], distance)
    return Dataset(signs.astype(np.float32), labels, _CLASSES, f"displaced by {distance} pixels")


def displaced_labels(signs: np.ndarray, distance: int) -> np.ndarray:
    """Labels, int32 (..., size), of signs of that shape: of each pixel and its partner."""
    labels = np.full(signs.shape, -1, np.int32)
    labels[..., :-distance] = signs[..., :-distance] == signs[..., distance:]
    return labels
