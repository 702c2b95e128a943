"""Fixed layers in the variance signal: composed as gradients first and squared afterwards.

Zero-mean random weights make gradients at different pixels, and on different paths, uncorrelated;
fixed taps (average pooling, linear interpolation) do not. So a run of fixed layers between two
random ones acts on powers by the squares of its composed taps.
"""

from __future__ import annotations

from erftheory.theory.walk import Factor


def square_fixed(raw, order, outputs):
    """Replace every fixed edge by its effect on powers."""
    fixed_into = {port for port, edges in raw.items() if any(e.kind == "fixed" for e in edges)}
    for port, edges in raw.items():
        for e in edges:
            if e.kind != "fixed":
                continue
            if e.reader in fixed_into and _fixed_above(raw, e.reader):
                raise ValueError(
                    "network: got two fixed layers (average pooling or interpolation) with no "
                    "random layer between them in the variance signal; takes a convolution between"
                )
            e.factors = tuple(
                Factor(f.kernel.map(lambda tap: tap * tap), f.spacing, f.count) for f in e.factors
            )
    return raw


def _fixed_above(raw, port) -> bool:
    return any(e.kind == "fixed" for e in raw.get(port, []))
