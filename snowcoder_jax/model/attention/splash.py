"""Splash attention, JAX's own Pallas kernel for TPUs, for causal and document masks.

The kernel knows segment ids: a token attends to the earlier tokens of its segment. The first key
of a token is the same within its document and differs between documents, so it serves as the id.

Shape legend: see parts.py.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from snowcoder_jax.model.attention.parts import SAVED_NAME, Sizes
from snowcoder_jax.model.attention.sharded import Share, whole_sequence

_LANES = 128
_MAX_BLOCK = 1_024


def refusal(sizes: Sizes) -> str | None:
    """Why the kernel cannot compute such an attention; None: it can."""
    if sizes.head_dim % _LANES:
        return f"head_dim {sizes.head_dim} is no multiple of {_LANES}"
    length = sizes.length // sizes.num_context
    if length % _LANES:
        return f"a device's {length} positions are no multiple of {_LANES}"
    return None


def splash_attention(
    q_BSNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    first_key_BS: jax.Array | None,
    *,
    share: Share,
    interpret: bool = False,
) -> jax.Array:
    """Attention of one device's rows, heads and positions; see `attention`.

    Args:
      interpret: compute what the kernel would on any platform, slowly.
    """
    # The kernel has no scale of its own.
    q_BNSH = (jnp.swapaxes(q_BSNH, 1, 2) * q_BSNH.shape[3] ** -0.5).astype(q_BSNH.dtype)
    k_BKTH, v_BKTH = (
        whole_sequence(jnp.swapaxes(x, 1, 2), share, axis=2) for x in (k_BTKH, v_BTKH)
    )
    segments = None
    if first_key_BS is not None:
        segments = kernels.SegmentIds(first_key_BS, whole_sequence(first_key_BS, share))
    kernel = _kernel(k_BKTH.shape[2], share, interpret)
    return jnp.swapaxes(jax.vmap(kernel)(q_BNSH, k_BKTH, v_BKTH, segments), 1, 2)


def _kernel(length: int, share: Share, interpret: bool) -> Any:
    """The kernel for one row of `length` tokens, with the tables of this device's queries."""
    q_block, kv_block = (
        next(b for b in (_MAX_BLOCK, 512, 256, _LANES) if n % b == 0)
        for n in (length // share.num_context, length)
    )
    kernel = kernels.make_splash_mha(
        # One head's mask, which the kernel uses for all.
        masks.MultiHeadMask([masks.CausalMask((length, length))]),
        block_sizes=kernels.BlockSizes(
            block_q=q_block,
            block_kv=kv_block,
            block_q_dkv=q_block,
            block_kv_dkv=kv_block,
            block_q_dq=q_block,
            block_kv_dq=kv_block,
        ),
        head_shards=1,
        q_seq_shards=share.num_context,
        residual_checkpoint_name=SAVED_NAME,
        interpret=interpret,
    )
    if share.num_context == 1:
        return kernel

    def own(table: jax.Array) -> jax.Array:
        # Positions of queries [S]; what blocks to visit [1, blocks of queries, blocks of keys].
        axis = 0 if table.ndim == 1 else 1
        size = table.shape[axis] // share.num_context
        return jax.lax.dynamic_slice_in_dim(table, share.index * size, size, axis)

    return jax.tree.map(own, kernel)
