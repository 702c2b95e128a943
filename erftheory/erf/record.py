"""The result record of every engine: an effective receptive field."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from operator import index
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from erftheory.erf import file as files
from erftheory.erf import measures
from erftheory.erf.bound import ErrorBound, Signal, choice
from erftheory.erf.jackknife import Replicates
from erftheory.erf.measures import GaussianFit, Map

if TYPE_CHECKING:
    from matplotlib.figure import Figure


DISTANCES = ("total_variation", "kolmogorov", "kullback_leibler")


class ERF:
    """An effective receptive field: how much each input pixel matters to one output unit.

    The map is a normalised signal over input pixels, pixel i centred at i. It is *separable*
    (`marginals` alone: the map is their outer product, built only when `.map` is read; no measure
    needs it) or *general* (`map`, an array or a function called at most once). Lengths are in
    input pixels. Equality compares signal, method, offset, error, samples, map, standard errors
    and holes; receptive field and metadata are context.

    **Signed maps** (signal "gradient") are divided by their signed sum. `.mean`, `.covariance` and
    `.excess_kurtosis` are signed moments; where a variance is negative there is no deviation, and
    `.std` is NaN. `.size`, `.mass_radius` and `.area_ratio` are those of |map|.
    """

    offset: tuple[int, ...]
    signal: Signal
    method: str
    error: ErrorBound
    receptive_field: Any
    std_stderr: tuple[float, ...] | None
    samples: int | None
    metadata: Mapping[str, Any]
    replicates: Replicates | None
    _separable: bool
    _total: float
    _map: Any
    _log: Any
    _holes: Any
    _stderr: Any
    _covariance: np.ndarray | None

    def __init__(
        self,
        *, offset: tuple[int, ...], signal: Signal, method: str, error: ErrorBound,
        marginals: Sequence[Any] | None = None, map: Any | Callable[[], Any] | None = None,
        receptive_field: Any = None, holes: Any | Callable[[], Any] | None = None,
        log_map: Any | Callable[[], Any] | None = None, covariance: Any = None,
        stderr: Any = None, std_stderr: tuple[float, ...] | None = None,
        samples: int | None = None, metadata: Mapping[str, Any] | None = None,
        replicates: Replicates | None = None,
    ) -> None:  # fmt: skip
        """Marginals and map are copied and divided by their sum.

        offset: input index of the map's first pixel, one int an axis.
        marginals: arrays `(n_i,)`, one an axis; beside `map` they spare building it.
        map: array `(n0, n1, …)` or a function without arguments that returns it.
        receptive_field: a record with `.size`, `.stride`, `.padding` and `.center` of output unit
            0; `metadata["unit"]`, an index, names another unit and says that the map is an image's.
        holes: bool array `(n0, n1, …)`, True where no path arrives; or a tuple of `(n_i,)`, a
            pixel being a hole if it is one on any axis; or a function that returns either.
        log_map: natural log of the normalised map, in the same three forms (a tuple adds up).
        covariance: `(ndim, ndim)` in pixels², where known better than from the map.
        stderr: `(n0, n1, …)` on the scale of `map` as given.
        replicates: maps of independent batches, for `standard_error`.
        ValueError if a shape does not match, a sum is not finite, or the mass is zero.
        """
        choice("signal", signal, get_args(Signal))
        state = self.__dict__
        state.update(
            offset=_offset(offset), signal=signal, method=method, error=error,
            receptive_field=receptive_field, std_stderr=std_stderr, samples=samples,
            metadata={} if metadata is None else metadata, _separable=map is None,
            _map=map, _holes=holes, _log=log_map, _stderr=stderr, _covariance=None,
            replicates=replicates,
        )  # fmt: skip
        if marginals is not None:
            known: dict[int, tuple[np.ndarray, float]] = {}  # axes alike share one array
            for side in marginals:
                if id(side) not in known:
                    known[id(side)] = _normalised(side, "marginals", signal, 1)
            sides = [known[id(side)] for side in marginals]
            self._expect("marginals", (len(sides),), (len(offset),))
            state["marginals"] = tuple([side for side, _ in sides])
            state["_total"] = math.prod([total for _, total in sides])
        elif map is None:
            raise ValueError("marginals: got None and map None, takes at least one of the two")
        if map is not None and not callable(map):
            state["map"] = self._build(map)
        if covariance is not None:
            state["_covariance"] = np.array(covariance, dtype=np.float64)
            self._expect("covariance", state["_covariance"].shape, (len(offset),) * 2)

    def _expect(self, name: str, got: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        if got != wanted:
            raise ValueError(f"{name}: got shape {got}, takes {wanted} beside the other arguments")

    def _build(self, values: Any) -> np.ndarray:
        result, total = _normalised(values, "map", self.signal, self.ndim)
        if "marginals" in self.__dict__:
            self._expect("map", result.shape, self.shape)
        self.__dict__["_total"] = total
        return result

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"an ERF is immutable: cannot set {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"an ERF is immutable: cannot delete {name}")

    @cached_property
    def map(self) -> np.ndarray:
        """The map `(n0, n1, …)`, float64, sum 1, read-only."""
        if not self._separable:
            return self._build(self._map())
        result = measures.build(self.marginals)
        result.flags.writeable = False
        return result

    @cached_property
    def marginals(self) -> tuple[np.ndarray, ...]:
        """Sums of the map over all other axes, one `(n_i,)` an axis."""
        return measures.marginals(self.map)

    @property
    def _form(self) -> Map:
        return self.marginals if self._separable else self.map

    @property
    def ndim(self) -> int:
        return len(self.offset)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Pixels per axis."""
        return tuple(map(len, self.marginals))

    @cached_property
    def _log_form(self) -> Map:
        """Natural log of the map: an array, or a tuple of logs that add up."""
        log = self._log() if callable(self._log) else self._log
        if log is not None:
            return log if isinstance(log, tuple) else np.asarray(log, dtype=np.float64)
        with np.errstate(divide="ignore"):
            form = self._form
            single = isinstance(form, np.ndarray)
            return np.log(np.abs(form)) if single else tuple(np.log(np.abs(m)) for m in form)

    @cached_property
    def log_map(self) -> np.ndarray:
        """Natural log of |map|: −inf in holes, finite where known though `.map` underflows."""
        log = measures.build(self._log_form, np.add)
        return log if self.holes is None else np.where(self.holes, -np.inf, log)

    @cached_property
    def _hole_form(self) -> Any:
        holes = self._holes() if callable(self._holes) else self._holes
        if holes is None:
            return None
        parts = holes if isinstance(holes, tuple) else (holes,)
        parts = tuple(np.asarray(part, dtype=bool) for part in parts)
        self._expect("holes", tuple(n for part in parts for n in part.shape), self.shape)
        return parts if isinstance(holes, tuple) else parts[0]

    @cached_property
    def holes(self) -> np.ndarray | None:
        """True where no path reaches a pixel inside the extent; None if the method cannot tell."""
        form = self._hole_form
        return None if form is None else measures.build(form, np.logical_or)

    @cached_property
    def stderr(self) -> np.ndarray | None:
        """One standard error of each pixel of the map, or None."""
        if self._stderr is None:
            return None
        values = np.asarray(self._stderr, dtype=np.float64)
        # A lazy map's scale is known once it is built.
        self._expect("stderr", values.shape, self.shape if self._separable else self.map.shape)
        return values / abs(self._total)

    @cached_property
    def mean(self) -> tuple[float, ...]:
        """Centre of mass per axis, as an input index (offset included)."""
        return tuple(o + measures.mean(m) for o, m in zip(self.offset, self.marginals, strict=True))

    @cached_property
    def covariance(self) -> np.ndarray:
        """Covariance `(ndim, ndim)` in pixels²."""
        if self._covariance is not None:
            return self._covariance
        result = measures.covariance(self._form)
        np.fill_diagonal(result, [measures.variance(side) for side in self.marginals])
        return result

    @cached_property
    def std(self) -> tuple[float, ...]:
        """Standard deviation per axis in pixels; NaN where a signed variance is negative."""
        if self._covariance is None:
            spread = [measures.variance(side) for side in self.marginals]
        else:
            spread = self._covariance.diagonal().tolist()
        return tuple(math.sqrt(v) if v >= 0 else math.nan for v in spread)

    @cached_property
    def excess_kurtosis(self) -> tuple[float | None, ...]:
        """Per axis, 0 for a Gaussian; None where the variance is 0."""
        return tuple(map(measures.excess_kurtosis, self.marginals))

    def size(self, threshold: float = measures.SIZE_THRESHOLD) -> float:
        """count^(1/ndim) of the pixels above `threshold` × peak (L16; see `measures.size`)."""
        return measures.size(self._form, threshold)

    def mass_radius(self, t: float) -> float:
        """Radius of the smallest disc about the centre of mass that holds share `t` of |map|."""
        return measures.mass_radius(self._form, t)

    @cached_property
    def box(self) -> tuple[tuple[float, float], ...] | None:
        """First and last input pixel of the receptive field per axis, None if it is not known."""
        field = self.receptive_field
        if field is None:
            return None
        unit = self.metadata.get("unit", (0,) * self.ndim)
        axes = zip(field.size, unit, field.stride, field.padding, strict=True)
        firsts = [-math.inf if n == math.inf else float(u * s - p) for n, u, s, p in axes]
        return tuple((f, f + n - 1 if f > -math.inf else n) for f, n in zip(firsts, field.size))

    def area_ratio(self, t: float) -> float:
        """Area of the smallest square with share `t` of |map| over the receptive field's area.

        The square is centred at the pixel nearest the receptive field's centre (the upper one of
        two; the map's centre if that is not known) and cut at the map's edges. The map's area
        stands in where the receptive field is unknown or infinite, or the map is an image's. This
        is the high-contribution area ratio of D22, independent of the map's scale.
        """
        center, whole = [n // 2 for n in self.shape], list(self.shape)
        for axis, (first, last) in enumerate(self.box or ()):
            if math.isfinite(first):
                nearest = math.floor((first + last) / 2 + 0.5) - self.offset[axis]
                center[axis] = min(max(nearest, 0), whole[axis] - 1)
                if "unit" not in self.metadata:
                    whole[axis] = max(whole[axis], int(last - first) + 1)
        return math.prod(measures.square_sides(self._form, center, t)) / math.prod(whole)

    def gaussian_fit(self) -> GaussianFit:
        """The Gaussian of the same mean and covariance, and how well it fits."""
        return measures.gaussian_fit(self._form, self.offset, self.mean, self.covariance)

    def windowed(self, first: tuple[int, ...], shape: tuple[int, ...], log: bool = False) -> Map:
        """The map or its log on a window around it, as marginals (that add up) if separable."""
        form, fill = (self._log_form, -np.inf) if log else (self._form, 0.0)
        return measures.pad(form, self.offset, first, shape, fill)

    def distance(self, other: ERF | GaussianFit, kind: str = "total_variation") -> float:
        """Distance to another ERF or to a `gaussian_fit()`, aligned by offset, zero outside.

        kind: "total_variation" (½ Σ|p − q|), "kolmogorov" (largest difference of the distribution
        functions, over lower orthants), or "kullback_leibler" (Σ p log(p/q) in nats: not
        symmetric, ∞ where `other` has no mass and this one has).
        """
        choice("kind", kind, DISTANCES)
        if getattr(other, "ndim", None) != self.ndim or not isinstance(other, ERF | GaussianFit):
            got = f"{type(other).__name__} of {getattr(other, 'ndim', 'no')} axes"
            raise ValueError(f"other: got {got}, takes an ERF or GaussianFit of {self.ndim} axes")
        window = measures.union((self.offset, self.shape), (other.offset, other.shape))
        p, q = self.windowed(*window), other.windowed(*window)
        if kind == "kullback_leibler":
            logs = [side.windowed(*window, log=True) for side in (self, other)]
            return measures.kullback_leibler(p, q, *logs)
        return (measures.kolmogorov if kind == "kolmogorov" else measures.total_variation)(p, q)

    def standard_error(self, measure: str | Callable[..., Any] = "std", *arguments: Any) -> Any:
        """One standard error of a measure of a sampled map, by the jackknife over batches of nets.

        measure: "mean", "std", "excess_kurtosis" (one value an axis), "size", "mass_radius" (with
        its share as argument), or a function of a map `(n0, n1, …)` of sum 1. ValueError for
        another name, or an ERF that was not sampled.
        """
        if self.replicates is None:
            raise ValueError(f"measure: got an ERF by {self.method!r}; takes a sampled one")
        return self.replicates.standard_error(measure, *arguments)

    if TYPE_CHECKING:  # attached by erftheory/__init__, since they stand on this record

        def compare(self, other: ERF) -> Any: ...

        def plot(self, **options: Any) -> Figure: ...

        def _repr_html_(self) -> str: ...

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ERF):
            return NotImplemented
        names = ["signal", "method", "offset", "shape", "error", "samples", "std_stderr"]
        if any(getattr(self, name) != getattr(other, name) for name in names):
            return False
        arrays = ["_form" if self._separable == other._separable else "map", "stderr", "holes"]
        return all(_same(getattr(self, name), getattr(other, name)) for name in arrays)

    def __hash__(self) -> int:
        return hash((self.offset, self.signal, self.method))

    def __repr__(self) -> str:
        extent, std = "lazy map", ""
        if self.__dict__.keys() & {"marginals", "map"}:
            extent = "x".join(map(str, self.shape))
            std = f"std ({', '.join(f'{s:.3g}' for s in self.std)}{',' * (self.ndim == 1)}), "
        what = f"{self.signal} signal, {std}{self.method}, {self.error}"
        return f"ERF({extent} at {self.offset}, {what})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to `path` as .npz, whole or not at all: numpy arrays and JSON text only.

        What was a function is stored as its value; of the receptive field four numbers an axis
        are kept (`SavedReceptiveField`). ValueError for metadata that JSON cannot hold.
        """
        files.write(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ERF:
        """The record that `save` wrote. ValueError for any other file."""
        return files.read(cls, path)


def _offset(offset: Any) -> tuple[int, ...]:
    try:
        if type(offset) is tuple and offset:
            return tuple([index(first) for first in offset])
    except TypeError:
        pass
    raise ValueError(f"offset: got {offset!r}, takes a tuple of ints, one an axis")


def _normalised(values: Any, name: str, signal: str, ndim: int) -> tuple[np.ndarray, float]:
    """A read-only copy with sum 1, and the sum before."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != ndim or not array.size:
        raise ValueError(f"{name}: got shape {array.shape}, takes {ndim} axes, none of them empty")
    total = float(np.add.reduce(array, axis=None))
    if not math.isfinite(total):
        raise ValueError(f"{name}: got NaN or infinity in the sum, takes finite numbers")
    low = float(np.minimum.reduce(array, axis=None))
    if low < 0 and signal != "gradient" and low < -1e-9 * np.abs(array).max():
        raise ValueError(f"{name}: got negative entries, takes none for the {signal} signal")
    # Entries that cancel leave a sum of rounding errors.
    if total == 0 or (low < 0 and abs(total) <= 2e-15 * np.abs(array).sum()):
        raise ValueError(f"{name}: the signal has zero mass and cannot be normalised")
    array = array / total
    array.flags.writeable = False
    return array, total


def _same(left: Any, right: Any) -> bool:
    """Equal arrays, tuples of arrays, or None."""
    pairs = zip(left, right, strict=True) if isinstance(left, tuple) else [(left, right)]
    return all(np.array_equal(a, b) for a, b in pairs)
