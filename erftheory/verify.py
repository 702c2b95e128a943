"""The command line of the laws: `python -m erftheory.verify --depth 64`."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.text import Text

from erftheory.command import run
from erftheory.files import check_writable, plain, whole
from erftheory.laws import Context, Engines, Verdict, registry, select
from erftheory.laws.machine.base import Law
from erftheory.laws.machine.running import Second, in_threads, in_two_processes
from erftheory.laws.output.lines import (
    Lines,
    make_console,
    print_evidence,
    print_failures,
    print_networks,
)
from erftheory.laws.output.record import as_data, environment
from erftheory.network.base import Chain
from erftheory.network.layers import Conv

SHOWN = ("resnet18", "resnet34", "resnet50", "resnet152", "vgg16", "densenet121", "unet")
WORKERS = 2  # laws at a time
HEAVY = 4  # laws from which a second process is worth loading


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


def verify(
    arguments: Arguments,
    engines: Engines | None = None,
    console: Console | None = None,
    processes: int = 1,
) -> tuple[int, dict[str, Any]]:
    """Check the laws, print a line as each is decided, and return the exit code and the record
    that JSON holds.

    With two `processes` a second one takes half of the laws; only a program that may be imported
    again (`if __name__ == "__main__"`) can ask for that, and only without engines of its own.

    Raises:
      ValueError: an argument is out of range, said before any work starts.
    """
    laws, target = prepare(arguments)
    console = console or make_console()
    started = time.perf_counter()
    asked = {name: getattr(arguments, name) for name in ("depth", "kernel", "samples", "seed")}
    two = processes > 1 and len(laws) > 1 and engines is None
    other = Second(**asked) if two else None
    context = Context(engines or Engines.load(), **asked)
    omitted = [law for law in registry() if law.optional and law not in laws]
    verdicts = _run(laws, context, console, arguments.quiet, other)
    complete = len(verdicts) == len(laws)
    networks = []
    if complete and not (arguments.quiet and target is None):
        networks = real_networks(context)
    seconds = time.perf_counter() - started
    record = {
        "arguments": {k: getattr(arguments, k) for k in Arguments.__dataclass_fields__},
        "environment": environment(),
        "laws": [as_data(v) for v in verdicts],
        "networks": networks,
        "notes": context.notes,
        "not run": [law.id for law in omitted],
        "seconds": round(seconds, 3),
    }
    if not arguments.quiet:
        if arguments.evidence:
            print_evidence(console, verdicts)
        print_networks(console, networks)
        if arguments.laws is None and omitted:
            ids = ",".join(law.id for law in omitted)
            console.print(f"not run, they train networks: --laws {ids}")
    for note in context.notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)
    print_failures(console, verdicts)
    failed = [v.law.id for v in verdicts if not v.holds]
    held = f"{len(verdicts) - len(failed)} of {len(verdicts)} laws hold"
    tail = f"; failed: {', '.join(failed)}" if failed else ""
    if not complete:
        held, tail = f"interrupted: {held}", f"{tail}; {len(laws) - len(verdicts)} undecided"
    console.print(Text(f"{held} in {seconds:.1f} s{tail}"), soft_wrap=True)
    if target is not None:
        with whole(target) as place:
            place.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    return (130 if not complete else 1 if failed else 0), record


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
    return laws, None if arguments.json is None else check_writable(arguments.json, "json")


def _run(
    laws: Sequence[Law], context: Context, console: Console, quiet: bool, other: Second | None
) -> list[Verdict]:
    """The verdicts in the order of the laws, fewer if interrupted; their notes join the context's
    in order."""
    columns = SpinnerColumn(), TextColumn("{task.description}")
    silent = quiet or not console.is_terminal
    lines, lock = Lines(console, len(laws)), threading.Lock()
    with Progress(*columns, console=console, transient=True, disable=silent) as progress:
        task = progress.add_task("", total=len(laws))
        running: list[str] = []
        if not quiet:
            lines.head()

        def report(law: Law, verdict: Verdict | None) -> None:
            with lock:
                if verdict is None:
                    running.append(law.id)
                else:
                    running.remove(law.id)
                    lines.tell(verdict, quiet)
                told = f"{lines.done} of {lines.total}  {', '.join(running)}  {lines.left}"
                progress.update(task, description=told)

        if other is not None:
            found = in_two_processes(laws, context, report, other)
            verdicts = [verdict for verdict in found if verdict is not None]
        else:
            verdicts = in_threads(laws, context, report, WORKERS)
    for verdict in verdicts:
        for note in verdict.notes:
            context.note(note)
    return verdicts


def real_networks(context: Context) -> list[dict[str, Any]]:
    """Receptive and effective field of the net asked for and of published networks (first axis)."""
    asked = f"{context.depth} layers of {context.kernel}x{context.kernel}"
    nets = {asked: Chain(Conv(context.kernel), ndim=2) * context.depth}
    for name in SHOWN:
        build = getattr(context.engines.zoo, name, None)
        if build is not None:
            nets[name] = build()
    rows = []
    for name, network in nets.items():
        size = context.engines.receptive_field(network).size[0]
        std = context.engines.moments(network).std[0]
        stride = network.graph.rate[0]
        rows.append({"network": name, "rf": plain(size), "stride": plain(stride),
                     "erf_std": std, "ratio": std / size})  # fmt: skip
    return rows


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

    A line a law, as it is decided; "near" is how much of the allowed deviation the nearest of its
    comparisons has used. Exit code 0: every law holds; 1: a law fails; 2: bad usage; 130:
    interrupted.
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


def main(arguments: Sequence[str] | None = None) -> int:
    return run(command, "erftheory verify", arguments)


if __name__ == "__main__":
    sys.exit(main())
