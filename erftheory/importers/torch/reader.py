"""Goes through the operations of an exported program, in order."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.export.graph_signature import ConstantArgument, InputKind

from erftheory.importers.building.assemble import Assembler
from erftheory.importers.building.image import slid_over
from erftheory.importers.building.reader import Reader
from erftheory.importers.building.rules import keeps_shape, proposed
from erftheory.importers.torch import rules as aten
from erftheory.importers.torch.movement import VIEWS
from erftheory.importers.torch.values import Held, computed, flat, held, pixels, shapes
from erftheory.importers.torch.windows import OVER
from erftheory.importers.values.pixels import Constant, Pixels, Value
from erftheory.importers.values.refusals import Unreadable


class TorchReader(Reader):
    """Reads a program; `env` are values by node, `results` those of its outputs, in order.

    Args:
      rules: the user's, by the name of an operation or of a module's class.
      search: end at the first window, to learn which axes are pixels.
      wanted: the nodes that are read; None is all.
    """

    def __init__(
        self, program: Any, assembler: Assembler, rules: Mapping[str, Any], search: bool = False,
        wanted: set[Any] | None = None,
    ):  # fmt: skip
        super().__init__(assembler, rules, search)
        self.program, self.wanted = program, wanted
        self.env: dict[Any, Any] = {}
        self.results: list[Any] = []
        self.done: dict[str, Any] = {}  # calls of modules that the user's rules read, by place

    def run(self, image: Pixels, examples: Sequence[Any]) -> None:
        """Reads the program; `results` are the values of its outputs, in order."""
        self._inputs(image, examples)
        self.results = self._graph(self.program.graph_module)

    def _inputs(self, image: Pixels, examples: Sequence[Any]) -> None:
        program, given = self.program, iter(flat(examples))
        holders = [n for n in program.graph.nodes if n.op == "placeholder"]
        state, constants = program.state_dict, program.constants
        first = True
        for node, spec in zip(holders, program.graph_signature.input_specs):
            if spec.kind == InputKind.USER_INPUT:
                example = next(given, None)
                if isinstance(spec.arg, ConstantArgument):
                    self.env[node] = spec.arg.value
                else:
                    self.env[node] = image if first else held(example)
                    first = False
                continue
            found = state.get(spec.target)
            found = constants.get(spec.target) if found is None else found
            self.env[node] = held(found) if isinstance(found, torch.Tensor) else found

    def _graph(self, module: Any) -> list[Any]:
        outer = self.assembler.scope
        for node in module.graph.nodes:
            if node.op == "output":
                return flat(self._values(node.args))
            if node.op == "placeholder" or (self.wanted is not None and node not in self.wanted):
                continue
            if node.op == "get_attr":
                found = operator.attrgetter(node.target)(module)
                self.env[node] = held(found) if isinstance(found, torch.Tensor) else found
                continue
            places = names(node)
            self.modules.update(places)
            self.assembler.scope = places[-1] if places else outer
            value = self.env[node] = self._node(node, places)
            self.mark((*places, node.name), value)
            self.assembler.scope = outer
        return []

    def _values(self, args: Any) -> Any:
        if isinstance(args, torch.fx.Node):
            return self.env.get(args)
        if isinstance(args, (tuple, list)):
            return [self._values(a) for a in args]
        if isinstance(args, dict):
            return {k: self._values(v) for k, v in args.items()}
        return args

    def _node(self, node: Any, places: Sequence[str]) -> Any:
        key = self._module(node)
        if key is not None:
            return self._by_module(node, *key)
        args, kwargs = self._values(node.args), self._values(node.kwargs)
        if node.target is operator.getitem:
            return self._item(node, args[0], args[1], places)
        full = str(node.target)
        if full.startswith("wrap_with_"):
            return self._wrapped(args)
        parts = full.split(".")
        space, name, overload = (parts + ["", ""])[:3]
        val, inside = node.meta.get("val"), pixels((args, kwargs))
        if val is None and not node.users:
            return None  # an assertion
        written = name.endswith("_") and not name.endswith("__")
        if name in aten.SHAPES or not inside:
            return self._constant(node, name, args, kwargs, val, written and bool(val is not None))
        try:
            for rule in (full, f"{space}.{name}", name):
                if rule in self.rules:
                    self.used.add(rule)
                    return self._own(self.rules[rule], inside, shapes(val))
            if space != "aten":
                raise Unreadable("an operation without a rule")
            if self.search and isinstance(args[0], Pixels):
                rank = len(args[0].dims)
                if name in OVER:
                    slid_over(args[0], range(rank - OVER[name], rank))
                if name in aten.RECURRENT:
                    slid_over(args[0], [aten.runs_along(args[0].shape, args[-1] is True)])
            plainly = name.removesuffix("_") if written else name
            if written:
                self._check_write(node)
            if plainly in ("copy", "fill", "zero"):
                return self._store(node, args[1] if plainly == "copy" else Held(shapes(val), None))
            found = aten.apply(
                self.assembler, plainly, f"{plainly}.{overload}", shapes(val), args, kwargs
            )
            return self._store(node, found) if written else found
        except Unreadable as why:
            raise self._refused(why, node, args, kwargs, places) from None

    def _refused(self, why: Unreadable, node, args, kwargs, places) -> Unreadable:
        if why.operation is not None:
            return why
        self.unread = places
        inside = [v for v in flat((args, kwargs)) if hasattr(v, "shape")]
        shown = ", ".join(str(tuple(v.shape)) for v in inside)
        name = ".".join(str(node.target).split(".")[:2])
        advice = self._advice(node, name, pixels((args, kwargs)))
        place = places[-1] if places else ""
        return why.but(operation=(name, shown), line=place, advice=advice)

    def _advice(self, node: Any, name: str, inside: list[Value]) -> list[str]:
        """Rules that read the operation, or a module around it, the innermost first."""
        out = _first(node)
        found: list[str] = []
        same = [n for n in node.graph.nodes if n.target == node.target]
        # a rule by name is for all operations of that name
        others = len(same) > 1 and aten.moves(name.partition(".")[2])
        if not others and all(keeps_shape(map(_first, n.all_input_nodes), _first(n)) for n in same):
            whole = shapes(node.meta.get("val"))
            found = proposed(name, lambda rule: self._own(rule, inside, whole), out)
        for place, (path, kind) in reversed(list(_stack(node).items())):
            if found or not path:
                break
            found = self._module_advice(node.graph, place, path.partition("@")[0], kind)
        return found

    def _module_advice(self, graph: Any, place: str, path: str, kind: Any) -> list[str]:
        """Rules for a module: by its class if all of that class keep their shapes, else by path."""
        alike = {p for n in graph.nodes for p, (_, k) in _stack(n).items() if k == kind}
        keep = True
        for each in alike:
            entering, _, last = self._bounds(graph, lambda n, p=each: p in _stack(n))
            out = None if last is None else _first(last)
            keep = keep and keeps_shape(map(_first, entering), out)
        _, values, last = self._bounds(graph, lambda n: place in _stack(n))
        if last is None or not values or not all(isinstance(v, Pixels) for v in values):
            return []
        whole = shapes(last.meta.get("val"))
        key = _class(kind) if keep else path
        return proposed(key, lambda rule: self._own(rule, values, whole), _first(last))

    def _item(self, node: Any, values: Any, index: int, places: Sequence[str]) -> Any:
        if not isinstance(values, list):
            return values
        if index < len(values):
            return values[index]
        if not node.users:  # the last state of a recurrence
            return None
        why = "a state at the end of a recurrence"
        name = ".".join(str(node.args[0].target).split(".")[:2])
        raise Unreadable(why, (name, ""), places[-1] if places else "")

    # ---- what does not depend on the image ------------------------------------------------------

    def _constant(self, node, name, args, kwargs, val, written: bool) -> Any:
        if name in aten.SHAPES:
            if not isinstance(val, torch.Tensor):
                return val
            fill = {"zeros": torch.zeros, "ones": torch.ones}.get(name.split("_")[-1])
            fill = fill or {"zeros_like": torch.zeros, "ones_like": torch.ones}.get(name)
            shape = shapes(val)
            return Held(shape, None if fill is None else lambda: fill(shape, dtype=val.dtype))
        if written and name not in ("detach_", "requires_grad_"):
            # what is written later is not known earlier: only its shape counts
            for place in self._shared(node.args[0]):
                before = self.env.get(place)
                if isinstance(before, Constant):
                    self.env[place] = Held(before.shape, None)
            return Held(shapes(val), None)
        return computed(node.target, args, kwargs, val, name)

    # ---- what is written into -------------------------------------------------------------------

    def _shared(self, node: Any) -> list[Any]:
        """A node and those whose memory it is a view of."""
        found = [node]
        while True:
            target = str(found[-1].target).split(".")
            item = found[-1].target is operator.getitem
            if not item and (len(target) < 2 or target[1].removesuffix("_") not in VIEWS):
                return found
            before = found[-1].args[0]
            if not isinstance(before, torch.fx.Node):
                return found
            found.append(before)

    def _check_write(self, node: Any) -> None:
        """Refuses to write into a part of an array that is read later."""
        _, *bases = self._shared(node.args[0])
        order = {n: i for i, n in enumerate(node.graph.nodes)}
        for base in bases:
            if any(order[user] > order[node] for user in base.users):
                raise Unreadable("a write into a part of an array that is read later")

    def _store(self, node: Any, value: Value) -> Value:
        """The result of an operation in place: what it wrote into has it too."""
        self.env[node.args[0]] = value
        return value

    # ---- the user's rules -----------------------------------------------------------------------

    def _own(self, rule: Any, inside: list[Value], out: Any) -> Any:
        several = isinstance(out, list)
        shape = out[0] if several else out
        found = self.own(rule, inside, None if -1 in shape else shape)
        return [found] * len(out) if several else found

    def _module(self, node: Any) -> tuple[str, str] | None:
        """The call of a module that a rule is for: its place, and the rule's name."""
        if not self.rules:
            return None
        for place, (path, kind) in _stack(node).items():
            for name in (path.partition("@")[0], _class(kind)):
                if name in self.rules:
                    return place, name
        return None

    def _by_module(self, node: Any, place: str, name: str) -> Any:
        """A whole module by its rule: what enters it is what its operations read from outside."""
        if place not in self.done:
            self.used.add(name)
            _, values, last = self._bounds(node.graph, lambda n: self._module(n) == (place, name))
            out = () if last is None else shapes(last.meta.get("val"))
            try:
                self.done[place] = self._own(self.rules[name], values, out)
            except Unreadable as why:
                shown = ", ".join(str(v.shape) for v in values)
                raise why.but(operation=(name, shown), line=names(node)[-1]) from None
        return self.done[place]

    def _bounds(self, graph: Any, within: Callable[[Any], bool]) -> tuple[list, list[Value], Any]:
        """The nodes that enter a module, their values, and its last node that others read."""
        members = [n for n in graph.nodes if within(n)]
        inside = set(members)
        entering = dict.fromkeys(n for m in members for n in m.all_input_nodes if n not in inside)
        ends = [n for n in members if any(u not in inside for u in n.users)]
        found = pixels([self.env.get(n) for n in entering])
        return list(entering), found, ends[-1] if ends else None

    def _wrapped(self, args: Sequence[Any]) -> Any:
        """A part of the model under a switch (no gradients, another precision): read inside."""
        at = next(i for i, a in enumerate(args) if isinstance(a, torch.fx.GraphModule))
        module, values = args[at], args[at + 1 :]
        holders = [n for n in module.graph.nodes if n.op == "placeholder"]
        self.env.update(zip(holders, values))
        wanted, self.wanted = self.wanted, None
        found = self._graph(module)
        self.wanted = wanted
        return found


def _stack(node: Any) -> dict[str, Any]:
    """The modules around an operation: (path, class) by place, outermost first."""
    return node.meta.get("nn_module_stack") or {}


def _class(kind: Any) -> str:
    return str(kind).rsplit(".", 1)[-1].rstrip("'>")


def _first(node: Any) -> tuple[int, ...] | None:
    """The shape of a node's result, of several the first."""
    found = shapes(node.meta.get("val"))
    found = found[0] if isinstance(found, list) and found else found
    return found if isinstance(found, tuple) else None


def names(node: Any) -> list[str]:
    """Paths of the modules that an operation lies in, outermost first."""
    stack = node.meta.get("nn_module_stack") or {}
    # a module that is called again has an @ and a number
    return list(dict.fromkeys(path.partition("@")[0] for path, _ in stack.values() if path))


def ends(graph: Any) -> dict[str, Any]:
    """The last operation of every module, and every operation by its own name."""
    found: dict[str, Any] = {}
    for node in graph.nodes:
        if node.op == "call_function":
            for name in (*names(node), node.name):
                found[name] = node
    return found


def needed(graph: Any, last: Sequence[Any]) -> set[Any]:
    """The nodes that some depend on, through what is written in place as well."""
    found = set(last)
    for node in reversed(list(graph.nodes)):
        name = str(node.target).split(".")[1] if str(node.target).startswith("aten.") else ""
        writes = name.endswith("_") and not name.endswith("__") and node.args[0] in found
        if node in found or (writes and node not in last):
            found.add(node)
            found.update(node.all_input_nodes)
    return found
