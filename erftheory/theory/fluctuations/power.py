"""How much one random net differs from the mean: second moments of its gradient power.

With g the gradient of one output unit and m₀ = Σ_t g(t)² its power, E[m₀²]/E[m₀]² says how far the
ERF of one net is from the mean over nets, and how many nets a sampled mean is worth. E[m₀²] sees
two copies of the net: four gradients g_i(p) g_i(q) g_j(r) g_j(s), channels summed in pairs, which
start at the output and must end with p = q and r = s. Averaged over its weights, a layer of c
channels pairs the four in three ways; a pairing moves each of its two pairs by a tap of its own and
carries over to another pairing with weight 1/c (Wick's theorem; for weights that are not Gaussian a
fourth cumulant joins, which moves all four alike).

*Linear chains* are exact. Only two frequencies of the four remain, u and v, so a layer is a matrix
on (pq)(rs), (pr)(qs), (ps)(qr): their weights 1, |D(u)|², |D(v)|², D the transform of its taps over
their sum, and then 1 on the diagonal, 1/c off it. At one channel all three agree, and
E[m₀²]/E[m₀]² is the mean over u and v of Π (1 + |D(u)|² + |D(v)|²).

*ReLU chains* are predicted in mean field: the gates of a layer are independent of its weights, and
all pixels of one input share one correlation ρ, 0 for the input and ρ → (√(1−ρ²) + ρ(π − acos ρ))/π
behind a ReLU (Cho & Saul 2009). In 1-D the four places are followed in full ("mean field").
Otherwise two of them are, as two walks of the net that end where they like ("two walks"):

    E[m₀²]/E[m₀]² ≈ E Π_l (1 + 5/c where the walks meet, 1 + (2/π) asin(ρ_l)/c where they do not)

which is (1 + 5/c)^depth without space (Hanin & Nica 2018). That leaves out pairs that part and meet
again; they add as much to the logarithm as in the linear chain, where the walks (with 2/c and 0)
can be compared with the exact moment ("walks and detours"). This last step is a guess that
measurements support, see docs/fluctuations.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import reduce
from itertools import product

import numpy as np

from erftheory.network.arguments import integer, number, one_of
from erftheory.network.base import Network
from erftheory.theory.fluctuations.chains import BackwardLayer, extent, read_chain
from erftheory.theory.fluctuations.mean_field import four_places, two_walks

# E w⁴ / (E w²)² − 3 of the laws of a weight
CUMULANTS = {"gaussian": 0.0, "uniform": -6 / 5, "rademacher": -2.0}
FREQUENCIES = 1 << 13  # of u, and of v, in an exact second moment: their pairs are all visited
WIDEST = 101  # receptive field in pixels of a ReLU chain whose four places are followed in full
_ROWS = 1 << 20  # coefficients, over pairs of frequencies, looked at together


@dataclass(frozen=True)
class PowerFluctuation:
    """Fluctuation of the power m₀ = Σ_t g(t)² over random nets.

    Attributes:
      log_second_moment: log(E[m₀²]/E[m₀]²). Were m₀ log-normal, it would be the variance of log m₀.
      method: "exact"; "mean field", "walks and detours" or, for receptive fields too large for
        the linear chain's exact moment, "two walks", which is too small.
      channels, weights: of the nets.
    """

    log_second_moment: float
    method: str
    channels: int
    weights: str

    @property
    def relative_variance(self) -> float:
        """Var m₀ / E[m₀]²; infinite beyond the range of floats."""
        return math.expm1(self.log_second_moment) if self.log_second_moment < 700 else math.inf

    def effective(self, samples: float) -> float:
        """Number of equal nets that `samples` random ones are worth, samples · E[m₀]²/E[m₀²]."""
        return samples * math.exp(-self.log_second_moment)

    def nets_for(self, precision: float) -> float:
        """Random nets whose mean power has a relative standard error of `precision`."""
        return self.relative_variance / _precision(precision) ** 2


@dataclass(frozen=True)
class ShapeFluctuation:
    """What one random net adds to the error of a sampled ERF's variance and centre, on one axis.

    With m_r = Σ_t (t − mean)^r g(t)² of one net, the mean ERF has variance E[m₂]/E[m₀], and the
    error of a sampled one is, for many nets, the mean of (m₂ − variance · m₀)/E[m₀].

    Attributes:
      variance: of the mean ERF, pixels².
      spread: root mean square of (m₂ − variance · m₀)/E[m₀], pixels².
      centre: root mean square of m₁/E[m₀], pixels.
      power: the fluctuation of m₀.
    """

    variance: float
    spread: float
    centre: float
    power: PowerFluctuation

    def std_stderr(self, samples: float) -> float:
        """Standard error of the ERF's std (pixels) over that many nets, to first order."""
        return self.spread / (2 * math.sqrt(self.variance * samples))

    def nets_for(self, precision: float) -> float:
        """Nets whose mean ERF has a std with a relative standard error of `precision`."""
        return (self.spread / (2 * self.variance * _precision(precision))) ** 2


def power_fluctuation(
    network: Network, channels: int = 16, weights: str = "gaussian"
) -> PowerFluctuation:
    """E[m₀²]/E[m₀]² of random nets: exact for linear chains, predicted for ReLU chains.

    The nets are those of `sample`: one input channel, `channels` inside, one output channel unless
    `Conv(channels=)` says otherwise, no padding in reach. The scale of the weights has no effect.

    Args:
      network: a chain of `Conv` (any stride, dilation and taps) and, directly behind convolutions,
        `Activation("relu")` or "linear".
      channels: channels inside.
      weights: "gaussian", "uniform" or "rademacher"; of a ReLU chain it is the weights' fourth
        moment alone that counts here.

    Raises:
      ValueError: another network or argument, or a receptive field that is too large.
    """
    layers, kappa = _arguments(network, channels, weights)
    linear = [replace(layer, gate=None) for layer in layers]
    if all(layer.gate is None for layer in layers):
        return PowerFluctuation(_exact(linear, kappa), "exact", channels, weights)
    if network.ndim == 1 and extent(layers)[0] <= WIDEST:
        return PowerFluctuation(four_places(layers, kappa), "mean field", channels, weights)
    moment, method = two_walks(layers, kappa), "two walks"
    if _frequencies(linear) <= FREQUENCIES:
        moment += _exact(linear, kappa) - two_walks(linear, kappa)
        method = "walks and detours"
    return PowerFluctuation(moment, method, channels, weights)


def shape_fluctuation(
    network: Network, channels: int = 16, weights: str = "gaussian", axis: int = 0
) -> ShapeFluctuation:
    """Exact fluctuation of the ERF's variance and centre over random *linear* nets, on one axis.

    Arguments and errors as for `power_fluctuation`; a ReLU is an error too.
    """
    layers, kappa = _arguments(network, channels, weights)
    if any(layer.gate is not None for layer in layers):
        raise ValueError("network: got a ReLU; takes a linear chain, see power_fluctuation")
    if not 0 <= axis < network.ndim:
        raise ValueError(f"axis: got {axis}; takes 0 to {network.ndim - 1}")
    moments, scale = _linear(layers, kappa, axis)
    variance = sum(float(layer.taps @ layer.centred(axis) ** 2) for layer in layers)
    # moments[r, s] is E[m_r m_s]/(r! s!)
    square = 4 * moments[2, 2] - 4 * variance * moments[0, 2] + variance**2 * moments[0, 0]
    return ShapeFluctuation(
        variance=variance,
        spread=math.sqrt(max(square, 0.0)) * math.exp(scale / 2),
        centre=math.sqrt(max(moments[1, 1], 0.0)) * math.exp(scale / 2),
        power=PowerFluctuation(scale + math.log(moments[0, 0]), "exact", channels, weights),
    )


def _arguments(network: Network, channels: int, weights: str) -> tuple[list[BackwardLayer], float]:
    """The layers from the output to the input, and the weights' fourth cumulant."""
    integer("channels", channels)
    one_of("weights", weights, tuple(CUMULANTS))
    return read_chain(network, channels), CUMULANTS[weights]


def _precision(value: float) -> float:
    if not number("precision", value) > 0:
        raise ValueError(f"precision: got {value}; takes a number > 0")
    return float(value)


# ---- linear chains, exactly --------------------------------------------------------------------


def _exact(layers: list[BackwardLayer], kappa: float) -> float:
    """log E[m₀²]/E[m₀]²."""
    moments, scale = _linear(layers, kappa, None)
    return scale + math.log(moments[0, 0])


def _frequencies(layers: list[BackwardLayer]) -> int:
    return math.prod(len(line[0]) for line in _lines(layers))


def _lines(layers: list[BackwardLayer]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Frequencies and their weights, an axis."""
    even = all(layer.separable for layer in layers)
    return [_line(n, half=even or axis == 0) for axis, n in enumerate(extent(layers))]


def _linear(
    layers: list[BackwardLayer], kappa: float, axis: int | None
) -> tuple[np.ndarray, float]:
    """E[m_r m_s]/(r! s! E[m₀]²) for r, s up to 2 on `axis` (0 alone if None), over e^scale.

    Multiplying the four gradients by e^{λ(p+q)/2 + λ'(r+s)/2} makes E[m₀²] the generating function
    of these moments, so the recursion is carried out on Taylor polynomials in λ and λ'.

    Returns:
      the array, shape (3, 3) or (1, 1), and the scale.
    """
    lines, count = _lines(layers), _frequencies(layers)
    if count > FREQUENCIES:
        raise ValueError(
            f"network: got a receptive field of {extent(layers)} pixels, {count} frequencies; "
            f"takes at most {FREQUENCIES}"
        )
    u = np.stack([g.ravel() for g in np.meshgrid(*(line[0] for line in lines), indexing="ij")], 1)
    weight = reduce(np.multiply.outer, (line[1] for line in lines)).ravel()
    known: dict[tuple, tuple] = {}
    tables = []
    for layer in layers:
        key = (layer.taps.tobytes(), layer.places.tobytes())
        if key not in known:
            known[key] = _tables(layer, u, axis)
        tables.append(known[key])
    size = 1 if axis is None else 3
    total, scale = np.zeros((size, size)), 0.0
    rows = max(1, _ROWS // (count * size**2))
    for start in range(0, count, rows):
        part = slice(start, start + rows)
        jets, scale = _recursion(layers, tables, kappa, part, size)
        total += np.einsum("ijuv,u,v->ij", jets, weight[part], weight)
    return total, scale


def _line(pixels: int, half: bool) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies and weights that integrate polynomials of degree < pixels in e^{iu} exactly.

    With `half`, for even ones, one of each pair ±u.
    """
    index = np.arange(pixels // 2 + 1 if half else pixels)
    twice = half & (index > 0) & (2 * index < pixels)
    return 2 * np.pi * index / pixels, (1.0 + twice) / pixels


def _tables(layer: BackwardLayer, u: np.ndarray, axis: int | None) -> tuple:
    """Taylor coefficients of a layer: of M(λ), |D(u; λ/2)|² and Σ v² e^{λx}.

    D(u; λ) = Σ_a v_a e^{iux_a + λx_a}, M(λ) = D(0; λ).
    """
    orders = range(1 if axis is None else 5)
    x = np.zeros(len(layer.taps)) if axis is None else layer.centred(axis)
    waves = np.exp(1j * (layer.places @ u.T))
    halves = [(layer.taps * (x / 2) ** r / math.factorial(r)) @ waves for r in orders]
    power = [sum((halves[a] * halves[r - a].conj()).real for a in range(r + 1)) for r in orders]
    mass = [float(layer.taps @ x**r) / math.factorial(r) for r in orders]
    fourth = [float(layer.taps**2 @ x**r) / math.factorial(r) for r in orders]
    return mass, power, fourth


def _recursion(
    layers: list[BackwardLayer], tables: list[tuple], kappa: float, part: slice, size: int
) -> tuple[np.ndarray, float]:
    """Taylor coefficients of the three pairings' common end, shape (size, size, u, v)."""
    count = len(tables[0][1][0])
    shape = (size, size, len(range(count)[part]), count)
    pq, pr, ps, same = (np.zeros(shape) for _ in range(4))
    pq[0, 0] = pr[0, 0] = ps[0, 0] = 1
    same[0, 0] = 1 / layers[0].outward
    scale = 0.0
    for layer, (mass, power, fourth) in zip(layers, tables):
        c = layer.inward
        pq = _times(pq, lambda i, j, m=mass: m[i] * m[j])
        pr = _times(pr, lambda i, j, p=power: math.comb(i + j, i) * p[i + j][part, None])
        ps = _times(ps, lambda i, j, p=power: math.comb(i + j, i) * p[i + j][None, :])
        total = pq + pr + ps
        if kappa:
            total += kappa * _times(same, lambda i, j, f=fourth: math.comb(i + j, i) * f[i + j])
        growth = 1 + 2 / c  # of a pixel without neighbours: nothing exceeds it, nothing overflows
        same = total / (c * growth)
        pq, pr, ps = ((1 - 1 / c) / growth * s + same for s in (pq, pr, ps))
        scale += math.log(growth)
    return pq, scale


def _times(jets: np.ndarray, factor) -> np.ndarray:
    """The product of polynomials in λ and λ', cut at the degree of `jets`."""
    out = np.zeros_like(jets)
    size = len(jets)
    for i, j in product(range(size), repeat=2):
        for a, b in product(range(i + 1), range(j + 1)):
            out[i, j] += jets[a, b] * factor(i - a, j - b)
    return out
