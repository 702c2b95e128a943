"""What normalisations divide by on a finite image, beside what they divide by on the plane.

Zero padding takes power from the pixels near the rim: on a map of 3×3 pixels, a 3×3 convolution
reads 4 to 9 pixels of 9. A norm divides by the deviation over all pixels of its map, so where rims
are much of it the pixels inside are larger than on the plane, and gradients that pass it are too.

Carried forward for every channel group, each beside its value on the plane: `power`, a map of
E x²; `mean`, a map of the size of channel means; and `level`, a map of their product with the
channel's mean over all pixels (whose square is the mean of that map). Taps of a convolution are
independent: its channel means are correlated from pixel to pixel as far as these read the same
taps, so with r_a(p) what tap a reads at pixel p, `level` is Σ_a v_a r_a(p) · (mean of r_a).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import sparse

from erftheory.network.endless import GlobalAvgPool
from erftheory.network.graph import Concat, Sum
from erftheory.network.layers import (
    Activation,
    BatchNorm,
    Conv,
    ConvTranspose,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    RMSNorm,
)
from erftheory.theory.image import matrices as layers
from erftheory.theory.walk.links import Power

NORMS = (BatchNorm, InstanceNorm, GroupNorm)
_LEAST = 1e-3  # of a variance that is left, beside that on the plane


@dataclass(frozen=True)
class Rim:
    """A channel group on its map, beside the plane."""

    power: np.ndarray
    mean: np.ndarray
    level: np.ndarray


def shares(flat: Any) -> dict[tuple[int, int], float]:
    """By norm and group, the variance that it divides by over that of the plane, if not 1.

    `flat` is a `graph.Flat` whose nodes know their powers.
    """
    if not any(isinstance(node.op, NORMS) for node in flat.nodes):
        return {}
    states: list[list[Rim]] = []
    found: dict[tuple[int, int], float] = {}
    for index, node in enumerate(flat.nodes):
        if not index:
            one = np.ones(node.shape)
            states.append([Rim(one, one, one) for _ in node.channels])
            continue
        inputs = [(states[i], flat.nodes[i]) for i in node.inputs]
        if isinstance(node.op, Concat):
            states.append([rim for rims, _ in inputs for rim in rims])
        elif isinstance(node.op, NORMS):
            made = [_normed(node.op, *pair) for pair in _read(node, inputs)]
            found |= {(index, g): share for g, (_, share) in enumerate(made) if share != 1}
            states.append([rim for rim, _ in made])
        else:
            mixed = [rim for rim, _ in _read(node, inputs)]
            states.append([_behind(flat, index, rim) for rim in mixed])
    return found


def _read(node: Any, inputs: Sequence[tuple[list[Rim], Any]]) -> list[tuple[Rim, Power]]:
    """For each group of a node, what its links read together, and the power of that."""
    groups: list[list[tuple[float, Rim, Power]]] = [[] for _ in node.channels]
    for link in node.links:
        rims, before = inputs[link.input]
        count = 1.0 if isinstance(node.op, Sum) else float(before.channels[link.source])
        groups[link.target].append((count, rims[link.source], before.powers[link.source]))
    return [_joined(parts) for parts in groups]


def _joined(parts: Sequence[tuple[float, Rim, Power]]) -> tuple[Rim, Power]:
    total = sum(count for count, _, _ in parts)
    second = sum(count * power.second for count, _, power in parts)
    level = sum(count * power.level for count, _, power in parts)
    if len(parts) == 1 or second <= 0:
        return parts[0][1], parts[0][2]
    shares = [(count * power.second / second, rim.power) for count, rim, power in parts]
    map_ = np.sum([share * own for share, own in shares], axis=0)
    mean, own = parts[0][1].mean, parts[0][1].level
    if level > 0:
        mean = np.sqrt(sum(n * power.level / level * rim.mean**2 for n, rim, power in parts))
        shares = [n * power.level / level * rim.level for n, rim, power in parts]
        own = np.sum(shares, axis=0)
    return Rim(map_, mean, own), Power(second / total, level / total)


def _normed(op: Any, rim: Rim, power: Power) -> tuple[Rim, float]:
    """Behind a norm over the pixels, and the variance that it divides by beside the plane's."""
    second, level = power
    if isinstance(op, GroupNorm):  # means of many channels take nothing off
        level = 0.0
    variance = second - level
    if variance <= 0:
        return rim, 1.0
    middle = float(rim.level.mean())
    share = max((second * float(rim.power.mean()) - level * middle) / variance, _LEAST)
    if math.isclose(share, 1, rel_tol=1e-12):
        share = 1.0
    taken = level * (2 * rim.level - middle)
    left = np.maximum(second * rim.power - taken, 0.0) / (variance * share)
    return _bent(left), share


def _bent(power: np.ndarray) -> Rim:
    """Behind a rectifier means are as large as deviations, and of one sign."""
    mean = np.sqrt(power)
    return Rim(power, mean, mean * mean.mean())


def _behind(flat: Any, index: int, rim: Rim) -> Rim:
    node = flat.nodes[index]
    op = node.op
    if isinstance(op, Activation):
        return rim if op.name == "linear" else _bent(rim.power)
    if isinstance(op, LayerNorm | RMSNorm):
        one = np.ones(node.shape)
        return Rim(one, one, one)
    if isinstance(op, GlobalAvgPool):
        reads = tuple(a for a, ways in enumerate(op.reach(len(node.shape))) if any(ways))
        maps = (rim.power, rim.mean, rim.level)
        return Rim(*(values.mean(reads, keepdims=True) for values in maps))
    if node.step is None:
        return rim
    if isinstance(op, Conv | ConvTranspose):
        level = _level(node, rim.mean, flat.mode)
        return Rim(_pushed(flat, index, rim.power),
                   np.sqrt(_pushed(flat, index, rim.mean**2)), level)  # fmt: skip
    return Rim(*(_pushed(flat, index, values) for values in (rim.power, rim.mean, rim.level)))


def _pushed(flat: Any, index: int, values: np.ndarray) -> np.ndarray:
    """A map behind a layer whose taps have sum 1."""
    node = flat.nodes[index]
    spread = math.prod(node.step.stride) if node.step.up else 1
    total: Any = 0.0
    for weight, axes in flat.terms(index):
        turned = tuple(m if m is None else m.T.tocsr() for m in axes)
        total = total + abs(weight) * spread * layers.pulled(values[None], turned)[0]
    return np.abs(total)


def _level(node: Any, mean: np.ndarray, mode: str) -> np.ndarray:
    """Σ_a v_a r_a(p) · (mean of r_a) at every pixel p, beside the plane."""
    step = node.step
    axes = range(mean.ndim)
    reads = [_reads(step, a, mean.shape[a], node.shape[a], mode) for a in axes]
    taps = np.abs(step.kernel.array().astype(float))
    total = np.zeros(node.shape)
    for tap in np.ndindex(*step.kernel.shape):
        if taps[tap]:
            read = layers.pulled(mean[None], tuple(reads[a][tap[a]] for a in axes))[0]
            total += taps[tap] * read.mean() * read
    # up-sampled, a tap is read by one of so many pixels
    return total / taps.sum() * (math.prod(step.stride) ** 2 if step.up else 1)


@lru_cache(maxsize=256)
def _reads(step: Any, axis: int, n: int, size: int, mode: str) -> list[Any]:
    """By tap, a matrix (pixels out, pixels in) of what it reads."""
    found, before, after = [], step.before[axis], step.after[axis]
    for tap in range(step.kernel.shape[axis]):
        if step.up:
            at = step.stride[axis] * np.arange(n) + step.dilation[axis] * tap - before
            out, place = at, np.arange(n)
            kept = (at >= 0) & (at < size)
        else:
            at = step.stride[axis] * np.arange(size) + step.dilation[axis] * tap - before
            if mode == layers.TORUS:
                place = at % n
            else:
                place = layers.folded(n, before, after, mode)[at + max(before, 0)]
            out, kept = np.arange(size), place >= 0
        entries = np.ones(int(kept.sum())), (out[kept], place[kept])
        found.append(sparse.csr_array(entries, shape=(size, n)))
    return found
