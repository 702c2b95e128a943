"""Checks of user arguments: one line that names the argument, what came and what is accepted."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np

Number = int | Fraction | float


def integer(name: str, value: Any, minimum: int = 1) -> int:
    """Return `value` as an int that is at least `minimum`, or raise a `ValueError`."""
    if type(value) is not int:
        try:
            if isinstance(value, (bool, np.bool_)):
                raise TypeError
            value = operator.index(value)
        except TypeError:
            raise ValueError(f"{name}: got {value!r}; takes an integer >= {minimum}") from None
    if value < minimum:
        raise ValueError(f"{name}: got {value}; takes an integer >= {minimum}")
    return value


def per_axis(name: str, value: Any, minimum: int = 1) -> int | tuple[int, ...]:
    """Return an int (every axis) or a tuple of one to three ints (one per axis)."""
    if type(value) is int and value >= minimum:
        return value
    if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, np.ndarray)):
        return integer(name, value, minimum)
    axes_length(name, value)
    return tuple(integer(f"{name}[{i}]", v, minimum) for i, v in enumerate(value))


def axes_length(name: str, value: Sequence | np.ndarray) -> None:
    if not 1 <= len(value) <= 3:
        raise ValueError(f"{name}: got {len(value)} entries; takes one per axis, 1 to 3 axes")


Padding = str | int | tuple[int | tuple[int, int], ...]


def padding(value: Any, words: tuple[str, ...]) -> Padding:
    """Return a padding: one of `words`, an int, or per axis an int or a (before, after) pair."""
    accepted = ", ".join(map(repr, words)) + ", an integer >= 0, or per axis an integer or a pair"
    if isinstance(value, str):
        if value not in words:
            raise ValueError(f"padding: got {value!r}; takes {accepted} (before, after)")
        return value
    if not isinstance(value, (Sequence, np.ndarray)):
        return integer("padding", value, 0)
    axes_length("padding", value)
    entries: list[int | tuple[int, int]] = []
    for i, entry in enumerate(value):
        if isinstance(entry, (Sequence, np.ndarray)) and not isinstance(entry, str):
            if len(entry) != 2:
                raise ValueError(
                    f"padding[{i}]: got {len(entry)} entries; takes a pair (before, after)"
                )
            before, after = (integer(f"padding[{i}]", e, 0) for e in entry)
            entries.append((before, after))
        else:
            entries.append(integer(f"padding[{i}]", entry, 0))
    return tuple(entries)


def output_unit(name: str, value: Any, grid: tuple[int, ...]) -> tuple[int, ...]:
    """An index of the output grid, one int an axis (an int alone on one); "center" is n // 2.

    Raises:
      ValueError: another number of entries, or one outside the grid.
    """
    if isinstance(value, str) and value == "center":
        return tuple(n // 2 for n in grid)
    several = isinstance(value, Sequence) or np.ndim(value) > 0
    given = value if isinstance(value, str) or several else (value,)
    what = "x".join(map(str, grid))
    wrong = f'{name}: got {value!r}; takes "center" or an index of the output grid of {what}'
    try:
        if isinstance(given, str) or len(given) != len(grid):
            raise ValueError
        place = tuple(integer(name, u, 0) for u in given)
    except (TypeError, ValueError):
        raise ValueError(wrong) from None
    if any(u >= n for u, n in zip(place, grid)):
        raise ValueError(wrong)
    return place


def number(name: str, value: Any) -> Number:
    """Return an int, `Fraction` or finite float; NumPy scalars become Python numbers."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, Fraction, float)):
        raise ValueError(f"{name}: got {value!r}; takes real numbers (int, Fraction or float)")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}: got {value}; takes finite numbers")
    return value


def taps_array(value: Any) -> tuple[tuple[int, ...], tuple[Number, ...]]:
    """Return the shape and the row-major numbers of a nested sequence or array of taps."""
    array = np.asarray(value, dtype=object)
    if array.ndim not in (1, 2, 3) or array.size == 0:
        raise ValueError(f"taps: got shape {array.shape}; takes a non-empty array of 1 to 3 axes")
    flat = tuple(
        number(f"taps{list(index)}", array[index]) for index in product(*map(range, array.shape))
    )
    if not any(flat):
        raise ValueError("taps: got all zeros; takes at least one tap that is not zero")
    return array.shape, flat


def one_of(name: str, value: Any, accepted: Sequence[Any]) -> Any:
    if value not in accepted:
        raise ValueError(f"{name}: got {value!r}; takes one of {', '.join(map(repr, accepted))}")
    return value
