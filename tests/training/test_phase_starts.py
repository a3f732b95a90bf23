"""Where a phase starts from, and at which length it reads: a base model, the packed tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tiny_training import MODEL, SEQUENCE_LENGTH, VOCAB_SIZE, make_phase, make_recipe, train
from tiny_training import write_records as write

from snowcoder_jax import base_model, recipe
from snowcoder_jax.model.huggingface import export_llama
from snowcoder_jax.packed import Packed
from snowcoder_jax.training import checkpoints, distributed
from snowcoder_jax.training.checkpoints import load_params
from snowcoder_jax.training.mesh import make_mesh
from snowcoder_jax.training.metrics import read_metrics
from snowcoder_jax.training.start import Start, find_start, phase_key, starting_state
from snowcoder_jax.training.state import state_shapes, state_shardings

STEP = 8 * SEQUENCE_LENGTH
GENERAL = make_phase(tokens=6 * STEP)
CONTINUED = make_phase(name="continued", tokens=5 * STEP)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Packed]:
    return {"all": write(str(tmp_path_factory.mktemp("packed")), 40)}


@pytest.fixture(scope="module")
def trained(data: dict[str, Packed], tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("trained"))
    train(folder, data, GENERAL, make_recipe(GENERAL))
    return folder


@pytest.fixture(scope="module")
def exported(trained: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    tokenizer = tmp_path_factory.mktemp("tokenizer")
    spec = {"added_tokens": [], "model": {"vocab": {chr(33 + i): i for i in range(VOCAB_SIZE)}}}
    (tokenizer / "tokenizer.json").write_text(json.dumps(spec))
    folder = str(tmp_path_factory.mktemp("exported") / "model")
    params = load_params(f"{trained}/checkpoints/general")
    export_llama(params, MODEL, VOCAB_SIZE, str(tokenizer), folder)
    return folder


def losses(folder: str, phase: str) -> list[float | None]:
    return [line.loss for line in read_metrics(f"{folder}/metrics.jsonl", phase)]


def run_on(folder: str) -> recipe.Recipe:
    return make_recipe(
        CONTINUED, base_model=folder, tokenizer=recipe.Tokenizer(vocab_size=VOCAB_SIZE)
    )


def test_an_exported_model_goes_on_as_its_checkpoint_does(
    data: dict[str, Packed], trained: str, exported: str, tmp_path: Path
) -> None:
    phase = make_phase(name="continued", tokens=5 * STEP, starts_from="general")
    start = f"{trained}/checkpoints/general"
    train(str(tmp_path / "a"), data, phase, make_recipe(GENERAL, phase), start=start)
    train(str(tmp_path / "b"), data, CONTINUED, run_on(exported))
    train(str(tmp_path / "c"), data, CONTINUED, make_recipe(CONTINUED))
    from_checkpoint, from_export, fresh = (
        losses(str(tmp_path / name), "continued") for name in "abc"
    )
    assert from_export == from_checkpoint
    assert len(from_export) == 5
    assert fresh[0] is not None and from_export[0] is not None
    assert from_export[0] < fresh[0] - 0.1


def test_the_base_model_is_part_of_what_a_phase_learns(
    data: dict[str, Packed], exported: str, tmp_path: Path
) -> None:
    other = shutil.copytree(exported, tmp_path / "other")
    path = other / "model.safetensors"
    data_bytes = path.read_bytes()
    path.write_bytes(data_bytes[:-1] + bytes([data_bytes[-1] ^ 1]))
    base_model.fingerprint.cache_clear()
    runs = [make_recipe(CONTINUED), run_on(exported), run_on(str(other))]
    assert len({phase_key(run, CONTINUED, data, None, None) for run in runs}) == 3
    assert phase_key(run_on(exported), CONTINUED, data, None, None) == phase_key(
        run_on(exported), CONTINUED, data, None, None
    )


@pytest.mark.parametrize("keep_moments", [False, True])
def test_all_hosts_start_from_the_step_that_the_first_one_found(
    data: dict[str, Packed],
    trained: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    keep_moments: bool,
) -> None:
    phase = make_phase(name="continued", starts_from="general", keep_moments=keep_moments)
    run = make_recipe(GENERAL, phase)
    earlier, own = f"{trained}/checkpoints/general", str(tmp_path)
    assert find_start(run, phase, data, own, earlier).start_step == 6

    monkeypatch.setattr(distributed, "agreed", lambda topic, decide: ["key", None, 5])
    start = find_start(run, phase, data, own, earlier)
    mesh = make_mesh(recipe.Mesh(), jax.devices()[:1])
    state = starting_state(run, phase, VOCAB_SIZE, mesh, own, start, earlier)
    shapes = state_shapes(run.model, VOCAB_SIZE, run.optimizer, mesh)
    saved = checkpoints.restore(earlier, 5, shapes)
    assert_equal(state.params, saved.params)
    if keep_moments:
        assert_equal(state.opt_state, saved.opt_state)
    assert [int(state.step), int(state.num_skipped), int(state.num_skipped_in_a_row)] == [0, 0, 0]
    assert jax.tree.map(lambda x: x.sharding, state) == state_shardings(shapes)


def test_moments_that_are_kept_take_the_memory_of_one_set(
    data: dict[str, Packed], trained: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phase = make_phase(name="continued", starts_from="general", keep_moments=True)
    run = make_recipe(GENERAL, phase)
    mesh = make_mesh(recipe.Mesh(), jax.devices()[:1])
    num_before = len(jax.live_arrays())
    num_live = []

    def restore_moments(*arguments: Any) -> Any:
        num_live.append(len(jax.live_arrays()) - num_before)
        return restore(*arguments)

    restore = checkpoints.restore_moments
    monkeypatch.setattr(checkpoints, "restore_moments", restore_moments)
    start, earlier = Start("key", None, 6), f"{trained}/checkpoints/general"
    state = starting_state(run, phase, VOCAB_SIZE, mesh, str(tmp_path), start, earlier)
    assert num_live == [len(jax.tree.leaves(state.params))]


def assert_equal(tree: Any, expected: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, tree, expected)


def test_a_phase_of_half_the_length_reads_every_packed_token_once(
    data: dict[str, Packed], tmp_path: Path
) -> None:
    phase = make_phase(
        tokens=40 * SEQUENCE_LENGTH,
        sequence_length=SEQUENCE_LENGTH // 2,
        data=(recipe.Part("all"),),
    )
    result = train(str(tmp_path), data, phase, make_recipe(phase))
    (part,) = result.mixture
    assert (part.num_sequences, part.num_records, part.epochs) == (80, 80, 1.0)
    assert result.tokens == 40 * SEQUENCE_LENGTH
    (seen,) = result.seen
    assert (seen.selection, seen.source, seen.language) == ("all", "tiny", "Python")
    held = sum(shard.num_tokens for shard in data["all"].shards)
    assert (seen.num_sequences, seen.tokens_by_language) == (80, {"Python": held})
