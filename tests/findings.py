"""Every reading of a drawn network beside the referee of tests/covariance.py.

`findings(case)` asks the package one reading after the other. What comes of each is a `Finding`:

- "agrees" within the bound that the map states (and what float64 makes of the referee);
- "refused": a ValueError of one line;
- "approximation": the map says so itself;
- "unjudged": the referee has doubts, which it names;
- "wrong": another answer without saying so;
- "broken": an exception that is no ValueError of one line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from covariance import Judgement, judge
from covariance_nodes import Unequal
from everything import Case

from erftheory import advise, cumulants, exact, moments, tiling
from erftheory.network.layers import Layer

OWN = 1e-11  # relative error granted to the referee's float64
DUST = 1e-14  # of the map's sum: cancellations in the referee
PLAIN = ("auto", "tilted", "convolution")
COMPILED = ("spectrum", "direct")
WIDE, RIM = 150, 6  # entries of a tile that is asked about; units at each of its ends


@dataclass(frozen=True)
class Finding:
    reading: str
    outcome: str
    detail: str = ""


@dataclass(frozen=True)
class Bench:
    """A case with the judgements that its readings share."""

    case: Case

    @cache  # noqa: B019  a bench lives as long as its case
    def judged(
        self,
        upto: str | None = None,
        image: tuple[int, ...] | None = None,
        unit: tuple[int, ...] | None = None,
        source: str | None = None,
    ) -> Judgement:
        network = self.case.network if upto is None else self.case.network.until(upto)
        return judge(network, image, unit, self.case.init, source=source)

    @cache  # noqa: B019
    def stated(self, upto: str | None = None) -> tuple[str, str] | None:
        """Why numbers of the network (or of a part) are not to be compared, if so."""
        judged = self.judged(upto)
        if judged.doubts:
            return "unjudged", "; ".join(judged.doubts)
        network = self.case.network if upto is None else self.case.network.until(upto)
        if exact(network, init=self.case.init).error.kind == "approximation":
            return "approximation", ""
        return None


def _detail(ours: Any, wanted: Any) -> str:
    return f"{np.array(ours).tolist()} for {np.array(wanted).tolist()}"


def compared(erf: Any, judged: Judgement) -> tuple[str, str]:
    """Outcome of a map of sum 1 on its window."""
    if judged.doubts:
        return "unjudged", "; ".join(judged.doubts)
    wanted = judged.over(erf.offset, erf.map.shape)
    wanted = wanted / wanted.sum()
    if erf.error.kind == "approximation":
        return "approximation", f"{abs(erf.map - wanted).sum():.2g}"
    off = abs(erf.map - wanted)
    if erf.error.kind == "rounding":
        right = off.sum() <= erf.error.value + OWN
    else:
        right = (off <= (erf.error.value + OWN) * wanted + DUST).all()
    return ("agrees", "") if right else ("wrong", _detail(erf.map, wanted))


def close(ours: Any, wanted: Any, tolerance: float = 1e-8) -> tuple[str, str]:
    """Outcome of plain numbers; None agrees with nan."""
    ours = np.array([math.nan if v is None else float(v) for v in ours])
    wanted = np.array(wanted, dtype=float)
    right = np.allclose(ours, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)
    return ("agrees", "") if right else ("wrong", _detail(ours, wanted))


# ---- what the referee makes of readings that are no maps ---------------------------------------


def raw_cumulants(judged: Judgement, axis: int) -> list[float]:
    """κ₁ to κ₄ of a marginal."""
    line = judged.map.sum(axis=tuple(a for a in range(judged.map.ndim) if a != axis))
    t = np.arange(len(line)) + judged.offset[axis]
    mean = line @ t
    second, third, fourth = (line @ (t - mean) ** r for r in (2, 3, 4))
    return [mean, second, third, fourth - 3 * second**2]


def deviations(judged: Judgement) -> list[float]:
    return [math.sqrt(raw_cumulants(judged, a)[1]) for a in range(judged.map.ndim)]


# ---- the readings ------------------------------------------------------------------------------

Outcome = tuple[str, str]


def planes(bench: Bench, compiled: bool) -> Iterator[tuple[str, Callable[[], Outcome]]]:
    case = bench.case
    for method in PLAIN + COMPILED * compiled:

        def whole(method=method) -> Outcome:
            erf = exact(case.network, init=case.init, unit=case.unit, method=method)
            judged = bench.judged(unit=case.unit)
            if judged.over(erf.offset, erf.map.shape).sum() < 1 - OWN:
                return "wrong", "a map that does not hold the whole signal"
            return compared(erf, judged)

        yield f"exact, {method}", whole

    def window() -> Outcome:
        judged = bench.judged(unit=case.unit)
        first, length = case.window
        starts = [o + first % n for o, n in zip(judged.offset, judged.power.shape)]
        asked = [range(start, start + length) for start in starts]
        erf = exact(case.network, init=case.init, unit=case.unit, window=tuple(asked))
        outcome = compared(erf, judged)
        if outcome[0] != "agrees":
            return outcome
        inside = judged.over(erf.offset, erf.map.shape).sum()
        found, said = close([erf.metadata.get("inside", 1)], [inside])
        return found, said and "inside: " + said

    if compiled or case.network.ndim == 1:
        yield "exact, window", window


def images(bench: Bench) -> Iterator[tuple[str, Callable[[], Outcome]]]:
    case = bench.case

    def image() -> Outcome:
        middle = bench.judged(image=case.image)
        if middle.doubts:  # of many paths, a map on an image may take long
            return "unjudged", "; ".join(middle.doubts)
        sides = [b for _, b in middle.outside]
        at = tuple((case.place + 2 * a) % n for a, n in enumerate(sides))
        erf = exact(case.network, init=case.init, image=case.image, unit=at)
        judged = bench.judged(image=case.image, unit=at)
        outcome = compared(erf, judged)
        if outcome[0] != "agrees" or erf.metadata["lost"] is None:
            return outcome
        wanted = 1 - judged.mass / bench.judged(unit=at).mass
        found, said = close([erf.metadata["lost"]], [wanted])
        return found, said and "lost: " + said

    yield "exact, image", image


def numbers(bench: Bench) -> Iterator[tuple[str, Callable[[], Outcome]]]:
    network, init = bench.case.network, bench.case.init

    def of_moments() -> Outcome:
        found = moments(network, init=init)
        judged = bench.judged()
        rows = [raw_cumulants(judged, a) for a in range(network.ndim)]
        wanted = [
            [k[0] for k in rows],
            [k[1] for k in rows],
            [k[3] / k[1] ** 2 if k[1] > DUST else math.nan for k in rows],
        ]
        ours = [*found.mean, *found.variance, *found.excess_kurtosis]
        return bench.stated() or close(ours, np.ravel(wanted))

    def of_cumulants() -> Outcome:
        found = cumulants(network, init=init, order=4)
        judged = bench.judged()
        wanted = [raw_cumulants(judged, a) for a in range(network.ndim)]
        return bench.stated() or close(np.ravel(np.array(found.values, float)), np.ravel(wanted))

    yield "moments", of_moments
    yield "cumulants", of_cumulants


def rows(bench: Bench) -> Iterator[tuple[str, Callable[[], Outcome]]]:
    """Widths of the parts in tables."""
    network, init = bench.case.network, bench.case.init
    names = [part.name for part in network.parts]

    def of_summary() -> Outcome:
        table = {row.name: row for row in network.summary(init=init).rows}  # a part's last row
        worst = ("unjudged", "no rows")
        for name in names:
            if name not in table or "repeated" in table[name].layer:
                continue
            found = bench.stated(name)
            found = found or close(table[name].std, deviations(bench.judged(name)))
            if found[0] == "wrong":
                return "wrong", f"{name}: {found[1]}"
            worst = found if worst[0] in ("unjudged", "agrees") else worst
        return worst

    def of_advice() -> Outcome:
        entries = advise(network, bench.case.image, init=init).layers
        ball = math.pi ** (network.ndim / 2) / math.gamma(network.ndim / 2 + 1)
        side = ball ** (1 / network.ndim) * math.sqrt(-2 * math.log(1 - 0.9545))
        worst = ("unjudged", "no layers")
        for i, part in enumerate(network.parts):
            own = [e for e in entries if e.name == part.name]
            if not isinstance(part.part, Layer) or len(own) != 1:
                continue
            before = names[i - 1] if i else None
            found = None if i == 0 else bench.stated(before)
            std = [0] * network.ndim if i == 0 else deviations(bench.judged(before))
            found = found or close(own[0].erf, [side * s for s in std], 1e-6)
            if found[0] == "wrong":
                return "wrong", f"{part.name}: {found[1]}"
            worst = found if worst[0] in ("unjudged", "agrees") else worst
        return worst

    yield "summary", of_summary
    yield "advise", of_advice


def ends(bench: Bench) -> Iterator[tuple[str, Callable[[], Outcome]]]:
    """Parts of the network: up to a layer, and from one."""
    case = bench.case
    names = [part.name for part in case.network.parts]
    name = names[case.place % len(names)]

    def upto() -> Outcome:
        erf = exact(case.network, init=case.init, unit=case.unit, output=name)
        return compared(erf, bench.judged(name, unit=case.unit))

    def since() -> Outcome:
        erf = exact(case.network, init=case.init, unit=case.unit, source=name)
        return compared(erf, bench.judged(unit=case.unit, source=name))

    if len(names) > 1:
        yield "exact, output", upto
        if name != names[-1]:
            yield "exact, source", since


def tiles(bench: Bench) -> Iterator[tuple[str, Callable[[], Outcome]]]:
    case = bench.case

    def loss() -> Outcome:
        doubts = bench.stated()  # before maps of many units
        if doubts:
            return doubts
        found = tiling(case.network, 24, 0.9, init=case.init)
        if bench.judged(image=(24,)).entries > WIDE:
            return "unjudged", "too wide for many units"
        first, last = found.effective.valid[0]
        lost = []
        for u in sorted({*range(first, last)[:RIM], *range(first, last)[-RIM:]}):
            here, whole = bench.judged(image=(24,), unit=(u,)), bench.judged(unit=(u,))
            kept = here.over(whole.offset, whole.power.shape) * here.mass
            beyond = here.mass - kept.sum()  # an image may not add pixels, a rim may add power
            lost.append((abs(whole.power - kept).sum() + beyond) / whole.mass)
        return close([found.effective.lost], [max(lost)], 1e-7)

    if case.network.ndim == 1:
        yield "tiling", loss


def asked(
    reading: tuple[str, Callable[[], Outcome]],
) -> Finding:
    name, ask = reading
    try:
        return Finding(name, *ask())
    except Unequal as wrong:  # the referee cannot run this network there
        return Finding(name, "unjudged", str(wrong))
    except ValueError as refused:
        one_line = "\n" not in str(refused) and ":" in str(refused)
        return Finding(name, "refused" if one_line else "broken", str(refused))
    except Exception as error:  # noqa: BLE001  a finding, with its kind
        return Finding(name, "broken", f"{type(error).__name__}: {error}")


def findings(case: Case, compiled: bool = False) -> list[Finding]:
    """All readings of a case; `compiled` asks those too that compile a program for each network."""
    bench = Bench(case)
    listed = [*planes(bench, compiled), *images(bench), *numbers(bench), *rows(bench),
              *ends(bench), *tiles(bench)]  # fmt: skip
    return [asked(reading) for reading in listed]
