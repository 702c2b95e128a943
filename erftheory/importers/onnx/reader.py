"""Goes through the nodes of an ONNX graph, in order."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from erftheory.importers.building.assemble import Assembler
from erftheory.importers.building.image import slid_over
from erftheory.importers.building.reader import Reader
from erftheory.importers.building.rules import keeps_shape, proposed
from erftheory.importers.onnx.opsets import LEFT_OUT, today
from erftheory.importers.onnx.rules import RECURRENT, apply
from erftheory.importers.values.constants import lazy
from erftheory.importers.values.pixels import Constant, Pixels, Value
from erftheory.importers.values.refusals import Unreadable

WINDOWS = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool")


class OnnxReader(Reader):
    """Reads the nodes of a model; `values` are by name."""

    def __init__(
        self, onnx: Any, proto: Any, assembler: Assembler, rules: Mapping[str, Any],
        search: bool = False,
    ):  # fmt: skip
        super().__init__(assembler, rules, search)
        self.onnx, self.proto = onnx, proto
        self.values: dict[str, Value] = {"": LEFT_OUT}
        self._shapes: dict[str, Any] | None = None
        versions = {o.domain: o.version for o in proto.opset_import}
        self.versions, self.opset = versions, versions.get("", 1)
        for tensor in proto.graph.initializer:
            self.values[tensor.name] = self._tensor(tensor)

    def _tensor(self, tensor: Any) -> Constant:
        return lazy(tuple(tensor.dims), lambda: self.onnx.numpy_helper.to_array(tensor))

    def run(self, wanted: set[int] | None = None) -> None:
        """Reads the nodes at some places, all of them if None."""
        for index, node in enumerate(self.proto.graph.node):
            if wanted is not None and index not in wanted:
                continue
            inputs = [self.values[name] for name in node.input]
            scopes = _scopes(node)
            self.assembler.scope = scopes[-1] if scopes else ""
            self.unread = scopes
            self.modules.update(s for s in scopes if s != node.name)
            for name, value in zip(node.output, self._node(node, inputs)):
                self.values[name] = value
                self.mark(filter(None, (*scopes, node.name, name)), value)
        self.assembler.scope = ""

    def _node(self, node: Any, inputs: list[Value]) -> Sequence[Value]:
        if node.op_type == "Constant":
            return [self._constant(node)]
        if node.op_type == "Shape" and isinstance(inputs[0], Pixels):
            shape = np.array(inputs[0].shape, dtype=np.int64)
            at = {a.name: a.i for a in node.attribute}
            shape = shape[at.get("start", 0) : at.get("end", len(shape))]
            return [lazy(shape.shape, lambda: shape)]
        if all(isinstance(v, Constant) for v in inputs):
            return self._computed(node, inputs)
        try:
            rule = self.rules.get(node.op_type)
            if rule is not None:
                self.used.add(node.op_type)
                return [self._own(node, rule, inputs)] * len(node.output)
            attributes = {a.name: self._attribute(a) for a in node.attribute}
            count = len(node.output)
            kind, at, values = today(node.op_type, attributes, inputs, self.opset, count)
            image = values[0]
            if self.search and isinstance(image, Pixels):
                if kind in WINDOWS:
                    slid_over(image, range(2, len(image.dims)))
                if kind in RECURRENT:
                    slid_over(image, [1 if at.get("layout") else 0])
            found = apply(self.assembler, kind, at, values)
            return found if isinstance(found, list) else [found] * count
        except Unreadable as why:
            raise self._refused(why, node, inputs) from None

    def _refused(self, why: Unreadable, node: Any, inputs: list[Value]) -> Unreadable:
        shapes = ", ".join(str(getattr(v, "shape", "")) for v in inputs)
        advice = []
        alike = [n for n in self.proto.graph.node if n.op_type == node.op_type]
        # a rule by name is for all of that name
        if all(keeps_shape(map(self._shape, n.input), self._shape_of(n)) for n in alike):
            own = lambda rule: self._own(node, rule, inputs)  # noqa: E731
            advice = proposed(node.op_type, own, self._shape_of(node))
        return why.but(operation=(node.op_type, shapes), line=node.name, advice=advice)

    def _own(self, node: Any, rule: Any, inputs: list[Value]) -> Value:
        return self.own(rule, inputs, self._shape_of(node))

    def _shape_of(self, node: Any) -> tuple[int, ...] | None:
        """The shape of a node's first output, where it is known."""
        return self._shape(node.output[0])

    def _shape(self, name: str) -> tuple[int, ...] | None:
        if self._shapes is None:
            graph = self.proto.graph
            rows = (*graph.value_info, *graph.output, *graph.input)
            self._shapes = {v.name: v.type.tensor_type for v in rows}
        value = self.values.get(name)
        if isinstance(value, Pixels | Constant):
            return value.shape
        kind = self._shapes.get(name)
        if kind is None or not kind.HasField("shape"):
            return None
        dims = [d.dim_value for d in kind.shape.dim]
        return tuple(dims) if all(n > 0 for n in dims) else None

    def _attribute(self, attribute: Any) -> Any:
        value = self.onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            return value.decode()
        return list(value) if not isinstance(value, (int, float, str)) else value

    def _constant(self, node: Any) -> Constant:
        value = self.onnx.helper.get_attribute_value(node.attribute[0])
        if hasattr(value, "dims"):
            return self._tensor(value)
        array = np.asarray(value)
        return lazy(array.shape, lambda: array)

    def _computed(self, node: Any, inputs: Sequence[Value]) -> list[Value]:
        kept: list[list[Any] | None] = []

        def run() -> list[Any] | None:
            if not kept:
                given = [v.get() if isinstance(v, Constant) else None for v in inputs]
                feeds = dict(zip(node.input, given))
                feeds.pop("", None)
                if any(v is None for v in feeds.values()):
                    kept.append(None)
                else:
                    kept.append(self._evaluated(node, feeds))
            return kept[0]

        def pick(index: int) -> Any:
            found = run()
            return None if found is None else np.asarray(found[index])

        results: list[Value] = []
        for i, name in enumerate(node.output):
            shape = self._inferred(name)
            if shape is None:
                value = pick(i)
                shape = () if value is None else value.shape
            results.append(lazy(shape, lambda i=i: pick(i)))
        return results

    def _evaluated(self, node: Any, feeds: dict[str, Any]) -> list[Any]:
        if node.op_type == "Unsqueeze" and node.attribute:  # the reference stumbles over this form
            axes = tuple(self._attribute(node.attribute[0]))
            return [np.expand_dims(feeds[node.input[0]], axes)]
        evaluator = self.onnx.reference.ReferenceEvaluator(node, opsets=self.versions)
        return evaluator.run(None, feeds)

    def _inferred(self, name: str) -> tuple[int, ...] | None:
        for info in self.proto.graph.value_info:
            if info.name == name and info.type.tensor_type.HasField("shape"):
                dims = info.type.tensor_type.shape.dim
                if all(d.HasField("dim_value") for d in dims):
                    return tuple(d.dim_value for d in dims)
        return None


def ends(proto: Any) -> dict[str, tuple[int, str]]:
    """Place and result of the last node of every endpoint."""
    found: dict[str, tuple[int, str]] = {}
    for index, node in enumerate(proto.graph.node):
        results = [name for name in node.output if name]
        for mark in filter(None, (*_scopes(node), node.name)):
            found[mark] = index, results[0]
        found.update((name, (index, name)) for name in results)
    return found


def needed(proto: Any, last: Sequence[tuple[int, str]]) -> set[int]:
    """Places of the nodes that some depend on."""
    values, found = {name for _, name in last}, set()
    for index in range(len(proto.graph.node) - 1, -1, -1):
        node = proto.graph.node[index]
        if values.intersection(node.output):
            found.add(index)
            values.update(node.input)
    return found


def _scopes(node: Any) -> list[str]:
    """The modules that a PyTorch export took the node from, outermost first, else its own name."""
    for prop in node.metadata_props:
        if prop.key == "pkg.torch.onnx.name_scopes":
            try:
                *names, _ = ast.literal_eval(prop.value)
            except (ValueError, SyntaxError):
                break
            # a module that is called again has an @ and a number
            return list(dict.fromkeys(n.partition("@")[0] for n in names if n))
    return [node.name] if node.name else []
