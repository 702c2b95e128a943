"""What does it cost to read a published model, and is what was read what the model does?

    pip install keras                                                # the backend is JAX
    python benchmarks/importers.py --json out.json --plot out.png    # ten minutes

For families of `keras.applications`, up to the last feature map, on 224 x 224 pixels:

- **trace**: `jax.make_jaxpr` of the model, which is Keras's and JAX's time.
- **read**: `from_jax` on a model that was traced before, so the reader alone.
- **field**: `receptive_field` of the network.
- **first**: all three for a model not seen before.
- **executed**: the model run on images whose rows are NaN, or infinite, up to the row before the
  field's first, and up to it; likewise at its last; likewise for columns. Only the second may
  arrive. (XLA's max pools lose NaN at some sizes, bounded activations infinity.) A model that
  fails is not timed. Weights are positive; means over the image are constants, in the model as in
  the reading (`hold="global"`).

Times are CPU time, medians, and of the reader the best as well: on a shared machine the same work
takes up to twice as long from one minute to the next. All of it runs in one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import numpy as np

from erftheory import from_jax, receptive_field

FAMILIES = (
    "VGG16", "ResNet50", "ResNet152", "DenseNet121", "DenseNet201", "InceptionV3",
    "InceptionResNetV2", "Xception", "MobileNet", "MobileNetV2", "MobileNetV3Small",
    "EfficientNetB0", "EfficientNetV2B0", "NASNetMobile", "ConvNeXtTiny",
)  # fmt: skip
IMAGE = 224
NARROW = 96  # the other side of the images of the check: the inceptions need 75
TARGETS = {"first": 5.0, "read": 0.1}


def spent(call: Callable[[], Any]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def median(call: Callable[[], Any], repeats: int) -> float:
    return statistics.median(spent(call) for _ in range(repeats))


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    kept = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, kept)


def built(keras: Any, name: str, shape: tuple[int, ...]) -> Any:
    """The model for images of a shape, with positive weights that keep the size of its signals.

    They are drawn by NumPy: Keras compiles an initialiser for each shape, half a minute a model.
    """

    def weights(self: Any, shape: Any, dtype: Any = None) -> jax.Array:
        fan_in = math.prod(shape[:-1])
        values = np.random.default_rng(0).uniform(0.5, 1.5, shape) / fan_in
        return jnp.asarray(values, jnp.float32)

    with replaced(keras.initializers.VarianceScaling, "__call__", weights):
        build = getattr(keras.applications, name)
        return build(weights=None, include_top=False, input_shape=shape)


def arrives(keras: Any, name: str, size: int, axis: int) -> list[bool]:
    """Whether rows (axis 0) or columns reach the middle unit: those up to the one before its
    field's first, up to the first, behind the last, from the last on.

    The model is built and read anew: some pad by the parity of their images.
    """
    long = 32 * math.ceil(size / 32 + 4)
    shape = (1, long, NARROW, 3) if axis == 0 else (1, NARROW, long, 3)
    model = built(keras, name, shape[1:])
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    field = receptive_field(from_jax(lambda x: model(x), image, hold="global"))

    def constant(layer: Any, x: jax.Array) -> jax.Array:
        inner = (1, 1, x.shape[-1]) if layer.keepdims else x.shape[-1:]
        return jnp.full((x.shape[0], *inner), 0.5)

    with replaced(keras.layers.GlobalAveragePooling2D, "call", constant):
        grid = jax.eval_shape(model, image).shape[1:3]
        unit = tuple(n // 2 for n in grid)
        first = unit[axis] * field.stride[axis] - field.padding[axis]
        last = first + field.size[axis] - 1
        assert 0 < first and last < long - 1, "the field reaches the rim of the image"
        index = np.arange(long).reshape((1, -1, 1, 1) if axis == 0 else (1, 1, -1, 1))
        masks = (index < first, index <= first, index > last, index >= last)
        program = jax.jit(lambda x: ~jnp.isfinite(model(x)[(0, *unit)]).all())
        program = program.lower(image).compile()
        found = []
        for mask in masks:
            images = (np.where(mask, v, np.ones(shape)) for v in (np.nan, np.inf))
            found.append(any(bool(program(jnp.asarray(x, jnp.float32))) for x in images))
    return found


def family(keras: Any, name: str, repeats: int, check: bool) -> dict[str, Any]:
    model = built(keras, name, (IMAGE, IMAGE, 3))
    image = jax.ShapeDtypeStruct((1, IMAGE, IMAGE, 3), jnp.float32)
    first = spent(lambda: receptive_field(from_jax(lambda x: model(x), image, hold="global")))
    call = lambda x: model(x)  # noqa: E731
    network = from_jax(call, image, hold="global")
    field = receptive_field(network)
    for axis in (0, 1) if check else ():
        if (found := arrives(keras, name, field.size[0], axis)) != [False, True, False, True]:
            raise SystemExit(f"{name}, axis {axis}: {found} arrives of {field}, not timed")
    reads = [spent(lambda: from_jax(call, image, hold="global")) for _ in range(repeats)]
    return {
        "family": name,
        "size": field.size[0],
        "stride": field.stride[0],
        "equations": len(jax.make_jaxpr(call)(image).eqns),
        "operations": len(network.graph.nodes) - 1,
        "bounded": bool(np.isfinite(receptive_field(from_jax(call, image)).size[0])),
        "executed": check,
        "first": first,
        "trace": median(lambda: jax.make_jaxpr(lambda x: model(x))(image), max(1, repeats // 3)),
        "read": statistics.median(reads),
        "best": min(reads),
        "field": median(lambda: receptive_field(network), repeats),
    }


def processor() -> str:
    """The processor's name; Python itself knows none on Linux."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.32 * len(rows) + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    rows = sorted(rows, key=lambda r: r["read"])
    place = np.arange(len(rows))
    for key, label, colour, mark in (
        ("field", "receptive field", "#0072B2", "o"),
        ("read", "reading", "#009E73", "s"),
        ("trace", "tracing", "#D55E00", "D"),
        ("first", "all, first time", "#CC79A7", "v"),
    ):
        axes.semilogx([r[key] for r in rows], place, mark, color=colour, label=label, ms=5)
        if key in TARGETS:
            axes.axvline(TARGETS[key], color=colour, lw=0.8, ls=":")
    labels = [f"{r['family']}  {r['size']}" for r in rows]
    axes.set_yticks(place, labels, fontsize=8)
    axes.set(xlabel="seconds of CPU time (dotted: asked)", title="Keras models and their fields")
    axes.grid(axis="x", color="0.9")
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--no-check", action="store_true", help="time without executing")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args(arguments)
    import keras

    if keras.config.backend() != "jax":
        raise SystemExit(f"KERAS_BACKEND: got {keras.config.backend()!r}; takes 'jax'")
    environment = {
        "machine": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "keras": keras.__version__,
    }
    print("  ".join(f"{k} {v}" for k, v in environment.items()))
    rows = []
    for name in options.families.split(","):
        row = family(keras, name, options.repeats, not options.no_check)
        rows.append(row)
        print(
            f"{name:18s} {row['size']:5d} px   {row['equations']:5d} equations   trace "
            f"{row['trace'] * 1e3:6.0f} ms   read {row['read'] * 1e3:5.0f} ms (best "
            f"{row['best'] * 1e3:.0f})   field {row['field'] * 1e3:5.1f} ms   first "
            f"{row['first']:5.2f} s   "
            f"{'as executed' if row['executed'] else 'not executed'}",
            flush=True,
        )
    for key, limit in TARGETS.items():
        worst = max(rows, key=lambda r: r[key])
        print(f"{key}: at most {worst[key]:.3g} s ({worst['family']}), asked {limit:g} s")
    if options.json:
        options.json.write_text(
            json.dumps({"environment": environment, "rows": rows}, indent=1) + "\n"
        )
    if options.plot:
        plot(rows, options.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
