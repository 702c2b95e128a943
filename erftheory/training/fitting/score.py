"""How good: accuracy of classes an image, mean intersection over union of classes a pixel."""

from __future__ import annotations

import numpy as np


def accuracy(confusion: np.ndarray) -> float:
    """Share of what was found right, of counts (true class, found class)."""
    return float(np.trace(confusion) / max(confusion.sum(), 1))


def mean_iou(confusion: np.ndarray) -> float:
    """Intersection over union of a class, averaged over the classes that occur or were found."""
    both = np.diag(confusion)
    either = confusion.sum(0) + confusion.sum(1) - both
    seen = either > 0
    return float((both[seen] / either[seen]).mean()) if seen.any() else 0.0
