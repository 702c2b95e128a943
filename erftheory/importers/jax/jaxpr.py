"""Reads the equations of a jaxpr, in order; operations that move pixels are in movement.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from erftheory.importers.build.assemble import Assembler
from erftheory.importers.build.pointwise import KNOWN
from erftheory.importers.build.rules import keeps_shape, proposed
from erftheory.importers.build.windows import SpatialAxes, described, slid_over, widened
from erftheory.importers.jax import movement, scan, windows
from erftheory.importers.jax.constants import computed
from erftheory.importers.values.constants import given, lazy
from erftheory.importers.values.dimensions import CHANNEL, plain
from erftheory.importers.values.pixels import Constant, Global, Listed, Partial, Pixels, Value
from erftheory.importers.values.refusals import BESIDE, Unreadable
from erftheory.network.activations import LEAKY
from erftheory.network.base import Network
from erftheory.network.graph import Concat

__all__ = ["Reader", "SpatialAxes"]

LONGEST = 1024  # iterations of a scan that are read one by one
NAMES = {**KNOWN, "relu6": "relu", "swish": "silu"}
NEARLY = {"hard_silu": "silu", "hard_swish": "silu", "hard_sigmoid": "sigmoid"}

LINEAR = frozenset((
    "convert_element_type", "copy", "copy_p", "stop_gradient", "real", "reduce_precision",
    "device_put", "sharding_constraint", "name", "pvary", "optimization_barrier",
))  # fmt: skip
CURVES = {
    "tanh": "tanh", "logistic": "sigmoid", "abs": "abs", "erf": "erf", "erfc": "erf",
    "sqrt": "sqrt", "rsqrt": "rsqrt",
}  # fmt: skip
OTHER = frozenset((
    "exp", "exp2", "log", "log1p", "expm1", "sin", "cos", "tan", "asin", "acos", "atan", "sinh",
    "cosh", "asinh", "acosh", "atanh", "floor", "ceil", "round", "sign", "is_finite", "not",
    "square", "cbrt", "erf_inv", "lgamma", "digamma", "imag", "conj", "population_count", "clz",
))  # fmt: skip
BINARY = frozenset((
    "add", "add_any", "sub", "mul", "div", "max", "min", "pow", "atan2", "rem", "nextafter", "eq",
    "ne", "lt", "le", "gt", "ge", "and", "or", "xor", "shift_left", "shift_right_logical",
    "shift_right_arithmetic", "complex",
))  # fmt: skip
REDUCTIONS = {
    "reduce_sum": "sum", "reduce_max": "max", "reduce_min": "max", "reduce_prod": "sum",
    "reduce_and": "max", "reduce_or": "max", "reduce_xor": "max", "argmax": "max",
    "argmin": "max",
}  # fmt: skip
ALONG = ("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")


class Reader:
    """Goes through a jaxpr with an `Assembler`; `marks` are the named scopes it met."""

    def __init__(self, assembler: Assembler, rules: dict[str, Any], search: bool = False):
        self.assembler, self.rules, self.search = assembler, rules, search
        self.marks: dict[str, Pixels] = {}
        self.used: set[str] = set()
        self.root: Jaxpr | None = None  # the whole model

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
            if why.operation is None:
                shapes = ", ".join(str(getattr(v.aval, "shape", "")) for v in eqn.invars)
                advice = self._advice(name, eqn, inputs)
                raise Unreadable(str(why), (name, shapes), line, advice) from None
            advice = why.advice or self._advice(name, eqn, inputs)  # of a function around it
            # a jitted function is traced once, without its caller's line
            raise Unreadable(why.why, why.operation, why.line or line, advice) from None

    def _advice(self, name: str, eqn: Any, inputs: list[Value]) -> list[str]:
        shape = tuple(eqn.outvars[0].aval.shape)
        if name in movement.RULES or name in windows.RULES or name in BINARY:
            return []  # a rule would be for all others of that name as well

        for other in _alike(self.root, name):  # a rule by name is for all of that name
            entering = (tuple(v.aval.shape) for v in other.invars if hasattr(v, "aval"))
            if not keeps_shape(entering, tuple(other.outvars[0].aval.shape)):
                return []

        def apply(rule: Any) -> Value:
            rules, self.rules = self.rules, {name: rule}
            try:
                return self._own(name, eqn, inputs)[0]
            finally:
                self.rules = rules

        return proposed(name, apply, shape)

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
        rule = self.rules[key]
        self.used.add(key)
        maps = [v for v in inputs if not isinstance(v, Constant)]
        if isinstance(rule, Network):
            if len(maps) != 1 or not isinstance(maps[0], Pixels):
                raise Unreadable("a network as the rule of an operation on several values")
            return [described(self.assembler, maps[0], rule, v) for v in eqn.outvars]
        value = self.assembler.merge("other", *maps)
        if isinstance(value, Pixels) and value.shape != tuple(eqn.outvars[0].aval.shape):
            shape = tuple(eqn.outvars[0].aval.shape)
            raise Unreadable(f"the rule identity between shapes {value.shape} and {shape}")
        return [value] * len(eqn.outvars)

    # ---- operations -------------------------------------------------------------------------

    def _operation(self, eqn: Any, inputs: list[Value]) -> Sequence[Value]:
        name, params, make = eqn.primitive.name, eqn.params, self.assembler
        if any(isinstance(v, Partial) for v in inputs):
            found = self._going_on(name, params, inputs)
            if found is not None:
                return [found]
            inputs = [make.opened(v) if isinstance(v, Partial) else v for v in inputs]
        if any(isinstance(v, Listed) for v in inputs):
            return self._of_listed(eqn, inputs)
        if name == "neg":
            return [make.negated(inputs[0])]
        if name in LINEAR:
            return [make.pointwise(v, "linear") for v in inputs]
        if name in CURVES:
            return [make.pointwise(inputs[0], CURVES[name])]
        if name in OTHER:
            return [make.pointwise(inputs[0], "other")]
        if name == "integer_pow":
            if params["y"] < 0:
                return [make.inverted(inputs[0])]
            return [make.pointwise(inputs[0], "other")]
        if name in BINARY:
            return [self._binary(name, inputs)]
        if name == "clamp":
            value = inputs[1]
            kept = isinstance(value, Pixels) and value.tag == "relu"
            return [make.pointwise(value, "linear" if kept else "other")]
        if name == "select_n":
            return [self._select(inputs)]
        if name in REDUCTIONS:
            axes = params["axes"]
            return [make.reduce(inputs[0], axes, REDUCTIONS[name])]
        if name in ALONG or name == "sort":
            return self._along(name, params, inputs)
        rule: Callable | None = movement.RULES.get(name) or windows.RULES.get(name)
        if rule is None:
            raise Unreadable("an operation without a rule")
        found = rule(make, eqn, inputs, self.search)
        return found if isinstance(found, list) else [found]

    def _going_on(self, name: str, params: Any, inputs: list[Value]) -> Value | None:
        """A reduction over some axes is scaled, or goes on over the others; else None."""
        value = next(v for v in inputs if isinstance(v, Partial))
        others = all(v is value or isinstance(v, Constant) for v in inputs)
        if name in REDUCTIONS and len(inputs) == 1:
            return self.assembler.reduce(value, params["axes"], REDUCTIONS[name])
        if name in ("sub", "div") and not others:  # a statistic
            return self._binary(name, inputs)
        scaled = name in ("mul", "div") and value is inputs[0] and others
        return value if name in LINEAR or scaled else None

    def _of_listed(self, eqn: Any, inputs: list[Value]) -> Sequence[Value]:
        """Different pixels one behind the other: what acts on each alone, or cuts them apart."""
        name, out = eqn.primitive.name, tuple(eqn.outvars[0].aval.shape)
        if name == "concatenate":
            return [self.assembler.concat(inputs, eqn.params["dimension"], out)]
        which = next(i for i, v in enumerate(inputs) if isinstance(v, Listed))
        x = inputs[which]
        assert isinstance(x, Listed)
        if any(not isinstance(v, Constant) for i, v in enumerate(inputs) if i != which):
            raise Unreadable(BESIDE)
        if name in ("slice", "split"):
            found = movement.RULES[name](self.assembler, eqn, inputs, self.search)
            return found if isinstance(found, list) else [found]
        still = name == "conv_general_dilated" and math.prod(
            eqn.invars[1].aval.shape[d] for d in eqn.params["dimension_numbers"].rhs_spec[2:]
        ) == 1  # fmt: skip
        if not (still or name in (*LINEAR, *CURVES, *OTHER, *BINARY, "neg", "clamp")):
            raise Unreadable(BESIDE)

        def run(part: Pixels, shape: tuple[int, ...]) -> Value:
            one = SimpleNamespace(
                primitive=eqn.primitive, params=eqn.params, invars=eqn.invars,
                outvars=[SimpleNamespace(aval=SimpleNamespace(shape=shape))],
            )  # fmt: skip
            values: list[Value] = [part if i == which else v for i, v in enumerate(inputs)]
            return self._operation(one, values)[0]

        return [x.mapped(run, out)]

    def _along(self, name: str, params: Any, inputs: list[Value]) -> list[Value]:
        axis = params.get("axis", params.get("dimension"))
        for value in inputs:
            if isinstance(value, Pixels) and any(a.axis >= 0 for a in value.dims[axis]):
                if name in ALONG:
                    way = "backward" if params.get("reverse") else "forward"
                    return [self.assembler.running(value, axis, way)]
                raise Unreadable("an operation that runs along the whole image")
        return [self.assembler.pointwise(v, "other") for v in inputs]

    def _binary(self, name: str, inputs: list[Value]) -> Value:
        make = self.assembler
        a, b = inputs
        if not isinstance(a, Constant) and not isinstance(b, Constant):
            kind = name if name in ("add", "sub", "mul", "div") else "other"
            return make.merge("add" if name == "add_any" else kind, a, b)
        first = not isinstance(a, Constant)
        value, other = (a, b) if first else (b, a)
        assert isinstance(other, Constant)
        value = widened(value, other)
        if name in ("add", "add_any", "sub"):
            value = make.negated(value) if name == "sub" and not first else value
            return make.pointwise(value, "linear")
        if name == "mul" or (name == "div" and first):
            return make.scaled(value, other, divide=name == "div")
        if name == "div":
            return make.inverted(value)
        if name in ("max", "min", "pow"):
            return make.pointwise(value, _against(name, value, other))
        return make.pointwise(value, "other")

    def _select(self, inputs: list[Value]) -> Value:
        which, *cases = inputs
        values = [v for v in cases if not isinstance(v, Constant)]
        make = self.assembler
        if isinstance(which, Constant):
            return values[0] if len(values) == 1 else make.merge("select", *values)
        if isinstance(which, Global):
            return make.merge("mul", *values, which) if values else which
        value = make.merge("select", *values) if values else which
        if isinstance(value, Pixels) and isinstance(which, Pixels) and value.node == which.node:
            return make.pointwise(value, "other")
        return make.merge("other", value, which)


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


def _against(name: str, value: Value, constant: Constant) -> str:
    """What max, min or pow with a constant does to a map."""
    known = constant.get() if constant.shape == () or np.prod(constant.shape) == 1 else None
    number = None if known is None else float(np.ravel(known)[0])
    if name == "pow":
        return {0.5: "sqrt", -0.5: "rsqrt"}.get(number or 0.0, "other")
    if isinstance(value, Global) or (isinstance(value, Pixels) and value.tag in ("stat", "sstat")):
        return "linear"
    if name == "max" and number == 0:
        return "relu"
    kept = isinstance(value, Pixels) and value.tag == "relu" and name == "min"
    return "linear" if kept else "other"


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
