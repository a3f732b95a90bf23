"""Cross-entropy over a large vocabulary, a chunk of tokens at a time: full logits never exist.

Chunks are runs of positions taken from every row at once. The gradients of a chunk are made while
its logits are at hand, in the forward pass: one matrix product less than making the logits again,
at the price of keeping the two gradients (the size of the hidden states and of the embedding).

On a mesh each device goes through its own tokens: the embedding is gathered once before the
loop, its gradient reduced once after it, and a vocabulary that is split over the tensor axis
stays split.

Shape legend: B batch, S positions, C positions in a chunk, D hidden, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P


class LossSums(NamedTuple):
    """Sums over the tokens of a batch, each times its weight; float32 scalars.

    Attributes:
      objective: what is minimised: cross-entropy, and z_loss times the squared log-normaliser.
      cross_entropy: -log softmax(hidden . embedding)[target] in nats. It has no gradient.
      z_loss: objective - cross_entropy. It has no gradient.
      weight: of the weights alone.
    """

    objective: jax.Array
    cross_entropy: jax.Array
    z_loss: jax.Array
    weight: jax.Array


def chunked_cross_entropy(
    hidden_BSD: jax.Array,
    embedding_VD: jax.Array,
    targets_BS: jax.Array,
    weights_BS: jax.Array,
    *,
    chunk_tokens: int,
    z_loss: float = 0.0,
    mesh: Mesh | None = None,
) -> LossSums:
    """The sums of a batch; differentiable in the hidden states, the embedding and the weights.

    Args:
      hidden_BSD: any float dtype; the products are computed in it, all sums in float32.
      embedding_VD: rows of the output embedding, in parameter dtype.
      targets_BS: int32 token ids.
      weights_BS: float32; 0 for a token that bears no loss.
      chunk_tokens: about how many tokens have logits at once on a device; at least one position
        of each of its rows does.
      z_loss: weight of the squared log of the softmax's normaliser (arXiv 2204.02311 section 5).
      mesh: as `training.mesh.make_mesh` gives it, where there is more than one device.
    """
    split = None if mesh is None or mesh.size == 1 else mesh
    objective, cross_entropy, weight = _sums(
        (chunk_tokens, z_loss, split), hidden_BSD, embedding_VD, targets_BS, weights_BS
    )
    cross_entropy = jax.lax.stop_gradient(cross_entropy)
    extra = jax.lax.stop_gradient(objective) - cross_entropy
    return LossSums(objective, cross_entropy, extra, weight)


def token_losses(
    hidden_BSD: jax.Array, embedding_VD: jax.Array, targets_BS: jax.Array, chunk_tokens: int
) -> jax.Array:
    """-log softmax(hidden . embedding)[target] of each token in nats, [B, S] float32.

    For evaluation: the memory of a gradient through it is not bounded by the chunk.
    """
    chunk = max(1, chunk_tokens // hidden_BSD.shape[0])
    weight_VD = embedding_VD.astype(hidden_BSD.dtype)

    def step(carry: None, hidden_BCD: jax.Array, targets_BC: jax.Array) -> tuple[None, jax.Array]:
        found = _softmax(hidden_BCD, weight_VD, targets_BC, ())
        return carry, found.normaliser - found.target_logits

    losses_BS: jax.Array
    _, losses_BS = _over_chunks(step, None, chunk, hidden_BSD, targets_BS)
    return losses_BS


_Settings = tuple[int, float, Mesh | None]
_Sums = tuple[jax.Array, jax.Array, jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sums(settings: _Settings, *arrays: jax.Array) -> _Sums:
    return _forward(settings, *arrays)[0]


def _forward(settings: _Settings, *arrays: jax.Array) -> tuple[_Sums, tuple[jax.Array, ...]]:
    """The sums, and the gradients of `objective` by hidden states, embedding and weights."""
    chunk_tokens, z_loss, mesh = settings
    if mesh is None:
        return _share(chunk_tokens, z_loss, False, *arrays)
    tokens = P(("replica", "fsdp"), "context")
    table = P("tensor", "fsdp")
    shared = jax.shard_map(
        functools.partial(_share, chunk_tokens, z_loss, True),
        mesh=mesh,
        in_specs=(tokens, table, tokens, tokens),
        out_specs=((P(), P(), P()), (tokens, table, tokens)),
        check_vma=False,
    )
    result: tuple[_Sums, tuple[jax.Array, ...]] = shared(*arrays)
    return result


def _share(
    chunk_tokens: int,
    z_loss: float,
    is_split: bool,
    hidden_BSD: jax.Array,
    embedding_VD: jax.Array,
    targets_BS: jax.Array,
    weights_BS: jax.Array,
) -> tuple[_Sums, tuple[jax.Array, ...]]:
    """`_forward` of one device's tokens; `is_split`: with those of the others, on a mesh."""
    vocab_axes = ("tensor",) if is_split else ()
    chunk = max(1, chunk_tokens // hidden_BSD.shape[0])
    weights_BS = weights_BS.astype(jnp.float32)
    weight_VD = embedding_VD.astype(hidden_BSD.dtype)
    if is_split:
        weight_VD = jax.lax.all_gather(weight_VD, "fsdp", axis=1, tiled=True)

    def step(
        embedding_grad_DV: jax.Array,
        hidden_BCD: jax.Array,
        targets_BC: jax.Array,
        weights_BC: jax.Array,
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        found = _softmax(hidden_BCD, weight_VD, targets_BC, vocab_axes)
        losses_BC = found.normaliser - found.target_logits
        objectives_BC = losses_BC + z_loss * jnp.square(found.normaliser)
        scale_BC = weights_BC * (1 + 2 * z_loss * found.normaliser) / found.total
        logits_grad_BCV = found.exps * scale_BC[..., None]
        logits_grad_BCV -= found.is_target * weights_BC[..., None]
        logits_grad_BCV = logits_grad_BCV.astype(hidden_BCD.dtype)
        # The small operand on the left: a CPU transposes that one.
        embedding_grad_DV += _float32_product("bcd,bcv->dv", hidden_BCD, logits_grad_BCV)
        hidden_grad_BCD = jnp.einsum("bcv,vd->bcd", logits_grad_BCV, weight_VD)
        return embedding_grad_DV, (losses_BC, objectives_BC, hidden_grad_BCD)

    no_grad_DV = jnp.zeros(weight_VD.shape[::-1], jnp.float32)
    embedding_grad_DV, (losses_BS, objectives_BS, hidden_grad_BSD) = _over_chunks(
        step, no_grad_DV, chunk, hidden_BSD, targets_BS, weights_BS
    )
    embedding_grad_VD = embedding_grad_DV.T
    sums: _Sums = (
        jnp.sum(objectives_BS * weights_BS),
        jnp.sum(losses_BS * weights_BS),
        jnp.sum(weights_BS),
    )
    if is_split:
        hidden_grad_BSD = jax.lax.psum(hidden_grad_BSD, "tensor")
        embedding_grad_VD = jax.lax.psum_scatter(
            embedding_grad_VD, "fsdp", scatter_dimension=1, tiled=True
        )
        embedding_grad_VD = jax.lax.psum(embedding_grad_VD, ("replica", "context"))
        sums = jax.lax.psum(sums, ("replica", "fsdp", "context"))
    return sums, (hidden_grad_BSD, embedding_grad_VD.astype(embedding_VD.dtype), objectives_BS)


def _backward(
    settings: _Settings, saved: tuple[jax.Array, ...], sums_grad: _Sums
) -> tuple[jax.Array | None, ...]:
    hidden_grad_BSD, embedding_grad_VD, objectives_BS = saved
    objective_grad, _, weight_grad = sums_grad
    return (
        hidden_grad_BSD * objective_grad.astype(hidden_grad_BSD.dtype),
        embedding_grad_VD * objective_grad.astype(embedding_grad_VD.dtype),
        None,
        objectives_BS * objective_grad + weight_grad,
    )


_sums.defvjp(_forward, _backward)


class _Softmax(NamedTuple):
    """Of one chunk, float32 but for the last.

    Attributes:
      exps: [B, C, V] of the rows of the embedding at hand; exps / total are the probabilities.
      total, normaliser, target_logits: [B, C]; the normaliser is the log-sum-exp of the logits.
      is_target: bool [B, C, V].
    """

    exps: jax.Array
    total: jax.Array
    normaliser: jax.Array
    target_logits: jax.Array
    is_target: jax.Array


def _softmax(
    hidden_BCD: jax.Array, weight_VD: jax.Array, targets_BC: jax.Array, vocab_axes: tuple[str, ...]
) -> _Softmax:
    """`vocab_axes`: the mesh axes over which the rows of the embedding are split."""
    logits_BCV = _float32_product("bcd,vd->bcv", hidden_BCD, weight_VD)
    first_row = jax.lax.axis_index(vocab_axes) * weight_VD.shape[0] if vocab_axes else 0
    is_target_BCV = jnp.arange(weight_VD.shape[0]) + first_row == targets_BC[..., None]
    largest_BC = jax.lax.stop_gradient(jnp.max(logits_BCV, axis=-1))
    target_logits_BC = jnp.sum(jnp.where(is_target_BCV, logits_BCV, 0), axis=-1)
    if vocab_axes:
        largest_BC = jax.lax.pmax(largest_BC, vocab_axes)
        target_logits_BC = jax.lax.psum(target_logits_BC, vocab_axes)
    exps_BCV = jnp.exp(logits_BCV - largest_BC[..., None])
    total_BC = jnp.sum(exps_BCV, axis=-1)
    if vocab_axes:
        total_BC = jax.lax.psum(total_BC, vocab_axes)
    normaliser_BC = largest_BC + jnp.log(total_BC)
    return _Softmax(exps_BCV, total_BC, normaliser_BC, target_logits_BC, is_target_BCV)


def _float32_product(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """A product of any float dtype, summed and returned in float32."""

    def widened(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.einsum(subscripts, a.astype(jnp.float32), b.astype(jnp.float32))

    def summed_wide(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.einsum(subscripts, a, b, preferred_element_type=jnp.float32)

    # XLA's CPU backend has no product of bfloat16 into float32 outside of a fusion or a loop that
    # it keeps, so whether one runs would hang on the number of chunks.
    return jax.lax.platform_dependent(a, b, cpu=widened, default=summed_wide)


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
