"""What a value of a model is: which dimension of an array runs over which axis of the image.

A dimension is a list of atoms, the first varying slowest. A plain spatial dimension is one atom.
A reshape splits and joins atoms, so that patches, windows, tokens and pixel shuffles stay
readable: (H,) → (H/p, p) gives the atoms (axis, p, H/p) and (axis, 1, p).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from erftheory.network.layers import InstanceNorm, Layer

CHANNEL, BATCH, COPY = -1, -2, -3
MIRRORED = "a reflection of the image"
LAYOUTS = "pixels in one order (rows, blocks, tokens) beside pixels in another"
TOKENS = "pixels that are listed in one dimension, or in blocks within blocks"
BESIDE = "different values one behind the other along the image"


class Atom(NamedTuple):
    """A run of `size` indices: along spatial `axis`, `step` pixels apart (backwards where it is
    negative), or not spatial.

    `axis` is CHANNEL, BATCH or COPY (broadcast: all entries are equal) where it is not spatial.
    """

    axis: int
    step: int
    size: int


Dim = tuple[Atom, ...]


class Unreadable(ValueError):
    """An operation that has no reading; the reader adds its name, shapes and place, and `advice`:
    rules that were tried and do read it."""

    def __init__(
        self,
        why: str,
        operation: tuple[str, str] | None = None,
        line: str = "",
        advice: Sequence[str] = (),
    ):
        self.why, self.operation, self.line, self.advice = why, operation, line, tuple(advice)
        text = why
        if operation is not None:
            name, shapes = operation
            takes = f"a rule for it: {' or '.join(advice)}" if advice else "a model up to there"
            text = (
                f"model: got {name!r} of {shapes}{' at ' * bool(line)}{line}: {why}; takes {takes}"
            )
        super().__init__(text)


class Normed(NamedTuple):
    """A normalisation that is not in the graph yet.

    `factors` multiply its result, one entry a channel. `fixed` is True in evaluation mode, where
    they are all that it does beside shifts: those of running statistics are among them.
    """

    layer: Layer
    factors: tuple[Constant, ...] = ()
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class Signal:
    """An array that depends on the image.

    Attributes:
      node: node of the graph that it reads.
      dims: meaning of each array dimension.
      tag: pointwise function on top of the node that is not in the graph yet, "" for none.
      scale: constant factor on top of the node.
      parts: (first channel, last channel + 1, signal) of a concatenation, while it is untouched.
      cropped: True for a slice along the image.
      flipped: True for a slice in reverse order (padding by reflection).
      norm: which normalisation, under the tag "norm"; of a statistic its factors so far.
      centred: True if a mean over channels was taken off the node.
    """

    node: int
    dims: tuple[Dim, ...]
    tag: str = ""
    scale: float = 1.0
    parts: tuple[tuple[int, int, Signal], ...] = ()
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
    two steps. It is scaled; if something else is done to it, it becomes a `Signal` of the other
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
    """Signals of different pixels one behind the other in an array dimension, `place`: what acts
    on each entry of it alone is done to each of them, until they are cut apart again."""

    place: int
    parts: tuple[Signal, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        shape = list(self.parts[0].shape)
        shape[self.place] = sum(part.shape[self.place] for part in self.parts)
        return tuple(shape)

    def mapped(
        self, run: Callable[[Signal, tuple[int, ...]], Any], out: Sequence[int] = ()
    ) -> Listed:
        """`run(part, shape)` of every part, `shape` being its share of an array of shape `out`.

        Raises:
          Unreadable: a result whose pixels are others.
        """
        parts, at = [], self.place
        for part in self.parts:
            shape = (*out[:at], part.shape[at], *out[at + 1 :]) if out else part.shape
            found = run(part, shape)
            if not isinstance(found, Signal) or found.dims[at] != part.dims[at]:
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


Value = Signal | Global | Partial | Listed | Constant


def length(dim: Dim) -> int:
    return math.prod(a.size for a in dim)


def plain(axis: int, size: int) -> Dim:
    return (Atom(axis, 1, size),) if size != 1 or axis >= 0 else ()


def spatial(dim: Dim) -> bool:
    return any(a.axis >= 0 for a in dim)


def join(atoms: Sequence[Atom]) -> Dim:
    """Atoms of one dimension, neighbours joined where they run on."""
    result: list[Atom] = []
    for atom in atoms:
        if atom.size == 1 and atom.axis < 0:
            continue
        if result:
            last = result[-1]
            same = last.axis == atom.axis
            if same and atom.axis < 0:
                result[-1] = Atom(atom.axis, 1, last.size * atom.size)
                continue
            if same and (last.step == atom.step * atom.size or 1 in (last.size, atom.size)):
                step = last.step if atom.size == 1 else atom.step
                result[-1] = Atom(atom.axis, step, last.size * atom.size)
                continue
        result.append(atom)
    return tuple(result)


def reshape(dims: Sequence[Dim], shape: Sequence[int]) -> tuple[Dim, ...]:
    """Dimensions after a row-major reshape.

    Raises:
      Unreadable: a dimension is cut where no atom ends.
    """
    queue = [atom for dim in dims for atom in dim]
    result: list[Dim] = []
    for wanted in shape:
        found: list[Atom] = []
        while wanted > 1:
            if not queue:
                raise Unreadable("a reshape to another number of elements")
            atom = queue.pop(0)
            if wanted % atom.size == 0:
                found.append(atom)
                wanted //= atom.size
            elif atom.size % wanted == 0:
                rest = atom.size // wanted
                coarse = atom.step * rest if atom.axis >= 0 else 1
                found.append(Atom(atom.axis, coarse, wanted))
                queue.insert(0, Atom(atom.axis, atom.step, rest))
                wanted = 1
            else:
                raise Unreadable(f"a reshape that cuts {atom.size} pixels or channels unevenly")
        # an axis of one pixel stays with the dimension that holds it
        while queue and queue[0].size == 1 and queue[0].axis >= 0 and not found:
            found.append(queue.pop(0))
        result.append(join(found))
    rest = [a for a in queue if a.size > 1]
    if rest:
        raise Unreadable("a reshape to another number of elements")
    lost = [a for a in queue if a.axis >= 0]
    if lost:
        for index in range(len(result) - 1, -1, -1):
            if not result[index]:
                result[index] = join(lost)
                break
    return tuple(result)


def unite(rows: Sequence[Sequence[Dim]]) -> tuple[Dim, ...]:
    """Dimensions of an elementwise operation on arrays of one shape.

    Raises:
      Unreadable: pixels of one meet channels, or other pixels, of another.
    """
    result: list[Dim] = []
    for dims in zip(*rows):
        ranked = sorted(dims, key=_weight, reverse=True)
        first = ranked[0]
        for other in ranked[1:]:
            if other != first and _weight(other) >= 3:
                raise Unreadable(LAYOUTS if _turned(first) == _turned(other) else MIRRORED)
        result.append(first)
    return tuple(result)


def _turned(dim: Dim) -> bool:
    return any(a.axis >= 0 and a.step < 0 for a in dim)


def without_ends(signal: Signal) -> tuple[Dim, ...]:
    """Dimensions without axes of one pixel that stand beside others: a collapsed axis that was
    squeezed."""
    alone = {a.axis for d in signal.dims for a in d if a.axis >= 0 and signal.size(a.axis) == 1}
    return tuple(
        tuple(a for a in d if a.axis not in alone or a.size > 1) if len(d) > 1 and alone else d
        for d in signal.dims
    )


def mirrored(signal: Signal) -> bool:
    """True if the pixels of some axis are in reverse order."""
    return any(map(_turned, signal.dims))


def _weight(dim: Dim) -> int:
    """3 for pixels, 2 for channels or batch, 1 for copies, 0 for nothing."""
    if spatial(dim):
        return 3
    if any(a.axis in (CHANNEL, BATCH) for a in dim):
        return 2
    return 1 if dim else 0
