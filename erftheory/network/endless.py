"""Layers that read an axis of the image to its end: means over it, recurrences along it.

Every other axis passes through them pixel by pixel, so its receptive field stays what it was.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from erftheory.network import arguments as arg
from erftheory.network.layers import Layer

DIRECTIONS = {"forward": (True, False), "backward": (False, True), "both": (True, True)}


class Endless(Layer, ABC):
    """A layer that reads all pixels before its own place along some axes, or all behind it."""

    @abstractmethod
    def reach(self, ndim: int) -> tuple[tuple[bool, bool], ...]:
        """For each axis whether all pixels before are read, and whether all behind.

        Raises:
          ValueError: an axis that a network of `ndim` axes does not have.
        """

    @abstractmethod
    def called(self, names: tuple[str, ...] = ()) -> str:
        """What it is, in a message; `names` are those of the axes, "" where one has none."""


def _reaching(
    name: str, axes: tuple[int, ...], ways: tuple[bool, bool], ndim: int
) -> tuple[tuple[bool, bool], ...]:
    for axis in axes:
        if not -ndim <= axis < ndim:
            raise ValueError(f"{name}: got {axis}; takes an axis of a {ndim}-D network")
    read = {axis % ndim for axis in axes}
    return tuple(ways if axis in read else (False, False) for axis in range(ndim))


@dataclass(frozen=True, repr=False)
class GlobalAvgPool(Endless):
    """The mean over all pixels, or over those `along` some axes, which then have one pixel.

    Every input along them reaches the unit: the receptive field is unbounded there.

    Args:
      along: an axis or several, counted from 0, or from the end with −1; None is all of them.
    """

    along: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.along is not None:
            object.__setattr__(self, "along", _axes("along", self.along))

    def reach(self, ndim: int) -> tuple[tuple[bool, bool], ...]:
        axes: Any = range(ndim) if self.along is None else self.along
        return _reaching("along", tuple(axes), (True, True), ndim)

    def called(self, names: tuple[str, ...] = ()) -> str:
        return "global average" + _along(self.along, names)


@dataclass(frozen=True, repr=False)
class Recurrent(Endless):
    """A recurrent layer (LSTM, GRU, …) along one axis; on every other axis pixels pass alone.

    It reads all that came before ("forward": look-back without end, no look-ahead), all that comes
    ("backward"), or "both". Its receptive field is known, its ERF along the axis is not predicted.

    Args:
      channels: channels behind it, None for as many as before.
      axis: the axis along which it runs, counted from 0, or from the end with −1.
      direction: "forward", "backward" or "both".
    """

    channels: int | None = None
    axis: int = -1
    direction: str = "forward"

    def __post_init__(self) -> None:
        if self.channels is not None:
            object.__setattr__(self, "channels", arg.integer("channels", self.channels))
        object.__setattr__(self, "axis", arg.integer("axis", self.axis, -3))
        arg.one_of("direction", self.direction, tuple(DIRECTIONS))

    def reach(self, ndim: int) -> tuple[tuple[bool, bool], ...]:
        return _reaching("axis", (self.axis,), DIRECTIONS[self.direction], ndim)

    def called(self, names: tuple[str, ...] = ()) -> str:
        return "recurrent layer" + _along((self.axis,), names)


@dataclass(frozen=True, repr=False)
class Along(Endless):
    """What an imported model does along whole axes: attention, running sums, last states."""

    label: str
    along: tuple[int, ...] | None = None  # all
    direction: str = "both"
    channels: int | None = None

    def reach(self, ndim: int) -> tuple[tuple[bool, bool], ...]:
        axes: Any = range(ndim) if self.along is None else self.along
        return _reaching("along", tuple(axes), DIRECTIONS[self.direction], ndim)

    def called(self, names: tuple[str, ...] = ()) -> str:
        return self.label + _along(self.along, names)


def _axes(name: str, value: Any) -> tuple[int, ...]:
    entries = tuple(value) if isinstance(value, tuple | list) else (value,)
    if not entries:
        raise ValueError(f"{name}: got no axis; takes an axis, several, or None for all")
    return tuple(arg.integer(name, axis, -3) for axis in entries)


def _along(axes: Any, names: tuple[str, ...]) -> str:
    if axes is None:
        return ""
    if names and all(names[axis] for axis in axes):
        return f" along {' and '.join(names[axis] for axis in axes)}"
    if tuple(axes) == (-1,):
        return " along the last axis"
    return f" along ax{'i' if len(axes) == 1 else 'e'}s {', '.join(map(str, axes))}"
