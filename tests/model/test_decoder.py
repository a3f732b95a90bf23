"""The decoder: sizes of the paper's model, documents, remat, initial weights, the cache."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snowcoder_jax.model import decoder
from snowcoder_jax.model.cache import init_cache
from snowcoder_jax.recipe import Model

VOCAB = 50
TINY = Model(
    hidden_dim=32,
    mlp_dim=48,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_sequence_length=64,
)
UNTIED = dataclasses.replace(TINY, tie_embeddings=False)


@pytest.fixture(scope="module")
def params():
    # Wider than the recipe's 0.02, so that attention is not all but uniform.
    wide = dataclasses.replace(TINY, initializer_range=0.3)
    return decoder.init_params(wide, VOCAB, seed=0)


def random_ids(*shape):
    return np.random.default_rng(1).integers(0, VOCAB, size=shape).astype(np.int32)


def test_the_papers_model_has_its_published_size_and_flops():
    paper = Model()
    assert decoder.num_parameters(paper, 64_000) == pytest.approx(1.364e9, rel=1e-3)
    causal = decoder.flops_per_token(paper, 64_000, 8_192, causal=True)
    full = decoder.flops_per_token(paper, 64_000, 8_192, causal=False)
    assert causal == pytest.approx(10.6e9, rel=2e-3)
    assert full == pytest.approx(13.0e9, rel=2e-3)


@pytest.mark.parametrize("config", [TINY, UNTIED])
def test_counted_parameters_are_those_there(config):
    params = decoder.init_params(config, VOCAB, seed=0)
    assert decoder.num_parameters(config, VOCAB) == sum(x.size for x in jax.tree.leaves(params))
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype("float32")}


def test_an_input_embedding_of_its_own_costs_no_flops():
    tied, untied = (decoder.flops_per_token(c, VOCAB, 64, causal=True) for c in (TINY, UNTIED))
    assert tied == untied


@pytest.mark.parametrize("config", [TINY, UNTIED])
def test_logical_axes_name_every_dim_of_every_parameter(config):
    params = decoder.init_params(config, VOCAB, seed=0)
    axes = decoder.logical_axes(config)
    names = jax.tree.map(lambda x, names: len(names) == x.ndim, params, axes)
    assert all(jax.tree.leaves(names))
    assert jax.tree.structure(names) == jax.tree.structure(params)


def test_initial_weights_have_the_recipes_spread_and_depend_on_the_seed():
    config = dataclasses.replace(TINY, num_layers=8)
    params = decoder.init_params(config, 4_000, seed=3)
    assert np.std(params["embedding"]) == pytest.approx(0.02, rel=0.02)
    assert np.std(params["layers"]["gate"]) == pytest.approx(0.02, rel=0.05)
    assert np.std(params["layers"]["down"]) == pytest.approx(0.02 / 4, rel=0.05)
    assert np.std(params["layers"]["output"]) == pytest.approx(0.02 / 4, rel=0.05)
    assert np.all(np.asarray(params["layers"]["mlp_norm"]) == 1)
    again, other = (decoder.init_params(config, 4_000, seed=s) for s in (3, 4))
    assert jax.tree.all(jax.tree.map(np.array_equal, params, again))
    assert not np.array_equal(params["embedding"], other["embedding"])


def test_the_module_and_the_functions_are_the_same(params):
    model = decoder.Decoder(TINY, VOCAB, rngs=nnx.Rngs(7))
    pure = decoder.init_params(TINY, VOCAB, seed=7)
    ids = random_ids(2, 9)
    np.testing.assert_array_equal(model(ids), decoder.apply(pure, TINY, VOCAB, ids))
    np.testing.assert_array_equal(model.output_embedding(), decoder.output_embedding(pure, TINY))


def test_a_token_sees_no_later_token(params):
    ids = random_ids(1, 12)
    changed = ids.copy()
    changed[0, 7] = (ids[0, 7] + 1) % VOCAB
    before, after = (decoder.apply(params, TINY, VOCAB, x) for x in (ids, changed))
    np.testing.assert_array_equal(before[0, :7], after[0, :7])
    assert not np.allclose(before[0, 7:], after[0, 7:])


def test_a_packed_document_is_computed_as_if_alone(params):
    ids = random_ids(1, 12)
    first_key = np.array([[0] * 5 + [5] * 7], np.int32)
    packed = decoder.apply(params, TINY, VOCAB, ids, first_key)
    alone = decoder.apply(params, TINY, VOCAB, ids[:, 5:])
    # Rotary positions are relative: the second document starts at 5 in one and at 0 in the other.
    np.testing.assert_allclose(packed[:, 5:], alone, atol=2e-5)


@pytest.mark.parametrize("remat", ["attention", "minimal", "full", "offload"])
def test_rematerialisation_changes_no_gradient(params, remat):
    ids = random_ids(2, 8)

    def loss(params, remat):
        return jnp.sum(decoder.apply(params, TINY, VOCAB, ids, remat=remat) ** 3)

    plain, recomputed = (
        jax.jit(jax.grad(loss), static_argnums=1)(params, r) for r in ("none", remat)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), plain, recomputed
    )


@pytest.mark.parametrize("remat", ["none", "minimal"])
def test_a_program_for_each_layer_changes_no_gradient(params, remat):
    ids = random_ids(2, 8)

    def loss(params, scan_layers):
        hidden = decoder.apply(params, TINY, VOCAB, ids, remat=remat, scan_layers=scan_layers)
        return jnp.sum(hidden**3)

    scanned, own = (jax.jit(jax.grad(loss), static_argnums=1)(params, x) for x in (True, False))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), scanned, own)


def test_only_full_remat_computes_the_attention_again(params):
    def num_exps(remat):
        def loss(params):
            return jnp.sum(decoder.apply(params, TINY, VOCAB, random_ids(2, 8), remat=remat))

        # Of the softmax; the MLP's gate is a logistic.
        return str(jax.make_jaxpr(jax.grad(loss))(params)).count(" exp ")

    none, attention, offload = (num_exps(r) for r in ("none", "attention", "offload"))
    assert none == attention == offload < num_exps("full")


def test_offload_moves_the_block_input_and_the_attention_output_to_the_host(params):
    """What the program asks for: a CPU has no memory but the host's to move them from."""

    def loss(params):
        return jnp.sum(decoder.apply(params, TINY, VOCAB, random_ids(2, 8), remat="offload"))

    asked = str(jax.make_jaxpr(jax.grad(loss))(params))
    for shape in ("2,8,32", "2,8,4,8"):
        assert f"f32<host>[{shape}] = device_put" in asked


@pytest.mark.slow
def test_remat_keeps_less_memory():
    ids = random_ids(4, 64)

    def temporary_bytes(remat):
        def loss(params):
            return jnp.sum(decoder.apply(params, deep, VOCAB, ids, remat=remat))

        compiled = jax.jit(jax.grad(loss)).lower(weights).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    deep = dataclasses.replace(TINY, num_layers=6)
    weights = decoder.init_params(deep, VOCAB, seed=0)
    policies = ("none", "minimal", "attention", "full")
    none, minimal, attention, full = map(temporary_bytes, policies)
    assert none > minimal > attention > full


def test_bfloat16_compute_is_close_and_keeps_its_dtype(params):
    ids = random_ids(2, 8)
    wide = decoder.apply(params, TINY, VOCAB, ids)
    narrow = decoder.apply(params, TINY, VOCAB, ids, compute_dtype=jnp.bfloat16)
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_allclose(narrow.astype(np.float32), wide, atol=0.15)


@pytest.mark.parametrize(
    ("padding", "is_prompt"), [("left", False), ("right", False), ("left", True), ("right", True)]
)
def test_cached_tokens_equal_the_plain_forward_pass_whatever_the_padding(
    params, padding, is_prompt
):
    num_new, lengths = 4, [3, 9]
    ids = random_ids(2, 9 + num_new)
    prompts = np.zeros((2, 9), np.int32)
    valid = np.zeros((2, 9), bool)
    for b, length in enumerate(lengths):
        span = slice(0, length) if padding == "right" else slice(9 - length, 9)
        prompts[b, span], valid[b, span] = ids[b, :length], True
    cache = init_cache(TINY, 2, 9 + num_new, jnp.float32)
    hidden, cache = decoder.apply_cached(
        params, TINY, VOCAB, prompts, cache, valid, is_prompt=is_prompt
    )
    expected = [
        decoder.apply(params, TINY, VOCAB, ids[b : b + 1, : n + num_new])[0]
        for b, n in enumerate(lengths)
    ]
    for b, length in enumerate(lengths):
        np.testing.assert_allclose(hidden[b][valid[b]], expected[b][:length], atol=1e-5)
    for i in range(num_new):
        new = np.stack([ids[b, length + i] for b, length in enumerate(lengths)])[:, None]
        hidden, cache = decoder.apply_cached(params, TINY, VOCAB, new, cache)
        for b, length in enumerate(lengths):
            np.testing.assert_allclose(hidden[b, 0], expected[b][length + i], atol=1e-5)
