"""What layers share: the base of all, and of those whose window slides with stride and dilation."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import Any

from erftheory.network import arguments as arg
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


def axes_of(**values: Any) -> int | None:
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
    axes = axes_of(**layer._arguments(), **_tap_axes(layer))
    if axes != 1 or not isinstance(layer.taps, Taps):
        return axes is not None
    return axes_of(**layer._arguments()) is not None


def spread(value: int | tuple[int, ...], ndim: int) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,) * ndim


def pads(
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


class Sliding(Layer):
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
        return axes_of(
            kernel=self.kernel, stride=self.stride, dilation=self.dilation, padding=self.padding
        )

    def _window_step(self, ndim: int, kernel: Kernel, kind: str, signed=None) -> Step:
        dilation = spread(self.dilation, ndim)
        before, after = pads(self.padding, kernel.shape, dilation)
        stride = spread(self.kernel if self.stride is None else self.stride, ndim)
        return Step(kernel, stride, dilation, before, after, kind=kind, signed=signed)


class Weighted(Sliding):
    """Shared by convolutions: taps and weights have axes too."""

    taps: Any
    weights: Any

    def own_axes(self) -> int | None:
        return axes_of(**self._arguments(), **_tap_axes(self))

    def states_axes(self) -> bool:
        return _states(self)

    def _arguments(self) -> dict[str, Any]:
        return {
            "kernel": self.kernel,
            "stride": self.stride,
            "dilation": self.dilation,
            "padding": self.padding,
        }


def check_channels(layer: Any) -> None:
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
    expected = spread(layer.kernel, len(shape))
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
    expected = spread(layer.kernel, len(own.power.shape))
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


def kernels(layer: Any, ndim: int) -> tuple[Kernel, Kernel | None]:
    if layer.weights is not None:
        return layer.weights.power, layer.weights.signed
    return _taps_kernel(layer, ndim), None


def _taps_kernel(layer: Any, ndim: int) -> Kernel:
    return Kernel(spread(layer.kernel, ndim), layer.taps.values if layer.taps else None)
