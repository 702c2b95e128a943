"""The theoretical receptive field: first and last offset of every signal (Araujo et al. 2019)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import product

from erftheory.network.base import Network
from erftheory.theory.algebra import Algebra
from erftheory.theory.lowering import build
from erftheory.theory.walk import Walk

Span = tuple[tuple[int, int], ...] | None  # (first, last) an axis; None is the empty signal


class IntervalAlgebra(Algebra[Span]):
    """Extents add under convolution and unite where branches meet."""

    def __init__(self, restricting: bool = True):
        self.restricting = restricting
        self.aligned = True

    def unit(self, position):
        return tuple((p, p) for p in position)

    def kernel(self, kernel, spacing):
        return tuple((0, s * (k - 1)) for k, s in zip(kernel.shape, spacing))

    def convolve(self, a, b):
        if a is None or b is None:
            return None
        return tuple((p[0] + q[0], p[1] + q[1]) for p, q in zip(a, b))

    def power(self, a, count):
        return a and tuple((count * p[0], count * p[1]) for p in a)

    def mix(self, parts):
        spans = [s for _, s in parts if s is not None]
        if not spans:
            return None
        if len({tuple(first + last for first, last in span) for span in spans}) > 1:
            self.aligned = False
        return tuple((min(f for f, _ in axis), max(t for _, t in axis)) for axis in zip(*spans))

    def restrict(self, a, grid):
        if a is None or not self.restricting:
            return a
        kept = tuple((-(-p[0] // g) * g, p[1] // g * g) for p, g in zip(a, grid))
        return kept if all(first <= last for first, last in kept) else None


def extent(walk: Walk, position: tuple[int, ...] | None = None, loose: bool = False) -> Span:
    """First and last lattice point an axis; `loose` also covers every signal on the way."""
    return IntervalAlgebra(restricting=not loose).fold(walk, position)


@dataclass(frozen=True)
class ReceptiveField:
    """The theoretical receptive field of one output unit, in input pixels, one entry an axis.

    Attributes:
      size: extent of the kernels as declared (zero taps and holes count), never clipped to an
        image; `math.inf` with a global operation. The largest over output phases.
      stride: input pixels per output pixel.
      padding: effective padding: the field of output 0 starts at −padding.
      center: input index of the field's centre for output 0.
      aligned: False if branches with different centres meet.
      phases: with up-sampling, the field of each output phase (row-major), else just this one.
    """

    size: tuple[int | float, ...]
    stride: tuple[int | Fraction, ...]
    padding: tuple[int | float, ...]
    center: tuple[float, ...]
    aligned: bool = True
    phases: tuple[ReceptiveField, ...] = field(default=(), repr=False, compare=False)

    def __str__(self) -> str:
        size = " x ".join(map(str, self.size))
        note = "" if self.aligned else ", branches not aligned: their centres differ"
        note += ", unbounded: a global operation sees all" if math.inf in self.size else ""
        stride, padding = (" x ".join(map(str, v)) for v in (self.stride, self.padding))
        return f"receptive field {size} pixels, stride {stride}, padding {padding}{note}"


def receptive_field(network: Network) -> ReceptiveField:
    """Size, effective stride, effective padding and centre of the receptive field.

    Reference: Araujo, Norris, Sim, "Computing Receptive Fields of CNNs", Distill 2019.
    """
    stride = tuple(int(r) if r.denominator == 1 else r for r in network.graph.rate)
    ndim = network.graph.ndim
    if network.graph.has_global:
        everywhere = (math.inf,) * ndim
        return ReceptiveField(everywhere, stride, everywhere, (math.nan,) * ndim)
    walk = build(network, "gradient")
    found = [
        _phase(walk, phase, stride) for phase in product(*(range(count) for count in walk.phases))
    ]
    largest = max(found, key=lambda rf: rf.size)
    size = tuple(max(rf.size[a] for rf in found) for a in range(ndim))
    base = found[0] if found[0].size == size else largest
    aligned = all(rf.aligned for rf in found)
    return ReceptiveField(size, stride, base.padding, base.center, aligned, tuple(found))


def _phase(walk: Walk, phase: tuple[int, ...], stride) -> ReceptiveField:
    algebra = IntervalAlgebra()
    span = algebra.fold(walk, tuple(u * j for u, j in zip(phase, walk.jump)))
    if span is None:
        zero = (0,) * walk.ndim
        return ReceptiveField(zero, stride, zero, (math.nan,) * walk.ndim, algebra.aligned)
    pixels = [(first // f, last // f) for (first, last), f in zip(span, walk.fine)]
    return ReceptiveField(
        tuple(last - first + 1 for first, last in pixels),
        stride,
        tuple(-first for first, _ in pixels),
        tuple((first + last) / 2 for first, last in pixels),
        algebra.aligned,
    )
