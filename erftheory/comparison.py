"""Two ERFs side by side: a prediction and a measurement, or two measurements."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from erftheory.network.initialisation import Init
from erftheory.tables import as_html, as_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from erftheory.erf.record import ERF
    from erftheory.network.base import Network

@dataclass(frozen=True, eq=False)
class Comparison:
    """A prediction beside a measurement; lengths in input pixels, one entry an axis.

    Attributes:
      predicted, measured: the two `ERF`s, on the same image and for the same unit.
      receptive_field: size of the theoretical field (math.inf with a global operation).
      ratio: measured std / predicted std; `ratio_stderr` its standard error.
      total_variation, kolmogorov: distances of the maps.
      inside: share of the measured map within the theoretical field.
      weights: those of the prediction: the model's own, or random ones of an initialisation.
    """

    predicted: ERF
    measured: ERF
    receptive_field: tuple[float, ...]
    ratio: tuple[float, ...]
    ratio_stderr: tuple[float, ...]
    total_variation: float
    kolmogorov: float
    inside: float
    weights: str = "given"

    header = ("axis", "RF", "predicted std", "measured std", "measured/predicted")

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The table's cells, one row an axis."""
        errors = self.measured.std_stderr or (math.nan,) * self.measured.ndim
        columns = zip(
            self.receptive_field, self.predicted.std, self.measured.std, errors, self.ratio,
            self.ratio_stderr,
        )  # fmt: skip
        return [
            (str(axis), str(field), f"{p:.3f}", _plus_minus(m, e), _plus_minus(r, s))
            for axis, (field, p, m, e, r, s) in enumerate(columns)
        ]

    @property
    def _note(self) -> str:
        images = self.measured.samples
        count = f"{images} images" if images != 1 else "1 image, so no standard error"
        return (
            f"pixels; {self.measured.signal} signal, {count}; predicted for {self.weights}; total "
            f"variation {self.total_variation:.3f}, Kolmogorov {self.kolmogorov:.3f}; "
            f"{100 * self.inside:.2f} % of the measured map inside the RF"
        )

    def __str__(self) -> str:
        return as_text(self.header, self.rows, notes=[self._note])

    __repr__ = __str__

    def plot(self) -> Figure:
        """Both maps on one scale and their marginals, as a matplotlib Figure."""
        from erftheory.plotting import plot_comparison

        return plot_comparison(self.predicted, self.measured)

    def _repr_html_(self) -> str:
        return as_html(self.header, self.rows, self._note)


def compare(
    network: Network,
    function: Any,
    images: Any,
    unit: Any = "center",
    contribution: str = "squared",
    *,
    init: Init | None = "model",
    padding_mode: str = "zeros",
    **options: Any,
) -> Comparison:
    """What theory says of a model's architecture, beside what its gradients on images say.

    The prediction is `exact(network, image=…)` in the signal of the contribution (variance for
    "squared", magnitude for the others): for weights of the sizes that the model has, where the
    network was read from it, else for random ones; what differs from it is finite width, the
    images, and what training made of the weights beyond their sizes.

    Args:
      network: the description of `function`'s architecture, or what an importer read.
      function, images, unit, contribution, **options: as for `gradient_erf`; the unit is the same
        index in both, so the two output grids must agree.
      init: "model" takes the model's own weights where the network has them (`weighted()`), and
        "he" elsewhere; the result's `weights` says which. Others as for `exact`.
      padding_mode: as for `exact`.

    Raises:
      ValueError: as `exact` and `gradient_erf`; or a number of axes that is not the network's.
    """
    from erftheory.empirical.measured.gradients import gradient_erf
    from erftheory.network.base import check_network
    from erftheory.theory.image.graph import flatten
    from erftheory.theory.plane.exact import exact

    ndim = check_network("network", network).graph.ndim
    measured = gradient_erf(function, images, unit, contribution, **options)
    if measured.ndim != ndim:
        raise ValueError(f"network: got {ndim} axes; takes {measured.ndim}, as the images have")
    index = tuple(measured.metadata["unit"])
    if len(index) != ndim:
        raise ValueError(f"unit: got {index}; takes {ndim} entries, as the network's output has")
    grid = flatten(network, measured.shape, "gradient", None, padding_mode).shape
    if grid != measured.metadata["grid"]:
        ours, theirs = ("x".join(map(str, g)) for g in (grid, measured.metadata["grid"]))
        raise ValueError(
            f"function: got an output of {theirs} units on this image, of which the network makes "
            f"{ours}; takes a function and a network that end at the same map"
        )
    chosen, init, weights = _weights(network, init)
    predicted = exact(
        chosen, measured.signal, init, index, image=measured.shape, padding_mode=padding_mode
    )
    return beside(network, predicted, measured, weights)


def _weights(network: Network, init: Init | None) -> tuple[Network, Init | None, str]:
    """The network with the weights that are asked for, an initialisation for the others, and what
    these weights are."""
    from erftheory.network.imported import ImportedNetwork

    if init != "model":
        return network, init, "raw paths" if init is None else f"random weights, init {init!r}"
    if isinstance(network, ImportedNetwork):
        try:
            return network.weighted(), "he", "the model's own weights"
        except ValueError:  # read from shapes alone
            pass
    return network, "he", "random weights, init 'he'"


def beside(
    network: Network, predicted: ERF, measured: ERF, weights: str = "given"
) -> Comparison:
    """The `Comparison` of a prediction and a measurement that exist already."""
    from erftheory.theory.readings.receptive_field import receptive_field

    errors = measured.std_stderr or (math.nan,) * measured.ndim
    return Comparison(
        predicted=predicted,
        measured=measured,
        receptive_field=receptive_field(network).size,
        ratio=tuple(_over(m, p) for m, p in zip(measured.std, predicted.std)),
        ratio_stderr=tuple(_over(e, p) for e, p in zip(errors, predicted.std)),
        total_variation=predicted.distance(measured),
        kolmogorov=predicted.distance(measured, "kolmogorov"),
        inside=_inside(predicted, measured),
        weights=weights,
    )


def _plus_minus(value: float, error: float) -> str:
    return f"{value:.3f}" if math.isnan(error) else f"{value:.3f} ± {error:.3f}"


def _over(a: float, b: float) -> float:
    return a / b if b else math.nan


def _inside(predicted: ERF, measured: ERF) -> float:
    """Share of the measured map in the box of the theoretical field."""
    box = predicted.box
    if box is None:
        return math.nan
    cut = []
    for (first, last), offset, n in zip(box, measured.offset, measured.shape):
        pixels = np.arange(n) + offset
        cut.append(np.flatnonzero((pixels >= first) & (pixels <= last)))
    return float(measured.map[np.ix_(*cut)].sum())
