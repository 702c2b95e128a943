"""The `erftheory` command: what it prints is what the package returns, and what it refuses."""

from __future__ import annotations

import json
import sys

import click
import jax
import numpy as np
import pytest
from jax import lax

from erftheory import ERF, Chain, Conv, cli, exact, receptive_field, zoo
from erftheory.theory.advice.advise import advise
from erftheory.theory.advice.tiling import tiling


def model():
    return Chain(Conv(3), Conv(5, 2).named("wide"))


def image(x):
    return x


def function(x):
    """The same layers in JAX."""
    for k, stride in ((3, 1), (5, 2)):
        x = jax.nn.relu(lax.conv(x, np.ones((2, 2, k, k), np.float32), (stride, stride), "SAME"))
    return x


def halved(x):
    return x[:, ::2, ::2]


def gated(x):
    y = function(x)
    return y * jax.nn.sigmoid(y.mean((2, 3)) @ np.ones((2, 2), np.float32))[:, :, None, None]


def maker():
    return function


def broken():
    raise KeyError("weights")


def wrong_shapes(x):
    return lax.conv(x, np.ones((2, 7, 3, 3), np.float32), (1, 1), "SAME")


def leaves():
    raise SystemExit(3)


def three():
    return 3


network = model()
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
    assert 0 <= found["lost"] < 1 and found["unit"] == "center" and found["window"] is None


def test_summary_advice_and_tiles(tmp_path, capsys):
    data = tmp_path / "a.json"
    assert cli.main(["summary", HERE, "--spacing", "0.5 mm", "--json", str(data)]) == 0
    assert "RF mm" in capsys.readouterr().out
    rows = json.loads(data.read_text())["rows"]
    assert [r["receptive_field"] for r in rows] == [[3, 3], [7, 7]]
    assert [r["receptive_field_length"] for r in rows] == [[1.5, 1.5], [3.5, 3.5]]
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
        (["erf", f"{__name__}:NOT_A_NETWORK"], "(int); takes a network of the zoo"),
        (["erf", f"{__name__}:image"], "without arguments"),
        (["erf", f"{__name__}:image", "--shape", "a,b"], "shape: got 'a,b'"),
        (["erf", HERE, "--image", "wide"], "image: got 'wide'"),
        (["erf", HERE, "--window", "wide"], "window: got 'wide'"),
        (["erf", HERE, "--unit", "1,2,3"], "unit: got"),
        (["erf", HERE, "--until", "nowhere"], "endpoint: got 'nowhere'"),
        (["tiling", HERE, "--tile", "3"], "tile: got 3 x 3; takes at least 9 x 9"),
        (["tiling", "unet", "--tile", "30"], "tile: got 30 on axis 0"),
        (["tiling", HERE], "tile"),
        (["advise", HERE, "--image", "0"], "image: got 0"),
        (["summary", HERE, "--spacing", "mm"], "spacing: got 'mm'"),
        (["summary", HERE, "--spacing", "1 mm x 2 mm"], "spacing: got '1 mm x 2 mm'"),
        (["erf", HERE, "--out", "a.png", "--json", "./a.png"], "json: got './a.png', the file of"),
        (["erf", f"{__name__}:leaves"], "(SystemExit: 3)"),
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
    with pytest.raises(click.FileError) as caught:
        cli._whole(str(kept), _full)
    assert "kept.png" in caught.value.format_message()
    assert kept.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["kept.png"]


def _full(path: str) -> None:
    raise OSError(28, "No space left on device")


def _breaks(path: str) -> None:
    with open(path, "w") as file:
        file.write("half")
    raise RuntimeError("full")


@pytest.fixture(scope="module")
def onnx_path(tmp_path_factory):
    """The layers of `model` with an output after each, sizes of the image left open."""
    from onnx import TensorProto, helper, numpy_helper, save

    nodes, weights, outputs, name = [], [], [], "x"
    for k, stride, out in ((3, 1, "fine"), (5, 2, "coarse")):
        kernel = np.ones((2, 2, k, k), np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{k}"))
        more = {"strides": [stride] * 2, "pads": [k // 2] * 4}
        nodes.append(helper.make_node("Conv", [name, f"w{k}"], [out], **more))
        outputs.append(helper.make_tensor_value_info(out, TensorProto.FLOAT, None))
        name = out
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 2, "height", "width"))
    path = tmp_path_factory.mktemp("onnx") / "made.onnx"
    graph = helper.make_graph(nodes, "made", [image], outputs, weights)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    return str(path)


def read(arguments, tmp_path):
    data = tmp_path / "data.json"
    assert cli.main([*arguments, "--json", str(data)]) == 0
    return json.loads(data.read_text())


def test_all_readings_of_an_onnx_file(onnx_path, tmp_path, capsys):
    sized, net = [onnx_path, "--shape", "1,2,64,64"], model()
    rows = read(["summary", *sized], tmp_path)["rows"]
    found = [(r["name"], r["receptive_field"]) for r in rows if r["layer"] == "output"]
    assert found == [("fine", [3, 3]), ("coarse", [7, 7])]
    picture = tmp_path / "erf.png"
    got = read(["erf", *sized, "--image", "24", "--out", str(picture)], tmp_path)
    assert picture.stat().st_size > 1000
    assert got["std"] == pytest.approx(exact(net, image=24).std)
    advice = advise(net, 6)
    got = read(["advise", *sized, "--image", "6"], tmp_path)
    assert got["feasible"] == [list(pair) for pair in advice.feasible]
    assert len(got["unproductive"]) == len(advice.unproductive)
    got = read(["tiling", *sized, "--tile", "32", "--image", "256"], tmp_path)
    assert got["exact"]["tiles"] == tiling(net, 32, image=256).exact.tiles
    got = read(["erf", *sized, "--until", "fine"], tmp_path)
    assert got["receptive_field"] == [3, 3]
    capsys.readouterr()
    assert cli.main(["summary", onnx_path]) == 2
    assert "shape: got None for an input of open sizes" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, shape", [("network", None), ("model", None), ("function", "1,2,32,32"),
                    ("maker", "1,2,32,32")],
)  # fmt: skip
def test_names_of_networks_and_functions_and_what_makes_them(name, shape, tmp_path):
    sized = [] if shape is None else ["--shape", shape]
    got = read(["erf", f"{__name__}:{name}", *sized], tmp_path)
    assert got["std"] == pytest.approx(exact(model()).std)


def test_axes_where_no_convolution_tells(tmp_path, capsys):
    sized = ["summary", f"{__name__}:halved", "--shape", "1,6,8"]
    assert cli.main(sized) == 2
    assert "spatial_axes: got None" in capsys.readouterr().err
    got = read([*sized, "--axes", "1,2"], tmp_path)["rows"][-1]
    assert (got["receptive_field"], got["jump"]) == ([1, 1], [2, 2])
    assert cli.main([*sized, "--axes", "1,y"]) == 2
    assert "axes: got '1,y'; takes integers from 0 on" in capsys.readouterr().err


def test_torch_modules_in_a_package_of_the_working_directory(tmp_path, monkeypatch, capsys):
    """The export itself, some seconds, is tested with `from_torch`."""
    import torch

    def exported(module, example, **options):
        assert isinstance(module, torch.nn.Conv2d) and example.shape == (1, 2, 32, 32)
        return model()

    monkeypatch.setattr("erftheory.from_torch", exported)
    lines = "from torch import nn\nnet = nn.Conv2d(2, 2, 3)\ndef make():\n    return net\n"
    (tmp_path / "made_here").mkdir()
    (tmp_path / "made_here" / "models.py").write_text(lines)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("net", "make"):
        got = read(["erf", f"made_here.models:{name}", "--shape", "1,2,32,32"], tmp_path)
        assert got["std"] == pytest.approx(exact(model()).std)
    capsys.readouterr()
    assert cli.main(["erf", "made_here.models:net"]) == 2
    shown = capsys.readouterr().err
    assert "a torch module; takes 1,3,224,224" in shown and shown.count("\n") == 1


def test_what_reading_a_model_decided_is_said(tmp_path, capsys):
    sized = [f"{__name__}:gated", "--shape", "1,2,32,32"]
    rows = read(["summary", *sized], tmp_path)
    shown = capsys.readouterr()
    assert rows["rows"][-1]["receptive_field"] == ["inf", "inf"]
    assert any("unbounded" in note for note in rows["notes"])
    assert shown.err.startswith("note: ") and "note: " not in shown.out


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([f"{__name__}:broken"], f"model: got '{__name__}:broken' (KeyError: 'weights')"),
        ([f"{__name__}:three"], "(which returns int)"),
        ([f"{__name__}:wrong_shapes", "--shape", "1,2,8,8"], "wrong_shapes'"),
        ([f"{__name__}:function"], f"shape: got none for '{__name__}:function'"),
        ([f"{__name__}:function", "--shape", "0,2,8,8"], "shape: got '0,2,8,8'"),
        ([f"{__name__}:function", "--shape", "8"], "function'"),
        ([f"{__name__}:"], "has no attribute ''"),
        ([":model"], "Empty module name"),
        ([".relative:model"], "model: got '.relative:model'"),
        (["made_badly:net"], "model: got 'made_badly:net' (SyntaxError"),
        (["text.onnx"], "which is no ONNX file"),
        ([HERE, "--out", "no/such.png"], "out: got 'no/such.png'; takes a file in a directory"),
        ([HERE, "--out", "folder.png"], "out: got 'folder.png'"),
        ([HERE, "--out", "erf.png", "--json", "no/such.json"], "json: got 'no/such.json'"),
    ],
)
def test_bad_models_and_paths_leave_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "made_badly.py").write_text("def net(:\n")
    (tmp_path / "text.onnx").write_text("a text")
    (tmp_path / "folder.png").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = sorted(tmp_path.iterdir())
    assert cli.main(["erf", *arguments]) == 2
    shown = capsys.readouterr()
    assert message in shown.err and shown.err.count("\n") == 1 and not shown.out
    assert [p for p in sorted(tmp_path.iterdir()) if p.name != "__pycache__"] == before


def test_a_missing_package_is_named(onnx_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert cli.main(["summary", onnx_path]) == 2
    shown = capsys.readouterr().err
    assert "needs the package 'onnx', pip install" in shown and shown.count("\n") == 1
