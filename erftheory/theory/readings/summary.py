"""One row a layer: what a network sees on the way from input to output."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from erftheory.network.base import Network
from erftheory.network.endless import Endless
from erftheory.network.graph import Input, Loop
from erftheory.network.initialisation import Init
from erftheory.network.layers import Activation, Layer
from erftheory.tables import as_html, as_text
from erftheory.theory.gains.between import Between, ending_at
from erftheory.theory.lowering.unbounded import unbounded
from erftheory.theory.readings.moments import moments
from erftheory.theory.readings.receptive_field import receptive_field
from erftheory.theory.readings.spacing import Spacing, parse_spacing


@dataclass(frozen=True)
class Row:
    """Receptive field, jump, ERF std (pixels) and std/RF after a layer, one entry an axis."""

    name: str
    layer: str
    receptive_field: tuple[int | float, ...]
    jump: tuple
    std: tuple[float, ...]
    ratio: tuple[float, ...]


@dataclass(frozen=True)
class Summary:
    """A table that prints in a terminal and renders as HTML in Jupyter.

    `unbounded` says of infinite fields which operation makes them so; "" if there are none. `axes`
    are what the model calls its axes.
    """

    signal: str
    rows: tuple[Row, ...]
    spacing: Spacing | None = None
    unbounded: str = ""
    axes: tuple[str, ...] = ()

    @property
    def _named(self) -> str:
        names = [name or f"axis {i}" for i, name in enumerate(self.axes)]
        return f", {' x '.join(names)}" if names else ""

    @property
    def header(self) -> tuple[str, ...]:
        names = ("name", "layer", "RF", "jump", "ERF std", "ERF/RF")
        if self.spacing is None:
            return names
        unit = self.spacing.unit or "in units"
        return (*names, f"RF {unit}", f"ERF std {unit}")

    def _lengths(self, row: Row) -> tuple[tuple[float, ...], ...]:
        if self.spacing is None:
            return ()
        return self.spacing.of(row.receptive_field), self.spacing.of(row.std)

    def _cells(self) -> list[tuple[str, ...]]:
        def show(values, form: str) -> str:
            texts = [format(v, form) if isinstance(v, float) else str(v) for v in values]
            return texts[0] if len(set(texts)) == 1 else " x ".join(texts)

        return [
            (
                r.name,
                r.layer,
                show(r.receptive_field, ".0f"),
                show(r.jump, ""),
                show(r.std, ".3f"),
                show(r.ratio, ".4f"),
                *(show(length, ".4g") for length in self._lengths(r)),
            )
            for r in self.rows
        ]

    @property
    def _notes(self) -> list[str]:
        said = f"sizes in input pixels{self._named}; ERF std of the {self.signal} signal"
        return [said, *([f"unbounded: {self.unbounded}"] if self.unbounded else ())]

    def __str__(self) -> str:
        return as_text(self.header, self._cells(), 2, self._notes)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        said = "; ".join(self._notes)
        return as_html(self.header, self._cells(), said[0].upper() + said[1:])


def summary(
    network: Network, signal: str = "variance", init: Init | None = "he", spacing: Any = None
) -> Summary:
    """Rows for every spatial layer, merge and repetition of the network's graph.

    A merge's row includes the activation behind it, as its name does in `until`.
    A network with several outputs (`outputs`, names) has a row for each of them at the end.
    `spacing` (a number or one an axis, or text such as "0.5 mm") adds lengths in that unit.
    """
    if isinstance(network, Between):
        network = network.unrolled()
    graph = network.graph
    unit = parse_spacing(spacing, graph.ndim)
    rows = []
    readers: list[list[int]] = [[] for _ in graph.nodes]
    for index, node in enumerate(graph.nodes):
        for i in node.inputs:
            readers[i].append(index)
    for index, node in enumerate(graph.nodes):
        if isinstance(node.op, Input):
            continue
        still = isinstance(node.op, Layer) and node.op.step(graph.ndim) is None
        if still and not isinstance(node.op, Endless):
            continue
        label = f"repeated {node.op.times} times" if isinstance(node.op, Loop) else repr(node.op)
        end = index
        if not isinstance(node.op, (Layer, Loop)):
            label = type(node.op).__name__.lower()
            # where a block ends: its own name, and `until`, mean what the activation makes of it
            while len(readers[end]) == 1 and isinstance(
                op := graph.nodes[readers[end][0]].op, Activation
            ):
                end, label = readers[end][0], f"{label}, {op.name}"
        rows.append(_row(node.name, label, ending_at(network, end), signal, init))
    outputs: tuple[str, ...] = getattr(network, "outputs", ())
    if len(outputs) > 1:
        rows += [_row(name, "output", network.until(name), signal, init) for name in outputs]
    return Summary(signal, tuple(rows), unit, unbounded(network), network.axis_names)


def _row(name: str, label: str, part: Network, signal: str, init: Init | None) -> Row:
    field = receptive_field(part)
    if math.inf in field.size:
        std = (math.nan,) * part.graph.ndim
    else:
        std = moments(part, signal, init).std
    ratio = tuple(s / r for s, r in zip(std, field.size))
    return Row(name, label, field.size, field.stride, std, ratio)
