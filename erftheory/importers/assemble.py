"""Builds the graph of a model while a reader goes through its operations.

Every method takes values (`Signal`, `Global`, `Constant`) and returns one; what acts on each pixel
alone waits in a signal's `tag` and `scale` until an operation that is not pointwise reads it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from erftheory.importers.signals import (
    BATCH,
    CHANNEL,
    COPY,
    Atom,
    Constant,
    Dim,
    Global,
    Signal,
    Unreadable,
    Value,
    join,
    plain,
    spatial,
    unite,
)
from erftheory.network.graph import Concat, Input, Node, Op, Sum
from erftheory.network.imported import Channels, Scale, Spatial
from erftheory.network.kernel import Kernel
from erftheory.network.layers import (
    Activation,
    BatchNorm,
    Conv,
    ConvTranspose,
    GlobalAvgPool,
    Step,
)

KNOWN = {
    "relu": "relu", "leaky_relu": "leaky_relu", "abs": "abs", "tanh": "tanh",
    "sigmoid": "sigmoid", "gelu": "gelu", "silu": "silu",
}  # fmt: skip
HOLD = ("none", "statistics", "global")
_SAME = 1e-9  # a scale this close to 1 is 1


class Assembler:
    """The graph so far, what was noted, and the scope that new nodes are named after.

    Args:
      hold: which reductions over the image are held constant: "statistics" (those of
        normalisations, as in inference), "global" (all), or "none".
    """

    def __init__(self, ndim: int, hold: str):
        self.ndim, self.hold = ndim, hold
        self.nodes: list[Node] = [Node(Input(), (), "input")]
        self.scope = ""
        self._notes: dict[str, list[str]] = {}
        self._flushed: dict[tuple[int, str, float], int] = {}

    def add(self, op: Op, *inputs: int) -> int:
        self.nodes.append(Node(op, inputs, self.scope))
        return len(self.nodes) - 1

    def add_global(self, value: Global) -> int:
        """A node for a value without pixels, where it ends the network."""
        self.note("the output depends on the whole image: the receptive field is unbounded")
        return self.add(GlobalAvgPool(), value.node)

    def note(self, text: str) -> None:
        self._notes.setdefault(text, []).append(self.scope)

    @property
    def notes(self) -> list[str]:
        """One line for each decision, with the first place where it was taken."""
        lines = []
        for text, places in self._notes.items():
            where = f"first in {places[0]}" if places[0] else ""
            count = f"{len(places)} times" if len(places) > 1 else ""
            extra = ", ".join(x for x in (count, where) if x)
            lines.append(f"{text} ({extra})" if extra else text)
        return lines

    # ---- pointwise --------------------------------------------------------------------------

    def flush(self, signal: Signal) -> Signal:
        """The signal with its tag and scale in the graph."""
        scaled = abs(abs(signal.scale) - 1) > _SAME and signal.scale != 0
        if not signal.tag and not scaled:
            return signal
        key = signal.node, signal.tag, signal.scale
        if key not in self._flushed:
            node = signal.node
            if signal.tag == "norm":
                node = self.add(BatchNorm(), node)
            elif signal.tag in KNOWN:
                node = self.add(Activation(KNOWN[signal.tag]), node)
            elif signal.tag:
                self.note("a pointwise function without a rule for its gain, taken as linear")
            if scaled:
                node = self.add(Scale(abs(signal.scale)), node)
            self._flushed[key] = node
        return Signal(self._flushed[key], signal.dims)

    def pointwise(self, value: Value, tag: str) -> Value:
        """A function of each entry alone: an activation by name, or "other"."""
        if isinstance(value, Constant):
            return Constant(value.shape)
        if isinstance(value, Global):
            return replace(
                value,
                root=tag == "sqrt" or (value.root and tag == "linear"),
                inverse=value.inverse or tag == "rsqrt",
            )
        if tag == "linear":
            return value
        if value.tag in ("stat", "rstat", "sstat"):
            new = {"rsqrt": "rstat", "sqrt": "sstat"}.get(tag, value.tag)
            return replace(value, tag=new)
        if value.tag in ("", "other") and tag == "erf" or (
            value.tag == "other" and tag in ("tanh", "sigmoid")
        ):  # parts of a GELU, whose inner factor belongs to it
            return replace(value, tag=tag, scale=1.0, parts=())
        if value.tag and value.tag != "other":
            value = self.flush(value)
        elif tag not in ("relu", "leaky_relu", "abs", "other") and not value.tag:
            value = self.flush(value)  # a scale in front of a curve is another curve
        return replace(value, tag=tag, parts=())

    def scaled(self, value: Value, constant: Constant, divide: bool = False) -> Value:
        """Times a constant, or divided by it."""
        if not isinstance(value, Signal):
            return value
        known = constant.get()
        factor = None if known is None else typical(known, value.dims)
        if factor is None or not math.isfinite(factor) or factor == 0:
            return replace(value, parts=())
        scale = value.scale / factor if divide else value.scale * factor
        return replace(value, scale=scale, parts=())

    def inverted(self, value: Value) -> Value:
        """A constant divided by the value."""
        if isinstance(value, Global):
            return replace(value, inverse=True)
        if isinstance(value, Signal) and value.tag in ("sstat", "stat"):
            return replace(value, tag="rstat")
        return self.pointwise(value, "other")

    def merge(self, kind: str, *values: Value) -> Value:
        """An elementwise operation of several values of one shape: "add", "mul", "div", …"""
        signals = [v for v in values if isinstance(v, Signal)]
        globals_ = [v for v in values if isinstance(v, Global)]
        if not signals:
            if not globals_:
                return Constant(values[0].shape)  # type: ignore[union-attr]
            first = globals_[0]
            kept = globals_ if kind in ("mul", "div") else globals_[:1]
            inverse = any(g.inverse for g in kept)
            return replace(first, mixed=any(g.mixed for g in globals_), inverse=inverse)
        result = signals[0]
        for other in signals[1:]:
            result = self._pair(kind, result, other)
        for held in globals_:
            result = self._with_global(kind, result, held)
        return result

    def _pair(self, kind: str, a: Signal, b: Signal) -> Signal:
        dims = unite([a.dims, b.dims])
        if a.node != b.node and a.tag in KNOWN and self.flush(a).node == b.node:
            a = self.flush(a)
        elif a.node != b.node and b.tag in KNOWN and self.flush(b).node == a.node:
            b = self.flush(b)
        if a.node == b.node:
            return Signal(a.node, dims, *_same_node(kind, a, b))
        a, b = self.flush(a), self.flush(b)
        if kind == "mul":
            self.note("a product of two branches, read as their sum in the gains")
        return Signal(self.add(Sum(None, None), a.node, b.node), dims)

    def _with_global(self, kind: str, signal: Signal, held: Global) -> Signal:
        statistic = not held.mixed
        if self.hold == "global" or (self.hold == "statistics" and statistic):
            what = "statistics of a normalisation" if statistic else "a mean over the image"
            self.note(f"{what} held constant")
            normal = held.inverse if kind == "mul" else held.root
            if statistic and kind in ("mul", "div") and normal:
                return replace(signal, tag="norm", scale=1.0, parts=())
            return replace(signal, parts=())
        self.note("a path through a mean over the image: the receptive field is unbounded")
        signal = self.flush(signal)
        mean = self.add(GlobalAvgPool(), signal.node)
        return Signal(self.add(Sum(None, None), signal.node, mean), signal.dims)

    # ---- channels ---------------------------------------------------------------------------

    def reduce(self, value: Value, axes: Sequence[int], kind: str, keep: bool = False) -> Value:
        """A reduction ("sum", "mean", "max") over array dimensions."""
        if not isinstance(value, Signal):
            return value
        gone = [value.dims[i] for i in axes]
        left = [() if i in axes else d for i, d in enumerate(value.dims) if keep or i not in axes]
        pixels = {a.axis for d in gone for a in d if a.axis >= 0 and a.size > 1}
        if not pixels:
            if any(a.axis in (CHANNEL, BATCH) for d in gone for a in d):
                return replace(value, dims=tuple(left), tag="stat", parts=())
            return replace(value, dims=tuple(left))
        if all(self._fragment(value, axis, gone) for axis in pixels):
            value = self.gathered(value, axes, "routing" if kind == "max" else "fixed", 0)
            return replace(value, dims=tuple(left) if keep else value.dims)
        if any(value.size(a) > 1 and a not in pixels for a in range(self.ndim)):
            raise Unreadable("a reduction over some of the image's axes")
        return Global(self.flush(value).node if value.tag in KNOWN else value.node)

    def _fragment(self, signal: Signal, axis: int, gone: Sequence[Dim]) -> bool:
        """True if `gone` holds only pixels within blocks, whose blocks stay."""
        inside = [a for d in gone for a in d if a.axis == axis]
        every = [a for d in signal.dims for a in d if a.axis == axis]
        outside = [a for a in every if a not in inside]
        block = math.prod(a.size for a in inside)
        return bool(outside) and all(a.step < block for a in inside) and all(
            a.step >= block for a in outside
        )

    def gathered(self, signal: Signal, axes: Sequence[int], kind: str, channels: int) -> Signal:
        """Dimensions that hold parts of blocks are summed out: a kernel as long as its stride."""
        signal = self.flush(signal)
        block = [1] * self.ndim
        for i in axes:
            for a in signal.dims[i]:
                if a.axis >= 0:
                    block[a.axis] *= a.size
        node = signal.node
        if max(block) > 1:
            size, nothing = tuple(block), (0,) * self.ndim
            if channels:
                node = self.add(Conv(size, stride=size, padding="valid", channels=channels), node)
            else:
                step = Step(
                    Kernel(size), size, (1,) * self.ndim, nothing, nothing, kind=kind
                )
                node = self.add(Spatial("block " + kind, step), node)
        elif channels:
            node = self.add(Conv((1,) * self.ndim, padding="valid", channels=channels), node)
        dims = tuple(
            join([Atom(a.axis, a.step // block[a.axis], a.size) if a.axis >= 0 else a for a in d])
            for i, d in enumerate(signal.dims)
            if i not in axes
        )
        return Signal(node, dims)

    def dense(self, value: Value, axes: Sequence[int], free: Sequence[int]) -> Value:
        """A contraction of `axes` with constants that have `free` further dimensions.

        The dimensions left come first, then the free ones.
        """
        if not isinstance(value, Signal):
            return replace(value, mixed=True) if isinstance(value, Global) else value
        gone = [value.dims[i] for i in axes]
        pixels = {a.axis for d in gone for a in d if a.axis >= 0 and a.size > 1}
        if pixels and not all(self._fragment(value, axis, gone) for axis in pixels):
            node = self.flush(value).node
            return Global(node, mixed=True)
        kept = [a for i, d in enumerate(value.dims) if i not in axes for a in d]
        out = math.prod(free) * math.prod(a.size for a in kept if a.axis == CHANNEL)
        new = self.gathered(value, axes, "random", max(1, out))
        return replace(new, dims=(*new.dims, *(plain(CHANNEL, n) for n in free)))

    def select(self, signal: Signal, dims: tuple[Dim, ...]) -> Signal:
        """The same pixels with other channels: a slice, a split."""
        signal = self.flush(signal)
        count = math.prod(a.size for d in dims for a in d if a.axis == CHANNEL)
        if count == signal.channels:
            return replace(signal, dims=dims, parts=())
        return Signal(self.add(Channels(max(1, count)), signal.node), dims)

    # ---- pixels -----------------------------------------------------------------------------

    def settle(self, signal: Signal) -> Signal:
        """Every axis in one plain dimension: pixel shuffles and patches become operations."""
        for axis in range(self.ndim):
            found = [(i, a) for i, d in enumerate(signal.dims) for a in d if a.axis == axis]
            if len(found) == 1:
                i, atom = found[0]
                dim = signal.dims[i]
                if len(dim) == 1:
                    continue
                if dim[0] == atom and not any(a.axis >= 0 for a in dim[1:]):
                    signal = self._shuffled(signal)
                    continue
            elif len(found) == 2:
                (i, coarse), (j, fine) = sorted(found, key=lambda pair: -pair[1].step)
                alone = len(signal.dims[i]) == 1 and fine.step == 1
                if alone and coarse.step == fine.size:
                    signal = self._blocked(signal)
                    continue
            raise Unreadable(f"pixels of axis {axis} in the layout {signal.dims}")
        return signal

    def _shuffled(self, signal: Signal) -> Signal:
        """Pixels followed by channels (or copies) in one dimension: up-sampling."""
        signal = self.flush(signal)
        factor, copies, used = [1] * self.ndim, True, 1
        dims = []
        for dim in signal.dims:
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
        channels = None if copies else max(1, signal.channels // used)
        return Signal(self.add(Spatial(label, step, channels), signal.node), tuple(dims))

    def _blocked(self, signal: Signal) -> Signal:
        """Blocks of pixels whose places became channels: space to depth."""
        signal = self.flush(signal)
        block = [1] * self.ndim
        for axis in range(self.ndim):
            atoms = [a for d in signal.dims for a in d if a.axis == axis]
            if len(atoms) == 2:
                block[axis] = min(atoms, key=lambda a: a.step).size
        dims = tuple(
            join([self._block_atom(a, block) for a in dim]) for dim in signal.dims
        )
        size, nothing = tuple(block), (0,) * self.ndim
        step = Step(Kernel(size), size, (1,) * self.ndim, nothing, nothing, kind="routing")
        channels = signal.channels * math.prod(block)
        node = self.add(Spatial("space to depth", step, channels), signal.node)
        return Signal(node, dims)

    def _block_atom(self, atom: Atom, block: list[int]) -> Atom:
        if atom.axis < 0 or block[atom.axis] == 1:
            return atom
        if atom.step == 1:
            return Atom(CHANNEL, 1, atom.size)
        return Atom(atom.axis, 1, atom.size)

    def window(self, signal: Signal, rule: Step, sizes: Sequence[int], op: Op | str) -> Signal:
        """A sliding window; `rule` has one entry an image axis, `sizes` the pixels behind it."""
        signal = self.flush(self.settle(signal))
        node = signal.node
        if isinstance(op, str):
            still = not rule.up and max(rule.kernel.shape) == max(rule.stride) == 1
            if not (still and not any(rule.before) and not any(rule.after)):
                node = self.add(Spatial(op, rule), node)
        else:
            node = self.add(op, node)
        return Signal(node, self.resized(signal.dims, sizes))

    def resized(self, dims: Sequence[Dim], sizes: Sequence[int]) -> tuple[Dim, ...]:
        return tuple(plain(d[0].axis, int(sizes[d[0].axis])) if spatial(d) else d for d in dims)

    def moved(
        self, signal: Signal, before: Sequence[int], after: Sequence[int],
        stride: Sequence[int], sizes: Sequence[int],
    ) -> Signal:  # fmt: skip
        """Padding (negative: cropping) and subsampling."""
        ones = (1,) * self.ndim
        # sizes that a model computes with may be NumPy's, whose products overflow
        strides, low, high = (tuple(map(int, v)) for v in (stride, before, after))
        rule = Step(Kernel(ones), strides, ones, low, high, kind="fixed")
        return self.window(signal, rule, sizes, "pad" if max(stride) == 1 else "slice")

    def convolution(
        self, value: Value, rule: Step, sizes: Sequence[int], channels: int, groups: int
    ) -> Signal:
        """A convolution; the signal's dimensions stay, its channels follow by the caller."""
        assert isinstance(value, Signal)
        signal = self.flush(self.settle(value))
        kind: int | str = "depthwise" if groups == signal.channels > 1 else groups
        kernel, before, after = rule.kernel.shape, rule.before, rule.after
        if rule.up:
            low = tuple(min(0, b) for b in before)
            signal = self._transposed(signal, rule, channels, kind)
            if any(low):  # beyond the reach of the taps: only zeros
                ones = (1,) * self.ndim
                pad = Step(Kernel(ones), ones, ones, tuple(-b for b in low), (0,) * self.ndim,
                           kind="fixed")  # fmt: skip
                signal = replace(signal, node=self.add(Spatial("pad", pad), signal.node))
            return replace(signal, dims=self.resized(signal.dims, sizes))
        low = tuple(min(0, b) for b in before)
        high = tuple(min(0, a) for a in after)
        if any(low) or any(high):
            inner = [signal.size(a) + low[a] + high[a] for a in range(self.ndim)]
            signal = self.moved(signal, low, high, (1,) * self.ndim, inner)
        pads = tuple((max(0, b), max(0, a)) for b, a in zip(before, after))
        stride, dilation = _short(rule.stride), _short(rule.dilation)
        op = Conv(kernel, stride, dilation, pads if any(map(any, pads)) else 0, channels, kind)
        return Signal(self.add(op, signal.node), self.resized(signal.dims, sizes))

    def _transposed(self, signal: Signal, rule: Step, channels: int, groups) -> Signal:
        before = tuple(max(0, b) for b in rule.before)
        op = ConvTranspose(
            rule.kernel.shape, rule.stride, before,
            tuple(max(0, b - a) for b, a in zip(before, rule.after)), _short(rule.dilation),
            channels, groups,
        )  # fmt: skip
        return Signal(self.add(op, signal.node), signal.dims)

    # ---- joining ----------------------------------------------------------------------------

    def concat(self, values: Sequence[Value], axis: int, shape: Sequence[int]) -> Value:
        signals = [v for v in values if isinstance(v, Signal)]
        if not signals:
            if any(isinstance(v, Global) for v in values):
                first = next(v for v in values if isinstance(v, Global))
                mixed = any(isinstance(v, Global) and v.mixed for v in values)
                return replace(first, mixed=mixed)
            return Constant(tuple(shape))
        if any(spatial(s.dims[axis]) for s in signals):
            return self._beside(values, axis, shape)
        flat = []
        for v in values:
            if isinstance(v, Global):
                base = self.flush(signals[0])
                if self.hold == "global":
                    self.note("a mean over the image held constant")
                    continue
                self.note("a path through a mean over the image: the receptive field is unbounded")
                v = Signal(self.add(GlobalAvgPool(), base.node), base.dims)
            if isinstance(v, Signal):
                flat.append(self.flush(self.settle(v)))
        rest = unite([[d for i, d in enumerate(s.dims) if i != axis] for s in flat])
        dims = (*rest[:axis], plain(CHANNEL, shape[axis]), *rest[axis:])
        if len(flat) == 1:
            return self.select(flat[0], dims)
        node = self.add(Concat(), *(s.node for s in flat))
        parts, start = [], 0
        for v in values:
            size = v.shape[axis] if not isinstance(v, Global) else 0
            if isinstance(v, Signal):
                parts.append((start, start + size, v))
            start += size
        plainly = all(sum(a.axis == CHANNEL for d in s.dims for a in d) == 1 for s in flat)
        return Signal(node, dims, parts=tuple(parts) if plainly else ())

    def _beside(self, values: Sequence[Value], axis: int, shape: Sequence[int]) -> Signal:
        """Pieces along an axis of the image: padding by constants or by the image's own rim."""
        values = [self.flush(v) if isinstance(v, Signal) else v for v in values]
        sizes = [0 if isinstance(v, Global) else v.shape[axis] for v in values]
        signals = [(v.shape[axis], i) for i, v in enumerate(values) if isinstance(v, Signal)]
        _, main = max(signals, key=lambda pair: (pair[0], -pair[1]))
        body = values[main]
        assert isinstance(body, Signal)
        root = self._origin(body.node)
        for v in values:
            if isinstance(v, Signal) and self._origin(v.node) != root:
                raise Unreadable("a concatenation of different values along the image")
        if body.flipped:
            raise Unreadable("a reflection of the image")
        if len(signals) > 1:
            self.note("padding by the image's own pixels, which only its rim sees")
        place = body.dims[axis]
        if len(place) != 1:
            raise Unreadable(f"a concatenation along pixels in the layout {body.dims}")
        a, before, after = place[0].axis, [0] * self.ndim, [0] * self.ndim
        before[a], after[a] = sum(sizes[:main]), sum(sizes[main + 1 :])
        grown = [body.size(i) for i in range(self.ndim)]
        grown[a] = shape[axis]
        return self.moved(body, before, after, (1,) * self.ndim, grown)

    def _origin(self, node: int) -> int:
        """The node whose pixels this one shows, cut or padded."""
        op = self.nodes[node].op
        while isinstance(op, Spatial) and op.rule.kernel.trivial and not op.rule.up:
            node = self.nodes[node].inputs[0]
            op = self.nodes[node].op
        return node

    def attention(self, a: Signal, b: Signal, numbers) -> Value:
        """A contraction of pixels with pixels: within blocks where blocks are its batch, else
        over the whole image."""
        (left, right), (left_batch, right_batch) = numbers
        block = [1] * self.ndim
        for signal, batch in ((a, left_batch), (b, right_batch)):
            inner = [d for i, d in enumerate(signal.dims) if i not in batch]
            axes = {x.axis for d in inner for x in d if x.axis >= 0 and x.size > 1}
            if not all(self._fragment(signal, axis, inner) for axis in axes):
                return self.mixed_pixels(a, b)
            for axis in axes:
                size = math.prod(x.size for d in inner for x in d if x.axis == axis)
                block[axis] = max(block[axis], size)
        a, b = self.flush(a), self.flush(b)
        node = a.node if a.node == b.node else self.add(Sum(None, None), a.node, b.node)
        size, nothing, ones = tuple(block), (0,) * self.ndim, (1,) * self.ndim
        down = Step(Kernel(size), size, ones, nothing, nothing, kind="routing")
        up = Step(Kernel(size), size, ones, nothing, nothing, up=True, kind="routing")
        node = self.add(Spatial("all of a window", down), node)
        node = self.add(Spatial("to all of a window", up), node)
        heads = [a.dims[i] for i in left_batch]
        rest = [d for i, d in enumerate(a.dims) if i not in (*left, *left_batch)]
        more = [d for i, d in enumerate(b.dims) if i not in (*right, *right_batch)]
        if any(spatial(d) for d in rest):  # keys: pixels of the window that each query has in it
            more = [_as_channels(d) for d in more]
        return Signal(node, (*heads, *rest, *more))

    def mixed_pixels(self, *values: Value) -> Value:
        """Every pixel with every other: attention over the image."""
        signals = [self.flush(v) for v in values if isinstance(v, Signal)]
        if signals:
            return Global(signals[0].node, mixed=True)
        held = [v for v in values if isinstance(v, Global)]
        return replace(held[0], mixed=True) if held else Constant(())


def _short(values: tuple[int, ...]) -> int | tuple[int, ...]:
    return 1 if max(values) == 1 else values


def _as_channels(dim: Dim) -> Dim:
    return join([Atom(CHANNEL, 1, a.size) for a in dim])


def typical(values: np.ndarray, dims: Sequence[Dim]) -> float | None:
    """Root mean square over channels in the middle of the image, with the sign of one number."""
    if values.ndim and values.ndim == len(dims):
        index = tuple(
            slice(n // 2, n // 2 + 1) if spatial(d) else slice(None)
            for d, n in zip(dims, values.shape)
        )
        values = values[index]
    if values.size == 0 or values.dtype == object:
        return None
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _same_node(kind: str, a: Signal, b: Signal) -> tuple[str, float]:
    """Tag and scale of an operation on two functions of one node."""
    tags = {a.tag, b.tag}
    scale = a.scale if a.tag in ("", "norm") else b.scale
    if "rstat" in tags and kind == "mul" or (kind == "div" and b.tag == "sstat"):
        return "norm", 1.0
    if "stat" in tags and kind in ("sub", "add"):
        other = a if b.tag == "stat" else b
        return other.tag if other.tag else "", other.scale
    if kind == "mul" and "" in tags:
        for tag, found in (("sigmoid", "silu"), ("tanh", "gelu"), ("erf", "gelu")):
            if tag in tags:
                return found, scale
    if tags == {""} and kind in ("add", "sub"):
        return "", a.scale + b.scale if kind == "add" else a.scale - b.scale or 1.0
    if kind == "select" and len(tags) == 1:
        return a.tag, a.scale
    return "other", 1.0
