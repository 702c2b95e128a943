"""The rooms of importers/: one way to read, a page each, short files, errors told apart by type."""

from __future__ import annotations

import ast
import re

import pytest
from test_package import MODULES, PACKAGE, circles, imported, imported_for_types

# The rooms from the ground up, and those that each reads.
ROOMS = {
    "values": (),
    "building": ("values",),
    "jax": ("values", "building"),
    "onnx": ("values", "building"),
    "torch": ("values", "building"),
}
FILES = [p for p in MODULES if p.relative_to(PACKAGE).parts[0] == "importers"]


def test_rooms_read_only_those_below():
    """Imports inside functions and for type checkers count too."""
    seen = set()
    for path in FILES:
        room = path.relative_to(PACKAGE / "importers").parts[0]
        for name in imported(path) | imported_for_types(path):
            if name.startswith("erftheory.importers."):
                seen.add((room, name.split(".")[2]))
    assert {a for a, _ in seen} == set(ROOMS)
    assert {(a, b) for a, b in seen if a != b} == {(a, b) for a, row in ROOMS.items() for b in row}


def test_no_circle_within_a_room():
    place = lambda p: ".".join(("erftheory", *p.relative_to(PACKAGE).with_suffix("").parts))  # noqa: E731
    files = [p for p in FILES if p.name != "__init__.py"]
    assert circles({place(p): imported(p) | imported_for_types(p) for p in files}) == []


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_its_page(room):
    folder = PACKAGE / "importers" / room
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8")))
    assert text and "Begin with" in text and len(text) > 200
    named = re.findall(r"(\w+\.py)\b", text)
    assert named and all((folder / name).exists() for name in named)
    files = {p.stem for p in folder.glob("*.py")} - {"__init__"}
    assert {n for n in re.findall(r"`(\w+)`", text) if n.islower()} <= files | {"settle"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_files_and_functions_are_short(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 400
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)]
    assert {f.name for f in functions if f.end_lineno - f.lineno >= 80} == set()


def texts(tree: ast.AST) -> list[str]:
    """Comparisons whose one side is the text of an error that was caught."""
    caught = {n.name for n in ast.walk(tree) if isinstance(n, ast.ExceptHandler) and n.name}
    found = []
    for node in ast.walk(tree):
        asks = isinstance(node, ast.Compare) or (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).split(".")[-1] in ("match", "search", "startswith")
        )
        text = ast.unparse(node)
        if asks and any(f"str({name})" in text or f"{name}.args" in text for name in caught):
            found.append(text)
        if asks and any(f"type({name}).__name__" in text for name in caught):
            found.append(text)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_errors_are_told_apart_by_type_or_attribute(path):
    assert texts(ast.parse(path.read_text("utf-8"))) == []


def test_the_text_of_an_error_would_be_found():
    bad = "try:\n    f()\nexcept ValueError as e:\n    if 'no' in str(e): g()"
    assert texts(ast.parse(bad)) == ["'no' in str(e)"]
