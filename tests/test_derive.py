"""Derivations: every step holds, every wrong step is caught, and the numbers are the formulas'."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from typing import Any

import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from erftheory import derive, symbolic
from erftheory.symbolic import Step, brute
from erftheory.symbolic.exact import Gaussian, compile_exact
from erftheory.symbolic.names import equation, i, k, n, t

STEPS = [(topic, step) for topic in derive.TOPICS for step in derive.topic(topic)]
IDS = [f"{topic}-{step.name}" for topic, step in STEPS]


def variants(side: Any) -> Iterator[tuple[str, Any]]:
    """Small mistakes in an expression: a constant or exponent one too large, one at a time."""
    if isinstance(side, sp.Rational):
        yield f"{side} to {side + 1}", side + 1
    elif isinstance(side, sp.Pow):
        yield f"exponent {side.exp} plus one", sp.Pow(side.base, side.exp + 1)
    for place, part in enumerate(side.args):
        if harmless(side, place):
            continue
        for label, changed in variants(part):
            yield label, side.func(*side.args[:place], changed, *side.args[place + 1 :])


def harmless(side: Any, place: int) -> bool:
    """Whether a part is a first summation limit whose term is 0, so that skipping it is right."""
    if not isinstance(side, sp.Sum) or place == 0:
        return False
    index, first, _ = side.args[place].args
    return side.args[0].subs(index, first) == 0


def wrong(statement: sp.Eq) -> Iterator[tuple[str, sp.Eq]]:
    """False neighbours of a true equation."""
    left, right = statement.args
    if right != 0:
        yield "sign of the right side", equation(left, -right)
    yield "right side plus one", equation(left, right + 1)
    yield "left side plus one", equation(left + 1, right)
    for name in sorted(right.free_symbols, key=str):
        if name.is_integer:
            yield f"{name} to {name} + 1 on the right", equation(left, right.subs(name, name + 1))
    for label, changed in variants(right):
        yield f"right: {label}", equation(left, changed)
    if not left.has(sp.Limit):
        for label, changed in variants(left):
            yield f"left: {label}", equation(changed, right)


@pytest.mark.parametrize("topic", derive.TOPICS)
def test_every_step_holds(topic: str) -> None:
    report = derive.topic(topic).check()
    assert report, str(report)
    assert len(report) == len(derive.topic(topic)) and report.failures == ()


@pytest.mark.parametrize(("topic", "step"), STEPS, ids=IDS)
def test_every_wrong_neighbour_of_a_step_fails(topic: str, step: Step) -> None:
    found = list(wrong(step.statement))
    assert len(found) >= 2
    missed = []
    for label, s in found:
        t0=time.time()
        r=step.replace(statement=s).check()
        if r: missed.append((label,s))
        print(round(time.time()-t0,3), label, r.detail[:120])
    assert missed == []
