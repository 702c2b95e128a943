"""Files that are there whole or not at all, and values that JSON holds."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any


def check_writable(path: str, name: str) -> Path:
    """The file to write, after a trial in its folder that leaves nothing behind.

    Raises:
      ValueError: the path is a folder, or nothing can be written there; `name` is the argument's.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.is_dir():
            raise IsADirectoryError("it is a folder")
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError("it is not writable")
        if not target.exists() or target.is_file():
            trial = target.with_name(f".erftheory-{os.getpid()}")
            with open(trial, "x"):
                pass
            trial.unlink()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{name}: got {path!r}, {why}; takes a path that can be written") from None
    return target


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The place to write what shall stand at `path`, whole or not at all.

    A file beside it, of the same suffix, that takes its place at the end and is gone after an
    error; links are followed. Pipes and devices are written to directly.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        yield target
        return
    partial = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """A value that JSON holds: exact integers up to 2^53, floats, text, lists, objects, None."""
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int) and abs(value) <= 2**53:
        return value
    try:
        number = float(value)
    except OverflowError:
        return str(value) if abs(value) < 10**4000 else scientific(value)
    except (TypeError, ValueError):
        return str(value)
    if not math.isfinite(number):
        return str(number)
    return int(number) if isinstance(value, Fraction) and value.denominator == 1 else number


def scientific(value: int) -> str:
    """An integer of any size: digits first, because a float would overflow."""
    digits = str(abs(value)) if abs(value) < 10**4000 else None
    if digits is None:
        exponent = int((abs(value).bit_length() - 1) * math.log10(2))
        return f"~{'-' if value < 0 else ''}1e{exponent}"
    return f"{'-' if value < 0 else ''}{digits[0]}.{digits[1:6]}e{len(digits) - 1}"
