"""Random keys, given as JAX keys or as ints."""

from __future__ import annotations

import operator
from typing import Any

import jax
import jax.numpy as jnp


def random_key(key: Any) -> jax.Array:
    """The JAX key that `key` is, or that an int is the seed of.

    Raises:
      ValueError: neither.
    """
    if isinstance(key, jax.Array):
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        if key.ndim == 0 if typed else key.ndim == 1 and key.dtype == jnp.uint32:
            return key
        came = f"an array of shape {key.shape} and dtype {key.dtype}"
    else:
        try:
            if not isinstance(key, bool):
                return jax.random.key(operator.index(key))
        except (TypeError, OverflowError):
            pass
        came = repr(key)
    raise ValueError(f"key: got {came}; takes a JAX random key or an int, such as 0")
