"""The claims about receptive fields, each one object with its source and its evidence.

A law is registered by `@law(id, claim, statement, source)` on a function from a `Context` to a
list of `Evidence`; the modules of this package hold them by topic. To add a law, write one
function. Rooms: `machine` (what a law is and how laws run), `referees` (programs by hand),
`output`. Begin with machine/base.py, then any topic.
"""

# isort: off
# The order of these imports is the order of the laws.
from erftheory.laws import fields, signals, limits, shapes, layers, nonlinear  # noqa: F401
from erftheory.laws import conditions, fluctuations, residual, asymptotics, boundary  # noqa: F401
from erftheory.laws import trained  # noqa: F401

# isort: on
from erftheory.laws.machine.base import (
    Context,
    Engines,
    Evidence,
    Law,
    Verdict,
    law,
    registry,
    select,
)

__all__ = ["Context", "Engines", "Evidence", "Law", "Verdict", "law", "registry", "select"]
