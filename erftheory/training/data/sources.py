"""Bytes of named files, from a folder or from a .tar.gz that is never unpacked to disk."""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

LARGEST = 1 << 28  # bytes of one file: CIFAR-100's largest has 1.5e8
_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 20
# What gzip, zlib and tarfile raise for files that are cut short or are something else.
_BROKEN = (OSError, EOFError, zlib.error, tarfile.TarError, ValueError, OverflowError, MemoryError)


def wrong(path: str | os.PathLike[str], what: str, takes: str, name: str = "path") -> ValueError:
    return ValueError(f"{name}: got {os.fspath(path)!r}, {what}; takes {takes}")


def existing(path: str | os.PathLike[str], takes: str, name: str = "path") -> Path:
    """The path.

    Raises:
      FileNotFoundError: nothing is there. ValueError: not a path.
    """
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise ValueError(f"{name}: got {path!r}; takes {takes}")
    if not os.path.exists(path):
        raise FileNotFoundError(f"{name}: got {os.fspath(path)!r}, nothing is there; takes {takes}")
    return Path(path)


def pixels(values: np.ndarray) -> np.ndarray:
    """Bytes 0 to 255 as float32, divided by 255."""
    return np.divide(values, np.float32(255), dtype=np.float32)


def read_whole(path: Path, takes: str, largest: int = LARGEST, name: str = "path") -> bytes:
    """The bytes of a file; of a gzip file, those that it packs.

    Raises:
      ValueError: it cannot be read, is cut short, or has more than `largest` bytes.
    """
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == _GZIP
        with gzip.open(path) if packed else open(path, "rb") as file:
            data = _up_to(file, largest)
    except _BROKEN as error:
        raise wrong(path, f"which cannot be read ({_reason(error)})", takes, name) from None
    if data is None:
        raise wrong(path, f"more than {largest} bytes", takes, name)
    return data


def files(
    path: str | os.PathLike[str], names: Iterable[str], takes: str, largest: int = LARGEST
) -> dict[str, bytes]:
    """Those of the named files that a folder or a .tar.gz has, with their bytes.

    Of an archive every byte is read, so that one that is cut short is noticed. Its members count by
    their last name; links, and paths that are absolute or climb (`..`), are passed over.

    Raises:
      FileNotFoundError: nothing at the path. ValueError: neither a folder nor a whole .tar.gz, two
        members of one name, or a file of more than `largest` bytes.
    """
    place, wanted = existing(path, takes), set(names)
    if place.is_dir():
        found = {name for name in wanted if (place / name).is_file()}
        return {name: read_whole(place / name, takes, largest) for name in sorted(found)}
    try:
        with open(place, "rb") as file:
            if file.read(2) != _GZIP:
                raise tarfile.ReadError("it is no gzip file")
        with gzip.open(place) as unpacked:
            data = _members(unpacked, wanted, largest)  # pyright: ignore[reportArgumentType]
            while unpacked.read(_CHUNK):  # the rest, for its checksum
                pass
    except _BROKEN as error:
        raise wrong(path, f"no whole archive ({_reason(error)})", takes) from None
    return data


def _members(unpacked: IO[bytes], wanted: set[str], largest: int) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=unpacked, mode="r:") as archive:
        for member in archive:
            place = PurePosixPath(member.name)
            if place.name not in wanted or not member.isreg():
                continue
            if place.is_absolute() or ".." in place.parts:
                continue
            if place.name in found:
                raise tarfile.ReadError(f"{place.name} is there twice")
            file = archive.extractfile(member)
            data = None if file is None else _up_to(file, largest)
            if data is None:
                raise tarfile.ReadError(f"{place.name} has more than {largest} bytes")
            if len(data) != member.size:
                raise tarfile.ReadError(f"{place.name} is cut short")
            found[place.name] = data
    return found


def _up_to(file: IO[bytes] | gzip.GzipFile, largest: int) -> bytes | None:
    """All bytes, or None if there are more than `largest`; never holds many more than that."""
    parts, total = [], 0
    while part := file.read(_CHUNK):
        parts.append(part)
        total += len(part)
        if total > largest:
            return None
    return b"".join(parts)


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
