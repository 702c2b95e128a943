"""Measure the power of single random nets and draw it against theory.

`python docs/make_fluctuations.py` prints the tables of docs/fluctuations.md and writes
docs/images/fluctuations.png. It takes several minutes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from erftheory import Activation, Chain, Conv, moments
from erftheory.empirical.sampled.sampling import gradients
from erftheory.theory.fluctuations.power import power_fluctuation, shape_fluctuation

IMAGES = Path(__file__).resolve().parent / "images"
WIDTHS = (4, 16, 64)
DEPTHS = {1: (2, 4, 8, 16, 32), 2: (2, 4, 8)}
NETS = {4: 20_000, 16: 8_000, 64: 2_000}
SEED = 2016
COLOURS = {4: "#0072B2", 16: "#D55E00", 64: "#009E73"}
MARKERS = {4: "o", 16: "s", 64: "^"}


def stack(depth: int, act: str, ndim: int):
    """`depth` convolutions of 3 (2-D: 3x3) taps, an activation between neighbours."""
    return Chain(Chain(Conv(3), Activation(act), ndim=ndim) * (depth - 1), Conv(3))


@dataclass(frozen=True)
class Sample:
    """Measured nets. `power` is over its mean; `shape` is (m₂ − variance · m₀)/E m₀, pixels²."""

    act: str
    ndim: int
    depth: int
    width: int
    power: np.ndarray
    shape: np.ndarray

    @property
    def nets(self) -> int:
        return len(self.power)

    @property
    def dead(self) -> float:
        return float((self.power == 0).mean())

    @property
    def log(self) -> np.ndarray:
        return np.log(self.power[self.power > 0])

    def log_variance(self) -> tuple[float, float]:
        """Var log m₀ of the nets that are alive, and its standard error."""
        centred = self.log - self.log.mean()
        square = float((centred**2).mean())
        kurtosis = float((centred**4).mean()) / square**2
        return square, square * np.sqrt((kurtosis - 1) / len(centred))

    def log_second(self) -> tuple[float, float]:
        """log E m₀² / (E m₀)², and its standard error by the delta method."""
        second = float((self.power**2).mean())
        return np.log(second), float(np.std(self.power**2 / second - 2 * self.power)) / np.sqrt(
            self.nets
        )

    def spread(self) -> float:
        return float(np.sqrt((self.shape**2).mean()))


@lru_cache(maxsize=64)
def measure(act: str, ndim: int, depth: int, width: int) -> Sample:
    nets = NETS[width] // (2 if depth == 32 else 1)
    network = stack(depth, act, ndim)
    variance = float(moments(network).variance[0])
    power, second = [], []
    for block in gradients(network, SEED, nets, channels=width):
        square = np.asarray(block, np.float64) ** 2
        side = square.reshape(*square.shape[:2], -1).sum(2)
        t = np.arange(side.shape[1]) - (side.shape[1] - 1) / 2
        power.append(side.sum(1))
        second.append(side @ t**2)
    m0, m2 = np.concatenate(power), np.concatenate(second)
    return Sample(act, ndim, depth, width, m0 / m0.mean(), (m2 - variance * m0) / m0.mean())


def tables() -> None:
    print("| net | depth | width | nets | dead | Var log m₀ | log E m₀² | predicted | method |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|---|")
    for act, ndim in (("linear", 1), ("relu", 1), ("relu", 2)):
        for depth in DEPTHS[ndim]:
            for width in WIDTHS:
                s = measure(act, ndim, depth, width)
                found = power_fluctuation(stack(depth, act, ndim), width)
                (variance, error), (second, slack) = s.log_variance(), s.log_second()
                print(
                    f"| {ndim}-D {act} | {depth} | {width} | {s.nets} | {100 * s.dead:.1f} % "
                    f"| {variance:.3f} ± {error:.3f} | {second:.3f} ± {slack:.3f} "
                    f"| {found.log_second_moment:.3f} | {found.method} |",
                    flush=True,
                )
    print("\n| net | depth | width | power to 1 % | std to 1 %, exact | std to 1 %, measured |")
    print("|---|--:|--:|--:|--:|--:|")
    for act, ndim in (("linear", 1), ("relu", 1), ("relu", 2)):
        for depth in (4, 8, 16) if ndim == 1 else (4, 8):
            for width in WIDTHS:
                network, s = stack(depth, act, ndim), measure(act, ndim, depth, width)
                power = power_fluctuation(network, width).nets_for(0.01)
                variance = float(moments(network).variance[0])
                measured = (s.spread() / (2 * variance * 0.01)) ** 2
                exact = "–"
                if act == "linear":
                    exact = f"{shape_fluctuation(network, width).nets_for(0.01):,.0f}"
                print(
                    f"| {ndim}-D {act} | {depth} | {width} | {power:,.0f} | {exact} "
                    f"| {measured:,.0f} |",
                    flush=True,
                )


def _points(ax, samples: list[Sample], found: list[tuple[float, float]], fill: str) -> None:
    if not samples:
        return
    width = samples[0].width
    ax.errorbar(
        [s.depth / width for s in samples],
        [v for v, _ in found],
        [2 * e for _, e in found],
        fmt=MARKERS[width],
        fillstyle=fill,
        color=COLOURS[width],
        ms=6.5 if fill == "full" else 9,
        lw=1.2,
    )


def _shows_second(sample: Sample) -> bool:
    """Whether nets that carry E m₀² are among those drawn: were m₀ log-normal, those 2σ ± 1 up."""
    network = stack(sample.depth, sample.act, sample.ndim)
    square = power_fluctuation(network, sample.width).log_second_moment
    return 2 * np.sqrt(square) + 1 < np.sqrt(2 * np.log(sample.nets))


def _keys() -> list:
    from matplotlib.lines import Line2D

    grey = {"color": "0.25", "marker": "o", "ls": ""}
    second = r"$\log\,\mathrm{E}\,m_0^2/(\mathrm{E}\,m_0)^2$"
    widths = [
        Line2D([], [], color=COLOURS[w], marker=MARKERS[w], lw=1.5, label=f"{w} channels")
        for w in WIDTHS
    ]
    kinds = [
        Line2D([], [], color="0.25", lw=1.5, label=f"predicted {second}"),
        Line2D([], [], **grey, fillstyle="none", ms=9, label=f"measured {second}"),
        Line2D([], [], **grey, ms=6.5, label=r"measured $\mathrm{Var}\,\log m_0$"),
    ]
    return [key for pair in zip(widths, kinds) for key in pair]


def draw() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from scipy.stats import norm

    figure = Figure(figsize=(9.2, 8.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    panels = (
        ("a", "linear", 1, "Linear nets, 1-D: exact", 2),
        ("b", "relu", 1, "ReLU nets, 1-D: mean field", 5),
        ("c", "relu", 2, "ReLU nets, 2-D: two walks with detours", 5),
    )
    for ax, (letter, act, ndim, title, slope) in zip(axes.flat, panels):
        for width in WIDTHS:
            depths = DEPTHS[ndim]
            lines = [d for d in (2, 3, 4, 6, 8, 12, 16, 24, 32) if d <= depths[-1]]
            ax.plot(
                [d / width for d in lines],
                [power_fluctuation(stack(d, act, ndim), width).log_second_moment for d in lines],
                color=COLOURS[width],
                lw=1.5,
            )
            samples = [measure(act, ndim, d, width) for d in depths]
            _points(ax, samples, [s.log_variance() for s in samples], "full")
            seen = [s for s in samples if _shows_second(s)]
            _points(ax, seen, [s.log_second() for s in seen], "none")
        x = np.array([min(DEPTHS[ndim]) / 64, max(DEPTHS[ndim]) / 4])
        ax.plot(x, slope * x, color="0.55", lw=1, ls="--")
        ax.set(xscale="log", yscale="log", xlabel="depth / width")
        ax.set_ylabel("fluctuation of the power $m_0$ of a net")
        ax.set_title(f"{letter}  {title}", loc="left", fontsize=10.5)
        ax.set_ylim(0.06 if ndim == 2 else 0.18, 15 if ndim == 2 else 60)
        ax.text(
            0.03,
            0.97,
            f"grey: without space, {slope} · depth / width",
            transform=ax.transAxes,
            va="top",
            fontsize=9,
            color="0.35",
        )
        ax.grid(which="major", color="0.92", lw=0.6)
        ax.set_axisbelow(True)
    ax = axes[1, 1]
    drawn = (
        ("linear", 8, 64, "#CC79A7", "linear, 64 channels"),
        ("relu", 8, 64, COLOURS[64], "ReLU, 64 channels"),
        ("relu", 8, 16, COLOURS[16], "ReLU, 16 channels"),
        ("relu", 8, 4, COLOURS[4], "ReLU, 4 channels"),
    )
    for act, depth, width, colour, label in drawn:
        log = np.sort(measure(act, 1, depth, width).log)
        z = (log - log.mean()) / log.std()
        normal = norm.ppf((np.arange(len(z)) + 0.5) / len(z))
        ax.plot(normal, z, color=colour, lw=1.6, label=label)
    ax.plot([-4, 4], [-4, 4], color="0.55", lw=1, ls="--", label="log-normal")
    ax.set(xlim=(-4, 4), ylim=(-7, 5), xlabel="quantile of the standard normal")
    ax.set_ylabel("quantile of log $m_0$, standardised")
    ax.set_title("d  Is the power log-normal? 1-D, depth 8", loc="left", fontsize=10.5)
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    ax.grid(color="0.92", lw=0.6)
    ax.set_axisbelow(True)
    figure.legend(handles=_keys(), loc="outside upper center", ncols=3, frameon=False, fontsize=9.5)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    IMAGES.mkdir(exist_ok=True)
    # Without the version of matplotlib in the file, a second run writes the same bytes.
    figure.savefig(IMAGES / "fluctuations.png", dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    tables()
    draw()
