"""The saddlepoint approximation: a tilt, then Edgeworth's expansion at the centre."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import sympy as sp

from erftheory.symbolic.helpers.hermite import RHO, frequencies, over_all_frequencies
from erftheory.symbolic.helpers.rewrites import in_depth, split_logs
from erftheory.symbolic.proof import brute
from erftheory.symbolic.proof.derivation import Derivation, ProofStep
from erftheory.symbolic.proof.evidence import ExactPoints, Point, SymbolicIdentity
from erftheory.symbolic.proof.names import equation, h, k, m, n, p, s, sigma, t, total, w, z
from erftheory.symbolic.topics.edgeworth import SPAN

_TILTED: Any = sp.Function("q")  # q(n, t): law of n steps of the tilted kernel
_SHARE: Any = sp.Symbol("y", positive=True)  # of the way from the first to the last offset
_PLACE: Any = sp.Symbol("t", real=True)  # an offset, in a density
_K: Any = sp.Symbol("K", real=True)  # cumulant generating function at h
_SPREAD: Any = sp.Symbol("kappa_2", positive=True)  # its second derivative there
_SHAPE: Any = sp.Symbol("a", positive=True)  # of a gamma law
_MEAN: Any = sp.Symbol("mu", real=True)
_FIELD = (t, 0, n * (k - 1))
_TAPS = (m, 0, k - 1)


@cache
def saddlepoint() -> Derivation:
    """Daniels' density e^{K(h) − ht}/√(2πK″(h)) with K′(h) = t, and its corrections.

    K is the cumulant generating function, z = e^h the tilt, and ρ_r = K⁽ʳ⁾(h)/K″(h)^{r/2} for
    one of n equal steps. The relative error falls like 1/n at every fixed share of the field,
    in the tails as well as in the centre; with the correction like 1/n². Step "density" gives
    its logarithm, steps "first correction" and "second correction" the factors of 1/n and 1/n².

    Source: Daniels, Ann. Math. Statist. 1954, equations (2.6) and (2.8), section 5 (exactness).
    """
    return Derivation(
        title="The saddlepoint approximation of the effective receptive field",
        source="Daniels, Saddlepoint approximations in statistics, Ann. Math. Statist. 25, 1954",
        steps=(*_tilting(), *_density(), *_corrections(), *_binomial(), *_exact_laws()),
        key="density",
    )


def _tilting() -> tuple[ProofStep, ...]:
    mass = total(w[m] * z**m, _TAPS)
    mean = total(m * w[m] * z**m, _TAPS) / mass
    square = total(m**2 * w[m] * z**m, _TAPS) / mass
    points = ExactPoints("random kernels and tilts, both convolved n times", _kernels)
    return (
        ProofStep(
            "tilt",
            "A tilted signal is the signal of tilted layers",
            equation(_TILTED(n, t), p(n, t) * z**t / mass**n),
            "A factor z at each offset goes along with every path, tap by tap; dividing by "
            "the mass makes the taps sum to 1 again.",
            points,
        ),
        ProofStep(
            "tilted mean",
            "Its mean is the derivative of K",
            equation(total(t * _TILTED(n, t), _FIELD), n * mean),
            "K is n log of the mass; with z = e^h a derivative by h brings down the offset. Any "
            "mean inside the field is that of one tilt.",
            points,
        ),
        ProofStep(
            "tilted variance",
            "Its variance is the second derivative, so the mean grows with the tilt",
            equation(
                total(t**2 * _TILTED(n, t), _FIELD) - total(t * _TILTED(n, t), _FIELD) ** 2,
                n * (square - mean**2),
            ),
            "Variances of tilted layers add as those of plain ones do.",
            points,
        ),
    )


def _density() -> tuple[ProofStep, ...]:
    peak = _at_centre(1) / sp.sqrt(2 * sp.pi)
    return (
        ProofStep(
            "density",
            "The logarithm of Daniels' approximation",
            equation(
                sp.log(sp.exp(_K - h * _PLACE) * SPAN * peak / sp.sqrt(_SPREAD)),
                _K - h * _PLACE + sp.log(SPAN) - sp.log(2 * sp.pi * _SPREAD) / 2,
            ),
            "The offset t is the tilted mean; there the normal density is exact to order 1/n, "
            "and the tilt is undone without error. d is the distance of lattice points.",
            SymbolicIdentity("integral over all frequencies", over_all_frequencies, split_logs),
        ),
    )


def _corrections() -> tuple[ProofStep, ...]:
    a, b, c, d = RHO.values()
    first, second = (_at_centre(frequencies()[order]) for order in (2, 4))
    excess = -sp.Rational(6, 5) * (k**2 + 1) / (k**2 - 1)
    integral = SymbolicIdentity("integral over all frequencies", over_all_frequencies)
    return (
        ProofStep(
            "first correction",
            "The relative correction of order 1/n",
            equation(first, (3 * b - 5 * a**2) / 24),
            "Edgeworth's correction of the tilted law at its mean, where odd orders vanish.",
            integral,
        ),
        ProofStep(
            "second correction",
            "The relative correction of order 1/n^2",
            equation(
                second,
                (385 * a**4 - 630 * a**2 * b + 105 * b**2 + 168 * a * c - 24 * d) / 1152,
            ),
            "The same at the next whole power.",
            integral,
        ),
        ProofStep(
            "centre",
            "At the centre of uniform layers",
            equation(
                _at_centre(frequencies()[2].subs({a: 0, b: excess})),
                -3 * (k**2 + 1) / (20 * (k**2 - 1)),
            ),
            "No tilt is needed there; three taps make it -3/16: n layers have 3/(16 n) less "
            "than Daniels' density.",
            integral,
        ),
    )


def _binomial() -> tuple[ProofStep, ...]:
    """Two equal taps, where all is known in closed form."""
    q = _SHARE * (1 - _SHARE)
    tilt = sp.log(_SHARE / (1 - _SHARE))
    generating = n * sp.log((1 + sp.exp(h)) / 2)
    mean, spread = (sp.Derivative(generating, (h, order)) for order in (1, 2))
    daniels = generating - h * n * _SHARE - sp.log(2 * sp.pi * spread) / 2
    stirling = (
        -n * sp.log(2)
        - sp.log(2 * sp.pi * n * q) / 2
        - n * (_SHARE * sp.log(_SHARE) + (1 - _SHARE) * sp.log(1 - _SHARE))
    )
    log_exact = (
        sp.loggamma(n + 1)
        - sp.loggamma(n * _SHARE + 1)
        - sp.loggamma(n * (1 - _SHARE) + 1)
        - n * sp.log(2)
    )
    third, fourth = (
        sp.Derivative(sp.log(1 + sp.exp(h)), (h, order))
        / sp.Derivative(sp.log(1 + sp.exp(h)), (h, 2)) ** sp.Rational(order, 2)
        for order in (3, 4)
    )
    at_tilt = SymbolicIdentity("all shares of the field", _evaluated, _inside)
    return (
        ProofStep(
            "tilt of two taps",
            "Two equal taps: the tilt of an offset",
            equation(sp.Subs(mean, h, tilt), n * _SHARE),
            "The offset is the share y of the field of n + 1 pixels.",
            at_tilt,
        ),
        ProofStep(
            "Stirling",
            "Two equal taps: the logarithm of Daniels' density is that of Stirling's binomial",
            equation(sp.Subs(daniels, h, tilt), stirling),
            "Each of the three factorials of the binomial is replaced by Stirling's formula.",
            at_tilt,
        ),
        ProofStep(
            "correction of two taps",
            "Two equal taps: the correction in closed form",
            equation(sp.Subs((3 * fourth - 5 * third**2) / 24, h, tilt), -(1 - q) / (12 * q)),
            "From the third and the fourth derivative of K; it depends on the share alone, "
            "not on the depth.",
            at_tilt,
        ),
        ProofStep(
            "relative error",
            "Two equal taps: the error itself, from the exact binomial",
            equation(
                sp.Limit(n * (log_exact - stirling), n, sp.oo),
                sp.Rational(1, 12) - 1 / (12 * _SHARE) - 1 / (12 * (1 - _SHARE)),
            ),
            "The same number by another way: 1/12 for each factorial, of n, yn and (1 - y)n.",
            SymbolicIdentity("limit for all shares", in_depth(_by_stirling), _inside),
        ),
    )  # fmt: skip


def _exact_laws() -> tuple[ProofStep, ...]:
    normal = _MEAN * h + sigma**2 * h**2 / 2
    of_normal = (_PLACE - _MEAN) / sigma**2
    exact = sp.exp(-((_PLACE - _MEAN) ** 2) / (2 * sigma**2)) / sp.sqrt(2 * sp.pi * sigma**2)
    place = sp.Symbol("t", positive=True)
    gamma = -_SHAPE * sp.log(1 - h)
    density = place ** (_SHAPE - 1) * sp.exp(-place) / sp.gamma(_SHAPE)
    constant = (
        sp.gamma(_SHAPE)
        * sp.exp(_SHAPE)
        / sp.sqrt(2 * sp.pi)
        * _SHAPE ** (sp.Rational(1, 2) - _SHAPE)
    )
    return (
        ProofStep(
            "exact for a normal law",
            "It is exact for a normal law",
            equation(sp.Subs(_daniels(normal, _PLACE), h, of_normal), exact),
            "All cumulants beyond the second vanish, under every tilt.",
            SymbolicIdentity("all means and deviations", _evaluated),
        ),
        ProofStep(
            "exact for a gamma law",
            "For a gamma law it is exact once it is normalised",
            equation(sp.Subs(_daniels(gamma, place) / density, h, 1 - _SHAPE / place), constant),
            "The ratio to the density does not depend on the offset: it is the error of "
            "Stirling's formula. Daniels (section 5) adds the inverse normal law; no lattice law "
            "is among them.",
            SymbolicIdentity("all shapes and offsets", _evaluated, _expanded),
        ),
    )


def _daniels(generating: Any, place: Any) -> Any:
    curvature = sp.Derivative(generating, (h, 2))
    return sp.exp(generating - h * place) / sp.sqrt(2 * sp.pi * curvature)


def _at_centre(factor: Any) -> Any:
    """The share of `factor` in the density at the mean, over the normal density's."""
    wave = factor * sp.exp(-(s**2) / 2)
    return sp.Integral(wave, (s, -sp.oo, sp.oo)) / sp.sqrt(2 * sp.pi)


def _evaluated(side: Any) -> Any:
    """Derivatives by h first, then h at its value."""
    return side.replace(sp.Derivative, lambda *args: sp.Derivative(*args).doit()).doit()


def _expanded(residual: Any) -> Any:
    return sp.simplify(sp.expand_power_base(sp.powsimp(sp.simplify(residual)), force=True))


def _inside(residual: Any) -> Any:
    """Simplified for a share y = 1/(1 + b) between 0 and 1."""
    beyond = sp.Symbol("b", positive=True)
    written = sp.together(residual.subs(_SHARE, 1 / (1 + beyond)))
    return sp.simplify(sp.expand_log(sp.simplify(written), force=True))


def _by_stirling(function: Any) -> Any:
    """The limit for n → ∞, with log Γ(x + 1) by Stirling's series, which leaves O(1/x³)."""

    def stirling(argument: Any) -> Any:
        base = sp.expand(argument - 1)
        leading = (base + sp.Rational(1, 2)) * sp.log(base) - base + sp.log(2 * sp.pi) / 2
        return leading + 1 / (12 * base)

    written = function.replace(sp.loggamma, stirling)
    written = written.replace(sp.gamma, lambda argument: sp.exp(stirling(argument)))
    closed = sp.expand(sp.expand_log(sp.factor(written, deep=True), force=True))
    if closed.has(sp.log):
        raise ArithmeticError(f"no finite limit: {closed}")
    return sp.limit(closed, n, sp.oo)


def _kernels() -> Iterator[Point]:
    source = brute.generator(37)
    for depth, kernel in ((1, 2), (1, 4), (2, 3), (3, 3), (4, 2), (5, 3)):
        weights = brute.random_kernel(source, kernel)
        tilt = 3 * brute.random_fraction(source)
        mass = sum(weight * tilt**tap for tap, weight in enumerate(weights))
        tilted = tuple(weight * tilt**tap / mass for tap, weight in enumerate(weights))
        for offset in range(depth * (kernel - 1) + 1):
            yield {
                "n": depth,
                "k": kernel,
                "t": offset,
                "w": weights,
                "z": tilt,
                "p": partial(_inside_field, weights),
                "q": partial(_inside_field, tilted),
            }


def _inside_field(weights: tuple, depth: int, offset: int) -> Any:
    """The signal inside its field; a sum that leaves the field is no sum over it."""
    law = brute.repeated_convolution(weights, depth)
    if not 0 <= offset < len(law):
        raise ArithmeticError(f"offset {offset} is outside the field")
    return law[offset]
