"""Why ReLU-like activations leave the variance signal a convolution, and what others add."""

from __future__ import annotations

from functools import cache
from typing import Any

import sympy as sp

from erftheory.symbolic.helpers import nets
from erftheory.symbolic.helpers.series import value_at_zero
from erftheory.symbolic.proof.derivation import Derivation, ProofStep
from erftheory.symbolic.proof.evidence import ExactPoints, SymbolicIdentity
from erftheory.symbolic.proof.names import equation, i, j, k, m, n, o, sigma, t, total, z

SLOPE: Any = sp.Symbol("alpha", real=True)  # of the activation below 0
MEAN: Any = sp.Symbol("c", positive=True)  # (φ′(y)² + φ′(−y)²)/2
_Y: Any = sp.Symbol("y", real=True)  # what the activation reads
_A, _B = sp.symbols("a b", integer=True)  # taps
_P, _Q = sp.symbols("p q", integer=True)  # pixels
_ATOMS, _GATES = sp.symbols("N M", positive=True, integer=True)
_WA, _WB, _X0, _X1 = sp.symbols("w_a w_b x_0 x_1", real=True)
_SLOPE: Any = sp.Function("phiprime")
_CHANCE: Any = sp.Function("P")  # P(i): of the i-th filter of a law
_WEIGHT: Any = sp.Function("w")  # w(m), or w(i, m) in the i-th filter
_READ: Any = sp.Function("y")  # y(i) of the i-th filter, or y(p) at pixel p
_VARIANCE: Any = sp.Function("rho")  # rho(m): variance of the weight at tap m
_GRADIENT: Any = sp.Function("g")  # g(n, p): of n layers with respect to their input at p
_PRODUCT: Any = sp.Function("C")  # C(n, p, q): mean of g(n, p) g(n, q) over the weights
_CHANCE_OF_GATE: Any = sp.Function("Q")
_GATE: Any = sp.Function("D")
_EXPECTED: Any = sp.Function("E")
_PSI, _BEND = sp.Function("psi"), sp.Function("psiprimeprime")
_TAPS = (m, 0, k - 1)


@cache
def nonlinearity() -> Derivation:
    """E g² of a chain of convolutions and ReLU, leaky ReLU or |·| is exactly a convolution.

    Layer by layer, x ← φ(w ∗ x), the output included. Every filter has a law that a flip of all
    its signs does not change, with uncorrelated entries; filters of different layers are
    independent. φ′(y)² + φ′(−y)² = 2c for y ≠ 0. Nothing is assumed about the gates φ′, the
    input or the width: with several channels a filter is that of one output channel, and its
    taps run over the input channels too. A fixed bias breaks the flip. Where a ReLU layer is off
    on a whole patch the next one reads 0, but all paths from there end in slopes 0.

    Source: Luo et al., NIPS 2016, section 2.2, states it for independent gates.
    """
    return Derivation(
        title="Activations that leave the effective receptive field as it is",
        source="Luo, Li, Urtasun, Zemel, NIPS 2016 (L16), section 2.2 (there: independent gates)",
        steps=(*_complements(), *_flips(), *_layers(), *_conclusions(), *_others()),
        key="conclusion",
    )


def _complements() -> tuple[ProofStep, ...]:
    branches = SymbolicIdentity("y > 0 and y < 0", cases=_both_signs())
    smooth = SymbolicIdentity("all y", reduce=_exponentials)
    leaky = sp.Piecewise((_Y, _Y > 0), (SLOPE * _Y, True))
    rest = sp.Derivative(_squares(sp.tanh(_Y)), _Y)
    return (
        ProofStep(
            "ReLU",
            "ReLU: the squared slopes at y and at -y add up to one",
            equation(_squares(sp.Piecewise((_Y, _Y > 0), (0, True))), 1),
            "One of the two is 1 and the other is 0, so here c is one half.",
            branches,
        ),
        ProofStep(
            "leaky ReLU",
            "Leaky ReLU: a constant for any slope",
            equation(_squares(leaky), 1 + SLOPE**2),
            "One of the two is 1 and the other is the squared slope.",
            branches,
        ),
        ProofStep(
            "absolute value",
            "The absolute value: both are one",
            equation(_squares(sp.Abs(_Y)), 2),
            "It is the leaky ReLU of slope -1.",
            branches,
        ),
        ProofStep(
            "shifted sine",
            "A smooth and bounded activation can do it too",
            equation(_squares(sp.sin(_Y - sp.pi / 4)), 1),
            "The slopes are a cosine and a sine of the same angle, so no kink is needed.",
            SymbolicIdentity("all y", reduce=lambda rest: sp.simplify(sp.expand_trig(rest))),
        ),
        ProofStep(
            "smooth ramp",
            "And so can a smooth and monotone one",
            equation(_squares(2 * sp.asinh(sp.exp(_Y / 2))), 1),
            "The squared slope is the logistic function, which has a point symmetry.",
            smooth,
        ),
        ProofStep(
            "tanh",
            "For tanh it is no constant",
            equation(rest, -8 * sp.tanh(_Y) * (1 - sp.tanh(_Y) ** 2) ** 2),
            "The slope is even and falls off, so y and -y do not complement each other.",
            SymbolicIdentity("all y"),
        ),
    )


def _squares(function: Any) -> Any:
    """φ′(y)² + φ′(−y)², not evaluated."""
    inner = sp.Symbol("u", real=True)
    mirrored = sp.Subs(sp.Derivative(function.subs(_Y, inner), inner), inner, -_Y)
    return sp.Derivative(function, _Y) ** 2 + mirrored**2


def _both_signs() -> tuple[dict[Any, Any], ...]:
    size = sp.Symbol("a", positive=True)
    return ({_Y: size}, {_Y: -size})


def _exponentials(residual: Any) -> Any:
    root = sp.Symbol("q", positive=True)
    return sp.simplify(sp.simplify(residual).subs(_Y, 2 * sp.log(root)))


def _flips() -> tuple[ProofStep, ...]:
    sign = 2 * i - 1
    pair: Any = sp.Sum((sign * _WA) * (sign * _WB) * _SLOPE(sign * _Y) ** 2, (i, 0, 1))
    atoms = (i, 0, _ATOMS - 1)
    product = _CHANCE(i) * _WEIGHT(i, _A) * _WEIGHT(i, _B)
    gated = total(product * _SLOPE(_READ(i)) ** 2, atoms)
    read, flipped = (total(s * _WEIGHT(m) * sp.Function("x")(m), _TAPS) for s in (1, -1))
    return (
        ProofStep(
            "flip",
            "Flipping the signs of a filter flips what the activation reads",
            equation(flipped, -read),
            "The activation reads one filter on one patch, with no bias and no skip beside it.",
            ExactPoints("random filters and patches", nets.patches),
        ),
        ProofStep(
            "pair",
            "A filter and its flip: the products of weights stay, the gates average to c",
            equation(pair / 2, MEAN * _WA * _WB),
            "Both factors change sign together, and the squared slopes are complements.",
            SymbolicIdentity("any activation with the complement, all y, w", _complemented),
        ),
        ProofStep(
            "symmetric law",
            "So the gate leaves every product of weights alone, on average",
            equation(gated, MEAN * total(product, atoms)),
            "A law that the flip does not change is made of such pairs, equally likely.",
            ExactPoints("random symmetric laws, also correlated ones", nets.symmetric_laws),
        ),
        ProofStep(
            "uncorrelated weights",
            "With uncorrelated weights only the variances are left",
            equation(gated, MEAN * _VARIANCE(_A) * sp.KroneckerDelta(_A, _B)),
            "Different weights of a filter have mean product 0, whatever the gate.",
            ExactPoints("random laws, uncorrelated and dependent", nets.uncorrelated_laws),
        ),
    )


def _layers() -> tuple[ProofStep, ...]:
    behind = _PRODUCT(n - 1, _P - m, _P - m)
    deltas = sp.KroneckerDelta(_A, _B) * sp.KroneckerDelta(_P - _A, _Q - _B)
    doubled = MEAN * _VARIANCE(_A) * deltas * _PRODUCT(n - 1, _P - _A, _P - _A)
    kept = total(_VARIANCE(_A) * _PRODUCT(n - 1, _P - _A, _P - _A), (_A, 0, k - 1))
    return (
        ProofStep(
            "gradient",
            "The gradient goes back through one layer",
            equation(
                _GRADIENT(n, _P),
                total(_WEIGHT(m) * _SLOPE(_READ(_P - m)) * _GRADIENT(n - 1, _P - m), _TAPS),
            ),
            "Pixel p - m reads pixel p by the weight m; g(n - 1) belongs to the layers above.",
            ExactPoints("difference quotients of piecewise linear nets, exact", nets.quotients),
        ),
        ProofStep(
            "output",
            "At the output the gradient is an impulse",
            equation(_PRODUCT(0, _P, _Q), sp.KroneckerDelta(_P, 0) * sp.KroneckerDelta(_Q, 0)),
            "No layer, no weight: pixels are uncorrelated and the square is 1 at the unit.",
            ExactPoints("the net without a layer", nets.impulses),
        ),
        ProofStep(
            "double sum",
            "Two different pixels never share a term",
            equation(
                total(total(doubled, (_B, 0, k - 1)), (_A, 0, k - 1)),
                MEAN * sp.KroneckerDelta(_P, _Q) * kept,
            ),
            "Only equal pixels above correlate, p - a = q - b, and only equal taps, a = b.",
            ExactPoints("random variances and squares, all p and q", nets.double_sums, _nested),
        ),
        ProofStep(
            "induction",
            "One layer down: again uncorrelated, and convolved with the variances",
            equation(
                _PRODUCT(n, _P, _Q),
                MEAN * sp.KroneckerDelta(_P, _Q) * total(_VARIANCE(m) * behind, _TAPS),
            ),
            "Given the layer's weights the ones above average to this, whatever they are fed.",
            ExactPoints("all nets of fixed sizes, any signs; other inputs above", nets.inductions),
        ),
    )


def _conclusions() -> tuple[ProofStep, ...]:
    field = (0, n * (k - 1))
    return (
        ProofStep(
            "conclusion",
            "The mean squared gradient is the convolution of the variances, times a scale",
            equation(
                total(_PRODUCT(n, t, t) * z**t, (t, *field)),
                MEAN**n * total(_VARIANCE(m) * z**m, _TAPS) ** n,
            ),
            "Every layer multiplies the generating function by that of its variances and by c.",
            ExactPoints("all nets of fixed sizes and any signs, random z", nets.generating),
        ),
        ProofStep(
            "share",
            "With equal variances each pixel has its share of the paths",
            equation(_PRODUCT(n, t, t) / total(_PRODUCT(n, j, j), (j, *field)), o(n, t) / k**n),
            "The scale cancels, and the linear net's effective receptive field is left.",
            ExactPoints("all nets with weights 1 and -1, paths listed", nets.shares),
        ),
    )


def _others() -> tuple[ProofStep, ...]:
    left, right = 2 * i - 1, 2 * j - 1
    four = total(total(left * right * _SLOPE(left * _X0 + right * _X1) ** 2, (i, 0, 1)), (j, 0, 1))
    even = {s: (_SLOPE(_X0 + s * _X1) ** 2 + _SLOPE(-_X0 - s * _X1) ** 2) / 2 for s in (1, -1)}
    square = (1 - sp.tanh(_Y) ** 2) ** 2
    ends = [square.subs(_Y, sigma * (_X0 + s * _X1)) for s in (1, -1)]
    weights = sp.symbols("w_0 w_1", real=True)
    read = weights[0] * _X0 + weights[1] * _X1
    atoms, gates = (i, 0, _ATOMS - 1), (j, 0, _GATES - 1)
    product = _CHANCE(i) * _WEIGHT(i, _A) * _WEIGHT(i, _B)
    opened = _CHANCE_OF_GATE(j) * _GATE(j) ** 2
    stein = SymbolicIdentity("all polynomials psi of degree 6", _gaussian_means, sp.expand)
    return (
        ProofStep(
            "coupling",
            "Any other activation couples two weights of random sign",
            equation(four / 4, (even[1] - even[-1]) / 2),
            "What is left is the even part of the squared slope, at the sum and the difference.",
            SymbolicIdentity("any activation and inputs", reduce=sp.expand),
        ),
        ProofStep(
            "small weights",
            "For tanh the coupling fades like the squared weight",
            equation(sp.Limit((ends[0] - ends[1]) / (2 * sigma**2), sigma, 0), -4 * _X0 * _X1),
            "With N channels the squared weight is of order 1/N: a finite-width term.",
            SymbolicIdentity("second order in the weight, all inputs", _small_weights),
        ),
        ProofStep(
            "Gaussian coupling",
            "Gaussian weights: two entries couple by the curvature of the squared slope",
            equation(
                _EXPECTED(weights[0] * weights[1] * _PSI(read)),
                sigma**4 * _X0 * _X1 * _EXPECTED(_BEND(read)),
            ),
            "Stein's lemma, once for each weight; psi is the squared slope.",
            stein,
        ),
        ProofStep(
            "Gaussian square",
            "Gaussian weights: one entry's square keeps its variance and the same curvature",
            equation(
                _EXPECTED(weights[0] ** 2 * _PSI(read)),
                sigma**2 * _EXPECTED(_PSI(read)) + sigma**4 * _X0**2 * _EXPECTED(_BEND(read)),
            ),
            "The first term is mean field, the second is smaller by the weight's variance.",
            stein,
        ),
        ProofStep(
            "mean field",
            "Mean field, any activation: gates independent of the weights only scale",
            equation(
                total(total(product * opened, gates), atoms),
                total(opened, gates) * _VARIANCE(_A) * sp.KroneckerDelta(_A, _B),
            ),
            "Here independence is assumed; the factor is the mean squared slope.",
            ExactPoints("random laws of weights and of gates", nets.independent_gates, _nested),
        ),
    )


def _nested(side: Any) -> Any:
    """Double sums as sums of sums, which exact arithmetic takes one at a time."""

    def unfold(term: Any, *limits: Any) -> Any:
        for limit in limits:
            # the factor keeps SymPy from joining the sums again
            inner: Any = sp.Sum(term, limit)
            term = sp.Mul(1, inner, evaluate=False)
        return term

    return side.replace(sp.Sum, unfold)


def _complemented(side: Any) -> Any:
    """Sums written out, and φ′(−y)² replaced by its complement 2c − φ′(y)²."""
    return side.doit().subs(_SLOPE(-_Y) ** 2, 2 * MEAN - _SLOPE(_Y) ** 2)


def _small_weights(side: Any) -> Any:
    """Limits for a weight that vanishes."""

    def evaluate(function: Any, variable: Any, target: Any, *_: Any) -> Any:
        if target != 0:
            raise ArithmeticError(f"no limit at 0: {variable} to {target}")
        return value_at_zero(function, variable)

    return side.replace(sp.Limit, evaluate)


def _gaussian_means(side: Any) -> Any:
    """E over w_0 and w_1 ~ N(0, σ²) for ψ a polynomial with free coefficients."""
    weights = sp.symbols("w_0 w_1", real=True)
    psi = sp.Poly(sp.symbols("c_0:7"), _Y).as_expr()
    written = side.replace(_PSI, lambda y: psi.subs(_Y, y))
    written = written.replace(_BEND, lambda y: sp.diff(psi, _Y, 2).subs(_Y, y))

    def mean(polynomial: Any) -> Any:
        terms = sp.Poly(sp.expand(polynomial), *weights).terms()
        return sum(c * sp.prod(sigma**d * _moment(d) for d in degrees) for degrees, c in terms)

    return written.replace(_EXPECTED, mean)


def _moment(degree: int) -> int:
    """Of a standard normal: 1·3·5···(degree − 1), 0 for an odd degree."""
    return 0 if degree % 2 else int(sp.factorial2(degree - 1))
