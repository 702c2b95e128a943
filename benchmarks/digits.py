"""How many digits has `exact`, what do they cost, and what does depth cost?

    python benchmarks/digits.py --json out.json --plot out.png    # two minutes

- **digits**: the largest relative error over all coefficients of n layers of k taps, tails
  included, against exact integers, beside the bound that the result states.
- **time**: a whole call on a new network beside NumPy's power of one FFT, which has no correct
  digit in the tails, and beside the limit, one real FFT of the map's length.
- **depth**: the same window at 64 to 10^9 layers; and 10^6 layers of 3×3 with its default window
  and a crop of 2048×2048 pixels, networks not seen before.
- **counting**: exact integers of 10^4 layers of 3 taps.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import flint
import numpy as np

from erftheory import Chain, Conv, counting, exact

KERNELS = (2, 3, 4, 5, 7)
DEEP = (64, 10**3, 10**4, 10**5, 10**6, 10**7, 10**8, 10**9)
SHOWN = 256  # layers of the picture
BITS = 160


def stack(depth: int, kernel: int = 3, ndim: int = 1):
    return Chain(Conv(kernel), ndim=ndim) * depth


def exact_logs(depth: int, kernel: int) -> list:
    """log of every coefficient of ((1 + z + …)/k)^n, as balls."""
    counts = counting(stack(depth, kernel)).marginal(0)
    whole = depth * flint.arb(kernel).log()
    return [flint.arb(c).log() - whole for c in counts]


def relative_error(logs: np.ndarray, truth: list) -> float:
    return max(abs(float((flint.arb(float(a)) - b).expm1())) for a, b in zip(logs, truth))


def digits(depths: list[int]) -> list[dict[str, Any]]:
    rows = []
    for depth in depths:
        for kernel in KERNELS:
            truth, erf = exact_logs(depth, kernel), exact(stack(depth, kernel))
            error = relative_error(erf.log_map, truth)
            rows.append({"depth": depth, "kernel": kernel, "method": erf.method, "error": error,
                         "bound": erf.error.value})  # fmt: skip
            print(f"{depth:>6} layers of {kernel}: {erf.method:<12} worst relative error "
                  f"{error:.1e}, bound {erf.error.value:.1e}")  # fmt: skip
            if error > erf.error.value:
                raise SystemExit(f"{depth} layers of {kernel}: the bound does not hold")
    return rows


def fft_power(depth: int) -> np.ndarray:
    return np.fft.irfft(np.fft.rfft(np.full(3, 1 / 3), 2 * depth + 1) ** depth, 2 * depth + 1)


def one_fft(depth: int) -> np.ndarray:
    return np.fft.rfft(np.ones(2 * depth + 1))


def alternated(jobs: dict[str, Any], repeats: int) -> dict[str, float]:
    """Median seconds of each job, all of them in turn; a job gets the number of its turn."""
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(repeats):
        for name, job in jobs.items():
            started = time.perf_counter()
            job(turn)
            found[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in found.items()}


def times(depths: list[int], repeats: int) -> list[dict[str, Any]]:
    rows = []
    for depth in depths:
        jobs = {
            "exact": lambda turn, n=depth: exact(stack(n + turn % 2)),  # not the network before
            "power": lambda _, n=depth: fft_power(n),
            "limit": lambda _, n=depth: one_fft(n),
        }
        seconds = alternated(jobs, repeats)
        truth = exact_logs(depth, 3)
        with np.errstate(divide="ignore"):
            power = np.log(np.abs(fft_power(depth)))
        edge = abs(float(power[0]) - float(truth[0])) / math.log(10)
        ratio, limit = (seconds["exact"] / seconds[other] for other in ("power", "limit"))
        rows.append({"depth": depth, **seconds, "ratio": ratio, "edge_of_power": edge})
        print(
            f"{depth:>6} layers of 3: exact {seconds['exact'] * 1e3:.2f} ms, {ratio:.1f} times a "
            f"power by FFT (its edge is wrong by a factor 10^{edge:.0f}), {limit:.0f} times one FFT"
        )
    return rows


def depths_at_one_window(repeats: int) -> list[dict[str, Any]]:
    jobs = {str(n): lambda turn, n=n: exact(stack(n + turn), window=129).log_map for n in DEEP}
    seconds = alternated(jobs, repeats)
    first = seconds[str(DEEP[0])]
    for n in DEEP:
        print(f"{n:>10} layers, window 129: {seconds[str(n)] * 1e3:.2f} ms, "
              f"{seconds[str(n)] / first:.2f} times that of {DEEP[0]}")  # fmt: skip
    return [{"depth": n, "seconds": seconds[str(n)]} for n in DEEP]


def million(repeats: int) -> dict[str, float]:
    """Marginals over the default window, and a crop of the map, of nets of a million layers."""
    crop = (range(-1024, 1024),) * 2

    def job(turn: int):
        net = stack(10**6 + turn, ndim=2)
        erf = exact(net)
        assert erf.error.outside <= 1e-12
        return erf.marginals, exact(net, window=crop).map

    seconds = alternated({"million": job}, repeats)["million"]
    integers = alternated({"c": lambda turn: counting(stack(10**4 + turn)).marginal(0)}, repeats)[
        "c"
    ]
    print(f"10^6 layers of 3x3: marginals and a crop of 2048 x 2048: {seconds:.3f} s (asked: <= 1)")
    print(f"counting, 10^4 layers of 3: {integers:.3f} s (asked: <= 0.2)")
    return {"million_seconds": seconds, "counting_seconds": integers}


def plot(found: dict[str, Any], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    net = stack(SHOWN)
    whole = exact(net)
    places = whole.offset[0] + np.arange(whole.shape[0])
    plain = np.abs(fft_power(SHOWN))
    with np.errstate(divide="ignore"):
        left.plot(
            places, np.log10(plain), ".", ms=2, color="#D55E00", label="one FFT, to the power n"
        )
    left.plot(
        places, whole.log_map / math.log(10), color="#0072B2", label="exact (tilted transforms)"
    )
    left.set(xlabel="input pixel", ylabel="log10 of the ERF", title=f"{SHOWN} layers of 3 taps")
    left.legend(fontsize=8, loc="lower center")
    for rows, key, style, colour, label in (
        ("depths", "seconds", "o-", "#0072B2", "exact, window of 129 pixels"),
        ("times", "exact", "s--", "#009E73", "exact, whole support"),
        ("times", "power", "^:", "#D55E00", "one FFT, to the power n"),
    ):
        points = [(r["depth"], r[key] * 1e3) for r in found[rows]]
        right.loglog(*zip(*points), style, color=colour, label=label)
    right.set(xlabel="depth n (layers of 3 taps)", ylabel="milliseconds", title="cost of depth")
    right.grid(color="0.9")
    right.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--depths", default="16,64,256,1024")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args(arguments)
    depths = [int(d) for d in options.depths.split(",")]
    found: dict[str, Any] = {
        "environment": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "numpy": np.__version__,
        }
    }
    flint.ctx.prec = BITS
    found["digits"] = digits(depths)
    found["times"] = times(depths, options.repeats)
    found["depths"] = depths_at_one_window(options.repeats)
    found |= million(min(5, options.repeats))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.plot:
        plot(found, options.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
