"""What a designed network may be made of: layers in a row, each one of a finite list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple

from erftheory.network import arguments as arg
from erftheory.network.base import Chain, Network
from erftheory.network.combine import Residual
from erftheory.network.layers import Conv, MaxPool

SKIPS = ("none", "residual")


class Place(NamedTuple):
    """Where a chain stands: strided layers so far, their total stride, map side, channels."""

    stage: int
    jump: int
    size: int
    channels: int


@dataclass(frozen=True)
class Brick:
    """One layer of a chain, with its numbers an axis, in pixels of its own input.

    Attributes:
      kind: "conv"; "separable", a depthwise k × k and a 1 × 1 convolution; or "pool", max pooling.
      skip: power ratio of the layer to a shortcut around it, None without one.
      padding: "same" or "causal".
    """

    kind: str
    kernel: int
    stride: int = 1
    dilation: int = 1
    skip: Fraction | None = None
    padding: str = "same"

    @cached_property
    def extent(self) -> int:
        """Pixels from the first tap to the last."""
        return self.dilation * (self.kernel - 1)

    @cached_property
    def before(self) -> int:
        """Pixels from the first tap to the output's own place."""
        return self.extent if self.padding == "causal" else self.extent // 2

    @cached_property
    def variance(self) -> Fraction:
        """Variance of its taps, pixels²: p·v + p·(1 − p)·m² of taps of variance v and mean m
        that are read with probability p, the shortcut else."""
        own = Fraction(self.dilation**2 * (self.kernel**2 - 1), 12)
        if self.skip is None:
            return own
        share, middle = self.skip / (1 + self.skip), Fraction(self.extent, 2) - self.before
        return share * own + share * (1 - share) * middle**2

    @cached_property
    def reads(self) -> tuple[int, ...]:
        """Distances of the pixels read from the first tap."""
        taps = {a * self.dilation for a in range(self.kernel)}
        return tuple(sorted(taps | ({self.before} if self.skip is not None else set())))

    def fits(self, place: Place, channels: int) -> bool:
        """False for a skip around a layer that changes the number of channels."""
        return self.skip is None or place.channels == channels

    def layers(self, channels: int) -> tuple[Conv | MaxPool, ...]:
        """Its layers, without the shortcut."""
        if self.kind == "pool":
            return (MaxPool(self.kernel, self.stride, padding=self.padding),)
        window: dict[str, Any] = dict(
            kernel=self.kernel, stride=self.stride, dilation=self.dilation, padding=self.padding
        )
        if self.kind == "conv":
            return (Conv(**window, channels=channels),)
        return Conv(**window, groups="depthwise"), Conv(1, channels=channels)

    def network(self, channels: int) -> Network:
        layers = self.layers(channels)
        body = layers[0] if len(layers) == 1 else Chain(*layers)
        return body if self.skip is None else Residual(body, gain=self.skip)

    def __str__(self) -> str:
        text = f"{'pool ' if self.kind == 'pool' else ''}{self.kernel}"
        text += f"/{self.stride}" if self.stride > 1 else ""
        text += f" d{self.dilation}" if self.dilation > 1 else ""
        text += " separable" if self.kind == "separable" else ""
        return text + (" skip" if self.skip is not None else "")


@dataclass(frozen=True)
class Space:
    """The allowed networks: `depth` layers in a row, each any brick that fits.

    Attributes, as `design` takes them in its mapping `allowed`:
      kernels: taps an axis of a convolution.
      depth: number of layers, pools counted, a number or (least, most).
      strides, dilations: of convolutions, in any combination; a kernel of 1 is never dilated.
      channels: output channels of a convolution behind 0, 1, 2, … strided layers, itself counted;
        the last number holds from there on.
      separable: False, True, or (False, True) to leave it open layer by layer.
      skip: "none", "residual" (a shortcut around every convolution of stride 1 that keeps its
        channels, without which there are none but strided ones), or both: open layer by layer.
      gain: power ratio of branch to shortcut of a residual layer; ints, `Fraction`s, or floats,
        which count as the binary rationals they are.
      pools: max pools as (kernel, stride).
      ndim: 1, 2 or 3 axes, all alike.
      padding: "same" or "causal".
      inputs: channels of the input.
    """

    kernels: tuple[int, ...]
    depth: tuple[int, int]
    strides: tuple[int, ...] = (1,)
    dilations: tuple[int, ...] = (1,)
    channels: tuple[int, ...] = (64,)
    separable: tuple[bool, ...] = (False,)
    skip: tuple[str, ...] = ("none",)
    gain: Fraction = Fraction(1)
    pools: tuple[tuple[int, int], ...] = ()
    ndim: int = 2
    padding: str = "same"
    inputs: int = 3

    @cached_property
    def bricks(self) -> tuple[Brick, ...]:
        """Every layer that is allowed somewhere, each once."""
        found = []
        for kernel, stride, dilation, separable, skip in product(
            self.kernels, self.strides, self.dilations, self.separable, self.skip
        ):
            if skip == "residual" and stride > 1:
                if "none" in self.skip:
                    continue
                skip = "none"
            found.append(
                Brick(
                    "separable" if separable else "conv",
                    kernel,
                    stride,
                    dilation if kernel > 1 else 1,
                    self.gain if skip == "residual" else None,
                    self.padding,
                )
            )
        found += [Brick("pool", k, s, padding=self.padding) for k, s in self.pools]
        return tuple(dict.fromkeys(found))

    def start(self, image: int) -> Place:
        return Place(0, 1, image, self.inputs)

    def steps(self, place: Place) -> Iterator[tuple[Brick, Place]]:
        """The bricks that fit at a place, and the places behind them."""
        for brick in self.bricks:
            stage = place.stage + (brick.stride > 1)
            channels = self.channels[min(stage, len(self.channels) - 1)]
            if brick.kind == "pool":
                channels = place.channels
            if brick.fits(place, channels):
                size = -(-place.size // brick.stride)
                yield brick, Place(stage, place.jump * brick.stride, size, channels)

    def count(self, image: int) -> int:
        """Number of networks, orders of layers told apart."""
        ways, total = {self.start(image): 1}, 0
        for depth in range(1, self.depth[1] + 1):
            after: dict[Place, int] = {}
            for place, number in ways.items():
                for _, to in self.steps(place):
                    after[to] = after.get(to, 0) + number
            ways = after
            total += sum(ways.values()) if depth >= self.depth[0] else 0
        return total

    def network(self, bricks: Iterable[Brick], image: int = 1) -> Chain:
        """The network of some bricks in a row.

        Raises:
          ValueError: a brick that does not fit behind those before it.
        """
        place, parts = self.start(image), []
        for i, brick in enumerate(bricks):
            behind = dict(self.steps(place))
            if brick not in behind:
                raise ValueError(f"bricks[{i}]: got {brick}; takes a layer that is allowed there")
            place = behind[brick]
            parts.append(brick.network(place.channels))
        return Chain(*parts, ndim=self.ndim)


def check_space(allowed: Any) -> Space:
    """The space of a mapping of the attributes of `Space`; numbers alone count as one choice.

    Raises:
      ValueError: an unknown or missing name, or a value out of range.
    """
    if isinstance(allowed, Space):
        return allowed
    names = [f.name for f in fields(Space)]
    if not isinstance(allowed, Mapping):
        raise ValueError(f"allowed: got {allowed!r}; takes a mapping with {', '.join(names)}")
    for name in allowed:
        if name not in names:
            raise ValueError(f"allowed: got {name!r}; takes names among {', '.join(names)}")
    for name in ("kernels", "depth"):
        if name not in allowed:
            raise ValueError(f"allowed: got no {name!r}; takes at least kernels and depth")
    given = {name: _CHECKS[name](f"allowed[{name!r}]", value) for name, value in allowed.items()}
    space = Space(**given)
    if not space.bricks:
        raise ValueError("allowed: got no layer at all; takes a kernel or a pool")
    return space


def _several(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, set, frozenset, range)):
        return (value,)
    if not value:
        raise ValueError(f"{name}: got none; takes at least one")
    return tuple(dict.fromkeys(value))


def _integers(name: str, value: Any) -> tuple[int, ...]:
    return tuple(arg.integer(name, v) for v in _several(name, value))


def _stages(name: str, value: Any) -> tuple[int, ...]:
    found = value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    if not found:
        raise ValueError(f"{name}: got none; takes at least one number of channels")
    return tuple(arg.integer(name, v) for v in found)


def _depth(name: str, value: Any) -> tuple[int, int]:
    ends = value if isinstance(value, (Sequence, range)) else (value, value)
    if isinstance(ends, str) or len(ends) != 2:
        raise ValueError(f"{name}: got {value!r}; takes a number of layers, or (least, most)")
    low, high = (arg.integer(name, v) for v in ends)
    if low > high:
        raise ValueError(f"{name}: got {value!r}; takes (least, most) in this order")
    return low, high


def _words(accepted: tuple[Any, ...]):
    def check(name: str, value: Any) -> tuple[Any, ...]:
        return tuple(arg.one_of(name, v, accepted) for v in _several(name, value))

    return check


def _gain(name: str, value: Any) -> Fraction:
    if not arg.number(name, value) > 0:
        raise ValueError(f"{name}: got {value}; takes a number > 0")
    return Fraction(value)


def _pools(name: str, value: Any) -> tuple[tuple[int, int], ...]:
    wrong = f"{name}: got {value!r}; takes pairs (kernel, stride), one a pool"
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(wrong)
    for pair in value:
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise ValueError(wrong)
    return tuple((arg.integer(name, k), arg.integer(name, s)) for k, s in value)


def _axes(name: str, value: Any) -> int:
    return arg.one_of(name, value, (1, 2, 3))


def _padding(name: str, value: Any) -> str:
    return arg.one_of(name, value, ("same", "causal"))


_CHECKS = {
    "kernels": _integers,
    "depth": _depth,
    "strides": _integers,
    "dilations": _integers,
    "channels": _stages,
    "separable": _words((False, True)),
    "skip": _words(SKIPS),
    "gain": _gain,
    "pools": _pools,
    "ndim": _axes,
    "padding": _padding,
    "inputs": arg.integer,
}
