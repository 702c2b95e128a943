"""The law of normalised residual nets: their field grows like the root of log depth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from erftheory.laws.machine.base import Context, Evidence, above, below, close, information, law
from erftheory.laws.machine.trials import BATCHES, LEVELS, Draws, draw, flip_test
from erftheory.network.base import Chain, Network
from erftheory.network.combine import Residual
from erftheory.network.layers import Activation, BatchNorm, Conv

DEPTHS = (4, 8, 16, 32, 64)  # blocks
DRAWN = (8,)  # those of them that random nets are drawn of; all with MANY samples
MANY = 10_000  # compiling deep nets takes longer than all other laws
DOUBLED = 256  # blocks, and twice as many
WIDTH = 16  # channels of the narrower of two nets; the other is twice as wide
STEP = 2 / 3  # variance of a step of three equal taps, px²
ROUNDING = 1e-12  # of a float variance, relative


def block(kernel: int | tuple[int, ...] = 3, convolutions: int = 1) -> Network:
    """A pre-activation residual block of `convolutions` × (batch norm, ReLU, convolution)."""
    return Residual(Chain(*[BatchNorm(), Activation("relu"), Conv(kernel)] * convolutions))


@law(
    "SKP-2",
    "residual nets see like sqrt(log depth)",
    "The variance of a pre-activation residual net with batch norm grows like log depth, its "
    "radius like sqrt(log depth)",
    "De & Smith, NeurIPS 2020, section 3, and derive.skip(): gains 1 / (1 + (1-1/pi) l)",
)
def normalised_residuals(context: Context) -> list[Evidence]:
    """The derivation's digammas, the mean-field gains in two engines, and random nets.

    The theory is that of many channels, of input channels too, and of batch statistics over many
    pixels; each of the three raises the sampled variance by a relative order of one over its
    number (channels 8, 16, 32 of eight blocks: +4.1, +1.6, +0.5 %, each ± 0.3 to 0.5; 49 pixels of
    statistics in place of 1,024: +4; one input channel: +17 at every width). Channels of unequal
    variance are divided by it, and a mean of 1/variance exceeds 1/mean. So nets of two sizes are
    drawn, the second of twice the channels, input channels and pixels of statistics, and their
    deviations extrapolated linearly to none; what is left is of second order (about -0.2 % at
    eight blocks, from the three widths above).
    """
    return _predicted(context) + _sampled(context)


def _predicted(context: Context) -> list[Evidence]:
    engines = context.engines
    evidence = []
    for convolutions in (1, 2):
        for depth in sorted({4, context.reduced("SKP-2: moments", 512), 64}):
            wanted = engines.symbolic.residual_variance(depth, convolutions, STEP)
            found = float(engines.moments(_net(depth, convolutions)).variance[0])
            name = f"{convolutions} convolutions a block, n={depth}: variance (px²)"
            evidence.append(
                close("moments", "symbolic", name, found, wanted, ROUNDING * depth * wanted)
            )
    once, twice = (float(engines.moments(_net(d)).variance[0]) for d in (DOUBLED, 2 * DOUBLED))
    doubling = engines.symbolic.residual_doubling(1, STEP)
    line = [float(engines.exact(_net(depth)).std[0]) ** 2 for depth in DEPTHS]
    by_hand = [_variance(depth) for depth in DEPTHS]
    gap = max(abs(a - b) / b for a, b in zip(line, by_hand))
    logarithm, linear = _residuals(DEPTHS, line)
    return [
        *evidence,
        # the digammas leave (offset − 1/2)/2n of the logarithm, with an offset below 3
        close("moments", "symbolic", f"variance (px²) added from n={DOUBLED} to {2 * DOUBLED}",
              twice - once, doubling, 2 * doubling / DOUBLED),
        below("exact", "theory", f"variance, n={_listed(DEPTHS)}: largest relative deviation",
              gap, 1e-9),
        below("exact", "a line in n",
              "variance against log n: residual of a line, over that against n",
              logarithm / linear, 1.0),
        information("exact", "a line in n", "variance (px²): residual of a line in log n",
                    logarithm, linear),
    ]  # fmt: skip


def _net(depth: int, convolutions: int = 1) -> Network:
    return Chain(block(3, convolutions) * depth, ndim=1)


def _variance(depth: int) -> float:
    """The sum of the shares α/(1 + α), block by block."""
    kept = 1 - 1 / math.pi
    gains = [1 / (1 + kept * before) for before in range(depth)]
    return STEP * sum(a / (1 + a) for a in gains)


def _residuals(depths: Sequence[int], variances: Sequence[float]) -> tuple[float, float]:
    """Root mean squares of what straight lines in log n and in n leave."""
    found = []
    for x in (np.log(depths), np.array(depths, float)):
        line = np.polyval(np.polyfit(x, variances, 1), x)
        found.append(float(np.sqrt(np.mean((variances - line) ** 2))))
    return found[0], found[1]


# ---- random nets -----------------------------------------------------------------------------


def _columns(depth: int, columns: int) -> Network:
    """`depth` blocks along the first axis, and a mean over `columns` that they do not mix.

    The columns only give the batch statistics independent pixels.
    """
    last = Conv((1, columns), channels=1, padding=0)
    return Chain(block((3, 1)) * depth, last, ndim=2)


def _sampled(context: Context) -> list[Evidence]:
    spreads, errors, rows = [], [], []
    depths = DEPTHS if context.samples >= MANY else DRAWN
    if depths != DEPTHS:
        context.note(f"SKP-2: sampled at {_listed(depths)} blocks; at 4 to 64 from {MANY} samples")
    for depth in depths:
        wanted = _variance(depth)
        narrow, wide = (
            _deviations(_draw(context, depth, width), wanted) for width in (WIDTH, 2 * WIDTH)
        )
        rest = 2 * wide - narrow
        rows.append(rest)
        spreads.append(wanted + float(rest.mean()))
        errors.append(float(rest.std(ddof=1)) / math.sqrt(BATCHES))
    evidence = [
        above("sampled", "theory",
              f"variance, n={_listed(depths)}, extrapolated to infinite width: p of the "
              "theory's by sign flips",
              flip_test(np.stack(rows, axis=1), context.seed), LEVELS["SKP-2"])
    ]  # fmt: skip
    for depth, spread, error in zip(depths, spreads, errors):
        evidence.append(
            information("sampled", "theory", f"variance (px²), n={depth}, standard error "
                        f"{error:.2g}", spread, _variance(depth))
        )  # fmt: skip
    if len(depths) > 2:
        logarithm, linear = _residuals(depths, spreads)
        evidence.append(
            information("sampled", "a line in n", "variance (px²): residual of a line in log n",
                        logarithm, linear)
        )  # fmt: skip
    return evidence


def _draw(context: Context, depth: int, width: int) -> Draws:
    nets = max(BATCHES, context.samples * 16 // (depth * width))
    return draw(
        context,
        _columns(depth, width // 2),
        channels=width,
        samples=nets,
        in_channels=width,
        batch_norm="frozen",
    )


def _deviations(draws: Draws, wanted: float) -> np.ndarray:
    """Variance along the first axis less `wanted` in every batch (px²), weighted by its power."""
    axes = tuple(a for a in range(1, draws.second.ndim) if a != draws.second.ndim - 2)
    line = draws.second.sum(axis=axes)
    t = np.arange(line.shape[1]) - (line.shape[1] - 1) / 2
    return (line @ t**2 - wanted * line.sum(1)) / line.sum(1).mean()


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
