"""What of a model's input is the image: the dimensions that its first window slides over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from erftheory.importers.values.dimensions import BATCH, CHANNEL, Atom
from erftheory.importers.values.pixels import Pixels
from erftheory.importers.build.windows import SpatialAxes


def first_window(read: Callable[..., Any], rank: int) -> tuple[int, ...]:
    """The dimensions of the image that its first window slides over.

    Every dimension is a candidate until a window says which; where something is done to the
    channels first, NC… and N…C are, if all the pixels of one are slid over.
    """
    for axes in (range(rank), range(2, rank), range(1, rank - 1)):
        if not axes or (len(axes) < rank and len(axes) > 3):
            continue
        try:
            read(axes, search=True)
        except SpatialAxes as found:
            if len(axes) == rank or sorted(found.axes) == list(range(len(axes))):
                return tuple(axes[a] for a in found.axes)
        except ValueError:
            pass
    return tuple(range(2, rank))


Axes = Sequence[int] | Mapping[str, int] | None


def asked_axes(spatial_axes: Axes) -> tuple[tuple[int, ...] | None, tuple[str, ...]]:
    """The dimensions that a user gives, None for none, and their names."""
    if spatial_axes is None:
        return None, ()
    if isinstance(spatial_axes, Mapping):
        return tuple(spatial_axes.values()), tuple(map(str, spatial_axes))
    if isinstance(spatial_axes, str) or not isinstance(spatial_axes, Iterable):
        raise ValueError(
            f"spatial_axes: got {spatial_axes!r}; takes dimensions of the image, or a dictionary "
            'of names to them such as {"height": 2, "width": 3}'
        )
    return tuple(spatial_axes), ()


def whole_image(shape: Sequence[int], axes: Sequence[int]) -> Pixels:
    dims = []
    for i, n in enumerate(shape):
        if i in axes:
            dims.append((Atom(axes.index(i), 1, n),))
        else:
            dims.append((Atom(BATCH if i == 0 else CHANNEL, 1, n),) if n > 1 else ())
    return Pixels(0, tuple(dims))
