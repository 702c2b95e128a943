"""The probe of functions, on fields that are known by hand or by a Jacobian of positive weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from erftheory import Chain, Conv
from erftheory.empirical import probe_receptive_field

RNG = np.random.default_rng(0)


def line(n, channels=1):
    return jax.ShapeDtypeStruct((1, n, channels), "float32")


def conv(x, k, stride=1, dilation=1, pads=None, w=None):
    span = dilation * (k - 1)
    pads = (span // 2, span - span // 2) if pads is None else pads
    w = RNG.uniform(0.5, 1.5, (k, x.shape[-1], 2)).astype("f") if w is None else w
    dims = ("NHC", "HIO", "NHC")
    return lax.conv_general_dilated(
        x, w, (stride,), [pads], rhs_dilation=(dilation,), dimension_numbers=dims
    )


def test_extent_and_holes_of_dilated_layers():
    found = probe_receptive_field(lambda x: conv(conv(x, 3, dilation=4), 3, dilation=4), line(40))
    assert found.size == (17,) and found.first == (12,) and found.last == (28,)
    assert found.holes == (tuple(r for r in range(12, 29) if r % 4),)
    assert found.clipped == (False,) and found.offset is None
    plain = probe_receptive_field(lambda x: conv(x, 3, dilation=4), line(40), holes=False)
    assert plain.size == (9,) and plain.holes == ((),)


def test_a_field_at_the_rim_is_called_clipped():
    found = probe_receptive_field(lambda x: conv(x, 5), line(9), 1)
    assert (found.first, found.last, found.clipped) == ((0,), (3,), (True,))
    mean = probe_receptive_field(lambda x: x.mean(axis=1, keepdims=True), line(9), 0)
    assert mean.size == (9,) and mean.clipped == (True,)


layers = st.tuples(st.integers(1, 4), st.integers(1, 2), st.integers(1, 3), st.integers(0, 2))


@settings(max_examples=4)
@given(st.lists(layers, min_size=1, max_size=3))
def test_any_chain_of_positive_layers(stack):
    def f(x):
        for k, stride, dilation, pad in stack:
            w = np.ones((k, x.shape[-1], 1), "f")
            x = jax.nn.relu(conv(x, k, stride, dilation, (pad, pad), w))
        return x

    sizes = [48]
    for k, stride, dilation, pad in stack:
        sizes.append((sizes[-1] + 2 * pad - dilation * (k - 1) - 1) // stride + 1)
    touched = {sizes[-1] // 2}
    for (k, stride, dilation, pad), n in zip(stack[::-1], sizes[-2::-1]):
        reads = {stride * o + dilation * a - pad for o in touched for a in range(k)}
        touched = {t for t in reads if 0 <= t < n}
    first, last = min(touched), max(touched)
    for mode in ("nan", "perturb"):
        found = probe_receptive_field(f, line(48), mode=mode)
        assert found.first == (first,) and found.last == (last,)
        assert set(found.holes[0]) == set(range(first, last)) - touched


def test_a_net_that_samples_up_has_one_field_a_phase():
    """Max pooling by 2, a 3-tap layer, nearest up-sampling by 2, a 3-tap layer."""

    def f(x):
        x = x.reshape(1 * x.shape[0], -1, 2, x.shape[-1]).max(axis=2)
        return conv(jnp.repeat(conv(x, 3), 2, axis=1), 3)

    # Output 20 reads fine pixels 19 … 21, coarse 9, 10, with the layer 8 … 11: inputs 16 … 23;
    # output 21 reads 20 … 22, coarse 10, 11, then 9 … 12: inputs 18 … 25.
    found = probe_receptive_field(f, line(40), phases=3)
    assert [(p.first, p.last) for p in found.phases[:2]] == [((16,), (23,)), ((18,), (25,))]
    assert found.size == (8,) and found.first == (16,) and found.last == (25,)


def test_two_axes_channels_first_and_the_last_output_channel():
    w = np.zeros((2, 3, 3, 5), "f")
    w[1, 2, 0, 1:] = w[1, 0, 2, 4] = 1  # one output channel alone, of one input channel alone

    def f(x):
        return lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=("NCHW", "OIHW", "NCHW")
        )

    example = jax.ShapeDtypeStruct((1, 3, 11, 11), "float32")
    found = probe_receptive_field(f, example, (5, 6), spatial_axes=(2, 3), mode="perturb")
    assert (found.first, found.last) == ((4, 5), (6, 8))  # taps row −1 … 1, column −1 … 2
    assert found.holes == ((5,), ())
    # NaN counts taps of weight zero: the kernel as declared.
    declared = probe_receptive_field(f, example, (5, 6), spatial_axes=(2, 3))
    assert (declared.first, declared.last) == ((4, 4), (6, 8)) and declared.holes == ((), ())


def test_modes_differ_where_a_function_hides_or_spreads_nan():
    hidden = lambda x: conv(jnp.where(x > 0, x, 0.0), 3)  # noqa: E731
    with pytest.raises(ValueError, match='no input pixel reaches.*mode "auto"'):
        probe_receptive_field(hidden, line(9), mode="nan")
    assert probe_receptive_field(hidden, line(9), mode="perturb").size == (3,)
    found = probe_receptive_field(hidden, line(9))
    assert found.size == (3,) and found.mode == "perturb"

    def causal(x):  # masked attention: weight exactly 0, and 0 · NaN is NaN
        n = x.shape[1]
        scores = jnp.where(np.tri(n, dtype=bool), x @ jnp.swapaxes(x, 1, 2), -jnp.inf)
        return jax.nn.softmax(scores) @ x

    example = line(12, 4)
    assert probe_receptive_field(causal, example, 5, mode="nan").last == (11,)
    for mode in ("perturb", "auto"):
        told = probe_receptive_field(causal, example, 5, mode=mode)
        assert told.first == (0,) and told.last == (5,) and told.mode == "perturb"


def test_nan_that_is_half_hidden_or_spread_by_a_matrix_is_found_out():
    """One channel hides a NaN and the other does not; a product with a matrix spreads it."""

    def half(x):  # five pixels, of which NaN passes three
        return conv(jnp.where(x > 0, x, 0.0), 5) + conv(x, 3)

    assert probe_receptive_field(half, line(19), mode="nan").size == (3,)
    found = probe_receptive_field(half, line(19))
    assert found.size == (5,) and found.mode == "perturb"

    def resized(x):
        x = conv(x, 3)
        return jax.image.resize(x, (x.shape[0], 40, x.shape[2]), "bilinear")

    assert probe_receptive_field(resized, line(20), 15, mode="nan").size == (20,)
    found = probe_receptive_field(resized, line(20), 15)
    assert found.size == (4,) and found.mode == "perturb"
    assert probe_receptive_field(lambda x: conv(x, 5), line(19)).mode == "nan"


def test_tokens_and_several_outputs():
    def f(x):  # (n, 4, 6, 1) to tokens of 2 by 2 patches, and something else
        tokens = x.reshape(-1, 2, 2, 3, 2).sum(axis=(2, 4)).reshape(-1, 6, 1)
        return {"tokens": tokens, "mean": x.mean()}

    found = probe_receptive_field(
        f, np.zeros((1, 4, 6, 1), "f"), 4, output_axes=1, select=lambda y: y["tokens"]
    )
    assert (found.first, found.last) == ((2, 2), (3, 3)) and found.clipped == (True, False)


def test_torch_modules():
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 7, 2, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(3, 2, 1),
        torch.nn.Conv2d(4, 4, 3, 1, 1),
    ).eval()  # fmt: skip
    found = probe_receptive_field(module, torch.zeros(1, 3, 64, 64), holes=False)
    # 7, then 2·2 for the pool, then 2·4 for the layer: 19; output 8 starts at 4·8 − 9.
    assert found.size == (19, 19) and found.first == (23, 23)


def test_networks_as_before():
    found = probe_receptive_field(Chain(Conv(3, padding="valid"), Conv(2), ndim=1))
    assert found.size == (4,) and found.offset == (0,)
    with pytest.raises(ValueError, match="example: got one beside a network"):
        probe_receptive_field(Chain(Conv(3)), line(9))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(mode="inf"), "mode: got 'inf'"),
        (dict(example=None), "example: got NoneType"),
        (dict(example=np.zeros((2, 9, 1))), r"example: got shape \(2, 9, 1\)"),
        (dict(unit=9), "unit: got 9"),
        (dict(phases=9), r"unit: got \(9,\)"),
        (dict(phases=0), "phases: got 0"),
        (dict(function=lambda x: x + jnp.nan), "function: got NaN for a normal input"),
        (dict(function=lambda x: 0.0 * jnp.ones_like(x)), "no input pixel reaches"),
    ],
)
def test_errors_are_one_line(change, message):
    options = {"function": lambda x: conv(x, 3), "example": line(9)} | change
    with pytest.raises(ValueError, match=message) as raised:
        probe_receptive_field(**options)
    assert "\n" not in str(raised.value)
