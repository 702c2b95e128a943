"""The order of images: a permutation an epoch, from the key and the epoch's number alone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=4)
def _order(seed: tuple[int, ...], epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((*seed, epoch)).permutation(count)


def indices(seed: tuple[int, ...], step: int, batch: int, count: int) -> np.ndarray:
    """Images of the batch of a step; batches are whole, and an epoch leaves out what is over."""
    each = max(1, count // batch)
    epoch, place = divmod(step, each)
    order = _order(seed, epoch, count)
    return order[place * batch : (place + 1) * batch]
