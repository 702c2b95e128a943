"""The measured ERF of a model: its own weights, real images.

Images pass in batches; per image there is one gradient of one output unit, and of it only sums are
kept. Their spread from image to image gives the standard errors, as it does for random nets.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from erftheory.empirical.measured.choose import model
from erftheory.empirical.measured.model import Model
from erftheory.empirical.nets.keys import random_key
from erftheory.empirical.sampled.tally import Tally
from erftheory.erf import ERF, ErrorBound
from erftheory.erf.jackknife import Replicates
from erftheory.network.arguments import integer, one_of

CONTRIBUTIONS = {
    "squared": np.square,
    "absolute": np.abs,
    "positive": lambda gradient: np.maximum(gradient, 0),
}
COTANGENTS = ("sum", "each", "random", "relu")
REPLICATES = 32  # at least so many groups of images are kept for the jackknife, if there are


def gradient_erf(
    function: Any,
    images: Any,
    unit: Any = "center",
    contribution: str = "squared",
    *,
    spatial_axes: Any = None,
    output_axes: Any = None,
    cotangent: Any = "sum",
    key: jax.Array | int | None = None,
    batch: int = 32,
) -> ERF:
    """The ERF of a given model on given images: the mean contribution of each input pixel.

    Args:
      function: maps a batch of images (n, …) to a batch of outputs (n, …); a JAX callable (compiled
        in every call, because its weights may have changed, and once for each batch shape), or a
        `torch.nn.Module` after `.eval()`. The images of a batch must not influence each other:
        batch norm in inference mode.
      images: floating point, in the model's own layout: an array (n, …), or an iterable of such
        batches, which are read one at a time. Gradients are taken in their precision (JAX's rules).
      unit: index in the output grid, an int an axis; "center" is n_out // 2 on each axis.
      contribution: of a gradient g, then summed over input channels: "squared" g² (variance),
        "absolute" |g|, or "positive" max(g, 0), which is D22's (both magnitude signals).
      spatial_axes: of the images, with the batch axis counted as 0. None takes (1, …, ndim − 2),
        channels last, for JAX functions, and (2, …), channels first, for torch modules.
      output_axes: spatial axes of the output, by default the same numbers. For tokens (n, tokens,
        features) it is 1, and `unit` the index of a token.
      cotangent: what is differentiated at the unit. "sum": the sum of its channels, as L16 and D22
        do. An int: that channel. An array (channels,): a combination. "each": every channel by
        itself, contributions added; one pass a channel. "random": a ±1 combination for each image,
        whose mean square is that of "each". "relu": the sum of the positive channels (D22's code).
      key: a JAX random key or an int, for cotangent "random" alone.
      batch: images a pass, where `images` is an array.

    Returns:
      an `ERF` of the images' shape at offset 0, `.samples` images. `.stderr` (a pixel),
      `.std_stderr` and `.standard_error(measure)` count the images as independent draws; crops of
      one photograph are not quite. With one image they are None, and NaN where one alone responds.
      `.replicates` has the mean gradient. `.metadata`: "unit", "grid" (units an axis),
      "contribution", "cotangent", "effective_samples", "largest_share" and "dead_images", whose
      gradient is zero everywhere.

    Raises:
      ValueError: an argument out of range, gradients that are all 0, or not finite.

    Reference: Luo et al., NIPS 2016, sections 2 and 3; Ding et al., CVPR 2022.
    """
    one_of("contribution", contribution, tuple(CONTRIBUTIONS))
    groups, place, grid = Groups(), (), ()
    for made, rows, gradients in streamed(
        function, _finite(images, batch), unit, contribution, spatial_axes, output_axes, cotangent,
        key, batch,
    ):  # fmt: skip
        place, grid = made.units[0], made.grid
        bad = ~np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))
        if bad.any():
            raise ValueError(
                f"images: got gradients that are NaN or infinite in image "
                f"{groups.count + int(bad.argmax())}; takes images on which the model is finite"
            )
        groups.add(rows, gradients)
    parts = groups.tallies
    total = sum(parts[1:], start=parts[0])
    if not total.square.sum() > 0:
        raise ValueError(
            f"images: got gradients that are all 0 at unit {place} ({total.nets} images); takes "
            "images or a unit at which the model responds"
        )
    several = total.nets > 1
    replicates = error = None
    bound = ErrorBound("rounding", 1e-6, "one image: no standard error")
    if several:
        replicates = Replicates(
            np.stack([part.square for part in parts]),
            total.gradient / total.nets,
            total.gradient_stderr(),
        )
        # Where all but one group are dead, nothing is left when that one is left out.
        with np.errstate(invalid="ignore", divide="ignore"):
            error = replicates.standard_error("std")
        alone = any(map(math.isnan, error))
        where = "std; a single group of images responds" if alone else "std, pixels"
        bound = ErrorBound("standard error", math.nan if alone else max(error), where)
    return ERF(
        offset=(0,) * total.square.ndim,
        signal="variance" if contribution == "squared" else "magnitude",
        method="measured",
        error=bound,
        map=total.square,
        stderr=total.stderr() if several else None,
        std_stderr=error,
        samples=total.nets,
        replicates=replicates,
        metadata={
            "unit": place,
            "grid": grid,
            "contribution": contribution,
            "cotangent": cotangent if isinstance(cotangent, str | int) else "array",
            "effective_samples": total.effective,
            "largest_share": total.largest / float(total.square.sum()),
            "dead_images": total.dead,
        },
    )


def streamed(
    function: Any,
    images: Any,
    unit: Any,
    contribution: str,
    spatial_axes: Any,
    output_axes: Any,
    cotangent: Any,
    key: Any,
    batch: int,
) -> Iterator[tuple[Model, np.ndarray, np.ndarray]]:
    """Batch by batch: the model, contributions (n, *image), mean gradients over input channels."""
    if (key is not None) != (isinstance(cotangent, str) and cotangent == "random"):
        raise ValueError(
            f"key: got {'None' if key is None else 'a key'} with cotangent={cotangent!r}; takes a "
            'key with "random" and with nothing else'
        )
    measure = CONTRIBUTIONS[contribution]
    made, seeds, width, count = None, None, 0, 0
    for x in _batches(images, batch):
        if made is None:
            rectified = isinstance(cotangent, str) and cotangent == "relu"
            shape = (1, *x.shape[1:])
            made = model(function, shape, x.dtype, spatial_axes, output_axes, rectified)
            made.units = [made.unit(unit)]
            seeds = _seeds(cotangent, made.features, key)
            expected = x.shape[1:]
        if x.shape[1:] != expected:
            raise ValueError(f"images: got {x.shape[1:]} after {expected}; takes one shape for all")
        n, width = len(x), max(width, len(x))
        # A last, smaller batch is filled up with copies of its last image: no second compilation.
        full = np.concatenate([x, np.repeat(x[-1:], width - n, axis=0)]) if n < width else x
        assert seeds is not None
        rows = gradients = 0.0
        for seed in seeds(count, len(full)):
            g = made.gradient(full, seed)[:n].astype(np.float64)
            g = made.spatial_first(g)
            rows = rows + measure(g).sum(axis=-1)
            gradients = gradients + g.mean(axis=-1)
        yield made, np.asarray(rows), np.asarray(gradients)
        count += n
    if made is None:
        raise ValueError("images: got none; takes at least one")


def _batches(images: Any, batch: int) -> Iterator[np.ndarray]:
    """Arrays (n, …), n > 0."""
    integer("batch", batch)
    if hasattr(images, "shape"):
        if len(images.shape) < 2:
            raise ValueError(f"images: got shape {tuple(images.shape)}; takes (n, …), n images")
        for start in range(0, images.shape[0], batch):
            yield _array(images[start : start + batch])
        return
    if not isinstance(images, Iterable) or isinstance(images, str | bytes):
        raise ValueError(
            f"images: got {type(images).__name__}; takes an array (n, …) or an iterable of batches"
        )
    for part in images:
        x = _array(part)
        if x.ndim < 2:
            raise ValueError(f"images: got a batch of shape {x.shape}; takes batches (n, …)")
        if len(x):
            yield x


def _finite(images: Any, batch: int) -> Iterator[np.ndarray]:
    """The batches, refused where a pixel is NaN: rectifiers would turn it into a gradient of 0."""
    count = 0
    for x in _batches(images, batch):
        bad = ~np.isfinite(x.reshape(len(x), -1).astype(np.float32)).all(axis=1)
        if bad.any():
            raise ValueError(
                f"images: got NaN or infinity in image {count + int(bad.argmax())}; takes finite "
                "pixels"
            )
        yield x
        count += len(x)


def _array(x: Any) -> np.ndarray:
    # A torch tensor that requires gradients or lies on a GPU is no NumPy array yet.
    try:
        found = np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)
    except TypeError as wrong:
        raise ValueError(
            f"images: got a tensor of {x.dtype}, which NumPy does not have; takes images and a "
            "module of float32"
        ) from wrong
    if found.dtype.kind == "c":
        raise ValueError(f"images: got dtype {found.dtype}; takes real images")
    return found


def _seeds(cotangent: Any, features: int, key: Any) -> Any:
    """A function (first image, n) → cotangents (n, features), one for each pass."""
    if isinstance(cotangent, str):
        one_of("cotangent", cotangent, (*COTANGENTS, "an int", "an array"))
        if cotangent == "each":
            return lambda start, n: (
                np.broadcast_to(row, (n, features)).copy()
                for row in np.eye(features, dtype=np.float32)
            )
        if cotangent == "random":
            return _signs(features, key)
        row = np.ones(features, np.float32)
    elif np.ndim(cotangent) == 0:
        channel = integer("cotangent", cotangent, 0)
        if channel >= features:
            raise ValueError(f"cotangent: got channel {channel}; takes 0 to {features - 1}")
        row = np.eye(1, features, channel, dtype=np.float32)[0]
    else:
        row = np.asarray(cotangent)
        real = row.dtype.kind in "fiub"
        if not real or row.shape != (features,) or not np.isfinite(row).all():
            what = f"shape {row.shape}" if real else f"dtype {row.dtype}"
            raise ValueError(
                f"cotangent: got {what}; takes real numbers of shape ({features},), one a channel"
            )
    return lambda start, n: [np.broadcast_to(row, (n, features)).copy()]


def _signs(features: int, key: Any) -> Any:
    """A ±1 combination an image, which depends on the key and the image's number alone."""
    root = random_key(key)

    @jax.jit
    def draw(index: jax.Array) -> jax.Array:
        keys = jax.vmap(lambda i: jax.random.fold_in(root, i))(index)
        return jax.vmap(lambda k: jax.random.rademacher(k, (features,), "float32"))(keys)

    return lambda start, n: [np.asarray(draw(np.arange(start, start + n, dtype=np.uint32)))]


class Groups:
    """Tallies of consecutive groups of equally many images, whose number nobody knows beforehand.

    Each group has `size` images; whenever there are twice as many groups as wanted, neighbours
    are joined. Consecutive, so that crops of one photograph fall into one group.
    """

    def __init__(self) -> None:
        self.size, self.count = 1, 0
        self.tallies: list[Tally] = []

    def add(self, rows: np.ndarray, gradients: np.ndarray) -> None:
        while len(rows):
            filled = self.count % self.size
            n = min(self.size - filled, len(rows))
            part = Tally.of(gradients[:n], rows[:n])
            if filled:
                self.tallies[-1] = self.tallies[-1] + part
            else:
                self.tallies.append(part)
            self.count += n
            rows, gradients = rows[n:], gradients[n:]
            if len(self.tallies) == 2 * REPLICATES and self.count % self.size == 0:
                self.tallies = [a + b for a, b in zip(self.tallies[::2], self.tallies[1::2])]
                self.size *= 2
