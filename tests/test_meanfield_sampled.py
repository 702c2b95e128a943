"""The mean-field pass against wide random nets, run and pulled back by hand in NumPy."""

import math
from functools import partial

import numpy as np
import pytest
from test_meanfield import fresh_ratios

from erftheory.network.base import Chain
from erftheory.network.combine import Branches, Residual
from erftheory.network.graph import Concat, Sum
from erftheory.network.layers import (
    Activation,
    BatchNorm,
    Conv,
    Dropout,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    Norm,
    RMSNorm,
)
from erftheory.theory.gains.forward import meanfield_gains
from erftheory.theory.walk.links import transfer

BN, RELU = BatchNorm(), Activation("relu")
ONE, TANH, DROPPED = Conv(1), Activation("tanh"), Dropout(0.4)


def run_by_hand(graph, width, inputs, rng):
    """Values of one net of 1×1 convolutions, and per node the pull-back of a gradient."""
    values: list = [rng.standard_normal((width, inputs))]
    back: list = [None]
    for node in graph.nodes[1:]:
        op, xs = node.op, [values[i] for i in node.inputs]
        x = xs[0]
        if isinstance(op, Conv):
            w = rng.standard_normal((op.channels or width, len(x))) * math.sqrt(2 / len(x))
            y, pull = w @ x, partial(lambda w, g: [w.T @ g], w)
        elif isinstance(op, RMSNorm):
            sd = np.sqrt(np.mean(x * x, 0, keepdims=True))
            y = x / sd
            pull = partial(pull_rms, y, sd)
        elif isinstance(op, Norm):  # channels and pixels, as what shares a mean and a variance
            fold = folded(op, x.shape)
            z = x.reshape(fold).reshape(fold[0], -1) if not isinstance(op, LayerNorm) else x.T
            sd = z.std(1, keepdims=True)
            z = (z - z.mean(1, keepdims=True)) / sd
            back_to = (lambda v: v.T) if isinstance(op, LayerNorm) else (
                lambda v, shape=x.shape: v.reshape(shape))  # fmt: skip
            to = (lambda v: v.T) if isinstance(op, LayerNorm) else (
                lambda v, rows=fold[0]: v.reshape(rows, -1))  # fmt: skip
            y = back_to(z)
            pull = partial(
                lambda z, sd, to, back_to, g: [back_to(pull_norm(z, sd, to(g))[0])],
                z, sd, to, back_to,
            )  # fmt: skip
        elif isinstance(op, Activation):
            slope = (x > 0) * 1.0 if op.name == "relu" else 1 - np.tanh(x) ** 2
            y = np.maximum(x, 0) if op.name == "relu" else np.tanh(x)
            pull = partial(lambda slope, g: [g * slope], slope)
        elif isinstance(op, Dropout):
            mask = (rng.random(x.shape) >= op.rate) / (1 - op.rate)
            y, pull = x * mask, partial(lambda mask, g: [g * mask], mask)
        elif isinstance(op, Sum):
            y, pull = sum(xs), partial(lambda count, g: [g] * count, len(xs))
        else:
            assert isinstance(op, Concat)
            y = np.concatenate(xs)
            pull = partial(lambda cuts, g: np.split(g, cuts), np.cumsum(list(map(len, xs)))[:-1])
        values.append(y)
        back.append(pull)
    return values, back


def folded(op, shape):
    """Rows that share statistics: channels, or groups of them."""
    return (op.groups if isinstance(op, GroupNorm) else shape[0], -1)


def pull_rms(y, rms, g):
    return [(g - y * (g * y).mean(0, keepdims=True)) / rms]


def pull_norm(y, sd, g):
    return [(g - g.mean(1, keepdims=True) - y * (g * y).mean(1, keepdims=True)) / sd]


def pull_back(graph, back, grads, top, stop=0):
    """Gradients of all nodes from those given, for nodes top … stop."""
    for index in range(top, stop, -1):
        if index in grads:
            pulled = back[index](grads[index])
            for i, g in zip(graph.nodes[index].inputs, pulled, strict=True):
                grads[i] = grads.get(i, 0) + g
    return grads


def sampled_power(graph, width, inputs, rng):
    """Power at the input over power at the output."""
    values, back = run_by_hand(graph, width, inputs, rng)
    last = len(values) - 1
    start = rng.standard_normal(values[-1].shape)
    grads = pull_back(graph, back, {last: start}, last)
    return [np.mean(grads[0] ** 2) / np.mean(start**2)]


def sampled_ratios(graph, width, inputs, rng):
    """At each residual sum, power through the branch over power through the identity."""
    values, back = run_by_hand(graph, width, inputs, rng)
    last = len(values) - 1
    grads = pull_back(graph, back, {last: rng.standard_normal(values[-1].shape)}, last)
    found = []
    for index, node in enumerate(graph.nodes):
        if isinstance(node.op, Sum):
            branch, fork = node.inputs
            start = {branch: grads[index]}
            through = pull_back(graph, back, start, branch, fork)[fork]
            found.append(np.mean(through**2) / np.mean(grads[index] ** 2))
    return found


PLAIN = {
    "relu": Chain(ONE, RELU, ONE, RELU, ONE),
    "relu then norm": Chain(ONE, RELU, ONE, RELU, ONE, BN, RELU, BN, ONE),
    "tanh then norm": Chain(ONE, TANH, ONE, TANH, ONE, BN),
    "pre-activation": Chain(*[Residual(Chain(BN, RELU, ONE))] * 3),
    "post-activation": Chain(
        ONE, BN, RELU, *[Chain(Residual(Chain(ONE, BN, RELU, ONE, BN)), RELU)] * 2
    ),
    "tanh trunk": Chain(ONE, BN, *[Chain(Residual(Chain(ONE, BN)), TANH)] * 3),
    "sum read twice": Chain(
        ONE, BN, RELU, Residual(Chain(ONE, BN)), Residual(Chain(RELU, ONE, BN)), RELU
    ),
    "dropout then relu": Chain(ONE, BN, DROPPED, Residual(Chain(ONE, BN)), RELU),
    "dense": Chain(
        ONE, *[Branches(None, Chain(BN, RELU, Conv(1, channels=192)))] * 2, BN, RELU, ONE
    ),
}
RESIDUAL = {
    "pre-activation": Chain(*[Residual(Chain(BN, RELU, ONE, BN, RELU, ONE))] * 3),
    "post-activation": Chain(
        ONE, BN, RELU, *[Chain(Residual(Chain(ONE, BN, RELU, ONE, BN)), RELU)] * 3
    ),
    "no norm in the trunk": Chain(
        ONE, *[Residual(Chain(ONE, RELU, ONE))] * 2, *[Residual(Chain(BN, ONE, RELU, ONE))] * 2
    ),
    "tanh trunk": Chain(ONE, BN, *[Chain(Residual(Chain(ONE, BN)), TANH)] * 3),
}


# the same blocks with the norms that look across channels, 192 of them; a few rectified channels
# in one group are left out: their means tell their variances, which the law does not know (6 %)
NORMS = {
    "instance": InstanceNorm(), "layer": LayerNorm(), "rms": RMSNorm(), "one group": GroupNorm(1),
    "pairs": GroupNorm(96), "fours": GroupNorm(48), "sixes": GroupNorm(32),
    "single channels": GroupNorm(192),
}  # fmt: skip
for _name, _norm in NORMS.items():
    if _name not in ("pairs", "fours", "sixes"):
        PLAIN[f"{_name}, behind relu"] = Chain(ONE, RELU, ONE, _norm, RELU, _norm, ONE, TANH, ONE)
    RESIDUAL[f"{_name}, post-activation"] = Chain(
        ONE, _norm, RELU, *[Chain(Residual(Chain(ONE, _norm, RELU, ONE, _norm)), RELU)] * 2
    )
    RESIDUAL[f"{_name}, pre-activation"] = Chain(*[Residual(Chain(_norm, RELU, ONE))] * 3)
WIDE = Branches(None, Chain(Conv(1, channels=192), RELU))
PLAIN["concatenated, layer"] = Chain(
    ONE, RELU, WIDE, Residual(Chain(LayerNorm(), Conv(1, channels=384))),
)  # fmt: skip
PLAIN["concatenated, groups that meet"] = Chain(
    ONE, Branches(None, Chain(Conv(1, channels=96), RELU)),
    Residual(Chain(GroupNorm(2), Conv(1, channels=288))),
)  # fmt: skip


def compare(found, wanted, width):
    """Batch means over independent nets; the width's own bias is a few times 1/width."""
    found = np.array(found)
    error = found.std(0, ddof=1) / math.sqrt(len(found))
    wanted = np.array(wanted, float)
    assert np.all(error < 0.025 * wanted)  # what the comparison can see
    assert np.all(np.abs(found.mean(0) - wanted) < 4 * error + 3 / width * wanted)


@pytest.mark.parametrize("name", list(PLAIN))
def test_sampled_power_agrees(name):
    graph, width, rng = PLAIN[name].graph, 192, np.random.default_rng(20)
    # batch norms of few inputs raise the power by about 3/inputs each
    inputs = 800 if name in ("post-activation", "tanh trunk") else 160
    found = [sampled_power(graph, width, inputs, rng) for _ in range(20)]
    gains = meanfield_gains(graph, channels=width)
    assert gains.channels[0] == (width,)
    compare(found, [float(transfer(graph, gains))], width)


@pytest.mark.parametrize("name", list(RESIDUAL))
def test_sampled_residual_ratios_agree(name):
    graph, width, rng = RESIDUAL[name].graph, 192, np.random.default_rng(21)
    # statistics over channels differ from net to net
    nets = 36 if name.startswith(("layer", "rms", "one group")) else 16
    found = [sampled_ratios(graph, width, 160, rng) for _ in range(nets)]
    compare(found, fresh_ratios(RESIDUAL[name], channels=width), width)
