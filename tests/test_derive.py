"""Derivations: every step holds, every wrong step is caught, and the numbers are the formulas'."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from fractions import Fraction
from typing import Any

import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from neighbours import sides, true_as_numbers, true_as_well, wrong
from tex import TeXError, check_document

from erftheory import derive, symbolic
from erftheory.symbolic import ProofStep
from erftheory.symbolic.proof import brute
from erftheory.symbolic.proof.exact import Gaussian, compile_exact
from erftheory.symbolic.proof.names import equation, i, k, n, o, t

STEPS = [(topic, step) for topic in derive.TOPICS for step in derive.topic(topic)]
NEIGHBOURS = 12  # of a step in a usual run
IDS = [f"{topic}-{step.name}" for topic, step in STEPS]


@pytest.mark.parametrize("topic", derive.TOPICS)
def test_every_step_holds(topic: str) -> None:
    report = derive.topic(topic).check()
    assert report, str(report)
    assert len(report) == len(derive.topic(topic)) and report.failures == ()


@pytest.mark.parametrize(("topic", "step"), STEPS, ids=IDS)
def test_every_wrong_neighbour_of_a_step_fails(topic: str, step: ProofStep, request: Any) -> None:
    """Of many neighbours a sample, the same in every run; `--all-neighbours` takes all."""
    neighbours = list(wrong(step.statement))
    if len(neighbours) > NEIGHBOURS and not request.config.getoption("--all-neighbours"):
        neighbours = random.Random(f"{topic} {step.name}").sample(neighbours, NEIGHBOURS)
    passed = [(label, new) for label, new in neighbours if step.replace(statement=new).check()]
    missed = [label for label, new in passed if not true_as_well(step.statement, new)]
    assert missed == []
    assert len(passed) <= len(neighbours) - 3


def test_the_oracles_of_neighbours_tell_true_from_false() -> None:
    signal, size, field = o(n, t) * t**2, n * (k - 1), (t, 0, n * (k - 1))
    truth = equation(sp.Sum(signal, field), size)
    for limits, equal in (((t, 1, n * k), True), ((t, 2, size), False), ((t, 0, size - 1), False)):
        assert true_as_well(truth, equation(sp.Sum(signal, limits), size)) is equal
    assert not true_as_well(truth, equation(sp.Sum(signal + 1, field), size))
    for power, right, holds in ((1, 0, True), (2, k / (k + 1), True), (2, 0, False)):
        limit = sp.Limit(k * n**power / ((k + 1) * n**2 + 1), n, sp.oo)
        assert true_as_numbers(equation(limit, right)) is holds


@pytest.mark.parametrize(
    ("topic", "name", "change"),
    [
        ("growth", "vanishing share", lambda side: side.subs(sp.sqrt(n), n)),
        ("growth", "rate", lambda side: side.subs(k, k + 1)),
        ("gaussian_limit", "limit", lambda side: side.subs(k, k + 1)),
        ("gaussian_limit", "skew kernel", lambda side: side.replace(sp.log, sp.exp)),
        ("moments", "cumulants", lambda side: side.subs(n, n + 1)),
    ],
)
def test_a_wrong_left_side_fails_too(topic: str, name: str, change: Any) -> None:
    step = derive.topic(topic)[name]
    left, right = sides(step.statement)
    changed = equation(change(left), right if name != "limit" else right**2)
    assert not step.replace(statement=changed).check()


def test_a_failure_says_where() -> None:
    derivation = derive.n_fold_convolution()
    step = derivation["extended binomial"]
    left, right = sides(step.statement)
    broken = derivation.replace(
        steps=(*derivation[:2], step.replace(statement=equation(left, right.subs(t, t + 1))))
    )
    report = broken.check()
    assert not report
    assert [failed.name for failed, _ in report.failures] == ["extended binomial"]
    assert "at n = 1, k = 2, t = " in str(report) and "2 of 3 steps hold" in str(report)
    assert "✗" in str(broken) and "FAILED" in broken._repr_markdown_()


def test_a_statement_without_a_value_fails_instead_of_raising() -> None:
    step = derive.n_fold_convolution()["extended binomial"]
    result = step.replace(statement=equation(sp.log(t), sp.oo)).check()
    assert not result and "cannot be evaluated" in result.detail


def test_derivations_index_iterate_and_name_their_result() -> None:
    derivation = derive.growth()
    assert derivation[2] is list(derivation)[2] is derivation.steps[2]
    assert derivation.result == derivation["vanishing share"].statement
    assert derivation.result.rhs == 0
    with pytest.raises(KeyError, match="no step 'nothing'"):
        derivation["nothing"]


@pytest.mark.parametrize("topic", derive.TOPICS)
def test_rendering(topic: str) -> None:
    fresh = derive.topic(topic).replace()
    assert "not run yet" in str(fresh) and "✓" not in str(fresh)
    checked = derive.topic(topic)
    assert checked.check()
    text, markdown, latex = str(checked), checked._repr_markdown_(), checked.to_latex()
    assert text.count("✓") == markdown.count("✓") == len(checked)
    assert markdown.count("$$") == 2 * len(checked)
    assert latex.count("\\item") == len(checked)
    assert latex.startswith("\\documentclass") and latex.rstrip().endswith("\\end{document}")
    check_document(latex)
    for step in checked:
        assert step.reason.endswith(".") and step.title in text
        assert step.to_latex() in markdown and step.kind in text


BROKEN = {
    "open group": (r"\textbf{", r"\textbf{{"),
    "unknown command": (r"\frac", r"\frak"),
    "command of mathematics in text": (r"\item", r"\item \sigma"),
    "formula in a formula": (r"\fit{", r"\fit{$"),
    "open delimiter": (r"\right)", ")"),
    "double script": ("^{2}", "^{2}^{2}"),
    "missing argument": ("}}{", "}} ^"),
    "environment": (r"\end{enumerate}", r"\end{itemize}"),
    "alignment": (r"\item", r"\item &"),
    "character": ("The ", "Τhe "),
    "package": ("amsmath,", ""),
}


@pytest.mark.parametrize(("old", "new"), BROKEN.values(), ids=BROKEN)
def test_the_reader_of_latex_refuses(old: str, new: str) -> None:
    latex = derive.moments().to_latex()
    check_document(latex)
    assert old in latex
    with pytest.raises(TeXError):
        check_document(latex.replace(old, new, 1))


def test_latex_of_texts_and_wide_formulas() -> None:
    derivation = derive.growth().replace(title="50 % of {x_1} & \\y^2 < #3~$é×√")
    check_document(derivation.to_latex())
    assert r"\begin{aligned}" not in derivation.replace(steps=derivation[1:2], key="").to_latex()
    assert r"\begin{aligned}" in derive.skip().to_latex()
    with pytest.raises(ValueError, match="^text: got 'ж'; takes ASCII, accented Latin letters and"):
        derivation.replace(title="ж").to_latex()


@given(depth=st.integers(0, 9), kernel=st.integers(1, 6), offset=st.integers(-3, 50))
def test_coefficient_is_the_polynomial_power(depth: int, kernel: int, offset: int) -> None:
    power = brute.repeated_convolution((1,) * kernel, depth)
    assert symbolic.coefficient(depth, kernel, offset) == brute.entry(power, offset)
    assert symbolic.coefficients(depth, kernel) == power


def test_coefficients_stay_exact_and_fast_at_depth() -> None:
    symbolic.coefficient(1, 2, 0)
    started = time.perf_counter()
    signal = symbolic.coefficients(64, 3)
    assert time.perf_counter() - started < 0.5
    assert sum(signal) == 3**64 and len(signal) == symbolic.receptive_field(64, 3)


@given(depth=st.integers(1, 8), kernel=st.integers(2, 6))
def test_moments_of_the_signal_are_the_formulas(depth: int, kernel: int) -> None:
    signal = brute.repeated_convolution((1,) * kernel, depth)
    law = [Fraction(value, kernel**depth) for value in signal]
    mean = sum(at * mass for at, mass in enumerate(law))
    second, fourth = (
        sum((at - mean) ** power * mass for at, mass in enumerate(law)) for power in (2, 4)
    )
    assert symbolic.mean(depth, kernel) == mean
    assert symbolic.variance(depth, kernel) == second
    assert symbolic.fourth_cumulant(depth, kernel) == fourth - 3 * second**2
    assert symbolic.excess_kurtosis(depth, kernel) == fourth / second**2 - 3


@settings(max_examples=30)
@given(
    parts=st.lists(st.integers(0, 9), min_size=2, max_size=5).filter(any),
    depth=st.integers(1, 4),
)
def test_cumulant_formulas_hold_for_any_kernel(parts: list[int], depth: int) -> None:
    weights = tuple(Fraction(part, sum(parts)) for part in parts)
    law = brute.repeated_convolution(weights, depth)
    derivation = derive.moments()
    mean = sum(tap * weight for tap, weight in enumerate(weights))
    values = {"n": depth, "k": len(weights), "w": weights, "mu": mean}
    expected = brute.cumulants(law, 4)
    for order, name in enumerate(("mean", "variance", "third cumulant", "fourth cumulant"), 1):
        assert compile_exact(derivation[name].statement.rhs)(values) == expected[order]


def test_limits_and_sizes() -> None:
    assert symbolic.rf_ratio_limit() == 0
    assert float(symbolic.gaussian_size(1)) == pytest.approx(4.97195571)
    assert float(symbolic.gaussian_size(2)) == pytest.approx(4.40628102)
    assert symbolic.gaussian_size(2, Fraction(1, 2)) == sp.sqrt(2 * sp.pi * sp.log(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: symbolic.coefficient(-1, 3, 0), "n: got -1, expected an int of at least 0"),
        (lambda: symbolic.coefficient(2, 0, 0), "k: got 0, expected an int of at least 1"),
        (lambda: symbolic.coefficient(2, 3, 0.5), "t: got 0.5, expected an int"),  # type: ignore
        (lambda: symbolic.variance(True, 3), "n: got True, expected an int of at least 1"),
        (lambda: symbolic.excess_kurtosis(2, 1), "k: got 1, expected an int of at least 2"),
        (lambda: symbolic.gaussian_size(3), "ndim: got 3, expected 1 or 2"),
        (lambda: symbolic.gaussian_size(1, 2), "threshold: got 2, expected a number between"),
        (lambda: derive.topic("magic"), "topic: got 'magic'; takes one of n_fold_convolution"),
        (lambda: derive.growth().replace(steps=()), "steps: got none, expected at least one"),
        (lambda: derive.growth().replace(key="no"), "key: got 'no', expected one of"),
    ],
)
def test_a_bad_argument_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_exact_arithmetic() -> None:
    phase = brute.random_phase(brute.generator())
    assert phase * phase**-1 == 1 and phase**3 * phase**-2 == phase
    assert phase.re**2 + phase.im**2 == 1 and phase != Gaussian(phase.re)
    ratio = compile_exact(sp.Sum(1 / k, (i, 1, n)) - sp.floor(n / k))
    assert ratio({"n": 7, "k": 3}) == Fraction(7, 3) - 2
    for expression in (sp.sqrt(n), sp.pi, sp.Sum(n**i, (i, 0, sp.oo)), sp.Integral(n, n)):
        with pytest.raises(ArithmeticError):
            compile_exact(expression)({"n": 2})


@given(top=st.integers(-6, 8), bottom=st.integers(-3, 8))
def test_binomials_follow_sympy(top: int, bottom: int) -> None:
    value = compile_exact(sp.binomial(n, k))({"n": top, "k": bottom})
    falling = sp.prod(sp.Integer(top - step) for step in range(bottom))
    assert value == (falling / sp.factorial(bottom) if bottom >= 0 else 0)


def test_the_facade_does_not_import_sympy() -> None:
    code = "import sys; from erftheory import derive; assert 'sympy' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
