"""A network as a random walk: the graph lowered to what every algebra of signals reads.

One output unit is traced back to the input. All nodes share one coordinate, counted in input
pixels (times `fine` where up-sampling makes finer grids): pixel i of a node with jump j lies at
j·i. Pulling a signal back through a layer of taps v, stride s, dilation d and padding p is then a
convolution whose step a lies at j·(d·a − p), j being the jump of the layer's input; up-sampling
convolves with −a and keeps the coarser grid's points (`restrict`). Where several layers read one
node the signals add, with weights that make every signal a probability distribution: the ERF is
the law of a random walk that chooses its reader at each fork and its tap at each layer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import lcm

from erftheory.network.kernel import Kernel

Weight = int | Fraction | float
SIGNALS = ("variance", "magnitude", "gradient")
Port = tuple[int, int]  # (node, channel group)


@dataclass(frozen=True)
class Factor:
    """A kernel, or a whole walk inside a repetition, to the power `count`."""

    kernel: Kernel | Walk
    spacing: tuple[int, ...]
    count: int = 1


@dataclass(frozen=True)
class Edge:
    """Signal of vertex `source` convolved with all factors, shifted, kept on `restrict`·Z.

    `transposed` factors (up-sampling) are folded into `factors` by reversing their kernels.
    """

    source: int
    weight: Weight
    factors: tuple[Factor, ...]
    shift: tuple[int, ...]
    restrict: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Walk:
    """Vertices from the output unit (0) back to the input (last); each lists its edges.

    Attributes:
      ndim: number of axes.
      fine: lattice points per input pixel, one entry an axis.
      jump: lattice points per output pixel.
      vertices: the edges that arrive at each vertex; the first vertex has none.
      correlated: True if correlations of gradients, which powers do not know, matter (`fixed`).
    """

    ndim: int
    fine: tuple[int, ...]
    jump: tuple[int, ...]
    vertices: tuple[tuple[Edge, ...], ...]
    correlated: bool = False

    @cached_property
    def factors(self) -> tuple[Factor, ...]:
        return tuple(f for edges in self.vertices for e in edges for f in e.factors)

    @cached_property
    def separable(self) -> bool:
        """True if the d-dimensional signal is the product of its marginals."""
        return all(len(edges) <= 1 for edges in self.vertices) and all(
            f.kernel.separable for f in self.factors
        )

    @cached_property
    def signed(self) -> bool:
        return any(f.kernel.signed for f in self.factors)

    @cached_property
    def restricted(self) -> bool:
        """True if up-sampling makes the signal depend on the output's phase."""
        return any(e.restrict for edges in self.vertices for e in edges)

    @cached_property
    def lattice(self) -> tuple[int, ...]:
        """Common multiple of all `restrict` grids: what a transform's length must divide by."""
        grids = [e.restrict for edges in self.vertices for e in edges if e.restrict]
        return tuple(lcm(f, *(g[axis] for g in grids)) for axis, f in enumerate(self.fine))

    @cached_property
    def phases(self) -> tuple[int, ...]:
        """Number of output units, one axis after the other, that see differently."""
        return tuple(lcm(j, m) // j for j, m in zip(self.jump, self.lattice))

    def axis(self, axis: int, raw: bool = False) -> Walk:
        """The walk of one coordinate alone (legal without up-sampling: the others sum out).

        `raw` keeps the mass of the other axes, which normalised signals divide away.
        """
        return _project(self, axis, raw)


def _project(walk: Walk, axis: int, raw: bool) -> Walk:
    def factor(f: Factor) -> Factor:
        if isinstance(f.kernel, Walk):
            return Factor(_project(f.kernel, axis, raw), (1,), f.count)
        kernel, shape = f.kernel, (f.kernel.shape[axis],)
        if kernel.taps is None and not raw:
            line = Kernel(shape)
        else:
            line = Kernel(shape, kernel.marginal(axis), kernel.scale if kernel.signed else None)
            if line.taps == (line.scale,) and not raw:
                line = Kernel(shape)
        return Factor(line, (f.spacing[axis],), f.count)

    def edge(e: Edge) -> Edge:
        return Edge(
            e.source,
            e.weight,
            merge_factors(map(factor, e.factors)),
            (e.shift[axis],),
            e.restrict and (e.restrict[axis],),
        )

    vertices = tuple(tuple(map(edge, edges)) for edges in walk.vertices)
    return Walk(1, (walk.fine[axis],), (walk.jump[axis],), vertices, walk.correlated)


def merge_factors(factors: Iterable[Factor]) -> tuple[Factor, ...]:
    """Equal kernels at equal spacing become one factor; single taps vanish."""
    counts: dict[tuple[Kernel | Walk, tuple[int, ...]], int] = {}
    for f in factors:
        if isinstance(f.kernel, Kernel) and f.kernel.trivial:
            continue
        key = (f.kernel, f.spacing)
        counts[key] = counts.get(key, 0) + f.count
    return tuple(Factor(k, s, n) for (k, s), n in counts.items())


@dataclass
class RawEdge:
    """An edge before normalisation: from the reader's port back to a node's port."""

    reader: Port
    gain: Weight
    factors: tuple[Factor, ...]
    shift: tuple[int, ...]
    restrict: tuple[int, ...] | None
    kind: str  # "plain" (no spatial action), "masked" (dropout: none either), "random", "fixed"
    run: dict | None = None  # of fixed layers: amplitude by lattice point
    memory: float = 1.0  # of activations and dropout, what a product of neighbours keeps; in a run
    before: float = 1.0  # … that of those nearer to the output than its fixed layers
    nearly: bool = False  # `memory` is not the whole truth
