"""Design: the front is that of trying every network, known designs are found, bounds are proved."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from designs import brute, fits, networks, question, read
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from erftheory import Chain, Conv, MaxPool, Residual, exact, moments, receptive_field
from erftheory.designing.chains import Table
from erftheory.designing.costs import of_network
from erftheory.designing.design import design
from erftheory.designing.shapes import Goal, Spread, _spread, radii
from erftheory.designing.spaces import check_space

HALF = Fraction(1, 2)
SPACES = {
    "strides and widths": dict(
        erf=6,
        image=33,
        allowed=dict(
            kernels=(3, 5), strides=(1, 2), dilations=(1, 2), depth=(1, 3), channels=(8, 16)
        ),
    ),
    "separable layers and pools": dict(
        erf=6,
        image=32,
        cost="parameters",
        allowed=dict(
            kernels=(2, 3), strides=(1, 2), depth=(2, 3), channels=(8, 16), separable=(False, True),
            pools=((2, 2), (3, 2)),
        ),
    ),
    "causal skips": dict(
        erf=4,
        image=32,
        cost="memory",
        allowed=dict(
            kernels=(2, 3), dilations=(1, 2), depth=(1, 3), channels=8, inputs=8,
            skip=("none", "residual"), gain=HALF, ndim=1, padding="causal", pools=((2, 2),),
        ),
    ),
    "a budget and a field": dict(
        erf=5,
        image=32,
        budget=400_000,
        field=(10, 21),
        allowed=dict(kernels=(3, 4), dilations=(1, 3), depth=(1, 3), channels=8, strides=(1, 2)),
    ),
    "look-back and latency": dict(
        image=64,
        lookback=(9, None),
        latency=(None, 12),
        allowed=dict(kernels=(2, 4), dilations=(1, 3), depth=(1, 3), ndim=1, strides=(1, 2)),
    ),
    "no holes": dict(
        erf=4,
        image=64,
        field=(9, 25),
        gridding=False,
        allowed=dict(kernels=3, dilations=(1, 2, 3, 5), depth=(1, 3), ndim=1, strides=(1, 2)),
    ),
    "no holes behind skips": dict(
        erf=4,
        image=64,
        gridding=False,
        allowed=dict(
            kernels=(2, 3), dilations=(1, 3), depth=(1, 3), channels=4, inputs=4,
            skip=("none", "residual"), ndim=1, padding="causal",
        ),
    ),
    "flat": dict(
        erf={"flat": 6},
        image=64,
        allowed=dict(kernels=(2, 3), dilations=(1, 2, 3), depth=(1, 3), ndim=1, strides=(1, 2)),
    ),
    "flat behind causal skips": dict(
        erf={"flat": 4},
        cost="parameters",
        allowed=dict(
            kernels=(2, 3), dilations=(1, 2), depth=(1, 3), ndim=1, skip=("none", "residual"),
            channels=4, inputs=4, padding="causal", gain=3,
        ),
    ),
    "Gaussian": dict(
        erf={"gaussian": 2.5},
        image=64,
        allowed=dict(kernels=(2, 3), dilations=(1, 2), depth=(1, 3), strides=(1, 2)),
    ),
    "mass radius": dict(
        erf={"mass_radius": 5},
        image=64,
        stride=(1, 2),
        allowed=dict(kernels=(2, 3), dilations=(1, 2), depth=(1, 3), strides=(1, 2)),
    ),
    "mass radius behind skips": dict(
        erf={"mass_radius": 4},
        image=64,
        allowed=dict(
            kernels=(2, 3), dilations=(1, 2), depth=(1, 2), channels=4, inputs=4,
            skip=("none", "residual"),
        ),
    ),
}  # fmt: skip


def pairs(front):
    return [(row.cost, row.distance) for row in front]


@pytest.mark.parametrize("name", SPACES)
def test_front_is_that_of_every_network(name):
    front = design(**SPACES[name])
    expected, count = brute(**SPACES[name])
    assert pairs(front) == expected
    assert front.networks == count <= 10_000
    query = question(**SPACES[name])
    for row in front:  # what a row says is what its network has
        found = read(query, row.network)
        assert fits(query, found) and found["cost"] == row.cost
        assert row.field == found["field"] and row.stride == found["stride"]
        assert (row.lookback, row.latency) == (found["lookback"], found["latency"])
        assert row.std == moments(row.network).std[0]
        holes = exact(row.network).holes
        line = holes if holes is None or holes.ndim == 1 else holes.all(axis=1)
        assert row.holes == (0 if line is None else line.sum())


DRAWN = st.fixed_dictionaries(
    {
        "kernels": st.sets(st.integers(1, 5), min_size=1, max_size=2),
        "depth": st.sampled_from([(1, 2), (2, 2), (1, 3)]),
        "strides": st.sampled_from([1, (1, 2), 2, (1, 3)]),
        "dilations": st.sampled_from([1, (1, 2), 3]),
        "skip": st.sampled_from(["none", ("none", "residual"), "residual"]),
        "gain": st.sampled_from([1, HALF, 4]),
        "pools": st.sampled_from([(), ((2, 2),)]),
        "padding": st.sampled_from(["same", "causal"]),
        "channels": st.sampled_from([3, (3, 5)]),
        "ndim": st.sampled_from([1, 2]),
    }
)


def outcome(function, asked):
    try:
        return function(**asked)
    except ValueError as error:
        return str(error)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    DRAWN,
    st.sampled_from([None, 0, 1.5, 4]),
    st.sampled_from(["macs", "parameters", "memory"]),
    st.sampled_from([None, (5, None), (None, 9), 7]),
    st.sampled_from([None, (None, 3)]),
    st.booleans(),
    st.sampled_from([None, 2000]),
)
def test_front_of_drawn_spaces(allowed, erf, cost, field, latency, gridding, budget):
    asked = dict(
        erf=erf, image=9, cost=cost, field=field, latency=latency, gridding=gridding,
        budget=budget, allowed=allowed,
    )  # fmt: skip
    if check_space(allowed).count(9) > 700:
        return
    found, (expected, _) = outcome(design, asked), brute(**asked)
    if isinstance(found, str):
        assert expected == [] and "takes" in found
    else:
        assert pairs(found) == expected


# What nothing fits, and the least that lets something fit, by brute force.
TIGHT = dict(
    erf=3, image=16, allowed=dict(kernels=3, dilations=(1, 2), depth=(1, 3), channels=4, ndim=1)
)


def least(name, value, **asked):
    query = question(**asked)
    rows = [read(query, n) for n in networks(query)]
    return min(abs(value(r)) for r in rows if fits(query, r, (name,)))


@pytest.mark.parametrize(
    "name, asked",
    [
        ("field", dict(field=(40, 50))),
        ("lookback", dict(lookback=(30, None))),
        ("latency", dict(latency=(20, None))),
        ("stride", dict(stride=4)),
        ("budget", dict(budget=10)),
    ],
)
def test_what_to_relax_and_by_how_much(name, asked):
    asked = {**TIGHT, **asked}
    query = question(**asked)
    gap = {
        "budget": lambda r: max(0, r["cost"] - query.budget),
    }.get(name, lambda r: getattr(query, name).gap(r[name]))
    by = least(name, gap, **asked)
    with pytest.raises(ValueError, match=f"^{name}: got .*; takes .*{by}") as error:
        design(**asked)
    assert "\n" not in str(error.value)
    if name == "budget":
        assert len(design(**{**asked, "budget": query.budget + by})) == 1
        with pytest.raises(ValueError, match="budget"):
            design(**{**asked, "budget": query.budget + by - 1})


def test_every_bound_that_is_enough_alone_is_named():
    wide = {**TIGHT, "field": 13, "budget": 600, "allowed": {**TIGHT["allowed"], "dilations": 2}}
    with pytest.raises(ValueError) as error:
        design(**wide)
    assert str(error.value) == (
        "field: got 13 pixels; takes 5, its least 8 lower, or budget: got 600 MACs; takes 2,112, "
        "1,512 more (no allowed network keeps all bounds)"
    )
    holes = {**TIGHT, "gridding": False, "field": (5, None)}
    holes["allowed"] = {**TIGHT["allowed"], "dilations": 2}
    with pytest.raises(ValueError, match="gridding: got False; takes True"):
        design(**holes)
    with pytest.raises(ValueError, match="field: got 100 pixels; .* and stride: got 4; takes 1"):
        design(**{**TIGHT, "field": 100, "stride": 4})


# Known designs, each a question.


def bricks(row):
    return row.layers.split(" · ")


def test_dilations_that_grow_by_the_kernel_give_a_flat_field():
    asked = dict(
        erf={"flat": 13},
        cost="parameters",
        allowed=dict(kernels=3, dilations=range(1, 10), depth=(1, 3), ndim=1),
    )
    front = design(**asked)
    assert pairs(front) == brute(**asked)[0]
    assert front[-1].distance == 0
    assert sorted(bricks(front[-1])) == ["3", "3 d3", "3 d9"]


def test_hybrid_dilated_convolution():
    """Wang et al., WACV 2018: dilations 1, 2, 5 leave no pixel out, 2, 2, 2 and 2, 4, 8 do."""
    asked = dict(
        field=17, cost="parameters", gridding=False,
        allowed=dict(kernels=3, dilations=(1, 2, 5), depth=(1, 3), ndim=2),
    )  # fmt: skip
    front = design(**asked)
    assert pairs(front) == brute(**asked)[0]
    assert sorted(bricks(front[0])) == ["3", "3 d2", "3 d5"]
    assert front[0].holes == 0
    for dilations in ((2,), (2, 4, 8)):
        with pytest.raises(ValueError, match="gridding: got False"):
            design(
                field=(7, None), cost="parameters", gridding=False,
                allowed=dict(kernels=3, dilations=dilations, depth=3),
            )  # fmt: skip


def test_one_large_kernel_against_a_stack_at_one_field():
    """A stack of 3 × 3 is cheaper (Simonyan & Zisserman 2015), one large kernel has the wider ERF
    (Ding et al. 2022): √(k² − 1)/√12 of a field of k against √(2(k − 1)/3)."""
    asked = dict(
        erf=13 / 12**0.5 * 1.0, image=32, field=13,
        allowed=dict(kernels=(3, 5, 13), depth=(1, 6), channels=4),
    )  # fmt: skip
    front = design(**asked)
    assert pairs(front) == brute(**asked)[0]
    assert bricks(front[0]) == ["3"] * 6 and bricks(front[-1]) == ["13"]
    assert front[0].std == pytest.approx(2.0) and front[-1].std == pytest.approx(14**0.5)
    stack = front[0].cost
    half = dict(asked, erf=None, budget=front[-1].cost // 2)  # the same field at half the cost
    assert design(**half)[0].cost == stack <= front[-1].cost // 2


def test_doubled_dilations_of_wavenet():
    """van den Oord et al. 2016: kernel 2, dilations 1, 2, 4, …: the least layers without holes"""
    small = dict(
        lookback=31, image=64, gridding=False,
        allowed=dict(
            kernels=2, dilations=(1, 2, 4, 8, 16), depth=(1, 5), ndim=1, padding="causal"
        ),
    )  # fmt: skip
    front = design(**small)
    assert pairs(front) == brute(**small)[0]
    assert sorted(bricks(front[0])) == sorted(["2", "2 d2", "2 d4", "2 d8", "2 d16"])
    large = dict(
        lookback=4095, image=8192, gridding=False,
        allowed=dict(
            kernels=2, dilations=[2**i for i in range(12)], depth=12, ndim=1, padding="causal"
        ),
    )  # fmt: skip
    front = design(**large)
    assert sorted(bricks(front[0])) == sorted(["2", *(f"2 d{2**i}" for i in range(1, 12))])
    eight = design(
        lookback=(4096, None), image=8192,
        allowed=dict(
            kernels=3, dilations=[2**i for i in range(11)], depth=8, ndim=1, padding="causal",
            channels=32, inputs=32,
        ),
    )  # fmt: skip
    assert eight[0].lookback >= 4096 and eight[0].latency == 0 and eight.networks == 11**8


def test_the_stem_of_resnet_and_what_it_could_be():
    """7 × 7 / 2 and a pool / 2 see 11 pixels at stride 4; (3, 3, 3) / 2 and a pool cost as much."""
    asked = dict(
        image=224, field=11, stride=4, cost="macs",
        allowed=dict(
            kernels=(3, 7), strides=(1, 2), depth=(1, 4), channels=(32, 64), pools=((3, 2),)
        ),
    )  # fmt: skip
    front = design(**asked)
    assert pairs(front) == brute(**asked)[0]
    stem = Chain(Conv(7, 2, channels=64), MaxPool(3, 2, padding="same"), ndim=2)
    assert receptive_field(stem).size == (11, 11) and receptive_field(stem).stride == (4, 4)
    assert front[0].cost < of_network("macs", stem, 224, 3)
    query = question(**dict(asked, allowed={**asked["allowed"], "channels": (64, 64)}))
    assert of_network("macs", stem, 224, 3) in {
        read(query, n)["cost"] for n in networks(query) if fits(query, read(query, n))
    }


def test_a_discriminator_of_patches():
    """Isola et al. 2017: five convolutions of 4 × 4 see 70 pixels; which see 140?"""
    pix2pix = dict(
        field=70, image=256, stride=8, allowed=dict(kernels=4, strides=(1, 2), depth=5, channels=8)
    )
    front = design(**pix2pix)
    assert pairs(front) == brute(**pix2pix)[0]
    assert sorted(bricks(front[0])) == ["4", "4", "4/2", "4/2", "4/2"]
    wider = dict(
        field=(138, 142), image=256, erf=25, gridding=False,
        allowed=dict(kernels=4, strides=(1, 2), depth=(5, 7), channels=8),
    )  # fmt: skip
    front = design(**wider)
    assert pairs(front) == brute(**wider)[0]
    assert all(138 <= row.field <= 142 for row in front)


# Costs, bounds and refusals.


def test_costs_by_hand():
    net = Chain(
        Conv(3, 2, channels=8), MaxPool(2, padding="same"), Residual(Conv(3, channels=8), gain=1),
        Conv(5, groups="depthwise"), Conv(1, channels=16), ndim=2,
    )  # fmt: skip
    weights = [9 * 3 * 8, 9 * 8 * 8, 25 * 8, 8 * 16]
    pixels = [16**2, 8**2, 8**2, 8**2]
    assert of_network("parameters", net, 32, 3) == sum(weights)
    assert of_network("macs", net, 32, 3) == sum(n * w for n, w in zip(pixels, weights))
    assert of_network("memory", net, 32, 3) == 4 * (16**2 * 8 + 8**2 * (8 + 8 + 8 + 16))


def test_seconds_of_layers():
    space = dict(kernels=(3, 5), depth=2, channels=4, inputs=4, ndim=1)
    seconds = {Conv(3, channels=4): 0.1, Conv(5, channels=4): 0.3}
    asked = dict(erf=1.5, allowed=space, cost=seconds)
    assert pairs(design(**asked)) == brute(**asked)[0]
    assert design(**asked).unit == "s"
    measured = dict(asked, image=8, cost=lambda layer, size, channels: layer.kernel * size / 7)
    assert pairs(design(**measured)) == brute(**measured)[0]
    with pytest.raises(ValueError, match="cost: got no seconds for Conv\\(5, channels=4\\)"):
        design(erf=1.5, allowed=space, cost={Conv(3, channels=4): 0.1})


@pytest.mark.parametrize("name", ["flat", "flat behind causal skips", "Gaussian", "mass radius"])
def test_bounds_from_moments_hold(name):
    """The pruning of shapes.py: no map is closer than its moments allow."""
    query = question(**SPACES[name])
    table = Table(query).fill()
    goal = Goal(query.kind, query.value, query.space.ndim)
    seen = set()
    for final in table.finals():
        if final.totals.layers in seen:
            continue
        seen.add(final.totals.layers)
        network = query.space.network(table.bricks(final), query.image)
        spread = _spread(table, final)
        erf = exact(network)
        assert spread.second == pytest.approx(float(moments(network).variance[0]), rel=1e-12)
        kurtosis = moments(network).excess_kurtosis[0]
        if kurtosis is not None:
            assert spread.fourth == pytest.approx(float(kurtosis) * spread.second**2, rel=1e-9)
        low, high = radii(spread)
        assert low - 1e-9 <= erf.mass_radius(0.95) <= high + 1e-9
        assert goal.least(spread) <= goal.distance(network) + 1e-9
    assert len(seen) > 5


def test_flatness_of_a_uniform_map_is_zero():
    goal = Goal("flat", 3, 1)
    assert goal.distance(Chain(Conv(7), ndim=1)) == 0
    assert goal.distance(Chain(Conv(5), ndim=1)) == pytest.approx(2 / 7)
    assert goal.least(Spread([((1, 5, None, 0), 1)], 1)) == pytest.approx(2 / 7)


def test_a_space_of_millions_is_searched():
    asked = dict(
        erf=20, image=224, field=(60, 160),
        allowed=dict(
            kernels=(3, 5, 7), strides=(1, 2), dilations=(1, 2), depth=(1, 6),
            channels=(64, 128, 256),
        ),
    )  # fmt: skip
    front = design(**asked)
    assert front.networks > 3_000_000
    assert all(60 <= row.field <= 160 for row in front) and front[-1].distance < 0.1


BAD = [
    (dict(erf="x"), "erf: got 'x'; takes"),
    (dict(erf={"std": -1}), "erf: got .*; takes pixels >= 0"),
    (dict(erf={"flat": 0}), "erf: got .*; takes pixels > 0"),
    (dict(erf={"round": 1}), "erf: got .*; takes a deviation"),
    (dict(image=None), "image: got None; takes pixels a side with cost='macs'"),
    (dict(image=0), "image: got 0; takes an integer >= 1"),
    (dict(budget=-1), "budget: got -1; takes a number >= 0"),
    (dict(cost="flops"), "cost: got 'flops'; takes 'macs'"),
    (dict(field=(5, 3)), "field: got \\(5, 3\\); takes \\(least, most\\)"),
    (dict(field="x"), "field: got 'x'; takes"),
    (dict(lookback=(1, 2, 3)), "lookback: got"),
    (dict(latency=-1), "latency: got -1; takes an integer >= 0"),
    (dict(gridding=None), "gridding: got None; takes one of True, False"),
    (dict(allowed=3), "allowed: got 3; takes a mapping"),
    (dict(allowed={}), "allowed: got no 'kernels'; takes at least"),
    (dict(allowed=dict(kernels=3, depth=2, width=1)), "allowed: got 'width'; takes names among"),
    (dict(allowed=dict(kernels=0, depth=2)), "allowed\\['kernels'\\]: got 0; takes an integer"),
    (dict(allowed=dict(kernels=(), depth=2)), "allowed\\['kernels'\\]: got none"),
    (dict(allowed=dict(kernels=3, depth=(3, 2))), "allowed\\['depth'\\]: got \\(3, 2\\)"),
    (dict(allowed=dict(kernels=3, depth=2, pools=(2,))), "allowed\\['pools'\\]: .*pairs"),
    (dict(allowed=dict(kernels=3, depth=2, gain=0)), "allowed\\['gain'\\]: got 0"),
    (dict(allowed=dict(kernels=3, depth=2, skip="x")), "allowed\\['skip'\\]: got 'x'"),
    (dict(allowed=dict(kernels=3, depth=2, skip="residual")), "allowed: got a space without any"),
]


@pytest.mark.parametrize("change, message", BAD)
def test_bad_input_is_one_line(change, message):
    asked = {"erf": 3, "image": 32, "allowed": dict(kernels=3, depth=(1, 2)), **change}
    with pytest.raises(ValueError, match=message) as error:
        design(**asked)
    assert "\n" not in str(error.value)


def test_front_as_table_frame_and_picture(tmp_path):
    front = design(**SPACES["strides and widths"])
    text = str(front)
    assert "cost" in text and front[0].layers in text and "of 584 networks" in text
    assert "<table>" in front._repr_html_()
    costs = [row.cost for row in front]
    assert costs == sorted(costs) and math.isfinite(front[-1].distance)
    pandas = pytest.importorskip("pandas")
    frame = front.to_pandas()
    assert isinstance(frame, pandas.DataFrame) and list(frame["cost"]) == costs
    front.plot(tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 1000
