"""The forward mean-field pass: what a random net's scales do to the power at every link.

Where branches meet, the shape of an ERF depends on how much power each carries. That is fixed by
the weight variances, the channel counts, the derivative of every activation and the variances that
batch normalisation divides by; the last two need the law of each unit, carried forward from an
input of independent N(0, 1) pixels in the limit of many channels. Neighbouring pixels count as
independent, units of different branches too (Yang & Schoenholz 2017; De & Smith 2020).

Gains of successive activations multiply, as if their gates were independent. A convolution between
them makes that true. Along an identity whose sums feed activations directly (post-activation
residual blocks) an open gate is likelier to be followed by an open one; there the gain at the
sum's inputs is corrected by E[φ′² | power that goes on to that input] / E[φ′²]. That makes the
total power exact; the powers of single paths factorise only nearly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache, partial
from itertools import accumulate

from erftheory.network import arguments as arg
from erftheory.network.graph import Concat, Graph, Input, Loop, Sum
from erftheory.network.layers import (
    Activation,
    AvgPool,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dropout,
    Layer,
    MaxPool,
    Upsample,
)
from erftheory.theory import distribution as dist
from erftheory.theory.distribution import Law, Weight, to_float
from erftheory.theory.gains import Gains, Link
from erftheory.theory.masses import balance, plain, power, product, same
from erftheory.theory.seen import Group, behind, correlated, reached, summands, together
from erftheory.theory.widths import widths

INITS = ("he", "lecun", "xavier")
_PROBES = 64  # iterations looked at, if they last, before the scale alone is extrapolated


def meanfield_gains(
    graph: Graph,
    signal: str = "variance",
    init: str = "he",
    channels: int = 16,
    in_channels: int | None = None,
) -> Gains:
    """Channel groups and link gains of every node of a randomly initialised net.

    Args:
      signal: "variance" or "magnitude" for power gains, "gradient" for their square roots (an
        explicit residual gain a counts √a there; fixed layers count their own weights).
      init: weight variance "he" 2/fan_in, "lecun" 1/fan_in, "xavier" 2/(fan_in + fan_out).
      channels: width of the net where neither a convolution nor a sum says otherwise.
      in_channels: channels of the input; None is as many as a sum demands, else `channels` if a
        convolution of open width reads it, else 1.

    Raises:
      ValueError: an argument out of range, a sum of unequal channel counts, a depthwise
        convolution whose channels are no multiple of its input's, a batch norm of a constant.
    """
    arg.one_of("init", init, INITS)
    arg.one_of("signal", signal, ("variance", "magnitude", "gradient"))
    channels = arg.integer("channels", channels)
    if in_channels is not None:
        in_channels = arg.integer("in_channels", in_channels)
    width = widths(graph, channels, in_channels)[0]
    run = _Pass(init, channels).run(graph, [(width, dist.STANDARD)])
    return run.amplitude if signal == "gradient" else run.power


# ---- channel groups ----------------------------------------------------------------------------


def _refine(inputs: list[list[Group]], name: str) -> list[tuple[int, tuple[int, ...]]]:
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


# ---- the pass ---------------------------------------------------------------------------------


@dataclass
class _Run:
    """Gains of a graph in both signals, and its output's groups.

    `reach` is the power of each output group at the input, per channel and up to a factor.
    """

    power: Gains
    amplitude: Gains
    output: list[Group]
    reach: list[float]


@lru_cache(maxsize=1024)
def _root(value: Weight) -> Weight:
    """√value, exact for squares of rationals."""
    if not isinstance(value, float):
        value = Fraction(value)
        top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
        if top * top == value.numerator and bottom * bottom == value.denominator:
            return Fraction(top, bottom)
    return math.sqrt(to_float(value))


@dataclass
class _Pass:
    init: str
    channels: int

    def run(
        self,
        graph: Graph,
        source: list[Group],
        target: int | None = None,
        reach: list[float] | None = None,
    ) -> _Run:
        """Gains of `graph` read by something that asks `target` channels of it.

        `reach` is that of the source's groups, 1 each if None.
        """
        power, amplitude = Gains(), Gains()
        width = widths(graph, self.channels, sum(c for c, _ in source), target)
        states: list[list[Group]] = []
        highest = max(reach or [1.0]) or 1.0
        reaches = [[r / highest for r in reach] if reach else [1.0] * len(source)]
        parts: dict[tuple[int, int], list[Law]] = {}  # of a sum's group, as its inputs see it
        readers = [i for node in graph.nodes for i in node.inputs]
        for index, node in enumerate(graph.nodes):
            inputs = [states[i] for i in node.inputs]
            if isinstance(node.op, Input):
                output, links = source, []
            elif isinstance(node.op, Sum):
                output, links = self._sum(
                    graph, index, inputs, power, amplitude, [reaches[i] for i in node.inputs], parts
                )
            elif isinstance(node.op, Concat):
                output, links = _concat(inputs)
            elif isinstance(node.op, Loop):
                start = reaches[node.inputs[0]]
                output, links = self._loop(
                    node.op, index, inputs[0], width[index], power, amplitude, start
                )
            elif isinstance(node.op, Conv | ConvTranspose):
                output, links = self._convolution(
                    node.op, node.name, graph.ndim, inputs[0], width[index]
                )
            else:
                output, links = _keeping(node.op, graph.ndim, inputs[0])
                if isinstance(node.op, Activation):
                    before = node.inputs[0]
                    known = parts if readers.count(before) == 1 else {}
                    links = correlated(
                        node.op.name, before, inputs[0], links, known, (power, amplitude)
                    )
                    if before:  # the sum's links may have changed
                        reaches[before] = reached(graph, before, states, power, reaches)
            states.append(output)
            for gains in (power, amplitude):
                gains.channels.append(tuple(c for c, _ in output))
            power.links.append(tuple(Link(i, s, t, gain) for i, s, t, gain, _ in links))
            amplitude.links.append(tuple(Link(i, s, t, gain) for i, s, t, _, gain in links))
            if index:
                reaches.append(reached(graph, index, states, power, reaches))
        return _Run(power, amplitude, states[-1], reaches[-1])

    def _convolution(
        self, op: Conv | ConvTranspose, name: str, ndim: int, groups: list[Group], out: int
    ) -> tuple[list[Group], list]:
        step = op.step(ndim)
        taps = math.prod(step.kernel.shape)
        width = sum(c for c, _ in groups)
        depthwise = op.groups == "depthwise" or (op.groups == width > 1)
        if depthwise and out % width:
            raise ValueError(
                f"{name or 'channels'}: got {out} channels; a depthwise convolution of {width} "
                f"channels takes a multiple of {width}"
            )
        parts = width if depthwise else int(op.groups)
        spread = math.prod(step.stride) if step.up else 1
        forward, *gain = _fans(self.init, width * taps, out * taps, parts, spread)
        rows = [(0, g, g if depthwise else 0, *gain) for g in range(len(groups))]
        if depthwise:
            times = out // width
            laws = [dist.gaussian(forward * law.second, forward * law.level) for _, law in groups]
            return [(c * times, law) for (c, _), law in zip(groups, laws)], rows
        second = _mean([(c, law.second) for c, law in groups])
        level = _mean([(c, law.level) for c, law in groups])
        return [(out, dist.gaussian(forward * second, forward * level))], rows

    def _sum(
        self,
        graph: Graph,
        index: int,
        inputs: list[list[Group]],
        power: Gains,
        amplitude: Gains,
        reaches: list[list[float]],
        parts: dict[tuple[int, int], list[Law]],
    ) -> tuple[list[Group], list]:
        node = graph.nodes[index]
        op = node.op
        assert isinstance(op, Sum)
        pieces = _refine(inputs, node.name)
        rows = [
            (i, g, t, Fraction(count, inputs[i][g][0]))
            for t, (count, groups) in enumerate(pieces)
            for i, g in enumerate(groups)
        ]
        factor: tuple[Weight, Weight] = (1, 1)
        if op.gain is not None and op.fork is not None:
            factor = (
                balance(graph, index, power, rows, op.gain, op.fork),
                balance(graph, index, amplitude, rows, _root(op.gain), op.fork),
            )
        links = []
        for i, g, t, share in rows:
            # a share of channels is a mean over them, the same in both signals
            links.append((i, g, t, *(share * f if i == 0 else share for f in factor)))
        output = []
        for t, (count, groups) in enumerate(pieces):
            laws = [inputs[i][g][1] for i, g in enumerate(groups)]
            laws[0] = dist.scaled(laws[0], factor[0])
            law = laws[0]
            for other in laws[1:]:
                law = dist.add(law, other)
            seen = summands(laws)
            if seen is not None:
                powers = [reaches[i][g] for i, g in enumerate(groups)]
                powers[0] = to_float(powers[0] * to_float(factor[0]))
                law = replace(law, view=partial(together, seen, powers))
                if op.gain is None:  # a ratio that the user gave stays what it is
                    parts[index, t] = seen
            output.append((count, law))
        return output, links

    def _loop(
        self,
        op: Loop,
        index: int,
        groups: list[Group],
        width: int,
        power: Gains,
        amplitude: Gains,
        reach: list[float],
    ) -> tuple[list[Group], list]:
        runs: list[tuple[int, _Run]] = []
        start, chain, done = len(groups), plain(op.graph), 0
        while done < op.times:
            before = groups
            run = self.run(op.graph, groups, width if done == op.times - 1 else None, reach)
            groups, reach, count = run.output, run.reach, 1
            done += 1
            if runs and same(runs[-1][1].power, run.power):
                count += runs.pop()[0]
            left = op.times - 1 - done  # the last iteration may have another width
            settled = done >= _PROBES or _alike(before, groups)
            if left > 0 and (count >= 3 or chain) and settled:
                groups = _extrapolate(before, groups, left)
                count, done = count + left, done + left
            runs.append((count, run))
        runs.reverse()
        products = []
        for gains, pick in ((power, "power"), (amplitude, "amplitude")):
            listed = [(count, getattr(run, pick)) for count, run in runs]
            # forks alone make a chain's shape depend on its gains
            gains.runs[index] = [(op.times, listed[0][1])] if chain else listed
            products.append(product(op.graph, listed, start))
        links = [
            (0, s, t, products[0][s][t], products[1][s][t])
            for s in range(start)
            for t in range(len(groups))
            if products[0][s][t]
        ]
        return groups, links


@lru_cache(maxsize=1024)
def _fans(
    init: str, inputs: int, outputs: int, groups: int, spread: int
) -> tuple[Fraction, Fraction, Weight]:
    """Forward gain, backward gain and its root, for that many weights a pixel over all groups."""
    fan_in, fan_out = Fraction(inputs, groups), Fraction(outputs, groups)
    variance = {"he": 2 / fan_in, "lecun": 1 / fan_in, "xavier": 2 / (fan_in + fan_out)}[init]
    return variance * fan_in / spread, variance * fan_out, _root(variance * fan_out)


def _mean(parts: list[tuple[int, Weight]]) -> Weight:
    if len(parts) == 1:
        return parts[0][1]
    total = sum(c for c, _ in parts)
    if any(isinstance(v, float) for _, v in parts):
        return sum(c * to_float(v) for c, v in parts) / total
    return Fraction(sum(c * v for c, v in parts)) / total


def _keeping(op: Layer, ndim: int, groups: list[Group]) -> tuple[list[Group], list]:
    """An operation that acts on every channel alone."""
    output, links = [], []
    for g, (count, law) in enumerate(groups):
        law, gain, amplitude = _pointwise(op, ndim, law)
        output.append((count, law))
        links.append((0, g, g, gain, _root(gain) if amplitude is None else amplitude))
    return output, links


def _pointwise(op: Layer, ndim: int, law: Law) -> tuple[Law, Weight, Weight | None]:
    """Law behind a layer that keeps channels apart, its power gain, and gain as a plain gradient
    where that is not the root (fixed weights)."""
    if isinstance(op, Activation):
        out, gain = dist.activated(law, op.name)
        return behind(law, op.name, out), gain, None
    if isinstance(op, BatchNorm):
        out = dist.normalised(law)
        variance = law.variance
        exact = not isinstance(variance, float)
        return out, 1 / Fraction(variance) if exact else 1 / to_float(variance), None
    if isinstance(op, Dropout):
        return dist.dropped(law, op.rate), 1 / (1 - Fraction(op.rate)), None
    step = op.step(ndim)
    if step is None:  # a global mean: no gain of its own that a finite map could show
        return law, 1, None
    taps = step.kernel.exact
    if isinstance(op, MaxPool):
        return dist.maximum(law, len(taps)), 1, None
    if isinstance(op, AvgPool):
        share = Fraction(1, len(taps))
        return dist.averaged(law, share), share, 1
    assert isinstance(op, Upsample)
    squares = sum(t * t for t in taps)
    return dist.averaged(law, Fraction(squares, math.prod(step.stride))), squares, sum(taps)


def _concat(inputs: list[list[Group]]) -> tuple[list[Group], list]:
    output, links = [], []
    for i, groups in enumerate(inputs):
        for g, group in enumerate(groups):
            links.append((i, g, len(output), 1, 1))
            output.append(group)
    return output, links


def _alike(before: list[Group], after: list[Group]) -> bool:
    """True if the states differ by their scales at most."""
    if len(before) != len(after):
        return False
    for (_, old), (_, new) in zip(before, after):
        size = to_float(old.second), to_float(new.second)
        for one, two, degree in (
            (to_float(old.level), to_float(new.level), 1.0),
            (old.within, new.within, 1.0),
            (old.between, new.between, 1.0),
            (old.mean, new.mean, 0.5),
        ):
            if abs(one / size[0] ** degree - two / size[1] ** degree) > 1e-12:
                return False
    return True


def _extrapolate(before: list[Group], after: list[Group], times: int) -> list[Group]:
    """States `times` iterations later, where each iteration changes the scale as the last did."""
    if len(before) != len(after):
        return after
    output = []
    for (_, old), (count, new) in zip(before, after):
        if not to_float(old.second):
            return after
        ratio = to_float(new.second) / to_float(old.second)
        if not math.isclose(ratio, 1, rel_tol=1e-12):
            new = dist.scaled(new, power(ratio, times))
        output.append((count, new))
    return output
