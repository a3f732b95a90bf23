"""Attention kernels for NVIDIA GPUs: cuDNN's for causal masks, tokamax's Mosaic for documents.

cuDNN's attention, as JAX offers it, has no description of documents. tokamax is a separate
package (`pip install tokamax`, 0.0.12 and up): its kernel for Hopper and Blackwell takes the
first and the last key of each query.

Shape legend: see parts.py.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from jax.extend.core import Primitive

from snowcoder_jax.model.attention.parts import Sizes
from snowcoder_jax.model.attention.sharded import Share, whole_sequence

_HALF_PRECISION = (jnp.bfloat16, jnp.float16)

# The GPUs that the kernels are written for: Ampere and later (cuDNN's documentation of its fused
# attention); Hopper and the Blackwell of data centres (tokamax's two kernels of that name).
_CUDNN_FROM = (8, 0)
_MOSAIC_CAPABILITIES = ("9.0", "10.0")


def cudnn_refusal(sizes: Sizes) -> str | None:
    """Why cuDNN cannot compute such an attention; None: it can."""
    capability = sizes.compute_capability
    if capability is not None and tuple(map(int, capability.split("."))) < _CUDNN_FROM:
        return f"it needs a GPU of compute capability 8.0 or more, and this one has {capability}"
    if sizes.packed:
        return "it would attend across documents, for which it has no mask"
    if sizes.dtype not in _HALF_PRECISION:
        return f"it computes in bfloat16, not in {sizes.dtype}"
    if sizes.head_dim % 8 or sizes.head_dim > 128:
        return f"head_dim {sizes.head_dim} is no multiple of 8 up to 128"
    if sizes.num_context > 1:
        return "it cannot attend from a part of the positions (hardware.mesh.context above 1)"
    return None


def mosaic_refusal(sizes: Sizes) -> str | None:
    """Why tokamax's kernel cannot compute such an attention; None: it can."""
    capability = sizes.compute_capability
    if capability is not None and capability not in _MOSAIC_CAPABILITIES:
        return f"it needs a GPU of compute capability 9.0 or 10.0, and this one has {capability}"
    if importlib.util.find_spec("tokamax") is None:
        return "it needs the package tokamax, which is not installed (pip install tokamax)"
    if sizes.dtype not in _HALF_PRECISION:
        return f"it computes in bfloat16, not in {sizes.dtype}"
    return None


def cudnn_attention(
    q_BSNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, first_key_BS: jax.Array | None
) -> jax.Array:
    """Causal attention of one device's rows and heads; see `attention`."""
    assert first_key_BS is None, "cuDNN has no mask for documents"
    return jax.nn.dot_product_attention(
        q_BSNH, k_BTKH, v_BTKH, is_causal=True, implementation="cudnn"
    )


def is_cudnn_forward(primitive: Primitive, *_: Any, **__: Any) -> bool:
    """A rematerialisation policy: save what cuDNN's forward kernel returns.

    JAX gives its output and its softmax statistics no name that a policy could save them by.
    """
    return "dot_product_attention_fwd" in primitive.name


def mosaic_attention(
    q_BSNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    first_key_BS: jax.Array | None,
    *,
    share: Share,
    implementation: str = "mosaic_gpu",
) -> jax.Array:
    """Attention of one device's rows, heads and positions; see `attention`.

    Args:
      implementation: tokamax's name of it; `xla` is its plain definition on any platform.
    """
    # Optional, and slow to import. Its public function takes no first keys.
    from tokamax._src.ops.attention import api, base

    # It would read its settings from this process's command line, and fail at the first argument.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    S = q_BSNH.shape[1]
    k_BTKH, v_BTKH = (whole_sequence(x, share) for x in (k_BTKH, v_BTKH))
    last_S = share.first_position(S) + jnp.arange(S)
    mask = base.Mask(
        k_start=None if first_key_BS is None else first_key_BS[:, None],
        k_end=None if share.num_context == 1 else (last_S + 1)[None, None],
        is_causal=share.num_context == 1,
    )
    o_BSNH: jax.Array = api.IMPLEMENTATIONS[implementation](q_BSNH, k_BTKH, v_BTKH, mask=mask)
    return o_BSNH
