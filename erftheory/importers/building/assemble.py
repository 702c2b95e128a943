"""Builds the graph of a model while a reader goes through its operations.

Every method takes values (`Pixels`, `Global`, `Constant`) and returns one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from erftheory.importers.building.draft import Own
from erftheory.importers.building.patches import blocked
from erftheory.importers.building.pointwise import known
from erftheory.importers.building.whole import WholeAxes
from erftheory.importers.values.dimensions import (
    BATCH,
    CHANNEL,
    COPY,
    Atom,
    Dim,
    join,
    plain,
    spatial,
)
from erftheory.importers.values.factors import STATISTICS
from erftheory.importers.values.pixels import (
    Global,
    Partial,
    Pixels,
    Value,
    mirrored,
    without_ends,
)
from erftheory.importers.values.refusals import MIRRORED, TOKENS, Unreadable
from erftheory.network.graph import Op
from erftheory.network.imported import OWN_PAD, Channels, Spatial
from erftheory.network.kernel import Kernel
from erftheory.network.layers import BatchNorm, Conv, ConvTranspose, GroupNorm, InstanceNorm, Step


class Assembler(WholeAxes):
    """Operations that mix channels or pixels, on top of the pointwise ones."""

    # ---- channels ---------------------------------------------------------------------------

    def reduce(self, value: Value, axes: Sequence[int], kind: str, keep: bool = False) -> Value:
        """A reduction ("sum", "mean", "max") over array dimensions."""
        if not isinstance(value, Pixels | Partial):
            return value
        gone = [value.dims[i] for i in axes]
        left = [() if i in axes else d for i, d in enumerate(value.dims) if keep or i not in axes]
        pixels = {a.axis for d in gone for a in d if a.axis >= 0 and a.size > 1}
        if isinstance(value, Partial):
            open_ = any(a.axis >= 0 and a.size > 1 for d in left for a in d)
            axes = tuple(sorted({*value.axes, *pixels}))
            if open_:
                return replace(value, dims=tuple(left), axes=axes)
            return Global(value.node, label=value.label)
        groups = math.prod(a.size for d in left for a in d if a.axis == CHANNEL)
        if not pixels:
            if any(a.axis in (CHANNEL, BATCH) for d in gone for a in d):
                return replace(value, dims=tuple(left), tag="stat", parts=())
            return replace(value, dims=tuple(left))
        if all(self.fragment(value, axis, gone) for axis in pixels):
            value = self.gathered(value, axes, "routing" if kind == "max" else "fixed", 0)
            return replace(value, dims=tuple(left) if keep else value.dims)
        node = self.flush(value).node if known(value.tag) else value.node
        label = "maximum" if kind == "max" else ""
        if any(value.size(a) > 1 and a not in pixels for a in range(self.ndim)):
            return Partial(node, tuple(left), tuple(sorted(pixels)), self.scope, label)
        if groups != value.channels or value.tag in STATISTICS:
            return Global(node, layer=GroupNorm(groups), label=label)
        whole = any(not d or any(a.axis == BATCH for a in d) for d in gone)
        return Global(node, layer=BatchNorm() if whole else InstanceNorm(), label=label)

    def fragment(self, pixels: Pixels, axis: int, gone: Sequence[Dim]) -> bool:
        """True if `gone` holds only pixels within blocks, whose blocks stay."""
        inside = [a for d in gone for a in d if a.axis == axis]
        every = [a for d in pixels.dims for a in d if a.axis == axis]
        outside = [a for a in every if a not in inside]
        block = math.prod(a.size for a in inside)
        return (
            bool(outside)
            and all(a.step < block for a in inside)
            and all(a.step >= block for a in outside)
        )

    def gathered(
        self, pixels: Pixels, axes: Sequence[int], kind: str, channels: int, own: Own | None = None
    ) -> Pixels:
        """Dimensions that hold parts of blocks are summed out: a kernel as long as its stride.

        `own` gives the matrix of a contraction, shape (*axes, out).
        """
        pixels = self.flush(pixels)
        block = [1] * self.ndim
        for i in axes:
            for a in pixels.dims[i]:
                if a.axis >= 0:
                    block[a.axis] *= a.size
        node, before = pixels.node, len(self.nodes)
        if max(block) > 1:
            size, nothing = tuple(block), (0,) * self.ndim
            if channels:
                node = self.add(Conv(size, stride=size, padding="valid", channels=channels), node)
            else:
                step = Step(Kernel(size), size, (1,) * self.ndim, nothing, nothing, kind=kind)
                node = self.add(Spatial("block " + kind, step), node)
        elif channels:
            node = self.add(Conv((1,) * self.ndim, padding="valid", channels=channels), node)
        if own is not None and len(self.nodes) > before:
            atoms = [a for i in axes for a in pixels.dims[i]]
            self.weights[node] = partial(_blocks, own, atoms, self.ndim), 1
        dims = tuple(
            join([Atom(a.axis, a.step // block[a.axis], a.size) if a.axis >= 0 else a for a in d])
            for i, d in enumerate(pixels.dims)
            if i not in axes
        )
        return Pixels(node, dims)

    def dense(
        self, value: Value, axes: Sequence[int], free: Sequence[int], own: Own | None = None
    ) -> Value:
        """A contraction of `axes` with constants that have `free` further dimensions.

        The dimensions left come first, then the free ones; `own` as in `gathered`.
        """
        if not isinstance(value, Pixels):
            return value.mix() if isinstance(value, Global) else value
        gone = [value.dims[i] for i in axes]
        pixels = {a.axis for d in gone for a in d if a.axis >= 0 and a.size > 1}
        whole = {axis for axis in pixels if not self.fragment(value, axis, gone)}
        if whole:
            rest = [d for i, d in enumerate(value.dims) if i not in axes]
            return self.over_axes(value, whole, (*rest, *(plain(CHANNEL, n) for n in free)))
        kept = [a for i, d in enumerate(value.dims) if i not in axes for a in d]
        out = math.prod(free) * math.prod(a.size for a in kept if a.axis == CHANNEL)
        new = self.gathered(value, axes, "random", max(1, out), own)
        return replace(new, dims=(*new.dims, *(plain(CHANNEL, n) for n in free)))

    def pixelwise(self, pixels: Pixels, place: int, channels: int, own: Own) -> Pixels:
        """A convolution of one tap, whatever dimensions the pixels are in."""
        try:
            pixels = self.settle(pixels)
        except Unreadable:  # tokens and mirrored pixels stay where they are
            pass
        pixels = self.flush(pixels)
        ones = (1,) * self.ndim
        node = self.add(Conv(ones, 1, 1, 0, channels), pixels.node)
        self.weights[node] = partial(_of_one_tap, own, self.ndim), 1
        dims = (*pixels.dims[:place], plain(CHANNEL, channels), *pixels.dims[place + 1 :])
        return Pixels(node, dims)

    def select(self, pixels: Pixels, dims: tuple[Dim, ...]) -> Pixels:
        """The same pixels with other channels: a slice, a split."""
        pixels = self.flush(pixels)
        count = math.prod(a.size for d in dims for a in d if a.axis == CHANNEL)
        if count == pixels.channels:
            return replace(pixels, dims=dims, parts=())
        return Pixels(self.add(Channels(max(1, count)), pixels.node), dims)

    # ---- pixels -----------------------------------------------------------------------------

    def settle(self, pixels: Pixels) -> Pixels:
        """Every axis in one plain dimension: pixel shuffles and patches become operations."""
        if mirrored(pixels):
            raise Unreadable(MIRRORED)
        pixels = replace(pixels, dims=without_ends(pixels))
        alone = [d[0].axis for d in pixels.dims if len(d) == 1 and d[0].axis >= 0]
        if len(alone) == self.ndim == len(set(alone)) and max(map(len, pixels.dims)) == 1:
            return pixels
        for axis in range(self.ndim):
            found = [(i, a) for i, d in enumerate(pixels.dims) for a in d if a.axis == axis]
            if not found:  # one pixel: a mean over it, or what was left of it
                continue
            if len(found) == 1:
                i, atom = found[0]
                dim = pixels.dims[i]
                if len(dim) == 1:
                    continue
                if dim[0] == atom and not any(a.axis >= 0 for a in dim[1:]):
                    pixels = self._shuffled(pixels)
                    continue
            elif len(found) == 2:
                (i, coarse), (j, fine) = sorted(found, key=lambda pair: -pair[1].step)
                alone = len(pixels.dims[i]) == 1 and fine.step == 1
                if alone and coarse.step == fine.size:
                    pixels = blocked(self, pixels)
                    continue
            raise Unreadable(TOKENS)
        return pixels

    def _shuffled(self, pixels: Pixels) -> Pixels:
        """Pixels followed by channels (or copies) in one dimension: up-sampling."""
        pixels = self.flush(pixels)
        factor, copies, used = [1] * self.ndim, True, 1
        dims = []
        for dim in pixels.dims:
            if dim and dim[0].axis >= 0 and len(dim) > 1 and not any(a.axis >= 0 for a in dim[1:]):
                factor[dim[0].axis] = math.prod(a.size for a in dim[1:])
                used *= math.prod(a.size for a in dim[1:] if a.axis == CHANNEL)
                copies = copies and all(a.axis == COPY for a in dim[1:])
                dim = plain(dim[0].axis, math.prod(a.size for a in dim))
            dims.append(dim)
        size, nothing = tuple(factor), (0,) * self.ndim
        step = Step(
            Kernel(size), size, (1,) * self.ndim, nothing, nothing, up=True,
            kind="fixed" if copies else "routing",
        )  # fmt: skip
        label = "nearest" if copies else "depth to space"
        channels = None if copies else max(1, pixels.channels // used)
        return Pixels(self.add(Spatial(label, step, channels), pixels.node), tuple(dims))

    def window(self, pixels: Pixels, rule: Step, sizes: Sequence[int], op: Op | str) -> Pixels:
        """A sliding window; `rule` has one entry an image axis, `sizes` the pixels behind it."""
        pixels = self.flush(self.settle(pixels))
        node = pixels.node
        if isinstance(op, str):
            still = not rule.up and max(rule.kernel.shape) == max(rule.stride) == 1
            if not (still and not any(rule.before) and not any(rule.after)):
                node = self.add(Spatial(op, rule), node)
        else:
            node = self.add(op, node)
        return Pixels(node, self.resized(pixels.dims, sizes))

    def resized(self, dims: Sequence[Dim], sizes: Sequence[int]) -> tuple[Dim, ...]:
        return tuple(plain(d[0].axis, int(sizes[d[0].axis])) if spatial(d) else d for d in dims)

    def moved(
        self, pixels: Pixels, before: Sequence[int], after: Sequence[int],
        stride: Sequence[int], sizes: Sequence[int], own: bool = False,
    ) -> Pixels:  # fmt: skip
        """Padding (negative: cropping) and subsampling; `own`: by the image's own pixels."""
        ones = (1,) * self.ndim
        # sizes that a model computes with may be NumPy's, whose products overflow
        strides, low, high = (tuple(map(int, v)) for v in (stride, before, after))
        rule = Step(Kernel(ones), strides, ones, low, high, kind="fixed")
        label = OWN_PAD if own else "pad" if max(stride) == 1 else "slice"
        return self.window(pixels, rule, sizes, label)

    def convolution(
        self, value: Value, rule: Step, sizes: Sequence[int], channels: int, groups: int,
        own: Own | None = None,
    ) -> Pixels:  # fmt: skip
        """A convolution; the map's dimensions stay, its channels follow by the caller."""
        assert isinstance(value, Pixels)
        if groups > 1 and value.parts:
            self.note("a grouped convolution of a concatenation: each channel sees all its parts",
                      value)  # fmt: skip
        pixels = self.flush(self.settle(value))
        kind: int | str = "depthwise" if groups == pixels.channels > 1 else groups
        kernel, before, after = rule.kernel.shape, rule.before, rule.after
        if rule.up:
            low = tuple(min(0, b) for b in before)
            pixels = self._transposed(pixels, rule, channels, kind)
            if own is not None:
                self.weights[pixels.node] = own, groups
            if any(low):  # beyond the reach of the taps: only zeros
                ones = (1,) * self.ndim
                pad = Step(Kernel(ones), ones, ones, tuple(-b for b in low), (0,) * self.ndim,
                           kind="fixed")  # fmt: skip
                pixels = replace(pixels, node=self.add(Spatial("pad", pad), pixels.node))
            return replace(pixels, dims=self.resized(pixels.dims, sizes))
        low = tuple(min(0, b) for b in before)
        high = tuple(min(0, a) for a in after)
        if any(low) or any(high):
            inner = [pixels.size(a) + low[a] + high[a] for a in range(self.ndim)]
            pixels = self.moved(pixels, low, high, (1,) * self.ndim, inner)
        pads = tuple((max(0, b), max(0, a)) for b, a in zip(before, after))
        stride, dilation = _short(rule.stride), _short(rule.dilation)
        op = Conv(kernel, stride, dilation, pads if any(map(any, pads)) else 0, channels, kind)
        node = self.add(op, pixels.node)
        if own is not None:
            self.weights[node] = own, groups
        return Pixels(node, self.resized(pixels.dims, sizes))

    def _transposed(self, pixels: Pixels, rule: Step, channels: int, groups) -> Pixels:
        before = tuple(max(0, b) for b in rule.before)
        op = ConvTranspose(
            rule.kernel.shape, rule.stride, before,
            tuple(max(0, b - a) for b, a in zip(before, rule.after)), _short(rule.dilation),
            channels, groups,
        )  # fmt: skip
        return Pixels(self.add(op, pixels.node), pixels.dims)






def _of_one_tap(own: Own, ndim: int) -> np.ndarray | None:
    known = own()
    return None if known is None else known.reshape(*known.shape[:2], *(1,) * ndim)


def _short(values: tuple[int, ...]) -> int | tuple[int, ...]:
    return 1 if max(values) == 1 else values


def _blocks(own: Own, atoms: Sequence[Atom], ndim: int) -> np.ndarray | None:
    """The matrix of a contraction of blocks as weights (out, in, *block)."""
    matrix = own()
    places = [[i for i, a in enumerate(atoms) if a.axis == axis] for axis in range(ndim)]
    if matrix is None or any(len(p) > 1 for p in places):
        return None
    matrix = matrix.reshape([*(a.size for a in atoms), -1])
    channels = [i for i, a in enumerate(atoms) if a.axis < 0]
    order = [len(atoms), *channels, *(i for p in places for i in p)]
    kernel = [atoms[p[0]].size if p else 1 for p in places]
    return matrix.transpose(order).reshape([matrix.shape[-1], -1, *kernel])
