"""What of a model's input is the image: the dimensions that its first window slides over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from erftheory.importers.values.dimensions import BATCH, CHANNEL, plain
from erftheory.importers.values.pixels import Pixels

Axes = Sequence[int] | Mapping[str, int] | None


class SpatialAxes(Exception):
    """Ends the search for spatial axes: the input dimensions that a window slides over."""

    def __init__(self, axes: tuple[int, ...]):
        self.axes = axes


def slid_over(pixels: Pixels, places: Sequence[int]) -> None:
    """Ends the search for spatial axes, where a window slides over array dimensions `places`."""
    axes = tuple(sorted(a.axis for p in places for a in pixels.dims[p] if a.axis >= 0))
    if axes and len(axes) <= 3:
        raise SpatialAxes(axes)


def image_axes(
    asked: Axes, read: Callable[..., Any], shape: Sequence[int], last: bool = False
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The dimensions of an image that are pixels, and the names that the user gave them.

    Args:
      asked: the user's `spatial_axes`; None is what the first window slides over.
      read: reads the model with some dimensions as pixels; with `search=True` to its first window.
      shape: sizes of the image.
      last: channels stand last in this framework, and without a window there is no telling; else a
        model without one has pixels in all dimensions from the third on.

    Raises:
      ValueError: no dimensions of the image, or none to be found.
    """
    given, names = _given(asked)
    rank = len(shape)
    axes = _first_window(read, rank, last) if given is None else given
    if axes is None and last:
        raise ValueError(
            "spatial_axes: got None, and no convolution or pooling reads the image; takes the "
            f"dimensions of {tuple(shape)} that are pixels"
        )
    axes = tuple(range(2, rank)) if axes is None else axes
    whole = all(isinstance(a, int | np.integer) and -rank <= a < rank for a in axes)
    axes = tuple(int(a) % rank for a in axes) if whole else ()
    if not 1 <= len(axes) <= 3 or len(set(axes)) < len(axes):
        raise ValueError(f"spatial_axes: got {asked!r}; takes 1 to 3 dimensions of {tuple(shape)}")
    return axes, names


def _given(asked: Axes) -> tuple[tuple[int, ...] | None, tuple[str, ...]]:
    """The dimensions that a user gives, None for none, and their names."""
    if asked is None:
        return None, ()
    if isinstance(asked, Mapping):
        return tuple(asked.values()), tuple(map(str, asked))
    if isinstance(asked, str) or not isinstance(asked, Iterable):
        raise ValueError(
            f"spatial_axes: got {asked!r}; takes dimensions of the image, or a dictionary "
            'of names to them such as {"height": 2, "width": 3}'
        )
    return tuple(asked), ()


def _first_window(read: Callable[..., Any], rank: int, last: bool) -> tuple[int, ...] | None:
    """The dimensions of the image that its first window slides over, None where there is none.

    Every dimension is a candidate until a window says which; where something is done to the
    channels first, NC… and N…C are, if all the pixels of one are slid over.
    """
    some = [range(2, rank), range(1, rank - 1)]
    for axes in (range(rank), *(reversed(some) if last else some)):
        if not axes or (len(axes) < rank and len(axes) > 3):
            continue
        try:
            read(tuple(axes), search=True)
        except SpatialAxes as found:
            if len(axes) == rank or sorted(found.axes) == list(range(len(axes))):
                return tuple(axes[a] for a in found.axes)
        except ValueError:
            pass
    return None


def whole_image(shape: Sequence[int], axes: Sequence[int]) -> Pixels:
    """The input of a graph, whose dimensions `axes` are pixels."""
    kinds = [
        axes.index(i) if i in axes else BATCH if i == 0 else CHANNEL for i in range(len(shape))
    ]
    return Pixels(0, tuple(plain(kind, n) for kind, n in zip(kinds, shape)))
