"""The theoretical receptive field: first and last offset of every signal (Araujo et al. 2019)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import product
from typing import Any

from erftheory.network.base import Network, check_network
from erftheory.theory.algebra import Algebra
from erftheory.theory.lowering import build
from erftheory.theory.spacing import Spacing, parse_spacing
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
      aligned: False if branches with different centres meet, in any output phase. Up-sampling nets
        are rarely aligned phase by phase; `advise` judges their mean.
      phases: with up-sampling, the field of each output phase (row-major), else just this one.
      lookback: input pixels before the output's own place, stride · index (a signal's past).
      lookahead: input pixels after it: the latency of a 1-D net, in samples.
      spacing: distance of pixels in a physical unit, if one was given.
    """

    size: tuple[int | float, ...]
    stride: tuple[int | Fraction, ...]
    padding: tuple[int | float, ...]
    center: tuple[float, ...]
    aligned: bool = True
    phases: tuple[ReceptiveField, ...] = field(default=(), repr=False, compare=False)
    lookback: tuple[int | Fraction | float, ...] = field(default=(), compare=False)
    lookahead: tuple[int | Fraction | float, ...] = field(default=(), compare=False)
    spacing: Spacing | None = field(default=None, compare=False)

    @property
    def extent(self) -> tuple[float, ...]:
        """The size in the unit of `spacing`, one entry an axis.

        Raises:
          ValueError: no spacing was given.
        """
        if self.spacing is None:
            raise ValueError(
                "spacing: got None; takes receptive_field(network, spacing=...) for lengths"
            )
        return self.spacing.of(self.size)

    def __str__(self) -> str:
        size = " x ".join(map(str, self.size))
        where = " in single output phases" if len(self.phases) > 1 else ""
        note = "" if self.aligned else f", branches not aligned: their centres differ{where}"
        note += ", unbounded: a global operation sees all" if math.inf in self.size else ""
        stride, padding = (" x ".join(map(str, v)) for v in (self.stride, self.padding))
        long = f" ({self.spacing.show(self.size)})" if self.spacing else ""
        if len(self.size) == 1 and self.lookback:
            back, ahead = self.lookback[0], self.lookahead[0]
            note += f", look-back {back}, latency {ahead}"
            if self.spacing:
                note += f" ({self.spacing.show([back])}, {self.spacing.show([ahead])})"
        return f"receptive field {size} pixels{long}, stride {stride}, padding {padding}{note}"


def receptive_field(
    network: Network,
    source: str | None = None,
    output: str | None = None,
    spacing: Any = None,
) -> ReceptiveField:
    """Size, effective stride, effective padding and centre of the receptive field.

    Args:
      source: a name that `until` takes: the field in the pixels of that part's output, along the
        paths through it; None is the network's input.
      output: a name that `until` takes; None is the network's output.
      spacing: distance of the pixels the field is counted in: a number or one an axis, or text
        with a unit ("0.5 mm"). It gives `extent`.

    Raises:
      ValueError: an unknown name, a source that the output does not read, a bad spacing.

    Reference: Araujo, Norris, Sim, "Computing Receptive Fields of CNNs", Distill 2019.
    """
    check_network("network", network)
    if source is not None or output is not None:
        from erftheory.theory.endpoints import between

        network = between(network, source, output)
    graph = network.graph
    unit = parse_spacing(spacing, graph.ndim)
    stride = tuple(map(_number, graph.rate))
    ndim = graph.ndim
    if graph.has_global:
        all_of_it = (math.inf,) * ndim
        unknown = (math.nan,) * ndim
        return ReceptiveField(
            all_of_it, stride, all_of_it, unknown, True, (), all_of_it, all_of_it, unit
        )
    walk = build(network, "gradient")
    found = [
        _phase(walk, phase, stride) for phase in product(*(range(count) for count in walk.phases))
    ]
    largest = max(found, key=lambda rf: rf.size)
    size = tuple(max(rf.size[a] for rf in found) for a in range(ndim))
    base = found[0] if found[0].size == size else largest
    reached = [rf for rf in found if rf.lookback]
    back, ahead = (
        tuple(max(getattr(rf, side)[a] for rf in reached) for a in range(ndim)) if reached else ()
        for side in ("lookback", "lookahead")
    )
    return ReceptiveField(
        size, stride, base.padding, base.center, all(rf.aligned for rf in found), tuple(found),
        back, ahead, unit,
    )  # fmt: skip


def _number(value: Fraction) -> int | Fraction:
    return int(value) if value.denominator == 1 else value


def _phase(walk: Walk, phase: tuple[int, ...], stride) -> ReceptiveField:
    algebra = IntervalAlgebra()
    span = algebra.fold(walk, tuple(u * j for u, j in zip(phase, walk.jump)))
    if span is None:
        zero = (0,) * walk.ndim
        return ReceptiveField(zero, stride, zero, (math.nan,) * walk.ndim, algebra.aligned)
    pixels = [(first // f, last // f) for (first, last), f in zip(span, walk.fine)]
    own = [Fraction(s) * u for s, u in zip(stride, phase)]
    return ReceptiveField(
        tuple(last - first + 1 for first, last in pixels),
        stride,
        tuple(-first for first, _ in pixels),
        tuple((first + last) / 2 for first, last in pixels),
        algebra.aligned,
        (),
        tuple(_number(place - first) for place, (first, _) in zip(own, pixels)),
        tuple(_number(last - place) for place, (_, last) in zip(own, pixels)),
    )
