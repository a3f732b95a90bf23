"""Attention: one function, one mask description, one reference.

The mask is `first_key_BS`: the position of the first token that a query may attend to, which is
its document's first token. A query attends from there up to itself. None is plain causal.

`attention` works in blocks, keeps the scores of one block at a time, skips what lies wholly in
a query's future, and recomputes probabilities in the backward pass from the saved log-sum-exps
(arXiv 2205.14135, section 3). On a CPU it also goes through the batch two rows at a time, so
that a block's scores stay in the cache: 68 ms for a layer's forward and backward pass where
`attention_reference` takes 172 (2 cores, 16 rows of 512 tokens, 4 heads of 64).

Shape legend: B batch, S queries, T keys, N query heads, K key and value heads, G query heads for
each of those (N = K G), H head dim; C and R the queries and keys of one block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

# The name under which a rematerialisation policy finds what the backward pass needs.
SAVED_NAME = "attention_output"

_MIN_BLOCK = 128
_MAX_BLOCKS = 16
_CPU_ROWS = 2
_MASKED = -1e30

_Saved = tuple[jax.Array, jax.Array, jax.Array, jax.Array | None, jax.Array, jax.Array]


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
    scores = jnp.einsum("bskgh,btkh->bkgst", q_BSKGH, k_BTKH, preferred_element_type=_wide(q_BSNH))
    scores = jnp.where(_mask(range(S), range(S), first_key_BS), scores * H**-0.5, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).astype(v_BTKH.dtype)
    return jnp.einsum("bkgst,btkh->bskgh", weights, v_BTKH).reshape(B, S, N, H)


def attention(
    q_BSNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    first_key_BS: jax.Array | None = None,
) -> jax.Array:
    """Scaled dot-product attention [B, S, N, H] in the dtype of `q_BSNH`, softmax in float32.

    Args:
      q_BSNH, k_BTKH, v_BTKH: queries, keys and values of the same tokens (S = T), any float.
      first_key_BS: int32, at most the query's own position; None: plain causal.

    Raises:
      ValueError: shapes that the mask does not describe (S != T, N not a multiple of K, a
        `first_key_BS` that is not [B, S]).
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
    return _attention(q_BSNH, k_BTKH, v_BTKH, first_key_BS)


@jax.custom_vjp
def _attention(
    q_BSNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, first_key_BS: jax.Array | None
) -> jax.Array:
    o_BSNH: jax.Array = _by_rows(_forward_rows, q_BSNH, k_BTKH, v_BTKH, first_key_BS)[0]
    return o_BSNH


def _forward(
    q_BSNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, first_key_BS: jax.Array | None
) -> tuple[jax.Array, _Saved]:
    o_BSNH, normaliser_BKGS = checkpoint_name(
        _by_rows(_forward_rows, q_BSNH, k_BTKH, v_BTKH, first_key_BS), SAVED_NAME
    )
    return o_BSNH, (q_BSNH, k_BTKH, v_BTKH, first_key_BS, o_BSNH, normaliser_BKGS)


def _backward(saved: _Saved, o_grad_BSNH: jax.Array) -> tuple[jax.Array | None, ...]:
    return (*_by_rows(_backward_rows, *saved, o_grad_BSNH), None)


_attention.defvjp(_forward, _backward)


def _by_rows(rows: Callable[..., Any], *arrays: jax.Array | None) -> Any:
    """`rows(*arrays)`; on a CPU over a few rows of the batch at a time."""

    def in_turn(*arrays: jax.Array | None) -> Any:
        num_rows = jax.tree.leaves(arrays)[0].shape[0]
        step = _CPU_ROWS if num_rows % _CPU_ROWS == 0 else 1
        split = jax.tree.map(lambda x: x.reshape(-1, step, *x.shape[1:]), arrays)
        outputs = jax.lax.map(lambda a: rows(*a), split)
        return jax.tree.map(lambda x: x.reshape(num_rows, *x.shape[2:]), outputs)

    # Decided where the program is compiled for, not where it is traced.
    return jax.lax.platform_dependent(*arrays, cpu=in_turn, default=rows)


def _forward_rows(
    q_BSNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, first_key_BS: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """The output [B, S, N, H] and the log-sum-exps of the scores [B, K, G, S]."""
    S, H = q_BSNH.shape[1], q_BSNH.shape[3]
    q_BKGSH, k_BKTH, v_BKTH = _heads_first(q_BSNH, k_BTKH, v_BTKH)
    outputs, normalisers = [], []
    for block in _blocks(S):
        end = block.stop
        scores = _product("bkgch,bkrh->bkgcr", q_BKGSH[:, :, :, _slice(block)], k_BKTH[:, :, :end])
        mask = _mask(block, range(end), first_key_BS)
        scores = jnp.where(mask, scores * H**-0.5, _MASKED)
        largest = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - largest)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        weights = weights.astype(v_BTKH.dtype)
        outputs.append(_product("bkgcr,bkrh->bkgch", weights, v_BKTH[:, :, :end]) / total)
        normalisers.append((largest + jnp.log(total))[..., 0])
    o_BSNH = _heads_last(jnp.concatenate(outputs, axis=3)).astype(q_BSNH.dtype)
    return o_BSNH, jnp.concatenate(normalisers, axis=-1)


def _backward_rows(
    q_BSNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    first_key_BS: jax.Array | None,
    o_BSNH: jax.Array,
    normaliser_BKGS: jax.Array,
    o_grad_BSNH: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of queries, keys and values, by blocks of keys with all queries from there on.

    Scores are held keys-first: of the three products that follow from them only one then needs
    a transposed operand.
    """
    S, H = q_BSNH.shape[1], q_BSNH.shape[3]
    dtype = q_BSNH.dtype
    q_BKGSH, k_BKTH, v_BKTH = _heads_first(q_BSNH, k_BTKH, v_BTKH)
    o_BKGSH, _, _ = _heads_first(o_BSNH, k_BTKH, v_BTKH)
    o_grad_BKGSH, _, _ = _heads_first(o_grad_BSNH, k_BTKH, v_BTKH)
    wide = _wide(q_BSNH)
    # The softmax's own share of the gradient: sum over keys of weight x gradient of weight.
    shared_BKGS = jnp.sum(o_BKGSH.astype(wide) * o_grad_BKGSH, axis=-1)
    q_grad_BKGSH = jnp.zeros(q_BKGSH.shape, wide)
    k_grads, v_grads = [], []
    for block in _blocks(S):
        start = block.start
        k_BKRH, v_BKRH = k_BKTH[:, :, _slice(block)], v_BKTH[:, :, _slice(block)]
        q_BKGCH, o_grad_BKGCH = q_BKGSH[:, :, :, start:], o_grad_BKGSH[:, :, :, start:]
        scores = _product("bkrh,bkgch->bkgrc", k_BKRH, q_BKGCH) * H**-0.5
        mask = jnp.swapaxes(_mask(range(start, S), block, first_key_BS), -1, -2)
        weights = jnp.where(mask, jnp.exp(scores - normaliser_BKGS[:, :, :, None, start:]), 0)
        weights_grad = _product("bkrh,bkgch->bkgrc", v_BKRH, o_grad_BKGCH)
        scores_grad = weights * (weights_grad - shared_BKGS[:, :, :, None, start:])
        weights, scores_grad = weights.astype(dtype), scores_grad.astype(dtype)
        v_grads.append(_product("bkgrc,bkgch->bkrh", weights, o_grad_BKGCH))
        k_grads.append(_product("bkgrc,bkgch->bkrh", scores_grad, q_BKGCH))
        q_grad_BKGCH = _product("bkgrc,bkrh->bkgch", scores_grad, k_BKRH)
        q_grad_BKGSH = q_grad_BKGSH.at[:, :, :, start:].add(q_grad_BKGCH)
    q_grad_BSNH = _heads_last(q_grad_BKGSH) * H**-0.5
    k_grad_BTKH = jnp.swapaxes(jnp.concatenate(k_grads, axis=2), 1, 2) * H**-0.5
    v_grad_BTKH = jnp.swapaxes(jnp.concatenate(v_grads, axis=2), 1, 2)
    return q_grad_BSNH.astype(dtype), k_grad_BTKH.astype(dtype), v_grad_BTKH.astype(dtype)


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
    q_BKGSH, k_BKSH, v_BKSH = _heads_first(q_BSNH, k_BSKH, v_BSKH)
    old = _product("bkgsh,bkth->bkgst", q_BKGSH, cached_k_BKTH) * H**-0.5
    new = _product("bkgsh,bkth->bkgst", q_BKGSH, k_BKSH) * H**-0.5
    old = jnp.where(valid_BT[:, None, None, None], old, _MASKED)
    new = jnp.where(new_mask_BSS[:, None, None], new, _MASKED)
    weights = jax.nn.softmax(jnp.concatenate([old, new], axis=-1), axis=-1).astype(v_BSKH.dtype)
    o_BKGSH = _product("bkgst,bkth->bkgsh", weights[..., :T], cached_v_BKTH)
    o_BKGSH += _product("bkgst,bkth->bkgsh", weights[..., T:], v_BKSH)
    return _heads_last(o_BKGSH).astype(q_BSNH.dtype), (k_BKSH, v_BKSH)


def _blocks(length: int) -> list[range]:
    """Runs of positions: long enough for the matrix units, few enough to compile quickly."""
    size = max(_MIN_BLOCK, -(-length // _MAX_BLOCKS))
    return [range(start, min(start + size, length)) for start in range(0, length, size)]


def _slice(block: range) -> slice:
    return slice(block.start, block.stop)


def _mask(queries: range, keys: range, first_key_BS: jax.Array | None) -> jax.Array:
    """True where a query may attend to a key: [C, R], or [B, 1, 1, C, R] with documents."""
    query_C = jnp.arange(queries.start, queries.stop)
    key_R = jnp.arange(keys.start, keys.stop)
    causal_CR = key_R <= query_C[:, None]
    if first_key_BS is None:
        return causal_CR
    document_BCR = key_R >= first_key_BS[:, _slice(queries), None]
    return (causal_CR & document_BCR)[:, None, None]


def _heads_first(
    q_BSNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """[B, K, G, S, H], [B, K, T, H], [B, K, T, H]: batched products without strides."""
    B, S, N, H = q_BSNH.shape
    K = k_BTKH.shape[2]
    q_BKGSH = q_BSNH.reshape(B, S, K, N // K, H).transpose(0, 2, 3, 1, 4)
    return q_BKGSH, jnp.swapaxes(k_BTKH, 1, 2), jnp.swapaxes(v_BTKH, 1, 2)


def _heads_last(x_BKGSH: jax.Array) -> jax.Array:
    B, K, G, S, H = x_BKGSH.shape
    return x_BKGSH.transpose(0, 3, 1, 2, 4).reshape(B, S, K * G, H)


def _wide(x: jax.Array) -> jnp.dtype:
    return jnp.promote_types(x.dtype, jnp.float32)


def _product(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """A matrix product summed and returned in float32 (float64 of float64)."""
    return jnp.einsum(subscripts, a, b, preferred_element_type=_wide(a))
