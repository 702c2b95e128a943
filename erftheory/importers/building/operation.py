"""What an operation does to values that are no plain maps: reductions under way, maps in a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

from erftheory.importers.building.pointwise import Pointwise
from erftheory.importers.values.pixels import Global, Listed, Partial, Pixels
from erftheory.importers.values.refusals import BESIDE, Unreadable


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of any framework.

    Attributes:
      kind: "reduce", "linear", "mul", "div", "sub", "concat", "cut" (into parts), or another.
      alone: whether it acts on each entry by itself.
      inputs: its values, and what else it takes.
      run: reads it, with other inputs of the same order and the shape of its result.
    """

    kind: str
    alone: bool
    inputs: Sequence[Any]
    run: Callable[[Sequence[Any], Any], Any]


def read(make: Pointwise, operation: Operation, out: Any) -> Any:
    """The result of an operation, `out` being its shape (a list for several, () if not known).

    Raises:
      Unreadable: no rule for it, or none for these inputs.
    """
    inputs = operation.inputs
    if any(isinstance(v, Partial) for v in inputs):
        if _goes_on(operation):
            return operation.run(inputs, out)
        if _stays(operation):
            return inputs[0]
        inputs = [make.opened(v) if isinstance(v, Partial) else v for v in inputs]
    if any(isinstance(v, Listed) for v in inputs):
        return _each(operation, inputs, out)
    return operation.run(inputs, out)


def of_pixels(rule: Callable[..., Any]) -> Callable[..., Any]:
    """A rule that reads pixels; any other value stays as it is.

    The third argument of a rule is its value, or the list of its inputs, the first of which it is.
    """

    @wraps(rule)
    def run(make: Pointwise, how: Any, given: Any, *args: Any, **more: Any) -> Any:
        first = given[0] if isinstance(given, list) else given
        return rule(make, how, given, *args, **more) if isinstance(first, Pixels) else first

    return run


def depending(inputs: Sequence[Any]) -> list[Any]:
    """The inputs that depend on the image."""
    return [v for v in inputs if isinstance(v, Pixels | Global | Partial | Listed)]


def _goes_on(operation: Operation) -> bool:
    """Whether a reduction over some axes goes on over others, or is a statistic of a map."""
    inside = depending(operation.inputs)
    if operation.kind == "reduce":
        return len(inside) == 1
    return operation.kind in ("sub", "div") and any(isinstance(v, Pixels) for v in inside)


def _stays(operation: Operation) -> bool:
    """Whether a reduction over some axes is merely scaled."""
    alone = isinstance(operation.inputs[0], Partial) and len(depending(operation.inputs)) == 1
    return alone and operation.kind in ("linear", "mul", "div")


def _each(operation: Operation, inputs: Sequence[Any], out: Any) -> Any:
    """Different pixels one behind the other: what acts on each alone, or cuts them apart."""
    if operation.kind == "concat":
        return operation.run(inputs, out)
    if len(depending(inputs)) > 1:
        raise Unreadable(BESIDE)
    if operation.kind == "cut":
        return operation.run(inputs, out)
    if not operation.alone or isinstance(out, list):
        raise Unreadable(BESIDE)
    listed = next(v for v in inputs if isinstance(v, Listed))

    def run(part: Pixels, shape: tuple[int, ...]) -> Any:
        found = operation.run([part if v is listed else v for v in inputs], shape)
        return found[0] if isinstance(found, list) else found

    return listed.mapped(run, out)
