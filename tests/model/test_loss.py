"""Chunked cross-entropy and z-loss against the plain formulas in float64."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType

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


def reference(hidden, embedding, targets, weights, z_loss=0.0):
    """Losses of each token, and gradients of their weighted sum, in float64 by the textbook."""
    hidden, embedding, weights = (x.astype(np.float64) for x in (hidden, embedding, weights))
    logits = hidden @ embedding.T
    largest = logits.max(-1, keepdims=True)
    normaliser = largest + np.log(np.exp(logits - largest).sum(-1, keepdims=True))
    probabilities = np.exp(logits - normaliser)
    losses = -np.take_along_axis(logits - normaliser, targets[..., None], -1)[..., 0]
    losses += z_loss * normaliser[..., 0] ** 2
    logits_grad = probabilities * (1 + 2 * z_loss * normaliser) - np.eye(V)[targets]
    logits_grad *= weights[..., None]
    return (
        losses,
        logits_grad @ embedding,
        np.einsum("bsv,bsd->vd", logits_grad, hidden),
    )


@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
@pytest.mark.parametrize("chunk_tokens", [1, 3, 12, 15, 33, 1000])
def test_sums_and_gradients_match_float64_for_any_chunk(inputs, chunk_tokens, z_loss):
    hidden, embedding, targets, weights = inputs

    def scaled(hidden, embedding, weights):
        sums = chunked_cross_entropy(
            hidden, embedding, targets, weights, chunk_tokens=chunk_tokens, z_loss=z_loss
        )
        return 3.0 * sums.objective + 2.0 * sums.weight, sums

    grads, sums = jax.jit(jax.grad(scaled, argnums=(0, 1, 2), has_aux=True))(
        hidden, embedding, weights
    )
    losses, hidden_grad, embedding_grad = reference(*inputs, z_loss)
    without_z = (reference(*inputs)[0] * weights).sum()
    np.testing.assert_allclose(sums.objective, (losses * weights).sum(), rtol=1e-5)
    np.testing.assert_allclose(sums.cross_entropy, without_z, rtol=1e-5)
    np.testing.assert_allclose(sums.z_loss, (losses * weights).sum() - without_z, atol=1e-3)
    np.testing.assert_allclose(sums.weight, weights.sum(), rtol=1e-6)
    np.testing.assert_allclose(grads[0], 3 * hidden_grad, atol=2e-5)
    np.testing.assert_allclose(grads[1], 3 * embedding_grad, atol=2e-5)
    np.testing.assert_allclose(grads[2], 3 * losses + 2, rtol=1e-5)


def test_value_without_gradient_is_the_value_with_it(inputs):
    def loss(hidden):
        return chunked_cross_entropy(hidden, *inputs[1:], chunk_tokens=9).objective

    np.testing.assert_array_equal(loss(inputs[0]), jax.value_and_grad(loss)(inputs[0])[0])


def test_zero_weights_give_zero_loss_and_finite_zero_gradients(inputs):
    hidden, embedding, targets, weights = inputs

    def loss(hidden, embedding):
        zero = np.zeros_like(weights)
        return chunked_cross_entropy(hidden, embedding, targets, zero, chunk_tokens=8).objective

    value, grads = jax.value_and_grad(loss, argnums=(0, 1))(hidden, embedding)
    assert value == 0
    assert all(np.all(np.asarray(g) == 0) for g in grads)


def test_huge_logits_do_not_overflow(inputs):
    hidden, embedding, targets, weights = inputs
    loss, grad = jax.value_and_grad(
        lambda h: chunked_cross_entropy(h, embedding, targets, weights, chunk_tokens=8).objective
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
        return chunked_cross_entropy(hidden, embedding, targets, weights, chunk_tokens=8).objective

    value, grads = jax.value_and_grad(loss, argnums=(0, 1))(jnp.bfloat16(hidden), embedding)
    losses, _, embedding_grad = reference(*inputs)
    assert (value.dtype, grads[0].dtype, grads[1].dtype) == (
        jnp.float32,
        jnp.bfloat16,
        jnp.float32,
    )
    np.testing.assert_allclose(value, (losses * weights).sum(), rtol=2e-2)
    np.testing.assert_allclose(grads[1], embedding_grad, atol=5e-2)


def shapes(S, V, B=2, D=8):
    return (
        jax.ShapeDtypeStruct((B, S, D), jnp.float32),
        jax.ShapeDtypeStruct((V, D), jnp.float32),
        jax.ShapeDtypeStruct((B, S), jnp.int32),
        jax.ShapeDtypeStruct((B, S), jnp.float32),
    )


def test_memory_does_not_grow_with_vocabulary_times_sequence():
    def loss(*arrays):
        return chunked_cross_entropy(*arrays, chunk_tokens=8, z_loss=1e-4).objective

    def temporary_bytes(S, V):
        compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*shapes(S, V)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    for V in (1_000, 4_000):
        grown = temporary_bytes(512, V) - temporary_bytes(64, V)
        hidden_bytes = 2 * (512 - 64) * 8 * 4
        assert grown < 5 * hidden_bytes < 2 * (512 - 64) * V * 4 / 10


def test_on_a_mesh_the_embedding_is_gathered_and_reduced_once_outside_the_chunks():
    axes = ("replica", "fsdp", "context", "tensor")
    mesh = AbstractMesh((1, 4, 1, 2), axes, axis_types=(AxisType.Auto,) * 4)

    def loss(*arrays):
        return chunked_cross_entropy(*arrays, chunk_tokens=8, mesh=mesh).objective

    jaxpr = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(*shapes(64, 1_000, B=8))
    outside, inside = collectives(jaxpr.jaxpr), []
    for scan in [e for e in equations(jaxpr.jaxpr) if e.primitive.name == "scan"]:
        inside += collectives(scan.params["jaxpr"].jaxpr)
    whole_V = (1_000 // 2, 8)
    assert outside.count(("all_gather", whole_V)) == 1
    assert [name for name, _ in outside].count("reduce_scatter") == 1
    assert inside
    assert {name for name, _ in inside} <= {"psum", "psum2", "psum_invariant", "pmax"}
    assert all(len(shape) == 2 and shape[0] == 2 for _, shape in inside), inside


def equations(jaxpr):
    """All equations of a jaxpr and of those inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(list(equation.params.values())):
            if hasattr(value, "eqns"):
                yield from equations(value)


def collectives(jaxpr):
    """Name and shape of the outcome of each collective operation."""
    names = (
        "all_gather",
        "reduce_scatter",
        "psum",
        "psum2",
        "psum_invariant",
        "pmax",
        "all_to_all",
    )
    return [
        (e.primitive.name, e.outvars[0].aval.shape)
        for e in equations(jaxpr)
        if e.primitive.name in names
    ]


@pytest.mark.slow
def test_meshes_agree_with_one_device():
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "PYTHONPATH": os.pathsep.join(["", *sys.path]).strip(os.pathsep),
    }
    script = str(Path(__file__).with_name("sharded_loss.py"))
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    differences = json.loads(done.stdout.splitlines()[-1])
    assert len(differences) == 4
    assert max(differences.values()) < 1e-5, differences
