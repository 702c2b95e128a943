"""Laws of training. They train networks, which takes minutes, so they run only when asked for."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from erftheory.init import rim_taps
from erftheory.laws.machine.base import Context, Evidence, below, equal, information, law
from erftheory.laws.machine.trials import LEVELS, shape_trial
from erftheory.network.base import Chain
from erftheory.network.layers import Conv

LEVEL = 0.01  # family-wise, of each of these laws


@law(
    "TRN-1",
    "training fits the ERF to what its task needs",
    "Training enlarges an ERF that is smaller than its task needs, shrinks one that is larger, and "
    "turns it where the task points",
    "measured here; Luo et al., NIPS 2016, section 3, have the first half",
    optional=True,
)
def training(context: Context) -> list[Evidence]:
    """Two nets on signs a few pixels apart: one sees too little at first, the other too much."""
    from erftheory.training.studies.pairs import PAIRS
    from erftheory.training.studies.trials import sign_flip

    evidence = []
    level = LEVEL / 4  # two pairs, two comparisons each
    for pair, direction, what in ((PAIRS[4], 1, "grows"), (PAIRS[3], -1, "shrinks")):
        found = context.engines.study(pair)
        before, after = found.std[:, 0].mean(), found.std[:, -1].mean()
        along = [math.log(a / b) for b, a in found.axes[:, -1]]  # the last axis is the task's
        name = f"{pair.name}, {len(found.growth)} seeds"
        low, high = found.interval
        evidence += [
            below("trained", "sign flips", f"{name}: p of no change against: the std {what}",
                  sign_flip(direction * found.growth), level),
            below("trained", "sign flips", f"{name}: p of no shape against: longer along the task",
                  sign_flip(along), level),
            information("trained", "untrained", f"{name}: mean std (px)", after, before),
            information("trained", "untrained", f"{name}: 95 % interval of the growth",
                        (low, high), "1"),
            information("trained", "image", f"{name}: 95 % mass radius over half the image",
                        found.covers[1], "1 would cover it"),
        ]  # fmt: skip
    return evidence


@law(
    "INI-1",
    "a heavy rim widens the ERF before training",
    "Filters with the share s of their variance in the outermost ring have the ERF's variance of "
    "their taps, 3s/4 a layer at 3×3; what is left of it behind training is shown",
    "Luo et al., NIPS 2016, section 4",
    optional=True,
)
def initialisation(context: Context) -> list[Evidence]:
    """The variance by hand, in sampled nets, and behind training."""
    from erftheory.training.studies.initial import MEASURES, PAIRS_OF_INITIAL, SHARE
    from erftheory.training.studies.trials import sign_flip

    share, layers = Fraction(49, 50), 4
    network = Chain(Conv(3, taps=rim_taps(3, share))) * layers
    by_hand = Fraction(3, 4) * share * layers
    variance = context.engines.moments(network).variance[0]
    evidence = [
        equal("moments", "theory", f"{layers} layers: variance (px²)", variance, by_hand),
        *shape_trial(context, network, f"{layers} layers, s={SHARE}", level=LEVELS["INI-1"]),
    ]
    found: Any = context.engines.initial(PAIRS_OF_INITIAL[0], readings=1)
    differences = found.differences
    name = f"{found.uniform.pair.name}, {len(found.uniform.growth)} seeds"
    evidence.append(
        below("trained", "sign flips", f"{name}: p of no change against: a wider std at the start",
              sign_flip(differences[MEASURES[0]]), LEVEL)
    )  # fmt: skip
    for measure in MEASURES[:3]:
        values = differences[measure]
        p = min(1.0, 2 * min(sign_flip(values), sign_flip(-values)))
        mean, none = float(values.mean()), 0.0
        if measure.startswith("std"):
            mean, none = math.exp(mean), 1.0
        evidence.append(
            information("heavy rim", "uniform taps",
                        f"{name}: {measure}, {'ratio' if none else 'difference'} "
                        f"(two-sided p {p:.2g})", mean, none)
        )  # fmt: skip
    return evidence
