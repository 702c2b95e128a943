"""A network from an ONNX model, or from a PyTorch module by way of ONNX."""

from __future__ import annotations

import ast
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from erftheory.importers import onnx_rules
from erftheory.importers.assemble import Assembler
from erftheory.importers.constants import lazy
from erftheory.importers.pointwise import HOLD
from erftheory.importers.rules import check_rules, note_unused
from erftheory.importers.signals import (
    BATCH,
    CHANNEL,
    Atom,
    Constant,
    Signal,
    Unreadable,
    Value,
)
from erftheory.importers.windows import SpatialAxes, slid_over
from erftheory.network.arguments import one_of
from erftheory.network.base import Network
from erftheory.network.imported import ImportedNetwork

WINDOWS = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool")


def from_onnx(
    model: Any,
    spatial_axes: Sequence[int] | None = None,
    image: str | None = None,
    shape: Sequence[int] | None = None,
    hold: str = "statistics",
    rules: Mapping[str, Any] | None = None,
) -> ImportedNetwork:
    """The network of an ONNX model.

    Args:
      model: path of a file, or an `onnx.ModelProto`.
      spatial_axes: dimensions of the image that are pixels; None is those that the first
        convolution or pooling slides over, and in a model without any all from the third on.
      image: name of the input; None is the only one.
      shape: sizes of the input, where the model leaves some of them open.
      hold, rules: as in `from_jax`; rules are by operator type, "identity" or a `Network`.

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

    def read(axes: Sequence[int], search: bool = False) -> _Reader:
        reader = _Reader(onnx, proto, Assembler(len(axes), hold), dict(rules or {}), search)
        reader.values[name] = _image(sizes, axes)
        reader.run()
        return reader

    axes = _slid_over(read, len(sizes)) if spatial_axes is None else tuple(spatial_axes)
    if not 1 <= len(axes) <= 3 or not all(0 <= a < len(sizes) for a in axes):
        raise ValueError(f"spatial_axes: got {spatial_axes}; takes 1 to 3 dimensions of {sizes}")
    reader = read(axes)
    assembler = reader.assembler
    note_unused(assembler, reader.rules, reader.used)
    outputs = {}
    for out in proto.graph.output:
        value = reader.values[out.name]
        if not isinstance(value, Constant):
            outputs[out.name] = assembler.ended(value)
    if not outputs:
        raise ValueError("model: got outputs that do not depend on the image; takes a network")
    assembler.note_folded()
    marks = {k: n for k, n in reader.marks.items() if n > 0}
    return ImportedNetwork(
        len(axes), assembler.nodes, outputs, marks, assembler.notes, assembler.weights,
        assembler.scales,
    )  # fmt: skip


def from_torch(
    module: Any,
    *examples: Any,
    hold: str = "statistics",
    rules: Mapping[str, Any] | None = None,
    spatial_axes: Sequence[int] | None = None,
) -> ImportedNetwork:
    """The network of a `torch.nn.Module`, exported to ONNX in memory in evaluation mode.

    Args:
      examples: tensors of the shapes that the module takes, the image first.
      hold, rules, spatial_axes: as in `from_onnx`.

    Raises:
      ValueError: an operator that has no reading, or a module that PyTorch cannot export.
    """
    import torch

    if not isinstance(module, torch.nn.Module):
        raise ValueError(f"module: got {type(module).__name__}; takes a torch.nn.Module")
    if not examples:
        raise ValueError("examples: got none; takes the module's arguments, the image first")
    training = {m: m.training for m in module.modules()}
    module.eval()
    try:
        with _quiet():
            # the optimiser folds batch norms into convolutions
            options: Any = {"dynamo": True, "verbose": False, "optimize": False}
            program: Any = torch.onnx.export(module, examples, **options)
    except torch.onnx.OnnxExporterError as error:
        line = str(error.__cause__ or error).strip().splitlines()[0]
        raise ValueError(f"module: got one that PyTorch cannot export: {line}") from error
    finally:
        for m, was in training.items():
            m.training = was
    proto = program.model_proto
    name = proto.graph.input[0].name
    return from_onnx(proto, hold=hold, rules=rules, spatial_axes=spatial_axes, image=name)


# PyTorch's modules that log what the exception says again, with their own traceback
_LOUD = ("torch._subclasses.fake_tensor", "torch.export._trace")


@contextmanager
def _quiet() -> Iterator[None]:
    """Drops what PyTorch's exporter says beside its result or its exception: operators of packages
    that are not installed, a deprecation in its own code, its tracebacks."""

    def wanted(record: logging.LogRecord) -> bool:
        return record.name not in _LOUD and not record.getMessage().startswith(
            "torchvision is not installed"
        )

    names = ("torch.onnx._internal.exporter._registration", *_LOUD)
    loggers = [logging.getLogger(name) for name in names]
    for logger in loggers:
        logger.addFilter(wanted)
    try:
        with warnings.catch_warnings():
            text = r".*isinstance\(treespec, LeafSpec\)"
            warnings.filterwarnings("ignore", text, FutureWarning)
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(wanted)


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


def _slid_over(read: Callable[..., Any], rank: int) -> tuple[int, ...]:
    """The dimensions of the image that its first window slides over.

    Every dimension is a candidate until a window says which; where something is done to the
    channels first, NC… and N…C are, if all the pixels of one are slid over.
    """
    for axes in (range(rank), range(2, rank), range(1, rank - 1)):
        if not axes or (len(axes) < rank and len(axes) > 3):
            continue
        try:
            read(axes, search=True)
        except SpatialAxes as found:
            if len(axes) == rank or sorted(found.axes) == list(range(len(axes))):
                return tuple(axes[a] for a in found.axes)
        except ValueError:
            pass
    return tuple(range(2, rank))


def _image(shape: Sequence[int], axes: Sequence[int]) -> Signal:
    dims = []
    for i, n in enumerate(shape):
        if i in axes:
            dims.append((Atom(axes.index(i), 1, n),))
        else:
            dims.append((Atom(BATCH if i == 0 else CHANNEL, 1, n),) if n > 1 else ())
    return Signal(0, tuple(dims))


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
        self.marks: dict[str, int] = {}
        self.used: set[str] = set()
        for tensor in proto.graph.initializer:
            self.values[tensor.name] = self._tensor(tensor)

    def _tensor(self, tensor: Any) -> Constant:
        return lazy(tuple(tensor.dims), lambda: self.onnx.numpy_helper.to_array(tensor))

    def run(self) -> None:
        for node in self.proto.graph.node:
            inputs = [self.values[name] for name in node.input]
            scopes = _scopes(node)
            self.assembler.scope = scopes[-1] if scopes else ""
            for name, value in zip(node.output, self._node(node, inputs)):
                self.values[name] = value
                for mark in filter(None, (*scopes, node.name, name)):
                    if isinstance(value, Signal):
                        self.marks[mark] = value.node
                    elif not isinstance(value, Constant):
                        self.marks.pop(mark, None)  # a module that ends in no map is no endpoint
        self.assembler.scope = ""

    def _node(self, node: Any, inputs: list[Value]) -> Sequence[Value]:
        if node.op_type == "Constant":
            return [self._constant(node)]
        if node.op_type == "Shape" and isinstance(inputs[0], Signal):
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
            if self.search and node.op_type in WINDOWS and isinstance(inputs[0], Signal):
                slid_over(inputs[0], range(2, len(inputs[0].dims)))
            found = onnx_rules.apply(self.assembler, node.op_type, attributes, inputs)
        except Unreadable as why:
            shapes = ", ".join(str(getattr(v, "shape", "")) for v in inputs)
            raise Unreadable(why.why, (node.op_type, shapes), node.name) from None
        return found if isinstance(found, list) else [found] * len(node.output)

    def _own(self, node: Any, rule: Any, inputs: list[Value]) -> list[Value]:
        pixels = [v for v in inputs if not isinstance(v, Constant)]
        if isinstance(rule, Network):
            if len(pixels) != 1 or not isinstance(pixels[0], Signal):
                raise Unreadable("a network as the rule of an operator on several values")
            value = self.assembler.flush(self.assembler.settle(pixels[0]))
            return [onnx_rules.described(self.assembler, value, rule)] * len(node.output)
        return [self.assembler.merge("other", *pixels)] * len(node.output)

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
