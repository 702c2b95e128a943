"""Cures: what a change is said to do is what the changed network has, by trying all changes."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest

from erftheory import (
    Chain,
    Conv,
    MaxPool,
    Residual,
    advise,
    cli,
    cures,
    exact,
    moments,
    receptive_field,
    zoo,
)
from erftheory.designing.changing import slots
from erftheory.designing.costs import of_network
from erftheory.designing.cures import changes, macs

# (kernel, stride, dilation) of layers in a row, and an image
CASES = {
    "too large for every field": ([(3, 1, 1), (3, 2, 1), (3, 1, 1)], 14, 2),
    "layers without work": ([(5, 2, 1), (5, 2, 1), (3, 1, 1), (3, 1, 1)], 14, 2),
    "holes": ([(3, 1, 2), (3, 1, 4), (3, 1, 2)], 64, 1),
    "holes behind a stride": ([(3, 2, 3), (3, 1, 1), (3, 1, 3)], 20, 1),
    "nothing": ([(3, 1, 1), (3, 1, 1)], 4, 2),
}


def built(rows, ndim):
    return Chain(*(Conv(k, s, d, channels=8) for k, s, d in rows), ndim=ndim)


def seen(network, image):
    """The findings, each by a reading of its own where there is one."""
    advice = advise(network, image)
    field = receptive_field(network)
    found = {
        "unproductive": bool(advice.unproductive),
        "spent": bool(advice.spent),
        "unseen": image > field.size[0],
        "holes": exact(network).holes is not None and bool(exact(network).holes.any()),
    }
    return {name for name, there in found.items() if there}


def neighbours(rows):
    for i, (k, s, d) in enumerate(rows):
        new = [(k + 2, s, d), (k - 2, s, d), (k, 3 - s, d)]
        new += [(k, s, e) for e in {1, d - 1, d + 1} - {d, 0} if k > 1]
        for layer in new:
            if layer[0] >= 1:
                yield [*rows[:i], layer, *rows[i + 1 :]]


@pytest.mark.parametrize("name", CASES)
def test_cures_are_the_cheapest_of_all_single_changes(name):
    rows, image, ndim = CASES[name]
    network = built(rows, ndim)
    before, base = seen(network, image), of_network("macs", network, image, 3)
    expected = []
    for other in neighbours(rows):
        changed = built(other, ndim)
        after = seen(changed, image)
        if before - after and after <= before:
            expected.append(of_network("macs", changed, image, 3))
    found = cures(network, image)
    assert set(found.found) == before and macs(network, (image,) * ndim) == base
    assert [c.macs for c in found] == sorted(expected)[:3]
    assert bool(found) == (name not in ("nothing", "holes behind a stride"))
    for cure in found:
        assert set(cure.cured) == before - seen(cure.network, image)
        assert cure.macs == of_network("macs", cure.network, image, 3)
        assert cure.ratio == pytest.approx(cure.macs / base)
        assert cure.std == moments(cure.network).std
    assert bool(found) == bool(expected)


def test_strides_and_repetitions_of_real_networks():
    found = cures(zoo.resnet18(), 64)
    assert found.found == ("unproductive", "spent") and len(found) == 3
    assert [c.macs for c in found] == sorted(c.macs for c in found)
    for cure in found:
        assert not advise(cure.network, 64).unproductive and cure.cured == ("unproductive",)
        assert cure.std == pytest.approx(moments(cure.network).std)
    rest = next(c for c in found if c.name.startswith("layer4/rest"))
    assert rest.change == "kernel 3 → 1" and rest.layer == "Conv(3, channels=512)"
    assert "no more unproductive layers" in str(found) and "<ol>" in found._repr_html_()
    assert cures(zoo.vgg16(), 200).lines == ("cures: nothing to cure",)
    assert "cures: none of" in str(cures(zoo.vgg16(), 32))


def test_published_costs():
    """He et al. 2016, table 1: 3.6e9 and 3.8e9 of ResNet-34 and ResNet-50 (with 1000 classes)."""
    assert macs(zoo.resnet34(), (224, 224)) == pytest.approx(3.6e9, rel=0.03)
    assert macs(zoo.resnet50(), (224, 224)) == pytest.approx(3.8e9, rel=0.09)
    assert macs(zoo.vgg16(), (224, 224)) == pytest.approx(15.35e9, rel=0.01)


@pytest.mark.parametrize("padding", ["same", "valid", "causal", 1, ((1, 2),)])
def test_changes_keep_what_padding_keeps(padding):
    """A window that grows by 2 an axis grows its numbers of padding by 1 a side."""
    for layer in (Conv(5, padding=padding, dilation=2), MaxPool(3, 2, padding=padding)):
        before = layer.step(1)
        for text, other in changes(layer, 1):
            after = other.step(1)
            if not text.startswith("stride") and padding != "valid":
                grown = after.span[0] - before.span[0]
                assert after.pads[0] - before.pads[0] == grown, text
            if "stride" in text:
                assert after.stride != before.stride and after.span == before.span
    words = [t for t, _ in changes(Conv(3, taps=[1, 2, 1]), 1)]
    assert words == ["stride 1 → 2", "dilation 1 → 2"]  # taps fix the kernel


def test_names_of_all_operations():
    block = Residual(Chain(Conv(3).named("a"), Conv(3)), gain=Fraction(1, 2)).named("block")
    network = Chain(Conv(3).named("stem"), block * 2, ndim=1)
    names = [name for name, _ in slots(network).values()]
    assert names == ["stem", "block/branch/a", "block/branch", "block"]


def test_the_command_ends_with_cures(tmp_path, capsys):
    data = tmp_path / "advice.json"
    assert cli.main(["advise", "vgg16", "--image", "300", "--json", str(data)]) == 0
    shown = capsys.readouterr().out
    found = cures(zoo.vgg16(), 300)
    assert shown == f"{advise(zoo.vgg16(), 300)}\n{found}\n" and "cure 1: dilation 1 → 2" in shown
    assert [c["macs"] for c in json.loads(data.read_text())["cures"]] == [c.macs for c in found]
    assert cli.main(["advise", "vgg16", "--image", "300", "--no-cures"]) == 0
    assert capsys.readouterr().out == f"{advise(zoo.vgg16(), 300)}\n"
    assert cli.main(["advise", "vgg16", "--image", "20"]) == 0
    shown = capsys.readouterr().out
    assert shown == f"{advise(zoo.vgg16(), 20)}\ncures: not tried ({_refused()})\n"


def _refused():
    with pytest.raises(ValueError, match="image: got .*, too small for") as error:
        cures(zoo.vgg16(), 20)
    return error.value


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(image=0), "image: got 0"),
        (dict(image=64, inputs=0), "inputs: got 0"),
        (dict(image=64, signal="power"), "signal: got 'power'"),
    ],
)
def test_bad_arguments_in_one_line(options, message):
    with pytest.raises(ValueError, match=f"^{message}") as error:
        cures(zoo.resnet18(), **options)
    assert "\n" not in str(error.value)
