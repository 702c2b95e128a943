"""The exact effective receptive field on the unbounded plane."""

from __future__ import annotations

from typing import Any

from erftheory.erf import ERF
from erftheory.network.arguments import one_of
from erftheory.network.base import Network
from erftheory.network.initialisation import Init
from erftheory.theory.gains.between import between
from erftheory.theory.gains.prepare import prepare
from erftheory.theory.plane.positive import Positive
from erftheory.theory.plane.signed import Signed
from erftheory.theory.readings.idealised import idealised

METHODS = ("auto", "tilted", "convolution", "direct", "spectrum")


def exact(
    network: Network,
    signal: str = "variance",
    init: Init | None = "he",
    unit: str | tuple[int, ...] = "center",
    method: str = "auto",
    window: Any = None,
    image: int | tuple[int, ...] | None = None,
    padding_mode: str = "zeros",
    source: str | None = None,
    output: str | None = None,
) -> ERF:
    """The ERF of one output unit, float64, normalised to sum 1.

    Args:
      signal: "variance" E[g²] of random weights, "magnitude" its square root, or "gradient" g with
        the taps as weights.
      init: the variance of the weights, which gives the gains where branches meet: "he" 2/fan_in,
        "lecun" and "flax" 1/fan_in, "xavier" and "keras" 2/(fan_in + fan_out), "torch" 1/(3 fan_in)
        (of biases too), a number c for c/fan_in; None counts raw paths.
      unit: index of the output unit, one int an axis; "center" is index 0 of the unbounded
        plane. It matters for up-sampling networks, where it chooses the output phase. On an
        image it is an index of the output grid, and "center" is n // 2 on each axis.
      method: "tilted" (short Fourier transforms of tilted signals, axis by axis) and
        "convolution" (layer by layer, tilted where floats end) know every weight ≥ 0 to nearly
        all its digits; NumPy, with nothing to compile. "spectrum" (one Fourier transform) and
        "direct" (repeated convolution) run in JAX on its default device, take signed taps and
        up-sampling, and know all weights to the digits of the largest. "auto" takes what has
        most digits and is affordable; the result names it.
      window: None is the whole support up to 2^16 pixels an axis, beyond that the smallest window
        that leaves out at most 1e-12 of the signal. Else, for all axes or as a tuple with one
        entry an axis: pixels about the centre of mass (an int), deviations on each side ("8
        std"), or a `range` of input pixels, counted like `ERF.offset`. The map is normalised on
        its window; `metadata["inside"]` is the share of the whole signal that it holds, and
        `error.outside` a certified bound for the rest.
      image: pixels of a finite input, an int or one an axis; None is the unbounded plane. The map
        has the image's shape and offset 0, `metadata["unit"]` names the unit and
        `metadata["lost"]` is the share of the signal that the image's rim takes away
        (docs/finite_images.md). Gains are those of the unbounded plane, but norms divide by the
        deviations that maps have on the image.
      padding_mode: on an image, what convolutions and pools read in their paddings: "zeros",
        "reflect", "replicate" or "circular".
      source, output: names that `until` takes: the map of a unit of `output` over the pixels of
        `source`, with the gains of the whole network (`between`); None is the network's end. Beside
        `image`, which stays the network's own, the map has the pixels that `source` makes of it.

    Raises:
      ValueError: an argument out of range, a global operation on the unbounded plane, signed taps
        in the variance signal, a signal of mass 0, an image too small for a layer.

    Reference: Luo et al., NIPS 2016, section 2; Daniels 1954 for the tilt.
    """
    one_of("method", method, METHODS)
    if image is not None:
        if window is not None:
            raise ValueError(f"window: got {window!r} beside image; takes one of the two")
        if method != "auto":
            raise ValueError(f'method: got {method!r} beside image; takes "auto"')
        from erftheory.theory.image.units import on_image

        return on_image(network, image, unit, signal, init, padding_mode, source, output)
    if padding_mode != "zeros":
        raise ValueError(
            f"padding_mode: got {padding_mode!r} without image; takes an image beside it"
        )
    network = between(network, source, output)
    walk = prepare(network, signal, init)
    reading = Signed if walk.signed or walk.restricted else Positive
    made = reading(network, walk, signal, unit, method, window)
    made.why = idealised(network, signal, init)
    return made.erf()
