"""A chain of random convolutions as its gradient sees it, from the output to the input."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from erftheory.network.base import Network, check_network
from erftheory.network.graph import Graph, Loop
from erftheory.network.layers import Activation, Conv


@dataclass(frozen=True)
class BackwardLayer:
    """A convolution as the gradient sees it.

    Attributes:
      taps: variances over their sum, shape (taps,).
      places: input pixels from its first tap to each tap, shape (taps, axes).
      inward: channels it reads, where the gradient arrives.
      outward: channels it gives.
      gate: correlation of two pixels in the ReLU that reads it; None without a ReLU.
      separable: whether the taps are a product over the axes.
    """

    taps: np.ndarray
    places: np.ndarray
    inward: int
    outward: int
    separable: bool
    gate: float | None = None

    def centred(self, axis: int) -> np.ndarray:
        place = self.places[:, axis]
        return place - self.taps @ place

    def lags(self) -> np.ndarray:
        """Law of the distance of two independent taps, an array with distance 0 in the middle."""
        taps = np.zeros(self.places.max(0) + 1)
        np.add.at(taps, tuple(self.places.T), self.taps)
        out = np.zeros([2 * n - 1 for n in taps.shape])
        for index in np.argwhere(taps):
            window = tuple(slice(i, i + n) for i, n in zip(index, taps.shape))
            out[window] += taps[tuple(index)] * np.flip(taps)
        return out


def read_chain(network: Network, channels: int) -> list[BackwardLayer]:
    """The convolutions of a chain from the output to the input.

    The nets are those of `sample`: one input channel, `channels` inside, one output channel unless
    `Conv(channels=)` says otherwise.

    Raises:
      ValueError: branches, a layer that is neither `Conv` with one group nor a ReLU behind it.
    """
    graph = check_network("network", network).graph
    layers: list[BackwardLayer] = []
    rho, fresh, jump = 0.0, False, np.ones(graph.ndim, int)
    for op, before, after in _operations(graph, channels):
        if isinstance(op, Activation):
            if op.name == "linear":
                continue
            if not fresh:
                raise ValueError("network: got a ReLU behind no convolution; takes one behind each")
            layers[-1] = replace(layers[-1], gate=rho)
            rho = (math.sqrt(max(1 - rho * rho, 0)) + rho * (math.pi - math.acos(rho))) / math.pi
            rho, fresh = min(rho, 1.0), False
            continue
        step = op.step(graph.ndim)
        taps = np.array([float(t) for t in step.kernel.exact])
        if taps.min() < 0:
            raise ValueError("taps: got a negative tap; takes variances >= 0 for random weights")
        grid = np.array(list(np.ndindex(*step.kernel.shape)))
        places = grid * (np.array(step.dilation) * jump)
        layers.append(
            BackwardLayer(taps / taps.sum(), places, before, after, step.kernel.separable, None)
        )
        fresh, jump = True, jump * np.array(step.stride)
    if not layers:
        raise ValueError("network: got no convolution; takes a chain with at least one")
    return layers[::-1]


def _operations(graph: Graph, channels: int) -> list[tuple[Conv | Activation, int, int]]:
    """The chain's layers from the input to the output, with channels in and out."""
    ops: list[Conv | Activation] = []

    def flatten(graph: Graph) -> None:
        for index, node in enumerate(graph.nodes[1:], start=1):
            op = node.op
            if node.inputs != (index - 1,):
                raise ValueError("network: got branches; takes a chain")
            if isinstance(op, Loop):
                for _ in range(op.times):
                    flatten(op.graph)
            elif isinstance(op, Conv) and op.groups == 1:
                ops.append(op)
            elif isinstance(op, Activation) and op.name in ("linear", "relu"):
                ops.append(op)
            else:
                raise ValueError(
                    f"network: got the layer {op!r}; takes Conv with groups=1 and "
                    'Activation("relu") or Activation("linear")'
                )

    flatten(graph)
    last = max((i for i, op in enumerate(ops) if isinstance(op, Conv)), default=0)
    out, width = [], 1
    for i, op in enumerate(ops):
        before = width
        if isinstance(op, Conv):
            width = op.channels or (1 if i == last else channels)
        out.append((op, before, width))
    return out


def extent(layers: list[BackwardLayer]) -> tuple[int, ...]:
    """Receptive field in pixels, an axis."""
    return tuple(int(n) + 1 for n in np.sum([layer.places.max(0) for layer in layers], axis=0))
