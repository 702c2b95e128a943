"""How far a map may be from the truth, and which signals there are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

IDEALISED = "idealised: "  # how `ErrorBound.note` begins where theory idealises a model

Signal = Literal["variance", "magnitude", "gradient"]
ErrorKind = Literal["exact", "relative", "rounding", "approximation", "standard error"]


def choice(name: str, value: Any, accepted: Sequence[str]) -> None:
    if value not in accepted:
        raise ValueError(f"{name}: got {value!r}, takes one of {', '.join(accepted)}")


@dataclass(frozen=True)
class ErrorBound:
    """How far a map may be from the truth.

    `kind` says what `value` is: "exact" (0), "relative" (bounds the relative error of every pixel,
    tails included), "rounding" (bounds the mass in the wrong place, Σ|error| over pixels, unless
    `note` says otherwise), "approximation" (of an asymptotic formula, see `note`) or "standard
    error" (of the quantity in `note`). `outside` bounds the share of the signal beyond the map.
    """

    kind: ErrorKind
    value: float = 0.0
    note: str = ""
    outside: float = 0.0

    def __post_init__(self) -> None:
        choice("kind", self.kind, get_args(ErrorKind))

    def __str__(self) -> str:
        beyond = f", outside <= {self.outside:.2g}" if self.outside else ""
        if self.kind == "exact":
            return f"exact{beyond}"
        bounded = self.kind in ("relative", "rounding", "approximation")
        name = f"{self.kind} error" if bounded else self.kind
        value = "unknown" if math.isnan(self.value) else f"{self.value:.2g}"
        return f"{name}{' <=' if bounded else ''} {value}{beyond}"
