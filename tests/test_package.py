"""Promises of the package as a whole: what its import does, what depends on what, what it holds."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import pytest

import erftheory

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "erftheory"
MODULES = sorted(PACKAGE.rglob("*.py"))


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


IMPORT_ALL = """
import importlib, pkgutil, sys
import erftheory
for name in sorted(m.name for m in pkgutil.walk_packages(erftheory.__path__, "erftheory.")):
    if not name.endswith("__main__"):
        importlib.import_module(name)
for name in erftheory.__all__:
    getattr(erftheory, name)
"""


def test_import_loads_neither_jax_nor_sympy_nor_matplotlib_nor_flint():
    heavy = "('jax', 'sympy', 'matplotlib', 'flint', 'scipy')"
    done = python(f"import sys, erftheory; print([m for m in {heavy} if m in sys.modules])")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


CHANGED = "assert dict(jax.config.values) == before, 'changed'"


def test_every_module_imports_without_a_device_or_a_jax_setting():
    """A JAX without any usable platform fails on first use, so an import that uses it fails."""
    code = f"import jax; before = dict(jax.config.values){IMPORT_ALL}{CHANGED}"
    done = python(code, JAX_PLATFORMS="nonexistent")
    assert done.returncode == 0, done.stderr
    setting = "jax.config.update('jax_enable_x64', True)"
    control = python(f"import jax; before = dict(jax.config.values); {setting}\n{CHANGED}")
    assert "changed" in control.stderr
    control = python("import jax; jax.numpy.zeros(1)", JAX_PLATFORMS="nonexistent")
    assert control.returncode != 0


def test_matplotlib_and_sympy_wait_for_their_first_use():
    done = python(
        "import sys, erftheory as e\n"
        "e.receptive_field(e.Chain(e.Conv(3), ndim=1) * 4)\n"
        "e.exact(e.Chain(e.Conv(3), ndim=1) * 4).std\n"
        "print([m for m in ('sympy', 'matplotlib') if m in sys.modules])"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_all_lists_what_exists():
    assert sorted(set(erftheory.__all__)) == sorted(erftheory.__all__)
    for name in erftheory.__all__:
        assert hasattr(erftheory, name), name
    with pytest.raises(AttributeError, match="no_such_name"):
        erftheory.no_such_name  # noqa: B018


def test_version_is_the_projects():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert erftheory.__version__ == project["version"]


def test_package_is_marked_as_typed():
    assert resources.files("erftheory").joinpath("py.typed").is_file()


def imported(path: Path) -> set[str]:
    """Full names of all modules that a file imports, anywhere but for type checkers alone."""
    names = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_dependencies_point_one_way(path):
    place = path.relative_to(PACKAGE).as_posix()
    top = place.split("/")[0].removesuffix(".py")
    names = imported(path)
    roots = {name.split(".")[0] for name in names}
    if top != "symbolic":
        assert "sympy" not in roots, "SymPy belongs to symbolic/ alone"
    if top not in ("plotting", "figures", "report") and path.name != "pictures.py":
        assert "matplotlib" not in roots, "matplotlib belongs to what draws"
    assert not any(n.startswith(("jax._src", "jax.core")) for n in names), "private JAX names"
    if top not in ("laws", "verify", "report", "cli", "figures"):
        for name in names:
            assert not name.startswith(("erftheory.laws", "erftheory.verify")), name
    if top == "network":
        eager = eager_imports(path)
        assert not any(n.startswith(("erftheory.theory", "erftheory.empirical")) for n in eager)


# The rooms of each part from the ground up, and those that each may read.
PARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "empirical": {
        "nets": (),
        "sampled": ("nets",),
        "measured": ("nets", "sampled"),
        "referees": ("nets", "measured"),
    },
    "training": {
        "data": (),
        "modules": (),
        "fitting": ("data",),
        "watching": (),
        "studies": ("data", "modules", "fitting", "watching"),
    },
    "laws": {"machine": (), "referees": (), "output": ("machine",)},
    "symbolic": {"proof": (), "helpers": ("proof",), "topics": ("proof", "helpers")},
    "importers": {
        "values": (),
        "building": ("values",),
        "jax": ("values", "building"),
        "onnx": ("values", "building"),
        "torch": ("values", "building"),
    },
}
PARTS["theory"] = {
    "walk": (),
    "units": ("walk",),
    "lowering": ("walk", "units"),
    "gains": ("walk", "units", "lowering"),
    "readings": ("walk", "lowering", "gains"),
    "image": ("walk", "units", "lowering", "gains", "readings"),
    "plane": ("walk", "lowering", "gains", "readings", "image"),
    "limits": ("walk", "gains", "readings", "plane"),
    "advice": ("walk", "lowering", "gains", "readings", "image", "plane"),
    "fluctuations": (),
}


@pytest.mark.parametrize("part", PARTS)
def test_rooms_read_only_those_below(part):
    """Imports inside functions and for type checkers count too."""
    seen, rooms = set(), PARTS[part]
    for path in sorted((PACKAGE / part).rglob("*.py")):
        room = path.relative_to(PACKAGE / part).parts[0]
        if (PACKAGE / part / room).is_file():  # the part's own page, or a topic of the laws
            continue
        for name in imported(path) | imported_for_types(path):
            if name.startswith(f"erftheory.{part}."):
                read = PACKAGE / part / name.split(".")[2]
                lone = read.with_suffix(".py").is_file()  # beside the rooms, which all may read
                if read.is_dir() or lone and part != "training":  # else a name of its page
                    seen.add((room, read.name))
    assert {a for a, _ in seen} | {b for _, b in seen} <= set(rooms)
    assert {p.name for p in (PACKAGE / part).iterdir() if any(p.glob("*.py"))} == set(rooms)
    assert {(a, b) for a, b in seen if a != b} == {(a, b) for a, row in rooms.items() for b in row}
    order = list(rooms)
    assert all(order.index(b) < order.index(a) for a, row in rooms.items() for b in row)


def imported_for_types(path: Path) -> set[str]:
    return {
        node.module
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module
    }


def circles(names: dict[str, set[str]]) -> list[list[str]]:
    """Files that import each other in a loop: those left after taking away all that read nothing
    that is left, and all that nothing left reads."""
    left = {name: {n for n in reads if n in names and n != name} for name, reads in names.items()}
    while True:
        read = set().union(*left.values()) if left else set()
        ends = {n for n, reads in left.items() if not reads or n not in read}
        if not ends:
            return [sorted(left)] if left else []
        left = {n: reads - ends for n, reads in left.items() if n not in ends}


def test_no_circle():
    """Of files, imports in functions and for types included; an `__init__` hands names on."""
    place = lambda p: ".".join(("erftheory", *p.relative_to(PACKAGE).with_suffix("").parts))  # noqa: E731
    files = [p for p in MODULES if p.name != "__init__.py"]
    names = {place(p): imported(p) | imported_for_types(p) for p in files}
    assert circles(names) == []
    assert circles({"a": {"b"}, "b": {"c", "a"}, "c": set()}) == [["a", "b"]]


def test_nothing_drawn_knows_a_derivation():
    names = imported(PACKAGE / "symbolic" / "proof" / "render.py")
    assert names and not any("derivation" in name for name in names)


@pytest.mark.parametrize("part", PARTS)
def test_every_room_has_its_page(part):
    for room in PARTS[part]:
        text = ast.get_docstring(ast.parse((PACKAGE / part / room / "__init__.py").read_text()))
        assert text and "Begin with" in text and len(text) > 200, room
        for name in re.findall(r"`(\w+)\.py`|(\w+)\.py\b", text):
            file = next(filter(None, name)) + ".py"
            assert (PACKAGE / part / room / file).exists() or (ROOT / "docs" / file).exists()


def eager_imports(path: Path) -> set[str]:
    """Modules imported when the file itself is imported: top-level statements only."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def repository_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True, cwd=ROOT
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def test_no_file_names_a_place_on_one_machine():
    place = re.compile(rb"(?<![\w.\-/:])/(?:work|root|home|tmp)/[\w.]")
    assert place.search(b"see /" + b"tmp/x")  # the pattern can find something
    found = []
    for path in repository_files():
        data = path.read_bytes()
        if b"\0" not in data[:4096]:
            found += [(path.name, m.group()) for m in place.finditer(data)]
    assert not found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_files_and_functions_are_short(path):
    """400 lines a file; 80 a function, its docstring not counted."""
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            first = node.body[0]
            said = ast.get_docstring(node) is not None
            lines = node.end_lineno - node.lineno + 1
            lines -= first.end_lineno - first.lineno + 1 if said else 0
            assert lines <= 80, node.name


def by_text(tree: ast.AST) -> list[str]:
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


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_errors_are_told_apart_by_type_or_attribute(path):
    assert by_text(ast.parse(path.read_text("utf-8"))) == []


def test_decisions_by_text_are_seen():
    code = "try:\n  f()\nexcept ValueError as e:\n  if 'scale' in str(e):\n    g()"
    assert by_text(ast.parse(code))
