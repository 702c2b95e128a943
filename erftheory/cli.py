"""The `erftheory` command."""

from __future__ import annotations

import importlib
import inspect
import json as text
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from erftheory.command import run
from erftheory.files import plain, whole
from erftheory.network.initialisation import INITS, check_init

if TYPE_CHECKING:
    from erftheory.network.base import Network

MODELS = "a network of the zoo, a path *.onnx, or package.module:name"
PICTURES = (".png", ".pdf", ".svg")


class _Group(click.Group):
    """Loads what a command needs with the command: the laws, and with them JAX and SymPy, for
    `verify` alone."""

    apart = {"design": "erftheory.designing.command", "verify": "erftheory.verify"}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self.apart])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.apart:
            return importlib.import_module(self.apart[cmd_name]).command
        return super().get_command(ctx, cmd_name)


@click.group(name="erftheory", cls=_Group)
@click.version_option(package_name="erftheory")
def group() -> None:
    """Receptive fields of convolutional networks, theoretical and effective.

    A MODEL is a name of the zoo (resnet34), an ONNX file, or package.module:name: a Network, a
    torch module or a JAX function of one array (both with --shape), or a function or class without
    arguments that makes one of them.
    """


class _Usage(click.UsageError):
    """Bad usage in one line."""


def _init(context: click.Context, parameter: click.Parameter, value: str) -> str | float:
    try:
        return check_init(float(value) if re.fullmatch(r"[\d.eE+-]+", value) else value)
    except ValueError as wrong:
        raise click.BadParameter(str(wrong)) from None


def _target(*suffixes: str) -> Callable[[Any, Any, str | None], str | None]:
    """Refuses a path that cannot be written before anything is computed or written."""

    def check(context: Any, option: click.Option, path: str | None) -> str | None:
        if path is None:
            return None
        target = Path(path)
        if suffixes and target.suffix.lower() not in suffixes:
            wanted = ", ".join(suffixes)
            raise _Usage(f"{option.name}: got a path with {target.suffix!r}; takes one of {wanted}")
        if target.is_dir() or not os.access(target.parent, os.W_OK):
            raise _Usage(f"{option.name}: got {path!r}; takes a file in a directory to write to")
        return path

    return check


def _reading(command: Callable) -> Callable:
    """The options that all readings of a MODEL share; the command gets a Network and returns
    what it prints and what --json writes."""

    @click.argument("model")
    @click.option("--until", default=None, metavar="ENDPOINT", help="Stop at this part.")
    @click.option("--shape", default=None, metavar="1,224,224,3",
                  help="Shape of the array that a JAX function, a torch module or an ONNX model "
                       "with open sizes takes.")  # fmt: skip
    @click.option("--axes", default=None, metavar="1,2",
                  help="Its dimensions that are pixels, where no convolution tells.")  # fmt: skip
    @click.option("--signal", type=click.Choice(["variance", "gradient"]), default="variance")
    @click.option("--init", default="he", metavar="NAME|NUMBER", callback=_init,
                  help=f"Weights: {', '.join(INITS)}, or a number c for c/fan_in.")  # fmt: skip
    @click.option("--json", default=None, metavar="PATH", callback=_target(),
                  help="Write what is printed as data.")  # fmt: skip
    @wraps(command)
    def run(
        model: str, until: str | None, shape: str | None, axes: str | None, json: str | None,
        **options: Any,
    ):  # fmt: skip
        try:
            network = load(model, shape, axes)
            notes = getattr(network, "notes", ())
            if until is not None:
                network = network.until(until)
            if json is not None and options.get("out") is not None:
                if Path(json).resolve() == Path(options["out"]).resolve():
                    raise ValueError(f"json: got {json!r}, the file of --out; takes another")
            shown, data = command(network, **options)
        except (ValueError, ImportError) as error:
            raise _Usage(str(error)) from None
        if notes:
            data["notes"] = notes
        if json is not None:
            _whole(json, lambda path: Path(path).write_text(_as_json(data), encoding="utf-8"))
        click.echo(shown)
        for note in notes:
            click.echo(f"note: {note}", err=True)

    return run


def load(model: str, shape: str | None = None, axes: str | None = None) -> Network:
    """The network that MODEL names; a model in code is read for inputs of `shape`
    ("1,224,224,3"), whose dimensions `axes` ("1,2") are pixels.

    Raises:
      ValueError: no such network, file, module or name; code of the model's own that fails; a
        model that cannot be read; a missing or misshapen shape.
    """
    from erftheory import zoo

    given = _integers("shape", shape, 1, "1,224,224,3"), _integers("axes", axes, 0, "1,2")
    if model in zoo.names():
        return zoo.get(model)
    if model.endswith(".onnx"):
        if not Path(model).is_file():
            raise ValueError(f"model: got {model!r}, which is no file; takes {MODELS}")
        from erftheory import from_onnx

        return _own(model, lambda: from_onnx(model, shape=given[0], spatial_axes=given[1]))
    module, colon, name = model.partition(":")
    if not colon:
        raise ValueError(f"model: got {model!r}; takes {MODELS}; zoo: {', '.join(zoo.names())}")
    return _read(model, _named(model, module, name), *given)


def _integers(
    name: str, text: str | None, least: int, example: str
) -> tuple[int, ...] | None:  # fmt: skip
    if text is None:
        return None
    try:
        found = tuple(int(n) for n in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < least:
        raise ValueError(f"{name}: got {text!r}; takes integers from {least} on, as in {example}")
    return found


def _named(model: str, module: str, name: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # importing runs code of the user's own
        raise _failed(model, error) from error
    return found


def _read(
    model: str, found: Any, sizes: tuple[int, ...] | None, axes: tuple[int, ...] | None,
    made: bool = False,
) -> Network:  # fmt: skip
    """The network of a Network, a torch module, a JAX function, or what makes one of them."""
    from erftheory import Network

    if isinstance(found, Network):
        return found
    from erftheory import from_jax, from_torch

    torch = sys.modules.get("torch")
    if torch is not None and isinstance(found, torch.nn.Module):
        if sizes is None:
            raise ValueError(f"shape: got none for {model!r}, a torch module; takes 1,3,224,224")
        return _own(model, lambda: from_torch(found, torch.zeros(sizes), spatial_axes=axes))
    if not callable(found):
        what = f"which returns {type(found).__name__}" if made else type(found).__name__
        raise ValueError(f"model: got {model!r} ({what}); takes {MODELS}")
    if not made and not _needs_arguments(found):
        return _read(model, _own(model, found), sizes, axes, made=True)
    if sizes is None:
        raise ValueError(
            f"shape: got none for {model!r}; takes that of the one array the function takes, "
            "such as 1,224,224,3, or a model without arguments"
        )
    import jax

    example = jax.ShapeDtypeStruct(sizes, "float32")
    return _own(model, lambda: from_jax(found, example, spatial_axes=axes))


def _needs_arguments(function: Callable) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some builtins have none to look at
        return True
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return any(p.default is p.empty and p.kind not in optional for p in parameters)


def _own(model: str, call: Callable[[], Any]) -> Any:
    """Runs code of the user's own: what it raises is bad usage of MODEL. What this package refuses
    says so itself."""
    try:
        return call()
    except (Exception, SystemExit) as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
        if isinstance(error, ValueError) and where.startswith("erftheory."):
            raise
        raise _failed(model, error) from error


def _failed(model: str, error: BaseException) -> ValueError:
    lines = str(error).strip().splitlines() or [""]
    return ValueError(f"model: got {model!r} ({type(error).__name__}: {lines[0]}); takes {MODELS}")


def _pixels(value: str | None, name: str) -> Any:
    """An int, or one an axis ("224" or "224,320")."""
    if value is None:
        return None
    try:
        entries = tuple(int(n) for n in value.replace("x", ",").split(","))
    except ValueError:
        raise ValueError(f"{name}: got {value!r}; takes pixels, such as 224 or 224,320") from None
    return entries[0] if len(entries) == 1 else entries


def _as_json(data: Any) -> str:
    return text.dumps(plain(data), indent=2, allow_nan=False) + "\n"


def _whole(path: str, write: Callable[[str], Any]) -> None:
    """Write a file whole or not at all."""
    try:
        with whole(path) as place:
            write(str(place))
    except OSError as error:
        raise click.FileError(path, error.strerror or str(error)) from error


@group.command()
@_reading
@click.option("--spacing", default=None, metavar='"0.5 mm"', help="Distance of pixels.")
def summary(network: Network, spacing: str | None, signal: str, init: str):
    """One row a layer: receptive field, jump, ERF std."""
    from erftheory.theory.readings.summary import summary as rows

    found = rows(network, signal, init, spacing)
    data = [
        {"name": r.name, "layer": r.layer, "receptive_field": r.receptive_field, "jump": r.jump,
         "std": r.std, "ratio": r.ratio}
        for r in found.rows
    ]  # fmt: skip
    shown = {"signal": signal, "init": init, "rows": data}
    if found.spacing is not None:
        shown["spacing"], shown["unit"] = found.spacing.values, found.spacing.unit
        for row, entry in zip(found.rows, data):
            entry["receptive_field_length"] = found.spacing.of(row.receptive_field)
            entry["std_length"] = found.spacing.of(row.std)
    return str(found), shown


@group.command()
@_reading
@click.option("--image", default=None, metavar="224", help="Pixels of a finite image, padded.")
@click.option("--unit", default=None, metavar="3,5", help="Index of the output unit.")
@click.option("--window", default=None, help='Pixels about the centre, or deviations ("8 std").')
@click.option("--out", default=None, metavar="PATH", callback=_target(*PICTURES, ".npz"),
              help="Picture (png, pdf, svg) or record (npz)")  # fmt: skip
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
        "unit": options.get("unit", "center"), "window": window,
        "lost": found.metadata.get("lost"),
    }  # fmt: skip
    return shown, data


def _picture(found: Any, path: str) -> None:
    if path.endswith(".npz"):
        found.save(path)
        return
    found.plot().savefig(path, bbox_inches="tight")


@group.command()
@_reading
@click.option("--image", required=True, metavar="224", help="Pixels of the images.")
@click.option("--cures/--no-cures", "cure", default=True, show_default=True,
              help="Try single changes of layers.")  # fmt: skip
def advise(network: Network, image: str, cure: bool, signal: str, init: str):
    """Which layers an image size leaves without work, and what to change."""
    from erftheory.designing.cures import cures
    from erftheory.theory.advice.advise import advise as advice

    size = _pixels(image, "image")
    found = advice(network, size, signal, init)
    data = {
        "image": found.image, "signal": signal, "feasible": found.feasible, "lines": found.lines,
        "unproductive": [[e.name, e.layer] for e in found.unproductive],
        "unproductive_by_erf": [[e.name, e.layer] for e in found.spent],
    }  # fmt: skip
    if not cure:
        return str(found), data
    try:
        cured = cures(network, size, signal, init)
    except ValueError as error:  # an image that the network cannot run on has no costs
        return f"{found}\ncures: not tried ({error})", data
    data["cures"] = [
        {"name": c.name, "layer": c.layer, "change": c.change, "cured": c.cured, "std": c.std,
         "macs": c.macs, "ratio": c.ratio}
        for c in cured
    ]  # fmt: skip
    return f"{found}\n{cured}", data


@group.command()
@_reading
@click.option("--tile", required=True, metavar="512", help="Pixels of a tile.")
@click.option("--image", default=None, metavar="2048", help="Pixels of the image, to count tiles.")
@click.option("--mass", type=float, default=0.999, show_default=True, help="Share to keep.")
def tiling(network: Network, tile: str, image: str | None, mass: float, signal: str, init: str):
    """The overlap that tiled inference needs."""
    from dataclasses import asdict

    from erftheory.theory.advice.tiling import tiling as tiles

    found = tiles(network, _pixels(tile, "tile"), mass, signal, init, _pixels(image, "image"))
    return str(found), asdict(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(group, "erftheory", arguments)


if __name__ == "__main__":
    sys.exit(main())
