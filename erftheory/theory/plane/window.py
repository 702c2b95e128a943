"""Which pixels of an ERF are computed: the argument `window`, and the default."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor
from numbers import Integral
from typing import Any

OUTSIDE = 1e-12  # share of the signal that the default window of a large map leaves out
WHOLE = 2**16  # pixels an axis up to which the default is the whole support

Span = tuple[int, int]  # first and last pixel, counted like `offset`
TAKES = (
    'takes None, pixels (an int an axis, about the centre), deviations ("8 std", on each side), '
    "or a range of input pixels an axis"
)


@dataclass(frozen=True)
class Window:
    """The request for one axis: pixels about the mean, deviations, a range, or the default."""

    pixels: int | None = None
    deviations: float | None = None
    span: Span | None = None

    def resolve(self, support: Span, mean: float, std: float, smallest: Callable[[], Span]) -> Span:
        """First and last pixel, inside the support; `smallest` gives the default of a large map."""
        first, last = support
        if self.pixels is not None:
            start = floor(mean - (self.pixels - 1) / 2 + 0.5)
            begin, end = start, start + self.pixels - 1
        elif self.deviations is not None:
            reach = self.deviations * std
            begin, end = floor(mean - reach), ceil(mean + reach)
        elif self.span is not None:
            begin, end = self.span
        elif last - first + 1 <= WHOLE:
            return support
        else:
            begin, end = smallest()
        begin, end = max(begin, first), min(end, last)
        if begin > end:
            raise ValueError(
                f"window: got pixels {self.span[0]} to {self.span[1]}; takes a range that meets "
                f"the receptive field, {first} to {last}"
                if self.span
                else f"window: got {self}; {TAKES}"
            )
        return begin, end


def parse(window: Any, ndim: int) -> tuple[Window, ...]:
    """The argument `window`, one entry an axis.

    Raises:
      ValueError: another type, a length that is not `ndim`, or nothing in it.
    """
    entries = window if isinstance(window, tuple | list) else (window,) * ndim
    if len(entries) != ndim:
        raise ValueError(f"window: got {window!r}; takes one entry or {ndim}, one an axis")
    return tuple(_one(entry, window) for entry in entries)


def _one(entry: Any, window: Any) -> Window:
    if entry is None:
        return Window()
    if isinstance(entry, Integral) and not isinstance(entry, bool) and int(entry) > 0:
        return Window(pixels=int(entry))
    if isinstance(entry, range) and len(entry) and entry.step == 1:
        return Window(span=(entry[0], entry[-1]))
    if isinstance(entry, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*std\s*", entry)
        if found and float(found[1]) > 0:
            return Window(deviations=float(found[1]))
    raise ValueError(f"window: got {window!r}; {TAKES}")
