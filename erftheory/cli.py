"""The `erftheory` command."""

from __future__ import annotations

import importlib
import json as text
import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from erftheory.network.base import Network

MODELS = "a network of the zoo, a path *.onnx, or package.module:callable"


@click.group(name="erftheory")
@click.version_option(package_name="erftheory")
def group() -> None:
    """Receptive fields of convolutional networks, theoretical and effective.

    A MODEL is a name of the zoo (resnet34), an ONNX file, or package.module:callable, a function
    without arguments that returns a Network (or, with --shape, a JAX function of one array).
    """


class _Usage(click.UsageError):
    """Bad usage in one line."""


def _reading(command: Callable) -> Callable:
    """The options that all readings of a MODEL share; the command gets a Network and returns
    what it prints and what --json writes."""

    @click.argument("model")
    @click.option("--until", default=None, metavar="ENDPOINT", help="Stop at this part.")
    @click.option("--shape", default=None, metavar="1,224,224,3",
                  help="Shape of the array a JAX function takes.")  # fmt: skip
    @click.option("--signal", type=click.Choice(["variance", "gradient"]), default="variance")
    @click.option("--init", type=click.Choice(["he", "lecun", "xavier"]), default="he")
    @click.option("--json", default=None, metavar="PATH", help="Write what is printed as data.")
    @wraps(command)
    def run(model: str, until: str | None, shape: str | None, json: str | None, **options: Any):
        try:
            network = load(model, shape)
            if until is not None:
                network = network.until(until)
            shown, data = command(network, **options)
        except (ValueError, ImportError) as error:
            raise _Usage(str(error)) from None
        if json is not None:
            _whole(json, lambda path: Path(path).write_text(_as_json(data), encoding="utf-8"))
        click.echo(shown)

    return run


def load(model: str, shape: str | None = None) -> Network:
    """The network that MODEL names.

    Raises:
      ValueError: no such network, file, module or callable, or one that returns something else.
    """
    from erftheory import zoo

    if model in zoo.names():
        return zoo.get(model)
    if model.endswith(".onnx"):
        if not Path(model).is_file():
            raise ValueError(f"model: got {model!r}, which is no file; takes {MODELS}")
        return _importer("from_onnx")(model)
    module, colon, name = model.partition(":")
    if not colon:
        raise ValueError(f"model: got {model!r}; takes {MODELS}; zoo: {', '.join(zoo.names())}")
    return _called(_callable(model, module, name), model, shape)


def _importer(name: str) -> Callable:
    import erftheory

    found = getattr(erftheory, name, None)
    if found is None:
        raise ValueError(f"model: this version has no {name}; takes a network of the zoo")
    return found


def _callable(model: str, module: str, name: str) -> Callable:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"model: got {model!r} ({error}); takes {MODELS}") from None
    if not callable(found):
        raise ValueError(f"model: got {model!r}, a {type(found).__name__}; takes a callable")
    return found


def _called(function: Callable, model: str, shape: str | None) -> Network:
    from erftheory import Network

    if shape is not None:
        import jax

        try:
            sizes = tuple(int(n) for n in shape.split(","))
        except ValueError:
            raise ValueError(f"shape: got {shape!r}; takes integers such as 1,224,224,3") from None
        return _importer("from_jax")(function, jax.ShapeDtypeStruct(sizes, "float32"))
    try:
        network = function()
    except TypeError as error:
        raise ValueError(
            f"model: got {model!r} ({error}); takes a callable without arguments that returns a "
            "Network, or --shape for a JAX function"
        ) from None
    if not isinstance(network, Network):
        raise ValueError(
            f"model: got {model!r}, which returns a {type(network).__name__}; takes a callable "
            "that returns a Network"
        )
    return network


def _pixels(value: str | None, name: str) -> Any:
    """An int, or one an axis ("224" or "224,320")."""
    if value is None:
        return None
    try:
        entries = tuple(int(n) for n in value.replace("x", ",").split(","))
    except ValueError:
        raise ValueError(f"{name}: got {value!r}; takes pixels, such as 224 or 224,320") from None
    return entries[0] if len(entries) == 1 else entries


def _plain(value: Any) -> Any:
    from erftheory.verify import _plain as plain

    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return plain(value)


def _as_json(data: Any) -> str:
    return text.dumps(_plain(data), indent=2, allow_nan=False) + "\n"


def _whole(path: str, write: Callable[[str], Any]) -> None:
    """Write a file whole or not at all."""
    target = Path(path)
    beside = target.with_name(f".{os.getpid()}.{target.name}")  # the suffix says the format
    try:
        write(str(beside))
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


@group.command()
@_reading
@click.option("--spacing", default=None, metavar='"0.5 mm"', help="Distance of pixels.")
def summary(network: Network, spacing: str | None, signal: str, init: str):
    """One row a layer: receptive field, jump, ERF std."""
    from erftheory.theory.summary import summary as rows

    found = rows(network, signal, init, spacing)
    data = [
        {"name": r.name, "layer": r.layer, "receptive_field": r.receptive_field, "jump": r.jump,
         "std": r.std, "ratio": r.ratio}
        for r in found.rows
    ]  # fmt: skip
    return str(found), {"signal": signal, "init": init, "rows": data}


@group.command()
@_reading
@click.option("--image", default=None, metavar="224", help="Pixels of a finite image, padded.")
@click.option("--unit", default=None, metavar="3,5", help="Index of the output unit.")
@click.option("--window", default=None, help='Pixels about the centre, or deviations ("8 std").')
@click.option("--out", default=None, metavar="PATH", help="Picture (png, pdf, svg) or record (npz)")
def erf(network: Network, image, unit, window, out, signal: str, init: str):
    """The exact effective receptive field, in numbers and as a picture."""
    from erftheory import exact, receptive_field

    options: dict[str, Any] = {"signal": signal, "init": init}
    if image is not None:
        options["image"] = _pixels(image, "image")
    if unit is not None:
        place = _pixels(unit, "unit")
        options["unit"] = place if isinstance(place, tuple) else (place,) * network.ndim
    if window is not None:
        options["window"] = window if "std" in window else _pixels(window, "window")
    found = exact(network, **options)
    if out is not None:
        _whole(out, lambda path: _picture(found, path))
    field = receptive_field(network)
    lines = {
        "receptive field": " x ".join(map(str, field.size)),
        "ERF std": " x ".join(f"{s:.3f}" for s in found.std),
        "ERF size (4.55 % of the peak)": f"{found.size():.1f}",
        "map": " x ".join(map(str, found.shape)) + f" from {found.offset}",
        "error": f"{found.error} ({found.method})",
    }
    width = max(map(len, lines))
    shown = "\n".join(f"{name.ljust(width)}  {value}" for name, value in lines.items())
    shown += f"\nsizes in input pixels; {signal} signal, {init} initialisation"
    data = {
        "receptive_field": field.size, "std": found.std, "size": found.size(),
        "offset": found.offset, "shape": found.shape, "signal": signal, "init": init,
        "image": options.get("image"), "method": found.method, "error": str(found.error),
    }  # fmt: skip
    return shown, data


def _picture(found: Any, path: str) -> None:
    if path.endswith(".npz"):
        found.save(path)
        return
    if not path.endswith((".png", ".pdf", ".svg")):
        suffix = Path(path).suffix
        raise ValueError(f"out: got a path with {suffix!r}; takes .png, .pdf, .svg or .npz")
    found.plot().savefig(path, bbox_inches="tight")


@group.command()
@_reading
@click.option("--image", required=True, metavar="224", help="Pixels of the images.")
def advise(network: Network, image: str, signal: str, init: str):
    """Which layers an image size leaves without work, and what to change."""
    from erftheory.theory.advise import advise as advice

    found = advice(network, _pixels(image, "image"), signal, init)
    data = {
        "image": found.image, "signal": signal, "feasible": found.feasible, "lines": found.lines,
        "unproductive": [[e.name, e.layer] for e in found.unproductive],
        "unproductive_by_erf": [[e.name, e.layer] for e in found.spent],
    }  # fmt: skip
    return str(found), data


@group.command()
@_reading
@click.option("--tile", required=True, metavar="512", help="Pixels of a tile.")
@click.option("--image", default=None, metavar="2048", help="Pixels of the image, to count tiles.")
@click.option("--mass", type=float, default=0.999, show_default=True, help="Share to keep.")
def tiling(network: Network, tile: str, image: str | None, mass: float, signal: str, init: str):
    """The overlap that tiled inference needs."""
    from dataclasses import asdict

    from erftheory.theory.tiling import tiling as tiles

    found = tiles(network, _pixels(tile, "tile"), mass, signal, init, _pixels(image, "image"))
    return str(found), asdict(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    from erftheory.verify import command, run

    group.add_command(command)
    return run(group, "erftheory", arguments)


if __name__ == "__main__":
    sys.exit(main())
