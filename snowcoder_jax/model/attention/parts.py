"""What the attention paths share: the mask, orders of dims, products.

Shape legend: B batch, S queries, T keys, N query heads, K key and value heads, G query heads for
each of those (N = K G), H head dim; C and R the queries and keys of one block.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

# The name under which a rematerialisation policy finds what the backward pass needs.
SAVED_NAME = "attention_output"

# The score of a key that is masked: finite, so that no difference of two is NaN.
MASKED = -1e30


class Sizes(NamedTuple):
    """What a kernel may not be able to compute.

    Attributes:
      length: positions of the whole sequence, of which each device has one of `num_context`.
      packed: the mask is of documents.
      compute_capability: of the GPU, such as "9.0"; None: not a GPU, or not known.
    """

    dtype: jnp.dtype
    length: int
    head_dim: int
    num_context: int
    packed: bool
    compute_capability: str | None = None


def allowed(queries: range, keys: range, first_key_BC: jax.Array | None) -> jax.Array:
    """True where a query may attend to a key: [C, R], or [B, 1, 1, C, R] with documents.

    Args:
      queries, keys: their positions in the sequence.
      first_key_BC: of those queries.
    """
    query_C = jnp.arange(queries.start, queries.stop)
    key_R = jnp.arange(keys.start, keys.stop)
    causal_CR = key_R <= query_C[:, None]
    if first_key_BC is None:
        return causal_CR
    document_BCR = key_R >= first_key_BC[..., None]
    return (causal_CR & document_BCR)[:, None, None]


def heads_first(
    q_BSNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """[B, K, G, S, H], [B, K, T, H], [B, K, T, H]: batched products without strides."""
    B, S, N, H = q_BSNH.shape
    K = k_BTKH.shape[2]
    q_BKGSH = q_BSNH.reshape(B, S, K, N // K, H).transpose(0, 2, 3, 1, 4)
    return q_BKGSH, jnp.swapaxes(k_BTKH, 1, 2), jnp.swapaxes(v_BTKH, 1, 2)


def heads_last(x_BKGSH: jax.Array) -> jax.Array:
    B, K, G, S, H = x_BKGSH.shape
    return x_BKGSH.transpose(0, 3, 1, 2, 4).reshape(B, S, K * G, H)


def wide_dtype(x: jax.Array) -> jnp.dtype:
    """float32, or float64 of float64."""
    return jnp.promote_types(x.dtype, jnp.float32)


def product(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """A matrix product summed and returned in float32 (float64 of float64)."""
    return jnp.einsum(subscripts, a, b, preferred_element_type=wide_dtype(a))
