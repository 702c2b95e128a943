"""Files of ERF records: .npz with numpy arrays and JSON text only."""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np

from erftheory.erf.bound import ErrorBound
from erftheory.erf.jackknife import Replicates
from erftheory.files import whole

T = TypeVar("T")  # the record, which imports this module
_FORMAT = "erftheory.ERF 1"
_REPLICATES = ("maps", "gradient", "gradient_stderr")
_HEADER = ("offset", "signal", "method", "std_stderr", "samples", "metadata", "_separable")


@dataclass(frozen=True)
class SavedReceptiveField:
    """What a file keeps of a receptive field; one entry an axis, in input pixels."""

    size: tuple[float, ...]
    stride: tuple[float, ...]
    padding: tuple[float, ...]
    center: tuple[float, ...]


def write(record: Any, path: str | os.PathLike[str]) -> None:
    """Write a record, whole or not at all."""
    field = record.receptive_field
    kept = () if field is None else SavedReceptiveField.__dataclass_fields__
    header = {name: getattr(record, name) for name in _HEADER} | {
        "format": _FORMAT,
        "error": asdict(record.error),
        "receptive_field": {name: [_number(v) for v in getattr(field, name)] for name in kept},
    }
    try:
        arrays = {"header": np.array(json.dumps(header))}
    except TypeError as error:
        raise ValueError(f"metadata: {error}, takes what JSON can hold") from None
    arrays |= _packed("marginals", record.__dict__.get("marginals"))
    arrays |= _packed("map", None if record._separable else record.map)
    arrays |= _packed("_log", None if record._log is None else record._log_form)
    arrays |= _packed("_holes", record._hole_form) | _packed("stderr", record.stderr)
    arrays |= _packed("_covariance", record._covariance)
    for name in _REPLICATES if record.replicates is not None else ():
        arrays |= _packed(f"replicates_{name}", getattr(record.replicates, name))
    with whole(path) as place, open(place, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)  # pyright: ignore[reportArgumentType]


def read(kind: type[T], path: str | os.PathLike[str]) -> T:
    """The record in a file; ValueError for a file that `write` did not write."""
    from zipfile import BadZipFile  # of all that a record needs, the slowest to import

    try:
        with np.load(path, allow_pickle=False) as file:
            return _restored(kind, dict(file))
    except (ValueError, KeyError, TypeError, EOFError, BadZipFile, zlib.error):
        message = f"path: got {os.fspath(path)}, takes an .npz file that ERF.save wrote"
        raise ValueError(message) from None


def _restored(kind: type[T], arrays: dict[str, np.ndarray]) -> T:
    """Past the constructor, because dividing by the sum a second time would not be exact."""
    header = json.loads(str(arrays.pop("header")))
    if header.pop("format") != _FORMAT:
        raise ValueError
    record: Any = kind.__new__(kind)
    state = record.__dict__
    state.update(dict.fromkeys(["_map", "_log", "_holes", "stderr", "_covariance"]), **header)
    names = [f"replicates_{name}" for name in _REPLICATES]
    kept = [arrays.pop(name) for name in names if name in arrays]
    state["replicates"] = Replicates(*kept) if kept else None
    field, std_stderr = header["receptive_field"], header["std_stderr"]
    state["offset"] = tuple(header["offset"])
    state["error"] = ErrorBound(**header["error"])
    state["std_stderr"] = std_stderr and tuple(std_stderr)
    tuples = {name: tuple(values) for name, values in field.items()}
    state["receptive_field"] = SavedReceptiveField(**tuples) if field else None
    for key, array in arrays.items():
        array.flags.writeable = False
        name, _, axis = key.partition(".")
        state[name] = (*(state.get(name) or ()), array) if axis else array
    if record.ndim != len(record.shape):
        raise ValueError
    return record


def _number(value: Any) -> float:
    return int(value) if float(value).is_integer() else float(value)


def _packed(name: str, form: Any) -> dict[str, np.ndarray]:
    if isinstance(form, tuple):
        return {f"{name}.{axis}": side for axis, side in enumerate(form)}
    return {} if form is None else {name: form}
