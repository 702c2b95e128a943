"""The signal of n equal layers: from an impulse to the extended binomial formula."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import sympy as sp

from erftheory.symbolic.helpers.rewrites import generic_branch
from erftheory.symbolic.helpers.series import polynomial
from erftheory.symbolic.proof import brute
from erftheory.symbolic.proof.derivation import Derivation, ProofStep
from erftheory.symbolic.proof.evidence import EXACT, ExactPoints, Point, SymbolicIdentity
from erftheory.symbolic.proof.names import equation, i, j, k, m, n, o, omega, t, u, v, z

_U: Any = sp.Function("U")
_V: Any = sp.Function("V")
_PHASE: Any = sp.Symbol("phase")  # e^{jω/2}
_SHAPES = ((1, 2), (1, 4), (2, 2), (2, 3), (3, 3), (4, 2), (3, 4), (5, 3))
_BOX = sp.Sum(sp.exp(-sp.I * omega * m), (m, 0, k - 1))
_DIRICHLET: Any = sp.exp(-sp.I * omega * (k - 1) / 2) * sp.sin(k * omega / 2) / sp.sin(omega / 2)
_TERMS = 9  # coefficients compared of an infinite series


def extended_binomial() -> Any:
    """The coefficient of z^t in (1 + z + … + z^(k−1))^n, for n ≥ 1."""
    term = (-1) ** i * sp.binomial(n, i) * sp.binomial(n + t - k * i - 1, n - 1)
    return sp.Sum(term, (i, 0, sp.Min(n, sp.floor(t / k))))


@cache
def n_fold_convolution() -> Derivation:
    """How a unit's gradient spreads through n layers of k equal taps.

    From the impulse u and the kernel v to o = u ∗ v ∗ … ∗ v, its transform V(ω)^n and the
    closed form of o(t), the coefficient of z^t in (1 + z + … + z^(k−1))^n.

    Source: Luo et al., NIPS 2016, section 2.1; the closed form is the extended binomial.
    """
    return Derivation(
        title="The n-fold convolution of a uniform kernel",
        source="Luo, Li, Urtasun, Zemel, NIPS 2016 (L16), section 2.1",
        steps=(*_signals(), *_transforms(), *_inversion(), *_generating(), *_consequences()),
        key="extended binomial",
    )


def _signals() -> tuple[ProofStep, ...]:
    return (
        ProofStep(
            "kernel",
            "The kernel is a sum of shifted impulses",
            equation(v(t), sp.Sum(sp.KroneckerDelta(t, m), (m, 0, k - 1))),
            "All k weights are one, so v is 1 at the taps 0 to k - 1 and 0 elsewhere.",
            ExactPoints("v listed tap by tap, all offsets around it", _kernel_points),
        ),
        ProofStep(
            "impulse",
            "The signal starts as an impulse",
            equation(o(0, t), u(t)),
            "Before any layer the gradient is 1 at the chosen output unit and 0 at all others.",
            ExactPoints("the empty path ends at offset 0 only", _start_points),
        ),
        ProofStep(
            "layer",
            "One layer adds k shifted copies",
            equation(o(n, t), sp.Sum(o(n - 1, t - m), (m, 0, k - 1))),
            "Going back through a layer convolves the signal with v, and v picks k shifts.",
            ExactPoints("o counts the listed paths, all t", _offsets),
        ),
    )


def _transforms() -> tuple[ProofStep, ...]:
    return (
        ProofStep(
            "transform of the impulse",
            "An impulse has a flat transform",
            equation(_U(omega), 1),
            "Only t = 0 contributes to the transform of u, with the factor 1.",
            ExactPoints("transform of the listed signal", _phases, _to_phase),
        ),
        ProofStep(
            "transform of the kernel",
            "The transform of the kernel",
            equation(_V(omega), _BOX),
            "Each of the k impulses of v contributes its own phase.",
            ExactPoints("transform of the listed kernel", _phases, _to_phase),
        ),
        ProofStep(
            "Dirichlet kernel",
            "The Dirichlet kernel in closed form",
            equation(_BOX, _DIRICHLET),
            "The sum is geometric, and half of its phase can be taken out of both differences.",
            SymbolicIdentity("all k and ω, by powers of the half-angle phase", _geometric),
        ),
        ProofStep(
            "gain at frequency zero",
            "The gain at frequency zero",
            equation(sp.Limit(_DIRICHLET, omega, 0), k),
            "The closed form has a removable gap at 0, where all k phases agree.",
            SymbolicIdentity("limit for all k"),
        ),
        ProofStep(
            "convolution theorem",
            "Convolutions multiply transforms",
            equation(
                sp.Sum(o(n, t) * sp.exp(-sp.I * omega * t), (t, 0, n * (k - 1))),
                _U(omega) * _V(omega) ** n,
            ),
            "The transform turns each of the n convolutions with v into a factor V.",
            ExactPoints("transform of the listed paths", _phases, _to_phase),
        ),
    )


def _inversion() -> tuple[ProofStep, ...]:
    other = sp.Symbol("s", integer=True)
    gap = sp.Symbol("d", integer=True, nonzero=True)
    wave = sp.exp(-sp.I * omega * other) * sp.exp(sp.I * omega * t)
    spectrum = _V(omega) ** n * sp.exp(sp.I * omega * t)
    return (
        ProofStep(
            "orthogonality",
            "Different frequencies average to zero",
            equation(_period_mean(wave), sp.KroneckerDelta(other, t)),
            "A wave with a whole number of turns has mean 0, unless it does not turn at all.",
            SymbolicIdentity("s = t and all s ≠ t", cases=({t: other}, {t: other + gap})),
        ),
        ProofStep(
            "inverse transform",
            "The signal is the mean of its transform",
            equation(o(n, t), _period_mean(spectrum)),
            "By orthogonality the mean over one period picks the coefficient at offset t.",
            SymbolicIdentity(
                "means term by term against the listed paths, all t",
                _mean_as_coefficient,
                sp.expand,
                _listed_cases(),
                EXACT,
            ),
        ),
    )


def _generating() -> tuple[ProofStep, ...]:
    return (
        ProofStep(
            "geometric sum",
            "The kernel as a ratio",
            equation(sp.Sum(z**m, (m, 0, k - 1)), (1 - z**k) / (1 - z)),
            "With z marking the offset the kernel is a finite geometric sum, z not 1.",
            SymbolicIdentity("all k and z", lambda side: generic_branch(side.doit())),
        ),
        ProofStep(
            "numerator",
            "The numerator is a binomial power",
            equation(
                (1 - z**k) ** n,
                sp.Sum((-1) ** i * sp.binomial(n, i) * z ** (k * i), (i, 0, n)),
            ),
            "The binomial theorem, applied to n factors 1 and minus the k-th power of z.",
            ExactPoints("random fractions z", _marks),
        ),
        ProofStep(
            "denominator",
            "The denominator is a negative binomial series",
            equation((1 - z) ** (-n), sp.Sum(sp.binomial(n + j - 1, n - 1) * z**j, (j, 0, sp.oo))),
            "The coefficient of the j-th power counts the ways to write j as n ordered summands.",
            SymbolicIdentity(
                f"the first {_TERMS} coefficients at n = 1 to 5",
                _first_terms,
                sp.expand,
                tuple({n: depth} for depth in range(1, 6)),
                EXACT,
            ),
        ),
        ProofStep(
            "extended binomial",
            "The extended binomial formula",
            equation(o(n, t), extended_binomial()),
            "The product of both series, where the numerator's i-th term leaves t - k i for the "
            "denominator.",
            ExactPoints("listed paths, all t from below 0 to beyond the field", _offsets),
        ),
    )


def _consequences() -> tuple[ProofStep, ...]:
    return (
        ProofStep(
            "two taps",
            "Two taps give the binomial coefficients",
            equation(extended_binomial().subs(k, 2), sp.binomial(n, t)),
            "A path of n steps 0 or 1 ends at t if t of its steps are 1.",
            ExactPoints("all t at n = 1 to 9", _pascal),
        ),
        ProofStep(
            "symmetry",
            "The signal is symmetric",
            equation(o(n, t), o(n, n * (k - 1) - t)),
            "Replacing each tap m by k - 1 - m maps the paths to t onto the paths to the mirror.",
            ExactPoints("listed paths, all t", _offsets),
        ),
        ProofStep(
            "total mass",
            "The total mass",
            equation(sp.Sum(o(n, t), (t, 0, n * (k - 1))), k**n),
            "At z = 1 each layer multiplies the mass by k.",
            ExactPoints("repeated convolution of the kernel", _totals),
        ),
    )


def _period_mean(integrand: Any) -> Any:
    return sp.Integral(integrand, (omega, -sp.pi, sp.pi)) / (2 * sp.pi)


def _to_phase(side: Any) -> Any:
    """Exponentials of ω as powers of e^{jω/2}; U and V at ω as plain names."""
    named = side.subs({_U(omega): sp.Symbol("U"), _V(omega): sp.Symbol("V")})
    waves = named.rewrite([sp.sin, sp.cos], sp.exp)
    return waves.replace(sp.exp, lambda power: _PHASE ** sp.expand(2 * power / (sp.I * omega)))


def _geometric(side: Any) -> Any:
    positive = sp.Symbol("q", positive=True)
    summed = side.replace(sp.Sum, lambda *args: generic_branch(sp.Sum(*args).doit()))
    return _to_phase(summed).subs(_PHASE, positive)


def _first_terms(side: Any) -> Any:
    """The part below z^_TERMS of a function of z, or of a series in powers of z."""
    if not isinstance(side, sp.Sum):
        return polynomial(side, z, _TERMS)
    index, first, _ = side.args[1].args
    partial = sp.expand(sp.Sum(side.args[0], (index, first, _TERMS)).doit())
    return sum(_coefficient(partial, z, power) * z**power for power in range(_TERMS))


def _mean_as_coefficient(side: Any) -> Any:
    """The side with every integral over a period as 2π times the coefficient without ω."""

    def integrate(integrand: Any, limits: Any) -> Any:
        if tuple(limits) != (omega, -sp.pi, sp.pi):
            raise ArithmeticError(f"not one period: {limits}")
        return 2 * sp.pi * _coefficient(sp.expand(_to_phase(integrand)), _PHASE, 0)

    return side.replace(sp.Integral, integrate)


def _coefficient(polynomial: Any, name: Any, power: int) -> Any:
    return polynomial.coeff(name, power)


def _listed_cases() -> tuple[dict[Any, Any], ...]:
    """Every t at several shapes, with o(n, t) listed and V(ω) written out."""
    return tuple(
        {
            o(n, t): sp.Integer(brute.path_count(depth, kernel, offset)),
            _V(omega): sum(sp.exp(-sp.I * omega * tap) for tap in range(kernel)),
            n: depth,
            t: offset,
        }
        for depth, kernel in _SHAPES[:6]
        for offset in range(-1, depth * (kernel - 1) + 2)
    )


def _counter(kernel: int) -> Any:
    return lambda depth, offset: brute.path_count(int(depth), kernel, int(offset))


def _kernel_points() -> Iterator[Point]:
    for kernel in range(1, 6):
        taps = [1] * kernel
        for offset in range(-2, kernel + 3):
            yield {"k": kernel, "t": offset, "v": lambda at, taps=taps: brute.entry(taps, at)}


def _start_points() -> Iterator[Point]:
    for offset in range(-3, 4):
        yield {
            "t": offset,
            "o": lambda depth, at: brute.path_count(depth, 3, at),
            "u": lambda at: brute.entry([1], at),
        }


def _offsets() -> Iterator[Point]:
    for depth, kernel in _SHAPES:
        for offset in range(-2, depth * (kernel - 1) + 4):
            yield {"n": depth, "k": kernel, "t": offset, "o": _counter(kernel)}


def _phases() -> Iterator[Point]:
    source = brute.generator()
    for depth, kernel in _SHAPES:
        phase = brute.random_phase(source)
        listed = {0: [1], 1: [1] * kernel}
        transforms = [
            sum((value * phase ** (-2 * at) for at, value in enumerate(listed[layers])), 0 * phase)
            for layers in (0, 1)
        ]
        names = dict(zip("UV", transforms, strict=True))
        yield {"n": depth, "k": kernel, "phase": phase, "o": _counter(kernel), **names}


def _marks() -> Iterator[Point]:
    source = brute.generator(1)
    for depth, kernel in _SHAPES:
        yield {"n": depth, "k": kernel, "z": brute.random_fraction(source)}


def _pascal() -> Iterator[Point]:
    for depth in range(1, 10):
        for offset in range(-1, depth + 3):
            yield {"n": depth, "t": offset}


def _totals() -> Iterator[Point]:
    for depth, kernel in (*_SHAPES, (12, 5)):
        taps = (1,) * kernel
        if len(brute.repeated_convolution(taps, depth)) != depth * (kernel - 1) + 1:
            raise ArithmeticError("the listed signal does not fill its field")
        yield {
            "n": depth,
            "k": kernel,
            "o": lambda n, at, taps=taps: brute.entry(brute.repeated_convolution(taps, n), at),
        }
