"""How do the routes compare: Fourier transform, repeated convolution, integers, autodiff, sampling?

Every route computes the same map: the gradient of one unit of a stack of uniform 3-tap layers, in
1-D and 2-D. "numpy" is what one writes by hand, one transform to the power n: it knows no network
and no digits of small weights, whose error is apart. Answers are first compared with integers
computed here; a wrong one ends the run. Then all routes are timed in turn within one run. The table
gives the median of the repeats, the largest relative error over all weights above 1e-6 of the
largest, and the compile time, none of which is in the median. Sampling is timed apart: seconds
until the std of the map has a standard error of 1 %, from the error that fewer nets of 16 channels
have. README.md beside this file says what exactly is timed.

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
import jax.numpy as jnp
import numpy as np
import scipy.signal

from erftheory import Chain, Conv, counting, exact, moments, receptive_field, sample, zoo
from erftheory.empirical import apply, gradient_of_ones, ones_params

ROUTES = ("spectrum", "direct", "counting", "autodiff", "numpy")
SAMPLED_LIMIT = {1: 256, 2: 32}  # deeper, one net takes too long for this script
SAMPLED_NETS, SAMPLED_CHANNELS, SAMPLED_TARGET = {1: 4096, 2: 512}, 16, 0.01
# Time grows like depth³ in 2-D: 512 layers take seconds. 3^1024 paths overflow a float64.
LIMIT = {("autodiff", 1): 512, ("autodiff", 2): 256, ("counting", 2): 256}
ERROR_LIMIT = 1e-7


def network(depth: int, ndim: int):
    return Chain(Conv(3), ndim=ndim) * depth


def prepare(route: str, depth: int, ndim: int) -> tuple[Callable[[], np.ndarray], float]:
    """What is timed for a route, and the seconds it took to compile."""
    if route == "autodiff":
        return compiled_gradient(depth, ndim)
    if route == "numpy":
        return lambda: one_shot(depth, ndim), 0.0

    def call() -> np.ndarray:
        net = network(depth, ndim)
        if route == "counting":
            return counting(net).map
        return exact(net, "gradient", method=route).map

    first = timed(call)
    return call, max(0.0, first - statistics.median(timed(call) for _ in range(3)))


def one_shot(depth: int, ndim: int) -> np.ndarray:
    """What one writes by hand: a power of the kernel's transform, and an outer product."""
    size = 2 * depth + 1
    line = np.fft.irfft(np.fft.rfft(np.full(3, 1 / 3), size) ** depth, size)
    return line if ndim == 1 else np.outer(line, line)


def compiled_gradient(depth: int, ndim: int) -> tuple[Callable[[], np.ndarray], float]:
    """The gradient of the all-ones net as one compiled program.

    `gradient_of_ones` also builds the canvas and cuts out the field. The unit is chosen
    by an argument of the program: were it a constant, XLA could fold the whole gradient away.
    """
    net = network(depth, ndim)
    with jax.enable_x64(True):
        params = ones_params(net, jnp.float64)
        x = jnp.zeros((1, *[2 * depth + 1] * ndim), jnp.float64)
        unit = x.at[(0, *[depth] * ndim)].set(1.0)

        def signal(x: jax.Array, unit: jax.Array) -> jax.Array:
            return jnp.vdot(apply(net, params, x, linear=True), unit)

        start = time.perf_counter()
        program = jax.jit(jax.grad(signal)).lower(x, unit).compile()
        seconds = time.perf_counter() - start
    return lambda: np.asarray(program(x, unit))[0], seconds


def truth(depth: int, ndim: int) -> np.ndarray:
    """Trinomial coefficients over 3^depth, by sums of integers that use nothing of the package."""
    line = [1]
    for _ in range(depth):
        padded = [0, 0, *line, 0, 0]
        line = [sum(padded[i : i + 3]) for i in range(len(padded) - 2)]
    share = np.array([v / 3**depth for v in line])
    return share if ndim == 1 else np.outer(share, share)


def error(found: np.ndarray, expected: np.ndarray) -> float:
    if found.dtype == object:
        total = found.sum()
        found = np.array([v / total for v in found.ravel()], dtype=float).reshape(found.shape)
    found = found / found.sum()
    seen = expected > 1e-6 * expected.max()
    return float((np.abs(found - expected)[seen] / expected[seen]).max())


def tail(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest relative error of all weights that a float holds."""
    found, seen = found / found.sum(), expected > 1e-300
    return float((np.abs(found - expected)[seen] / expected[seen]).max())


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(depths: list[int], repeats: int) -> list[dict[str, Any]]:
    rows = []
    for ndim in (1, 2):
        for depth in depths:
            jax.clear_caches()  # or 2-D would find its programs compiled by 1-D
            routes = [r for r in ROUTES if depth <= LIMIT.get((r, ndim), depth)]
            ready = {r: prepare(r, depth, ndim) for r in routes}
            expected = truth(depth, ndim)
            errors = {r: error(ready[r][0](), expected) for r in routes}
            for r, value in errors.items():
                if not value < ERROR_LIMIT:
                    raise SystemExit(f"{r} {ndim}-D depth {depth}: error {value}, nothing timed")
            calls: dict[str, Callable[[], Any]] = {r: ready[r][0] for r in routes}
            if "autodiff" in routes:
                calls["call"] = lambda n=depth, d=ndim: gradient_of_ones(network(n, d))
            times: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(repeats):
                for name, call in calls.items():
                    times[name].append(timed(call))
            for r in ROUTES:
                row: dict[str, Any] = {"route": r, "ndim": ndim, "depth": depth}
                if r in routes:
                    row |= {"seconds": statistics.median(times[r]), "error": errors[r]}
                    row["compile_seconds"] = ready[r][1]
                    if r == "numpy":
                        row["tail_error"] = tail(ready[r][0](), expected)
                    if r == "autodiff":
                        row["call_seconds"] = statistics.median(times["call"])
                rows.append(row)
                show(row)
    return rows


def sampled(depths: list[int]) -> list[dict[str, Any]]:
    """Seconds to a standard error of 1 % of the std, and how far the std is off, in errors."""
    rows = []
    for ndim in (1, 2):
        for depth in depths:
            row: dict[str, Any] = {"route": "sampling", "ndim": ndim, "depth": depth}
            if depth <= SAMPLED_LIMIT[ndim]:
                net, nets = network(depth, ndim), SAMPLED_NETS[ndim]
                start = time.perf_counter()
                sample(net, 1, 2, SAMPLED_CHANNELS, init="lecun")
                compiling = time.perf_counter() - start
                start = time.perf_counter()
                erf = sample(net, 1, nets, SAMPLED_CHANNELS, init="lecun")
                seconds = time.perf_counter() - start
                truth = exact(net).std[0]
                assert erf.std_stderr is not None
                relative = erf.std_stderr[0] / truth
                row |= {
                    "seconds": seconds * (relative / SAMPLED_TARGET) ** 2,
                    "nets": nets * (relative / SAMPLED_TARGET) ** 2,
                    "error": SAMPLED_TARGET,
                    "deviation_in_errors": (erf.std[0] - truth) / erf.std_stderr[0],
                    "effective_nets": erf.metadata["effective_samples"],
                    "compile_seconds": compiling,
                }
            rows.append(row)
            show(row)
    return rows


def show(row: dict[str, Any]) -> None:
    head = f"{row['route']:9s} {row['ndim']}-D  depth {row['depth']:4d}"
    if "seconds" not in row:
        print(f"{head}  not run: deeper than this route is tried", flush=True)
        return
    line = f"{head}  {row['seconds'] * 1e3:10.3f} ms  error {row['error']:8.1e}"
    line += f"  compile {row['compile_seconds']:6.2f} s"
    if "nets" in row:
        line += f"  {row['nets']:.0f} nets; {row['deviation_in_errors']:+.1f} errors off"
    if "tail_error" in row:
        line += f"  of all weights {row['tail_error']:.1e}"
    if "call_seconds" in row:
        line += f"  gradient_of_ones {row['call_seconds'] * 1e3:.1f} ms"
    print(line, flush=True)


def scipy_loop(depth: int = 64) -> np.ndarray:
    kernel, signal = np.full((3, 3), 1 / 9), np.ones((1, 1))
    for _ in range(depth):
        signal = scipy.signal.convolve2d(signal, kernel)
    return signal


def headline(repeats: int) -> dict[str, float]:
    """The numbers asked of the package, as ratios from one run."""
    shape = exact(Conv(3) * 64).map.shape
    spectrum = np.fft.rfft2(np.random.default_rng(0).random(shape))
    calls: dict[str, Callable[[], Any]] = {
        "map": lambda: exact(Conv(3) * 64).map,
        "scipy": scipy_loop,
        "irfft2": lambda: np.fft.irfft2(spectrum, s=shape),
        "resnet": lambda: (receptive_field(n := zoo.resnet152()), moments(n)),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(max(15, repeats)):
        for name, call in calls.items():
            times[name].append(timed(call))
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
        "ResNet-152 receptive_field and moments (ms)": median["resnet"] * 1e3,
        "import erftheory (s)": statistics.median(starts),
    }
    for name, value in found.items():
        print(f"{name:52s} {value:9.3f}")
    return found


def series(
    rows: list[dict[str, Any]], route: str, ndim: int, key: str = "seconds"
) -> list[tuple[int, float]]:
    return [
        (r["depth"], r[key]) for r in rows if r["route"] == route and r["ndim"] == ndim and key in r
    ]


def slopes(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Log-log slope of time against depth over the deeper half of each route's depths."""
    found = {}
    for ndim in (1, 2):
        for route in (*ROUTES, "sampling"):
            points = series(rows, route, ndim)
            points = points[len(points) // 2 :]
            if len(points) > 1:
                x, y = np.log(np.array(points)).T
                found[f"{route} {ndim}-D"] = float(np.polyfit(x, y, 1)[0])
    return found


def processor() -> str:
    """The processor's name; Python itself knows none on Linux."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    slope = slopes(rows)
    panels = figure.subplots(1, 2, sharey=True)
    routes = (*ROUTES, "sampling")
    colours = dict(zip(routes, ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9")))
    marks = dict(zip(routes, "os^Dxv"))
    for ndim, axes in zip((1, 2), panels):
        for route in routes:
            points = series(rows, route, ndim)
            if points:
                x, y = zip(*points)
                steep = slope.get(f"{route} {ndim}-D")
                name = "sampling to 1 %" if route == "sampling" else route
                label = name if steep is None else f"{name}, slope {steep:.2f}"
                axes.loglog(x, y, marks[route] + "-", color=colours[route], label=label)
        if points := series(rows, "autodiff", ndim, "call_seconds"):
            x, y = zip(*points)
            axes.loglog(x, y, "D:", color=colours["autodiff"], mfc="w", label="autodiff, call")
        axes.set(title=f"{ndim}-D, three taps an axis", xlabel="depth n (layers)")
        depths = [r["depth"] for r in rows if r["ndim"] == ndim and r["route"] == ROUTES[0]]
        axes.set_xticks(depths)
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.minorticks_off()
        axes.grid(color="0.9")
        axes.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    panels[0].set_ylabel("seconds")
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--depths", default="4,8,16,32,64,128,256,512,1024")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    options = parser.parse_args(arguments)
    depths = [int(d) for d in options.depths.split(",")]
    with jax.default_device(jax.devices(options.device)[0]):
        environment = {
            "machine": processor(),
            "cores": os.cpu_count(),
            "device": str(jax.devices(options.device)[0]),
            "python": platform.python_version(),
            "jax": jax.__version__,
            "numpy": np.__version__,
        }
        print("  ".join(f"{k} {v}" for k, v in environment.items()))
        rows = measure(depths, options.repeats) + sampled(depths)
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
