"""Arguments of ATen operations as values, and constants that PyTorch computes when asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from erftheory.importers.building.operation import depending
from erftheory.importers.values.constants import LARGEST, root_of
from erftheory.importers.values.pixels import Constant, Value
from erftheory.importers.values.refusals import Unreadable

# operations that keep a factor of a normalisation one, by name
_PASSED = frozenset((
    "mul", "add", "sub", "view", "reshape", "unsqueeze", "squeeze", "expand", "to", "clone",
    "detach", "contiguous", "lift_fresh_copy", "permute", "clamp", "clamp_min", "type_as", "alias",
    "flatten", "unflatten",
))  # fmt: skip


class Held(Constant):
    """A constant of PyTorch: `tensor()` computes it when it is first asked for."""

    __slots__ = ("_make", "_tensor")

    def __init__(self, shape: tuple[int, ...], make: Callable[[], Any] | None):
        super().__init__(shape, self._numpy)
        self._make = make if math.prod(shape) <= LARGEST else None
        self._tensor: Any = None

    def tensor(self) -> Any:
        """The tensor, None where it is not known."""
        if self._make is not None:
            self._tensor, self._make = self._make(), None
        return self._tensor

    def _numpy(self) -> np.ndarray | None:
        found = self.tensor()
        if found is None:
            return None
        found = found.detach().cpu()
        wide = found.is_floating_point() and found.dtype not in (torch.float32, torch.float64)
        return (found.float() if wide else found).numpy()


def held(tensor: Any) -> Held:
    """A tensor that came with the module; one without data is a mere shape."""
    return Held(tuple(tensor.shape), None if tensor.is_meta else lambda: tensor)


def shapes(val: Any) -> Any:
    """Shape of an operation's result, a list of them where it has several; −1 for a size that
    depends on values."""
    if isinstance(val, torch.Tensor):
        return tuple(n if isinstance(n, int) else -1 for n in val.shape)
    if isinstance(val, (tuple, list)):
        return [shapes(v) for v in val]
    return ()


def computed(target: Any, args: Any, kwargs: Any, val: Any, name: str) -> Any:
    """The results of an operation whose arguments do not depend on the image."""
    kept: list[Any] = []

    def run() -> Any:
        if not kept:
            given = tensors(args), tensors(kwargs)
            if any(missing(part) for part in given):
                kept.append(None)
            else:
                with torch.no_grad():
                    kept.append(target(*given[0], **given[1]))
        return kept[0]

    def pick(index: int) -> Any:
        found = run()
        return None if found is None else found[index]

    if isinstance(val, torch.Tensor):
        shape = shapes(val)
        found = run() if -1 in shape else None  # the entries of a mask
        result = Held(shape if found is None else tuple(found.shape), run)
        result.root = _root(name, args)
        return result
    if isinstance(val, (tuple, list)):
        return [
            Held(shapes(v), lambda i=i: pick(i)) if isinstance(v, torch.Tensor) else v
            for i, v in enumerate(val)
        ]
    return val


class _Unknown:
    """In the place of a constant whose value is not known."""


def tensors(args: Any) -> Any:
    """Arguments with the tensors of their constants."""
    if isinstance(args, Held):
        found = args.tensor()
        return _Unknown() if found is None else found
    if isinstance(args, Constant):
        known = args.get()
        return _Unknown() if known is None else torch.as_tensor(known)
    if isinstance(args, (tuple, list)):
        return type(args)(tensors(a) for a in args)
    if isinstance(args, dict):
        return {k: tensors(v) for k, v in args.items()}
    return args


def missing(args: Any) -> bool:
    return any(isinstance(a, _Unknown) for a in flat(args))


def flat(args: Any) -> list[Any]:
    """What lists, tuples and dictionaries of arguments hold."""
    if isinstance(args, (tuple, list)):
        return [x for a in args for x in flat(a)]
    if isinstance(args, dict):
        return [x for a in args.values() for x in flat(a)]
    return [args]


def refilled(args: Any, values: Iterator[Any]) -> Any:
    """Arguments of the same form with other entries, in the order of `flat`."""
    if isinstance(args, (list, tuple)):
        return type(args)(refilled(a, values) for a in args)
    if isinstance(args, dict):
        return {k: refilled(v, values) for k, v in args.items()}
    return next(values)


def pixels(args: Any) -> list[Value]:
    """The arguments that depend on the image."""
    return depending(flat(args))


def _root(name: str, args: Sequence[Any]) -> str:
    """`Constant.root` of a result."""
    kind = "kept" if name in _PASSED else name
    inputs = [value(a) for a in args if isinstance(a, Constant | int | float)]
    power = args[1] if name == "pow" and isinstance(args[1], float) else None
    return root_of(kind, [c for c in inputs if isinstance(c, Constant)], power)


def value(x: Any) -> Value:
    """An argument as a value: numbers are constants without dimensions."""
    if isinstance(x, (bool, int, float, complex)):
        return Constant((), lambda: np.asarray(x))
    if x is None:
        return Constant(())
    return x


def integers(x: Any, count: int) -> list[int]:
    """One entry an axis, of a number or a list of one or all."""
    listed = list(x) if isinstance(x, (tuple, list)) else [x]
    return [int(n) for n in (listed * count if len(listed) == 1 else listed)]


def listed(dims: Any, rank: int) -> list[int]:
    """Dimensions from 0 on; None or none are all of them."""
    if isinstance(dims, int):
        dims = [dims]
    return [int(d) % max(rank, 1) for d in dims] if dims else list(range(rank))


def constant(x: Any, what: str) -> Constant:
    if not isinstance(x, Constant):
        raise Unreadable(f"{what} that depend on the image")
    return x
