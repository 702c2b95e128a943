"""The laws of training: what they demand of a study, and that they run only when asked for."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from erftheory import Chain, Conv
from erftheory.laws import Context, Engines, registry, select
from erftheory.training.studies.initial import MEASURES, PAIRS_OF_INITIAL
from erftheory.training.studies.pairs import PAIRS
from erftheory.training.studies.study import Study
from erftheory.verify import Arguments, verify

SEEDS = 10
NOISE = 0.02 * np.random.default_rng(0).standard_normal((SEEDS, 2))


def told(factor: float, along: float = 1.0, start: float = 1.0):
    """A study in which the std changes by a factor, and its axes by √along either way."""

    def study(pair, readings: int = 1):
        before = 2 * start * np.exp(NOISE[:, :1] + np.zeros((SEEDS, 2)))
        after = 2 * factor * np.exp(NOISE[:, 1:]) * np.array([along**-0.5, along**0.5])
        axes = np.stack([before, after], 1)
        return Study(
            pair, [0, 300], axes, np.full((SEEDS, 2), 4.0), np.full((SEEDS, 2), 0.9),
            np.ones((2, 24, 24)), (13, 13), (24, 24), 1, [], *[lambda *a: None] * 3,
        )  # fmt: skip

    return study


def engines(study=None, initial=None) -> Engines:
    real = Engines.load()
    return replace(real, study=study or real.study, initial=initial or real.initial)


def run(id: str, made: Engines):
    return select(id)[0].run(Context(made, samples=400))


def as_measured(pair):
    return told(1.2 if pair is PAIRS[4] else 0.8, 3.0)(pair)


def test_training_holds_where_one_grows_and_one_shrinks_along_the_task():
    verdict = run("TRN-1", engines(as_measured))
    assert verdict.holds, verdict
    assert sum(e.tested for e in verdict.evidence) == 4


@pytest.mark.parametrize("study", [
    told(1.2, 3.0), told(0.8, 3.0),  # all grow, all shrink
    lambda pair: told(1.2 if pair is PAIRS[4] else 0.8, 1 / 3)(pair),  # across the task
    told(1.0, 3.0),  # nothing changes
], ids=["all grow", "all shrink", "across", "nothing"])  # fmt: skip
def test_training_fails_otherwise(study):
    verdict = run("TRN-1", engines(study))
    assert verdict.error is None and not verdict.holds


def compared(start: float):
    class Both(SimpleNamespace):
        pass

    def initial(pair, readings: int = 1):
        assert pair is PAIRS_OF_INITIAL[0]
        noise = NOISE[:, 0]
        values = (np.log(start) + noise, noise, noise / 10, noise / 10)
        return Both(uniform=told(1.0)(pair), differences=dict(zip(MEASURES, values, strict=True)))

    return initial


def test_a_heavy_rim_is_judged_at_the_start_and_shown_at_the_end():
    verdict = run("INI-1", engines(initial=compared(1.06)))
    assert verdict.holds, [e for e in verdict.evidence if not e.holds]
    shown = [e.quantity for e in verdict.evidence if not e.tested]
    assert any("std at the end, ratio" in quantity for quantity in shown)
    assert any("score at the end, difference" in quantity for quantity in shown)
    assert not run("INI-1", engines(initial=compared(1.0))).holds


def test_a_wrong_engine_fails_it():
    made = engines(initial=compared(1.06))
    heavy_centre = Chain(Conv(3, taps=[[1, 1, 1], [1, 20, 1], [1, 1, 1]])) * 4
    wrong = replace(made, gradients=lambda net, *a, **o: made.gradients(heavy_centre, *a, **o))
    assert not run("INI-1", wrong).holds


def test_they_run_only_when_asked_for(capsys):
    optional = [law.id for law in registry() if law.optional]
    assert optional == ["TRN-1", "INI-1"]
    assert not {law.id for law in select(None)} & set(optional)
    assert [law.id for law in select("TRN-*,INI-1")] == optional
    code, record = verify(Arguments(laws="SIG-2", quiet=True, depth=4))
    assert code == 0 and record["not run"] == optional
    code, record = verify(Arguments(laws="TRN-1", quiet=True), engines(as_measured))
    assert code == 0 and record["not run"] == ["INI-1"]
