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
from itertools import groupby
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


class Second:
    """A second process that runs laws by id; it loads the package while the first one does."""

    def __init__(self, **asked: Any):
        self._ours, theirs = (process := get_context("spawn")).Pipe()
        self._child = process.Process(target=_serve, args=(theirs, asked), daemon=True)
        self._child.start()
        theirs.close()

    def run(self, law: Law) -> Verdict | None:
        """None if the process is gone."""
        try:
            self._ours.send(law.id)
            return Verdict(law, *self._ours.recv())
        except (EOFError, OSError):
            return None

    def stop(self) -> None:
        self._child.terminate()
        self._ours.close()


def second(context: Context) -> Second:
    """A second process for laws in the same context."""
    asked = ("depth", "kernel", "samples", "seed")
    return Second(**{name: getattr(context, name) for name in asked})


def in_two_processes(
    laws: Sequence[Law], context: Context, report: Report, other: Second | None = None
) -> list[Verdict | None]:
    """The same, with the engines of the package alone: each process takes the next laws.

    Those of one name (GRW-1, GRW-2) stay together, since they look at the same nets. Interrupted
    from the keyboard, it gives what was decided until then, and None for the rest.
    """
    rows = groupby(enumerate(laws), lambda row: row[1].id.split("-")[0])
    waiting = [list(row) for _, row in rows]
    verdicts: list[Any] = [None] * len(laws)
    lock = threading.Lock()
    other = other or second(context)

    def drive(run: Callable[[Law], Verdict]) -> None:
        while True:
            with lock:
                if not waiting:
                    return
                taken = waiting.pop()
            for index, law in taken:
                if stopped.is_set():
                    return
                report(law, None)
                verdicts[index] = run(law)
                report(law, verdicts[index])

    stopped = threading.Event()
    here = lambda law: law.run(replace(context, notes=[]))  # noqa: E731
    away = lambda law: other.run(law) or here(law)  # noqa: E731  nothing is lost if it is gone
    beside = threading.Thread(target=drive, args=(away,), daemon=True)
    try:
        beside.start()
        drive(here)
        beside.join()
    except KeyboardInterrupt:
        stopped.set()
        waiting.clear()
        return list(verdicts)
    finally:
        other.stop()
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
