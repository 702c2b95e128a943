"""When nothing fits: which bound to relax, and by how much.

Bounds are taken away one at a time, else two at a time and so on, and the chains that keep the
others are searched for the one that misses the bounds taken away by least, relative to each.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

from erftheory.designing.chains import Table
from erftheory.designing.costs import unit_of
from erftheory.designing.queries import Bounds, Query


def refuse(query: Query) -> ValueError:
    """The error that says what to relax: one line, every bound that is enough alone."""
    names = query.active()
    for count in range(1, len(names) + 1):
        found = [m for group in combinations(names, count) if (m := _missed(query, group))]
        if found:
            least = min(found, key=lambda m: m[0])
            rest = [text for _, text in sorted(found, key=lambda m: m[0])[1:]]
            also = f", or {' or '.join(rest)}" if rest and count == 1 else ""
            return ValueError(f"{least[1]}{also} (no allowed network keeps all bounds)")
    return ValueError(
        "allowed: got a space without any network of this depth; takes skip=('none', 'residual') "
        "or channels that stay the same"
    )


def _missed(query: Query, names: tuple[str, ...]) -> tuple[float, str] | None:
    """The least that is missed without some bounds, and its line; None if nothing fits even so."""
    table = Table(_wide(query, names), fills="gridding" not in names).fill()
    asked = Table(query)
    best: tuple[float, dict[str, Any]] | None = None
    for final in table.finals():
        gaps = dict(asked.gaps(final.totals, final.place, final.cost))
        if any(gap for name, gap in gaps.items() if name not in names):
            continue
        total = sum(float(abs(gaps[n])) / _size(query, n) for n in names)
        if best is None or total < best[0]:
            best = total, {n: _value(n, final, gaps) for n in names}
    if best is None:
        return None
    return best[0], " and ".join(_line(query, n, *best[1][n]) for n in names)


def _wide(query: Query, names: tuple[str, ...]) -> Query:
    """The query whose table has no bound among `names`, but still their totals."""
    open_: dict[str, Any] = {n: Bounds(0) for n in names if n not in ("budget", "gridding")}
    wide = query.without([n for n in names if n == "budget"])
    return replace(wide, **open_, kind="", value=0.0)


def _size(query: Query, name: str) -> float:
    if name == "gridding":
        return 1.0
    if name == "budget":
        return max(1e-300, float(query.budget or 1))
    bound = getattr(query, name)
    return float(max(1, bound.low or 0, bound.high or 0))


def _value(name: str, final: Any, gaps: dict[str, Any]) -> tuple[Any, Any]:
    t = final.totals
    values = {
        "field": t.extent + 1,
        "lookback": t.before,
        "latency": t.extent - t.before,
        "stride": final.place.jump,
        "budget": final.cost,
        "gridding": True,
    }
    return values[name], gaps[name]


def _line(query: Query, name: str, value: Any, gap: Any) -> str:
    if name == "gridding":
        return "gridding: got False; takes True, every field that fits has holes"
    if name == "budget":
        unit = unit_of(query.cost)
        show = (lambda v: f"{float(v):.6g}") if unit == "s" else (lambda v: f"{float(v):,.10g}")
        return f"budget: got {show(query.budget)} {unit}; takes {show(value)}, {show(gap)} more"
    unit = "" if name == "stride" else " pixels"
    way = f"its least {-gap} lower" if gap < 0 else f"its most {gap} higher"
    return f"{name}: got {getattr(query, name)}{unit}; takes {value}, {way}"
