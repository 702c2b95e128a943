"""Many random nets at once, each over the cone of one output unit and no further.

The values of all nodes are arrays over the windows of `cone.py`, in the layout of a route.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from erftheory.empirical.nets import rules
from erftheory.empirical.nets.plan import Part, Plan
from erftheory.empirical.nets.windows import slices
from erftheory.empirical.sampled.cone import Cone, Window, forward, inside, read_by, size_of
from erftheory.empirical.sampled.routes import Layout
from erftheory.network.graph import Concat, Graph, Loop, Sum
from erftheory.network.layers import Activation, Conv, ConvTranspose, Layer


@dataclass(frozen=True)
class Engine:
    """Runs the nets of a plan.

    Attributes:
      layout: of all arrays.
      linear: pointwise layers are identities, the weights stay.
      statistics: of normalisations, "live" (the gradient flows through them) or "frozen".
      pieces: a repetition is compiled in at most this many; longer ones run several iterations a
        piece by `lax.scan`, on arrays of one size, some 20 % slower and compiled faster.
    """

    layout: Layout
    linear: bool = False
    statistics: str = "live"
    pieces: int = 8

    def prepare(
        self, plan: Plan, weights: Any, factors: list[Any] | None = None, stacked: int = 0
    ) -> list[Any]:
        """Drawn weights, the nets their first axis, as the route reads them.

        The entry of a sum is the amplitude of its first input, or None; `factors` as from
        `balance.factors`, with a leading axis for each of `stacked` repetitions around.
        """
        out: list[Any] = []
        for index, (part, weight) in enumerate(zip(plan.parts, weights, strict=True)):
            factor = None if factors is None else factors[index]
            if isinstance(part.op, Loop):
                rows, start = [], 0
                for (count, body), stack in zip(part.runs, weight, strict=True):
                    own = None
                    if factor is not None:
                        own = jax.tree.map(
                            lambda *a, axis=stacked: jnp.stack(a, axis),
                            *factor[start : start + count],
                        )
                    rows.append(self.prepare(body, stack, own, stacked + 1))
                    start += count
                out.append(rows)
            elif isinstance(part.op, Sum):
                out.append(factor)
            elif isinstance(part.op, (Conv, ConvTranspose)):
                step = part.op.step(plan.ndim)
                weight, bias = weight if isinstance(weight, tuple) else (weight, None)
                ready = self.layout.prepare(weight, step, part.groups, stacked)
                moved = None if bias is None else jnp.moveaxis(bias, 0, stacked)
                out.append((ready, moved))
            else:
                out.append(None)
        return out

    def run(
        self,
        graph: Graph,
        plan: Plan,
        cone: Cone,
        weights: Any,
        x: jax.Array,
        keys: jax.Array,
        grown: Any = None,
        open_end: bool = False,
    ) -> jax.Array:
        """The output over its window; `x` lies over `cone.source`.

        Args:
          keys: one a net, for dropout.
          grown: pixels an axis by which all windows have shrunk, inside a scanned repetition.
          open_end: leave out an activation at the very end.
        """
        values = [x]
        last = len(plan.parts) - 1
        for index, part in enumerate(plan.parts[1:], start=1):
            here = jax.vmap(jax.random.fold_in, (0, None))(keys, index)
            spots = [cone.windows[i] for i in part.inputs]
            reads = [values[i] for i in part.inputs]
            out = cone.windows[index]
            if isinstance(part.op, Loop):
                y = self._repeat(
                    part, part.op.graph, cone.loops[index], weights[index],
                    _crop(reads[0], cone.loops[index][0].source, spots[0]), here, out, grown,
                    open_end and index == last,
                )  # fmt: skip
            elif open_end and index == last and isinstance(part.op, Activation):
                y = _crop(reads[0], out, spots[0])
            else:
                y = self._node(plan.ndim, part, weights[index], reads, spots, out, here, grown)
            values.append(y)
        return values[-1]

    def _node(
        self,
        ndim: int,
        part: Part,
        weight: Any,
        reads: list[jax.Array],
        spots: list[Window],
        out: Window,
        keys: jax.Array,
        grown: Any,
    ) -> jax.Array:
        op = part.op
        if isinstance(op, Sum | Concat):
            parts = [_crop(v, out, spot) for v, spot in zip(reads, spots)]
            if isinstance(op, Sum):
                if weight is not None:
                    parts[0] = parts[0] * weight
                return sum(parts[1:], start=parts[0])
            return jnp.concatenate(parts, axis=self.layout.channels)
        assert isinstance(op, Layer)
        step = op.step(ndim)
        if type(op) in rules.POINTWISE or step is None:
            x = _crop(reads[0], out, spots[0])
            return x if self.linear else rules.pointwise(op, x, self._pixels(keys, grown))
        read = read_by(step, out, repr(op))
        x = _crop(reads[0], read, spots[0])
        kind = rules.window(op)
        if kind == "weights":
            ready, bias = weight
            y = self.layout.convolve(x, ready, step, part.groups)
            if bias is not None:
                y = y + self.layout.image(bias.reshape(*bias.shape, *(1,) * ndim))
        elif isinstance(kind, rules.Over) and not self.linear:
            y = kind.value(op, slices(x, step))
        elif kind == "moves":
            y = self.layout.image(jax.vmap(partial(rules.moved, op))(self.layout.back(x)))
        else:
            y = self.layout.fixed(x, rules.fixed_taps(op, step), step)
        if not step.up:
            return y
        touched = (step.touches(axis, ends) for axis, ends in enumerate(read))
        return _crop(y, out, tuple(ends for ends in touched if ends is not None))

    def _pixels(self, keys: jax.Array, grown: Any) -> rules.Place:
        nets, channels = self.layout.nets, self.layout.channels

        def mask(keep: float, x: jax.Array) -> jax.Array:
            own = (x.shape[channels], *x.shape[1:-1])
            found = jax.vmap(lambda key: jax.random.bernoulli(key, keep, own))(keys)
            assert found.shape[0] == x.shape[nets]
            return self.layout.image(found)

        # every array has an axis for each of nets and channels beside the spatial ones
        place = 0 if self.layout.lanes else -1
        return rules.Place(place, self.statistics, lambda x: _statistics(x, grown), mask)

    def _repeat(
        self,
        part: Part,
        body: Graph,
        cones: tuple[Cone, ...],
        weights: Any,
        x: jax.Array,
        keys: jax.Array,
        out: Window,
        grown: Any,
        open_end: bool,
    ) -> jax.Array:
        spot = cones[0].source
        start = 0
        for (count, plan), stack in zip(part.runs, weights):
            size = -(-count // self.pieces)
            ends_here = start + count == len(cones)
            for first in range(0, count, size):
                many = min(size, count - first)
                piece = jax.tree.map(lambda a, i=first, m=many: a[i : i + m], stack)
                rows = cones[start + first : start + first + many]
                x = _crop(x, rows[0].source, spot)
                last = ends_here and first + many == count
                here = [
                    jax.vmap(jax.random.fold_in, (0, None))(keys, start + first + t)
                    for t in range(many)
                ]
                if many > 1 and plan.growth is not None and not (last and open_end):
                    x, spot = self._scan(body, plan, rows[0].source, piece, x, here, grown)
                    continue
                for t, row in enumerate(rows):
                    x = _crop(x, row.source, spot)
                    own = jax.tree.map(lambda a, t=t: a[t], piece)
                    ending = last and open_end and t == many - 1
                    x = self.run(body, plan, row, own, x, here[t], grown, ending)
                    spot = row.windows[-1]
            start += count
        return _crop(x, out, spot)

    def _scan(
        self,
        body: Graph,
        plan: Plan,
        source: Window,
        piece: Any,
        x: jax.Array,
        keys: list[jax.Array],
        grown: Any,
    ) -> tuple[jax.Array, Window]:
        """Iterations on arrays of one size, and the window that counts after the last.

        What a window loses is filled with zeros at its end; no pixel that counts reads them.
        """
        many = len(keys)
        cone = forward(body, source)
        out = cone.windows[-1]
        lost = tuple(n - m for n, m in zip(size_of(source), size_of(out)))
        pads = [(0, 0, 0), *((0, n, 0) for n in lost), (0, 0, 0)]
        before = jnp.zeros(len(lost), int) if grown is None else grown

        def once(v: jax.Array, xs: Any) -> tuple[jax.Array, None]:
            own, key, t = xs
            y = self.run(body, plan, cone, own, v, key, before + t * jnp.asarray(lost))
            return lax.pad(y, jnp.zeros((), y.dtype), pads), None

        x = lax.scan(once, x, (piece, jnp.stack(keys), jnp.arange(many)))[0]
        spot = []
        for (a, b), (c, _), n in zip(source, out, lost, strict=True):
            first = a + many * (c - a)
            spot.append((first, first + b - a - many * n))
        return _head(x, tuple(spot)), tuple(spot)


def gradients(
    graph: Graph,
    plan: Plan,
    engine: Engine,
    cone: Cone,
    field: Window,
    factors: list[Any] | None = None,
) -> Callable[..., tuple[jax.Array, jax.Array, jax.Array]]:
    """The function from (weights, x, signs, keys) to gradients of one unit of every net.

    `weights` are those of `weights.draw`, nets first; `x` is (nets, channels in, *window), `signs`
    (nets, channels out). Of several output channels the gradient of their signed sum is taken.
    Returns arrays (nets, channels in, *field), and two of shape (nets,): the factors of the last
    activation at h and at −h (ones if there is none), which the gradient does not contain.
    `factors` are the amplitudes of explicit gains (`balance.factors`).
    """
    layout = engine.layout
    name = final_activation(plan)
    unit = tuple(-first for first, _ in cone.windows[-1])

    def function(weights: Any, x: jax.Array, signs: jax.Array, keys: jax.Array):
        ready = engine.prepare(plan, weights, factors)

        def value(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            y = engine.run(graph, plan, cone, ready, x, keys, open_end=name is not None)
            y = layout.back(y)[(slice(None), slice(None), *unit)]
            return (signs * y).sum(), y

        g, h = jax.grad(value, has_aux=True)(layout.image(x))
        g = layout.back(g)[(slice(None), slice(None), *inside(field, cone.source))]
        if name is None or engine.linear:
            one = jnp.ones(len(h), g.dtype)
            return g, one, one
        slope = jax.vmap(jax.grad(lambda v, name=name: rules.activation(name, v)))
        return g, slope(h[:, 0]), slope(-h[:, 0])

    return function


def final_activation(plan: Plan) -> str | None:
    """The activation that ends a net of one output channel right behind a convolution, if any.

    The sign of that convolution's filter is as likely as its opposite, so h and −h are too.
    """
    part = plan.parts[-1]
    if part.channels_out != 1:
        return None
    if isinstance(part.op, Loop):
        return final_activation(part.runs[-1][1])
    if not isinstance(part.op, Activation):
        return None
    before = plan.parts[part.inputs[0]].op
    return part.op.curve if isinstance(before, (Conv, ConvTranspose)) else None


def _crop(x: jax.Array, window: Window, held: Window) -> jax.Array:
    if window == held:
        return x
    return x[(slice(None), *inside(window, held), slice(None))]


def _head(x: jax.Array, window: Window) -> jax.Array:
    return x[(slice(None), *(slice(0, n) for n in size_of(window)), slice(None))]


def _statistics(x: jax.Array, grown: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of every channel and net; `grown` pixels at the end of an axis are void."""
    axes = tuple(range(1, x.ndim - 1))
    if grown is None:
        return x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    mask = jnp.ones((), x.dtype)
    count = jnp.ones((), x.dtype)
    for axis, n in zip(axes, x.shape[1:-1]):
        size = n - grown[axis - 1]
        row = (jnp.arange(n) < size).astype(x.dtype)
        mask = mask * row.reshape([n if a == axis else 1 for a in range(x.ndim)])
        count = count * size.astype(x.dtype)
    mean = (x * mask).sum(axes, keepdims=True) / count
    return mean, (jnp.square(x - mean) * mask).sum(axes, keepdims=True) / count
