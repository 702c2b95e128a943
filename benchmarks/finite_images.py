"""What does an exact map on a finite image cost, and what does the image's rim take away?

    python benchmarks/finite_images.py --json out.json --plot out.png    # two minutes

- **times**: ResNet-50 on square images: one unit, all units of its last map, and one gradient of
  the all-ones net by autodiff, whose execution alone is timed. The maps are compared first: above
  1e-9 of the peak the run ends.
- **networks**: one unit on 224 pixels, new network objects.
- **rim**: what a unit at the centre and at the corner loses on 224 pixels.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from erftheory import exact, receptive_field, zoo
from erftheory.empirical.nets.draw import ones_params
from erftheory.empirical.nets.execute import apply
from erftheory.theory.image.units import exact_units

IMAGE = 224
NETWORKS = ("vgg16", "resnet34", "resnet50", "resnet101", "resnet152", "densenet121")


def timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def medians(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of calls made in turn, after one call each that is not counted."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(timed(call))
    return {name: statistics.median(values) for name, values in times.items()}


def autodiff(network, size: int) -> tuple[Callable[[], np.ndarray], float]:
    """One compiled gradient of the all-ones net's central unit, float64; seconds to compile."""
    with jax.enable_x64(True):
        params = ones_params(network, jnp.float64)
        x = jnp.zeros((1, size, size), jnp.float64)
        net = lambda v: apply(network, params, v, linear=True)  # noqa: E731
        shape = jax.eval_shape(net, x).shape
        unit = tuple(n // 2 for n in shape[1:])
        program = jax.jit(jax.grad(lambda v: net(v)[(0, *unit)]))
        started = time.perf_counter()
        compiled = program.lower(x).compile()
        seconds = time.perf_counter() - started

    def call() -> np.ndarray:
        with jax.enable_x64(True):
            return np.asarray(compiled(x))[0]

    return call, seconds


def sizes(name: str, images: list[int], repeats: int) -> list[dict[str, Any]]:
    rows = []
    for size in images:
        network = getattr(zoo, name)()
        gradient, compiling = autodiff(network, size)
        truth = gradient() / gradient().sum()
        found = exact(network, image=size, signal="gradient", init=None).map
        error = float(np.abs(found - truth).max() / truth.max())
        if not error < 1e-9:
            raise SystemExit(f"{name} on {size} pixels: error {error:.1e} of the peak, not timed")
        units = len(list(exact_units(network, size)))
        calls = {
            "one unit": lambda size=size: exact(getattr(zoo, name)(), image=size).map,
            "all units": lambda size=size: [e.map for e in exact_units(getattr(zoo, name)(), size)],
            "autodiff": gradient,
        }
        row = {"network": name, "image": size, "units": units, "error": error,
               "compile": compiling, **medians(calls, repeats)}  # fmt: skip
        rows.append(row)
        print(
            f"{name} on {size:4d}: one unit {row['one unit'] * 1e3:7.1f} ms   all {units:4d} units "
            f"{row['all units'] * 1e3:8.1f} ms   autodiff {row['autodiff'] * 1e3:7.1f} ms, "
            f"compiled in {compiling:.1f} s   differ by {error:.1e}",
            flush=True,
        )
    return rows


def networks(repeats: int) -> list[dict[str, Any]]:
    """Times and losses on 224 pixels."""
    rows = []
    for name in NETWORKS:
        network = getattr(zoo, name)()
        center = exact(network, image=IMAGE)
        corner = exact(network, image=IMAGE, unit=(0, 0))
        call = {"seconds": lambda name=name: exact(getattr(zoo, name)(), image=IMAGE).map}
        row = {
            "network": name, "rf": receptive_field(network).size[0], "std": center.std[0],
            "plane std": exact(network).std[0], "size": center.size(), "corner std": corner.std[0],
            "lost": center.metadata["lost"], "lost at corner": corner.metadata["lost"],
            "bound": center.error.value, **medians(call, repeats),
        }  # fmt: skip
        rows.append(row)
        print(
            f"{name:12s} {row['seconds'] * 1e3:7.1f} ms   RF {row['rf']:5d}   std "
            f"{row['std']:5.1f} px (plane {row['plane std']:5.1f})   size {row['size']:5.1f}   "
            f"lost {row['lost']:6.1%}, at the corner {row['lost at corner']:6.1%}",
            flush=True,
        )
    return rows


def processor() -> str:
    """The processor's name; Python itself knows none on Linux."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def smooth(line: np.ndarray, first: int, rows: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Means of so many rows (strides make neighbours differ), and where their middles lie."""
    start = -first % rows
    line = line[start : start + (len(line) - start) // rows * rows]
    middles = first + start + (rows - 1) / 2 + rows * np.arange(len(line) // rows)
    return middles, line.reshape(-1, rows).mean(axis=1)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    x = [row["image"] for row in rows]
    for key, label, colour, mark in (
        ("one unit", "grid, one unit", "#0072B2", "o"),
        ("all units", "grid, all units", "#009E73", "s"),
        ("autodiff", "autodiff, one unit, compiled", "#D55E00", "D"),
        ("compile", "compiling it", "#CC79A7", "v"),
    ):
        left.loglog(x, [row[key] for row in rows], mark + "-", color=colour, label=label)
    left.set(xlabel="image side (pixels)", ylabel="seconds", title="ResNet-50")
    left.set_xticks(x)
    left.xaxis.set_major_formatter("{x:.0f}")
    left.minorticks_off()
    left.grid(color="0.9")
    left.set_ylim(top=100)
    left.legend(fontsize=8, ncols=2, loc="upper left")

    network = zoo.resnet34()
    first = exact(network, image=IMAGE)
    unit = first.metadata["unit"]
    plane = exact(network, unit=unit)
    right.axvspan(0, IMAGE - 1, color="0.93", label="image, 224 pixels")
    right.plot(*smooth(plane.marginals[0], plane.offset[0]), color="0.4", label="unbounded plane")
    for where, colour in ((unit, "#0072B2"), ((0, 0), "#D55E00")):
        erf = exact(network, image=IMAGE, unit=where)
        share = 1 - erf.metadata["lost"]
        label = f"image, unit {where}: {share:.0%} arrives"
        right.plot(*smooth(erf.marginals[0] * share, 0), color=colour, label=label)
    right.set(xlim=(-150, 374), ylim=(0, 0.0105), xlabel="input row", title="ResNet-34, RF 899")
    right.set_ylabel("share of the signal a row (means of 8)")
    right.legend(fontsize=8, loc="upper right")
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", default="64,128,224,448")
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args(arguments)
    environment = {
        "machine": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpy": np.__version__,
    }
    print("  ".join(f"{k} {v}" for k, v in environment.items()))
    rows = sizes(options.network, [int(n) for n in options.images.split(",")], options.repeats)
    table = networks(options.repeats)
    if options.json:
        found = {"environment": environment, "sizes": rows, "networks": table}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.plot:
        plot(rows, options.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
