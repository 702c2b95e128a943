"""Effective receptive fields of convolutional networks: derive, compute, measure, verify.

Importing this package changes no JAX setting and starts no device. The public names stand in
`__init__.pyi`, once, for readers, type checkers and this file; each is imported when it is asked
for, since JAX and SymPy take most of a second.
"""

import lazy_loader as _lazy

from erftheory import _methods  # noqa: F401  always runs first: what stands on a record or network

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
