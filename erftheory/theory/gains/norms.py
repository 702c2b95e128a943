"""Laws behind normalisations that look across channels: layer, RMS and group normalisation.

A unit's law has its mean over everything m, the spread of channel means S = level − m², and the
variance inside a channel V = second − level. In the limit of many channels (and pixels):

- layer normalisation subtracts m and divides by V + S (level − m² is what stays of the level),
- RMS normalisation divides by the second moment,
- group normalisation over n channels subtracts the mean of its own n channel means. That takes
  S / n of the spread away and leaves each group the variance V + S·χ²/n, χ² of n − 1 degrees of
  freedom for Gaussian channel means. One channel a group is instance normalisation, many are
  layer normalisation.

Concatenated channels of different laws share their statistics where they lie in one group.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

import numpy as np
from scipy.special import roots_genlaguerre

from erftheory.network.layers import GroupNorm, LayerNorm, RMSNorm
from erftheory.theory.gains.transport import mean
from erftheory.theory.units import law as dist
from erftheory.theory.units.conditioned import Row
from erftheory.theory.units.law import Group, UnitLaw
from erftheory.theory.units.quadrature import Points, binned, class_means, merged
from erftheory.theory.walk.weights import Weight, root, to_float

_NODES = 64  # of the quadrature over χ²
_MANY = 512  # channels of a group from which its variance is known


def normed(
    op: LayerNorm | RMSNorm | GroupNorm, groups: list[Group]
) -> tuple[list[Group], list[Row]]:
    """Channel groups behind a normalisation across channels, and the links to those before.

    Raises:
      ValueError: nothing varies, or groups that do not divide the channels.
    """
    total = sum(count for count, _ in groups)
    if not isinstance(op, GroupNorm):
        return _together(op, groups)
    if total % op.groups:
        raise ValueError(f"groups: got {op.groups}; takes a divisor of its {total} channels")
    size, output, rows = total // op.groups, [], []
    for pieces in _pieces(groups, size):
        count = sum(n for n, _ in pieces)
        if len(pieces) == 1:
            law, gain = _grouped(groups[pieces[0][1]][1], size)
            found = [(law, gain)]
        else:
            found = _joint([(n, groups[g][1]) for n, g in pieces], size)
        for (n, g), (law, gain) in zip(pieces, found):
            share = Fraction(n, groups[g][0])
            rows.append((0, g, len(output), (_product(share, gain), _product(share, root(gain)))))
            output.append((n, law))
        assert count % size == 0
    return output, rows


def _product(share: Fraction, gain: Weight) -> Weight:
    return gain if share == 1 else share * gain


def _pieces(groups: list[Group], size: int) -> list[list[tuple[int, int]]]:
    """Runs of normalised groups: (channels, the law's index), several where a group has several."""
    runs: list[list[tuple[int, int]]] = []
    open_, room = [], 0  # of a group that is not full yet
    for g, (count, _) in enumerate(groups):
        if room:
            taken = min(room, count)
            open_.append((taken, g))
            room, count = room - taken, count - taken
            if room:
                continue
            runs.append(open_)
            open_ = []
        whole = count - count % size
        if whole:
            runs.append([(whole, g)])
        if count % size:
            open_, room = [(count % size, g)], size - count % size
    return runs


def _together(op: LayerNorm | RMSNorm, groups: list[Group]) -> tuple[list[Group], list[Row]]:
    second = mean([(count, law.second) for count, law in groups])
    shift = mean([(count, law.mean) for count, law in groups]) if isinstance(op, LayerNorm) else 0
    variance = second - to_float(shift) ** 2 if shift else second
    gain = _inverse(op, variance)
    output = [(count, standardised(law, to_float(shift), variance)) for count, law in groups]
    return output, [(0, g, g, (gain, root(gain))) for g in range(len(groups))]


def _inverse(op: object, variance: Weight) -> Weight:
    if to_float(variance) <= 0:
        name = op if isinstance(op, str) else type(op).__name__
        raise ValueError(f"{name}: got channels of variance 0; takes channels that vary")
    return 1 / (to_float(variance) if isinstance(variance, float) else Fraction(variance))


def standardised(law: UnitLaw, shift: float, variance: Weight) -> UnitLaw:
    """The unit less `shift`, divided by √`variance`: the same two numbers for all channels."""
    gain = _inverse("LayerNorm", variance)
    if not shift:
        return dist.scaled(law, gain)

    def make() -> Points:
        nodes, probs = law.points
        return nodes - shift, probs

    def moved(second: Weight) -> float:
        return max(to_float(second) - 2 * shift * law.mean + shift**2, 0.0)

    less = replace(
        law, second=moved(law.second), level=moved(law.level), mean=law.mean - shift,
        symmetric=False, make=make, view=law.view and (lambda: _less(law.seen, shift)),
        pooled=None,
    )  # fmt: skip
    return dist.scaled(less, gain)


def _less(law: UnitLaw, shift: float) -> UnitLaw:
    return standardised(replace(law, view=None), shift, 1)


def _grouped(law: UnitLaw, size: int) -> tuple[UnitLaw, Weight]:
    """A law whose groups of `size` channels are normalised, and the power gain of a gradient."""
    if size == 1:
        return dist.normalised(law), _inverse("GroupNorm", law.variance)
    spread = max(to_float(law.level) - law.mean**2, 0.0)
    inside = to_float(law.variance)
    if spread <= 1e-12 * inside:
        exact = law.variance if not law.level else inside
        return standardised(law, law.mean, exact), _inverse("GroupNorm", exact)
    gain = _mean_inverse(inside, spread, size)
    level = max(1 - inside * gain, 0.0)  # what the groups' own spread leaves of second = 1
    between = math.sqrt(level / spread)
    if law.gaussian:
        return dist.gaussian(1, level), gain

    def make() -> Points:
        nodes, probs = law.points
        means = class_means(nodes, probs)
        flat = (means[:, None] - law.mean) * between + (nodes - means[:, None]) * math.sqrt(gain)
        rows = np.einsum("kl,kn->kln", np.eye(len(means)), probs)
        return merged(*binned(flat.ravel(), rows.reshape(len(means), -1)))

    out = UnitLaw(
        1, level, 0.0, law.within * gain, law.between * level / spread, law.symmetric, make, None,
        law.gates,
    )  # fmt: skip
    return out, gain


@lru_cache(maxsize=1024)
def _mean_inverse(inside: float, spread: float, size: int) -> float:
    """E 1 / (V + S χ²/n), χ² of n − 1 degrees of freedom."""
    if size >= _MANY:
        return to_float(_inverse("GroupNorm", inside + spread * (1 - 1 / size)))
    if inside <= 0:
        raise ValueError("GroupNorm: got channels of variance 0; takes channels that vary")
    nodes, weights = roots_genlaguerre(_NODES, (size - 3) / 2)
    return float(weights @ (1 / (inside + 2 * spread * nodes / size)) / weights.sum())


def _joint(pieces: list[Group], size: int) -> list[tuple[UnitLaw, Weight]]:
    """One group of channels that have several laws."""
    shift = to_float(mean([(n, law.mean) for n, law in pieces]))
    spread = [max(to_float(law.level) - law.mean**2, 0.0) for _, law in pieces]
    variance = mean([
        (n, to_float(law.variance) + s * (1 - 1 / size) + (law.mean - shift) ** 2)
        for (n, law), s in zip(pieces, spread)
    ])  # fmt: skip
    gain = _inverse("GroupNorm", variance)
    return [(standardised(law, shift, variance), gain) for _, law in pieces]
