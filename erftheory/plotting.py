"""Pictures of an ERF. The only module that imports matplotlib, and only when it draws."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from erftheory.erf import measures
from erftheory.tables import as_html

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    from erftheory.erf import ERF

WHOLE_UP_TO = 513
_DRAWN = 1024
_CROP_STD = 6.0
_DECADES = 12
_LINES = {2: ("row", "column"), 3: ("plane", "row", "column")}
_BLUE, _ORANGE = "#0072b2", "#d55e00"


def plot_erf(
    erf: ERF,
    axes: Axes | Sequence[Axes] | None = None,
    box: bool = True,
    *,
    gaussian: bool = True,
    cmap: str | None = None,
) -> Figure:
    """The map in input pixels beside its profile through the peak, with the matching Gaussian.

    1-D: the map, linear and logarithmic. 2-D: the map as an image, the profile along the last
    axis, linear and logarithmic. 3-D: the three central slices. A map wider than 513 pixels is cut
    at 6 std.

    axes: draw into these, in that order (a single one takes the first panel); None makes a
        figure. box: outline the receptive field. gaussian: draw the Gaussian of the same std.
    cmap: of the image; "viridis" if None, a diverging map for signed signals.
    Returns the matplotlib Figure. ValueError for more than three axes, or too few `axes`.
    """
    if erf.ndim > 3:
        raise ValueError(f"erf: got {erf.ndim} axes, takes 1, 2 or 3")
    panels = {1: 2, 2: 3, 3: 3}[erf.ndim]
    if axes is None:
        figure, drawn = _figure(erf)
    else:
        drawn = list(axes) if isinstance(axes, Sequence | np.ndarray) else [axes]
        if not 1 <= len(drawn) <= panels:
            raise ValueError(f"axes: got {len(drawn)}, takes 1 to {panels} for {erf.ndim}-D maps")
        figure: Any = drawn[0].figure
    planes = {1: (), 2: ((0, 1),), 3: ((1, 2), (0, 2), (0, 1))}[erf.ndim]
    for ax, plane in zip(drawn, planes, strict=False):
        image = _draw_image(ax, erf, plane, box, cmap)
        if axes is not None or erf.ndim == 2:
            _draw_bar(image, ax)
        elif plane == planes[-1]:
            # All slices pass through the peak and share one scale.
            _draw_bar(image, drawn)
    profiles = drawn[len(planes) :]
    for ax, log in zip(profiles, (False, True), strict=False):
        _draw_profile(ax, erf, log, box, gaussian)
    _draw_legend(None if axes is not None else figure, drawn)
    return figure


def _draw_legend(figure: Figure | None, drawn: list[Axes]) -> None:
    """One legend below the figure, or one in each panel that the caller brought."""
    entries = {}
    for ax in drawn:
        handles, labels = ax.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
        if figure is None and handles:
            ax.legend(fontsize=8)
    if figure is not None and entries:
        figure.legend(entries.values(), entries, loc="outside lower center", ncols=5, frameon=False)


def _shown(size: tuple[float, float]) -> Figure:
    from matplotlib.figure import Figure

    class Shown(Figure):
        """A figure that Jupyter shows by itself, before any pyplot backend has been chosen."""

        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png")
            return buffer.getvalue()

    return Shown(figsize=size, dpi=120, layout="constrained")


def _figure(erf: ERF) -> tuple[Figure, list[Axes]]:
    figure = _shown({1: (10.0, 3.8), 2: (10.5, 4.9), 3: (13.0, 4.4)}[erf.ndim])
    figure.suptitle(_title(erf), fontsize=11)
    if erf.ndim == 2:
        grid = figure.add_gridspec(2, 2, width_ratios=(1.15, 1))
        return figure, [figure.add_subplot(cell) for cell in (grid[:, 0], grid[0, 1], grid[1, 1])]
    return figure, list(figure.subplots(1, 2 if erf.ndim == 1 else 3))


def _title(erf: ERF) -> str:
    std = " × ".join(f"{s:.3g}" for s in erf.std)
    return f"{erf.signal.capitalize()} signal ({erf.method}), std {std} px"


def _label(erf: ERF, axis: int) -> str:
    names = {1: ("position",), 2: ("row", "column"), 3: ("axis 0", "axis 1", "axis 2")}
    return f"input {names[erf.ndim][axis]} (pixels)"


def _window(erf: ERF, axis: int) -> tuple[int, int]:
    """First and one past the last index, within the map, of what is drawn of an axis."""
    n, std = erf.shape[axis], erf.std[axis]
    if n <= WHOLE_UP_TO or not math.isfinite(std):
        return 0, n
    centre, reach = erf.mean[axis] - erf.offset[axis], _CROP_STD * std + 1
    return max(0, math.floor(centre - reach)), min(n, math.ceil(centre + reach) + 1)


def _peaks(erf: ERF) -> list[int]:
    """The pixel through which profiles and slices go: the map's peak, central among equals."""
    if "map" not in erf.__dict__ and math.prod(erf.shape) > WHOLE_UP_TO**2:
        tops = [np.flatnonzero(np.abs(m) >= np.abs(m).max() * (1 - 1e-9)) for m in erf.marginals]
        return [int(top[len(top) // 2]) for top in tops]
    values = np.abs(erf.map)
    tops = np.argwhere(values >= values.max() * (1 - 1e-9))
    centre = np.array(erf.mean) - erf.offset
    return tops[np.argmin(((tops - centre) ** 2).sum(axis=1))].tolist()


def _slice(erf: ERF, plane: tuple[int, ...], log: bool = False) -> np.ndarray:
    """The map or its log on the drawn window of `plane`, through the peak on other axes."""
    form: Any = erf.windowed(erf.offset, erf.shape, log)
    peaks = _peaks(erf)
    picks: list[Any] = list(peaks)
    for axis in plane:
        first, end = _window(erf, axis)
        # Beyond the screen's resolution further pixels cost time and show nothing.
        picks[axis] = slice(first, end, -(-(end - first) // _DRAWN) if len(plane) > 1 else 1)
    if not isinstance(form, tuple):
        return form[tuple(picks)]
    combine = np.add if log else np.multiply
    result = np.asarray(0.0 if log else 1.0)
    for side, pick in zip(form, picks, strict=True):
        result = combine.outer(result, side[pick])
    return result


def _draw_image(
    ax: Axes, erf: ERF, plane: tuple[int, int], box: bool, cmap: str | None
) -> AxesImage:
    import matplotlib
    from matplotlib.ticker import MaxNLocator

    values = _slice(erf, plane)
    (top, bottom), (left, right) = (
        (erf.offset[a] + _window(erf, a)[0] - 0.5, erf.offset[a] + _window(erf, a)[1] - 0.5)
        for a in plane
    )
    signed = erf.signal == "gradient" and values.min() < 0
    limit = float(np.abs(values).max())
    colors = matplotlib.colormaps[cmap or ("PuOr" if signed else "viridis")]
    image = ax.imshow(
        values,
        extent=(left, right, bottom, top),
        cmap=colors,
        vmin=-limit if signed else 0.0,
        vmax=limit,
        interpolation="nearest",
        aspect="equal" if 1 / 4 <= (bottom - top) / (right - left) <= 4 else "auto",
    )
    _mark_holes(ax, erf, plane, (left, right, bottom, top))
    ax.set(xlabel=_label(erf, plane[1]), ylabel=_label(erf, plane[0]))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True))
    if box:
        _draw_box(ax, erf, plane)
    return image


def _draw_bar(image: AxesImage, axes: Any) -> None:
    from matplotlib.ticker import ScalarFormatter

    form = ScalarFormatter(useMathText=True)
    form.set_powerlimits((-2, 2))
    figure: Any = image.figure
    figure.colorbar(image, ax=axes, shrink=0.85, pad=0.02, format=form).set_label(
        "share of the signal per pixel"
    )


def _mark_holes(ax: Axes, erf: ERF, plane: tuple[int, int], extent: Any) -> None:
    from matplotlib.colors import ListedColormap

    if math.prod(erf.shape) > measures.MAX_PIXELS or erf.holes is None:
        return
    picks: list[Any] = list(_peaks(erf))
    for axis in plane:
        first, end = _window(erf, axis)
        picks[axis] = slice(first, end, -(-(end - first) // _DRAWN))
    holes = erf.holes[tuple(picks)]
    if holes.any():
        grey = np.ma.masked_equal(holes, False)
        ax.imshow(grey, extent=extent, cmap=ListedColormap(["0.75"]), interpolation="nearest",
                  aspect=ax.get_aspect())  # fmt: skip
        ax.scatter([], [], marker="s", color="0.75", label="not read (no path)")


def _draw_box(ax: Axes, erf: ERF, plane: tuple[int, int]) -> None:
    from matplotlib.patches import Rectangle

    edges = erf.box
    if edges is None or not all(math.isfinite(edges[a][0]) for a in plane):
        return
    (y0, y1), (x0, x1) = (edges[a] for a in plane)
    size = " × ".join(f"{edges[a][1] - edges[a][0] + 1:g}" for a in range(erf.ndim))
    left, right = ax.get_xlim()
    bottom, top = ax.get_ylim()
    inside = left <= x0 and x1 <= right and top <= y0 and y1 <= bottom
    label = f"receptive field {size}" + ("" if inside else " (beyond the view)")
    style: dict[str, Any] = {"edgecolor": _ORANGE, "linewidth": 1.5, "linestyle": "--"}
    corner, width, height = (x0 - 0.5, y0 - 0.5), x1 - x0 + 1, y1 - y0 + 1
    ax.add_patch(Rectangle(corner, width, height, fill=False, label=label, **style))
    if inside:
        # A margin, so that the outline does not lie on the frame of the panel.
        margin = 0.03 * max(right - left, bottom - top)
        ax.set(xlim=(left - margin, right + margin), ylim=(bottom + margin, top - margin))


def _reached(erf: ERF, axis: int, logs: np.ndarray) -> np.ndarray:
    """Which pixels of the profile some path reaches; a weight lost to rounding is no hole."""
    if erf.holes is not None and not erf.holes.any():
        return np.ones(logs.shape, dtype=bool)
    return np.isfinite(logs)


def _draw_profile(ax: Axes, erf: ERF, log: bool, box: bool, gaussian: bool) -> None:
    from matplotlib.ticker import NullFormatter

    axis = erf.ndim - 1
    first, end = _window(erf, axis)
    x = np.arange(first, end) + erf.offset[axis]
    logs = _slice(erf, (axis,), log=True)
    values = np.exp(logs) if log else _slice(erf, (axis,))
    reached = _reached(erf, axis, logs)
    style: dict[str, Any] = {"color": _BLUE, "markersize": 4, "linewidth": 1.2, "label": "map"}
    if not reached[np.argmax(reached) :][: reached.sum()].all():
        # A line across pixels that no path reaches would show values that are not there.
        ax.plot(x[reached], values[reached], ".", **style)
        ax.vlines(x[reached], 0.0, values[reached], color=_BLUE, linewidth=1.2)
    else:
        marks = ".-" if len(x) <= 150 else "-"
        ax.plot(x, np.where(values > 0, values, np.nan) if log else values, marks, **style)
    if gaussian and bool((erf.covariance.diagonal() > 0).all()):
        _draw_gaussian(ax, erf, axis, (first, end))
    ax.set_xlabel(_label(erf, axis))
    ax.set_ylabel("|share| per pixel" if log and erf.signal == "gradient" else "share per pixel")
    if log:
        top = float(values.max())
        lowest = float(values[values > 0].min(initial=top))
        ax.set_yscale("log")
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_ylim(max(min(lowest / 3, top / 100), top * 10.0**-_DECADES), top * 4)
    else:
        ax.ticklabel_format(axis="y", scilimits=(-2, 3), useMathText=True)
        ax.axhline(0.0, color="0.8", linewidth=0.8, zorder=0)
        if erf.ndim == 2:
            ax.set_title("along the row of the peak", fontsize=9)
    if box and erf.box is not None and all(x[0] <= e <= x[-1] for e in erf.box[axis]):
        for side, edge in zip((-0.5, 0.5), erf.box[axis], strict=True):
            label = "edge of the receptive field" if side < 0 else None
            ax.axvline(edge + side, color=_ORANGE, linestyle="--", linewidth=1.2, label=label)


def _draw_gaussian(ax: Axes, erf: ERF, axis: int, window: tuple[int, int]) -> None:
    """The density of the Gaussian with the ERF's mean and covariance, along the profile."""
    x = np.linspace(window[0], window[1] - 1, 601) + erf.offset[axis]
    gap = np.tile(np.array(_peaks(erf)) + erf.offset - np.array(erf.mean), (len(x), 1))
    gap[:, axis] = x - erf.mean[axis]
    spread = erf.covariance
    sign, logdet = np.linalg.slogdet(2 * math.pi * spread)
    if sign > 0:
        square = np.einsum("ij,ij->i", gap @ np.linalg.inv(spread), gap)
        ax.plot(x, np.exp(-(square + logdet) / 2), color="black", linewidth=1.1, linestyle=":",
                label="Gaussian, same std")  # fmt: skip


def plot_comparison(predicted: ERF, measured: ERF) -> Figure:
    """Prediction and measurement: maps on one colour scale (in 2-D), and the marginals.

    The band around a measured marginal is two standard errors, from its batches of images.
    """
    ndim = predicted.ndim
    figure = _shown((10.5, 7.6) if ndim == 2 else (5.2 * ndim + 1.0, 3.8))
    panels = figure.subplots(1 + (ndim == 2), ndim, squeeze=False)
    if ndim == 2:
        top, image = max(float(e.map.max()) for e in (predicted, measured)), None
        for ax, erf, name in zip(panels[0], (predicted, measured), ("predicted", "measured")):
            image = _draw_image(ax, erf, (0, 1), False, None)
            image.set_clim(0.0, top)
            _draw_box(ax, predicted, (0, 1))
            ax.set_title(f"{name}, std {_numbers(erf.std)} px", fontsize=10)
        assert image is not None
        _draw_bar(image, list(panels[0]))
    for axis, ax in enumerate(panels[-1]):
        for erf, color, name in ((predicted, _BLUE, "predicted"), (measured, _ORANGE, "measured")):
            first, end = _window(predicted, axis)
            x = np.arange(first, end) + erf.offset[axis]
            values = measures.marginals(erf.map)[axis][first:end]
            ax.plot(x, values, color=color, linewidth=1.4, label=name)
            if erf.replicates is not None:
                error = erf.standard_error(lambda m, a=axis: measures.marginals(m)[a])
                band = 2 * np.array(error)[first:end]
                ax.fill_between(x, values - band, values + band, color=color, alpha=0.25,
                                linewidth=0, label="± 2 standard errors")  # fmt: skip
        ax.set_xlabel(_label(predicted, axis))
        ax.set_ylabel("share per pixel" if ndim == 1 else f"share per {_LINES[ndim][axis]}")
        ax.ticklabel_format(axis="y", scilimits=(-2, 3), useMathText=True)
    _draw_legend(figure, list(panels.ravel()))
    return figure


def html_table(erf: ERF) -> str:
    """A small HTML table of an ERF's measures; a lazy map is not computed for it."""
    rows = {"signal": erf.signal, "method": erf.method, "error": str(erf.error)}
    if erf.__dict__.keys() & {"marginals", "map"}:
        rows |= {
            "pixels": " × ".join(map(str, erf.shape)) + f" at {erf.offset}",
            "std (px)": _numbers(erf.std),
            "centre of mass (px)": _numbers(erf.mean),
            "excess kurtosis": _numbers(erf.excess_kurtosis),
            "size above 4.55 % of the peak (px)": f"{erf.size():.4g}",
        }
    return as_html((), list(rows.items()), "Effective receptive field", (0,))


def _numbers(values: Sequence[float | None]) -> str:
    return ", ".join("undefined" if v is None else f"{v:.4g}" for v in values)
