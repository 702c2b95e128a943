"""The law of normalised residual nets: it holds, and broken routes make it fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from erftheory.laws import Context, Engines, residual, select
from erftheory.laws.machine.trials import BATCHES, LEVELS

(SKP_2,) = select("SKP-2")


def binomial_nets(blocks, share, rng):
    """A stand-in for sampled nets: gradients whose squares have a known law."""
    line = np.array([1.0])
    for a in share:
        line = np.convolve(line, np.array([a / 3, 1 - a + a / 3, a / 3]))
    power = rng.gamma(8, size=(blocks, 1, 1))
    noise = rng.gamma(8, size=(blocks, len(line), 4)) / 8
    return np.sqrt(power * line[:, None] * noise)


def engines(factor=1.0, excess=0.0):
    """Real engines, but nets drawn from the theory with all gains times `factor`, and a relative
    `excess` of them in proportion to 1/channels."""
    rng = np.random.default_rng(0)

    def gradients(network, key, samples, channels, in_channels, batch_norm):
        assert in_channels == channels and batch_norm == "frozen"
        blocks = (len(residual_field(network)) - 1) // 2
        gain = [factor * (1 + excess / channels) / (1 + (1 - 1 / np.pi) * i) for i in range(blocks)]
        yield binomial_nets(samples, [a / (1 + a) for a in gain], rng)[:, None]

    def residual_field(network):
        return range(loaded.receptive_field(network).size[0])

    loaded = Engines.load()
    return replace(loaded, gradients=gradients)


def verdict(chosen, **options):
    return SKP_2.run(Context(chosen, **options))


def test_it_holds_and_states_its_level():
    found = verdict(engines(excess=2.0))
    assert found.holds, (found.error, [e for e in found.evidence if not e.holds])
    (trial,) = [e for e in found.evidence if "p of " in e.quantity]
    assert (
        trial.allowed is not None
        and 1 - trial.allowed == pytest.approx(LEVELS["SKP-2"])
        and LEVELS["SKP-2"] <= 1e-5
    )
    assert all(e.route != e.against for e in found.evidence)


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_nets_of_other_gains_fail(factor):
    found = verdict(engines(factor))
    assert [e.route for e in found.evidence if not e.holds] == ["sampled"]


def test_a_theory_without_the_trunks_growth_fails():
    loaded = engines()

    def constant(network):
        found = loaded.moments(network)
        blocks = (loaded.receptive_field(network).size[0] - 1) // 2
        return replace(found, variance=(blocks / 3,)) if blocks > 1 else found

    found = verdict(replace(loaded, moments=constant))
    assert "moments" in {e.route for e in found.evidence if not e.holds}


def test_lines_in_log_n_and_in_n_are_told_apart():
    depths = (4, 8, 16, 32, 64)
    logarithm, linear = residual._residuals(depths, list(np.log(depths)))
    assert logarithm < 1e-12 < 0.1 < linear
    logarithm, linear = residual._residuals(depths, [0.3 * d for d in depths])
    assert linear < 1e-12 < 0.1 < logarithm


def test_random_nets_of_four_blocks():
    """Real nets, one depth: the deviation of both widths lies within what width explains."""
    context = Context(Engines.load(), samples=2000)
    wanted = residual._variance(4)
    rows = residual._deviations(residual._draw(context, 4, 16), wanted)
    error = rows.std(ddof=1) / np.sqrt(BATCHES)
    assert error < 0.02 * wanted
    # 5 standard errors, and the width's own excess of at most one over the channels
    assert -5 * error < rows.mean() < 5 * error + wanted / 16
