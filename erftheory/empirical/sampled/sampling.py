"""The ERF of random-weight nets, sampled: E[g²] over independent nets.

Every net has its own weights, its own input and its own dropout masks. Net i draws from
`fold_in(key, i)`, so a result depends on the key and the number of samples. Devices, memory and
chunks change the order of sums alone: maps agree to about 1e-12.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from erftheory.empirical.nets.draw import WEIGHTS
from erftheory.empirical.nets.keys import random_key
from erftheory.empirical.sampled import symmetry
from erftheory.empirical.sampled.program import Device, Nets, nets
from erftheory.empirical.sampled.routes import NAMES
from erftheory.empirical.sampled.tally import Tally
from erftheory.erf import ERF, ErrorBound
from erftheory.erf.jackknife import Replicates
from erftheory.network.arguments import integer, one_of
from erftheory.network.base import Network, check_network
from erftheory.network.initialisation import check_init

REPLICATES = 32  # batches whose maps are kept for the jackknife
FEW = 30  # effective nets below which a standard error is called unreliable
_RETURNED = 1 << 26  # bytes of gradients that one device call hands over


def sample(
    network: Network,
    key: jax.Array | int,
    samples: int,
    channels: int = 16,
    weights: str = "gaussian",
    init: str | float = "he",
    chunk: int | None = None,
    progress: bool | None = None,
    *,
    in_channels: int = 1,
    images: Any = None,
    batch_norm: str = "live",
    symmetric: bool = True,
    paired: bool = True,
    memory: int = 2 << 30,
    devices: Sequence[Device] | None = None,
    route: str | None = None,
) -> ERF:
    """Sampled ERF: E[g²] over random-weight nets (dead ones count 0), normalised afterwards.

    One input channel, `channels` inside, one output channel unless `Conv(channels=)` says
    otherwise; of several output channels the gradient of a random ±1 combination is taken, whose
    mean square is the sum over channels, and g² is summed over input channels.

    Two things that hold exactly reduce the noise without bias. The map is averaged over the
    reflections and exchanges of axes under which the law of the net does not change
    (`symmetric`). And where the net ends in an activation behind a convolution, the net is
    averaged with its twin of opposite last filter, which is equally likely (`paired`): half of
    all ReLU nets are dead, and their twins are not.

    Args:
      key: a JAX random key, or an int seed.
      samples: number of nets, at least 2.
      channels: channels inside.
      weights: "gaussian", "uniform" or "rademacher".
      init: variance of the weights, as in `exact`: "he", "lecun", "xavier", "torch", "keras",
        "flax", or a number c for c/fan_in. Biases are 0, but "torch" draws them too.
      chunk: nets per device call, rounded up to whole vectorised passes.
      progress: a progress bar; by default only on a terminal.
      images: inputs, shape (count, channels in, *spatial), each at least as large as the unit's
        cone; net i sees image i mod count at a random place. None draws iid N(0, 1) pixels.
      batch_norm: "live", statistics of the net's own canvas with the gradient through them, as in
        training; "frozen", the same numbers as constants, which is the limit of large batches.
      memory: bytes that the program may take on a device.
      devices: the devices that share the nets; None takes all local ones of the default backend.
      route: how the nets convolve (see `empirical/sampled/routes.py`); None chooses.

    Returns:
      an `ERF` with `.stderr` (a pixel), `.std_stderr`, `.samples`, and `.standard_error(measure)`
      for all other measures, by the jackknife over batches of nets; the mean gradient and its
      error are in `.replicates`. `.metadata` has "effective_samples" and "largest_share", the
      part of all power that the strongest net has, and "dead_nets", whose own gradient is zero.

    Raises:
      ValueError: an argument out of range, a global operation, gradients that overflow float32,
        or all nets dead.
    """
    options: dict[str, Any] = dict(
        in_channels=in_channels, images=images, batch_norm=batch_norm, memory=memory,
        devices=devices, route=route,
    )  # fmt: skip
    one_of("symmetric", symmetric, (True, False))
    one_of("paired", paired, (True, False))
    check_network("network", network)
    integer("samples", samples, 2)
    parts = batches(
        network, key, samples, channels, weights, init, min(REPLICATES, samples), chunk, progress,
        symmetric=symmetric, paired=paired, **options,
    )  # fmt: skip
    total = sum(parts[1:], start=parts[0])
    if not total.square.sum() > 0:
        raise ValueError(
            f"samples: got {samples} nets whose gradients are all zero; takes more samples, "
            "more channels or a larger init"
        )
    field = nets(network.graph, channels, weights, init, **options).field
    effective = total.effective
    note = "std, pixels"
    if effective < FEW:
        note += f"; unreliable, it rests on {effective:.1f} effective nets"
    replicates = Replicates(
        np.stack([part.square for part in parts]),
        total.gradient / total.nets,
        total.gradient_stderr(),
    )
    std_stderr = replicates.standard_error("std")
    return ERF(
        offset=tuple(first for first, _ in field),
        signal="variance",
        method="sampled",
        error=ErrorBound("standard error", max(std_stderr), note),
        map=total.square,
        receptive_field=_receptive_field(network),
        stderr=total.stderr(),
        std_stderr=std_stderr,
        samples=samples,
        replicates=replicates,
        metadata={
            "channels": channels,
            "weights": weights,
            "init": init,
            "effective_samples": effective,
            "largest_share": total.largest / float(total.square.sum()),
            "dead_nets": total.dead,
        },
    )


def batches(
    network: Network,
    key: jax.Array | int,
    samples: int,
    channels: int = 16,
    weights: str = "gaussian",
    init: str | float = "he",
    count: int = 32,
    chunk: int | None = None,
    progress: bool | None = None,
    *,
    symmetric: bool = False,
    paired: bool = False,
    **options: Any,
) -> list[Tally]:
    """The sums of `count` consecutive batches of equally many nets, for tests on batch means.

    Arguments and errors as for `sample`; the nets are the same ones. Batch sizes differ by one
    at most.
    """
    made = _check(network, samples, channels, weights, init, chunk, options)
    integer("count", count)
    if count > samples:
        raise ValueError(f"count: got {count}; takes at most samples={samples}")
    if progress not in (None, True, False):
        raise ValueError(f"progress: got {progress!r}; takes True, False or None")
    images = symmetry.images(network.graph) if symmetric and options.get("images") is None else ()
    ends = [samples * (b + 1) // count for b in range(count)]
    found: list[Tally | None] = [None] * count
    done = 0
    with _bar(samples, progress) as advance:
        for rows, plus, minus in _blocks(made, key, samples, chunk):
            while len(rows):
                batch = next(b for b, end in enumerate(ends) if end > done)
                n = min(len(rows), ends[batch] - done)
                tally = _tally(rows[:n], plus[:n], minus[:n], images, paired)
                before = found[batch]
                found[batch] = tally if before is None else before + tally
                rows, plus, minus = rows[n:], plus[n:], minus[n:]
                done += n
                advance(n)
    return [t for t in found if t is not None]


def gradients(
    network: Network,
    key: jax.Array | int,
    samples: int,
    channels: int = 16,
    weights: str = "gaussian",
    init: str | float = "he",
    chunk: int | None = None,
    **options: Any,
) -> Iterator[np.ndarray]:
    """Gradients of one output unit, net by net: float32 stacks (nets, *receptive field).

    With several input channels (nets, channels in, *receptive field). `linear=True` gives the
    gradients of the same nets without their pointwise layers; other options as for `sample`.
    """
    made = _check(network, samples, channels, weights, init, chunk, options)
    for rows, plus, _ in _blocks(made, key, samples, chunk):
        rows = rows * plus.reshape(-1, *[1] * (rows.ndim - 1))
        yield rows[:, 0] if rows.shape[1] == 1 else rows


def _check(
    network: Network, samples: int, channels: int, weights: str, init: Any, chunk: Any, options: Any
) -> Nets:
    check_network("network", network)
    integer("samples", samples, 2)
    integer("channels", channels)
    one_of("weights", weights, WEIGHTS)
    check_init(init)
    if chunk is not None:
        integer("chunk", chunk)
    one_of("batch_norm", options.get("batch_norm", "live"), ("live", "frozen"))
    if options.get("route") is not None:
        one_of("route", options["route"], NAMES)
    return nets(network.graph, channels, weights, init, **options)


def _blocks(
    made: Nets, key: jax.Array | int, samples: int, chunk: int | None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Gradients without the last activation, and its factors at h and −h, a device call each.

    Several calls are under way at once: XLA's CPU programs leave cores idle between their
    convolutions, and an accelerator would wait for the host.
    """
    key = random_key(key)
    width, devices = made.width, len(made.devices)
    returned = min(_RETURNED, made.memory // 8) // made.calls
    room = max(1, returned // (4 * math.prod(made.out_shape) * width))
    steps = min(room, made.steps) if chunk is None else -(-chunk // width)
    steps = -(-steps // devices) * devices

    def call(start: int) -> tuple[np.ndarray, ...]:
        index = np.arange(start, start + width * steps, dtype=np.uint32).reshape(steps, width)
        block = made.evaluate(key, index, np.uint32(min(samples, 2**32 - 1)))
        return tuple(np.asarray(b)[: samples - start] for b in block)

    starts = range(0, samples, width * steps)
    for rows, plus, minus in _ahead(call, starts, made.calls):
        if not np.isfinite(rows).all():
            raise ValueError(
                f"init: got {made.init!r}, whose gradients overflow float32 in this network; "
                "takes a smaller one (lecun, xavier)"
            )
        yield rows, plus, minus


def _ahead(
    call: Callable[[int], tuple[np.ndarray, ...]], items: Sequence[int], calls: int
) -> Iterator[tuple[np.ndarray, ...]]:
    """The results in order, with up to `calls` of them under way."""
    if calls == 1 or len(items) == 1:
        yield from map(call, items)
        return
    with ThreadPoolExecutor(calls) as pool:
        waiting: deque[Future[tuple[np.ndarray, ...]]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(call, item))
                if len(waiting) == calls:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for rest in waiting:
                rest.cancel()


def _tally(
    rows: np.ndarray, plus: np.ndarray, minus: np.ndarray, images: tuple, paired: bool
) -> Tally:
    """Sums of a block; g² is summed over input channels, the mean gradient taken over them."""
    shape = (-1, *[1] * (rows.ndim - 2))
    square = np.square(rows.astype(np.float64)).sum(axis=1)
    factor = np.square(plus.astype(np.float64))
    if paired:
        factor = (factor + np.square(minus.astype(np.float64))) / 2
    square *= factor.reshape(shape)
    if images:
        square = symmetry.symmetrised(square, images)
    return Tally.of(rows.mean(axis=1) * plus.reshape(shape), square)


def _receptive_field(network: Network):
    from erftheory.theory.readings.receptive_field import receptive_field

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
