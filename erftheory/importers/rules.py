"""Rules that the user gives for operations that a reader does not know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from erftheory.importers.pointwise import Pointwise
from erftheory.network.base import Network


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
