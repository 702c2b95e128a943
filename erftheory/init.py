"""Initialisers with a light centre and a heavy rim (Luo et al., NIPS 2016, section 4).

One number says how heavy: the share of a filter's variance that lies in its outermost ring of taps,
the rest spread evenly over the taps inside. The fan-in variance is that of the initialiser one
would take otherwise, so activations keep their size; what changes is where the ERF looks. The ERF's
variance is the sum of the layers' (`rim_taps`, `exact`), at most 9/8 of uniform taps' at 3×3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from erftheory.network.arguments import integer, number

DISTRIBUTIONS = ("truncated_normal", "normal", "uniform")


def rim_taps(kernel: int | tuple[int, ...], share: Any, ndim: int = 2) -> Any:
    """Variances of a filter's taps, exact, as nested lists: what `Conv(taps=…)` takes; mean 1.

    Args:
      kernel: taps an axis, an int (for all `ndim` axes) or one an axis.
      share: of the variance that lies in the outermost ring, in [0, 1]. Uniform taps have
        1 − Π (k − 2)/k. A kernel without inside (an axis of at most two taps) is all ring: uniform.

    Raises:
      ValueError: a share outside [0, 1], a kernel below 1.
    """
    shape = (kernel,) * integer("ndim", ndim) if isinstance(kernel, int) else tuple(kernel)
    for size in shape:
        integer("kernel", size)
    part = Fraction(number("share", share))
    if not 0 <= part <= 1:
        raise ValueError(f"share: got {share}; takes a number from 0 to 1")
    taps, inside = math.prod(shape), math.prod(max(0, size - 2) for size in shape)
    if inside == 0:
        ring, centre = Fraction(1), Fraction(1)
    else:
        ring, centre = part * taps / (taps - inside), (1 - part) * taps / inside

    def rows(at: tuple[int, ...]) -> Any:
        if len(at) == len(shape):
            edge = any(i in (0, n - 1) for i, n in zip(at, shape))
            return ring if edge else centre
        return [rows((*at, i)) for i in range(shape[len(at)])]

    return rows(())


def rim(
    share: float,
    scale: float = 2.0,
    mode: str = "fan_in",
    distribution: str = "truncated_normal",
    in_axis: int = -2,
    out_axis: int = -1,
) -> Callable[..., Any]:
    """An initialiser (key, shape, dtype) → weights, as those of `jax.nn.initializers`.

    `rim(share)` beside `variance_scaling(2.0, "fan_in", …)`: the same variance summed over a
    filter, `share` of it in the outermost ring of taps. All axes but two are those of the kernel:
    channels last for Flax and Haiku, `in_axis=1, out_axis=0` for Equinox's (out, in, *kernel). In
    Haiku: `w_init=lambda shape, dtype: rim(0.95)(hk.next_rng_key(), shape, dtype)`.

    Raises:
      ValueError: a share outside [0, 1], an unknown mode or distribution.
    """
    import jax

    rim_taps(3, share)
    if distribution not in DISTRIBUTIONS:
        raise ValueError(
            f"distribution: got {distribution!r}; takes one of {', '.join(DISTRIBUTIONS)}"
        )
    if mode not in ("fan_in", "fan_out", "fan_avg"):
        raise ValueError(f"mode: got {mode!r}; takes fan_in, fan_out or fan_avg")
    even = jax.nn.initializers.variance_scaling(scale, mode, distribution, in_axis, out_axis)

    def initialise(key: Any, shape: Any, dtype: Any = np.float32, **options: Any) -> Any:
        weights = even(key, shape, dtype, **options)
        channels = {in_axis % len(shape), out_axis % len(shape)}
        kernel = tuple(n for axis, n in enumerate(shape) if axis not in channels)
        return weights * _amplitudes(kernel, share, len(shape), channels).astype(weights.dtype)

    return initialise


def init_rim_(tensor: Any, share: float, scale: float = 2.0) -> Any:
    """Fill a PyTorch weight (out, in / groups, *kernel) in place; returns it.

    Normal weights of variance `scale`/fan_in, averaged over taps, `share` of it in the outermost
    ring: `torch.nn.init.kaiming_normal_` otherwise.

    Raises:
      ValueError: a share outside [0, 1], a tensor without kernel axes.
    """
    import torch

    if tensor.ndim < 3:
        raise ValueError(
            f"tensor: got shape {tuple(tensor.shape)}; takes the weight of a convolution, "
            "(out, in / groups, *kernel)"
        )
    shape = tuple(tensor.shape)
    amplitudes = _amplitudes(shape[2:], share, len(shape), {0, 1})
    std = math.sqrt(scale / math.prod(shape[1:]))
    with torch.no_grad():
        tensor.normal_(0.0, std)
        return tensor.mul_(torch.as_tensor(amplitudes, dtype=tensor.dtype, device=tensor.device))


def _amplitudes(
    kernel: tuple[int, ...], share: float, ndim: int, channels: set[int]
) -> np.ndarray:
    """Square roots of the taps' variances, of size 1 along the channels' axes."""
    variances = np.array(rim_taps(kernel, share), dtype=float)
    shape = iter(kernel)
    return np.sqrt(variances).reshape([1 if a in channels else next(shape) for a in range(ndim)])
