"""Cross-entropy over a large vocabulary, a chunk of tokens at a time: full logits never exist.

Chunks are runs of positions taken from every row at once, so that a batch split over devices
stays split. The gradients of a chunk are made while its logits are at hand, in the forward pass:
one matrix product less than making the logits again, at the price of keeping the two gradients
(the size of the hidden states and of the embedding).

Shape legend: B batch, S positions, C positions in a chunk, D hidden, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def chunked_cross_entropy(
    hidden_BSD: jax.Array,
    embedding_VD: jax.Array,
    targets_BS: jax.Array,
    weights_BS: jax.Array,
    *,
    chunk_tokens: int,
) -> tuple[jax.Array, jax.Array]:
    """Sum over tokens of weight x -log softmax(hidden . embedding)[target], and of the weights.

    Differentiable in the hidden states, the embedding and the weights.

    Args:
      hidden_BSD: any float dtype; the products are computed in it, all sums in float32.
      embedding_VD: rows of the output embedding, in parameter dtype.
      targets_BS: int32 token ids.
      weights_BS: float32; 0 for a token that bears no loss.
      chunk_tokens: about how many tokens of the (global) batch have logits at once; at least
        one position of every row does.

    Returns:
      The sum of the losses in nats and the sum of the weights, float32 scalars.
    """
    chunk = max(1, chunk_tokens // hidden_BSD.shape[0])
    sums: tuple[jax.Array, jax.Array] = _cross_entropy(
        chunk, hidden_BSD, embedding_VD, targets_BS, weights_BS
    )
    return sums


def token_losses(
    hidden_BSD: jax.Array, embedding_VD: jax.Array, targets_BS: jax.Array, chunk_tokens: int
) -> jax.Array:
    """-log softmax(hidden . embedding)[target] of each token in nats, [B, S] float32.

    For evaluation: the memory of a gradient through it is not bounded by the chunk.
    """
    chunk = max(1, chunk_tokens // hidden_BSD.shape[0])
    weight_VD = embedding_VD.astype(hidden_BSD.dtype)

    def step(carry: None, hidden_BCD: jax.Array, targets_BC: jax.Array) -> tuple[None, jax.Array]:
        return carry, _losses(hidden_BCD, weight_VD, targets_BC)[0]

    losses_BS: jax.Array
    _, losses_BS = _over_chunks(step, None, chunk, hidden_BSD, targets_BS)
    return losses_BS


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _cross_entropy(
    chunk: int,
    hidden_BSD: jax.Array,
    embedding_VD: jax.Array,
    targets_BS: jax.Array,
    weights_BS: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    losses_BS = token_losses(hidden_BSD, embedding_VD, targets_BS, chunk * hidden_BSD.shape[0])
    weights_BS = weights_BS.astype(jnp.float32)
    return jnp.sum(losses_BS * weights_BS), jnp.sum(weights_BS)


def _forward(
    chunk: int,
    hidden_BSD: jax.Array,
    embedding_VD: jax.Array,
    targets_BS: jax.Array,
    weights_BS: jax.Array,
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, ...]]:
    weight_VD = embedding_VD.astype(hidden_BSD.dtype)

    def step(
        embedding_grad_VD: jax.Array,
        hidden_BCD: jax.Array,
        targets_BC: jax.Array,
        weights_BC: jax.Array,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        losses_BC, logits_BCV, normaliser_BC = _losses(hidden_BCD, weight_VD, targets_BC)
        probabilities_BCV = jnp.exp(logits_BCV - normaliser_BC[..., None])
        is_target_BCV = jnp.arange(weight_VD.shape[0]) == targets_BC[..., None]
        logits_grad_BCV = (probabilities_BCV - is_target_BCV) * weights_BC[..., None]
        logits_grad_BCV = logits_grad_BCV.astype(hidden_BCD.dtype)
        embedding_grad_VD += jnp.einsum(
            "bcv,bcd->vd", logits_grad_BCV, hidden_BCD, preferred_element_type=jnp.float32
        )
        hidden_grad_BCD = jnp.einsum("bcv,vd->bcd", logits_grad_BCV, weight_VD)
        return embedding_grad_VD, (losses_BC, hidden_grad_BCD)

    weights_BS = weights_BS.astype(jnp.float32)
    no_grad_VD = jnp.zeros(embedding_VD.shape, jnp.float32)
    embedding_grad_VD, (losses_BS, hidden_grad_BSD) = _over_chunks(
        step, no_grad_VD, chunk, hidden_BSD, targets_BS, weights_BS
    )
    sums = jnp.sum(losses_BS * weights_BS), jnp.sum(weights_BS)
    return sums, (hidden_grad_BSD, embedding_grad_VD.astype(embedding_VD.dtype), losses_BS)


def _backward(
    chunk: int, saved: tuple[jax.Array, ...], sums_grad: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array | None, ...]:
    hidden_grad_BSD, embedding_grad_VD, losses_BS = saved
    loss_grad, weight_grad = sums_grad
    return (
        hidden_grad_BSD * loss_grad.astype(hidden_grad_BSD.dtype),
        embedding_grad_VD * loss_grad.astype(embedding_grad_VD.dtype),
        None,
        losses_BS * loss_grad + weight_grad,
    )


_cross_entropy.defvjp(_forward, _backward)


def _losses(
    hidden_BCD: jax.Array, weight_VD: jax.Array, targets_BC: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Losses, logits and log-sum-exps of one chunk, all float32."""
    logits_BCV = jnp.einsum(
        "bcd,vd->bcv", hidden_BCD, weight_VD, preferred_element_type=jnp.float32
    )
    normaliser_BC = jax.nn.logsumexp(logits_BCV, axis=-1)
    target_logits_BC = jnp.take_along_axis(logits_BCV, targets_BC[..., None], axis=-1)[..., 0]
    return normaliser_BC - target_logits_BC, logits_BCV, normaliser_BC


def _over_chunks(
    step: Callable[..., tuple[Any, Any]], carry: Any, chunk: int, *arrays_BS: jax.Array
) -> tuple[Any, Any]:
    """Scan `step(carry, *arrays_BC)` over runs of `chunk` positions, a shorter one last.

    Returns the last carry and the outputs, joined along the positions again.
    """
    B, S = arrays_BS[0].shape[:2]
    chunk = min(chunk, S)
    num_whole = S // chunk

    def scanned(carry: Any, index: jax.Array) -> tuple[Any, Any]:
        sliced = (jax.lax.dynamic_slice_in_dim(x, index * chunk, chunk, axis=1) for x in arrays_BS)
        return step(carry, *sliced)

    def joined(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 0, 1).reshape(B, num_whole * chunk, *x.shape[3:])

    carry, outputs = jax.lax.scan(scanned, carry, jnp.arange(num_whole))
    outputs = jax.tree.map(joined, outputs)
    if S % chunk:
        carry, rest = step(carry, *(x[:, num_whole * chunk :] for x in arrays_BS))
        outputs = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), outputs, rest)
    return carry, outputs
