"""Resizing as a rule: which stride and taps a matrix or a list of indices stands for."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from erftheory.importers.signals import Unreadable
from erftheory.network.kernel import Kernel
from erftheory.network.layers import Step

TOLERANCE = 1e-4  # of the largest weight: the matrices are float32


def axis_rule(matrix: np.ndarray) -> tuple[int, int, int, tuple[float, ...]]:
    """Up-sampling u, then stride d, of a matrix (outputs, inputs).

    Away from the rim the weight of input i for output o depends on d·o − u·i alone, u/d being the
    ratio of the sizes.

    Returns:
      (u, d, first, taps): taps[j] is the weight at d·o − u·i = first + j.

    Raises:
      Unreadable: the weights depend on the place (aligned corners, attention).
    """
    outputs, inputs = matrix.shape
    ratio = Fraction(outputs, inputs)
    u, d = ratio.numerator, ratio.denominator
    top = np.abs(matrix).max()
    if not top:
        raise Unreadable("a resize by a matrix of zeros")
    rows, columns = np.nonzero(np.abs(matrix) > TOLERANCE * top)
    place = d * rows - u * columns
    first, last = int(place.min()), int(place.max())
    reach = last - first + 1
    taps: dict[int, list[float]] = {}
    for o in range(outputs):
        for i in range((d * o - last) // u - 1, (d * o - first) // u + 2):
            j = d * o - u * i
            # rows whose whole reach lies inside: the others are cut, and often rescaled
            inside = (d * o - last) >= 0 and (d * o - first) <= u * (inputs - 1)
            if inside and first <= j <= last and 0 <= i < inputs:
                taps.setdefault(j - first, []).append(float(matrix[o, i]))
    if not taps:
        raise Unreadable(f"a resize from {inputs} to {outputs} pixels: no row lies inside")
    for values in taps.values():
        if max(values) - min(values) > TOLERANCE * top:
            raise Unreadable(f"a resize of {inputs} to {outputs} pixels by unequal weights")
    found = tuple(_clean(np.median(taps.get(j, [0.0])), top) for j in range(reach))
    while len(found) > 1 and found[-1] == 0:
        found = found[:-1]
    while len(found) > 1 and found[0] == 0:
        found, first = found[1:], first + 1
    return u, d, first, found


def _clean(value: float, top: float) -> float:
    return 0.0 if abs(value) <= TOLERANCE * top else float(np.float32(value))


def steps(ndim: int, axis: int, matrix: np.ndarray) -> list[tuple[Step, str]]:
    """The rules, one after the other, of a matrix (outputs, inputs) applied along `axis`."""
    u, d, first, taps = axis_rule(matrix)

    def spread(value: int, rest: int) -> tuple[int, ...]:
        return tuple(value if a == axis else rest for a in range(ndim))

    still, ones = (0,) * ndim, (1,) * ndim
    kernel = Kernel(spread(len(taps), 1), taps)
    if u == 1:
        # output o reads i with d·o − i = first + j: i = d·o + j' − p with j' counted backwards
        kernel = Kernel(spread(len(taps), 1), tuple(reversed(taps)))
        before = spread(first + len(taps) - 1, 0)
        after = spread(_after(matrix, d, len(taps), before[axis]), 0)
        return [(Step(kernel, spread(d, 1), ones, before, after, kind="fixed"), "resize")]
    # input i writes to u·i + j + first
    rules = [(Step(kernel, spread(u, 1), ones, spread(-first, 0), still, up=True, kind="fixed"),
              "resize")]  # fmt: skip
    if d > 1:
        one = Kernel(ones)
        rules.append((Step(one, spread(d, 1), ones, still, still, kind="fixed"), "slice"))
    return rules


def _after(matrix: np.ndarray, d: int, taps: int, before: int) -> int:
    outputs, inputs = matrix.shape
    return d * (outputs - 1) + taps - inputs - before


def selection(indices: np.ndarray, inputs: int) -> np.ndarray:
    """The matrix that picks `indices`."""
    matrix = np.zeros((len(indices), inputs))
    matrix[np.arange(len(indices)), indices] = 1
    return matrix


def interpolation(
    inputs: int, outputs: int, mode: str, coordinates: str, rounding: str, scale: float
) -> np.ndarray:
    """Matrix (outputs, inputs) of a resize by ONNX's names for modes and coordinates.

    Raises:
      Unreadable: a mode without a rule.
    """
    o = np.arange(outputs)
    if coordinates in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric"):
        x = (o + 0.5) / scale - 0.5
    elif coordinates == "align_corners":
        x = o * (inputs - 1) / max(1, outputs - 1)
    elif coordinates == "asymmetric":
        x = o / scale
    else:
        raise Unreadable(f"a resize with coordinates {coordinates!r}")
    if mode == "nearest":
        return selection(np.clip(_rounded(x, rounding), 0, inputs - 1), inputs)
    reach, curve = {"linear": (1, _triangle), "cubic": (2, _cubic)}.get(mode, (0, None))
    if curve is None:
        raise Unreadable(f"a resize of mode {mode!r}")
    matrix = np.zeros((outputs, inputs))
    for step in range(1 - reach, 1 + reach):
        column = np.floor(x).astype(int) + step
        np.add.at(matrix, (o, np.clip(column, 0, inputs - 1)), curve(x - column))
    return matrix


def _rounded(x: np.ndarray, rounding: str) -> np.ndarray:
    tiny = 1e-9  # o / scale may come out just below an integer
    if rounding == "floor":
        return np.floor(x + tiny).astype(int)
    if rounding == "ceil":
        return np.ceil(x - tiny).astype(int)
    half = 0.5 - tiny if rounding == "round_prefer_floor" else 0.5 + tiny
    return np.floor(x + half).astype(int)


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(0, 1 - np.abs(x))


def _cubic(x: np.ndarray, a: float = -0.75) -> np.ndarray:
    """Keys 1981, with the a = -3/4 that ONNX and PyTorch take."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0))
