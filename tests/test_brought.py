"""Shapes of models that people bring: the field of every phase is what the executed model reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reached import Net, torch_reached
from torch import nn

from erftheory import exact, from_torch, receptive_field


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


def gated(m, x):
    """Squeeze and excitation on one of two branches; its gate is a constant for the gradient."""
    x = m.stem(x)
    a = m.narrow(x)
    gate = torch.sigmoid(m.gate(a.mean(-1)))
    return m.last(a * (gate.detach() if m.training else gate)[..., None] + m.wide(x))


def test_a_gate_that_is_held_halves_its_branch():
    """Random gates are near 1/2 (their root mean square 0.51): mass at the sides, in 1,500 nets.

    As 1, the gate would give 0.16 to the outer 4 of 7 pixels; the bound is 5 standard errors.
    """
    c = 32
    model = Net(gated, stem=nn.Conv1d(1, c, 3, padding=1), narrow=nn.Conv1d(c, c, 1),
                gate=nn.Linear(c, c), wide=nn.Conv1d(c, c, 5, padding=2),
                last=nn.Conv1d(c, c, 1))  # fmt: skip
    network = from_torch(model.eval(), torch.zeros(1, 1, 33), hold="global")
    predicted = exact(network, image=33).map[13:20]
    assert predicted == pytest.approx(np.array([4, 8, 17, 17, 17, 8, 4]) / 75)
    torch.manual_seed(1)
    model.train()
    squares = np.zeros((1500, 7))
    for row in squares:
        for p in model.parameters():
            nn.init.zeros_(p) if p.ndim == 1 else nn.init.kaiming_normal_(p, nonlinearity="relu")
        x = torch.randn(1, 1, 33, requires_grad=True)
        y = model(x)[0, :, 16]
        (g,) = torch.autograd.grad((y * torch.randn(c).sign()).sum(), x)
        row += g[0, 0, 13:20].numpy() ** 2
    outer, total = squares[:, [0, 1, 5, 6]].sum(1), squares.sum(1)
    share = outer.sum() / total.sum()
    error = (outer - share * total).std() / total.mean() / len(total) ** 0.5
    assert abs(share - predicted[[0, 1, 5, 6]].sum()) < 5 * error


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
