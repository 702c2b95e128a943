"""False neighbours of true equations: one small mistake each, for the checks of derivations.

A mistake may leave an equation true: a sum moved over zeros, a constant that a limit forgets.
`true_as_well` finds that out by itself, with random signals and with numbers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import mpmath
import sympy as sp
from sympy.core.function import AppliedUndef

from erftheory.symbolic.proof.exact import compile_exact
from erftheory.symbolic.proof.names import equation

# The signals of the derivations by name: o(n, t), with the layers first, is 0 beyond the field
# 0 … n(k−1) of n layers, and the weight h(m) beyond the taps 0 … k−1; some end elsewhere, and
# others have no end.
FIELDS, TAPS = set("opCS"), set("wfhvRQ") | {"rho", "V"}
ENDS = {
    "B": lambda values: 2 * (values["k"] - 1),  # behind two layers
    "D": lambda values: values["d"] * (values["k"] - 1),
    "G": lambda values: values["M"],
    "F": lambda values: values["s"] * values["M"] + values["k"] - 1,
}
FAR, VERY_FAR = 40, 100_000  # powers of ten; the latter for logarithms


def sides(statement: sp.Eq) -> Any:
    """The left and the right side."""
    return statement.args


def wrong(statement: sp.Eq) -> Iterator[tuple[str, sp.Eq]]:
    """Neighbours of a true equation: signs, one added, indices, constants and exponents."""
    left, right = sides(statement)
    if not right.is_zero:
        yield "sign of the right side", equation(left, -right)
        yield "sign of the left side", equation(-left, right)
    yield "right side plus one", equation(left, right + 1)
    yield "left side plus one", equation(left + 1, right)
    for name in sorted(statement.free_symbols, key=str):
        if name.is_integer:
            # where only one side has the name, the neighbour is the statement itself for name + 1
            other_left, other_right = (side.subs(name, name + 1) for side in (left, right))
            if other_right != right and other_left != left:
                yield f"{name} to {name} + 1 on the right", equation(left, other_right)
                yield f"{name} to {name} + 1 on the left", equation(other_left, right)
    for label, changed in _variants(right):
        yield f"right: {label}", equation(left, changed)
    for label, changed in _variants(left):
        yield f"left: {label}", equation(changed, right)


def _variants(side: Any) -> Iterator[tuple[str, Any]]:
    if side.is_Rational:
        yield f"{side} to {side + 1}", side + 1
    elif side.is_Pow:
        yield f"exponent {side.exp} plus one", side.base ** (side.exp + 1)
    for place, part in enumerate(side.args):
        if isinstance(side, sp.Order) and place > 0:
            continue  # in O(h^r, h → 0) the point is a word of the notation
        for label, changed in _variants(part):
            yield label, side.func(*side.args[:place], changed, *side.args[place + 1 :])


def true_as_well(statement: sp.Eq, changed: sp.Eq) -> bool:
    """Whether a neighbour of a true statement is true, as far as one of two ways can tell."""
    named = statement.has(AppliedUndef, sp.Indexed)
    return same_for_all_signals(statement, changed) if named else true_as_numbers(changed)


def same_for_all_signals(one: sp.Eq, other: sp.Eq) -> bool:
    """Whether the sides agree in value for random signals that end where signals end."""
    for seed in range(4):
        for a, b in zip(sides(one), sides(other)):
            try:
                # only the side that was changed is compared: the other may have no exact value
                if a != b and _value(a, seed) != _value(b, seed):
                    return False
            except ArithmeticError:
                return False
    return True


class _Taps:
    """Random weights on 0 … k−1 and 0 beyond."""

    def __init__(self, name: str, seed: int, taps: int):
        self.name, self.seed, self.taps = name, seed, taps

    def __getitem__(self, at: int) -> Fraction:
        return _random(self.name, self.seed, at) if 0 <= at < self.taps else Fraction(0)


def _value(side: Any, seed: int) -> Any:
    source = random.Random(seed)
    values: dict[str, Any] = {str(name): source.randint(2, 4) for name in _integers(side)}
    values |= {str(x): _random(str(x), seed) for x in side.free_symbols if not x.is_integer}
    taps = values.setdefault("k", 3)
    for base in side.atoms(sp.IndexedBase):
        values[str(base)] = _Taps(str(base), seed, taps)
    for function in {f.func.__name__ for f in side.atoms(AppliedUndef)}:
        values[function] = _signal(function, seed, values)
    values["exponential"] = _signal("exponential", seed, values)  # any function would do for it
    return compile_exact(side.replace(sp.exp, sp.Function("exponential")))(values)


def _integers(side: Any) -> list[Any]:
    return sorted((x for x in side.free_symbols if x.is_integer), key=str)


def _signal(name: str, seed: int, values: dict[str, Any]) -> Any:
    def signal(*at: int) -> Fraction:
        layers, places = (at[0], at[1:]) if name in FIELDS and len(at) > 1 else (1, at[-1:])
        last = layers * (values["k"] - 1)
        if name == "H":  # a square kernel
            places = at
        if name in ENDS and len(at) == 1:
            last = ENDS[name](values)
        bounded = name == "H" or name in FIELDS | TAPS | set(ENDS)
        inside = not bounded or all(0 <= place <= last for place in places)
        return _random(name, seed, *at) if inside else Fraction(0)

    return signal


def _random(name: str, *key: int) -> Fraction:
    source = random.Random(f"{name}{key}")
    return Fraction(source.randint(1, 99), source.randint(100, 199))


def true_as_numbers(statement: sp.Eq) -> bool:
    """Whether both sides agree at random numbers, with limits as values far out."""
    names = sorted(statement.free_symbols, key=str)
    ends = [FAR, VERY_FAR] if statement.has(sp.log, sp.digamma) else [FAR]
    return any(all(_agree(statement, names, seed, far) for seed in range(2)) for far in ends)


def _agree(statement: sp.Eq, names: list[Any], seed: int, far: Any) -> bool:
    source = random.Random(seed)
    values = {
        name: source.randint(3, 7) if name.is_integer else sp.Rational(source.randint(3, 9), 10)
        for name in names
    }
    end = sp.Symbol("end", positive=True)

    def at_the_end(function: Any, variable: Any, target: Any, *_: Any) -> Any:
        return function.subs(variable, end if target is sp.oo else target + 1 / end)

    try:
        with mpmath.workdps(300):
            left, right = (
                sp.lambdify(end, side.subs(values).replace(sp.Limit, at_the_end).doit(), "mpmath")(
                    mpmath.mpf(10) ** far
                )
                for side in sides(statement)
            )
            return bool(abs(left - right) < 1e-4 * (1 + abs(right)))
    except (TypeError, ValueError, ArithmeticError, NameError, NotImplementedError):
        return False
