"""Composition: chains, repetitions, residual blocks, parallel branches, names."""

from __future__ import annotations

import re
from fractions import Fraction

from erftheory.network import arguments as arg
from erftheory.network.base import Network, SizeRule, check_ndim, check_network, deep
from erftheory.network.graph import Builder, Concat, Loop, Sum


class Chain(Network):
    """Parts one after the other. `ndim` fixes the number of spatial axes of all of them."""

    def __init__(self, *parts: Network, ndim: int | None = None):
        if not parts:
            raise ValueError("parts: got none; a Chain takes at least one layer or network")
        self.parts = tuple(check_network(f"parts[{i}]", p) for i, p in enumerate(parts))
        self._ndim = check_ndim(ndim)
        self.axes  # noqa: B018  mixed numbers of axes are an error of construction
        _freeze(self)

    def own_axes(self) -> int | None:
        return self._ndim

    def lower(self, builder: Builder, source: int, scope: str) -> int:
        for part in self.parts:
            source = part.lower(builder, source, scope)
        return source

    def _size_rule(self, ndim: int) -> SizeRule:
        rule = _identity(ndim)
        for part in self.parts:
            rule = _after_rule(rule, part.size_rule(ndim))
        return rule

    def find(self, endpoint: str) -> Network | None:
        for i, part in enumerate(self.parts):
            if i and endpoint.startswith("["):
                break  # "[0]" counts from the start: a repetition behind other parts needs a name
            found = part.find(endpoint)
            if found is not None:
                return Chain(*self.parts[:i], found, ndim=self._ndim)
        return None

    def endpoints(self) -> tuple[str, ...]:
        names = ((i, name) for i, part in enumerate(self.parts) for name in part.endpoints())
        return tuple(name for i, name in names if not (i and name.startswith("[")))

    def __repr__(self) -> str:
        extra = [] if self._ndim is None else [f"ndim={self._ndim}"]
        return f"Chain({', '.join([*map(repr, self.parts), *extra])})"


class Repeat(Network):
    """A part n times in a row, written `part * n`: the repetition is stored, not n copies."""

    def __init__(self, part: Network, times: int):
        self.part = check_network("part", part)
        self.times = arg.integer("times", times)
        self.parts = (part,)
        _freeze(self)

    def lower(self, builder: Builder, source: int, scope: str) -> int:
        if self.times == 1:
            return self.part.lower(builder, source, scope)
        inner = Builder(builder.ndim)
        graph = inner.finish(self.part.lower(inner, 0, ""))
        if graph.resamples or any(isinstance(node.op, Concat) for node in graph.nodes):
            # grids or channel groups change from one iteration to the next: no loop
            for i in range(self.times):
                source = self.part.lower(builder, source, f"{scope}[{i}]")
            return source
        return builder.add(Loop(graph, self.times), (source,), scope)

    def find(self, endpoint: str) -> Network | None:
        match = re.fullmatch(r"\[(\d+)\](?:/(.+))?", endpoint)
        if match is None or int(match[1]) >= self.times:
            return None
        index, rest = int(match[1]), match[2]
        if rest is None:
            return self.part * (index + 1)
        found = self.part.find(rest)
        return found if found is None or index == 0 else Chain(self.part * index, found)

    def endpoints(self) -> tuple[str, ...]:
        return ("[0]",) if self.times == 1 else (f"[0] … [{self.times - 1}]",)

    def __repr__(self) -> str:
        return f"{self.part!r} * {self.times}"


class Residual(Network):
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
        _freeze(self)
        _check_alike(self.parts, ("branch", "shortcut"), identity=shortcut is None)

    def lower(self, builder: Builder, source: int, scope: str) -> int:
        branch = self.branch.lower(builder, source, _join(scope, "branch"))
        other = source
        if self.shortcut is not None:
            other = self.shortcut.lower(builder, source, _join(scope, "shortcut"))
        return builder.add(Sum(self.gain, source), (branch, other), scope)

    def _size_rule(self, ndim: int) -> SizeRule:
        other = _identity(ndim) if self.shortcut is None else self.shortcut.size_rule(ndim)
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


class Branches(Network):
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
        _freeze(self)
        names = [f"branches[{i}]" for i, b in enumerate(self.branches) if b is not None]
        _check_alike(self.parts, names, identity=None in self.branches)

    def lower(self, builder: Builder, source: int, scope: str) -> int:
        ends = tuple(
            source if b is None else b.lower(builder, source, _join(scope, f"branch{i}"))
            for i, b in enumerate(self.branches)
        )
        return builder.add(Concat() if self.merge == "concat" else Sum(None, source), ends, scope)

    def _size_rule(self, ndim: int) -> SizeRule:
        rules = [_identity(ndim) if b is None else b.size_rule(ndim) for b in self.branches]
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


class Named(Network):
    """A network under a name; inner names are addressed as "outer/inner" or alone."""

    def __init__(self, part: Network, name: str):
        self.part = check_network("part", part)
        if not isinstance(name, str) or not re.fullmatch(r"[\w.\-]+", name):
            raise ValueError(f"name: got {name!r}; takes letters, digits, '_', '-' and '.'")
        self.name = name
        self.parts = (part,)
        _freeze(self)

    def lower(self, builder: Builder, source: int, scope: str) -> int:
        return self.part.lower(builder, source, _join(scope, self.name))

    def _size_rule(self, ndim: int) -> SizeRule:
        return self.part.size_rule(ndim)

    def find(self, endpoint: str) -> Network | None:
        if endpoint == self.name:
            return self
        for prefix in (self.name + "/", self.name):
            if endpoint.startswith(prefix) and (prefix[-1] == "/" or endpoint[len(prefix)] == "["):
                return self.part.find(endpoint[len(prefix) :])
        return self.part.find(endpoint)

    def endpoints(self) -> tuple[str, ...]:
        inner = (self.name + ("" if n[0] == "[" else "/") + n for n in self.part.endpoints())
        return (self.name, *inner)

    def __repr__(self) -> str:
        return f"{self.part!r}.named({self.name!r})"


def _join(scope: str, name: str) -> str:
    return f"{scope}/{name}" if scope else name


def _freeze(network: Network) -> None:
    """Value equality, hash and immutability from the state set so far."""
    derived = ("axes", "depth", "_size_rules", "" if isinstance(network, Chain) else "parts")
    state = {k: v for k, v in vars(network).items() if k not in derived}
    network.depth  # noqa: B018  each level once, while its parts know theirs
    key = type(network), tuple(state.items())
    object.__setattr__(network, "_known_hash", hash(key))  # parts know theirs
    object.__setattr__(network, "_key", key)


def _setattr(self: Network, name: str, value: object) -> None:
    if "_key" in vars(self):
        raise AttributeError(f"{type(self).__name__} is immutable: cannot set {name!r}")
    object.__setattr__(self, name, value)


def _equal(self: Network, other: object) -> bool:
    if type(self) is not type(other) or hash(self) != hash(other):
        return False
    with deep(self.depth):
        return self._key == other._key  # type: ignore[attr-defined]


def _hash(self: Network) -> int:
    return self._known_hash  # type: ignore[attr-defined]


for _class in (Chain, Repeat, Residual, Branches, Named):
    _class.__setattr__ = _setattr  # type: ignore[method-assign]
    _class.__eq__ = _equal  # type: ignore[method-assign]
    _class.__hash__ = _hash  # type: ignore[method-assign]


def _check_alike(parts: tuple[Network, ...], names, identity: bool) -> None:
    """Branches that meet must agree in stride and, for some input size, in output size."""
    ndim = max((p.axes or 0 for p in parts), default=0) or 2
    rows = [(name, part.size_rule(ndim)) for name, part in zip(names, parts)]
    if identity:
        rows.append(("the identity", _identity(ndim)))
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


def _after_rule(rule: SizeRule, more: SizeRule) -> SizeRule:
    """One size rule after another."""
    return tuple(
        (r * f, lo * f + a, hi * f + b) for (r, lo, hi), (f, a, b) in zip(rule, more)
    )


def _identity(ndim: int) -> SizeRule:
    return ((Fraction(1), Fraction(0), Fraction(0)),) * ndim


def _met(rules: list[SizeRule]) -> SizeRule:
    return tuple((r[0][0], max(x[1] for x in r), min(x[2] for x in r)) for r in zip(*rules))
