"""The size of the ERF's level sets at finite depth, from Edgeworth's expansion."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import sympy as sp
from sympy.polys.ring_series import rs_trunc

from erftheory.symbolic.helpers.hermite import RHO, SMALL, corrections
from erftheory.symbolic.helpers.rewrites import as_ratio, in_depth
from erftheory.symbolic.helpers.series import limit_in_depth, series_of_rest
from erftheory.symbolic.proof.derivation import ProofStep
from erftheory.symbolic.proof.evidence import SymbolicIdentity
from erftheory.symbolic.proof.names import equation, k, n, x

LEVEL: Any = sp.Symbol("L", positive=True)  # log of the centre value over the level's
RADIUS: Any = sp.Symbol("R", positive=True)  # of a level set, in standard deviations
_ANGLE: Any = sp.Symbol("psi", real=True)


def level_sets() -> tuple[ProofStep, ...]:
    """Steps on the set where a symmetric kernel's 2-D signal is above e^{−L} of its centre."""
    return (*_levels(), *_slopes())


def _profile(square: Any) -> Any:
    """log of a symmetric kernel's signal over its centre value at x² = `square`, to order ε⁴."""
    b, d = RHO[4], RHO[6]
    return (
        -square / 2
        + SMALL**2 * b * (square**2 - 6 * square) / 24
        + SMALL**4
        * (
            d * (square**3 - 15 * square**2 + 45 * square) / 720
            - b**2 * (2 * square**3 - 21 * square**2 + 48 * square) / 144
        )
    )


def _radius_squared() -> Any:
    share, b, d, high = sp.sin(2 * _ANGLE) ** 2, RHO[4], RHO[6], LEVEL
    first = b * high * (2 * high - 6 - high * share) / 6
    square = high**2 * (share**2 + 2 * share - 4) - 12 * high * (share - 2) - 30
    sixth = high**2 * (4 - 3 * share) - 15 * high * (2 - share) + 45
    second = b**2 * high * square / 36 + d * high * sixth / 180
    return 2 * high + SMALL**2 * first + SMALL**4 * second


def _first(level: Any = LEVEL) -> Any:
    """The factor of 1/n in the size of a level set in 2-D."""
    return RHO[4] * (level - 4) / 16


def _levels() -> tuple[ProofStep, ...]:
    signal: Any = 1 + sum(
        SMALL**order * factor.subs({RHO[3]: 0, RHO[5]: 0})
        for order, factor in ((2, corrections()[1]), (4, corrections()[3]))
    )
    area = sp.Integral(RADIUS**2 / 2, (_ANGLE, 0, 2 * sp.pi))
    first = RHO[4] * (LEVEL - 4) / 8
    second = RHO[6] * (LEVEL - 3) * (LEVEL - 6) / 144
    second -= RHO[4] ** 2 * (7 * LEVEL - 20) * (LEVEL - 4) / 192
    return (
        ProofStep(
            "profile",
            "The logarithm of the signal over its centre value, symmetric kernel",
            equation(
                sp.log(signal / signal.subs(x, 0)) - x**2 / 2,
                _profile(x**2) + sp.Order(SMALL**6),
            ),
            "Odd cumulants vanish; epsilon squared is 1/n.",
            SymbolicIdentity("series to the order 1/n²", reduce=series_of_rest(SMALL)),
        ),
        ProofStep(
            "level radius",
            "The squared radius of a level set in 2-D, in direction psi",
            equation(RADIUS**2, _radius_squared() + sp.Order(SMALL**6)),
            "The plane's signal is the product of two lines: R is where the profiles at R cos psi "
            "and R sin psi add up to -L. A circle to leading order, fourfold symmetric beyond.",
            SymbolicIdentity("all directions, to the order 1/n²", _solved, series_of_rest(SMALL)),
        ),
        ProofStep(
            "area",
            "The area of a level set in 2-D, in variances",
            equation(
                area,
                2 * sp.pi * LEVEL * (1 + SMALL**2 * first + SMALL**4 * second) + sp.Order(SMALL**6),
            ),
            "Half the squared radius, over all directions; without corrections a Gaussian's disc.",
            SymbolicIdentity("series to the order 1/n²", _area, series_of_rest(SMALL)),
        ),
        ProofStep(
            "size",
            "The size, its root: the first relative correction",
            equation(sp.Limit(n * (sp.sqrt(1 + first / n) - 1), n, sp.oo), _first()),
            "L16's size of a 2-D map is the root of the count of pixels above the level.",
            SymbolicIdentity("limit for all levels", limit_in_depth),
        ),
    )


def _slopes() -> tuple[ProofStep, ...]:
    excess = -sp.Rational(6, 5) * (k**2 + 1) / (k**2 - 1)
    correction = _first().subs(RHO[4], excess)
    size = sp.sqrt(n) * (1 + correction / n)  # a constant factor has no slope
    slope = n * sp.Derivative(sp.log(size), n)
    share = n * sp.Derivative(sp.log(size / (n * (k - 1) + 1)), n)
    half = sp.Rational(1, 2)
    limit = SymbolicIdentity("limit for all k and levels", in_depth(_leading))
    return (
        ProofStep(
            "exponent of the size",
            "The local exponent of the size is above one half at finite depth",
            equation(
                sp.Limit(n * (slope - half), n, sp.oo),
                3 * (k**2 + 1) * (LEVEL - 4) / (40 * (k**2 - 1)),
            ),
            "Uniform kernels of k taps have light tails, so levels with L > 4 lie further in the "
            "shallower the net: by 3(L - 4)/(32 n) for three taps.",
            limit,
        ),
        ProofStep(
            "exponent of the share",
            "The local exponent of its share of the field",
            equation(
                sp.Limit(n * (share + half), n, sp.oo),
                3 * (k**2 + 1) * (LEVEL - 4) / (40 * (k**2 - 1)) + 1 / (k - 1),
            ),
            "The field n(k - 1) + 1 has one pixel without depth, which adds 1/((k - 1) n).",
            limit,
        ),
    )


def _solved(side: Any) -> Any:
    """R² by its meaning, the root of the level's equation; angles by the squared cosine."""
    square = sp.Symbol("c", positive=True)
    known = {sp.sin(2 * _ANGLE): 2 * sp.sqrt(square * (1 - square))}
    return side.subs(known).subs(RADIUS**2, _root(square))


@cache
def _root(square: Any) -> Any:
    """The R² at which profile(R² c) + profile(R² (1 − c)) = −L, by iteration, below ε⁸."""
    ring, *_ = sp.ring([SMALL, square, LEVEL, RHO[4], RHO[6]], sp.QQ)
    offset = sp.Symbol("u")
    profile = sp.Poly(_profile(offset), offset, SMALL, RHO[4], RHO[6]).terms()
    small, share, level, *cumulants = ring.gens

    def at(place: Any) -> Any:
        names = (place, small, *cumulants)
        return sum(
            (math.prod((n**e for n, e in zip(names, powers)), start=ring(factor)))
            for powers, factor in profile
        )

    root = 2 * level
    for _ in range(3):
        root = rs_trunc(root + 2 * (at(root * share) + at(root * (1 - share)) + level), small, 8)
    return _by_power(root, 8)


def _by_power(polynomial: Any, order: int) -> Any:
    """An element of a ring whose first name is ε: one term for each power below `order`."""
    powers: dict[int, Any] = {}
    for (power, *others), factor in polynomial.terms():
        term = sp.Rational(factor.numerator, factor.denominator)
        term *= sp.prod(name**other for name, other in zip(polynomial.ring.symbols[1:], others))
        powers[power] = powers.get(power, 0) + term
    return sum(factor * SMALL**power for power, factor in powers.items() if power < order)


def _area(side: Any) -> Any:
    """Integrals over all directions of powers of the squared cosine: C(2r, r)/4^r each."""
    square = sp.Symbol("c", positive=True)

    def integrate(integrand: Any, limits: Any) -> Any:
        if tuple(limits) != (_ANGLE, 0, 2 * sp.pi):
            raise ArithmeticError(f"not all directions: {limits}")
        terms = sp.Poly(_solved(integrand), square).terms()
        return 2 * sp.pi * sum(f * sp.binomial(2 * r, r) / 4**r for (r,), f in terms)

    return sp.collect(sp.expand(side.replace(sp.Integral, integrate)), SMALL)


def _leading(function: Any) -> Any:
    """The limit for n → ∞ of what is rational in n once its derivatives are taken."""
    top, bottom = sp.fraction(as_ratio(function.doit()))
    top, bottom = sp.Poly(top, n), sp.Poly(bottom, n)
    if top.degree() != bottom.degree():
        raise ArithmeticError("no finite limit that is not 0")
    return top.LC() / bottom.LC()
