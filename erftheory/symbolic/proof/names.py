"""The symbols that every derivation shares; the same letter means the same thing everywhere."""

from __future__ import annotations

from typing import Any

import sympy as sp

n: Any = sp.Symbol("n", positive=True, integer=True)  # layers
k: Any = sp.Symbol("k", positive=True, integer=True)  # taps of one layer's kernel
t: Any = sp.Symbol("t", integer=True)  # input offset
m: Any = sp.Symbol("m", integer=True)  # tap of one kernel
i: Any = sp.Symbol("i", integer=True)  # summation index
j: Any = sp.Symbol("j", integer=True)  # summation index
r: Any = sp.Symbol("r", positive=True, integer=True)  # order of a cumulant
z: Any = sp.Symbol("z")  # marks the offset in a generating function
h: Any = sp.Symbol("h", real=True)  # argument of a moment generating function
omega: Any = sp.Symbol("omega", real=True)  # frequency of a signal
theta: Any = sp.Symbol("theta", real=True)  # frequency of one step of the walk
s: Any = sp.Symbol("s", real=True)  # frequency of the standardised sum
x: Any = sp.Symbol("x", real=True)  # offset in standard deviations
sigma: Any = sp.Symbol("sigma", positive=True)  # standard deviation
tau: Any = sp.Symbol("tau", positive=True)  # threshold relative to the centre value
w: Any = sp.IndexedBase("w")  # normalised kernel, w[0] + … + w[k−1] = 1
o: Any = sp.Function("o")  # o(n, t): the signal after n layers of a uniform kernel
u: Any = sp.Function("u")  # u(t): the impulse at the output unit
v: Any = sp.Function("v")  # v(t): the uniform kernel
p: Any = sp.Function("p")  # p(n, t): the law of the sum of n steps
kappa: Any = sp.Function("kappa")  # kappa(r, n): cumulants of that sum


def equation(left: Any, right: Any) -> sp.Eq:
    """left = right as a statement, which SymPy neither decides nor rearranges."""
    statement: Any = sp.Eq(sp.sympify(left), sp.sympify(right), evaluate=False)
    return statement


def total(term: Any, limits: tuple[Any, Any, Any]) -> Any:
    """The unevaluated sum of `term` over (index, first, last)."""
    return sp.Sum(term, limits)
