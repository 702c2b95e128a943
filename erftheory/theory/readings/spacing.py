"""Physical units: how far apart pixels are, and sizes counted in that unit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from erftheory.network.arguments import number

TAKES = 'takes a number > 0, one an axis, or text such as "0.5 mm" or "1 x 0.5 mm"'
_NUMBER = r"[\d.eE+\-]+"
# A unit has no digits and no sign of a product: "1 mm x 2 mm" is no unit of 1.
_TEXT = re.compile(rf"\s*({_NUMBER}(?:\s*[x×,]\s*{_NUMBER})*)\s*((?!x(?:\s|$))[^\d\s×,][^\d×,]*)?")


@dataclass(frozen=True)
class Spacing:
    """Distance of neighbouring pixels, one entry an axis, in `unit` ("" where none is named)."""

    values: tuple[float, ...]
    unit: str = ""

    def of(self, pixels: Sequence) -> tuple[float, ...]:
        """Lengths in pixels (one an axis), in `unit`."""
        return tuple(float(p) * s for p, s in zip(pixels, self.values))

    def show(self, pixels: Sequence) -> str:
        """Lengths in pixels as text with the unit."""
        texts = [f"{v:.4g}" for v in self.of(pixels)]
        return f"{' x '.join(texts)} {self.unit}".rstrip()


def parse_spacing(value: Any, ndim: int) -> Spacing | None:
    """The argument `spacing`: a number, one an axis, a text with a unit, or None.

    Raises:
      ValueError: another type, a number that is not > 0, or not one entry an axis.
    """
    if value is None or isinstance(value, Spacing):
        return value
    unit, entries = "", value
    if isinstance(value, str):
        found = _TEXT.fullmatch(value)
        try:
            entries = [float(n) for n in re.split(r"\s*[x×,]\s*", found[1])] if found else None
        except ValueError:
            entries = None
        if found is None or entries is None:
            raise ValueError(f"spacing: got {value!r}; {TAKES}")
        unit = (found[2] or "").strip()
    if isinstance(entries, np.ndarray):
        entries = entries.ravel().tolist()
    if not isinstance(entries, (tuple, list)):
        entries = (entries,)
    values = tuple(float(number("spacing", v)) for v in entries)
    if len(values) == 1:
        values *= ndim
    if len(values) != ndim or not all(v > 0 for v in values):
        raise ValueError(f"spacing: got {value!r} for {ndim} axes; {TAKES}")
    return Spacing(values, unit)
