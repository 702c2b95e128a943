"""Laws of activations: which leave the shape of the variance signal exactly, which in the limit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from erftheory.laws.machine.base import (
    L16,
    Context,
    Evidence,
    above,
    below,
    equal,
    information,
    law,
    stack,
)
from erftheory.laws.machine.trials import LEVELS, shape_trial
from erftheory.laws.referees import wide
from erftheory.laws.referees.byhand import (
    Apply,
    Convolve,
    Filters,
    Mask,
    Parts,
    Pool,
    Skip,
    all_reads,
    filters,
    independent,
    mean_square,
    signs,
)
from erftheory.network.base import Chain, Network
from erftheory.network.combine import Residual
from erftheory.network.layers import Activation, Conv

ROUNDING = 1e-12  # allowed deviation of a mean over some thousand nets, relative to its peak
BROKEN = 0.01  # a counterexample deviates by more than this share of the peak
HEAVY = 10_000  # samples from which on one-channel nets, whose tails are heavy, are worth a test
INPUTS = 3  # inputs that every row of the boundary is enumerated for


def piecewise(slope: float, at_zero: float = 0.0) -> Apply:
    """h for h > 0, slope·h below; `at_zero` is the derivative given out at 0."""
    return Apply(
        lambda h: np.where(h > 0, h, slope * h),
        lambda h: np.where(h > 0, 1.0, np.where(h < 0, slope, at_zero)),
        (1 + slope**2) / 2,
    )


def _smooth(name: str) -> Apply:
    return Apply(
        lambda h: wide.slopes(name, h)[0], lambda h: wide.slopes(name, h)[1], 1.0
    )


RELU = piecewise(0.0)
# φ′(h)² + φ′(−h)² = 1 without a kink: φ′² is cos²(h − π/4), and the logistic function
SINE = Apply(lambda h: np.sin(h - math.pi / 4), lambda h: np.cos(h - math.pi / 4), 0.5)
RAMP = Apply(lambda h: 2 * np.arcsinh(np.exp(h / 2)), lambda h: (1 + np.exp(-h)) ** -0.5, 0.5)


class Row(NamedTuple):
    """One ingredient of a small ReLU net (or another activation, where the name says so).

    Attributes:
      name: the ingredient.
      keeps: whether E g² is the convolution of the variance kernels, as proved or refuted.
      deviation: largest |E g² − convolution| over the convolution's peak, both with sum 1, over
        all weights and the worst of `INPUTS` random inputs; exact but for rounding.
    """

    name: str
    keeps: bool
    deviation: float


def boundary(seed: int = 2016) -> tuple[Row, ...]:
    """What keeps E g² exactly a convolution in one-channel nets, and what breaks it by how much.

    All weights are enumerated: with entries ±1 unless the name says otherwise, kernel 3.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for name, keeps, parts, dead in _ingredients():
        expected = independent(parts)
        expected = expected / expected.sum()
        worst = 0.0
        for _ in range(INPUTS):
            x = rng.standard_normal(all_reads(parts, 1))
            x[dead] = 0
            found = mean_square(parts, x)
            gap = np.abs(found / found.sum() - expected).max() / expected.max()
            worst = max(worst, float(gap))
        rows.append(Row(name, keeps, worst))
    return tuple(rows)


_SIGNS = signs(1, 1, 1)
_NOWHERE, _PATCH = slice(0, 0), slice(3, 6)


def _alternate(activation: Apply, law: Filters = _SIGNS, layers: int = 4) -> Parts:
    """Convolutions with the activation between them."""
    between = [part for _ in range(layers - 1) for part in (Convolve(law), activation)]
    return (*between, Convolve(law))


def _ingredients() -> Sequence[tuple[str, bool, Parts, slice]]:
    """(name, whether it keeps the convolution, the net, pixels of the input that are 0)."""
    conv = Convolve(_SIGNS)
    common = filters([[m * e for e in s] for m in (1, 3) for s in product((-1, 1), repeat=3)])
    sparse = filters(list(product((-1, 0, 1), repeat=3)))
    two = ((-1.0, 2 / 3), (2.0, 1 / 3))  # mean 0, not symmetric
    lopsided = [tuple(zip(*pairs)) for pairs in product(two, repeat=3)]
    lopsided = filters([v for v, _ in lopsided], [math.prod(c) for _, c in lopsided])
    alike = filters([(1, 1, 1), (-1, -1, -1), (1, -1, 1), (-1, 1, -1)])
    biased = signs(1, 1, 1, bias=(0.5,))
    both = signs(1, 1, 1, bias=(-0.5, 0.5))
    root = piecewise(0.0, math.sqrt(0.5))
    return [
        (name, keeps, parts, _PATCH if "zero patch" in name else _NOWHERE)
        for name, keeps, parts in (
            ("ReLU", True, _alternate(RELU)),
            ("ReLU at the output too", True, (*_alternate(RELU), RELU)),
            ("leaky ReLU, slope 1/4", True, _alternate(piecewise(0.25))),
            ("leaky ReLU, slope -1/2", True, _alternate(piecewise(-0.5))),
            ("absolute value", True, _alternate(piecewise(-1.0))),
            ("sin(h - pi/4), smooth and bounded", True, _alternate(SINE)),
            ("2 asinh(exp(h/2)), smooth and monotone", True, _alternate(RAMP)),
            ("strides 2 and 3, dilation 2", True,
             (Convolve(_SIGNS, stride=2), RELU, Convolve(_SIGNS, dilation=2), RELU,
              Convolve(_SIGNS, stride=3), RELU, conv)),
            ("unequal variances 1, 4, 1", True, _alternate(RELU, signs(1, 2, 1))),
            ("weights that share one random size", True, _alternate(RELU, common, 3)),
            ("weights -1, 0, 1", True, _alternate(RELU, sparse, 3)),
            ("random bias of symmetric law", True, _alternate(RELU, both, 3)),
            ("dropout", True, (conv, RELU, Mask(5), conv, RELU, conv)),
            ("x + conv ReLU conv x", True, (conv, Skip((conv, RELU, conv)), conv)),
            ("x + ReLU conv x between two convolutions", True, (conv, Skip((conv, RELU)), conv)),
            ("x + conv ReLU x, x a convolution's output", True, (conv, Skip((RELU, conv)), conv)),
            ("ReLU(x + conv x), x a convolution's output", True,
             (conv, Skip((conv,)), RELU, conv)),
            ("average pool in front of all activations", True,
             (Pool(3), conv, RELU, conv, RELU, conv)),
            ("zero patch, derivative sqrt(1/2) at 0", True, _alternate(root)),
            ("zero patch, derivative 0 at 0", False, _alternate(RELU)),
            ("average pool behind activations", False,
             (conv, RELU, Pool(2), conv, RELU, Pool(2), conv)),
            ("max pool behind activations", False,
             (conv, RELU, Pool(2, True), conv, RELU, Pool(2, True), conv)),
            ("fixed bias 1/2", False, _alternate(RELU, biased)),
            ("x + ReLU conv x twice in a row", False,
             (conv, Skip((conv, RELU)), Skip((conv, RELU)), conv)),
            ("x + ReLU conv x of the input itself", False, (Skip((conv, RELU)), conv, RELU, conv)),
            ("x + conv ReLU x twice in a row", False,
             (conv, Skip((RELU, conv)), Skip((RELU, conv)), conv)),
            ("ReLU(x + conv x), x rectified", False, (conv, RELU, Skip((conv,)), RELU, conv)),
            ("asymmetric weights -1 and 2", False, _alternate(RELU, lopsided)),
            ("correlated weights", False, _alternate(RELU, alike)),
            *((f"{name}, one channel", False, _alternate(_smooth(name))) for name in wide.SMOOTH),
        )
    ]  # fmt: skip


@law(
    "ACT-2",
    "ReLU keeps the shape exactly, any width",
    "ReLU, leaky ReLU, abs: E g^2 is exactly the convolution at any width, whatever the gates do",
    f"{L16}, section 2.2, assumes independent gates; proof: derive.nonlinearity()",
)
def exact_activations(context: Context) -> list[Evidence]:
    """The proof, all nets with weights ±1 by hand and by autodiff, the boundary, random nets.

    The enumerated comparisons are exact. The two sampled ones are the tests of `trials`, each
    with half of this law's false alarms.
    """
    proof = context.engines.symbolic.nonlinearity().check()
    held = len(proof) - len(proof.failures)
    evidence = [equal("symbolic", "theory", "steps of the proof that hold", held, len(proof))]
    evidence += _integers(context)
    network = _enumerable()
    found = np.asarray(context.engines.enumerated(network).map)
    theory = np.asarray(context.engines.exact(network, signal="variance").map)
    evidence.append(
        below("enumerated autodiff", "exact",
              "strided, dilated, residual net with all three: E g^2 / peak",
              _gap(found, theory), ROUNDING)
    )  # fmt: skip
    for row in boundary(context.seed):
        bound = below if row.keeps else above
        limit = ROUNDING if row.keeps else BROKEN
        what = f"{row.name}: deviation / peak"
        evidence.append(bound("enumeration", "convolution", what, row.deviation, limit))
    return evidence + _sampled(context)


def _integers(context: Context) -> list[Evidence]:
    """Σ g² over all 4096 four-layer nets, integers in float64, against path counts."""
    counts = [int(c) for c in context.engines.counting(stack(4, 3)).marginal(0)]
    x = np.random.default_rng(context.seed).standard_normal(9)
    evidence = []
    # E φ′² of ReLU and of leaky ReLU with slope 1/2 are 1/2 and 5/8: sums of 4096 nets are whole
    for name, slope, each in (("ReLU", 0.0, 512), ("leaky ReLU 1/2", 0.5, 1000), ("abs", -1, 4096)):
        sums = (4096 * mean_square(_alternate(piecewise(slope)), x)).tolist()
        evidence.append(
            equal("enumeration", "counting", f"{name}: largest sum of g^2, 4096 nets",
                  max(sums), each * max(counts), of=(sums, [each * c for c in counts]))
        )  # fmt: skip
    return evidence


def _enumerable() -> Network:
    """15 weights, 32768 nets."""
    relu, leaky, absolute = (Activation(a) for a in ("relu", "leaky_relu", "abs"))
    block = Residual(Chain(Conv(3, dilation=2), absolute, Conv(3)))
    return Chain(Conv(3, stride=2), leaky, block, Conv(3), relu, Conv(3), ndim=1)


def _gap(found: np.ndarray, theory: np.ndarray) -> float:
    """max |found − theory| / max theory, infinite for other shapes."""
    same = found.shape == theory.shape
    return float(np.abs(found - theory).max() / theory.max()) if same else math.inf


def _sampled(context: Context) -> list[Evidence]:
    """Gaussian ReLU nets of 16 channels, and of one channel where there are enough for a test."""
    evidence = []
    for channels, depth, factor in ((16, 8, 1), (1, 4, 10)):
        if channels == 1 and context.samples < HEAVY:
            context.note(f"ACT-2: one-channel nets enumerated; sampled from {HEAVY} samples on")
            continue
        n = context.reduced(f"ACT-2: sampled nets, channels {channels}", depth)
        hidden = [Chain(Conv(3), Activation("relu")) * (n - 1)] if n > 1 else []
        network = Chain(*hidden, Conv(3), ndim=1)
        evidence += shape_trial(
            context, network, f"ReLU, {channels} channels, n={n}",
            level=LEVELS["ACT-2"] / 2, channels=channels, samples=factor * context.samples,
        )  # fmt: skip
    return evidence


# ACT-1


NETS = {1: 5.0, 4: 5.0, 16: 2.5, 64: 0.5, 256: 0.005}  # by width, times context.samples
FEWEST = 200  # nets of a width; the widest is left out where there were fewer
INDEPENDENT = 12  # tests by normal tails, which share half of ACT-1's false alarms


@law(
    "ACT-1",
    "smooth activations keep it as widths grow",
    "tanh, sigmoid, GELU, SiLU leave the shape as all widths grow, the input's included",
    f"{L16}, section 2.2 and its figure on nonlinearities; mean field",
)
def smooth_activations(context: Context) -> list[Evidence]:
    """The deviation of the ERF variance from the convolution's, in three-layer nets.

    With N channels everywhere the deviation falls like 1/N. With a single input channel it tends
    to a limit other than 0, because the size of the few inputs in a patch sets how steep the
    activations are: `wide.limit` predicts it. The statistics are normal; a test fails where its
    p value is below a share of half this law's false alarms, the sampled nets have the other.
    """
    seed, level = context.seed, LEVELS["ACT-1"] / 2 / INDEPENDENT
    nets = {n: int(share * context.samples) for n, share in NETS.items()}
    widths = [n for n in nets if n < max(nets) or nets[n] >= FEWEST]
    if widths[-1] < max(nets):
        context.note(f"ACT-1: widths 1 to {widths[-1]}; {max(nets)} takes 40000 samples")
    grown = {
        n: wide.three_layers(wide.SMOOTH, n, n, max(FEWEST, nets[n]), seed + n) for n in widths
    }
    draws = max(FEWEST, 2 * context.samples)
    narrow = {
        n: wide.three_layers(wide.SMOOTH, n, 1, draws, seed + 1000 + n) for n in (16, 64)
    }
    evidence = []
    for name in wide.SMOOTH:
        inputs = {
            c: wide.limit(name, 3, c, max(FEWEST, context.samples), seed + 2000 + c)
            for c in (1, 4, 16, 64)
        }
        evidence += _falls(f"{name}, N channels everywhere", "half averaged",
                           {n: found[name] for n, found in grown.items()}, level)  # fmt: skip
        evidence += _falls(f"{name}, infinite width, N input channels", "wide limit", inputs, level)
        # 1/N is removed by the two widths; what is left is of order 1/N²
        few, many = (narrow[n][name] for n in (16, 64))
        value = many.value + (many.value - few.value) / 3
        error = math.hypot(4 * many.error, few.error) / 3
        gap = abs(value - inputs[1].value) / math.hypot(error, inputs[1].error)
        evidence += [
            information("half averaged", "wide limit",
                        f"{name}, 1 input channel: deviation, N to infinity, standard error "
                        f"{error:.2g}", value, inputs[1].value),
            above("half averaged", "wide limit", f"{name}, 1 input channel: p of equal deviations",
                  2 * _tail(gap), level),
        ]  # fmt: skip
        if name == "silu":
            sure = abs(inputs[1].value) - 5 * inputs[1].error
            what = "silu, 1 input channel, infinite width: |deviation| - 5 standard errors"
            evidence.append(above("wide limit", "convolution", what, sure, 0.005))
    return evidence + _executed(context, narrow[16]["silu"].map)


def _falls(
    name: str, route: str, found: dict[int, wide.Deviation], level: float
) -> list[Evidence]:
    """Whether |deviation| falls at least like 1/√N from 4 to 64 channels, and its exponent.

    The test's null is |D(64)| ≤ |D(4)| / 4, which deviations like 1/N fulfil with room to spare;
    a deviation that stays has p = 0 to many digits.
    """
    evidence = [
        information(route, "convolution", f"{name}, N={n}: deviation of the variance, standard "
                    f"error {d.error:.2g}", d.value, 0.0)
        for n, d in found.items()
    ]  # fmt: skip
    few, many = found[4], found[64]
    excess = abs(many.value) - abs(few.value) / 4
    error = math.hypot(many.error, few.error / 4)
    exponent, spread = _exponent({n: d for n, d in found.items() if n >= 4})
    return [
        *evidence,
        above(route, "theory", f"{name}: p of falling like N^-1/2 or faster",
              _tail(excess / error), level),
        information(route, "theory", f"{name}: power of that test if the deviation stayed as at "
                    "N=4", _tail(_quantile(level) - 0.75 * abs(few.value) / error), "near 1"),
        information(route, "theory", f"{name}: exponent, standard error {spread:.2g}",
                    exponent, -1.0),
    ]  # fmt: skip


def _exponent(found: dict[int, wide.Deviation]) -> tuple[float, float]:
    """Weighted log-log slope of |deviation| against width, and its standard error."""
    x = np.log(list(found))
    y = np.log([abs(d.value) for d in found.values()])
    weight = np.array([(d.value / d.error) ** 2 for d in found.values()])
    center = (weight @ x) / weight.sum()
    information_ = float(weight @ (x - center) ** 2)
    return float(weight @ ((x - center) * y)) / information_, information_**-0.5


def _tail(z: float) -> float:
    """P(Z ≥ z) of a standard normal."""
    return math.erfc(z / math.sqrt(2)) / 2


def _quantile(level: float) -> float:
    """z with P(Z ≥ z) = level, by bisection."""
    low, high = 0.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _tail(middle) > level else (low, middle)
    return low


def _executed(context: Context, theory: np.ndarray) -> list[Evidence]:
    """Executed SiLU nets of 16 channels and one input channel against the half-averaged map."""
    conv, silu = Conv(3), Activation("silu")
    network = Chain(conv, silu, conv, silu, conv, ndim=1)
    return shape_trial(
        context, network, "SiLU, 16 channels, 3 layers", level=LEVELS["ACT-1"] / 2,
        theory=theory, channels=16,
    )  # fmt: skip
