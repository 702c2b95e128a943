"""The zoo against published numbers, and its chains against exact counting."""

from __future__ import annotations

import numpy as np
import pytest

from erftheory import counting, exact, moments, receptive_field, zoo

# Araujo, Norris, Sim (Distill 2019): alexnet_v2, vgg_16, mobilenet_v1, inception_v3,
# resnet_v1_50/101/152; the others from torchvision's definitions, counted by several tools.
PUBLISHED = {
    "alexnet": 195,
    "vgg16": 212,
    "resnet18": 435,
    "resnet34": 899,
    "resnet50": 427,
    "inception_v3": 1311,
    "densenet121": 2071,
    "mobilenet_v1": 315,
    "wavenet": 1024,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_fields(name):
    rf = receptive_field(zoo.get(name))
    assert set(rf.size) == {PUBLISHED[name]}
    assert set(rf.stride) == {1 if name == "wavenet" else 32}


@pytest.mark.parametrize("depth, size", [(50, 483), (101, 1027), (152, 1507)])
def test_strides_in_the_first_1x1(depth, size):
    net = zoo.get(f"resnet{depth}", stride="1x1")
    assert receptive_field(net).size == (size, size)


def test_unet():
    assert receptive_field(zoo.unet(2)).size == (44, 44)
    phases = receptive_field(zoo.unet(2, up="bilinear")).phases
    assert {p.size[0] for p in phases} == {48, 52}


@pytest.mark.parametrize("name", [n for n in zoo.names() if not n.startswith(("dense", "unet"))])
def test_moments_equal_the_marginals(name):
    net = zoo.get(name)
    m, erf = moments(net), exact(net)
    assert erf.std == pytest.approx(m.std, rel=1e-8)
    for axis, line in enumerate(erf.marginals):
        assert line.sum() == pytest.approx(1)
        t = np.arange(line.size) + erf.offset[axis]
        assert (line * t).sum() == pytest.approx(float(m.mean[axis]), abs=1e-8)


@pytest.mark.parametrize("name", [n for n in zoo.names() if not n.startswith("unet")])
def test_marginals_equal_counting(name):
    """Every weight above 1e-6 of the largest to 1e-8, on all paths counted alike."""
    net = zoo.get(name)
    counts, erf = counting(net), exact(net, "gradient", init=None)
    for axis in {0, net.ndim - 1}:
        line = counts.marginal(axis)
        total = sum(line)
        truth = np.array([float(v / total) if v % 1 else v / total for v in line])
        seen = truth > 1e-6 * truth.max()
        error = np.abs(erf.marginals[axis] - truth)[seen] / truth[seen]
        assert error.max() <= 1e-8


def test_endpoints():
    net = zoo.resnet34()
    sizes = [receptive_field(net.until(f"layer{i}")).size[0] for i in range(1, 5)]
    assert sizes == sorted(sizes) and sizes[-1] == 899
    assert receptive_field(net.until("layer3")).stride == (16, 16)
    assert receptive_field(net.until("stem")).size == (11, 11)


def test_unknown_names():
    with pytest.raises(ValueError, match="^name: got 'resnet35'; takes one of alexnet"):
        zoo.get("resnet35")
    with pytest.raises(ValueError, match="^stride: got '2x2'"):
        zoo.resnet50(stride="2x2")


@pytest.mark.parametrize("up", ["transposed", "bilinear"])
def test_unet_equals_counting(up):
    """Three levels of the zoo's U-Net; the integer map of the fourth costs far more."""
    net = zoo.unet(3, up=up)
    weights = counting(net).map
    truth = (weights / weights.sum()).astype(float)
    seen = truth > 1e-6 * truth.max()
    error = np.abs(exact(net, "gradient", init=None).map - truth)[seen] / truth[seen]
    assert error.max() <= 1e-8
