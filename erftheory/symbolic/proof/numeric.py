"""Formulas as functions of arrays, so that what computes is what was derived."""

from __future__ import annotations

import builtins
import dis
from collections.abc import Callable
from functools import cache
from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef

MODULES = ("jax", "numpy")
_UNFIT = (
    AppliedUndef, sp.Indexed, sp.Sum, sp.Product, sp.Integral, sp.Limit, sp.Derivative,
    sp.Subs,
)  # fmt: skip


@cache
def compiled(step: str, expression: Any, modules: str) -> Callable[..., Any]:
    """`expression` as a function of its symbols by name; see `ProofStep.lambdify`."""
    if modules not in MODULES:
        raise ValueError(f"modules: got {modules!r}; takes one of {', '.join(MODULES)}")
    closed = expression.doit().removeO()
    unfit = sorted({type(part).__name__ for part in closed.atoms(*_UNFIT)})
    if unfit:
        raise ValueError(
            f"step: got {step!r}, whose right side holds {', '.join(unfit)}; takes one whose "
            "right side is a closed form of numbers"
        )
    names = sorted(symbol.name for symbol in closed.free_symbols)
    symbols = sorted(closed.free_symbols, key=lambda symbol: symbol.name)
    function = sp.lambdify(symbols, closed, modules=_namespace(modules))
    # what SymPy cannot translate it prints as a name, known to nobody or to scalars alone
    loaded = {op.argval for op in dis.get_instructions(function) if op.opname == "LOAD_GLOBAL"}
    lacking = sorted(n for n in loaded if _scalar(n, function.__globals__.get(n)))
    if lacking:
        raise ValueError(
            f"modules: got {modules!r}, which lacks {', '.join(lacking)} of step {step!r}; takes "
            "another of jax, numpy"
        )

    def evaluate(**values: Any) -> Any:
        if sorted(values) != names:
            got = ", ".join(sorted(values)) or "none"
            raise ValueError(f"arguments: got {got}; takes {', '.join(names) or 'none'}")
        return function(*(values[name] for name in names))

    return evaluate


def _namespace(modules: str) -> Any:
    if modules == "numpy":
        return ["numpy", "scipy"]
    from jax.scipy import special

    # jax.numpy has no special functions, and SymPy would take those of scalars
    names = {"lgamma": "gammaln", "gamma": "gamma", "erf": "erf", "erfc": "erfc"}
    names["polygamma"] = "polygamma"
    return [{name: getattr(special, ours) for name, ours in names.items()}, "jax"]


def _scalar(name: str, known: Any) -> bool:
    if known is None:
        return not hasattr(builtins, name)
    return getattr(known, "__module__", "") in ("math", "mpmath")
