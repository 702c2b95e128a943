"""Derivations by topic: `derive.moments()` shows, step by step, where a formula comes from.

Each topic returns a `Derivation`: print it, display it in Jupyter, or run the checks of all
its steps with `.check()`. SymPy is imported when the first topic is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from erftheory.symbolic import Derivation

TOPICS = (
    "n_fold_convolution",
    "moments",
    "gaussian_limit",
    "edgeworth",
    "saddlepoint",
    "growth",
    "random_weights",
    "nonlinearity",
    "dropout",
    "pooling",
    "subsampling",
    "dilation",
    "large_kernel",
    "separable",
    "skip",
    "initialisation",
)


def n_fold_convolution() -> Derivation:
    """o = u ∗ v ∗ … ∗ v, its transform V(ω)^n and the extended binomial formula (L16 sec. 2.1)."""
    return topic("n_fold_convolution")


def moments() -> Derivation:
    """Mean n·E X, variance n·Var X, cumulants; closed forms for uniform kernels (L16 sec. 2)."""
    return topic("moments")


def gaussian_limit() -> Derivation:
    """The characteristic function tends to exp(−s²/2), with its first corrections (L16 sec. 2)."""
    return topic("gaussian_limit")


def edgeworth() -> Derivation:
    """Edgeworth's expansion to the order 1/n², and the size of level sets at finite depth."""
    return topic("edgeworth")


def saddlepoint() -> Derivation:
    """Daniels' density e^{K(h)−ht}/√(2πK″(h)) of the signal, K′(h) = t, and its corrections."""
    return topic("saddlepoint")


def growth() -> Derivation:
    """std = √(n(k²−1)/12), RF = n(k−1)+1 and std/RF → 0 like 1/√n (L16 sec. 2 and 3)."""
    return topic("growth")


def random_weights() -> Derivation:
    """E g = 0, E g² is the convolution of the weights' variances, at any width (L16 sec. 2.2)."""
    return topic("random_weights")


def nonlinearity() -> Derivation:
    """ReLU, leaky ReLU and |·| leave E g² exactly a convolution, at any width (L16 sec. 2.2)."""
    return topic("nonlinearity")


def dropout() -> Derivation:
    """Dropout of rate ρ is a factor 1/(1−ρ); the shape stays, except between fixed layers."""
    return topic("dropout")


def pooling() -> Derivation:
    """An average pool is a uniform kernel; a max pool routes uniformly if its inputs are alike."""
    return topic("pooling")


def subsampling() -> Derivation:
    """RF = 1 + Σ (k_l−1) d_l j_l, variance Σ (d_l j_l)² Var v_l; equal strides in closed form."""
    return topic("subsampling")


def dilation() -> Derivation:
    """Dilations k^l give an exactly uniform field, one path a pixel; equal ones leave holes."""
    return topic("dilation")


def large_kernel() -> Derivation:
    """One kernel with the field of n layers has (n(k−1) + 2)/(k + 1) times their variance."""
    return topic("large_kernel")


def separable() -> Derivation:
    """1×k after k×1 has the field, the paths and the variances of k×k, with 2/k of the weights."""
    return topic("separable")


def skip() -> Derivation:
    """A residual block is (1 + αv)/(1 + α); with batch norm n of them grow like log n."""
    return topic("skip")


def initialisation() -> Derivation:
    """Mass at the end taps: up to 3(k−1)/(k+1) times the variance, still Gaussian (L16 sec. 4)."""
    return topic("initialisation")


def topic(name: str) -> Derivation:
    """The derivation called `name`, one of `TOPICS`."""
    if name not in TOPICS:
        raise ValueError(f"topic: got {name!r}; takes one of {', '.join(TOPICS)}")
    from erftheory import symbolic

    return getattr(symbolic, name)()
