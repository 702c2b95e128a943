"""The theoretical receptive field: first and last offset of every signal (Araujo et al. 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from erftheory.network.base import Network, check_network
from erftheory.theory.lowering.lowering import build
from erftheory.theory.lowering.unbounded import unbounded
from erftheory.theory.readings.phases import PhaseSpans, phase_spans
from erftheory.theory.readings.spacing import Spacing, parse_spacing
from erftheory.theory.walk.algebra import ConvolutionAlgebra
from erftheory.theory.walk.walk import Walk

Span = tuple[tuple[int, int], ...] | None  # (first, last) an axis; None is the empty signal


class IntervalAlgebra(ConvolutionAlgebra[Span]):
    """Extents add under convolution and unite where branches meet."""

    def __init__(self, restricting: bool = True):
        self.restricting = restricting
        self.aligned = True

    def unit(self, position):
        return tuple((p, p) for p in position)

    def kernel(self, kernel, spacing):
        return tuple((0, span) for span in kernel.span(spacing))

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
        image; `math.inf` along an axis that some operation reads to its end (a global mean,
        attention, a recurrence). The largest over output phases.
      stride: input pixels per output pixel.
      padding: effective padding: the field of output 0 starts at −padding.
      center: input index of the field's centre for output 0.
      aligned: False if branches with different centres meet, in any output phase. Up-sampling nets
        are rarely aligned phase by phase; `advise` judges their mean.
      phases: with up-sampling, the field of each output phase (row-major), else just this one.
      lookback: input pixels before the output's own place, stride · index (a signal's past).
      lookahead: input pixels after it: the latency of a 1-D net, in samples. A recurrence looks
        back without end, and ahead as far as what lies around it.
      spacing: distance of pixels in a physical unit, if one was given.
      unbounded: of an infinite field, which operation makes it so and how to do without; else "".
      axes: what the model calls its axes, () where it does not.
    """

    size: tuple[int | float, ...]
    stride: tuple[int | Fraction, ...]
    padding: tuple[int | float, ...]
    center: tuple[float, ...]
    aligned: bool = True
    phases: Sequence[ReceptiveField] = field(default=(), repr=False, compare=False)
    lookback: tuple[int | Fraction | float, ...] = field(default=(), compare=False)
    lookahead: tuple[int | Fraction | float, ...] = field(default=(), compare=False)
    spacing: Spacing | None = field(default=None, compare=False)
    unbounded: str = field(default="", compare=False)
    axes: tuple[str, ...] = field(default=(), compare=False)

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
        names = [f" ({name})" if name else "" for name in self.axes or [""] * len(self.size)]
        size = " x ".join(f"{n}{name}" for n, name in zip(self.size, names))
        where = " in single output phases" if len(self.phases) > 1 else ""
        note = "" if self.aligned else f", branches not aligned: their centres differ{where}"
        note += f", unbounded: {self.unbounded}" if self.unbounded else ""
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
        from erftheory.theory.gains.between import between

        network = between(network, source, output)
    graph = network.graph
    unit = parse_spacing(spacing, graph.ndim)
    stride = tuple(map(_number, graph.rate))
    walk = build(network, "gradient", endless=True)
    found = Phases(phase_spans(walk, extent(walk, loose=True)), stride, graph.reach)
    size = found.spans.largest()
    base = found[0] if found.finite(0).size == size else found[found.spans.widest()]
    back, ahead = found.spans.ways(graph.rate)
    whole = ReceptiveField(
        size, stride, base.padding, base.center, found.spans.aligned, found,
        tuple(map(_number, back)), tuple(map(_number, ahead)), unit, unbounded(network),
        network.axis_names,
    )  # fmt: skip
    return _opened(whole, graph.reach)


def _opened(field: ReceptiveField, reach: Sequence[tuple[bool, bool]]) -> ReceptiveField:
    """The same field without an end where an axis is read to it."""
    if not any(map(any, reach)):
        return field
    ways = list(zip(*reach))
    either = tuple(map(any, reach))

    def end(values: Sequence[Any], which: Sequence[bool], by: float) -> tuple[Any, ...]:
        return tuple(by if w else v for v, w in zip(values, which))

    return replace(
        field,
        size=end(field.size, either, math.inf),
        padding=end(field.padding, ways[0], math.inf),
        center=end(field.center, either, math.nan),
        lookback=end(field.lookback, ways[0], math.inf),
        lookahead=end(field.lookahead, ways[1], math.inf),
    )


def _number(value: Fraction) -> int | Fraction:
    return int(value) if value.denominator == 1 else value


class Phases(Sequence[ReceptiveField]):
    """The field of each output phase, row-major, made when it is asked for."""

    def __init__(
        self,
        spans: PhaseSpans,
        stride: tuple[int | Fraction, ...],
        reach: Sequence[tuple[bool, bool]] = (),
    ):
        self.spans, self._stride, self._reach = spans, stride, reach

    def __len__(self) -> int:
        return math.prod(self.spans.counts)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        return _opened(self.finite(range(len(self))[index]), self._reach)

    def finite(self, index: int) -> ReceptiveField:
        """A phase's field as if no axis were read to its end."""
        phase = tuple(int(i) for i in np.unravel_index(index, self.spans.counts))
        pixels, aligned, stride = self.spans.at(phase), self.spans.aligned_at(phase), self._stride
        if pixels is None:
            zero = (0,) * len(phase)
            return ReceptiveField(zero, stride, zero, (math.nan,) * len(phase), aligned)
        own = [Fraction(s) * u for s, u in zip(stride, phase)]
        return ReceptiveField(
            tuple(last - first + 1 for first, last in pixels),
            stride,
            tuple(-first for first, _ in pixels),
            tuple((first + last) / 2 for first, last in pixels),
            aligned,
            (),
            tuple(_number(place - first) for place, (first, _) in zip(own, pixels)),
            tuple(_number(last - place) for place, (_, last) in zip(own, pixels)),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))

    def middle(self) -> tuple[float, ...]:
        """Input pixels from an output's own place, stride · index, to its field's centre: the
        mean over the phases, one entry an axis; nan if no phase reads anything."""
        return self.spans.middle(tuple(map(Fraction, self._stride)))


class LazyField:
    """The receptive field of a network, computed when a figure asks for it."""

    def __init__(self, network: Network):
        self._network = network

    def __getattr__(self, name: str):
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(receptive_field(self._network), name)
