"""Which pixels reach a unit of any function, found by changing them.

The probe assumes nothing of the function: it changes rows of the input and looks at the unit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from erftheory.empirical.measured.choose import model
from erftheory.empirical.measured.model import Model
from erftheory.empirical.referees.probe_network import Probe, probe_network
from erftheory.network.arguments import integer, one_of
from erftheory.network.base import Network

MODES = ("auto", "nan", "perturb")
_SIZE = 1e3  # of a finite change: large, so that it wins in max pools and opens rectifiers


def probe_receptive_field(
    function: Any,
    example: Any = None,
    unit: Any = "center",
    *,
    mode: str = "auto",
    spatial_axes: Any = None,
    output_axes: Any = None,
    phases: int = 1,
    holes: bool = True,
    select: Callable[[Any], Any] | None = None,
    seeds: int = 4,
    batch: int = 16,
    channels: int = 2,
    margin: int = 2,
) -> Probe:
    """The receptive field of a network or of any function, by experiment.

    All input channels of whole rows (columns, planes) of pixels are changed at once, and the unit
    is reached if any of its output channels changes.

    Args:
      function: a `Network`, executed with random weights (`channels` and `margin` belong to it,
        and all other arguments to functions); a function of a batch, or a torch module, as for
        `gradient_erf`.
      example: one input with its batch axis of length 1: an array or `jax.ShapeDtypeStruct`.
      unit: index in the output grid; "center" is n_out // 2.
      mode: "nan" sets pixels to NaN. Every tap counts, zero weights too, and nothing is lost to
        rounding; but a function that tests its values (`where(x > 0, …)`) may hide a NaN, as XLA's
        max pooling on CPUs does at some sizes (jaxlib 0.10), and masked attention, batch statistics
        and resizing by a matrix spread it over the image. "perturb" adds large random numbers to
        `seeds` random inputs and compares the outputs bit by bit; it misses zero weights and pixels
        whose effect is below the rounding of the precision that JAX runs in. "auto" is "nan", and
        "perturb" where a change outside of what NaN found arrives, or where NaN came from the whole
        image and a change of its rim does not arrive; `.mode` of the result says which.
      spatial_axes, output_axes: as for `gradient_erf`.
      phases: of an up-sampling function, that many neighbouring units, along the diagonal of the
        output grid, are probed; `.phases` has one `Probe` for each, and the others say the largest.
      holes: look at every row of the extent, one function call each, not at its ends alone.
      select: of a function with several outputs, picks the one to look at.
      batch: inputs a call.

    Returns:
      a `Probe`. For a network RuntimeError if the field reaches the rim of its canvas; the images
      of a function are finite, and `.clipped` says where the field may go on.

    Raises:
      ValueError: an argument out of range, or a unit that nothing reaches.
    """
    if isinstance(function, Network):
        if example is not None:
            raise ValueError("example: got one beside a network; takes None, a network needs none")
        return probe_network(function, channels, margin)
    one_of("mode", mode, MODES)
    integer("phases", phases)
    integer("seeds", seeds)
    integer("batch", batch)
    if hasattr(example, "detach"):  # a torch tensor, whose dtype is none of NumPy's
        example = example.detach().cpu().numpy()
    shape, dtype = getattr(example, "shape", None), getattr(example, "dtype", None)
    if shape is None or dtype is None or len(shape) < 2 or shape[0] != 1:
        got = type(example).__name__ if shape is None else f"shape {tuple(shape)}"
        raise ValueError(
            f"example: got {got}; takes an array or ShapeDtypeStruct of one input (1, …)"
        )
    chosen = function
    if select is not None:

        def chosen(x: Any) -> Any:
            return select(function(x))

    made = model(chosen, tuple(shape), dtype, spatial_axes, output_axes)
    first = made.unit(unit)
    made.units = [made.unit(tuple(u + i for u in first)) for i in range(phases)]
    experiment = partial(_Experiment, made, tuple(shape), np.dtype(dtype), seeds=seeds, batch=batch)
    found = None
    if mode != "perturb":
        try:
            found = _found(experiment(mode="nan"), made, holes)
        except _Unreached:
            if mode == "nan":
                raise
    if mode != "nan":
        changes = experiment(mode="perturb")
        if found is None or not all(_confirmed(changes, i, made, p) for i, p in enumerate(found)):
            found = [replace(p, mode="perturb") for p in _found(changes, made, holes)]
    assert found is not None
    if phases == 1:
        return found[0]
    low = [min(p.first[a] for p in found if p.first) for a in range(len(made.image))]
    sizes = tuple(max(p.size[a] for p in found) for a in range(len(made.image)))
    largest = max(found, key=lambda p: p.size)
    return Probe(
        sizes,
        None,
        tuple(low),
        tuple(max(p.last[a] for p in found if p.last) for a in range(len(low))),
        tuple(any(p.clipped[a] for p in found) for a in range(len(low))),
        largest.holes,
        tuple(found),
        largest.mode,
    )


def _found(reaches: _Experiment, made: Model, holes: bool) -> list[Probe]:
    return [_probe(reaches, index, made, holes) for index in range(len(made.units))]


class _Unreached(ValueError):
    """No pixel reaches a unit."""


def _confirmed(changes: _Experiment, index: int, made: Model, probe: Probe) -> bool:
    """Whether a change of all pixels outside the extent found with NaN stays away from the unit;
    and where that is the whole image, whether its first and its last row matter at all. (Within a
    larger image, rows at the end of a deep field are below the rounding.)"""
    assert probe.first is not None and probe.last is not None
    for axis, (first, last, n) in enumerate(zip(probe.first, probe.last, made.image)):
        whole = first == 0 and last == n - 1
        spans = [(0, 1), (n - 1, n)] if whole else [(0, first), (last + 1, n)]
        spans = [(low, high) for low, high in spans if low < high]
        hits = changes(axis, spans)[:, index]
        if (whole and not hits.all()) or (not whole and hits.any()):
            return False
    return True


class _Experiment:
    """Whether changes of the pixels [low, high) of an axis arrive at each unit."""

    def __init__(
        self, made: Model, shape: tuple[int, ...], dtype: Any, seeds: int, batch: int, mode: str
    ) -> None:
        self.made, self.shape, self.dtype, self.mode = made, shape, dtype, mode
        self.batch, self.tries = batch, seeds if mode == "perturb" else 1
        self.known: dict[tuple[int, int, int], np.ndarray] = {}
        self.bases = []
        for seed in range(self.tries):
            x = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
            x = np.repeat(x, batch, axis=0)
            said = made.read(x)
            if np.isnan(said).any():
                raise ValueError("function: got NaN for a normal input; takes a finite function")
            # The same place in the same batch: elsewhere the same sum may round differently.
            self.bases.append((x, said))

    def __call__(self, axis: int, spans: list[tuple[int, int]]) -> np.ndarray:
        """(spans, units), True where the change arrives."""
        missing = [s for s in spans if (axis, *s) not in self.known]
        for start in range(0, len(missing), self.batch):
            part = missing[start : start + self.batch]
            hit = self._run(axis, part)
            self.known.update({(axis, *s): h for s, h in zip(part, hit)})
        return np.array([self.known[axis, *s] for s in spans])

    def _run(self, axis: int, spans: list[tuple[int, int]]) -> np.ndarray:
        arrived = np.zeros((len(spans), len(self.made.units)), bool)
        for seed, (base, said) in enumerate(self.bases):
            x = base.copy()
            noise = np.random.default_rng((seed, 1)).standard_normal(self.shape[1:]) * _SIZE
            for row, (low, high) in enumerate(spans):
                where: list[Any] = [slice(None)] * (x.ndim - 1)
                where[self.made.spatial[axis] - 1] = slice(low, high)
                place = (row, *where)
                x[place] = np.nan if self.mode == "nan" else x[place] + noise[tuple(where)]
            now = self.made.read(x)[:, : len(spans)]
            before = said[:, : len(spans)]
            changed = np.isnan(now) if self.mode == "nan" else now != before
            arrived |= changed.any(axis=-1).T
        return arrived


def _probe(reaches: _Experiment, index: int, made: Model, holes: bool) -> Probe:
    first, last, gaps = [], [], []
    for axis, n in enumerate(made.image):
        if not reaches(axis, [(0, n)])[0, index]:
            raise _Unreached(
                f"unit: got {made.units[index]}, which no input pixel reaches; takes a unit that "
                'one does (or mode "auto", where a function hides NaN)'
            )
        # The largest prefix and the largest suffix that do not reach the unit.
        low = _bisect(lambda m, a=axis: reaches(a, [(0, m)])[0, index], n)
        high = n - _bisect(lambda m, a=axis, n=n: reaches(a, [(n - m, n)])[0, index], n)
        first.append(low)
        last.append(high - 1)
        rows = [(r, r + 1) for r in range(low, high)] if holes else []
        silent = [r for (r, _), hit in zip(rows, reaches(axis, rows)) if not hit[index]]
        gaps.append(tuple(silent))
    clipped = tuple(f == 0 or t == n - 1 for f, t, n in zip(first, last, made.image))
    size = tuple(t - f + 1 for f, t in zip(first, last))
    return Probe(size, None, tuple(first), tuple(last), clipped, tuple(gaps))


def _bisect(arrives: Callable[[int], Any], n: int) -> int:
    """The largest m for which `arrives(m)` is False, knowing that arrives(n) is True."""
    silent, loud = 0, n
    while loud - silent > 1:
        middle = (silent + loud) // 2
        if arrives(middle):
            loud = middle
        else:
            silent = middle
    return silent
