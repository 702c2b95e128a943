"""Layers on a finite grid: a matrix an axis, pixels of the input by pixels of the output.

A layer whose taps are a product of axes is one matrix an axis; other taps are a sum of such
products. How the padding is filled is then only a question of which row a tap beyond the rim
falls on. Squares stay products too: (Σ_t ⊗A_t)² elementwise is Σ_{t,u} ⊗(A_t ∘ A_u).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import sparse

from erftheory.network.endless import GlobalAvgPool
from erftheory.network.imported import Spatial
from erftheory.network.layers import AvgPool, Layer, Step, Upsample

Matrix = Any  # a sparse array (pixels in, pixels out), or None for the identity
Terms = tuple[tuple[float, tuple[Matrix, ...]], ...]  # weighted products of axes, added up
Shape = tuple[int, ...]

PADDING = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
TORUS = "torus"  # every grid closed to a ring: nothing is lost, as on the unbounded plane


def size_after(op: Layer, step: Step | None, before: Shape, mode: str) -> Shape:
    """Pixels behind a layer, one entry an axis; below 1 where the image is too small."""
    if step is None:
        if not isinstance(op, GlobalAvgPool):
            return before
        return tuple(1 if any(ways) else n for n, ways in zip(before, op.reach(len(before))))
    if mode == TORUS:
        return tuple(n * s if step.up else n // s for n, s in zip(before, step.stride))
    return tuple(step.size(axis, n) for axis, n in enumerate(before))


def terms(op: Layer, step: Step | None, before: Shape, mode: str, linear: bool) -> Terms:
    """The layer's normalised taps (Σ|v| = 1) as matrices; a global mean as it is.

    `linear`: a max pool as a sum over its window, in place of a random choice inside the image.
    """
    if step is None:
        assert isinstance(op, GlobalAvgPool)
        ways = op.reach(len(before))
        return ((1.0, tuple(_mean(n) if any(w) else None for n, w in zip(before, ways))),)
    if isinstance(op, Spatial) and mode != TORUS:
        mode = "zeros"  # pads and crops of the model itself, which say what they fill in
    if isinstance(op, Upsample) and op.mode == "bilinear" and mode != TORUS:
        lines = zip(before, step.stride)
        return ((1.0, tuple(_linear(n, f, op.align_corners) for n, f in lines)),)
    inside = isinstance(op, AvgPool) and not op.count_include_pad
    counted = mode == "zeros" and (inside or step.kind == "routing" and not linear)
    kernel = step.kernel
    if len(before) > 1 and kernel.separable:
        whole = float(kernel.mass)
        lines = map(kernel.marginal, range(len(before)))
        rows = [np.array([float(t) / whole for t in line]) for line in lines]
        return ((whole / float(kernel.scale), _product(rows, step, before, mode, counted)),)
    found = []
    array = kernel.array()
    for place in np.ndindex(*kernel.shape[:-1]):
        if array[place].any():
            rows = [np.eye(k)[a] for a, k in zip(place, kernel.shape)] + [array[place]]
            found.append((1.0, _product(rows, step, before, mode, counted)))
    return tuple(found)


def _product(
    rows: list[np.ndarray], step: Step, before: Shape, mode: str, counted: bool
) -> tuple[Matrix, ...]:
    return tuple(
        _axis(tuple(row.tolist()), step.along(a), n, mode, counted)
        for a, (row, n) in enumerate(zip(rows, before))
    )


@lru_cache(maxsize=2048)
def _axis(
    taps: tuple[float, ...], line: Step, n: int, mode: str, counted: bool
) -> Matrix:
    """A step along one axis; `counted` shares each window's mass among its taps in the image."""
    (stride,), (dilation,) = line.stride, line.dilation
    (before,), (after,) = line.before, line.after
    if taps == (1.0,) and stride == 1 and not before and not after:
        return None
    if line.up:
        at = stride * np.arange(n)[:, None] + dilation * np.arange(len(taps)) - before
        size = n * stride if mode == TORUS else line.size(0, n)
        row, column = np.broadcast_to(np.arange(n)[:, None], at.shape), at
        if mode == TORUS:
            column = column % size
        inside = (column >= 0) & (column < size)
    else:
        size = n // stride if mode == TORUS else line.size(0, n)
        at = stride * np.arange(size)[:, None] + dilation * np.arange(len(taps)) - before
        column = np.broadcast_to(np.arange(size)[:, None], at.shape)
        row = at % n if mode == TORUS else folded(n, before, after, mode)[at + max(before, 0)]
        inside = row >= 0
    weights = np.broadcast_to(np.array(taps), at.shape)
    if counted:
        weights = weights / np.maximum(np.where(inside, weights, 0.0).sum(1, keepdims=True), 1e-300)
    inside = inside & (weights != 0)
    entries = weights[inside], (row[inside], column[inside])
    return sparse.csr_array(entries, shape=(n, size))


def folded(n: int, before: int, after: int, mode: str) -> np.ndarray:
    """The image's pixel at each place of the padded image (negative pads crop), −1 for zero."""
    options = {"constant_values": -1} if mode == "zeros" else {}
    kind: Any = PADDING[mode]
    return np.pad(np.arange(n), (max(before, 0), max(after, 0)), mode=kind, **options)


@lru_cache(maxsize=64)
def _mean(n: int) -> Matrix:
    return sparse.csr_array(np.full((n, 1), 1 / n))


@lru_cache(maxsize=256)
def _linear(n: int, factor: int, align_corners: bool) -> Matrix:
    """Linear interpolation as PyTorch does it: positions beyond the first or last pixel are that
    pixel, and aligned corners make the step (n − 1)/(n·factor − 1)."""
    size = n * factor
    if align_corners:
        place = np.arange(size) * ((n - 1) / (size - 1) if size > 1 else 0.0)
    else:
        place = np.maximum((np.arange(size) + 0.5) / factor - 0.5, 0.0)
    low = np.minimum(place.astype(int), n - 1)
    part = place - low
    rows = np.concatenate([low, np.minimum(low + 1, n - 1)])
    columns = np.tile(np.arange(size), 2)
    values = np.concatenate([1 - part, part]) / factor
    found = sparse.csr_array((values, (rows, columns)), shape=(n, size))
    found.eliminate_zeros()
    return found


def squared(found: Terms) -> Terms:
    """The elementwise square of a sum of products, products that vanish left out."""
    pairs = []
    for i, (one, left) in enumerate(found):
        for j, (two, right) in enumerate(found[i:], start=i):
            axes = tuple(map(_times, left, right))
            if all(a is None or a.nnz for a in axes):
                pairs.append((one * two * (1 if i == j else 2), axes))
    return tuple(pairs)


def _times(a: Matrix, b: Matrix) -> Matrix:
    if a is None and b is None:
        return None
    n = (b if a is None else a).shape[0]
    a, b = (sparse.eye_array(n, format="csr") if m is None else m for m in (a, b))
    return a.multiply(b).tocsr()


def lagged(
    found: Terms, sizes: Shape, to: Shape, lag: Shape, forward: bool, ring: bool, known: dict
) -> Terms:
    """Products f_a(i) f_b(i + to) of amplitudes, by which E[g_o g_{o+lag}] reaches lag `to`.

    Not `forward`: by which E[g_o g_{o−lag}] does, read from the lag's own map. On a `ring` pixels
    go round. `sizes` are the pixels in; `known` keeps the products of single axes.
    """
    pairs = []
    for one, left in found:
        for two, right in found:
            axes = []
            for a, b, n, i, o in zip(left, right, sizes, to, lag):
                key = id(a), id(b), n, i, o, forward
                if key not in known:  # the matrices live as long as the runs that `known` is of
                    known[key] = _lag_product(a, b, n, i, o, forward, ring), a, b
                if not known[key][0].nnz:
                    break
                axes.append(known[key][0])
            else:
                pairs.append((one * two, tuple(axes)))
    return tuple(pairs)


def both_inside(found: Terms, sizes: Shape, to: Shape) -> Terms:
    """The products without pixels whose neighbour `to` lies beyond the image."""

    def inside(matrix: Matrix, n: int, lag: int) -> Matrix:
        if not lag:
            return matrix
        place = np.arange(n) + lag
        kept = sparse.diags_array(((place >= 0) & (place < n)).astype(float), format="csr")
        return kept if matrix is None else (kept @ matrix).tocsr()

    return tuple((w, tuple(map(inside, axes, sizes, to))) for w, axes in found)


def _lag_product(a: Matrix, b: Matrix, n: int, to: int, lag: int, forward: bool, ring: bool):
    a, b = (sparse.eye_array(n, format="csr") if m is None else m for m in (a, b))
    first, second = ((0, 0), (to, lag)) if forward else ((0, lag), (to, 0))
    product = _shifted(a, *first, ring).multiply(_shifted(b, *second, ring)).tocsr()
    product.eliminate_zeros()
    return product


def _shifted(matrix: Matrix, down: int, right: int, ring: bool) -> Matrix:
    """M[i + down, o + right] at (i, o)."""
    if not down and not right:
        return matrix
    (n, m), found = matrix.shape, matrix.tocoo()
    rows, columns = found.row - down, found.col - right
    if ring:
        rows, columns = rows % n, columns % m
    kept = (rows >= 0) & (rows < n) & (columns >= 0) & (columns < m)
    entries = found.data[kept], (rows[kept], columns[kept])
    return sparse.csr_array(entries, shape=matrix.shape)


def scale_and_reach(matrices: tuple[Matrix, ...], ring: bool) -> tuple[float, int]:
    """Pixels in per pixel out, and how many pixels further one output's may lie, on one axis."""
    scale, reach = 1.0, 0
    for matrix in matrices:
        if matrix is None:
            continue
        scale = matrix.shape[0] / matrix.shape[1]
        found = matrix.tocoo()
        near = found.row - scale * found.col
        if len(near):
            near = near - near[0]
            if ring:
                near -= np.round(near / matrix.shape[0]) * matrix.shape[0]
            reach = max(reach, math.ceil(float(near.max() - near.min())))
    return scale, reach


def composed(outer: Terms, inner: Terms) -> Terms:
    """First `inner` (nearer to the output) and then `outer`, pulling back."""
    return tuple((v * w, tuple(map(_after, x, y))) for v, x in outer for w, y in inner)


def _after(a: Matrix, b: Matrix) -> Matrix:
    if a is None or b is None:
        return b if a is None else a
    return (a @ b).tocsr()


def pulled(signal: np.ndarray, axes: tuple[Matrix, ...]) -> np.ndarray:
    """A batch of maps (units, pixels out …) pulled back to (units, pixels in …)."""
    for axis, matrix in enumerate(axes, start=1):
        if matrix is not None:
            moved = np.moveaxis(signal, axis, 0)
            rest = moved.shape[1:]
            found = matrix @ np.ascontiguousarray(moved).reshape(moved.shape[0], -1)
            signal = np.moveaxis(found.reshape(matrix.shape[0], *rest), 0, axis)
    return signal
