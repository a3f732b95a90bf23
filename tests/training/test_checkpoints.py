"""What is saved comes back bit for bit, or not at all."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_training import MODEL, VOCAB_SIZE

from snowcoder_jax import recipe
from snowcoder_jax.errors import InputError
from snowcoder_jax.training import checkpoints
from snowcoder_jax.training.mesh import make_mesh
from snowcoder_jax.training.state import TrainState, fresh_state, state_shapes

OPTIMIZER = recipe.Optimizer()


def mesh() -> jax.sharding.Mesh:
    return make_mesh(recipe.Mesh(), jax.devices()[:1])


def make_state(model: recipe.Model = MODEL) -> TrainState:
    state = fresh_state(model, VOCAB_SIZE, OPTIMIZER, mesh(), seed=0)
    marked = jax.tree.map(lambda x: x + 1, state.opt_state)
    return dataclasses.replace(state, opt_state=marked, step=state.step + 7)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    with checkpoints.Checkpoints(str(folder)) as saver:
        for step in (5, 10, 15):
            saver.save(make_state(), step, "key", {"tokens": step * 128})
            saver.poll()
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved, tmp_path / "general")
    return tmp_path / "general"


def shapes(model: recipe.Model = MODEL) -> TrainState:
    return state_shapes(model, VOCAB_SIZE, OPTIMIZER, mesh())


def biggest_file(folder: Path) -> Path:
    return max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)


def test_the_last_two_steps_come_back_whole(folder: Path) -> None:
    assert checkpoints.latest_step(str(folder)) == 15
    assert sorted(p.name for p in folder.glob("*.json")) == ["10.manifest.json", "15.manifest.json"]
    manifest = checkpoints.read_manifest(str(folder), 15)
    assert (manifest["key"], manifest["tokens"], manifest["step"]) == ("key", 1920, 15)
    restored = checkpoints.restore(str(folder), 10, shapes())
    jax.tree.map(np.testing.assert_array_equal, restored, make_state())
    assert jax.tree.structure(restored) == jax.tree.structure(make_state())


def test_parameters_alone_load_as_numpy(folder: Path) -> None:
    params = checkpoints.load_params(str(folder))
    want = make_state().params
    assert jax.tree.structure(params) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, params, want)
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(params))
    # Reading them needs nothing of the optimizer's.
    shutil.rmtree(folder / "15" / "rest")
    checkpoints.load_params(str(folder), 15)


def test_parameters_of_a_folder_without_any_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no whole checkpoint"):
        checkpoints.load_params(str(tmp_path / "nowhere"))


def test_a_step_without_manifest_is_never_taken(folder: Path) -> None:
    (folder / "15.manifest.json").unlink()
    assert checkpoints.latest_step(str(folder)) == 10
    with checkpoints.Checkpoints(str(folder)) as saver:
        assert not (folder / "15").exists()
        saver.save(make_state(), 15, "key", {})
    assert checkpoints.latest_step(str(folder)) == 15


def test_a_manifest_without_its_step_is_nothing(folder: Path) -> None:
    shutil.rmtree(folder / "15")
    assert checkpoints.latest_step(str(folder)) == 10


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_file_is_named_with_the_mend(folder: Path, damage: str) -> None:
    file = biggest_file(folder / "15" / "params")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data if damage == "flipped" else data[:-1]))
    if damage == "gone":
        file.unlink()
    for read in (
        lambda: checkpoints.restore(str(folder), 15, shapes()),
        lambda: checkpoints.load_params(str(folder)),
    ):
        with pytest.raises(InputError) as caught:
            read()
        assert str(file) in str(caught.value)
        assert "15.manifest.json to go on from step 10" in str(caught.value)


@pytest.mark.parametrize(
    "changes", [{"hidden_dim": 32}, {"num_layers": 3}, {"tie_embeddings": False}]
)
def test_a_checkpoint_of_another_model_is_refused(
    folder: Path, changes: dict[str, int | bool]
) -> None:
    other = dataclasses.replace(MODEL, **changes)
    with pytest.raises(InputError, match="is a checkpoint of another model"):
        checkpoints.restore(str(folder), 15, shapes(other))


def test_files_that_are_not_vouched_for_say_so(folder: Path) -> None:
    """A manifest that lists a file with another size is damage too, not an empty array."""
    path = folder / "15.manifest.json"
    manifest = json.loads(path.read_text())
    name = next(n for n in manifest["files"] if n.startswith("rest/"))
    manifest["files"][name][0] += 1
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="damaged"):
        checkpoints.restore(str(folder), 15, shapes())
