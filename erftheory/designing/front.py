"""The answer to a design question: the networks that nothing beats in cost and closeness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from erftheory.designing.costs import Cost
from erftheory.network.base import Network
from erftheory.tables import as_html, as_text

HEADER = ("layers", "cost", "distance", "field", "std", "holes", "reason")


@dataclass(frozen=True)
class Design:
    """One network of a front.

    Attributes:
      network: bare convolutions and pools; activations and norms behind them leave its ERF as it
        is, because a chain's ERF does not depend on them and the gains of skips are given.
      layers: its layers from the input on, in short: 7/2 is a kernel of 7 with stride 2, d4 a
        dilation of 4.
      cost: in the front's unit, exact.
      distance: pixels between its deviation (or 95 % mass radius) and the one that was asked, or
        the total variation between its map and the shape that was asked; 0 if none was.
      field, lookback, latency: receptive field and its two sides, input pixels an axis.
      stride: input pixels per output pixel.
      std: deviation of its ERF in the variance signal, pixels an axis.
      holes: pixels an axis inside the field that no path reaches.
      reason: why it is in the front, in a line.
    """

    network: Network = field(repr=False)
    layers: str
    cost: Cost
    distance: float
    field: int
    lookback: int
    latency: int
    stride: int
    std: float
    holes: int
    reason: str


class Front(Sequence[Design]):
    """Designs by rising cost and falling distance; `front[0]` is the cheapest, `front[-1]` closest.

    Attributes:
      rows: the designs.
      asked: the question in words.
      unit: of costs.
      measure: what `distance` is.
      networks: number of networks in the allowed space, each a possible answer.
    """

    def __init__(
        self, rows: Sequence[Design], asked: str, unit: str, measure: str, networks: int
    ) -> None:
        self.rows = tuple(rows)
        self.asked, self.unit, self.measure, self.networks = asked, unit, measure, networks

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def _cells(self) -> list[list[str]]:
        return [
            [r.layers, number(r.cost), f"{r.distance:.4g}", str(r.field), f"{r.std:.4g}",
             str(r.holes), r.reason]
            for r in self.rows
        ]  # fmt: skip

    def _title(self) -> str:
        return f"{self.asked}; {len(self)} of {self.networks:,} networks; cost in {self.unit}"

    def __str__(self) -> str:
        return as_text(HEADER, self._cells(), 1, [self._title()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return as_html(HEADER, self._cells(), self._title(), (0, 6))

    def to_pandas(self) -> Any:
        """A data frame with one row a design, columns as the attributes of `Design`.

        Raises:
          ImportError: pandas is not installed.
        """
        import pandas

        names = list(Design.__dataclass_fields__)
        return pandas.DataFrame({n: [getattr(r, n) for r in self.rows] for n in names})

    def plot(self, path: Any = None) -> Any:
        """Cost against distance, a step line with one point a design; saved to `path` if given.
        Returns matplotlib's figure."""
        from erftheory.designing.pictures import plot_front

        return plot_front(self, path)


def number(value: Cost) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{float(value):.6g}"
