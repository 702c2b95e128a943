"""Concatenation: of channels, along the image, and of different maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from erftheory.importers.building.assemble import Assembler
from erftheory.importers.building.patches import folded
from erftheory.importers.building.whole import ATTENTION
from erftheory.importers.values.dimensions import CHANNEL, plain, spatial, unite
from erftheory.importers.values.pixels import Constant, Global, Listed, Partial, Pixels, Value
from erftheory.importers.values.refusals import MIRRORED, Unreadable
from erftheory.network.endless import GlobalAvgPool
from erftheory.network.graph import Concat
from erftheory.network.imported import OWN_PIXELS, Spatial


def concat(
    make: Assembler, values: Sequence[Value], axis: int, shape: Sequence[int]
) -> Value:
    """Values one behind the other along an array dimension: channels, padding, or pixels of
    different maps; `shape` is that of the result."""
    values = [make.opened(v) if isinstance(v, Partial) else v for v in values]
    if any(isinstance(v, Listed) for v in values):
        return _listed(make, values, axis)
    maps = [v for v in values if isinstance(v, Pixels)]
    if not maps:
        if any(isinstance(v, Global) for v in values):
            first = next(v for v in values if isinstance(v, Global))
            mixed = any(isinstance(v, Global) and v.mixed for v in values)
            return replace(first, mixed=mixed)
        return Constant(tuple(shape))
    if any(folded(s, axis) for s in maps):
        values = [make.settle(v) if isinstance(v, Pixels) else v for v in values]
        maps = [v for v in values if isinstance(v, Pixels)]
    if any(spatial(s.dims[axis]) for s in maps):
        return _beside(make, values, axis, shape)
    flat = []
    for v in values:
        if isinstance(v, Global):
            base = make.flush(maps[0])
            if make.hold == "global":
                make.note("a mean over the image held constant", base)
                continue
            make.note("a path through a mean over the image: the receptive field is unbounded")
            v = Pixels(make.add(GlobalAvgPool(), base.node), base.dims)
        if isinstance(v, Pixels):
            flat.append(make.flush(make.settle(v)))
    rest = unite([[d for i, d in enumerate(s.dims) if i != axis] for s in flat])
    dims = (*rest[:axis], plain(CHANNEL, shape[axis]), *rest[axis:])
    if len(flat) == 1:
        return make.select(flat[0], dims)
    node = make.add(Concat(), *(s.node for s in flat))
    parts, start = [], 0
    for v in values:
        size = v.shape[axis] if not isinstance(v, Global) else 0
        if isinstance(v, Pixels):
            parts.append((start, start + size, v))
        start += size
    plainly = all(sum(a.axis == CHANNEL for d in s.dims for a in d) <= 1 for s in flat)
    return Pixels(node, dims, parts=tuple(parts) if plainly else ())


def _beside(make: Assembler, values: Sequence[Value], axis: int, shape: Sequence[int]) -> Value:
    """Pieces along an axis of the image: padding by constants or by the image's own rim."""
    values = [make.flush(v) if isinstance(v, Pixels) else v for v in values]
    sizes = [0 if isinstance(v, Global) else v.shape[axis] for v in values]
    maps = [(v.shape[axis], i) for i, v in enumerate(values) if isinstance(v, Pixels)]
    _, main = max(maps, key=lambda pair: (pair[0], -pair[1]))
    body = values[main]
    assert isinstance(body, Pixels)
    root = _origin(make, body.node)
    if any(isinstance(v, Pixels) and _origin(make, v.node) != root for v in values):
        return _listed(make, values, axis)
    if body.flipped:
        raise Unreadable(MIRRORED)
    if len(maps) > 1:
        make.note(OWN_PIXELS)
    place = body.dims[axis]
    if len(place) != 1 and len(maps) == 1 and all(x.axis >= 0 for x in place):
        make.note("tokens beside the image's pixels (a class token), read as seeing all of it")
        return Global(body.node, mixed=True, label=ATTENTION)
    if len(place) != 1:
        raise Unreadable("a concatenation of pixels that are listed in one dimension (tokens)")
    a, before, after = place[0].axis, [0] * make.ndim, [0] * make.ndim
    before[a], after[a] = sum(sizes[:main]), sum(sizes[main + 1 :])
    grown = [body.size(i) for i in range(make.ndim)]
    grown[a] = shape[axis]
    return make.moved(body, before, after, (1,) * make.ndim, grown, len(maps) > 1)


def _listed(make: Assembler, values: Sequence[Value], axis: int) -> Value:
    """Pixels of different maps one behind the other."""
    parts: list[Pixels] = []
    for v in values:
        if isinstance(v, Listed) and v.place == axis:
            parts.extend(v.parts)
        elif isinstance(v, Pixels):
            parts.append(replace(v, parts=()))
        else:
            raise Unreadable("a concatenation of different values along the image")
    return Listed(axis, tuple(parts))


def _origin(make: Assembler, node: int) -> int:
    """The node whose pixels this one shows, cut or padded."""
    op = make.nodes[node].op
    while isinstance(op, Spatial) and op.rule.kernel.trivial and not op.rule.up:
        node = make.nodes[node].inputs[0]
        op = make.nodes[node].op
    return node
