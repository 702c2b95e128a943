"""A map by one Fourier transform, or by direct convolution: what needs no tilt."""

from __future__ import annotations

import math

import jax
import numpy as np

from erftheory.theory.plane.convolution import steps
from erftheory.theory.plane.direct import DirectAlgebra
from erftheory.theory.plane.spectrum import SpectrumAlgebra
from erftheory.theory.readings.lattice import has_gaps, holes
from erftheory.theory.readings.receptive_field import extent
from erftheory.theory.walk.walk import Walk

LARGEST = 2**26  # lattice points of one map
EPS = float(np.finfo(np.float64).eps)
Spans = tuple[tuple[int, int], ...]  # first and last lattice point, one entry an axis


def transform_map(
    walk: Walk,
    position: tuple[int, ...] | None,
    offset: tuple[int, ...],
    shape: tuple[int, ...],
    method: str,
    around: Spans | None = None,
) -> np.ndarray:
    """Shares of the whole signal at the pixels of a window, shape `shape`; 0 in holes.

    Args:
      offset, shape: the window, in input pixels.
      method: "spectrum" or "direct".
      around: lattice points that hold all but a negligible share and the window; None is the
        whole support.

    Raises:
      ValueError: the map that must be computed has more than `LARGEST` lattice points.
    """
    spans = around or extent(walk, position, loose=True)
    assert spans is not None
    grid = tuple(_size(last - first + 1, m) for (first, last), m in zip(spans, walk.lattice))
    if math.prod(grid) > LARGEST:
        raise ValueError(
            f"network: got a map of {' x '.join(map(str, grid))} lattice points; takes at most "
            f"{LARGEST} (marginals and moments have no such limit)"
        )
    first = tuple(s * f for s, f in zip(offset, walk.fine))
    with jax.enable_x64(True):
        if method == "direct":
            found = DirectAlgebra(grid).map(walk, position, first)
        else:
            found = SpectrumAlgebra(grid, not walk.restricted).map(walk, position, first)
    kept = found[tuple(slice(0, n * f, f) for n, f in zip(shape, walk.fine))]
    # all weights are >= 0: what rounding leaves below zero is zero
    values = kept if walk.signed else np.maximum(kept, 0)
    return values * ~holes(walk, position, offset, shape) if has_gaps(walk) else values


def _size(width: int, lattice: int) -> int:
    """Transform length: a power of two, times the odd part of the up-sampling grid."""
    odd = lattice
    while odd % 2 == 0:
        odd //= 2
    size = max(1, lattice // odd)
    while size * odd < width:
        size *= 2
    return size * odd


def transform_bound(walk: Walk, shape: tuple[int, ...], method: str) -> float:
    """A bound for Σ|error| over the map."""
    layers = sum(_depth(f) for f in walk.factors) + len(walk.vertices)
    if method == "direct":
        return EPS * (steps(walk) + 4)
    points = math.prod(_size(n, 1) for n in shape)
    # Parseval: spectral errors of ε·layers an entry are ε·layers·√N in the sum over N pixels
    return EPS * 4 * (math.log2(points + 1) + layers) * math.sqrt(points)


def _depth(factor) -> int:
    inner = factor.kernel
    return factor.count * (sum(map(_depth, inner.factors)) if isinstance(inner, Walk) else 1)
