"""Measured ERFs: against brute-force Jacobians, against the theory, and PyTorch against JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import stats

from erftheory import ERF, Chain, Conv, exact
from erftheory.empirical import gradient_erf

NHWC = ("NHWC", "HWIO", "NHWC")
CONTRIBUTIONS = {"squared": np.square, "absolute": np.abs, "positive": lambda g: g.clip(0)}


def filters(seed, *widths, k=3):
    rng = np.random.default_rng(seed)
    return [
        rng.normal(0, (2 / (k * k * a)) ** 0.5, (k, k, a, b)).astype("f")
        for a, b in zip(widths, widths[1:])
    ]


def net(weights, act=jax.nn.relu, stride=1):
    def f(x):
        for w in weights[:-1]:
            x = act(lax.conv_general_dilated(x, w, (stride,) * 2, "SAME", dimension_numbers=NHWC))
        return lax.conv_general_dilated(x, weights[-1], (1, 1), "SAME", dimension_numbers=NHWC)

    return f


def images(n, size=12, channels=2, seed=0):
    return np.random.default_rng(seed).normal(size=(n, size, size, channels)).astype("f")


def sums(erf):
    """The map before it was normalised: the sum over images."""
    return erf.replicates.maps.sum(axis=0)


@pytest.mark.parametrize("contribution", CONTRIBUTIONS)
def test_a_linear_net_has_its_own_taps_as_gradient(contribution):
    f = net(filters(1, 2, 3, 4), act=lambda x: x)
    # The gradient of a linear function is its values on one-pixel images.
    basis = np.eye(12 * 12 * 2, dtype="f").reshape(-1, 12, 12, 2)
    taps = np.asarray(f(basis))[:, 6, 6].sum(axis=-1).reshape(12, 12, 2)
    found = gradient_erf(f, images(5), contribution=contribution)
    wanted = CONTRIBUTIONS[contribution](taps.astype(float)).sum(axis=-1)
    np.testing.assert_allclose(found.map, wanted / wanted.sum(), rtol=1e-4, atol=1e-9)
    assert found.samples == 5 and found.offset == (0, 0) and found.metadata["unit"] == (6, 6)
    assert found.signal == ("variance" if contribution == "squared" else "magnitude")
    np.testing.assert_allclose(found.stderr, 0, atol=1e-7)
    np.testing.assert_allclose(found.std_stderr, 0, atol=1e-6)


def test_batches_iterables_and_a_short_last_batch_change_nothing():
    traces = []
    inner = net(filters(2, 2, 4, 3))

    def f(x):
        traces.append(x.shape)
        return inner(x)

    x = images(70)
    found = gradient_erf(f, x, batch=32)
    assert traces == [(1, 12, 12, 2), (32, 12, 12, 2)]  # the output's shape, one program
    gradients = jax.jit(jax.grad(lambda x: inner(x)[:, 6, 6].sum()))(x)
    squares = np.square(np.asarray(gradients, float)).sum(axis=-1)
    np.testing.assert_allclose(sums(found), squares.sum(axis=0), rtol=1e-5, atol=1e-8)
    nines = (x[i : i + 9] for i in range(0, 70, 9))
    for other in (gradient_erf(f, x, batch=7), gradient_erf(f, nines)):
        assert other.samples == 70
        np.testing.assert_allclose(other.map, found.map, rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(other.std_stderr, found.std_stderr, rtol=1e-4)
    # A pixel's standard error by the jackknife over single images.
    rest = squares.sum(axis=0) - squares
    left_out = rest / rest.sum(axis=(1, 2), keepdims=True)
    jackknife = np.sqrt(69 / 70 * np.square(left_out - left_out.mean(axis=0)).sum(axis=0))
    np.testing.assert_allclose(found.stderr, jackknife, rtol=0.1, atol=1e-6)


def test_random_nets_on_gaussian_images_agree_with_the_theory_in_standard_errors():
    """Every image brings its own weights, so that images are nets and the theory is exact."""

    rng = np.random.default_rng(5)
    widths = [(1, 8), (8, 8), (8, 8), (8, 1)]
    weights = [rng.normal(0, (2 / 3 / a) ** 0.5, (6 * 256, 3, a, b)).astype("f") for a, b in widths]

    def one(image):
        index, x = image[0, 1].astype(int), image[:, :1]
        for w in weights:
            h = sum(x[t : len(x) - 2 + t] @ jnp.asarray(w)[index, t] for t in range(3))
            x = jax.nn.relu(h)
        return h

    x = rng.normal(size=(6 * 256, 11, 2)).astype("f")
    x[:, 0, 1] = np.arange(len(x))
    theory = exact(Chain(Conv(3, padding="valid"), ndim=1) * 4)
    scores = []
    for part in np.split(x, 6):
        found = gradient_erf(jax.vmap(one), part, 1, batch=256)
        scores.append((found.std[0] - theory.std[0]) / found.std_stderr[0])
        z = (found.map[1:10] - theory.map) / found.stderr[1:10]
        assert np.abs(z).max() < 6
    total = np.square(scores).sum()  # chi-square of 6 degrees of freedom, or a little wider
    assert stats.chi2.ppf(1e-5, 6) < total < 1.5 * stats.chi2.isf(1e-5, 6)


def test_cotangents():
    f, x = net(filters(3, 2, 4, 3)), images(8)
    single = [sums(gradient_erf(f, x, cotangent=c)) for c in range(3)]
    assert not np.allclose(single[0], single[1])
    each = gradient_erf(f, x, cotangent="each")
    np.testing.assert_allclose(sums(each), sum(single), rtol=1e-5)
    unit = sums(gradient_erf(f, x, cotangent=np.array([0, 2.0, 0])))
    np.testing.assert_allclose(unit, 4 * single[1], rtol=1e-5)
    many = np.repeat(x[:1], 400, axis=0)
    random = gradient_erf(f, many, cotangent="random", key=3)
    wanted = gradient_erf(f, x[:1], cotangent="each")
    assert (np.abs(random.map - wanted.map) <= 5 * random.stderr + 1e-7).all()
    again = gradient_erf(f, many, cotangent="random", key=jax.random.key(3), batch=17)
    np.testing.assert_allclose(again.map, random.map, rtol=1e-4, atol=1e-9)


def test_layouts():
    weights, x = filters(4, 3, 4, 2), images(3, size=10, channels=3)
    f = net(weights)
    found = gradient_erf(f, x, (2, 3))

    def first(x):
        return jnp.moveaxis(f(jnp.moveaxis(x, 1, -1)), -1, 1)

    turned = gradient_erf(first, np.moveaxis(x, -1, 1), (2, 3), spatial_axes=(2, 3))
    np.testing.assert_allclose(turned.map, found.map, rtol=1e-5, atol=1e-10)
    with pytest.raises(ValueError, match="spatial_axes: got None .*do not look channels-last"):
        gradient_erf(first, np.moveaxis(x, -1, 1))
    line = gradient_erf(lambda x: x.cumsum(axis=1), np.ones((2, 9), "f"), 3, spatial_axes=1)
    np.testing.assert_allclose(line.map, [0.25] * 4 + [0] * 5)


# --- attention ---------------------------------------------------------------------------------


def attend(x, w):
    q, k, v = (x @ w[i] for i in range(3))
    return x + jax.nn.softmax(q @ jnp.swapaxes(k, -1, -2) / q.shape[-1] ** 0.5) @ v


def patches(x, p):
    n, h, w, c = x.shape
    x = x.reshape(n, h // p, p, w // p, p, c).swapaxes(2, 3)
    return x.reshape(n, h // p, w // p, p * p * c)


def vit(seed, size=12, p=3, c=2, d=16):
    rng = np.random.default_rng(seed)
    tokens = (size // p) ** 2
    embed, place = rng.normal(0, 0.3, (p * p * c, d)), rng.normal(size=(tokens, d))
    blocks = rng.normal(0, 0.4, (2, 3, d, d))

    def f(x):
        x = patches(x, p).reshape(len(x), tokens, -1) @ embed + place
        for w in blocks:
            x = attend(x, w)
        return x  # (n, tokens, features)

    return f


def swin(seed, window=2, p=2, c=2, d=8):
    """Patches of p pixels, attention within windows of `window` patches."""
    rng = np.random.default_rng(seed)
    embed, w = rng.normal(0, 0.3, (p * p * c, d)), rng.normal(0, 0.4, (3, d, d))

    def f(x):
        x = patches(x, p) @ embed
        n, h, v, _ = x.shape
        x = patches(x, window).reshape(n, h // window, v // window, window**2, d)
        x = attend(x, w).reshape(n, h // window, v // window, window, window, d)
        return x.swapaxes(2, 3).reshape(n, h, v, d)

    return f


def test_a_vision_transformer_by_tokens():
    f, x = vit(1), images(4)
    found = gradient_erf(f, x, 5, output_axes=1, cotangent="each")
    jacobian = np.asarray(jax.jit(jax.jacrev(lambda x: f(x)[:, 5]))(x))  # (n, features, n, h, w, c)
    own = np.stack([jacobian[i, :, i] for i in range(4)])
    wanted = np.square(own.astype(float)).sum(axis=(0, 1, 4))
    np.testing.assert_allclose(found.map, wanted / wanted.sum(), rtol=1e-3, atol=1e-9)
    assert (found.map > 0).all()  # attention is global
    assert found.metadata["unit"] == (5,)
    reshaped = gradient_erf(lambda x: f(x).reshape(-1, 4, 4, 16), x, (1, 1), cotangent="each")
    np.testing.assert_allclose(reshaped.map, found.map, rtol=1e-4)
    with pytest.raises(ValueError, match="output_axes: got None"):
        gradient_erf(f, x, 5)


def test_window_attention_sees_its_window_alone():
    found = gradient_erf(swin(2), images(4), (2, 4))
    inside = np.zeros((12, 12), bool)
    inside[4:8, 8:12] = True  # window (1, 2) of 4 pixels
    assert (found.map[inside] > 0).all() and not found.map[~inside].any()


# --- PyTorch -----------------------------------------------------------------------------------


@pytest.mark.parametrize("contribution", CONTRIBUTIONS)
def test_torch_equals_jax(contribution):
    torch = pytest.importorskip("torch")
    weights, x = filters(6, 3, 5, 4), images(6, size=14, channels=3)

    def f(x):  # torch pads (1, 1), whatever the stride
        pads = ((1, 1), (1, 1))
        x = lax.conv_general_dilated(x, weights[0], (2, 2), pads, dimension_numbers=NHWC)
        x = jax.nn.relu(x)
        return lax.conv_general_dilated(x, weights[1], (1, 1), pads, dimension_numbers=NHWC)

    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3, 2, 1, bias=False),
        torch.nn.ReLU(),
        torch.nn.Conv2d(5, 4, 3, 1, 1, bias=False),
    )
    for place, w in zip((0, 2), weights):
        module[place].weight.data = torch.tensor(w.transpose(3, 2, 0, 1))
    with pytest.raises(ValueError, match="training mode"):
        gradient_erf(module, np.moveaxis(x, -1, 1))
    module.eval()
    theirs = torch.tensor(np.moveaxis(x, -1, 1).copy())
    for cotangent in ("sum", "each", "relu", 2):
        options = {"contribution": contribution, "cotangent": cotangent, "batch": 4}
        ours = gradient_erf(f, x, **options)
        found = gradient_erf(module, theirs, **options)
        np.testing.assert_allclose(sums(found), sums(ours), rtol=1e-5, atol=1e-5)
        assert found.std_stderr == pytest.approx(ours.std_stderr, rel=1e-4)
    assert all(p.grad is None for p in module.parameters())


def test_torch_modules_of_another_precision_say_so_in_one_line():
    torch = pytest.importorskip("torch")
    module = torch.nn.Conv2d(3, 4, 3).double().eval()
    with pytest.raises(ValueError) as caught:
        gradient_erf(module, np.zeros((2, 3, 9, 9), np.float32))
    said = str(caught.value)
    assert said.startswith("images: got batches of shape (1, 3, 9, 9) and dtype float32, on which")
    assert "\n" not in said
    gradient_erf(module, np.ones((2, 3, 9, 9)))


# --- errors ------------------------------------------------------------------------------------

F, X = net(filters(7, 2, 3, 2)), images(2, size=6)
WRONG = [
    (dict(contribution="square"), "contribution: got 'square'; takes one of"),
    (dict(unit=(3, 6)), r"unit: got \(3, 6\); takes .* output grid of 6x6"),
    (dict(unit=2), "unit: got 2"),
    (dict(cotangent=2), "cotangent: got channel 2; takes 0 to 1"),
    (dict(cotangent=np.ones(3)), r"cotangent: got shape \(3,\)"),
    (dict(cotangent="all"), "cotangent: got 'all'"),
    (dict(cotangent=np.array([1j, 0])), "cotangent: got dtype complex128; takes real numbers"),
    (dict(cotangent=np.array(["a", "b"])), "cotangent: got dtype <U1"),
    (dict(images=X + 0j), "images: got dtype complex64; takes real images"),
    (dict(cotangent="random"), "key: got None"),
    (dict(key=1), "key: got a key"),
    (dict(spatial_axes=(0, 1)), r"spatial_axes: got \(0, 1\)"),
    (dict(spatial_axes=(1, 1)), r"spatial_axes: got \(1, 1\)"),
    (dict(output_axes=7), "output_axes: got 7"),
    (dict(batch=0), "batch: got 0"),
    (dict(images=(X * 9).astype("uint8")), "images: got dtype uint8"),
    (dict(images=[]), "images: got none"),
    (dict(images=3), "images: got int"),
    (dict(images=[X, X[:, 1:]]), "takes one shape for all"),
    (dict(images=np.where(np.arange(2) == 1, np.nan, X)), "images: got NaN or infinity in image 0"),
    (dict(function=lambda x: jnp.sqrt(0 * x)), "gradients that are NaN or infinite in image 0"),
    (dict(function=lambda x: 0 * x), r"images: got gradients that are all 0 at unit \(3, 3\)"),
    (dict(function=lambda x: (x, x)), "function: got a tuple"),
    (dict(function=lambda x: x.sum(axis=0)), "function: got output shape"),
    (dict(function=3), "function: got int"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_errors_are_one_line(change, message):
    given = {"function": F, "images": X} | change
    with pytest.raises(ValueError, match=message) as raised:
        gradient_erf(given.pop("function"), given.pop("images"), **given)
    assert "\n" not in str(raised.value)


def test_one_image_and_dead_images(tmp_path):
    one = gradient_erf(F, X[:1])
    assert one.stderr is None and one.std_stderr is None and one.samples == 1
    with pytest.raises(ValueError, match="erf: got an ERF by 'measured' without a standard error"):
        one.compare(one)
    gated = gradient_erf(lambda x: jax.nn.relu(x) * 1.0, np.concatenate([X * 0 - 1, X * 0 + 1]))
    assert gated.metadata["dead_images"] == 2 and gated.map[3, 3] == 1
    found = gradient_erf(F, X)
    found.save(tmp_path / "erf.npz")
    assert ERF.load(tmp_path / "erf.npz") == found


# --- images -----------------------------------------------------------------------------------


def test_photographs_feed_a_model():
    datasets = pytest.importorskip("sklearn.datasets")
    photos = [p / 255 - 0.45 for p in datasets.load_sample_images().images]
    crops = [p[r : r + 24, c : c + 24] for p in photos for r in (50, 200) for c in (9, 300)]
    found = gradient_erf(net(filters(5, 3, 8, 8, 4)), np.array(crops))
    field = np.zeros((24, 24), bool)
    field[9:16, 9:16] = True
    assert found.samples == 8 and not found.map[~field].any()
    assert found.map[field].sum() == pytest.approx(1) and 0.5 < found.std[0] < 2


def test_a_function_that_fails_on_the_images_is_named_in_one_line():
    f = net(filters(1, 2, 3))
    with pytest.raises(ValueError, match="^images: got batches of shape") as caught:
        gradient_erf(f, images(3)[0])  # the batch axis forgotten
    assert "\n" not in str(caught.value)
