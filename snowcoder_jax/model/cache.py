"""Keys and values of what was read, for generating. Shape legend: see decoder.py."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from snowcoder_jax.recipe import Model


class Cache(NamedTuple):
    """Keys and values of the tokens seen so far, for generating one token at a time.

    Attributes:
      keys, values: [L, B, K, T, H]; the rotation is already applied to the keys.
      valid: bool [B, T]; slots that hold a token, not padding.
      num_slots: int32 scalar; slots written.
    """

    keys: jax.Array
    values: jax.Array
    valid: jax.Array
    num_slots: jax.Array


def init_cache(config: Model, batch_size: int, max_length: int, dtype: DTypeLike) -> Cache:
    """An empty cache with room for `max_length` slots in each of `batch_size` rows."""
    shape = (config.num_layers, batch_size, config.num_kv_heads, max_length, config.head_dim)
    return Cache(
        jnp.zeros(shape, dtype),
        jnp.zeros(shape, dtype),
        jnp.zeros((batch_size, max_length), jnp.bool_),
        jnp.zeros((), jnp.int32),
    )
