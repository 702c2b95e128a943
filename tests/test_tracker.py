"""The tracker beside gradient_erf of the same weights, in JAX, Flax NNX and PyTorch loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from erftheory import Activation, BatchNorm, Chain, Conv, ErfTracker, gradient_erf, trainable
from erftheory.training import Classifier
from erftheory.training.watching.readings import MEASURES

RELU = Activation("relu")
IMAGES = np.random.default_rng(0).normal(size=(12, 16, 16, 2)).astype(np.float32)


def convolutions(params, x):
    for kernel in params:
        x = jax.nn.relu(
            jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        )
    return x


def drawn(seed):
    keys = jax.random.split(jax.random.key(seed), 2)
    return [jax.random.normal(keys[0], (3, 3, 2, 8)), jax.random.normal(keys[1], (3, 3, 8, 8))]


def test_readings_are_those_of_gradient_erf_at_the_weights_of_the_moment():
    tracker = ErfTracker(convolutions, IMAGES, every=5, batch=5)
    maps = []
    for step in range(11):
        erf = tracker(step, drawn(step))
        assert (erf is None) == (step % 5 > 0)
        if erf is not None:
            weights = drawn(step)
            want = gradient_erf(lambda x, p=weights: convolutions(p, x), IMAGES, batch=5)
            np.testing.assert_allclose(erf.map, want.map, atol=1e-7)
            np.testing.assert_allclose(erf.std_stderr, want.std_stderr, rtol=1e-5)
            maps.append(want.map)
    data = tracker.dataset
    assert list(data.step.values) == [0, 5, 10] and data.attrs["images"] == 12
    np.testing.assert_allclose(data["map"], maps, atol=1e-7)
    assert set(data.data_vars) == {"map", *MEASURES, *(f"{m}_stderr" for m in MEASURES)}
    assert len({float(v) for v in data["power"]}) == 3
    frame = tracker.to_pandas()
    assert frame.loc[5, "std_1"] == data["std"].sel(step=5)[1]


def test_power_is_the_mean_over_images_with_its_standard_error():
    tracker = ErfTracker(convolutions, IMAGES)
    tracker(0, drawn(0))
    each = jax.vmap(jax.grad(lambda x: convolutions(drawn(0), x[None])[0, 8, 8].sum()))(IMAGES)
    powers = np.square(np.asarray(each)).sum((1, 2, 3))
    row = tracker.readings.row(0)
    assert row["power"] == pytest.approx(powers.mean(), rel=1e-5)
    want = powers.std(ddof=1) / np.sqrt(len(powers))
    assert row["power_stderr"] == pytest.approx(want, rel=1e-5)
    assert row["share"] == pytest.approx(row["mass_radius"] / 8)


def test_nothing_is_compiled_after_the_first_reading():
    calls = []

    def counted(params, x):
        calls.append(1)
        return convolutions(params, x)

    tracker = ErfTracker(counted, IMAGES)
    tracker(0, drawn(0))
    traced = len(calls)
    tracker(1, drawn(1))
    assert len(calls) == traced


def test_a_flax_module_is_read_at_its_last_map_and_its_own_weights():
    net = Chain(Conv(3), BatchNorm(), RELU, Conv(3))
    module = trainable(net, nnx.Rngs(0), 4, Classifier(3), in_channels=2)
    tracker = ErfTracker(module, IMAGES)
    with pytest.raises(ValueError, match=r"got a module in training mode \(body\.layers\.batchn"):
        tracker(0)
    module.eval()
    first = tracker(0)
    want = gradient_erf(lambda x: module.features(x), IMAGES)
    np.testing.assert_allclose(first.map, want.map, atol=1e-7)
    kernel = module.body.layers["conv"].kernel
    kernel[...] = jnp.zeros_like(kernel[...]).at[1, 1].set(1.0)
    assert tracker(1).std[0] < first.std[0]
    with pytest.raises(ValueError, match="params: got list; the module has its own"):
        tracker(2, [])


def test_a_pytorch_module_is_read_and_left_alone():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.Conv2d(4, 4, 3))
    images = np.moveaxis(IMAGES, -1, 1)
    tracker = ErfTracker(model, images)
    with pytest.raises(ValueError, match="training mode"):
        tracker(0)
    found = tracker(0) if model.eval() else None
    np.testing.assert_allclose(found.map, gradient_erf(model, images).map, atol=1e-7)
    assert all(p.grad is None for p in model.parameters())


def test_a_file_holds_all_readings_and_one_goes_on(tmp_path):
    tracker = ErfTracker(convolutions, IMAGES)
    for step in (0, 3):
        tracker(step, drawn(step))
    tracker.save(tmp_path / "a.npz")
    again = ErfTracker(convolutions, IMAGES).load(tmp_path / "a.npz")
    assert again.dataset.equals(tracker.dataset) and again.dataset.attrs == tracker.dataset.attrs
    with pytest.raises(ValueError, match="step: got 3 after 3; takes steps that grow"):
        again(3, drawn(0))
    again(4, drawn(4))
    assert list(again.dataset.step.values) == [0, 3, 4]
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-400])
    for name in ("b.npz",):
        with pytest.raises(ValueError, match="holds no readings"):
            again.load(tmp_path / name)
    assert list(again.dataset.step.values) == [0, 3, 4]


def test_pictures_show_every_reading():
    tracker = ErfTracker(convolutions, IMAGES)
    for step in (0, 2, 9):
        tracker(step, drawn(step))
    figure = tracker.plot()
    upper, lower = figure.subfigs
    std = np.asarray(tracker.dataset["std"]).mean(1)
    np.testing.assert_allclose(upper.axes[0].lines[0].get_ydata(), std)
    assert [a.get_title() for a in lower.axes[:3]] == ["step 0", "step 2", "step 9"]


def test_scalars_and_maps_go_to_tensorboard():
    class Writer:
        said = []

        def add_scalar(self, name, value, step):
            self.said.append((name, step))

        def add_image(self, name, image, step):
            self.said.append((name, image.shape, float(image.max()), step))

    tracker = ErfTracker(convolutions, IMAGES, tensorboard=Writer())
    tracker(7, drawn(0))
    assert ("erf/std_0", 7) in Writer.said and ("erf/power", 7) in Writer.said
    assert ("erf/map", (1, 16, 16), 1.0, 7) in Writer.said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(function_or_module=3), "function_or_module: got int"),
        (dict(images=np.zeros(3)), r"images: got shape \(3,\)"),
        (dict(every=0), "every: got 0"),
        (dict(contribution="cubed"), "contribution: got 'cubed'"),
    ],
)
def test_bad_arguments_are_one_line(change, said):
    with pytest.raises(ValueError, match=said):
        ErfTracker(**(dict(function_or_module=convolutions, images=IMAGES) | change))


def test_a_function_needs_its_weights():
    with pytest.raises(ValueError, match="params: got NoneType; takes the weights"):
        ErfTracker(convolutions, IMAGES)(0)
    with pytest.raises(ValueError, match="tracker: got no reading yet"):
        ErfTracker(convolutions, IMAGES).dataset  # noqa: B018
