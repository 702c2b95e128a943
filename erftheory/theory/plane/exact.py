"""The exact effective receptive field on the unbounded plane."""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import cache, cached_property
from typing import Any

import numpy as np

from erftheory.erf import ERF, ErrorBound
from erftheory.erf.measures import magnitude
from erftheory.network.arguments import one_of
from erftheory.network.base import Network
from erftheory.network.initialisation import Init
from erftheory.theory.gains.between import between
from erftheory.theory.gains.prepare import prepare
from erftheory.theory.lowering.squares import CORRELATED
from erftheory.theory.plane import window as windows
from erftheory.theory.plane.axis import Marginal
from erftheory.theory.plane.convolution import (
    EPS,
    PLAIN,
    bound,
    deepest,
    log_convolved,
    steps,
    work,
)
from erftheory.theory.plane.lattices import LatticeAlgebra
from erftheory.theory.plane.tilted import Line
from erftheory.theory.readings.idealised import idealised, marked
from erftheory.theory.readings.lattice import has_gaps, holes
from erftheory.theory.readings.receptive_field import extent, receptive_field
from erftheory.theory.walk.links import MIXED, mixed_weights
from erftheory.theory.walk.walk import Walk

METHODS = ("auto", "tilted", "convolution", "direct", "spectrum")
CHEAP = 2**32  # taps times pixels up to which direct convolution is the default for a map
NEGLIGIBLE = 1e-17  # share of a map whose aliasing no digit sees


def exact(
    network: Network,
    signal: str = "variance",
    init: Init | None = "he",
    unit: str | tuple[int, ...] = "center",
    method: str = "auto",
    window: Any = None,
    image: int | tuple[int, ...] | None = None,
    padding_mode: str = "zeros",
    source: str | None = None,
    output: str | None = None,
) -> ERF:
    """The ERF of one output unit, float64, normalised to sum 1.

    Args:
      signal: "variance" E[g²] of random weights, "magnitude" its square root, or "gradient" g with
        the taps as weights.
      init: the variance of the weights, which gives the gains where branches meet: "he" 2/fan_in,
        "lecun" and "flax" 1/fan_in, "xavier" and "keras" 2/(fan_in + fan_out), "torch" 1/(3 fan_in)
        (of biases too), a number c for c/fan_in; None counts raw paths.
      unit: index of the output unit, one int an axis; "center" is index 0 of the unbounded
        plane. It matters for up-sampling networks, where it chooses the output phase. On an
        image it is an index of the output grid, and "center" is n // 2 on each axis.
      method: "tilted" (short Fourier transforms of tilted signals, axis by axis) and
        "convolution" (layer by layer, tilted where floats end) know every weight ≥ 0 to nearly
        all its digits; NumPy, with nothing to compile. "spectrum" (one Fourier transform) and
        "direct" (repeated convolution) run in JAX on its default device, take signed taps and
        up-sampling, and know all weights to the digits of the largest. "auto" takes what has
        most digits and is affordable; the result names it.
      window: None is the whole support up to 2^16 pixels an axis, beyond that the smallest window
        that leaves out at most 1e-12 of the signal. Else, for all axes or as a tuple with one
        entry an axis: pixels about the centre of mass (an int), deviations on each side ("8
        std"), or a `range` of input pixels, counted like `ERF.offset`. The map is normalised on
        its window; `metadata["inside"]` is the share of the whole signal that it holds, and
        `error.outside` a certified bound for the rest.
      image: pixels of a finite input, an int or one an axis; None is the unbounded plane. The map
        has the image's shape and offset 0, `metadata["unit"]` names the unit and
        `metadata["lost"]` is the share of the signal that the image's rim takes away
        (docs/finite_images.md). Gains are those of the unbounded plane, but norms divide by the
        deviations that maps have on the image.
      padding_mode: on an image, what convolutions and pools read in their paddings: "zeros",
        "reflect", "replicate" or "circular".
      source, output: names that `until` takes: the map of a unit of `output` over the pixels of
        `source`, with the gains of the whole network (`between`); None is the network's end. Beside
        `image`, which stays the network's own, the map has the pixels that `source` makes of it.

    Raises:
      ValueError: an argument out of range, a global operation on the unbounded plane, signed taps
        in the variance signal, a signal of mass 0, an image too small for a layer.

    Reference: Luo et al., NIPS 2016, section 2; Daniels 1954 for the tilt.
    """
    one_of("method", method, METHODS)
    if image is not None:
        if window is not None:
            raise ValueError(f"window: got {window!r} beside image; takes one of the two")
        if method != "auto":
            raise ValueError(f'method: got {method!r} beside image; takes "auto"')
        from erftheory.theory.image.units import on_image

        return on_image(network, image, unit, signal, init, padding_mode, source, output)
    if padding_mode != "zeros":
        raise ValueError(
            f"padding_mode: got {padding_mode!r} without image; takes an image beside it"
        )
    network = between(network, source, output)
    walk = prepare(network, signal, init)
    reading = _Signed if walk.signed or walk.restricted else _Positive
    made = reading(network, walk, signal, unit, method, window)
    made.why = idealised(network, signal, init)
    return made.erf()


class _LazyField:
    """The receptive field, computed when a figure asks for it."""

    def __init__(self, network: Network):
        self._network = network

    def __getattr__(self, name: str):
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(receptive_field(self._network), name)


class _Reading(ABC):
    """One call of `exact`: the walk, the unit, and the window `offset`, `shape`; `why` the model
    is idealised."""

    why = ""

    def __init__(self, network: Network, walk: Walk, signal: str, unit, method: str, window: Any):
        self.network, self.walk, self.signal, self.method = network, walk, signal, method
        self.root = signal == "magnitude"
        self.position = _position(walk, unit)
        span = extent(walk, self.position)
        if span is None:
            raise ValueError(f"unit: got {unit!r}, which no input reaches; takes a connected unit")
        self.support = tuple((first // f, last // f) for (first, last), f in zip(span, walk.fine))
        requests = windows.parse(window, walk.ndim)
        pixels = tuple(self.pixels(axis, request) for axis, request in enumerate(requests))
        self.offset = tuple(first for first, _ in pixels)
        self.shape = tuple(last - first + 1 for first, last in pixels)
        self.whole = pixels == self.support

    @abstractmethod
    def pixels(self, axis: int, request: windows.Window) -> tuple[int, int]:
        """First and last pixel of the window along an axis."""

    @abstractmethod
    def erf(self) -> ERF: ...

    def record(self, method: str, error: ErrorBound, **what: Any) -> ERF:
        if mixed_weights(self.network.graph):
            error = ErrorBound("approximation", math.inf, MIXED, error.outside)
        if self.walk.correlated:
            error = ErrorBound("approximation", math.inf, CORRELATED, error.outside)
        error = marked(error, self.why)
        return ERF(
            offset=self.offset,
            signal=self.signal,  # pyright: ignore[reportArgumentType]
            method=method,
            error=error,
            receptive_field=_LazyField(self.network),
            **what,
        )

    def meets_signal(self, some: bool | np.bool_) -> None:
        """Refuse a window of holes alone."""
        if not some and not self.whole:
            spans = " x ".join(f"{o} to {o + n - 1}" for o, n in zip(self.offset, self.shape))
            raise ValueError(
                f"window: got pixels {spans}, holes that no path reaches; takes a window with "
                "some of the signal in it"
            )

    def transformed(self, method: str, around=None) -> np.ndarray:
        from erftheory.theory.plane.transform import transform_map  # JAX, which few readings need

        return transform_map(self.walk, self.position, self.offset, self.shape, method, around)

    def rounding(self, method: str, outside: float = 0.0) -> ErrorBound:
        if method == "convolution":
            return ErrorBound("rounding", EPS * (steps(self.walk) + 4), "sum over pixels", outside)
        from erftheory.theory.plane.transform import transform_bound

        bound = transform_bound(self.walk, self.shape, method)
        return ErrorBound("rounding", bound, "sum over pixels", outside)

    @cached_property
    def holes(self) -> np.ndarray:
        """True where no path arrives, shape `shape`."""
        if not has_gaps(self.walk):
            return np.zeros(self.shape, dtype=bool)
        return holes(self.walk, self.position, self.offset, self.shape)


class _Positive(_Reading):
    """Weights ≥ 0 and no up-sampling: every axis has its tilts, tails and window."""

    def __init__(self, *arguments):
        self.axes: dict = {}
        super().__init__(*arguments)

    def axis(self, axis: int) -> Marginal:
        place = None if self.position is None else (self.position[axis],)
        key = (self.walk.axis(axis), place)
        if key not in self.axes:
            self.axes[key] = Marginal(*key)
        return self.axes[key]

    def pixels(self, axis: int, request: windows.Window) -> tuple[int, int]:
        support = self.support[axis]
        if request == windows.Window() and support[1] - support[0] < windows.WHOLE:
            return support
        marginal = self.axis(axis)
        share = windows.OUTSIDE / (2 * self.walk.ndim)
        return request.resolve(
            support, marginal.mean, marginal.std, lambda: marginal.window(share, self.root)
        )

    def line(self, axis: int) -> tuple[Line, str]:
        first, size = self.offset[axis], self.shape[axis]
        return self.axis(axis).line(first, first + size - 1, self.method)

    @property
    def outside(self) -> float:
        """A bound for the share of the signal that the window leaves out."""
        if self.whole:
            return 0.0
        ends = zip(self.offset, self.shape)
        shares = (self.axis(a).outside(f, f + n - 1, self.root) for a, (f, n) in enumerate(ends))
        return min(1.0, sum(shares))

    def erf(self) -> ERF:
        if self.method in ("spectrum", "direct"):
            return self.by_transform(self.method, self.walk.separable)
        if self.walk.separable or self.walk.ndim == 1:
            return self.product()
        if self.method == "tilted":
            raise ValueError(
                'method: got "tilted" for paths that meet in more than one dimension; takes "auto"'
            )
        asked = self.method == "convolution"
        if self.whole and (asked or work(self.walk) * math.prod(self.shape) <= CHEAP):
            return self.by_convolution()
        if asked:
            raise ValueError(
                'method: got "convolution" for a window of paths that meet in more than one '
                'dimension; takes "auto"'
            )
        return self.by_transform("spectrum", False)

    def product(self) -> ERF:
        """An outer product of axes, each with all its digits."""
        lines: list[tuple[Line, str]] = []
        known: dict = {}  # of axes alike, one is computed
        for axis in range(self.walk.ndim):
            same = id(self.axis(axis)), self.offset[axis], self.shape[axis]
            if same not in known:
                known[same] = self.line(axis)
            lines.append(known[same])
        logs = [line.log for line, _ in lines]
        self.meets_signal(all(np.isfinite(log.max()) for log in logs))
        inside = 1.0
        if not self.whole:
            inside = math.prod(_each(lambda log: float(np.exp(log).sum()), logs))
        errors = [line.error for line, _ in lines]
        bound = sum(_each(lambda error: float(error.max()), errors))
        if self.root:
            logs = _each(lambda log: log / 2, logs)
            bound /= 2
        logs = _each(lambda log: log - _log_sum(log), logs)
        return self.record(
            "convolution" if any(how == "convolution" for _, how in lines) else "tilted",
            ErrorBound("relative", bound, "every pixel", self.outside),
            marginals=_each(np.exp, logs),
            log_map=tuple(logs),
            holes=tuple(_each(np.isneginf, logs)),
            metadata={} if self.whole else {"inside": inside},
        )

    def by_convolution(self) -> ERF:
        """Paths that meet in several dimensions: marginals by tilts, the map when it is read."""

        @cache
        def logs() -> np.ndarray:
            log, _ = log_convolved(self.walk, self.position, self.offset, self.holes)
            log = log / 2 if self.root else log
            return log - _log_sum(log)

        return self.record(
            "convolution",
            ErrorBound("relative", bound(self.walk) / (2 if self.root else 1), "every pixel"),
            map=lambda: np.exp(logs()),
            log_map=logs,
            marginals=None if self.root else self._marginals(),
            holes=lambda: self.holes,
        )

    def _marginals(self) -> list[np.ndarray]:
        return [np.exp(self.line(a)[0].log) for a in range(self.walk.ndim)]

    def by_transform(self, method: str, separable: bool) -> ERF:
        from erftheory.theory.plane.transform import transform_map

        error = self.rounding(method, self.outside)
        if separable:
            lines = []
            for a, (first, size) in enumerate(zip(self.offset, self.shape)):
                place = None if self.position is None else (self.position[a],)
                around = None if self.whole else (self._around(a),)
                line = self.walk.axis(a)
                lines.append(transform_map(line, place, (first,), (size,), method, around))
            self.meets_signal(all(x.any() for x in lines))
            metadata = {} if self.whole else {"inside": math.prod(float(x.sum()) for x in lines)}
            sides = [magnitude(x) for x in lines] if self.root else lines
            gaps = tuple(x == 0 for x in lines) if has_gaps(self.walk) else None
            return self.record(method, error, marginals=sides, metadata=metadata, holes=gaps)
        around = None if self.whole else tuple(map(self._around, range(self.walk.ndim)))
        if not self.whole:
            values = self.transformed(method, around)
            self.meets_signal(values.any())
            inside = {"inside": float(values.sum())}
            kept = magnitude(values) if self.root else values
            return self.record(method, error, map=kept, metadata=inside, holes=lambda: self.holes)

        def full() -> np.ndarray:
            values = self.transformed(method)
            return np.asarray(magnitude(values)) if self.root else values

        sides = None if self.root else self._marginals()
        return self.record(method, error, map=full, marginals=sides, holes=lambda: self.holes)

    def _around(self, axis: int) -> tuple[int, int]:
        """Lattice points that hold the window and all but a negligible share of the signal."""
        first, last = self.axis(axis).window(NEGLIGIBLE)
        start = self.offset[axis]
        return min(first, start), max(last, start + self.shape[axis] - 1)


class _Signed(_Reading):
    """Signed taps or up-sampling: no tilts; the window is cut from the whole map."""

    def pixels(self, axis: int, request: windows.Window) -> tuple[int, int]:
        support = self.support[axis]
        size = support[1] - support[0] + 1
        if request == windows.Window():
            return support
        if request.deviations is not None:
            why = "signed taps" if self.walk.signed else "up-sampling"
            raise ValueError(f"window: got deviations for {why}; takes pixels or ranges")
        return request.resolve(support, support[0] + (size - 1) / 2, 0.0, lambda: support)

    def erf(self) -> ERF:
        if self.method == "tilted":
            why = "signed taps" if self.walk.signed else "up-sampling"
            raise ValueError(f'method: got "{self.method}" for {why}; takes "auto"')
        method = "spectrum" if self.method == "auto" else self.method
        cheap = work(self.walk) * math.prod(self.shape) <= CHEAP
        if self.method == "auto" and not self.walk.signed and cheap:
            method = "convolution"
        separable = self.walk.separable and not self.walk.restricted
        values, metadata = None, {}
        if not self.whole:
            values, metadata = self._cut(method)
        elif not separable:
            values = self._map(method, self.offset, self.shape)
        error = self.rounding(method)
        if method != "spectrum" and values is not None and not self.walk.signed:
            if deepest(self.walk) < PLAIN:  # nothing underflows
                value = EPS * (steps(self.walk) + 4)
                error = ErrorBound("relative", value / 2 if self.root else value, "every pixel")
        if values is None:
            lines = self._lines(method)
            error = self._cancelled(error, lines)
            return self.record(method, error, marginals=lines, holes=lambda: self.holes)
        error = self._cancelled(error, [values])
        kept = np.asarray(magnitude(values)) if self.root else values
        return self.record(method, error, map=kept, metadata=metadata, holes=lambda: self.holes)

    def _cut(self, method: str) -> tuple[np.ndarray, dict[str, float]]:
        """The window of the whole map, and its share: units of other phases have other sums."""
        first = tuple(low for low, _ in self.support)
        shape = tuple(high - low + 1 for low, high in self.support)
        whole = self._map(method, first, shape)
        rows = zip(self.offset, first, self.shape)
        values = whole[tuple(slice(o - f, o - f + n) for o, f, n in rows)]
        self.meets_signal(values.any())
        total = float(whole.sum())
        return values, {"inside": float(values.sum()) / total if total else math.nan}

    def _map(self, method: str, first: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
        if method == "convolution":
            start = tuple(a * f for a, f in zip(first, self.walk.fine))
            return LatticeAlgebra().window(self.walk, self.position, start, shape)
        from erftheory.theory.plane.transform import transform_map

        return transform_map(self.walk, self.position, first, shape, method)

    def _cancelled(self, error: ErrorBound, parts: list[np.ndarray]) -> ErrorBound:
        """The error of the map of sum 1: signed weights cancel, and their errors do not."""
        if not self.walk.signed:
            return error
        left = math.prod(abs(float(part.sum())) for part in parts)
        if left <= error.value:
            raise ValueError(
                f"taps: got signed taps whose signal cancels to a mass of {left:.1g} of that of "
                f"|taps|, below the rounding error {error.value:.1g}; takes taps of another sum or "
                "fewer layers (counting has the exact weights)"
            )
        # the sum is off as well, and every pixel is divided by it
        whole = math.prod(float(np.abs(part).sum()) for part in parts)
        return replace(error, value=error.value / left * (1 + whole / left))

    def _lines(self, method: str) -> list[np.ndarray]:
        from erftheory.theory.plane.transform import transform_map

        if method == "convolution":
            rows = zip(self.offset, self.shape, self.walk.fine)
            return [
                LatticeAlgebra().window(
                    self.walk.axis(a), None if self.position is None else (self.position[a],),
                    (first * fine,), (size,),
                )
                for a, (first, size, fine) in enumerate(rows)
            ]  # fmt: skip

        lines = []
        for a, (first, size) in enumerate(zip(self.offset, self.shape)):
            place = None if self.position is None else (self.position[a],)
            lines.append(transform_map(self.walk.axis(a), place, (first,), (size,), method))
        return lines


def _position(walk: Walk, unit) -> tuple[int, ...] | None:
    if unit == "center":
        return None
    place = (unit,) if walk.ndim == 1 and np.ndim(unit) == 0 else unit
    try:
        if isinstance(place, str) or len(place) != walk.ndim:
            raise TypeError
        return tuple(operator.index(u) * j for u, j in zip(place, walk.jump))
    except TypeError:
        raise ValueError(f'unit: got {unit!r}; takes "center" or {walk.ndim} ints') from None


def _each(function: Callable[[Any], Any], values: list[Any]) -> list[Any]:
    """The function of each value, found once for one that several axes share."""
    known: dict[int, Any] = {}
    for value in values:
        if id(value) not in known:
            known[id(value)] = function(value)
    return [known[id(value)] for value in values]


def _log_sum(log: np.ndarray) -> float:
    top = float(log.max())
    return top + math.log(float(np.exp(log - top).sum()))
