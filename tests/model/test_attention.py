"""Blockwise attention and its gradients against the plain definition, in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snowcoder_jax.model.attention import attention, attention_reference, blockwise


def random_inputs(B, S, N, K, H, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(B, S, N, H), (B, S, K, H), (B, S, K, H), (B, S, N, H)]
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def first_keys(starts, S):
    """first_key_BS of rows whose documents begin at `starts`."""
    rows = []
    for row in starts:
        is_start = np.zeros(S, np.int32)
        is_start[[0, *row]] = np.arange(S)[[0, *row]]
        rows.append(np.maximum.accumulate(is_start))
    return np.stack(rows)


def outputs_and_gradients(function, q, k, v, o_grad, first_key):
    o, vjp = jax.vjp(lambda *qkv: function(*qkv, first_key), q, k, v)
    return [np.asarray(x) for x in (o, *vjp(o_grad))]


def float64_reference(q, k, v, o_grad, first_key):
    with jax.enable_x64(True):
        wide = [np.asarray(x, np.float64) for x in (q, k, v, o_grad)]
        return outputs_and_gradients(attention_reference, *wide, first_key)


@pytest.mark.parametrize(
    ("S", "N", "K", "packed"),
    [(1, 4, 2, True), (5, 2, 2, False), (128, 3, 1, True), (129, 4, 2, False), (300, 4, 2, True)],
)
def test_output_and_gradients_match_float64(S, N, K, packed):
    inputs = random_inputs(2, S, N, K, 8)
    starts = [[S // 3, S // 2], [S - 1]]
    first_key = first_keys(starts, S) if packed else None
    fast = jax.jit(lambda *a: outputs_and_gradients_traced(*a, first_key))(*inputs)
    for ours, reference in zip(fast, float64_reference(*inputs, first_key), strict=True):
        np.testing.assert_allclose(ours, reference, atol=2e-5)


def outputs_and_gradients_traced(q, k, v, o_grad, first_key):
    o, vjp = jax.vjp(lambda *qkv: attention(*qkv, first_key), q, k, v)
    return (o, *vjp(o_grad))


@pytest.mark.parametrize("rows", [blockwise._forward_rows, blockwise._backward_rows])
def test_all_rows_at_once_equal_rows_in_turn(rows):
    """What other platforms run is what the CPU runs, whatever the number of rows."""
    q, k, v, o_grad = random_inputs(3, 140, 4, 2, 8)
    first_key = first_keys([[50], [], [139]], 140)
    args = [q, k, v, first_key]
    if rows is blockwise._backward_rows:
        args += [*blockwise._forward_rows(*args), o_grad]
    once, in_turn = rows(*args), blockwise._by_rows(rows, *args)
    for a, b in zip(once, in_turn, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


fast_attention = jax.jit(attention)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(1, 19), max_size=6), min_size=2, max_size=2))
def test_a_document_is_attended_as_if_alone(starts):
    S = 20
    starts = [sorted(set(row)) for row in starts]
    q, k, v, _ = random_inputs(2, S, 1, 1, 4)
    together = fast_attention(q, k, v, first_keys(starts, S))
    for b, row in enumerate(starts):
        for start, end in zip([0, *row], [*row, S], strict=True):
            span = (b, slice(start, end), 0)
            scores = np.tril(np.exp(q[span] @ k[span].T / 2))
            alone = scores @ v[span] / scores.sum(-1, keepdims=True)
            np.testing.assert_allclose(together[span], alone, atol=1e-5)


def test_large_scores_stay_finite():
    q, k, v, o_grad = random_inputs(1, 140, 2, 2, 8)
    for x in outputs_and_gradients(attention, 1e4 * q, k, v, o_grad, None):
        assert np.isfinite(x).all()


def test_bfloat16_in_bfloat16_out_close_to_float64():
    inputs = [jnp.bfloat16(x) for x in random_inputs(2, 140, 4, 2, 8)]
    first_key = first_keys([[50], [100]], 140)
    ours = outputs_and_gradients(attention, *inputs, first_key)
    for x, reference in zip(ours, float64_reference(*inputs, first_key), strict=True):
        assert x.dtype == jnp.bfloat16
        np.testing.assert_allclose(x.astype(np.float32), reference, atol=0.08, rtol=0.05)


def test_a_mask_that_cannot_be_honoured_is_refused():
    q, k, v, _ = random_inputs(2, 8, 2, 2, 4)
    with pytest.raises(ValueError, match="same tokens"):
        attention(q[:, :4], k, v)
    with pytest.raises(ValueError, match="same tokens"):
        attention(q, k[:, :, :1].repeat(3, 2), v[:, :, :1].repeat(3, 2))
    with pytest.raises(ValueError, match="first_key_BS"):
        attention(q, k, v, np.zeros((2, 1), np.int32))
