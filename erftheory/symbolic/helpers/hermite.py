"""Hermite's polynomials and the terms of Edgeworth's expansion to the order 1/n²."""

from __future__ import annotations

from typing import Any

import sympy as sp

from erftheory.symbolic.proof.names import s, x

RHO: dict[int, Any] = {r: sp.Symbol(f"rho_{r}", real=True) for r in (3, 4, 5, 6)}
NORMAL: Any = sp.exp(-(x**2) / 2) / sp.sqrt(2 * sp.pi)  # the density
SMALL: Any = sp.Symbol("epsilon", positive=True)  # 1/√n


class He(sp.Function):
    """Hermite's polynomial He_r(x) of the probabilists, by name; `doit()` writes it out."""

    nargs = 2

    def doit(self, **hints: Any) -> Any:
        parts: Any = [part.doit(**hints) for part in self.args]
        order, argument = parts
        if not (order.is_Integer and order.is_nonnegative):
            return self.func(order, argument)
        low, high = sp.Integer(0), sp.Integer(1)
        for place in range(int(order)):
            low, high = high, sp.expand(argument * high - place * low)
        return high

    def _latex(self, printer: Any, exp: Any = None) -> str:
        order, argument = (printer._print(part) for part in self.args)
        name = f"He_{{{order}}}" + (f"^{{{exp}}}" if exp else "")
        return f"{name}({argument})"


def frequencies() -> tuple[Any, ...]:
    """The factors of ε⁰ … ε⁴ in the transform, over exp(−s²/2)."""
    u, (a, b, c, d) = sp.I * s, RHO.values()
    return (
        sp.Integer(1),
        a * u**3 / 6,
        b * u**4 / 24 + a**2 * u**6 / 72,
        c * u**5 / 120 + a * b * u**7 / 144 + a**3 * u**9 / 1296,
        d * u**6 / 720
        + (b**2 / 1152 + a * c / 720) * u**8
        + a**2 * b * u**10 / 1728
        + a**4 * u**12 / 31104,
    )


def corrections() -> tuple[Any, ...]:
    """The factors of ε to ε⁴ in the density, over the normal one: functions of x and RHO."""
    a, b, c, d = RHO.values()
    return (
        a * He(3, x) / 6,
        b * He(4, x) / 24 + a**2 * He(6, x) / 72,
        c * He(5, x) / 120 + a * b * He(7, x) / 144 + a**3 * He(9, x) / 1296,
        d * He(6, x) / 720
        + (b**2 / 1152 + a * c / 720) * He(8, x)
        + a**2 * b * He(10, x) / 1728
        + a**4 * He(12, x) / 31104,
    )


def over_all_frequencies(side: Any) -> Any:
    """Integrals over the real line of a polynomial times exp(−s²/2 − jsx), moved to s = y − jx.

    Without x in the integrand it is taken for 0.
    The move is allowed for an entire function that dies out along the strip. It leaves moments
    of the normal law: 1·3·5·…·(r − 1) for an even order r, 0 for an odd one.
    """
    moved = sp.Symbol("y", real=True)

    def integrate(integrand: Any, limits: Any) -> Any:
        if tuple(limits) != (s, -sp.oo, sp.oo):
            raise ArithmeticError(f"not the real line: {limits}")
        place = x if integrand.has(x) else sp.Integer(0)
        polynomial = sp.powsimp(sp.expand(integrand * sp.exp(s**2 / 2 + sp.I * s * place)))
        shifted = sp.Poly(sp.expand(sp.expand(polynomial).subs(s, moved - sp.I * place)), moved)
        moments = (
            factor * sp.factorial2(power - 1)
            for (power,), factor in shifted.terms()
            if power % 2 == 0
        )
        return sp.sqrt(2 * sp.pi) * sp.exp(-(place**2) / 2) * sum(moments)

    return side.replace(sp.Integral, integrate).doit()
