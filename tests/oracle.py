"""Brute force that shares no code with the package's reverse pass.

It reads the description tree (not the graph), keeps every signal as a dictionary from pixel to
weight, and pulls it back tap by tap by the definition of each layer.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from fractions import Fraction

from erftheory import (
    Activation,
    AvgPool,
    Branches,
    Chain,
    Conv,
    ConvTranspose,
    Dropout,
    MaxPool,
    Named,
    Network,
    Repeat,
    Residual,
    Upsample,
)
from erftheory.network.layers import Norm


def _each(value, ndim):
    return value if isinstance(value, tuple) else (value,) * ndim


def _padding_before(layer, k, d, ndim):
    out = []
    for a in range(ndim):
        span = d[a] * (k[a] - 1)
        if layer.padding == "same":
            out.append(span // 2)
        elif layer.padding in ("valid", "causal"):
            out.append(0 if layer.padding == "valid" else span)
        else:
            entry = _each(layer.padding, ndim)[a]
            out.append(entry[0] if isinstance(entry, tuple) else entry)
    return out


def _taps(layer, k):
    if getattr(layer, "taps", None) is None:
        return dict.fromkeys(itertools.product(*map(range, k)), 1)
    values = [Fraction(v) for v in layer.taps.values]
    return dict(zip(itertools.product(*map(range, k)), values))


def pull(network: Network, g: dict, ndim: int) -> dict:
    """Weights at the input for weights `g` at the output: every tap at its own value."""
    out: dict = defaultdict(int)
    if isinstance(network, Chain):
        for part in reversed(network.parts):
            g = pull(part, g, ndim)
        return g
    if isinstance(network, Repeat):
        for _ in range(network.times):
            g = pull(network.part, g, ndim)
        return g
    if isinstance(network, Named):
        return pull(network.part, g, ndim)
    if isinstance(network, (Residual, Branches)):
        branches = (
            (network.branch, network.shortcut)
            if isinstance(network, Residual)
            else network.branches
        )
        for b in branches:
            for t, v in (g if b is None else pull(b, g, ndim)).items():
                out[t] += v
        return dict(out)
    if isinstance(network, (Conv, MaxPool, AvgPool)):
        k, d = _each(network.kernel, ndim), _each(network.dilation, ndim)
        s = _each(network.kernel if network.stride is None else network.stride, ndim)
        p = _padding_before(network, k, d, ndim)
        for o, v in g.items():
            for a, w in _taps(network, k).items():
                out[tuple(s[i] * o[i] + d[i] * a[i] - p[i] for i in range(ndim))] += v * w
        return dict(out)
    if isinstance(network, ConvTranspose):
        k, d, s = (_each(v, ndim) for v in (network.kernel, network.dilation, network.stride))
        p = _each(network.padding, ndim)
        # input i writes v(a) to o = s·i + d·a − p, so output o reads i = (o + p − d·a)/s
        for o, v in g.items():
            for a, w in _taps(network, k).items():
                at = [o[i] + p[i] - d[i] * a[i] for i in range(ndim)]
                if all(x % s[i] == 0 for i, x in enumerate(at)):
                    out[tuple(x // s[i] for i, x in enumerate(at))] += v * w
        return dict(out)
    if isinstance(network, Upsample):
        f = _each(network.factor, ndim)
        for o, v in g.items():
            axes = [_reads(o[i], f[i], network.mode, network.align_corners) for i in range(ndim)]
            for picks in itertools.product(*axes):
                weight = Fraction(1)
                for _, w in picks:
                    weight *= w
                out[tuple(i for i, _ in picks)] += v * weight
        return dict(out)
    if isinstance(network, Activation | Dropout | Norm):
        return g  # every pixel alone: one path
    raise ValueError(f"network: got {network!r}, which the oracle does not know")


def _reads(o, f, mode, align):
    if mode == "nearest":
        return [(o // f, Fraction(1))]
    x = Fraction(o, f) if align else Fraction(2 * o + 1, 2 * f) - Fraction(1, 2)
    low = x.numerator // x.denominator
    return [(low, 1 - (x - low)), (low + 1, x - low)] if x != low else [(low, Fraction(1))]


def weights(network: Network, unit=None) -> dict:
    ndim = network.ndim
    g = pull(network, {unit or (0,) * ndim: 1}, ndim)
    return {t: v for t, v in g.items() if v != 0}
