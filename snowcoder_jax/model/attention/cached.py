"""Attention of new tokens over a cache, for generating. Shape legend: see parts.py."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from snowcoder_jax.model.attention.parts import MASKED, heads_first, heads_last, product


def cached_attention(
    q_BSNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    cached_k_BKTH: jax.Array,
    cached_v_BKTH: jax.Array,
    valid_BT: jax.Array,
    new_mask_BSS: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Attention of new tokens over cached ones and over themselves; no gradient is meant.

    Args:
      valid_BT: bool; which cached keys there are, for every query of the row.
      new_mask_BSS: bool; which new keys (last dim) each new query may attend to.

    Returns:
      The output [B, S, N, H], and the new keys and values as [B, K, S, H], as the cache has
      them: it is not copied for the new ones to be looked at beside it.
    """
    T, H = valid_BT.shape[1], q_BSNH.shape[3]
    q_BKGSH, k_BKSH, v_BKSH = heads_first(q_BSNH, k_BSKH, v_BSKH)
    old = product("bkgsh,bkth->bkgst", q_BKGSH, cached_k_BKTH) * H**-0.5
    new = product("bkgsh,bkth->bkgst", q_BKGSH, k_BKSH) * H**-0.5
    old = jnp.where(valid_BT[:, None, None, None], old, MASKED)
    new = jnp.where(new_mask_BSS[:, None, None], new, MASKED)
    weights = jax.nn.softmax(jnp.concatenate([old, new], axis=-1), axis=-1).astype(v_BSKH.dtype)
    o_BKGSH = product("bkgst,bkth->bkgsh", weights[..., :T], cached_v_BKTH)
    o_BKGSH += product("bkgst,bkth->bkgsh", weights[..., T:], v_BKSH)
    return heads_last(o_BKGSH).astype(q_BSNH.dtype), (k_BKSH, v_BKSH)
