"""Every reading of drawn networks beside the whole covariance of their gradients.

tests/covariance.py is the referee (test_covariance.py judges it), tests/everything.py draws,
tests/findings.py compares. `python tests/long_referee.py` does the same for thousands.
"""

from __future__ import annotations

import ast
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from covariance import judge
from covariance_layers import RULES, SLOPES
from covariance_nodes import Unequal, read
from everything import Case, Choices, cases, seeded
from findings import DUST, OWN, Bench, asked, findings, images
from hypothesis import given, settings
from oracle import weights

import erftheory
from erftheory import (
    Activation,
    AvgPool,
    BatchNorm,
    Branches,
    Chain,
    Conv,
    Dropout,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    MaxPool,
    Network,
    Recurrent,
    Residual,
    RMSNorm,
    Upsample,
    advise,
    cumulants,
    exact,
    moments,
)
from erftheory.laws.referees.wide import SMOOTH
from erftheory.network.layers import ACTIVATIONS, Layer

RELU, MEAN = Activation("relu"), AvgPool(3, 1, padding=1)


def blamed(case: Case, found) -> list[str]:
    """One line for every finding that accuses the package."""
    return [
        f"{f.reading} {f.outcome}: {f.detail[:300]} of {case!r}"
        for f in found
        if f.outcome in ("wrong", "broken")
    ]


# ---- drawn networks ----------------------------------------------------------------------------


@pytest.mark.parametrize("block", range(10))
def test_readings_of_seeded_networks_agree_or_say_why_not(block):
    lines, outcomes = [], []
    for seed in range(11 * block, 11 * block + 11):
        case = seeded(seed)
        found = findings(case, compiled=seed % 11 == 0)
        lines += blamed(case, found)
        outcomes += [f.outcome for f in found]
    assert not lines, "\n".join(lines)
    # a referee that most readings evade would prove nothing
    assert outcomes.count("agrees") > 0.6 * len(outcomes)


@settings(max_examples=60)
@given(cases())
def test_readings_of_drawn_networks_agree_or_say_why_not(case):
    lines = blamed(case, findings(case))
    assert not lines, "\n".join(lines)


@pytest.mark.parametrize("seed", range(12))
def test_images_alone_have_means_of_the_whole_and_aligned_corners(seed):
    case = seeded(seed, end=True)
    lines = blamed(case, [asked(reading) for reading in images(Bench(case))])
    assert not lines, "\n".join(lines)


# ---- the same by fractions ---------------------------------------------------------------------

ONE, TWO, THREE, HALF = Conv(1), Conv(2), Conv(3), Dropout(Fraction(1, 2))
FRACTIONS = {
    "convolutions": Chain(Conv(3, taps=[1, 0, Fraction(2, 3)]), Conv(2, 2), Conv(3, dilation=2)),
    "identities that meet": Chain(ONE, Residual(Residual(THREE)), ONE),
    "two identities": Chain(ONE, Branches(None, None, THREE, merge="sum"), ONE),
    "identities of repetitions": Chain(ONE, Residual(Residual(THREE) * 3), ONE),
    "a mean of one beside an identity": Chain(ONE, Branches(None, AvgPool(1), TWO, merge="sum")),
    "a gate in the branch": Chain(ONE, Branches(None, None, Chain(TWO, RELU, TWO), merge="sum")),
    "a max pool beside an identity": Chain(ONE, Residual(MaxPool(3, 1, padding=1)), ONE),
    "a max pool beside two": Branches(None, None, MaxPool(3, 1, padding=1), merge="sum"),
    "two max pools": Branches(MaxPool(3, 1, padding=1), MaxPool(2, 1, padding="same"), merge="sum"),
    "a max pool and a mean": Branches(MaxPool(3, 1, padding=1), MEAN, merge="sum"),
    "a max pool of correlated gradients": Chain(MaxPool(3, 1, padding=1), MEAN),
    "means that remember": Chain(THREE, MEAN, THREE, MEAN, THREE),
    "means in a row": Chain(MEAN, MEAN),
    "dropout between means": Chain(MEAN, HALF, MEAN),
    "dropout beside an identity": Residual(HALF),
    "dropout on both ways": Chain(HALF, Branches(None, MEAN, merge="sum")),
    "dropout beside means": Branches(HALF, Chain(AvgPool(2, 1, padding="same"),
                                                         AvgPool(2, 1, padding="causal")),
                                     merge="sum"),
    "unequal channels": Chain(Branches(Conv(1, channels=1), Conv(3, channels=2)),
                              Conv(2, channels=1)),
    "groups": Chain(Conv(2, channels=4), Conv(3, channels=2, groups=2), Residual(THREE)),
    "depthwise": Residual(Chain(Conv(3, groups="depthwise"), Conv(1))),
}  # fmt: skip
# max pools end products of two pixels; every other map is exact and must say so
NEARLY = {"a max pool of correlated gradients"}


@pytest.mark.parametrize("init", ["he", "lecun", "xavier"])
@pytest.mark.parametrize("name", FRACTIONS)
def test_rational_readings_are_the_same_fractions(name, init):
    network = Chain(FRACTIONS[name], ndim=1)
    judged = judge(network, init=init, exact=True)
    assert not judged.doubts
    erf = exact(network, init=init)
    assert (erf.error.kind == "approximation") == (name in NEARLY)
    if name in NEARLY:
        return
    t = np.arange(len(judged.power)) + judged.offset[0]
    mean = (judged.map * t).sum()
    second, third, fourth = ((judged.map * (t - mean) ** r).sum() for r in (2, 3, 4))
    wanted = (mean, second, third, fourth - 3 * second**2)
    assert cumulants(network, init=init, order=4).values[0] == wanted
    found = moments(network, init=init)
    assert (found.mean[0], found.variance[0]) == wanted[:2]
    assert found.excess_kurtosis[0] == (wanted[3] / second**2 if second else None)
    ours = judged.over(erf.offset, erf.map.shape).astype(float)
    assert erf.map == pytest.approx(ours, rel=erf.error.value + OWN, abs=DUST)


@pytest.mark.parametrize("name", FRACTIONS)
def test_rational_networks_on_an_image(name):
    network = Chain(FRACTIONS[name], ndim=1)
    for unit in ((0,), (2,)):
        judged, plane = judge(network, 8, unit, exact=True), judge(network, None, unit, exact=True)
        erf = exact(network, image=8, unit=unit)
        assert (erf.error.kind == "approximation") == (name in NEARLY)
        if name in NEARLY:
            continue
        assert erf.map == pytest.approx(judged.map.astype(float), rel=1e-10, abs=DUST)
        assert erf.metadata["lost"] == pytest.approx(float(1 - judged.mass / plane.mass), abs=1e-12)


# ---- windows and tables ------------------------------------------------------------------------

WINDOWED = {
    "transposed": Chain(Conv(3, 2), erftheory.ConvTranspose(4, 2, padding=1), ndim=1),
    "nearest": Chain(THREE, Upsample(2), THREE, ndim=1),
    "bilinear": Chain(THREE, Upsample(3, "bilinear"), TWO, ndim=1),
    "plain": Chain(THREE, THREE, MEAN, ndim=1),
    "identities": Chain(ONE, Residual(Residual(THREE)), ndim=1),
}


@pytest.mark.parametrize("method", ["auto", "spectrum", "direct"])
@pytest.mark.parametrize("name", WINDOWED)
def test_the_share_inside_a_window(name, method):
    network, unit = WINDOWED[name], (1,)
    judged = judge(network, unit=unit, exact=True)
    first = judged.offset[0]
    for window in (range(first, first + 1), range(first + 1, first + 3)):
        erf = exact(network, unit=unit, window=window, method=method)
        inside = judged.over(erf.offset, erf.map.shape)
        share = erf.metadata.get("inside", 1)
        assert share == pytest.approx(float(inside.sum()), rel=1e-9)
        assert erf.map == pytest.approx((inside / inside.sum()).astype(float), abs=1e-9)


def test_tables_of_a_network_whose_identities_meet():
    inner = Residual(Residual(THREE)).named("block")
    network = Chain(ONE.named("stem"), inner, THREE.named("head"), ndim=1)
    first, whole = (judge(network.until(n), exact=True) for n in ("block", "head"))
    stds = []
    for judged in (first, whole):
        t = np.arange(len(judged.map)) + judged.offset[0]
        mean = (judged.map * t).sum()
        stds.append(float((judged.map * (t - mean) ** 2).sum()) ** 0.5)
    rows = {row.name: row for row in network.summary().rows}
    assert [rows[n].std[0] for n in ("block", "head")] == pytest.approx(stds)
    (head,) = (e for e in advise(network, 8).layers if e.name == "head")
    assert head.erf[0] / 4.972 == pytest.approx(stds[0], rel=1e-3)


# ---- signed taps -------------------------------------------------------------------------------


def signed(c: Choices, ndim: int) -> Network:
    """Convolutions with signed and zero taps, sums and concatenations of them."""

    def layer() -> Network:
        kernel = c.of([1, 2, 3])
        values = [c.whole(6) - 2 for _ in range(kernel**ndim)]
        rows = [values[i : i + kernel] for i in range(0, len(values), kernel)]
        taps = rows if ndim == 2 else values
        if not any(values):
            return c.of([Upsample(2), AvgPool(2, 1, padding="same")])
        return Conv(kernel, dilation=c.of([1, 2]), taps=taps)

    def same() -> Network:
        taps = [c.of([-1, 1, 0]), c.of([2, 3]), c.of([0, -1, 1])]
        return Conv(3, taps=taps if ndim == 1 else [taps, [0, 1, -1], taps])

    kinds = [layer(), layer(), Residual(same()), Branches(None, None, same(), merge="sum"),
             Branches(same(), same()), Residual(Residual(same())) * 2, Conv(2, 2)]  # fmt: skip
    return Chain(*(c.of(kinds) for _ in range(1 + c.whole(3))), ndim=ndim)


@pytest.mark.parametrize("seed", range(40))
def test_signed_gradients_are_those_of_the_paths(seed):
    c = Choices(random.Random(seed).randrange)
    ndim = c.of([1, 1, 2])
    network, unit = signed(c, ndim), tuple(c.whole(3) for _ in range(ndim))
    wanted = weights(network, unit)
    try:
        erf = exact(network, signal="gradient", init=None, unit=unit)
    except ValueError as refused:
        assert "\n" not in str(refused)
        total, whole = sum(wanted.values()), sum(map(abs, wanted.values()))
        assert not wanted or abs(total) <= 1e-9 * whole, str(refused)
        return
    total = sum(wanted.values())
    ours = np.zeros(erf.map.shape)
    for at, value in wanted.items():
        ours[tuple(a - o for a, o in zip(at, erf.offset))] = value / total
    assert erf.error.kind in ("rounding", "relative", "exact")
    assert abs(erf.map - ours).sum() <= erf.error.value * abs(ours).sum() + OWN


# ---- nothing is left out -----------------------------------------------------------------------

# judged by sampled nets and calibrated tests, because no closed form of finite nets exists
SAMPLED = {
    BatchNorm: [
        "test_meanfield_sampled.py::test_sampled_power_agrees",
        "test_meanfield_sampled.py::test_sampled_residual_ratios_agree",
        "test_residual.py::test_random_nets_of_four_blocks",
    ],
    **{
        name: [
            "test_nonlinear.py::test_laws_hold_by_several_routes",  # ACT-1
            "test_nonlinear.py::test_act_1_fails_where_the_wide_limit_or_the_nets_are_wrong",
        ]
        for name in ("tanh", "sigmoid", "gelu", "silu")
    },
    # no law samples them: other libraries and integrals judge their curves
    **{
        name: [
            "test_distribution.py::test_every_curve_and_its_slope_are_those_of_other_libraries",
            "test_distribution.py::test_smooth_activations_against_quadrature",
        ]
        for name in ("gelu_tanh", "elu")
    },
    **{
        norm: ["test_meanfield_sampled.py::test_sampled_power_agrees"]
        for norm in (GroupNorm, InstanceNorm, LayerNorm, RMSNorm)
    },
}


def public(kind: type) -> list[type]:
    found = [getattr(erftheory, name) for name in erftheory.__all__]
    return [f for f in found if isinstance(f, type) and issubclass(f, kind) and f is not kind]


def test_every_layer_has_a_rule_or_a_sampled_test():
    assert len(public(Layer)) >= 9
    for layer in public(Layer):
        assert layer in RULES or layer is MaxPool or layer in SAMPLED or layer is Recurrent, layer
    with pytest.raises(ValueError, match="no ERF is predicted"):  # so that none can be wrong
        exact(Chain(Conv(3), Recurrent(), ndim=1), image=8)
    for name in ACTIVATIONS:
        assert name in SLOPES or name == "linear" or name in SAMPLED, name
    for tests in SAMPLED.values():
        for test in tests:
            path, function = test.split("::")
            tree = ast.parse((Path(__file__).parent / path).read_text("utf-8"))
            names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert function in names, test


def test_the_law_of_smooth_activations_samples_all_of_them():
    named = {name for name in SAMPLED if isinstance(name, str)}
    assert named - {"gelu_tanh", "elu"} == set(SMOOTH)


def test_every_combinator_is_read():
    """A new one would be taken for a layer without a rule."""
    conv = Conv(1)
    known = {Chain: lambda: Chain(conv), erftheory.Repeat: lambda: conv * 2,
             Residual: lambda: Residual(conv), Branches: lambda: Branches(conv, None),
             erftheory.Named: lambda: conv.named("c")}  # fmt: skip
    combinators = [n for n in public(Network) if not issubclass(n, Layer)]
    assert set(combinators) == set(known)
    for make in known.values():
        nodes = read(make(), None, None).nodes
        assert {type(n.op) for n in nodes} <= {Conv, str}


def test_the_referee_refuses_what_it_cannot_run():
    with pytest.raises(Unequal, match="a sum"):
        judge(Chain(Conv(1, channels=3), Residual(Conv(1, channels=2)), ndim=1))
    with pytest.raises(NotImplementedError):
        judge(Chain(BatchNorm(), ndim=1))


LAST, PAIR = AvgPool(2, stride=1, padding="causal"), Conv(2, padding="causal")
INSIDE = AvgPool(2, stride=1, dilation=2, padding=((1, 1),), count_include_pad=False)
UNEQUAL = Branches(
    MaxPool(3, stride=1, padding=1), AvgPool(2, stride=1, padding="causal"), merge="sum"
)


def chain(*parts: Network, ndim: int = 1) -> Chain:
    return Chain(*(part.named(f"p{i}") for i, part in enumerate(parts)), ndim=ndim)


# what a long run of four thousand networks found, made small
FOUND = {
    "products turned round between identities": Case(
        chain(LAST, Residual(Residual(Conv(1)) * 2), PAIR, LAST), "lecun", (3,), (8,), 6, (4, 3)
    ),
    "a rim that does more to the second unit": Case(
        chain(INSIDE, Residual(Residual(Conv(3, dilation=2)))), "xavier", (-1,), (4,), 28, (3, 5)
    ),
    "nothing arrives on a lattice": Case(
        chain(UNEQUAL, Upsample(3, mode="bilinear"), Conv(2, dilation=2, padding="causal"), ndim=2),
        "he", (0, 1), (8, 4), 4, (3, 8),
    ),
    "a layer that reads nothing but padding": Case(
        chain(Conv(1, stride=2), Branches(INSIDE, Conv(3, padding="causal"), merge="sum")),
        "he", (0,), (2,), 25, (4, 3),
    ),
    "a repetition that moves nothing": Case(
        chain(MaxPool(2), AvgPool(1) * 2), "xavier", (0,), (12,), 28, (5, 1)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_what_the_long_run_found(name):
    case = FOUND[name]
    assert not blamed(case, findings(case, compiled=case.network.ndim == 1))
