"""Networks that every reading is tested on, and a hypothesis strategy for random ones."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st

from erftheory import (
    Activation,
    AvgPool,
    Branches,
    Chain,
    Conv,
    ConvTranspose,
    MaxPool,
    Residual,
    Upsample,
)

THIRD = [[1, 2, 1], [Fraction(1, 3), 5, 1], [1, 1, 7]]


def unet(levels: int, up=lambda: ConvTranspose(2, 2)):
    double = Chain(Conv(3), Activation("relu"), Conv(3))
    if not levels:
        return double
    return Chain(double, Branches(None, Chain(MaxPool(2), unet(levels - 1, up), up())), double)


NETWORKS = {
    "plain": Conv(3) * 5,
    "even kernel": Chain(Conv(2), ndim=1) * 7,
    "taps": Chain(Conv(3, taps=THIRD), Conv(3, taps=[[0, 1, 0], [1, 0, 1], [0, 1, 0]])),
    "separable taps": Conv(3, taps=[[1, 2, 1], [2, 4, 2], [1, 2, 1]]) * 3,
    "strided": Chain(Conv(3, 2), Conv(5, 3, padding="valid"), AvgPool(2), Conv(3)),
    "dilated": Chain(*(Conv(3, dilation=d) for d in (1, 2, 4, 8))),
    "gridding": Chain(Conv(3, dilation=4), Conv(3, dilation=4)),
    "causal": Chain(*(Conv(2, dilation=2**i, padding="causal") for i in range(6)), ndim=1),
    "unequal 3-D": Chain(
        Conv((1, 7, 7), (1, 2, 2), padding=(0, 3, 3)),
        MaxPool((1, 3, 3), (1, 2, 2)),
        Conv((3, 3, 3)),
        Conv((3, 3, 3), 2, padding=((1, 0), 1, (0, 2))),
    ),
    "residual": Chain(Conv(3, 2), Residual(Chain(Conv(3), Activation("relu"), Conv(3))) * 3),
    "projected": Residual(Chain(Conv(3, 2), Conv(3)), Conv(1, 2, padding=0)),
    "inception": Branches(
        Conv(1),
        Chain(Conv(1), Conv(3)),
        Chain(Conv((1, 5)), Conv((5, 1))),
        MaxPool(3, 1, padding=1),
    ),
    "misaligned": Branches(MaxPool(2), Conv(3, 2)),
    "nested": Residual(Branches(Conv(3), Residual(Conv(5)), merge="sum")) * 2,
    "resampling loop": Chain(Conv(3, 2), ndim=1) * 4,
    "unet": unet(2),
    "bilinear unet": unet(1, lambda: Chain(Upsample(2, "bilinear"), Conv(1))),
    "transposed": Chain(Conv(3), ConvTranspose(4, 2, padding=1), Conv(3)),
    "transposed by 3": Chain(ConvTranspose(5, 3, padding=2, dilation=2), Conv(3, 2), ndim=1),
    "super-resolution": Chain(Conv(3), Upsample(3, "bilinear"), Upsample(2), Conv(3), ndim=1),
    "aligned corners": Chain(Upsample(2, "bilinear", align_corners=True), Conv(2), ndim=1),
}


@st.composite
def layer(draw, ndim: int):
    kernel = draw(st.integers(1, 4))
    taps = None
    if draw(st.booleans()) and ndim == 1:
        taps = draw(st.lists(st.integers(0, 5), min_size=kernel, max_size=kernel))
        taps = taps if any(taps) else None
    return Conv(
        kernel,
        dilation=draw(st.integers(1, 3)),
        padding=draw(st.sampled_from(["same", "causal", 0, 2])),
        taps=taps,
    )


@st.composite
def part(draw, ndim: int, depth: int = 2):
    kinds = ["layer", "layer", "strided", "pool"] + (
        ["residual", "branches", "repeat"] * (depth > 0)
    )
    kind = draw(st.sampled_from(kinds))
    same = Chain(
        *draw(
            st.lists(
                st.builds(lambda k, d: Conv(k, dilation=d), st.integers(1, 4), st.integers(1, 2)),
                min_size=1,
                max_size=2,
            )
        )
    )
    if kind == "layer":
        return draw(layer(ndim))
    if kind == "strided":
        return Conv(draw(st.integers(1, 4)), draw(st.integers(1, 3)))
    if kind == "pool":
        return MaxPool(draw(st.integers(1, 3)))
    if kind == "residual":
        return Residual(same)
    if kind == "repeat":
        return Residual(same) * draw(st.integers(2, 3))
    return Branches(same, None, Conv(3), merge=draw(st.sampled_from(["sum", "concat"])))


@st.composite
def network(draw, ndims=(1, 2)):
    ndim = draw(st.sampled_from(ndims))
    parts = draw(st.lists(part(ndim), min_size=1, max_size=4))
    return Chain(*parts, ndim=ndim)
