"""Advice for an image size, and the overlap of tiles, against enumeration and executed nets."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from networks import NETWORKS, network, unet

from erftheory import (
    Activation,
    Branches,
    Chain,
    Conv,
    ConvTranspose,
    GlobalAvgPool,
    MaxPool,
    Residual,
    Upsample,
    exact,
    exact_units,
    from_jax,
    moments,
    receptive_field,
    zoo,
)
from erftheory.empirical import ones_params
from erftheory.empirical.nets.draw import initialise
from erftheory.empirical.nets.execute import apply
from erftheory.network.graph import Builder, Input, Loop, unrolled
from erftheory.network.imported import GraphNetwork
from erftheory.network.layers import Layer
from erftheory.theory.advice.advise import advise
from erftheory.theory.advice.tiling import tiling
from erftheory.theory.readings.deviations import deviations
from erftheory.theory.readings.extents import centres, smallest_fields

SPEC = ("NHWC", "HWIO", "NHWC")


def test_the_published_range_of_resnet50():
    """75 to 427: the README of the RFA toolbox."""
    advice = advise(zoo.resnet50(), 224)
    assert advice.feasible == ((75, 427), (75, 427))
    assert not advice.unproductive and advice.covered == (406, 406)
    assert "inside" in str(advice)
    assert advise(zoo.resnet50(), 75).unproductive == ()
    assert advise(zoo.resnet50(), 74).unproductive != ()


COVERING = {
    "strided": Chain(Conv(3), MaxPool(2), Conv(3), MaxPool(2), Conv(3), ndim=1),
    "wide strides": Chain(Conv(7, 4, padding=2), Conv(3, 3, padding=1), ndim=1),
    "causal": Chain(Conv(3, padding="causal"), Conv(3, 2, padding="causal"), ndim=1),
    "valid": Chain(Conv(3, padding="valid"), Conv(5, padding="valid"), ndim=1),
    "cropped": Chain(Conv(5), ConvTranspose(1, padding=1), ndim=1),
    "up": Chain(Conv(5, 2), Conv(3), ConvTranspose(3, 2, 1, 1), Conv(3), ndim=1),
}


@pytest.mark.parametrize("name", COVERING)
def test_the_largest_image_that_a_unit_sees_whole(name):
    """By the maps of all units, on images of all sizes."""
    net, found = COVERING[name], 0
    for n in range(1, receptive_field(net).size[0] + 3):
        try:
            maps = [e.map for e in exact_units(net, n, signal="gradient")]
        except ValueError:  # an image too small for a layer, or a unit that reads none of it
            continue
        if any(m[0] and m[-1] for m in maps):
            found = n
    advice = advise(net, 4)
    assert advice.covered == (found,) and found <= advice.feasible[0][1]
    assert "covers it" not in str(advise(net, found + 1))


def test_what_advice_says_of_each_axis_of_outputs_and_of_signed_taps():
    one = advise(zoo.vgg16(), 200)
    assert "none sees more than 186 pixels" in one.lines[2]
    both = advise(zoo.resnet18(), (32, 1000)).lines[2]
    assert "along axis 0 it is smaller" in both and "along axis 1 it is larger" in both
    signed = Chain(Conv(3), Conv(3, taps=[-1, 3, -1]), Conv(3), ndim=1)
    assert "1 of the layers read signed" in advise(signed, 20, signal="gradient").lines[1]

    def heads(x):
        w = lambda k: jnp.ones((k, k, 1, 1))  # noqa: E731
        y = jax.lax.conv_general_dilated(x, w(3), (1, 1), "SAME", dimension_numbers=SPEC)
        return y, jax.lax.conv_general_dilated(y, w(5), (1, 1), "SAME", dimension_numbers=SPEC)

    network = from_jax(heads, jax.ShapeDtypeStruct((1, 16, 16, 1), jnp.float32))
    assert "about '1' alone, the last of 2" in advise(network, 16).lines[-1]


def ends(graph):
    """Each node's network, cut out of the graph."""
    builder = Builder(graph.ndim)
    builder.nodes = list(graph.nodes)
    return [GraphNetwork(builder.finish(i)) for i in range(len(graph.nodes))]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("signal", ["variance", "gradient"])
def test_one_pass_knows_what_each_reading_does(name, signal):
    graph = unrolled(NETWORKS[name].graph)
    found, middles = deviations(GraphNetwork(graph), signal, "he"), centres(graph)
    assert len(found) == len(graph.nodes)
    known = 0
    for i, part in enumerate(ends(graph)):
        if found[i] is not None:
            wanted = moments(part, signal).std
            # gains are those of the whole network, where activations follow a sum
            assert found[i] == pytest.approx(wanted, rel=1e-9, abs=1e-12)
            known += 1
        if i in middles:
            assert middles[i] == pytest.approx(receptive_field(part).center, abs=1e-12)
    rises = any(isinstance(n.op, ConvTranspose | Upsample) for n in graph.nodes)
    assert rises or known == len(graph.nodes)


def test_a_chain_by_hand():
    net = Chain(*(Conv(3).named(f"c{i}") for i in range(1, 6)))  # fields 3, 5, 7, 9, 11
    names = [e.name for e in advise(net, 7).unproductive]
    assert names == ["c4", "c5"]  # c4 reads 7 >= 7, c3 reads 5
    assert [e.name for e in advise(net, 8).unproductive] == ["c5"]
    assert advise(net, 9).feasible == ((10, 11), (10, 11))
    assert "unproductive" in str(advise(net, 8)) and "<li>" in advise(net, 8)._repr_html_()
    # fields as large along one axis only
    flat = advise(net, (100, 7))
    assert not flat.unproductive and "some axis" in flat.lines[0]


def test_the_effective_field_is_spent_by_its_deviation():
    # layer k reads a Gaussian of variance 2k/3; pixels above 4.55 % of its peak, as a cube's side
    for ndim, side in ((1, 4.972), (2, 4.406), (3, 4.007)):
        spent = advise(Chain(*[Conv(3)] * 100, ndim=ndim), 20).spent
        first = min(k for k in range(100) if side * (2 * k / 3) ** 0.5 >= 20)
        assert len(spent) == 100 - first
    deep = exact(Chain(Conv(3), ndim=1) * 600)
    assert deep.size() == pytest.approx(4.972 * deep.std[0], rel=0.02)


@pytest.mark.parametrize("image", [3, 50, 700, 900])
def test_a_long_repetition_says_what_its_rounds_would(image):
    repeated = Chain(Conv(5), Chain(Conv(3), ndim=1) * 400)
    one, each = (advise(net, image) for net in (repeated, Chain(Conv(5), *[Conv(3)] * 400, ndim=1)))
    (entry,) = (e for e in one.layers if e.rounds)
    assert entry.rounds == 400 and one.feasible == each.feasible and one.covered == each.covered
    last = each.layers[-1]
    assert (entry.smallest, entry.reads) == (last.smallest, last.reads)
    assert entry.erf == pytest.approx(last.erf) and entry.by_erf == last.by_erf
    for kind, flag in (("field", "by_field"), ("ERF", "by_erf")):
        first = next((k for k, e in enumerate(each.layers) if getattr(e, flag)), None)
        if first and getattr(entry, flag):
            assert f"by the {kind} from round {first}" in entry.layer


def all_paths(graph, index, rate=1) -> list[int]:
    """Fields of all paths from the input to a node, on one axis."""
    node = graph.nodes[index]
    if isinstance(node.op, Input):
        return [1]
    found = []
    for before in node.inputs:
        step = node.op.step(graph.ndim) if isinstance(node.op, Layer) else None
        grown = [0]
        if isinstance(node.op, Loop):
            inner = all_paths(node.op.graph, len(node.op.graph.nodes) - 1)
            for _ in range(node.op.times):
                grown = [g + i - 1 for g in grown for i in inner]
        elif step is not None:
            grown = [step.dilation[0] * (step.kernel.shape[0] - 1)]
        jump = graph.rates[before][0]
        found += [f + g * jump for f in all_paths(graph, before) for g in set(grown)]
    return sorted(set(found))


@given(network())
@settings(max_examples=25, deadline=None)
def test_the_smallest_field_is_that_of_the_shortest_path(net):
    graph = net.graph
    last = len(graph.nodes) - 1
    assert smallest_fields(graph)[-1][0] == min(all_paths(graph, last))
    assert min(all_paths(graph, last)) <= receptive_field(net).size[0]


def test_findings_are_reported_not_refused():
    misaligned = advise(Branches(MaxPool(2), Conv(3, 2)), 64)
    assert "misaligned" in str(misaligned) and "0.5 input pixels" in str(misaligned)
    assert "misaligned" not in str(advise(Residual(Conv(3) * 2), 64))
    assert "misaligned" not in str(advise(zoo.unet(2), 64))  # centred on the mean of the phases
    gridding = advise(Conv(3, dilation=4) * 2, 64)
    assert "axis 0 an output reads 5 of 17 rows" in str(gridding)
    assert "holes" not in str(advise(Chain(*(Conv(3, dilation=d) for d in (1, 2, 3))), 64))
    for bad in (0, (1, 2, 3), "wide"):
        with pytest.raises(ValueError, match="^image"):
            advise(Conv(3), bad)
    with pytest.raises(ValueError, match="global"):
        advise(Chain(Conv(3), GlobalAvgPool()), 32)


RELU = Activation("relu")
SMALL = Chain(
    Conv(3), RELU, Branches(None, Chain(MaxPool(2), Conv(3), RELU, ConvTranspose(2, 2))), Conv(3)
)
# what comes between shifts and crops that a later layer undoes must lie on the tile as well
CROPPED = Chain(Conv(3), ConvTranspose(1, padding=3), RELU, Conv(1, padding=3), Conv(3))
SKEWED = Chain(Conv(5, padding=((4, 0), (0, 4))), RELU, Conv(5, padding=((0, 4), (4, 0))))
UNEVEN = Chain(Conv(4, 2), Conv(3, padding="causal"), Conv((1, 3), padding="valid"))


@pytest.mark.parametrize(
    "net, tile",
    [(SMALL, 32), (unet(2), 64), (UNEVEN, 32), (CROPPED, 24), (SKEWED, 24)],
    ids=["u", "unet", "uneven", "cropped", "skewed"],
)
def test_tiles_with_the_overlap_of_the_field_equal_the_whole(net, tile):
    """The executed random net on a whole image and on tiles of it; one grid step less is seen."""
    plan = tiling(net, tile, image=64)
    params = initialise(net, jax.random.key(0), 2)
    x = jax.random.normal(jax.random.key(1), (params.in_channels, tile + 48, tile + 48))
    run = jax.jit(lambda v: apply(net, params, v))
    whole = np.asarray(run(x))
    rate = [float(r) for r in net.graph.rate]
    start = tuple(g * (24 // g) for g in plan.grid)
    part = np.asarray(run(x[:, start[0] : start[0] + tile, start[1] : start[1] + tile]))

    def apart(valid) -> float:
        out = [int(s / r) for s, r in zip(start, rate)]
        (a, b), (c, d) = valid
        d, b = min(d, part.shape[2]), min(b, part.shape[1])
        left = whole[:, out[0] + a : out[0] + b, out[1] + c : out[1] + d]
        return float(np.abs(left - part[:, a:b, c:d]).max())

    assert apart(plan.exact.valid) <= 1e-5
    for axis in range(2):
        for side in range(2):
            if plan.exact.margin[axis][side] == 0:
                continue
            step = int(plan.grid[axis] / rate[axis])
            wider = [list(v) for v in plan.exact.valid]
            wider[axis][side] += step if side else -step
            if wider[axis][1] <= part.shape[axis + 1]:
                assert apart(wider) > 1e-4, (axis, side)


def test_aligned_corners_have_no_tiles_and_no_verdict_on_alignment():
    net = Chain(
        Branches(None, Chain(MaxPool(2), Conv(3), Upsample(2, "bilinear", True))), Conv(3)
    )
    with pytest.raises(ValueError, match="network: got interpolation with aligned corners"):
        tiling(net, 32)
    said = str(advise(net, 32))
    assert "aligned corners" in said and "misaligned" not in said


BACK = Chain(Conv(9, taps=[1.0] + [0.0] * 8), Conv(9, taps=[0.0] * 8 + [1.0]))
LOSING = {
    "deep, one output a tile": (Conv(3) * 60, 43, 0.99),
    "wide core": (Conv(3) * 30, 128, 0.999),
    "there and back": (BACK, 64, 0.999),
    "causal": (Conv(2, padding="causal") * 40, 64, 0.9),
    "strided": (Chain(Conv(4, 2), Conv(3) * 10, Conv(3, 2), Conv(5)), 128, 0.95),
    "u": (Chain(Conv(3) * 4, Branches(None, Chain(Conv(3, 2), Conv(3) * 6, ConvTranspose(4, 2, 1))),
                Conv(3)), 64, 0.95),
    "uneven phases": (Chain(Conv(3, 2), Conv(3) * 5, ConvTranspose(3, 2, 1, 1), Conv(3)), 64, 0.97),
    "signed": (Conv(3, taps=[-1.0, 3.0, -1.0]) * 6, 48, 0.99),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSING)
def test_a_tile_loses_what_is_said_and_a_smaller_margin_too_much(name):
    """Gradients of the all-ones net on the tile, beside those on an image around it."""
    part, tile, mass = LOSING[name]
    net = Chain(part, ndim=1)
    plan = tiling(net, tile, mass, "gradient", None)
    params, (rate,), (g,) = ones_params(net), net.graph.rate, plan.grid
    around = -(-receptive_field(net).size[0] // g + 1) * g

    def gradients(n):
        x = jnp.zeros((params.in_channels, n))
        found = jax.jit(jax.jacrev(lambda v: apply(net, params, v).sum(axis=0)))(x).sum(axis=1)
        return np.asarray(found, np.float64)

    whole, own = gradients(tile + 2 * around), gradients(tile)
    shift = int(around / rate)
    whole = whole[shift : shift + len(own)]
    kept = np.pad(own, ((0, 0), (around, around)))
    lost = np.abs(whole - kept).sum(axis=1) / np.abs(whole).sum(axis=1)
    ((first, end),), ((before, after),) = plan.effective.valid, plan.effective.margin
    assert lost[first:end].max() == pytest.approx(plan.effective.lost, rel=1e-3, abs=1e-6)
    assert plan.effective.lost <= 1 - mass
    step = int(g / rate)
    wider = lost[first - step * (before > 0) : end + step * (after > 0)]
    assert before + after and wider.max() > 1 - mass


def test_every_phase_and_corner_keeps_its_mass():
    """The variance signal of a net in two dimensions, at all outputs that are kept."""
    for net, tile in ((SMALL, 24), (UNEVEN, 32)):
        plan = tiling(net, tile, 0.97)
        units = [range(*valid) for valid in plan.effective.valid]
        chosen = [(i, j) for i in units[0] for j in units[1]]
        lost = [e.metadata["lost"] for e in exact_units(net, tile, chosen)]
        assert max(lost) == pytest.approx(plan.effective.lost, abs=1e-9) and max(lost) <= 0.03


def test_margins_of_signed_taps_are_those_of_the_map():
    """Their sums along a row may cancel where the pixels do not."""
    taps = np.zeros((5, 5))
    taps[[0, 0, 4, 4], [0, 4, 0, 4]], taps[2, 2] = [1, -1, 1, -1], 3
    plan = tiling(Conv(5, taps=taps.tolist()), 16, 0.9, signal="gradient")
    assert plan.effective.margin == ((2, 2), (2, 2))


def test_several_outputs_get_margins_for_each():
    def heads(x):
        w = lambda k: jnp.ones((k, k, 1, 1))  # noqa: E731
        conv = lambda v, k, s: jax.lax.conv_general_dilated(  # noqa: E731
            v, w(k), (s, s), "SAME", dimension_numbers=SPEC
        )
        return conv(conv(x, 5, 1), 9, 1), conv(x, 3, 4), conv(x, 3, 1)

    network = from_jax(heads, jax.ShapeDtypeStruct((1, 32, 32, 1), jnp.float32))
    plan = tiling(network, 32)
    wide = tiling(network.until("0"), 32)
    assert plan.grid == (4, 4) and wide.exact.needed == plan.exact.needed == ((6, 6), (6, 6))
    assert plan.exact.margin == ((8, 8), (8, 8))


def test_known_tilings():
    plan = tiling(Conv(3) * 6, 32, image=100)
    assert plan.exact.needed == ((6, 6), (6, 6)) and plan.overlap == (12, 12)
    assert plan.exact.core == (20, 20) and plan.exact.valid == ((6, 26), (6, 26))
    assert plan.exact.efficiency == pytest.approx((20 / 32) ** 2)
    assert plan.exact.tiles == 25  # (100 − 32) / 20 -> 4 more an axis
    unet = tiling(zoo.unet(2), 128)
    assert unet.grid == (4, 4)
    assert "before+after" in str(unet) and "<br>" in unet._repr_html_()
    small = tiling(zoo.unet(2), 44)  # the field needs 24 on each side
    assert small.exact is None
    with pytest.raises(ValueError, match="^tile: got .*too small"):
        small.overlap  # noqa: B018


def test_tiles_that_do_not_work_are_refused_in_one_line():
    for net, tile, message in (
        (zoo.unet(2), 30, "^tile: got 30 on axis 0.*; takes 28 or 32, the nearest"),
        (zoo.unet(2), 16, r"^tile: got 16 x 16; takes at least \d+ x \d+ pixels"),
        (Chain(Conv(3), GlobalAvgPool()), 32, "global"),
        (Conv(3), (8, 8, 8), "^tile: got"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            tiling(net, tile)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="^mass"):
        tiling(Conv(3), 8, mass=1.0)
    with pytest.raises(ValueError, match="^signal: got 'magnitude'"):
        tiling(Conv(3), 8, signal="magnitude")
    with pytest.raises(ValueError, match="^tile: got 8; takes at least") as error:
        tiling(Chain(Conv(3), ndim=1) * 40, 8)
    least = int(str(error.value).split("at least ")[1].split()[0])
    assert tiling(Chain(Conv(3), ndim=1) * 40, least).effective.core == (1,)
    with pytest.raises(ValueError, match="^tile"):
        tiling(Chain(Conv(3), ndim=1) * 40, least - 1)
