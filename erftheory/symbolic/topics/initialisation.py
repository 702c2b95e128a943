"""Initial weights that widen the field: which variances of the taps give the largest variance."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from typing import Any

import sympy as sp

from erftheory.symbolic.helpers.rewrites import as_ratio, closed_sums
from erftheory.symbolic.proof import brute
from erftheory.symbolic.proof.derivation import Derivation, ProofStep
from erftheory.symbolic.proof.evidence import ExactPoints, Point, SymbolicIdentity
from erftheory.symbolic.proof.names import equation, k, m, n, p, t, total, w, z

FLOOR: Any = sp.Symbol("c", positive=True)  # least share of a tap
RIM: Any = sp.Symbol("lambda", real=True)  # mass that is moved to both end taps
_MEAN: Any = sp.Symbol("mu", real=True)  # of one step
_SPREAD: Any = sp.Symbol("V", positive=True)  # variance of one step
_FOURTH: Any = sp.Symbol("kappa_4", real=True)  # its fourth cumulant
_CENTRE: Any = (k - 1) / 2
_LARGEST: Any = _CENTRE**2
_UNIFORM: Any = (k**2 - 1) / 12
_TAPS = (m, 0, k - 1)
_ENDS: Any = (sp.KroneckerDelta(m, 0) + sp.KroneckerDelta(m, k - 1)) / 2


@cache
def initialisation() -> Derivation:
    """Light centre, heavy rim: up to three times a uniform kernel's variance, still a Gaussian.

    w(m) is the share of tap m in the variance of a layer's weights, of sum 1. Half of it on
    either end tap is the widest law on k taps (Popoviciu); with a least share c for every tap
    the rest goes to the ends. The ratio to uniform weights is 3(k−1)/(k+1). In depth all of
    them tend to the Gaussian, their excess kurtosis falling like 1/n.

    Source: Luo et al., NIPS 2016, section 4.1 (light centre, heavy rim); T. Popoviciu, 1935.
    """
    return Derivation(
        title="Initialisations that enlarge the effective receptive field",
        source="Luo, Li, Urtasun, Zemel, NIPS 2016 (L16), section 4; Popoviciu, 1935",
        steps=(*_bound(), *_families(), *_depth()),
        key="ratio",
    )


def _bound() -> tuple[ProofStep, ...]:
    variance = total(m**2 * w[m], _TAPS) - _MEAN**2
    off = (_MEAN - _CENTRE) ** 2
    rest = (1 - k * FLOOR) * _LARGEST + k * FLOOR * _UNIFORM
    random = ExactPoints("random kernels and their means", _kernels)
    ends = SymbolicIdentity("all kernels of two taps at least", _at_the_ends, as_ratio)
    return (
        ProofStep(
            "bound",
            "No law on k taps has a variance above the squared half width",
            equation(_LARGEST - variance, total(m * (k - 1 - m) * w[m], _TAPS) + off),
            "The right side is a sum of terms that are not negative: mass on inner taps, and a "
            "mean mu off the centre.",
            random,
        ),
        ProofStep(
            "ends",
            "Half of the mass on either end reaches it",
            equation(total((m - _CENTRE) ** 2 * _ENDS, _TAPS), _LARGEST),
            "It is the only law that does: no mass inside, and the mean in the centre.",
            ends,
        ),
        ProofStep(
            "ratio",
            "Up to three times the variance of uniform weights",
            equation(
                total((m - _CENTRE) ** 2 * _ENDS, _TAPS) / (total(m**2, _TAPS) / k - _LARGEST),
                3 * (k - 1) / (k + 1),
            ),
            "3/2 for three taps, 2 for five and 3 for wide kernels.",
            ends,
        ),
        ProofStep(
            "floor",
            "A least share c for every tap: the same bound for what is left",
            equation(rest - variance, total(m * (k - 1 - m) * (w[m] - FLOOR), _TAPS) + off),
            "Again nothing on the right is negative; it is 0 where all that is left of the mass, "
            "1 - k c, is at the ends.",
            ExactPoints("random kernels, their means and any c", _kernels),
        ),
    )


def _families() -> tuple[ProofStep, ...]:
    deviation = m - _CENTRE
    mixed = RIM * _ENDS + (1 - RIM) / k
    sums = SymbolicIdentity("sums of powers for all k", closed_sums, as_ratio)
    return (
        ProofStep(
            "heavy rim",
            "A mass lambda moved to the ends: the variance is linear in it",
            equation(total(deviation**2 * mixed, _TAPS), _UNIFORM + RIM * (k - 1) * (k - 2) / 6),
            "Both parts of the mixture have the same mean, so only their variances mix.",
            SymbolicIdentity("all kernels of two taps at least", _at_the_ends, as_ratio),
        ),
        ProofStep(
            "light centre",
            "Shares that grow like the squared distance from the centre",
            equation(total(deviation**4, _TAPS) / total(deviation**2, _TAPS), (3 * k**2 - 7) / 20),
            "The centre tap of an odd kernel gets nothing; 9/5 of the uniform variance if wide.",
            sums,
        ),
        ProofStep(
            "three taps",
            "Three taps: the share of both ends decides",
            equation(total(deviation**2 * mixed, _TAPS).subs(k, 3), sp.Rational(2, 3) + RIM / 3),
            "lambda = -2 puts all of the mass on the centre, lambda = 1 none.",
            SymbolicIdentity("sum written out", reduce=sp.expand),
        ),
    )


def _depth() -> tuple[ProofStep, ...]:
    field = (t, 0, n * (k - 1))
    second, fourth = (total((m - _CENTRE) ** power * _ENDS, _TAPS) for power in (2, 4))
    reach = n * (k - 1) + 1
    centred = total((t - n * _MEAN) ** 4 * p(n, t), field)
    return (
        ProofStep(
            "excess kurtosis",
            "Any kernel: the excess kurtosis falls like 1/n",
            equation(centred / (n * _SPREAD) ** 2 - 3, _FOURTH / _SPREAD**2 / n),
            "Cumulants add, the variance is squared: a wider kernel is a Gaussian in depth too.",
            ExactPoints("random kernels convolved n times", _deep),
        ),
        ProofStep(
            "excess kurtosis of the ends",
            "With all mass at the ends it is -2/n",
            equation((fourth - 3 * second**2) / (n * second**2), -2 / n),
            "For n = 1 a fair coin's, the least of all laws.",
            SymbolicIdentity("all kernels of two taps at least", _at_the_ends, as_ratio),
        ),
        ProofStep(
            "holes",
            "but then only every (k-1)-th offset is reached",
            equation(total(p(n, t) * z**t, field), ((1 + z ** (k - 1)) / 2) ** n),
            "The extreme is a dilated kernel of two taps; a floor under the inner taps fills the "
            "holes.",
            ExactPoints("end taps convolved n times", _end_taps),
        ),
        ProofStep(
            "vanishing share",
            "and the share of the field still vanishes like one over the square root of depth",
            equation(sp.Limit(n * (n * _LARGEST) / reach**2, n, sp.oo), sp.Rational(1, 4)),
            "The squared share times depth; no initialisation exceeds it.",
            SymbolicIdentity("limit for all k", reduce=as_ratio),
        ),
    )


def _at_the_ends(side: Any) -> Any:
    """Sums over the taps, with impulses at both ends picked out: k ≥ 2, so they differ."""

    def pick(term: Any, *limits: Any) -> Any:
        index, first, last = limits[0]
        smooth = term.replace(sp.KroneckerDelta, lambda *_: sp.Integer(0))
        found = closed_sums(sp.Sum(smooth, *limits))
        for delta in term.atoms(sp.KroneckerDelta):
            # linear in each delta, whose place must be in the range of the sum
            place = sp.solve(delta.args[0] - delta.args[1], index)[0]
            if place not in (first, last):
                raise ArithmeticError(f"no end of the kernel: {place}")
            share = sp.expand(term).coeff(delta)
            found += share.subs(index, place)
        return found

    return side.replace(sp.Sum, pick)


def _kernels() -> Iterator[Point]:
    source = brute.generator(81)
    for size in (1, 2, 3, 4, 5, 7):
        kernel = brute.random_kernel(source, size)
        yield {
            "k": size,
            "w": kernel,
            "mu": brute.cumulants(kernel, 1)[1],
            "c": brute.random_fraction(source),
        }


def _deep() -> Iterator[Point]:
    source = brute.generator(82)
    for depth, size in ((1, 2), (1, 5), (2, 3), (3, 3), (4, 2), (3, 4)):
        kernel = brute.random_kernel(source, size)
        _, mean, variance, _, fourth = brute.cumulants(kernel, 4)
        yield {
            "n": depth,
            "k": size,
            "mu": mean,
            "V": variance,
            "kappa_4": fourth,
            "p": _repeated(kernel),
        }


def _end_taps() -> Iterator[Point]:
    source = brute.generator(83)
    for depth, size in ((1, 2), (2, 2), (1, 3), (3, 3), (2, 4), (4, 5)):
        kernel = (Fraction(1, 2), *[Fraction(0)] * (size - 2), Fraction(1, 2))
        yield {
            "n": depth,
            "k": size,
            "z": brute.random_fraction(source),
            "p": _repeated(kernel),
        }


def _repeated(kernel: Any) -> Any:
    return lambda layers, at: brute.entry(brute.repeated_convolution(kernel, layers), at)
