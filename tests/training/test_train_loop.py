"""A phase from its first step to its result, through kills, signals and faults."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_training
from tiny_training import SEQUENCE_LENGTH, make_phase, make_recipe, train, write_records

from snowcoder_jax import recipe, storage
from snowcoder_jax.code_version import code_version
from snowcoder_jax.errors import InputError
from snowcoder_jax.packed import Packed
from snowcoder_jax.training import checkpoints, manifests
from snowcoder_jax.training.batches import Batches
from snowcoder_jax.training.metrics import read_metrics
from snowcoder_jax.training.start import phase_key

STEP = 8 * SEQUENCE_LENGTH


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Packed]:
    return {"all": write_records(str(tmp_path_factory.mktemp("packed")), 40)}


@pytest.fixture(scope="module")
def trained(data: dict[str, Packed], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose general phase is done, uninterrupted."""
    folder = tmp_path_factory.mktemp("run")
    train(str(folder), data)
    return folder


def losses(run_folder: Path, phase: str = "general") -> list[tuple[int, float | None, float]]:
    lines = read_metrics(str(run_folder / "metrics.jsonl"), phase)
    return [(line.step, line.loss, line.learning_rate) for line in lines]


def start(
    run_folder: Path, data: dict[str, Packed], cache: Path, pause: float
) -> subprocess.Popen[str]:
    """The same phase in a process of its own."""
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    command = [
        sys.executable,
        tiny_training.__file__,
        str(run_folder),
        data["all"].folder,
        str(pause),
    ]
    return subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(process: subprocess.Popen[str], text: str) -> bool:
    """Whether `text` came; False where the process was through before it."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return True
    assert process.wait() == 0, seen
    return False


def test_the_loss_falls_and_the_result_tells(trained: Path, data: dict[str, Packed]) -> None:
    result = train(str(trained), data)
    lines = read_metrics(str(trained / "metrics.jsonl"), "general")
    assert [line.step for line in lines] == list(range(1, 13))
    first, last = lines[0].loss, lines[-1].loss
    assert first is not None
    assert last is not None
    assert last < first - 0.4
    assert lines[0].learning_rate == 0.0
    assert lines[-1].tokens == result.tokens == 12 * STEP
    assert (result.steps, result.final_loss, result.skipped_updates) == (12, last, 0)
    assert result.sequences == {"all": 96}
    assert result.mixture[0].epochs == pytest.approx(2.4)
    assert result.checkpoint == str(trained / "checkpoints" / "general")
    assert result.data_wait_share is not None
    assert 0 <= result.data_wait_share < 1
    assert result.seconds is not None
    assert result.seconds_to_first_step is not None
    assert result.seconds > result.seconds_to_first_step > 0


def test_a_finished_phase_returns_at_once(trained: Path, data: dict[str, Packed]) -> None:
    called = []
    phase = make_phase()
    started = time.perf_counter()
    tiny_training.train_phase(
        make_recipe(phase), phase, data, str(trained), None, on_progress=lambda *a: called.append(a)
    )
    assert not called
    assert time.perf_counter() - started < 1.0


def test_a_result_lost_to_a_kill_is_made_again(
    trained: Path, data: dict[str, Packed], tmp_path: Path
) -> None:
    folder = shutil.copytree(trained, tmp_path / "run")
    result = folder / "checkpoints" / "general" / "result.json"
    want = json.loads(result.read_text())
    result.unlink()
    train(str(folder), data)
    made = json.loads(result.read_text())
    assert made.pop("checkpoint") != want.pop("checkpoint")
    assert made == want


def test_a_manifest_says_of_what_its_step_was_made(trained: Path, data: dict[str, Packed]) -> None:
    phase = make_phase()
    manifest = manifests.read_manifest(str(trained / "checkpoints/general"), 12)
    told = {name: manifest[name] for name in ("recipe", "code", "data", "key", "tokens", "phase")}
    assert told == {
        "recipe": recipe.fingerprint(make_recipe()),
        "code": code_version(),
        "data": recipe.fingerprint([[storage.sha256_file(s.path) for s in data["all"].shards]]),
        "key": phase_key(make_recipe(), phase, data, None, None),
        "tokens": 12 * STEP,
        "phase": "general",
    }


def test_a_resume_repeats_nothing(trained: Path, data: dict[str, Packed], tmp_path: Path) -> None:
    """From the checkpoint at step 10, and the log cut back to it."""
    folder = shutil.copytree(trained, tmp_path / "run")
    (folder / "checkpoints" / "general" / "12.manifest.json").unlink()
    train(str(folder), data)
    assert losses(folder) == losses(trained)
    ours = checkpoints.load_params(str(folder / "checkpoints" / "general"))
    want = checkpoints.load_params(str(trained / "checkpoints" / "general"))
    np.testing.assert_array_equal(ours["layers"]["query"], want["layers"]["query"])


@pytest.mark.slow
def test_kill_at_any_moment_changes_no_bit(data: dict[str, Packed], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    straight = start(tmp_path / "straight", data, cache, 0.0)
    assert straight.wait(timeout=120) == 0
    chance = random.Random(os.urandom(4))
    for _ in range(3):
        process = start(tmp_path / "killed", data, cache, 0.1)
        if not wait_for(process, "step"):
            break
        time.sleep(chance.uniform(0.0, 0.7))
        process.kill()
        process.wait()
    last = start(tmp_path / "killed", data, cache, 0.0)
    output, _ = last.communicate(timeout=120)
    assert last.returncode == 0, output
    assert losses(tmp_path / "killed") == losses(tmp_path / "straight")
    assert len(losses(tmp_path / "straight")) == 12


@pytest.mark.slow
def test_sigterm_saves_and_the_next_start_goes_on(
    trained: Path, data: dict[str, Packed], tmp_path: Path
) -> None:
    process = start(tmp_path, data, tmp_path / "cache", 0.3)
    assert wait_for(process, "step 2/")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Preempted: phase general: saved at step" in output
    folder = str(tmp_path / "checkpoints" / "general")
    saved = manifests.latest_step(folder)
    assert saved is not None
    assert 2 <= saved <= 5
    train(str(tmp_path), data)
    assert losses(tmp_path) == losses(trained)


@pytest.mark.parametrize("where", ["restore", "last save"])
def test_a_hang_outside_of_the_steps_is_seen_too(
    trained: Path,
    data: dict[str, Packed],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    where: str,
) -> None:
    folder = shutil.copytree(trained, tmp_path / "run")
    (folder / "checkpoints/general/12.manifest.json").unlink()
    module, name = {
        "restore": (checkpoints, "restore"),
        "last save": (manifests, "write_manifest"),
    }[where]
    whole = getattr(module, name)

    def stalled(*args: Any) -> Any:
        time.sleep(2.5)
        return whole(*args)

    monkeypatch.setattr(module, name, stalled)
    watched = dataclasses.replace(tiny_training.HARDWARE, hang_minutes=1 / 60)
    train(str(folder), data, run=make_recipe(hardware=watched))
    said = capfd.readouterr().err
    assert "Timeout: no step for" in said
    assert " in stalled\n" in said
    assert losses(folder) == losses(trained)


def test_a_later_phase_starts_from_an_earlier_one(
    trained: Path, data: dict[str, Packed], tmp_path: Path
) -> None:
    earlier = str(trained / "checkpoints" / "general")
    first_losses = {}
    for keep in (False, True):
        schedule = recipe.Schedule("linear", peak=1e-2, warmup_steps=2)
        phase = make_phase(
            name="continued",
            tokens=4 * STEP,
            schedule=schedule,
            starts_from="general",
            keep_moments=keep,
        )
        run = make_recipe(make_phase(), phase)
        folder = tmp_path / str(keep)
        train(str(folder), data, phase, run, start=earlier)
        lines = read_metrics(str(folder / "metrics.jsonl"), "continued")
        assert [line.global_step for line in lines] == [13, 14, 15, 16]
        first_losses[keep] = [line.loss for line in lines]
    assert first_losses[True][0] == first_losses[False][0] < 3.8
    assert first_losses[True][2] != first_losses[False][2], "kept moments change the updates"


def test_a_change_of_recipe_or_start_is_refused(
    trained: Path, data: dict[str, Packed], tmp_path: Path
) -> None:
    phase = make_phase(schedule=recipe.Schedule("linear", peak=2e-2, warmup_steps=2))
    with pytest.raises(InputError, match="another model, data, schedule, start"):
        train(str(trained), data, phase)
    other = {"all": write_records(str(tmp_path), 40, seed=9)}
    with pytest.raises(InputError, match="Remove that folder"):
        train(str(trained), other)
    narrow = dataclasses.replace(tiny_training.HARDWARE, compute_dtype="bfloat16")
    with pytest.raises(InputError, match=r"hardware\.compute_dtype"):
        train(str(trained), data, run=make_recipe(hardware=narrow))
    # How often it saves changes nothing that is learnt, nor how it is laid out.
    train(str(trained), data, make_phase(checkpoint_every_steps=3))
    other = dataclasses.replace(tiny_training.HARDWARE, microbatches=2, remat="full")
    train(str(trained), data, run=make_recipe(hardware=other))


def test_a_start_that_was_never_trained_is_refused(data: dict[str, Packed], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Train that phase first"):
        train(str(tmp_path), data, start=str(tmp_path / "checkpoints" / "nothing"))


def break_batches(monkeypatch: pytest.MonkeyPatch, broken: set[int]) -> None:
    whole = Batches.__call__

    def make(self: Batches, k: int) -> dict[str, np.ndarray]:
        batch = whole(self, k)
        if k in broken:
            batch["weights"] = np.full_like(batch["weights"], np.nan)
        return batch

    monkeypatch.setattr(Batches, "__call__", make)


def test_broken_updates_in_a_row_stop_the_phase(
    data: dict[str, Packed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_batches(monkeypatch, set(range(1, 11)))
    with pytest.raises(InputError, match=r"step 11: .* not finite 10 times in a row"):
        train(str(tmp_path), data)
    assert len(losses(tmp_path)) == 11
    # What was saved on the way is whole.
    assert manifests.latest_step(str(tmp_path / "checkpoints" / "general")) == 10


def test_fewer_broken_updates_are_survived(
    data: dict[str, Packed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_batches(monkeypatch, {1, 6, 7})
    assert train(str(tmp_path), data).skipped_updates == 3
    lines = read_metrics(str(tmp_path / "metrics.jsonl"), "general")
    assert [line.step for line in lines if line.loss is None] == [2, 7, 8]


def test_a_batch_that_does_not_divide_stops_before_anything(
    data: dict[str, Packed], tmp_path: Path
) -> None:
    hardware = dataclasses.replace(tiny_training.HARDWARE, microbatches=3)
    with pytest.raises(InputError, match=r"phases\.general\.batch_size"):
        train(str(tmp_path), data, run=make_recipe(hardware=hardware))
    assert not storage.exists(str(tmp_path / "metrics.jsonl"))
