"""What to change: single changes of a layer that cure what `advise` found, the cheapest first.

Every convolution and pool is tried with a kernel 2 larger or smaller, a stride of 1 for 2 and of 2
for 1, and a dilation of 1 or without a common factor with its own; the padding moves along, so that
a layer that kept the size keeps it. Changes are taken by rising cost, and each is judged by
`advise` of the changed network: it cures a finding if that is gone and no other has come.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from erftheory.designing.changing import rewritten, slots
from erftheory.network import arguments as arg
from erftheory.network.base import Network
from erftheory.network.channels import widths
from erftheory.network.graph import unrolled
from erftheory.network.initialisation import Init
from erftheory.network.kernel import line_span
from erftheory.network.layers import AvgPool, Conv, ConvTranspose, MaxPool
from erftheory.network.sliding import pads, spread
from erftheory.theory.advice.advise import Advice, advise
from erftheory.theory.gains.between import Between
from erftheory.theory.readings.moments import moments

SHOWN = 3
MOST = 100  # changed networks that are judged
WIDE = 64  # channels where nothing says how many


@dataclass(frozen=True)
class Cure:
    """One change that cures something.

    Attributes:
      name, layer: the layer as it was; of a repetition it is changed in every round.
      change: what becomes of it, as "stride 1 → 2".
      cured: the findings that are gone, among "unproductive", "spent", "unseen" and "holes".
      network: the changed network.
      std: deviation of its ERF, pixels an axis.
      macs: its multiply-accumulates on the image; ratio: over those before.
      advice: what `advise` says of it.
    """

    name: str
    layer: str
    change: str
    cured: tuple[str, ...]
    network: Network = field(repr=False)
    std: tuple[float, ...]
    macs: int
    ratio: float
    advice: Advice = field(repr=False)

    def __str__(self) -> str:
        std = " x ".join(dict.fromkeys(f"{v:.4g}" for v in self.std))
        where = f"{self.name} {self.layer}".strip()
        return (
            f"{self.change} in {where}: no more {' or '.join(WORDS[c] for c in self.cured)}; "
            f"ERF std {std} pixels, {self.ratio:.3g} times the MACs"
        )


WORDS = {
    "unproductive": "unproductive layers",
    "spent": "ERF as large as the image before the end",
    "unseen": "image that no unit sees whole",
    "holes": "holes",
}


@dataclass(frozen=True)
class Cures:
    """The cheapest changes, and what they are for.

    Attributes:
      found: what `advise` found, among the names in `Cure.cured`.
      rows: the cures, by rising cost.
      tried, possible: changed networks that were judged, of how many that can be built.
      advice: of the network as it is.
    """

    found: tuple[str, ...]
    rows: tuple[Cure, ...]
    tried: int
    possible: int
    advice: Advice = field(repr=False)

    def __iter__(self) -> Iterator[Cure]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    @property
    def lines(self) -> tuple[str, ...]:
        if not self.found:
            return ("cures: nothing to cure",)
        if not self.rows:
            of = "" if self.tried == self.possible else f" of {self.possible}, the cheapest"
            return (f"cures: none of {self.tried} single changes{of} cures a finding",)
        return tuple(f"cure {i}: {row}" for i, row in enumerate(self.rows, start=1))

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def _repr_html_(self) -> str:
        return f"<ol>{''.join(f'<li>{html.escape(str(r))}</li>' for r in self.rows)}</ol>"


def cures(
    network: Network,
    image: int | tuple[int, ...],
    signal: str = "variance",
    init: Init | None = "he",
    inputs: int | None = None,
) -> Cures:
    """The three cheapest single changes that cure what `advise` finds on images of a size.

    Findings are unproductive layers, layers whose ERF is as large as the image ("spent"), an image
    larger than any field ("unseen") and holes.

    Args:
      image, signal, init: as for `advise`.
      inputs: channels of the input, for the cost; None is 3, or as wide as the net where a layer
        without a width of its own ties the input to it.

    Raises:
      ValueError: an argument out of range, a part of a network, or an image that is too small to
        run the network on, so that it has no costs.
    """
    advice = advise(network, image, signal, init)
    if isinstance(network, Between):
        raise ValueError("network: got a part of a network; takes a whole one")
    if inputs is not None:
        arg.integer("inputs", inputs)
    found = findings(advice)
    if not found:
        return Cures((), (), 0, 0, advice)
    before = macs(network, advice.image, inputs)
    changed = sorted(_changed(network, advice.image, inputs), key=lambda row: row[0])
    rows: list[Cure] = []
    tried = 0
    for cost, name, op, change, other in changed:
        if len(rows) == SHOWN or tried == MOST:
            break
        tried += 1
        try:
            now = advise(other, advice.image, signal, init)
        except ValueError:  # not a network any more, or none that can be judged
            continue
        left = findings(now)
        cured = tuple(f for f in found if f not in left)
        if cured and set(left) <= set(found):
            ratio, std = cost / before if before else math.inf, moments(other, signal, init).std
            rows.append(Cure(name, repr(op), change, cured, other, std, cost, ratio, now))
    return Cures(found, tuple(rows), tried, len(changed), advice)


def findings(advice: Advice) -> tuple[str, ...]:
    """What can be cured, by the names in `WORDS`."""
    seen = {
        "unproductive": bool(advice.unproductive), "spent": bool(advice.spent),
        "unseen": advice.unseen, "holes": bool(advice.holes),
    }  # fmt: skip
    return tuple(name for name, there in seen.items() if there)


def macs(network: Network, image: tuple[int, ...], inputs: int | None = None) -> int:
    """Multiply-accumulates of all convolutions on an image.

    Raises:
      ValueError: an image too small for a layer, or branches of unequal sizes.
    """
    graph = unrolled(network.graph)
    source = widths(graph, WIDE, None)[0] if inputs is None else inputs
    channels = widths(graph, WIDE, 3 if inputs is None and source == 1 else source)
    sizes, total = [tuple(image)], 0
    for index, node in enumerate(graph.nodes[1:], start=1):
        step, size = graph.own_steps[index], sizes[node.inputs[0]]
        if any(sizes[i] != size for i in node.inputs):
            raise ValueError(f"{node.name or 'merge'}: got branches of unequal sizes; takes equal")
        if step is not None:
            size = tuple(step.size(a, n) for a, n in enumerate(size))
        if min(size) < 1:
            name = node.name or repr(node.op)
            raise ValueError(f"image: got {image}, too small for {name}; takes a larger one")
        sizes.append(size)
        if isinstance(node.op, Conv | ConvTranspose):
            before, behind = channels[node.inputs[0]], channels[index]
            groups = before if node.op.groups == "depthwise" else int(node.op.groups)
            assert step is not None
            pixels = sizes[node.inputs[0]] if step.up else size
            total += math.prod((*pixels, *step.kernel.shape)) * before * behind // groups
    return total


Changed = tuple[int, str, Any, str, Network]


def _changed(network: Network, image: tuple[int, ...], inputs: int | None) -> Iterator[Changed]:
    """Cost, layer and network of every change that makes a network."""
    for place, (name, op) in slots(network).items():
        if not isinstance(op, Conv | MaxPool | AvgPool):
            continue
        for change, layer in changes(op, network.ndim):

            def exchanged(at: int, known: Any, place=place, layer=layer) -> Any:
                return layer if at == place else known

            try:
                other = rewritten(network, exchanged)
                yield macs(other, image, inputs), name, op, change, other
            except ValueError:  # strides or sizes that differ where branches meet
                continue


def changes(op: Any, ndim: int) -> Iterator[tuple[str, Any]]:
    """The changes of one layer, in words, and the layer they make."""
    kernel, dilation = spread(op.kernel, ndim), spread(op.dilation, ndim)
    stride = kernel if op.stride is None else spread(op.stride, ndim)
    own = getattr(op, "taps", None) is not None or getattr(op, "weights", None) is not None
    for more in (-2, 2):
        new = tuple(k + more for k in kernel)
        if not own and min(new) >= 1:
            made = _padded(op, ndim, kernel=new, dilation=dilation, stride=stride)
            if made is not None:
                yield f"kernel {_text(kernel)} → {_text(new)}", made
    if set(stride) <= {1} or set(stride) <= {2}:
        new = tuple(3 - s for s in stride)
        yield f"stride {_text(stride)} → {_text(new)}", replace(op, stride=_plain(new))
    if max(kernel) > 1 and len(set(dilation)) == 1:
        d = dilation[0]
        for value in sorted({1, d - 1, d + 1} - {0, d}):
            if math.gcd(value, d) == 1:
                made = _padded(op, ndim, kernel=kernel, dilation=(value,) * ndim, stride=stride)
                if made is not None:
                    yield f"dilation {d} → {value}", made


def _padded(op: Any, ndim: int, kernel, dilation, stride) -> Any:
    """The layer with another window; numbers of padding grow with it on both sides. None if they
    would fall below 0, or a side would move by half a pixel."""
    padding = op.padding
    if not isinstance(padding, str):
        before, after = pads(padding, spread(op.kernel, ndim), spread(op.dilation, ndim))
        pairs = []
        for axis, (b, a) in enumerate(zip(before, after)):
            old = line_span(spread(op.kernel, ndim)[axis], spread(op.dilation, ndim)[axis])
            more, odd = divmod(line_span(kernel[axis], dilation[axis]) - old, 2)
            if odd or min(b, a) + more < 0:
                return None
            pairs.append((b + more, a + more))
        padding = tuple(pairs)
        if len(set(padding)) == 1 and padding[0][0] == padding[0][1]:
            padding = padding[0][0]
    window = {"kernel": _plain(kernel), "dilation": _plain(dilation), "stride": _plain(stride)}
    return replace(op, **window, padding=padding)


def _plain(values: tuple[int, ...]) -> int | tuple[int, ...]:
    return values[0] if len(set(values)) == 1 else values


def _text(values: tuple[int, ...]) -> str:
    return " x ".join(dict.fromkeys(map(str, values)))
