"""What do the readings that one makes most often cost, beside plain NumPy and beside their imports?

    python benchmarks/readings.py --json out.json --plot out.png    # two minutes

Five jobs, each a whole call or a whole process, on networks not seen before:

- **map**: the map of 64 layers of 3×3, beside NumPy's own way to it (one transform, its power, an
  outer product) and a loop of `scipy.signal.convolve2d`.
- **line**: the map of 1024 layers of 3 taps, beside NumPy's power of one transform.
- **moments**: receptive field and moments of ResNet-152.
- **summary**: `erftheory summary resnet18`, beside a process that imports the third-party packages
  that the command needs and does nothing.
- **erf**: `erftheory erf resnet50 --image 224 --out`, likewise.

Answers are compared first: maps with exact integers in every pixel, moments with those of the map,
what the commands write with what Python says; a wrong one ends the run. All that is compared runs
in turn, short calls many in a row. Calls are timed by the processor's time, processes by the
clock. Medians, and the least, because the machine may be shared.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import scipy.signal

from erftheory import Chain, Conv, counting, exact, moments, receptive_field, zoo

SUMMARY = ("click", "numpy", "lazy_loader", "scipy.special")
DRAWING = ("scipy.sparse", "matplotlib.figure", "matplotlib.backends.backend_agg")
BARE = {"summary": SUMMARY, "erf": (*SUMMARY, *DRAWING)}
COMMANDS = {"summary": ("summary", "resnet18"), "erf": ("erf", "resnet50", "--image", "224")}
# milliseconds: what was measured when the numbers were asked for, and what was asked
BEFORE = {"map": 0.75, "moments": 75.0, "summary": 1500.0, "erf": 2000.0}
ASKED = {"map": 0.5, "moments": 40.0, "summary": 1000.0, "erf": 2000.0}
ASKED_RATIO = {"summary": 1.3, "erf": 1.3}  # of a process to its bare imports
TURN = 100.0  # milliseconds that calls in a row may take, of which a turn takes the mean
LEFT_OUT = 1e-6  # of the peak: pixels below do not count in the error of NumPy and SciPy
FIELD = 1451  # of ResNet-152, counted by several tools (tests/test_zoo_definitions.py)
JOBS = ("map", "line", "moments", "summary", "erf")

Calls = dict[str, Callable[[], Any]]


def stack(depth: int, ndim: int):
    return Chain(Conv(3), ndim=ndim) * depth


def power(depth: int) -> np.ndarray:
    """A line of `depth` layers of 3 taps as a power of one transform."""
    size = 2 * depth + 1
    return np.fft.irfft(np.fft.rfft(np.full(3, 1 / 3), size) ** depth, size)


def numpy_map(depth: int) -> np.ndarray:
    return np.multiply.outer(power(depth), power(depth))


def scipy_map(depth: int) -> np.ndarray:
    kernel, signal = np.full((3, 3), 1 / 9), np.ones((1, 1))
    for _ in range(depth):
        signal = scipy.signal.convolve2d(signal, kernel)
    return signal


# ---- answers -------------------------------------------------------------------------------------


def truth(depth: int) -> list[Fraction]:
    """The line of `depth` layers, from integers."""
    return [Fraction(int(count), 3**depth) for count in counting(stack(depth, 1)).marginal(0)]


def error(values: np.ndarray, right: np.ndarray, above: float = 0.0) -> float:
    """The largest relative error of the pixels above a share of the peak."""
    kept = right > above * right.max()
    return float((np.abs(values - right)[kept] / right[kept]).max())


def refuse(name: str, wrong: bool, what: str) -> None:
    if wrong:
        raise SystemExit(f"{name}: {what}; nothing timed")


def compare_map(depth: int) -> dict[str, float]:
    line = truth(depth)
    right = np.array([[float(a * b) for b in line] for a in line])
    erf = exact(stack(depth, 2))
    found = {"erftheory": error(erf.map, right)}
    refuse("map", found["erftheory"] > erf.error.value, "the bound does not hold")
    others = {"NumPy": numpy_map(depth), "SciPy": scipy_map(depth)}
    found |= {name: error(values, right, LEFT_OUT) for name, values in others.items()}
    refuse("map", max(found.values()) > 1e-8, f"errors of {found}")
    return found | {"NumPy, all pixels": error(others["NumPy"], right)}


def compare_line(depth: int) -> dict[str, float]:
    right = [math.log(c.numerator) - math.log(c.denominator) for c in truth(depth)]
    erf = exact(stack(depth, 1))
    found = {"erftheory": float(np.abs(np.expm1(erf.log_map - np.array(right))).max())}
    # logs of such numbers have the digits of a float, less those before the point
    slack = 4 * np.finfo(float).eps * max(map(abs, right))
    refuse("line", found["erftheory"] > erf.error.value + slack, "the bound does not hold")
    with np.errstate(divide="ignore"):
        edge = math.log(abs(power(depth)[0])) - right[0]
    return found | {"NumPy, its edge in powers of ten": edge / math.log(10)}


def compare_moments() -> dict[str, float]:
    net = zoo.resnet152()
    own, erf = moments(net), exact(net)
    refuse("moments", receptive_field(net).size != (FIELD, FIELD), "another receptive field")
    found = max(abs(a / b - 1) for a, b in zip(own.std, erf.std))
    refuse("moments", found > 1e-9, f"deviations differ from the map's by {found:.1e}")
    return {"deviation beside the map's": found}


def compare_command(name: str, folder: Path) -> dict[str, float]:
    """What the command writes is what Python says."""
    written, picture = folder / f"{name}.json", folder / f"{name}.png"
    more = ["--json", str(written), *(["--out", str(picture)] if name == "erf" else [])]
    process(command(name, more), folder)
    data = json.loads(written.read_text())
    if name == "summary":
        rows = zoo.resnet18().summary().rows
        same = [(r["name"], *r["std"]) for r in data["rows"]] == [(r.name, *r.std) for r in rows]
    else:
        same = tuple(data["std"]) == exact(zoo.resnet50(), image=224).std
        same = same and picture.stat().st_size > 10_000
    refuse(name, not same, "the command says something else than Python")
    return {}


# ---- processes -----------------------------------------------------------------------------------


def command(name: str, more: list[str]) -> list[str]:
    return ["-m", "erftheory.cli", *COMMANDS[name], *more]


def bare(name: str) -> list[str]:
    return ["-c", f"import {', '.join(BARE[name])}"]


def process(arguments: list[str], folder: Path) -> str:
    """Run Python with arguments, its byte code kept in a folder of this run."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True,
                          text=True)  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def beyond(name: str, folder: Path) -> list[str]:
    """Installed packages that the command loads and its bare imports do not."""
    listing = (
        "import sys; print(*{n.split('.')[0] for n, m in list(sys.modules.items())"
        " if 'site-packages' in (getattr(m, '__file__', None) or '')})"
    )
    more = ["--out", str(folder / "beyond.png")] if name == "erf" else []
    call = f"import sys; from erftheory.cli import main; main({[*COMMANDS[name], *more]!r})"
    loaded = process(["-c", f"{call}; print(); {listing}"], folder).splitlines()[-1]
    needed = process(["-c", f"import {', '.join(BARE[name])}; {listing}"], folder)
    return sorted(set(loaded.split()) - set(needed.split()) - {"erftheory"})


# ---- times ---------------------------------------------------------------------------------------


def calls_of(job: str, folder: Path) -> tuple[Calls, dict[str, Any]]:
    """What is timed in turn, the package first and what it is divided by second; the answers."""
    if job == "map":
        own: Calls = {
            "erftheory": lambda: exact(stack(64, 2)).map,
            "NumPy: transform, power, outer product": lambda: numpy_map(64),
            "SciPy: convolve2d, 64 times": lambda: scipy_map(64),
        }
        return own, compare_map(64)
    if job == "line":
        own = {
            "erftheory": lambda: exact(stack(1024, 1)).map,
            "NumPy: power of a transform": lambda: power(1024),
        }
        return own, compare_line(1024)
    if job == "moments":
        own = {
            "erftheory": lambda: (receptive_field(net := zoo.resnet152()), moments(net)),
        }
        return own, compare_moments()
    more = ["--out", str(folder / "timed.png")] if job == "erf" else []
    own = {
        "erftheory": lambda: process(command(job, more), folder),
        "bare imports": lambda: process(bare(job), folder),
    }
    found: dict[str, Any] = compare_command(job, folder)
    return own, found | {"loads beyond them": beyond(job, folder)}


def timed(call: Callable[[], Any], count: int, clock: Callable[[], float]) -> float:
    """Milliseconds of a call, one of so many in a row."""
    started = clock()
    for _ in range(count):
        call()
    return (clock() - started) * 1e3 / count


def alternated(calls: Calls, repeats: int, job: str) -> dict[str, list[float]]:
    """Milliseconds of calls made in turn, after one call each that is not counted."""
    for call in calls.values():
        call()
    clock = time.perf_counter if job in COMMANDS else time.process_time
    rows = {name: max(1, int(TURN / timed(call, 1, clock))) for name, call in calls.items()}
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            found[name].append(timed(call, rows[name], clock))
    return found


def measure(jobs: list[str], repeats: int) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for job in jobs:
            calls, answers = calls_of(job, Path(place))
            times = alternated(calls, repeats, job)
            median = {name: statistics.median(values) for name, values in times.items()}
            others = {name: value for name, value in median.items() if name != "erftheory"}
            rows.append({
                "job": job, "before": BEFORE.get(job), "asked": ASKED.get(job),
                "milliseconds": median["erftheory"], "least": min(times["erftheory"]),
                "beside": others, "ratios": {n: median["erftheory"] / v for n, v in others.items()},
                "asked_ratio": ASKED_RATIO.get(job), "answers": answers,
            })  # fmt: skip
            print(line_of(rows[-1]))
    return rows


def line_of(row: dict[str, Any]) -> str:
    """A row of the table."""

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.3g}"

    asked = f" (asked: {row['asked_ratio']})" if row["asked_ratio"] else ""
    ratios = "; ".join(f"{value:.2f} × {name}{asked}" for name, value in row["ratios"].items())
    cells = (number(row[key]) for key in ("before", "asked", "milliseconds", "least"))
    return f"{row['job']:<8}" + "".join(f"{cell:>9}" for cell in cells) + f"  {ratios}"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.6 + 0.55 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    places = np.arange(len(rows))[::-1]
    axes.barh(places, [r["milliseconds"] for r in rows], 0.5, color="#0072B2", label="erftheory")
    near = [(next(iter(r["beside"].values())), at) for at, r in zip(places, rows) if r["beside"]]
    if near:
        axes.plot(*zip(*near), "D", color="#009E73", label="NumPy, or the bare imports")
    asked = [(r["asked"], at) for at, r in zip(places, rows) if r["asked"] is not None]
    if asked:
        axes.plot(*zip(*asked), "|", ms=24, mew=2, color="#D55E00", label="asked")
    axes.set(xscale="log", xlabel="milliseconds", title="Readings that one makes most often")
    axes.set_yticks(places, [r["job"] for r in rows])
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args(arguments)
    jobs = options.jobs.split(",")
    if unknown := set(jobs) - set(JOBS):
        parser.error(f"--jobs takes {', '.join(JOBS)}; got {', '.join(sorted(unknown))}")
    environment = {
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
    print("  ".join(f"{key} {value}" for key, value in environment.items()))
    print("milliseconds: before, asked, median, least; ratios of medians")
    rows = measure(jobs, options.repeats)
    if options.json:
        found = {"environment": environment, "rows": rows}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.plot:
        plot(rows, options.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
