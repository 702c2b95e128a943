"""The layers: each is one small class with one spatial rule, `step`.

Offsets follow one convention: output pixel o of a layer reads input pixels s·o + d·a − p for the
taps a = 0 … k−1 (stride s, dilation d, padding before p). Up-sampling layers are the transpose:
input pixel i writes to s·i + d·a − p.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from erftheory.network import arguments as arg
from erftheory.network.activations import ACTIVATIONS, LEAKY, leaky
from erftheory.network.arguments import Number, Padding
from erftheory.network.kernel import Kernel
from erftheory.network.sliding import (
    Layer,
    Sliding,
    Weighted,
    axes_of,
    check_channels,
    kernels,
    spread,
)
from erftheory.network.step import Step


@dataclass(frozen=True, repr=False)
class Conv(Weighted):
    """A convolution with random (or given) weights.

    Args:
      kernel, stride, dilation: an int >= 1, or one per axis.
      padding: "same" (d·(k−1) zeros in all, the smaller half before), "valid", "causal" (all of
        them before), an int, or per axis an int or a pair (before, after).
      channels: output channels; None leaves them to the network (as many as came, or as the
        reading says).
      groups: an int, or "depthwise" for one group an input channel.
      taps: relative taps, an array or nested sequence of the kernel's shape; ints and `Fraction`s
        stay exact, None is uniform. A flat sequence is one axis, which a tuple among the
        arguments or `ndim=1` on a `Chain` must state. Taps are weights in the gradient signal and
        variances in the variance signal.
      weights: the layer's own weights, shape (out, in / groups, *kernel): their squares, summed
        over channels, are the variances, their sums the taps of the gradient signal.

    Raises:
      ValueError: an argument is out of range; the message names it.
    """

    kernel: int | tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    dilation: int | tuple[int, ...] = 1
    padding: Padding = "same"
    channels: int | None = None
    groups: int | str = 1
    taps: Any = None
    weights: Any = None

    def __post_init__(self) -> None:
        self._check_window(("same", "valid", "causal"))
        check_channels(self)
        self.own_axes()

    def step(self, ndim: int) -> Step:
        kernel, signed = kernels(self, ndim)
        return self._window_step(ndim, kernel, "random", signed)


@dataclass(frozen=True, repr=False)
class MaxPool(Sliding):
    """Max pooling; `stride=None` means the kernel. Routes the gradient to one tap."""

    kernel: int | tuple[int, ...]
    stride: int | tuple[int, ...] | None = None
    dilation: int | tuple[int, ...] = 1
    padding: Padding = "valid"

    def __post_init__(self) -> None:
        self._check_window(("same", "valid", "causal"))

    def step(self, ndim: int) -> Step:
        return self._window_step(ndim, Kernel(spread(self.kernel, ndim)), "routing")


@dataclass(frozen=True, repr=False)
class AvgPool(Sliding):
    """Average pooling; `stride=None` means the kernel.

    `count_include_pad` only matters at the rim of a finite image, as in PyTorch.
    """

    kernel: int | tuple[int, ...]
    stride: int | tuple[int, ...] | None = None
    dilation: int | tuple[int, ...] = 1
    padding: Padding = "valid"
    count_include_pad: bool = True

    def __post_init__(self) -> None:
        self._check_window(("same", "valid", "causal"))
        arg.one_of("count_include_pad", self.count_include_pad, (True, False))

    def step(self, ndim: int) -> Step:
        return self._window_step(ndim, Kernel(spread(self.kernel, ndim)), "fixed")


@dataclass(frozen=True, repr=False)
class ConvTranspose(Weighted):
    """A transposed convolution, as in PyTorch: input i writes to s·i + d·a − padding.

    Arguments as for `Conv`; `weights` has shape (out, in / groups, *kernel) here too.
    """

    kernel: int | tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    padding: int | tuple[int, ...] = 0  # type: ignore[assignment]
    output_padding: int | tuple[int, ...] = 0
    dilation: int | tuple[int, ...] = 1
    channels: int | None = None
    groups: int | str = 1
    taps: Any = None
    weights: Any = None

    def __post_init__(self) -> None:
        self._check_window(())
        for entry in self.padding if isinstance(self.padding, tuple) else ():
            if isinstance(entry, tuple):
                raise ValueError(f"padding: got {entry}; takes an integer >= 0, or one per axis")
        self._set("output_padding", arg.per_axis("output_padding", self.output_padding, 0))
        check_channels(self)
        self.own_axes()

    def _arguments(self) -> dict[str, Any]:
        return {**super()._arguments(), "output_padding": self.output_padding}

    def step(self, ndim: int) -> Step:
        before = spread(self.padding, ndim)
        after = tuple(p - o for p, o in zip(before, spread(self.output_padding, ndim)))
        stride, dilation = spread(self.stride, ndim), spread(self.dilation, ndim)
        kernel, signed = kernels(self, ndim)
        return Step(kernel, stride, dilation, before, after, up=True, signed=signed)


@dataclass(frozen=True, repr=False)
class Upsample(Layer):
    """Up-sampling by an integer factor, "nearest" or "bilinear" (linear in 1-D, trilinear in 3-D).

    With `align_corners=True` output o of a map of n pixels reads position o·(n − 1)/(factor·n − 1),
    between o / factor and (factor − 1) / factor before it. On the unbounded plane weights are those
    at o / factor, and the receptive field has all pixels that are read anywhere on a map.
    """

    factor: int | tuple[int, ...]
    mode: str = "nearest"
    align_corners: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", arg.per_axis("factor", self.factor))
        arg.one_of("mode", self.mode, ("nearest", "bilinear"))
        arg.one_of("align_corners", self.align_corners, (True, False))
        if self.align_corners and self.mode == "nearest":
            raise ValueError('align_corners: got True; takes False with mode="nearest"')

    def own_axes(self) -> int | None:
        return axes_of(factor=self.factor)

    def step(self, ndim: int) -> Step:
        factor = spread(self.factor, ndim)
        if self.mode == "nearest":
            shape, taps, before = factor, None, (0,) * ndim
        else:
            rows = [_hat(f, self.align_corners) for f in factor]
            shape = tuple(len(row) for row in rows)
            taps = (Fraction(1),)
            for row in rows:
                taps = tuple(a * b for a in taps for b in row)
            before = tuple(f - 1 if self.align_corners else (k - f + 1) // 2
                           for k, f in zip(shape, factor))  # fmt: skip
        after = tuple(k - f - p for k, f, p in zip(shape, factor, before))
        return Step(Kernel(shape, taps), factor, (1,) * ndim, before, after, up=True, kind="fixed")


def _hat(factor: int, align_corners: bool) -> list[Fraction]:
    """Taps of linear interpolation by `factor`: the triangle sampled at the output's pixels.

    Output o lies at (o + 1/2)/f − 1/2 of the input (o/f with aligned corners), so with an even
    factor the triangle is sampled at half-integers and has 2f taps, otherwise 2f − 1. With aligned
    corners outputs lie up to (f − 1)/f of a pixel before o/f: f − 1 further outputs read a pixel.
    """
    if align_corners:
        places = range(1 - factor, 2 * factor - 1)
        return [Fraction(max(0, factor - abs(i)), factor) for i in places]
    if factor % 2:
        return [Fraction(factor - abs(i), factor) for i in range(1 - factor, factor)]
    return [Fraction(2 * factor - abs(2 * i + 1), 2 * factor) for i in range(-factor, factor)]


@dataclass(frozen=True, repr=False)
class Activation(Layer):
    """A pointwise nonlinearity, by the name of its curve in `network.activations`.

    linear, relu, leaky_relu (`slope` below 0; None is 0.01), abs, elu, tanh, sigmoid, silu; "gelu"
    is x·Φ(x), as in PyTorch, and "gelu_tanh" its approximation by tanh, JAX's default.
    """

    name: str
    slope: Number | None = None

    def __post_init__(self) -> None:
        arg.one_of("name", self.name, ACTIVATIONS)
        if self.slope is not None:
            arg.one_of("name", self.name, (LEAKY,))
            object.__setattr__(self, "slope", arg.number("slope", self.slope))

    @property
    def curve(self) -> str:
        """The key of its curve."""
        return self.name if self.slope is None else leaky(self.slope)


@dataclass(frozen=True, repr=False)
class Dropout(Layer):
    """Inverted dropout: zero with probability `rate`, else divided by 1 − rate."""

    rate: float

    def __post_init__(self) -> None:
        if not 0 <= arg.number("rate", self.rate) < 1:
            raise ValueError(f"rate: got {self.rate}; takes a number in [0, 1)")


class Norm(Layer):
    """What normalisation layers share: what is learned behind one (scale, shift) stays 1 and 0."""


@dataclass(frozen=True, repr=False)
class BatchNorm(Norm):
    """Batch normalisation in training mode: every channel to mean 0 and variance 1."""


@dataclass(frozen=True, repr=False)
class InstanceNorm(Norm):
    """Every channel of one image to mean 0 and variance 1 over its pixels."""


@dataclass(frozen=True, repr=False)
class GroupNorm(Norm):
    """Each of `groups` groups of channels of one image to mean 0 and variance 1, over its pixels
    and channels."""

    groups: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", arg.integer("groups", self.groups))


@dataclass(frozen=True, repr=False)
class LayerNorm(Norm):
    """Every pixel to mean 0 and variance 1 over its channels, as in ConvNeXt."""


@dataclass(frozen=True, repr=False)
class RMSNorm(Norm):
    """Every pixel to mean square 1 over its channels."""
