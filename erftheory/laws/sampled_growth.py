"""Random nets of several depths: how their std and their magnitude's size grow, as tests."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from erftheory.laws.machine.base import Context, Evidence, above, information, slope, stack
from erftheory.laws.machine.trials import BATCHES, draw, flip_test, power

NETS = {5: 1, 10: 2, 20: 1}  # by depth: nets for each one of `Context.samples`
DEPTHS = tuple(NETS)
CHANNELS = 16
THRESHOLD = 1 - 0.9545  # L16's size counts pixels above this share of the peak


def sampled_growth(
    context: Context,
    kernel: int,
    level: float,
    *,
    name: str,
    measure: Callable[[np.ndarray], float],
    gradient: Callable[[np.ndarray], np.ndarray],
    exponent: float | None = None,
    unlike: float,
) -> list[Evidence]:
    """A length of the field at `DEPTHS` layers, and its exponent, of nets against the exact map.

    The tested contrasts are the length's first variation at the exact map p, one a depth, and the
    combination of them that is the least-squares exponent: means 0 where E g² is p.

    Args:
      measure: length in pixels of a line of weights of sum 1.
      gradient: derivative of log `measure` by the weights, one a pixel.
      exponent: that the law states; None is that of the exact maps.
      unlike: the exponent that the power is stated against.
    """
    lines, exact, contrasts = [], [], []
    known = []
    for n in DEPTHS:
        network = stack(n, kernel)
        draws = draw(context, network, channels=CHANNELS, samples=NETS[n] * context.samples)
        p = np.asarray(context.engines.exact(network, signal="variance").map)
        if p.shape != draws.second.shape[1:]:
            raise ValueError(
                f"gradients: got maps of shape {draws.second.shape[1:]}; takes {p.shape}"
            )
        h = gradient(p)
        h = h - h @ p
        known.append(draws.describe(context, f"{name} at {n} layers"))
        contrasts.append(draws.second @ h / draws.power.mean())
        line = draws.second.mean(0)
        lines.append(line / line.sum())
        exact.append(measure(p))
    x = np.log(DEPTHS) - np.log(DEPTHS).mean()
    rows = np.stack(contrasts, axis=1)
    values = np.column_stack([rows, rows @ x / (x @ x)])
    errors = values.std(axis=0, ddof=1) / math.sqrt(BATCHES)
    found = [measure(line) for line in lines]
    stated = slope(DEPTHS, exact) if exponent is None else exponent
    evidence = [
        above("sampled", "exact", f"p of the sampled {name}s and their exponent by sign "
              f"flips, n={', '.join(map(str, DEPTHS))}, at n={DEPTHS[-1]} {known[-1]}",
              flip_test(values, context.seed), level)
    ]  # fmt: skip
    for n, value, wanted, error in zip(DEPTHS, found, exact, errors):
        evidence.append(
            information("sampled", "exact", f"{name}, n={n} (px), standard error "
                        f"{error * wanted:.2g}", value, wanted)
        )  # fmt: skip
    evidence += [
        information("sampled", "exact", f"{name} exponent, n={DEPTHS[0]} to {DEPTHS[-1]}, "
                    f"standard error {errors[-1]:.2g}", slope(DEPTHS, found), stated),
        information("sampled", "noncentral t", f"power against an exponent of {unlike}, level "
                    f"{level:.2g}",
                    power(abs(unlike - stated) / errors[-1], level, values.shape[1]), "near 1"),
    ]  # fmt: skip
    return evidence


def line_std(line: np.ndarray) -> float:
    """Standard deviation of a line of weights of sum 1, pixels."""
    t = np.arange(len(line))
    return math.sqrt(line @ (t - line @ t) ** 2)


def std_gradient(line: np.ndarray) -> np.ndarray:
    """d log std / d weight, up to a constant."""
    t = np.arange(len(line)) - line @ np.arange(len(line))
    return t**2 / (2 * (line @ t**2))


def magnitude_size(line: np.ndarray) -> float:
    """L16's size of the magnitude √(p ⊗ p), pixels, smooth in p: the root of a level set's area.

    log p is taken as linear between pixels and the line as symmetric, its two halves averaged;
    outside the support nothing counts. L16 counts pixels, which moves in steps.
    """
    half = len(line) // 2
    sides = (line[half:] + line[::-1][half:]) / 2
    logs = np.log(np.maximum(sides, 1e-300) / sides[0])
    logs = np.minimum.accumulate(logs)
    bound = 2 * math.log(THRESHOLD)
    # the outermost pixel ends half a pixel outside its centre
    reach = np.append(np.arange(len(sides)), half + 0.5)
    logs = np.append(logs, logs[-1])
    x = np.linspace(0, half + 0.5, 64 * half + 33)
    rest = bound - np.interp(x, reach, logs)
    # for each x the furthest y with log p(x) + log p(y) above the bound
    y = np.where(rest > 0, 0.0, np.interp(-rest, -logs, reach))
    return math.sqrt(4 * np.trapezoid(y, x))


def magnitude_size_gradient(line: np.ndarray) -> np.ndarray:
    """d log `magnitude_size` / d weight by central differences of 1 % of each weight."""
    out = np.zeros(len(line))
    for i, weight in enumerate(line):
        sizes = []
        for step in (-0.01, 0.01):
            moved = line.copy()
            moved[i] = weight * (1 + step)
            sizes.append(math.log(magnitude_size(moved)))
        out[i] = (sizes[1] - sizes[0]) / (0.02 * weight)
    return out
