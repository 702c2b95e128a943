"""Image files as bytes, by Pillow, which matplotlib brings along."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from erftheory.network import arguments
from erftheory.training.data import sources

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")  # of 8 bits or less
_TAKES = "whole images of at most 8 bits a channel"


def entries(folder: Path) -> list[Path]:
    """What a folder has, by name, without what systems leave in it."""
    litter = ("Thumbs.db", "desktop.ini", "__MACOSX")
    return sorted(p for p in folder.iterdir() if p.name[0] != "." and p.name not in litter)


def image_files(folder: Path, name: str) -> list[Path]:
    """The images of a folder, by name.

    Raises:
      ValueError: none, or something that is no image: to pass it over might drop images.
    """
    takes = f"a folder of images ({', '.join(SUFFIXES)}) and nothing else"
    found = entries(folder)
    if not found:
        raise sources.wrong(folder, "an empty folder", takes, name)
    for path in found:
        if path.suffix.lower() not in SUFFIXES:
            raise sources.wrong(folder, f"which has {path.name!r}", takes, name)
    return found


def plane(name: str, value: Any) -> tuple[int, int]:
    """A pair (height, width) of integers >= 1."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"{name}: got {value!r}; takes None or a pair (height, width)")
    height, width = (arguments.integer(f"{name}[{i}]", v) for i, v in enumerate(value))
    return height, width


def read(
    path: Path, name: str, convert: str | None, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Bytes of an image (height, width) if grey or of indices, (height, width, 3) if colour.

    Of several frames the first; pixels as they are stored (no rotation by EXIF), without alpha.

    Args:
      convert: "RGB", "L" (grey), or None: the indices of a palette or the grey levels themselves.
      size: height and width to resize to, bilinear and averaged over what one pixel covers.

    Raises:
      ValueError: no image, one cut short, one of more than 8 bits a channel, or, for None, one in
        colour. ImportError: Pillow is missing.
    """
    pillow = _pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # files odd but whole
            with pillow.open(path) as image:
                if image.format == "PNG":
                    image.verify()  # checksums up to the end; then it must be opened anew
            with pillow.open(path) as image:
                image.load()
                mode = image.mode
                if mode in _MODES:
                    image = image.convert(convert) if convert else image
                    if size is not None:
                        image = image.resize((size[1], size[0]), pillow.Resampling.BILINEAR)
                values = np.array(image)
    except Exception as error:  # decoders fail in many ways
        raise _unreadable(path, error, name) from None
    if mode not in _MODES:
        raise sources.wrong(path, f"of Pillow's mode {mode!r}", _TAKES, name)
    if convert is None and values.ndim != 2:
        raise sources.wrong(path, f"of Pillow's mode {mode!r}", "grey images or palettes", name)
    return values.astype(np.uint8)


def shape(path: Path, name: str) -> tuple[int, int]:
    """Height and width of an image, from its beginning alone."""
    pillow = _pillow()
    try:
        with pillow.open(path) as image:
            return image.height, image.width
    except Exception as error:
        raise _unreadable(path, error, name) from None


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("reading images needs Pillow (pip install pillow)") from error
    return Image


def _unreadable(path: Path, error: Exception, name: str) -> ValueError:
    why = f"which cannot be read ({type(error).__name__})"
    return sources.wrong(path, why, _TAKES, name)


def stacked(files: list[Path], name: str, convert: str, size: tuple[int, int] | None) -> np.ndarray:
    """All images as float32 (count, 3 or 1, height, width), bytes / 255.

    Raises:
      ValueError: as `read`; two sizes where no `size` is given.
    """
    images: list[np.ndarray] = []
    for file in files:
        images.append(read(file, name, convert, size))
        if images[-1].shape != images[0].shape:
            (h, w), (a, b) = images[-1].shape[:2], images[0].shape[:2]
            what = f"of {h}x{w} pixels beside {a}x{b} of {files[0].name!r}"
            raise sources.wrong(file, what, "images of one size, or size=(height, width)", name)
    planes = np.stack(images)
    return sources.pixels(planes[:, None] if planes.ndim == 3 else planes.transpose(0, 3, 1, 2))
