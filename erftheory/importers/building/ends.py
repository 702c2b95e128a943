"""Endpoints at which a user wants a model to end, and those that an error offers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from erftheory.importers.values.pixels import Pixels
from erftheory.network.base import near

OFFERED = 3  # names in an error


def asked(outputs: Sequence[str] | None, ends: Callable[[], Mapping[str, Any]]) -> dict | None:
    """What `outputs` names among the ends that there are, None where it names nothing.

    Raises:
      ValueError: no list of names, or one that there is not.
    """
    if outputs is None:
        return None
    names = [outputs] if isinstance(outputs, str) else list(outputs)
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"outputs: got {outputs!r}; takes a list of names")
    there = ends()
    for name in names:
        if name not in there:
            raise ValueError(f"outputs: got {name!r}; takes names of {near(name, tuple(there))}")
    return {name: there[name] for name in names}


def check_maps(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if not isinstance(value, Pixels):
            raise ValueError(f"outputs: got {name!r}, which is no map; takes maps of the model")


def placed(assembler: Any, marks: Mapping[str, Pixels]) -> dict[str, int]:
    """The nodes of endpoints."""
    found = {name: assembler.place(name, pixels) for name, pixels in marks.items()}
    return {name: node for name, node in found.items() if node > 0}


def readable(
    marks: Mapping[str, Pixels], modules: Collection[str], within: Collection[str]
) -> list[str]:
    """The last maps that were read before an operation that could not be, `within` modules that
    have no end yet: names of modules, or where there are none of operations."""
    marks = {name: mark for name, mark in marks.items() if name not in within}
    last: dict[int, str] = {}
    plainly = not any(m.node > 0 and name in modules for name, m in marks.items())
    for name, node in ((name, mark.node) for name, mark in marks.items()):
        if node > 0 and (plainly or name in modules):
            last[node] = name
    return [last[node] for node in sorted(last)[-OFFERED:]]
