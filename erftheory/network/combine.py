"""Composition: chains, repetitions, residual blocks, parallel branches, names."""

from __future__ import annotations

from fractions import Fraction

from erftheory.network import arguments as arg
from erftheory.network.base import Composed, Network, check_network, same_size, scoped
from erftheory.network.graph import Builder, Concat, SizeRule, Sum


class Residual(Composed):
    """y = x + f(x): `branch` plus a shortcut, the identity if None.

    Args:
      gain: power ratio of branch to shortcut (α of De & Smith 2020): the branch carries `gain`
        times the shortcut's mass in the variance signal, √gain in the gradient signal. None is
        plain x + f(x) with the ratio that the initialisation gives.

    Raises:
      ValueError: strides or sizes of branch and shortcut differ, or gain is not positive.
    """

    def __init__(
        self, branch: Network, shortcut: Network | None = None, gain: float | Fraction | None = None
    ):
        self.branch = check_network("branch", branch)
        self.shortcut = None if shortcut is None else check_network("shortcut", shortcut)
        if gain is not None and not arg.number("gain", gain) > 0:
            raise ValueError(f"gain: got {gain}; takes a number > 0")
        self.gain = gain
        self.parts = (branch,) if shortcut is None else (branch, shortcut)
        self.axes  # noqa: B018
        self._freeze()
        _check_alike(self.parts, ("branch", "shortcut"), identity=shortcut is None)

    def lower(self, builder: Builder, source: int, scope: str) -> int:
        branch = self.branch.lower(builder, source, scoped(scope, "branch"))
        other = source
        if self.shortcut is not None:
            other = self.shortcut.lower(builder, source, scoped(scope, "shortcut"))
        return builder.add(Sum(self.gain, source), (branch, other), scope)

    def _size_rule(self, ndim: int) -> SizeRule:
        other = same_size(ndim) if self.shortcut is None else self.shortcut.size_rule(ndim)
        return _met([self.branch.size_rule(ndim), other])

    def find(self, endpoint: str) -> Network | None:
        for part in self.parts:
            found = part.find(endpoint)
            if found is not None:
                return found
        return None

    def __repr__(self) -> str:
        extra = [] if self.shortcut is None else [f"shortcut={self.shortcut!r}"]
        extra += [] if self.gain is None else [f"gain={self.gain!r}"]
        return f"Residual({', '.join([repr(self.branch), *extra])})"


class Branches(Composed):
    """Parallel branches on one input, joined by channels (`merge="concat"`) or added ("sum").

    `None` as a branch is the identity.

    Raises:
      ValueError: no branch, an unknown merge, or strides or sizes that differ.
    """

    def __init__(self, *branches: Network | None, merge: str = "concat"):
        if not branches:
            raise ValueError("branches: got none; Branches takes at least one")
        self.branches = tuple(
            None if b is None else check_network(f"branches[{i}]", b)
            for i, b in enumerate(branches)
        )
        self.merge = arg.one_of("merge", merge, ("concat", "sum"))
        self.parts = tuple(b for b in self.branches if b is not None)
        self.axes  # noqa: B018
        self._freeze()
        names = [f"branches[{i}]" for i, b in enumerate(self.branches) if b is not None]
        _check_alike(self.parts, names, identity=None in self.branches)

    def lower(self, builder: Builder, source: int, scope: str) -> int:
        ends = tuple(
            source if b is None else b.lower(builder, source, scoped(scope, f"branch{i}"))
            for i, b in enumerate(self.branches)
        )
        return builder.add(Concat() if self.merge == "concat" else Sum(None, source), ends, scope)

    def _size_rule(self, ndim: int) -> SizeRule:
        rules = [same_size(ndim) if b is None else b.size_rule(ndim) for b in self.branches]
        return _met(rules)

    def find(self, endpoint: str) -> Network | None:
        for part in self.parts:
            found = part.find(endpoint)
            if found is not None:
                return found
        return None

    def __repr__(self) -> str:
        extra = [] if self.merge == "concat" else [f"merge={self.merge!r}"]
        return f"Branches({', '.join([*map(repr, self.branches), *extra])})"


def _check_alike(parts: tuple[Network, ...], names, identity: bool) -> None:
    """Branches that meet must agree in stride and, for some input size, in output size."""
    ndim = max((p.axes or 0 for p in parts), default=0) or 2
    rows = [(name, part.size_rule(ndim)) for name, part in zip(names, parts)]
    if identity:
        rows.append(("the identity", same_size(ndim)))
    for axis in range(ndim):
        name0, rule0 = rows[0]
        rate0, low, high = rule0[axis]
        for name, rule in rows[1:]:
            rate, lo, hi = rule[axis]
            if rate != rate0:
                raise ValueError(
                    f"{name0}: got stride {1 / rate0} beside {1 / rate} of {name} on axis {axis}; "
                    "takes branches of equal stride"
                )
            low, high = max(low, lo), min(high, hi)
            if low > high:
                raise ValueError(
                    f"{name0}: got an output of another size than {name} on axis {axis}; "
                    "takes branches whose outputs have one shape (check the padding)"
                )


def _met(rules: list[SizeRule]) -> SizeRule:
    return tuple((r[0][0], max(x[1] for x in r), min(x[2] for x in r)) for r in zip(*rules))
