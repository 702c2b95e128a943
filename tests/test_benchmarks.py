"""The benchmark scripts run, compare before they time, and write what they say."""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path

import jax
import numpy as np
import pytest

from erftheory.empirical import gradient_of_ones

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
    assert set(found) == {"environment", "rows", "headline", "slopes"}
    keys = {"route", "ndim", "depth", "seconds", "error", "compile_seconds"}
    for row in found["rows"]:
        assert set(row) == keys | ({"call_seconds"} if row["route"] == "autodiff" else set())
        assert row["error"] < 1e-8
    assert {r["route"] for r in found["rows"]} == {"spectrum", "direct", "counting", "autodiff"}
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
