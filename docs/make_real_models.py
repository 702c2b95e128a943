"""Measure a small CNN on photographs: `python docs/make_real_models.py` (needs scikit-learn)."""

from pathlib import Path

import jax
import numpy as np
from jax import lax
from sklearn.datasets import load_sample_images

from erftheory import Activation, Chain, Conv
from erftheory.comparison import compare

IMAGES = Path(__file__).resolve().parent / "images"


def main() -> None:
    rng = np.random.default_rng(0)
    widths = [(3, 16)] + [(16, 16)] * 7
    weights = [rng.normal(0, (2 / 9 / a) ** 0.5, (3, 3, a, b)).astype("f") for a, b in widths]

    def model(x):
        for w in weights:
            dims = ("NHWC", "HWIO", "NHWC")
            x = lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=dims)
            x = jax.nn.relu(x)
        return x

    photos = [photo / 255 - 0.45 for photo in load_sample_images().images]
    rows, columns = rng.integers(0, 427 - 33, 64), rng.integers(0, 640 - 33, 64)
    crops = [p[r : r + 33, c : c + 33] for p in photos for r, c in zip(rows, columns)]
    record = compare(
        Chain(Conv(3), Activation("relu")) * 8, model, np.array(crops), cotangent="each"
    )
    print(record)
    figure = record.plot()
    figure.savefig(IMAGES / "real_models.png", dpi=80, metadata={"Software": None})


if __name__ == "__main__":
    main()
