"""What the readers of all frameworks have: rules of the user, endpoints, the network at the end."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from erftheory.importers.building.assemble import Assembler
from erftheory.importers.building.ends import placed
from erftheory.importers.building.operation import depending
from erftheory.importers.building.rules import note_unused
from erftheory.importers.values.dimensions import CHANNEL, length, plain, spatial
from erftheory.importers.values.pixels import Constant, Pixels, Value
from erftheory.importers.values.refusals import Unreadable
from erftheory.network.base import Network
from erftheory.network.graph import Builder
from erftheory.network.imported import ImportedNetwork


class Reader:
    """Goes through the operations of a model and hands each to an `Assembler`.

    Args:
      rules: the user's, by the name of an operation.
      search: end at the first window, to learn which axes are pixels.

    Attributes:
      marks: the last map of every endpoint so far.
      modules: the endpoints that are modules of the model.
      unread: the modules around an operation that has no reading.
      used: the rules that some operation has asked for.
    """

    def __init__(self, assembler: Assembler, rules: Mapping[str, Any], search: bool = False):
        self.assembler, self.rules, self.search = assembler, dict(rules), search
        self.marks: dict[str, Pixels] = {}
        self.modules: set[str] = set()
        self.unread: Sequence[str] = ()
        self.used: set[str] = set()

    def mark(self, names: Iterable[str], value: Any) -> None:
        """Endpoints that end, so far, in a value; in one without pixels they are none."""
        for name in names:
            if isinstance(value, Pixels):
                self.marks[name] = value
            elif depending(value if isinstance(value, list) else [value]):
                self.marks.pop(name, None)

    def own(self, rule: Any, values: Iterable[Value], shape: Sequence[int] | None) -> Value:
        """An operation by a rule of the user; `shape` is that of its result, None if not known.

        Raises:
          Unreadable: the rule makes another shape, or a network is to read several values.
        """
        inside = [v for v in values if not isinstance(v, Constant)]
        if isinstance(rule, Network):
            if len(inside) != 1 or not isinstance(inside[0], Pixels):
                raise Unreadable("a network as the rule of an operation on several values")
            return described(self.assembler, inside[0], rule, shape)
        found = self.assembler.merge("other", *inside)
        if isinstance(found, Pixels) and shape is not None and found.shape != tuple(shape):
            raise Unreadable(f"the rule identity between shapes {found.shape} and {tuple(shape)}")
        return found

    def network(
        self, values: Mapping[str, Any], named: tuple[str, ...], what: str,
        extra: Mapping[str, Any] | None = None,
    ) -> ImportedNetwork:  # fmt: skip
        """The network whose outputs are some values, and whose endpoints are the marks and `extra`.

        Raises:
          ValueError: no output depends on the image; `what` names the user's argument.
        """
        make = self.assembler
        note_unused(make, self.rules, self.used)
        outputs, more = (
            {k: make.ended(v) for k, v in row.items() if depending([v])}
            for row in (values, extra or {})
        )
        if not outputs:
            got = "outputs that do not depend on the image"
            raise ValueError(f"{what}: got {got}; takes a network")
        make.note_folded()
        return ImportedNetwork(
            make.ndim, make.nodes, outputs, {**placed(make, self.marks), **more}, make.notes,
            make.weights, make.scales, make.ideal, named,
        )  # fmt: skip


def described(
    make: Assembler, value: Pixels, rule: Network, shape: Sequence[int] | None = None
) -> Pixels:
    """A network that a user gave as the rule of an operation whose result has a shape.

    Raises:
      Unreadable: the network makes other sizes.
    """
    value = make.flush(make.settle(value))
    if shape is not None and len(shape) != len(value.dims):
        raise Unreadable(f"a network as the rule between {value.shape} and {tuple(shape)}")
    builder = Builder(make.ndim)
    builder.nodes = make.nodes
    sizes = []
    for rate, low, high in rule.size_rule(make.ndim):  # what rounding leaves open
        n = value.size(len(sizes)) * rate
        sizes.append((math.ceil(n + low), max(1, math.floor(n + high))))
    dims = []
    for dim, n in zip(value.dims, [None] * len(value.dims) if shape is None else shape):
        if spatial(dim):
            low, high = sizes[dim[0].axis]
            if n is not None and not low <= n <= high:
                raise Unreadable(f"the rule makes {high} pixels of an axis where there are {n}")
            dim = plain(dim[0].axis, high if n is None else n)
        elif n is not None and n != length(dim):
            dim = plain(CHANNEL, n)
        dims.append(dim)
    return Pixels(rule.lower(builder, value.node, make.scope), tuple(dims))
