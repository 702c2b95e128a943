"""Small one-channel nets in one dimension, run forward and backward by hand over many weights.

It shares nothing with the executor, autodiff, or the walk, so it can judge all of them; and it
does what they cannot: biases, dependent and asymmetric weights, any activation, chosen inputs.
Shapes: a signal is (nets, pixels), filters of a layer are (nets, taps + 1), the bias last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import numpy as np

Pull = Callable[[np.ndarray], np.ndarray]
Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Filters:
    """The law of one layer's weights: rows (atoms, taps + 1), bias last, and their chances."""

    rows: np.ndarray
    chances: np.ndarray

    @property
    def squares(self) -> np.ndarray:
        """E w(a)², shape (taps,)."""
        return self.chances @ self.rows[:, :-1] ** 2


def filters(rows: Sequence[Sequence[float]], chances: Sequence[float] | None = None) -> Filters:
    """The listed filters (without a bias), equally likely unless `chances` says otherwise."""
    table = np.array([[*row, 0.0] for row in rows])
    even = np.full(len(table), 1 / len(table)) if chances is None else np.array(chances)
    return Filters(table, even)


def signs(*sizes: float, bias: Sequence[float] = (0.0,)) -> Filters:
    """All filters of entries ± `sizes`, with every one of `bias`, equally likely."""
    rows = [
        [*(s * e for s, e in zip(sizes, pattern)), b]
        for pattern in product((-1, 1), repeat=len(sizes))
        for b in bias
    ]
    return Filters(np.array(rows), np.full(len(rows), 1 / len(rows)))


class Part(Protocol):
    """One operation of a chain."""

    def laws(self) -> tuple[Filters, ...]:
        """Of the weights that it draws, in the order in which `run` takes them."""
        ...

    def reads(self, pixels: int) -> int:
        """Input pixels behind `pixels` output pixels."""
        ...

    def run(self, x: np.ndarray, weights: Iterator[np.ndarray]) -> tuple[np.ndarray, Pull]:
        """The output, and the function that pulls a gradient back."""
        ...

    def spread(self, v: np.ndarray) -> np.ndarray:
        """Variances (pixels,) pulled back as if gates and weights were independent."""
        ...


class _Plain:
    """Defaults of operations without weights that act on each pixel alone."""

    def laws(self) -> tuple[Filters, ...]:
        return ()

    def reads(self, pixels: int) -> int:
        return pixels


@dataclass(frozen=True)
class Convolve:
    """Output o reads inputs stride·o + dilation·a − padding, zeros outside."""

    law: Filters
    stride: int = 1
    dilation: int = 1
    padding: int = 0

    def laws(self) -> tuple[Filters, ...]:
        return (self.law,)

    @property
    def _span(self) -> int:
        return self.dilation * (self.law.rows.shape[1] - 2)

    def reads(self, pixels: int) -> int:
        return self.stride * (pixels - 1) + self._span + 1 - 2 * self.padding

    def _windows(self, pixels: int) -> list[slice]:
        """For each tap the padded inputs that the outputs read."""
        reach = self.stride * (pixels - 1) + 1
        starts = range(0, self._span + 1, self.dilation)
        return [slice(start, start + reach, self.stride) for start in starts]

    def run(self, x: np.ndarray, weights: Iterator[np.ndarray]) -> tuple[np.ndarray, Pull]:
        w, p = next(weights), self.padding
        padded = np.pad(x, ((0, 0), (p, p)))
        pixels = (padded.shape[1] - self._span - 1) // self.stride + 1
        windows = self._windows(pixels)
        y = sum(w[:, a, None] * padded[:, window] for a, window in enumerate(windows))

        def pull(g: np.ndarray) -> np.ndarray:
            back = np.zeros((len(g), padded.shape[1]))
            for a, window in enumerate(windows):
                back[:, window] += w[:, a, None] * g
            return back[:, p : padded.shape[1] - p]

        return y + w[:, -1:], pull

    def spread(self, v: np.ndarray) -> np.ndarray:
        back = np.zeros(self.reads(len(v)) + 2 * self.padding)
        for square, window in zip(self.law.squares, self._windows(len(v))):
            back[window] += square * v
        return back[self.padding : len(back) - self.padding]


@dataclass(frozen=True)
class Apply(_Plain):
    """A pointwise function with its derivative; `mean` is the mean of the squared derivative."""

    function: Function
    slope: Function
    mean: float

    def run(self, x: np.ndarray, weights: Iterator[np.ndarray]) -> tuple[np.ndarray, Pull]:
        gate = self.slope(x)
        return self.function(x), lambda g: gate * g

    def spread(self, v: np.ndarray) -> np.ndarray:
        return self.mean * v


@dataclass(frozen=True)
class Mask:
    """Dropout of `pixels` pixels: one weight 0 or 1/(1 − rate) for each, here at rate 1/2."""

    pixels: int

    def laws(self) -> tuple[Filters, ...]:
        return (filters(list(product((0.0, 2.0), repeat=self.pixels))),)

    def reads(self, pixels: int) -> int:
        return pixels

    def run(self, x: np.ndarray, weights: Iterator[np.ndarray]) -> tuple[np.ndarray, Pull]:
        kept = next(weights)[:, :-1]
        return kept * x, lambda g: kept * g

    def spread(self, v: np.ndarray) -> np.ndarray:
        return 2 * v


@dataclass(frozen=True)
class Pool(_Plain):
    """Mean or maximum of `size` neighbours, stride 1."""

    size: int
    largest: bool = False

    def reads(self, pixels: int) -> int:
        return pixels + self.size - 1

    def run(self, x: np.ndarray, weights: Iterator[np.ndarray]) -> tuple[np.ndarray, Pull]:
        pixels = x.shape[1] - self.size + 1
        stacked = np.stack([x[:, a : a + pixels] for a in range(self.size)])
        share = np.full(stacked.shape, 1 / self.size)
        if self.largest:
            share = (stacked == stacked.max(0)).astype(float)

        def pull(g: np.ndarray) -> np.ndarray:
            back = np.zeros(x.shape)
            for a in range(self.size):
                back[:, a : a + pixels] += share[a] * g
            return back

        return (stacked * share).sum(0), pull

    def spread(self, v: np.ndarray) -> np.ndarray:
        # a maximum lets one input in `size` through whole, a mean all of them by 1/size
        back = np.convolve(v, np.ones(self.size))
        return back / self.size if self.largest else back / self.size**2


@dataclass(frozen=True)
class Skip:
    """y = x + f(x), for a branch of unit stride whose field is centred."""

    branch: tuple[Part, ...]

    def laws(self) -> tuple[Filters, ...]:
        return all_laws(self.branch)

    def reads(self, pixels: int) -> int:
        return all_reads(self.branch, pixels)

    def run(self, x: np.ndarray, weights: Iterator[np.ndarray]) -> tuple[np.ndarray, Pull]:
        y, through = all_run(self.branch, x, weights)
        middle = self._middle(x.shape[1], y.shape[1])

        def pull(g: np.ndarray) -> np.ndarray:
            back = through(g)
            back[:, middle] += g
            return back

        return x[:, middle] + y, pull

    def spread(self, v: np.ndarray) -> np.ndarray:
        back = all_spread(self.branch, v)
        back[self._middle(len(back), len(v))] += v
        return back

    @staticmethod
    def _middle(wide: int, narrow: int) -> slice:
        return slice((wide - narrow) // 2, (wide - narrow) // 2 + narrow)


Parts = Sequence[Part]


def all_laws(parts: Parts) -> tuple[Filters, ...]:
    return tuple(law for part in parts for law in part.laws())


def all_reads(parts: Parts, pixels: int) -> int:
    for part in reversed(parts):
        pixels = part.reads(pixels)
    return pixels


def all_run(
    parts: Parts, x: np.ndarray, weights: Iterator[np.ndarray]
) -> tuple[np.ndarray, Pull]:
    pulls: list[Pull] = []
    for part in parts:
        x, pull = part.run(x, weights)
        pulls.append(pull)

    def back(g: np.ndarray) -> np.ndarray:
        for pull in reversed(pulls):
            g = pull(g)
        return g

    return x, back


def all_spread(parts: Parts, v: np.ndarray) -> np.ndarray:
    for part in reversed(parts):
        v = part.spread(v)
    return v


def mean_square(parts: Parts, x: np.ndarray, pixels: int = 1) -> np.ndarray:
    """E g(t)² of the middle one of `pixels` outputs over all weights, for one input `x`.

    Every combination of the layers' filters is run, with its chance; nothing is sampled.

    Returns:
      shape of `x`, which has `all_reads(parts, pixels)` pixels.
    """
    laws = all_laws(parts)
    index = np.indices([len(law.rows) for law in laws]).reshape(len(laws), -1)
    weights = [law.rows[i] for law, i in zip(laws, index)]
    chance = np.prod([law.chances[i] for law, i in zip(laws, index)], axis=0)
    y, pull = all_run(parts, np.broadcast_to(x, (len(chance), len(x))), iter(weights))
    start = np.zeros(y.shape)
    start[:, pixels // 2] = 1
    return chance @ pull(start) ** 2


def independent(parts: Parts, pixels: int = 1) -> np.ndarray:
    """The convolution of the variance kernels, same shape, unit and scale as `mean_square`."""
    return all_spread(parts, np.eye(pixels)[pixels // 2])
