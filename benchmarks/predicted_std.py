"""How near is the predicted ERF to that of random-weight nets, for networks that people use?

    python benchmarks/predicted_std.py --json out.json --plot out.png    # half an hour
    python benchmarks/predicted_std.py --again out.json       # new predictions, the same nets
    python benchmarks/predicted_std.py --models all           # PyTorch models that others wrote
    python benchmarks/predicted_std.py --models all --again out.json --redraw "HiFi-GAN" \
        --seconds 200 --draws 1000 --json out.json --page page.md    # one of them measured longer

Every network below, at its own width, is drawn with independent Gaussian weights, executed on an
image of independent normal pixels and differentiated from its central unit; `exact` says on the
same image what E g² should be. Shown is predicted std / sampled std, with one standard error over
nets (jackknife). The models of `--models` are executed by PyTorch (torch_models.py says how). With
`--again`, measurements of an earlier run are kept but for those of `--redraw`. Batch
norms use the statistics of the image as constants ("frozen"), the limit of large batches that the
theory takes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from erftheory import exact, zoo
from erftheory.empirical.nets.draw import initialise
from erftheory.empirical.nets.execute import apply

# name: (network, pixels of the image, share of --nets)
NETWORKS: dict[str, tuple[Any, int, float]] = {
    "ResNet-50": (zoo.resnet50, 288, 1),
    "DenseNet-121": (zoo.densenet121, 288, 1),
    "MobileNet-v2": (zoo.mobilenet_v2, 288, 1),
    "U-Net": (zoo.unet, 128, 2),
    "bilinear U-Net": (lambda: zoo.unet(up="bilinear"), 128, 2),
    "Inception-v3": (zoo.inception_v3, 299, 1),
}
ASKED = 0.03


def sampled(network, size: int, nets: int, seed: int) -> np.ndarray:
    """g² of each net's central unit, averaged over reflections and transposition: (nets, size)
    marginals; the two axes are alike."""
    key = jax.random.key(seed)

    @jax.jit
    def squares(key: jax.Array) -> jax.Array:
        drawing, image, signs = jax.random.split(key, 3)
        params = initialise(network, drawing)
        x = jax.random.normal(image, (1, size, size))

        def unit(x: jax.Array) -> jax.Array:
            y = apply(network, params, x, statistics="frozen")
            middle = y[:, y.shape[1] // 2, y.shape[2] // 2]
            return (middle * jax.random.rademacher(signs, middle.shape, middle.dtype)).sum()

        g = jax.grad(unit)(x)[0]
        return (g * g).sum(1) + (g * g).sum(0)

    keys = jax.random.split(key, nets)
    return np.array([np.asarray(squares(k), dtype=float) for k in keys])


def deviation(line: np.ndarray) -> float:
    place, mass = np.arange(len(line)), line / line.sum()
    return math.sqrt(mass @ place**2 - (mass @ place) ** 2)


def measure(draw: Callable[..., np.ndarray], *arguments: Any) -> dict[str, Any]:
    started = time.perf_counter()
    lines = draw(*arguments)
    seconds, count = time.perf_counter() - started, len(lines)
    whole, mass = lines.sum(0), lines.sum(1)
    left_out = np.array([deviation(whole - line) for line in lines])
    error = math.sqrt((count - 1) / count * ((left_out - left_out.mean()) ** 2).sum())
    return {
        "sampled": deviation(whole), "stderr": error, "nets": count,
        "effective nets": mass.sum() ** 2 / (mass**2).sum(), "seconds to sample": seconds,
    }  # fmt: skip


def row(name: str, nets: int, seed: int, known: dict[str, Any] | None = None) -> dict[str, Any]:
    """One network; `known` is its row of an earlier run, whose nets are not drawn again."""
    make, size, share = NETWORKS[name]
    network, count = make(), max(2, round(nets * share))
    started = time.perf_counter()
    found = exact(network, image=size)
    predicting = time.perf_counter() - started
    measured = known or measure(sampled, network, size, count, seed)
    std, error = measured["sampled"], measured["stderr"]
    sampling, count = measured["seconds to sample"], measured["nets"]
    result = {
        **measured, "network": name, "image": size, "predicted": found.std[0],
        "ratio": found.std[0] / std, "ratio stderr": found.std[0] / std**2 * error,
        "bound": str(found.error), "seconds to predict": predicting,
    }  # fmt: skip
    near = abs(result["ratio"] - 1) <= ASKED
    print(
        f"{name:16s} on {size}: predicted {found.std[0]:7.3f} px, sampled {std:7.3f} ± {error:.3f} "
        f"({count} nets, {result['effective nets']:.1f} effective)   ratio {result['ratio']:.4f} ± "
        f"{result['ratio stderr']:.4f}   {'within' if near else 'beyond'} {ASKED:.0%}   "
        f"{predicting:.1f} s against {sampling:.0f} s   {found.error.kind}",
        flush=True,
    )
    return result


def public(
    name: str, seconds: float, draws: int, seed: int, known: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """One model of `torch_models.MODELS`, as `row`; `known` if its package is missing."""
    import torch
    from torch_models import MODELS, build, held, run, squares  # beside this script

    from erftheory import from_torch

    model = MODELS[name]
    net = build(model)
    if net is None:
        kept = "kept as it was" if known else "skipped"
        print(f"{name}: {kept}, {model.package} is not installed", flush=True)
        return known
    started, example = time.perf_counter(), torch.zeros(1, *model.shape)
    axes = tuple(range(2, 1 + len(model.shape)))
    network = from_torch(net, example, hold=model.hold, spatial_axes=axes)
    network = network.until(model.until) if model.until else network
    with torch.no_grad():
        unit = tuple(n // 2 for n in run(net, model.until, example).shape[2:])
    found = exact(network, image=model.shape[1:], unit=unit)
    predicting = time.perf_counter() - started

    def sampled(frozen: bool) -> dict[str, Any]:
        def lines(count: int) -> np.ndarray:
            if not frozen:
                return sum(squares(net, model, count, seed))  # type: ignore[return-value]
            with held():
                return sum(squares(net, model, count, seed))  # type: ignore[return-value]

        lines(1)  # the first takes longer
        started = time.perf_counter()
        lines(1)
        each = time.perf_counter() - started
        return measure(lines, int(min(draws, max(16, seconds / each))))

    measured = known or {**sampled(False), "held": sampled(True) if model.live else None}
    std, error = measured["sampled"], measured["stderr"]
    result = {
        **measured, "network": name, "family": model.family, "image": model.shape[1:],
        "until": model.until, "unit": unit, "predicted": found.std[0], "cause": model.cause,
        "ratio": found.std[0] / std, "ratio stderr": found.std[0] / std**2 * error,
        "kind": found.error.kind, "note": found.error.note, "seconds to predict": predicting,
    }  # fmt: skip
    frozen = measured["held"]
    beside = f"   held {frozen['sampled']:.3f} ± {frozen['stderr']:.3f}" if frozen else ""
    print(
        f"{name:32s} predicted {found.std[0]:8.3f}  measured {std:8.3f} ± {error:.3f} "
        f"({measured['nets']} draws)  ratio {result['ratio']:.3f} ± {result['ratio stderr']:.3f}  "
        f"{found.error.kind}{beside}   {model.cause}",
        flush=True,
    )
    return result


HEADER = """\
| model, until | image | predicted | measured | ratio | held | error.kind | cause |
|---|---|--:|--:|--:|--:|---|---|
"""
NEAR = f" are within {ASKED * 100:.0f} %.\n"


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of `public` in Markdown, and how many of them are near."""
    lines = []
    for r in rows:
        name = f"{r['network']}, {r['until']}" if r["until"] else r["network"]
        held, frozen = r["held"], ""
        if held:
            ratio = r["predicted"] / held["sampled"]
            frozen = f"{held['sampled']:.2f} ± {held['stderr']:.2f} ({ratio:.3f})"
        lines.append(
            f"| {name} | {'×'.join(map(str, r['image']))} | {r['predicted']:.2f} "
            f"| {r['sampled']:.2f} ± {r['stderr']:.2f} "
            f"| {r['ratio']:.3f} ± {r['ratio stderr']:.3f} "
            f"| {frozen} | {r['kind']} | {r['cause']} |\n"
        )
    near = sum(abs(r["ratio"] - 1) <= ASKED for r in rows)
    families = len({r["family"] for r in rows})
    return f"{HEADER}{''.join(lines)}\n{near} of {len(rows)} models, of {families} families,{NEAR}"


def into_page(rows: list[dict[str, Any]], path: Path) -> None:
    """The table of a page, written anew."""
    before, _, rest = path.read_text().partition(HEADER)
    _, end, after = rest.partition(NEAR)
    if not end:
        raise ValueError(f"--page: {path} has no table of models")
    path.write_text(before + table(rows) + after)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = 0.55 if len(rows) < 12 else 0.22
    figure = Figure(figsize=(7, height * len(rows) + 1.6), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    y = np.arange(len(rows))[::-1]
    ax.axvspan(1 - ASKED, 1 + ASKED, color="0.92", label=f"± {ASKED:.0%}")
    ax.axvline(1.0, color="0.5", linewidth=1)
    ax.errorbar(
        [r["ratio"] for r in rows], y, xerr=[2 * r["ratio stderr"] for r in rows], fmt="o",
        color="#0072B2", capsize=3, label="± 2 standard errors",
    )  # fmt: skip
    ax.set_yticks(y, [f"{r['network']} ({r['nets']} nets)" for r in rows])
    ax.set_xlabel("predicted std / sampled std")
    held = [(i, r) for i, r in zip(y, rows) if r.get("held")]
    if held:
        ax.plot([r["predicted"] / r["held"]["sampled"] for _, r in held], [i for i, _ in held],
                "o", color="#D55E00", fillstyle="none", label="statistics held")  # fmt: skip
    ax.set_ylim(-0.7, len(rows) - 0.3)
    ax.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--models", help='names of torch_models.py, or "all"')
    parser.add_argument("--seconds", type=float, default=60.0, help="of sampling, a model")
    parser.add_argument("--draws", type=int, default=300, help="at most, of a model")
    parser.add_argument("--nets", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", type=Path, help="a --json whose measurements are kept")
    parser.add_argument("--redraw", default="", help="but for those of these, joined by ;")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--page", type=Path, help="the table of --models in it is replaced")
    options = parser.parse_args(arguments)
    names = [name.strip() for name in options.networks.split(",")]
    for name in names:
        if name not in NETWORKS:
            parser.error(f"--networks: got {name!r}; takes {', '.join(NETWORKS)}")
    environment = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }
    print("  ".join(f"{k} {v}" for k, v in environment.items()))
    earlier = json.loads(options.again.read_text())["rows"] if options.again else []
    redraw = [name for name in options.redraw.split(";") if name]
    known = {r["network"]: r for r in earlier}
    for name in redraw:
        if known.pop(name, None) is None:
            parser.error(f"--redraw: got {name!r}; takes names of --again: {'; '.join(known)}")
    if options.models is None:
        rows = [row(name, options.nets, options.seed, known.get(name)) for name in names]
    else:
        rows = _public_rows(parser, options, known)
    if options.json:
        found = {"environment": environment, "rows": rows}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.plot:
        plot(rows, options.plot)
    if options.page:
        into_page(rows, options.page)
    return 0


def _public_rows(parser: Any, options: Any, known: dict[str, Any]) -> list[dict[str, Any]]:
    import torch
    from torch_models import MODELS

    torch.set_num_threads(1)
    names = list(MODELS) if options.models == "all" else options.models.split(";")
    for name in names:
        if name not in MODELS:
            parser.error(f"--models: got {name!r}; takes {'; '.join(MODELS)}, or all")
    limits = options.seconds, options.draws, options.seed
    found = (public(n, *limits, known.get(n)) for n in names)
    return [r for r in found if r is not None]


if __name__ == "__main__":
    raise SystemExit(main())
