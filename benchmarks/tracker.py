"""What watching costs: 20 readings of an `ErfTracker` against a training at CIFAR-10's size.

A small VGG on 50,000 images of 32×32×3 (generated: the time does not depend on what they show). One
update and one reading are timed, median of several, and set against whole trainings of so many
epochs. By count a reading is a forward and a backward pass of its images without the weights'
gradients, two thirds of as many images in an update; the table says how near it comes.

    python benchmarks/tracker.py [--images 256] [--batch 128] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from statistics import median

import jax
import numpy as np
import optax
from flax import nnx

from erftheory import Activation, BatchNorm, Chain, Conv, ErfTracker, MaxPool, trainable
from erftheory.training import Classifier
from erftheory.training.fitting.step import Update, structure

COUNT, READINGS = 50_000, 20
EPOCHS = (1, 2, 5, 10, 20, 50)


def vgg() -> Chain:
    """Six 3×3 convolutions, 32 to 128 channels, two poolings."""
    block = lambda c: Chain(Conv(3, channels=c), BatchNorm(), Activation("relu"))  # noqa: E731
    return Chain(
        block(32), block(32), MaxPool(2), block(64), block(64), MaxPool(2), block(128), block(128)
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=256, help="of a reading")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    module = trainable(vgg(), nnx.Rngs(0), 32, Classifier(10), in_channels=3)
    update = Update(structure(module, True), optax.adam(1e-3))
    advance, state, key = jax.jit(update), update.start(module), jax.random.key(0)
    x = rng.standard_normal((options.batch, 32, 32, 3), dtype=np.float32)
    y = rng.integers(0, 10, options.batch, dtype=np.int32)
    watched = rng.standard_normal((options.images, 32, 32, 3), dtype=np.float32)
    module.eval()
    tracker = ErfTracker(module, watched, batch=min(64, options.images))

    def step() -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(4):
            state, _ = advance(state, x, y, key)
        jax.block_until_ready(state[0])
        return (time.perf_counter() - start) / 4

    step()
    tracker(0)
    first = tracker.seconds  # with compiling
    steps, readings = [], []
    for i in range(1, options.repeats + 1):  # one after the other: the clock swings
        steps.append(step())
        before = tracker.seconds
        tracker(i)
        readings.append(tracker.seconds - before)
    one, read = median(steps), median(readings)
    per_epoch = -(-COUNT // options.batch)
    floor = 2 / 3 * options.images / options.batch * one
    print(f"update of {options.batch} images      {1e3 * one:8.1f} ms")
    print(f"reading of {options.images} images     {1e3 * read:8.1f} ms, {read / floor:.2f} times "
          f"its count; the first one {first:.1f} s with compiling")  # fmt: skip
    table = []
    for epochs in EPOCHS:
        training, watching = epochs * per_epoch * one, first + (READINGS - 1) * read
        table.append({"epochs": epochs, "training_s": training, "readings_s": watching,
                      "share": watching / training})  # fmt: skip
        print(f"{epochs:3d} epochs {training:8.0f} s   {READINGS} readings {watching:6.1f} s   "
              f"{watching / training:6.2%}")  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps({
            "environment": {"cores": os.cpu_count(), "python": platform.python_version(),
                            "jax": jax.__version__, "device": str(jax.devices()[0])},
            "images": options.images, "batch": options.batch, "update_s": one, "reading_s": read,
            "first_s": first, "times_its_count": read / floor, "rows": table,
        }, indent=1) + "\n")  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
