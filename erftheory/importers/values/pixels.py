"""What a value of a model is: pixels, what was read off all of them, or a constant."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from erftheory.importers.values.dimensions import CHANNEL, Dim, length, turned
from erftheory.importers.values.refusals import BESIDE, Unreadable
from erftheory.network.layers import InstanceNorm, Layer


class Normed(NamedTuple):
    """A normalisation that is not in the graph yet.

    `factors` multiply its result, one entry a channel. `fixed` is True in evaluation mode, where
    they are all that it does beside shifts: those of running statistics are among them.
    """

    layer: Layer
    factors: tuple[Constant, ...] = ()
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class Pixels:
    """A map: an array whose entries stand at pixels of the image.

    Attributes:
      node: node of the graph that it reads.
      dims: meaning of each array dimension.
      tag: pointwise function on top of the node that is not in the graph yet, "" for none.
      scale: constant factor on top of the node.
      parts: (first channel, last channel + 1, map) of a concatenation, while it is untouched.
      cropped: True for a slice along the image.
      flipped: True for a slice in reverse order (padding by reflection).
      norm: which normalisation, under the tag "norm"; of a statistic its factors so far.
      centred: True if a mean over channels was taken off the node.
    """

    node: int
    dims: tuple[Dim, ...]
    tag: str = ""
    scale: float = 1.0
    parts: tuple[tuple[int, int, Pixels], ...] = ()
    cropped: bool = False
    flipped: bool = False
    norm: Normed | None = None
    centred: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(length(dim) for dim in self.dims)

    @property
    def channels(self) -> int:
        return math.prod(a.size for dim in self.dims for a in dim if a.axis == CHANNEL)

    def size(self, axis: int) -> int:
        return math.prod(a.size for dim in self.dims for a in dim if a.axis == axis)


@dataclass(frozen=True, slots=True)
class Global:
    """A value without pixels that depends on all of them: a mean over the image.

    `mixed` is False for a statistic (no channels mixed since); `inverse` once it was inverted, as
    a normalisation does with a deviation. `layer` is the normalisation that has such statistics,
    `factors` what multiplied them since. `label` says what it is where it is no mean,
    `size` how large it is as a factor: a sigmoid of what is near 0 is near 1/2.
    """

    node: int
    mixed: bool = False
    root: bool = False
    inverse: bool = False
    layer: Layer = InstanceNorm()
    factors: tuple[Constant, ...] = ()
    label: str = ""
    size: float = 1.0

    def mix(self) -> Global:
        """Behind what mixes its channels."""
        return replace(self, mixed=True, size=1.0)

    @property
    def shape(self) -> tuple[int, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class Partial:
    """A reduction over some axes of the image, which may go on over the others: a global mean in
    two steps. It is scaled; if something else is done to it, it becomes `Pixels` of the other
    axes (`Pointwise.opened`). `scope` is the module that it stands in, `label` as in `Global`."""

    node: int
    dims: tuple[Dim, ...]
    axes: tuple[int, ...]
    scope: str = ""
    label: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(length(dim) for dim in self.dims)


@dataclass(frozen=True, slots=True)
class Listed:
    """Maps of different pixels one behind the other in an array dimension, `place`: what acts
    on each entry of it alone is done to each of them, until they are cut apart again."""

    place: int
    parts: tuple[Pixels, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        shape = list(self.parts[0].shape)
        shape[self.place] = sum(part.shape[self.place] for part in self.parts)
        return tuple(shape)

    def mapped(
        self, run: Callable[[Pixels, tuple[int, ...]], Any], out: Sequence[int] = ()
    ) -> Listed:
        """`run(part, shape)` of every part, `shape` being its share of an array of shape `out`.

        Raises:
          Unreadable: a result whose pixels are others.
        """
        parts, at = [], self.place
        for part in self.parts:
            shape = (*out[:at], part.shape[at], *out[at + 1 :]) if out else part.shape
            found = run(part, shape)
            if not isinstance(found, Pixels) or found.dims[at] != part.dims[at]:
                raise Unreadable(BESIDE)
            parts.append(found)
        return Listed(at, tuple(parts))

    def cut(self, start: int, end: int) -> Value:
        """The parts that entries `start` to `end` of the dimension are.

        Raises:
          Unreadable: a part is cut itself.
        """
        first, found = 0, []
        for part in self.parts:
            last = first + part.shape[self.place]
            if start <= first and last <= end:
                found.append(part)
            elif first < end and start < last:
                raise Unreadable(BESIDE)
            first = last
        return found[0] if len(found) == 1 else Listed(self.place, tuple(found))


class Constant:
    """A value that does not depend on the image.

    `get()` computes it when it is first asked for; None where it is not known. Models have
    thousands of these, so they are slim. `root` is "sqrt" or "rsqrt" for a product with a root of
    an array: what a normalisation by constant statistics divides or multiplies by. `entries` are
    those before it was broadcast, 0 for a number without dimensions.
    """

    __slots__ = ("shape", "root", "entries", "_compute", "_value")

    def __init__(
        self, shape: tuple[int, ...], compute: Callable[[], np.ndarray | None] | None = None
    ):
        self.shape, self.root, self._compute = shape, "", compute
        self.entries = math.prod(shape) if shape else 0
        self._value: np.ndarray | None = None

    def get(self) -> np.ndarray | None:
        if self._compute is not None:
            self._value, self._compute = self._compute(), None
        return self._value


Value = Pixels | Global | Partial | Listed | Constant
















def without_ends(pixels: Pixels) -> tuple[Dim, ...]:
    """Dimensions without axes of one pixel that stand beside others: a collapsed axis that was
    squeezed."""
    alone = {a.axis for d in pixels.dims for a in d if a.axis >= 0 and pixels.size(a.axis) == 1}
    return tuple(
        tuple(a for a in d if a.axis not in alone or a.size > 1) if len(d) > 1 and alone else d
        for d in pixels.dims
    )


def mirrored(pixels: Pixels) -> bool:
    """True if the pixels of some axis are in reverse order."""
    return any(map(turned, pixels.dims))


