"""The rooms of symbolic/: what each may read, and the page that each has."""

from __future__ import annotations

import ast
import re

from test_package import PACKAGE, circles, imported, imported_for_types

PLACE = PACKAGE / "symbolic"
# From the ground up, and those that each may read.
ROOMS = {"proof": (), "helpers": ("proof",), "topics": ("proof", "helpers")}
FILES = [path for path in sorted(PLACE.rglob("*.py")) if path.name != "__init__.py"]
READS = {path: imported(path) | imported_for_types(path) for path in FILES}


def inside(name: str) -> list[str]:
    """The part of a module's name behind `erftheory.symbolic`; empty for others."""
    return name.split(".")[2:] if name.startswith("erftheory.symbolic") else []


def test_rooms_read_only_those_below() -> None:
    """Imports inside functions and for type checkers count too."""
    seen = {
        (path.relative_to(PLACE).parts[0], inside(name)[0])
        for path, names in READS.items()
        for name in names
        if inside(name) and path.parent != PLACE
    }
    allowed = {(room, other) for room, row in ROOMS.items() for other in row}
    assert {(a, b) for a, b in seen if a != b} == allowed
    # what hands the names on stands above all rooms and is read by none
    assert not any(name == "erftheory.symbolic" for names in READS.values() for name in names)


def test_no_circle_and_nothing_drawn_knows_a_derivation() -> None:
    dotted = lambda path: ".".join(("erftheory.symbolic", *path.relative_to(PLACE).parts))  # noqa: E731
    reads = {dotted(path).removesuffix(".py"): names for path, names in READS.items()}
    assert circles(reads) == []
    render = reads["erftheory.symbolic.proof.render"]
    assert not any("derivation" in name for name in render)


def test_every_room_has_its_page() -> None:
    for room in ROOMS:
        text = ast.get_docstring(ast.parse((PLACE / room / "__init__.py").read_text("utf-8")))
        assert text and "Begin with" in text and len(text) > 200 and "=" in text, room
        files = {path.stem for path in (PLACE / room).glob("*.py")} - {"__init__"}
        named = set(re.findall(r"`(\w+)`", text)) - {"Derivation"}
        assert named == files, (room, named ^ files)
        assert set(re.findall(r"(\w+)\.py", text)) <= files
