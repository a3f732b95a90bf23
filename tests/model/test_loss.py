"""Chunked cross-entropy against the plain formula in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snowcoder_jax.model.loss import chunked_cross_entropy, token_losses

B, S, D, V = 3, 11, 8, 37


@pytest.fixture
def inputs() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    weights = rng.uniform(size=(B, S)) * (rng.uniform(size=(B, S)) > 0.3)
    return (
        rng.normal(size=(B, S, D)).astype(np.float32),
        rng.normal(size=(V, D)).astype(np.float32),
        rng.integers(0, V, size=(B, S)).astype(np.int32),
        weights.astype(np.float32),
    )


def reference(hidden, embedding, targets, weights):
    """Sum of the weighted losses and its gradients in float64, by the textbook."""
    hidden, embedding, weights = (x.astype(np.float64) for x in (hidden, embedding, weights))
    logits = hidden @ embedding.T
    logits -= logits.max(-1, keepdims=True)
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    losses = -np.take_along_axis(log_probabilities, targets[..., None], -1)[..., 0]
    logits_grad = (np.exp(log_probabilities) - np.eye(V)[targets]) * weights[..., None]
    return (
        losses,
        logits_grad @ embedding,
        np.einsum("bsv,bsd->vd", logits_grad, hidden),
    )


@pytest.mark.parametrize("chunk_tokens", [1, 3, 12, 15, 33, 1000])
def test_sums_and_gradients_match_float64_for_any_chunk(inputs, chunk_tokens):
    hidden, embedding, targets, weights = inputs

    def scaled(hidden, embedding, weights):
        loss, total = chunked_cross_entropy(
            hidden, embedding, targets, weights, chunk_tokens=chunk_tokens
        )
        return 3.0 * loss + 2.0 * total, (loss, total)

    grads, (loss, total) = jax.jit(jax.grad(scaled, argnums=(0, 1, 2), has_aux=True))(
        hidden, embedding, weights
    )
    losses, hidden_grad, embedding_grad = reference(*inputs)
    np.testing.assert_allclose(loss, (losses * weights).sum(), rtol=1e-5)
    np.testing.assert_allclose(total, weights.sum(), rtol=1e-6)
    np.testing.assert_allclose(grads[0], 3 * hidden_grad, atol=2e-5)
    np.testing.assert_allclose(grads[1], 3 * embedding_grad, atol=2e-5)
    np.testing.assert_allclose(grads[2], 3 * losses + 2, rtol=1e-5)


def test_value_without_gradient_is_the_value_with_it(inputs):
    def loss(hidden):
        return chunked_cross_entropy(hidden, *inputs[1:], chunk_tokens=9)[0]

    np.testing.assert_array_equal(loss(inputs[0]), jax.value_and_grad(loss)(inputs[0])[0])


def test_zero_weights_give_zero_loss_and_finite_zero_gradients(inputs):
    hidden, embedding, targets, weights = inputs

    def loss(hidden, embedding):
        zero = np.zeros_like(weights)
        return chunked_cross_entropy(hidden, embedding, targets, zero, chunk_tokens=8)[0]

    value, grads = jax.value_and_grad(loss, argnums=(0, 1))(hidden, embedding)
    assert value == 0
    assert all(np.all(np.asarray(g) == 0) for g in grads)


def test_huge_logits_do_not_overflow(inputs):
    hidden, embedding, targets, weights = inputs
    loss, grad = jax.value_and_grad(
        lambda h: chunked_cross_entropy(h, embedding, targets, weights, chunk_tokens=8)[0]
    )(1e4 * hidden)
    assert np.isfinite(loss)
    assert np.isfinite(grad).all()


@pytest.mark.parametrize("chunk_tokens", [1, 12, 1000])
def test_token_losses_are_those_of_each_token(inputs, chunk_tokens):
    hidden, embedding, targets, _ = inputs
    losses = token_losses(hidden, embedding, targets, chunk_tokens)
    assert losses.dtype == jnp.float32
    np.testing.assert_allclose(losses, reference(*inputs)[0], rtol=2e-5)


def test_bfloat16_hidden_states_sum_in_float32(inputs):
    hidden, embedding, targets, weights = inputs

    def loss(hidden, embedding):
        return chunked_cross_entropy(hidden, embedding, targets, weights, chunk_tokens=8)[0]

    value, grads = jax.value_and_grad(loss, argnums=(0, 1))(jnp.bfloat16(hidden), embedding)
    losses, _, embedding_grad = reference(*inputs)
    assert (value.dtype, grads[0].dtype, grads[1].dtype) == (
        jnp.float32,
        jnp.bfloat16,
        jnp.float32,
    )
    np.testing.assert_allclose(value, (losses * weights).sum(), rtol=2e-2)
    np.testing.assert_allclose(grads[1], embedding_grad, atol=5e-2)


def test_full_logits_never_exist():
    B, S, D, V = 2, 64, 4, 1000
    shapes = (
        jax.ShapeDtypeStruct((B, S, D), jnp.float32),
        jax.ShapeDtypeStruct((V, D), jnp.float32),
        jax.ShapeDtypeStruct((B, S), jnp.int32),
        jax.ShapeDtypeStruct((B, S), jnp.float32),
    )

    def loss(hidden, embedding, targets, weights):
        return chunked_cross_entropy(hidden, embedding, targets, weights, chunk_tokens=8)[0]

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < B * S * V * 4 / 2
