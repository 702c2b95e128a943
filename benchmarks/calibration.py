"""Are the p values of the sampled laws what they claim? Where a law holds they are uniform.

    python benchmarks/calibration.py --json out.json --plot out.png    # a quarter of an hour
    python benchmarks/calibration.py --laws VAR-1,SUB-1 --runs 50 --tails 0

Two questions, since a law is tested at levels that no honest number of runs can reach:

- **runs**: every sampled law with other seeds. The p values of each test are compared with the
  uniform law (Kolmogorov-Smirnov), and those below 0.05 and 0.01 counted. By default with a quarter
  of the nets that `verify` draws, which is faster and harder: skewness fades with their number.
- **tails**: trials drawn from one large population of nets whose mean was made to fit the theory,
  thousands of them, with as many nets as `verify` draws, so that P(p < level) is known to 1e-3.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from erftheory.laws import Context, Engines, registry, select
from erftheory.laws.machine.base import stack
from erftheory.laws.machine.trials import BATCHES, CHANNELS, LEVELS, NETS, shape_contrasts
from erftheory.laws.sampled_growth import magnitude_size_gradient
from erftheory.network.base import Chain
from erftheory.network.combine import Residual
from erftheory.network.layers import AvgPool, Conv

COUNTED = (0.05, 0.01)
TAIL_LEVELS = (0.05, 0.01, 1e-3, 2e-4)
FLIPS_A_TRIAL = 100


def remembered(engines: Engines) -> Engines:
    """The engines with every deterministic answer kept: only the nets are new in each run."""
    names = ("receptive_field", "moments", "counting", "exact", "enumerated", "gradient_of_ones")
    return replace(engines, **{n: lru_cache(maxsize=None)(getattr(engines, n)) for n in names})


def p_values(ids: list[str], runs: int, samples: int, first: int) -> dict[str, list[float]]:
    """By test the p values of `runs` runs with seeds first, first + 1, …"""
    engines = remembered(Engines.load())
    laws = select(",".join(ids))
    found: dict[str, list[float]] = {}
    for run in range(runs):
        for law in laws:
            context = Context(engines, depth=12, samples=samples, seed=first + run)
            verdict = law.run(context)
            if verdict.error is not None:
                raise SystemExit(f"{law.id}, seed {context.seed}: {verdict.error}")
            for e in verdict.evidence:
                if e.tested and e.route == "sampled" and "p of " in e.quantity:
                    name = re.split(r" by sign flips|, n=|, \d+ nets", e.quantity)[0]
                    found.setdefault(f"{law.id} {name}", []).append(float(e.measured))
        _say(f"\r{run + 1} of {runs} runs")
    _say("\n")
    return found


def uniformity(values: list[float]) -> dict[str, float]:
    """Kolmogorov-Smirnov distance from the uniform law and its p value, and small p values."""
    from scipy.stats import kstest

    test = kstest(values, "uniform")
    row: dict[str, float] = {f"below {a}": sum(v < a for v in values) for a in COUNTED}
    row |= {"runs": len(values), "distance": float(test.statistic), "ks_p": float(test.pvalue)}
    return row


def shape_rows(squares: np.ndarray, p: np.ndarray) -> np.ndarray:
    return np.stack(list(shape_contrasts(squares, p).values()), axis=1)


def size_rows(squares: np.ndarray, p: np.ndarray) -> np.ndarray:
    h = magnitude_size_gradient(p)
    return (squares @ (h - h @ p))[:, None]


# network, channels, nets for each one of `Context.samples`, init, contrasts
POPULATIONS: dict[str, tuple[Any, int, int, str, Any]] = {
    "VAR-1: 10 layers": (stack(10, 3), 16, 2, "he", shape_rows),
    "GRW-2: size at 20 layers": (stack(20, 3), 16, 1, "he", size_rows),
    "POOL-1: average pool": (
        Chain(Conv(3), AvgPool(2), Conv(3), ndim=1), CHANNELS, NETS, "he", shape_rows,
    ),
    "SKP-1: skips": (
        Chain(Conv(1), Residual(Conv(3)) * 5, ndim=1), CHANNELS, NETS, "lecun", shape_rows,
    ),
}  # fmt: skip


def tails(name: str, samples: int, population: int, trials: int) -> dict[str, float]:
    """P(p < level) / level of the shape test, drawn from `population` nets with replacement.

    The population's contrasts are shifted to mean 0, so that the null is true whatever the theory.
    The null law of the statistic is pooled over trials, `FLIPS_A_TRIAL` flips each.
    """
    network, channels, factor, init, contrasts = POPULATIONS[name]
    nets = factor * samples
    engines = Engines.load()
    p = np.asarray(engines.exact(network, init=init).map)
    blocks = engines.gradients(network, 7, population, channels=channels, init=init)
    squares = np.concatenate([np.asarray(b, dtype=np.float64) ** 2 for b in blocks])
    rows = contrasts(squares, p / p.sum())
    rows = (rows - rows.mean(0)).astype(np.float32)
    rng = np.random.default_rng(0)
    seen, null, at_once = [], [], 50
    for _ in range(-(-trials // at_once)):
        index = rng.integers(0, population, (at_once * BATCHES, nets // BATCHES))
        means = np.stack([rows[row].mean(0) for row in index]).reshape(at_once, BATCHES, -1)
        units = means / np.sqrt((means**2).sum(1, keepdims=True))
        seen.append(np.abs(units.sum(1)).max(1))
        signs = rng.choice(np.array([-1, 1], np.float32), (FLIPS_A_TRIAL, BATCHES))
        null.append(np.abs(signs @ units).max(2).ravel())
    statistics, law = np.concatenate(seen), np.concatenate(null)
    return {
        f"{a:g}": float((statistics > np.quantile(law, 1 - a)).mean() / a) for a in TAIL_LEVELS
    }


def plot(found: dict[str, list[float]], path: Path) -> None:
    """One quantile-quantile panel a test: sorted p values against uniform quantiles, log axes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from scipy.stats import beta

    columns = 4
    rows = -(-len(found) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3 * columns, 2.8 * rows), squeeze=False, sharex=True, sharey=True,
        layout="constrained",
    )  # fmt: skip
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    for axis, (name, values) in zip(axes.flat, found.items()):
        n = len(values)
        rank = np.arange(1, n + 1)
        expected = rank / (n + 1)
        low, high = (beta.ppf(q, rank, n + 1 - rank) for q in (0.005, 0.995))
        axis.fill_between(expected, low, high, color="0.85", lw=0, label="99 %, point by point")
        axis.plot(expected, expected, color="0.5", lw=1)
        axis.plot(expected, sorted(values), ".", ms=3)
        axis.set(xscale="log", yscale="log", title="\n".join(_wrap(name)))
        axis.title.set_fontsize(8)
    axes.flat[0].legend(fontsize=7)
    figure.supxlabel("uniform quantile")
    figure.supylabel("p value, sorted")
    figure.savefig(path, dpi=110)


def _wrap(name: str, width: int = 34) -> list[str]:
    import textwrap

    return textwrap.wrap(name, width)


def _say(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--laws", help="ids, by default all sampled laws")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--samples", type=int, default=1000, help="of a run, as of `verify`")
    parser.add_argument("--tail-samples", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=10_000, help="of the first run")
    parser.add_argument("--tails", type=int, default=10_000, help="trials of a population, 0: none")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    known = {law.id for law in registry()}
    ids = options.laws.split(",") if options.laws else [i for i in LEVELS if i in known]
    started = time.perf_counter()
    found = p_values(ids, options.runs, options.samples, options.seed)
    table = {name: uniformity(values) for name, values in found.items()}
    head = f"{'test':<62}{'KS p':>8}{'< 0.05':>8}{'< 0.01':>8}"
    print(f"{options.runs} runs of {options.samples} samples\n{head}")
    for name, row in table.items():
        print(f"{name:<62}{row['ks_p']:>8.3f}{row['below 0.05']:>8}{row['below 0.01']:>8}")
    deep = {}
    if options.tails:
        print(f"\nP(p < a) / a in {options.tails} trials of {options.tail_samples} samples")
        print(f"{'population':<30}" + "".join(f"{a:>8g}" for a in TAIL_LEVELS))
        for name in POPULATIONS:
            deep[name] = tails(name, options.tail_samples, 40_000, options.tails)
            print(f"{name:<30}" + "".join(f"{v:>8.2f}" for v in deep[name].values()), flush=True)
    if options.json:
        record = {
            "runs": options.runs, "samples": options.samples, "first_seed": options.seed,
            "tests": table, "p": found, "tail_trials": options.tails,
            "tail_samples": options.tail_samples, "tails": deep,
            "seconds": round(time.perf_counter() - started, 1),
        }  # fmt: skip
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    if options.plot:
        plot(found, options.plot)


if __name__ == "__main__":
    main()
