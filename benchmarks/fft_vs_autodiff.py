"""How do the exact routes compare: Fourier transform, repeated convolution, integers, autodiff?

Every route computes the same map: the gradient of one unit of a stack of uniform 3-tap layers, in
1-D and 2-D. Answers are compared with exact integers before they are timed. All routes are timed in
turn within one run; the table gives the median of the repeats, and beside it the largest relative
error over all weights above 1e-6 of the largest. Each repetition builds a new network object, and
the whole Python call is counted. Compile time is the first call minus the median.

    python benchmarks/fft_vs_autodiff.py [--depths 4,8,…] [--repeats 5] [--json PATH] [--plot PATH]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.signal

from erftheory import Chain, Conv, counting, exact, moments, receptive_field, zoo
from erftheory.empirical import gradient_of_ones

ROUTES = ("spectrum", "direct", "counting", "autodiff")
AUTODIFF_LIMIT = {1: 1024, 2: 256}  # a deeper 2-D canvas takes minutes


def network(depth: int, ndim: int):
    return Chain(Conv(3), ndim=ndim) * depth


def run(route: str, depth: int, ndim: int) -> np.ndarray:
    net = network(depth, ndim)
    if route == "counting":
        return counting(net).map
    if route == "autodiff":
        return gradient_of_ones(net)[0]
    return exact(net, "gradient", method=route).map


def truth(depth: int, ndim: int) -> np.ndarray:
    line = np.array(counting(network(depth, 1)).marginal(0), dtype=object)
    share = np.array([v / 3**depth for v in line], dtype=float)
    return share if ndim == 1 else np.outer(share, share)


def error(found: np.ndarray, expected: np.ndarray) -> float:
    if found.dtype == object:
        total = found.sum()
        found = np.array([v / total for v in found.ravel()], dtype=float).reshape(found.shape)
    found = found / found.sum()
    seen = expected > 1e-6 * expected.max()
    return float((np.abs(found - expected)[seen] / expected[seen]).max())


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(depths: list[int], repeats: int) -> list[dict[str, Any]]:
    rows = []
    for ndim in (1, 2):
        for depth in depths:
            routes = [r for r in ROUTES if r != "autodiff" or depth <= AUTODIFF_LIMIT[ndim]]
            expected = truth(depth, ndim)
            first = {r: timed(lambda r=r, n=depth, d=ndim: run(r, n, d)) for r in routes}
            errors = {r: error(run(r, depth, ndim), expected) for r in routes}
            times: dict[str, list[float]] = {r: [] for r in routes}
            for _ in range(repeats):
                for r in routes:
                    times[r].append(timed(lambda r=r, n=depth, d=ndim: run(r, n, d)))
            for r in ROUTES:
                row: dict[str, Any] = {"route": r, "ndim": ndim, "depth": depth}
                if r in routes:
                    median = statistics.median(times[r])
                    row |= {"seconds": median, "error": errors[r]}
                    row["compile_seconds"] = max(0.0, first[r] - median)
                rows.append(row)
                show(row)
    return rows


def show(row: dict[str, Any]) -> None:
    head = f"{row['route']:9s} {row['ndim']}-D  depth {row['depth']:4d}"
    if "seconds" not in row:
        print(f"{head}  not run: deeper than this route is tried", flush=True)
        return
    print(
        f"{head}  {row['seconds'] * 1e3:10.3f} ms  error {row['error']:8.1e}"
        f"  compile {row['compile_seconds']:6.2f} s",
        flush=True,
    )


def scipy_loop(depth: int = 64) -> np.ndarray:
    kernel, signal = np.full((3, 3), 1 / 9), np.ones((1, 1))
    for _ in range(depth):
        signal = scipy.signal.convolve2d(signal, kernel)
    return signal


def headline(repeats: int) -> dict[str, float]:
    """The numbers asked of the package, as ratios from one run."""
    shape = exact(Conv(3) * 64).map.shape
    spectrum = np.fft.rfft2(np.random.default_rng(0).random(shape))
    resnet = ["receptive_field", "moments"]
    calls: dict[str, Callable[[], Any]] = {
        "map": lambda: exact(Conv(3) * 64).map,
        "scipy": scipy_loop,
        "irfft2": lambda: np.fft.irfft2(spectrum, s=shape),
        "resnet": lambda: (receptive_field(n := zoo.resnet152()), moments(n)),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(max(5, repeats)):
        for name, call in calls.items():
            times[name].append(min(timed(call) for _ in range(3 if name != "scipy" else 1)))
    median = {name: statistics.median(values) for name, values in times.items()}
    code = "import time; t = time.perf_counter(); import erftheory; print(time.perf_counter() - t)"
    starts = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
        for _ in range(5)
    ]
    found = {
        "map of 64 layers (ms)": median["map"] * 1e3,
        "times faster than scipy.signal.convolve2d": median["scipy"] / median["map"],
        "times one numpy.fft.irfft2": median["map"] / median["irfft2"],
        f"ResNet-152 {' and '.join(resnet)} (ms)": median["resnet"] * 1e3,
        "import erftheory (s)": statistics.median(starts),
    }
    for name, value in found.items():
        print(f"{name:52s} {value:9.3f}")
    return found


def slopes(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Log-log slope of time against depth over the deeper half of each route's depths."""
    found = {}
    for ndim in (1, 2):
        for route in ROUTES:
            points = [
                (r["depth"], r["seconds"])
                for r in rows
                if r["route"] == route and r["ndim"] == ndim and "seconds" in r
            ]
            points = points[len(points) // 2 :]
            if len(points) > 1:
                x, y = np.log(np.array(points)).T
                found[f"{route} {ndim}-D"] = float(np.polyfit(x, y, 1)[0])
    return found


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    slope = slopes(rows)
    panels = figure.subplots(1, 2, sharey=True)
    colours = dict(zip(ROUTES, ("#0072B2", "#D55E00", "#009E73", "#CC79A7")))
    marks = dict(zip(ROUTES, "os^D"))
    for ndim, axes in zip((1, 2), panels):
        for route in ROUTES:
            points = [
                (r["depth"], r["seconds"])
                for r in rows
                if r["route"] == route and r["ndim"] == ndim and "seconds" in r
            ]
            if points:
                x, y = zip(*points)
                steep = slope.get(f"{route} {ndim}-D")
                label = route if steep is None else f"{route}, slope {steep:.2f}"
                axes.loglog(x, y, marks[route] + "-", color=colours[route], label=label)
        axes.set(title=f"{ndim}-D, three taps an axis", xlabel="depth n (layers)")
        axes.set_xticks([r["depth"] for r in rows if r["ndim"] == ndim and r["route"] == ROUTES[0]])
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.minorticks_off()
        axes.grid(color="0.9")
        axes.legend(fontsize=8)
    panels[0].set_ylabel("seconds a call, after compiling")
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depths", default="4,8,16,32,64,128,256")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    options = parser.parse_args(arguments)
    depths = [int(d) for d in options.depths.split(",")]
    with jax.default_device(jax.devices(options.device)[0]):
        environment = {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "device": str(jax.devices(options.device)[0]),
            "python": platform.python_version(),
            "jax": jax.__version__,
            "numpy": np.__version__,
        }
        print("  ".join(f"{k} {v}" for k, v in environment.items()))
        rows = measure(depths, options.repeats)
        numbers = headline(options.repeats)
    steep = slopes(rows)
    print("slopes: " + ", ".join(f"{k} {v:.2f}" for k, v in steep.items()))
    if options.json:
        found = {"environment": environment, "rows": rows, "headline": numbers, "slopes": steep}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.plot:
        plot(rows, options.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
