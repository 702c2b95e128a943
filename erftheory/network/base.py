"""What every network description shares: axes, composition, addressing, display."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

from erftheory.network.arguments import integer
from erftheory.network.graph import Builder, Concat, Graph, Loop, SizeRule

FRAMES = 4  # calls that a part and its wrappers take
LISTED = 12  # names up to which a wrong one is answered with all of them


class Network:
    """An immutable description of a network; a layer is the smallest one.

    Subclasses give `parts` (the networks inside), `own_axes` (axes fixed by their own arguments)
    and `lower` (append their operations to a graph); `states_axes` where an argument fixes axes
    without stating them.
    """

    parts: tuple[Network, ...] = ()

    def own_axes(self) -> int | None:
        return None

    def lower(self, builder: Builder, source: int, scope: str) -> int:
        """Append the operations to `builder`, reading node `source`; return the output node."""
        raise TypeError(f"{type(self).__name__} describes no operation")

    def until(self, endpoint: str) -> Network:
        """The network up to and including the part called `endpoint` ("layer3", "layer3[0]/conv1").

        Raises:
          ValueError: no part has that name; the message lists the names there are, or of many
            those that resemble it.
        """
        if not isinstance(endpoint, str):
            raise ValueError(f"endpoint: got {endpoint!r}; takes a name, see endpoints()")
        found = self.find(endpoint)
        if found is None:
            names = near(endpoint, self.endpoints())
            raise ValueError(f"endpoint: got {endpoint!r}; takes one of: {names}")
        axes = self.axes
        if axes is None or found.axes == axes and (found.stated or not self.stated):
            return found
        return _with_axes(found, axes)

    def find(self, endpoint: str) -> Network | None:
        """Like `until`, but None if there is no such endpoint."""
        return None

    def endpoints(self) -> tuple[str, ...]:
        """The names that `until` takes (parts inside repetitions are addressed with [i])."""
        return tuple(name for part in self.parts for name in part.endpoints())

    @cached_property
    def axes(self) -> int | None:
        """Number of spatial axes that some argument fixes, or None where nothing does."""
        found = self.own_axes()
        for part in self.parts:
            axes = part.axes
            if axes is not None and found is not None and axes != found:
                raise ValueError(
                    f"ndim: got parts of {found} and {axes} spatial axes; takes one number of axes"
                )
            found = axes if found is None else found
        return found

    @property
    def axis_names(self) -> tuple[str, ...]:
        """What the model that this was read from calls its axes ("" for one without a name), or
        nothing."""
        found = self.__dict__.get("_axis_names", ())
        return found or next((names for part in self.parts if (names := part.axis_names)), ())

    def states_axes(self) -> bool:
        """True if an argument of its own states the number of axes; flat taps alone do not."""
        return self.own_axes() is not None

    @cached_property
    def stated(self) -> bool:
        """True if the number of axes is stated by this network or some part."""
        return self.states_axes() or any(part.stated for part in self.parts)

    @property
    def ndim(self) -> int:
        """Number of spatial axes; 2 where no argument says otherwise.

        Raises:
          ValueError: a flat sequence of taps, which has one axis, where nothing else says so.
        """
        if self.axes is not None and not self.stated:
            raise ValueError(
                "taps: got a flat sequence, which is one axis, where nothing else says how many "
                "there are; takes ndim=1 on a Chain around it, or nested taps (2-D: [[...], ...])"
            )
        return self.axes or 2

    @cached_property
    def graph(self) -> Graph:
        """The operations as a directed acyclic graph."""
        builder = Builder(self.ndim)
        with deep(self.depth):
            return builder.finish(self.lower(builder, 0, ""))

    @cached_property
    def depth(self) -> int:
        """How deep parts are nested in parts."""
        return 1 + max((part.depth for part in self.parts), default=0)

    def size_rule(self, ndim: int) -> SizeRule:
        """Output size as (rate, low, high) an axis: rate·n + c with c in [low, high].

        The interval is what rounding in strided layers leaves open. A part's rule is made of those
        of its own parts once, however deep they are nested.
        """
        known = self.__dict__.setdefault("_size_rules", {})
        if ndim not in known:
            known[ndim] = self._size_rule(ndim)
        return known[ndim]

    def _size_rule(self, ndim: int) -> SizeRule:
        builder = Builder(ndim)
        return builder.finish(self.lower(builder, 0, "")).size_rule

    def named(self, name: str) -> Named:
        """The same network under a name that `until` and `summary` use."""
        return Named(self, name)

    def __mul__(self, times: int) -> Repeat:
        return Repeat(self, times)

    __rmul__ = __mul__

    if TYPE_CHECKING:  # attached by erftheory/__init__, since the readings stand on networks

        def summary(self, signal: str = "variance", init: Any = "he", spacing: Any = None) -> Any:
            """One row a layer: receptive field, jump, ERF std (pixels) and their ratio."""

        def _repr_html_(self) -> str: ...


class Composed(Network):
    """A network of parts: immutable from `_freeze` on, equal and hashed by value."""

    def _freeze(self) -> None:
        """Value equality, hash and immutability from the state set so far."""
        derived = ("axes", "depth", "_size_rules", "" if isinstance(self, Chain) else "parts")
        state = {k: v for k, v in vars(self).items() if k not in derived}
        self.depth  # noqa: B018  each level once, while its parts know theirs
        key = type(self), tuple(state.items())
        object.__setattr__(self, "_known_hash", hash(key))  # parts know theirs
        object.__setattr__(self, "_key", key)

    def __setattr__(self, name: str, value: object) -> None:
        if "_key" in vars(self):
            raise AttributeError(f"{type(self).__name__} is immutable: cannot set {name!r}")
        object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) or hash(self) != hash(other):
            return False
        with deep(self.depth):
            return self._key == other._key  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return self._known_hash  # type: ignore[attr-defined]


class Chain(Composed):
    """Parts one after the other. `ndim` fixes the number of spatial axes of all of them."""

    def __init__(self, *parts: Network, ndim: int | None = None):
        if not parts:
            raise ValueError("parts: got none; a Chain takes at least one layer or network")
        self.parts = tuple(check_network(f"parts[{i}]", p) for i, p in enumerate(parts))
        self._ndim = check_ndim(ndim)
        self.axes  # noqa: B018  mixed numbers of axes are an error of construction
        self._freeze()

    def own_axes(self) -> int | None:
        return self._ndim

    def lower(self, builder: Builder, source: int, scope: str) -> int:
        for part in self.parts:
            source = part.lower(builder, source, scope)
        return source

    def _size_rule(self, ndim: int) -> SizeRule:
        rule = same_size(ndim)
        for part in self.parts:
            rule = _after(rule, part.size_rule(ndim))
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


class Repeat(Composed):
    """A part n times in a row, written `part * n`: the repetition is stored, not n copies."""

    def __init__(self, part: Network, times: int):
        self.part = check_network("part", part)
        self.times = integer("times", times)
        self.parts = (part,)
        self._freeze()

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


class Named(Composed):
    """A network under a name; inner names are addressed as "outer/inner" or alone."""

    def __init__(self, part: Network, name: str):
        self.part = check_network("part", part)
        if not isinstance(name, str) or not re.fullmatch(r"[\w.\-]+", name):
            raise ValueError(f"name: got {name!r}; takes letters, digits, '_', '-' and '.'")
        self.name = name
        self.parts = (part,)
        self._freeze()

    def lower(self, builder: Builder, source: int, scope: str) -> int:
        return self.part.lower(builder, source, scoped(scope, self.name))

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


def scoped(scope: str, name: str) -> str:
    return f"{scope}/{name}" if scope else name


def _after(rule: SizeRule, more: SizeRule) -> SizeRule:
    """One size rule after another."""
    return tuple(
        (r * f, lo * f + a, hi * f + b) for (r, lo, hi), (f, a, b) in zip(rule, more)
    )


def same_size(ndim: int) -> SizeRule:
    return ((Fraction(1), Fraction(0), Fraction(0)),) * ndim


def near(endpoint: str, names: tuple[str, ...]) -> str:
    """The names there are; of many, those that resemble the endpoint, first and last otherwise."""
    if len(names) <= LISTED:
        return ", ".join(names) or "none"
    near = difflib.get_close_matches(endpoint, names, LISTED // 2, 0.5)
    shown = [*near, "…"] if near else [*names[: LISTED // 2], "…", *names[-2:]]
    return f"{', '.join(shown)} ({len(names)} in all, see endpoints())"


@contextmanager
def deep(depth: int) -> Iterator[None]:
    """Room for recursion into so many nested parts, given back afterwards."""
    before = sys.getrecursionlimit()
    if FRAMES * depth > before // 2:
        sys.setrecursionlimit(before + FRAMES * depth)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _with_axes(network: Network, axes: int) -> Network:
    return Chain(network, ndim=axes)


def check_network(name: str, value: object) -> Network:
    if not isinstance(value, Network):
        raise ValueError(f"{name}: got {value!r}; takes a layer or a network")
    return value


def check_ndim(value: object) -> int | None:
    if value is None:
        return None
    axes = integer("ndim", value)
    if axes > 3:
        raise ValueError(f"ndim: got {axes}; takes 1, 2 or 3")
    return axes
