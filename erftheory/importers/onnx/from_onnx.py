"""A network from an ONNX model."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from erftheory.importers.build.assemble import Assembler
from erftheory.importers.build.ends import asked, check_maps, placed, readable
from erftheory.importers.build.image import Axes, asked_axes, first_window, whole_image
from erftheory.importers.build.pointwise import HOLD
from erftheory.importers.build.rules import check_rules, keeps_shape, note_unused, proposed
from erftheory.importers.build.windows import slid_over
from erftheory.importers.onnx import rules as onnx_rules
from erftheory.importers.values.constants import lazy
from erftheory.importers.values.pixels import Constant, Pixels, Value
from erftheory.importers.values.refusals import Unreadable
from erftheory.network.arguments import one_of
from erftheory.network.base import Network
from erftheory.network.imported import ImportedNetwork

WINDOWS = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool")


def from_onnx(
    model: Any,
    spatial_axes: Axes = None,
    image: str | None = None,
    shape: Sequence[int] | None = None,
    hold: str = "statistics",
    rules: Mapping[str, Any] | None = None,
    outputs: Sequence[str] | None = None,
) -> ImportedNetwork:
    """The network of an ONNX model.

    Args:
      model: path of a file, or an `onnx.ModelProto`.
      spatial_axes: dimensions of the image that are pixels, or a dictionary of names to them
        ({"height": 2, "width": 3}; the names of open sizes are known); None is those that the first
        convolution or pooling slides over, and in a model without any all from the third on.
      image: name of the input; None is the only one.
      shape: sizes of the input, where the model leaves some of them open.
      hold, rules: as in `from_jax`; rules are by operator type, "identity" or a `Network`.
      outputs: endpoints at which the network ends, the last one its output; what they do not need
        is not read. None are the model's own outputs.

    Returns:
      a network whose endpoints (`until`) are the names of the nodes, of the values and of the
      model's outputs.

    Raises:
      ValueError: not a model, an open shape, or an operator that has no reading.
    """
    onnx = _onnx()
    one_of("hold", hold, HOLD)
    check_rules(rules)
    proto = _loaded(onnx, model)
    known = {t.name for t in proto.graph.initializer}
    inputs = [v for v in proto.graph.input if v.name not in known]
    names = [v.name for v in inputs]
    if image is None and len(names) != 1:
        raise ValueError(f"image: got None for a model of inputs {names}; takes one of them")
    name: str = one_of("image", names[0] if image is None else image, names)
    sizes = _shape(next(v for v in inputs if v.name == name), shape)

    last = asked(outputs, lambda: _ends(proto))
    wanted = None if last is None else _needed(proto, list(last.values()))

    def read(axes: Sequence[int], search: bool = False) -> _Reader:
        reader = _Reader(onnx, proto, Assembler(len(axes), hold), dict(rules or {}), search)
        reader.values[name] = whole_image(sizes, axes)
        try:
            reader.run(wanted)
        except Unreadable as why:
            last = readable(reader.marks, reader.modules, reader.unread)
            raise Unreadable(f"{why}{last}") from None
        return reader

    given, named = asked_axes(spatial_axes)
    axes = first_window(read, len(sizes)) if given is None else given
    if not 1 <= len(axes) <= 3 or not all(0 <= a < len(sizes) for a in axes):
        raise ValueError(f"spatial_axes: got {spatial_axes}; takes 1 to 3 dimensions of {sizes}")
    reader = read(axes)
    assembler = reader.assembler
    note_unused(assembler, reader.rules, reader.used)
    if last is None:
        values = {out.name: reader.values[out.name] for out in proto.graph.output}
    else:
        values = {k: reader.values[value] for k, (_, value) in last.items()}
        check_maps(values)
    ended = {
        k: assembler.ended(v) for k, v in values.items() if not isinstance(v, Constant)
    }
    if not ended:
        raise ValueError("model: got outputs that do not depend on the image; takes a network")
    assembler.note_folded()
    marks = placed(assembler, reader.marks)
    return ImportedNetwork(
        len(axes), assembler.nodes, ended, marks, assembler.notes, assembler.weights,
        assembler.scales, assembler.ideal, named or _axis_names(inputs, name, axes),
    )  # fmt: skip


def _axis_names(inputs: Sequence[Any], name: str, axes: Sequence[int]) -> tuple[str, ...]:
    """What the file calls the sizes of its image that are open, "" where that is no word."""
    dims = next(v for v in inputs if v.name == name).type.tensor_type.shape.dim
    found = (dims[a].dim_param for a in axes)
    return tuple(n if _WORD.fullmatch(n) and not n.startswith("unk") else "" for n in found)


def _onnx() -> Any:
    try:
        import onnx
        import onnx.inliner
        import onnx.reference
        import onnx.shape_inference
    except ModuleNotFoundError as error:
        raise ValueError(f"model: needs the package {error.name!r}, pip install onnx") from error
    return onnx


def _loaded(onnx: Any, model: Any) -> Any:
    if not hasattr(model, "graph"):
        if not isinstance(model, str | os.PathLike):
            got = type(model).__name__
            raise ValueError(f"model: got {got}; takes a path of a model, or an onnx.ModelProto")
        try:
            model = onnx.load(model)
        except (OSError, TypeError, onnx.checker.ValidationError) as error:
            raise ValueError(f"model: got {model!r}, {error}; takes a path of a model") from error
        except Exception as error:  # protobuf's own error type is not public
            if type(error).__name__ != "DecodeError":
                raise
            raise ValueError(f"model: got {model!r}, which is no ONNX file") from error
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _shape(value: Any, asked: Sequence[int] | None) -> tuple[int, ...]:
    dims = value.type.tensor_type.shape.dim
    found = [d.dim_value or None for d in dims]
    if asked is not None:
        fits = len(asked) == len(found) and all(n in (None, a) for a, n in zip(asked, found))
        if not fits:
            raise ValueError(f"shape: got {tuple(asked)}; takes sizes that match {tuple(found)}")
        return tuple(int(a) for a in asked)
    if found and found[0] is None:
        found[0] = 1
    if not found or None in found:
        open_ = tuple(d.dim_param or d.dim_value for d in dims)
        raise ValueError(f"shape: got None for an input of open sizes {open_}; takes all sizes")
    return tuple(n for n in found if n is not None)


_WORD = re.compile(r"[A-Za-z][A-Za-z_ ]*")


class _Reader:
    """Goes through the nodes of a model; `values` and `marks` are by name."""

    def __init__(
        self,
        onnx: Any,
        proto: Any,
        assembler: Assembler,
        rules: dict[str, Any],
        search: bool = False,
    ):
        self.onnx, self.proto, self.assembler, self.rules = onnx, proto, assembler, rules
        self.search = search
        self.values: dict[str, Value] = {"": Constant(())}
        self.marks: dict[str, Pixels] = {}
        self.used: set[str] = set()
        self._shapes: dict[str, Any] | None = None
        self.unread: Sequence[str] = ()
        self.modules: set[str] = set()
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
                for mark in filter(None, (*scopes, node.name, name)):
                    if isinstance(value, Pixels):
                        self.marks[mark] = value
                    elif not isinstance(value, Constant):
                        self.marks.pop(mark, None)  # a module that ends in no map is no endpoint
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
        attributes = {a.name: self._attribute(a) for a in node.attribute}
        try:
            rule = self.rules.get(node.op_type)
            if rule is not None:
                self.used.add(node.op_type)
                return self._own(node, rule, inputs)
            if self.search and node.op_type in WINDOWS and isinstance(inputs[0], Pixels):
                slid_over(inputs[0], range(2, len(inputs[0].dims)))
            if self.search and node.op_type in onnx_rules.RECURRENT:
                if isinstance(inputs[0], Pixels):
                    slid_over(inputs[0], [1 if attributes.get("layout") else 0])
            found = onnx_rules.apply(self.assembler, node.op_type, attributes, inputs)
        except Unreadable as why:
            shapes = ", ".join(str(getattr(v, "shape", "")) for v in inputs)
            advice = []
            alike = [n for n in self.proto.graph.node if n.op_type == node.op_type]
            # a rule by name is for all of that name
            if all(keeps_shape(map(self._shape, n.input), self._shape_of(n)) for n in alike):
                own = lambda rule: self._own(node, rule, inputs)[0]  # noqa: E731
                advice = proposed(node.op_type, own, self._shape_of(node))
            raise Unreadable(why.why, (node.op_type, shapes), node.name, advice) from None
        return found if isinstance(found, list) else [found] * len(node.output)

    def _own(self, node: Any, rule: Any, inputs: list[Value]) -> list[Value]:
        pixels = [v for v in inputs if not isinstance(v, Constant)]
        if isinstance(rule, Network):
            if len(pixels) != 1 or not isinstance(pixels[0], Pixels):
                raise Unreadable("a network as the rule of an operator on several values")
            value = self.assembler.flush(self.assembler.settle(pixels[0]))
            return [onnx_rules.described(self.assembler, value, rule)] * len(node.output)
        found = self.assembler.merge("other", *pixels)
        shape = self._shape_of(node)
        if isinstance(found, Pixels) and shape is not None and found.shape != shape:
            raise Unreadable(f"the rule identity between shapes {found.shape} and {shape}")
        return [found] * len(node.output)

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
        versions = {o.domain: o.version for o in self.proto.opset_import}
        return self.onnx.reference.ReferenceEvaluator(node, opsets=versions).run(None, feeds)

    def _inferred(self, name: str) -> tuple[int, ...] | None:
        for info in self.proto.graph.value_info:
            if info.name == name and info.type.tensor_type.HasField("shape"):
                dims = info.type.tensor_type.shape.dim
                if all(d.HasField("dim_value") for d in dims):
                    return tuple(d.dim_value for d in dims)
        return None


def _ends(proto: Any) -> dict[str, tuple[int, str]]:
    """Place and result of the last node of every endpoint."""
    found: dict[str, tuple[int, str]] = {}
    for index, node in enumerate(proto.graph.node):
        results = [name for name in node.output if name]
        for mark in filter(None, (*_scopes(node), node.name)):
            found[mark] = index, results[0]
        found.update((name, (index, name)) for name in results)
    return found


def _needed(proto: Any, last: Sequence[tuple[int, str]]) -> set[int]:
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
