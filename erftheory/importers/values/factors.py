"""Constants that multiply a value, and what a normalisation has of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from erftheory.importers.values.dimensions import Dim, spatial
from erftheory.importers.values.pixels import Constant, Normed, Pixels
from erftheory.network.layers import LayerNorm, RMSNorm

STATISTICS = ("stat", "rstat", "sstat")  # a mean over channels, its inverse, its root


def typical(values: np.ndarray, dims: Sequence[Dim]) -> float | None:
    """Root mean square over channels in the middle of the image, with the sign of their mean."""
    if values.ndim and values.ndim == len(dims):
        index = tuple(
            slice(n // 2, n // 2 + 1) if spatial(d) else slice(None)
            for d, n in zip(dims, values.shape)
        )
        values = values[index]
    if values.size == 0 or values.dtype == object:
        return None
    flat = np.ravel(values).astype(np.float64)
    size = math.sqrt(np.dot(flat, flat) / flat.size)
    return -size if np.sum(flat) < 0 else size


def combined(factors: Sequence[Constant]) -> float | None:
    """What a normalisation's constants do together, as `typical` of one array has it."""
    total: np.ndarray = np.ones(1)
    for factor in factors:
        known = factor.get()
        if known is None:
            return None
        row = np.ravel(known).astype(np.float64)
        if factor.entries and row.size > factor.entries:
            row = _unbroadcast(np.asarray(known, np.float64))
        if row.size != total.size and 1 not in (row.size, total.size):
            return None
        total = total * row
    return typical(total, ())


def _unbroadcast(known: np.ndarray) -> np.ndarray:
    """Entries along the dimensions in which an array varies."""
    for axis in range(known.ndim):
        first = known.take([0], axis)
        if np.array_equal(np.broadcast_to(first, known.shape), known):
            known = first
    return known.ravel()


def inverse(constant: Constant) -> Constant:
    def get() -> np.ndarray | None:
        known = constant.get()
        return None if known is None else 1 / np.asarray(known, np.float64)

    found = Constant(constant.shape, get)
    found.root = {"sqrt": "rsqrt", "rsqrt": "sqrt"}.get(constant.root, "")
    return found


def along_pixels(constant: Constant, dims: Sequence[Dim]) -> bool:
    """Whether an array that was not broadcast has entries along the image."""
    shape = constant.shape
    if len(shape) != len(dims) or math.prod(shape) != constant.entries:
        return False
    return any(n > 1 and spatial(d) for n, d in zip(shape, dims))


def norm_of(kind: str, a: Pixels, b: Pixels) -> Normed:
    """The normalisation that an operation on two functions of one node makes."""
    made = next((v.norm for v in (a, b) if v.tag == "norm" and v.norm is not None), None)
    if made is not None:  # x / σ less its mean / σ
        layer = LayerNorm() if isinstance(made.layer, RMSNorm) else made.layer
        return made._replace(layer=layer)
    stat, other = (a, b) if a.tag in STATISTICS else (b, a)
    factors = stat.norm.factors if stat.norm is not None else ()
    return Normed(LayerNorm() if other.centred else RMSNorm(), factors)
