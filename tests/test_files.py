"""Files are there whole or not at all; values that JSON holds."""

from __future__ import annotations

import os
import stat
from fractions import Fraction

import pytest

from erftheory import files
from erftheory.files import check_writable, plain, whole


def test_checking_the_path_changes_nothing(tmp_path):
    old = tmp_path / "old.json"
    old.write_text("precious")
    before = old.stat().st_mtime_ns
    check_writable(str(old), "json")
    check_writable(str(tmp_path / "new.json"), "json")
    assert os.listdir(tmp_path) == ["old.json"]
    assert old.read_text() == "precious" and old.stat().st_mtime_ns == before


def test_writing_replaces_whole_and_keeps_links(tmp_path, monkeypatch):
    target, link = tmp_path / "real.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to(target)
    with whole(link) as place:
        assert place.suffix == ".json" and place.parent == tmp_path
        place.write_text("new")
        assert target.read_text() == "old"
    assert link.is_symlink() and target.read_text() == "new"

    def broken(*args):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "fsync", broken)
    with pytest.raises(OSError, match="disk full"), whole(target) as place:
        place.write_text("newer")
    assert target.read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["link.json", "real.json"]


def test_an_error_on_the_way_leaves_what_was_there(tmp_path):
    target = tmp_path / "kept"
    target.write_text("old")
    with pytest.raises(KeyError), whole(target) as place:
        place.write_text("half")
        raise KeyError
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["kept"]


def test_a_device_is_written_to_and_stays_one():
    with whole(check_writable("/dev/null", "json")) as place:
        place.write_text("gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_plain():
    assert plain(2**60) == 2.0**60 and isinstance(plain(Fraction(4, 2)), int)
    assert plain(float("nan")) == "nan"
    assert plain({"a": (Fraction(1, 2), None, True)}) == {"a": [0.5, None, True]}
    assert plain(10**5000).startswith("~1e")
