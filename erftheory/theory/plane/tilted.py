"""The ERF of one axis with full relative accuracy, tails included: tilted Fourier transforms.

A Fourier transform is accurate to ε times the largest value, so it knows nothing of the tails. The
tilted signal g(t)e^{θt − K(θ)} has its peak where K′(θ) says, and within a few deviations of the
peak the transform has nearly all digits; a row of tilts covers the whole support. Each needs a
transform as short as its own reach, some deviations, so all together cost little more than one
transform of the support, and any window costs no more than its pixels, at every depth.

What the window of a transform leaves out comes back as aliasing. It is bounded by Chernoff:
Σ_{s ≥ x} g(s) ≤ e^{K(η) − ηx} for all η ≥ 0 (and the mirrored bound below).

Source: Daniels 1954 (the tilt of the saddlepoint method, here followed by an exact transform).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log, log2

import numpy as np

from erftheory.network.kernel import Kernel
from erftheory.theory.plane.generating import GeneratingAlgebra, Tilted, taps
from erftheory.theory.walk.algebra import ConvolutionAlgebra
from erftheory.theory.walk.walk import Walk

EPS = float(np.finfo(np.float64).eps)
APART = 4.4  # deviations between the means of neighbouring tilts
REACH = 10.0  # deviations in one transform
GRID = 72  # tilts at which the support is surveyed
SLACK = 2.0  # the bounds follow the largest terms only; twice that covers the others
NEGLIGIBLE = -46.0  # log of a transfer function that no digit sees


@dataclass
class LogSpectrum:
    """A tilted signal, and the log of its transfer function V about its tilted mean.

    `log` is log |V|, `angle` its angle, `error` the relative error of V in units of ε, all of
    shape (pairs,).
    """

    tilted: Tilted
    log: np.ndarray
    angle: np.ndarray
    error: np.ndarray


class LogSpectrumAlgebra(ConvolutionAlgebra[LogSpectrum]):
    """One axis under T tilts, at pairs (tilt, frequency) given as arrays `which`, `omega`."""

    def __init__(self, theta: np.ndarray, which: np.ndarray, omega: np.ndarray):
        self.generating = GeneratingAlgebra(theta)
        self.which, self.omega = which, omega

    def unit(self, position):
        none = np.zeros(len(self.omega))
        return LogSpectrum(self.generating.unit(position), none, none, none)

    def kernel(self, kernel, spacing):
        part = taps(kernel, spacing[0])
        tilted, weights = self.generating.tilt(part)
        real, imaginary, error = (np.zeros(len(self.omega)) for _ in range(3))
        for place, weight in zip(part.place, weights):
            self._add(real, imaginary, error, weight, place - tilted.moved, tilted.moved)
        return LogSpectrum(tilted, *_log_one_plus(real, imaginary, error))

    def _add(self, real, imaginary, error, weight, place, moved):
        """Add weight·(e^{−ix} − 1 + ix), x = ω·place; the means make Σ weight·x zero.

        `place` is a difference of means that moved by `moved`, and rounded like them.
        """
        x = self.omega * place[self.which]
        weight = weight[self.which]
        half = np.sin(x / 2)
        real -= weight * (2 * half * half)
        imaginary += weight * _linear_less_sine(x)
        # x is rounded, and e^{−ix} + ix has the slope |e^{−ix} − 1|
        error += 4 * weight * np.abs(half) * (np.abs(x) + self.omega * np.abs(moved)[self.which])

    def convolve(self, a, b):
        tilted = self.generating.convolve(a.tilted, b.tilted)
        return LogSpectrum(tilted, a.log + b.log, a.angle + b.angle, a.error + b.error)

    def power(self, a, count):
        tilted = self.generating.power(a.tilted, count)
        return LogSpectrum(tilted, count * a.log, count * a.angle, count * a.error)

    def shift(self, a, by):
        tilted = self.generating.shift(a.tilted, by)
        return LogSpectrum(tilted, a.log, a.angle, a.error)

    def mix(self, parts):
        tilted, weights, away = self.generating.blend([(w, s.tilted) for w, s in parts])
        real, imaginary, error = (np.zeros(len(self.omega)) for _ in range(3))
        for (_, signal), weight, place in zip(parts, weights, away):
            moved = np.abs(signal.tilted.moved) + np.abs(tilted.moved)
            self._add(real, imaginary, error, weight, place, moved)
            # V e^{−ix} − e^{−ix} = (V − 1)e^{−ix}
            x = self.omega * place[self.which]
            size = np.exp(signal.log)
            half = np.sin(signal.angle / 2)
            a = np.expm1(signal.log) - size * (2 * half * half)
            b = size * np.sin(signal.angle)
            weight = weight[self.which]
            real += weight * (a * np.cos(x) + b * np.sin(x))
            imaginary += weight * (b * np.cos(x) - a * np.sin(x))
            known = signal.error + np.abs(signal.angle)
            error += weight * size * (known + 4 * np.hypot(a, b))
        return LogSpectrum(tilted, *_log_one_plus(real, imaginary, error))


def _linear_less_sine(x: np.ndarray) -> np.ndarray:
    """x − sin x, with relative accuracy."""
    near = np.abs(x) < 0.5
    z = np.where(near, x * x, 0.0)
    series = 1 - z / 20 * (1 - z / 42 * (1 - z / 72 * (1 - z / 110 * (1 - z / 156))))
    return np.where(near, x * z / 6 * series, x - np.sin(x))


def _log_one_plus(a, b, error) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log|V|, its angle and relative error (in ε) for V = 1 + a + ib, `error` being known of V."""
    growth = a * (2 + a) + b * b
    small = growth < -0.5
    near = 0.5 * np.log1p(np.where(small, 0.0, growth))
    # below ε nothing is known of V, and no sum sees the difference
    size = np.where(small, np.log(np.maximum(np.hypot(1 + a, b), EPS / 8)), near)
    return size, np.arctan2(b, 1 + a), (error + 6 * np.hypot(a, b)) * np.exp(-size)


@dataclass
class Line:
    """log g on lattice points first, first + 1, …; `error` bounds its relative error each."""

    log: np.ndarray
    error: np.ndarray


class Survey:
    """K, its derivatives and tail bounds of a walk of one axis, on a grid of tilts.

    Attributes:
      ends: first and last lattice point with weight.
      theta: the grid, rising, 0 among it. signal: the tilted signals on it.
    """

    def __init__(self, walk: Walk, position: tuple[int, ...] | None, ends: tuple[int, int]):
        self.walk, self.position, self.ends = walk, position, ends
        self.single = ends[0] == ends[1]
        if self.single:
            return
        plain = self.at(np.zeros(1))
        self.mean = plain.mean
        self.base = floor(plain.mean)
        self.std = float(plain.variance[0]) ** 0.5
        low, high = self._ends()
        least = 0.1 / self.std
        sides = [np.geomspace(least, max(end, 2 * least), GRID // 2) for end in (-low, high)]
        self.theta = np.concatenate([-sides[0][::-1], [0.0], sides[1]])
        self.signal = self.at(self.theta)

    def at(self, theta: np.ndarray) -> Tilted:
        return GeneratingAlgebra(theta).fold(self.walk, self.position)

    def means(self, signal: Tilted) -> np.ndarray:
        """Tilted means, from `base` on."""
        return float(signal.mean - self.base) + signal.moved

    def _ends(self) -> tuple[float, float]:
        """Tilts that gather nearly all weight at the first and at the last lattice point."""
        scale = 2.0 ** np.arange(-3, 22) / self.std
        signal = self.at(np.concatenate([-scale, scale]))
        means = self.means(signal)
        left, right = np.split(means, 2)
        first, last = (end - self.base for end in self.ends)
        near_left, near_right = left - first < 0.25, last - right < 0.25
        low = scale[np.argmax(near_left)] if near_left.any() else scale[-1]
        high = scale[np.argmax(near_right)] if near_right.any() else scale[-1]
        return -float(low), float(high)

    def log_tail(self, point: np.ndarray, above: bool, root: bool = False) -> np.ndarray:
        """Chernoff's bound for log Σ g over points ≥ `point` (≤ if not `above`), from the survey.

        `point` counts from `base`, shape (T,). `root` bounds Σ √g in place of Σ g:
        √g(s) ≤ e^{(K(η) − ηs)/2}, a geometric series.
        """
        grid, known = self.theta[:, None], self.signal.log_mass[:, None]
        bound = known - grid * (point - float(self.mean - self.base))
        allowed = grid >= 0 if above else grid <= 0
        if root:
            with np.errstate(divide="ignore"):
                bound = bound / 2 - np.log(-np.expm1(-np.abs(grid) / 2))
        found = np.where(allowed, bound, np.inf if root else 0.0).min(0)
        outside = point > self.ends[1] - self.base if above else point < self.ends[0] - self.base
        return np.where(outside, -np.inf, found)

    def outside(self, first: int, last: int, root: bool = False) -> float:
        """A bound for the share of g, or of √g, at points before `first` and after `last`."""
        tails = [
            self.log_tail(np.array([float(point - self.base)]), above, root=root)[0]
            for point, above in ((first - 1, False), (last + 1, True))
        ]
        return float(np.exp(np.logaddexp(*tails)))  # Σ √g ≥ Σ g = 1

    def window(self, share: float, root: bool = False) -> tuple[int, int]:
        """First and last point of the window beyond whose ends at most `share` lies, each."""
        goal = log(share)
        result = []
        for above, edge in zip((False, True), self.ends):
            step = 1 if above else -1
            near, far = 0, abs(edge - self.base) + 1  # steps from the mean to the first point out
            while far - near > 1:
                middle = (near + far) // 2
                place = np.array([float(step * middle)])
                if self.log_tail(place, above, root=root)[0] <= goal:
                    far = middle
                else:
                    near = middle
            result.append(self.base + step * (far - 1))
        return result[0], result[1]

    def line(self, first: int, last: int) -> Line:
        """log g at the lattice points first … last, inside the support."""
        if self.single:
            return Line(np.zeros(1), np.zeros(1))
        theta, tilted = self._plan(first - self.base, last - self.base)
        means, stds = self.means(tilted), np.sqrt(tilted.variance)
        bounds = (means[:-1] * stds[1:] + means[1:] * stds[:-1]) / (stds[1:] + stds[:-1])
        stops = np.clip(np.ceil(bounds).astype(np.int64), first - self.base, last - self.base + 1)
        starts = np.concatenate([[first - self.base], stops])
        stops = np.concatenate([stops, [last - self.base + 1]])
        held = stops > starts
        if not held.all():
            theta, means, stds = theta[held], means[held], stds[held]
            starts, stops = starts[held], stops[held]
            tilted = self.at(theta)
        return self._transform(theta, tilted, means, stds, starts, stops)

    def _plan(self, first: int, last: int) -> tuple[np.ndarray, Tilted]:
        """Tilts whose means are `APART` deviations apart and cover first … last (from base)."""
        means, stds = self.means(self.signal), np.sqrt(self.signal.variance)
        steps = np.diff(self.theta) * (stds[1:] + stds[:-1]) / 2
        length = np.concatenate([[0.0], np.cumsum(steps)])
        begin, end = np.interp([first, last], means, length)
        count = max(1, int(np.ceil((end - begin) / APART)))
        places = begin + (np.arange(count) + 0.5) * (end - begin) / count
        return self._solve(np.interp(places, length, means))

    def _solve(self, goal: np.ndarray) -> tuple[np.ndarray, Tilted]:
        """Tilts whose means are within half a deviation of `goal`, from base."""
        means = self.means(self.signal)
        theta = np.interp(goal, means, self.theta)
        right = np.clip(np.searchsorted(means, goal), 1, len(means) - 1)
        low, high = self.theta[right - 1], self.theta[right]
        while True:  # Newton's steps, halved into the survey's cell where they leave it
            tilted = self.at(theta)
            short = goal - self.means(tilted)
            done = np.abs(short) <= np.sqrt(tilted.variance) / 2
            if done.all() or (high - low <= 1e-12 * np.abs(theta)).all():
                return theta, tilted
            low, high = np.where(short > 0, theta, low), np.where(short > 0, high, theta)
            with np.errstate(divide="ignore", invalid="ignore"):
                newton = theta + short / tilted.variance
            inside = (newton > low) & (newton < high)
            theta = np.where(done, theta, np.where(inside, newton, (low + high) / 2))

    def _transform(self, theta, tilted, means, stds, starts, stops) -> Line:
        support = self.ends[1] - self.ends[0] + 1
        used = np.maximum(np.abs(starts - means), np.abs(stops - 1 - means)).max()
        size = int(max(REACH * stds.max() + used, 2 * used)) + 8
        beyond = self._beyond(theta, tilted, stds)
        from scipy import fft  # which most readings do without

        while True:
            size = min(size, support + 2 + int(2 * used))
            size = int(fft.next_fast_len(size, real=True) or size)
            size += size % 2
            line, worst = self._attempt(size, theta, tilted, means, starts, stops, beyond)
            if worst < 1e-14 or size >= support:
                return line
            size *= 2

    def _beyond(self, theta, tilted, stds):
        """Chernoff's bound for the tilted signals beyond points (T,), from tilts near their own."""
        steps = np.array([6.0, 9.0, 13.0])[:, None] / stds

        lean = np.stack([steps, -steps])
        near = self.at((theta + lean).ravel()).log_mass.reshape(lean.shape)
        gain = near - tilted.log_mass + lean * float(self.mean - self.base)

        def bound(point: np.ndarray, above: bool) -> np.ndarray:
            side = 0 if above else 1
            found = np.minimum((gain[side] - lean[side] * point).min(0), 0.0)
            out = point > self.ends[1] - self.base if above else point < self.ends[0] - self.base
            return np.where(out, -np.inf, found)

        return bound

    def _attempt(self, size, theta, tilted, means, starts, stops, beyond) -> tuple[Line, float]:
        """The line by transforms of `size` points, and its worst relative error by aliasing."""
        which, frequency = self._pairs(size, theta)
        omega = 2 * np.pi / size * frequency
        spectrum = LogSpectrumAlgebra(theta, which, omega).fold(self.walk, self.position)
        whole = np.floor(means)
        angle = spectrum.angle - omega * (means - whole)[which]
        strength = np.exp(spectrum.log)
        sign = 1.0 - 2.0 * (frequency % 2)  # the mean sits at size/2
        values = np.zeros((len(theta), size // 2 + 1), np.complex128)
        values[which, frequency] = strength * sign * (np.cos(angle) + 1j * np.sin(angle))
        from scipy import fft

        found = np.asarray(fft.irfft(values, size, axis=1))
        starts, stops = starts.astype(np.int64), stops.astype(np.int64)
        counts = stops - starts
        row = np.repeat(np.arange(len(theta)), counts)
        point = np.arange(int(starts[0]), int(stops[-1]))
        held = found[row, point - whole[row].astype(np.int64) + size // 2]
        aliased = np.logaddexp(
            beyond(starts + float(size), True), beyond(stops - 1.0 - size, False)
        )
        # every frequency is off by some ε of its own and by those of the transform's butterflies
        doubled = np.where((frequency == 0) | (2 * frequency == size), 1.0, 2.0)
        known = spectrum.error + np.abs(angle) + omega * np.abs(tilted.moved)[which]
        own = doubled * strength * (3 + log2(size) + known)
        rounding = EPS * np.bincount(which, own, len(theta)) / size
        positive = np.maximum(held, np.finfo(np.float64).tiny)
        share = (SLACK * rounding + np.exp(aliased))[row] / positive
        relative = np.where(share < 0.5, share / (1 - np.minimum(share, 0.5)), np.inf)
        lean = theta[row] * (point - means[row])
        log_value = np.log(positive) - lean - tilted.information[row]
        # the tilted mean is off by some ε of its way, and θ times that is lost where it is added
        terms = tilted.blur + tilted.information + 2 * np.abs(theta * tilted.moved)
        relative = np.where(held > 0, relative + SLACK * EPS * (2 + terms[row]), np.inf)
        return Line(log_value, relative), float((np.exp(aliased)[row] / positive).max())

    def _pairs(self, size: int, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tilts and frequencies at which a digit of the transfer function can be seen."""
        kept = size // 2 + 1
        edge = self.walk.vertices[1][0]
        kernels = [(f.kernel, f.spacing[0], f.count) for f in edge.factors]
        plain = len(self.walk.vertices) == 2 and len(self.walk.vertices[1]) == 1
        if not plain or not all(isinstance(k, Kernel) for k, _, _ in kernels):
            which, frequency = np.divmod(np.arange(len(theta) * kept), kept)
            return which, frequency
        total = np.zeros((len(theta), kept))
        generating = GeneratingAlgebra(theta)
        omega = 2 * np.pi / size * np.arange(kept)
        for kernel, spacing, count in kernels:
            part = taps(kernel, spacing)
            _, weights = generating.tilt(part)
            x = np.outer(part.place, omega)
            power = (weights.T @ np.cos(x)) ** 2 + (weights.T @ np.sin(x)) ** 2
            total += count / 2 * np.log(np.maximum(power, 1e-300))
        which, frequency = np.nonzero(total > NEGLIGIBLE)
        return which, frequency
