"""The fields of all output phases in one pass, beside one pass a phase."""

from __future__ import annotations

import itertools
import time

import pytest
from networks import NETWORKS

from erftheory import (
    Branches,
    Chain,
    Conv,
    ConvTranspose,
    MaxPool,
    Upsample,
    receptive_field,
    zoo,
)
from erftheory.theory.lowering.lowering import build
from erftheory.theory.readings.receptive_field import IntervalAlgebra

DOWN_UP = Chain(Conv(3), Conv(3, (2, 3)), Conv(3), ConvTranspose((2, 3), (2, 3), 0))
EMPTY = {
    "holes": ConvTranspose(1, 3),
    "holes on one axis": ConvTranspose((1, 3), (2, 2), (0, 1)),
    "holes beside a path": Branches(Upsample(2), ConvTranspose(1, 2, 0, 1)),
    "paths with holes": Branches(
        Chain(Conv(3), ConvTranspose((1, 2), (2, 2), 0, (1, 0))),
        Chain(Conv(5), ConvTranspose((2, 1), (2, 2), 0, (0, 1))),
    ),
    "paths and a hole": Chain(
        Branches(Chain(MaxPool(2), Conv(1), ConvTranspose(1, 2, 0, 1)), Conv(3)), Conv((1, 3))
    ),
    "three axes": Chain(
        Branches(Chain(Conv(3, 2), ConvTranspose(1, 2, 0, 1)), None), Conv(3), ndim=3
    ),
    "nothing": Chain(
        ConvTranspose(1, 2, 0, 1), Conv(1, 2, padding=0), ConvTranspose(1, 2, (1, 1), 0), ndim=2
    ),
    "long": Chain(DOWN_UP, Conv(3) * 10**6),
    "beyond 64 bits": Chain(DOWN_UP, Chain(Conv(3), ndim=2) * 10**21),
}


@pytest.mark.parametrize("net", [*NETWORKS.values(), *EMPTY.values()], ids=[*NETWORKS, *EMPTY])
def test_phases_are_those_of_single_passes(net):
    walk, field = build(net, "gradient"), receptive_field(net)
    phases = list(itertools.product(*map(range, walk.phases)))
    assert len(field.phases) == len(phases)
    spans, aligned = [], []
    for phase, found in zip(phases, field.phases):
        algebra = IntervalAlgebra()
        span = algebra.fold(walk, tuple(u * j for u, j in zip(phase, walk.jump)))
        aligned.append(algebra.aligned)
        assert found.aligned == algebra.aligned
        if span is None:
            assert found.size == (0,) * net.ndim and found.lookback == ()
            continue
        pixels = [(first // f, last // f) for (first, last), f in zip(span, walk.fine)]
        spans.append((phase, pixels))
        assert found.size == tuple(b - a + 1 for a, b in pixels)
        assert found.padding == tuple(-a for a, _ in pixels)
        own = [r * u for r, u in zip(net.graph.rate, phase)]
        assert found.lookback == tuple(o - a for o, (a, _) in zip(own, pixels))
        assert found.lookahead == tuple(b - o for o, (_, b) in zip(own, pixels))
    sizes = [f.size for f in field.phases]
    assert field.size == tuple(map(max, zip(*sizes))) and field.aligned == all(aligned)
    base = sizes[0] if sizes[0] == field.size else max(sizes)
    assert field.padding == field.phases[sizes.index(base)].padding
    read = [f for f in field.phases if f.lookback]
    for side in ("lookback", "lookahead"):
        wanted = tuple(map(max, zip(*(getattr(f, side) for f in read))))
        assert getattr(field, side) == wanted
    ways = [[(a - b) / 2 for b, a in zip(f.lookback, f.lookahead)] for f in read]
    for found, line in zip(field.phases.middle(), zip(*ways)):
        assert found == pytest.approx(float(sum(line) / len(line)), rel=1e-12, abs=1e-12)


def test_phases_are_a_sequence_made_when_asked_for():
    started = time.perf_counter()
    field = receptive_field(Chain(zoo.unet(5), ndim=3))
    assert time.perf_counter() - started < 0.5 and len(field.phases) == 32**3
    assert field.phases[-1] == field.phases[32**3 - 1]
    assert field.phases[:2] == (field.phases[0], field.phases[1])
    with pytest.raises(IndexError):
        field.phases[32**3]
    small = receptive_field(zoo.unet(1)).phases
    assert small == tuple(small) == receptive_field(zoo.unet(1)).phases
    assert hash(small) == hash(tuple(small)) and "padding=" in repr(small)
