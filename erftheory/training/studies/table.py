"""Verdicts over several pairs, at one family-wise level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from erftheory.training.studies.study import Study
from erftheory.training.studies.trials import holm, power

LEVEL = 0.01
GROWTH = 0.1  # of the std, that a test should see


def rows(studies: Sequence[Study], level: float = LEVEL) -> list[dict[str, Any]]:
    """A row a pair: std (px) before and after, growth and its interval, verdict, coverage.

    "grows" is the one-sided sign-flip test after Holm's correction over all pairs at `level`, and
    "shrinks" the opposite one: two families, each of which has a false verdict with probability
    `level` at most.
    "power" is the probability that a growth of 10 % is seen, at the strictest of Holm's levels and
    with the deviation over seeds found. "covers" is the 95 % mass radius over half the image, after
    training: 1 would cover it.
    """
    grows = holm([study.p_value for study in studies])
    shrinks = holm([study.shrinks for study in studies])
    found = []
    for study, up, down in zip(studies, grows, shrinks, strict=True):
        verdict = "grows" if up < level else "shrinks" if down < level else "undecided"
        found.append({
            "pair": study.pair.name,
            "seeds": len(study.growth),
            "receptive_field": list(study.seen),
            "image": list(study.image),
            "std_before": float(study.std[:, 0].mean()),
            "std_after": float(study.std[:, -1].mean()),
            "axes_before": study.axes[:, 0].mean(0).tolist(),
            "axes_after": study.axes[:, -1].mean(0).tolist(),
            "growth": math.exp(study.growth.mean()),
            "interval": list(study.interval),
            "p_grows": up,
            "p_shrinks": down,
            "verdict": verdict,
            "power": power(
                math.log1p(GROWTH), float(study.growth.std(ddof=1)), len(study.growth),
                level / len(studies), 500,
            ),
            "score": float(study.scores[:, -1].mean()),
            "covers": float(study.covers[1]),
        })  # fmt: skip
    return found


def text(table: Sequence[dict[str, Any]]) -> str:
    """The rows as plain text."""
    lines = [
        f"{'pair':34s}{'field':>7s}{'before':>8s}{'after':>8s}  {'growth (95 %)':22s}"
        f"{'verdict':11s}{'power':>6s}{'score':>7s}{'covers':>8s}"
    ]
    for row in table:
        low, high = row["interval"]
        grown = f"{row['growth']:.3f} ({low:.3f}, {high:.3f})"
        lines.append(
            f"{row['pair']:34s}{row['receptive_field'][0]:7d}{row['std_before']:8.3f}"
            f"{row['std_after']:8.3f}  {grown:22s}{row['verdict']:11s}"
            f"{row['power']:6.2f}{row['score']:7.3f}"
            f"{row['covers']:8.0%}"
        )
    return "\n".join(lines)
