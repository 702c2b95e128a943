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
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache, partial
from typing import NamedTuple

from erftheory.network import arguments as arg
from erftheory.network.channels import widths
from erftheory.network.graph import Concat, Graph, Input, Loop, Sum
from erftheory.network.imported import Channels, Spatial
from erftheory.network.initialisation import Init, bias_variance, check_init, weight_variance
from erftheory.network.layers import (
    Activation,
    Conv,
    ConvTranspose,
    GroupNorm,
    Layer,
    LayerNorm,
    RMSNorm,
)
from erftheory.theory.gains.groups import concat, rearranged, refine
from erftheory.theory.gains.norms import normed
from erftheory.theory.gains.transport import alike, balance, extrapolate, mean, plain, product, same
from erftheory.theory.lowering.branches import meeting
from erftheory.theory.lowering.lowering import through
from erftheory.theory.units import law as dist
from erftheory.theory.units.conditioned import Flow, Row, correlated, flow, reached, summed
from erftheory.theory.units.law import Group, UnitLaw
from erftheory.theory.units.sums import Shares
from erftheory.theory.units.unit_laws import keeping
from erftheory.theory.walk.links import Gains, Link, Power
from erftheory.theory.walk.weights import Weight, root, to_float

_PROBES = 64  # iterations looked at, if they last, before the scale alone is extrapolated


def meanfield_gains(
    graph: Graph,
    signal: str = "variance",
    init: Init = "he",
    channels: int = 16,
    in_channels: int | None = None,
) -> Gains:
    """Channel groups and link gains of every node of a randomly initialised net.

    Args:
      signal: "variance" or "magnitude" for power gains, "gradient" for their square roots (an
        explicit residual gain a counts √a there; fixed layers count their own weights).
      init: see `network.initialisation`.
      channels: width of the net where neither a convolution nor a sum says otherwise.
      in_channels: channels of the input; None is as many as a sum demands, else `channels` if a
        convolution of open width reads it, else 1.

    Raises:
      ValueError: an argument out of range, a sum of unequal channel counts, a depthwise
        convolution whose channels are no multiple of its input's, a batch norm of a constant.
    """
    check_init(init)
    arg.one_of("signal", signal, ("variance", "magnitude", "gradient"))
    channels = arg.integer("channels", channels)
    if in_channels is not None:
        in_channels = arg.integer("in_channels", in_channels)
    width = widths(graph, channels, in_channels)[0]
    run = _Pass(init, channels, signal == "gradient").run(graph, [(width, dist.STANDARD)])
    return run.gains[-1]


# ---- the pass ---------------------------------------------------------------------------------


class _Step(NamedTuple):
    """What a node does to the groups it reads: groups of its own, and a row for every link.

    `links` are the rows as links, one tuple for the power and maybe one for the amplitude.
    """

    output: list[Group]
    rows: list[Row]
    channels: tuple[int, ...]
    links: list[tuple[Link, ...]]
    flows: list[Flow]
    powers: tuple[Power, ...]


@dataclass
class _Run:
    """Gains of a graph, of power and maybe of amplitude, and its output's groups.

    `reach` is the power of each output group at the input, per channel and up to a factor.
    """

    gains: list[Gains]
    output: list[Group]
    reach: list[float]


@dataclass
class _Pass:
    """Power gains steer the pass; those of the amplitude are found along with them if asked for."""

    init: Init
    channels: int
    amplitude: bool
    counted: dict[tuple, list[int]] = field(default_factory=dict)  # widths, by graph and ends
    known: dict[tuple, _Step] = field(default_factory=dict)  # steps, by node and groups read
    # by laws added and shares of power: the stages of a net repeat one block at several widths
    sums: dict[tuple, tuple[UnitLaw, list[UnitLaw] | None]] = field(default_factory=dict)

    def widths(self, graph: Graph, source: int, target: int | None) -> list[int]:
        key = id(graph), source, target  # the graphs outlive the pass; their hash takes long
        if key not in self.counted:
            self.counted[key] = widths(graph, self.channels, source, target)
        return self.counted[key]

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
        listed = [Gains() for _ in range(1 + self.amplitude)]
        power = listed[0]
        width = self.widths(graph, sum(c for c, _ in source), target)
        states: list[list[Group]] = []
        highest = max(reach or [1.0]) or 1.0
        reaches = [[r / highest for r in reach] if reach else [1.0] * len(source)]
        parts: dict[tuple[int, int], list[UnitLaw]] = {}  # of a sum's group, as its inputs see it
        shared = Shares(graph, states, {}, partial(through, graph, power))

        def arrived(index: int, flows: list[Flow]) -> list[float]:
            above = [reaches[i] for i in graph.nodes[index].inputs]
            return reached(flows, above, len(states[index]))

        for index, node in enumerate(graph.nodes):
            inputs = [states[i] for i in node.inputs]
            if isinstance(node.op, Input):
                step = self._step([], source, [])
            elif isinstance(node.op, Sum):
                start = [reaches[i] for i in node.inputs]
                found = self._sum(graph, index, states, listed, start, parts, shared)
                step = self._step(inputs, *found)
            elif isinstance(node.op, Concat):
                step = self._step(inputs, *concat(inputs))
            elif isinstance(node.op, Loop):
                start = reaches[node.inputs[0]]
                step = self._step(
                    inputs, *self._loop(node.op, index, inputs[0], width[index], listed, start)
                )
            else:
                step = self._single(graph, index, inputs[0], width[index])
                before = node.inputs[0]
                if isinstance(node.op, Activation) and any(law.view for _, law in inputs[0]):
                    pieces = parts if graph.readers[before] == 1 else {}
                    rows = correlated(node.op.curve, before, inputs[0], step.rows, pieces, listed)
                    if rows != step.rows:
                        step = self._step(inputs, step.output, rows)
                    if any(changed == before for changed, _ in pieces):
                        above = [states[i] for i in graph.nodes[before].inputs]
                        reaches[before] = arrived(
                            before, flow(power.links[before], above, states[before])
                        )
            if isinstance(node.op, Activation):
                for gains in listed:
                    gains.gates[index] = node.op.curve, tuple(law for _, law in inputs[0])
            states.append(step.output)
            for gains, links in zip(listed, step.links):
                gains.channels.append(step.channels)
                gains.links.append(links)
                gains.powers.append(step.powers)
            if index:
                reaches.append(arrived(index, step.flows))
        return _Run(listed, states[-1], reaches[-1])

    def _step(self, inputs: list[list[Group]], output: list[Group], rows: list[Row]) -> _Step:
        links = [
            tuple(Link(i, s, t, gains[place]) for i, s, t, gains in rows)
            for place in range(1 + self.amplitude)
        ]
        flows = flow(links[0], inputs, output)
        powers = tuple(Power(to_float(law.second), to_float(law.level)) for _, law in output)
        return _Step(output, rows, tuple(c for c, _ in output), links, flows, powers)

    def _single(self, graph: Graph, index: int, groups: list[Group], out: int) -> _Step:
        """A layer of one input. In a loop the first layers alone read new laws each time."""
        key = id(graph), index, out, *groups
        found = self.known.get(key)
        if found is None:
            node = graph.nodes[index]
            if isinstance(node.op, Conv | ConvTranspose):
                made = self._convolution(node.op, node.name, graph.ndim, groups, out)
            elif isinstance(node.op, Channels | Spatial) and node.op.channels is not None:
                made = rearranged(node.op, graph.ndim, groups, out)
            elif isinstance(node.op, GroupNorm | LayerNorm | RMSNorm):
                made = normed(node.op, groups)
            else:
                assert isinstance(node.op, Layer)
                made = keeping(node.op, graph.ndim, groups)
            found = self.known[key] = self._step([groups], *made)
        return found

    def _convolution(
        self, op: Conv | ConvTranspose, name: str, ndim: int, groups: list[Group], out: int
    ) -> tuple[list[Group], list]:
        width = sum(c for c, _ in groups)
        depthwise, forward, gain, bias, held = _filter(op, ndim, width, out, self.init)
        if depthwise and out % width:
            raise ValueError(
                f"{name or 'channels'}: got {out} channels; a depthwise convolution of {width} "
                f"channels takes a multiple of {width}"
            )
        rows = [(0, g, g if depthwise else 0, gain) for g in range(len(groups))]
        if depthwise:
            times = out // width
            laws = [
                dist.gaussian(forward * law.second + bias, held * law.level + bias)
                for _, law in groups
            ]
            return [(c * times, law) for (c, _), law in zip(groups, laws)], rows
        second = mean([(c, law.second) for c, law in groups])
        level = mean([(c, law.level) for c, law in groups])
        law = dist.gaussian(forward * second + bias, held * level + bias)
        return [(out, law)], rows

    def _sum(
        self,
        graph: Graph,
        index: int,
        states: list[list[Group]],
        listed: list[Gains],
        reaches: list[list[float]],
        parts: dict[tuple[int, int], list[UnitLaw]],
        shared: Shares,
    ) -> tuple[list[Group], list]:
        node = graph.nodes[index]
        inputs, op = [states[i] for i in node.inputs], node.op
        assert isinstance(op, Sum)
        pieces = refine(inputs, node.name)
        rows = [
            (i, g, t, Fraction(count, inputs[i][g][0]))
            for t, (count, groups) in enumerate(pieces)
            for i, g in enumerate(groups)
        ]
        factor: list[Weight] = [1 for _ in listed]
        if op.gain is not None and op.fork is not None:
            factor = [
                balance(graph, index, gains, rows, wanted, op.fork)
                for gains, wanted in zip(listed, (op.gain, root(op.gain)))
            ]
            shared.factors[index] = factor[0]
        # a share of channels is a mean over them, the same in both signals
        links = [
            (i, g, t, tuple(share if i or f == 1 else share * f for f in factor))
            for i, g, t, share in rows
        ]
        output = []
        for t, (count, groups) in enumerate(pieces):
            laws = [inputs[i][g][1] for i, g in enumerate(groups)]
            laws[0] = dist.scaled(laws[0], factor[0])
            shares: tuple[float, ...] = ()
            if any(law.view for law in laws):
                powers = [reaches[i][g] for i, g in enumerate(groups)]
                powers[0] = to_float(powers[0] * to_float(factor[0]))
                total = sum(powers)
                shares = tuple(p / total if total > 0 else 1 / len(powers) for p in powers)
            if index in meeting(graph):
                ends = [(node.inputs[i], g) for i, g in enumerate(groups)]
                output.append((count, shared.total(ends, factor[0])))
                continue
            key = *laws, *shares
            if key not in self.sums:
                self.sums[key] = summed(laws, shares)
            law, seen = self.sums[key]
            if seen is not None and op.gain is None:  # a ratio that the user gave stays what it is
                parts[index, t] = seen
            output.append((count, law))
        return output, links

    def _loop(
        self,
        op: Loop,
        index: int,
        groups: list[Group],
        width: int,
        listed: list[Gains],
        reach: list[float],
    ) -> tuple[list[Group], list]:
        runs: list[tuple[int, _Run]] = []
        start, chain, done = len(groups), plain(op.graph), 0
        while done < op.times:
            before = groups
            run = self.run(op.graph, groups, width if done == op.times - 1 else None, reach)
            groups, reach, count = run.output, run.reach, 1
            done += 1
            if runs and same(runs[-1][1].gains[0], run.gains[0]):
                count += runs.pop()[0]
            left = op.times - 1 - done  # the last iteration may have another width
            settled = done >= _PROBES or alike(before, groups)
            if left > 0 and (count >= 3 or chain) and settled:
                groups = extrapolate(before, groups, left)
                count, done = count + left, done + left
            runs.append((count, run))
        runs.reverse()
        products = []
        for place, gains in enumerate(listed):
            inside = [(count, run.gains[place]) for count, run in runs]
            # forks alone make a chain's shape depend on its gains
            gains.runs[index] = [(op.times, inside[0][1])] if chain else inside
            products.append(product(op.graph, inside, start))
        links = [
            (0, s, t, tuple(p[s][t] for p in products))
            for s in range(start)
            for t in range(len(groups))
            if products[0][s][t]
        ]
        return groups, links


@lru_cache(maxsize=1024)
def _filter(
    op: Conv | ConvTranspose, ndim: int, width: int, out: int, init: Init
) -> tuple[bool, Weight, tuple[Weight, Weight], Weight, Weight]:
    """Whether a convolution keeps channels apart; its gain forward; its gain backward, and root;
    the variance of its biases, which a channel has for its mean; what it makes of squared means.

    A transposed convolution has taps of their own for each phase, so that a channel's mean over
    its pixels is a mean of independent ones.
    """
    step = op.step(ndim)
    spread = math.prod(step.stride) if step.up else 1
    depthwise = op.groups == "depthwise" or (op.groups == width > 1)
    if op.weights is not None:
        backward, signed = float(op.weights.power.mass), op.weights.signed.scale
        forward = op.weights.forward / spread
        return depthwise, forward, (backward, float(signed)), 0, forward / spread
    taps = math.prod(step.kernel.shape)
    groups = width if depthwise else int(op.groups)
    inward, outward = Fraction(width, groups), Fraction(out, groups)
    fans = init, inward, outward, taps, step.up
    variance, bias = weight_variance(*fans), bias_variance(*fans)
    backward = variance * outward * taps
    forward = variance * inward * taps / spread
    return depthwise, forward, (backward, root(backward)), bias, forward / spread
