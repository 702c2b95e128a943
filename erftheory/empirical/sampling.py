"""The ERF of random-weight nets, sampled: E[g²] over independent nets by vmapped autodiff.

Every net has its own weights, its own iid N(0, 1) input and its own dropout masks. Net i draws
from `fold_in(key, i)`, so a result depends on the key and the number of samples alone.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from erftheory.empirical.cone import Canvas, canvas
from erftheory.empirical.execute import Mode, run
from erftheory.empirical.plan import plan
from erftheory.empirical.weights import INITS, WEIGHTS, draw
from erftheory.erf import ERF, ErrorBound
from erftheory.network.arguments import integer, one_of
from erftheory.network.base import Network, check_network
from erftheory.network.graph import Graph, Loop
from erftheory.network.layers import BatchNorm

# Nets side by side in one vectorised pass: as many as this many activations of one layer hold.
_WIDTH_ELEMENTS = 1 << 16


@dataclass(frozen=True)
class Tally:
    """Running sums over nets, float64. With g the gradient of a net and m₀ = Σ_t g(t)²:

    Attributes:
      nets: number of nets.
      square: Σ g², shape of the map.
      fourth: Σ g⁴.
      cross: Σ g² m₀.
      outer: Σ v vᵀ of v = (m₀, then per axis Σ t g² and Σ t² g²), t from −1 to 1 over the map.
      dead: nets whose gradient is zero everywhere.
    """

    nets: int
    square: np.ndarray
    fourth: np.ndarray
    cross: np.ndarray
    outer: np.ndarray
    dead: int

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.nets + other.nets,
            self.square + other.square,
            self.fourth + other.fourth,
            self.cross + other.cross,
            self.outer + other.outer,
            self.dead + other.dead,
        )

    @classmethod
    def of(cls, gradients: np.ndarray) -> Tally:
        """The sums of a stack of gradients, shape (nets, *map)."""
        square = np.square(gradients.astype(np.float64))
        axes = tuple(range(1, square.ndim))
        power = square.sum(axis=axes)
        rows = [power]
        for axis in axes:
            side = square.sum(axis=tuple(a for a in axes if a != axis))
            t = coordinate(side.shape[1])
            rows += [side @ t, side @ t**2]
        v = np.stack(rows)
        return cls(
            len(square),
            square.sum(axis=0),
            np.square(square).sum(axis=0),
            np.tensordot(power, square, axes=1),
            v @ v.T,
            int((power == 0).sum()),
        )

    @property
    def effective(self) -> float:
        """Effective sample size (Σ m₀)² / Σ m₀²: nets weighted by their power."""
        return float(self.square.sum() ** 2 / self.outer[0, 0])

    def stderr(self) -> np.ndarray:
        """Standard error of each pixel of `square` once divided by its sum, times that sum.

        The delta method for the ratio Σ g²(t) / Σ m₀; it keeps the correlation of pixel and sum.
        """
        share = self.square / self.square.sum()
        spread = self.fourth - 2 * share * self.cross + share**2 * self.outer[0, 0]
        return np.sqrt(np.maximum(spread, 0) * self.nets / (self.nets - 1))

    def std_stderr(self) -> tuple[float, ...]:
        """Standard error of the map's standard deviation, pixels, an axis (delta method)."""
        out = []
        whole = self.square.sum()
        for axis, n in enumerate(self.square.shape):
            side = self.square.sum(axis=tuple(a for a in range(self.square.ndim) if a != axis))
            t = coordinate(n)
            mean = float(side @ t / whole)
            variance = float(side @ (t - mean) ** 2 / whole)
            rows = [0, 2 * axis + 1, 2 * axis + 2]
            # influence of one net on the variance: Σ g² ((t − mean)² − variance) / whole
            c = np.array([mean**2 - variance, -2 * mean, 1.0])
            spread = c @ self.outer[np.ix_(rows, rows)] @ c * self.nets / (self.nets - 1)
            error = math.sqrt(max(spread, 0.0)) / whole
            half = (n - 1) / 2
            out.append(float(half * error / (2 * math.sqrt(variance))) if variance > 0 else 0.0)
        return tuple(out)


def coordinate(n: int) -> np.ndarray:
    """Pixel positions from −1 to 1."""
    return np.linspace(-1.0, 1.0, n) if n > 1 else np.zeros(1)


def sample(
    network: Network,
    key: jax.Array | int,
    samples: int,
    channels: int = 16,
    weights: str = "gaussian",
    init: str = "he",
    chunk: int | None = None,
    progress: bool | None = None,
) -> ERF:
    """Sampled ERF: E[g²] over random-weight nets (dead ones count 0), normalised afterwards.

    One input channel, `channels` inside, one output channel unless `Conv(channels=)` says
    otherwise; of several output channels the gradient of a random ±1 combination is taken, whose
    mean square is the sum over channels. Batch norm uses the statistics of the canvas as
    constants, which is what the unbounded plane gives.

    Args:
      key: a JAX random key, or an int seed.
      samples: number of nets, at least 2.
      channels: channels inside.
      weights: "gaussian", "uniform" or "rademacher".
      init: "he", "lecun" or "xavier".
      chunk: nets per device call, rounded up to whole vectorised passes; it bounds the memory
        and does not change the result.
      progress: a progress bar; by default only on a terminal.

    Returns:
      an `ERF` with `.stderr`, `.std_stderr`, `.samples`; `.metadata` has "effective_samples" and
      "dead_nets".

    Raises:
      ValueError: an argument out of range, a global operation, gradients that overflow float32,
        or all nets dead.
    """
    tallies = batches(network, key, samples, channels, weights, init, 1, chunk, progress)
    total = tallies[0]
    if not total.square.sum() > 0:
        raise ValueError(
            f"samples: got {samples} nets whose gradients are all zero; takes more samples, "
            "more channels or a larger init"
        )
    std_stderr = total.std_stderr()
    return ERF(
        offset=_canvas(network.graph).offset,
        signal="variance",
        method="sampled",
        error=ErrorBound("standard error", max(std_stderr), "std, pixels"),
        map=total.square,
        receptive_field=_receptive_field(network),
        stderr=total.stderr(),
        std_stderr=std_stderr,
        samples=samples,
        metadata={
            "channels": channels,
            "weights": weights,
            "init": init,
            "effective_samples": total.effective,
            "dead_nets": total.dead,
        },
    )


def batches(
    network: Network,
    key: jax.Array | int,
    samples: int,
    channels: int = 16,
    weights: str = "gaussian",
    init: str = "he",
    count: int = 32,
    chunk: int | None = None,
    progress: bool | None = None,
) -> list[Tally]:
    """The sums of `count` consecutive batches of equally many nets, for tests on batch means.

    Arguments and errors as for `sample`; the nets are the same ones. Batch sizes differ by one
    at most.
    """
    check_network("network", network)
    integer("samples", samples, 2)
    integer("channels", channels)
    one_of("weights", weights, WEIGHTS)
    one_of("init", init, INITS)
    integer("count", count)
    if count > samples:
        raise ValueError(f"count: got {count}; takes at most samples={samples}")
    if chunk is not None:
        integer("chunk", chunk)
    if progress not in (None, True, False):
        raise ValueError(f"progress: got {progress!r}; takes True, False or None")
    ends = [samples * (b + 1) // count for b in range(count)]
    found: list[Tally | None] = [None] * count
    done = 0
    with _bar(samples, progress) as advance:
        for rows in gradients(network, key, samples, channels, weights, init, chunk):
            if not np.isfinite(rows).all():
                raise ValueError(
                    f"init: got {init!r}, whose gradients overflow float32 in this network; "
                    "takes a smaller one (lecun, xavier)"
                )
            while len(rows):
                batch = next(b for b, end in enumerate(ends) if end > done)
                part = rows[: ends[batch] - done]
                tally, before = Tally.of(part), found[batch]
                found[batch] = tally if before is None else before + tally
                rows = rows[len(part) :]
                done += len(part)
                advance(len(part))
    return [t for t in found if t is not None]


def gradients(
    network: Network,
    key: jax.Array | int,
    samples: int,
    channels: int = 16,
    weights: str = "gaussian",
    init: str = "he",
    chunk: int | None = None,
) -> Iterator[np.ndarray]:
    """Gradients of one output unit, net by net: float32 stacks (nets, *receptive field)."""
    graph = network.graph
    place = _canvas(graph)
    layer = plan(graph, channels, 1)
    width = _width(place, max(p.channels_out for p in layer.parts), channels)
    # by default a device call takes at most about 64 MiB of gradients to the host
    room = max(1, min(16, (1 << 24) // math.prod(place.size) // width))
    steps = room if chunk is None else -(-chunk // width)
    if isinstance(key, int):
        key = jax.random.key(key)
    evaluate = _evaluator(graph, channels, weights, init, width)
    for start in range(0, samples, width * steps):
        index = np.arange(start, start + width * steps, dtype=np.uint32)
        block = evaluate(key, jnp.asarray(index.reshape(steps, width)), np.uint32(samples))
        block = np.asarray(block).reshape(-1, *place.size)
        yield block[: samples - start]


@lru_cache(maxsize=32)
def _canvas(graph: Graph) -> Canvas:
    """Batch statistics need pixels even where the net shrinks to one unit."""
    return canvas(graph, margin={1: 16, 2: 4, 3: 2}[graph.ndim] if _normalises(graph) else 0)


def _normalises(graph: Graph) -> bool:
    return any(
        isinstance(n.op, BatchNorm) or (isinstance(n.op, Loop) and _normalises(n.op.graph))
        for n in graph.nodes
    )


def _width(place: Canvas, widest: int, channels: int) -> int:
    """Nets side by side, a power of two: a function of the network, never of the chunk."""
    each = math.prod(place.shape) * max(widest, channels)
    return 1 << max(0, min(10, (_WIDTH_ELEMENTS // each).bit_length() - 1))


@lru_cache(maxsize=32)
def _evaluator(
    graph: Graph, channels: int, weights: str, init: str, width: int
) -> Callable[..., jax.Array]:
    place = _canvas(graph)
    made = plan(graph, channels, 1)
    mode = Mode(framed=True, statistics="frozen")
    inside = tuple(slice(f, f + n) for f, n in zip(place.first, place.size))

    def gradient(key: jax.Array, index: jax.Array) -> jax.Array:
        keys = jax.random.split(jax.random.fold_in(key, index), 4)
        params = draw(made, keys[0], weights, init)
        x = jax.random.normal(keys[1], (1, *place.shape), jnp.float32)
        signs = jnp.ones((1,), jnp.float32)
        if made.channels_out > 1:
            signs = jax.random.rademacher(keys[3], (made.channels_out,), jnp.float32)

        def unit(x: jax.Array) -> jax.Array:
            return signs @ run(made, params, x, mode, keys[2])[(slice(None), *place.unit)]

        return jax.grad(unit)(x)[(0, *inside)]

    @jax.jit
    def evaluate(key: jax.Array, index: jax.Array, samples: jax.Array) -> jax.Array:
        def width_nets(row: jax.Array) -> jax.Array:
            return jax.vmap(lambda i: gradient(key, i))(row)

        def nothing(row: jax.Array) -> jax.Array:
            return jnp.zeros((*row.shape, *place.size), jnp.float32)

        # rows past the last sample cost nothing, and no number of samples compiles anew
        return lax.map(lambda row: lax.cond(row[0] < samples, width_nets, nothing, row), index)

    return evaluate


def _receptive_field(network: Network):
    from erftheory.theory.interval import receptive_field

    return receptive_field(network)


@contextmanager
def _bar(total: int, progress: bool | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on the error stream, or nothing."""
    if not (sys.stderr.isatty() if progress is None else progress):
        yield lambda n: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("nets", total=total)
        yield lambda n: bar.advance(task, n)
