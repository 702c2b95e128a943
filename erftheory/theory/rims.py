"""What normalisations divide by on a finite image, beside what they divide by on the plane.

Zero padding takes power from the pixels near the rim: on a map of 3×3 pixels, a 3×3 convolution
reads 4 to 9 pixels of 9. A norm divides by the deviation over all pixels of its map, so where rims
are much of it the pixels inside are larger than on the plane, and gradients that pass it are too.

Carried forward for every channel group, each beside its value on the plane: `power`, a map of
E x²; `mean`, a map of the size of channel means; and `level`, the square of a channel's mean over
all pixels. Taps of a convolution are independent: its channel means are correlated from pixel to
pixel as far as these read the same taps, so a mean over the map keeps Σ_a v_a (mean over what the
tap a reads)².
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from erftheory.network.graph import Concat, Sum
from erftheory.network.layers import (
    Activation,
    AvgPool,
    BatchNorm,
    Conv,
    ConvTranspose,
    GlobalAvgPool,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    MaxPool,
    RMSNorm,
)
from erftheory.theory import grid_layers as layers
from erftheory.theory.gains import Power

NORMS = (BatchNorm, InstanceNorm, GroupNorm)
_LEAST = 1e-3  # of a variance that is left, beside that on the plane


@dataclass(frozen=True)
class Rim:
    """A channel group on its map, beside the plane."""

    power: np.ndarray
    mean: np.ndarray
    level: float


def shares(flat: Any) -> dict[tuple[int, int], float]:
    """By norm and group, the variance that it divides by over that of the plane, if not 1.

    `flat` is a `grid_graph.Flat` whose nodes know their powers.
    """
    if not any(isinstance(node.op, NORMS) for node in flat.nodes):
        return {}
    states: list[list[Rim]] = []
    found: dict[tuple[int, int], float] = {}
    for index, node in enumerate(flat.nodes):
        if not index:
            one = np.ones(node.shape)
            states.append([Rim(one, one, 1.0) for _ in node.channels])
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
        own = sum(n * power.level / level * rim.level for n, rim, power in parts)
    return Rim(map_, mean, own), Power(second / total, level / total)


def _normed(op: Any, rim: Rim, power: Power) -> tuple[Rim, float]:
    """Behind a norm over the pixels, and the variance that it divides by beside the plane's."""
    second, level = power
    if isinstance(op, GroupNorm):  # means of many channels take nothing off
        level = 0.0
    variance = second - level
    if variance <= 0:
        return rim, 1.0
    share = max((second * float(rim.power.mean()) - level * rim.level) / variance, _LEAST)
    if math.isclose(share, 1, rel_tol=1e-12):
        share = 1.0
    middle = float(rim.mean.mean())
    taken = rim.level * (2 * rim.mean / middle - 1) if middle > 0 else 0.0
    left = np.maximum(second * rim.power - level * taken, 0.0) / (variance * share)
    return Rim(left, np.sqrt(left), float(np.sqrt(left).mean()) ** 2), share


def _behind(flat: Any, index: int, rim: Rim) -> Rim:
    node = flat.nodes[index]
    op = node.op
    if isinstance(op, Activation):
        mean = np.sqrt(rim.power)
        return rim if op.name == "linear" else Rim(rim.power, mean, float(mean.mean()) ** 2)
    if isinstance(op, LayerNorm | RMSNorm):
        one = np.ones(node.shape)
        return Rim(one, one, 1.0)
    if isinstance(op, GlobalAvgPool):
        one = np.ones(node.shape)
        return Rim(one * rim.power.mean(), one * rim.mean.mean(), rim.level)
    if node.step is None:
        return rim
    if isinstance(op, Conv | ConvTranspose):
        level = _level(node, rim.mean, flat.mode)
        return Rim(_pushed(flat, index, rim.power),
                   np.sqrt(_pushed(flat, index, rim.mean**2)), level)  # fmt: skip
    moved = replace(rim, power=_pushed(flat, index, rim.power),
                    mean=_pushed(flat, index, rim.mean))  # fmt: skip
    inside = isinstance(op, MaxPool) or isinstance(op, AvgPool) and not op.count_include_pad
    return moved if inside else replace(moved, level=float(moved.mean.mean()) ** 2)


def _pushed(flat: Any, index: int, values: np.ndarray) -> np.ndarray:
    """A map behind a layer whose taps have sum 1."""
    node = flat.nodes[index]
    spread = math.prod(node.step.stride) if node.step.up else 1
    total: Any = 0.0
    for weight, axes in flat.terms(index):
        turned = tuple(m if m is None else m.T.tocsr() for m in axes)
        total = total + abs(weight) * spread * layers.pulled(values[None], turned)[0]
    return np.abs(total)


def _level(node: Any, mean: np.ndarray, mode: str) -> float:
    """Σ_a v_a (mean over the map of what the tap a reads)², beside the plane."""
    step = node.step
    for axis, n in enumerate(mean.shape):
        reads = _reads(step, axis, n, node.shape[axis], mode)
        mean = np.moveaxis(np.tensordot(reads, mean, (1, axis)), 0, axis)
    taps = np.abs(step.kernel.array().astype(float))
    spread = math.prod(step.stride) if step.up else 1
    whole = float((taps * mean**2).sum() / taps.sum())
    # up-sampled, a tap is read by one of so many pixels
    return whole * spread**2 if step.up else whole


def _reads(step: Any, axis: int, n: int, size: int, mode: str) -> np.ndarray:
    """By tap, the share of the map's pixels that read each pixel of the input with it."""
    taps, stride = np.arange(step.kernel.shape[axis])[:, None], step.stride[axis]
    found = np.zeros((len(taps), n))
    if step.up:
        at = stride * np.arange(n) + step.dilation[axis] * taps - step.before[axis]
        found[(at >= 0) & (at < size)] = 1 / size
        return found
    at = stride * np.arange(size) + step.dilation[axis] * taps - step.before[axis]
    before, after = step.before[axis], step.after[axis]
    if mode == layers.TORUS:
        place = at % n
    else:
        place = layers.folded(n, before, after, mode)[at + max(before, 0)]
    tap = np.broadcast_to(taps, at.shape)
    np.add.at(found, (tap[place >= 0], place[place >= 0]), 1 / size)
    return found
