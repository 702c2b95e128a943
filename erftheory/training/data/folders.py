"""Folders of images: a folder a class, or images beside label maps."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from erftheory.network import arguments
from erftheory.training.data import pictures, sources
from erftheory.training.data.dataset import Dataset

Colour = tuple[int, int, int]
_CONVERT = ("RGB", "L")
_UNKNOWN = -2  # no class and not void


def class_folders(
    path: str | os.PathLike[str], size: tuple[int, int] | None = None, convert: str = "RGB"
) -> Dataset:
    """Images of a folder that has a folder for each class; classes and images by name.

    Hidden files are passed over, and files beside the folders of classes that are no images.

    Args:
      size: height and width that all images are resized to (bilinear); None: they have one size.
      convert: "RGB", three channels, or "L", one.

    Raises:
      FileNotFoundError: nothing at the path. ValueError: no folders in it, an empty one, images
        beside them, a file that is no whole image, several sizes.
    """
    takes = "a folder that has a folder of images for each class"
    arguments.one_of("convert", convert, _CONVERT)
    size = None if size is None else pictures.plane("size", size)
    place = _folder(path, takes, "path")
    inside = pictures.entries(place)
    loose = [p.name for p in inside if p.is_file() and p.suffix.lower() in pictures.SUFFIXES]
    folders = [p for p in inside if p.is_dir()]
    if loose or not folders:
        what = f"which has the image {loose[0]!r} itself" if loose else "which has no folders"
        raise sources.wrong(path, what, takes)
    files, labels = [], []
    for label, folder in enumerate(folders):
        found = pictures.image_files(folder, "path")
        files += found
        labels += [label] * len(found)
    images = pictures.stacked(files, "path", convert, size)
    classes = tuple(folder.name for folder in folders)
    return Dataset(images, np.array(labels), classes, place.resolve().name or "images")


def colour_table(path: str | os.PathLike[str]) -> dict[str, Colour]:
    """Colours of classes from a file of lines "red green blue name", as CamVid's label_colors.txt.

    Raises:
      FileNotFoundError: nothing at the path. ValueError: another line, a name or colour twice.
    """
    takes = 'lines "red green blue name", 0 to 255, no name and no colour twice'
    place = sources.existing(path, takes)
    try:
        text = sources.read_whole(place, takes, 1 << 20).decode("utf-8")
    except UnicodeDecodeError:
        raise sources.wrong(path, "which is no text", takes) from None
    table: dict[str, Colour] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split(maxsplit=3)
        if not words:
            continue
        try:
            r, g, b = (int(word) for word in words[:3])
            colour, name = (r, g, b), words[3].strip()
        except (ValueError, IndexError):
            raise sources.wrong(path, f"whose line {number} is {line[:60]!r}", takes) from None
        if not all(0 <= v <= 255 for v in colour) or name in table or colour in table.values():
            raise sources.wrong(path, f"whose line {number} is {line[:60]!r}", takes)
        table[name] = colour
    if not table:
        raise sources.wrong(path, "which has no lines", takes)
    return table


def label_maps(
    images: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    colours: Mapping[str, Colour] | Mapping[str, int] | Sequence[str],
    size: tuple[int, int] | None = None,
    void: Sequence[str] = (),
    convert: str = "RGB",
) -> Dataset:
    """Images beside label maps: dense prediction, as CamVid.

    Args:
      images, labels: folders of as many files; of an image NAME.* the map is NAME.* or NAME_L.*.
      colours: what stands for a class in a map, by name: a colour (red, green, blue), or an index
        of a palette or grey level; a sequence of names: indices 0, 1, ...
      size: height and width that images (bilinear) and maps (nearest) are resized to.
      void: names of `colours` that are not counted, label -1. If there are any, all that is not in
        `colours` is not counted either.
      convert: as in `class_folders`.

    Raises:
      FileNotFoundError: no such folder. ValueError: a file without its partner or of another size,
        a colour that is not in `colours` (without `void`), no pixel that counts, and as
        `class_folders`.
    """
    arguments.one_of("convert", convert, _CONVERT)
    size = None if size is None else pictures.plane("size", size)
    classes, values, is_colour = _codes(colours, void)
    table = np.full(1 << 24 if is_colour else 256, -1 if void else _UNKNOWN, np.int16)
    table[list(values)] = list(values.values())
    pairs = _pairs(images, labels)
    maps = []
    for image, path in pairs:
        chosen = _classes_of(path, table, is_colour)
        if pictures.shape(image, "images") != chosen.shape:
            what = f"of {chosen.shape[0]}x{chosen.shape[1]} pixels"
            raise sources.wrong(path, what, f"the size of its image {image.name!r}", "labels")
        maps.append(chosen if size is None else _nearest(chosen, size))
    pixels = pictures.stacked([image for image, _ in pairs], "images", convert, size)
    found = np.stack(maps).astype(np.int32)
    if (found < 0).all():
        raise sources.wrong(labels, "without a pixel of a class", "maps in `colours`", "labels")
    return Dataset(pixels, found, classes, Path(images).resolve().name or "images")


def _folder(path: str | os.PathLike[str], takes: str, name: str) -> Path:
    place = sources.existing(path, takes, name)
    if not place.is_dir():
        raise sources.wrong(path, "which is no folder", takes, name)
    return place


def _codes(colours: Any, void: Any) -> tuple[tuple[str, ...], dict[int, int], bool]:
    """Names of the classes that count, the label of each colour or index, and whether colours."""
    takes = "names of classes, each with its own (red, green, blue) or index, 0 to 255"
    if isinstance(colours, Mapping):
        table = dict(colours)
    elif isinstance(colours, Sequence) and not isinstance(colours, (str, bytes)):
        table = {name: i for i, name in enumerate(colours)}
        if len(table) < len(colours):
            raise ValueError(f"colours: got {colours!r}; takes {takes}")
    else:
        raise ValueError(f"colours: got {colours!r}; takes {takes}")
    is_colour = any(isinstance(v, (tuple, list)) for v in table.values())
    codes: dict[str, int] = {}
    for name, value in table.items():
        parts = tuple(value) if isinstance(value, (tuple, list)) else (value,)
        whole = all(isinstance(v, (int, np.integer)) and 0 <= v <= 255 for v in parts)
        if not isinstance(name, str) or not whole or len(parts) != (3 if is_colour else 1):
            raise ValueError(f"colours: got {value!r} for {name!r}; takes {takes}")
        codes[name] = sum(int(v) << 8 * i for i, v in enumerate(reversed(parts)))
    if len(set(codes.values())) < len(codes) or not codes:
        different = len(set(codes.values()))
        raise ValueError(f"colours: got {len(codes)} names of {different} values; takes {takes}")
    if isinstance(void, str) or not isinstance(void, Sequence) or not set(void) <= set(codes):
        raise ValueError(f"void: got {void!r}; takes a sequence of names that are in `colours`")
    classes = tuple(name for name in codes if name not in void)
    if not classes:
        raise ValueError(f"void: got {void!r}; takes names that leave a class")
    labels = {code: -1 if name in void else classes.index(name) for name, code in codes.items()}
    return classes, labels, is_colour


def _pairs(images: Any, labels: Any) -> list[tuple[Path, Path]]:
    """Each image with its map, by name."""
    takes = "a folder of images, each with a map NAME.* or NAME_L.* in `labels`"
    left = pictures.image_files(_folder(images, takes, "images"), "images")
    takes_maps = "a folder of maps, NAME.* or NAME_L.*, one for each image NAME.*"
    right = pictures.image_files(_folder(labels, takes_maps, "labels"), "labels")
    names = {image.stem for image in left}
    if len(names) < len(left):
        raise sources.wrong(images, "which has two images of one name", takes, "images")
    maps: dict[str, Path] = {}
    for path in right:
        stem = path.stem
        if stem not in names and stem.endswith("_L"):
            stem = stem[:-2]
        if stem not in names or stem in maps:
            what = f"whose {path.name!r} has {'a second map' if stem in maps else 'no image'}"
            raise sources.wrong(labels, what, takes_maps, "labels")
        maps[stem] = path
    for image in left:
        if image.stem not in maps:
            what = f"which has no map of {image.name!r}"
            raise sources.wrong(labels, what, takes_maps, "labels")
    return [(image, maps[image.stem]) for image in left]


def _classes_of(path: Path, table: np.ndarray, is_colour: bool) -> np.ndarray:
    """Labels (height, width) of the colours or indices in a file."""
    codes = pictures.read(path, "labels", "RGB" if is_colour else None).astype(np.int32)
    if is_colour:
        codes = codes[..., 0] << 16 | codes[..., 1] << 8 | codes[..., 2]
    labels = table[codes]
    if (labels == _UNKNOWN).any():
        code = int(codes[labels == _UNKNOWN][0])
        shown = (code >> 16, code >> 8 & 255, code & 255) if is_colour else code
        takes = "what is in `colours`, or void=(NAME, ...) for what is not counted"
        raise sources.wrong(path, f"which has {shown}", takes, "labels")
    return labels


def _nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resized: the label in which the centre of each new pixel lies."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, labels.shape)
    )
    return labels[rows[:, None], columns]
