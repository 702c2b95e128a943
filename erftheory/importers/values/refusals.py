"""Why an operation has no reading, and how a reader says so."""

from __future__ import annotations

from collections.abc import Sequence

# reasons that are given in several places
MIRRORED = "a reflection of the image"
LAYOUTS = "pixels in one order (rows, blocks, tokens) beside pixels in another"
TOKENS = "pixels that are listed in one dimension, or in blocks within blocks"
BESIDE = "different values one behind the other along the image"


class Unreadable(ValueError):
    """An operation that has no reading; the reader adds its name, shapes and place, and `advice`:
    rules that were tried and do read it."""

    def __init__(
        self,
        why: str,
        operation: tuple[str, str] | None = None,
        line: str = "",
        advice: Sequence[str] = (),
    ):
        self.why, self.operation, self.line, self.advice = why, operation, line, tuple(advice)
        text = why
        if operation is not None:
            name, shapes = operation
            takes = f"a rule for it: {' or '.join(advice)}" if advice else "a model up to there"
            text = (
                f"model: got {name!r} of {shapes}{' at ' * bool(line)}{line}: {why}; takes {takes}"
            )
        super().__init__(text)
