"""What a run prints: one line a law, the evidence, the networks."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from erftheory.files import scientific
from erftheory.laws.machine.base import Evidence, Verdict

PIPED = 80  # columns assumed where there is no terminal to ask
CLAIM = 43  # columns of a claim in plain words, with which a line fits 80


def make_console() -> Console:
    """Colours on a terminal only; without one 80 columns, or what COLUMNS says."""
    if sys.stdout.isatty():
        return Console()
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdigit() and int(columns) > 0 else PIPED
    return Console(width=width, color_system=None, force_terminal=False, legacy_windows=False)


class Lines:
    """The table, a line as each law is decided.

    Args:
      total: number of laws.
    """

    def __init__(self, console: Console, total: int):
        self.console, self.total, self.done = console, total, 0
        self.started = time.perf_counter()

    def head(self) -> None:
        self._print(Text(_row("", "law", "claim", "verdict", "near", "s", "left")))

    def tell(self, verdict: Verdict, quiet: bool = False) -> None:
        self.done += 1
        if quiet:
            return
        count = f"{self.done}/{self.total}"
        word = "holds" if verdict.holds else "FAILS"
        line = Text(_row(count, verdict.law.id, verdict.law.claim, word, near(verdict),
                         f"{verdict.seconds:.1f}", self.left))  # fmt: skip
        colour = "green" if verdict.holds else "bold red"
        line.highlight_words([word], style=colour)
        self._print(line)

    @property
    def left(self) -> str:
        """About how long the rest takes, by how long a law took until now."""
        if not 0 < self.done < self.total:
            return ""
        spent = time.perf_counter() - self.started
        seconds = spent / self.done * (self.total - self.done)
        return f"~{seconds:.0f}s" if seconds < 99.5 else f"~{min(seconds / 60, 99):.0f}m"

    def _print(self, line: Text) -> None:
        line.rstrip()
        self.console.print(line, soft_wrap=True)


def _row(count: str, law: str, claim: str, verdict: str, near: str, s: str, left: str) -> str:
    return f"{count:>5} {law:<6} {claim:<{CLAIM}} {verdict:<7} {near:>5} {s:>4} {left:>4}"


def near(verdict: Verdict) -> str:
    """How much of the allowed deviation the comparison with the least slack has used."""
    found = verdict.decisive
    if found is None:
        return "-"
    if not found.allowed:
        return "exact" if found.holds else "off"
    used = 1 - found.slack
    return f"{100 * used:.0f} %" if used < 100 else ">99x"


def line(law: str, e: Evidence) -> str:
    verdict = "shown" if not e.tested else "holds" if e.holds else "FAILS"
    return (
        f"{law}  {e.route} against {e.against}, {e.quantity}: measured {show(e.measured)}, "
        f"expected {show(e.expected)}, margin {show_margin(e)}, {verdict}"
    )


def print_evidence(console: Console, verdicts: Sequence[Verdict]) -> None:
    """Every comparison, under the law's statement and source; what was compiled."""
    for v in verdicts:
        console.print(Text(f"{v.law.id}  {v.law.statement}. {v.law.source}"), soft_wrap=True)
        for e in v.evidence:
            console.print(Text(line(v.law.id, e)), soft_wrap=True)
        made = f"{v.programs} programs compiled in {v.compiling:.1f} s, of {v.seconds:.1f} s"
        console.print(Text(f"{v.law.id}  {made}"), soft_wrap=True)
    programs, seconds = sum(v.programs for v in verdicts), sum(v.compiling for v in verdicts)
    console.print(Text(f"{programs} programs compiled in {seconds:.1f} s"), soft_wrap=True)


def print_failures(console: Console, verdicts: Sequence[Verdict]) -> None:
    for v in verdicts:
        if v.error is not None:
            console.print(Text(f"{v.law.id}  an engine raised {v.error}"), soft_wrap=True)
        for e in v.evidence:
            if not e.holds:
                console.print(Text(line(v.law.id, e)), soft_wrap=True)


def print_networks(console: Console, networks: Sequence[dict[str, Any]]) -> None:
    if not networks:
        return
    if console.width < 64:
        for row in networks:
            values = (f"{key} {show(row[key])}" for key in ("rf", "stride", "erf_std", "ratio"))
            console.print(Text(f"{row['network']}: {', '.join(values)}"), soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("network", no_wrap=True)
    for name in ("RF (px)", "stride", "ERF std (px)", "std/RF"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in networks:
        table.add_row(row["network"], show(row["rf"]), show(row["stride"]),
                      f"{row['erf_std']:.3f}", f"{row['ratio']:.5f}")  # fmt: skip
    console.print(table)


def show(value: Any) -> str:
    """A number with six digits, exact where it is short."""
    if isinstance(value, (tuple, list)):
        return ", ".join(map(show, value))
    if isinstance(value, Fraction):
        text = str(value)
        return text if len(text) <= 11 else show(float(value))
    if isinstance(value, (bool, str)):
        return str(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**9 else scientific(value)
    return f"{float(value):.6g}"


def show_margin(evidence: Evidence) -> str:
    if evidence.margin is None:
        return "-"
    if evidence.allowed == 0 and evidence.margin == 0:
        return "exact"
    return f"{evidence.margin:.2g}" if math.isfinite(evidence.margin) else str(evidence.margin)
