"""The picture of a front."""

from __future__ import annotations

from typing import Any


def plot_front(front: Any, path: Any = None) -> Any:
    """Cost against distance of a `Front`; returns the figure, and saves it if `path` is given."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5, 3.2), layout="constrained")
    axes = figure.subplots()
    costs = [float(r.cost) for r in front]
    distances = [r.distance for r in front]
    axes.step(costs, distances, where="post", color="0.6", lw=1)
    axes.plot(costs, distances, "o", ms=4, color="C0")
    for row, side, up in ((front[0], "left", 6), (front[-1], "right", -13))[: len(front)]:
        axes.annotate(
            row.layers, (float(row.cost), row.distance), xytext=(0, up), ha=side,
            textcoords="offset points", fontsize=7,
        )  # fmt: skip
    axes.margins(0.06, 0.14)
    axes.set_xlabel(f"cost ({front.unit})")
    axes.set_ylabel(front.measure)
    axes.set_title(front.asked, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if path is not None:
        figure.savefig(path)
    return figure
