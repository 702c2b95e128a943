"""Tiles of unpadded and cropped networks, the sizes that fit, and what every unit keeps."""

from __future__ import annotations

import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from networks import NETWORKS

from erftheory import (
    Activation,
    Branches,
    Chain,
    Conv,
    ConvTranspose,
    MaxPool,
    Residual,
    exact_units,
    from_jax,
    receptive_field,
    tiling,
    zoo,
)
from erftheory.empirical.nets.draw import initialise
from erftheory.empirical.nets.execute import apply
from erftheory.network.imported import Spatial
from erftheory.network.kernel import Kernel
from erftheory.network.layers import Step
from erftheory.theory.advice.fitting import Fitting, size_behind
from erftheory.theory.advice.influence import Influence
from erftheory.theory.advice.tiling import _field_margins
from erftheory.theory.image.arrivals import Axis, Unlike, arrived
from erftheory.theory.image.graph import flatten
from erftheory.theory.lowering.branches import rescales
from erftheory.theory.lowering.lowering import build

RELU = Activation("relu")
SPEC = ("NHWC", "HWIO", "NHWC")


def valid(*sizes: int, **options):
    return Chain(*(Conv(k, padding="valid", **options) for k in sizes))


def cut(before: int, after: int, ndim: int = 2) -> Spatial:
    """A crop of both ends."""
    one = (1,) * ndim
    rule = Step(Kernel(one), one, one, (-before,) * ndim, (-after,) * ndim, kind="fixed")
    return Spatial("crop", rule)


def test_unpadded_layers_lose_their_ends_and_nothing_else():
    plan = tiling(Chain(*[Conv(11, padding="valid")] * 4, ndim=1), 100)
    assert plan.exact.margin == plan.effective.margin == ((0, 40),)
    assert plan.output == (60,) and plan.exact.valid == ((0, 60),) and plan.exact.halo == ((0, 0),)
    assert plan.offset == (20.0,) and plan.effective.lost == 0
    assert "output 60 pixels, which begins 20 input pixels inside the tile" in str(plan)
    padded = tiling(Chain(*[Conv(11)] * 4, ndim=1), 100)
    assert padded.exact.margin == ((20, 20),) and padded.output == (100,)
    assert padded.exact.halo == ((20, 20),) and padded.offset == (0.0,)
    assert "inside the tile" not in str(padded)


@pytest.mark.parametrize("signal", ["variance", "gradient"])
def test_margins_of_unpadded_signed_and_pooled_nets_hold_what_a_layer_takes(signal):
    """Where rims change weights, maps are compared; the ends that are cut off count there too."""
    pooled = Chain(
        Conv(5, padding="valid"), MaxPool(3, 1, padding=1), Conv(5, padding="valid"), ndim=1
    )
    plan = tiling(pooled, 40, 0.9, signal)
    (_, after), (_, end) = plan.effective.margin[0], plan.effective.valid[0]
    assert after >= 8 and end <= plan.output[0] and plan.offset == (4.0,)
    if signal == "gradient":
        signed = Chain(Conv(3, taps=[-1.0, 3.0, -1.0], padding="valid"), ndim=1) * 5
        assert tiling(signed, 30, 0.9, signal).effective.margin == ((0, 10),)


def original_unet(levels: int = 4, seed: int = 0):
    """Ronneberger et al. 2015: unpadded convolutions, crops on the skips; a JAX function."""
    key = jax.random.key(seed)
    made: dict[str, jax.Array] = {}

    def weight(name, k, channels):
        if name not in made:
            own = jax.random.fold_in(key, len(made))
            made[name] = jax.random.normal(own, (k, k, channels, channels)) / k
        return made[name]

    def conv(x, name, k=3):
        w = weight(name, k, x.shape[-1])
        return lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=SPEC)

    def double(x, name):
        return jax.nn.relu(conv(jax.nn.relu(conv(x, name + "a")), name + "b"))

    def unet(x):
        skips = []
        for depth in range(levels):
            x = double(x, f"down{depth}")
            skips.append(x)
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        x = double(x, "bottom")
        for depth in reversed(range(levels)):
            w = weight(f"raise{depth}", 2, x.shape[-1])
            x = lax.conv_transpose(x, w, (2, 2), "VALID", dimension_numbers=SPEC)
            skip = skips[depth]
            (h, v), (n, m) = skip.shape[1:3], x.shape[1:3]
            a, b = (h - n) // 2, (v - m) // 2
            x = double(skip[:, a : a + n, b : b + m] + x, f"up{depth}")
        return x

    return unet


def read(levels: int, size: int):
    image = jax.ShapeDtypeStruct((1, size, size, 2), jnp.float32)
    return from_jax(original_unet(levels), image)


def test_the_original_unet_as_published():
    net = read(4, 572)
    plan = tiling(net, 572)
    assert plan.grid == (16, 16) and plan.fits == ((12,), (12,))
    assert plan.output == (388, 388) and plan.offset == (92.0, 92.0)
    # tiles start at multiples of 16, so that they move on by 384 of the 388
    assert plan.exact.margin == ((0, 188), (0, 188)) and plan.exact.core == (384, 384)
    assert plan.exact.needed == plan.exact.margin and plan.exact.halo == ((0, 4), (0, 4))
    assert "sizes that fit are 12 x 12 more than multiples" in str(plan)
    with pytest.raises(ValueError, match=r"^tile: got 576 on axis 0.*takes 572 or 588") as wrong:
        tiling(net, 576)
    assert "\n" not in str(wrong.value)
    with pytest.raises(ValueError, match=r"^tile: got 600 on axis 1.*takes 588 or 604"):
        tiling(net, (572, 600))
    with pytest.raises(ValueError, match=r"^tile: got 100 on axis 0.*takes 188 pixels or more"):
        tiling(net, 100)
    assert tiling(net, 204).exact.core == (16, 16)
    with pytest.raises(ValueError, match="^tile: got 188 x 188; takes at least 204 x 204"):
        tiling(net, 188)  # 4 of every 16 output pixels


@pytest.mark.parametrize("levels, tile", [(2, 60), (4, 252)])
def test_tiles_of_the_original_unet_give_the_whole_image(levels, tile):
    """The JAX function on tiles, and on the whole image."""
    function, net = original_unet(levels), read(levels, tile)
    plan = tiling(net, tile, image=tile + (core := tiling(net, tile).exact.core[0]))
    size = tile + core
    assert plan.exact.tiles == 4
    x = jax.random.normal(jax.random.key(5), (1, size, size, 2))
    whole = np.asarray(function(x))
    assert whole.shape[1:3] == size_behind(net.graph, (size, size))
    stitched = np.full_like(whole, np.nan)
    (a, b), (c, d) = plan.exact.valid
    for i, j in itertools.product((0, core), repeat=2):
        part = np.asarray(function(x[:, i : i + tile, j : j + tile]))
        assert part.shape[1:3] == plan.output
        stitched[:, i + a : i + b, j + c : j + d] = part[:, a:b, c:d]
    covered = whole[:, : 2 * core, : 2 * core]
    np.testing.assert_allclose(stitched[:, : 2 * core, : 2 * core], covered, rtol=0, atol=2e-5)
    assert np.abs(covered).max() > 0.1
    # a tile moved by less than the grid pools other pixels
    moved = np.asarray(function(x[:, 1 : 1 + tile, :tile]))
    assert np.abs(moved[:, : core - 1, :core] - whole[:, 1:core, :core]).max() > 1e-3


CROPPED = {
    "ends": Chain(Conv(3), cut(2, 3), Conv(3), ndim=2),
    "skip": Chain(Branches(cut(3, 3), valid(5, 3)), RELU, Conv(3)),
    "pooled skip": Chain(
        Branches(cut(5, 7), Chain(MaxPool(2), valid(3, 5), ConvTranspose(2, 2))), Conv(3)
    ),
    "strided": Chain(Conv(4, 2, padding="valid"), Conv(3, padding="valid"), Conv(5, 3, padding=0)),
    "shifted": Chain(Conv(3, padding="valid"), Conv(5, padding=((4, 0), (0, 2))), Conv(2, 2)),
}


@pytest.mark.parametrize("name", CROPPED)
@pytest.mark.parametrize("beyond", range(3))
def test_tiles_of_cropped_nets_give_the_whole_image(name, beyond):
    """The executed random net on a tile inside an image; one output more on a side is off."""
    net = CROPPED[name]
    fitting = Fitting([net.graph], tiling(net, _fit(net, 40)).grid)
    tile = _fit(net, 40 + beyond)
    plan = tiling(net, tile)
    rate, grid = [float(r) for r in net.graph.rate], plan.grid
    start = tuple(g * (24 // g) for g in grid)
    size = _fit(net, tile + 60)
    params = initialise(net, jax.random.key(0), 2)
    x = jax.random.normal(jax.random.key(1), (params.in_channels, size, size))
    run = jax.jit(lambda v: apply(net, params, v))  # one program a size, not one an operation
    whole = np.asarray(run(x))
    part = np.asarray(run(x[:, start[0] : start[0] + tile, start[1] : start[1] + tile]))
    assert part.shape[1:] == plan.output == size_behind(net.graph, (tile, tile))
    assert all(fitting.fits(tile)) and tile % grid[0] in plan.fits[0]
    assert plan.exact.halo == tuple((a, n - b) for (a, b), n in zip(plan.exact.valid, plan.output))

    def apart(kept) -> float:
        (a, b), (c, d) = kept
        i, j = (int(s / r) for s, r in zip(start, rate))
        return float(np.abs(whole[:, i + a : i + b, j + c : j + d] - part[:, a:b, c:d]).max())

    assert apart(plan.exact.valid) <= 1e-5
    for axis, side in itertools.product(range(2), range(2)):
        step = int(grid[axis] / rate[axis])
        wider = [list(v) for v in plan.exact.valid]
        wider[axis][side] += step if side else -step
        if 0 <= wider[axis][0] and wider[axis][1] <= part.shape[axis + 1]:
            assert apart(wider) > 1e-5, (axis, side)


def _fit(net, size: int) -> int:
    """The first size from there on that all branches take, by running into the errors."""
    for n in itertools.count(size):
        try:
            flatten(net, (n, n), "gradient", None, "zeros")
        except ValueError:
            continue
        return n
    raise AssertionError


@pytest.mark.parametrize("net", [*NETWORKS.values(), *CROPPED.values()], ids=[*NETWORKS, *CROPPED])
def test_sizes_that_fit_are_those_of_the_layers(net):
    fitting = Fitting([net.graph], (1,) * net.ndim)
    for n in range(1, 41):
        try:
            found = flatten(net, (n,) * net.ndim, "gradient", None, "zeros").shape
        except ValueError:
            found = None
        behind = size_behind(net.graph, (n,) * net.ndim)
        assert all(fitting.fits(n)) == (found is not None)
        assert found is None or behind == found


def test_sizes_of_long_repetitions_and_of_networks_that_fit_nothing():
    deep = Chain(valid(3), ndim=1) * 10**7
    assert size_behind(deep.graph, (2 * 10**7 + 5,)) == (5,)
    assert size_behind(deep.graph, (2 * 10**7,)) == (None,)
    down = Chain(Conv(2, 2, padding="valid"), ndim=1) * 5
    assert size_behind(down.graph, (95,)) == (2,) and size_behind(down.graph, (31,)) == (None,)
    odd = Chain(Branches(cut(0, 1, 1), Chain(MaxPool(2), ConvTranspose(2, 2))), ndim=1)
    assert tiling(odd, 21).fits == ((1,),) and tiling(odd, 21).output == (20,)
    with pytest.raises(ValueError, match="^tile: got 20 on axis 0.*takes 19 or 21"):
        tiling(odd, 20)
    assert tiling(Conv(3, 2), 21).fits == ((0, 1), (0, 1))  # nothing meets, nothing is refused


def some_units(shape):
    """All units of a small map; of a large one every third and the last two of each axis."""
    lines = [sorted({*range(0, n, 1 if n < 12 else 3), n - 1, max(0, n - 2)}) for n in shape]
    return list(itertools.product(*lines))


@pytest.mark.parametrize("net", [*NETWORKS.values(), *CROPPED.values()], ids=[*NETWORKS, *CROPPED])
@pytest.mark.parametrize("signal", ["variance", "gradient"])
def test_one_forward_pass_knows_what_each_map_has_lost(net, signal):
    """`lost` of `exact_units`, which pulls the map of every unit back."""
    walk = build(net, "gradient")
    grid = tuple(max(1, j * p // f) for j, p, f in zip(walk.jump, walk.phases, walk.fine))
    n = next(n for n in range(14, 60) if all(Fitting([net.graph], grid).fits(n)))
    size = (n,) * net.ndim
    field = _field_margins(net, size, grid, walk.phases)
    influence = Influence(net, signal, "he", field, grid, walk.phases, size)
    if influence.walk.signed or rescales(net.graph):
        assert influence.moved
        return
    flat = flatten(net, size, signal, "he", "zeros")
    lost = influence._lost([Axis(flat, a) for a in range(net.ndim)])
    assert lost.shape == size_behind(net.graph, size)
    units = some_units(lost.shape)
    for unit, erf in zip(units, exact_units(net, size, units, signal)):
        assert lost[unit] == pytest.approx(erf.metadata["lost"], abs=2e-12)


def test_rims_that_cannot_be_read_axis_by_axis_are_those_of_the_maps(monkeypatch):
    net = Chain(*[Residual(Conv(3))] * 3)
    plan = tiling(net, 24, 0.99)

    def refuse(self, axis, share):
        raise Unlike("image: got another")

    monkeypatch.setattr(Influence, "_rims", refuse)
    other = tiling(net, 24, 0.99)
    assert other.effective.margin == plan.effective.margin
    assert other.effective.lost == plan.effective.lost


def test_what_arrives_does_not_under_or_overflow():
    deep = Chain(Conv(3, padding=1), ndim=1) * 3000
    flat = flatten(deep, (5,), "variance", "he", "zeros")
    found = arrived([Axis(flat, 0)])
    top = (1 + 2 * np.cos(np.pi / 6)) / 3  # the largest eigenvalue of a step on five pixels
    assert found.log + np.log(found.full().sum()) == pytest.approx(
        3000 * np.log(top) + flat_mass(deep), rel=1e-3
    )
    assert tiling(deep, 5 + 2 * 3000, 0.9).effective.lost <= 0.1


def flat_mass(net) -> float:
    """Log of what a map sums to on the plane."""
    ring = flatten(net, (8,), "variance", "he", "torus")
    found = arrived([Axis(ring, 0, 1)])
    return found.log + float(np.log(found.full().max()))


@pytest.mark.parametrize("levels, tile, most", [(3, (64, 96, 96), 3.0), (4, (96, 128, 128), 8.0)])
def test_volumes_are_fast(levels, tile, most):
    net = Chain(zoo.unet(levels), ndim=3)
    started = time.perf_counter()
    plan = tiling(net, tile)
    assert time.perf_counter() - started < most
    assert plan.effective.lost <= 1e-3 and receptive_field(net).size[0] > tile[0]
