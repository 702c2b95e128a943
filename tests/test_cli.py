"""The `erftheory` command: what it prints is what the package returns, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest

from erftheory import ERF, Chain, Conv, cli, exact, receptive_field, zoo
from erftheory.theory.tiling import tiling


def model():
    return Chain(Conv(3), Conv(5, 2).named("wide"))


def image(x):
    return x


NOT_A_NETWORK = 3
HERE = f"{__name__}:model"


def test_erf_writes_a_picture_a_record_and_numbers(tmp_path, capsys):
    data, picture, record = (tmp_path / n for n in ("a.json", "a.png", "a.npz"))
    assert cli.main(["erf", HERE, "--json", str(data), "--out", str(picture)]) == 0
    assert cli.main(["erf", HERE, "--out", str(record), "--unit", "1,0"]) == 0
    shown, net = json.loads(data.read_text()), model()
    assert tuple(shown["std"]) == exact(net).std
    assert tuple(shown["receptive_field"]) == receptive_field(net).size
    assert "7 x 7" in capsys.readouterr().out
    from matplotlib import image as images

    pixels = images.imread(picture)
    assert pixels.shape[2] == 4 and np.ptp(pixels[..., :3]) > 0.5  # not blank
    assert ERF.load(record) == exact(net, unit=(1, 0))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.npz", "a.png"]


def test_erf_on_an_image(tmp_path):
    data = tmp_path / "a.json"
    assert cli.main(["erf", HERE, "--image", "12", "--json", str(data)]) == 0
    found = json.loads(data.read_text())
    assert (found["shape"], found["offset"], found["image"]) == ([12, 12], [0, 0], 12)


def test_summary_advice_and_tiles(tmp_path, capsys):
    data = tmp_path / "a.json"
    assert cli.main(["summary", HERE, "--spacing", "0.5 mm", "--json", str(data)]) == 0
    assert "RF mm" in capsys.readouterr().out
    assert [r["receptive_field"] for r in json.loads(data.read_text())["rows"]] == [[3, 3], [7, 7]]
    assert cli.main(["advise", "resnet18", "--image", "64,96", "--json", str(data)]) == 0
    assert json.loads(data.read_text())["image"] == [64, 96]
    assert (
        cli.main(["tiling", "unet", "--until", "down0", "--tile", "16", "--json", str(data)]) == 0
    )
    assert json.loads(data.read_text())["exact"]["core"] == list(
        tiling(zoo.unet().until("down0"), 16).exact.core
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["erf", "nonsense"], "model: got 'nonsense'"),
        (["erf", "no/such.onnx"], "model: got 'no/such.onnx', which is no file"),
        (["erf", "no_such_module:model"], "model: got 'no_such_module:model'"),
        (["erf", f"{__name__}:missing"], "has no attribute 'missing'"),
        (["erf", f"{__name__}:NOT_A_NETWORK"], "takes a callable"),
        (["erf", f"{__name__}:image"], "without arguments"),
        (["erf", f"{__name__}:image", "--shape", "a,b"], "shape: got 'a,b'"),
        (["erf", HERE, "--image", "wide"], "image: got 'wide'"),
        (["erf", HERE, "--window", "wide"], "window: got 'wide'"),
        (["erf", HERE, "--unit", "1,2,3"], "unit: got"),
        (["erf", HERE, "--until", "nowhere"], "endpoint: got 'nowhere'"),
        (["tiling", HERE, "--tile", "3"], "tile: got 3 on axis 0"),
        (["tiling", HERE], "tile"),
        (["advise", HERE, "--image", "0"], "image: got 0"),
        (["summary", HERE, "--spacing", "mm"], "spacing: got 'mm'"),
    ],
)
def test_bad_usage_is_one_line_and_code_2(arguments, message, capsys):
    assert cli.main(arguments) == 2
    shown = capsys.readouterr()
    assert message in shown.err and shown.err.count("\n") == 1 and not shown.out


def test_files_are_written_whole_or_not_at_all(tmp_path, capsys):
    path = tmp_path / "erf.txt"
    assert cli.main(["erf", HERE, "--out", str(path)]) == 2
    assert "out: got a path with '.txt'" in capsys.readouterr().err
    assert cli.main(["erf", HERE, "--json", str(tmp_path / "no" / "a.json")]) == 2
    kept = tmp_path / "kept.png"
    kept.write_text("before")
    with pytest.raises(RuntimeError):
        cli._whole(str(kept), _breaks)
    assert kept.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["kept.png"]


def _breaks(path: str) -> None:
    with open(path, "w") as file:
        file.write("half")
    raise RuntimeError("full")
