"""The benchmark scripts run, compare before they time, and write what they say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np

PATH = Path(__file__).parents[1] / "benchmarks" / "fft_vs_autodiff.py"


def load():
    spec = importlib.util.spec_from_file_location("fft_vs_autodiff", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_fft_vs_autodiff(tmp_path, capsys):
    target, picture = tmp_path / "out.json", tmp_path / "out.png"
    arguments = ["--depths", "2,4", "--repeats", "1", "--json", str(target), "--plot", str(picture)]
    assert load().main(arguments) == 0
    found = json.loads(target.read_text())
    assert {r["route"] for r in found["rows"]} == {"spectrum", "direct", "counting", "autodiff"}
    assert all(r["error"] < 1e-8 for r in found["rows"])
    assert picture.stat().st_size > 10_000
    assert "slopes" in capsys.readouterr().out


def test_its_error_sees_a_wrong_map():
    module = load()
    right = module.truth(3, 1)
    assert module.error(right, right) < 1e-15
    assert module.error(np.roll(right, 1), right) > 0.1
