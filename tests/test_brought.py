"""Shapes of models that people bring: the field of every phase is what the executed model reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reached import Net, torch_reached
from torch import nn

from erftheory import from_torch, receptive_field


def check(model, shape, units, places, axes=(0, 1), period=(1, 1), **arguments):
    """Units of several phases; the output's `places` run along `axes` of the image."""
    field = receptive_field(from_torch(model, torch.zeros(shape), **arguments))
    for unit in units:
        reached = torch_reached(model, shape, unit, places)
        phase = int(np.ravel_multi_index([u % p for u, p in zip(unit, period)], period))
        found = field.phases[phase]
        for axis in range(2):
            rows = np.flatnonzero(reached.any(1 - axis))
            at = unit[axes.index(axis)] * field.stride[axis] if axis in axes else 0
            expected = at - found.lookback[axis], at + found.lookahead[axis]
            assert (rows[0], rows[-1]) == expected, (unit, axis)
    return field


def eeg(m, x):
    """Lawhern et al. 2018 (EEGNet): electrodes are collapsed, squeezed, and time goes on in 1-D."""
    y = F.avg_pool2d(F.elu(m.space(m.time(x))), (1, 4)).squeeze(2)
    return m.last(F.elu(m.separable(y)))


def test_a_collapsed_axis_that_is_squeezed():
    model = Net(
        eeg, time=nn.Conv2d(1, 4, (1, 9), padding=(0, 4)),
        space=nn.Conv2d(4, 8, (22, 1), groups=4), separable=nn.Conv1d(8, 8, 5, padding=2),
        last=nn.Conv1d(8, 4, 1),
    )  # fmt: skip
    field = check(model, (1, 1, 22, 96), [(11,), (12,)], (2,), axes=(1,), period=(1,))
    assert field.size == (22, 28) and field.stride == (1, 4)
    raw = Net(lambda m, x: m.last(m.space(x[:, None]).squeeze(2)),
              space=nn.Conv2d(1, 8, (22, 1)), last=nn.Conv1d(8, 4, 9))  # fmt: skip
    found = receptive_field(from_torch(raw, torch.zeros(1, 22, 64)))
    assert found.size == (22, 9)


def halo_attention(m, x):
    """Vaswani et al. 2021: queries of a block see the block and a rim of 2 pixels around it."""
    x = m.stem(x)
    n, c, h, w = x.shape
    rows, columns, wide = h // 4, w // 4, 8
    q = m.q(x).reshape(n, c, rows, 4, columns, 4).permute(0, 2, 4, 3, 5, 1)
    q = q.reshape(n, rows * columns, 16, c)
    patches = F.pad(m.kv(x), [2] * 4).unfold(2, wide, 4).unfold(3, wide, 4)
    k, v = patches.reshape(n, 2 * c, rows * columns, wide**2).permute(0, 2, 3, 1).split(c, -1)
    y = (q @ k.transpose(-1, -2)).softmax(-1) @ v
    return y.reshape(n, rows, columns, 4, 4, c).permute(0, 5, 1, 3, 2, 4).reshape(n, c, h, w)


def test_attention_of_blocks_to_windows_that_overlap():
    model = Net(halo_attention, stem=nn.Conv2d(1, 4, 3, padding=1), q=nn.Conv2d(4, 4, 1),
                kv=nn.Conv2d(4, 8, 1))  # fmt: skip
    units = [(8, 8), (9, 14), (11, 11), (10, 13)]
    check(model, (1, 1, 24, 28), units, (2, 3), period=(4, 4))


def mixed_patches(m, x):
    x = m.stem(x)
    patches = m.mix(F.unfold(x, 3, padding=1, stride=2).transpose(1, 2)).transpose(1, 2)
    return F.fold(patches, x.shape[2:], 3, padding=1, stride=2)


def outlook_attention(m, x):
    """Yuan et al. 2022 (VOLO): weights of a patch from its mean, patches added up."""
    x = m.stem(x)
    n, c, h, w = x.shape
    count = h // 2 * w // 2
    patches = F.unfold(x, 3, padding=1, stride=2).reshape(n, 1, c, 9, count).permute(0, 1, 4, 3, 2)
    weights = m.mix(F.avg_pool2d(x, 2, 2).permute(0, 2, 3, 1)).reshape(n, count, 1, 9, 9)
    mixed = weights.permute(0, 2, 1, 3, 4).softmax(-1) @ patches
    columns = mixed.permute(0, 1, 4, 3, 2).reshape(n, c * 9, count)
    return F.fold(columns, (h, w), 3, padding=1, stride=2)


@pytest.mark.parametrize("name", ["mixed", "outlook"])
def test_patches_that_are_added_up(name):
    function, width = {"mixed": (mixed_patches, (36, 36)), "outlook": (outlook_attention, (4, 81))}[
        name
    ]
    model = Net(function, stem=nn.Conv2d(1, 4, 3, padding=1), mix=nn.Linear(*width))
    check(model, (1, 1, 20, 24), [(8, 8), (8, 9), (9, 8), (9, 9)], (2, 3), period=(2, 2))
