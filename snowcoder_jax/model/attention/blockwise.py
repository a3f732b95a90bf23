"""Attention in blocks, for every platform: the path of CPUs, and where no kernel serves.

It works in blocks, keeps the scores of one block at a time, skips what lies wholly in a query's
future, and recomputes probabilities in the backward pass from the saved log-sum-exps
(arXiv 2205.14135, section 3). On a CPU it also goes through the batch row by row, so
that a block's scores stay in the cache: 68 ms for a layer's forward and backward pass where
`attention_reference` takes 172 (2 cores, 16 rows of 512 tokens, 4 heads of 64).

Shape legend: see parts.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from snowcoder_jax.model.attention.parts import (
    MASKED,
    SAVED_NAME,
    allowed,
    heads_first,
    heads_last,
    product,
    wide_dtype,
)
from snowcoder_jax.model.attention.sharded import Share, own_positions, whole_sequence

_MIN_BLOCK = 128
_MAX_BLOCKS = 16
_WHOLE = Share()

_Saved = tuple[jax.Array, jax.Array, jax.Array, jax.Array | None, jax.Array, jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def blockwise_attention(
    q_BSNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    first_key_BS: jax.Array | None,
    share: Share = _WHOLE,
) -> jax.Array:
    """Attention of one device's rows, heads and positions; see `attention`."""
    return _forward(q_BSNH, k_BTKH, v_BTKH, first_key_BS, share)[0]


def _forward(
    q_BSNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    first_key_BS: jax.Array | None,
    share: Share,
) -> tuple[jax.Array, _Saved]:
    k_all, v_all = whole_sequence(k_BTKH, share), whole_sequence(v_BTKH, share)

    def up_to(end: int) -> tuple[jax.Array, jax.Array]:
        arrays = (q_BSNH, k_all[:, :end], v_all[:, :end], first_key_BS)
        forward: tuple[jax.Array, jax.Array] = _by_rows(_forward_rows, *arrays)
        return forward

    o_BSNH, normaliser_BKGS = checkpoint_name(_of_own_end(up_to, q_BSNH, share), SAVED_NAME)
    return o_BSNH, (q_BSNH, k_BTKH, v_BTKH, first_key_BS, o_BSNH, normaliser_BKGS)


def _backward(share: Share, saved: _Saved, o_grad_BSNH: jax.Array) -> tuple[jax.Array | None, ...]:
    q_BSNH, k_BTKH, v_BTKH, *rest = saved
    k_all, v_all = whole_sequence(k_BTKH, share), whole_sequence(v_BTKH, share)

    def up_to(end: int) -> tuple[jax.Array, ...]:
        arrays = (q_BSNH, k_all[:, :end], v_all[:, :end], *rest, o_grad_BSNH)
        q_grad, *kv_grads = _by_rows(_backward_rows, *arrays)
        unseen = [(0, 0), (0, k_all.shape[1] - end), (0, 0), (0, 0)]
        return (q_grad, *(jnp.pad(x, unseen) for x in kv_grads))

    q_grad, *kv_grads = _of_own_end(up_to, q_BSNH, share)
    return (q_grad, *(own_positions(x, share) for x in kv_grads), None)


blockwise_attention.defvjp(_forward, _backward)


def _of_own_end(up_to: Callable[[int], Any], q_BSNH: jax.Array, share: Share) -> Any:
    """`up_to(end)` of the end of this device's positions: a program for each device, so that
    none computes what lies wholly in its queries' future."""
    ends = [(i + 1) * q_BSNH.shape[1] for i in range(share.num_context)]
    if len(ends) == 1:
        return up_to(ends[0])
    return jax.lax.switch(share.index, [functools.partial(up_to, end) for end in ends])


def _by_rows(rows: Callable[..., Any], *arrays: jax.Array | None) -> Any:
    """`rows(*arrays)`; on a CPU over one row of the batch at a time."""

    def in_turn(*arrays: jax.Array | None) -> Any:
        num_rows = jax.tree.leaves(arrays)[0].shape[0]
        split = jax.tree.map(lambda x: x[:, None], arrays)
        outputs = jax.lax.map(lambda a: rows(*a), split)
        return jax.tree.map(lambda x: x.reshape(num_rows, *x.shape[2:]), outputs)

    # Decided where the program is compiled for, not where it is traced.
    return jax.lax.platform_dependent(*arrays, cpu=in_turn, default=rows)


def _forward_rows(
    q_BSNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, first_key_BS: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """The output [B, S, N, H] and the log-sum-exps of the scores [B, K, G, S].

    The queries are those of the last S of T tokens.
    """
    S, T, H = q_BSNH.shape[1], k_BTKH.shape[1], q_BSNH.shape[3]
    q_BKGSH, k_BKTH, v_BKTH = heads_first(q_BSNH, k_BTKH, v_BTKH)
    outputs, normalisers = [], []
    for block in _blocks(S):
        queries = slice(block.start, block.stop)
        end = T - S + block.stop
        scores = product("bkgch,bkrh->bkgcr", q_BKGSH[:, :, :, queries], k_BKTH[:, :, :end])
        first_key_BC = None if first_key_BS is None else first_key_BS[:, queries]
        mask = allowed(range(end - len(block), end), range(end), first_key_BC)
        scores = jnp.where(mask, scores * H**-0.5, MASKED)
        largest = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - largest)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        weights = weights.astype(v_BTKH.dtype)
        outputs.append(product("bkgcr,bkrh->bkgch", weights, v_BKTH[:, :, :end]) / total)
        normalisers.append((largest + jnp.log(total))[..., 0])
    o_BSNH = heads_last(jnp.concatenate(outputs, axis=3)).astype(q_BSNH.dtype)
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

    Scores are held keys-first, and the gradient of the queries is made transposed: a CPU then
    transposes small operands only. Q: the queries of a block, of all heads of a group.
    """
    B, S, N, H = q_BSNH.shape
    T, K = k_BTKH.shape[1:3]
    G, dtype = N // K, q_BSNH.dtype
    q_BKGSH, k_BKTH, v_BKTH = heads_first(q_BSNH, k_BTKH, v_BTKH)
    o_BKGSH, _, _ = heads_first(o_BSNH, k_BTKH, v_BTKH)
    o_grad_BKGSH, _, _ = heads_first(o_grad_BSNH, k_BTKH, v_BTKH)
    wide = wide_dtype(q_BSNH)
    # The softmax's own share of the gradient: sum over keys of weight x gradient of weight.
    shared_BKGS = jnp.sum(o_BKGSH.astype(wide) * o_grad_BKGSH, axis=-1)
    q_grad_BKGSH = jnp.zeros(q_BKGSH.shape, wide)
    k_grads, v_grads = [], []
    for block in _blocks(T):
        keys = slice(block.start, block.stop)
        # The first query that sees any of them.
        start = max(block.start - (T - S), 0)
        k_BKRH, v_BKRH = k_BKTH[:, :, keys], v_BKTH[:, :, keys]
        q_BKQH, o_grad_BKQH = (
            x[:, :, :, start:].reshape(B, K, -1, H) for x in (q_BKGSH, o_grad_BKGSH)
        )
        normaliser_BK1Q, shared_BK1Q = (
            x[:, :, :, start:].reshape(B, K, 1, -1) for x in (normaliser_BKGS, shared_BKGS)
        )
        first_key_BC = None if first_key_BS is None else first_key_BS[:, start:]
        mask = jnp.swapaxes(allowed(range(T - S + start, T), block, first_key_BC), -1, -2)
        mask = jnp.tile(mask if first_key_BS is None else mask[:, :, 0], G)
        scores = product("bkrh,bkqh->bkrq", k_BKRH, q_BKQH) * H**-0.5
        weights = jnp.where(mask, jnp.exp(scores - normaliser_BK1Q), 0)
        weights_grad = product("bkrh,bkqh->bkrq", v_BKRH, o_grad_BKQH)
        scores_grad = (weights * (weights_grad - shared_BK1Q)).astype(dtype)
        v_grads.append(product("bkrq,bkqh->bkrh", weights.astype(dtype), o_grad_BKQH))
        k_grads.append(product("bkrq,bkqh->bkrh", scores_grad, q_BKQH))
        q_grad_BKHQ = product("bkrh,bkrq->bkhq", k_BKRH, scores_grad)
        q_grad_BKGCH = jnp.swapaxes(q_grad_BKHQ, 2, 3).reshape(B, K, G, -1, H)
        q_grad_BKGSH = q_grad_BKGSH.at[:, :, :, start:].add(q_grad_BKGCH)
    q_grad_BSNH = heads_last(q_grad_BKGSH) * H**-0.5
    k_grad_BTKH = jnp.swapaxes(jnp.concatenate(k_grads, axis=2), 1, 2) * H**-0.5
    v_grad_BTKH = jnp.swapaxes(jnp.concatenate(v_grads, axis=2), 1, 2)
    return q_grad_BSNH.astype(dtype), k_grad_BTKH.astype(dtype), v_grad_BTKH.astype(dtype)


def _blocks(length: int) -> list[range]:
    """Runs of positions: long enough for the matrix units, few enough to compile quickly."""
    size = max(_MIN_BLOCK, -(-length // _MAX_BLOCKS))
    return [range(start, min(start + size, length)) for start in range(0, length, size)]
