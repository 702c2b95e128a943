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

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import product
from math import lcm
from operator import add, mul
from typing import Any, TypeVar

from erftheory.network.kernel import Kernel
from erftheory.theory.walk.weights import Weight, quotient, root

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
      correlated: True if correlations of gradients matter that are followed only nearly (`lags`).
      lagged: True if it holds products of gradients of different pixels or ports.
    """

    ndim: int
    fine: tuple[int, ...]
    jump: tuple[int, ...]
    vertices: tuple[tuple[Edge, ...], ...]
    correlated: bool = False
    lagged: bool = False

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        edges = tuple((e.source, e.weight, e.factors, e.shift) for v in self.vertices for e in v)
        return hash((self.fine, self.jump, len(self.vertices), edges))

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
        return any(f.kernel.signed for f in self.factors) or any(
            e.weight < 0 for edges in self.vertices for e in edges
        )

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
        known = self.__dict__.setdefault("_lines", {})
        if (axis, raw) not in known:
            twin = next((a for a in range(axis) if (a, raw) in known and _alike(self, a, axis)), -1)
            known[axis, raw] = known[twin, raw] if twin >= 0 else _project(self, axis, raw)
        return known[axis, raw]


def _alike(walk: Walk, a: int, b: int) -> bool:
    """True if two axes have one line for sure: kernels of ones, as long, at equal places."""
    return (
        walk.fine[a] == walk.fine[b]
        and walk.jump[a] == walk.jump[b]
        and all(
            e.shift[a] == e.shift[b] and (e.restrict is None or e.restrict[a] == e.restrict[b])
            for edges in walk.vertices
            for e in edges
        )
        and all(
            _alike(k, a, b)
            if isinstance(k := f.kernel, Walk)
            else k.taps is None and k.shape[a] == k.shape[b] and f.spacing[a] == f.spacing[b]
            for f in walk.factors
        )
    )


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
    return Walk(1, (walk.fine[axis],), (walk.jump[axis],), vertices, walk.correlated, walk.lagged)


def merge_factors(factors: Iterable[Factor]) -> tuple[Factor, ...]:
    """Equal kernels at equal spacing become one factor; single taps vanish."""
    counts: dict[tuple[Kernel | Walk, tuple[int, ...]], int] = {}
    for f in factors:
        if isinstance(f.kernel, Kernel) and f.kernel.trivial:
            continue
        key = (f.kernel, f.spacing)
        counts[key] = counts.get(key, 0) + f.count
    return tuple(Factor(k, s, n) for (k, s), n in counts.items())


@dataclass(frozen=True)
class Gate:
    """What a pixel's own random factor does to gradients: a slope of an activation, a mask.

    Attributes:
      mean, square: its mean, and its mean square.
      memory: mean product at two pixels over the mean square.
      exact: whether `memory` is the whole truth.
      name, law: of an activation, what `lags.together` needs to know; "" for masks.
    """

    mean: Weight = 1
    square: Weight = 1
    memory: Weight = 1
    exact: bool = True
    name: str = ""
    law: Any = None


def amplitude(edge: Any) -> Weight:
    """What a fixed edge multiplies its taps by, beside its gate."""
    gate = 1 if edge.gate is None else edge.gate.square
    return root(quotient(quotient(edge.gain, edge.square), gate)) if gate else 0


@dataclass(frozen=True, eq=False)
class RawEdge:
    """An edge before normalisation: from the reader's port back to a node's port.

    Attributes:
      gain: of power, summed over the taps.
      kind: "random" (weights of mean 0), "routing" (one tap at random, as in max pooling), or
        "fixed": amplitudes that are the same in every net, up to a `gate`.
      gate: of a fixed edge, the random factor of each pixel at the port it arrives at.
      taps: of a fixed edge, amplitudes by lattice point up to a common factor, where they are not
        those of `factors` and `shift`.
      through: of a repetition, which is a random edge, what finds the amplitude of its paths
        without weights; None if there are none.
    """

    reader: Any
    gain: Weight
    factors: tuple[Factor, ...]
    shift: tuple[int, ...]
    restrict: tuple[int, ...] | None = None
    kind: str = "random"
    gate: Gate | None = None
    taps: dict[tuple[int, ...], Fraction] | None = None
    through: Callable[[], Weight] | None = None

    @cached_property
    def amplitudes(self) -> dict[tuple[int, ...], Fraction]:
        """Taps by lattice point, the shift included, up to a common factor."""
        if self.taps is not None:
            return self.taps
        if self.kind == "random" or self.still:
            return {(0,) * len(self.shift): Fraction(1)}
        found = {self.shift: Fraction(1)}
        for f in self.factors:
            assert isinstance(f.kernel, Kernel)
            scale = Fraction(f.kernel.scale)
            taps = zip(product(*map(range, f.kernel.shape)), f.kernel.exact)
            steps = [(tuple(map(mul, i, f.spacing)), Fraction(v) / scale) for i, v in taps if v]
            more: dict[tuple[int, ...], Fraction] = {}
            for p, u in found.items():
                for q, v in steps:
                    place = tuple(map(add, p, q))
                    more[place] = more.get(place, 0) + u * v
            found = more
        return {place: tap for place, tap in found.items() if tap}

    @cached_property
    def square(self) -> Fraction:
        """Sum of the squares of `amplitudes`."""
        if self.still:
            return Fraction(1)
        return sum((v * v for v in self.amplitudes.values()), Fraction(0))

    @cached_property
    def mean(self) -> Weight:
        """What `amplitudes` are multiplied by on average."""
        if self.kind != "fixed":
            if self.kind == "routing":
                return self.gain
            return 0 if self.through is None else self.through()
        return amplitude(self) * (1 if self.gate is None else self.gate.mean)

    @property
    def still(self) -> bool:
        """True if pixels stay where they are: one tap at 0."""
        return not self.factors and self.taps is None and not any(self.shift)


Read = TypeVar("Read")


def read_by(edge: Read, reader: Any) -> Read:
    """The same edge with another reader, of which nothing that it has found depends."""
    new = object.__new__(type(edge))
    new.__dict__.update(edge.__dict__, reader=reader)
    return new
