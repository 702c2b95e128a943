"""A run as data: what `--json` holds."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

from erftheory.files import plain
from erftheory.laws.machine.base import Verdict

PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "sympy", "python-flint")


def as_data(verdict: Verdict) -> dict[str, Any]:
    """The record of one law."""
    evidence = [
        {"route": e.route, "against": e.against, "quantity": e.quantity,
         "measured": plain(e.measured), "expected": plain(e.expected),
         "margin": plain(e.margin), "holds": e.holds, "tested": e.tested}
        for e in verdict.evidence
    ]  # fmt: skip
    law = verdict.law
    record = {"id": law.id, "claim": law.claim, "statement": law.statement, "source": law.source,
              "holds": verdict.holds, "evidence": evidence, "seconds": round(verdict.seconds, 4),
              "programs": verdict.programs, "compiling": round(verdict.compiling, 4),
              "notes": list(verdict.notes)}  # fmt: skip
    return record if verdict.error is None else record | {"error": verdict.error}


def environment() -> dict[str, Any]:
    """Versions and machine, as far as they can change a number."""
    versions = {}
    for name in ("erftheory", *PACKAGES):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    from erftheory import __version__

    versions["erftheory"] = __version__
    return {
        "python": platform.python_version(),
        "packages": versions,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
    }
