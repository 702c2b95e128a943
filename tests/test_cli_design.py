"""The command `erftheory design`: what it prints and writes is what `design` returns."""

from __future__ import annotations

import csv
import json

import pytest

from erftheory import Chain, Conv, cli, design, receptive_field

SMALL = ["design", "--image", "32", "--depth", "1-3", "--channels", "4,8", "--dilations", "1,2"]
ALLOWED = dict(
    kernels=(3, 5, 7), strides=(1, 2), dilations=(1, 2), depth=(1, 3), channels=(4, 8), ndim=2
)


@pytest.mark.parametrize(
    "options, asked",
    [
        (["--erf-std", "4"], dict(erf=4)),
        (["--erf-std", "4", "--max-macs", "2e5"], dict(erf=4, budget=2e5)),
        (["--erf-std", "4", "--max-parameters", "900"], dict(erf=4, budget=900, cost="parameters")),
        (["--erf-std", "4", "--cost", "memory"], dict(erf=4, cost="memory")),
        (["--mass-radius", "8"], dict(erf={"mass_radius": 8})),
        (["--gaussian", "3"], dict(erf={"gaussian": 3})),
        (["--flat", "4"], dict(erf={"flat": 4})),
        (["--field", "9-21", "--no-holes"], dict(field=(9, 21), gridding=False)),
        (["--field", "15", "--stride", "-2"], dict(field=15, stride=(None, 2))),
        (["--look-back", "9", "--latency", "12"], dict(lookback=(9, None), latency=(None, 12))),
    ],
)
def test_options_are_the_arguments_of_design(options, asked, capsys):
    assert cli.main([*SMALL, *options]) == 0
    assert capsys.readouterr().out == f"{design(image=32, allowed=ALLOWED, **asked)}\n"


def test_layers_that_may_be_separable_or_have_shortcuts(capsys):
    kinds = ["--separable", "--residual", "--inputs", "4", "--kernels", "3", "--ndim", "1"]
    assert cli.main([*SMALL, *kinds, "--erf-std", "2"]) == 0
    allowed = dict(
        ALLOWED, kernels=3, separable=(False, True), skip=("none", "residual"), inputs=4, ndim=1
    )
    assert capsys.readouterr().out == f"{design(2, 32, allowed=allowed)}\n"


def test_causal_networks_with_a_look_back(capsys):
    """The defaults of causal networks: kernels of 3, doubled dilations, one axis."""
    assert cli.main(["design", "--causal", "--look-back", "200", "--image", "512",
                     "--no-holes", "--depth", "7"]) == 0  # fmt: skip
    allowed = dict(
        kernels=3, dilations=[2**i for i in range(11)], depth=7, ndim=1, padding="causal",
        channels=32,
    )  # fmt: skip
    front = design(image=512, lookback=(200, None), gridding=False, allowed=allowed)
    assert capsys.readouterr().out == f"{front}\n"
    assert front[0].lookback >= 200 and front[0].latency == front[0].holes == 0


def test_the_front_as_a_picture_and_as_data(tmp_path, capsys):
    front = design(4, 32, allowed=ALLOWED)
    paths = {s: tmp_path / f"front.{s}" for s in ("png", "json", "csv")}
    for path in paths.values():
        assert cli.main([*SMALL, "--erf-std", "4", "--out", str(path)]) == 0
    assert paths["png"].read_bytes()[1:4] == b"PNG"
    data = json.loads(paths["json"].read_text())
    assert int(data["networks"]) == front.networks and data["unit"] == "MACs"
    rows = list(csv.DictReader(paths["csv"].open()))
    for row, found, line in zip(front, data["rows"], rows, strict=True):
        assert found["cost"] == row.cost == int(line["cost"])
        network = eval(found["network"], {"Chain": Chain, "Conv": Conv})
        assert network == row.network and found["network"] == line["network"]
        assert receptive_field(network).size == (found["field"],) * 2


@pytest.mark.parametrize(
    "options, message",
    [
        (["--erf-std", "4", "--flat", "3"], "erf: got 2 of them (std, flat); takes one"),
        (["--erf-std", "-4"], "erf: got {'std': -4.0}; takes pixels >= 0"),
        (["--kernels", "3,x"], "kernels: got '3,x'; takes integers"),
        (["--kernels", "0"], "allowed['kernels']: got 0"),
        (["--depth", "many"], "depth: got 'many'; takes a number or a range"),
        (["--depth", "3-1"], "allowed['depth']: got (3, 1)"),
        (["--field", "-"], "field: got '-'; takes a number or a range"),
        (["--field", "9-3"], "field: got (9, 3)"),
        (["--cost", "memory", "--max-macs", "9"], "cost: got 'memory' with max-macs; takes"),
        (["--max-macs", "9", "--max-memory", "9"], "cost: got 'macs' with max-macs, max-memory"),
        (["--max-macs", "9"], "budget: got 9 MACs; takes"),
        (["--out", "front.txt"], "out: got 'front.txt'; takes a path that ends with .png"),
        (["--out", "no/such/front.png"], "out: got 'no/such/front.png'"),
    ],
)
def test_bad_questions_are_one_line_and_code_2(options, message, capsys):
    assert cli.main([*SMALL, *options]) == 2
    shown = capsys.readouterr()
    assert message in shown.err and shown.err.count("\n") == 1 and not shown.out
