"""One step: what it learns from, what it skips, what does not matter to it."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from tiny_training import HARDWARE, MODEL, SEQUENCE_LENGTH, VOCAB_SIZE

from snowcoder_jax import recipe
from snowcoder_jax.errors import InputError
from snowcoder_jax.model import decoder, loss
from snowcoder_jax.training.mesh import make_mesh
from snowcoder_jax.training.state import TrainState, fresh_state
from snowcoder_jax.training.step import Batch, Metrics, check_remat, make_train_step

B, S = 8, SEQUENCE_LENGTH
RATE = np.float32(1e-2)


def make_batch(seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    # Rows bear loss at very different numbers of tokens.
    weights = (np.arange(S) < rng.integers(1, S + 1, (B, 1))).astype(np.float32)
    return {"ids": rng.integers(0, VOCAB_SIZE, (B, S + 1)).astype(np.int32), "weights": weights}


def run(
    batch: Batch,
    steps: int = 1,
    model: recipe.Model = MODEL,
    z_loss: float = 0.0,
    **hardware: object,
) -> tuple[TrainState, Metrics]:
    mesh = make_mesh(recipe.Mesh(), jax.devices()[:1])
    optimizer = recipe.Optimizer(z_loss=z_loss)
    layout = dataclasses.replace(HARDWARE, **hardware)
    step = make_train_step(model, VOCAB_SIZE, optimizer, layout, mesh)
    state = fresh_state(MODEL, VOCAB_SIZE, optimizer, mesh, seed=0)
    for _ in range(steps):
        state, metrics = step(state, batch, RATE)
    return state, metrics


def assert_close(ours: object, want: object, rtol: float) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-5), ours, want)


def test_the_loss_is_the_mean_over_tokens_that_bear_it() -> None:
    batch = make_batch()
    _, metrics = run(batch)
    mesh = make_mesh(recipe.Mesh(), jax.devices()[:1])
    params = fresh_state(MODEL, VOCAB_SIZE, recipe.Optimizer(), mesh, seed=0).params
    hidden_BSD = decoder.apply(params, MODEL, VOCAB_SIZE, batch["ids"][:, :-1])
    losses_BS = loss.token_losses(
        hidden_BSD, decoder.output_embedding(params, MODEL), batch["ids"][:, 1:], 1024
    )
    weights = np.asarray(batch["weights"])
    want = (np.asarray(losses_BS) * weights).sum() / weights.sum()
    assert float(metrics["loss"]) == pytest.approx(want, rel=1e-5)
    assert float(metrics["num_tokens"]) == weights.sum()


def test_microbatches_weigh_by_tokens() -> None:
    """One and four microbatches agree to 1e-4 in every parameter after three updates."""
    one, one_metrics = run(make_batch(), steps=3)
    four, four_metrics = run(make_batch(), steps=3, microbatches=4)
    assert_close(four_metrics, one_metrics, rtol=1e-4)
    assert_close(four.params, one.params, rtol=1e-3)


def test_a_program_for_each_layer_learns_the_same() -> None:
    scanned, scanned_metrics = run(make_batch(), steps=3)
    own, own_metrics = run(make_batch(), steps=3, scan_layers=False)
    assert_close(own_metrics, scanned_metrics, rtol=1e-4)
    assert_close(own.params, scanned.params, rtol=1e-3)


def test_z_loss_is_told_apart_from_the_loss_and_learnt_from() -> None:
    plain_metrics = run(make_batch())[1]
    metrics = run(make_batch(), z_loss=0.1)[1]
    assert "z_loss" not in plain_metrics
    assert float(metrics["loss"]) == float(plain_metrics["loss"])
    # Fresh weights are small: the normaliser is about the vocabulary's size.
    assert float(metrics["z_loss"]) == pytest.approx(0.1 * np.log(VOCAB_SIZE) ** 2, rel=0.1)
    assert float(metrics["grad_norm"]) != pytest.approx(float(plain_metrics["grad_norm"]), rel=1e-3)
    four_metrics = run(make_batch(), z_loss=0.1, microbatches=4)[1]
    assert_close(four_metrics, metrics, rtol=1e-4)


@pytest.mark.parametrize("chunk_tokens", [32, B * S, 2048])
def test_bfloat16_compute_keeps_parameters_and_moments_in_float32(chunk_tokens: int) -> None:
    """However many chunks the loss has: one is no loop, and compiles to something else."""
    wide_metrics = run(make_batch())[1]
    narrow, narrow_metrics = run(
        make_batch(), compute_dtype="bfloat16", loss_chunk_tokens=chunk_tokens
    )
    leaves = jax.tree.leaves((narrow.params, narrow.opt_state))
    assert {x.dtype for x in leaves if x.ndim} == {np.dtype("float32")}
    assert float(narrow_metrics["loss"]) == pytest.approx(float(wide_metrics["loss"]), rel=1e-2)
    assert float(narrow_metrics["loss"]) != float(wide_metrics["loss"])


def test_offload_is_refused_where_devices_reach_no_host_memory() -> None:
    device = SimpleNamespace(platform="abacus", addressable_memories=list)
    asked = dataclasses.replace(HARDWARE, remat="offload")
    with pytest.raises(InputError, match=r"hardware.remat: offload .* abacus"):
        check_remat(asked, SimpleNamespace(devices=np.array([device])))  # type: ignore[arg-type]


def test_remat_is_refused_where_it_would_keep_as_much_memory() -> None:
    with pytest.raises(InputError, match=r"hardware.remat: minimal .* scan_layers"):
        run(make_batch(), remat="minimal", scan_layers=False)


def test_a_broken_update_is_skipped_and_counted() -> None:
    mesh = make_mesh(recipe.Mesh(), jax.devices()[:1])
    optimizer = recipe.Optimizer()
    step = make_train_step(MODEL, VOCAB_SIZE, optimizer, HARDWARE, mesh)
    good = make_batch()
    broken = {**good, "weights": np.full((B, S), np.nan, np.float32)}
    state = fresh_state(MODEL, VOCAB_SIZE, optimizer, mesh, seed=0)
    state, _ = step(state, good, RATE)
    before = jax.device_get((state.params, state.opt_state))
    for in_a_row in (1, 2):
        state, metrics = step(state, broken, RATE)
        assert int(metrics["num_skipped"]) == int(metrics["num_skipped_in_a_row"]) == in_a_row
    jax.tree.map(
        np.testing.assert_array_equal, jax.device_get((state.params, state.opt_state)), before
    )
    state, metrics = step(state, good, RATE)
    assert (int(metrics["num_skipped"]), int(metrics["num_skipped_in_a_row"])) == (2, 0)
    assert int(state.step) == 4
    assert np.isfinite(float(metrics["loss"]))


def test_a_batch_without_any_loss_changes_nothing_but_the_decay() -> None:
    batch = {**make_batch(), "weights": np.zeros((B, S), np.float32)}
    state, metrics = run(batch)
    assert float(metrics["loss"]) == 0.0 == float(metrics["grad_norm"])
    assert int(metrics["num_skipped"]) == 0
    np.testing.assert_array_equal(state.params["final_norm"], 1.0)


def test_documents_do_not_see_each_other_only_where_the_recipe_says_so() -> None:
    model = dataclasses.replace(MODEL, attention="document")
    whole = {**make_batch(), "first_key": np.zeros((B, S), np.int32)}
    starts = np.where(np.arange(S) < 8, 0, 8).astype(np.int32)
    split = {**whole, "first_key": np.tile(starts, (B, 1))}
    causal = float(run(make_batch())[1]["loss"])
    assert float(run(whole, model=model)[1]["loss"]) == pytest.approx(causal, rel=1e-6)
    assert float(run(split, model=model)[1]["loss"]) != pytest.approx(causal, rel=1e-6)


def test_phases_share_one_compiled_step() -> None:
    mesh = make_mesh(recipe.Mesh(), jax.devices()[:1])
    first = make_train_step(MODEL, VOCAB_SIZE, recipe.Optimizer(), HARDWARE, mesh)
    again = make_train_step(MODEL, VOCAB_SIZE, recipe.Optimizer(), HARDWARE, mesh)
    assert first is again
