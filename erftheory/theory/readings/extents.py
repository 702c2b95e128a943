"""Plain extents of every node, in one pass, for `advise`."""

from __future__ import annotations

from fractions import Fraction

from erftheory.network.graph import Graph, Loop
from erftheory.network.layers import Layer


def smallest_fields(graph: Graph) -> list[tuple[int | Fraction, ...]]:
    """The receptive field of every node along the path that sees least, one entry an axis.

    Dilated kernels count with their holes; up-sampling with the phase that reads least.
    """
    fields: list[tuple] = [(1,) * graph.ndim]
    for node in graph.nodes[1:]:
        reads = [fields[i] for i in node.inputs]
        least = tuple(min(sizes) for sizes in zip(*reads))
        rates = graph.rates[node.inputs[0]]
        fields.append(tuple(b + g for b, g in zip(least, _grown(node.op, graph.ndim, rates))))
    return fields


def _grown(op, ndim: int, rates) -> tuple:
    """Input pixels that an operation adds at the least, `rates` being the jump it reads."""
    if isinstance(op, Loop):
        body = op.graph
        if body.resamples:
            raise ValueError("network: got a repetition that resamples; takes loops of one grid")
        grown = tuple(size - 1 for size in smallest_fields(body)[-1])
        return tuple(op.times * g * r for g, r in zip(grown, rates))
    step = op.step(ndim) if isinstance(op, Layer) else None
    if step is None:
        return (0,) * ndim
    rows = zip(step.span, step.stride, rates)
    if step.up:
        return tuple((max(1, (span + 1) // s) - 1) * r for span, s, r in rows)
    return tuple(span * r for span, _, r in rows)


def centres(graph: Graph) -> dict[int, tuple[float, ...]]:
    """Centre of each node's field (unit 0, input pixels), as far as no up-sampling leads."""
    spans = _spans(graph)
    return {i: tuple(float(a + b) / 2 for a, b in span) for i, span in spans.items()}


def _spans(graph: Graph) -> dict[int, tuple[tuple[Fraction, Fraction], ...]]:
    """First and last input pixel of each node's unit 0, one pair an axis."""
    spans = {0: ((Fraction(0), Fraction(0)),) * graph.ndim}
    for index, node in enumerate(graph.nodes[1:], start=1):
        if any(i not in spans for i in node.inputs):
            continue
        reads = [spans[i] for i in node.inputs]
        span = tuple((min(a for a, _ in axis), max(b for _, b in axis)) for axis in zip(*reads))
        rates = graph.rates[node.inputs[0]]
        if isinstance(node.op, Loop):
            body = node.op.graph
            inner = _spans(body).get(len(body.nodes) - 1)
            if inner is None or body.resamples:
                continue
            grown = [(node.op.times * a, node.op.times * b) for a, b in inner]
        else:
            step = node.op.step(graph.ndim) if isinstance(node.op, Layer) else None
            if step is None:
                spans[index] = span
                continue
            if step.up:
                continue
            grown = [(-p, span - p) for span, p in zip(step.span, step.before)]
        spans[index] = tuple(
            (a + r * low, b + r * high) for (a, b), r, (low, high) in zip(span, rates, grown)
        )
    return spans
