"""CIFAR-10 and CIFAR-100 from their archives: binary or Python's, packed or unpacked.

Binary records are one label byte (CIFAR-100: coarse, then fine) and 3072 bytes, three planes of
32x32; Python's batches are pickles of the same bytes. https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from erftheory.network import arguments
from erftheory.training.data import pickled, sources
from erftheory.training.data.dataset import Dataset

BATCH = 10_000  # images of a batch; both files that are not in batches have a multiple
_SHAPE = (3, 32, 32)
_PIXELS = 3072


@dataclass(frozen=True)
class _Archive:
    """Where the parts of one of the two datasets are.

    Attributes:
      batches: batches of images in each file of the part, by the file's name in Python's archive.
      labels: keys of the labels in Python's archive; in a binary record one byte each, in order.
      chosen: the key to read; meta: Python's file of names; names: binary file and key of names.
    """

    title: str
    batches: dict[str, int]
    labels: tuple[str, ...]
    chosen: str
    meta: str
    names: tuple[str, str]
    classes: int
    takes: str


def cifar10(path: str | os.PathLike[str], part: str = "train") -> Dataset:
    """CIFAR-10: 50,000 images for training or 10,000 for tests, 3x32x32, ten classes.

    Args:
      path: cifar-10-binary.tar.gz, cifar-10-python.tar.gz, or the folder that one unpacks to.
      part: "train" or "test".

    Raises:
      FileNotFoundError: nothing at the path. ValueError: a file missing, cut short or wrong.
    """
    arguments.one_of("part", part, ("train", "test"))
    files = [f"data_batch_{i}" for i in range(1, 6)] if part == "train" else ["test_batch"]
    takes = "cifar-10-binary.tar.gz, cifar-10-python.tar.gz or the folder that one unpacks to"
    names = "batches.meta.txt", "label_names"
    return _read(path, _Archive(
        f"CIFAR-10 {part}", dict.fromkeys(files, 1), ("labels",), "labels", "batches.meta", names,
        10, takes,
    ))  # fmt: skip


def cifar100(path: str | os.PathLike[str], part: str = "train", labels: str = "fine") -> Dataset:
    """CIFAR-100: as `cifar10`, with 100 classes (`labels="fine"`) or their 20 groups ("coarse")."""
    arguments.one_of("part", part, ("train", "test"))
    arguments.one_of("labels", labels, ("fine", "coarse"))
    takes = "cifar-100-binary.tar.gz, cifar-100-python.tar.gz or the folder that one unpacks to"
    names = f"{labels}_label_names.txt", f"{labels}_label_names"
    return _read(path, _Archive(
        f"CIFAR-100 {labels} {part}", {part: 5 if part == "train" else 1},
        ("coarse_labels", "fine_labels"), f"{labels}_labels", "meta", names,
        100 if labels == "fine" else 20, takes,
    ))  # fmt: skip


def _read(path: str | os.PathLike[str], archive: _Archive) -> Dataset:
    binary = [f"{name}.bin" for name in archive.batches]
    wanted = [*binary, archive.names[0], *archive.batches, archive.meta]
    found = sources.files(path, wanted, archive.takes)
    is_binary = any(name in found for name in (*binary, archive.names[0]))
    needed = [*binary, archive.names[0]] if is_binary else [*archive.batches, archive.meta]
    missing = [name for name in needed if name not in found]
    if missing:
        raise sources.wrong(path, f"which has no {missing[0]}", archive.takes)
    reader = _binary if is_binary else _python
    parts = [
        reader(path, archive, name, found.pop(name), BATCH * count)
        for name, count in zip(needed, archive.batches.values())
    ]
    images = np.concatenate([p[0] for p in parts]).reshape(-1, *_SHAPE)
    labels = np.concatenate([p[1] for p in parts])
    classes = _classes(path, archive, found[needed[-1]], is_binary)
    return Dataset(sources.pixels(images), labels, classes, archive.title)


def _binary(
    path: Any, archive: _Archive, name: str, data: bytes, count: int
) -> tuple[np.ndarray, np.ndarray]:
    record = len(archive.labels) + _PIXELS
    if len(data) != count * record:
        takes = f"{count * record}, {count} records of {record}"
        raise sources.wrong(path, f"whose {name} has {len(data)} bytes", takes)
    records = np.frombuffer(data, np.uint8).reshape(count, record)
    labels = records[:, archive.labels.index(archive.chosen)]
    return records[:, len(archive.labels) :], _in_range(path, archive, name, labels)


def _python(
    path: Any, archive: _Archive, name: str, data: bytes, count: int
) -> tuple[np.ndarray, np.ndarray]:
    batch = pickled.load(data, f"path: got {os.fspath(path)!r}, whose {name}")
    images, labels = batch.get("data"), batch.get(archive.chosen)
    expected = (count, _PIXELS)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape != expected:
        got = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else "no array"
        raise sources.wrong(path, f"whose {name} has {got} under 'data'", f"bytes {expected}")
    numbers = labels if isinstance(labels, list) else []
    if len(numbers) != count or not all(type(v) is int for v in numbers):
        takes = f"a list of {count} integers"
        raise sources.wrong(path, f"whose {name} has something else as {archive.chosen!r}", takes)
    return images, _in_range(path, archive, name, np.array(numbers, object))


def _in_range(path: Any, archive: _Archive, name: str, labels: np.ndarray) -> np.ndarray:
    outside = labels[(labels < 0) | (labels >= archive.classes)]
    if outside.size:
        takes = f"labels from 0 to {archive.classes - 1}"
        raise sources.wrong(path, f"whose {name} has the label {outside[0]}", takes)
    return labels.astype(np.int32)


def _classes(path: Any, archive: _Archive, data: bytes, is_binary: bool) -> tuple[str, ...]:
    file, key = archive.names
    name = file if is_binary else archive.meta
    if is_binary:
        lines: Any = data.splitlines()
    else:
        lines = pickled.load(data, f"path: got {os.fspath(path)!r}, whose {name}").get(key)
    try:
        texts = [line if isinstance(line, str) else line.decode("utf-8") for line in lines]
    except (TypeError, AttributeError, UnicodeDecodeError):
        texts = []
    classes = tuple(filter(None, map(str.strip, texts)))
    if len(set(classes)) != archive.classes or len(classes) != archive.classes:
        takes = f"{archive.classes} names of classes, no two alike"
        raise sources.wrong(path, f"whose {name} has {len(set(classes))} names", takes)
    return classes
