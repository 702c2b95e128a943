"""Derivations as terminal text, Jupyter markdown and LaTeX."""

from __future__ import annotations

import textwrap
from functools import lru_cache
from typing import Any

import sympy as sp

from erftheory.symbolic.proof.evidence import CheckResult

Derivation = Report = ProofStep = Any  # it reads their fields; derivation.py stands above it
_WIDTH = 88
_LONG_FORMULA = 160  # characters of LaTeX that about fill a line
_PREAMBLE = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\usepackage{amsmath,amssymb,graphicx}
\newcommand{\fit}[1]{%
  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{$\displaystyle #1$}}
"""
_LATEX_ESCAPES = {character: "\\" + character for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": "$<$",
    ">": "$>$",
    "|": r"$\vert$",
    "κ": r"$\kappa$",
    "λ": r"$\lambda$",
    "μ": r"$\mu$",
    "ρ": r"$\rho$",
    "σ": r"$\sigma$",
    "τ": r"$\tau$",
    "φ": r"$\varphi$",
    "ω": r"$\omega$",
    "√": r"$\surd$",
    "→": r"$\to$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "≠": r"$\ne$",
    "∞": r"$\infty$",
    "…": r"\dots{}",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "∗": "$*$",
    "²": r"\textsuperscript{2}",
}


@lru_cache(1024)
def latex(formula: Any) -> str:
    """A formula in LaTeX; the slow part of markdown and of a document, which share it."""
    return sp.latex(formula)


@lru_cache(1024)
def _drawn(formula: Any) -> str:
    return sp.pretty(formula, use_unicode=True, wrap_line=False)


def step_text(step: ProofStep, number: int | None = None, result: CheckResult | None = None) -> str:
    """A step as plain text: title, two-dimensional formula, reason, check."""
    head = f"{number}. {step.title}" if number is not None else step.title
    formula = _drawn(step.statement)
    words = [_wrapped(step.reason), _wrapped(_mark(step, number, result))]
    return "\n".join([head, "", textwrap.indent(formula, "       "), "", *words])


def derivation_text(derivation: Derivation) -> str:
    """A derivation as plain text."""
    head = [derivation.title, "=" * len(derivation.title), f"Source: {derivation.source}"]
    parts = [step_text(step, place, found) for place, step, found in _numbered(derivation)]
    return "\n\n".join(["\n".join(head), *parts])


def report_text(report: Report) -> str:
    """A report as a text table, one row a step."""
    width = max(len(step.title) for step, _ in report.entries)
    rows = [
        f"{_tick(found)} {step.title:<{width}}  {found.kind}: {found.detail}"
        for step, found in report.entries
    ]
    return "\n".join([f"{report.title}: {_verdict(report)}", *rows])


def step_markdown(
    step: ProofStep, number: int | None = None, result: CheckResult | None = None
) -> str:
    """A step as markdown with a displayed formula."""
    head = f"**{number}. {step.title}**" if number is not None else f"**{step.title}**"
    return f"{head}\n\n$${step.to_latex()}$$\n\n{step.reason}\n\n*{_mark(step, number, result)}*"


def derivation_markdown(derivation: Derivation) -> str:
    """A derivation as markdown."""
    parts = [step_markdown(step, place, found) for place, step, found in _numbered(derivation)]
    head = f"### {derivation.title}\n\nSource: {derivation.source}"
    return "\n\n".join([head, *parts])


def report_markdown(report: Report) -> str:
    """A report as a markdown table."""
    rows = [
        f"| {_tick(found)} | {step.title} | {found.kind} | {_cell(found.detail)} |"
        for step, found in report.entries
    ]
    head = [f"**{report.title}: {_verdict(report)}**", "", "| | step | kind | what was compared |"]
    return "\n".join([*head, "|---|---|---|---|", *rows])


def derivation_latex(derivation: Derivation) -> str:
    """A derivation as a standalone LaTeX document for pdflatex, xelatex or lualatex.

    Wide formulas are broken at the equals sign, and scaled down where one is still wider than
    the line.

    Raises:
        ValueError: a text has a character that plain pdflatex does not know.
    """
    items = "\n".join(
        f"\\item \\textbf{{{_escaped(step.title)}}}\n"
        f"\\[ \\fit{{{_broken(step)}}} \\]\n"
        f"{_escaped(step.reason)} \\emph{{({_escaped(_evidence(step, found))})}}"
        for _, step, found in _numbered(derivation)
    )
    return (
        f"{_PREAMBLE}"
        f"\\title{{{_escaped(derivation.title)}}}\n\\author{{{_escaped(derivation.source)}}}\n"
        "\\date{}\n\\begin{document}\n\\maketitle\n\\begin{enumerate}\n"
        f"{items}\n\\end{{enumerate}}\n\\end{{document}}\n"
    )


def _broken(step: ProofStep) -> str:
    """The formula, in two lines if it is long."""
    whole = step.to_latex()
    if len(whole) <= _LONG_FORMULA:
        return whole
    left, right = map(latex, step.statement.args)
    return f"\\begin{{aligned}} & {left} \\\\ & = {right} \\end{{aligned}}"


def _mark(step: ProofStep, number: int | None, result: CheckResult | None) -> str:
    """One line on the check: its mark and kind; for a step on its own how it is checked."""
    if number is None and result is None:
        return f"by {step.kind}"
    sign = "○" if result is None else _tick(result)
    return f"{sign} {_evidence(step, result)}"


def _evidence(step: ProofStep, result: CheckResult | None) -> str:
    if result is None:
        return f"{step.kind}, not run yet"
    state = "checked" if result else "FAILED"
    return f"{state}, {result.kind}: {result.detail}"


def _tick(result: CheckResult) -> str:
    return "✓" if result else "✗"


def _verdict(report: Report) -> str:
    held = len(report) - len(report.failures)
    return f"{held} of {len(report)} steps hold"


def _numbered(derivation: Derivation) -> list[tuple[int, ProofStep, CheckResult | None]]:
    report = derivation.report
    found = [None] * len(derivation) if report is None else [entry[1] for entry in report.entries]
    return [
        (place, step, result)
        for place, (step, result) in enumerate(zip(derivation, found, strict=True), start=1)
    ]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent="   ", subsequent_indent="   ")


def _escaped(text: str) -> str:
    return "".join(map(_escaped_character, text))


def _escaped_character(character: str) -> str:
    if character in _LATEX_ESCAPES:
        return _LATEX_ESCAPES[character]
    # the accented letters of inputenc and T1 reach from À to ž
    if " " <= character <= "~" or ("À" <= character <= "ž" and character.isalpha()):
        return character
    raise ValueError(
        f"text: got {character!r}; takes ASCII, accented Latin letters and "
        f"{''.join(filter(lambda known: not known.isascii(), _LATEX_ESCAPES))}"
    )
