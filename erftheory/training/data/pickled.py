"""Pickles of plain values and NumPy arrays, read without running what a pickle may name.

A pickle is a program: it calls whatever it names. Here it gets stand-ins under the four names that
an array needs, `_reconstruct`, `ndarray`, `dtype` and `_codecs.encode`, and nothing else. NumPy's
own are withheld too, since their `__setstate__` trusts its input: a forged dtype turns bytes into
pointers. Arrays are made at the end of what was checked: integers, and as many bytes as they need.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from typing import Any

import numpy as np

_TAKES = "a pickle of plain values and arrays of integers"


def load(data: bytes, what: str) -> dict[str, Any]:
    """The dictionary in a pickle (of Python 2 or 3), its keys as text, its arrays as NumPy's.

    Text of Python 2 arrives as bytes. `what` begins the line of an error.

    Raises:
      ValueError: a pickle that is cut short, holds something else or names anything else.
    """
    try:
        for code, argument, _ in pickletools.genops(data):  # all there, no memory beyond it
            if "PUT" in code.name and isinstance(argument, int) and argument > len(data):
                raise ValueError("a memo out of range")
        value = _Restricted(io.BytesIO(data), encoding="bytes").load()
    except _Refused as error:
        raise ValueError(f"{what} {error}; takes {_TAKES}") from None
    except Exception as error:  # a wrong program can fail in any way
        reason = type(error).__name__
        raise ValueError(f"{what} is no whole pickle ({reason}); takes {_TAKES}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{what} holds {type(value).__name__}; takes {_TAKES} in a dictionary")
    return {
        key.decode("latin-1") if isinstance(key, bytes) else str(key): (
            v.value if isinstance(v, _Array) else v
        )
        for key, v in value.items()
    }


class _Refused(ValueError):
    pass


class _Stand:
    """What a pickle may hold but not change: no attribute can be set on it."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise _Refused("changes what it may only call")


class _Mark(_Stand):
    """In the place of the class `ndarray`, an argument only."""

    __slots__ = ()


class _Encode(_Stand):
    """`_codecs.encode`, by which Python 3 writes bytes for Python 2."""

    __slots__ = ()

    def __call__(self, text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise _Refused("encodes what is not text in latin1")
        return text.encode("latin-1")


class _Dtype(_Stand):
    """A dtype of integers: code "u1" to "i8", and the order of its bytes."""

    __slots__ = ("code", "order")

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2:
            raise _Refused("has a dtype of unknown state")
        order = state[1].decode("latin-1") if isinstance(state[1], bytes) else state[1]
        if order not in ("|", "<", ">", "="):
            raise _Refused("has a dtype of unknown byte order")
        self.order = order


class _NewDtype(_Stand):
    __slots__ = ()

    def __call__(self, code: Any, *_: Any) -> _Dtype:
        code = code.decode("latin-1") if isinstance(code, bytes) else code
        if not isinstance(code, str) or not re.fullmatch("[iu][1248]", code):
            raise _Refused(f"has an array of dtype {code!r}")
        made = _Dtype()
        made.code, made.order = code, "="
        return made


class _Array(_Stand):
    __slots__ = ("value",)

    def __setstate__(self, state: Any) -> None:
        version, shape, dtype, columns_first, data = state
        sizes = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
        if not sizes or not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            raise _Refused("has an array of unknown state")
        kind = np.dtype(dtype.order.replace("|", "=") + dtype.code)
        if len(shape) > 8 or math.prod(shape) * kind.itemsize != len(data):
            raise _Refused(f"has {len(data)} bytes for an array of shape {shape}")
        self.value = np.frombuffer(data, kind).reshape(shape, order="F" if columns_first else "C")


class _NewArray(_Stand):
    """`_reconstruct(ndarray, (0,), b"b")`: an array that waits for its state."""

    __slots__ = ()

    def __call__(self, kind: Any, *_: Any) -> _Array:
        if not isinstance(kind, _Mark):
            raise _Refused("makes an array of another class")
        return _Array()


_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): _NewArray(),
    ("numpy._core.multiarray", "_reconstruct"): _NewArray(),
    ("numpy", "ndarray"): _Mark(),
    ("numpy", "dtype"): _NewDtype(),
    ("_codecs", "encode"): _Encode(),
}


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        try:
            return _NAMES[module, name]
        except KeyError:
            raise _Refused(f"asks for {module}.{name}") from None
