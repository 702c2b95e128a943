"""TRN-1: does training enlarge the ERF? Nine nets with a task, before and after.

Per pair: std of the ERF of the last map's centre unit over 256 held-out images, averaged over the
axes, before and after training, the growth with a 95 % confidence interval over seeds, and the
verdict of the exact sign-flip test at family-wise 0.01; below it, what trained taps, gains and the
rest contribute. `--controls` trains two pairs again without a task, without labels and without
images; `--dial` trains three nets on signs 1 to 16 px apart; `--initial` four pairs from filters
with heavy rims. README.md beside this file says how to read the table. On a GPU:
`--device gpu --steps 1200 --images 1024`.

    python benchmarks/training.py [--controls] [--dial] [--initial] [--json PATH] [--plot PATH]
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
from scipy.stats import t

from erftheory.files import whole
from erftheory.training.studies.controls import CONTROLS, SPOILED, spoiled_growth
from erftheory.training.studies.explained import PARTS, explained
from erftheory.training.studies.initial import PAIRS_OF_INITIAL, initial
from erftheory.training.studies.initial import rows as initial_rows
from erftheory.training.studies.pairs import PAIRS, dilated, on_signs, plain
from erftheory.training.studies.study import Pair, Study, study
from erftheory.training.studies.table import rows, text

SIX, TWELVE, WIDE = plain(6, True), plain(12, True), dilated(1, 2, 4, 8)
# nets of the dialled task: what it is, pixels that they reach, distances asked of them: at most 11,
# so that the partner of the centre unit lies in the image
DIAL = (
    ("6 layers", SIX, 6, (1, 2, 3, 4, 5, 6, 7, 8)),
    ("12 layers", TWELVE, 12, (2, 4, 6, 8, 10, 11)),
    ("dilations 1 2 4 8", WIDE, 15, (1, 2, 4, 8, 11)),
)
CONTROLLED = (3, 4)  # one that shrinks and the one that grows
SECTIONS = ("pairs", "explained", "initial", "dial", "controls")
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"


def parts(found: Study) -> dict[str, Any]:
    """What taps, gains and the rest contribute to log growth, and which layers moved."""
    said = explained(found)
    row = {
        "pair": found.pair.name,
        "growth": said.interval(said.growth),
        **{name: said.interval(said.parts[:, i]) for i, name in enumerate(PARTS)},
        "sum": float(said.parts.sum(1).mean()),
        "theory": said.theory.mean(0).tolist(),
        "measured": found.std[:, [0, -1]].mean(0).tolist(),
        "layers": list(said.layers),
        "taps_before": said.taps[:, 0].mean(0).tolist(),
        "taps_after": said.taps[:, 1].mean(0).tolist(),
    }
    shown = "  ".join(f"{name} {row[name][0]:+.3f} ± {row[name][1]:.3f}" for name in PARTS)
    print(f"    log growth {row['growth'][0]:+.3f} = {shown}", flush=True)
    return row


def controls(pair: Pair, found: Study, images: int) -> list[dict[str, Any]]:
    """Growth under each control, beside that of training."""
    seeds = len(found.growth)
    growths = {"trained": found.growth}
    growths |= {name: spoiled_growth(found, spoil) for name, spoil in SPOILED.items()}
    for name, run in CONTROLS.items():
        growths[name] = run(pair, seeds, images=images).growth
    table = []
    for name, values in growths.items():
        half = float(t.ppf(0.975, seeds - 1)) * values.std(ddof=1) / seeds**0.5
        table.append({
            "pair": pair.name, "control": name, "growth": float(np.exp(values.mean())),
            "interval": [float(np.exp(values.mean() + s * half)) for s in (-1, 1)],
        })  # fmt: skip
        row = table[-1]
        low, high = row["interval"]
        print(f"{pair.name:34s}{name:26s}{row['growth']:7.3f} ({low:.3f}, {high:.3f})", flush=True)
    return table


def dial(seeds: int, images: int) -> list[dict[str, Any]]:
    """What nets see behind training on signs d pixels apart, and whether they learn the task."""
    table = []
    for name, network, reach, distances in DIAL:
        for distance in distances:
            pair = Pair(f"{name}, d = {distance}", network, partial(on_signs, distance))
            found = study(pair, seeds, images=images)
            centre = [n // 2 for n in found.maps[0].shape]
            table.append({
                "net": name, "distance": distance, "reach": reach,
                "scores": found.scores[:, -1].tolist(),
                "before": found.axes[:, 0].tolist(), "after": found.axes[:, -1].tolist(),
                # of the power before training, at the pixel that the label needs
                "share": float(found.maps[0][centre[0], centre[1] + distance]),
            })  # fmt: skip
            print(f"{pair.name:26s} mean IoU {found.scores[:, -1].mean():.3f}  std across and "
                  f"along {found.axes[:, -1, 0].mean():.2f} {found.axes[:, -1, 1].mean():.2f} px "
                  f"(before {found.axes[:, 0].mean():.2f}, share {table[-1]['share']:.2g})",
                  flush=True)  # fmt: skip
    return table


def initialisations(seeds: int, images: int) -> list[dict[str, Any]]:
    """INI-1: heavy rims against uniform taps."""
    found = [initial(pair, seeds, images) for pair in PAIRS_OF_INITIAL]
    table = initial_rows(found)
    for row in table:
        low, high = row["interval"]
        print(f"{row['pair']:34s}{row['measure']:20s}{row['uniform']:7.3f} → {row['rim']:7.3f}  "
              f"{row['effect']:+.3f} ({low:+.3f}, {high:+.3f})  p {row['p']:.3f}",
              flush=True)  # fmt: skip
    return table


def plot(found: dict[str, Any], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    table, split, dialled = found["pairs"], found["explained"], found["dial"]
    rows = 2 if dialled else 1
    figure = Figure(figsize=(12.5, 4.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = np.ravel(figure.subplots(rows, 2))
    growths(panels[0], table)
    if split:
        sources(panels[1], split)
    if dialled:
        seen(panels[2], [row for row in dialled if row["net"] == DIAL[0][0]])
        learned(panels[3], dialled)
    figure.savefig(path, dpi=120)


def growths(panel: Any, table: list[dict[str, Any]]) -> None:
    places = np.arange(len(table))[::-1]
    for y, row in zip(places, table, strict=True):
        colour = {"grows": BLUE, "shrinks": ORANGE}.get(row["verdict"], GREY)
        panel.plot(row["interval"], [y, y], color=colour, linewidth=4, solid_capstyle="butt")
        panel.plot(row["growth"], y, "o", color=colour)
        panel.text(1.01, y, f"{row['std_before']:.2f} → {row['std_after']:.2f} px", va="center",
                   transform=panel.get_yaxis_transform(), fontsize=9)  # fmt: skip
    panel.axvline(1, color="black", linewidth=0.8)
    panel.set_yticks(places, [row["pair"] for row in table])
    panel.set(xlabel="std after training / before (95 % interval)", xscale="log",
              title="growth; blue grows, orange shrinks, grey undecided")  # fmt: skip
    low, high = (f(v for row in table for v in row["interval"]) for f in (min, max))
    ticks = [t for t in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.2, 1.5, 2, 3, 5)
             if low / 1.1 <= t <= high * 1.1 or t == 1]  # fmt: skip
    panel.set_xticks(ticks, [f"{t:g}" for t in ticks])
    panel.set_xticks([], minor=True)


def sources(panel: Any, split: list[dict[str, Any]]) -> None:
    places = np.arange(len(split))[::-1]
    for i, (name, colour) in enumerate(zip(PARTS, (BLUE, GREEN, GREY))):
        at = places + 0.25 * (1 - i)
        values, halves = np.array([row[name] for row in split]).T
        panel.barh(at, values, 0.22, xerr=halves, color=colour, label=name,
                   error_kw={"linewidth": 0.8})  # fmt: skip
    panel.plot([row["growth"][0] for row in split], places, "k|", markersize=18,
               label="growth measured")  # fmt: skip
    panel.axvline(0, color="black", linewidth=0.8)
    panel.set_yticks(places, [""] * len(places))
    panel.set(xlabel="contribution to log growth (95 % interval)", title="what it consists of")
    panel.legend(fontsize=9, loc="upper left")


def seen(panel: Any, rows: list[dict[str, Any]]) -> None:
    distances = [row["distance"] for row in rows]
    for axis, name, colour in ((1, "along", BLUE), (0, "across", ORANGE)):
        values = np.array([[s[axis] for s in row["after"]] for row in rows])
        panel.errorbar(distances, values.mean(1), values.std(1, ddof=1), fmt="o-", color=colour,
                       label=f"{name} the distance", capsize=3)  # fmt: skip
    before = np.mean([row["before"] for row in rows])
    panel.axhline(before, color=GREY, linestyle="--", label="before training")
    panel.plot(distances, np.array(distances) / 2, color="black", linewidth=0.8,
               label="two equal points d apart")  # fmt: skip
    panel.axvline(rows[0]["reach"], color="black", linestyle=":", label="reach of the field")
    panel.set(xlabel="needed distance d (px)", ylabel="std of the ERF (px)", ylim=(0, None),
              title=f"{rows[0]['net']} on signs d px apart (± std over seeds)")  # fmt: skip
    panel.legend(fontsize=9)


def learned(panel: Any, rows: list[dict[str, Any]]) -> None:
    for (name, _, reach, _), colour, mark in zip(DIAL, (BLUE, ORANGE, GREEN), "os^"):
        own = [row for row in rows if row["net"] == name]
        distances = [row["distance"] for row in own]
        scores = np.array([row["scores"] for row in own])
        panel.plot(distances, scores.mean(1), mark + "-", color=colour, label=name)
        panel.plot(np.repeat(distances, scores.shape[1]), scores.ravel(), mark, color=colour,
                   alpha=0.25, markersize=4)  # fmt: skip
        panel.axvline(reach, color=colour, linestyle=":", linewidth=1)
    panel.axhline(1 / 3, color=GREY, linestyle="--", label="guessing")
    panel.set(xlabel="needed distance d (px)", ylabel="mean IoU behind training", ylim=(0, 1.05),
              title="who learns; dotted: reach of the receptive field")  # fmt: skip
    panel.legend(fontsize=9, loc="lower left")


def rims(rows: list[dict[str, Any]], path: Path) -> None:
    """Std from heavy rims over std from uniform taps, at the start and at the end."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.8), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    names = list(dict.fromkeys(row["pair"] for row in rows))
    for measure, colour, up in (("start", BLUE, 0.12), ("end", ORANGE, -0.12)):
        own = [row for row in rows if row["measure"] == f"std at the {measure}"]
        for y, row in zip(range(len(names))[::-1], own, strict=True):
            panel.plot(row["interval"], [y + up] * 2, color=colour, linewidth=3)
            panel.plot(row["effect"], y + up, "o", color=colour,
                       label=f"at the {measure}" if not y else None)  # fmt: skip
    panel.axvline(1, color="black", linewidth=0.8)
    panel.set_yticks(range(len(names)), names[::-1])
    panel.set_xlabel("std from heavy rims / from uniform taps (95 % interval)")
    panel.legend(fontsize=9)
    figure.savefig(path, dpi=130)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, help="in place of each pair's own")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--pairs", type=int, default=len(PAIRS), help="the first so many, or 0")
    parser.add_argument("--controls", action="store_true")
    parser.add_argument("--dial", action="store_true")
    parser.add_argument("--initial", action="store_true")
    parser.add_argument("--json", type=Path, help="parts that are not asked for stay in it")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    options = parser.parse_args(arguments)
    pairs = [replace(p, steps=options.steps or p.steps) for p in PAIRS[: options.pairs]]
    found: dict[str, Any] = {name: [] for name in SECTIONS}
    if options.json and options.json.exists():
        found |= json.loads(options.json.read_text())

    def keep() -> None:
        if options.json:
            with whole(options.json) as place:
                place.write_text(json.dumps(found, indent=1) + "\n")

    with jax.default_device(jax.devices(options.device)[0]):
        found["environment"] = {
            "cores": os.cpu_count(), "python": platform.python_version(), "jax": jax.__version__,
            "device": str(jax.devices(options.device)[0]),
        }  # fmt: skip
        start = time.perf_counter()
        studies: list[Study] = []
        split: list[dict[str, Any]] = []
        for pair in pairs:
            begun = time.perf_counter()
            studies.append(study(pair, options.seeds, images=options.images))
            line = text(rows(studies)).splitlines()[-1]
            print(f"{line}  {time.perf_counter() - begun:5.0f} s", flush=True)
            split.append(parts(studies[-1]))
        seconds = time.perf_counter() - start
        if studies:
            table = rows(studies)
            print(f"\nafter Holm's correction, {seconds:.0f} s:\n{text(table)}", flush=True)
            found |= {"seconds": seconds, "pairs": table, "explained": split}
            keep()
        if options.initial:
            found["initial"] = initialisations(options.seeds or 10, options.images)
            keep()
        if options.dial:
            found["dial"] = dial(options.seeds or 10, options.images)
            keep()
        if options.controls:
            found["controls"] = []
            for i in CONTROLLED:
                known = i < len(studies)
                one = studies[i] if known else study(PAIRS[i], options.seeds, images=options.images)
                found["controls"] += controls(PAIRS[i], one, options.images)
                keep()
    if options.plot and found["pairs"]:
        plot(found, options.plot)
    if options.plot and found["initial"]:
        rims(found["initial"], options.plot.with_stem(options.plot.stem + "_initial"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
