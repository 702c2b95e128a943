"""Recurrences of ONNX."""

from __future__ import annotations

from typing import Any

from erftheory.importers.building.assemble import Assembler
from erftheory.importers.values.dimensions import CHANNEL, Dim, plain, spatial
from erftheory.importers.values.pixels import Constant, Pixels, Value
from erftheory.importers.values.refusals import Unreadable

WAYS = {"forward": "forward", "reverse": "backward", "bidirectional": "both"}


def operator(make: Assembler, at: dict[str, Any], inputs: list[Value]) -> list[Value]:
    """LSTM, GRU and RNN of ONNX: (T, N, C) to (T, directions, N, hidden), or N first."""
    x, width = inputs[0], at["hidden_size"]
    if isinstance(x, Constant):
        raise Unreadable("a recurrence whose state alone depends on the image")
    if not isinstance(x, Pixels):
        return [x, x, x]
    first = bool(at.get("layout"))
    direction = at.get("direction", "forward")
    direction = WAYS[direction.decode() if isinstance(direction, bytes) else direction]
    count = 2 if direction == "both" else 1
    time, batch = (1, 0) if first else (0, 1)
    both: Dim = plain(CHANNEL, 2) if count == 2 else ()

    def arranged(of_time: Dim, of_batch: Dim) -> tuple[Dim, ...]:
        found = (of_batch, of_time, both) if first else (of_time, both, of_batch)
        return (*found, plain(CHANNEL, width))

    if not spatial(x.dims[time]):
        dims = arranged(x.dims[time], x.dims[batch])
        found = make.pointwise(make.select(x, dims), "other")
        return [found, found, found]
    states, *ends = make.recurrence(x, time, 2, count * width, direction)
    assert isinstance(states, Pixels)
    whole = Pixels(states.node, arranged(states.dims[time], states.dims[batch]))
    return [whole, *(_end(end, both, first) for end in ends)]


def _end(end: Value, both: Dim, first: bool) -> Value:
    if not isinstance(end, Pixels):
        return end
    _, of_batch, features = end.dims
    return Pixels(end.node, (of_batch, both, features) if first else (both, of_batch, features))






