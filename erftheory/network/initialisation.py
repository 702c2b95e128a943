"""Initialisations: the variance of a convolution's weights and biases, once for theory and nets."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

Init = str | float | Fraction
INITS = ("he", "lecun", "xavier", "torch", "keras", "flax")
_TAKES = f"a positive number c for c/fan_in, or one of {', '.join(INITS)}"


def check_init(init: Any, counting: bool = False) -> Any:
    """An accepted name, a positive number, or (`counting`) None for raw paths.

    Raises:
      ValueError: anything else.
    """
    if init is None and counting:
        return init
    if isinstance(init, str):
        if init in INITS:
            return init
    elif isinstance(init, int | float | Fraction) and not isinstance(init, bool):
        if 0 < init < math.inf:
            return init
    raise ValueError(f"init: got {init!r}; takes {_TAKES}{', or None' if counting else ''}")


def weight_variance(
    init: Init, inward: int | Fraction, outward: int | Fraction, taps: int, transposed: bool = False
) -> Fraction:
    """Variance of a weight, of mean 0.

    Args:
      init: "he" 2/fan_in, "lecun" and "flax" 1/fan_in, "xavier" and "keras" 2/(fan_in + fan_out),
        "torch" 1/(3 fan_in), a number c for c/fan_in.
      inward, outward: channels that an output reads, and that an input feeds; fan_in is inward
        times taps, fan_out outward times taps.
      transposed: of a transposed convolution, whose fan_in PyTorch counts from its weights as they
        are stored: outward times taps.
    """
    fan_in, fan_out = Fraction(inward * taps), Fraction(outward * taps)
    if init in ("xavier", "keras"):
        return 2 / (fan_in + fan_out)
    if init == "torch":
        return 1 / (3 * (fan_out if transposed else fan_in))
    factor = {"he": 2, "lecun": 1, "flax": 1}[init] if isinstance(init, str) else init
    return Fraction(factor) / fan_in


def bias_variance(
    init: Init, inward: int | Fraction, outward: int | Fraction, taps: int, transposed: bool = False
) -> Fraction:
    """Variance of a bias: PyTorch draws it as it draws weights, the others start at 0."""
    if init != "torch":
        return Fraction(0)
    return weight_variance(init, inward, outward, taps, transposed)
