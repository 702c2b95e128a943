"""Numbers of gains and weights: rationals while they can be, floats where roots make them."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

Weight = int | Fraction | float

HUGE = 1e290
SMALL = 1 / HUGE


def to_float(value: Weight) -> float:
    """`value` as a float, its size held between 1e-290 and 1e290 (0 stays 0)."""
    result = value if isinstance(value, float) else _quotient(value)
    if SMALL <= result <= HUGE:
        return result
    if result == 0:
        return 0.0
    return math.copysign(min(max(abs(result), SMALL), HUGE), result)


def _quotient(value: int | Fraction) -> float:
    try:
        result = value.numerator / value.denominator
    except OverflowError:
        result = math.inf if value > 0 else -math.inf
    return result if result or not value else SMALL if value > 0 else -SMALL


def quotient(a: Weight, b: Weight) -> Weight:
    """a / b, a fraction where both are exact."""
    if isinstance(a, float) or isinstance(b, float):
        return a / b
    if b == 1:
        return a if isinstance(a, Fraction) else Fraction(a)
    return Fraction(a) / b


def root(value: Weight) -> Weight:
    """√value, exact for squares of rationals."""
    return math.sqrt(to_float(value)) if isinstance(value, float) else _exact_root(value)


@lru_cache(maxsize=1024)
def _exact_root(value: int | Fraction) -> Weight:
    top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
    if top * top == value.numerator and bottom * bottom == value.denominator:
        return Fraction(top, bottom)
    return math.sqrt(to_float(value))


def power(base: float, count: int) -> float:
    """base ** count, held in the range of `to_float`."""
    if base <= 0:
        return 0.0
    log = math.log(base) * count
    return math.exp(min(max(log, -660.0), 660.0))
