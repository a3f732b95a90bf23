"""Attention: one function, one mask description, one reference, a kernel for each platform.

The mask is `first_key_BS`: the position of the first token that a query may attend to, which is
its document's first token. A query attends from there up to itself. None is plain causal.

Shape legend: see parts.py.
"""

from __future__ import annotations

import functools
import logging

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from snowcoder_jax.errors import InputError
from snowcoder_jax.model.attention import gpu, splash
from snowcoder_jax.model.attention.blockwise import blockwise_attention
from snowcoder_jax.model.attention.cached import cached_attention
from snowcoder_jax.model.attention.gpu import is_cudnn_forward
from snowcoder_jax.model.attention.parts import SAVED_NAME, Sizes
from snowcoder_jax.model.attention.reference import attention_reference
from snowcoder_jax.model.attention.sharded import Path, Share, over_mesh
from snowcoder_jax.recipe import AttentionKernel

__all__ = [
    "SAVED_NAME",
    "attention",
    "attention_reference",
    "cached_attention",
    "is_cudnn_forward",
    "kernel_on",
]

_LOG = logging.getLogger(__name__)

# Best first.
_KERNELS_OF_PLATFORM: dict[str | None, tuple[AttentionKernel, ...]] = {
    "tpu": ("splash",),
    "gpu": ("cudnn", "mosaic"),
}


def attention(
    q_BSNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    first_key_BS: jax.Array | None = None,
    *,
    mesh: Mesh | None = None,
    kernel: AttentionKernel = "auto",
) -> jax.Array:
    """Scaled dot-product attention [B, S, N, H] in the dtype of `q_BSNH`, softmax in float32.

    With a mesh, rows lie over its replica and fsdp axes, heads over tensor, positions over
    context.

    Args:
      q_BSNH, k_BTKH, v_BTKH: queries, keys and values of the same tokens (S = T), any float.
      first_key_BS: int32, at most the query's own position; None: plain causal. It must be the
        same for the tokens of a document, and another for those of another.
      mesh: the devices that compute it; None: whatever one the program is compiled for.
      kernel: what computes it; `auto`: the best of the platform that honours the mask.

    Raises:
      ValueError: shapes that the mask does not describe (S != T, N not a multiple of K, a
        `first_key_BS` that is not [B, S]).
      InputError: `kernel` cannot compute this attention (a document mask, a size, a platform).
    """
    B, S, N, H = q_BSNH.shape
    K = k_BTKH.shape[2]
    if k_BTKH.shape != (B, S, K, H) or v_BTKH.shape != k_BTKH.shape or N % K:
        raise ValueError(
            f"attention of queries {q_BSNH.shape} over keys {k_BTKH.shape} and values "
            f"{v_BTKH.shape}: the mask is only defined over the same tokens"
        )
    if first_key_BS is not None and first_key_BS.shape != (B, S):
        raise ValueError(f"first_key_BS is {first_key_BS.shape}, not {(B, S)}")
    share = Share(1 if mesh is None else mesh.shape["context"])
    name = kernel_on(mesh, kernel, q_BSNH.dtype, S, H, packed=first_key_BS is not None)
    if name == "reference":
        return attention_reference(q_BSNH, k_BTKH, v_BTKH, first_key_BS)
    paths: dict[AttentionKernel, Path] = {
        "blockwise": functools.partial(blockwise_attention, share=share),
        "splash": functools.partial(splash.splash_attention, share=share),
        "cudnn": gpu.cudnn_attention,
        "mosaic": functools.partial(gpu.mosaic_attention, share=share),
    }
    path = paths[name]
    if mesh is None or mesh.size == 1:
        return path(q_BSNH, k_BTKH, v_BTKH, first_key_BS)
    return over_mesh(path, mesh, q_BSNH, k_BTKH, v_BTKH, first_key_BS)


def kernel_on(
    mesh: Mesh | None,
    kernel: AttentionKernel,
    dtype: jnp.dtype,
    length: int,
    head_dim: int,
    *,
    packed: bool,
) -> AttentionKernel:
    """The kernel that `attention` takes on a mesh; see `chosen_kernel` and `Sizes`.

    Raises:
      InputError: `kernel` names one that cannot compute this attention there.
    """
    device = _device(mesh)
    sizes = Sizes(
        dtype,
        length,
        head_dim,
        1 if mesh is None else mesh.shape["context"],
        packed,
        getattr(device, "compute_capability", None),
    )
    return chosen_kernel(kernel, sizes, None if device is None else device.platform)


def chosen_kernel(kernel: AttentionKernel, sizes: Sizes, platform: str | None) -> AttentionKernel:
    """The kernel that computes such an attention: `kernel`, or for `auto` the platform's.

    Where none of the platform's kernels can, `auto` is blockwise, and the log says why, once.

    Args:
      platform: as JAX names it; None: several devices, and nothing said of how to use them.

    Raises:
      InputError: `kernel` names one that cannot.
    """
    if kernel == "auto":
        reasons = []
        for candidate in _KERNELS_OF_PLATFORM.get(platform, ()):
            reason = _refusal(candidate, sizes, platform)
            if reason is None:
                return candidate
            reasons.append(f"{candidate}: {reason}")
        if reasons:
            _say_once("attention is computed blockwise. " + "; ".join(reasons))
        return "blockwise"
    reason = _refusal(kernel, sizes, platform)
    if reason is not None:
        raise InputError(
            f"hardware.attention_kernel: {kernel} cannot compute this attention: {reason}. "
            "Set it to auto for the best one that can."
        )
    return kernel


def _refusal(kernel: AttentionKernel, sizes: Sizes, platform: str | None) -> str | None:
    if kernel in ("blockwise", "reference"):
        return None
    if platform is None:
        return "a kernel must be told its devices (mesh)"
    if kernel not in _KERNELS_OF_PLATFORM.get(platform, ()):
        return f"it does not run on {platform}"
    refusal = {
        "splash": splash.refusal,
        "cudnn": gpu.cudnn_refusal,
        "mosaic": gpu.mosaic_refusal,
    }[kernel]
    return refusal(sizes)


def _device(mesh: Mesh | None) -> jax.Device | None:
    """One of those that compute; None: several, and nothing said of how to use them."""
    if mesh is not None:
        device: jax.Device = mesh.devices.flat[0]
        return device
    return jax.devices()[0] if jax.device_count() == 1 else None


@functools.cache
def _say_once(text: str) -> None:
    _LOG.warning(text)
