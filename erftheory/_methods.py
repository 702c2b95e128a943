"""Methods of networks and records that stand on what is above them.

They are attached here, which runs before anything else of the package, so that nothing low imports
what is high.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from erftheory.erf.record import ERF
from erftheory.network.base import Network


def _method(kind: type, name: str) -> Callable[[Callable], Callable]:
    def attach(function: Callable) -> Callable:
        function.__name__, function.__qualname__ = name, f"{kind.__name__}.{name}"
        setattr(kind, name, function)
        return function

    return attach


@_method(ERF, "plot")
def _plot(self: ERF, **options: Any) -> Any:
    """The journal figure; options as for `plotting.plot_erf`."""
    from erftheory.plotting import plot_erf

    return plot_erf(self, **options)


@_method(ERF, "_repr_html_")
def _html(self: ERF) -> str:
    from erftheory.plotting import html_table

    return html_table(self)


@_method(ERF, "compare")
def _compared(self: ERF, other: ERF) -> Any:
    """The difference of two independent ERFs, with 95 % intervals; see `Difference`.

    ERFs that are not sampled count as exact; ValueError for one of unknown error.
    """
    from erftheory.erf.difference import difference

    return difference(self, other)


@_method(Network, "summary")
def _summary(
    self: Network, signal: str = "variance", init: Any = "he", spacing: Any = None
) -> Any:
    """One row a layer: receptive field, jump, ERF std (pixels) and their ratio."""
    from erftheory.theory.readings.summary import summary

    return summary(self, signal=signal, init=init, spacing=spacing)


@_method(Network, "_repr_html_")
def _rows(self: Network) -> str:
    return self.summary()._repr_html_()
