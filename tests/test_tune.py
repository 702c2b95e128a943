"""Descent to a wanted ERF, judged by exact moments and maps of the network that results."""

from __future__ import annotations

import numpy as np
import pytest
from networks import NETWORKS

from erftheory import (
    Activation,
    Chain,
    Conv,
    MaxPool,
    Residual,
    exact,
    init,
    moments,
    receptive_field,
    tune,
    zoo,
)
from erftheory.designing.changing import rewritten
from erftheory.designing.shapes import flatness
from erftheory.designing.tuning import orbits
from erftheory.network.graph import unrolled

TWO = Chain(Conv(3), Activation("relu"), Conv(3), ndim=2)
BLOCK = Residual(Chain(Conv(3, channels=8), Activation("relu"), Conv(3, channels=8))).named("b")
BLOCKS = Chain(Conv(3, channels=8), BLOCK * 3, ndim=2)


def test_out_of_reach_taps_go_to_a_light_centre_and_a_heavy_rim():
    """Luo et al. 2016, section 4; beyond their ring, the corners alone are widest."""
    found = tune(TWO, 5)
    assert moments(found.network).std == pytest.approx((2**0.5,) * 2, rel=1e-4)
    rim = np.array(init.rim_taps(3, 1), dtype=float)
    ring = Chain(Conv(3, taps=rim.tolist()), Conv(3, taps=rim.tolist()), ndim=2)
    assert moments(TWO).std[0] < moments(ring).std[0] < found.std[0]
    for taps in found.taps.values():
        assert taps.sum() == pytest.approx(1) and (taps >= 0).all()
        assert taps[1, 1] < 1e-3 and taps[rim > 0].sum() > 0.999
        assert taps[::2, ::2] == pytest.approx(np.full((2, 2), 0.25), abs=1e-3)
    assert found.after == pytest.approx(5 - 2**0.5, rel=1e-4)
    assert "was" in str(found) and "<table>" in found._repr_html_()


@pytest.mark.parametrize(
    "network, std, by",
    [
        (TWO, 1.0, "taps"),
        (TWO, (1.0, 1.3), "taps"),
        (BLOCKS, 2.1, "taps"),
        (BLOCKS, 1.5, "skips"),
        (BLOCKS, 2.2, "both"),
        (Chain(Conv(7, 2), MaxPool(2), Conv((3, 5), taps=[[1, 2, 3, 2, 1]] * 3)), 4.2, "taps"),
    ],
)
def test_a_deviation_within_reach_is_met(network, std, by):
    found = tune(network, std, by)
    assert moments(found.network).std == pytest.approx(np.broadcast_to(std, 2), abs=1e-3)
    assert found.before == pytest.approx(np.abs(np.array(moments(network).std) - std).max())
    assert receptive_field(found.network).size == receptive_field(network).size
    assert bool(found.taps) == (by != "skips") and bool(found.gains) == (by != "taps")
    assert len(found.network.graph.nodes) >= len(network.graph.nodes)


def test_symmetries_stay():
    taps = [[0, 1, 0], [2, 3, 2], [0, 1, 0]]
    found = tune(Chain(Conv(3, taps=taps), ndim=2), (0.5, 0.5)).taps["#1"]
    assert (found[::2, ::2] == 0).all()
    assert (found == found[::-1]).all() and (found == found[:, ::-1]).all()
    assert np.unique(orbits(np.ones((3, 3)))).tolist() == [0, 1, 2]
    assert np.unique(orbits(np.ones((5, 3)))).size == 6
    assert np.unique(orbits(np.arange(1, 10).reshape(3, 3))).size == 9


def test_a_flat_field_and_a_gaussian():
    chain = Chain(Conv(5), Conv(5), Conv(5), ndim=1)
    flat = tune(chain, {"flat": 4})
    assert flat.after == pytest.approx(flatness(exact(flat.network), 4))
    assert flat.after < 0.1 < 0.18 < flat.before
    bell = tune(chain, {"gaussian": 1.5})
    assert bell.after < 0.03 < 0.25 < bell.before
    assert moments(bell.network).std[0] == pytest.approx(1.5, rel=0.08)


@pytest.mark.parametrize("name", [*NETWORKS, *zoo.names()])
def test_rewriting_nothing_changes_nothing(name):
    """And operations are numbered as the nodes of the graph that is written out."""
    net = NETWORKS[name] if name in NETWORKS else zoo.get(name)
    seen, graph = {}, unrolled(net.graph)

    def same(at, op):
        seen[at] = op
        return op

    assert rewritten(net, lambda at, op: op).graph == net.graph
    assert unrolled(rewritten(net, same, apart=True).graph) == graph
    assert list(seen) == list(range(1, len(graph.nodes)))
    for at, op in seen.items():
        assert type(op) is type(graph.nodes[at].op)


def test_equal_rounds_stay_one():
    assert rewritten(BLOCKS, lambda at, op: op, apart=True) == BLOCKS
    some = rewritten(BLOCKS, lambda at, op: Conv(5, channels=8) if at == 6 else op, apart=True)
    assert len(some.parts[1].parts) == 3 and receptive_field(some).size == (17, 17)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(target=0), "target: got 0; takes pixels > 0"),
        (dict(target={"flat": 2, "std": 3}), "target: got .*; takes a deviation in pixels, or one"),
        (dict(target={"size": 2}), "target: got .*; takes a deviation in pixels, or one"),
        (dict(target=(1, 2, 3)), "target: got .*; takes a number, or of a deviation 2"),
        (dict(target={"flat": (1, 2)}), "target: got .*; takes a number"),
        (dict(target=2, by="gains"), "by: got 'gains'; takes one of"),
        (dict(target=2, by="skips"), "by: got 'skips' of a network without any"),
        (dict(target=2, steps=0), "steps: got 0; takes"),
    ],
)
def test_bad_targets_in_one_line(options, message):
    with pytest.raises(ValueError, match=f"^{message}") as error:
        tune(TWO, **options)
    assert "\n" not in str(error.value)
