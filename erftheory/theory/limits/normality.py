"""Rigorous distances between an ERF's marginals and the normal law.

Both bounds need independent steps: a network is taken apart into convolutions and blocks, one after
the other, and the law of each step is written down exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from erftheory.network.base import Network
from erftheory.network.initialisation import Init
from erftheory.network.kernel import Kernel
from erftheory.theory.gains.prepare import prepare
from erftheory.theory.walk.algebra import ConvolutionAlgebra
from erftheory.theory.walk.walk import Factor, Walk
from erftheory.theory.walk.weights import Weight

IDENTICAL = 0.4690  # Shevtsova, Inform. Appl. 7 (2013) 124: identically distributed summands
UNEQUAL = 0.5600  # Shevtsova, Dokl. Math. 82 (2010) 862: any independent summands
LARGEST_STEP = 2**16  # points of the law of one step
_NEAR = 8.0  # deviations of frequency up to which differences of transforms are taken
_CELLS = 2**17  # of the sum up to there
_RATIO = 1.02  # of neighbouring frequencies beyond it, and
_HIDDEN = 0.02  # the change of |V|² of a step within a cell

Masses = dict[int, Fraction]


class MassAlgebra(ConvolutionAlgebra[Masses]):
    """One axis: the exact law of a step, offsets and weights of sum 1."""

    def unit(self, position):
        return {position[0]: Fraction(1)}

    def kernel(self, kernel, spacing):
        mass = Fraction(kernel.mass)
        return {a * spacing[0]: Fraction(t) / mass for a, t in enumerate(kernel.exact) if t}

    def convolve(self, a, b):
        if len(a) * len(b) > LARGEST_STEP:
            raise ValueError(
                f"network: got a block of over {LARGEST_STEP} paths; takes chains of smaller blocks"
            )
        law: Masses = {}
        for s, p in a.items():
            for t, q in b.items():
                law[s + t] = law.get(s + t, Fraction(0)) + p * q
        return law

    def mix(self, parts: list[tuple[Weight, Masses]]):
        total = sum((Fraction(w) for w, _ in parts), Fraction(0))
        law: Masses = {}
        for weight, part in parts:
            for t, p in part.items():
                law[t] = law.get(t, Fraction(0)) + Fraction(weight) / total * p
        return law


@dataclass(frozen=True)
class WalkStep:
    """`count` equal independent steps of one axis, about their mean.

    Attributes:
      places, weights: of the law, floats of shape (points,); pixels from the mean.
      variance, third: E X² (pixels²) and E|X|³ (pixels³).
    """

    places: np.ndarray
    weights: np.ndarray
    count: int
    variance: float
    third: float


def berry_esseen(network: Network, init: Init | None = "he") -> tuple[float, ...]:
    """A bound for sup |F − Φ|, the Kolmogorov distance of each marginal to the normal law.

    F is the distribution function of the variance signal, standardised. C Σ E|X|³ / (Σ Var X)^{3/2}
    over the independent steps X, C = 0.4690 for equal ones and 0.5600 else; at most 1.

    Raises:
      ValueError: branches that do not meet again before the next block, up-sampling, a global
        operation, or an axis of variance 0.

    Source: Shevtsova, Dokl. Math. 82 (2010) 862 and Inform. Appl. 7 (2013) 124.
    """
    return tuple(map(_berry_esseen, _axes(network, init)))


def local_limit_bound(network: Network, init: Init | None = "he") -> tuple[float, ...]:
    """A bound for sup_t |σ p(t)/d − φ((t − mean)/σ)| of each marginal, φ the normal density.

    p is the variance signal, d the span of its lattice in pixels, t a point of the lattice. By
    inversion the difference is at most (1/2π) ∫ |V(w) − e^{−w²/2}| dw over the period |w| ≤ πσ/d,
    V the transform of the standardised law, plus (1/2π) ∫ e^{−w²/2} dw over the rest. The integral
    is bounded, not estimated: by trapezoids of a function with a second derivative of at most 2
    up to w = 8, and beyond by |V|² ≤ Π (1 − v)^n, where v is known on each of many cells to
    within the derivative of E cos θ(X − X′), at most 2θ Var X.

    Raises:
      ValueError: as for `berry_esseen`.

    Source: the inversion formula (e.g. Petrov, Sums of Independent Random Variables, 1975, VII.1);
    the numbers are this function's own.
    """
    return tuple(_local_limit(steps) for steps in _axes(network, init))


def _axes(network: Network, init: Init | None) -> list[list[WalkStep]]:
    walk = prepare(network, "variance", init)
    if walk.restricted:
        raise ValueError("network: got up-sampling, whose steps depend on the place; takes none")
    known: dict[Walk, list[WalkStep]] = {}
    lines = [walk.axis(axis) for axis in range(walk.ndim)]
    for line in lines:
        if line not in known:
            known[line] = [_step(law, count) for law, count in _laws(line) if len(law) > 1]
            if not known[line]:
                raise ValueError("network: got an axis of variance 0; takes kernels of >= 2 taps")
    return [known[line] for line in lines]


def _laws(walk: Walk) -> list[tuple[Masses, int]]:
    """The independent steps of a walk whose vertices follow each other."""
    counts: dict[Kernel | Walk | tuple, list] = {}
    algebra = MassAlgebra()
    for v, edges in enumerate(walk.vertices[1:]):
        if any(edge.source != v for edge in edges):
            raise ValueError(
                "network: got branches that cross blocks, so that steps are not independent; "
                "takes chains of layers and blocks"
            )
        if len(edges) > 1:
            law = algebra.mix([(e.weight, algebra.pull(algebra.unit((0,)), e)) for e in edges])
            counts.setdefault(edges, [law, 0])[1] += 1
            continue
        for factor in (f for edge in edges for f in edge.factors):
            key = (factor.kernel, factor.spacing)
            counts.setdefault(key, [_law_of(factor), 0])[1] += factor.count
    return [(law, count) for law, count in counts.values()]


def _law_of(factor: Factor) -> Masses:
    algebra = MassAlgebra()
    if isinstance(factor.kernel, Walk):
        return algebra.fold(factor.kernel)
    return algebra.kernel(factor.kernel, factor.spacing)


def _step(law: Masses, count: int) -> WalkStep:
    mean = sum((t * p for t, p in law.items()), Fraction(0))
    places = np.array([float(t - mean) for t in law])
    weights = np.array([float(p) for p in law.values()])
    variance = float(sum((p * (t - mean) ** 2 for t, p in law.items()), Fraction(0)))
    third = float(sum((p * abs(t - mean) ** 3 for t, p in law.items()), Fraction(0)))
    return WalkStep(places, weights, count, variance, third)


def _berry_esseen(steps: list[WalkStep]) -> float:
    constant = IDENTICAL if len(steps) == 1 else UNEQUAL
    third = sum(step.count * step.third for step in steps)
    variance = sum(step.count * step.variance for step in steps)
    return min(1.0, constant * third / variance**1.5)


def _local_limit(steps: list[WalkStep]) -> float:
    std = math.sqrt(sum(step.count * step.variance for step in steps))
    period = math.pi / _span(steps)
    end = min(_NEAR, period * std)
    w = np.linspace(0.0, end, _CELLS + 1)
    distance = np.abs(_transform(steps, w / std) - np.exp(-(w**2) / 2))
    # |∫| ≤ trapezoids of |·| and, from |f″| ≤ 2, 2 h³/12 a cell
    near = float(np.trapezoid(distance, w)) + end * (end / _CELLS) ** 2 / 6
    beyond = _far(steps, end / std, period) * std
    gaussian = math.sqrt(math.pi / 2) * math.erfc(end / math.sqrt(2))
    return (near + beyond + gaussian) / math.pi


def _span(steps: list[WalkStep]) -> float:
    """The distance of lattice points: the common divisor of the steps' own differences."""
    gaps: list[int] = []
    for step in steps:
        gaps += [round(p - step.places[0]) for p in step.places]
    return float(math.gcd(*gaps))


def _transform(steps: list[WalkStep], theta: np.ndarray) -> np.ndarray:
    """V at frequencies θ per pixel; powers through logs lose digits that no bound needs."""
    log, angle = np.zeros(len(theta)), np.zeros(len(theta))
    for step in steps:
        real = -2 * sum(p * np.sin(theta * x / 2) ** 2 for x, p in zip(step.places, step.weights))
        imaginary = sum(p * (np.sin(theta * x) - theta * x)
                        for x, p in zip(step.places, step.weights))  # fmt: skip
        growth = real * (2 + real) + imaginary**2
        with np.errstate(divide="ignore"):
            log += step.count / 2 * np.log1p(np.maximum(growth, -1.0))
        angle += step.count * np.arctan2(imaginary, 1 + real)
    return np.exp(log) * np.exp(1j * angle)


def _far(steps: list[WalkStep], begin: float, end: float) -> float:
    """A bound for ∫ |V(θ)| dθ from `begin` to `end`, per pixel."""
    if begin >= end:
        return 0.0
    count = math.ceil(math.log(end / begin) / math.log(_RATIO))
    edges = np.minimum(begin * (end / begin) ** (np.arange(count + 1) / count), end)
    # narrow enough for what a cell can hide, as far as there are cells to spend
    widest = max(step.variance for step in steps)
    wanted = np.diff(edges) * edges[1:] * widest / _HIDDEN
    pieces = np.ceil(wanted * min(1.0, _CELLS / wanted.sum())).astype(int)
    theta = np.concatenate(
        [np.linspace(a, b, n, endpoint=False) for a, b, n in zip(edges, edges[1:], pieces)]
        + [edges[-1:]]
    )
    width, middle = np.diff(theta), (theta[1:] + theta[:-1]) / 2
    log = np.zeros(len(width))
    for step in steps:
        missing = np.zeros(len(width))  # 1 − |V|² of one step
        for gap, share in zip(*_differences(step)):
            missing += 4 * share * np.sin(middle * gap / 2) ** 2
        slack = width / 2 * 2 * theta[1:] * step.variance
        lost = np.clip(missing - slack, 0.0, 1.0)
        with np.errstate(divide="ignore"):
            log += step.count / 2 * np.log1p(-lost)
    return float(np.exp(log) @ width)


def _differences(step: WalkStep) -> tuple[np.ndarray, np.ndarray]:
    """X − X′ of two copies of a step where it is positive: values and probabilities."""
    gaps = np.rint(step.places[:, None] - step.places).astype(np.int64)
    shares = step.weights[:, None] * step.weights
    found, where = np.unique(gaps[gaps > 0], return_inverse=True)
    return found.astype(float), np.bincount(where, shares[gaps > 0])
