"""What importers need beyond the public layers, and the network that they return."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from erftheory.network.base import Network
from erftheory.network.graph import Builder, Graph, Node, SizeRule, Sum, append
from erftheory.network.kernel import Kernel
from erftheory.network.layers import Conv, ConvTranspose, Layer, Step, Upsample
from erftheory.network.weights import weights

_SAME = 1e-9  # a scale this close to 1 is 1


class GraphNetwork(Network):
    """A network given directly as a graph, as importers make them; it composes like any other."""

    def __init__(self, graph: Graph):
        object.__setattr__(self, "graph", graph)

    def own_axes(self) -> int | None:
        return self.graph.ndim

    def _size_rule(self, ndim: int) -> SizeRule:
        return self.graph.size_rule

    def lower(self, builder: Builder, source: int, scope: str) -> int:
        return append(builder, self.graph, source, scope)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GraphNetwork) and self.graph == other.graph

    def __hash__(self) -> int:
        return hash(self.graph)

    def __repr__(self) -> str:
        return f"GraphNetwork({len(self.graph.nodes) - 1} operations, {self.ndim}-D)"


@dataclass(frozen=True, repr=False)
class Spatial(Layer):
    """A spatial operation given by its rule: crops, pads, slices, resizing, pixel shuffle.

    Args:
      label: what the model calls it.
      rule: the `Step`; kind "fixed" or "routing".
      channels: channels behind it where it changes them (pixel shuffle), else None.
    """

    label: str
    rule: Step
    channels: int | None = None

    def own_axes(self) -> int | None:
        return len(self.rule.stride)

    def step(self, ndim: int) -> Step:
        return self.rule

    def __repr__(self) -> str:
        rule = self.rule
        shown = [("kernel", rule.kernel.shape), ("stride", rule.stride), ("before", rule.before)]
        text = ", ".join(f"{k}={v}" for k, v in shown if any(x != (k != "before") for x in v))
        return f"{self.label}({text}{', up' if rule.up else ''})"


@dataclass(frozen=True, repr=False)
class Channels(Layer):
    """Another number of channels at the same pixels: a split, a sum over channels."""

    channels: int


@dataclass(frozen=True, repr=False)
class Scale(Layer):
    """Multiplication by a constant, or by one number a channel: root mean square, sign of the mean.

    A negative factor changes the gradient signal alone.
    """

    factor: float

    def step(self, ndim: int) -> Step | None:
        if self.factor >= 0:
            return None
        one, still = (1,) * ndim, (0,) * ndim
        sign = Kernel(one, (-1,))
        return Step(Kernel(one), one, one, still, still, kind="fixed", signed=sign)


class ImportedPart(GraphNetwork):
    """A part of a network that was read; `idealised` as for the whole."""

    def __init__(self, graph: Graph, idealised: Iterable[str], axis_names: tuple[str, ...] = ()):
        super().__init__(graph)
        object.__setattr__(self, "_axis_names", axis_names)
        object.__setattr__(self, "idealised", tuple(dict.fromkeys(idealised)))

    idealised: tuple[str, ...]


class ImportedNetwork(GraphNetwork):
    """A network read from a model.

    Attributes:
      outputs: names of the model's outputs; the network itself ends at the last one.
      notes: what the reading had to decide, a line each (global paths, products of branches, …).
      idealised: those of them for which the network's gains are not quite the model's.
    """

    def __init__(
        self,
        ndim: int,
        nodes: Iterable[Node],
        outputs: dict[str, int],
        marks: dict[str, int],
        notes: Iterable[str] = (),
        weights: Mapping[int, tuple[Callable[[], Any], int]] | None = None,
        scales: Mapping[int, tuple[Callable[[], float | None], bool]] | None = None,
        ideal: Iterable[tuple[int, str]] = (),
        axis_names: tuple[str, ...] = (),
    ):
        builder = Builder(ndim)
        builder.nodes = list(nodes)
        last = next(reversed(outputs.values()))
        super().__init__(builder.finish(last))
        object.__setattr__(self, "_axis_names", axis_names if any(axis_names) else ())
        object.__setattr__(self, "_builder", builder)
        object.__setattr__(self, "_marks", {**marks, **outputs})
        object.__setattr__(self, "_ends", outputs)
        object.__setattr__(self, "_weights", dict(weights or {}))
        object.__setattr__(self, "_scales", dict(scales or {}))
        object.__setattr__(self, "_ideal", tuple(ideal))
        object.__setattr__(self, "outputs", tuple(outputs))
        object.__setattr__(self, "idealised", self._idealised(last))
        object.__setattr__(self, "notes", tuple(dict.fromkeys(notes)))

    outputs: tuple[str, ...]
    notes: tuple[str, ...]
    idealised: tuple[str, ...]

    def _idealised(self, last: int) -> tuple[str, ...]:
        """What was idealised on the way to a node."""
        needed, nodes = {last}, self._builder.nodes  # type: ignore[attr-defined]
        for i in range(last, -1, -1):
            if i in needed:
                needed.update(nodes[i].inputs)
        found = (text for i, text in self._ideal  # type: ignore[attr-defined]
                 if i in needed and i < last)  # fmt: skip
        return tuple(dict.fromkeys(found))

    def weighted(self) -> ImportedNetwork:
        """The network with the model's own weights in its convolutions and dense layers.

        Their squares, summed over channels, are then the variances of the variance signal and
        their sums over channels the taps of the gradient signal (`Conv(weights=)`), and the gains
        are theirs in place of an initialisation's. Biases are left out. Normalisations multiply
        by what they learned (root mean square over channels); those in evaluation mode do nothing
        else, running deviations included.

        Raises:
          ValueError: weights that did not come along (shapes alone), or are zeros alone.
        """
        nodes, missing = list(self._builder.nodes), 0  # type: ignore[attr-defined]
        users: dict[tuple, list[int]] = {}
        known = self._weights  # type: ignore[attr-defined]
        for i, node in enumerate(nodes):
            if not isinstance(node.op, Conv | ConvTranspose):
                continue
            compute, groups = known.get(i, (lambda: None, 1))
            own = compute()
            if own is None:
                missing += 1
                continue
            try:
                found = weights(own, groups)
            except ValueError as wrong:
                name = node.name or f"operation {i}"
                raise ValueError(f"{name}: {wrong}") from None
            nodes[i] = replace(node, op=replace(node.op, weights=found))
            array = np.asarray(own)
            users.setdefault((array.shape, array.tobytes()), []).append(i)
        for i in (i for same in users.values() if len(same) > 1 for i in same):
            op: Any = nodes[i].op
            nodes[i] = replace(nodes[i], op=replace(op, weights=replace(op.weights, shared=True)))
        behind: dict[int, Scale] = {}
        for i, (compute, fixed) in self._scales.items():  # type: ignore[attr-defined]
            factor = compute()
            if factor is None:
                missing += 1
            elif fixed:
                nodes[i] = replace(nodes[i], op=Scale(factor))
            elif abs(factor - 1) > _SAME:
                behind[i] = Scale(factor)
        if missing:
            raise ValueError(
                f"weights: got none for {missing} of the model's convolutions and norms; takes a "
                "model read together with its weights"
            )
        nodes, place = _followed(nodes, behind)
        ends, marks, known = (
            {k: place[i] for k, i in self._ends.items()},  # type: ignore[attr-defined]
            {k: place[i] for k, i in self._marks.items()},  # type: ignore[attr-defined]
            {place[i]: own for i, own in known.items()},
        )
        ideal = [(place[i], text) for i, text in self._ideal]  # type: ignore[attr-defined]
        return ImportedNetwork(
            self.ndim, nodes, ends, marks, self.notes, known, None, ideal, self.axis_names
        )

    def find(self, endpoint: str) -> Network | None:
        node = self._marks.get(endpoint)  # type: ignore[attr-defined]
        if node is None:
            return None
        graph: Graph = self._builder.finish(node)  # type: ignore[attr-defined]
        return ImportedPart(graph, self._idealised(node), self.axis_names)

    def endpoints(self) -> tuple[str, ...]:
        return tuple(self._marks)  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"ImportedNetwork({len(self.graph.nodes) - 1} operations, {self.ndim}-D)"


def _followed(nodes: list[Node], behind: Mapping[int, Layer]) -> tuple[list[Node], list[int]]:
    """Nodes with further ones right behind some, and where each is now read."""
    out: list[Node] = []
    place: list[int] = []
    for i, node in enumerate(nodes):
        op = node.op
        if isinstance(op, Sum) and op.fork is not None:
            op = replace(op, fork=place[op.fork])
        out.append(Node(op, tuple(place[j] for j in node.inputs), node.name))
        if i in behind:
            out.append(Node(behind[i], (len(out) - 1,), node.name))
        place.append(len(out) - 1)
    return out, place


RESIZE = "resize"
ALIGNED = "resize with aligned corners"
OWN_PAD = "pad by own pixels"
OWN_PIXELS = "padding by the image's own pixels, which only its rim sees"


def own_rims(graph: Graph) -> bool:
    """True if a model that was read interpolates, or pads by its image's own pixels."""
    read = [node.op for node in graph.nodes if isinstance(node.op, Spatial)]
    return any(
        op.label == OWN_PAD
        or op.label in (RESIZE, ALIGNED)
        and any(k > s for k, s in zip(op.rule.kernel.shape, op.rule.stride))
        for op in read
    )


def aligned_corners(graph: Graph) -> bool:
    """True if an interpolation's places depend on the size of its map, which the plane has not."""
    return any(
        (isinstance(op, Upsample) and op.align_corners)
        or (isinstance(op, Spatial) and op.label == ALIGNED)
        for op in graph.operations()
    )
