"""From raw edges to vertices: every signal scaled to mass 1, unforked runs as single edges."""

from __future__ import annotations

from fractions import Fraction

from erftheory.theory.walk.walk import Edge, Port, RawEdge, merge_factors
from erftheory.theory.walk.weights import Weight


def normalised(
    raw: dict[Port, list[RawEdge]],
    order: list[Port],
    outputs: list[tuple[Port, Weight]],
    inputs: list[tuple[Port, Weight]],
    counted: bool,
) -> list[list[Edge]]:
    """Scale every signal to mass 1; ports whose mixtures agree share one vertex.

    With M the mass of each port, g/M obeys the same recursion with weights gain·M(reader)/M, so
    the scales of a deep net never overflow and the weights at a fork are probabilities.
    """
    vertices: list[list[Edge]] = [[]]
    known: dict[object, int] = {}
    place: dict[Port, int] = {}
    mass: dict[Port, Weight] = {port: 1 for port, _ in outputs}
    start = set(mass)
    for port in order:
        edges = raw.get(port, [])
        arrivals = [(e.gain * mass[e.reader], place[e.reader], e) for e in edges]
        if port in start:
            arrivals.append((1, 0, RawEdge(port, 1, (), ())))
        if not arrivals:
            continue
        total = sum(a[0] for a in arrivals)
        mass[port] = total
        merged: dict[object, Weight] = {}
        for part, source, e in arrivals:
            key = (source, e.factors, e.shift, e.restrict)
            share = 1 if counted or len(arrivals) == 1 else _ratio(part, total)
            merged[key] = merged.get(key, 0) + share
        place[port] = _vertex(merged, vertices, known)
    parts = [(c, p) for p, c in inputs if p in mass]
    whole = sum(c * mass[p] for c, p in parts)
    if len({place[p] for _, p in parts}) > 1:
        still = (0,) * len(next(e.shift for v in vertices for e in v))
        merged = {}
        for c, p in parts:
            key = (place[p], (), still, None)
            merged[key] = merged.get(key, 0) + _ratio(c * mass[p], whole)
        _vertex(merged, vertices, known)
        return vertices
    last = place[parts[0][1]]
    return vertices[: last + 1]


def _ratio(part: Weight, total: Weight) -> Weight:
    exact = not isinstance(part, float) and not isinstance(total, float)
    return Fraction(part) / total if exact else part / total


def _vertex(merged: dict, vertices: list[list[Edge]], known: dict[object, int]) -> int:
    if len(merged) == 1:
        (source, factors, shift, restrict), weight = next(iter(merged.items()))
        if not factors and not any(shift) and restrict is None and weight == 1:
            return source  # nothing happened: the same vertex
    # mixtures that agree to 12 digits are one: rounding must not split what theory shares
    key = tuple(
        (k, w if isinstance(w, (int, Fraction)) else float(f"{w:.12e}")) for k, w in merged.items()
    )
    if key not in known:
        vertices.append([Edge(k[0], w, k[1], k[2], k[3]) for k, w in merged.items()])
        known[key] = len(vertices) - 1
    return known[key]


def contracted(vertices: list[list[Edge]], still: tuple[int, ...]) -> tuple[tuple[Edge, ...], ...]:
    """Join unforked runs: a vertex of one unrestricted edge that one edge reads disappears."""
    readers = [0] * len(vertices)
    for edges in vertices:
        for e in edges:
            readers[e.source] += 1
    new: list[list[Edge]] = [[]]
    place = {0: 0}
    joined: dict[int, Edge] = {}
    for v, edges in enumerate(vertices[1:], start=1):
        row = []
        for e in edges:
            shift = e.shift or still
            before = joined.get(e.source)
            if before is None:
                row.append(Edge(place[e.source], e.weight, e.factors, shift, e.restrict))
            else:
                shift = tuple(a + b for a, b in zip(before.shift, shift))
                factors = before.factors + e.factors
                row.append(Edge(before.source, e.weight, factors, shift, e.restrict))
        last = v == len(vertices) - 1
        lone = len(row) == 1 and row[0].weight == 1 and row[0].restrict is None
        if lone and readers[v] == 1 and not last:
            joined[v] = row[0]
        else:
            new.append(row)
            place[v] = len(new) - 1
    return tuple(
        tuple(Edge(e.source, e.weight, merge_factors(e.factors), e.shift, e.restrict) for e in row)
        for row in new
    )
