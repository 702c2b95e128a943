"""Every network of a small space, read one by one: what `design` must equal."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

from erftheory import Network, moments, receptive_field
from erftheory.designing.costs import of_network
from erftheory.designing.design import holes_of
from erftheory.designing.queries import Query, check_query
from erftheory.designing.shapes import Goal

NAMES = ("field", "lookback", "latency", "stride")


def question(**asked) -> Query:
    empty = dict.fromkeys(
        ("erf", "image", "budget", "allowed", "field", "lookback", "latency", "stride")
    )
    return check_query(**{**empty, "cost": "macs", "gridding": True, **asked})


def networks(query: Query) -> list[Network]:
    """Every allowed network, in all orders of its layers."""
    space, found = query.space, []
    for depth in range(space.depth[0], space.depth[1] + 1):
        for bricks in product(space.bricks, repeat=depth):
            try:
                found.append(space.network(bricks, query.image))
            except ValueError:
                pass
    return found


def read(query: Query, network: Network) -> dict:
    """What the package's readings say of a network."""
    field = receptive_field(network)
    row = {
        "field": field.size[0],
        "lookback": field.lookback[0],
        "latency": field.lookahead[0],
        "stride": field.stride[0],
        "cost": of_network(query.cost, network, query.image, query.space.inputs),
        "network": network,
    }
    if not query.gridding:
        row["holes"] = holes_of(network, -int(field.padding[0]), int(field.size[0]))
    return row


def distance(query: Query, network: Network) -> float:
    if query.kind == "std":
        return abs(moments(network).std[0] - query.value)
    return Goal(query.kind, query.value, query.space.ndim).distance(network) if query.kind else 0.0


def fits(query: Query, row: dict, without: tuple[str, ...] = ()) -> bool:
    for name in NAMES:
        if name not in without and getattr(query, name).gap(row[name]):
            return False
    if query.budget is not None and "budget" not in without and row["cost"] > query.budget:
        return False
    return query.gridding or "gridding" in without or row["holes"] == 0


def brute(**asked) -> tuple[list[tuple], int]:
    """The front as (cost, distance), and the number of networks."""
    query = question(**asked)
    every = networks(query)
    best: dict[Fraction, float] = {}
    for network in every:
        row = read(query, network)
        if fits(query, row):
            far = distance(query, network)
            best[row["cost"]] = min(far, best.get(row["cost"], far))
    front: list[tuple] = []
    for cost in sorted(best):
        if not front or best[cost] < front[-1][1]:
            front.append((cost, best[cost]))
    return front, len(every)
