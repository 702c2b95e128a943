"""Derivations by topic: `derive.moments()` shows, step by step, where a formula comes from.

Each topic returns a `Derivation`: print it, display it in Jupyter, or run the checks of all
its steps with `.check()`. SymPy is imported when the first topic is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from erftheory.symbolic import Derivation

TOPICS = ("n_fold_convolution", "moments", "gaussian_limit", "growth", "skip", "nonlinearity")


def n_fold_convolution() -> Derivation:
    """o = u ∗ v ∗ … ∗ v, its transform V(ω)^n and the extended binomial formula (L16 sec. 2.1)."""
    return topic("n_fold_convolution")


def moments() -> Derivation:
    """Mean n·E X, variance n·Var X, cumulants; closed forms for uniform kernels (L16 sec. 2)."""
    return topic("moments")


def gaussian_limit() -> Derivation:
    """The characteristic function tends to exp(−s²/2), with its first corrections (L16 sec. 2)."""
    return topic("gaussian_limit")


def growth() -> Derivation:
    """std = √(n(k²−1)/12), RF = n(k−1)+1 and std/RF → 0 like 1/√n (L16 sec. 2 and 3)."""
    return topic("growth")


def skip() -> Derivation:
    """A residual block is (1 + αv)/(1 + α); with batch norm n of them grow like log n."""
    return topic("skip")


def nonlinearity() -> Derivation:
    """ReLU, leaky ReLU and |·| leave E g² exactly a convolution, at any width (L16 sec. 2.2)."""
    return topic("nonlinearity")


def topic(name: str) -> Derivation:
    """The derivation called `name`, one of `TOPICS`."""
    if name not in TOPICS:
        raise ValueError(f"topic: got {name!r}, expected one of {', '.join(TOPICS)}")
    from erftheory import symbolic

    return getattr(symbolic, name)()
