"""The definition of attention, written plainly. Shape legend: see parts.py."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from snowcoder_jax.model.attention.parts import allowed, wide_dtype


def attention_reference(
    q_BSNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    first_key_BS: jax.Array | None = None,
) -> jax.Array:
    """The definition, written plainly; its softmax in float32 (float64 for float64 inputs)."""
    B, S, N, H = q_BSNH.shape
    K = k_BTKH.shape[2]
    q_BSKGH = q_BSNH.reshape(B, S, K, N // K, H)
    wide = wide_dtype(q_BSNH)
    scores = jnp.einsum("bskgh,btkh->bkgst", q_BSKGH, k_BTKH, preferred_element_type=wide)
    scores = jnp.where(allowed(range(S), range(S), first_key_BS), scores * H**-0.5, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).astype(v_BTKH.dtype)
    return jnp.einsum("bkgst,btkh->bskgh", weights, v_BTKH).reshape(B, S, N, H)
