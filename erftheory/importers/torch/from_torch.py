"""A network from a PyTorch module."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any

from erftheory.importers.building.assemble import Assembler
from erftheory.importers.building.draft import HOLD
from erftheory.importers.building.ends import asked, check_maps, readable
from erftheory.importers.building.image import Axes, image_axes, whole_image
from erftheory.importers.building.rules import check_rules
from erftheory.importers.values.refusals import Unreadable
from erftheory.network.arguments import one_of
from erftheory.network.imported import ImportedNetwork


def from_torch(
    module: Any,
    *examples: Any,
    hold: str = "statistics",
    rules: Mapping[str, Any] | None = None,
    spatial_axes: Axes = None,
    outputs: Sequence[str] | None = None,
) -> ImportedNetwork:
    """The network of a `torch.nn.Module`, read from what `torch.export` keeps in evaluation mode.

    Args:
      examples: tensors of the shapes that the module takes, the image first.
      hold: as in `from_jax`.
      rules: what operations that the reader does not know do, by name ("aten.grid_sampler", or with
        its overload), by the class of a module ("DeformConv2d") or by its path ("stages.3.0.attn"),
        which is not looked into then: "identity" or a `Network`.
      spatial_axes: as in `from_onnx`.
      outputs: endpoints at which the network ends, the last one its output; what they do not need
        is not read. None are the module's own outputs.

    Returns:
      a network whose endpoints (`until`) are the paths of modules ("layer1.0.conv1"), the names of
      operations in the exported graph, and the outputs: "output", keys or positions.

    Raises:
      ValueError: an operation that has no reading, a module that PyTorch cannot export, or
        endpoints that there are not.
    """
    import torch

    one_of("hold", hold, HOLD)
    check_rules(rules)
    if not isinstance(module, torch.nn.Module):
        raise ValueError(f"module: got {type(module).__name__}; takes a torch.nn.Module")
    if not examples:
        raise ValueError("examples: got none; takes the module's arguments, the image first")
    if not isinstance(examples[0], torch.Tensor):
        raise ValueError(
            f"examples: got {type(examples[0]).__name__} first; takes a tensor, the image"
        )
    program = _exported(torch, module, examples)

    from erftheory.importers.torch import reader as read_

    wanted, last = None, asked(outputs, lambda: read_.ends(program.graph))
    if last is not None:
        wanted = read_.needed(program.graph, list(last.values()))
    sizes = tuple(examples[0].shape)

    def read(axes: Sequence[int], search: bool = False) -> Any:
        made = read_.TorchReader(
            program, Assembler(len(axes), hold), rules or {}, search, wanted
        )
        try:
            made.run(whole_image(sizes, axes), examples)
        except Unreadable as why:
            raise why.but(ends=readable(made.marks, made.modules, made.unread)) from None
        return made

    axes, named = image_axes(spatial_axes, read, sizes)
    made = read(axes)
    if last is None:
        values = dict(zip(_names(program), made.results))
    else:
        values = {name: made.env[node] for name, node in last.items()}
        check_maps(values)
    return made.network(values, named, "module")


def _names(program: Any) -> list[str]:
    """A name for each output: its keys and positions, "output" for a single one."""
    specs = program.graph_signature.output_specs
    spec = program.call_spec.out_spec
    if spec is None:
        return [str(i) for i in range(len(specs))]
    return list(_paths(spec.unflatten(list(range(len(specs)))), ""))


def _paths(structure: Any, before: str) -> Iterator[str]:
    if isinstance(structure, Mapping):
        rows: Any = structure.items()
    elif isinstance(structure, (tuple, list)):
        rows = enumerate(structure)
    elif isinstance(structure, int):
        yield before or "output"
        return
    elif hasattr(structure, "__dict__"):  # dataclasses, such as those of Hugging Face
        rows = vars(structure).items()
    else:
        return
    for key, inner in rows:
        yield from _paths(inner, f"{before}/{key}" if before else str(key))


def _exported(torch: Any, module: Any, examples: tuple[Any, ...]) -> Any:
    training = {m: m.training for m in module.modules()}
    module.eval()
    try:
        with _quiet():
            return torch.export.export(module, examples)
    except (KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:  # whatever the module itself raises comes through
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"module: got one that PyTorch cannot export: {line}") from error
    finally:
        for m, was in training.items():
            m.training = was


@contextmanager
def _quiet() -> Iterator[None]:
    """Drops what PyTorch says beside its result or its exception: warnings about its own
    attributes, tracebacks in its log, graphs that it could not finish."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
