"""Which laws of receptive fields apply to a network, and what happens instead where they do not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from erftheory.network.base import Network
from erftheory.network.graph import Graph, Sum
from erftheory.network.initialisation import Init
from erftheory.network.kernel import NegativeTaps
from erftheory.network.layers import AvgPool, MaxPool
from erftheory.tables import as_html
from erftheory.theory.gains.prepare import prepare
from erftheory.theory.plane.axis import SpanAlgebra
from erftheory.theory.readings.moments import moments
from erftheory.theory.readings.receptive_field import receptive_field
from erftheory.theory.walk.walk import Walk


@dataclass(frozen=True)
class Condition:
    """One assumption of the theory.

    Attributes:
      name: what is assumed.
      holds: whether this network fulfils it.
      statement: what that means for this network, with its numbers (pixels).
      laws: ids of the laws that rest on it.
    """

    name: str
    holds: bool
    statement: str
    laws: tuple[str, ...]


@dataclass(frozen=True)
class Conditions:
    """All conditions of a network; true if every one holds. Prints as a list."""

    entries: tuple[Condition, ...]

    def __bool__(self) -> bool:
        return all(c.holds for c in self.entries)

    def __iter__(self) -> Iterator[Condition]:
        return iter(self.entries)

    def __getitem__(self, name: str) -> Condition:
        for c in self.entries:
            if c.name == name:
                return c
        raise KeyError(f"no condition {name!r}; there are {[c.name for c in self.entries]}")

    def __str__(self) -> str:
        return "\n".join(
            f"{'holds' if c.holds else 'FAILS'}  {c.name}: {c.statement} [{', '.join(c.laws)}]"
            for c in self.entries
        )

    def _repr_html_(self) -> str:
        rows = [
            ("holds" if c.holds else "FAILS", c.name, c.statement, ", ".join(c.laws))
            for c in self.entries
        ]
        return as_html(("", "condition", "this network", "laws"), rows, left=(2,))


def conditions(network: Network, signal: str = "variance", init: Init | None = "he") -> Conditions:
    """The assumptions behind the laws, checked on a network.

    Raises:
      ValueError: as `moments` does, but for signed taps and a signal of mass 0, which are findings.
    """
    try:
        walk = prepare(network, signal, init)
    except NegativeTaps:
        return Conditions((_signed(network, prepare(network, "gradient", init)),))
    if walk.signed:
        return Conditions((_signed(network, walk),))
    found = [
        Condition(
            "weights are probabilities", True, "no weight is negative", ("SIG-1", "CLT-1", "CLT-2")
        )
    ]
    kind = "variance" if signal == "magnitude" else signal
    m = moments(network, kind, init)
    found.append(_spread(m))
    if not walk.restricted:
        found.append(_lattice(walk))
    found += [_centre(network, m), _isotropy(m), _gates(network)]
    return Conditions(tuple(found))


def _signed(network: Network, walk: Walk) -> Condition:
    name, laws = "weights are probabilities", ("SIG-1", "CLT-1", "CLT-2", "GRW-1")
    try:
        variance = moments(network, "gradient", None).variance
    except ValueError:
        return Condition(
            name, False, "signed taps cancel to a signal of mass 0: it has no mean and no "
            "deviation, and oscillates; there is no Gaussian limit", laws,
        )  # fmt: skip
    spread = ", ".join(f"{float(v):.4g}" for v in variance)
    return Condition(
        name, False, f"taps are signed: second moments ({spread} px² about the mean) are no "
        "widths, the signal may oscillate from pixel to pixel, and no Gaussian limit follows", laws,
    )  # fmt: skip


def _spread(m) -> Condition:
    flat = [str(a) for a, v in enumerate(m.variance) if v == 0]
    if flat:
        says = f"no spread along axis {', '.join(flat)}: one pixel is seen at every depth"
    else:
        says = f"std {', '.join(f'{s:.4g}' for s in m.std)} px"
    return Condition("the ERF has a width", not flat, says, ("CLT-2", "GRW-1", "LIM-1"))


def _lattice(walk: Walk) -> Condition:
    spans = [max(1, SpanAlgebra().fold(walk.axis(a))[1]) for a in range(walk.ndim)]
    fine = all(s == 1 for s in spans)
    shown = " x ".join(map(str, spans))
    says = (
        "neighbouring pixels are reached"
        if fine
        else f"gridding: only a lattice of {shown} px is seen; there the local limit is {shown} "
        "times the Gaussian density, and 0 in between"
    )
    return Condition("lattice span 1", fine, says, ("CLT-2", "DIL-1"))


def _centre(network: Network, m) -> Condition:
    center = receptive_field(network).center
    drift = [float(mean) - c for mean, c in zip(m.mean, center)]
    # "same" padding of an even kernel is half a pixel off, which adds up with depth
    unit = [abs(float(mean)) for mean in m.mean]
    far = [u for u, s in zip(unit, m.std) if u > max(1.0, s)]
    held = all(abs(d) < 1e-9 for d in drift) and not far
    shown = ", ".join(f"{float(mean):.4g}" for mean in m.mean)
    says = f"centre of mass of unit 0 at {shown} px"
    if any(abs(d) >= 1e-9 for d in drift):
        off = ", ".join(f"{d:.4g}" for d in drift)
        says += f", {off} px off the receptive field's centre (asymmetric taps or branches)"
    elif far:
        says += (
            ": it drifts with depth (even kernels, padding), more than a deviation from the unit"
        )
    return Condition("the ERF is centred", held, says, ("BND-1",))


def _isotropy(m) -> Condition:
    even = max(m.std) <= (1 + 1e-9) * min(m.std)
    shown = " x ".join(f"{s:.4g}" for s in m.std)
    says = f"anisotropic: std {shown} px; sizes are geometric means"
    return Condition("axes are alike", even, "one width on all axes" if even else says, ("GRW-2",))


def _gates(network: Network) -> Condition:
    kinds = set(_kinds(network.graph))
    broken = sorted(kinds & {"average pooling", "max pooling", "sums with a skip"})
    says = (
        "a rectifier reads one random convolution at a time: E g² is exactly the convolution, with "
        "filters without fixed biases and inputs without all-zero patches"
        if not broken
        else f"{', '.join(broken)}: E g² may be the convolution in wide nets only"
    )
    laws = ("ACT-2", "POOL-1", "SKP-2")
    return Condition("gates are exact at any width", not broken, says, laws)


def _kinds(graph: Graph) -> Iterator[str]:
    for op in graph.operations():
        if isinstance(op, AvgPool):
            yield "average pooling"
        elif isinstance(op, MaxPool):
            yield "max pooling"
        elif isinstance(op, Sum):
            yield "sums with a skip"
