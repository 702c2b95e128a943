"""What is asked of a designed network: an ERF, and bounds that it must keep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from erftheory.designing.costs import check_cost
from erftheory.designing.spaces import Space, check_space
from erftheory.network import arguments as arg

ERFS = ("std", "mass_radius", "flat", "gaussian")
BOUNDED = ("field", "lookback", "latency", "stride")


@dataclass(frozen=True)
class Bounds:
    """Least and most of a whole number; None is no bound."""

    low: int | None = None
    high: int | None = None

    def gap(self, value: int) -> int:
        """How far a value lies below (negative) or above the bounds; 0 inside."""
        if self.low is not None and value < self.low:
            return value - self.low
        return value - self.high if self.high is not None and value > self.high else 0

    def __bool__(self) -> bool:
        return self.low is not None or self.high is not None

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"({self.low}, {self.high})"


@dataclass(frozen=True)
class Query:
    """One question, checked.

    Attributes:
      kind, value: what the ERF shall have, one of `ERFS` ("" for nothing) and how many pixels.
      image: pixels a side of the input.
      budget: the most it may cost, None without a limit.
      field, lookback, latency, stride: bounds, input pixels an axis.
      gridding: False asks for a receptive field without holes.
    """

    kind: str
    value: float
    image: int
    budget: Fraction | None
    space: Space
    cost: Any
    field: Bounds
    lookback: Bounds
    latency: Bounds
    stride: Bounds
    gridding: bool

    def active(self) -> tuple[str, ...]:
        """Names of the bounds that there are."""
        found = [name for name in BOUNDED if getattr(self, name)]
        found += ["budget"] if self.budget is not None else []
        return (*found, *([] if self.gridding else ["gridding"]))

    def without(self, names: Sequence[str]) -> Query:
        """The same question without some of its bounds."""
        none: dict[str, Any] = {name: Bounds() for name in BOUNDED}
        none |= {"budget": None, "gridding": True}
        return replace(self, **{name: none[name] for name in names})

    def distance(self, std: float) -> float:
        """Pixels between a deviation and the one that is asked, 0 if none is."""
        return abs(std - self.value) if self.kind == "std" else 0.0


def check_query(
    erf: Any, image: Any, budget: Any, allowed: Any, cost: Any,
    field: Any, lookback: Any, latency: Any, stride: Any, gridding: Any,
) -> Query:  # fmt: skip
    """The question of the arguments of `design`; ValueError as said there."""
    kind, value = _erf(erf)
    cost = check_cost(cost)
    if image is None:
        if cost != "parameters" and not isinstance(cost, Mapping):
            raise ValueError(f"image: got None; takes pixels a side with cost={cost!r}")
        image = 1
    if budget is not None:
        if arg.number("budget", budget) < 0:
            raise ValueError(f"budget: got {budget}; takes a number >= 0")
        budget = Fraction(budget)
    return Query(
        kind, value, arg.integer("image", image), budget, check_space(allowed), cost,
        bounds("field", field, 1), bounds("lookback", lookback, 0), bounds("latency", latency, 0),
        bounds("stride", stride, 1), arg.one_of("gridding", gridding, (True, False)),
    )  # fmt: skip


def _erf(erf: Any) -> tuple[str, float]:
    if erf is None:
        return "", 0.0
    pair = erf if isinstance(erf, Mapping) else {"std": erf}
    if len(pair) != 1 or not set(pair) <= set(ERFS):
        raise ValueError(
            f"erf: got {erf!r}; takes a deviation in pixels, or one of std, mass_radius, flat and "
            "gaussian with its pixels, as in {'flat': 20}"
        )
    ((kind, value),) = pair.items()
    least = kind in ("flat", "gaussian")
    if not (number := float(arg.number("erf", value))) >= 0 or least and not number:
        raise ValueError(f"erf: got {erf!r}; takes pixels {'> 0' if least else '>= 0'}")
    return kind, number


def bounds(name: str, value: Any, minimum: int) -> Bounds:
    """None, one number, or (least, most), of which either may be None.

    Raises:
      ValueError: another form, or a least above the most.
    """
    if value is None:
        return Bounds()
    ends = (value, value) if not isinstance(value, Sequence) else tuple(value)
    if isinstance(value, str) or len(ends) != 2:
        raise ValueError(f"{name}: got {value!r}; takes a number or (least, most)")
    low, high = (
        None if end is None or end == math.inf else arg.integer(name, end, minimum) for end in ends
    )
    if low is not None and high is not None and low > high:
        raise ValueError(f"{name}: got {value!r}; takes (least, most) in this order")
    return Bounds(low, high)
