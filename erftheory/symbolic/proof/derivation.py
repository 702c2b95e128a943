"""A derivation: ordered steps, each a formula with a reason and a check that is really run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import sympy as sp

from erftheory.symbolic.proof import numeric, render
from erftheory.symbolic.proof.evidence import Check, CheckResult, Kind


@dataclass(frozen=True)
class ProofStep:
    """One formula of a derivation.

    Attributes:
        name: short identifier, unique in its derivation.
        title: what the step says, in words.
        statement: the formula, an unevaluated SymPy equation.
        reason: why it follows, one sentence.
        verify: decides the statement it is given; knows the meaning of its names only.
    """

    name: str
    title: str
    statement: sp.Eq
    reason: str
    verify: Check = dataclasses.field(repr=False)

    @property
    def kind(self) -> Kind:
        """The kind of evidence that the check gives."""
        return self.verify.kind

    def check(self) -> CheckResult:
        """Run the check on the statement that this step carries."""
        try:
            return self.verify(self.statement)
        except Exception as error:
            # a statement without a value (a pole, a fractional index) is not established either
            message = f"cannot be evaluated: {type(error).__name__}: {error}"
            return CheckResult(False, self.kind, message)

    def replace(self, **changes: Any) -> ProofStep:
        """A copy with some fields changed, checked by the same check unless that is changed."""
        return dataclasses.replace(self, **changes)

    def to_latex(self) -> str:
        """The formula in LaTeX, without delimiters."""
        return render.latex(self.statement)

    def lambdify(self, modules: str = "jax") -> Callable[..., Any]:
        """The right side of the formula, without O(…) terms, as a function of arrays.

        Args:
            modules: "jax" for a function that JAX can trace, in the precision of its arguments,
                or "numpy" (with SciPy's special functions).

        Returns:
            A function that takes one keyword argument a symbol, by the symbol's name, all of
            shapes that broadcast, and gives their common shape; a formula without symbols gives
            a number. It raises a `ValueError` for other names.

        Raises:
            ValueError: other modules, or a right side without a value at numbers: a named kernel
                or signal, a sum to a symbolic end, a function that `modules` lacks.
        """
        return numeric.compiled(self.name, self.statement.rhs, modules)

    def __str__(self) -> str:
        return render.step_text(self)

    def _repr_markdown_(self) -> str:
        return render.step_markdown(self)


@dataclass(frozen=True)
class Report:
    """The results of all checks of a derivation; true if every one holds."""

    title: str
    entries: tuple[tuple[ProofStep, CheckResult], ...]

    @property
    def failures(self) -> tuple[tuple[ProofStep, CheckResult], ...]:
        """The steps whose check failed, with the result that says where."""
        return tuple(entry for entry in self.entries if not entry[1])

    def __bool__(self) -> bool:
        return bool(self.entries) and not self.failures

    def __len__(self) -> int:
        return len(self.entries)

    def __str__(self) -> str:
        return render.report_text(self)

    def _repr_markdown_(self) -> str:
        return render.report_markdown(self)


@dataclass(frozen=True)
class Derivation:
    """An ordered chain of checked steps.

    Attributes:
        title: what is derived.
        source: paper and section.
        steps: the steps in order.
        key: name of the step that holds the main formula; the last step if empty.
    """

    title: str
    source: str
    steps: tuple[ProofStep, ...]
    key: str = ""

    def __post_init__(self) -> None:
        names = [step.name for step in self.steps]
        if not names:
            raise ValueError("steps: got none, expected at least one ProofStep")
        if len(set(names)) < len(names):
            raise ValueError(f"steps: names must differ, got {names}")
        if self.key and self.key not in names:
            raise ValueError(f"key: got {self.key!r}, expected one of {names}")

    @property
    def result(self) -> sp.Eq:
        """The main formula."""
        return self[self.key].statement if self.key else self.steps[-1].statement

    def check(self) -> Report:
        """Run the check of every step; the report is kept and shown from then on."""
        return self._report

    @property
    def report(self) -> Report | None:
        """The report of the check, None before it was run."""
        return self.__dict__.get("_report")

    @cached_property
    def _report(self) -> Report:
        return Report(self.title, tuple((step, step.check()) for step in self.steps))

    def replace(self, **changes: Any) -> Derivation:
        """A copy with some fields changed and not yet checked."""
        return dataclasses.replace(self, **changes)

    def lambdify(self, modules: str = "jax") -> Callable[..., Any]:
        """The right side of the main formula as a function of arrays; see `ProofStep.lambdify`."""
        return (self[self.key] if self.key else self.steps[-1]).lambdify(modules)

    def to_latex(self) -> str:
        """A LaTeX document that compiles on its own."""
        return render.derivation_latex(self)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[ProofStep]:
        return iter(self.steps)

    @overload
    def __getitem__(self, which: int | str) -> ProofStep: ...

    @overload
    def __getitem__(self, which: slice) -> tuple[ProofStep, ...]: ...

    def __getitem__(self, which: int | str | slice) -> ProofStep | tuple[ProofStep, ...]:
        if not isinstance(which, str):
            return self.steps[which]
        for step in self.steps:
            if step.name == which:
                return step
        raise KeyError(f"no step {which!r}; there are {[step.name for step in self.steps]}")

    def __str__(self) -> str:
        return render.derivation_text(self)

    def _repr_markdown_(self) -> str:
        return render.derivation_markdown(self)
