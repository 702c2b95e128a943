"""The command `erftheory design`: a question in options, the front as a table, picture or data."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from erftheory.designing.queries import ERFS
from erftheory.files import check_writable, plain, whole

PICTURES = (".png", ".pdf", ".svg")
SUFFIXES = (*PICTURES, ".json", ".csv")
PLANE = {"kernels": "3,5,7", "strides": "1,2", "dilations": "1,2,4", "depth": "1-10"}
DOUBLED = ",".join(str(2**i) for i in range(11))
CAUSAL = {"kernels": "3", "strides": "1", "dilations": DOUBLED, "depth": "1-8"}


@click.command(name="design")
@click.option("--erf-std", type=float, metavar="16", help="Wanted deviation, pixels.")
@click.option("--mass-radius", type=float, metavar="30", help="Wanted 95 % mass radius, pixels.")
@click.option("--flat", type=float, metavar="20", help="Wanted uniform disc, its radius in pixels.")
@click.option("--gaussian", type=float, metavar="16", help="Wanted Gaussian, its deviation.")
@click.option("--image", type=int, required=True, metavar="224", help="Pixels a side.")
@click.option("--max-macs", type=float, metavar="2e9", help="Most multiply-accumulates.")
@click.option("--max-parameters", type=float, metavar="1e6",
              help="Most weights; they are the cost.")  # fmt: skip
@click.option("--max-memory", type=float, metavar="1e8",
              help="Most bytes of activations; they are the cost.")  # fmt: skip
@click.option("--cost", type=click.Choice(["macs", "parameters", "memory"]), default=None,
              help="What the front weighs; macs unless another has a most.")  # fmt: skip
@click.option("--field", metavar="31|9-31|9-|-31", help="Receptive field, pixels.")
@click.option("--look-back", metavar="4096", help="At least so many pixels before; or a range A-B.")
@click.option("--latency", metavar="16", help="At most so many pixels behind; or a range A-B.")
@click.option("--stride", metavar="8|1-8", help="Input pixels per output pixel.")
@click.option("--no-holes", is_flag=True, help="Fields without holes alone.")
@click.option("--kernels", metavar="3,5,7", help="Of convolutions; causal ones 3.")
@click.option("--strides", metavar="1,2", help="Of convolutions; causal ones 1.")
@click.option("--dilations", metavar="1,2,4", help="Of convolutions; causal ones 1 to 1024.")
@click.option("--depth", metavar="1-10", help="Layers, a number or A-B; causal ones 1-8.")
@click.option("--channels", default="32", show_default=True,
              help="Of convolutions behind 0, 1, 2, ... strided layers.")  # fmt: skip
@click.option("--inputs", type=int, default=3, show_default=True, help="Channels of the input.")
@click.option("--separable", is_flag=True, help="Depthwise separable layers too.")
@click.option("--residual", is_flag=True, help="Shortcuts around layers too.")
@click.option("--causal", is_flag=True, help="Causal layers along one axis.")
@click.option("--ndim", type=int, default=None, metavar="2", help="Axes; 2, of causal layers 1.")
@click.option("--out", metavar="PATH", help="Also write a picture (png, pdf, svg), json or csv.")
def command(**given: Any) -> None:
    """The networks that none beats in both cost and closeness to a wanted ERF.

    Pixels are those of the input, an axis. Without a wanted ERF it is the cheapest network that
    keeps all bounds.
    """
    from erftheory.designing.design import design

    try:
        target = None if given["out"] is None else _target(given["out"])
        front = design(**question(given))
        if target is not None:
            _write(front, target)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    click.echo(str(front))


def question(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `design` for the options.

    Raises:
      ValueError: two wanted ERFs or two costs, or text that is no number, list or range.
    """
    options = {"erf_std": "std"} | {kind: kind for kind in ERFS if kind != "std"}
    wanted = {kind: given[name] for name, kind in options.items() if given[name] is not None}
    if len(wanted) > 1:
        raise ValueError(f"erf: got {len(wanted)} of them ({', '.join(wanted)}); takes one")
    most = {k: given[f"max_{k}"] for k in ("macs", "parameters", "memory")}
    most = {k: v for k, v in most.items() if v is not None}
    cost = given["cost"] or next(iter(most), "macs")
    if set(most) - {cost}:
        names = ", ".join(f"max-{k}" for k in most)
        raise ValueError(f"cost: got {cost!r} with {names}; takes a most of the cost alone")
    default = CAUSAL if given["causal"] else PLANE
    text = {name: given[name] or default[name] for name in default}
    depth = _range("depth", text.pop("depth"))
    allowed: dict[str, Any] = {name: _several(name, value) for name, value in text.items()}
    allowed |= {
        "depth": depth, "channels": _several("channels", given["channels"]),
        "inputs": given["inputs"], "separable": (False, True) if given["separable"] else False,
        "skip": ("none", "residual") if given["residual"] else "none",
        "ndim": given["ndim"] or (1 if given["causal"] else 2),
        "padding": "causal" if given["causal"] else "same",
    }  # fmt: skip
    return {
        "erf": wanted or None, "image": given["image"], "budget": most.get(cost), "cost": cost,
        "allowed": allowed, "field": _range("field", given["field"]),
        "lookback": _range("look-back", given["look_back"], least=True),
        "latency": _range("latency", given["latency"], most=True),
        "stride": _range("stride", given["stride"]), "gridding": not given["no_holes"],
    }  # fmt: skip


def _several(name: str, text: str) -> list[int]:
    try:
        return [int(n) for n in text.split(",")]
    except ValueError:
        raise ValueError(f"{name}: got {text!r}; takes integers, as in 3,5,7") from None


def _range(name: str, text: str | None, least: bool = False, most: bool = False) -> Any:
    """(least, most) of "A-B", "A-" or "-B"; a number alone is both, or one of them."""
    if text is None:
        return None
    low, dash, high = text.partition("-")
    try:
        ends = [int(n) if n else None for n in (low, high)]
        if not dash:
            ends = [None if most else ends[0], None if least else ends[0]]
        if ends == [None, None]:
            raise ValueError
    except ValueError:
        raise ValueError(f"{name}: got {text!r}; takes a number or a range, as in 9-31") from None
    return tuple(ends)


def _target(path: str) -> Path:
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"out: got {path!r}; takes a path that ends with {', '.join(SUFFIXES)}")
    check_writable(path, "out")
    return Path(path)


def _write(front: Any, target: Path) -> None:
    """The front as a picture or as data, whole or not at all."""
    rows = [{**asdict(r), "network": repr(r.network), "cost": _number(r.cost)} for r in front]
    suffix = target.suffix.lower()
    with whole(target) as place:
        if suffix in PICTURES:
            front.plot(place)
        elif suffix == ".json":
            data = {
                "asked": front.asked, "unit": front.unit, "measure": front.measure,
                "networks": str(front.networks), "rows": rows,
            }  # fmt: skip
            text = json.dumps(plain(data), indent=2, allow_nan=False) + "\n"
            place.write_text(text, encoding="utf-8")
        else:
            with open(place, "w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, list(rows[0]))
                table.writeheader()
                table.writerows(rows)


def _number(cost: Any) -> int | float:
    return int(cost) if cost == int(cost) else float(cost)
