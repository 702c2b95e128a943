"""Packages that training needs and the rest does not."""

from __future__ import annotations

from importlib.util import find_spec


def check(*packages: str) -> None:
    """ImportError in one line that says what to install."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ImportError(
            f"training: got no {' and no '.join(missing)}; takes an environment with "
            'pip install "erftheory[train]"'
        )
