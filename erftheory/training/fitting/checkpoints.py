"""What a run leaves on disk: Orbax checkpoints of its state, and what it has measured so far."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp


class Checkpoints:
    """A folder of checkpoints, the last two kept; one is there whole or not at all.

    Args:
      path: the folder, made if it is not there.
      run: what tells this run from others: a dictionary of plain values.

    Raises:
      ValueError: the folder holds another run's checkpoints, or something else.
    """

    def __init__(self, path: str | Path, run: dict[str, Any]):
        self.path = Path(path).absolute()
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"checkpoint: got {path}, a file; takes a folder, or one to be made")
        self.run = json.loads(json.dumps(run))
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        self.manager = ocp.CheckpointManager(self.path, options=options)

    def load(self, state: Any) -> tuple[Any, dict[str, Any]] | None:
        """The last state, shaped as `state`, and what was said of it; None if there is none."""
        step = self.manager.latest_step()
        if step is None:
            return None
        said = self.manager.restore(step, args=ocp.args.Composite(said=ocp.args.JsonRestore()))
        said = said["said"]
        for name, value in self.run.items():
            if said["run"].get(name) != value:
                raise ValueError(
                    f"checkpoint: got {self.path}, of a run with {name}={said['run'].get(name)!r}; "
                    f"takes one with {name}={value!r}, or an empty folder"
                )
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, _plain(state))
        found = self.manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(shapes))
        )["state"]
        return _like(state, found), said

    def save(self, step: int, state: Any, said: dict[str, Any]) -> None:
        """One more checkpoint; it is on disk when this returns."""
        said = {**said, "run": self.run}
        self.manager.save(
            step, args=ocp.args.Composite(
                state=ocp.args.StandardSave(_plain(state)), said=ocp.args.JsonSave(said)
            ),
        )  # fmt: skip
        self.manager.wait_until_finished()

    def close(self) -> None:
        self.manager.close()


def _plain(state: Any) -> dict[str, Any]:
    """The arrays of a state by number, random keys as their numbers."""
    leaves = jax.tree.leaves(state)
    return {f"{i:05d}": _numbers(leaf) for i, leaf in enumerate(leaves)}


def _numbers(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _like(state: Any, plain: dict[str, Any]) -> Any:
    leaves, shape = jax.tree.flatten(state)
    found = []
    for i, leaf in enumerate(leaves):
        value = plain[f"{i:05d}"]
        if _is_key(leaf):
            value = jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf))
        found.append(value)
    return shape.unflatten(found)
