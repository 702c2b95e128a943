"""Laws of the approach to the limit: Edgeworth's expansion, the saddlepoint, explicit bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from erftheory.laws.machine.base import Context, Evidence, below, close, law, slope, stack
from erftheory.network.base import Chain, Network
from erftheory.network.layers import Conv
from erftheory.theory.limits.approximations import approximate
from erftheory.theory.limits.normality import berry_esseen, local_limit_bound

SKEWED = (1, 2, 6)  # relative taps of a kernel without symmetry
DEPTHS = (80, 320)  # multiples of ten: the same shares of the field are pixels in both
INNER = (0.1, 0.9)  # share of the field in which the saddlepoint's relative error is taken
LARGEST = 9  # taps

Taps = Sequence[int] | None


@law(
    "EDG-1",
    "Edgeworth's terms each gain their order",
    "Edgeworth's expansion to order r leaves n^(-(r+1)/2), symmetric kernels n^-1, n^-2, n^-3",
    "Edgeworth 1905; Petrov, Sums of Independent Random Variables, 1975, chapter VII",
)
def edgeworth(context: Context) -> list[Evidence]:
    """Exponents of the largest error of a pixel, over the peak, from exact and from plain signals.

    An exponent between depths n and 4n differs from its limit by a number of the size of the next
    term: 1/n for symmetric kernels, 1/√n for others.
    """
    k = _kernel(context, "EDG-1")
    evidence = []
    cases = [
        ((k, None), (0, 2, 4), 2 / DEPTHS[0]),
        ((3, SKEWED), (0, 1, 2, 3, 4), 1 / math.sqrt(DEPTHS[0])),
    ]
    for (kernel, taps), orders, allowed in cases:
        what = "uniform" if taps is None else str(taps)
        routes = _routes(context, kernel, taps)
        for order in orders:
            # symmetric kernels have no terms of odd order
            expected = -(order + 2 if taps is None else order + 1) / 2
            formulas = [_formula(kernel, taps, n, "edgeworth", order) for n in DEPTHS]
            for route, signals in routes.items():
                errors = [_over_peak(log, f) for log, f in zip(signals, formulas)]
                name = f"exponent of the error, {what}, order {order}"
                found = slope(DEPTHS, errors)
                evidence.append(close(route, "theory", name, found, expected, allowed))
    return evidence


@law(
    "SAD-1",
    "the saddlepoint is near up to the tails",
    "The saddlepoint's relative error falls like 1/n up to the tails, corrected like n^-2 and n^-3",
    "Daniels, Ann. Math. Statist. 25, 1954",
)
def saddlepoint(context: Context) -> list[Evidence]:
    """The largest relative error over the inner 80 % of the field, and n times it at the centre.

    At a share y of the field the expansion is one in 1/(yn), and so is the exponent's deviation.
    """
    k = _kernel(context, "SAD-1")
    evidence, allowed = [], 1 / (INNER[0] * DEPTHS[0])
    for kernel, taps in ((k, None), (3, SKEWED)):
        what = "uniform" if taps is None else str(taps)
        routes = _routes(context, kernel, taps)
        for order in (0, 1, 2):
            formulas = [_formula(kernel, taps, n, "saddlepoint", order) for n in DEPTHS]
            for route, signals in routes.items():
                errors = [_relative(log, f) for log, f in zip(signals, formulas)]
                name = f"exponent of the relative error, {what}, order {order}"
                found = slope(DEPTHS, [np.abs(e).max() for e in errors])
                evidence.append(close(route, "theory", name, found, -order - 1.0, allowed))
                if order == 0 and taps is None:
                    middle = float(errors[-1][len(errors[-1]) // 2]) * DEPTHS[-1]
                    evidence.append(_centre(route, k, middle))
    return evidence


def _centre(route: str, k: int, found: float) -> Evidence:
    """n times the relative error at the centre against the derivation's number, up to 1/n²."""
    from erftheory.symbolic.topics.saddlepoint import saddlepoint as derivation

    limit = float(derivation()["centre"].lambdify("numpy")(k=float(k)))
    name = f"n x relative error at the centre, n={DEPTHS[-1]}"
    return close(route, "symbolic", name, found, limit, 1 / DEPTHS[-1])


@law(
    "BE-1",
    "unequal layers obey Berry-Esseen too",
    "Unequal layers obey Berry-Esseen with 0.56, and the local limit an explicit bound",
    "Shevtsova, Dokl. Math. 82, 2010; inversion formula (Petrov 1975, VII.1)",
)
def bounds(context: Context) -> list[Evidence]:
    """Distances of path counts and of plain convolutions to the normal law."""
    k = _kernel(context, "BE-1")
    part = [Conv(k), Conv(k, dilation=2), Conv(2, stride=2)]
    nets: dict[str, tuple[Network, list[np.ndarray]]] = {}
    for n in (1, 4):
        spaced: list[np.ndarray] = []
        for block in range(n):
            jump = 2**block  # a stride of 2 ends each block
            spaced += [_spaced(k, jump), _spaced(k, 2 * jump), _spaced(2, jump)]
        nets[f"{n} blocks of 3 layers"] = (Chain(*part * n, ndim=1), spaced)
    for n in (1, 16, 64):
        taps = np.array(SKEWED, dtype=float)
        nets[f"{SKEWED}, n={n}"] = (stack(n, 3, SKEWED), [taps] * n)
    evidence = []
    for name, (network, kernels) in nets.items():
        distance, local = berry_esseen(network)[0], local_limit_bound(network)[0]
        signals = {"counting": np.exp(_counted(context, network)), "convolution": _plain(kernels)}
        for route, p in signals.items():
            far, near = _distances(p)
            evidence += [
                below(route, "Berry-Esseen", f"Kolmogorov distance, {name}", far, distance),
                below(route, "local-limit bound", f"local error, {name}", near, local),
            ]
    return evidence


def _kernel(context: Context, name: str) -> int:
    if context.kernel > LARGEST:
        context.note(f"{name}: kernel {LARGEST} in place of {context.kernel}")
    return min(context.kernel, LARGEST)


def _routes(context: Context, kernel: int, taps: Taps) -> dict[str, list[np.ndarray]]:
    """log p at each of `DEPTHS`, from path counts and from plain convolution."""
    weights = np.ones(kernel) if taps is None else np.array(taps, dtype=float)
    with np.errstate(divide="ignore"):
        plain = [np.log(_plain([weights] * n)) for n in DEPTHS]
    counted = [_counted(context, stack(n, kernel, taps)) for n in DEPTHS]
    return {"counting": counted, "convolution": plain}


def _counted(context: Context, network: Network) -> np.ndarray:
    """log p from exact counts; math.log knows integers of any size."""
    counts = context.engines.counting(network).marginal(0)
    total = math.log(sum(counts))
    return np.array([math.log(c) - total if c else -math.inf for c in counts])


def _plain(kernels: Sequence[np.ndarray]) -> np.ndarray:
    """Convolution in floats, one layer at a time: of weights ≥ 0 it keeps all digits."""
    signal = np.ones(1)
    for weights in kernels:
        signal = np.convolve(signal, weights / weights.sum())
    return signal


def _spaced(kernel: int, spacing: int) -> np.ndarray:
    weights = np.zeros(spacing * (kernel - 1) + 1)
    weights[::spacing] = 1.0
    return weights


def _formula(kernel: int, taps: Taps, depth: int, kind: str, order: int) -> np.ndarray:
    """log of the approximation as it is, before it was normalised."""
    found = approximate(stack(depth, kernel, taps), kind, order)
    return found.log_map + math.log(found.metadata["mass"])


def _over_peak(log: np.ndarray, formula: np.ndarray) -> float:
    """Largest difference of two signals over the Gaussian's peak."""
    p = np.exp(log)
    t = np.arange(len(p))
    std = math.sqrt(p @ (t - p @ t) ** 2)
    return float(np.abs(p - np.exp(formula)).max()) * std * math.sqrt(2 * math.pi)


def _relative(log: np.ndarray, formula: np.ndarray) -> np.ndarray:
    """p over the formula, less 1, in the inner part of the field."""
    reach = len(log) - 1
    first, last = (round(share * reach) for share in INNER)
    return np.expm1(log - formula)[first : last + 1]


def _distances(p: np.ndarray) -> tuple[float, float]:
    """sup |F − Φ|, and sup |σ p/d − φ| over the points of the lattice of span d."""
    t = np.arange(len(p))
    std = math.sqrt(p @ (t - p @ t) ** 2)
    z = (t - p @ t) / std
    normal = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in z])
    after = np.cumsum(p)
    far = max(np.abs(after - normal).max(), np.abs(after - p - normal).max())
    held = np.flatnonzero(p)
    span = math.gcd(*(int(i) for i in held - held[0]))
    density = np.exp(-(z[held] ** 2) / 2) / math.sqrt(2 * math.pi)
    return float(far), float(np.abs(std * p[held] / span - density).max())
