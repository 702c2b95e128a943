"""Rules that the user gives for operations that a reader does not know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from erftheory.importers.building.pointwise import Pointwise
from erftheory.importers.values.pixels import Pixels
from erftheory.importers.values.refusals import Unreadable
from erftheory.network.base import Network
from erftheory.network.layers import Conv

READS = "where it reads as that does"


def check_rules(rules: Any) -> None:
    """Refuse rules that are none, before anything is read."""
    if rules is None:
        return
    if not isinstance(rules, Mapping):
        raise ValueError(f"rules: got {rules!r}; takes a dictionary of names to rules")
    for key, rule in rules.items():
        if rule != "identity" and not isinstance(rule, Network):
            raise ValueError(f'rules[{key!r}]: got {rule!r}; takes "identity" or a network')


def note_unused(graph: Pointwise, rules: Mapping[str, Any], used: set[str]) -> None:
    """A note on rules that no operation has asked for: perhaps a slip in the name."""
    for name in rules:
        if name not in used:
            graph.note(f"rules[{name!r}] was not used: no operation of that name")


def proposed(name: str, apply: Callable[[Any], Any], shape: Sequence[int] | None) -> list[str]:
    """Rules for an operation that `apply` takes and that give a result of a shape, in words.

    A shape that is not known is not compared.
    """
    found, read = [], False
    for rule, shown, where in (
        ("identity", '"identity"', "where it acts on each pixel alone"),
        *((Conv(3, k), f"Conv(3{f', {k}' * (k > 1)})", READS) for k in (1, 2, 4)),
    ):
        if where == READS and read:
            continue
        try:
            value = apply(rule)
        except (Unreadable, ValueError):
            continue
        value = value[0] if isinstance(value, list) else value
        same = isinstance(value, Pixels) and (shape is None or value.shape == tuple(shape))
        if same or not isinstance(value, Pixels):
            read = where == READS
            found.append(f"rules={{{name!r}: {shown}}} {where}")
    return found


def keeps_shape(entering: Iterable[Sequence[int] | None], out: Sequence[int] | None) -> bool:
    """Whether a rule that changes no sizes can stand for an operation of these shapes."""
    return out is None or any(shape is None or tuple(shape) == tuple(out) for shape in entering)
