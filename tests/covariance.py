"""The whole covariance E[g_p g_q] of the gradients of random nets: a referee of every reading.

`judge` carries the second moments of the gradients of one output unit from the output to the
input, jointly over all nodes, channels and pixels that the gradient has reached, so that branches
which meet add as gradients and are squared afterwards. It reads descriptions alone (`Chain`,
`Conv`, …) and shares no code with what it judges: no graph, no walk, no gains, no lags.

Answers are exact for independent weights of mean 0, fixed layers, dropout, max pools over
independent pixels of one law, and gates that read a convolution as long as no correlated
gradients pass them. Where that fails, `doubts` says why and the map is no referee.
On the plane (`image=None`) every node has the pixels that the unit reads and no rim: nothing can
get lost, however small the arrays. `exact=True` computes in fractions, else in float64.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from covariance_layers import (
    RULES,
    Place,
    Pull,
    Span,
    crop,
    each,
    indices,
    max_pools,
    pixels,
    stride,
)
from covariance_nodes import WINDOWS, Node, Unequal, on_image, on_plane, read

from erftheory import Activation, Conv, MaxPool, Network

DUST = 1e-12  # of the largest second moment: what float64 makes of zeros


# ---- the second moments of all open nodes ------------------------------------------------------


@dataclass
class Moments:
    """E[g_m g_nᵀ] by pairs of nodes m ≤ n; what is not there is 0."""

    sizes: list[int]
    dtype: Any
    blocks: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)

    def get(self, m: int, n: int) -> np.ndarray:
        found = self.blocks.get((min(m, n), max(m, n)))
        if found is None:
            return np.zeros((self.sizes[m], self.sizes[n]), dtype=self.dtype)
        return found if m <= n else found.T

    def joint(self, rows: list[int], columns: list[int]) -> np.ndarray:
        return np.block([[self.get(m, n) for n in columns] for m in rows])

    def known(self) -> set[int]:
        return {m for pair in self.blocks for m in pair}

    def correlated(self, nodes: list[int]) -> bool:
        """True if any two different entries, one of them of `nodes`, have a moment."""
        own = self.joint(nodes, nodes)
        largest = max((abs(v) for v in np.diag(own)), default=0)
        rest = [own - np.diag(np.diag(own))]
        rest += [self.get(n, k) for n in nodes for k in self.known() - set(nodes)]
        return any(np.any(abs(r) > DUST * largest) for r in rest)

    def pull(self, nodes: list[int], means: dict[int, np.ndarray | None], excess=None) -> None:
        """Takes `nodes` off and adds Jᵀ of them to each source; the excess to the only one."""
        own = self.joint(nodes, nodes)
        reached = np.flatnonzero((own != 0).any(axis=1))  # few entries of a large image are
        core = own[np.ix_(reached, reached)]
        others = self.known() - set(nodes)
        sources = sorted(means)
        made = {}
        for k in sources:
            for n in sorted(others | set(sources)):
                if n in means and n < k:
                    continue
                block, left, right = self.get(k, n), means[k], means.get(n)
                if left is not None:
                    block = block + left.T @ self.joint(nodes, [n])
                if right is not None:
                    block = block + self.joint([k], nodes) @ right
                if left is not None and right is not None and len(reached):
                    block = block + left[reached].T @ core @ right[reached]
                if k == n and excess is not None:
                    block = block + excess(own)
                made[min(k, n), max(k, n)] = block if k <= n else block.T
        kept = {pair: b for pair, b in self.blocks.items() if not set(pair) & set(nodes)}
        kept.update({pair: b for pair, b in made.items() if np.any(b != 0)})
        self.blocks = kept


# ---- where the rules hold ----------------------------------------------------------------------


def white(nodes: list[Node], index: int, ndim: int) -> int | None:
    """The node whose pixels make this node's ones independent and of one law, None if none does.

    Such are the input, what convolutions of one tap make of it, and max pools of such maps whose
    windows do not overlap (the largest tells nothing of where it was).
    """
    node = nodes[index]
    if node.op == "input":
        return index
    if not isinstance(node.op, Conv | MaxPool):
        return None
    below = white(nodes, node.inputs[0], ndim)
    k, d = each(node.op.kernel, ndim), each(node.op.dilation, ndim)
    if below is None or (set(each(node.op.padding, ndim)) - {0, (0, 0), "same", "valid", "causal"}):
        return None
    if isinstance(node.op, Conv):
        return below if set(k) == {1} else None
    twins = sum(n.inputs == node.inputs and isinstance(n.op, MaxPool) for n in nodes)
    apart = all(s >= b * (a - 1) + 1 for s, a, b in zip(stride(node.op, ndim), k, d))
    plain = node.op.padding in ("valid", 0) or set(k) == {1}
    return index if apart and twins == 1 and plain else None


def doubtful(nodes: list[Node], ndim: int) -> list[str]:
    """Where the description alone says that a rule does not hold."""
    found, roots = [], {}
    for node in nodes:
        before = node.inputs[0] if node.inputs else 0
        if isinstance(node.op, Activation) and node.op.name != "linear":
            read = nodes[before]
            if not isinstance(read.op, WINDOWS) or sum(n.inputs.count(before) for n in nodes) > 1:
                found.append("an activation that does not read a convolution of its own")
        if isinstance(node.op, MaxPool):
            root = white(nodes, before, ndim)
            if root is None:
                found.append("a max pool over pixels that are not independent")
            elif roots.setdefault(root, before) != before:
                found.append("max pools over different maps of one origin")
    return found


# ---- the judgement -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Judgement:
    """E[g²] summed over channels, `power`, at input pixels from `offset` on; `mass` is its sum."""

    power: np.ndarray
    offset: tuple[int, ...]
    doubts: tuple[str, ...]
    outside: Span  # the output's pixels, on an image
    entries: int  # of the largest node, channels times pixels

    @property
    def mass(self) -> Any:
        return self.power.sum()

    @property
    def map(self) -> np.ndarray:
        """Of sum 1."""
        return self.power / self.mass

    def over(self, offset: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
        """The map on a window of input pixels, 0 beyond what the unit reads."""
        found = np.zeros(shape, dtype=self.power.dtype)
        for at, value in zip(np.ndindex(*self.power.shape), self.map.ravel()):
            place = tuple(a + o - w for a, o, w in zip(at, self.offset, offset))
            if all(0 <= p < n for p, n in zip(place, shape)):
                found[place] = value
        return found


def judge(
    network: Network,
    image: int | tuple[int, ...] | None = None,
    unit: int | tuple[int, ...] | None = None,
    init: str = "he",
    exact: bool = False,
    source: str | None = None,
    width: int | None = None,
    in_channels: int | None = None,
) -> Judgement:
    """Second moments of one unit's gradient at the input, or at the output of the part `source`.

    The unit is every output channel at one pixel, with independent signs; None is pixel 0 of the
    plane and the middle n // 2 of an image.

    Raises:
      Unequal: sums of unequal size, an image too small, a global mean on the plane, or a unit
        that reads nothing.
      NotImplementedError: residual gains, weights of a layer's own, batch normalisation.
    """
    ndim = network.ndim
    reader = read(network, width, in_channels)
    nodes = reader.nodes
    number = Fraction if exact else float
    size = None if image is None else tuple((0, n) for n in each(image, ndim))
    at = None if unit is None else each(unit, ndim)
    if size is None:
        at = at or (0,) * ndim
        spans = on_plane(nodes, at)
    else:
        spans = on_image(nodes, size)
        at = at or tuple(b // 2 for _, b in spans[-1])
    last = reader.names[source] if source is not None else 0
    sizes = [0 if s is None else n.channels * pixels(s) for n, s in zip(nodes, spans)]
    moments = Moments(sizes, object if exact else float)
    start = np.zeros((sizes[-1],) * 2, dtype=moments.dtype)
    place = indices(spans[-1]).index(at)
    for c in range(nodes[-1].channels):
        start[(c * pixels(spans[-1]) + place,) * 2] = number(1)
    top = len(nodes) - 1
    moments.blocks[top, top] = start
    doubts = doubtful(nodes, ndim)
    for index in range(top, last, -1):
        if (index, index) in moments.blocks:
            doubts += _pull(moments, nodes, index, spans, size, init, number)
    if (last, last) not in moments.blocks:
        raise Unequal("a unit that reads nothing")
    span = spans[last]
    shape = tuple(b - a for a, b in span)
    power = np.diag(moments.get(last, last)).reshape(nodes[last].channels, *shape).sum(0)
    offset = tuple(a for a, _ in span)
    return Judgement(power, offset, tuple(sorted(set(doubts))), spans[-1], max(sizes))


def _pull(moments: Moments, nodes, index: int, spans, image, init: str, number) -> list[str]:
    """One node's gradients handed to what it reads; the doubts that arise."""
    node = nodes[index]

    def place(i: int) -> Place:
        before = nodes[i].inputs[0]
        image_here = None if image is None else spans[before]
        channels = nodes[before].channels, nodes[i].channels
        return Place(len(spans[-1]), spans[before], spans[i], image_here, *channels, init, number)

    if node.op in ("sum", "concat"):
        means: dict[int, np.ndarray] = {}
        done = 0
        for i in node.inputs:
            block = np.zeros((node.channels, nodes[i].channels), dtype=int)
            for c in range(nodes[i].channels):
                block[c + (done if node.op == "concat" else 0), c] = 1
            done += nodes[i].channels
            matrix = np.kron(block, crop(spans[index], spans[i]))
            means[i] = means[i] + matrix if i in means else matrix
        moments.pull([index], means)
        return []
    before = node.inputs[0]
    if spans[before] is None:  # a unit of a transposed convolution between its taps
        moments.pull([index], {})
        return []
    if isinstance(node.op, MaxPool):
        family = [i for i, n in enumerate(nodes)
                  if isinstance(n.op, MaxPool) and n.inputs == node.inputs
                  and (i, i) in moments.blocks]  # fmt: skip
        if index != family[0]:
            return []  # together with the first, when all of them are complete
        pull = max_pools([nodes[i].op for i in family], [place(i) for i in family])
        channels = nodes[before].channels
        mixed = nodes[before].op != "input" and any(
            _across(moments.get(i, j), channels) for i in family for j in family
        )
        moments.pull(family, {before: pull.mean}, pull.excess)
        return ["max pools of channels that are correlated"] * mixed
    rule = RULES.get(type(node.op))
    if rule is None:
        raise NotImplementedError(type(node.op).__name__)
    pull: Pull = rule(node.op, place(index))
    doubts = [pull.doubt] if pull.doubt else []
    if pull.gate and moments.correlated([index]):
        doubts.append("correlated gradients that pass a gate")
    moments.pull([index], {before: pull.mean}, pull.excess)
    return doubts


def _across(block: np.ndarray, channels: int) -> bool:
    rows, columns = (n // channels for n in block.shape)
    four = block.reshape(channels, rows, channels, columns)
    return any(np.any(four[c, :, d, :] != 0) for c in range(channels) for d in range(channels)
               if c != d)  # fmt: skip
