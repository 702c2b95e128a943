"""What a law is, what evidence is, and the engines that evidence comes from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any

from erftheory.laws.machine.compiling import compiled
from erftheory.network.base import Chain, Network
from erftheory.network.layers import Conv

L16 = "Luo et al., NIPS 2016"

Value = Any  # int, Fraction, float, str or a tuple of these

INTEGER_BITS = 2**27  # exact integers of one signal may take 16 MiB in all


@dataclass(frozen=True)
class Evidence:
    """One comparison of two routes.

    The **margin** is the allowed deviation minus the deviation that was measured, in the unit of
    the quantity: the claim holds where the margin is ≥ 0, and 0 is the best possible where
    nothing but exact equality is allowed. A NaN never holds.

    Attributes:
      route: how `measured` was computed.
      against: how `expected` was computed, by code that `route` does not share.
      quantity: what was measured, with its unit where it has one.
      measured, expected: the two values.
      allowed: the deviation allowed; None for information that is shown and not tested.
      margin: see above; None for information.
      used: how much of what is allowed was used, where that is not the deviation over `allowed`.
    """

    route: str
    against: str
    quantity: str
    measured: Value
    expected: Value
    allowed: float | None
    margin: float | None
    used: float | None = None

    @property
    def tested(self) -> bool:
        return self.margin is not None

    @property
    def holds(self) -> bool:
        return self.margin is None or bool(self.margin >= 0)

    @property
    def slack(self) -> float:
        """Share of the allowed deviation that is left: 1 for exact agreement, < 0 for a failure."""
        if self.margin is None:
            return math.inf
        if math.isnan(self.margin):
            return -math.inf
        if self.used is not None:
            return 1 - self.used
        return self.margin / self.allowed if self.allowed else (1.0 if self.holds else -math.inf)


def equal(
    route: str, against: str, quantity: str, measured: Value, expected: Value, of: Any = None
) -> Evidence:
    """Exact equality. `of`, a pair, is compared in place of the two values that are shown."""
    left, right = (measured, expected) if of is None else of
    deviation = 0.0 if left == right else _distance(measured, expected) or 1.0
    return Evidence(route, against, quantity, measured, expected, 0.0, 0.0 - deviation)


def close(
    route: str, against: str, quantity: str, measured: Value, expected: Value, allowed: float
) -> Evidence:
    """|measured − expected| ≤ allowed."""
    margin = allowed - _distance(measured, expected)
    return Evidence(route, against, quantity, measured, expected, allowed, margin)


def below(route: str, against: str, quantity: str, measured: float, bound: float) -> Evidence:
    """measured ≤ bound: the bound is what is allowed, `measured` the deviation from 0."""
    return Evidence(route, against, quantity, measured, f"<= {bound:.4g}", bound, bound - measured)


def above(route: str, against: str, quantity: str, measured: float, bound: float) -> Evidence:
    """measured ≥ bound, for a share between 0 and 1 such as a p value: 1 − bound is allowed.

    log measured / log bound is used of it: a p value of 0.01 is nothing at a level of 1e-6.
    """
    used = math.log(measured) / math.log(bound) if 0 < measured <= 1 and 0 < bound < 1 else None
    return Evidence(
        route, against, quantity, measured, f">= {bound:.4g}", 1 - bound, measured - bound, used
    )


def information(
    route: str, against: str, quantity: str, measured: Value, expected: Value
) -> Evidence:
    """Shown beside the evidence, not tested."""
    return Evidence(route, against, quantity, measured, expected, None, None)


def _distance(a: Any, b: Any) -> float:
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return max((_distance(x, y) for x, y in zip(a, b)), default=0.0)
    try:
        return float(abs(a - b))
    except (TypeError, OverflowError):
        return 1.0


@dataclass(frozen=True)
class Engines:
    """The routes, by name: laws reach every engine through here, so that one can be replaced.

    `Engines.load()` gives the real ones. `symbolic` and `zoo` are modules (or have the same
    functions); all others are functions.
    """

    receptive_field: Callable[..., Any]
    moments: Callable[..., Any]
    counting: Callable[..., Any]
    exact: Callable[..., Any]
    symbolic: Any
    zoo: Any
    gradient_of_ones: Callable[..., Any]
    enumerated: Callable[..., Any]
    sample: Callable[..., Any]
    gradients: Callable[..., Any]
    probe_receptive_field: Callable[..., Any]
    study: Callable[..., Any]
    initial: Callable[..., Any]

    @classmethod
    def load(cls) -> Engines:
        from erftheory import counting, empirical, exact, moments, receptive_field, symbolic, zoo
        from erftheory.empirical.sampled.sampling import gradients

        return cls(
            receptive_field=receptive_field,
            moments=moments,
            counting=counting,
            exact=exact,
            symbolic=symbolic,
            zoo=zoo,
            gradient_of_ones=empirical.gradient_of_ones,
            enumerated=empirical.enumerated,
            sample=empirical.sample,
            gradients=gradients,
            probe_receptive_field=empirical.probe_receptive_field,
            study=_study,
            initial=_initial,
        )


def _study(*args: Any, **options: Any) -> Any:
    """Training is loaded when it is asked for."""
    from erftheory.training.studies.study import study

    return study(*args, **options)


def _initial(*args: Any, **options: Any) -> Any:
    from erftheory.training.studies.initial import initial

    return initial(*args, **options)


@dataclass(frozen=True)
class Context:
    """What the laws are checked on.

    Attributes:
      engines: the routes.
      depth, kernel: the net that the depth-dependent laws look at.
      samples: random nets that a sampled law draws.
      seed: seed of all random numbers.
      notes: what a law did smaller than asked; the command line shows it.
    """

    engines: Engines
    depth: int = 64
    kernel: int = 3
    samples: int = 4000
    seed: int = 2016
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def reduced(self, what: str, limit: int, depth: int | None = None) -> int:
        """`depth` (the context's own if None), at most `limit`; a reduction leaves a note."""
        depth = self.depth if depth is None else depth
        if depth <= limit:
            return depth
        self.note(f"{what} at depth {limit} in place of {depth}")
        return limit

    def integer_depth(self, what: str) -> int:
        """The largest depth ≤ `depth` whose exact path counts fit `INTEGER_BITS`."""
        bits = (self.kernel - 1) * math.log2(self.kernel)  # times depth², pixels times digits
        return self.reduced(what, max(1, math.isqrt(int(INTEGER_BITS / bits))))


@dataclass(frozen=True)
class Verdict:
    """What checking a law gave. `error` is the one line of an engine that raised; `programs` and
    `compiling` count what XLA made meanwhile (of all threads) and the seconds that it took."""

    law: Law
    evidence: tuple[Evidence, ...]
    seconds: float
    notes: tuple[str, ...] = ()
    error: str | None = None
    programs: int = 0
    compiling: float = 0.0

    @property
    def holds(self) -> bool:
        """True if every comparison holds and there was at least one."""
        tested = [e for e in self.evidence if e.tested]
        return self.error is None and bool(tested) and all(e.holds for e in tested)

    @property
    def decisive(self) -> Evidence | None:
        """The tested comparison with the least slack."""
        tested = [e for e in self.evidence if e.tested]
        return min(tested, key=lambda e: e.slack) if tested else None

    @property
    def routes(self) -> tuple[str, ...]:
        """All routes that were compared, in order of appearance."""
        names = (name for e in self.evidence if e.tested for name in (e.route, e.against))
        return tuple(dict.fromkeys(names))


@dataclass(frozen=True)
class Law:
    """One claim: `check` gathers its evidence from the engines of a context.

    Attributes:
      claim: in a few plain words, for the table.
      statement: what exactly is claimed.
      source: who claimed or proved it.
      optional: whether it runs only when it is asked for.
    """

    id: str
    claim: str
    statement: str
    source: str
    check: Callable[[Context], list[Evidence]] = field(repr=False)
    optional: bool = False

    def run(self, context: Context) -> Verdict:
        """Check the law; an engine that raises is a failure of the law, told in one line."""
        made = compiled()
        started = time.perf_counter()
        before = len(context.notes)
        evidence: list[Evidence] = []
        error = None
        try:
            evidence = self.check(context)
        except Exception as raised:  # noqa: BLE001  whatever a broken engine raises
            error = f"{type(raised).__name__}: {' '.join(str(raised).split())}"
        seconds = time.perf_counter() - started
        notes = tuple(context.notes[before:])
        made = [now - then for now, then in zip(compiled(), made)]
        return Verdict(self, tuple(evidence), seconds, notes, error, int(made[0]), made[1])


_LAWS: dict[str, Law] = {}


def law(
    id: str, claim: str, statement: str, source: str, optional: bool = False
) -> Callable[[Callable], Law]:
    """Register the function below as the check of a law."""

    def register(check: Callable[[Context], list[Evidence]]) -> Law:
        if id in _LAWS:
            raise ValueError(f"id: got {id!r} twice; takes a new one for each law")
        _LAWS[id] = Law(id, claim, statement, source, check, optional)
        return _LAWS[id]

    return register


def registry() -> tuple[Law, ...]:
    """All laws, in the order in which they were written down."""
    return tuple(_LAWS.values())


def select(patterns: str | None) -> tuple[Law, ...]:
    """The laws that a comma-separated list of ids and patterns ("SIG-1,CLT-*") names.

    None takes all that are not optional.

    Raises:
      ValueError: an entry matches no law; the message lists the ids there are.
    """
    if patterns is None:
        return tuple(entry for entry in registry() if not entry.optional)
    known = ", ".join(_LAWS)
    wanted: set[str] = set()
    for pattern in (p.strip().upper() for p in patterns.split(",")):
        matched = [id for id in _LAWS if pattern and fnmatchcase(id, pattern)]
        if not matched:
            raise ValueError(f"laws: got {pattern!r}, which matches none; takes ids of: {known}")
        wanted.update(matched)
    return tuple(entry for entry in registry() if entry.id in wanted)


def stack(depth: int, kernel: int, taps: Sequence[int] | None = None, ndim: int = 1) -> Network:
    """`depth` equal convolutions."""
    return Chain(Conv(kernel, taps=taps), ndim=ndim) * depth


def shares(counts: Sequence[int | Fraction]) -> list[float]:
    """Exact weights over their sum, as floats correctly rounded whatever their size."""
    total = sum(counts)
    return [float(Fraction(c) / total) for c in counts]


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Least-squares slope of log y against log x."""
    u, v = [math.log(a) for a in x], [math.log(b) for b in y]
    mu, mv = sum(u) / len(u), sum(v) / len(v)
    return sum((a - mu) * (b - mv) for a, b in zip(u, v)) / sum((a - mu) ** 2 for a in u)
