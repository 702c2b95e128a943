"""TRN-1: does training enlarge the ERF? Nine nets with a task, before and after.

Per pair: std of the ERF of the last map's centre unit over 256 held-out images, averaged over the
axes, before and after training, the growth with a 95 % confidence interval over seeds, and the
verdict of the exact sign-flip test at family-wise 0.01. `--controls` trains the first pair and one
dialled pair again without a task, without labels and without images; `--dial` trains one net on
signs 1 to 8 px apart. README.md beside this file says how to read the table. On a GPU:
`--device gpu --steps 1200 --images 1024`.

    python benchmarks/training.py [--seeds 10] [--controls] [--dial] [--json PATH] [--plot PATH]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from erftheory.training.studies.controls import CONTROLS, permuted_growth
from erftheory.training.studies.pairs import PAIRS, on_signs, plain
from erftheory.training.studies.study import Pair, Study, study
from erftheory.training.studies.table import rows, text

DISTANCES = (1, 2, 3, 4, 5, 6, 7, 8)
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#999999"


def controls(pair: Pair, found: Study, seeds: int, images: int) -> list[dict[str, Any]]:
    """Growth under each control, beside that of training."""
    growths = {"trained": found.growth, "trained, taps permuted": permuted_growth(found)}
    for name, run in CONTROLS.items():
        growths[name] = run(pair, seeds, images=images).growth
    table = []
    for name, values in growths.items():
        half = 2.262 * values.std(ddof=1) / len(values) ** 0.5 if len(values) == 10 else np.nan
        table.append({
            "pair": pair.name, "control": name, "growth": float(np.exp(values.mean())),
            "interval": [float(np.exp(values.mean() + s * half)) for s in (-1, 1)],
        })  # fmt: skip
        row = table[-1]
        low, high = row["interval"]
        print(f"{pair.name:34s}{name:26s}{row['growth']:7.3f} ({low:.3f}, {high:.3f})", flush=True)
    return table


def dial(seeds: int, images: int) -> list[dict[str, Any]]:
    """Six 3×3 layers reach 6 pixels: what they see behind training on signs d pixels apart."""
    table = []
    for distance in DISTANCES:
        pair = Pair(f"d = {distance}", plain(6, True), partial(on_signs, distance))
        found = study(pair, seeds, images=images)
        table.append({
            "distance": distance, "reach": 6, "scores": found.scores.tolist(),
            "before": found.axes[:, 0].tolist(), "after": found.axes[:, -1].tolist(),
        })  # fmt: skip
        print(f"{pair.name:8s} mean IoU {found.scores.mean():.3f}  std across and along "
              f"{found.axes[:, -1, 0].mean():.2f} {found.axes[:, -1, 1].mean():.2f} px "
              f"(before {found.axes[:, 0].mean():.2f})", flush=True)  # fmt: skip
    return table


def plot(found: dict[str, Any], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    table = found["pairs"]
    figure = Figure(figsize=(12, 5.2 if found["dial"] else 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = 2 if found["dial"] else 1
    left, *right = np.ravel(figure.subplots(1, panels, width_ratios=(1.5, 1)[:panels]))
    places = np.arange(len(table))[::-1]
    for y, row in zip(places, table, strict=True):
        colour = {"grows": BLUE, "shrinks": ORANGE}.get(row["verdict"], GREY)
        left.plot(row["interval"], [y, y], color=colour, linewidth=4, solid_capstyle="butt")
        left.plot(row["growth"], y, "o", color=colour)
        left.text(1.01, y, f"{row['std_before']:.2f} → {row['std_after']:.2f} px", va="center",
                  transform=left.get_yaxis_transform(), fontsize=9)  # fmt: skip
    left.axvline(1, color="black", linewidth=0.8)
    left.set_yticks(places, [row["pair"] for row in table])
    left.set(xlabel="std after training / before (95 % interval)", xscale="log",
             title=f"{table[0]['seeds']} seeds; blue grows, orange shrinks")  # fmt: skip
    low, high = (f(v for row in table for v in row["interval"]) for f in (min, max))
    ticks = [t for t in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.2, 1.5, 2, 3, 5)
             if low / 1.1 <= t <= high * 1.1 or t == 1]  # fmt: skip
    left.set_xticks(ticks, [f"{t:g}" for t in ticks])
    left.set_xticks([], minor=True)
    if found["dial"]:
        distances = [row["distance"] for row in found["dial"]]
        for axis, name, colour in ((1, "along", BLUE), (0, "across", ORANGE)):
            values = np.array([[s[axis] for s in row["after"]] for row in found["dial"]])
            right[0].errorbar(distances, values.mean(1), values.std(1, ddof=1), fmt="o-",
                              color=colour, label=f"{name} the distance", capsize=3)  # fmt: skip
        before = np.mean([row["before"] for row in found["dial"]])
        right[0].axhline(before, color=GREY, linestyle="--", label="before training")
        right[0].axvline(6, color="black", linestyle=":", label="reach of the receptive field")
        right[0].set(xlabel="needed distance d (px)", ylabel="std of the ERF (px)", ylim=(0, None),
                     title="six 3×3 layers, signs d px apart (± std over seeds)")  # fmt: skip
        right[0].legend(fontsize=9)
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--pairs", type=int, default=len(PAIRS), help="the first so many")
    parser.add_argument("--controls", action="store_true")
    parser.add_argument("--dial", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    options = parser.parse_args(arguments)
    pairs = [replace(p, steps=options.steps or p.steps) for p in PAIRS[: options.pairs]]
    with jax.default_device(jax.devices(options.device)[0]):
        start, studies = time.perf_counter(), []
        for pair in pairs:
            begun = time.perf_counter()
            studies.append(study(pair, options.seeds, images=options.images))
            line = text(rows(studies)).splitlines()[-1]
            print(f"{line}  {time.perf_counter() - begun:5.0f} s", flush=True)
        seconds = time.perf_counter() - start
        table = rows(studies)
        print(f"\nafter Holm's correction over all, {seconds:.0f} s:\n{text(table)}", flush=True)
        asked = [i for i in (0, 3) if options.controls and i < len(pairs)]
        found = {
            "environment": {"cores": os.cpu_count(), "python": platform.python_version(),
                            "jax": jax.__version__, "device": str(jax.devices(options.device)[0])},
            "seconds": seconds, "pairs": table,
            "controls": [row for i in asked
                         for row in controls(pairs[i], studies[i], options.seeds, options.images)],
            "dial": dial(max(2, options.seeds // 2), options.images) if options.dial else [],
        }  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.plot:
        plot(found, options.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
