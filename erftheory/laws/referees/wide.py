"""E g² of nets with smooth activations: one layer or two averaged exactly, or all of them.

For a Gaussian filter w of variance σ² an entry on inputs x, and ψ = φ′²,

    E[w_a w_b ψ(w·x)] = σ² δ_ab E ψ + σ⁴ x_a x_b E ψ″,        w·x ~ N(0, σ²|x|²)

(Stein's lemma, twice; `derive.nonlinearity()`). The first term is the convolution. The second
couples inputs that are large together; it is 0 where ψ(h) + ψ(−h) is constant. `three_layers`
uses this for the upper two of three layers, so that only the lowest one is sampled, at any width.
`limit` is the limit of infinite width at any depth, where all layers but the first are averaged.

Everything is 1-D with kernel 3 and weights of variance gain / fan-in. The input is iid N(0, 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

KERNEL = 3
SMOOTH = ("tanh", "sigmoid", "gelu", "silu")

_LAST = 24.0  # standard deviations of h that the tables reach; E ψ is flat beyond
_CHUNK = 300_000  # weights at a time


def slopes(name: str, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """φ and φ′ at h."""
    if name == "tanh":
        t = np.tanh(h)
        return t, 1 - t * t
    if name == "gelu":
        from scipy.special import ndtr

        below = ndtr(h)
        return h * below, below + h * _density(h)
    s = _logistic(h)
    first = s * (1 - s)
    if name == "sigmoid":
        return s, first
    if name == "silu":
        return h * s, s + h * first
    raise ValueError(f"name: got {name!r}; takes one of {', '.join(SMOOTH)}")


def bends(name: str, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """φ″ and φ‴ at h."""
    if name == "tanh":
        t = np.tanh(h)
        one = 1 - t * t
        return -2 * t * one, one * (6 * t * t - 2)
    if name == "gelu":
        return (2 - h * h) * _density(h), (h**3 - 4 * h) * _density(h)
    s = _logistic(h)
    first = s * (1 - s)
    second, third = first * (1 - 2 * s), first * (1 - 6 * first)
    if name == "silu":
        return 2 * first + h * second, 3 * second + h * third
    return second, third


def _density(h: np.ndarray) -> np.ndarray:
    return np.exp(-(h * h) / 2) / math.sqrt(2 * math.pi)


def _logistic(h: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(h / 2)  # without overflow


@dataclass(frozen=True)
class Table:
    """Means over h ~ N(0, s²) as functions of s: of ψ, ψ″, φ², and d E φ² / d s²."""

    psi: Callable[[np.ndarray], np.ndarray]
    bend: Callable[[np.ndarray], np.ndarray]
    square: Callable[[np.ndarray], np.ndarray]
    growth: Callable[[np.ndarray], np.ndarray]

    def at(self, which: str, variance: np.ndarray) -> np.ndarray:
        return getattr(self, which)(np.minimum(np.sqrt(variance), _LAST))


@cache
def table(name: str) -> Table:
    """The means by the trapezoidal rule, exponentially convergent here, splines between nodes."""
    from scipy.interpolate import CubicSpline

    z = np.linspace(-8, 8, 641)
    chance = np.exp(-(z**2) / 2)
    chance /= chance.sum()
    s = _LAST * np.linspace(0, 1, 401) ** 2
    (f, first), (second, third) = slopes(name, s[:, None] * z), bends(name, s[:, None] * z)
    means = (first**2, 2 * (second**2 + first * third), f**2, first**2 + f * second)
    return Table(*(CubicSpline(s, values @ chance) for values in means))


@dataclass(frozen=True)
class Deviation:
    """How far E g² is from the convolution.

    Attributes:
      value: relative deviation of the map's variance about the centre, (σ² − σ₀²)/σ₀².
      error: its standard error.
      map: E g², sum 1, shape (2·depth + 1,).
    """

    value: float
    error: float
    map: np.ndarray


def three_layers(
    names: Sequence[str], width: int, channels: int, nets: int, seed: int, gain: float = 2.0
) -> dict[str, Deviation]:
    """E g² of convolution, φ, convolution, φ, convolution, the upper two averaged exactly.

    With x the activations of the first layer and V the variance of a last weight, the exact mean
    over the upper weights of the products of gradients with respect to x is

        E S_i(p) S_j(r) = Σ_u V σ² N [E ψ(q_u) δ_ij δ_pr + σ² E ψ″(q_u) x_i(p) x_j(r)]

    over the patches u that hold p and r, q_u = σ² |x_patch|². All `names` see the same nets.

    Args:
      width: channels of both hidden layers, N.
      channels: channels of the input; the gradients with respect to all of them are averaged.
      nets: draws of the first layer and the input, at least 100.
    """
    rng = np.random.default_rng(seed)
    at_a_time = max(16, _CHUNK // (width * channels * KERNEL))
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in names}
    for start in range(0, nets, at_a_time):
        count = min(at_a_time, nets - start)
        x = rng.standard_normal((count, channels, 7), dtype=np.float32)
        w = rng.standard_normal((count, KERNEL, width, channels), dtype=np.float32)
        w *= math.sqrt(gain / (KERNEL * channels))
        h = np.asarray(sum(w[:, a] @ x[:, :, a : a + 5] for a in range(KERNEL)))
        own = np.square(w).sum(3)
        for name in names:
            found[name].append(_rows(name, x, w, own, h, gain / (KERNEL * width)))
    return {name: _estimate(*map(np.concatenate, zip(*rows))) for name, rows in found.items()}


def _rows(
    name: str, x: np.ndarray, w: np.ndarray, own: np.ndarray, h: np.ndarray, variance: float
) -> tuple[np.ndarray, np.ndarray]:
    """E g²(t) up to a factor, shape (nets, 7), and quantities of mean 0 (`_control`)."""
    f, slope = slopes(name, h)
    means = table(name)
    size = np.square(f, dtype=np.float64).sum(1)
    q = variance * np.stack([size[:, u : u + 3].sum(1) for u in range(3)], axis=1)
    flat, bend = means.at("psi", q), variance * means.at("bend", q)
    gate = np.square(slope).transpose(0, 2, 1)
    # by tap a and hidden pixel p: Σ_i ψ_i w_i², and Σ_i x_i φ′_i w_i for each input channel
    paths = np.stack([(gate @ own[:, a, :, None])[:, :, 0] for a in range(KERNEL)], axis=1)
    along = (f * slope).transpose(0, 2, 1)
    tilts = np.stack([along @ w[:, a] for a in range(KERNEL)], axis=1)
    g2, plain, through, bent = np.zeros((4, len(x), 7))
    for u in range(3):
        straight = np.zeros((len(x), 7))
        vector = np.zeros((len(x), 7, x.shape[1]), np.float32)
        for p in range(u, u + 3):
            for a in range(KERNEL):
                straight[:, p + a] += paths[:, a, p]
                vector[:, p + a] += tilts[:, a, p]
        coupled = bend[:, u, None] * np.square(vector).sum(2)
        g2 += flat[:, u, None] * straight + coupled
        plain += straight
        through[:, u] = (flat[:, u, None] * straight).sum(1)
        bent[:, u] = coupled.sum(1)
    controls = [
        plain @ _offsets(7),
        _control(through[:, :3], 7),
        _control(bent[:, :3], 7),
        _control(flat, 7),
        _control(size, 7),
        _control(paths.sum(1), 7),
        _control(np.square(x, dtype=np.float64).sum(1), 7),
    ]
    return g2, np.stack(controls, axis=1)


def _control(field: np.ndarray, size: int) -> np.ndarray:
    """Σ_t (t²/σ₀² − 1) Σ_paths F(place of the path), for a field F on a layer, (nets, pixels).

    Where F is the same function of what lies below each place, its mean is the same everywhere,
    because the law of the net does not change with the place; then the mean of this sum is that
    constant times the one of the convolution, 0. That holds at any width, for any activation.
    """
    pixels, box = field.shape[1], np.ones(KERNEL)
    above, below = np.ones(1), np.ones(1)
    while len(above) < pixels:
        above = np.convolve(above, box)
    while len(below) < size - pixels + 1:
        below = np.convolve(below, box)
    return field @ (above * np.correlate(_offsets(size), below, "valid"))


def _estimate(g2: np.ndarray, controls: np.ndarray) -> Deviation:
    """The ratio Σ (t²/σ₀² − 1) g² / Σ g², less the controls' share by regression."""
    offsets = _offsets(g2.shape[1])
    power = g2.sum(1)
    ratio = float((g2 @ offsets).mean() / power.mean())
    influence = (g2 @ offsets - ratio * power) / power.mean()
    controls = controls / controls.std(0)
    share = np.linalg.lstsq(controls, influence, rcond=None)[0]
    value = ratio - float((controls @ share).mean())
    rest = influence - controls @ share
    freedom = len(g2) - controls.shape[1]
    error = math.sqrt(float((rest**2).sum()) / freedom / len(g2))
    mean = g2.mean(0)
    return Deviation(value, error, mean / mean.sum())


def _offsets(size: int) -> np.ndarray:
    """t²/σ₀² − 1 about the middle of `size` pixels, σ₀² the variance of the convolution."""
    depth = (size - 1) // (KERNEL - 1)
    return (np.arange(size) - depth) ** 2 / (depth * (KERNEL**2 - 1) / 12) - 1


def limit(
    name: str, depth: int, channels: int, inputs: int, seed: int, gain: float = 2.0
) -> Deviation:
    """E g² of `depth` layers, activations between them, in the limit of infinite width.

    For one input the unit's variance q, its gradient 2s and the mean square gradient M of every
    pixel obey, from layer to layer, with means over h ~ N(0, q) and sums over the patch,

        M ← σ² Σ (E ψ · M + E ψ″ · s²),   s ← σ² Σ (d E φ²/dq · s),   q ← σ² Σ E φ²

    so what is sampled is the input alone, at `inputs` draws. The last layer has no activation.
    """
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((inputs, channels, 2 * depth + 1))
    return _estimate(*limit_of(name, x, gain))


def limit_of(name: str, x: np.ndarray, gain: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """E g² over infinitely wide nets at given inputs, the mean over input channels, and controls.

    Args:
      x: shape (inputs, channels, 2·depth + 1).

    Returns:
      shapes (inputs, 2·depth + 1) and (inputs, controls).
    """
    inputs, channels, size = x.shape
    sigma = gain / KERNEL
    first = sigma / channels
    q = first * _patches(np.square(x).sum(1))
    # channel c has the gradient 2 x_c s, with an s that all channels share
    pixels = size - KERNEL + 1
    s, m = np.zeros((2, inputs, pixels, size))
    for u in range(pixels):
        s[:, u, u : u + KERNEL] = first
        m[:, u, u : u + KERNEL] = first
    power = np.square(x).mean(1)[:, None, :]
    means = table(name)
    controls = [_control(q, size), _control(power[:, 0], size)]
    while pixels > 1:
        flat, bend, square, growth = (
            means.at(which, q)[..., None] for which in ("psi", "bend", "square", "growth")
        )
        m = flat * m + bend * s**2 * power
        controls += [_control(flat[..., 0], size), _control(m.sum(2), size)]
        m = sigma * _patches(m)
        s = sigma * _patches(growth * s)
        q = sigma * _patches(square[..., 0])
        pixels -= KERNEL - 1
    return m[:, 0], np.stack(controls, axis=1)


def _patches(values: np.ndarray) -> np.ndarray:
    """Sums of neighbouring pixels, axis 1."""
    pixels = values.shape[1] - KERNEL + 1
    return np.asarray(sum(values[:, a : a + pixels] for a in range(KERNEL)))

