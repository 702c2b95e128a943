"""Run a job of this repository in an environment of its own, made on first use.

    python3 tasks.py verify [OPTIONS]   python -m erftheory.verify (default: --depth 64)
    python3 tasks.py test [OPTIONS]     pytest on the tests and the notebooks
    python3 tasks.py lint               ruff check and pyright
    python3 tasks.py setup              only make or update the environment

Needs Python >= 3.11 and a package index, nothing else. The environment lies in .venv and is
updated when pyproject.toml or the Python changes.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "erftheory.json"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def main(arguments):
    if sys.version_info < (3, 11):
        return fail("python: got %d.%d; takes 3.11 or newer" % sys.version_info[:2])
    task, options = (arguments[0], arguments[1:]) if arguments else ("", [])
    if task not in ("verify", "test", "lint", "setup"):
        print(__doc__.strip())
        return 0 if task in ("-h", "--help") else 2
    status = prepare("" if task == "verify" else "test")
    if status:
        return status
    if task == "verify":
        return run("-m", "erftheory.verify", *(options or ["--depth", "64"]))
    if task == "test":
        return run("-m", "pytest", *(options or whole_suite()))
    if task == "lint":
        style = run("-m", "ruff", "check", ".")
        return run("-m", "pyright", "--pythonpath", str(PYTHON)) or style
    return 0


def whole_suite():
    notebooks = ["--nbmake", "notebooks"] if any(ROOT.glob("notebooks/*.ipynb")) else []
    # A notebook is one long test, so it must not start last; an idle worker takes from the other.
    return ["-n", "2", "--dist", "worksteal", "-q", *notebooks, "tests"]


def prepare(extra):
    """Make .venv, or bring it up to date, with the dependencies of `extra`; return 0 if it is."""
    project = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    wanted = {"python": sys.version, "project": project}
    found = json.loads(STAMP.read_text()) if STAMP.exists() and PYTHON.exists() else {}
    extras = set(found.get("extras", []))
    same = all(found.get(key) == value for key, value in wanted.items())
    if same and extra in extras | {""}:
        return 0
    if found.get("python") != sys.version:
        shutil.rmtree(VENV, ignore_errors=True)
        extras = set()
        print("making .venv …", file=sys.stderr, flush=True)
        if subprocess.call([sys.executable, "-m", "venv", str(VENV)]):
            return fail("venv: this Python cannot make one (Debian: apt install python3-venv)")
    extras |= {extra} - {""}
    STAMP.unlink(missing_ok=True)
    print("installing erftheory and what it needs …", file=sys.stderr, flush=True)
    target = "." + (f"[{','.join(sorted(extras))}]" if extras else "")
    # Most modules of the large packages are never imported: each compiles when it is.
    pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile")
    status = run(*pip, "--editable", target)
    if status:
        return fail("pip: the installation failed, see above; run the same command again")
    STAMP.write_text(json.dumps({**wanted, "extras": sorted(extras)}))
    return 0


def run(*command):
    # The installed jaxlib is the CPU build: saying so keeps JAX from looking for other devices.
    # Byte code is kept in the environment: every process would compile all packages anew.
    environment = {"JAX_PLATFORMS": "cpu", "PYTHONPYCACHEPREFIX": str(VENV / "pycache")}
    environment |= {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.call([str(PYTHON), *command], cwd=ROOT, env=environment)


def fail(message):
    print(f"tasks.py: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
