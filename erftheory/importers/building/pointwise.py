"""What acts on each pixel alone.

Pointwise functions and constant factors wait in a map's `tag` and `scale` until an operation
that is not pointwise reads it (`flush`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np

from erftheory.importers.building.draft import Draft
from erftheory.importers.values.dimensions import COPY, length, plain, spatial, unite
from erftheory.importers.values.factors import (
    STATISTICS,
    along_pixels,
    combined,
    inverse,
    norm_of,
    typical,
)
from erftheory.importers.values.pixels import (
    Constant,
    Global,
    Listed,
    Normed,
    Partial,
    Pixels,
    Value,
    mirrored,
)
from erftheory.importers.values.refusals import BESIDE, Unreadable
from erftheory.network.activations import LEAKY, leaky
from erftheory.network.endless import GlobalAvgPool
from erftheory.network.graph import Sum
from erftheory.network.imported import Channels, Scale
from erftheory.network.layers import Activation, BatchNorm, GroupNorm, InstanceNorm, Layer, RMSNorm

KNOWN = {
    "relu": "relu", "leaky_relu": "leaky_relu", "abs": "abs", "tanh": "tanh",
    "sigmoid": "sigmoid", "gelu": "gelu", "gelu_tanh": "gelu_tanh", "silu": "silu", "elu": "elu",
}  # fmt: skip
PRELU = 0.25  # where PyTorch, Keras and Flax start its slope, or nearly so
_SAME = 1e-9  # a scale this close to 1 is 1
GATE = 0.5  # a sigmoid of a small number, which a mean over the image is with random weights


class Pointwise(Draft):
    """What acts on each entry alone, on top of the graph so far."""

    def ended(self, value: Value) -> int:
        """A node for an output: pixel shuffles at its end count, tokens stay as they are."""
        if isinstance(value, Listed):
            raise Unreadable(BESIDE)
        if isinstance(value, Global):
            return self.add_global(value)
        pixels = self.opened(value) if isinstance(value, Partial) else value
        assert isinstance(pixels, Pixels)
        if mirrored(pixels):
            self.note("the output is mirrored; its units are counted in the image's order")
        try:
            pixels = self.settle(pixels)
        except Unreadable:
            pass
        return self.flush(pixels).node

    def place(self, name: str, pixels: Pixels) -> int:
        """The node of an endpoint: behind its pointwise function, where that has a rule."""
        if not pixels.node or (pixels.tag and not _stays(pixels.tag)):
            return pixels.node
        self.scope = name
        return self.flush(pixels).node

    def flush(self, pixels: Pixels) -> Pixels:
        """The map with its tag and scale in the graph."""
        scaled = abs(pixels.scale - 1) > _SAME and pixels.scale != 0
        if not pixels.tag and not scaled:
            return pixels
        # reduced over channels, and no normalisation came of it
        left = max(1, pixels.channels) if pixels.tag in STATISTICS else None
        norm = (pixels.norm or Normed(BatchNorm())) if pixels.tag == "norm" else None
        key = pixels.node, pixels.tag, pixels.scale, left, norm
        if key not in self._flushed:
            node = pixels.node
            if norm is not None:
                self.normal = True
                node = self.add(norm.layer, node)
                if norm.factors or norm.fixed:
                    self.scales[node] = partial(combined, norm.factors), norm.fixed
            elif (curve := known(pixels.tag)) is not None:
                node = self.add(curve, node)
            elif pixels.tag:
                self.note("a pointwise function without a rule for its gain, taken as linear", node)
            if left is not None:
                node = self.add(Channels(left), node)
            if scaled:
                node = self.add(Scale(pixels.scale), node)
            self._flushed[key] = node
        return Pixels(self._flushed[key], pixels.dims)

    def pointwise(self, value: Value, tag: str) -> Value:
        """A function of each entry alone: an activation by name, or "other"."""
        if isinstance(value, Listed):
            return value.mapped(lambda part, _: self.pointwise(part, tag))
        if isinstance(value, Constant):
            return Constant(value.shape)
        if isinstance(value, Global):
            return replace(
                value,
                root=tag == "sqrt" or (value.root and tag == "linear"),
                inverse=value.inverse or tag == "rsqrt",
                size={"linear": value.size, "sigmoid": GATE}.get(tag, 1.0),
            )
        if tag == "linear":
            return value
        value = self.opened(value) if isinstance(value, Partial) else value
        assert isinstance(value, Pixels)
        if value.tag in STATISTICS:
            new = {"rsqrt": "rstat", "sqrt": "sstat"}.get(tag, value.tag)
            return replace(value, tag=new)
        if (
            value.tag in ("", "other")
            and tag == "erf"
            or (value.tag == "other" and tag in ("tanh", "sigmoid"))
        ):  # parts of a GELU, whose inner factor belongs to it
            return replace(value, tag=tag, scale=1.0, parts=())
        if value.tag and value.tag != "other":
            value = self.flush(value)
        elif tag.split(" ")[0] not in ("relu", LEAKY, "abs", "other") and not value.tag:
            value = self.flush(value)  # a scale in front of a curve is another curve
        return replace(value, tag=tag, parts=())

    def leaky(self, value: Value, slope: Constant | float | None) -> Value:
        """A leaky ReLU; `slope` may be an array, of which the root mean square counts."""
        if isinstance(slope, Constant):
            array = slope.get()
            slope = None if array is None else typical(np.asarray(array), ())
        below = PRELU if slope is None else round(float(slope), 6)
        return self.pointwise(value, leaky(below) if math.isfinite(below) else "other")

    def normalised(
        self, value: Value, layer: Layer, factors: Sequence[Constant] = (), fixed: bool = False
    ) -> Value:
        """Behind a normalisation; `factors` and `fixed` as in `Normed`."""
        self.normal = True
        if not isinstance(value, Pixels):
            return value
        value = self.flush(value) if value.tag else value
        if isinstance(layer, GroupNorm) and layer.groups == value.channels:
            layer = InstanceNorm()
        sign = math.copysign(1.0, value.scale)
        norm = Normed(layer, tuple(factors), fixed)
        return replace(value, tag="norm", scale=sign, parts=(), norm=norm)

    def held_norm(self, value: Value, layer: Layer, factors: Sequence[Constant] = ()) -> Value:
        """Behind a normalisation by statistics of this very image, where those are held."""
        self.normal = True
        if not isinstance(value, Pixels):
            return value
        held = Global(value.node, root=True, inverse=True, layer=layer, factors=tuple(factors))
        return self.merge("mul", value, held)

    def negated(self, value: Value) -> Value:
        return replace(value, scale=-value.scale) if isinstance(value, Pixels) else value

    def scaled(self, value: Value, constant: Constant, divide: bool = False) -> Value:
        """Times a constant, or divided by it."""
        if isinstance(value, Global) and value.inverse and constant.entries and not divide:
            return replace(value, factors=(*value.factors, constant))
        if not isinstance(value, Pixels):
            return value
        found = self._of_norm(value, constant, divide)
        if found is not None:
            return found
        known = constant.get()
        factor = None if known is None else typical(known, value.dims)
        if factor is None or not math.isfinite(factor) or factor == 0:
            return replace(value, parts=())
        scale = value.scale / factor if divide else value.scale * factor
        return replace(value, scale=scale, parts=())

    def _of_norm(self, value: Pixels, constant: Constant, divide: bool) -> Pixels | None:
        """Times a constant that belongs to a normalisation: the inverse deviations of one in
        evaluation mode, or what is learned behind one; None if it does not."""
        if value.tag == "rstat" and constant.entries and not divide:
            norm = value.norm or Normed(RMSNorm())
            return replace(value, norm=norm._replace(factors=(*norm.factors, constant)))
        if constant.entries != value.channels or along_pixels(constant, value.dims):
            return None
        if divide:
            constant = inverse(constant)
        if value.tag == "norm" and value.norm is not None:
            norm = value.norm
            norm = norm._replace(factors=(*norm.factors, constant))
            return replace(value, norm=norm, parts=())
        if constant.root == "rsqrt":
            found = self.normalised(value, BatchNorm(), (constant,), True)
            assert isinstance(found, Pixels)
            return found
        return None

    def inverted(self, value: Value) -> Value:
        """A constant divided by the value."""
        if isinstance(value, Global):
            return replace(value, inverse=True)
        if isinstance(value, Pixels) and value.tag in ("sstat", "stat"):
            return replace(value, tag="rstat")
        return self.pointwise(value, "other")

    def merge(self, kind: str, *values: Value) -> Value:
        """An elementwise operation of several values of one shape: "add", "mul", "div", …"""
        statistics = kind in ("sub", "div") and any(isinstance(v, Pixels) for v in values)
        open_ = (lambda v: Global(v.node)) if statistics else self.opened
        values = tuple(open_(v) if isinstance(v, Partial) else v for v in values)
        maps = [v for v in values if isinstance(v, Pixels)]
        globals_ = [v for v in values if isinstance(v, Global)]
        if not maps:
            if not globals_:
                return Constant(values[0].shape)  # type: ignore[union-attr]
            first = globals_[0]
            kept = globals_ if kind in ("mul", "div") else globals_[:1]
            inverse = any(g.inverse for g in kept)
            return replace(first, mixed=any(g.mixed for g in globals_), inverse=inverse)
        result = maps[0]
        if kind == "sub" and result is not values[0]:
            result = replace(result, scale=-result.scale)  # a constant or a mean, less the map
        for other in maps[1:]:
            result = self._pair(kind, result, other)
        for held in globals_:
            result = self._with_global(kind, result, held)
        return result

    def settle(self, pixels: Pixels) -> Pixels:
        """Every axis in one plain dimension; the `Assembler` knows how."""
        return pixels

    def _held(self, a: Pixels, b: Pixels) -> bool:
        """Whether `b` is what a mean over some axes gives to `a`, and is held constant."""
        return self.hold == "global" and any(
            a.size(axis) > 1 and not any(x.axis == axis for d in b.dims for x in d)
            for axis in range(self.ndim)
        )

    def _pair(self, kind: str, a: Pixels, b: Pixels) -> Pixels:
        for one, other in ((a, b), (b, a)):
            if self._held(one, other):
                self.note("a mean over some axes held constant", one)
                sizes = map(max, one.shape, other.shape)
                dims = [d if length(d) == n else plain(COPY, n) for d, n in zip(one.dims, sizes)]
                return replace(one, dims=tuple(dims), parts=())
        if any(spatial(x) and spatial(y) and x != y for x, y in zip(a.dims, b.dims)):
            a, b = self.settle(a), self.settle(b)
        dims = unite([a.dims, b.dims])
        if a.node != b.node and _stays(a.tag) and self.flush(a).node == b.node:
            a = self.flush(a)
        elif a.node != b.node and _stays(b.tag) and self.flush(b).node == a.node:
            b = self.flush(b)
        if a.tag == b.tag == "norm":
            a, b = self.flush(a), self.flush(b)
        if a.node == b.node:
            tag, scale = _same_node(kind, a, b)
            less = kind in ("add", "sub") and {a.tag, b.tag} == {"", "stat"}
            norm = norm_of(kind, a, b) if tag == "norm" else None
            centred = less or (kind == "select" and a.centred)
            return Pixels(a.node, dims, tag, scale, norm=norm, centred=centred)
        if kind == "sub":
            b = replace(b, scale=-b.scale)
        a, b = self.flush(a), self.flush(b)
        if kind == "mul":
            self.note("a product of two branches, read as their sum in the gains", a.node)
        nodes = [self._spread(v, Pixels(v.node, dims).channels) for v in (a, b)]
        return Pixels(self.add(Sum(None, None), *nodes), dims)

    def _spread(self, pixels: Pixels, channels: int) -> int:
        """A node of so many channels: one that is broadcast (a gate of one channel) is repeated."""
        if pixels.channels == channels:
            return pixels.node
        return self.add(Channels(channels), pixels.node)

    def _with_global(self, kind: str, pixels: Pixels, held: Global) -> Pixels:
        # a normalisation takes a mean off, or divides; what multiplies or adds one is a path
        statistic = not held.mixed and (kind in ("sub", "div") or held.inverse)
        if self.hold == "global" or (self.hold == "statistics" and statistic):
            what = "statistics of a normalisation" if statistic else "a mean over the image"
            self.note(f"{what} held constant", pixels)
            normal = held.inverse if kind == "mul" else held.root
            if statistic and kind in ("mul", "div") and normal:
                return self.normalised(pixels, held.layer, held.factors)  # type: ignore[return-value]
            size = held.size if kind == "mul" else 1.0
            return replace(pixels, scale=pixels.scale * size, parts=())
        self.note("a path through a mean over the image: the receptive field is unbounded")
        pixels = self.flush(pixels)
        mean = self.add(GlobalAvgPool(), pixels.node)
        return Pixels(self.add(Sum(None, None), pixels.node, mean), pixels.dims)


def known(tag: str) -> Activation | None:
    """The activation that a tag stands for: a key of `CURVES`."""
    name, _, below = tag.partition(" ")
    if name not in KNOWN:
        return None
    return Activation(KNOWN[name], Fraction(below) if below else None)


def _stays(tag: str) -> bool:
    """Whether a value beside its own function may have this one in the graph."""
    return tag == "norm" or known(tag) is not None


def _same_node(kind: str, a: Pixels, b: Pixels) -> tuple[str, float]:
    """Tag and scale of an operation on two functions of one node."""
    tags = {a.tag, b.tag}
    scale = a.scale if a.tag in ("", "norm") else b.scale
    if "rstat" in tags and kind == "mul" or (kind == "div" and b.tag == "sstat"):
        return ("stat" if "stat" in tags else "norm"), 1.0
    if "stat" in tags and kind in ("sub", "add"):
        other = a if b.tag == "stat" else b
        return other.tag if other.tag else "", other.scale
    if kind == "mul" and "" in tags:
        for tag, found in (("sigmoid", "silu"), ("tanh", "gelu_tanh"), ("erf", "gelu")):
            if tag in tags:
                return found, scale
    if tags == {""} and kind in ("add", "sub"):
        return "", a.scale + b.scale if kind == "add" else a.scale - b.scale or 1.0
    if kind == "select" and len(tags) == 1:
        return a.tag, a.scale
    return "other", 1.0
