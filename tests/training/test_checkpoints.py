"""What is saved comes back bit for bit, or not at all."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import small_cloud
from tiny_training import MODEL, VOCAB_SIZE

from snowcoder_jax import recipe
from snowcoder_jax.errors import EXIT_MACHINE, InputError
from snowcoder_jax.training import checkpoints, manifests
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
    with checkpoints.Checkpoints(str(folder), recipe.Checkpointing()) as saver:
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
    assert manifests.latest_step(str(folder)) == 15
    assert sorted(p.name for p in folder.glob("*.json")) == ["10.manifest.json", "15.manifest.json"]
    manifest = manifests.read_manifest(str(folder), 15)
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
    assert manifests.latest_step(str(folder)) == 10
    with checkpoints.Checkpoints(str(folder), recipe.Checkpointing()) as saver:
        assert not (folder / "15").exists()
        saver.save(make_state(), 15, "key", {})
    assert manifests.latest_step(str(folder)) == 15


def test_a_manifest_without_its_step_is_nothing(folder: Path) -> None:
    shutil.rmtree(folder / "15")
    assert manifests.latest_step(str(folder)) == 10


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


def kept(folder: Path, policy: recipe.Checkpointing, steps: tuple[int, ...]) -> list[int]:
    with checkpoints.Checkpoints(str(folder), policy) as saver:
        for step in steps:
            saver.save(make_state(), step, "key", {})
    with_manifest = {int(p.name.removesuffix(".manifest.json")) for p in folder.glob("*.json")}
    assert with_manifest == {int(p.name) for p in folder.iterdir() if p.is_dir()}
    return sorted(with_manifest)


@pytest.mark.parametrize(
    ("policy", "want"),
    [
        (recipe.Checkpointing(keep_last=1), [7]),
        (recipe.Checkpointing(keep_last=3), [5, 6, 7]),
        (recipe.Checkpointing(keep_last=1, keep_every_steps=3), [3, 6, 7]),
        (recipe.Checkpointing(keep_last=2, keep_every_steps=7), [6, 7]),
    ],
)
def test_checkpoints_are_kept_by_policy(
    tmp_path: Path, policy: recipe.Checkpointing, want: list[int]
) -> None:
    assert kept(tmp_path, policy, (2, 3, 5, 6, 7)) == want


def test_the_only_checkpoint_goes_when_the_next_is_whole_and_not_before(tmp_path: Path) -> None:
    policy = recipe.Checkpointing(keep_last=1)
    assert kept(tmp_path, policy, (5,)) == [5]
    (tmp_path / "8.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "8.orbax-checkpoint-tmp" / "part").write_text("a save that a kill cut short")
    assert kept(tmp_path, policy, ()) == [5]
    assert kept(tmp_path, policy, (10,)) == [10]


FULL_DISK = """
import resource, sys
import test_checkpoints
from snowcoder_jax import cli, recipe
from snowcoder_jax.training import checkpoints, manifests

def work():
    state = test_checkpoints.make_state()
    with checkpoints.Checkpoints(sys.argv[1], recipe.Checkpointing()) as saver:
        saver.save(state, 5, "key", {})
        saver.finish()
        # As on a disk on which no file can grow any more.
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, resource.RLIM_INFINITY))
        saver.save(state, 10, "key", {})
    return 0

sys.exit(cli.exit_code(work))
"""


def test_asyncio_says_nothing_of_outcomes_that_nobody_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = logging.getLogger("asyncio")
    log.error("_GatheringFuture exception was never retrieved")
    log.error("Task was destroyed but it is pending!")
    assert caplog.messages == ["Task was destroyed but it is pending!"]


@pytest.mark.slow
def test_a_full_disk_is_one_message_and_keeps_what_was_saved(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == EXIT_MACHINE, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert "the disk is full" in result.stderr
    assert "earlier checkpoints are kept" in result.stderr
    assert manifests.latest_step(str(tmp_path)) == 5
    checkpoints.restore(str(tmp_path), 5, shapes())


@pytest.mark.slow
def test_checkpoints_live_in_a_bucket_too(tmp_path: Path) -> None:
    """The emulator, TensorStore and gcsfs, in a process that has their addresses from its start."""
    code = """
import test_checkpoints as t
import jax, numpy as np
from snowcoder_jax import recipe, storage
from snowcoder_jax.training import checkpoints, manifests

folder = "gs://bucket/runs/some/checkpoints/general"
policy = recipe.Checkpointing(keep_last=1, keep_every_steps=10)
with checkpoints.Checkpoints(folder, policy) as saver:
    for step in (5, 10, 15, 20, 25):
        saver.save(t.make_state(), step, "key", {"tokens": step})
names = {path.split("/")[0] for path in storage.sizes_bytes(folder)}
assert names == {x for s in (10, 20, 25) for x in (str(s), f"{s}.manifest.json")}, names
storage.write_bytes(f"{folder}/30/params/part", b"of a save that a kill cut short")
with checkpoints.Checkpoints(folder, policy):
    assert manifests.latest_step(folder) == 25
    assert not storage.exists(f"{folder}/30/params/part")
restored = checkpoints.restore(folder, 25, t.shapes())
jax.tree.map(np.testing.assert_array_equal, restored, t.make_state())
jax.tree.map(np.testing.assert_array_equal, checkpoints.load_params(folder), restored.params)
storage.write_bytes(f"{folder}/25/params/_METADATA", b"cut short")
try:
    checkpoints.restore(folder, 25, t.shapes())
except t.InputError as e:
    assert "25/params/_METADATA is not what was saved" in str(e), e
else:
    raise AssertionError("a damaged checkpoint was taken")
"""
    paths = os.pathsep.join(p for p in sys.path if p)
    with small_cloud.emulated_storage() as cloud:
        result = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **cloud, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert result.returncode == 0, result.stderr[-3000:]
