"""Brute-force references that the checks compare formulas with; no formula is used here."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from functools import cache

from erftheory.symbolic.proof.exact import Gaussian

SEED = 2016


def generator(salt: int = 0) -> random.Random:
    """The random numbers of the checks; the same at every run."""
    return random.Random(SEED + salt)


@cache
def _paths(depth: int, kernel: int) -> Counter[int]:
    return Counter(map(sum, itertools.product(range(kernel), repeat=depth)))


def path_count(depth: int, kernel: int, offset: int) -> int:
    """How many of the kernel^depth choices of one tap a layer end at `offset`, by listing them."""
    return _paths(depth, kernel)[offset]


@cache
def repeated_convolution(taps: tuple[Fraction | int, ...], depth: int) -> tuple:
    """The signal after `depth` convolutions of a unit impulse with `taps`, one at a time."""
    signal: list[Fraction | int] = [1]
    for _ in range(depth):
        longer: list[Fraction | int] = [0] * (len(signal) + len(taps) - 1)
        for place, value in enumerate(signal):
            for step, tap in enumerate(taps):
                longer[place + step] += value * tap
        signal = longer
    return tuple(signal)


def entry(signal: Sequence, offset: int) -> Fraction | int:
    """The value at `offset`, 0 outside the stored range."""
    return signal[offset] if 0 <= offset < len(signal) else 0


def cumulants(law: Sequence, order: int) -> list[Fraction]:
    """κ_0 … κ_order of a law on 0, 1, 2, …, from the power series of log Σ p(s)e^{hs}."""
    moments = [
        sum((Fraction(p) * s**r for s, p in enumerate(law)), Fraction(0)) / math.factorial(r)
        for r in range(order + 1)
    ]
    logarithm = [Fraction(0)] * (order + 1)
    for r in range(1, order + 1):
        # from M' = M·(log M)', coefficient by coefficient; M(0) = 1
        known = sum((j * logarithm[j] * moments[r - j] for j in range(1, r)), Fraction(0))
        logarithm[r] = moments[r] - known / r
    return [value * math.factorial(r) for r, value in enumerate(logarithm)]


def random_fraction(source: random.Random) -> Fraction:
    """A positive fraction below 1 with a small denominator."""
    denominator = source.randint(5, 17)
    return Fraction(source.randint(1, denominator - 1), denominator)


def random_kernel(source: random.Random, size: int) -> tuple[Fraction, ...]:
    """`size` positive weights with sum 1."""
    parts = [source.randint(1, 9) for _ in range(size)]
    return tuple(Fraction(part, sum(parts)) for part in parts)


def random_phase(source: random.Random) -> Gaussian:
    """A point of the unit circle with rational coordinates, none of them 0."""
    a = random_fraction(source)
    return Gaussian((1 - a**2) / (1 + a**2), 2 * a / (1 + a**2))
