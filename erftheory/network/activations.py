"""The activations: function, slope, and where they bend, each defined once.

Theory reads them with NumPy, executed networks with JAX (`Mathematics` is the few functions they
take), so that both speak of the same curve.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Mathematics:
    """The functions of an array library that activations are made of."""

    where: Callable[..., Any]
    abs: Callable[..., Any]
    tanh: Callable[..., Any]
    erf: Callable[..., Any]
    exp: Callable[..., Any]


def _erf(x: np.ndarray) -> np.ndarray:
    from scipy.special import erf  # descriptions of networks load no SciPy

    return erf(x)


NUMPY = Mathematics(np.where, np.abs, np.tanh, _erf, np.exp)


@dataclass(frozen=True)
class Curve:
    """An activation φ.

    Attributes:
      function: φ(x, m) with the functions `m` of an array library.
      derivative: φ′(x, m).
      bends: places between which it is smooth; the outermost ones are where its bend has ended.
      below: the slope below 0 of a rectifier (1 above); None for other curves.
      odd: True if φ(−x) = −φ(x).
      rises: True if it nowhere falls.
    """

    function: Callable[[Any, Mathematics], Any]
    derivative: Callable[[Any, Mathematics], Any]
    bends: tuple[float, ...] = ()
    below: Fraction | None = None
    odd: bool = False
    rises: bool = True

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.function(x, NUMPY)

    def slope(self, x: np.ndarray) -> np.ndarray:
        return self.derivative(x, NUMPY)


def _rectifier(below: Fraction) -> Curve:
    s = float(below)
    return Curve(
        lambda x, m: m.where(x > 0, x, s * x),
        lambda x, m: m.where(x > 0, 1.0, s),
        (0.0,),
        below,
        rises=below >= 0,
    )


def _sigmoid(x: Any, m: Mathematics) -> Any:
    return 0.5 + 0.5 * m.tanh(x / 2)


def _sigmoid_slope(x: Any, m: Mathematics) -> Any:
    return _sigmoid(x, m) * _sigmoid(-x, m)


def _normal(x: Any, m: Mathematics) -> Any:
    return 0.5 + 0.5 * m.erf(x / math.sqrt(2))


_ROOT = math.sqrt(2 / math.pi)


def _inner(x: Any, m: Mathematics) -> Any:
    return m.tanh(_ROOT * (x + 0.044715 * x**3))


def _gelu_tanh_slope(x: Any, m: Mathematics) -> Any:
    t = _inner(x, m)
    return (1 + t) / 2 + x / 2 * (1 - t * t) * _ROOT * (1 + 3 * 0.044715 * x * x)


_NEAR, _WIDE = (-8.0, 0.0, 8.0), (-16.0, 0.0, 16.0)

class _Curves(dict[str, Curve]):
    """Curves by name; "leaky_relu 1/4" is a leaky ReLU of another slope, made when asked for."""

    def __missing__(self, key: str) -> Curve:
        name, _, below = key.partition(" ")
        if name != LEAKY or not below:
            raise KeyError(key)
        return self.setdefault(key, _rectifier(Fraction(below)))


def leaky(slope: Any) -> str:
    """The key of a leaky ReLU of a slope below 0, a number."""
    exact = Fraction(str(slope))  # 0.2 is one fifth
    return LEAKY if exact == SLOPE else f"{LEAKY} {exact}"


LEAKY, SLOPE = "leaky_relu", Fraction(1, 100)
CURVES: dict[str, Curve] = _Curves({
    "linear": Curve(lambda x, m: x, lambda x, m: m.where(x > 0, 1.0, 1.0), odd=True),
    "relu": _rectifier(Fraction(0)),
    "leaky_relu": _rectifier(SLOPE),
    "abs": Curve(
        lambda x, m: m.abs(x),
        lambda x, m: m.where(x > 0, 1.0, -1.0),
        (0.0,),
        Fraction(-1),
        rises=False,
    ),
    "tanh": Curve(lambda x, m: m.tanh(x), lambda x, m: 1 - m.tanh(x) ** 2, _NEAR, odd=True),
    "elu": Curve(  # exp of no positive number
        lambda x, m: m.where(x > 0, x, m.exp((x - m.abs(x)) / 2) - 1),
        lambda x, m: m.where(x > 0, 1.0, m.exp((x - m.abs(x)) / 2)),
        _WIDE,
    ),
    "sigmoid": Curve(_sigmoid, _sigmoid_slope, _WIDE),
    # x Φ(x), Φ the normal distribution; PyTorch's default and that of Hendrycks & Gimpel 2016
    "gelu": Curve(
        lambda x, m: x * _normal(x, m),
        lambda x, m: _normal(x, m) + x * m.exp(-x * x / 2) / math.sqrt(2 * math.pi),
        _NEAR,
        rises=False,
    ),
    # its approximation by tanh, JAX's default
    "gelu_tanh": Curve(
        lambda x, m: x / 2 * (1 + _inner(x, m)), _gelu_tanh_slope, _NEAR, rises=False
    ),
    "silu": Curve(
        lambda x, m: x * _sigmoid(x, m),
        lambda x, m: _sigmoid(x, m) + x * _sigmoid_slope(x, m),
        _WIDE,
        rises=False,
    ),
})  # fmt: skip
ACTIVATIONS = tuple(CURVES)
