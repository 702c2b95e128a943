"""Resizing as a rule: which stride and taps a matrix or a list of indices stands for."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from erftheory.importers.values.refusals import Unreadable
from erftheory.network.kernel import Kernel
from erftheory.network.layers import Step

TOLERANCE = 1e-4  # of the largest weight: the matrices are float32
LONGEST = 16  # outputs after which a pattern of indices repeats


def axis_rule(matrix: np.ndarray) -> tuple[int, int, int, tuple[float, ...]]:
    """Up-sampling u, then stride d, of a matrix (outputs, inputs).

    Away from the rim the weight of input i for output o depends on d·o − u·i alone. u/d is the
    ratio of the sizes, or, where the matrix shows a part of the image or scales by another factor,
    that of its own pattern. All rows must agree, at the rim up to what hangs over it.

    Returns:
      (u, d, first, taps): taps[j] is the weight at d·o − u·i = first + j.

    Raises:
      Unreadable: the weights depend on the place (aligned corners, attention).
    """
    if not np.abs(matrix).max():
        raise Unreadable("a resize by a matrix of zeros")
    failure: Unreadable | None = None
    for ratio in _ratios(matrix):
        try:
            return _rule_of(matrix, ratio.numerator, ratio.denominator)
        except Unreadable as why:
            failure = failure or why
    assert failure is not None
    raise failure


def _ratios(matrix: np.ndarray) -> list[Fraction]:
    """The ratio of the sizes and those that the middle rows suggest, plain ones first."""
    outputs, inputs = matrix.shape
    found = {Fraction(outputs, inputs)}
    peaks = np.abs(matrix).argmax(1)
    for period in range(1, min(LONGEST, outputs // 2) + 1):
        middle = (outputs - period) // 2
        advance = int(peaks[middle + period] - peaks[middle])
        if advance > 0:
            found.add(Fraction(period, advance))
    return sorted(found, key=lambda ratio: (ratio.numerator, ratio.denominator))


def _rule_of(matrix: np.ndarray, u: int, d: int) -> tuple[int, int, int, tuple[float, ...]]:
    outputs, inputs = matrix.shape
    top = np.abs(matrix).max()
    rows, columns = np.nonzero(np.abs(matrix) > TOLERANCE * top)
    place = d * rows - u * columns
    first, last = int(place.min()), int(place.max())
    o = np.arange(outputs)
    # rows whose whole reach lies inside: the others are cut, and often rescaled
    inside = (d * o - last >= 0) & (d * o - first <= u * (inputs - 1))
    taps, seen = [0.0] * (last - first + 1), False
    for j in range(first, last + 1):
        at = o[inside & ((d * o - j) % u == 0)]
        values = matrix[at, (d * at - j) // u]
        if len(values):
            seen = True
            if values.max() - values.min() > TOLERANCE * top:
                raise Unreadable(f"a resize of {inputs} to {outputs} pixels by unequal weights")
            taps[j - first] = _clean(float(np.median(values)), top)
    if not seen:
        raise Unreadable(f"a resize from {inputs} to {outputs} pixels: no row lies inside")
    while len(taps) > 1 and taps[-1] == 0:
        taps.pop()
    while len(taps) > 1 and taps[0] == 0:
        del taps[0]
        first += 1
    _agree(matrix, u, d, [first + j for j, tap in enumerate(taps) if tap], top)
    return u, d, first, tuple(taps)


def _agree(matrix: np.ndarray, u: int, d: int, taps: list[int], top: float) -> None:
    """Every row reads what the taps reach, those beyond the rim its outermost pixel.

    Raises:
      Unreadable: a row reads something else, as picked indices without a pattern do.
    """
    outputs, inputs = matrix.shape
    allowed, free = np.zeros(matrix.shape, bool), np.zeros(outputs, bool)
    for j in taps:
        o = np.arange(outputs)
        o = o[(d * o - j) % u == 0]
        column = (d * o - j) // u
        allowed[o, np.clip(column, 0, inputs - 1)] = True
        free[o] |= (column >= 0) & (column < inputs)
    heavy = np.abs(matrix) > TOLERANCE * top
    # picked indices follow floor((d·o + c) / u), which leaves each phase one of u neighbours
    picked = bool((heavy.sum(1) == 1).all()) and max(taps) - min(taps) >= u
    # what renormalisation at the rim makes of weights just below the tolerance
    stray = (np.abs(np.where(allowed, 0, matrix)) > 4 * TOLERANCE * top).any()
    if picked or stray or 2 * free.sum() < outputs:
        raise Unreadable(f"a resize of {inputs} to {outputs} pixels whose rows disagree")


def _clean(value: float, top: float) -> float:
    return 0.0 if abs(value) <= TOLERANCE * top else float(np.float32(value))


def whole_rule(matrix: np.ndarray) -> tuple[int, int, int, tuple[float, ...]]:
    """As `axis_rule`, of a matrix whose every row counts: what an output reads depends on its
    phase, and outputs of one phase read alike.

    Raises:
      Unreadable: they do not.
    """
    outputs, inputs = matrix.shape
    ratio = Fraction(outputs, inputs)
    u, d = ratio.numerator, ratio.denominator
    rows, columns = np.nonzero(matrix)
    place = d * rows - u * columns
    first = int(place.min())
    taps = [0.0] * (int(place.max()) - first + 1)
    for o, i, j in zip(rows, columns, place):
        taps[j - first] = float(matrix[o, i])
    again = np.zeros(matrix.shape)
    for j, tap in enumerate(taps, start=first):
        o = np.arange(outputs)
        o = o[(d * o - j) % u == 0]
        i = (d * o - j) // u
        kept = (i >= 0) & (i < inputs)
        again[o[kept], i[kept]] = tap
    if (again != matrix).any():
        raise Unreadable(f"a resize of {inputs} to {outputs} pixels whose rows disagree")
    return u, d, first, tuple(taps)


def steps(
    ndim: int,
    axis: int,
    matrix: np.ndarray,
    pixels: tuple[int, int] | None = None,
    aligned: bool = False,
    whole: bool = False,
) -> list[tuple[Step, str, int]]:
    """The rules, one after the other, of a matrix (outputs, inputs) applied along `axis`.

    Each comes with its label and with the pixels behind it, which its `after` makes so many.
    `pixels` are the (outputs, inputs) there are, where the matrix is that of a larger map. With
    `aligned` corners outputs lie between o·d/u, where the matrix has them, and 1 − d/u before it:
    what they read on the way belongs to the field, with weight 0. `whole`: by `whole_rule`.
    """
    u, d, first, taps = (whole_rule if whole else axis_rule)(matrix)
    if aligned and u > d:
        taps = (*taps, *(0.0,) * (u - d))
    elif aligned:
        first, taps = first - (d - u), (*(0.0,) * (d - u), *taps)
    outputs, inputs = pixels or matrix.shape

    def spread(value: int, rest: int) -> tuple[int, ...]:
        return tuple(value if a == axis else rest for a in range(ndim))

    still, ones = (0,) * ndim, (1,) * ndim
    if u == 1:
        # output o reads i with d·o − i = first + j: i = d·o + j' − p with j' counted backwards
        kernel = Kernel(spread(len(taps), 1), tuple(reversed(taps)))
        before = first + len(taps) - 1
        after = spread(d * (outputs - 1) + len(taps) - inputs - before, 0)
        before = spread(before, 0)
        return [(Step(kernel, spread(d, 1), ones, before, after, kind="fixed"), "resize", outputs)]
    # input i writes to u·i + j + first
    kernel, fine = Kernel(spread(len(taps), 1), taps), d * (outputs - 1) + 1
    after = spread(u * (inputs - 1) + len(taps) + first - fine, 0)
    rule = Step(kernel, spread(u, 1), ones, spread(-first, 0), after, up=True, kind="fixed")
    rules = [(rule, "resize", fine)]
    if d > 1:
        one = Kernel(ones)
        rule = Step(one, spread(d, 1), ones, still, still, kind="fixed")
        rules.append((rule, "slice", outputs))
    return rules


def selection(indices: np.ndarray, inputs: int) -> np.ndarray:
    """The matrix that picks `indices`."""
    matrix = np.zeros((len(indices), inputs))
    matrix[np.arange(len(indices)), indices] = 1
    return matrix


def interpolation(
    inputs: int,
    outputs: int,
    mode: str,
    coordinates: str,
    rounding: str,
    scale: float,
    antialias: bool = False,
    outside: bool = True,
    cubic: float = -0.75,
) -> np.ndarray:
    """Matrix (outputs, inputs) of a resize by ONNX's names for modes and coordinates.

    Args:
      antialias: widens the curve to the output's pixels where the image shrinks.
      outside: pixels beyond the rim count as the outermost; False leaves them out.
      cubic: the a of Keys (1981), -3/4 in ONNX and PyTorch, -1/2 with PyTorch's antialias.

    Raises:
      Unreadable: a mode without a rule.
    """
    o, factor = np.arange(outputs), exact_scale(inputs, outputs, scale)
    u, d = factor.numerator, factor.denominator
    if coordinates in ("half_pixel", "pytorch_half_pixel"):
        x = (2 * o + 1) * d / (2 * u) - 0.5
    elif coordinates == "half_pixel_symmetric":
        whole = inputs / 2 * (1 - outputs / (inputs * float(factor)))
        x = whole + (2 * o + 1) * d / (2 * u) - 0.5
    elif coordinates == "align_corners":
        x = o * (inputs - 1) / max(1, outputs - 1)
    elif coordinates == "asymmetric":
        x = o * d / u
    else:
        raise Unreadable(f"a resize with coordinates {coordinates!r}")
    if mode == "nearest":
        return selection(np.clip(_rounded(x, rounding), 0, inputs - 1), inputs)
    if mode not in ("linear", "cubic"):
        raise Unreadable(f"a resize of mode {mode!r}")
    narrow = min(1.0, float(factor)) if antialias else 1.0
    reach = int(np.ceil((1 if mode == "linear" else 2) / narrow))
    matrix = np.zeros((outputs, inputs))
    for step in range(1 - reach, 1 + reach):
        column = np.floor(x).astype(int) + step
        place = (x - column) * narrow
        weight = _triangle(place) if mode == "linear" else _cubic(place, cubic)
        kept = (column >= 0) & (column < inputs) | outside
        np.add.at(matrix, (o, np.clip(column, 0, inputs - 1)), np.where(kept, weight, 0))
    return matrix / matrix.sum(1, keepdims=True)


def exact_scale(inputs: int, outputs: int, scale: float) -> Fraction:
    """The ratio that a scale in float32 stands for: that of the sizes, if it is near."""
    sizes = Fraction(outputs, inputs)
    if abs(float(sizes) / scale - 1) < 1e-6:
        return sizes
    return Fraction(scale).limit_denominator(4096)


def _rounded(x: np.ndarray, rounding: str) -> np.ndarray:
    tiny = 1e-9  # positions are quotients of integers, right up to their last bit
    if rounding == "floor":
        return np.floor(x + tiny).astype(int)
    if rounding == "ceil":
        return np.ceil(x - tiny).astype(int)
    half = 0.5 - tiny if rounding == "round_prefer_floor" else 0.5 + tiny
    return np.floor(x + half).astype(int)


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(0, 1 - np.abs(x))


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0))
