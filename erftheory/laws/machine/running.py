"""Many laws at once: in threads, or in this process and a second one.

Most of a run is compiling and Python. Threads share one interpreter lock, processes do not, but a
second process must load everything again and cannot see engines that a caller replaced.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

from erftheory.laws.machine.base import Context, Engines, Law, Verdict

Report = Callable[[Law, Verdict | None], None]  # a law begins (None), or is decided


def in_threads(
    laws: Sequence[Law], context: Context, report: Report, workers: int
) -> list[Verdict]:
    """The verdicts in the order of the laws.

    Late laws draw random nets and take longest, so they start first. Every law writes notes of its
    own.
    """

    def run(law: Law) -> Verdict:
        report(law, None)
        verdict = law.run(replace(context, notes=[]))
        report(law, verdict)
        return verdict

    with ThreadPoolExecutor(min(workers, os.cpu_count() or 1)) as pool:
        return list(pool.map(run, reversed(laws)))[::-1]


def in_two_processes(
    laws: Sequence[Law], context: Context, report: Report
) -> list[Verdict | None]:
    """The same, with the engines of the package alone: each process takes the next law.

    Interrupted from the keyboard, it gives what was decided until then, and None for the rest.
    """
    waiting = list(enumerate(laws))
    verdicts: list[Any] = [None] * len(laws)
    lock = threading.Lock()

    def drive(run: Callable[[Law], Verdict]) -> None:
        while True:
            with lock:
                if not waiting:
                    return
                index, law = waiting.pop()
            report(law, None)
            verdicts[index] = run(law)
            report(law, verdicts[index])

    here = lambda law: law.run(replace(context, notes=[]))  # noqa: E731
    ours, theirs = (process := get_context("spawn")).Pipe()
    asked: dict[str, Any] = {k: getattr(context, k) for k in ("depth", "kernel", "samples", "seed")}
    child = process.Process(target=_serve, args=(theirs, asked), daemon=True)
    child.start()
    theirs.close()

    def away(law: Law) -> Verdict:
        try:
            ours.send(law.id)
            return Verdict(law, *ours.recv())
        except (EOFError, OSError):  # it is gone; nothing is lost
            return here(law)

    beside = threading.Thread(target=drive, args=(away,), daemon=True)
    try:
        beside.start()
        drive(here)
        beside.join()
    except KeyboardInterrupt:
        waiting.clear()
        return list(verdicts)
    finally:
        child.terminate()
        ours.close()
    return verdicts


def _serve(pipe: Any, asked: dict[str, Any]) -> None:
    """Run laws by id until the other side is gone."""
    from erftheory.laws import select

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process decides what becomes of it
    context = Context(Engines.load(), **asked)
    while True:
        try:
            (law,) = select(pipe.recv())
        except EOFError:
            return
        found = law.run(replace(context, notes=[]))
        shown = found.evidence, found.seconds, found.notes, found.error
        pipe.send((*shown, found.programs, found.compiling))
