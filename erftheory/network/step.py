"""The spatial action of a layer: one window, its taps and where they lie.

The arithmetic of windows has its home here: output o of a step reads the inputs s·o + d·a − p for
its taps a = 0 … k − 1 (stride s, dilation d, padding before p); with `up` it is the transpose,
input i writes to s·i + d·a − p.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

from erftheory.network.kernel import Kernel, span_of

Interval = tuple[int, int]  # first and last pixel along one axis


@dataclass(frozen=True)
class Step:
    """The spatial action of a layer, per axis.

    Attributes:
      kernel: the taps.
      stride: subsampling (or, with `up`, the up-sampling factor).
      dilation: distance of neighbouring taps.
      before, after: padding in pixels (for `up`: pixels cropped).
      up: True for the transposed direction.
      kind: "random" (weights drawn independently, or slopes of independent signs), "fixed" (the
        same in every net), "routing" (passes the gradient to one tap at random, as max pooling
        does).
      signed: the taps of the gradient signal, where they are not those of `kernel`.
    """

    kernel: Kernel
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    up: bool = False
    kind: str = "random"
    signed: Kernel | None = None

    def of(self, signal: str) -> Step:
        """The step with the taps of one signal."""
        if signal != "gradient" or self.signed is None:
            return self
        if not any(self.signed.exact):
            raise ValueError(
                "weights: got taps whose sum over channels is 0 in the gradient signal; takes "
                'signal="variance" there'
            )
        return replace(self, kernel=self.signed, signed=None)

    @cached_property
    def span(self) -> tuple[int, ...]:
        """Pixels from the first tap to the last, d·(k − 1), one entry an axis."""
        return span_of(self.kernel.shape, self.dilation)

    @cached_property
    def pads(self) -> tuple[int, ...]:
        """Pixels of padding (or cropped), before and after together."""
        return tuple(b + a for b, a in zip(self.before, self.after))

    @cached_property
    def sliding(self) -> Step:
        """What slides over the padded input, or, with `up`, over the input spread by zeros: the
        window without padding, of stride 1 with `up`."""
        ones, none = (1,) * len(self.stride), (0,) * len(self.stride)
        stride = ones if self.up else self.stride
        return Step(self.kernel, stride, self.dilation, none, none, kind=self.kind)

    def along(self, axis: int) -> Step:
        """The geometry of one axis, every tap 1."""
        stride, dilation = (self.stride[axis],), (self.dilation[axis],)
        ends = (self.before[axis],), (self.after[axis],)
        return Step(Kernel((self.kernel.shape[axis],)), stride, dilation, *ends, up=self.up)

    def reads(self, axis: int, outputs: Interval) -> Interval | None:
        """The input pixels that some outputs read along an axis; None if they read none."""
        first, last = outputs
        s, p, span = self.stride[axis], self.before[axis], self.span[axis]
        if not self.up:
            return s * first - p, s * last + span - p
        low, high = -((span - p - first) // s), (last + p) // s
        return (low, high) if low <= high else None

    def touches(self, axis: int, inputs: Interval) -> Interval | None:
        """The outputs that read some of the input pixels; None if none does."""
        first, last = inputs
        s, p, span = self.stride[axis], self.before[axis], self.span[axis]
        if self.up:
            return s * first - p, s * last + span - p
        low, high = -((span - p - first) // s), (last + p) // s
        return (low, high) if low <= high else None

    def determined(self, axis: int, inputs: Interval) -> Interval | None:
        """The outputs all of whose input pixels are given; None if there is none."""
        first, last = inputs
        s, p, span = self.stride[axis], self.before[axis], self.span[axis]
        if self.up:  # the neighbours on both sides write nothing there
            low, high = s * (first - 1) + span - p + 1, s * (last + 1) - p - 1
        else:
            low, high = -(-(first + p) // s), (last + p - span) // s
        return (low, high) if low <= high else None

    def size(self, axis: int, pixels: int) -> int:
        """Pixels behind the step along an axis, below 1 where the image is too small."""
        s, least, pads = self.stride[axis], self.span[axis] + 1, self.pads[axis]
        return (pixels - 1) * s + least - pads if self.up else (pixels + pads - least) // s + 1

    def size_rule(self, axis: int) -> tuple[Fraction, Fraction, Fraction]:
        """(f, low, high): n pixels become f·n + c with c in [low, high], by how a stride rounds."""
        s, span, pads = self.stride[axis], self.span[axis], self.pads[axis]
        if self.up:
            return Fraction(s), Fraction(span + 1 - s - pads), Fraction(span + 1 - s - pads)
        return Fraction(1, s), Fraction(pads - span, s), Fraction(pads - span - 1, s) + 1
