"""Draws docs/images/residual.png: ERF std of residual and plain nets against depth.

    python docs/make_residual.py [SAMPLES]
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from erftheory.laws import Context, Engines
from erftheory.laws import residual as law
from erftheory.laws.machine.trials import BATCHES


def sampled(context: Context, depth: int) -> tuple[float, float]:
    """Variance (px²) extrapolated to infinite width, and its standard error."""
    wanted = law._variance(depth)
    narrow, wide = (
        law._deviations(law._draw(context, depth, width), wanted)
        for width in (law.WIDTH, 2 * law.WIDTH)
    )
    rows = 2 * wide - narrow
    return wanted + float(rows.mean()), float(rows.std(ddof=1)) / math.sqrt(BATCHES)


def main() -> None:
    context = Context(Engines.load(), samples=int(sys.argv[1]) if len(sys.argv) > 1 else 4000)
    blocks = np.arange(1, 101)
    theory = np.array([law._variance(int(n)) for n in blocks])
    found = []
    for depth in law.DEPTHS:
        found.append(sampled(context, depth))
        print(f"{depth:3d} blocks: {found[-1][0]:.4f}({found[-1][1]:.4f}), "
              f"theory {law._variance(depth):.4f} px²", flush=True)  # fmt: skip
    spread, error = np.array(found).T
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, label, of in zip(
        figure.subplots(1, 2),
        ("√n", "√(log n)"),
        (np.sqrt, lambda n: np.sqrt(np.log(n))),
    ):
        axes.plot(of(blocks), np.sqrt(law.STEP * blocks), color="#D55E00", ls="--",
                  label="plain stack, √n")  # fmt: skip
        axes.plot(of(blocks), np.sqrt(theory), color="#0072B2", label="residual, theory")
        axes.errorbar(of(np.array(law.DEPTHS)), np.sqrt(spread), yerr=error / np.sqrt(spread),
                      fmt="o", color="#0072B2", mfc="w", capsize=2,
                      label="residual, sampled")  # fmt: skip
        axes.set_xticks(of(np.array(law.DEPTHS)), [str(n) for n in law.DEPTHS])
        axes.set(xlabel=f"blocks n, spaced by {label}", ylabel="ERF std (pixels)", ylim=(0, 5))
        axes.set_xlim(of(3), of(100))
        axes.grid(color="0.9")
    figure.axes[0].legend()
    path = Path(__file__).parent / "images" / "residual.png"
    figure.savefig(path, dpi=130)
    print(path)


if __name__ == "__main__":
    main()
