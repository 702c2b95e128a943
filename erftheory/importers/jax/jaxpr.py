"""Goes through the equations of a jaxpr, in order: calls, loops and branches are read inside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from erftheory.importers.building.assemble import Assembler
from erftheory.importers.building.image import SpatialAxes, slid_over
from erftheory.importers.building.pointwise import KNOWN
from erftheory.importers.building.reader import Reader
from erftheory.importers.building.rules import keeps_shape, proposed
from erftheory.importers.jax import scan
from erftheory.importers.jax.constants import computed
from erftheory.importers.jax.rules import apply, moves
from erftheory.importers.values.constants import given, lazy
from erftheory.importers.values.dimensions import CHANNEL, plain
from erftheory.importers.values.pixels import Constant, Pixels, Value
from erftheory.importers.values.refusals import Unreadable
from erftheory.network.activations import LEAKY
from erftheory.network.graph import Concat

LONGEST = 1024  # iterations of a scan that are read one by one
NAMES = {**KNOWN, "relu6": "relu", "swish": "silu"}
NEARLY = {"hard_silu": "silu", "hard_swish": "silu", "hard_sigmoid": "sigmoid"}


class JaxReader(Reader):
    """Reads a jaxpr; the named scopes that it meets are endpoints.

    Attributes:
      root: the equations of the whole model.
      results: values of its outputs.
    """

    def __init__(self, assembler: Assembler, rules: Mapping[str, Any], search: bool = False):
        super().__init__(assembler, rules, search)
        self.root: Jaxpr | None = None
        self.results: list[Value] = []

    def run(self, jaxpr: Jaxpr, consts: Sequence[Value], values: Sequence[Value]) -> list[Value]:
        self.root = self.root or jaxpr
        env: dict[Any, Value] = dict(zip(jaxpr.constvars, consts))
        env.update(zip(jaxpr.invars, values))
        outer = self.assembler.scope

        def read(atoms: Sequence[Any]) -> list[Value]:
            return [given(np.asarray(a.val)) if isinstance(a, Literal) else env[a] for a in atoms]

        stack, scope = None, outer
        for eqn in jaxpr.eqns:
            inputs = read(eqn.invars)
            if all(isinstance(v, Constant) for v in inputs):  # two thirds of a model's equations
                env.update(zip(eqn.outvars, computed(eqn, inputs)))
                continue
            if eqn.source_info.name_stack is not stack:  # a layer's equations share theirs
                stack = eqn.source_info.name_stack
                scope = "/".join(s for s in (outer, str(stack)) if s)
            self.assembler.scope = scope
            for var, value in zip(eqn.outvars, self._equation(eqn, inputs)):
                env[var] = value
                if scope and isinstance(value, Pixels):
                    self._mark(scope, value)
        self.assembler.scope = outer
        return read(jaxpr.outvars)

    def _mark(self, scope: str, value: Pixels) -> None:
        while scope:
            self.marks[scope] = value
            scope = scope.rpartition("/")[0]

    def _equation(self, eqn: Any, inputs: list[Value]) -> Sequence[Value]:
        if all(0 in v.aval.shape for v in eqn.outvars):
            return [Constant(tuple(v.aval.shape)) for v in eqn.outvars]
        name = str(eqn.params.get("name", "")) or eqn.primitive.name
        try:
            for key in (name, eqn.primitive.name):
                if key in self.rules:
                    return self._own(key, eqn, inputs)
            found = self._call(eqn, name, inputs)
            return self._operation(eqn, inputs) if found is None else found
        except SpatialAxes:
            raise
        except Unreadable as why:
            line = _line(eqn)
            operation = why.operation
            if operation is None:
                shapes = ", ".join(str(getattr(v.aval, "shape", "")) for v in eqn.invars)
                operation = name, shapes
            advice = why.advice or self._advice(name, eqn, inputs)  # or of a function around it
            # a jitted function is traced once, without its caller's line
            raise why.but(operation=operation, line=why.line or line, advice=advice) from None

    def _advice(self, name: str, eqn: Any, inputs: list[Value]) -> list[str]:
        shape = tuple(eqn.outvars[0].aval.shape)
        if moves(name):
            return []  # a rule would be for all others of that name as well
        for other in _alike(self.root, name):  # a rule by name is for all of that name
            entering = (tuple(v.aval.shape) for v in other.invars if hasattr(v, "aval"))
            if not keeps_shape(entering, tuple(other.outvars[0].aval.shape)):
                return []

        return proposed(name, lambda rule: self.own(rule, inputs, shape), shape)

    # ---- calls ------------------------------------------------------------------------------

    def _call(self, eqn: Any, name: str, inputs: list[Value]) -> list[Value] | None:
        primitive, params = eqn.primitive.name, eqn.params
        if primitive == "scan":
            return self._scan(params, inputs)
        if primitive == "cond":
            return self._cond(params, inputs)
        if primitive == "while":
            raise Unreadable("a loop whose length is not known")
        body = next((params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in params), None)
        if body is None:
            return None
        maps = [v for v in inputs if not isinstance(v, Constant)]
        if len(maps) == 1 and len(eqn.outvars) == 1:
            if name in NEARLY and isinstance(maps[0], Pixels):
                self.assembler.note(f"{name} taken as {NEARLY[name]}", maps[0])
            curve = NAMES.get(name) or NEARLY.get(name)
            if curve == "gelu" and _within(body, "tanh"):
                curve = "gelu_tanh"
            if curve == LEAKY:  # its slope is an argument, or stands in its body
                given_ = [v for v in inputs if isinstance(v, Constant) and not v.shape]
                return [self.assembler.leaky(maps[0], given_[0] if given_ else 0.01)]
            if curve is not None:
                return [self.assembler.pointwise(maps[0], curve)]
        return self._inside(body, inputs)

    def _inside(self, body: Any, inputs: Sequence[Value]) -> list[Value]:
        if isinstance(body, ClosedJaxpr):
            return self.run(body.jaxpr, [given(c) for c in body.consts], inputs)
        return self.run(body, [], inputs)

    def _scan(self, params: Any, inputs: list[Value]) -> list[Value]:
        fixed, carried = params["num_consts"], params["num_carry"]
        consts, carry = inputs[:fixed], inputs[fixed : fixed + carried]
        rows = inputs[fixed + carried :]
        if any(not isinstance(row, Constant) for row in rows):
            if self.search:
                for row in rows:
                    if isinstance(row, Pixels):
                        slid_over(row, [0])
            return scan.scan(
                self.assembler, params, inputs, lambda each: self._inside(params["jaxpr"], each)
            )
        if params["length"] > LONGEST:
            raise Unreadable(f"a scan of {params['length']} steps, more than {LONGEST}")
        order = range(params["length"])
        out: list[Value] = []
        every: list[list[Value]] = []
        for t in reversed(order) if params["reverse"] else order:
            each = [_row(row, t) for row in rows if isinstance(row, Constant)]
            out = self._inside(params["jaxpr"], [*consts, *carry, *each])
            carry = out[:carried]
            every.append(out[carried:])
        return [*carry, *(self._stacked(list(values)) for values in zip(*every))]

    def _stacked(self, values: list[Value]) -> Value:
        """What the steps of a scan give, as channels of one value."""
        if not isinstance(values[0], Pixels):
            return values[0]
        make = self.assembler
        make.note("steps of a scan side by side: what reads some of them is read as reading all")
        maps = [make.flush(v) for v in values if isinstance(v, Pixels)]
        node = make.add(Concat(), *(s.node for s in maps))
        return Pixels(node, (plain(CHANNEL, len(maps)), *maps[0].dims))

    def _cond(self, params: Any, inputs: list[Value]) -> list[Value]:
        index, branches = inputs[0], params["branches"]
        known = index.get() if isinstance(index, Constant) else None
        if known is not None:
            return self._inside(branches[int(known)], inputs[1:])
        found = [self._inside(branch, inputs[1:]) for branch in branches]
        joined = []
        for values in zip(*found):
            pixels = [v for v in values if not isinstance(v, Constant)]
            joined.append(self.assembler.merge("select", *pixels) if pixels else values[0])
        return joined

    def _own(self, key: str, eqn: Any, inputs: list[Value]) -> list[Value]:
        self.used.add(key)
        shapes = [tuple(v.aval.shape) for v in eqn.outvars]
        found = {shape: self.own(self.rules[key], inputs, shape) for shape in dict.fromkeys(shapes)}
        return [found[shape] for shape in shapes]

    def _operation(self, eqn: Any, inputs: list[Value]) -> Sequence[Value]:
        found = apply(self.assembler, eqn, inputs, self.search)
        return found if isinstance(found, list) else [found] * len(eqn.outvars)


def _alike(body: Any, name: str) -> Iterator[Any]:
    """The equations of a name, those inside others too."""
    jaxpr = body.jaxpr if isinstance(body, ClosedJaxpr) else body
    for eqn in jaxpr.eqns if jaxpr is not None else ():
        if name in (str(eqn.params.get("name", "")), eqn.primitive.name):
            yield eqn
        for inner in eqn.params.values():
            if isinstance(inner, ClosedJaxpr | Jaxpr):
                yield from _alike(inner, name)


def _within(body: Any, primitive: str) -> bool:
    """Whether a primitive is among the equations of a function, those inside others too."""
    jaxpr = body.jaxpr if isinstance(body, ClosedJaxpr) else body
    for eqn in jaxpr.eqns:
        inner = [p for p in eqn.params.values() if isinstance(p, ClosedJaxpr | Jaxpr)]
        if eqn.primitive.name == primitive or any(_within(p, primitive) for p in inner):
            return True
    return False


def _row(rows: Constant, index: int) -> Constant:
    def get():
        known = rows.get()
        return None if known is None else known[index]

    return lazy(rows.shape[1:], get)


def _line(eqn: Any) -> str:
    """File and line of the model that made an equation, "" where that is not known."""
    frames = getattr(eqn.source_info.traceback, "frames", None) or []
    for frame in frames:
        place = frame.file_name.replace("\\", "/")
        if not any(part in place for part in ("/jax/", "/erftheory/importers/", "/jaxlib/")):
            return f"{place.rsplit('/', 1)[-1]}:{frame.line_num}"
    return ""
