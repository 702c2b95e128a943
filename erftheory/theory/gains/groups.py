"""Groups of channels of one law: how partitions are refined, joined and rearranged."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import accumulate

from erftheory.network.imported import Channels, Spatial
from erftheory.theory.gains.transport import mean
from erftheory.theory.units import law as dist
from erftheory.theory.units.law import Group
from erftheory.theory.walk.weights import root


def refine(inputs: list[list[Group]], name: str) -> list[tuple[int, tuple[int, ...]]]:
    """Common refinement of partitions: (channels, the group of each input it lies in)."""
    totals = [sum(c for c, _ in groups) for groups in inputs]
    if len(set(totals)) > 1:
        raise ValueError(
            f"{name or 'sum'}: got inputs of {' and '.join(map(str, totals))} channels; takes "
            "inputs of equal channels"
        )
    if all(len(groups) == 1 for groups in inputs):
        return [(totals[0], (0,) * len(inputs))]
    ends = [list(accumulate(c for c, _ in groups)) for groups in inputs]
    parts, start = [], 0
    for end in sorted(set().union(*ends)):
        groups = tuple(next(i for i, e in enumerate(row) if e >= end) for row in ends)
        parts.append((end - start, groups))
        start = end
    return parts


def rearranged(
    op: Channels | Spatial, ndim: int, groups: list[Group], out: int
) -> tuple[list[Group], list]:
    """Channels left out, or traded for pixels: every entry is passed on once, or not at all."""
    step = op.step(ndim)
    gain = Fraction(out, sum(c for c, _ in groups))
    if step is not None and step.up:
        gain *= math.prod(step.stride)
    rows = [(0, g, 0, (gain, root(gain))) for g in range(len(groups))]
    if len(groups) == 1:
        return [(out, groups[0][1])], rows
    second = mean([(c, law.second) for c, law in groups])
    level = mean([(c, law.level) for c, law in groups])
    return [(out, dist.gaussian(second, level))], rows


def concat(inputs: list[list[Group]]) -> tuple[list[Group], list]:
    output, links = [], []
    for i, groups in enumerate(inputs):
        for g, group in enumerate(groups):
            links.append((i, g, len(output), (1, 1)))
            output.append(group)
    return output, links
