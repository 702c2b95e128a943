"""What an image size makes of an architecture: which layers can still learn, and what to change.

A layer can gather new context only while what it reads has not seen the whole image. By the
receptive field this is judged on the path that sees least, because a skip connection keeps small
fields alive (Richter et al.); by the effective receptive field, on the influence itself.

Source: Richter, Byttner, Krumnack, Schallner, Shenk, "(Input) Size Matters for CNN Classifiers",
ICANN 2021; Richter, Schöning, Wiedenroth, Krumnack, "Should You Go Deeper?", ICMLA 2021
(arXiv:2106.12307).
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from erftheory.network.arguments import integer, one_of, per_axis
from erftheory.network.base import Network, check_network
from erftheory.network.graph import Builder, Concat, Graph, Loop, Sum
from erftheory.network.imported import GraphNetwork, aligned_corners
from erftheory.network.initialisation import Init, check_init
from erftheory.theory.advice.unproductive import Entry, entries, gaussian_side, opened
from erftheory.theory.gains.prepare import prepare
from erftheory.theory.lowering.lowering import build
from erftheory.theory.lowering.unbounded import refuse_unbounded
from erftheory.theory.readings.extents import centres
from erftheory.theory.readings.lattice import has_gaps, holes
from erftheory.theory.readings.receptive_field import ReceptiveField, receptive_field

LONGEST = 2**20  # input pixels of a line (with up-sampling: of a map) that is searched for holes


@dataclass(frozen=True)
class Advice:
    """What to know before training `network` on images of `image` pixels.

    Attributes:
      layers: every layer with a kernel, in the order of the graph.
      unproductive: those that read fields as large as the image, by the smallest field.
      spent: those that read an effective field (the side of a Gaussian, `gaussian_side`) as large
        as the image.
      feasible: (smallest, largest) image an axis, by sizes alone, as in the toolbox: below, some
        layer sees all of that axis before it; above, no field is large enough.
      covered: the largest image an axis that the field of some unit covers, which may be less than
        the largest feasible one: units stand a stride apart. 0 where no field begins at a rim.
      lines: the findings, one line each.
      holes: those of them that say which rows of pixels no path reads.
    """

    image: tuple[int, ...]
    signal: str
    layers: tuple[Entry, ...] = field(repr=False)
    feasible: tuple[tuple[float, float], ...]
    covered: tuple[int, ...]
    lines: tuple[str, ...]
    holes: tuple[str, ...] = field(default=(), repr=False)

    @property
    def unseen(self) -> bool:
        """True if the image is larger than any field, along some axis."""
        return any(n > most for n, (_, most) in zip(self.image, self.feasible))

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
    init: Init | None = "he",
) -> Advice:
    """Unproductive layers, the feasible image sizes, holes and misaligned branches, with reasons.

    Args:
      image: input pixels, an int or one an axis.
      signal, init: of the ERF, as for `moments`.

    Raises:
      ValueError: an argument out of range, or a global operation before the end.
    """
    check_network("network", network)
    given = per_axis("image", image)
    graph = network.graph
    sizes = given if isinstance(given, tuple) else (given,) * graph.ndim
    if len(sizes) != graph.ndim:
        raise ValueError(f"image: got {image!r}; takes an integer or {graph.ndim}, one an axis")
    sizes = tuple(integer("image", n) for n in sizes)
    refuse_unbounded(network)
    one_of("signal", signal, ("variance", "gradient"))
    check_init(init, counting=True)
    layers = entries(opened(network), sizes, signal, init)
    whole = receptive_field(network)
    feasible = tuple(
        (
            float(max([1, *(min(e.reads[a], e.smallest[a] - 1) + 1 for e in layers)])),
            float(whole.size[a]),
        )
        for a in range(graph.ndim)
    )
    phases = build(network, "gradient").phases
    covered = tuple(_covered(whole, phases[a], a) for a in range(graph.ndim))
    outputs: tuple[str, ...] = getattr(network, "outputs", ())
    gaps = _hole_lines(network)
    lines = [
        _field_line(layers, sizes),
        _erf_line(layers, sizes, signal),
        _range_line(feasible, covered, sizes),
        *gaps,
        *_aligned_lines(graph),
    ]
    if len(outputs) > 1:
        lines.append(
            f"outputs: this is about {outputs[-1]!r} alone, the last of {len(outputs)}; "
            f"network.until({outputs[0]!r}) is another"
        )
    return Advice(sizes, signal, layers, feasible, covered, tuple(lines), tuple(gaps))


def _covered(field: ReceptiveField, phases: int, axis: int) -> int:
    """The largest n with a unit whose field holds pixels 0 to n − 1.

    The fields of units of one phase begin at −padding and whole periods after it.
    """
    period = field.stride[axis] * phases
    found = [
        int(f.size[axis] - f.padding[axis] % period)
        for f in field.phases
        if f.size[axis] and f.padding[axis] >= 0
    ]
    return max([0, *found])


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
        f"{_times(found[0].reads)} pixels before{' the last round' if found[0].rounds else ''}; "
        "drop them, or use fewer strides or larger images"
    )


def _erf_line(layers: tuple[Entry, ...], image: tuple[int, ...], signal: str) -> str:
    found = [e for e in layers if e.by_erf]
    side = f"{gaussian_side(len(image)):.4g} std, {signal}"
    known = [e for e in layers if not any(map(math.isnan, e.erf))]
    none = len(layers) - len(known)
    note = f"; {none} of the layers read signed signals without a deviation" if none else ""
    if not found and not known and none:
        return f"effective receptive field: not judged, {signal}s of signed taps have no deviation"
    if not found:
        widest = max(known, key=lambda e: max(e.erf), default=None)
        size = _times(widest.erf) if widest else "0"
        return (
            f"effective receptive field: at most {size} pixels ({side}) are read, "
            f"less than the image of {_times(image)}; depth still adds context{note}"
        )
    return (
        f"effective receptive field: {len(found)} of {len(layers)} layers ({_some(found)}) read "
        f"one as large as the image ({_times(found[0].erf)} pixels, {side}); "
        f"what they add is no context, remove them first{note}"
    )


def _range_line(feasible, covered: tuple[int, ...], image: tuple[int, ...]) -> str:
    low, high = ([f[side] for f in feasible] for side in (0, 1))
    text = f"feasible images: {_times(low)} to {_times(high)} pixels"
    said: dict[str, list[int]] = {}
    for axis, (n, least, most, whole) in enumerate(zip(image, low, high, covered)):
        if n < least:
            what = "smaller: some layers see all of it before they begin, enlarge it"
        elif n > most:
            what = "larger: no unit sees all of it, go deeper or add strides"
        elif n > whole:
            what = f"inside, but units stand a stride apart and none sees more than {whole} pixels"
        else:
            what = "inside: every layer adds context, the field of some unit covers it"
        said.setdefault(what, []).append(axis)
    if len(said) == 1:
        return f"{text}; this one is {next(iter(said))}"
    axes = (f"along axis {', '.join(map(str, a))} it is {what}" for what, a in said.items())
    return "; ".join([text, *axes])


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
            field: Any = receptive_field(GraphNetwork(builder.finish(index)))
            # output u of a finer grid lies at u·stride: only the way from there counts
            known[index] = field.phases.middle() if field.lookback else ()
        return known[index]

    for node in graph.nodes:
        name = f"{scope}/{node.name}".strip("/")
        if isinstance(node.op, Loop):
            _merges(node.op.graph, name, found)
        if isinstance(node.op, Sum | Concat):
            apart = [max(c) - min(c) for c in zip(*map(centre, node.inputs))]
            if max(apart, default=0) > 1e-9:
                found.append((name or type(node.op).__name__.lower(), apart))
