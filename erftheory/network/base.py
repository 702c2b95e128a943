"""What every network description shares: axes, composition, addressing, display."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

from erftheory.network.arguments import integer

if TYPE_CHECKING:
    from erftheory.network.combine import Named, Repeat
    from erftheory.network.graph import Builder, Graph

SizeRule = tuple[tuple[Fraction, Fraction, Fraction], ...]
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
        from erftheory.network.graph import Builder

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
        from erftheory.network.graph import Builder

        builder = Builder(ndim)
        return builder.finish(self.lower(builder, 0, "")).size_rule

    def named(self, name: str) -> Named:
        """The same network under a name that `until` and `summary` use."""
        from erftheory.network.combine import Named

        return Named(self, name)

    def __mul__(self, times: int) -> Repeat:
        from erftheory.network.combine import Repeat

        return Repeat(self, times)

    __rmul__ = __mul__

    if TYPE_CHECKING:  # attached by erftheory/__init__, since the readings stand on networks

        def summary(self, signal: str = "variance", init: Any = "he", spacing: Any = None) -> Any:
            """One row a layer: receptive field, jump, ERF std (pixels) and their ratio."""

        def _repr_html_(self) -> str: ...


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
    from erftheory.network.combine import Chain

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
