"""Networks of all layers and combinators, drawn for the referee of tests/covariance.py.

`cases()` is a Hypothesis strategy, `seeded(n)` the n-th of a fixed sequence. Both draw by the same
functions, which ask a `Choices` for one choice after the other, the simplest first.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from erftheory import (
    Activation,
    AvgPool,
    Branches,
    Chain,
    Conv,
    ConvTranspose,
    Dropout,
    GlobalAvgPool,
    MaxPool,
    Network,
    Residual,
    Upsample,
)

RELU = Activation("relu")


@dataclass(frozen=True)
class Case:
    """A network of named parts p0, p1, …, and what is asked of it.

    `unit` counts output pixels of the plane, `place` picks one on an image of `image` pixels
    (where sums may turn out not to meet); `window` is the first pixel of a window, counted from the
    map's own first, and its length.
    """

    network: Network
    init: str
    unit: tuple[int, ...]
    image: tuple[int, ...]
    place: int
    window: tuple[int, int]


@dataclass(frozen=True)
class Choices:
    """One choice after the other; `whole(n)` is an int from 0 to n − 1."""

    whole: Callable[[int], int]

    def of(self, options: Sequence[Any]) -> Any:
        return options[self.whole(len(options))]

    def once_in(self, n: int) -> bool:
        return self.whole(n) == n - 1


@st.composite
def cases(draw, **what: Any):
    return case(Choices(lambda n: draw(st.integers(0, n - 1))), **what)


def seeded(seed: int, **what: Any) -> Case:
    return case(Choices(random.Random(seed).randrange), **what)


# ---- single layers -----------------------------------------------------------------------------


def convolution(c: Choices, ndim: int, stated: bool, keeping: bool = False) -> Conv:
    """`stated`: it may say its channels; `keeping`: an identity can stand beside it."""
    kernel = c.of([1, 3, 2, 3] if ndim == 1 else [1, 3, 2])
    channels = c.of([None, 1, 2, 3]) if stated and not keeping else None
    if not keeping and c.once_in(8):
        return Conv(kernel, 2, channels=channels)
    groups = "depthwise" if c.once_in(6) else 1
    taps = None
    if c.once_in(5):
        count = kernel**ndim
        values = [c.whole(4) for _ in range(count)]
        values[c.whole(count)] = c.of([1, 2, Fraction(5, 3)])
        taps = values if ndim == 1 else [values[i : i + kernel] for i in range(0, count, kernel)]
    return Conv(
        kernel,
        dilation=c.of([1, 1, 1, 2]),
        padding=c.of(["same", "same", "causal"]),
        channels=None if groups == "depthwise" else channels,
        groups=groups,
        taps=taps,
    )


def grouped(c: Choices) -> Chain:
    """Two groups between convolutions that say their channels."""
    inner = Conv(c.of([1, 3]), channels=c.of([2, 4]), groups=2)
    return Chain(Conv(c.of([1, 2]), channels=c.of([2, 4])), inner)


def fixed(c: Choices, ndim: int) -> Network:
    """A fixed layer, or dropout, that keeps the size of the map."""
    counted = c.of([True, False])
    return c.of(
        [
            AvgPool(1),
            AvgPool(3, 1, padding=1, count_include_pad=counted),
            AvgPool(2, 1, padding="same", count_include_pad=counted),
            AvgPool(2, 1, padding="causal"),
            AvgPool(2, 1, dilation=2, padding=((1, 1),) * ndim, count_include_pad=counted),
            Dropout(0.5),
            Dropout(0.1),
            Activation("linear"),
        ]
    )


def pool(c: Choices, ndim: int) -> MaxPool:
    """A max pool that keeps the size of the map."""
    return c.of(
        [
            MaxPool(3, 1, padding=1),
            MaxPool(2, 1, padding="same"),
            MaxPool(2, 1, dilation=2, padding=((1, 1),) * ndim),
            MaxPool(1),
        ]
    )


# ---- what can stand beside an identity ---------------------------------------------------------


def kept(c: Choices, ndim: int, stated: bool, depth: int = 1) -> Network:
    """A network that keeps size and channels."""

    def plain() -> Network:
        return fixed(c, ndim) if c.once_in(3) else convolution(c, ndim, stated, keeping=True)

    what = c.whole(6 if depth else 4)
    if what < 2:
        return plain()
    if what == 2:
        return Chain(*(plain() for _ in range(2 + c.whole(2))))
    if what == 3:
        first, second = (convolution(c, ndim, stated, keeping=True) for _ in range(2))
        return Chain(first, RELU, second)
    if what == 4:
        return Residual(kept(c, ndim, stated, depth - 1))
    return merged(c, ndim, stated, depth - 1)


def merged(c: Choices, ndim: int, stated: bool, depth: int = 1) -> Network:
    """Sums of several branches, identities and fixed layers among them."""
    what = c.whole(4)
    if what == 0:
        return Residual(Residual(kept(c, ndim, stated, depth)) * (1 + c.whole(3)))
    if what == 1:
        return Residual(kept(c, ndim, stated, depth), kept(c, ndim, stated, 0))
    if what == 2:
        return Branches(None, None, kept(c, ndim, stated, depth), merge="sum")
    ends = [kept(c, ndim, stated, depth)]
    for _ in range(1 + c.whole(2)):
        ends.insert(0, c.of([None, fixed(c, ndim), kept(c, ndim, stated, depth)]))
    return Branches(*ends, merge="sum")


# ---- parts of a chain --------------------------------------------------------------------------


def down(c: Choices, ndim: int) -> Network:
    counted = c.of([True, False])
    return c.of(
        [
            AvgPool(2),
            Conv(1, 2),
            AvgPool(3, 2, padding=1, count_include_pad=counted),
            MaxPool(2),
            Branches(AvgPool(2), Conv(2, 2, padding=0), merge="sum"),
        ]
    )


def up(c: Choices, ndim: int) -> Network:
    return c.of(
        [
            Upsample(2),
            Upsample(2, "bilinear"),
            ConvTranspose(2, 2),
            Upsample(3, "bilinear"),
            ConvTranspose(3, 2, padding=1, output_padding=1),
            ConvTranspose(4, 2, padding=1),
            ConvTranspose(3, 1, padding=1),
            ConvTranspose(3, 3),
            Branches(Upsample(2), Upsample(2, "bilinear"), merge="sum"),
            Branches(Upsample(2), ConvTranspose(2, 2)),
        ]
    )


def part(c: Choices, ndim: int, stated: bool) -> Network:
    kinds = ["convolution"] * 3 + ["fixed"] * 2 + ["merged"] * 4
    kind = c.of([*kinds, "repeat", "gated", "down", "up", "up", "concat", "groups"])
    if kind == "convolution":
        return convolution(c, ndim, stated)
    if kind == "fixed":
        return fixed(c, ndim)
    if kind == "merged":
        return merged(c, ndim, stated)
    if kind == "repeat":
        return kept(c, ndim, stated) * (2 + c.whole(2))
    if kind == "gated":
        return Chain(convolution(c, ndim, stated), RELU)
    if kind == "groups" and stated:
        return grouped(c)
    if kind == "down":
        return down(c, ndim)
    if kind == "up":
        return up(c, ndim)
    ends = [c.of([None, kept(c, ndim, stated)]) for _ in range(1 + c.whole(2))]
    return Branches(*ends, kept(c, ndim, stated))


def front(c: Choices, ndim: int, stated: bool) -> Network:
    """What reads the input itself: there alone have max pools independent pixels."""
    stem = Conv(1, channels=1 + c.whole(3) if stated else None)
    first = pool(c, ndim)
    beside = [c.of([None, fixed(c, ndim), pool(c, ndim)]) for _ in range(1 + c.whole(2))]
    return c.of(
        [
            first,
            Residual(first),
            Chain(stem, Residual(first)),
            Chain(stem, first),
            MaxPool(2),
            Chain(MaxPool(2), stem, MaxPool(2)),
            Chain(stem, Branches(first, *beside, merge="sum")),
            Branches(first, *beside, merge="sum"),
            Branches(first, *beside),
        ]
    )


def case(c: Choices, ndims: Sequence[int] = (1, 1, 1, 2), end: bool = False) -> Case:
    """`end`: it ends in a layer that images alone have."""
    ndim = c.of(ndims)
    stated = c.of([False, True])
    parts = [part(c, ndim, stated) for _ in range(1 + c.whole(4 if ndim == 1 else 3))]
    if c.once_in(3):
        parts.insert(0, front(c, ndim, stated))
    if end:
        aligned = Upsample(2, "bilinear", align_corners=True)
        parts.append(c.of([GlobalAvgPool(), GlobalAvgPool(ndim - 1), aligned]))
    return Case(
        network=Chain(*(p.named(f"p{i}") for i, p in enumerate(parts)), ndim=ndim),
        init=c.of(["he", "lecun", "xavier"]),
        unit=tuple(c.of([0, 1, 2, 3, -1, -2]) for _ in range(ndim)),
        image=tuple(c.of([4, 8, 12] if ndim == 1 else [4, 8]) for _ in range(ndim)),
        place=c.whole(30),
        window=(c.whole(6), 1 + c.whole(8)),
    )
