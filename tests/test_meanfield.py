"""The forward mean-field pass against closed forms and quadrature."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import integrate, signal, stats

from erftheory.network.base import Chain
from erftheory.network.combine import Branches, Residual
from erftheory.network.graph import Graph, Loop, Sum
from erftheory.network.imported import GraphNetwork
from erftheory.network.layers import (
    Activation,
    AvgPool,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dropout,
    MaxPool,
    Upsample,
)
from erftheory.theory.gains.forward import meanfield_gains
from erftheory.theory.readings.moments import moments
from erftheory.theory.units import law as dist
from erftheory.theory.walk.links import transfer

C, BN, RELU = Conv(3), BatchNorm(), Activation("relu")
ONE = Conv(1)
KEPT = 1 - 1 / math.pi  # variance of a rectified unit over half its second moment


def ratios(network, **options):
    """Power of branch over shortcut at each sum of two inputs."""
    graph = network.graph
    gains = meanfield_gains(graph, **options)
    found = []
    for index, node in enumerate(graph.nodes):
        if isinstance(node.op, Sum) and node.op.fork is not None:
            first, second = (
                transfer(graph, gains, node.op.fork, i) * gains.links[index][k].gain
                for k, i in enumerate(node.inputs)
            )
            found.append(first / second)
    return found


def fresh_ratios(network, blocks=None, **options):
    """`ratios` for a gradient that starts at the sum, so that no activation above has chosen
    among its units: of the net cut behind each of its sums, or of those in `blocks`."""
    nodes = network.graph.nodes
    sums = [i for i, node in enumerate(nodes) if isinstance(node.op, Sum)]
    cut = [GraphNetwork(Graph(network.ndim, nodes[: i + 1])) for i in sums]
    return [ratios(cut[i], **options)[-1] for i in (range(len(cut)) if blocks is None else blocks)]


def total(network, **options):
    return transfer(network.graph, meanfield_gains(network.graph, **options))


# ---- residual nets with batch norm -----------------------------------------------------------


@pytest.mark.parametrize("m", [1, 2, 3])
def test_preactivation_blocks_follow_the_closed_form(m):
    blocks = [Residual(Chain(*[BN, RELU, C] * m))] * 40
    wanted = [KEPT ** (1 - m) / (1 + KEPT * i) for i in range(40)]
    assert ratios(Chain(*blocks)) == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize(
    ("m", "published"),
    [(2, [1.467, 0.872, 0.621, 0.482]), (3, [2.152, 1.280, 0.911, 0.707])],
)
def test_preactivation_blocks_against_published_numbers(m, published):
    blocks = [Residual(Chain(*[BN, RELU, C] * m))] * 4
    assert ratios(Chain(*blocks)) == pytest.approx(published, abs=5.1e-4)


def post_activation(blocks):
    block = Chain(Residual(Chain(C, BN, RELU, C, BN)), RELU)
    return Chain(C, BN, RELU, *[block] * blocks)


def test_postactivation_blocks_against_published_numbers():
    found = fresh_ratios(post_activation(4))
    assert found == pytest.approx([4.306, 2.107, 1.390, 1.037], rel=3e-3)


def test_postactivation_second_block_by_quadrature():
    """Var of ReLU(ReLU(a) + b), a and b standard normal, by two-dimensional integration."""
    phi = stats.norm.pdf

    def moment(k):
        low = integrate.quad(lambda b: max(b, 0.0) ** k * phi(b), -9, 9, points=[0])[0] / 2

        def inner(a):
            return integrate.quad(lambda b: (a + b) ** k * phi(b), -a, 9)[0] * phi(a)

        return low + integrate.quad(inner, 0, 9, epsabs=1e-11)[0]

    variance = moment(2) - moment(1) ** 2
    found = fresh_ratios(post_activation(2))
    assert found == pytest.approx([2 / KEPT**2, 1 / (KEPT * variance)], rel=1e-8)


def test_deep_postactivation_trunk_keeps_its_accuracy():
    """The trunk of 60 blocks by convolution and rectification on a fine uniform grid."""
    h = 0.01
    x = np.arange(-1200, 8000) * h
    noise = stats.norm.pdf(np.arange(-900, 901) * h) * h
    zero = 1200
    law = np.zeros(len(x))
    law[zero], law[zero + 1 :] = 0.5, stats.norm.pdf(x[zero + 1 :]) * h
    law /= law.sum()
    wanted = []
    for _ in range(60):
        variance = law @ x**2 - (law @ x) ** 2
        wanted.append(1 / (KEPT * variance))
        law = np.maximum(signal.fftconvolve(law, noise, mode="same"), 0)
        law[zero] += law[:zero].sum()
        law[:zero] = 0
        law /= law.sum()
    blocks = (0, 1, 2, 5, 12, 30, 59)
    found = fresh_ratios(post_activation(60), blocks)
    assert found == pytest.approx([wanted[i] for i in blocks], rel=2e-3)


def test_projection_resets_the_ratio():
    reset = Residual(Chain(C, BN, RELU, C, BN), Chain(Conv(1), BN))
    found = ratios(Chain(post_activation(3), reset))
    # both branches divide by a variance of a convolution: only the inner BN tells them apart
    inner = ratios(Chain(C, BN, RELU, reset))
    assert inner == pytest.approx([1 / KEPT], rel=1e-12)
    assert found[-1] == pytest.approx(1 / KEPT, rel=1e-12)


# ---- gates along an identity ------------------------------------------------------------------


def by_values(blocks, h):
    """Total power, and mean number of branch steps, of a post-activation net on a uniform grid.

    The power that a unit of value x hands on is carried back as a function of x:
    G_l(x) = c_l E G_{l+1}(x′) + E_b 1{x + b > 0} G_{l+1}(x + b), with c_l the branch's gain.
    """
    x = np.arange(-1200, round(60 / h)) * h
    zero, half = 1200, round(9 / h)
    noise = stats.norm.pdf(np.arange(-half, half + 1) * h)
    noise /= noise.sum()
    law = np.where(x > 0, stats.norm.pdf(x) * h, 0)
    law[zero] = 0.5
    laws, branch = [law / law.sum()], []
    for _ in range(blocks):
        law = laws[-1]
        branch.append(1 / (KEPT * (law @ x**2 - (law @ x) ** 2)))
        law = signal.fftconvolve(law, noise, mode="same")
        law[zero] += law[:zero].sum()
        law[:zero] = 0
        laws.append(law / law.sum())
    gate = (x > 0) + 0.5 * (x == 0)

    def back(f):
        return signal.fftconvolve(np.pad(f * gate, half, mode="edge"), noise, mode="valid")

    power, steps = np.ones(len(x)), np.zeros(len(x))
    for law, c in zip(laws[-2::-1], branch[::-1]):
        a, b = back(power), back(steps)
        power, steps = a + c * (law @ a), b + c * (law @ b + 2 * (law @ a))
    stem = laws[0] * (x > 0)
    return np.array([stem @ power, stem @ steps / (stem @ power)])


@pytest.mark.parametrize("blocks", [1, 2, 3, 8, 16])
def test_postactivation_power_by_a_recursion_over_values(blocks):
    # the grid's error is linear in h, for the atom at 0 and the jump of the gate
    coarse, fine = by_values(blocks, 0.02), by_values(blocks, 0.01)
    power, steps = 2 * fine - coarse
    net = post_activation(blocks)
    assert float(total(net)) == pytest.approx(power, rel=5e-4)
    # paths factorise only nearly: the shares of branches are 0.03 to 2.2 % too large, where
    # independent gates would make them 3.7 to 9 % too large
    found = (float(moments(net).variance[0]) - 2 / 3) / (2 / 3)
    assert 0 < found / steps - 1 + 2e-4 < {1: 4e-4, 2: 0.003, 3: 0.005, 8: 0.014, 16: 0.023}[blocks]


def test_one_gate_behind_another():
    """A ReLU behind a ReLU passes what the first has passed; an absolute value passes all."""
    assert float(total(Chain(ONE, BN, RELU, RELU))) == pytest.approx(2 * 0.5 / 2, rel=1e-12)
    assert float(total(Chain(ONE, BN, RELU, Activation("abs"), RELU))) == pytest.approx(0.5)
    # x + b > 0 and x > 0 for x = ReLU(a): a and a + b are correlated by 1/√2 where a > 0
    both = 1 / 4 + math.asin(1 / math.sqrt(2)) / (2 * math.pi)
    net = Chain(ONE, BN, RELU, Residual(Chain(ONE, BN)), RELU)
    law, _ = dist.activated(dist.STANDARD, "relu")
    _, open_ = dist.activated(dist.add(law, dist.STANDARD), "relu")
    wanted = both + float(open_) * 0.5 / float(law.variance)
    assert float(total(net)) == pytest.approx(wanted, rel=1e-6)


def test_an_explicit_gain_stays_the_ratio_in_front_of_a_relu():
    block = Chain(Residual(Chain(C, BN, RELU, C, BN), gain=2), RELU)
    assert ratios(Chain(C, BN, RELU, *[block] * 3)) == pytest.approx([2, 2, 2], rel=1e-12)


# ---- exact rationals -------------------------------------------------------------------------


def exactly(value, wanted):
    return not isinstance(value, float) and value == wanted


def test_linear_and_relu_chains_are_exact():
    chain = Chain(Conv(3, channels=8), Conv(5, channels=32), Conv(1, channels=4))
    assert exactly(total(chain, in_channels=2), 8 * Fraction(8, 2) * 4 * Fraction(1, 8))
    assert exactly(total(chain, in_channels=2, init="lecun"), 2)
    xavier = Fraction(16, 10) * Fraction(64, 40) * Fraction(8, 36)
    assert exactly(total(chain, in_channels=2, init="xavier"), xavier)
    relu = Chain(*[C, RELU] * 30)
    assert exactly(total(relu), 1)
    assert total(relu, signal="gradient") == pytest.approx(1, rel=1e-14)
    assert exactly(total(Conv(3, channels=8), in_channels=4, signal="gradient"), 2)
    leaky = Chain(C, Activation("leaky_relu"), C)
    assert exactly(total(leaky), 2 * Fraction(10001, 10000))
    assert exactly(total(Chain(C, Dropout(0.5), RELU, C)), 4)


def test_residuals_are_exact():
    assert all(exactly(r, 2) for r in ratios(Chain(*[Residual(C)] * 5)))
    assert all(exactly(r, 2) for r in ratios(Chain(*[Residual(Chain(C, RELU, C))] * 5)))


def test_groups_and_depthwise():
    assert exactly(total(Chain(Conv(3, channels=8, groups=4)), in_channels=16), 1)
    depthwise = Conv(3, groups="depthwise")
    assert exactly(total(Chain(C, depthwise)), 4)
    wide = Chain(Conv(1, channels=6), Conv(3, groups="depthwise", channels=18))
    assert exactly(total(wide, in_channels=1), 12 * 6)
    with pytest.raises(ValueError, match=r"^\S.*: got 10 channels; .* multiple of 6"):
        total(Chain(Conv(1, channels=6), Conv(3, groups="depthwise", channels=10)))


def test_fixed_layers_have_their_power_and_their_mass():
    for layer, power, mass in (
        (AvgPool(3), Fraction(1, 9), 1),
        (MaxPool(3), 1, 1),
        (Upsample(2), 4, 4),
        (Upsample(2, "bilinear"), Fraction(20, 16) ** 2, 4),
    ):
        assert exactly(total(Chain(layer)), power)
        assert total(Chain(layer), signal="gradient") == mass


def test_transposed_convolution():
    layer = ConvTranspose(4, stride=2, padding=1, channels=8)
    assert exactly(total(Chain(layer), in_channels=4), 4)
    shortcut = Chain(Upsample(2), Conv(1, channels=8))
    both = Chain(Conv(1, channels=4), BN, Residual(Chain(layer, BN), Chain(shortcut, BN)))
    # forward 2/4 · 1 against 2 · 1; backward 2·2 against 2·2·4
    assert ratios(both) == pytest.approx([4 * 2 / (16 / 2)], rel=1e-12)


# ---- explicit gains --------------------------------------------------------------------------


def test_an_explicit_gain_is_the_ratio():
    branch = Chain(BN, RELU, C, AvgPool(3, stride=1, padding=1), C)
    found = ratios(Chain(Residual(branch, gain=3), Residual(C, gain=Fraction(9, 4))))
    assert found[0] == pytest.approx(3, rel=1e-14) and found[1] == pytest.approx(2.25, rel=1e-14)
    found = ratios(Chain(Residual(C, gain=Fraction(9, 4))), signal="gradient")
    assert exactly(ratios(Residual(C, gain=3))[0], 3)
    assert found == pytest.approx([1.5], rel=1e-14)
    nested = Residual(Chain(Residual(C), C), gain=3)
    assert ratios(nested, signal="gradient")[-1] == pytest.approx(math.sqrt(3), rel=1e-14)


def test_an_explicit_gain_scales_the_forward_state():
    """Gain 3 on a He branch of variance 2: the trunk grows by 3, so the next ratio is 2/4."""
    found = ratios(Chain(Residual(C, gain=3), Residual(Chain(BN, C))))
    assert found[1] == pytest.approx(2 / 4, rel=1e-14)


# ---- concatenation and sums of groups --------------------------------------------------------


def test_dense_concatenation_keeps_groups_apart():
    """BN divides each part of a concatenation by its own variance."""
    layer = Chain(BN, RELU, Conv(3, channels=4))
    net = Chain(Conv(1, channels=12), Branches(None, layer), Branches(None, layer), BN, RELU, C)
    graph = net.graph
    gains = meanfield_gains(graph, channels=10, in_channels=1)
    last = len(graph.nodes) - 1
    assert gains.channels[last - 3] == (12, 4, 4)
    links = {link.source: link.gain for link in gains.links[last - 2]}
    first = Fraction(1, 2)  # the first convolution has variance 2
    branch = 1 / KEPT  # a He convolution of rectified units: 2 · 1/2 less its channel means
    assert links == {0: first, 1: pytest.approx(branch), 2: pytest.approx(branch)}
    assert {link.target for link in gains.links[last]} == {0}
    assert {link.gain for link in gains.links[last]} == {Fraction(2 * 10, 20)}


def test_concatenated_parts_share_channel_means_in_the_right_proportion():
    net = Chain(Branches(Conv(1, channels=3), Chain(Conv(1, channels=1), RELU)), C, BN)
    gains = meanfield_gains(net.graph, channels=4, in_channels=1)
    # second (3·2 + 1·1)/4, channel means (0 + 1/π)/4; He doubles both
    variance = 2 * (7 - 1 / math.pi) / 4
    assert gains.links[-1][0].gain == pytest.approx(1 / variance, rel=1e-12)


def test_sums_refine_groups():
    left = Branches(Conv(1, channels=2), Conv(1, channels=6))
    right = Branches(Conv(1, channels=4), Conv(1, channels=4))
    gains = meanfield_gains(Residual(left, right).graph, in_channels=1)
    assert gains.channels[-1] == (2, 2, 4)
    found = {(k.input, k.source, k.target): k.gain for k in gains.links[-1]}
    third, half = Fraction(1, 3), Fraction(1, 2)
    assert found == {
        (0, 0, 0): 1,
        (0, 1, 1): third,
        (0, 1, 2): 2 * third,
        (1, 0, 0): half,
        (1, 0, 1): half,
        (1, 1, 2): 1,
    }


def test_unequal_sums_are_errors():
    with pytest.raises(ValueError, match="^[^\n]*: got a sum of 4 and 6 channels; takes [^\n]*$"):
        meanfield_gains(Branches(Conv(1, channels=4), Conv(1, channels=6), merge="sum").graph)
    with pytest.raises(ValueError, match="^init: got 'glorot'; takes"):
        meanfield_gains(Chain(C).graph, init="glorot")
    with pytest.raises(ValueError, match="^signal: got 'power'; takes"):
        meanfield_gains(Chain(C).graph, signal="power")


def test_widths_left_open():
    assert meanfield_gains(Residual(Chain(C, C)).graph).channels == [(16,)] * 4
    assert meanfield_gains(Residual(Conv(3, channels=7)).graph).channels[0] == (7,)
    net = Chain(Conv(1, channels=64), Residual(Chain(C, Conv(1), C * 3)), Conv(1, channels=1))
    gains = meanfield_gains(net.graph, channels=24)
    assert [c for (c,) in gains.channels] == [1, 64, 24, 24, 64, 64, 1]


# ---- repetitions -----------------------------------------------------------------------------

BLOCKS = [
    Chain(C, RELU),
    Residual(Chain(BN, RELU, C)),
    Chain(Residual(Chain(C, BN, RELU, C, BN)), RELU),
    Chain(C, Activation("tanh")),
    Residual(Chain(C, Activation("gelu"), C), gain=0.5),
    Chain(Branches(None, Chain(BN, RELU, Conv(3, channels=8))), Conv(1, channels=16)),
]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.parametrize("signal", ["variance", "gradient"])
def test_a_repetition_equals_its_copies(block, signal):
    stem, head = Chain(Conv(3, channels=16), BN, RELU), Residual(Chain(C, BN))
    for times in (2, 7):
        rolled = Chain(stem, block * times, head)
        copies = Chain(stem, *[block] * times, head)
        one, many = (float(total(net, signal=signal)) for net in (rolled, copies))
        assert one == pytest.approx(many, rel=1e-9)
        gains = meanfield_gains(rolled.graph, signal=signal)
        for index, runs in gains.runs.items():  # concatenations are copied, not repeated
            assert sum(count for count, _ in runs) == times
            loop, (link,) = rolled.graph.nodes[index].op, gains.links[index]
            assert isinstance(loop, Loop)
            body = loop.graph
            product = math.prod(transfer(body, g) ** n for n, g in runs)
            if "tanh" not in repr(block):
                assert float(product) == pytest.approx(float(link.gain), rel=1e-9)


def test_runs_come_output_first():
    gains = meanfield_gains((Residual(Chain(BN, RELU, C)) * 3).graph)
    ((_, runs),) = gains.runs.items()
    body = Residual(Chain(BN, RELU, C)).graph
    powers = [transfer(body, g) for _, g in runs]
    assert powers == pytest.approx([1 + 1 / (1 + KEPT * i) for i in (2, 1, 0)])


@pytest.mark.parametrize("block", [C, Chain(C, RELU), Chain(C, Activation("tanh")), Residual(C)])
def test_a_long_repetition_is_instant(block):
    gains = meanfield_gains(Chain(block * 10**9, C).graph)
    assert math.isfinite(float(transfer(Chain(block * 10**9, C).graph, gains)))
    ((_, runs),) = gains.runs.items()
    assert sum(count for count, _ in runs) == 10**9 and len(runs) == 1
