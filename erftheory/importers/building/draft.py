"""The graph of a model under construction: its nodes, what was noted, and where it stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from erftheory.importers.values.dimensions import Dim
from erftheory.importers.values.pixels import Global, Partial, Pixels, Value
from erftheory.network.endless import Along, GlobalAvgPool
from erftheory.network.graph import Input, Loop, Node, Op
from erftheory.network.layers import Layer

HOLD = ("none", "statistics", "global")
# computes weights (out, in / groups, *kernel) when they are asked for; None if it cannot
Own = Callable[[], np.ndarray | None]


class Draft:
    """The graph so far, what was noted, and the scope that new nodes are named after.

    Args:
      hold: which reductions over the image are held constant: "statistics" (those of
        normalisations, as in inference), "global" (all), or "none".
    """

    def __init__(self, ndim: int, hold: str):
        self.ndim, self.hold = ndim, hold
        self.nodes: list[Node] = [Node(Input(), (), "input")]
        self.scope = ""
        self._notes: dict[str, list[str]] = {}
        self.ideal: list[tuple[int, str]] = []  # notes about nodes
        self.weights: dict[int, tuple[Own, int]] = {}  # of convolutions, and their groups
        self.scales: dict[int, tuple[Callable[[], float | None], bool]] = {}  # of normalisations
        self.biased = self.normal = False  # whether a convolution has a bias, and any norm there is
        self._flushed: dict[tuple, int] = {}
        self._jumps: list[tuple[Fraction, ...]] = []

    def add(self, op: Op, *inputs: int) -> int:
        self.nodes.append(Node(op, inputs, self.scope))
        return len(self.nodes) - 1

    def jump(self, node: int) -> tuple[Fraction, ...]:
        """Input pixels per pixel of a node, one entry an axis."""
        found = self._jumps
        for op, reads in ((n.op, n.inputs) for n in self.nodes[len(found) : node + 1]):
            jump = found[reads[0]] if reads else (Fraction(1),) * self.ndim
            if isinstance(op, Loop):
                jump = tuple(j * r**op.times for j, r in zip(jump, op.graph.rate))
            step = op.step(self.ndim) if isinstance(op, Layer) else None
            if step is not None:
                jump = tuple(j / s if step.up else j * s for j, s in zip(jump, step.stride))
            found.append(jump)
        return found[node]

    def opened(self, value: Partial) -> Pixels:
        """A mean over some axes as a map of the others."""
        scope, self.scope = self.scope, value.scope
        op = Along(value.label, value.axes) if value.label else GlobalAvgPool(value.axes)
        found = self.along(value.node, value.axes, value.dims, op)
        self.scope = scope
        return found

    def along(self, node: int, axes: Sequence[int], dims: Sequence[Dim], op: Layer) -> Pixels:
        """What an operation makes of whole axes, which have no pixels in `dims`."""
        named = " and ".join(map(str, axes))
        self.note(
            f"the image is read to its ends along ax{'i' if len(axes) == 1 else 'e'}s {named}: the "
            "receptive field is unbounded there"
        )
        key = node, op
        if key not in self._flushed:
            self._flushed[key] = self.add(op, node)
        return Pixels(self._flushed[key], tuple(dims))

    def add_global(self, value: Global) -> int:
        """A node for a value without pixels, where it ends the network."""
        self.note("the output depends on the whole image: the receptive field is unbounded")
        return self.add(Along(value.label) if value.label else GlobalAvgPool(), value.node)

    def note(self, text: str, of: Value | int | None = None) -> None:
        """`of` is what the note is about, if it says that gains are not quite the model's."""
        at = of if isinstance(of, int) else getattr(of, "node", None)
        if at is not None:
            self.ideal.append((at, text))
        self._notes.setdefault(text, []).append(self.scope)

    def note_folded(self) -> None:
        """A note on a model that may have had norms: biases, and nothing that normalises."""
        if self.biased and not self.normal:
            self.scope = ""
            self.note(
                "no normalisation, and convolutions with biases: norms that were folded into "
                "convolutions cannot be seen, weighted() uses the weights as they are"
            )

    @property
    def notes(self) -> list[str]:
        """One line for each decision, with the first place where it was taken."""
        lines = []
        for text, places in self._notes.items():
            where = f"first in {places[0]}" if places[0] else ""
            count = f"{len(places)} times" if len(places) > 1 else ""
            extra = ", ".join(x for x in (count, where) if x)
            lines.append(f"{text} ({extra})" if extra else text)
        return lines
