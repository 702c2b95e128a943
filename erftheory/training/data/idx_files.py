"""The IDX format of MNIST: a magic number, sizes and values, all big-endian, perhaps in gzip.

Bytes 0, 0, the type, the number of axes; a 32-bit size an axis; the values, last axis fastest.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from erftheory.network import arguments
from erftheory.training.data import sources
from erftheory.training.data.dataset import Dataset, class_names

_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_TAKES = "a whole IDX file, perhaps in gzip"
_LARGEST = 1 << 30
_DIGITS = tuple("0123456789")


def idx(
    images_path: str | os.PathLike[str],
    labels_path: str | os.PathLike[str] | None = None,
    classes: Sequence[str] | None = None,
) -> Dataset:
    """Grey images and their labels, from two IDX files.

    Args:
      images_path: bytes (count, height, width).
      labels_path: integers (count,); default: the images' path with "labels" and "idx1" for
        "images" and "idx3" in its name.
      classes: names of the classes; default: "0" to the largest label.

    Raises:
      FileNotFoundError: a file is not there. ValueError: no IDX file or one cut short, other axes
        or types, another number of labels, a label without a class.
    """
    place = sources.existing(images_path, _TAKES, "images_path")
    if labels_path is None:
        partner = place.name.replace("images", "labels").replace("idx3", "idx1")
        if partner == place.name:
            raise ValueError(
                f"labels_path: got None beside {place.name!r}; takes a path, or None where the "
                'name of the images has "images" in it'
            )
        labels_path = place.with_name(partner)
    images = _array(place, "images_path")
    labels = _array(sources.existing(labels_path, _TAKES, "labels_path"), "labels_path")
    if images.ndim != 3 or images.dtype != np.uint8 or not images.size:
        got = f"{images.dtype.name} of shape {images.shape}"
        raise sources.wrong(place, got, "bytes (count, height, width), none 0", "images_path")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        got = f"{labels.dtype.name} of shape {labels.shape}"
        raise sources.wrong(labels_path, got, f"integers {images.shape[:1]}", "labels_path")
    default = tuple(map(str, range(int(labels.max()) + 1)))
    names = default if classes is None else class_names(classes)
    if labels.min() < 0 or labels.max() >= len(names):
        label = int(labels.min() if labels.min() < 0 else labels.max())
        takes = f"labels from 0 to {len(names) - 1}" if names else "labels >= 0"
        raise sources.wrong(labels_path, f"the label {label}", takes, "labels_path")
    name = place.name.split(".")[0]
    return Dataset(sources.pixels(images)[:, None], labels.astype(np.int32), names, name)


def mnist(
    path: str | os.PathLike[str], part: str = "train", classes: Sequence[str] = _DIGITS
) -> Dataset:
    """MNIST, or a set with its file names such as Fashion-MNIST: 1x28x28, ten classes.

    Args:
      path: the folder of train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte
        and t10k-labels-idx1-ubyte, each with or without .gz; "." before idx is known too.
      part: "train" or "test".
      classes: their names.

    Raises:
      FileNotFoundError, ValueError: as `idx`; a file that the folder does not have.
    """
    stem = {"train": "train", "test": "t10k"}[arguments.one_of("part", part, ("train", "test"))]
    takes = f"a folder of {stem}-images-idx3-ubyte and {stem}-labels-idx1-ubyte, perhaps with .gz"
    folder = sources.existing(path, takes)
    if not folder.is_dir():
        raise sources.wrong(path, "which is no folder", takes)
    pair: list[Path] = []
    for what in ("images-idx3", "labels-idx1"):
        names = [f"{stem}-{w}-ubyte{end}" for end in ("", ".gz")
                 for w in (what, what.replace("-", "."))]  # fmt: skip
        there = [folder / name for name in names if (folder / name).is_file()]
        if not there:
            raise sources.wrong(path, f"which has no {names[0]}", takes)
        pair.append(there[0])
    found = idx(pair[0], pair[1], classes)
    return Dataset(found.images, found.labels, found.classes, f"{folder.name} {part}")


def _array(path: Path, name: str) -> np.ndarray:
    if path.is_dir():
        raise sources.wrong(path, "a folder", _TAKES, name)
    data = sources.read_whole(path, _TAKES, _LARGEST, name)
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _TYPES or not 1 <= data[3] <= 8:
        raise sources.wrong(path, f"which begins with {data[:4].hex() or 'nothing'}", _TAKES, name)
    kind, axes = np.dtype(_TYPES[data[2]]), data[3]
    start = 4 + 4 * axes
    sizes = struct.unpack(f">{axes}I", data[4:start]) if len(data) >= start else ()
    if not sizes or len(data) != start + math.prod(sizes) * kind.itemsize:
        shape = "x".join(map(str, sizes)) or "cut off"
        what = f"{len(data)} bytes where the sizes are {shape}"
        raise sources.wrong(path, what, _TAKES, name)
    return np.frombuffer(data, kind, offset=start).reshape(sizes)
