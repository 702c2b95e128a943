"""The ERF by Fourier transform, in JAX: signals are spectra on the N-point DFT grid.

Every node shares the input's coordinate (theory/walk/walk.py), so strides and dilations only scale
the taps' positions and the pass is a sequence of pointwise products; one inverse FFT ends it. With
positions counted from the kernel's centre, V − 1 = Σ v (e^{−iθ} − 1) = −Σ v (2 sin²(θ/2) + i sin θ)
and Vⁿ = exp(n·log1p(V − 1)) keep the digits that V**n loses.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from erftheory.network.kernel import Kernel
from erftheory.theory.plane.tables import CHUNK, tables
from erftheory.theory.walk.algebra import Algebra
from erftheory.theory.walk.walk import Edge, Walk


@dataclass
class Spectrum:
    """Values on the grid (None is all ones) times the phase of a shift.

    Attributes:
      values: complex128, shape `grid` (its last axis cut to what the inverse transform needs).
      shift: twice the shift in lattice points, one entry an axis, exact.
    """

    values: Any
    shift: tuple[int, ...]


def _angles(size: int, kept: int, twice):
    """2π·j·(twice/2)/size for j < kept, reduced exactly in integers."""
    j = jnp.arange(kept, dtype=jnp.int64)
    twice = jnp.asarray(twice)
    return (jnp.pi / size) * ((j * (twice % (2 * size))) % (2 * size)).astype(jnp.float64)


def _power(less_one, count):
    """Product over the first axis of (1 + z)^count through log1p; 0 where 1 + z = 0.

    Rows of count 0 must hold z = 0.
    """
    a, b = less_one.real, less_one.imag
    growth = a * (2 + a) + b * b  # |1 + z|² − 1, without digits where 1 + z is small
    small = growth < -0.5
    near = 0.5 * jnp.log1p(jnp.where(small, 0.0, growth))
    log_radius = jnp.where(small, jnp.log(jnp.hypot(1 + a, b)), near)
    radius = jnp.exp((count * log_radius).sum(0))
    angle = (count * jnp.arctan2(b, 1 + a)).sum(0)
    return radius * jax.lax.complex(jnp.cos(angle), jnp.sin(angle))


def _apply(theta, values, carried, weight, segment, count, excess):
    """Multiply `values` by the kernels whose taps sit at phases `theta`, shape (CHUNK, …).

    A kernel is a segment of the rows; the first may have begun in an earlier table (`carried`),
    the last may go on in the next.
    """
    half = jnp.sin(theta / 2)
    column = weight.reshape(-1, *[1] * (theta.ndim - 1))
    terms = -column * jax.lax.complex(2 * half * half, jnp.sin(theta))
    sums = jax.ops.segment_sum(terms, segment, CHUNK + 1).at[segment[0]].add(carried)
    like = column.shape
    values = values * _power(sums[:CHUNK] + excess.reshape(like), count.reshape(like))
    return values, sums[CHUNK]


@partial(jax.jit, static_argnums=(0, 1))
def _product(
    size: int,
    kept: int,
    values: Complex[Array, " frequency"],
    carried: Complex[Array, " frequency"],
    weight: Float[Array, " tap"],
    position: Int[Array, "tap 1"],
    segment: Int[Array, " tap"],
    count: Float[Array, " tap"],
    excess: Float[Array, " tap"],
) -> tuple[Complex[Array, " frequency"], Complex[Array, " frequency"]]:
    """Multiply `values` by the transfer functions of a table's kernels (one axis)."""
    theta = _angles(size, kept, position)
    return _apply(theta, values, carried, weight, segment, count, excess)


@partial(jax.jit, static_argnums=(0, 1))
def _product_nd(
    grid: tuple[int, ...],
    kept: tuple[int, ...],
    values: Complex[Array, "*frequency"],
    carried: Complex[Array, "*frequency"],
    weight: Float[Array, " tap"],
    position: Int[Array, "tap axis"],
    segment: Int[Array, " tap"],
    count: Float[Array, " tap"],
    excess: Float[Array, " tap"],
) -> tuple[Complex[Array, "*frequency"], Complex[Array, "*frequency"]]:
    """The same on a grid of several axes, for kernels that are no product of axes."""
    theta = jnp.zeros((CHUNK, *kept))
    for axis, (size, keep) in enumerate(zip(grid, kept)):
        shape = [CHUNK] + [1] * len(grid)
        shape[axis + 1] = keep
        theta = theta + _angles(size, keep, position[:, axis : axis + 1]).reshape(shape)
    return _apply(theta, values, carried, weight, segment, count, excess)


@partial(jax.jit, static_argnums=(0, 1))
def _line_map(size, kept, values, carried, weight, position, segment, count, excess, twice):
    """The last table of an unforked line, its shift and the inverse transform in one program."""
    values, _ = _product(size, kept, values, carried, weight, position, segment, count, excess)
    theta = -_angles(size, kept, twice)
    return jnp.fft.irfft(values * jax.lax.complex(jnp.cos(theta), jnp.sin(theta)), size)


@jax.jit
def _outer(values, *lines):
    for axis, line in enumerate(lines):
        shape = [1] * len(lines)
        shape[axis] = line.size
        values = values * line.reshape(shape)
    return values


@partial(jax.jit, static_argnums=(0, 1))
def _shifted(grid, kept, values, twice):
    for axis, (size, keep) in enumerate(zip(grid, kept)):
        theta = -_angles(size, keep, twice[axis])
        shape = [1] * len(grid)
        shape[axis] = keep
        phase = jax.lax.complex(jnp.cos(theta), jnp.sin(theta))
        values = values * phase.reshape(shape)
    return values


@jax.jit
def _raise(
    values: Complex[Array, "*frequency"], count: Float[Array, ""]
) -> Complex[Array, "*frequency"]:
    return _power((values - 1)[None], count)


@jax.jit
def _add(
    total: Complex[Array, "*frequency"],
    weight: Float[Array, ""],
    values: Complex[Array, "*frequency"],
) -> Complex[Array, "*frequency"]:
    return total + weight * values


@partial(jax.jit, static_argnums=(0,))
def _fold(
    grid: tuple[int, ...], values: Complex[Array, "*frequency"]
) -> Complex[Array, "*frequency"]:
    """Keep multiples of `grid` points: average over the frequencies that they cannot tell apart."""
    for axis, g in enumerate(grid):
        n = values.shape[axis]
        shape = (*values.shape[:axis], g, n // g, *values.shape[axis + 1 :])
        mean = values.reshape(shape).mean(axis)
        values = jnp.tile(mean, [g if a == axis else 1 for a in range(values.ndim)])
    return values


@partial(jax.jit, static_argnums=(0, 1))
def _inverse(grid, half, values):
    if half:
        return jnp.fft.irfftn(values, s=grid)
    return jnp.fft.ifftn(values).real


def _line_kernel(kernel: Kernel, axis: int) -> Kernel:
    """The factor of a separable kernel along an axis; all of them multiply to the kernel."""
    if kernel.taps is None:
        return Kernel((kernel.shape[axis],))
    if kernel.signed and axis == 0:  # Π marginals = mass^(d−1) · taps
        mass = Fraction(kernel.mass)
        divisor = kernel.scale * mass ** (len(kernel.shape) - 1)
        return Kernel((kernel.shape[0],), kernel.marginal(0), Fraction(divisor))
    return Kernel((kernel.shape[axis],), kernel.marginal(axis), 1 if kernel.signed else None)


class SpectrumAlgebra(Algebra[Spectrum]):
    """Spectra on a grid of `grid` points; `half` keeps the non-redundant half of the last axis."""

    def __init__(self, grid: tuple[int, ...], half: bool = True):
        self.grid, self.half = grid, half
        self.kept = (*grid[:-1], grid[-1] // 2 + 1) if half else grid
        self._lines: dict = {}

    def unit(self, position):
        return Spectrum(None, tuple(2 * p for p in position))

    def _ones(self, kept):
        return np.ones(kept, np.complex128)

    def pull(self, signal: Spectrum, edge: Edge) -> Spectrum:
        values, shift = signal.values, signal.shift
        plain = [
            (f.kernel, f.spacing, f.count) for f in edge.factors if isinstance(f.kernel, Kernel)
        ]
        if plain:
            values = self._kernels(values, plain)
            for kernel, spacing, count in plain:
                reach = (count * span for span in kernel.span(spacing))
                shift = tuple(a + b for a, b in zip(shift, reach))
        for f in edge.factors:
            if isinstance(f.kernel, Walk):
                inner = self.power(self.fold(f.kernel), f.count)
                if inner.values is not None:  # it does move pixels
                    values = inner.values if values is None else values * inner.values
                shift = tuple(a + b for a, b in zip(shift, inner.shift))
        shift = tuple(a + 2 * b for a, b in zip(shift, edge.shift))
        result = Spectrum(values, shift)
        return result if edge.restrict is None else self.restrict(result, edge.restrict)

    def _kernels(self, values, kernels: list[tuple[Kernel, tuple[int, ...], int]]):
        joint = [k for k in kernels if not k[0].separable]
        apart = [k for k in kernels if k[0].separable]
        if apart:
            lines = [self._line(axis, apart) for axis in range(len(self.grid))]
            if len(lines) == 1:
                values = lines[0] if values is None else values * lines[0]
            else:
                values = _outer(self._ones(()) if values is None else values, *lines)
        if joint:
            values = self._ones(self.kept) if values is None else values
            rest = np.zeros(self.kept, np.complex128)
            for t in tables(joint, centred=True):
                values, rest = _product_nd(
                    self.grid, self.kept, values, rest,
                    t.weight, t.position, t.segment, t.count, t.excess,
                )  # fmt: skip
        return values

    def _line(self, axis: int, kernels):
        size, kept = self.grid[axis], self.kept[axis]
        axis_kernels = tuple((_line_kernel(k, axis), (s[axis],), n) for k, s, n in kernels)
        key = (size, kept, axis_kernels)
        if key not in self._lines:
            values, rest = self._ones(kept), np.zeros(kept, np.complex128)
            for t in tables(list(axis_kernels), centred=True):
                values, rest = _product(
                    size, kept, values, rest,
                    t.weight, t.position, t.segment, t.count, t.excess,
                )  # fmt: skip
            self._lines[key] = values
        return self._lines[key]

    def mix(self, parts):
        total: Any = np.zeros(self.kept, np.complex128)
        base = parts[0][1].shift
        for weight, s in parts:
            relative = tuple(a - b for a, b in zip(s.shift, base))
            values = self._ones(self.kept) if s.values is None else s.values
            if any(relative):
                values = _shifted(self.grid, self.kept, values, np.array(relative))
            total = _add(total, float(weight), values)
        return Spectrum(total, base)

    def power(self, a, count):
        if count == 1 or a.values is None:
            return Spectrum(a.values, tuple(count * s for s in a.shift))
        return Spectrum(_raise(a.values, float(count)), tuple(count * s for s in a.shift))

    def restrict(self, a, grid):
        values = self._ones(self.kept) if a.values is None else a.values
        values = _shifted(self.grid, self.kept, values, np.array(a.shift))
        return Spectrum(_fold(grid, values), (0,) * len(grid))

    def map(self, walk: Walk, position=None, first: tuple[int, ...] = ()) -> np.ndarray:
        """Signal at all N lattice points an axis, the one at `first` leading; shape `grid`."""
        line = self._unforked(walk)
        if line is not None:
            start = (position or (0,))[0] - first[0] + line.shift[0]
            return self._unforked_map(line, 2 * start)
        signal = self.fold(walk, position)
        values = self._ones(self.kept) if signal.values is None else signal.values
        twice = tuple(s - 2 * f for s, f in zip(signal.shift, first))
        odd = tuple(t % 2 for t in twice)
        if any(odd):  # half a pixel (even kernels) needs a phase, whole pixels an index
            values = _shifted(self.grid, self.kept, values, np.array(odd))
        found = np.asarray(_inverse(self.grid, self.half, values))
        whole = tuple(t // 2 for t in twice)
        return np.roll(found, whole, tuple(range(found.ndim))) if any(whole) else found

    def _unforked(self, walk: Walk) -> Edge | None:
        """The one edge of a one-axis walk that neither forks nor up-samples."""
        if walk.ndim > 1 or not self.half or len(walk.vertices) != 2 or len(walk.vertices[1]) != 1:
            return None
        edge = walk.vertices[1][0]
        inside = any(isinstance(f.kernel, Walk) for f in edge.factors)
        return None if inside or not edge.factors else edge

    def _unforked_map(self, edge: Edge, twice: int) -> np.ndarray:
        size, kept = self.grid[0], self.kept[0]
        kernels: Any = [(f.kernel, f.spacing, f.count) for f in edge.factors]
        twice += sum(n * s[0] * (k.shape[0] - 1) for k, s, n in kernels)
        values: Any = self._ones(kept)
        carried: Any = np.zeros(kept, np.complex128)
        *before, last = tables(kernels, centred=True)
        for t in before:
            values, carried = _product(
                size, kept, values, carried,
                t.weight, t.position, t.segment, t.count, t.excess,
            )  # fmt: skip
        return np.asarray(
            _line_map(
                size,
                kept,
                values,
                carried,
                last.weight,
                last.position,
                last.segment,
                last.count,
                last.excess,
                twice,
            )  # fmt: skip
        )
