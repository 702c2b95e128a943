"""The command line: table, JSON, exit codes, bad input."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from fractions import Fraction

import pytest
from rich.console import Console

from erftheory import cli
from erftheory import verify as v
from erftheory.laws import Context, Engines
from erftheory.laws.machine import running
from erftheory.laws.output.lines import show
from erftheory.verify import Arguments

CHEAP = "LK-1,LIM-1,SIG-1"


@pytest.fixture(scope="module")
def engines() -> Engines:
    return Engines.load()


def _run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = v.main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


def test_holds_and_writes_the_record(capsys, tmp_path):
    path = tmp_path / "evidence.json"
    code, out, err = _run(capsys, "--depth", "5", "--laws", CHEAP, "--json", str(path))
    assert (code, err) == (0, "")
    assert "3 of 3 laws hold" in out and "\x1b" not in out
    record = json.loads(path.read_text())
    assert record["arguments"]["depth"] == 5 and record["environment"]["packages"]["jax"]
    assert [law["id"] for law in record["laws"]] == ["SIG-1", "LIM-1", "LK-1"]
    for law in record["laws"]:
        assert law["holds"] and law["statement"] and law["source"] and law["seconds"] >= 0
        for e in law["evidence"]:
            assert {"route", "quantity", "measured", "expected", "margin"} <= e.keys()
            assert e["margin"] >= 0
    five = {e[side] for e in record["laws"][0]["evidence"] for side in ("route", "against")}
    assert five == {"symbolic", "counting", "spectrum", "direct", "tilted", "autodiff"}
    assert os.listdir(tmp_path) == ["evidence.json"]


def test_real_networks_are_read(capsys):
    _, out, _ = _run(capsys, "--laws", "LIM-1")
    row = next(line.split() for line in out.splitlines() if line.startswith("resnet34"))
    assert row[1:3] == ["899", "32"]
    assert float(row[3]) > 0 and 0 < float(row[4]) < 1
    plain = next(line.split() for line in out.splitlines() if line.startswith("64 layers"))
    assert plain[4:] == ["129", "1", "6.532", "0.05064"]  # √(64·8/12) = 6.532


def test_a_failing_law_exits_1_and_is_named(engines, tmp_path):
    def moments(network, **options):
        found = engines.moments(network, **options)
        return replace(found, variance=tuple(x + Fraction(1, 7) for x in found.variance))

    path = tmp_path / "e.json"
    stream = io.StringIO()
    code, record = v.verify(
        Arguments(depth=4, laws="LK-1,SIG-1", json=str(path)),
        replace(engines, moments=moments),
        Console(file=stream, width=100),
    )
    assert code == 1
    assert "1 of 2 laws hold" in stream.getvalue() and "failed: LK-1" in stream.getvalue()
    assert [law["holds"] for law in json.loads(path.read_text())["laws"]] == [True, False]


def test_quiet_prints_one_line(capsys):
    code, out, err = _run(capsys, "--laws", "LIM-1", "--quiet")
    assert code == 0 and err == "" and len(out.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--depth", "0"], "depth: got 0; takes an integer >= 1"),
        (["--depth", "-3"], "depth: got -3"),
        (["--depth", "x"], "--depth"),
        (["--kernel", "1"], "kernel: got 1; takes an integer >= 2"),
        (["--samples", "0"], "samples: got 0"),
        (["--seed", "-1"], "seed: got -1"),
        (["--laws", "SIG-9"], "takes ids of: RF-1, RF-2, SIG-1"),
        (["--laws", "ZZZ-*"], "takes ids of: RF-1, RF-2, SIG-1"),
        (["--nonsense"], "--nonsense"),
        (["extra"], "extra"),
        (["--json", "/no/such/folder/e.json"], "json: got '/no/such/folder/e.json'"),
        (["--json", "/"], "json: got '/', it is a folder"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(capsys, monkeypatch, arguments, said):
    def never(*args, **options):
        raise AssertionError("work started")

    monkeypatch.setattr(v, "_run", never)
    code, out, err = _run(capsys, *arguments)
    assert code == 2 and out == ""
    assert said in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("width", [100, 140, 60, 30])
def test_no_number_is_cut_at_any_width(engines, width):
    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None)
    code, record = v.verify(Arguments(depth=6, laws="LK-1,CLT-1,SIG-1,GRW-2"), engines, console)
    text = stream.getvalue()
    assert code == 0 and "…" not in text and "\x1b" not in text
    flat = text.replace("\n", "")
    for law in record["laws"]:
        assert law["id"] in flat and law["claim"] in flat
    if width >= 80:
        table = [line for line in text.splitlines() if re.match(r" *\d/4 ", line)]
        assert len(table) == 4 and max(map(len, text.splitlines())) <= 80
        assert all("holds" in line for line in table)
        assert [line.split()[0] for line in table] == ["1/4", "2/4", "3/4", "4/4"]
        assert table[0].endswith("s") and "~" in table[0] and "~" not in table[-1]


def test_colours_on_a_terminal_only(engines):
    stream = io.StringIO()
    console = Console(file=stream, width=110, force_terminal=True, color_system="standard")
    v.verify(Arguments(depth=3, laws="LIM-1"), engines, console)
    assert "\x1b[32m" in stream.getvalue()


def test_show():
    assert show(3**64) == "3.43368e30"
    assert show(-(10**12)) == "-1.00000e12"
    assert show(10**5000).startswith("~1e")
    assert show(Fraction(1, 3)) == "1/3"
    assert show(Fraction(10**9, 3**12)) == "1881.68"
    assert show(((0, 5), 1.5)) == "0, 5, 1.5"


def test_module_runs_from_the_shell():
    done = subprocess.run(
        [sys.executable, "-m", "erftheory.verify", "--laws", "NO-1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("erftheory verify: laws: got 'NO-1'")
    assert len(done.stderr.splitlines()) == 1


def test_cli_summary(capsys):
    assert cli.main(["summary", "resnet18"]) == 0
    out = capsys.readouterr().out
    assert "435" in out and "RF" in out
    assert cli.main(["summary", "resnet18", "--until", "nowhere"]) == 2
    assert cli.main(["summary", "nonsense"]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 2 and "resnet34" in err
    assert cli.main(["verify", "--laws", "LIM-1", "--quiet"]) == 0


# ---- side by side -------------------------------------------------------------------------------

SOME = "LIM-1,SIG-1,RF-1,VAR-1,LK-1"


def measured(record):
    """All numbers of a record, by law: what does not depend on how it was run."""
    return {
        law["id"]: [
            (e["quantity"], e["measured"], e["expected"], e["holds"]) for e in law["evidence"]
        ]
        for law in record["laws"]
    }


def test_two_processes_find_what_one_finds():
    stream = io.StringIO()
    arguments = Arguments(depth=6, samples=256, laws=SOME)
    both = v.verify(arguments, None, Console(file=stream, width=100), processes=2)
    one = v.verify(arguments, None, Console(file=io.StringIO(), width=100))
    assert both[0] == one[0] == 0
    assert measured(both[1]) == measured(one[1]) and len(measured(one[1])) == 5
    assert [law["notes"] for law in both[1]["laws"]] == [law["notes"] for law in one[1]["laws"]]
    assert both[1]["notes"] == one[1]["notes"]


def test_a_second_process_that_dies_loses_nothing(monkeypatch):
    monkeypatch.setattr(running, "_serve", dies)
    laws, _ = v.prepare(Arguments(laws=SOME))
    context = Context(Engines.load(), 6, 3, 256, 2016)
    found = running.in_two_processes(laws, context, lambda law, verdict: None)
    assert [w.law.id for w in found if w and w.holds] == [law.id for law in laws]


def dies(pipe, asked):
    pipe.close()


def test_an_interrupt_shows_what_was_decided_and_exits_130(monkeypatch, tmp_path):
    """The process that is interrupted raises at its first law; the other decides until then."""

    def check(context):
        if threading.current_thread() is threading.main_thread():
            decided.wait(120)
            raise KeyboardInterrupt
        raise AssertionError("the second process is gone")

    decided = threading.Event()
    prepared = v.prepare
    path = tmp_path / "e.json"

    def prepare(arguments):
        laws, target = prepared(arguments)
        return tuple(replace(law, check=check) for law in laws), target

    def told(laws, context, report, other):
        def heard(law, verdict):
            report(law, verdict)
            if verdict is not None:
                decided.set()

        return running.in_two_processes(laws, context, heard, other)

    monkeypatch.setattr(v, "prepare", prepare)
    monkeypatch.setattr(v, "in_two_processes", told)
    stream = io.StringIO()
    code, record = v.verify(
        Arguments(depth=4, laws=SOME, json=str(path)), None, Console(file=stream, width=100), 2
    )
    assert code == 130
    laws = json.loads(path.read_text())["laws"]
    assert 1 <= len(laws) < 5 and all(law["holds"] for law in laws)
    assert f"interrupted: {len(laws)} of {len(laws)} laws hold" in stream.getvalue()
    assert f"{5 - len(laws)} undecided" in stream.getvalue()


def test_programs_are_kept_only_where_asked_and_never_by_an_import(tmp_path):
    """In the user's cache folder, by the command alone; a second run takes them from there."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("JAX_COMPILATION")
    } | {"XDG_CACHE_HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path), "HOME": str(tmp_path)}

    def files(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "erftheory.verify", "--laws", "SIG-1,LIM-1", *arguments],
            capture_output=True, text=True, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return {p for p in tmp_path.rglob("*") if p.is_file() and "jit" in p.name}

    assert not files("--no-cache")
    kept = files()
    assert kept and {p for p in files() if "-cache" in p.name} == {
        p for p in kept if "-cache" in p.name
    }
    code = "import erftheory.verify, os; print('JAX_COMPILATION_CACHE_DIR' in os.environ)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == "False"
