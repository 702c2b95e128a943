"""What an image size makes of an architecture: which layers can still learn, and what to change.

A layer can gather new context only while what it reads has not seen the whole image. By the
receptive field this is judged on the path that sees least, because a skip connection keeps small
fields alive (Richter et al.); by the effective receptive field, on the influence itself.

Source: Richter, Byttner, Krumnack, Schallner, Shenk, "(Input) Size Matters for CNN Classifiers",
ICANN 2021; Richter, Schöning, Wiedenroth, Krumnack, "Should You Go Deeper?", ICMLA 2021
(arXiv:2106.12307). The rule is that of their toolbox: a layer is unproductive if the image is no
larger than the smallest receptive field of each of its inputs, and smaller than its own.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from erftheory.network.arguments import integer, one_of, per_axis
from erftheory.network.base import Network, check_network
from erftheory.network.graph import Builder, Concat, Graph, GraphNetwork, Loop, Sum
from erftheory.network.imported import aligned_corners
from erftheory.network.layers import Layer
from erftheory.theory.extents import centres, smallest_fields
from erftheory.theory.interval import receptive_field
from erftheory.theory.moments import moments
from erftheory.theory.prefixes import deviations
from erftheory.theory.reading import INITS, prepare
from erftheory.theory.support import has_gaps, holes

GAUSSIAN_SIDE = 4.406  # std to side of the square above 4.55 % of the peak, for a Gaussian in 2-D
MOST_COPIES = 300  # iterations of a repetition looked at one by one; beyond, it is one entry
LONGEST = 2**20  # input pixels of a line (with up-sampling: of a map) that is searched for holes

Size = tuple[int | float | Fraction, ...]


@dataclass(frozen=True)
class Entry:
    """A layer: its own smallest field, the smallest of its inputs, and the ERF size it reads.

    All in input pixels, one entry an axis; ERF size is 4.406 std of the widest input.
    """

    name: str
    layer: str
    smallest: Size
    reads: Size
    erf: Size
    by_field: bool
    by_erf: bool


@dataclass(frozen=True)
class Advice:
    """What to know before training `network` on images of `image` pixels.

    Attributes:
      layers: every layer with a kernel, in the order of the graph.
      unproductive: those that read fields as large as the image, by the smallest field.
      spent: those that read an effective field (4.406 std) as large as the image.
      feasible: (smallest, largest) image an axis: below, some layer is unproductive; above, no
        unit sees the whole image.
      lines: the findings, one line each.
    """

    image: tuple[int, ...]
    signal: str
    layers: tuple[Entry, ...] = field(repr=False)
    feasible: tuple[tuple[float, float], ...]
    lines: tuple[str, ...]

    @property
    def unproductive(self) -> tuple[Entry, ...]:
        return tuple(e for e in self.layers if e.by_field)

    @property
    def spent(self) -> tuple[Entry, ...]:
        return tuple(e for e in self.layers if e.by_erf)

    def __str__(self) -> str:
        return "\n".join(self.lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(f"<li>{html.escape(line)}</li>" for line in self.lines)
        return f"<ul>{rows}</ul>"


def advise(
    network: Network,
    image: int | tuple[int, ...],
    signal: str = "variance",
    init: str | None = "he",
) -> Advice:
    """Unproductive layers, the feasible image sizes, holes and misaligned branches, with reasons.

    Args:
      image: input pixels, an int or one an axis.
      signal, init: of the ERF, as for `moments`.

    Raises:
      ValueError: an argument out of range, or a global operation before the end.
    """
    check_network("network", network)
    entries = per_axis("image", image)
    graph = network.graph
    sizes = entries if isinstance(entries, tuple) else (entries,) * graph.ndim
    if len(sizes) != graph.ndim:
        raise ValueError(f"image: got {image!r}; takes an integer or {graph.ndim}, one an axis")
    sizes = tuple(integer("image", n) for n in sizes)
    if graph.has_global:
        raise ValueError(
            "network: got a global operation, which sees every image whole; takes a network up to "
            'its last feature map, see until(), or one read with hold="global"'
        )
    opened = _opened(graph)
    one_of("signal", signal, ("variance", "gradient"))
    one_of("init", init, INITS)
    layers = _layers(opened, sizes, signal, init)
    largest = receptive_field(network).size
    feasible = tuple(
        (
            float(max([1, *(min(e.reads[a], e.smallest[a] - 1) + 1 for e in layers)])),
            float(largest[a]),
        )
        for a in range(graph.ndim)
    )
    lines = [
        _field_line(layers, sizes),
        _erf_line(layers, sizes, signal),
        _range_line(feasible, sizes),
        *_hole_lines(network),
        *_aligned_lines(graph),
    ]
    return Advice(sizes, signal, layers, feasible, tuple(lines))


def _opened(graph: Graph) -> Graph:
    """Repetitions as copies, as long as they are few; a copy's layers have the name with [i]."""
    builder = Builder(graph.ndim)

    def append(part: Graph, source: int, scope: str) -> int:
        place = [source]
        for node in part.nodes[1:]:
            reads, op = tuple(place[i] for i in node.inputs), node.op
            name = f"{scope}/{node.name}".strip("/")
            if isinstance(op, Loop) and op.times <= MOST_COPIES:
                at = reads[0]
                for i in range(op.times):
                    at = append(op.graph, at, f"{name}[{i}]")
                place.append(at)
                continue
            if isinstance(op, Sum) and op.fork is not None:
                op = Sum(op.gain, place[op.fork])
            place.append(builder.add(op, reads, name))
        return place[-1]

    return builder.finish(append(graph, 0, ""))


def _layers(
    graph: Graph, image: tuple[int, ...], signal: str, init: str | None
) -> tuple[Entry, ...]:
    builder = Builder(graph.ndim)
    builder.nodes = list(graph.nodes)
    smallest = smallest_fields(graph)
    known: dict[int, Size] = {
        i: tuple(GAUSSIAN_SIDE * s for s in std)
        for i, std in enumerate(deviations(graph, signal, init))
        if std is not None
    }

    def erf(index: int) -> Size:
        while (op := graph.nodes[index].op) and isinstance(op, Layer) and not op.step(graph.ndim):
            index = graph.nodes[index].inputs[0]  # it acts on every pixel alone
        if index not in known:
            part = GraphNetwork(builder.finish(index))
            known[index] = tuple(GAUSSIAN_SIDE * s for s in moments(part, signal, init).std)
        return known[index]

    found = []
    for index, node in enumerate(graph.nodes):
        spatial = isinstance(node.op, Layer) and node.op.step(graph.ndim) is not None
        if not spatial and not isinstance(node.op, Loop):
            continue
        before = node.inputs[0]
        own, reads, wide = smallest[index], smallest[before], erf(before)
        label = f"repeated {node.op.times} times" if isinstance(node.op, Loop) else repr(node.op)
        by_field = all(n <= r for n, r in zip(image, reads))
        by_field = by_field and all(n < r for n, r in zip(image, own))
        by_erf = all(n <= e for n, e in zip(image, wide))
        found.append(Entry(node.name or "layer", label, own, reads, wide, by_field, by_erf))
    return tuple(found)


def _times(values) -> str:
    texts = [f"{float(v):.4g}" for v in values]
    return texts[0] if len(set(texts)) == 1 else " x ".join(texts)


def _some(entries: list[Entry]) -> str:
    first, last = entries[0], entries[-1]
    if len(entries) == 1:
        return f"{first.name} {first.layer}"
    return f"from {first.name} {first.layer} to {last.name} {last.layer}"


def _field_line(layers: tuple[Entry, ...], image: tuple[int, ...]) -> str:
    found = [e for e in layers if e.by_field]
    if not found:
        partly = [e for e in layers if any(n <= r for n, r in zip(image, e.reads))]
        beyond = [e for e in layers if any(n < s for n, s in zip(image, e.smallest))]
        if partly:
            return (
                f"receptive field: {len(partly)} of {len(layers)} layers see the whole image along "
                f"some axis already ({_some(partly)}); make kernels or strides smaller along it"
            )
        note = f"; {_some(beyond)}: critical, the field passes the image there" if beyond else ""
        return (
            f"receptive field: no unproductive layer among {len(layers)} at {_times(image)} "
            f"pixels{note}"
        )
    return (
        f"receptive field: {len(found)} of {len(layers)} layers are unproductive at "
        f"{_times(image)} pixels ({_some(found)}): even the path that sees least has seen "
        f"{_times(found[0].reads)} pixels before; drop them, or use fewer strides or larger images"
    )


def _erf_line(layers: tuple[Entry, ...], image: tuple[int, ...], signal: str) -> str:
    found = [e for e in layers if e.by_erf]
    if not found:
        widest = max(layers, key=lambda e: max(e.erf), default=None)
        size = _times(widest.erf) if widest else "0"
        return (
            f"effective receptive field: at most {size} pixels (4.406 std, {signal}) are read, "
            f"less than the image of {_times(image)}; depth still adds context"
        )
    return (
        f"effective receptive field: {len(found)} of {len(layers)} layers ({_some(found)}) read "
        f"one of {_times(found[0].erf)} pixels or more (4.406 std, {signal}), as large as the "
        "image; what they add is no context, remove them first"
    )


def _range_line(feasible, image: tuple[int, ...]) -> str:
    low, high = ([f[side] for f in feasible] for side in (0, 1))
    text = f"feasible images: {_times(low)} to {_times(high)} pixels"
    if any(n < f for n, f in zip(image, low)):
        return text + "; this one is smaller: some layers are unproductive, enlarge it"
    if any(n > f for n, f in zip(image, high)):
        return text + "; this one is larger: no unit sees all of it, go deeper or add strides"
    return text + "; this one is inside: every layer adds context, some unit sees all"


def _hole_lines(network: Network) -> list[str]:
    walk = prepare(network, "gradient", None)
    if not has_gaps(walk):
        return []
    fields = receptive_field(network)
    offset = tuple(-int(p) for p in fields.padding)
    base = fields.phases[0]
    lines = []
    if walk.restricted:
        shape = tuple(int(n) for n in base.size)
        if math.prod(shape) > LONGEST or not all(shape):
            return []
        offset = tuple(-int(p) for p in base.padding)
        found = holes(walk, None, offset, shape)
        axes = set(range(walk.ndim))
        rows = [np.asarray(found.all(axis=tuple(axes - {a}))) for a in sorted(axes)]
    else:
        rows = [
            holes(walk.axis(a), None, (offset[a],), (int(fields.size[a]),))
            for a in range(walk.ndim)
            if fields.size[a] <= LONGEST
        ]
    for axis, row in enumerate(rows):
        if row.any():
            lines.append(
                f"holes: on axis {axis} an output reads {int((~row).sum())} of {len(row)} rows of "
                "pixels in its field; take dilations without a common factor (1, 2, 3, ...), or "
                "kernels as large as their strides"
            )
    return lines


def _aligned_lines(graph: Graph) -> list[str]:
    """Merges whose inputs have different centres, on the mean over output phases."""
    if aligned_corners(graph):
        return [
            "aligned corners: interpolation whose places depend on the size of the map; read as on "
            "an unbounded one, so where branches meet is not judged"
        ]
    found: list[tuple[str, list[float]]] = []
    _merges(graph, "", found)
    what = (
        "move padding from one side to the other in one branch, or take kernels of odd size "
        "(a causal net has to be so)"
    )
    if len(found) <= 3:
        return [
            f"misaligned: the branches that meet in {name} have centres {_times(apart)} input "
            f"pixels apart; {what}"
            for name, apart in found
        ]
    most = max(max(apart) for _, apart in found)
    return [
        f"misaligned: {len(found)} merges, from {found[0][0]} to {found[-1][0]}, join branches "
        f"whose centres are up to {most:.4g} input pixels apart; {what}"
    ]


def _merges(graph: Graph, scope: str, found: list[tuple[str, list[float]]]) -> None:
    builder = Builder(graph.ndim)
    builder.nodes = list(graph.nodes)
    known = centres(graph)

    def centre(index: int) -> tuple[float, ...]:
        if index not in known:  # up-sampling: units differ
            field = receptive_field(GraphNetwork(builder.finish(index)))
            rows = zip(*(p.center for p in field.phases if not any(map(math.isnan, p.center))))
            # output u of a finer grid lies at u·rate: only the way from there counts
            counts = len(field.phases) ** (1 / graph.ndim)
            own = [(counts - 1) / 2 * float(r) for r in field.stride]
            known[index] = tuple(sum(c) / len(c) - o for c, o in zip(rows, own))
        return known[index]

    for node in graph.nodes:
        name = f"{scope}/{node.name}".strip("/")
        if isinstance(node.op, Loop):
            _merges(node.op.graph, name, found)
        if isinstance(node.op, Sum | Concat):
            apart = [max(c) - min(c) for c in zip(*map(centre, node.inputs))]
            if max(apart, default=0) > 1e-9:
                found.append((name or type(node.op).__name__.lower(), apart))
