"""One function of initialisations, for theory and executed nets, equal to what libraries do."""

from __future__ import annotations

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from erftheory import Activation, Chain, Conv, ConvTranspose, Residual, exact, moments, sample
from erftheory.empirical.nets.draw import initialise
from erftheory.network.initialisation import INITS, bias_variance, check_init, weight_variance


def by_torch(kind, **options):
    import torch

    torch.manual_seed(0)
    layer = getattr(torch.nn, kind)(48, 80, 3, **options)
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()


def by_flax():
    from flax import linen

    x = jnp.zeros((1, 8, 8, 48))
    found = linen.Conv(80, (3, 3)).init(jax.random.key(0), x)["params"]
    return np.asarray(found["kernel"]), np.asarray(found["bias"])


def by_keras():
    """Keras' default is Glorot's uniform law; Keras itself fixes its backend once a process."""
    return np.asarray(jax.nn.initializers.glorot_uniform()(jax.random.key(0), (3, 3, 48, 80))), 0


@pytest.mark.parametrize(
    ("name", "made", "fans", "transposed"),
    [
        ("torch", lambda: by_torch("Conv2d"), (48, 80), False),
        ("torch", lambda: by_torch("Conv2d", groups=4), (12, 20), False),
        ("torch", lambda: by_torch("ConvTranspose2d"), (48, 80), True),
        ("flax", by_flax, (48, 80), False),
        ("keras", by_keras, (48, 80), False),
    ],
)
def test_variances_are_those_of_the_libraries(name, made, fans, transposed):
    weights, biases = made()
    for values, rule in ((weights, weight_variance), (biases, bias_variance)):
        wanted = float(rule(name, *fans, 9, transposed))
        if not wanted:
            assert not np.any(values)
            continue
        # of uniform numbers x²/variance has variance 4/5, of normal ones 2
        error = wanted * math.sqrt(2 / values.size)
        assert abs(float((values**2).mean()) - wanted) < 5 * error


@pytest.mark.parametrize("init", [*INITS, 0.7, Fraction(1, 3)])
def test_theory_and_nets_have_the_same_variances(init):
    """A branch of one convolution beside an identity: its power is variance · fan_out."""
    net = Chain(Conv(1, channels=6), Residual(Conv(3, channels=6)), Conv(1), ndim=1)
    params = initialise(net, jax.random.key(1), 6, init=init, weights="rademacher")
    weights = params.weights[2]
    weights = weights[0] if isinstance(weights, tuple) else weights
    squares = np.square(np.asarray(weights))
    assert np.ptp(squares) < 1e-6 * squares.max()
    power = 6 * float(squares.mean())
    wanted = np.array([power, 1 + power, power])
    assert exact(net, init=init).map == pytest.approx(wanted / wanted.sum(), rel=1e-5)


def test_a_transposed_convolution_has_pytorchs_fan_in():
    for init, fan in (("he", 4 * 3), ("torch", 2 * 3)):
        factor = {"he": 2.0, "torch": 1 / 3}[init]
        variance = float(weight_variance(init, 4, 2, 3, True))
        assert variance == pytest.approx(factor / fan)


def test_biases_of_pytorch_change_the_gates_as_predicted():
    """ReLU of a sum: its gates follow the means that biases give to channels."""
    inner = Chain(Conv(3), Activation("relu"), Conv(1))
    net = Chain(Conv(1), Residual(inner), Activation("abs"), Residual(inner), Conv(1), ndim=1)
    wanted = exact(net, init="torch")
    drawn = sample(net, 5, 3000, channels=48, init="torch", in_channels=48)
    (deviation,) = (drawn.std[0] - wanted.std[0],)
    assert abs(deviation) < 5 * drawn.std_stderr[0] + 0.01 * wanted.std[0]
    params = initialise(net, jax.random.key(0), init="torch")
    assert isinstance(params.weights[1], tuple)


@pytest.mark.parametrize("init", ["kaiming", 0, -1.0, float("nan"), float("inf"), True, [1]])
def test_others_are_refused_in_one_line(init):
    with pytest.raises(ValueError, match=r"^init: got .*; takes a positive number c"):
        check_init(init)
    with pytest.raises(ValueError, match=r"^init: got .*; takes .*, or None$"):
        moments(Conv(3), init=init)
    assert check_init(None, counting=True) is None


def test_a_number_is_a_factor_over_fan_in():
    net = Chain(Conv(1), Residual(Conv(3)), ConvTranspose(2, 2), ndim=1)
    for number, name in ((2, "he"), (1.0, "lecun"), (Fraction(1), "flax")):
        assert moments(net, init=number) == moments(net, init=name)
