"""The table of a tracker: numbers with their standard errors, and maps, a row a reading."""

from __future__ import annotations

import json
import math
import os
from typing import Any

import numpy as np

from erftheory.erf import ERF
from erftheory.files import whole

SHARE = 0.95  # of the power inside the mass radius
_FORMAT = "erftheory.Readings 1"
MEASURES = ("std", "size", "mass_radius", "share", "power")


class Readings:
    """Rows by step.

    Attributes:
      steps: of the readings, growing.
      values: measure to rows (value, standard error); `std` has one value an axis.
      maps: normalised maps, all of one shape.
      samples: images behind a reading.
    """

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.values: dict[str, list[Any]] = {name: [] for name in MEASURES}
        self.maps: list[np.ndarray] = []
        self.samples = 0

    def add(self, step: int, erf: ERF) -> None:
        """One more reading.

        Raises:
          ValueError: a map of another shape than those before.
        """
        if self.maps and erf.shape != self.maps[0].shape:
            raise ValueError(
                f"images: got a map of {erf.shape} pixels after {self.maps[0].shape}; takes images "
                "of one size in all readings of a tracker"
            )
        nan = (math.nan,) * erf.ndim
        half = min(erf.shape) / 2
        radius = erf.mass_radius(SHARE)
        replicates = erf.replicates
        radius_error = math.nan if replicates is None else erf.standard_error("mass_radius", SHARE)
        row = {
            "std": (erf.std, erf.std_stderr or nan),
            "size": (erf.size(), math.nan if replicates is None else erf.standard_error("size")),
            "mass_radius": (radius, radius_error),
            "share": (radius / half, radius_error / half),
            "power": _power(erf),
        }
        for name, pair in row.items():
            self.values[name].append(pair)
        self.steps.append(step)
        self.maps.append(np.asarray(erf.map, np.float32))
        self.samples = erf.samples or 1

    def row(self, index: int) -> dict[str, float]:
        """The numbers of one reading by name; an axis each where there are several."""
        found: dict[str, float] = {}
        for name, rows in self.values.items():
            value, error = rows[index]
            if isinstance(value, tuple):
                for axis, (v, e) in enumerate(zip(value, error, strict=True)):
                    found |= {f"{name}_{axis}": v, f"{name}_{axis}_stderr": e}
            else:
                found |= {name: value, f"{name}_stderr": error}
        return found

    def to_pandas(self) -> Any:
        import pandas

        rows = [{"step": step, **self.row(i)} for i, step in enumerate(self.steps)]
        return pandas.DataFrame(rows).set_index("step") if rows else pandas.DataFrame()

    @property
    def dataset(self) -> Any:
        import xarray

        if not self.steps:
            raise ValueError("tracker: got no reading yet; takes one call at least")
        variables: dict[str, Any] = {}
        for name, rows in self.values.items():
            dims = ("step", "axis") if isinstance(rows[0][0], tuple) else ("step",)
            units = {"power": "squared gradient an image", "share": "of half the image"}
            about = {"units": units.get(name, "pixels")}
            for i, suffix in enumerate(("", "_stderr")):
                variables[name + suffix] = (dims, np.array([row[i] for row in rows]), about)
        pixels = tuple(f"pixel_{a}" for a in range(self.maps[0].ndim))
        variables["map"] = (("step", *pixels), np.stack(self.maps), {"units": "share of the power"})
        return xarray.Dataset(
            variables, {"step": self.steps}, {"images": self.samples, "mass": SHARE}
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        header = {"format": _FORMAT, "samples": self.samples, "steps": self.steps}
        arrays: dict[str, Any] = {"header": np.array(json.dumps(header))}
        arrays["maps"] = np.stack(self.maps) if self.maps else np.zeros(0, np.float32)
        for name, rows in self.values.items():
            for i, suffix in enumerate(("", "_stderr")):
                arrays[name + suffix] = np.array([row[i] for row in rows], float)
        with whole(path) as place, open(place, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)  # pyright: ignore[reportArgumentType]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Readings:
        """ValueError for a file that `save` did not write."""
        from zipfile import BadZipFile

        found = cls()
        try:
            with np.load(path, allow_pickle=False) as file:
                header = json.loads(str(file["header"]))
                if header["format"] != _FORMAT:
                    raise ValueError(header["format"])
                found.steps, found.samples = header["steps"], header["samples"]
                found.maps = list(file["maps"])
                for name in MEASURES:
                    rows = zip(file[name].tolist(), file[f"{name}_stderr"].tolist(), strict=True)
                    found.values[name] = [
                        (tuple(v), tuple(e)) if isinstance(v, list) else (v, e) for v, e in rows
                    ]
        except (BadZipFile, KeyError, TypeError, ValueError, EOFError) as wrong:
            raise ValueError(
                f"path: got {os.fspath(path)!r}, which holds no readings ({wrong}); takes a file "
                "that a tracker saved"
            ) from None
        return found


def _power(erf: ERF) -> tuple[float, float]:
    """Mean over images of a gradient's total power, and its standard error."""
    assert erf.samples is not None
    if erf.replicates is None:
        return float(erf._total), math.nan
    groups = erf.replicates.maps.reshape(len(erf.replicates.maps), -1).sum(1)
    total, count = float(groups.sum()), len(groups)
    # of the sum over groups of (nearly) equally many images
    error = math.sqrt(count * float(np.var(groups, ddof=1)))
    return total / erf.samples, error / erf.samples
