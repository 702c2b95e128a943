"""Operators of older opsets in the form of today's, so that rules know one form.

`onnx.version_converter` is no help: it reads a Resize of opset 10 by other coordinates, and drops
the functions of a model (tests/test_opsets.py shows both).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from erftheory.importers.values.constants import known
from erftheory.importers.values.pixels import Constant, Value

LEFT_OUT = Constant(())  # an optional input that is not there
REDUCTIONS = {
    "ReduceMax": "max", "ReduceMin": "max", "ReduceSum": "sum", "ReduceMean": "mean",
    "ReduceProd": "mean", "ReduceL1": "mean", "ReduceL2": "mean", "ReduceLogSum": "mean",
    "ReduceLogSumExp": "mean", "ReduceSumSquare": "mean",
}  # fmt: skip
# attributes that became inputs, and the place of that input
MOVED: dict[str, dict[str, int]] = {
    "Clip": {"min": 1, "max": 2},
    "Pad": {"paddings": 1, "pads": 1, "value": 2},
    "Reshape": {"shape": 1},
    "Slice": {"starts": 1, "ends": 2, "axes": 3},
    "Split": {"split": 1},
    "Squeeze": {"axes": 1},
    "Unsqueeze": {"axes": 1},
    "TopK": {"k": 1},
    "Upsample": {"scales": 2},
    **dict.fromkeys(REDUCTIONS, {"axes": 1}),
}


def today(
    kind: str, attributes: dict[str, Any], inputs: Sequence[Value], opset: int, outputs: int
) -> tuple[str, dict[str, Any], list[Value]]:
    """An operator's name, attributes and inputs as in today's opset; `outputs` says how many
    results it has, which an equal split needs."""
    at, inputs = dict(attributes), list(inputs)
    if len(inputs) == 2 and (kind == "Upsample" or (kind == "Resize" and opset < 11)):
        inputs.insert(1, LEFT_OUT)  # the region of interest
    for name, place in MOVED.get(kind, {}).items():
        if name in at:
            inputs += [LEFT_OUT] * (place + 1 - len(inputs))
            inputs[place] = _constant(at.pop(name))
    if kind in ("Upsample", "Resize") and opset < 11:
        kind, at["mode"] = "Resize", at.get("mode", "nearest").replace("bilinear", "linear")
        at |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    if kind in ("Softmax", "LogSoftmax"):  # of old, over all dimensions from one on
        rank, axis = len(inputs[0].shape), at.get("axis", -1 if opset >= 13 else 1)
        axis = axis % max(rank, 1)
        at["axes"] = range(axis, axis + 1 if opset >= 13 else rank) if rank else ()
    if kind == "Split":
        at.setdefault("num_outputs", outputs)
    return kind, at, inputs


def _constant(value: Any) -> Constant:
    array = np.asarray(value)
    return Constant(array.shape, lambda: array)


def argument(inputs: Sequence[Value], place: int, name: str) -> np.ndarray | None:
    """What an optional input says, None where it is left out."""
    if len(inputs) <= place or inputs[place] is LEFT_OUT:
        return None
    return known(inputs[place], name)
