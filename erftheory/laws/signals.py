"""Laws of the signal: the n-fold convolution, its closed form, and random weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np

from erftheory.laws.machine.base import (
    L16,
    Context,
    Evidence,
    above,
    below,
    equal,
    law,
    shares,
    stack,
)
from erftheory.laws.machine.trials import LEVELS, draw, flip_test, judge

ROUNDING = 2e-15  # allowed deviation of a float map relative to its peak, × (depth + 500)
SYMBOLIC_TERMS = 40_000  # terms of the closed form that a law may sum
AUTODIFF_DEPTH = 128  # weights one: gradients are integers up to k^128, exact scale in float64

ENUMERATED_WEIGHTS = 12  # 4096 nets
SAMPLED_DEPTH, SAMPLED_CHANNELS = 10, 16  # the net that GRW-1 and GRW-2 look at too


@law(
    "SIG-1",
    "n layers make the n-fold convolution",
    "The signal of n equal layers is the n-fold convolution o = u * v * ... * v",
    f"{L16}, section 2.1",
)
def n_fold_convolution(context: Context) -> list[Evidence]:
    """Five routes: symbolic, counting, spectrum, direct, and autodiff of an all-ones net."""
    engines, k = context.engines, context.kernel
    n = context.integer_depth("SIG-1: exact path counts")
    counts = list(engines.counting(stack(n, k)).marginal(0))
    middle = len(counts) // 2
    places = _places(context, n, "SIG-1")
    closed = {t: engines.symbolic.coefficient(n, k, t) for t in places}
    peak = middle if middle in closed else places[len(places) // 2]
    evidence = [
        equal("counting", "symbolic", f"paths to offset {peak}, n={n}", counts[peak], closed[peak],
              of=([counts[t] for t in places], list(closed.values())))
    ]  # fmt: skip
    allowed = ROUNDING * (n + 500)
    for method in ("spectrum", "direct", "tilted"):
        found = engines.exact(stack(n, k), signal="gradient", init=None, method=method)
        gap = _gap(np.asarray(found.map), shares(counts))
        evidence.append(below(method, "counting", f"map / peak, n={n}", gap, allowed))
    m = context.reduced("SIG-1: autodiff", AUTODIFF_DEPTH, n)
    shallow = counts if m == n else list(engines.counting(stack(m, k)).marginal(0))
    gradient, _ = engines.gradient_of_ones(stack(m, k))
    gap = _gap(gradient / gradient.sum(), shares(shallow))
    evidence.append(below("autodiff", "counting", f"map / peak, n={m}", gap, allowed))
    return evidence


def _places(context: Context, depth: int, name: str) -> list[int]:
    """All offsets, or as many evenly spaced ones as `SYMBOLIC_TERMS` terms allow."""
    last = depth * (context.kernel - 1)
    terms = sum(min(depth, t // context.kernel) + 1 for t in range(last + 1))
    if terms <= SYMBOLIC_TERMS:
        return list(range(last + 1))
    few = max(5, SYMBOLIC_TERMS * (last + 1) // (terms * max(1, depth // 64)))
    context.note(f"{name}: closed form at {few} of {last + 1} offsets")
    return sorted({round(i * last / (few - 1)) for i in range(few)})


def _gap(found: np.ndarray, expected: Sequence[float]) -> float:
    """max |found − expected| / max expected, infinite for other shapes."""
    wanted = np.asarray(expected)
    return float(np.abs(found - wanted).max() / wanted.max()) if found.shape == wanted.shape else (
        math.inf
    )  # fmt: skip


@law(
    "SIG-2",
    "layers of ones make extended binomials",
    "The signal of n layers of k ones is the extended binomial; for k=2 the binomial C(n, t)",
    "Extended binomial coefficients (de Moivre, 1730); L16 states k=2 by its figures",
)
def extended_binomial(context: Context) -> list[Evidence]:
    """The closed form against path counts and running sums, at all offsets of a smaller net."""
    engines, k = context.engines, context.kernel
    # the running sums grow like depth² (k − 1) additions of long integers
    n = context.reduced("SIG-2: all offsets", max(1, math.isqrt(60_000 // (k - 1))))
    counts = list(engines.counting(stack(n, k)).marginal(0))
    places = _places(context, n, "SIG-2")
    closed = [engines.symbolic.coefficient(n, k, t) for t in places]
    sums = _running_sums(n, k)
    two = list(engines.counting(stack(n, 2)).marginal(0))
    binomial = [math.comb(n, t) for t in range(n + 1)]
    formula = [engines.symbolic.coefficient(n, 2, t) for t in range(n + 1)]
    name = f"k={k}, n={n}, {len(places)} offsets: largest"
    return [
        equal("symbolic", "running sums", name, max(closed), max(sums[t] for t in places),
              of=(closed, [sums[t] for t in places])),
        equal("counting", "running sums", f"k={k}, n={n}: largest", max(counts), max(sums),
              of=(counts, sums)),
        equal("counting", "C(n, t)", f"k=2, n={n}: largest", max(two), max(binomial),
              of=(two, binomial)),
        equal("symbolic", "C(n, t)", f"k=2, n={n}: largest", max(formula), max(binomial),
              of=(formula, binomial)),
    ]  # fmt: skip


def _running_sums(depth: int, kernel: int) -> list[int]:
    """The n-fold convolution of `kernel` ones by sliding sums of Python integers."""
    signal = [1]
    for _ in range(depth):
        longer, window = [], 0
        for t in range(len(signal) + kernel - 1):
            window += signal[t] if t < len(signal) else 0
            window -= signal[t - kernel] if t >= kernel else 0
            longer.append(window)
        signal = longer
    return signal



@law(
    "VAR-1",
    "random nets convolve variances, any width",
    "Random weights: E g = 0, and E g^2 is the convolution of the variance kernels at any width",
    f"{L16}, section 2.1 (there for many channels)",
)
def random_weights(context: Context) -> list[Evidence]:
    """All nets with weights ±1, in integers and by autodiff, and calibrated sampled tests.

    The law of g is symmetric, so sign flips are an exact null for E g; see `trials` for E g².
    """
    return [*_enumeration(context), *_sampled(context)]


def _enumeration(context: Context) -> list[Evidence]:
    k = min(context.kernel, ENUMERATED_WEIGHTS // 2)
    if k < context.kernel:
        context.note(f"VAR-1: kernel {k} in place of {context.kernel} for the enumeration")
    n = context.reduced("VAR-1: enumeration", ENUMERATED_WEIGHTS // k)
    counts = list(context.engines.counting(stack(n, k)).marginal(0))
    first, second, nets = _all_signs(n, k)
    referee = context.engines.enumerated(stack(n, k))
    gap = _gap(np.asarray(referee.map), shares(counts))
    what = f"{nets} nets, n={n}, k={k}"
    return [
        equal("enumeration", "theory", f"max |E g|, {what}", max(map(abs, first)), 0),
        equal("enumeration", "counting", f"max E g^2, {what}",
              max(second) // nets, max(counts), of=(second, [nets * c for c in counts])),
        below("enumerated autodiff", "counting", f"E g^2 / peak, {what}", gap, 1e-12),
    ]  # fmt: skip


def _all_signs(depth: int, kernel: int) -> tuple[list[int], list[int], int]:
    """Σ g and Σ g² over all weights ±1, in integers, and the number of nets."""
    filters = np.array(list(product((-1, 1), repeat=kernel)), dtype=np.int64)
    signals = np.ones((1, 1), dtype=np.int64)
    for _ in range(depth):
        rows, size = signals.shape
        longer = np.zeros((rows, len(filters), size + kernel - 1), dtype=np.int64)
        for tap in range(kernel):
            longer[:, :, tap : tap + size] += signals[:, None, :] * filters[None, :, tap, None]
        signals = longer.reshape(rows * len(filters), -1)
    return signals.sum(0).tolist(), (signals**2).sum(0).tolist(), len(signals)


def _sampled(context: Context) -> list[Evidence]:
    k = min(context.kernel, 5)
    if k < context.kernel:
        context.note(f"VAR-1: kernel {k} in place of {context.kernel} for the sampled nets")
    n = context.reduced("VAR-1: sampled nets", SAMPLED_DEPTH)
    network, level = stack(n, k), LEVELS["VAR-1"] / 2
    draws = draw(
        context, network, channels=SAMPLED_CHANNELS, samples=2 * context.samples
    )
    name = f"n={n}, k={k}"
    theory = context.engines.exact(network, signal="variance").map
    return [
        above("sampled", "sign flips", f"{name}: p of E g = 0",
              flip_test(draws.first, context.seed), level),
        *judge(context, draws, theory, name, level=level, against="exact"),
    ]  # fmt: skip
