"""From a network to one with the ERF that is wanted: descent on its taps and its skips' ratios.

Taps are a softmax of numbers, one for all taps that the layer's own symmetries (mirrors, and the
exchange of axes) carry into each other: they stay ≥ 0, of sum 1, and as symmetric as they were (but
for axes that shall differ). A residual block has the log of its power ratio. L-BFGS descends, for a
deviation along the exact derivatives of `sensitivity` of the changed network, for a shape along
those of its map.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import permutations, product
from typing import Any

import numpy as np
from scipy.optimize import minimize

from erftheory.designing.changing import rewritten, with_ops
from erftheory.designing.passes import passes
from erftheory.designing.sensitivities import closed
from erftheory.designing.spectra import is_sum, spectra
from erftheory.designing.wishes import Wish, check_wish, loss_of
from erftheory.network import arguments as arg
from erftheory.network.base import Network, check_network
from erftheory.network.graph import Graph, Sum, unrolled
from erftheory.network.initialisation import Init
from erftheory.network.layers import Conv
from erftheory.tables import as_html, as_text
from erftheory.theory.gains.between import Between
from erftheory.theory.readings.moments import moments

BY = ("taps", "skips", "both")
STARTS = 4  # of a descent to a shape
EDGE = 40.0  # logs stay within: beyond, a tap is 0 for 64-bit numbers
HEADER = ("layer", "of", "was", "is")


@dataclass(frozen=True, eq=False)
class Tuned:
    """A network on its way to a wanted ERF.

    Attributes:
      network: the changed network, its structure kept; convolutions have `taps`, residual blocks
        `gain`. Rounds of a repetition that became different stand one after the other.
      taps: of every changed convolution by name, an array of the kernel's shape and sum 1; names
        that several or no layers have are followed by # and the number of the node.
      gains: of every changed residual block, the power ratio of branch to shortcut.
      asked: the target in words.
      before, after: distance to it: pixels between deviations (the largest of all axes), or total
        variation to the shape.
      std: deviation of the changed network, pixels an axis.
      steps: how often the derivatives were taken.
    """

    network: Network = field(repr=False)
    taps: dict[str, np.ndarray] = field(repr=False)
    gains: dict[str, float]
    asked: str
    before: float
    after: float
    std: tuple[float, ...]
    steps: int
    rows: tuple[tuple[str, str, str, str], ...] = field(repr=False)

    def _notes(self) -> list[str]:
        std = " x ".join(f"{v:.4g}" for v in self.std)
        return [
            f"{self.asked}: distance {self.before:.4g} before, {self.after:.4g} after "
            f"{self.steps} steps; std {std} pixels"
        ]

    def __str__(self) -> str:
        return as_text(HEADER, self.rows, 2, self._notes())

    def _repr_html_(self) -> str:
        return as_html(HEADER, self.rows, self._notes()[0], (0, 1))


def tune(
    network: Network, target: Any, by: str = "taps", init: Init | None = "he", steps: int = 300
) -> Tuned:
    """Taps and skip ratios that bring a network's ERF as close to a wanted one as descent gets.

    Of the variance signal on the unbounded plane. A local descent, for shapes from several starts:
    a target out of reach is approached as far as taps allow; `Tuned.after` says how far that is.

    Args:
      target: the deviation in pixels, a number or one an axis; or one of {"std": …}, {"flat":
        radius}, the uniform disc, and {"gaussian": std}, as for `design`.
      by: what may change, "taps" (of convolutions without given weights), "skips" (the ratios of
        residual blocks) or "both".
      init: as for `moments`.
      steps: the most steps of descent.

    Raises:
      ValueError: an argument out of range, a network without anything that may change, or one that
        `sensitivity` refuses.
    """
    check_network("network", network)
    if isinstance(network, Between):
        raise ValueError("network: got a part of a network; takes a whole one")
    arg.one_of("by", by, BY)
    arg.integer("steps", steps)
    wish = check_wish(target, network.ndim)
    start = unrolled(network.graph)
    knobs = _knobs(start, by, init, len(set(wish.values)) == 1)
    if not knobs.size:
        raise ValueError(
            f"by: got {by!r} of a network without any of them; takes one with convolutions of "
            "several taps or residual blocks to change"
        )
    before = wish.distance(network, init)
    if wish.kind == "std":
        value: Callable = _by_moments(knobs, wish, init)
    else:
        value = _by_maps(knobs, wish, init)
    edges = [(min(x, -EDGE), max(x, EDGE)) for x in knobs.start]
    starts, noise = [knobs.start], np.random.default_rng(0)
    if wish.kind != "std":  # equal layers would stay equal, and shapes are made of unequal ones
        starts += [knobs.start + noise.normal(size=knobs.size) for _ in range(STARTS - 1)]
    runs = [
        minimize(
            value, start, jac=True, method="L-BFGS-B", bounds=edges,
            options={"maxiter": steps, "ftol": 1e-15, "gtol": 1e-10},
        )
        for start in starts
    ]  # fmt: skip
    best = min(runs, key=lambda run: run.fun)
    return _tuned(network, knobs, best.x, wish, before, init, sum(int(r.nfev) for r in runs))


@dataclass(frozen=True)
class _Knobs:
    """What may change: a vector of logs, and what it means.

    Attributes:
      taps: by node, the group of every tap (−1 for taps of 0, which stay), and where in the vector
        its groups begin.
      gains: by node, the place of a residual block's log ratio.
    """

    graph: Graph
    start: np.ndarray
    taps: dict[int, tuple[np.ndarray, int]]
    gains: dict[int, int]

    @property
    def size(self) -> int:
        return len(self.start)

    def laws(self, x: np.ndarray) -> dict[int, np.ndarray]:
        """Taps of sum 1, by node."""
        found = {}
        for node, (groups, first) in self.taps.items():
            logs = x[first + np.maximum(groups, 0)]
            law = np.where(groups < 0, 0.0, np.exp(logs - logs.max()))
            found[node] = law / law.sum()
        return found

    def ratios(self, x: np.ndarray) -> dict[int, float]:
        return {node: float(np.exp(x[place])) for node, place in self.gains.items()}

    def ops(self, x: np.ndarray) -> dict[int, Any]:
        """The operations in place of those of the graph."""
        nodes, found = self.graph.nodes, {}
        for node, law in self.laws(x).items():
            found[node] = _with_taps(nodes[node].op, law)
        for node, ratio in self.ratios(x).items():
            op: Any = nodes[node].op
            found[node] = Sum(ratio, op.fork)
        return found

    def back(self, x: np.ndarray, slopes: dict[int, np.ndarray]) -> np.ndarray:
        """Derivatives by the vector, from those by taps and by logs of ratios, by node."""
        found = np.zeros(self.size)
        laws = self.laws(x)
        for node, (groups, first) in self.taps.items():
            law, slope = laws[node], slopes[node]
            pulled = law * (slope - (law * slope).sum())
            np.add.at(found, first + np.maximum(groups, 0), np.where(groups < 0, 0.0, pulled))
        for node, place in self.gains.items():
            found[place] = slopes[node][0]
        return found


def _knobs(graph: Graph, by: str, init: Init | None, exchange: bool) -> _Knobs:
    start: list[float] = []
    taps: dict[int, tuple[np.ndarray, int]] = {}
    gains: dict[int, int] = {}
    walk = passes(with_ops(graph, {}), init)
    model = spectra(walk, limit=False)
    if by != "skips":
        for node, values in model.taps().items():
            op = graph.nodes[node].op
            if isinstance(op, Conv) and op.weights is None and (values > 0).sum() > 1:
                groups = orbits(values, exchange)
                taps[node] = groups, len(start)
                law = values / values.sum()
                for group in range(groups.max() + 1):
                    start.append(float(np.log(law[groups == group].mean())))
    if by != "taps":
        for node, shares in model.shares().items():
            op = graph.nodes[node].op
            if isinstance(op, Sum) and op.fork is not None and is_sum(graph.nodes[node]):
                if len(shares) == 2 and shares.min() > 0:
                    ratio = shares[0] / shares[1] if op.gain is None else float(op.gain)
                    gains[node] = len(start)
                    start.append(float(np.log(ratio)))
    return _Knobs(graph, np.array(start), taps, gains)


def orbits(taps: np.ndarray, exchange: bool = True) -> np.ndarray:
    """Groups of taps that symmetries of the taps carry into each other, numbered; −1 for zeros.
    Without `exchange` the mirrors alone."""
    groups = np.arange(taps.size).reshape(taps.shape)
    for order in permutations(range(taps.ndim)) if exchange else [tuple(range(taps.ndim))]:
        for flips in product((False, True), repeat=taps.ndim):
            axes = tuple(a for a in range(taps.ndim) if flips[a])

            def moved(array: np.ndarray, axes=axes, order=order) -> np.ndarray:
                return np.flip(np.transpose(array, order), axes)

            twin = moved(taps)
            if twin.shape == taps.shape and np.allclose(twin, taps, rtol=1e-12):
                for a, b in zip(groups.ravel(), moved(groups).ravel()):
                    if a != b:
                        groups[groups == max(a, b)] = min(a, b)
    kept = np.unique(groups[taps > 0])
    return np.where(taps > 0, np.searchsorted(kept, groups), -1)


def _by_moments(knobs: _Knobs, wish: Wish, init: Init | None) -> Callable:
    """Squared distance of deviations, relative, and its derivatives."""
    wanted = np.array(wish.values)

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        std, found = closed(passes(with_ops(knobs.graph, knobs.ops(x)), init))
        miss = (np.array(std) - wanted) / wanted
        weights = 2 * miss / wanted
        slopes = {n: np.tensordot(weights, s.values, axes=1) for n, s in found.items()}
        return float(miss @ miss), knobs.back(x, slopes)

    return value


def _by_maps(knobs: _Knobs, wish: Wish, init: Init | None) -> Callable:
    """A smooth distance of maps, and its derivatives."""
    import jax

    walk = passes(with_ops(knobs.graph, knobs.ops(knobs.start)), init)
    model = spectra(walk)
    taps, ratios = model.taps(), model.ratios()
    middle = moments(with_ops(knobs.graph, {}), init=init).mean
    loss = loss_of(wish, model.offset, model.shape, tuple(float(m) for m in middle))
    both = jax.jit(jax.value_and_grad(lambda t, r: loss(model.map(t, r)), (0, 1)))

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        now = {n: np.zeros_like(row) for n, row in ratios.items()}
        for node, place in knobs.gains.items():
            now[node][0] = x[place] - knobs.start[place]
        with jax.enable_x64(True):
            found, slopes = both({**taps, **knobs.laws(x)}, now)
            rows = jax.tree.map(np.asarray, {**slopes[0], **slopes[1]})
        return float(found), knobs.back(x, rows)

    return value


def _with_taps(op: Any, law: np.ndarray) -> Conv:
    return replace(op, kernel=law.shape if law.ndim == 1 else op.kernel, taps=law.tolist())


def _tuned(
    network: Network, knobs: _Knobs, x: np.ndarray, wish: Wish, before: float,
    init: Init | None, steps: int,
) -> Tuned:  # fmt: skip
    ops, nodes = knobs.ops(x), knobs.graph.nodes
    found = rewritten(network, lambda at, op: ops.get(at, op), apart=True)
    after = wish.distance(found, init)
    if after > before:  # a smooth stand-in of the distance was descended
        x, ops, found, after = knobs.start, knobs.ops(knobs.start), network, before
    was, now = knobs.laws(knobs.start), knobs.laws(x)
    called = Counter(nodes[n].name for n in ops)
    alone = {n for n in ops if nodes[n].name and called[nodes[n].name] == 1}
    names = {n: nodes[n].name if n in alone else f"{nodes[n].name}#{n}" for n in ops}
    rows = []
    for node in sorted(ops):
        if node in now:
            old, new = _width(was[node]), _width(now[node])
            rows.append((names[node], "std of taps", old, new))
        else:
            old, new = (knobs.ratios(v)[node] for v in (knobs.start, x))
            rows.append((names[node], "gain", f"{old:.4g}", f"{new:.4g}"))
    return Tuned(
        found, {names[n]: law for n, law in now.items()},
        {names[n]: ratio for n, ratio in knobs.ratios(x).items()},
        wish.asked, before, after, moments(found, init=init).std, steps, tuple(rows),
    )  # fmt: skip


def _width(law: np.ndarray) -> str:
    """Deviation of taps an axis, in pixels of the layer's own grid."""
    found = []
    for axis in range(law.ndim):
        line = law.sum(axis=tuple(a for a in range(law.ndim) if a != axis))
        places = np.arange(len(line))
        found.append(np.sqrt(line @ (places - line @ places) ** 2))
    texts = [f"{v:.4g}" for v in found]
    return texts[0] if len(set(texts)) == 1 else " x ".join(texts)
