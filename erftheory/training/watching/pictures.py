"""Curves and maps of a tracker."""

from __future__ import annotations

from typing import Any

import numpy as np

from erftheory.training.watching.readings import SHARE, Readings

_MAPS = 6
_LABELS = {
    "std": "std (px)",
    "mass_radius": f"{SHARE:.0%} mass radius (px)",
    "power": "total power an image",
}


def curves(readings: Readings, maps: int = _MAPS) -> Any:
    """Std, mass radius and power over steps, ± two standard errors, above a strip of maps.

    maps: how many, first and last among them; they share one scale, each relative to its own peak.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    data = readings.dataset
    steps = np.asarray(readings.steps)
    flat = readings.maps[0].ndim == 2
    chosen = np.unique(np.linspace(0, len(steps) - 1, min(maps, len(steps))).round().astype(int))
    figure = Figure(figsize=(10, 5.4 if flat else 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    upper: Any = figure
    lower: Any = None
    if flat:
        pair: Any = figure.subfigures(2, 1, height_ratios=(1.25, 1))
        upper, lower = pair
    for axes, (name, label) in zip(upper.subplots(1, len(_LABELS)), _LABELS.items(), strict=True):
        values, errors = data[name].values, data[f"{name}_stderr"].values
        if name == "std":  # averaged over the axes
            errors = np.sqrt(np.square(errors).sum(1)) / values.shape[1]
            values = values.mean(1)
        axes.fill_between(steps, values - 2 * errors, values + 2 * errors, color="#0072b2",
                          alpha=0.25, linewidth=0)  # fmt: skip
        axes.plot(steps, values, "o-", color="#0072b2", markersize=3)
        axes.set(xlabel="step", ylabel=label)
        if name == "power" and values.min() > 0 and values.max() > 30 * values.min():
            axes.set_yscale("log")
        elif values.min() > 0:
            axes.set_ylim(0, 1.1 * float((values + 2 * np.nan_to_num(errors)).max()))
        axes.spines[["top", "right"]].set_visible(False)
    if lower is not None:
        panels = np.atleast_1d(lower.subplots(1, len(chosen)))
        for axes, index in zip(panels, chosen, strict=True):
            map_ = readings.maps[index]
            drawn = axes.imshow(np.sqrt(map_ / map_.max()), vmin=0, vmax=1, cmap="viridis")
            axes.set(title=f"step {steps[index]}", xlabel="px")
            if axes is not panels[0]:
                axes.set_yticklabels([])
        bar = lower.colorbar(drawn, ax=list(panels), shrink=0.8)
        bar.set_label("√ of power, peak 1")
    return figure
