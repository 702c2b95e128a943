"""The command line of the laws: `python -m erftheory.verify --depth 64`."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from erftheory.laws import Context, Engines, Verdict, select
from erftheory.laws.machine.base import Evidence, Law
from erftheory.laws.machine.running import in_threads, in_two_processes
from erftheory.network.base import Chain
from erftheory.network.layers import Conv

SHOWN = ("resnet18", "resnet34", "resnet50", "resnet152", "vgg16", "densenet121", "unet")
WIDE = 96  # columns that the table needs; below it the verdicts are printed as a list
PIPED = 100  # columns assumed where there is no terminal to ask
WORKERS = 2  # laws at a time
HEAVY = 4  # laws from which a second process is worth loading
PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "sympy", "python-flint")


@dataclass(frozen=True)
class Arguments:
    """What `verify` was asked for; `laws` is the list of patterns as given, None for all."""

    depth: int = 64
    kernel: int = 3
    samples: int = 4000
    laws: str | None = None
    seed: int = 2016
    json: str | None = None
    quiet: bool = False
    evidence: bool = False


def check_writable(path: str) -> Path:
    """The file to write, after a trial in its folder that leaves nothing behind.

    Raises:
      ValueError: the path is a folder, or nothing can be written there.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.is_dir():
            raise IsADirectoryError("it is a folder")
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError("it is not writable")
        if not target.exists() or target.is_file():
            trial = target.with_name(f".erftheory-{os.getpid()}")
            with open(trial, "x"):
                pass
            trial.unlink()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"json: got {path!r}, {why}; takes a path that can be written") from None
    return target


def write_atomically(path: Path, text: str) -> None:
    """Write whole or not at all; pipes and devices are written to directly."""
    if path.exists() and not path.is_file():
        path.write_text(text)
        return
    partial = path.with_name(f".erftheory-{os.getpid()}")
    try:
        with open(partial, "x") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def verify(
    arguments: Arguments,
    engines: Engines | None = None,
    console: Console | None = None,
    processes: int = 1,
) -> tuple[int, dict[str, Any]]:
    """Check the laws, print the table, and return the exit code and the record that JSON holds.

    With two `processes` a second one takes half of the laws; only a program that may be imported
    again (`if __name__ == "__main__"`) can ask for that, and only without engines of its own.

    Raises:
      ValueError: an argument is out of range, said before any work starts.
    """
    laws, target = prepare(arguments)
    console = console or make_console()
    started = time.perf_counter()
    context = Context(
        engines or Engines.load(),
        arguments.depth, arguments.kernel, arguments.samples, arguments.seed,
    )  # fmt: skip
    verdicts = _run(
        laws, context, console, arguments.quiet, 1 if engines is not None else processes
    )
    whole = len(verdicts) == len(laws)
    networks = []
    if whole and not (arguments.quiet and target is None):
        networks = real_networks(context)
    seconds = time.perf_counter() - started
    record = {
        "arguments": {k: getattr(arguments, k) for k in Arguments.__dataclass_fields__},
        "environment": environment(),
        "laws": [as_data(v) for v in verdicts],
        "networks": networks,
        "notes": context.notes,
        "seconds": round(seconds, 3),
    }
    if not arguments.quiet:
        _print_table(console, verdicts)
        if arguments.evidence:
            _print_evidence(console, verdicts)
        _print_networks(console, networks)
    for note in context.notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)
    _print_failures(console, verdicts)
    failed = [v.law.id for v in verdicts if not v.holds]
    held = f"{len(verdicts) - len(failed)} of {len(verdicts)} laws hold"
    tail = f"; failed: {', '.join(failed)}" if failed else ""
    if not whole:
        held, tail = f"interrupted: {held}", f"{tail}; {len(laws) - len(verdicts)} undecided"
    console.print(Text(f"{held} in {seconds:.1f} s{tail}"), soft_wrap=True)
    if target is not None:
        write_atomically(target, json.dumps(record, indent=1, allow_nan=False) + "\n")
    return (130 if not whole else 1 if failed else 0), record


def prepare(arguments: Arguments) -> tuple[tuple[Law, ...], Path | None]:
    """The laws to check and the file to write; everything a user can get wrong is found here.

    Raises:
      ValueError: an argument is out of range, names no law, or cannot be written to.
    """
    least = {"depth": 1, "kernel": 2, "samples": 64, "seed": 0}
    for name, bound in least.items():
        value = getattr(arguments, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < bound:
            raise ValueError(f"{name}: got {value!r}; takes an integer >= {bound}")
    laws = select(arguments.laws)
    return laws, None if arguments.json is None else check_writable(arguments.json)


def _run(
    laws: Sequence[Law], context: Context, console: Console, quiet: bool, processes: int
) -> list[Verdict]:
    """The verdicts in the order of the laws, fewer if interrupted; their notes join the context's
    in order."""
    columns = SpinnerColumn(), TextColumn("{task.description}")
    silent = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=silent) as progress:
        task = progress.add_task("", total=len(laws))
        decided: list[str] = []

        def report(law: Law, verdict: Verdict | None) -> None:
            if verdict is not None:
                decided.append(law.id)
            done = f"{len(decided)} of {len(laws)}"
            progress.update(task, description=f"{done}  {law.id}: {law.statement}")

        if processes > 1 and len(laws) > 1:
            found = in_two_processes(laws, context, report)
            verdicts = [verdict for verdict in found if verdict is not None]
        else:
            verdicts = in_threads(laws, context, report, WORKERS)
    for verdict in verdicts:
        for note in verdict.notes:
            context.note(note)
    return verdicts


def real_networks(context: Context) -> list[dict[str, Any]]:
    """Receptive and effective field of the net asked for and of published networks (first axis)."""
    plain = f"{context.depth} layers of {context.kernel}x{context.kernel}"
    nets = {plain: Chain(Conv(context.kernel), ndim=2) * context.depth}
    for name in SHOWN:
        build = getattr(context.engines.zoo, name, None)
        if build is not None:
            nets[name] = build()
    rows = []
    for name, network in nets.items():
        size = context.engines.receptive_field(network).size[0]
        std = context.engines.moments(network).std[0]
        stride = network.graph.rate[0]
        rows.append({"network": name, "rf": _plain(size), "stride": _plain(stride),
                     "erf_std": std, "ratio": std / size})  # fmt: skip
    return rows


# What is shown


def make_console() -> Console:
    """Colours on a terminal only; without one 100 columns, or what COLUMNS says."""
    if sys.stdout.isatty():
        return Console()
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdigit() and int(columns) > 0 else PIPED
    return Console(width=width, color_system=None, force_terminal=False, legacy_windows=False)


def show(value: Any) -> str:
    """A number with six digits, exact where it is short."""
    if isinstance(value, (tuple, list)):
        return ", ".join(map(show, value))
    if isinstance(value, Fraction):
        text = str(value)
        return text if len(text) <= 11 else show(float(value))
    if isinstance(value, (bool, str)):
        return str(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**9 else _scientific(value)
    return f"{float(value):.6g}"


def _scientific(value: int) -> str:
    """An integer of any size: digits first, because a float would overflow."""
    digits = str(abs(value)) if abs(value) < 10**4000 else None
    if digits is None:
        exponent = int((abs(value).bit_length() - 1) * math.log10(2))
        return f"~{'-' if value < 0 else ''}1e{exponent}"
    return f"{'-' if value < 0 else ''}{digits[0]}.{digits[1:6]}e{len(digits) - 1}"


def show_margin(evidence: Evidence) -> str:
    if evidence.margin is None:
        return "-"
    if evidence.allowed == 0 and evidence.margin == 0:
        return "exact"
    return f"{evidence.margin:.2g}"


def _rows(verdicts: Sequence[Verdict]) -> list[tuple[str, ...]]:
    rows = []
    for v in verdicts:
        e = v.decisive
        cells = ("", "", "") if e is None else (
            f"{e.quantity}: {show(e.measured)}", show(e.expected), show_margin(e)
        )  # fmt: skip
        if v.error is not None:
            cells = (v.error, "", "")
        rows.append((v.law.id, v.law.statement, *cells, ", ".join(v.routes),
                     f"{v.seconds:.1f}", "holds" if v.holds else "FAILS"))  # fmt: skip
    return rows


_COLUMNS = ("law", "statement", "measured", "expected", "margin", "routes", "s", "verdict")


def _print_table(console: Console, verdicts: Sequence[Verdict]) -> None:
    rows = _rows(verdicts)
    if console.width < WIDE:
        for row in rows:
            for name, cell in zip(_COLUMNS, row):
                console.print(Text(f"{name:>9}  {cell}"), soft_wrap=True)
            console.print()
        return
    table = Table(show_lines=True, box=_box(console), pad_edge=False, padding=(0, 1, 0, 0))
    fixed = {"law": 5, "expected": 10, "margin": 7, "s": 4, "verdict": 7}
    for name in _COLUMNS:
        right = name in ("margin", "s")
        width = fixed.get(name)
        table.add_column(name, justify="right" if right else "left", min_width=width,
                         no_wrap=name in ("law", "margin", "s", "verdict"),
                         ratio=None, overflow="fold")  # fmt: skip
    for row, verdict in zip(rows, verdicts):
        colour = "green" if verdict.holds else "bold red"
        table.add_row(*(Text(cell) for cell in row[:-1]), Text(row[-1], style=colour))
    console.print(table)


def _box(console: Console):
    from rich import box

    encoding = (getattr(console.file, "encoding", None) or "utf-8").lower()
    return box.SQUARE if encoding.startswith("utf") else box.ASCII


def _line(law: str, e: Evidence) -> str:
    verdict = "shown" if not e.tested else "holds" if e.holds else "FAILS"
    return (
        f"{law}  {e.route} against {e.against}, {e.quantity}: measured {show(e.measured)}, "
        f"expected {show(e.expected)}, margin {show_margin(e)}, {verdict}"
    )


def _print_evidence(console: Console, verdicts: Sequence[Verdict]) -> None:
    for v in verdicts:
        for e in v.evidence:
            console.print(Text(_line(v.law.id, e)), soft_wrap=True)


def _print_failures(console: Console, verdicts: Sequence[Verdict]) -> None:
    for v in verdicts:
        if v.error is not None:
            console.print(Text(f"{v.law.id}  an engine raised {v.error}"), soft_wrap=True)
        for e in v.evidence:
            if not e.holds:
                console.print(Text(_line(v.law.id, e)), soft_wrap=True)


def _print_networks(console: Console, networks: Sequence[dict[str, Any]]) -> None:
    if not networks:
        return
    if console.width < 64:
        for row in networks:
            values = (f"{key} {show(row[key])}" for key in ("rf", "stride", "erf_std", "ratio"))
            console.print(Text(f"{row['network']}: {', '.join(values)}"), soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("network", no_wrap=True)
    for name in ("RF (px)", "stride", "ERF std (px)", "std/RF"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in networks:
        table.add_row(row["network"], show(row["rf"]), show(row["stride"]),
                      f"{row['erf_std']:.3f}", f"{row['ratio']:.5f}")  # fmt: skip
    console.print(table)


# What is stored


def _plain(value: Any) -> Any:
    """A value that JSON holds: exact integers up to 2^53, floats, text, lists, None."""
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int) and abs(value) <= 2**53:
        return value
    try:
        number = float(value)
    except OverflowError:
        return str(value) if abs(value) < 10**4000 else show(value)
    except (TypeError, ValueError):
        return str(value)
    if not math.isfinite(number):
        return str(number)
    return int(number) if isinstance(value, Fraction) and value.denominator == 1 else number


def as_data(verdict: Verdict) -> dict[str, Any]:
    """The record of one law."""
    evidence = [
        {"route": e.route, "against": e.against, "quantity": e.quantity,
         "measured": _plain(e.measured), "expected": _plain(e.expected),
         "margin": _plain(e.margin), "holds": e.holds, "tested": e.tested}
        for e in verdict.evidence
    ]  # fmt: skip
    law = verdict.law
    record = {"id": law.id, "statement": law.statement, "source": law.source,
              "holds": verdict.holds, "evidence": evidence, "seconds": round(verdict.seconds, 4),
              "notes": list(verdict.notes)}  # fmt: skip
    return record if verdict.error is None else record | {"error": verdict.error}


def environment() -> dict[str, Any]:
    """Versions and machine, as far as they can change a number."""
    versions = {}
    for name in ("erftheory", *PACKAGES):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    from erftheory import __version__

    versions["erftheory"] = __version__
    return {
        "python": platform.python_version(),
        "packages": versions,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
    }


# The command


@click.command(name="verify")
@click.option("--depth", type=int, default=64, show_default=True, help="Layers of the net.")
@click.option("--kernel", type=int, default=3, show_default=True, help="Taps an axis, >= 2.")
@click.option("--samples", type=int, default=4000, show_default=True,
              help="Random nets, >= 64; a test draws one to four times as many.")  # fmt: skip
@click.option("--laws", default=None, help="Ids and patterns, such as SIG-1,CLT-*; default all.")
@click.option("--seed", type=int, default=2016, show_default=True, help="Seed of random nets.")
@click.option("--json", default=None, metavar="PATH", help="Write the evidence as JSON.")
@click.option("--quiet", is_flag=True, help="Print failures, notes and the last line only.")
@click.option("--evidence", is_flag=True, help="Print every comparison, one a line.")
@click.option("--cache/--no-cache", default=True, show_default=True,
              help="Keep compiled programs in the user's cache folder.")  # fmt: skip
def command(cache: bool, **options: Any) -> int:
    """Put the laws of receptive fields on trial.

    Exit code 0: every law holds; 1: a law fails; 2: bad usage. The margin is the allowed deviation
    minus the measured one; of each law the comparison with the least is shown.
    """
    arguments = Arguments(**options)
    try:
        laws, _ = prepare(arguments)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if cache:
        keep_programs()
    several = len(laws) >= HEAVY and (os.cpu_count() or 1) > 1
    return verify(arguments, processes=2 if several else 1)[0]


def keep_programs() -> None:
    """Compiled programs go to the user's cache folder, from where a later run takes them.

    Set in the environment, for the second process too, and only where nothing is set there and JAX
    is not in use yet.
    """
    import platformdirs

    if "jax" in sys.modules:
        return

    for name, value in (
        ("JAX_COMPILATION_CACHE_DIR", platformdirs.user_cache_dir("erftheory")),
        ("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0"),
        ("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1"),
    ):
        os.environ.setdefault(name, value)


def run(entry: click.Command, name: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command; bad usage is one line on stderr and exit code 2."""
    try:
        code = entry.main(args=arguments, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Abort:
        return 130
    except click.ClickException as error:
        click.echo(f"{name}: {' '.join(error.format_message().split())}", err=True)
        return 2
    except BrokenPipeError:
        # the reader left (`| head`): what it wanted was printed; keep Python quiet at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        click.echo(f"{name}: {error}", err=True)
        return 2


def main(arguments: Sequence[str] | None = None) -> int:
    return run(command, "erftheory verify", arguments)


if __name__ == "__main__":
    sys.exit(main())
