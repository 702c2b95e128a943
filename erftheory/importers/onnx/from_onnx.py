"""A network from an ONNX model."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from erftheory.importers.building.assemble import Assembler
from erftheory.importers.building.draft import HOLD
from erftheory.importers.building.ends import asked, check_maps, readable
from erftheory.importers.building.image import Axes, image_axes, whole_image
from erftheory.importers.building.rules import check_rules
from erftheory.importers.onnx.reader import OnnxReader, ends, needed
from erftheory.importers.values.refusals import Unreadable
from erftheory.network.arguments import one_of
from erftheory.network.imported import ImportedNetwork

_WORD = re.compile(r"[A-Za-z][A-Za-z_ ]*")


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
    inputs = {v.name: v for v in proto.graph.input if v.name not in known}
    if image is None and len(inputs) != 1:
        raise ValueError(f"image: got None for a model of inputs {[*inputs]}; takes one of them")
    name = one_of("image", next(iter(inputs)) if image is None else image, [*inputs])
    sizes = _shape(inputs[name], shape)
    last = asked(outputs, lambda: ends(proto))
    wanted = None if last is None else needed(proto, list(last.values()))

    def read(axes: Sequence[int], search: bool = False) -> OnnxReader:
        reader = OnnxReader(onnx, proto, Assembler(len(axes), hold), rules or {}, search)
        reader.values[name] = whole_image(sizes, axes)
        try:
            reader.run(wanted)
        except Unreadable as why:
            raise why.but(ends=readable(reader.marks, reader.modules, reader.unread)) from None
        return reader

    axes, named = image_axes(spatial_axes, read, sizes)
    reader = read(axes)
    if last is None:
        values = {out.name: reader.values[out.name] for out in proto.graph.output}
    else:
        values = {k: reader.values[value] for k, (_, value) in last.items()}
        check_maps(values)
    return reader.network(values, named or _axis_names(inputs[name], axes), "model")


def _axis_names(image: Any, axes: Sequence[int]) -> tuple[str, ...]:
    """What the file calls the sizes of its image that are open, "" where that is no word."""
    dims = image.type.tensor_type.shape.dim
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
        from google.protobuf.message import DecodeError  # ONNX reads its files by it

        try:
            model = onnx.load(model)
        except (OSError, TypeError, onnx.checker.ValidationError) as error:
            raise ValueError(f"model: got {model!r}, {error}; takes a path of a model") from error
        except DecodeError as error:
            raise ValueError(f"model: got {model!r}, which is no ONNX file") from error
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _shape(value: Any, asked: Sequence[int] | None) -> tuple[int, ...]:
    dims = value.type.tensor_type.shape.dim
    found = [d.dim_value if d.dim_value > 0 else None for d in dims]  # Paddle writes -1
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
