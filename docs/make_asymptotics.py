"""Measure how fast asymptotic formulas approach the exact ERF, and draw it.

`python docs/make_asymptotics.py` prints the tables of docs/asymptotics.md and writes
docs/images/asymptotics.png. It takes about ten seconds.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.interpolate import CubicSpline

from erftheory import Chain, Conv, counting, exact
from erftheory.symbolic.topics.edgeworth import edgeworth
from erftheory.theory.limits.approximations import approximate
from erftheory.theory.limits.normality import berry_esseen, local_limit_bound
from erftheory.theory.readings.cumulants import cumulants

IMAGES = Path(__file__).resolve().parent / "images"
SKEWED = (1, 2, 6)
DEPTHS = (8, 16, 32, 64, 128, 256, 512)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v")
TAU = 1 - 0.9545  # L16's level
LEVEL = 2 * math.log(1 / TAU)  # of the squared magnitude


def stack(depth: int, taps=None, ndim: int = 1):
    return Chain(Conv(3, taps=taps), ndim=ndim) * depth


@lru_cache(maxsize=64)
def log_exact(depth: int, taps) -> np.ndarray:
    counts = counting(stack(depth, taps)).marginal(0)
    total = math.log(sum(counts))
    return np.array([math.log(c) - total for c in counts])


@lru_cache(maxsize=256)
def log_formula(depth: int, taps, kind: str, order: int) -> np.ndarray:
    found = approximate(stack(depth, taps), kind, order)
    return found.log_map + math.log(found.metadata["mass"])


def over_peak(depth: int, taps, order: int) -> float:
    """Largest error of a pixel by Edgeworth's formula, over the Gaussian's peak."""
    p, q = np.exp(log_exact(depth, taps)), np.exp(log_formula(depth, taps, "edgeworth", order))
    std = math.sqrt(cumulants(stack(depth, taps), order=2).values[0][1])
    return float(np.abs(p - q).max()) * std * math.sqrt(2 * math.pi)


def relative(depth: int, taps, kind: str, order: int) -> np.ndarray:
    return np.expm1(log_exact(depth, taps) - log_formula(depth, taps, kind, order))


def exponent(depths, values) -> float:
    return float(np.polyfit(np.log(depths), np.log(values), 1)[0])


@lru_cache(maxsize=64)
def line(depth: int) -> np.ndarray:
    """log of the variance signal of 3 taps over its centre value, offsets −depth … depth."""
    log = log_exact(depth, None)
    return log - log.max()


def counted(depth: int) -> float:
    """L16's size of the magnitude in 2-D: the root of the pixels above the level."""
    log = line(depth)
    return math.sqrt(np.count_nonzero((log[:, None] + log) / 2 > math.log(TAU)))


def smooth(depth: int) -> float:
    """The same without pixels: the root of the area, the signal a spline between its offsets.

    Directions end with the last pixel of the receptive field, half a pixel beyond its centre.
    """
    spline = CubicSpline(np.arange(-depth, depth + 1), line(depth))
    angle = np.linspace(0, math.pi / 4, 801)
    low, high = np.zeros_like(angle), (depth + 0.5) / np.cos(angle)
    for _ in range(50):
        middle = (low + high) / 2
        above = spline(middle * np.cos(angle)) + spline(middle * np.sin(angle)) > -LEVEL
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return math.sqrt(8 * np.trapezoid(low**2 / 2, angle))


def closed(depth, terms: int):
    """The size from Edgeworth's expansion, with `terms` powers of 1/n."""
    values = cumulants(stack(1)).values[0]
    variance = float(values[1])
    rho_4, rho_6 = (float(values[r - 1] / values[1] ** Fraction(r, 2)) for r in (4, 6))
    if terms == 2:
        area = edgeworth()["area"].lambdify("numpy")
        epsilon = 1 / np.sqrt(depth)
        return np.sqrt(depth * variance * area(L=LEVEL, epsilon=epsilon, rho_4=rho_4, rho_6=rho_6))
    first = edgeworth()["size"].lambdify("numpy")(L=LEVEL, rho_4=rho_4) if terms else 0.0
    return np.sqrt(2 * math.pi * LEVEL * variance * depth) * (1 + first / depth)


SIZES = {
    "Gaussian": lambda n: closed(n, 0),
    "Edgeworth to 1/n": lambda n: closed(n, 1),
    "Edgeworth to 1/n²": lambda n: closed(n, 2),
    "exact, area": lambda n: np.array([smooth(int(d)) for d in n]),
    "exact, pixels counted": lambda n: np.array([counted(int(d)) for d in n]),
}


def eightfold(first: int) -> np.ndarray:
    return first * 2 ** np.arange(4)


def tables() -> None:
    print("| formula | kernel | order | error at n = 64 | exponent, n = 64 to 512 | theory |")
    print("|---|---|--:|--:|--:|--:|")
    deep = DEPTHS[-4:]
    for taps, orders in ((None, (0, 2, 4)), (SKEWED, (0, 1, 2, 3, 4))):
        for order in orders:
            errors = [over_peak(n, taps, order) for n in deep]
            theory = -(order + 2 if taps is None else order + 1) / 2
            print(
                f"| Edgeworth | {taps or 'uniform'} | {order} | {errors[0]:.1e} "
                f"| {exponent(deep, errors):.3f} | {theory:g} |"
            )
    for taps in (None, SKEWED):
        for order in (0, 1, 2):
            depths, errors = (80, 160, 320, 640), []
            for n in depths:
                found = relative(n, taps, "saddlepoint", order)
                errors.append(np.abs(found[n // 5 : 2 * n - n // 5 + 1]).max())
            print(
                f"| saddlepoint | {taps or 'uniform'} | {order} | {errors[0]:.1e} (n = 80) "
                f"| {exponent(depths, errors):.3f} | {-order - 1} |"
            )
    print("\n| n | local error | bound | Kolmogorov distance | Berry-Esseen |")
    print("|--:|--:|--:|--:|--:|")
    for n in (4, 16, 64, 256, 1024):
        found = exact(stack(n))
        p, std = found.map, found.std[0]
        z = np.arange(-n, n + 1) / std
        normal = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in z])
        local = np.abs(std * p - np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)).max()
        far = np.abs(np.cumsum(p) - normal).max()
        print(f"| {n} | {local:.3e} | {local_limit_bound(stack(n))[0]:.3e} | {far:.3f} "
              f"| {berry_esseen(stack(n))[0]:.3f} |")  # fmt: skip
    print("\n| size | n = 5 | 10 | 20 | 40 | exponent | of size/RF |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    depths = eightfold(5)
    for name, measure in SIZES.items():
        sizes = measure(depths)
        row = " | ".join(f"{s:.3f}" for s in sizes)
        print(f"| {name} | {row} | {exponent(depths, sizes):.3f} "
              f"| {exponent(depths, sizes / (2 * depths + 1)):.3f} |")  # fmt: skip


def _errors(ax, letter: str, title: str, taps, orders) -> None:
    deep = DEPTHS[-4:]
    names = {0: "normal"} | {r: rf"to $\kappa_{r + 2}$" for r in (1, 2, 3, 4)}
    for colour, marker, order in zip(COLOURS, MARKERS, orders):
        errors = [over_peak(n, taps, order) for n in DEPTHS]
        slope = exponent(deep, errors[-4:])
        label = f"{names[order]}: $n^{{{slope:.2f}}}$"
        ax.plot(DEPTHS, errors, marker=marker, color=colour, ms=5, lw=1.4, label=label)
    if taps is None:
        bounds = [local_limit_bound(stack(n))[0] * math.sqrt(2 * math.pi) for n in DEPTHS]
        ax.plot(DEPTHS, bounds, color="k", lw=1.2, ls=(0, (4, 4)), label="bound (normal)")
    ax.set(xscale="log", yscale="log", xlabel="depth n (layers)", xticks=DEPTHS)
    ax.set_xticklabels([str(n) for n in DEPTHS])
    ax.minorticks_off()
    ax.set_ylabel("largest error of a pixel / peak")
    ax.set_ylim(top=0.1 if taps is None else 0.4)
    ax.set_title(f"{letter}  {title}", loc="left", fontsize=10.5)
    ax.legend(frameon=False, fontsize=8.5, loc="lower left")


def _tails(ax) -> None:
    n = 64
    share = np.arange(-n, n + 1) / n
    drawn = (
        ("normal", 0, "0.45", ":", "normal"),
        ("edgeworth", 4, COLOURS[3], "-.", r"Edgeworth to $\kappa_6$"),
        ("saddlepoint", 0, COLOURS[0], "-", "saddlepoint"),
        ("saddlepoint", 1, COLOURS[1], "-", "with 1/n"),
        ("saddlepoint", 2, COLOURS[2], "-", "with 1/n²"),
    )
    for kind, order, colour, style, label in drawn:
        with np.errstate(divide="ignore", over="ignore"):
            # over the exact value: 1 where a formula is 0
            error = np.abs(np.expm1(log_formula(n, None, kind, order) - log_exact(n, None)))
        inside = slice(1, -1) if kind == "saddlepoint" else slice(None)
        ax.plot(share[inside], error[inside], color=colour, ls=style, lw=1.5, label=label)
    ax.set(yscale="log", ylim=(1e-9, 1e4), xlim=(-1, 1), xticks=(-1, -0.5, 0, 0.5, 1))
    ax.set_xlabel("offset / reach of the receptive field (n = 64)")
    ax.set_ylabel("relative error of a pixel")
    ax.set_title("c  Tails: relative error across the field", loc="left", fontsize=10.5)
    ax.legend(frameon=False, fontsize=8.5, ncols=2, loc="upper center")


def _slopes(ax) -> None:
    first = np.arange(5, 33)
    drawn = {
        "Gaussian": ("0.45", ":", 1.4),
        "Edgeworth to 1/n": (COLOURS[1], "--", 1.5),
        "Edgeworth to 1/n²": (COLOURS[0], "-", 1.6),
        "exact, area": (COLOURS[2], "", 0),
        "exact, pixels counted": ("0.2", "", 0),
    }
    for name, (colour, style, width) in drawn.items():
        found = [exponent(eightfold(n), SIZES[name](eightfold(n))) for n in first]
        if width:
            ax.plot(first, found, color=colour, ls=style, lw=width, label=name)
        else:
            marker = "^" if "area" in name else "."
            ax.plot(first, found, color=colour, marker=marker, ls="", ms=5, label=name)
    ax.plot([5], [0.56], marker="*", color=COLOURS[3], ls="", ms=11, label="reported (L16)")
    ax.set(xlabel="first depth n", ylim=(0.488, 0.572))
    ax.set_ylabel("exponent of the size over n, 2n, 4n, 8n")
    ax.set_title("d  L16's size of the magnitude, 3×3 stacks", loc="left", fontsize=10.5)
    ax.legend(frameon=False, fontsize=8.5, loc="upper right")


def draw() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 7.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    _errors(axes[0, 0], "a", "Edgeworth, uniform kernel (1, 1, 1)", None, (0, 2, 4))
    _errors(axes[0, 1], "b", f"Edgeworth, skew kernel {SKEWED}", SKEWED, (0, 1, 2, 3, 4))
    _tails(axes[1, 0])
    _slopes(axes[1, 1])
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(which="major", color="0.92", lw=0.6)
        ax.set_axisbelow(True)
    IMAGES.mkdir(exist_ok=True)
    # Without the version of matplotlib in the file, a second run writes the same bytes.
    figure.savefig(IMAGES / "asymptotics.png", dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    tables()
    draw()
