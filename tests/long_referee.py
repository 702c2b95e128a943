"""All readings of thousands of drawn networks beside the referee of tests/covariance.py.

    python tests/long_referee.py --networks 2000 --out referee.jsonl [--first 0] [--compiled 10]

Appends one line of JSON a network to the file and skips the seeds that it already has, so a run
may be stopped and started again. At the end it prints how often each reading agreed with the
referee, refused, called itself an approximation, could not be judged, was wrong or broke, and for
the last two the smallest networks, made smaller as long as they still fail. Status 1 if any did.
2,000 networks take about an hour on one core. Every `--compiled`-th network is asked by the
methods too that compile a program for each ("spectrum", "direct"); 0 asks none.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from everything import Case, seeded
from findings import Finding, findings

from erftheory import Branches, Chain, Named, Network, Repeat, Residual

OUTCOMES = ("agrees", "refused", "approximation", "unjudged", "wrong", "broken")
SHOWN, STEPS = 3, 60  # failing networks a reading; attempts at making one smaller


# ---- smaller networks that fail alike ----------------------------------------------------------


def reductions(network: Network) -> Iterator[Network]:
    """The network with one thing less, as far as it can be built."""
    if isinstance(network, Named):
        yield from (part.named(network.name) for part in reductions(network.part))
    elif isinstance(network, Repeat):
        yield network.part
        if network.times > 2:
            yield network.part * (network.times - 1)
        yield from (part * network.times for part in reductions(network.part))
    elif isinstance(network, Residual):
        yield network.branch
        if network.shortcut is not None:
            yield Residual(network.branch)
            yield from (Residual(network.branch, part) for part in reductions(network.shortcut))
        yield from (Residual(part, network.shortcut) for part in reductions(network.branch))
    elif isinstance(network, Branches):
        ends = network.branches
        for i, end in enumerate(ends):
            if len(ends) > 1 and any(e is not None for e in (*ends[:i], *ends[i + 1 :])):
                yield Branches(*ends[:i], *ends[i + 1 :], merge=network.merge)
            for part in () if end is None else reductions(end):
                yield Branches(*ends[:i], part, *ends[i + 1 :], merge=network.merge)
    elif isinstance(network, Chain):
        axes = {"ndim": network.ndim} if network.own_axes() else {}
        for i in range(len(network.parts) if len(network.parts) > 1 else 0):
            yield Chain(*network.parts[:i], *network.parts[i + 1 :], **axes)
        for i, old in enumerate(network.parts):
            for part in reductions(old):
                yield Chain(*network.parts[:i], part, *network.parts[i + 1 :], **axes)


def built(network: Network) -> Iterator[Network]:
    """Reductions up to the first that cannot be built (branches of unequal size)."""
    candidates = reductions(network)
    while True:
        try:
            yield next(candidates)
        except StopIteration:
            return
        except ValueError:
            return


def smallest(case: Case, reading: str, outcome: str) -> tuple[Case, Finding]:
    """A case made smaller step by step while that reading still comes out alike."""

    def failure(case: Case) -> Finding | None:
        found = (f for f in findings(case, "spectrum" in reading or "direct" in reading)
                 if (f.reading, f.outcome) == (reading, outcome))  # fmt: skip
        return next(found, None)

    found = failure(case)
    assert found is not None, "the same seed gave another answer"
    left = STEPS
    smaller = True
    while smaller and left > 0:
        smaller = False
        for network in built(case.network):
            left -= 1
            other = replace(case, network=network)
            less = failure(other)
            if less is not None:
                case, found, smaller = other, less, True
                break
            if left <= 0:
                break
    return case, found


# ---- the run -----------------------------------------------------------------------------------


def read(path: Path) -> dict[int, dict]:
    """Lines by seed; a line cut off by a stop does not count."""
    found = {}
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[row["seed"]] = row
    return found


def run(seeds: range, path: Path, compiled: int) -> dict[int, dict]:
    done = read(path)
    if path.exists() and not path.read_text("utf-8").endswith("\n"):
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")
    with path.open("a", encoding="utf-8") as file:
        for count, seed in enumerate(seeds):
            if seed in done:
                continue
            start, case = time.perf_counter(), seeded(seed)
            found = findings(case, bool(compiled) and seed % compiled == 0)
            row = {
                "seed": seed,
                "case": repr(case),
                "seconds": round(time.perf_counter() - start, 3),
                "findings": [[f.reading, f.outcome, f.detail[:1000]] for f in found],
            }
            file.write(json.dumps(row) + "\n")
            file.flush()
            done[seed] = row
            print(f"\r{count + 1} of {len(seeds)} networks", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {seed: done[seed] for seed in seeds}


def table(rows: dict[int, dict]) -> str:
    counts: dict[str, Counter] = defaultdict(Counter)
    for row in rows.values():
        for reading, outcome, _ in row["findings"]:
            counts[reading][outcome] += 1
    lines = [f"{'reading':20}" + "".join(f"{o:>15}" for o in OUTCOMES)]
    for reading, counted in sorted(counts.items()):
        lines.append(f"{reading:20}" + "".join(f"{counted[o]:>15}" for o in OUTCOMES))
    seconds = sum(row["seconds"] for row in rows.values())
    return "\n".join([*lines, f"{len(rows)} networks, {seconds:.0f} s"])


def failures(rows: dict[int, dict]) -> dict[tuple[str, str], list[int]]:
    """Seeds by reading and outcome, the shortest description first."""
    found = defaultdict(list)
    for seed, row in rows.items():
        for reading, outcome, _ in row["findings"]:
            if outcome in ("wrong", "broken"):
                found[reading, outcome].append(seed)
    return {k: sorted(v, key=lambda s: len(rows[s]["case"])) for k, v in sorted(found.items())}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", type=int, default=2000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--compiled", type=int, default=10)
    asked = parser.parse_args()
    rows = run(range(asked.first, asked.first + asked.networks), asked.out, asked.compiled)
    print(table(rows))
    failed = failures(rows)
    for (reading, outcome), seeds in failed.items():
        print(f"\n{reading} {outcome} {len(seeds)} times")
        for seed in seeds[:SHOWN]:
            case, found = smallest(seeded(seed), reading, outcome)
            print(f"  seed {seed}: {case!r}\n    {found.detail[:400]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
