"""The laws hold, and every route, broken on purpose, makes the right ones fail."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from erftheory import Chain, Conv
from erftheory.laws import Context, Engines, registry, select
from erftheory.laws.machine.base import Law, below, close, equal, information, slope
from erftheory.laws.machine.trials import LEVELS

IDS = (
    "RF-1", "RF-2", "SIG-1", "SIG-2", "VAR-1", "CLT-1", "CLT-2", "GRW-1", "GRW-2", "GRW-3",
    "LIM-1", "SUB-1", "DIL-1", "DIL-2", "SKP-1", "LK-1", "SEP-1", "DRP-1", "POOL-1",
    "LAT-1", "SGN-1", "DRF-1",
)  # fmt: skip
ELSEWHERE = (  # with tests of their own
    "ACT-2", "ACT-1", "FLU-1", "SKP-2", "EDG-1", "SAD-1", "BE-1", "BND-1", "TRN-1", "INI-1",
)  # fmt: skip
SAMPLED = "VAR-1,GRW-1,GRW-2,SUB-1,DIL-1,DIL-2,SKP-1,DRP-1,POOL-1"


@pytest.fixture(scope="module")
def engines() -> Engines:
    """The real engines; nets drawn once serve every sabotage, which changes a copy of them."""
    real, drawn = Engines.load(), {}

    def gradients(network, *args, **options):
        key = network, args, tuple(sorted(options.items()))
        if key not in drawn:
            drawn[key] = list(real.gradients(network, *args, **options))
        yield from (np.array(block) for block in drawn[key])

    return replace(real, gradients=gradients)


def failing(engines: Engines, laws: str, depth: int = 6, kernel: int = 3, **options) -> set[str]:
    context = Context(engines, depth=depth, kernel=kernel, **options)
    return {law.id for law in select(laws) if not law.run(context).holds}


# Every law on the real engines


def test_registry_is_complete_and_ordered():
    ids = tuple(law.id for law in registry())
    assert tuple(id for id in ids if id not in ELSEWHERE) == IDS
    assert all(law.statement and law.source for law in registry())


@pytest.mark.parametrize("id", IDS)
@pytest.mark.parametrize("depth, kernel", [(1, 3), (5, 2), (12, 4)])
def test_law_holds_by_two_routes(engines, id, depth, kernel):
    verdict = select(id)[0].run(Context(engines, depth=depth, kernel=kernel, samples=1000))
    assert verdict.holds, (verdict.error, [e for e in verdict.evidence if not e.holds])
    assert len(verdict.routes) >= 2
    assert all(e.route != e.against for e in verdict.evidence)
    tests = [e for e in verdict.evidence if e.tested and re.search(r"\bp of ", e.quantity)]
    assert bool(tests) == (id in SAMPLED.split(","))
    levels = [1 - e.allowed for e in tests if e.allowed is not None]
    assert sum(levels) <= LEVELS.get(id, 0) * (1 + 1e-6)


def test_sig_1_shows_five_routes(engines):
    verdict = select("SIG-1")[0].run(Context(engines, depth=9))
    routes = {"symbolic", "counting", "spectrum", "direct", "tilted", "autodiff"}
    assert set(verdict.routes) == routes


# Every route broken on purpose: (sabotage, laws that must fail, laws that must still hold)


def _wider(engines: Engines) -> Engines:
    """Spectrum and direct with the last pixel's weight doubled."""

    def exact(network, **options):
        found = engines.exact(network, **options)
        weights = np.array(found.map)
        weights.flat[-1] *= 2
        return type(found)(
            map=weights, offset=found.offset, signal=found.signal, method=found.method,
            error=found.error,
        )  # fmt: skip

    return replace(engines, exact=exact)


def _one_method(broken: str):
    """One method of `exact` reads one more tap a layer; 1-D stacks only."""

    def sabotage(engines: Engines) -> Engines:
        def exact(network, **options):
            if options.get("method", "spectrum") == broken:
                network = Chain(network, Conv(2))
            return engines.exact(network, **options)

        return replace(engines, exact=exact)

    return sabotage


def _counting(engines: Engines) -> Engines:
    """One path too many in the middle."""

    def counting(network):
        counts = engines.counting(network)

        def marginal(axis):
            weights = list(counts.marginal(axis))
            weights[len(weights) // 3] += 1
            return weights

        return SimpleNamespace(
            marginal=marginal, offset=counts.offset, touched=counts.touched, map=counts.map
        )

    return replace(engines, counting=counting)


def _support(engines: Engines) -> Engines:
    """The last pixel is forgotten."""

    def counting(network):
        counts = engines.counting(network)
        touched = counts.touched.copy()
        touched[-1] = False
        return SimpleNamespace(
            marginal=counts.marginal, offset=counts.offset, touched=touched, map=counts.map
        )

    return replace(engines, counting=counting)


def _moments(engines: Engines) -> Engines:
    """Variances that grow like n^1.001 instead of n."""

    def moments(network, **options):
        found = engines.moments(network, **options)
        variance = tuple(v * Fraction(round(10**9 * float(v) ** 0.001), 10**9) for v in
                         found.variance)  # fmt: skip
        return replace(found, variance=variance)

    return replace(engines, moments=moments)


def _field(engines: Engines) -> Engines:
    def receptive_field(network):
        found = engines.receptive_field(network)
        return replace(found, size=tuple(s + 1 for s in found.size))

    return replace(engines, receptive_field=receptive_field)


def _symbolic(**wrong):
    def sabotage(engines: Engines) -> Engines:
        names = [n for n in dir(engines.symbolic) if not n.startswith("_")]
        good = {n: getattr(engines.symbolic, n) for n in names}
        return replace(engines, symbolic=SimpleNamespace(**(good | wrong)))

    return sabotage


def _ones(engines: Engines) -> Engines:
    """The all-ones net has one kernel of another size."""

    def gradient_of_ones(network):
        gradient, offset = engines.gradient_of_ones(network)
        return np.convolve(gradient, [0.25, 0.5, 0.25], mode="same"), offset

    return replace(engines, gradient_of_ones=gradient_of_ones)


def _probe(engines: Engines) -> Engines:
    """The NaN probe reports one pixel more."""

    def probe(network):
        found = engines.probe_receptive_field(network)
        return SimpleNamespace(size=tuple(s + 1 for s in found.size), offset=found.offset)

    return replace(engines, probe_receptive_field=probe)


def _gradients(change):
    """The sampled gradients changed by a function of a block (nets, pixels)."""

    def sabotage(engines: Engines) -> Engines:
        def gradients(*args, **options):
            for block in engines.gradients(*args, **options):
                yield change(np.array(block))

        return replace(engines, gradients=gradients)

    return sabotage


def _nets_with(word: str, change):
    """As `_gradients`, for networks with a layer of this name alone."""

    def sabotage(engines: Engines) -> Engines:
        changed = _gradients(change)(engines).gradients

        def gradients(network, *args, **options):
            engine = changed if word in repr(network) else engines.gradients
            yield from engine(network, *args, **options)

        return replace(engines, gradients=gradients)

    return sabotage


_unscaled_dropout = _nets_with("Dropout", lambda block: 0.75 * block)


def _first_chosen(block):
    """Every fourth net has its kernel at the first place of the window."""
    moved = block[::4]
    for axis in range(1, block.ndim):
        while not moved.take(0, axis).any(axis=tuple(range(1, moved.ndim - 1))).all():
            aside = ~moved.take(0, axis).any(axis=tuple(range(1, moved.ndim - 1)))
            moved[aside] = np.roll(moved[aside], -1, axis)
    return block


_biased_max = _nets_with("MaxPool", _first_chosen)


def _last_lost(block):
    """Where the last pixel of the window was the largest, a third of the nets is dead."""
    lost = block[..., -1].any(axis=tuple(range(1, block.ndim - 1))) if block.ndim > 2 else (
        block[:, -1] != 0
    )  # fmt: skip
    lost[::3] = False
    block[lost] = 0
    return block


_lossy_max = _nets_with("MaxPool", _last_lost)


def _enumerated(engines: Engines) -> Engines:
    """The referee enumerates a net of one layer less."""

    def enumerated(network):
        return SimpleNamespace(map=engines.enumerated(network).map[1:-1])

    return replace(engines, enumerated=enumerated)


def _middle(block):
    block[:, block.shape[1] // 2] *= 1.2
    return block


def _zoo(engines: Engines) -> Engines:
    """ResNet-34 without its last block."""
    good = {n: getattr(engines.zoo, n) for n in dir(engines.zoo) if not n.startswith("_")}
    good["resnet34"] = engines.zoo.resnet18
    return replace(engines, zoo=SimpleNamespace(**good))


def _coefficient(n: int, k: int, t: int) -> int:
    """The closed form without the alternating terms: right only for t < k."""
    return math.comb(n + t - 1, n - 1) if 0 <= t <= n * (k - 1) else 0


SABOTAGES = {
    "map with a heavy corner": (
        _wider,
        "SIG-1,CLT-2,SUB-1,DIL-1,DIL-2,SKP-1,LK-1,SEP-1,GRW-1,DRP-1,POOL-1",
        "RF-1,SIG-2,CLT-1,GRW-3,LIM-1",
    ),
    "spectrum with a wrong kernel": (
        _one_method("spectrum"),
        "SIG-1,CLT-2,GRW-1,GRW-2,SUB-1,DIL-1,DIL-2,SKP-1,LK-1,SEP-1,DRP-1,POOL-1",
        "RF-1,SIG-2,CLT-1,GRW-3,LIM-1",
    ),
    "direct with a wrong kernel": (
        _one_method("direct"), "SIG-1,SEP-1", "SIG-2,CLT-1,GRW-2,SUB-1,DIL-2,LK-1",
    ),
    "one path too many": (
        _counting,
        "SIG-1,SIG-2,CLT-1,GRW-3,SUB-1,DIL-1,DIL-2,LK-1,DRP-1,POOL-1",
        "RF-1,GRW-2,LIM-1,SKP-1,SEP-1",
    ),
    "a touched pixel too few": (_support, "RF-1", "SIG-1,CLT-1,LK-1"),
    "variance with a wrong exponent": (
        _moments,
        "CLT-1,GRW-1,GRW-3,SUB-1,DIL-1,SKP-1,LK-1,SEP-1,LIM-1,DRP-1",
        "RF-1,SIG-1,SIG-2,CLT-2,GRW-2,DIL-2",
    ),
    "a receptive field too large": (
        _field, "RF-1,RF-2,GRW-3,LIM-1,LK-1", "SIG-1,SIG-2,CLT-1,CLT-2,SUB-1,DIL-1",
    ),
    "a wrong closed form": (
        _symbolic(coefficient=_coefficient), "SIG-1,SIG-2", "CLT-1,GRW-1,LIM-1",
    ),
    "a wrong variance formula": (
        _symbolic(variance=lambda n, k: Fraction(n * k**2, 12)), "CLT-1,GRW-1", "SIG-1,LIM-1",
    ),
    "a wrong kurtosis formula": (
        _symbolic(excess_kurtosis=lambda n, k: Fraction(-6, 5 * n)), "CLT-1,CLT-2", "SIG-1,GRW-1",
    ),
    "a wrong limit": (_symbolic(rf_ratio_limit=lambda: 1), "LIM-1", "GRW-1,SIG-1"),
    "a wrong autodiff net": (_ones, "SIG-1", "SIG-2,RF-1,CLT-1"),
    "a probe that sees too far": (_probe, "RF-1", "RF-2,SIG-1"),
    "random nets with a heavy middle": (_gradients(_middle), SAMPLED, "SIG-1"),
    "random nets whose mean is not 0": (_gradients(abs), "VAR-1", "SIG-1,GRW-1,SUB-1,SKP-1"),
    "dead random nets": (_gradients(lambda block: 0 * block), SAMPLED, "SIG-1"),
    "random nets seen one pixel aside": (
        _gradients(lambda block: np.roll(block, 1, axis=1)),
        "VAR-1,SUB-1,DIL-1,SKP-1,DRP-1,POOL-1", "SIG-1,DIL-2",  # a shifted uniform map is uniform
    ),
    "dropout without its scale": (_unscaled_dropout, "DRP-1", "VAR-1,POOL-1"),
    "a max pool that prefers its first pixel": (_biased_max, "POOL-1", "VAR-1,DRP-1"),
    "a max pool that loses gradients": (_lossy_max, "POOL-1", "VAR-1,DRP-1"),
    "an enumeration of another net": (_enumerated, "VAR-1", "SIG-1"),
    "a wrong network in the zoo": (_zoo, "RF-2", "RF-1,SIG-1"),
}  # fmt: skip


@pytest.mark.parametrize("name", SABOTAGES)
def test_sabotage_fails_the_right_laws(engines, name):
    sabotage, fails, holds = SABOTAGES[name]
    broken = sabotage(engines)
    # where the nets are right, few of them show that they are
    few = {} if broken.gradients is not engines.gradients else {"samples": 200}
    assert failing(broken, f"{fails},{holds}", **few) == set(fails.split(","))


@pytest.mark.parametrize("name", ["counting", "exact", "moments", "receptive_field"])
def test_engine_that_raises_is_a_failure_told_in_one_line(engines, name):
    def broken(*args, **options):
        raise RuntimeError("out of\norder")

    verdict = select("LK-1")[0].run(Context(replace(engines, **{name: broken}), depth=3))
    assert not verdict.holds
    assert verdict.error == "RuntimeError: out of order"


def test_nan_never_holds(engines):
    def exact(network, **options):
        return SimpleNamespace(map=np.full(13, np.nan), std=(math.nan,), size=lambda: math.nan)

    broken = replace(engines, exact=exact)
    laws = "SIG-1,GRW-1,GRW-2,SUB-1,LK-1"
    assert failing(broken, laws) == set(laws.split(","))


# Evidence, selection, reductions


def test_margin_is_allowed_minus_measured_deviation():
    near = close("a", "b", "q", 1.25, 1.0, 0.5)
    assert (near.margin, near.holds, near.slack) == (0.25, True, 0.5)
    far = close("a", "b", "q", 3.0, 1.0, 0.5)
    assert (far.margin, far.holds) == (-1.5, False)
    assert below("a", "b", "q", 0.25, 1.0).margin == 0.75
    assert equal("a", "b", "q", 7, 7).margin == 0
    assert equal("a", "b", "q", Fraction(7, 2), 3).margin == -0.5
    assert not equal("a", "b", "q", 7, 7, of=([1, 2], [1, 3])).holds
    assert not equal("a", "b", "q", 10**400, 10**400 + 1).holds
    note = information("a", "b", "q", 1, 2)
    assert note.holds and not note.tested
    assert not close("a", "b", "q", math.nan, 1.0, 0.5).holds


def test_a_law_without_tested_evidence_does_not_hold(engines):
    empty = Law("X-1", "nothing", "nothing at all", "nobody", lambda context: [])
    one = information("a", "b", "q", 1, 1)
    shown = Law("X-2", "nothing", "nothing at all", "nobody", lambda context: [one])
    context = Context(engines)
    assert not empty.run(context).holds
    assert not shown.run(context).holds


def test_select():
    assert [law.id for law in select("clt-*, SIG-1")] == ["SIG-1", "CLT-1", "CLT-2"]
    assert select(None) == tuple(law for law in registry() if not law.optional)
    for bad in ("NO-1", "SIG-1,ZZ*", "", "SIG-1,"):
        with pytest.raises(ValueError, match="laws: got .* takes ids of: RF-1, RF-2"):
            select(bad)


def test_reductions_are_told(engines):
    context = Context(engines, depth=4096)
    assert context.reduced("autodiff", 100) == 100
    assert context.notes == ["autodiff at depth 100 in place of 4096"]
    quiet = Context(engines, depth=64)
    assert quiet.reduced("autodiff", 100) == 64 and quiet.notes == []
    verdict = select("SIG-2")[0].run(Context(engines, depth=10**6))
    assert verdict.holds and any("in place of 1000000" in note for note in verdict.notes)


def test_slope_of_a_power_law():
    x = [3.0, 10.0, 77.0, 500.0]
    assert slope(x, [5 * v**-0.421 for v in x]) == pytest.approx(-0.421, abs=1e-12)
