"""Standard errors of any measure of a sampled map, by the jackknife over batches of nets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from erftheory.erf import measures

MEASURES: dict[str, Callable[..., Any]] = {
    "mean": lambda map: tuple(measures.mean(m) for m in measures.marginals(map)),
    "std": lambda map: tuple(measures.variance(m) ** 0.5 for m in measures.marginals(map)),
    "excess_kurtosis": lambda map: tuple(
        measures.excess_kurtosis(m) or 0.0 for m in measures.marginals(map)
    ),
    "size": measures.size,
    "mass_radius": measures.mass_radius,
}


@dataclass(frozen=True, eq=False)
class Replicates:
    """What a sampled map rests on.

    Attributes:
      maps: summed maps of consecutive, independent batches of equally many nets, (batches, *map).
      gradient, gradient_stderr: the mean gradient and its standard error a pixel, shape of the
        map; its expectation is 0 for weights of zero mean.
    """

    maps: np.ndarray
    gradient: np.ndarray
    gradient_stderr: np.ndarray

    def standard_error(self, measure: str | Callable[..., Any], *arguments: Any) -> Any:
        """One standard error of a measure of the mean map; see `ERF.standard_error`.

        The delete-one jackknife of Quenouille and Tukey (Efron & Stein 1981): with θ_b the measure
        without batch b of B, se² = (B − 1)/B · Σ (θ_b − mean θ)².
        """
        if isinstance(measure, str):
            if measure not in MEASURES:
                known = ", ".join(map(repr, MEASURES))
                raise ValueError(f"measure: got {measure!r}; takes {known} or a function of a map")
            measure = MEASURES[measure]
        whole = self.maps.sum(axis=0)
        left_out = [whole - part for part in self.maps]
        values = np.array([measure(rest / rest.sum(), *arguments) for rest in left_out], float)
        count = len(self.maps)
        error = np.sqrt((count - 1) / count * np.square(values - values.mean(axis=0)).sum(axis=0))
        return tuple(error.tolist()) if error.ndim else float(error)
