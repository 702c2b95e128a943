"""What an ERF shall be tuned to: a deviation, a flat disc, a Gaussian; how far a map is from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from erftheory.designing.shapes import flatness
from erftheory.erf.measures import GaussianFit
from erftheory.network import arguments as arg
from erftheory.network.base import Network
from erftheory.network.initialisation import Init
from erftheory.theory.plane.exact import exact
from erftheory.theory.readings.moments import moments

KINDS = ("std", "flat", "gaussian")
SMOOTH = 1e-2  # of a shape's peak: where |difference| is rounded off


@dataclass(frozen=True)
class Wish:
    """A target, checked: one of `KINDS`, and pixels, of "std" one entry an axis."""

    kind: str
    values: tuple[float, ...]

    @property
    def asked(self) -> str:
        texts = list(dict.fromkeys(f"{v:g}" for v in self.values))
        return f"{self.kind} {' x '.join(texts)}"

    def distance(self, network: Network, init: Init | None) -> float:
        """Pixels between deviations, the largest of all axes, or a total variation."""
        if self.kind == "std":
            return max(abs(s - v) for s, v in zip(moments(network, init=init).std, self.values))
        erf = exact(network, init=init)
        if self.kind == "flat":
            return flatness(erf, self.values[0])
        std, ndim = self.values[0], len(erf.mean)
        return erf.distance(GaussianFit(erf.mean, (std,) * ndim, np.eye(ndim) * std**2))


def check_wish(target: Any, ndim: int) -> Wish:
    """The wish of a target as `tune` takes it.

    Raises:
      ValueError: another form, pixels that are not > 0, or not one an axis.
    """
    pair = target if isinstance(target, Mapping) else {"std": target}
    if len(pair) != 1 or not set(pair) <= set(KINDS):
        raise ValueError(
            f"target: got {target!r}; takes a deviation in pixels, or one of std, flat and "
            "gaussian with its pixels, as in {'flat': 20}"
        )
    ((kind, value),) = pair.items()
    several = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)
    if several and (kind != "std" or len(value) != ndim):
        raise ValueError(
            f"target: got {target!r}; takes a number, or of a deviation {ndim}, one an axis"
        )
    values = [float(arg.number("target", v)) for v in (value if several else [value])]
    if not all(v > 0 for v in values):
        raise ValueError(f"target: got {target!r}; takes pixels > 0")
    return Wish(kind, tuple(values * ndim if kind == "std" and not several else values))


def loss_of(
    wish: Wish, offset: tuple[int, ...], shape: tuple[int, ...], middle: tuple[float, ...]
) -> Callable[[Any], Any]:
    """Total variation to a shape about `middle`, rounded off where two maps nearly agree, as a JAX
    function of a map with its first pixel at `offset`."""
    import jax.numpy as jnp

    squares = np.zeros(())
    for first, n, centre in zip(offset, shape, middle):
        squares = np.add.outer(squares, (np.arange(first, first + n) - centre) ** 2)
    radius = wish.values[0]
    if wish.kind == "flat":
        # the disc's pixels outside the window have no map: a constant
        wide = np.zeros(())
        for centre in middle:
            line = np.arange(-int(radius) - 2, int(radius) + 3) - centre % 1
            wide = np.add.outer(wide, line**2)
        edge = radius**2 * (1 + 1e-9) + 1e-9
        wanted = (squares <= edge) / max(1, int((wide <= edge).sum()))
    else:
        wanted = np.exp(-squares / (2 * radius**2))
        lines = [np.arange(-int(12 * radius) - 2, int(12 * radius) + 3) - c % 1 for c in middle]
        wanted = wanted / np.prod([np.exp(-(x**2) / (2 * radius**2)).sum() for x in lines])
    outside, floor = 1 - wanted.sum(), SMOOTH * float(wanted.max())

    def loss(signal: Any) -> Any:
        apart = jnp.sqrt((signal - wanted) ** 2 + floor**2) - floor
        return (jnp.sum(apart) + outside) / 2

    return loss
