"""Asymptotic approximations of the ERF: normal, Edgeworth and saddlepoint, at any depth.

The formulas are those of the derivations in `erftheory.symbolic`, turned into functions. What they
need of a network are cumulants, which add along its walk: the cost does not depend on depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from erftheory.erf import ERF, ErrorBound
from erftheory.network.arguments import integer, one_of
from erftheory.network.base import Network
from erftheory.network.initialisation import Init
from erftheory.theory.gains.prepare import prepare
from erftheory.theory.limits.errors import at_tilts, over_period
from erftheory.theory.limits.saddlepoint import Tilts, tilts
from erftheory.theory.plane import window as windows
from erftheory.theory.plane.axis import Marginal
from erftheory.theory.readings.cumulants import CumulantAlgebra
from erftheory.theory.readings.receptive_field import extent, receptive_field
from erftheory.theory.walk.walk import Walk

KINDS = {"normal": (0, 0), "edgeworth": (2, 4), "saddlepoint": (0, 2)}  # default, largest order
EPS = float(np.finfo(np.float64).eps)
PROBED = 33  # pixels at which the error of the saddlepoint approximation is bounded


def approximate(
    network: Network,
    kind: str = "edgeworth",
    order: int | None = None,
    signal: str = "variance",
    init: Init | None = "he",
    window: Any = None,
    axis: int | None = None,
) -> ERF:
    """An asymptotic formula for the ERF of output 0, on the unbounded plane.

    Args:
      kind: "normal" is the normal density at the pixels, "edgeworth" corrects it by cumulants,
        "saddlepoint" tilts it to every pixel (Daniels). For n equal layers the error of a pixel
        over the peak falls like n^(−(order + 1)/2) by Edgeworth's expansion, and the relative
        error like n^(−order − 1) by the saddlepoint, at every fixed share of the receptive field.
      order: of the corrections. "edgeworth": 0 to 4 powers of n^(−1/2), default 2, which takes
        cumulants to order + 2 (0 is the normal law). "saddlepoint": 0 to 2 powers of 1/n,
        default 0. "normal": 0.
      signal: "variance", "gradient" (with taps ≥ 0), or "magnitude", the square root of the
        variance's approximation.
      init: as for `exact`; None counts raw paths.
      window: as for `exact`.
      axis: gives the marginal of one axis alone. It is needed where paths meet in two or three
        dimensions, so that the map is no product of its marginals.

    Returns:
      An ERF of marginals, normalised on its window; `log_map` is finite in tails where `map`
      underflows. `metadata["mass"]` is the sum of the formula over the window, which is near 1
      for the whole support. `error` bounds, by quadrature, the largest error of a pixel over the
      Gaussian's peak ("normal", "edgeworth"; for the magnitude that of its square) or the largest
      relative error at 33 pixels of each axis ("saddlepoint"). Pixels without weight by the
      lattice of paths are 0, and so are those where Edgeworth's expansion is negative. The first
      and the last pixel of the support, which no finite tilt reaches, have their exact weight.

    Raises:
      ValueError: an argument out of range, a global operation, signed taps, up-sampling, or paths
        that meet in more than one dimension without `axis`.

    Source: Edgeworth 1905 (Petrov, Sums of Independent Random Variables, 1975, VII on lattices);
    Daniels, Ann. Math. Statist. 25, 1954.
    """
    one_of("kind", kind, tuple(KINDS))
    order = _order(kind, order)
    walk = prepare(network, signal, init)
    _check(walk, signal, axis)
    axes = list(range(walk.ndim)) if axis is None else [axis]
    requests = windows.parse(window, len(axes))
    known: dict[Any, _Line] = {}
    for a, request in zip(axes, requests):
        key = (walk.axis(a), request)
        if key not in known:
            known[key] = _Line(walk, a, request, len(axes), signal == "magnitude", kind, order)
    lines = [known[walk.axis(a), request] for a, request in zip(axes, requests)]
    root = signal == "magnitude"
    logs = [_normalised(line.log / 2 if root else line.log) for line in lines]
    return ERF(
        offset=tuple(line.first for line in lines),
        signal=signal,  # pyright: ignore[reportArgumentType]
        method=kind,
        error=_error(lines, root),
        receptive_field=receptive_field(network) if axis is None else None,
        marginals=[np.exp(log) for log in logs],
        log_map=tuple(logs),
        holes=tuple(np.isneginf(log) for log in logs),
        metadata={"order": order, "mass": math.prod(line.mass for line in lines)},
    )


def _order(kind: str, order: int | None) -> int:
    default, largest = KINDS[kind]
    if order is None:
        return default
    if isinstance(order, bool) or not isinstance(order, int) or not 0 <= order <= largest:
        raise ValueError(f"order: got {order!r}; takes an integer from 0 to {largest} for {kind!r}")
    return order


def _check(walk: Walk, signal: str, axis: int | None) -> None:
    if walk.signed:
        raise ValueError("taps: got signed ones, whose signal is no distribution; takes taps >= 0")
    if walk.restricted:
        raise ValueError("network: got up-sampling, which keeps no cumulants; takes none")
    if axis is not None and integer("axis", axis, 0) >= walk.ndim:
        raise ValueError(f"axis: got {axis}; takes an integer < {walk.ndim}")
    if walk.separable:
        return
    if walk.ndim > 1 and axis is None:
        raise ValueError("axis: got None for paths that meet in several dimensions; takes an axis")
    if walk.ndim > 1 and signal == "magnitude":
        raise ValueError('signal: got "magnitude" for one axis of a map; takes "variance"')


class _Line:
    """One axis: the logs of the unnormalised formula at pixels first, first + 1, …"""

    def __init__(self, walk: Walk, axis: int, request, share: int, root: bool, kind: str, order):
        self.kind, self.order = kind, order
        self.marginal = marginal = Marginal(walk.axis(axis), None)
        span = extent(walk.axis(axis))
        assert span is not None
        outside = windows.OUTSIDE / (2 * share)
        self.first, self.last = request.resolve(
            span[0], marginal.mean, marginal.std, lambda: marginal.window(outside, root)
        )
        self.whole = self.first <= marginal.ends[0] and self.last >= marginal.ends[1]
        self.outside = 0.0 if self.whole else marginal.outside(self.first, self.last, root)
        self.log = np.full(self.last - self.first + 1, -np.inf)
        low, high = max(self.first, marginal.ends[0]), min(self.last, marginal.ends[1])
        step, base = marginal.span, marginal.base
        begin, end = -((base - low) // step), (high - base) // step
        self.places = np.arange(begin, end + 1)  # lattice points of the window
        if len(self.places):
            start = base + step * begin - self.first
            self.log[start::step][: len(self.places)] = self._formula()

    @property
    def mass(self) -> float:
        return float(np.exp(self.log).sum())

    @cached_property
    def error(self) -> float:
        """Over the Gaussian's peak, or relative for the saddlepoint."""
        if self.marginal.survey.single or not len(self.places):
            return 0.0
        if self.kind == "saddlepoint":
            inner = self.places[self._inner]
            if not len(inner):
                return 0.0
            probed = inner[np.unique(np.linspace(0, len(inner) - 1, PROBED).astype(int))]
            return at_tilts(self.marginal, tilts(self.marginal, probed), self.order)
        return over_period(self.marginal, self.bell.standardised, self.order)

    @cached_property
    def bell(self) -> Bell:
        return bell(self.marginal)

    @property
    def _inner(self) -> np.ndarray:
        """True for lattice points strictly inside the support."""
        marginal = self.marginal
        pixel = marginal.base + marginal.span * self.places
        return (pixel > marginal.ends[0]) & (pixel < marginal.ends[1])

    def _formula(self) -> np.ndarray:
        if self.marginal.survey.single:
            return np.zeros(len(self.places))
        if self.kind != "saddlepoint":
            return edgeworth_log(self.bell, self.bell.apart(self.places), self.order)
        inner = self._inner
        log = np.empty(len(self.places))
        if inner.any():
            log[inner] = saddlepoint_log(tilts(self.marginal, self.places[inner]), self.order)
        for place in np.flatnonzero(~inner):
            end = self.marginal.base + self.marginal.span * int(self.places[place])
            log[place] = self.marginal.line(end, end)[0].log[0]
        return log


@dataclass(frozen=True)
class Bell:
    """Mean, deviation (lattice points) and standardised cumulants λ₃ … λ₆ of one axis."""

    base: int
    rest: float  # mean − base
    std: float
    standardised: tuple[float, ...]

    def apart(self, places: np.ndarray) -> np.ndarray:
        """Distance from the mean in deviations."""
        return ((places - self.base) - self.rest) / self.std


def bell(marginal: Marginal) -> Bell:
    """The cumulants of an axis on the lattice of its paths."""
    values = CumulantAlgebra(6).fold(marginal.compact, marginal.place)[1]
    base = math.floor(values[0])
    std = math.sqrt(values[1])
    standardised = (
        float(value / values[1] ** (r // 2)) / (std if r % 2 else 1.0)
        for r, value in enumerate(values[2:], 3)
    )
    return Bell(base, float(values[0] - base), std, tuple(standardised))


def edgeworth_log(line: Bell, x: np.ndarray, order: int) -> np.ndarray:
    """log of Edgeworth's density at `x` deviations; −inf where the expansion is not positive."""
    log = _formula("edgeworth", "leading term")(d=1.0, sigma=line.std, x=x)
    factor = np.ones_like(x)
    for power in range(1, order + 1):
        names = {f"rho_{r}": line.standardised[r - 3] for r in range(3, power + 3)}
        factor = factor + _formula("edgeworth", _POWERS[power])(x=x, **names)
    return log + _log(factor)


def saddlepoint_log(found: Tilts, order: int) -> np.ndarray:
    """log of Daniels' density at the lattice points of `found`, with `order` corrections."""
    log = _formula("saddlepoint", "density")(
        K=found.log_value, h=found.theta, t=found.rest, d=1.0, kappa_2=found.variance
    )
    rho = {f"rho_{r}": value for r, value in enumerate(found.standardised, 3)}
    factor = np.ones_like(log)
    if order > 0:
        factor = factor + _formula("saddlepoint", "first correction")(
            rho_3=rho["rho_3"], rho_4=rho["rho_4"]
        )
    if order > 1:
        factor = factor + _formula("saddlepoint", "second correction")(**rho)
    return log + _log(factor)


_POWERS = {1: "order 1/2", 2: "order 1", 3: "order 3/2", 4: "order 2"}


@cache
def _formula(topic: str, step: str) -> Callable[..., Any]:
    """The right side of a step of a derivation, as a function of arrays."""
    from erftheory.symbolic.topics.edgeworth import edgeworth  # SymPy, which few readings need
    from erftheory.symbolic.topics.saddlepoint import saddlepoint

    derivation = {"edgeworth": edgeworth, "saddlepoint": saddlepoint}[topic]()
    return derivation[step].lambdify("numpy")


def _log(factor: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.maximum(factor, 0.0))


def _normalised(log: np.ndarray) -> np.ndarray:
    top = float(log.max())
    if top == -math.inf:
        raise ValueError("window: got pixels that hold no signal; takes some that hold a part")
    return log - top - math.log(float(np.exp(log - top).sum()))


def _error(lines: list[_Line], root: bool) -> ErrorBound:
    """The error after normalisation: the true share of the window is known to a bound."""
    rounding = sum(
        EPS * (8 + 4 * float(np.abs(line.log[line.log > -np.inf]).max())) for line in lines
    )
    own = math.prod(1 + line.error for line in lines) - 1 + rounding
    outside = min(1.0, sum(line.outside for line in lines))
    if lines[0].kind == "saddlepoint":
        # every pixel is off by at most that factor, and so is the sum over the window
        value = 2 * own / (1 - own) if own < 1 else math.inf
        note = f"relative, every pixel; bounded by quadrature at {PROBED} pixels an axis"
        return ErrorBound("approximation", value / 2 if root else value, note, outside)
    scale = 1.0
    for line in lines:
        if line.marginal.survey.single:  # the one pixel there is has all the weight
            continue
        held = line.error * len(line.places) / (line.bell.std * math.sqrt(2 * math.pi))
        off = abs(1 - line.mass) if line.whole else min(held, 1.0)
        scale *= 1 + off / max(line.mass - off, 1e-300)
    note = "largest error of a pixel over the Gaussian's peak, by quadrature"
    if root:
        note += ", of the square of the map"
    return ErrorBound("approximation", own + (scale - 1) * (1 + own), note, outside)
