"""Scans of JAX along an axis of the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from erftheory.importers.building.assemble import Assembler
from erftheory.importers.building.whole import turned
from erftheory.importers.values.dimensions import spatial
from erftheory.importers.values.pixels import Constant, Global, Pixels, Value
from erftheory.importers.values.refusals import Unreadable
from erftheory.network.endless import Along, Recurrent
from erftheory.network.layers import Layer

Body = Callable[[list[Value]], list[Value]]


def scan(make: Assembler, params: Any, inputs: Sequence[Value], body: Body) -> list[Value]:
    """A scan of JAX whose rows are pixels of an axis: it looks back along it without end.

    The body is read for what it does to the other axes and to the channels: what it slides over
    is read to its ends as well, because it is repeated at every step.
    """
    fixed, carried = params["num_consts"], params["num_carry"]
    rows = [v for v in inputs[fixed + carried :] if isinstance(v, Pixels)]
    others = inputs[fixed + carried :]
    if any(isinstance(v, Global) for v in others) or any(not spatial(v.dims[0]) for v in rows):
        raise Unreadable("a scan along several dimensions of the image")
    settled = [make.flush(v) for v in rows]
    axes = {make.whole_axis(v, 0) for v in settled}
    if len(axes) > 1:
        raise Unreadable("a scan along different axes of the image")
    (axis,) = axes
    queue, each = iter(settled), []
    for v in others:
        found = next(queue) if isinstance(v, Pixels) else None
        each.append(Constant(v.shape[1:]) if found is None else Pixels(found.node, found.dims[1:]))
    constants = list(inputs[:fixed])
    out = body([*inputs[: fixed + carried], *each])
    before = len(make.nodes)
    out = body([*constants, *out[:carried], *each])  # states have seen pixels by now
    swept = {a for node in make.nodes[before:] for a in _moves(node.op, make.ndim)}
    node = make.joined(settled)
    ways = {turned(v, 0, "backward" if params["reverse"] else "forward") for v in settled}
    direction = ways.pop() if len(ways) == 1 else "both"
    if swept:
        along = tuple(sorted(swept))
        node = make.along(node, along, (), Along("repeated window", along)).node
    results: list[Value] = []
    for i, value in enumerate(out):
        if not isinstance(value, Pixels):
            shape = value.shape if i < carried else (params["length"], *value.shape)
            results.append(value if isinstance(value, Global) else Constant(shape))
            continue
        width = max(1, value.channels)
        if i >= carried:
            dims = (settled[0].dims[0], *value.dims)
            results.append(make.along(node, (axis,), dims, Recurrent(width, axis, direction)))
        elif any(spatial(d) for d in value.dims):
            end = Along("last state", (axis,), "both", width)
            results.append(make.along(node, (axis,), value.dims, end))
        else:
            results.append(Global(node, mixed=True, label="last state"))
    return results


def _moves(op: Any, ndim: int) -> list[int]:
    """The axes along which an operation reads further pixels."""
    step = op.step(ndim) if isinstance(op, Layer) else None
    if step is None:
        return []
    return [a for a in range(ndim) if step.kernel.shape[a] > 1 or step.before[a] or step.after[a]]
