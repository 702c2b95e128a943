"""The spatial action of a layer: one window, its taps and where they lie."""

from __future__ import annotations

from dataclasses import dataclass, replace

from erftheory.network.kernel import Kernel


@dataclass(frozen=True)
class Step:
    """The spatial action of a layer, per axis.

    Attributes:
      kernel: the taps.
      stride: subsampling (or, with `up`, the up-sampling factor).
      dilation: distance of neighbouring taps.
      before, after: padding in pixels (for `up`: pixels cropped).
      up: True for the transposed direction.
      kind: "random" (weights drawn independently), "fixed" (the same in every net), "routing"
        (passes the gradient to one tap at random, as max pooling does).
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
