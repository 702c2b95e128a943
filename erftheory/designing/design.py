"""The front of networks for what was asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from erftheory.designing.chains import Final, Table, front_of
from erftheory.designing.costs import unit_of
from erftheory.designing.front import Design, Front, number
from erftheory.designing.queries import BOUNDED, Query, check_query
from erftheory.designing.relaxing import refuse
from erftheory.designing.shapes import front_of_maps
from erftheory.network.base import Network
from erftheory.theory.gains.prepare import prepare
from erftheory.theory.readings.lattice import holes
from erftheory.theory.readings.moments import moments
from erftheory.theory.readings.receptive_field import receptive_field

MEASURES = {
    "": "distance (nothing asked)",
    "std": "|std − wanted| (pixels)",
    "mass_radius": "|95 % mass radius − wanted| (pixels)",
    "flat": "total variation to the flat disc",
    "gaussian": "total variation to the Gaussian",
}


def design(
    erf: Any = None,
    image: int | None = None,
    budget: Any = None,
    allowed: Any = None,
    cost: Any = "macs",
    field: Any = None,
    lookback: Any = None,
    latency: Any = None,
    stride: Any = None,
    gridding: bool = True,
) -> Front:
    """All networks of an allowed space that nothing beats in both cost and closeness to an ERF.

    The answer is that of trying every network: of each pair (cost, distance) that none other
    undercuts there is one, with the least layers. Lengths are input pixels an axis, the signal is
    the variance on the unbounded plane. With `erf=None` the front is the cheapest network alone.

    Args:
      erf: the deviation in pixels that the ERF shall have, or {"std": pixels}; {"mass_radius":
        pixels}, the radius that holds 95 % of it; {"flat": pixels}, the uniform disc (interval in
        1-D) of this radius; {"gaussian": pixels}, the Gaussian of this deviation.
      image: pixels a side of the input, for costs that depend on it.
      budget: the most that a network may cost.
      allowed: what networks may be made of, a mapping: "kernels" and "depth", and if wanted
        "strides", "dilations", "channels", "separable", "skip", "gain", "pools", "ndim",
        "padding", "inputs", as `Space` (spaces.py) has them.
      cost: "macs", "parameters", "memory" (bytes of activations), or seconds: a mapping from layers
        as `Conv(3, channels=64)`, or a function (layer, pixels a side, channels) of its input.
      field: receptive field, a number or (least, most), either of them None.
      lookback, latency: pixels of it before and after the output's own place, as `field`.
      stride: input pixels per output pixel, as `field`.
      gridding: False for receptive fields without holes.

    Raises:
      ValueError: an argument out of range; a space that is too large to search exactly; or nothing
        that fits, with the bound to relax and by how much.
    """
    query = check_query(
        erf, image, budget, allowed, cost, field, lookback, latency, stride, gridding
    )
    table = Table(query).fill()
    found = front_of_maps(table) if table.wants_layers else front_of(table)
    if not found:
        raise refuse(query)
    rows: list[Design] = []
    for final, distance in found:
        rows.append(_design(table, final, distance, rows))
    return Front(
        rows, _asked(query), unit_of(query.cost), MEASURES[query.kind],
        query.space.count(query.image),
    )  # fmt: skip


def _design(table: Table, final: Final, distance: float, before: Sequence[Design]) -> Design:
    query, bricks = table.query, table.bricks(final)
    network = query.space.network(bricks, query.image)
    field = receptive_field(network)
    return Design(
        network, " · ".join(map(str, bricks)), final.cost, distance, int(field.size[0]),
        int(field.lookback[0]), int(field.lookahead[0]), int(field.stride[0]),
        moments(network).std[0], holes_of(network, -int(field.padding[0]), int(field.size[0])),
        _reason(query, final, distance, before),
    )  # fmt: skip


def holes_of(network: Network, first: int, size: int) -> int:
    """Pixels of an axis, `size` from `first` on, that no path reaches."""
    return int(np.sum(holes(prepare(network, "variance", None).axis(0), None, (first,), (size,))))


def _reason(query: Query, final: Final, distance: float, before: Sequence[Design]) -> str:
    if not before:
        return "the cheapest that keeps all bounds"
    last = before[-1]
    more = float(final.cost - last.cost) / float(last.cost) if last.cost else float("inf")
    text = f"closer by {last.distance - distance:.3g}"
    text += " pixels" if query.kind in ("std", "mass_radius") else ""
    return f"{text} for {100 * more:.3g} % more" + ("; nothing is closer" if not distance else "")


def _asked(query: Query) -> str:
    parts = [f"{query.kind.replace('_', ' ')} {query.value:g}"] if query.kind else []
    names = [n for n in BOUNDED if getattr(query, n)]
    parts += [f"{name} {getattr(query, name)}" for name in names]
    if query.budget is not None:
        value = query.budget
        parts.append(f"at most {number(int(value) if value.denominator == 1 else value)}")
    parts += [] if query.gridding else ["no holes"]
    return ", ".join(parts) or "the cheapest"
