"""What the deviation of an ERF owes to every tap and every skip: exact derivatives.

The ERF is the law of a walk X, and a tap or a skip is a step that the walk may take. If the weight
of a step e grows by the factor exp(h), the variance grows by h·D(e), D(e) = E[(X − μ)² − σ²; e],
the expectation over the walks that take it. The walk is Markov: what lies before e and what lies
behind it are independent given e, so D(e) follows from moments of both, one pass each way. With
q(a) the share of tap a of the layer's taps v, ∂σ/∂v(a) = (D(a)/q(a) − D(layer)) / (2σ·Σv): only the
taps' ratios matter, the power of a layer is its gain. Of a sum's input i with the share P of the
power, ∂σ/∂log ρ = (D(i) − P·D(sum)) / (2σ), ρ = P/(1 − P) being its ratio to the others, while the
power of the whole sum stays: log ρ is the log of a residual block's `gain`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from erftheory.designing.passes import Passes, passes, places
from erftheory.designing.spectra import is_sum, is_weighted, slopes_of, spectra
from erftheory.network.arguments import one_of
from erftheory.network.base import Network
from erftheory.network.initialisation import Init
from erftheory.tables import as_html, as_text
from erftheory.theory.walk.walk import RawEdge

HEADER = ("layer", "of", "kind", "largest derivative")


@dataclass(frozen=True, eq=False)
class Slope:
    """Derivatives of one layer or one sum.

    Attributes:
      name: as in the graph, repetitions with [i]; "" for layers without a name.
      layer: the layer, or "sum".
      kind: "taps", by relative taps as given, or ones; or "skip", by the log of the power ratio
        of each input of the sum to the others (of a residual block, the branch comes first).
      values: `(axes, *kernel)` or `(axes, inputs)`, pixels; of a measure of the map
        `(1, *kernel)` or `(1, inputs)`, in its unit.
      share: probability that the walk passes here; of a sum, one for each input.
    """

    name: str
    layer: str
    kind: str
    values: np.ndarray = field(repr=False)
    share: Any = 1.0


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Derivatives of the ERF's deviation, or of a measure of its map, from the input to the output.

    Attributes:
      std: the deviation, pixels an axis.
      slopes: of every convolution and every sum.
      value: of a measure of the map, what it is; else None.
    """

    std: tuple[float, ...]
    slopes: tuple[Slope, ...] = field(repr=False)
    value: float | None = None

    def of(self, kind: str) -> tuple[Slope, ...]:
        """The slopes by "taps" or by "skip"."""
        one_of("kind", kind, ("taps", "skip"))
        return tuple(s for s in self.slopes if s.kind == kind)

    def _cells(self) -> list[list[str]]:
        return [
            [s.name, s.layer, s.kind, f"{s.values.flat[np.abs(s.values).argmax()]:+.4g}"]
            for s in self.slopes
        ]

    def __str__(self) -> str:
        std = " x ".join(f"{v:.4g}" for v in self.std)
        lines = [f"std {std} pixels"]
        lines += [] if self.value is None else [f"measure {self.value:.6g}"]
        return as_text(HEADER, self._cells(), 3, lines)

    def _repr_html_(self) -> str:
        what = "std, pixels" if self.value is None else "measure"
        return as_html(HEADER, self._cells(), f"derivatives of the {what}", (0, 1, 2))


def sensitivity(
    network: Network,
    measure: str | Callable[[Any], Any] = "std",
    init: Init | None = "he",
) -> Sensitivity:
    """Derivatives of the ERF's deviation by the taps of every convolution and the skips' ratios.

    Of the variance signal on the unbounded plane. The deviation's are in closed form (no
    differences, no tracing). Every round of a repetition is a layer of its own. All other gains
    stay as they are.

    Args:
      measure: "std", pixels an axis; or a JAX function from the map, an array of the field's shape
        and mass 1 in 64 bits, to a real number, which JAX differentiates through the map.
      init: as for `moments`.

    Raises:
      ValueError: another measure or init, a global operation, up-sampling, gradients that fixed
        layers correlate (average pools in a row), signed taps, an ERF of a single pixel, or of a
        function a map too large, or a value that is no real number.
    """
    if measure != "std" and not callable(measure):
        raise ValueError(f"measure: got {measure!r}; takes 'std' or a function of the map")
    walk = passes(network, init)
    std, found = closed(walk)
    if not callable(measure):
        return Sensitivity(std, tuple(found.values()))
    value, by_taps, by_ratios = slopes_of(spectra(walk), measure)
    values = {**by_taps, **by_ratios}
    slopes = [replace(slope, values=values[node][None]) for node, slope in found.items()]
    return Sensitivity(std, tuple(slopes), value)


def closed(walk: Passes) -> tuple[tuple[float, ...], dict[int, Slope]]:
    """The deviation, pixels an axis, and its derivatives by node, in the order of the graph.

    Raises:
      ValueError: an ERF of a single pixel.
    """
    ahead, behind, ndim = _ahead(walk), _behind(walk), walk.graph.ndim
    totals = [sum(p * ahead[port][r] for port, p in walk.starts.items()) for r in (0, 1)]
    mean, second = np.asarray(totals[0]), np.asarray(totals[1])
    variance = second - mean**2
    if not (variance > 1e-12 * np.maximum(1, mean**2)).all():
        raise ValueError("network: got an ERF of a single pixel; takes one with a deviation > 0")
    taken: dict[int, list[tuple[int, _Step]]] = {}  # with the node that each leads from
    for port in walk.order:
        for share, edge in walk.edges[port]:
            step = _Step(share, edge, behind[port], ahead[edge.reader], mean, variance)
            taken.setdefault(edge.reader[0], []).append((port[0], step))
    slopes = {}
    for index, node in enumerate(walk.graph.nodes):
        steps = taken.get(index, [])
        if not steps:
            continue
        if is_weighted(node.op):
            alone = [step for _, step in steps]
            values = _by_taps(alone, ndim) / (2 * np.sqrt(variance)).reshape(-1, *(1,) * ndim)
            share: Any = sum(step.chance for step in alone)
            slopes[index] = Slope(node.name, repr(node.op), "taps", values, share)
        elif is_sum(node):
            values, share = _by_inputs(steps, node.inputs, ndim)
            values = values / (2 * np.sqrt(variance))[:, None]
            slopes[index] = Slope(node.name, "sum", "skip", values, share)
    return tuple(np.sqrt(variance).tolist()), slopes


Law = tuple[np.ndarray, np.ndarray]  # mean and mean square an axis


def _law(edge: RawEdge, ndim: int) -> Law:
    rows = [places(edge, axis) for axis in range(ndim)]
    return (
        np.array([law @ where for where, law in rows]),
        np.array([law @ where**2 for where, law in rows]),
    )


def _joined(a: Law, b: Law) -> Law:
    """Mean and mean square of a sum of independent steps."""
    return a[0] + b[0], a[1] + 2 * a[0] * b[0] + b[1]


def _ahead(walk: Passes) -> dict[Any, Law]:
    """The law of all steps from a port to the output."""
    ndim, found = walk.graph.ndim, {}
    for port in walk.order:
        parts = [(p, _joined(_law(e, ndim), found[e.reader])) for p, e in walk.edges[port]]
        found[port] = tuple(
            np.asarray(sum((p * law[r] for p, law in parts), np.zeros(ndim))) for r in (0, 1)
        )
    return found


def _behind(walk: Passes) -> dict[Any, tuple[float, np.ndarray, np.ndarray]]:
    """Of the walks that pass a port: probability, and sums of steps so far and of its square."""
    ndim = walk.graph.ndim
    found = {port: (0.0, np.zeros(ndim), np.zeros(ndim)) for port in walk.order}
    for port, share in walk.starts.items():
        found[port] = share, np.zeros(ndim), np.zeros(ndim)
    for port in reversed(walk.order):
        b = found[port]
        for p, edge in walk.edges[port]:
            mean, square = _law(edge, ndim)
            to = found[edge.reader]
            found[edge.reader] = (
                to[0] + p * b[0],
                to[1] + p * (b[1] + b[0] * mean),
                to[2] + p * (b[2] + 2 * b[1] * mean + b[0] * square),
            )
    return found


class _Step:
    """An edge between all that comes before it and all that comes behind it."""

    def __init__(self, share, edge: RawEdge, before, after: Law, mean, variance) -> None:
        self.share, self.edge, self.before, self.after = share, edge, before, after
        self.mean, self.variance = mean, variance
        self.chance = share * before[0]

    def excess(self, law: Law, axis: Any = slice(None)) -> np.ndarray:
        """E[(X − μ)² − σ²; the step], were its law this one: an entry an axis, or for one axis an
        entry a tap."""
        b0, b1, b2 = self.before[0], self.before[1][axis], self.before[2][axis]
        rest = (self.after[0][axis], self.after[1][axis])
        first, square = _joined(law, rest)
        one = b1 + b0 * first
        two = b2 + 2 * b1 * first + b0 * square
        mean, variance = self.mean[axis], self.variance[axis]
        return self.share * (two - 2 * mean * one + (mean**2 - variance) * b0)


def _by_taps(steps: list[_Step], ndim: int) -> np.ndarray:
    """Derivatives of the variance by the taps of one layer, `(axes, *kernel)`."""
    kernel: Any = steps[0].edge.factors[0].kernel if steps[0].edge.factors else None
    if kernel is None:
        return np.zeros((ndim, *(1,) * ndim))
    total = np.zeros((ndim, *kernel.shape))
    for step in steps:
        for axis in range(ndim):
            where, law = places(step.edge, axis)
            excess = step.excess((where, where**2), axis)
            shape = [1] * ndim
            shape[axis] = len(where)
            total[axis] += (excess - law @ excess).reshape(shape)
    return total / float(kernel.scale)


def _by_inputs(
    steps: list[tuple[int, _Step]], inputs: tuple[int, ...], ndim: int
) -> tuple[np.ndarray, tuple[float, ...]]:
    """Derivatives of the variance by the ratios of a sum's inputs, and their chances."""
    excess, chance = np.zeros((ndim, len(inputs))), np.zeros(len(inputs))
    for source, step in steps:
        excess[:, inputs.index(source)] += step.excess(_law(step.edge, ndim))
        chance[inputs.index(source)] += step.chance
    values = excess - chance / chance.sum() * excess.sum(axis=1, keepdims=True)
    return values, tuple(chance.tolist())
