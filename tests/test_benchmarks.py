"""The benchmark scripts run, compare before they time, and write what they say."""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
from pathlib import Path

import jax
import numpy as np
import pytest

from erftheory import Activation, Chain, Conv, MaxPool
from erftheory.empirical import gradient_of_ones

FOLDER = Path(__file__).parents[1] / "benchmarks"


def load(name="fft_vs_autodiff"):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_fft_vs_autodiff(tmp_path, capsys):
    target, picture = tmp_path / "out.json", tmp_path / "out.png"
    arguments = ["--depths", "3", "--repeats", "1", "--json", str(target), "--plot", str(picture)]
    assert load().main(arguments) == 0
    found = json.loads(target.read_text())
    assert set(found) == {"environment", "rows", "headline", "slopes"}
    keys = {"route", "ndim", "depth", "seconds", "error", "compile_seconds"}
    more = {
        "autodiff": {"call_seconds"},
        "numpy": {"tail_error"},
        "sampling": {"nets", "deviation_in_errors", "effective_nets"},
    }
    for row in found["rows"]:
        assert set(row) == keys | more.get(row["route"], set())
        if row["route"] == "sampling":
            assert row["nets"] > 1 and abs(row["deviation_in_errors"]) < 6
        else:
            assert row["error"] < 1e-8
    assert {r["route"] for r in found["rows"]} == {
        "spectrum", "direct", "counting", "autodiff", "numpy", "sampling",
    }  # fmt: skip
    assert picture.stat().st_size > 10_000
    assert "slopes" in capsys.readouterr().out


def compilations(caplog, call) -> int:
    caplog.clear()
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        call()
    return sum("Finished XLA compilation" in r.getMessage() for r in caplog.records)


@pytest.mark.parametrize("ndim", (1, 2))
def test_what_is_timed_does_not_compile(caplog, ndim):
    module = load()
    assert compilations(caplog, lambda: gradient_of_ones(module.network(5, ndim))) > 0
    for route in module.ROUTES:
        call, _ = module.prepare(route, 5, ndim)
        call()
        assert compilations(caplog, call) == 0, route


def test_a_wrong_route_ends_the_run_untimed(monkeypatch):
    module = load()
    right = module.truth
    monkeypatch.setattr(module, "truth", lambda depth, ndim: np.roll(right(depth, ndim), 1))
    with pytest.raises(SystemExit, match="spectrum 1-D depth 4: error .*nothing timed"):
        module.measure([4], 1)


def test_its_error_sees_a_wrong_map():
    module = load()
    right = module.truth(3, 1)
    np.testing.assert_allclose(right * 27, [1, 3, 6, 7, 6, 3, 1])
    assert module.error(right, right) < 1e-15
    assert module.error(np.roll(right, 1), right) > 0.1


def test_sampling_compares_and_reports(tmp_path, monkeypatch):
    module = load("sampling")
    monkeypatch.setattr(module, "WORKLOADS", {"wide": (2, 2)})
    monkeypatch.setattr(module, "torch", None)  # its half of the table takes a minute
    monkeypatch.setattr(module, "matmul_peak", lambda: 1e11)
    target, picture = tmp_path / "out.json", tmp_path / "out.png"
    arguments = ["--repeats", "1", "--nets", "200", "--json", str(target), "--plot", str(picture)]
    assert module.main(arguments) == 0
    found = json.loads(target.read_text())
    chosen = [r for r in found["rows"] if r.get("chosen")]
    assert {r["workload"] for r in chosen} == {"wide"}
    assert all(r["seconds_a_net"] > 0 and r["memory_bytes"] < 2 << 30 for r in chosen)
    statistics = found["statistics"]
    errors = [statistics[f"{k}: relative error of 200 nets"] for k in ("plain", "both")]
    assert errors[1] < errors[0]
    assert picture.stat().st_size > 10_000


def test_sampling_counts_operations():
    module = load("sampling")
    # one layer reads 9 pixels for one number; two layers: 81 products for 9 pixels, 4 channels
    assert module.flops(1, 4) == 2 * 2 * 9
    assert module.flops(2, 4) == 2 * (2 * 9 * 4 * 9 + 2 * 9 * 4)


def test_digits(tmp_path, capsys):
    """A small run compares every coefficient with exact integers, and says how long things took."""
    target, picture = tmp_path / "out.json", tmp_path / "out.png"
    arguments = ["--depths", "4,40", "--repeats", "1", "--json", str(target)]
    assert load("digits").main([*arguments, "--plot", str(picture)]) == 0
    found = json.loads(target.read_text())
    assert {"digits", "times", "depths", "million_seconds", "counting_seconds"} <= found.keys()
    assert all(0 < r["error"] <= r["bound"] <= 1e-10 for r in found["digits"])
    assert picture.stat().st_size > 10_000
    assert "10^6 layers" in capsys.readouterr().out


def test_predicted_and_sampled_widths(tmp_path, capsys, monkeypatch):
    module = load("predicted_std")
    net = Chain(Conv(3), Activation("relu"), MaxPool(2), Conv(3, channels=4))
    monkeypatch.setattr(module, "NETWORKS", {"small": (lambda: net, 16, 1)})
    table, picture = tmp_path / "out.json", tmp_path / "out.png"
    assert module.main(["--nets", "40", "--json", str(table), "--plot", str(picture)]) == 0
    (row,) = json.loads(table.read_text())["rows"]
    assert row["nets"] == 40 and picture.stat().st_size > 0
    # five standard errors: one false alarm in a million
    assert abs(row["predicted"] - row["sampled"]) < 5 * row["stderr"] < row["sampled"]
    again = tmp_path / "again.json"
    assert module.main(["--again", str(table), "--json", str(again)]) == 0
    (same,) = json.loads(again.read_text())["rows"]
    assert same["sampled"] == row["sampled"] and same["predicted"] == row["predicted"]
    with pytest.raises(SystemExit):
        module.main(["--networks", "large"])
    assert "takes small" in capsys.readouterr().err


def small(nn):
    """Residual blocks on 8×8 pixels, where the rims are much of every map."""
    import torch

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            parts = (nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1, bias=False))
            again = nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1, bias=False)
            self.inner = nn.Sequential(*parts, *again)

        def forward(self, x):
            return x + self.inner(x)

    return nn.Sequential(nn.Conv2d(3, 32, 3, padding=1, bias=False), Block(), Block(), Block())


def test_models_of_pytorch(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    models = importlib.import_module("torch_models")
    chosen = {
        "small": models.Public("torch.nn", "small", small, (3, 8, 8)),
        "missing": models.Public("no_such_package", "missing", small, (3, 8, 8)),
    }
    monkeypatch.setattr(models, "MODELS", chosen)
    table, picture = tmp_path / "out.json", tmp_path / "out.png"
    module = load("predicted_std")
    arguments = ["--models", "all", "--seconds", "5", "--json", str(table)]
    assert module.main([*arguments, "--plot", str(picture)]) == 0
    (row,) = json.loads(table.read_text())["rows"]
    assert "no_such_package is not installed" in capsys.readouterr().out
    assert row["kind"] == "approximation" and picture.stat().st_size > 0
    # five standard errors beside what finite width does
    assert abs(row["ratio"] - 1) < 0.02 + 5 * row["ratio stderr"] < 0.06
    with pytest.raises(SystemExit):
        module.main(["--models", "large"])
    assert "takes small; missing" in capsys.readouterr().err
    page, again = tmp_path / "page.md", tmp_path / "again.json"
    page.write_text(f"above\n{module.HEADER}old\nno models{module.NEAR}below\n")
    arguments = ["--models", "all", "--again", str(table), "--json", str(again)]
    assert module.main([*arguments, "--page", str(page)]) == 0
    (kept,) = json.loads(again.read_text())["rows"]
    assert kept["sampled"] == row["sampled"] and kept["nets"] == row["nets"]
    assert page.read_text() == f"above\n{module.table([kept])}below\n"
    arguments += ["--redraw", "small", "--draws", "17", "--seconds", "5"]
    assert module.main(arguments) == 0
    (redrawn,) = json.loads(again.read_text())["rows"]
    assert redrawn["nets"] == 17 and redrawn["predicted"] == row["predicted"]
    with pytest.raises(SystemExit):
        module.main([*arguments, "--redraw", "large"])
    assert "takes names of --again: small" in capsys.readouterr().err


def test_the_page_of_models_is_of_the_stored_run():
    """Every number of its table, and a standard error of 1 % at most."""
    module, root = load("predicted_std"), FOLDER.parent
    stored = FOLDER / "results" / "predicted_std_models_cpu.json"
    rows = json.loads(stored.read_text())["rows"]
    page = root / "docs" / "predicted_against_measured.md"
    assert module.table(rows) in page.read_text()
    seen = [*rows, *(r["held"] for r in rows if r["held"])]
    assert all(r["stderr"] <= 0.01 * r["sampled"] for r in seen)


def test_readings(tmp_path, capsys):
    """Every job compares, is timed once and stands in the table, the JSON and the picture."""
    module = load("readings")
    target, picture = tmp_path / "out.json", tmp_path / "out.png"
    arguments = ["--repeats", "1", "--json", str(target), "--plot", str(picture)]
    assert module.main(arguments) == 0
    rows = json.loads(target.read_text())["rows"]
    assert [r["job"] for r in rows] == list(module.JOBS)
    assert all(0 < r["least"] <= r["milliseconds"] for r in rows)
    for row in rows[-2:]:  # a command takes longer than its imports, and loads nothing beyond
        assert row["ratios"]["bare imports"] > 1 and row["answers"]["loads beyond them"] == []
    assert picture.stat().st_size > 10_000
    assert "bare imports (asked: 1.3)" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        module.main(["--jobs", "map,maps"])
    assert "got maps" in capsys.readouterr().err


def test_readings_refuse_a_wrong_map(monkeypatch):
    module = load("readings")
    right = module.truth
    monkeypatch.setattr(module, "truth", lambda depth: [c * 2 for c in right(depth)])
    for job in ("map", "line"):
        with pytest.raises(SystemExit, match=f"{job}: the bound does not hold; nothing timed"):
            module.main(["--jobs", job, "--repeats", "1"])


def test_training(tmp_path, capsys):
    target, picture = tmp_path / "out.json", tmp_path / "out.png"
    arguments = ["--seeds", "2", "--pairs", "1", "--steps", "4", "--images", "16"]
    assert load("training").main(
        [*arguments, "--json", str(target), "--plot", str(picture)]
    ) == 0  # fmt: skip
    found = json.loads(target.read_text())
    assert {k for k, v in found.items() if v} == {"environment", "seconds", "pairs", "explained"}
    (row,), (split,) = found["pairs"], found["explained"]
    assert split["sum"] == pytest.approx(split["growth"][0], abs=1e-9)
    assert row["verdict"] == "undecided" and row["std_before"] > 1
    assert picture.stat().st_size > 10_000
    assert "after Holm's correction" in capsys.readouterr().out


def test_tracker(tmp_path):
    target = tmp_path / "out.json"
    arguments = ["--images", "8", "--batch", "8", "--repeats", "1", "--json", str(target)]
    assert load("tracker").main(arguments) == 0
    found = json.loads(target.read_text())
    one, ten = (row for row in found["rows"] if row["epochs"] in (1, 10))
    assert one["share"] == pytest.approx(10 * ten["share"]) and found["reading_s"] > 0


def test_shipped_weights_say_what_is_missing(capsys, monkeypatch):
    module = load("shipped_weights")
    monkeypatch.setattr(module, "folder", lambda package: None)
    assert module.main([]) == 0
    assert "none of rapidocr-onnxruntime and torchcrepe is installed" in capsys.readouterr().out
