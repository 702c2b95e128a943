"""Why an operation has no reading, and how a reader says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# reasons that are given in several places
MIRRORED = "a reflection of the image"
LAYOUTS = "pixels in one order (rows, blocks, tokens) beside pixels in another"
TOKENS = "pixels that are listed in one dimension, or in blocks within blocks"
BESIDE = "different values one behind the other along the image"
WHOLE = "an operation that runs along the whole image"


class Unreadable(ValueError):
    """An operation that has no reading.

    A reader adds `operation` (name and shapes), `line` (its place), `advice` (rules that were tried
    and do read it) and `ends` (the last endpoints before it).
    """

    def __init__(
        self,
        why: str,
        operation: tuple[str, str] | None = None,
        line: str = "",
        advice: Sequence[str] = (),
        ends: Sequence[str] = (),
    ):
        self.why, self.operation, self.line = why, operation, line
        self.advice, self.ends = tuple(advice), tuple(ends)
        text = why
        if operation is not None:
            name, shapes = operation
            takes = f"a rule for it: {' or '.join(advice)}" if advice else "a model up to there"
            text = (
                f"model: got {name!r} of {shapes}{' at ' * bool(line)}{line}: {why}; takes {takes}"
            )
        if ends:
            text += f"; the last maps that can be read are outputs={list(ends)}"
        super().__init__(text)

    def but(self, **more: Any) -> Unreadable:
        """The same, with more that is known about it."""
        said = {k: getattr(self, k) for k in ("why", "operation", "line", "advice", "ends")}
        return Unreadable(**{**said, **more})
