"""Mirror images and exchanges of axes under which the law of a random net does not change.

A net's reflection about the centre of its field is as likely as the net itself if every layer's
variances are symmetric and all paths keep the same centre. Averaging g² over these images leaves
its expectation alone and takes noise away.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from itertools import permutations, product
from typing import Any

import numpy as np

from erftheory.network.graph import Graph, step_of
from erftheory.network.step import Step

Image = tuple[tuple[int, ...], tuple[int, ...]]  # order of the axes, axes to reverse afterwards


@lru_cache(maxsize=64)
def images(graph: Graph) -> tuple[Image, ...]:
    """The images of a map under all symmetries of the net's law, itself first."""
    steps = list(graph.steps())
    axes = range(graph.ndim)
    flips = [a for a in axes if all(map(lambda s, a=a: _even(s, a), steps)) and _centred(graph, a)]
    orders = [
        order
        for order in permutations(axes)
        if all(_exchangeable(step, order) for step in steps)
        and all((a in flips) == (b in flips) for a, b in zip(axes, order))
    ]
    choices = product(*[(False, True) if a in flips else (False,) for a in axes])
    reversed_ = [tuple(a for a, flip in zip(axes, row) if flip) for row in choices]
    return tuple((order, flip) for order in orders for flip in reversed_)


def symmetrised(square: np.ndarray, found: tuple[Image, ...]) -> np.ndarray:
    """Mean of a stack of maps, shape (nets, *map), over images of the map."""
    if len(found) == 1:
        return square
    total = np.zeros_like(square)
    for order, flip in found:
        turned = square.transpose(0, *(a + 1 for a in order))
        total += np.flip(turned, tuple(a + 1 for a in flip))
    return total / len(found)


def _even(step: Step, axis: int) -> bool:
    taps = np.array(step.kernel.exact, dtype=object).reshape(step.kernel.shape)
    # the phase of an up-sampled unit is not symmetric in general
    return bool((taps == np.flip(taps, axis)).all()) and not step.up


def _exchangeable(step: Step, order: tuple[int, ...]) -> bool:
    rows = (step.kernel.shape, step.stride, step.dilation, step.before, step.after)
    if any(tuple(row[a] for a in order) != row for row in rows):
        return False
    taps = np.array(step.kernel.exact, dtype=object).reshape(step.kernel.shape)
    return bool((taps == taps.transpose(order)).all())


def _centred(graph: Graph, axis: int) -> bool:
    """True if all paths keep one centre, at every node."""

    def before(op: Any, centre: Fraction) -> Fraction:
        step = step_of(op, graph.ndim)
        if step is None:
            return centre
        return step.stride[axis] * centre - step.before[axis] + Fraction(step.span[axis], 2)

    def one(centres: list[Fraction]) -> Fraction:
        if len(set(centres)) > 1:
            raise _Apart
        return centres[0]

    try:
        graph.backward(Fraction(0), before, one)
    except _Apart:
        return False
    return True


class _Apart(Exception):
    """Paths whose centres differ."""
