"""RepLKNet's own procedure (D22), under its name, for comparison with published numbers.

It takes the logarithm of unnormalised gradients before it asks where they are, so its ratios
depend on their scale: on the loss, the weights and the number of channels. `ERF.area_ratio` is the
ratio without the logarithm, and does not.

Reference: Ding et al., "Scaling Up Your Kernels to 31x31", CVPR 2022, appendix, and their code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from erftheory.empirical.measured.gradients import streamed

THRESHOLDS = (0.2, 0.3, 0.5, 0.99)


@dataclass(frozen=True)
class AreaRatio:
    """Side in pixels of the smallest centred square with more than `threshold`, and its area over
    the map's; both None where no square strictly inside the map has so much."""

    threshold: float
    side: int | None
    ratio: float | None


def contribution_scores(
    function: Any,
    images: Any,
    *,
    spatial_axes: Any = None,
    output_axes: Any = None,
    batch: int = 1,
) -> np.ndarray:
    """Their contribution scores, shape of the image: a mean over images, not normalised.

    Of the sum of the centre unit's positive channels the gradient is taken, its negative part
    dropped, and the rest summed over input channels. An image whose gradient has a NaN is left
    out, as in their code. Arguments as for `gradient_erf`.

    Raises:
      ValueError: an argument out of range, or no image without NaN.
    """
    total, count = np.zeros(()), 0
    for _, rows, _ in streamed(
        function, images, "center", "positive", spatial_axes, output_axes, "relu", None, batch
    ):
        fine = ~np.isnan(rows).any(axis=tuple(range(1, rows.ndim)))
        total = total + rows[fine].sum(axis=0)
        count += int(fine.sum())
    if not count:
        raise ValueError("images: got NaN gradients in all of them; takes at least one without")
    return total / count


def area_ratios(scores: Any, thresholds: Sequence[float] = THRESHOLDS) -> tuple[AreaRatio, ...]:
    """Their high-contribution area ratios of raw scores (height, width).

    Scores x become log10(1 + x) over its maximum; squares of side 2i + 1, i = 1, 2, … below
    height // 2, grow about pixel (height // 2, width // 2) until their share exceeds the threshold.

    Raises:
      ValueError: not a map of two axes with finite, nonnegative scores, not all 0; or a threshold
        outside (0, 1).
    """
    array = np.asarray(scores)
    if array.ndim != 2 or not np.isfinite(array).all() or array.min(initial=0) < 0:
        raise ValueError(
            f"scores: got shape {array.shape}; takes (height, width), finite and nonnegative"
        )
    if not array.any():
        raise ValueError("scores: got all zeros; takes a map with a positive score")
    for t in thresholds:
        if not 0 < t < 1:
            raise ValueError(f"thresholds: got {t!r}; takes numbers between 0 and 1")
    logs = np.log10(1 + array)
    logs = logs / logs.max()
    (h, w), whole = logs.shape, logs.sum()
    row, column = h // 2, w // 2
    reach = range(1, row)
    # A square wider than the map would start at a negative index, which NumPy counts from behind;
    # their code does so too on maps much higher than wide, where it has no meaning.
    held = [
        logs[row - i : row + i + 1, max(column - i, 0) : column + i + 1].sum() / whole
        for i in reach
    ]
    found = []
    for t in thresholds:
        i = next((i for i, share in zip(reach, held) if share > t), None)
        side = None if i is None else 2 * i + 1
        found.append(AreaRatio(t, side, None if side is None else side / h * side / w))
    return tuple(found)
