"""The weights of a given model, as two kernels: what a signal of one number a pixel can know."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from erftheory.network.kernel import Kernel


@dataclass(frozen=True)
class Weights:
    """A convolution's own weights w[out, in, a], summed over channels.

    Attributes:
      power: Σ_out w² of each tap, averaged over the inputs: the variance signal's taps, exact for
        weights of random signs wherever channels carry equal power.
      signed: Σ_out w of each tap, averaged over the inputs: the gradient signal's taps, exact with
        one channel, or where all channels share their taps up to a factor.
      inward: channels that one output reads.
      outward: channels that one input feeds.
      shared: True if another layer has them too, so that their signs are not independent.
      array: the weights as given, (out, in / groups, *kernel); what two kernels say is compared.
    """

    power: Kernel
    signed: Kernel
    inward: int
    outward: int
    shared: bool = False
    array: Any = field(default=None, repr=False, compare=False)

    @property
    def mixes(self) -> bool:
        """True if sums over channels, layer by layer, say less than the weights do."""
        return self.shared or self.inward * self.outward > 1

    @property
    def forward(self) -> float:
        """Variance of an output pixel for inputs of mean square 1."""
        return float(self.power.mass) * self.inward / self.outward

    def __repr__(self) -> str:
        return f"<{self.inward} to {self.outward} channels, kernel {self.power.shape}>"


def weights(array: Any, groups: int = 1) -> Weights:
    """Weights of shape (out, in / groups, *kernel), as PyTorch and ONNX order them.

    `groups` may be 1 for weights that several groups share.

    Raises:
      ValueError: another shape, entries that are not finite real numbers, or zeros alone.
    """
    try:
        w = np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"weights: got {type(array).__name__}; takes an array of reals") from None
    if not 3 <= w.ndim <= 5 or w.size == 0 or w.shape[0] % groups:
        raise ValueError(
            f"weights: got shape {w.shape}; takes (out, in / groups, *kernel), out a multiple of "
            f"groups={groups}"
        )
    if not np.isfinite(w).all():
        raise ValueError("weights: got NaN or infinity; takes finite numbers")
    outward = w.shape[0] // groups
    power = outward * np.mean(w * w, axis=(0, 1))
    if not power.any():
        raise ValueError("weights: got all zeros; takes a layer that passes something on")
    signed = outward * np.mean(w, axis=(0, 1))
    shape = w.shape[2:]
    return Weights(
        Kernel(shape, tuple(power.ravel().tolist())),
        Kernel(shape, tuple(signed.ravel().tolist())),
        w.shape[1],
        outward,
        array=w.astype(np.float32),
    )
