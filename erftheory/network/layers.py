"""The layers: each is one small class with one spatial rule, `step`.

Offsets follow one convention: output pixel o of a layer reads input pixels s·o + d·a − p for the
taps a = 0 … k−1 (stride s, dilation d, padding before p). Up-sampling layers are the transpose:
input pixel i writes to s·i + d·a − p.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from fractions import Fraction
from typing import Any

from erftheory.network import arguments as arg
from erftheory.network.activations import ACTIVATIONS, LEAKY, leaky
from erftheory.network.arguments import Number, Padding
from erftheory.network.base import Network, same_size
from erftheory.network.graph import SizeRule
from erftheory.network.kernel import Kernel, span_of
from erftheory.network.step import Step
from erftheory.network.weights import Weights, weights


class Layer(Network):
    """One operation. `step(ndim)` is its spatial rule; None if it acts on every pixel alone."""

    def step(self, ndim: int) -> Step | None:
        return None

    def lower(self, builder, source: int, scope: str) -> int:
        return builder.add(self, (source,), scope)

    def _size_rule(self, ndim: int) -> SizeRule:
        step = self.step(ndim)
        return same_size(ndim) if step is None else tuple(map(step.size_rule, range(ndim)))

    def find(self, endpoint: str) -> Network | None:
        return None

    def __repr__(self) -> str:
        shown = []
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.default is MISSING:
                shown.append(repr(value))
            elif value != field.default:
                shown.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


def _axes_of(**values: Any) -> int | None:
    """Number of axes that tuples among the arguments fix, None if all are plain numbers."""
    if tuple not in map(type, values.values()):
        return None
    found: tuple[str, int] | None = None
    for name, value in values.items():
        if isinstance(value, tuple):
            if found is not None and found[1] != len(value):
                raise ValueError(
                    f"{name}: got {len(value)} axes where {found[0]} has {found[1]}; "
                    "takes the same number of axes everywhere"
                )
            found = found or (name, len(value))
    return found[1] if found else None


def _tap_axes(layer: Any) -> dict[str, tuple[int, ...] | None]:
    return {
        "taps": layer.taps.shape if isinstance(layer.taps, Taps) else None,
        "weights": layer.weights.power.shape if isinstance(layer.weights, Weights) else None,
    }


def _states(layer: Any) -> bool:
    """True if some argument states the number of axes. A flat sequence of taps has one, but may
    have been meant for every axis."""
    axes = _axes_of(**layer._arguments(), **_tap_axes(layer))
    if axes != 1 or not isinstance(layer.taps, Taps):
        return axes is not None
    return _axes_of(**layer._arguments()) is not None


def _spread(value: int | tuple[int, ...], ndim: int) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,) * ndim


def _pads(
    padding: Padding, kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Explicit padding before and after. "same" pads d·(k−1) in all, the smaller half before."""
    span = span_of(kernel, dilation)
    if padding == "valid":
        return (0,) * len(span), (0,) * len(span)
    if padding == "same":
        before = tuple(s // 2 for s in span)
        return before, tuple(s - b for s, b in zip(span, before))
    if padding == "causal":
        return span, (0,) * len(span)
    entries = padding if isinstance(padding, tuple) else (padding,) * len(span)
    pairs = [e if isinstance(e, tuple) else (e, e) for e in entries]
    return tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)  # type: ignore[return-value]


class _Window(Layer):
    """Shared by convolutions and pools: a window that slides with stride and dilation."""

    kernel: int | tuple[int, ...]
    stride: int | tuple[int, ...] | None
    dilation: int | tuple[int, ...]
    padding: Padding

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_window(self, words: tuple[str, ...]) -> None:
        self._set("kernel", arg.per_axis("kernel", self.kernel))
        if self.stride is not None:
            self._set("stride", arg.per_axis("stride", self.stride))
        self._set("dilation", arg.per_axis("dilation", self.dilation))
        self._set("padding", arg.padding(self.padding, words))
        self.own_axes()

    def own_axes(self) -> int | None:
        return _axes_of(
            kernel=self.kernel, stride=self.stride, dilation=self.dilation, padding=self.padding
        )

    def _window_step(self, ndim: int, kernel: Kernel, kind: str, signed=None) -> Step:
        dilation = _spread(self.dilation, ndim)
        before, after = _pads(self.padding, kernel.shape, dilation)
        stride = _spread(self.kernel if self.stride is None else self.stride, ndim)
        return Step(kernel, stride, dilation, before, after, kind=kind, signed=signed)


def _check_channels(layer: Any) -> None:
    """Checks `channels`, `groups`, `taps` and `weights` of a convolution."""
    if layer.weights is not None:
        _check_weights(layer)
    if layer.channels is not None:
        object.__setattr__(layer, "channels", arg.integer("channels", layer.channels))
    if layer.groups != "depthwise":
        object.__setattr__(layer, "groups", arg.integer("groups", layer.groups))
        if layer.channels is not None and layer.channels % layer.groups:
            raise ValueError(
                f"groups: got {layer.groups}; takes a divisor of channels={layer.channels} "
                'or "depthwise"'
            )
    if layer.taps is None or isinstance(layer.taps, Taps):
        return
    shape, flat = arg.taps_array(layer.taps)
    expected = _spread(layer.kernel, len(shape))
    if shape != expected:
        raise ValueError(f"taps: got shape {shape}; takes the kernel's shape {expected}")
    object.__setattr__(layer, "taps", Taps(shape, flat))


def _check_weights(layer: Any) -> None:
    if layer.taps is not None:
        raise ValueError("weights: got weights and taps; takes one of the two")
    own = layer.weights
    if not isinstance(own, Weights):
        groups = layer.groups
        if groups == "depthwise":
            groups = layer.channels or len(own)
        own = weights(own, arg.integer("groups", groups))
        object.__setattr__(layer, "weights", own)
        if layer.groups != "depthwise":
            channels = own.outward * layer.groups
            if layer.channels not in (None, channels):
                raise ValueError(
                    f"weights: got {channels} output channels; takes channels={layer.channels}"
                )
            object.__setattr__(layer, "channels", channels)
    expected = _spread(layer.kernel, len(own.power.shape))
    if own.power.shape != expected:
        raise ValueError(
            f"weights: got a kernel of {own.power.shape}; takes the kernel's shape {expected}"
        )


@dataclass(frozen=True)
class Taps:
    """Relative taps as given: shape and row-major exact numbers."""

    shape: tuple[int, ...]
    values: tuple[Number, ...]

    def __repr__(self) -> str:
        def nested(values: tuple[Number, ...], shape: tuple[int, ...]) -> str:
            if len(shape) == 1:
                return "[" + ", ".join(map(str, values)) + "]"
            size = len(values) // shape[0]
            rows = (values[i * size : (i + 1) * size] for i in range(shape[0]))
            return "[" + ", ".join(nested(row, shape[1:]) for row in rows) + "]"

        return nested(self.values, self.shape)


def _kernels(layer: Any, ndim: int) -> tuple[Kernel, Kernel | None]:
    if layer.weights is not None:
        return layer.weights.power, layer.weights.signed
    return _taps_kernel(layer, ndim), None


def _taps_kernel(layer: Any, ndim: int) -> Kernel:
    return Kernel(_spread(layer.kernel, ndim), layer.taps.values if layer.taps else None)


@dataclass(frozen=True, repr=False)
class Conv(_Window):
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
        _check_channels(self)
        self.own_axes()

    def own_axes(self) -> int | None:
        return _axes_of(**self._arguments(), **_tap_axes(self))

    def states_axes(self) -> bool:
        return _states(self)

    def _arguments(self) -> dict[str, Any]:
        return {
            "kernel": self.kernel,
            "stride": self.stride,
            "dilation": self.dilation,
            "padding": self.padding,
        }

    def step(self, ndim: int) -> Step:
        kernel, signed = _kernels(self, ndim)
        return self._window_step(ndim, kernel, "random", signed)


@dataclass(frozen=True, repr=False)
class MaxPool(_Window):
    """Max pooling; `stride=None` means the kernel. Routes the gradient to one tap."""

    kernel: int | tuple[int, ...]
    stride: int | tuple[int, ...] | None = None
    dilation: int | tuple[int, ...] = 1
    padding: Padding = "valid"

    def __post_init__(self) -> None:
        self._check_window(("same", "valid", "causal"))

    def step(self, ndim: int) -> Step:
        return self._window_step(ndim, Kernel(_spread(self.kernel, ndim)), "routing")


@dataclass(frozen=True, repr=False)
class AvgPool(_Window):
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
        return self._window_step(ndim, Kernel(_spread(self.kernel, ndim)), "fixed")


@dataclass(frozen=True, repr=False)
class ConvTranspose(_Window):
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
        _check_channels(self)
        self.own_axes()

    def own_axes(self) -> int | None:
        return _axes_of(**self._arguments(), **_tap_axes(self))

    def states_axes(self) -> bool:
        return _states(self)

    def _arguments(self) -> dict[str, Any]:
        return {
            "kernel": self.kernel,
            "stride": self.stride,
            "padding": self.padding,
            "output_padding": self.output_padding,
            "dilation": self.dilation,
        }

    def step(self, ndim: int) -> Step:
        before = _spread(self.padding, ndim)
        after = tuple(p - o for p, o in zip(before, _spread(self.output_padding, ndim)))
        stride, dilation = _spread(self.stride, ndim), _spread(self.dilation, ndim)
        kernel, signed = _kernels(self, ndim)
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
        return _axes_of(factor=self.factor)

    def step(self, ndim: int) -> Step:
        factor = _spread(self.factor, ndim)
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
