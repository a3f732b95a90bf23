"""What a phase tells of itself: trackers, traces, where its time went, that it compiled once."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
import small_cloud
import tiny_training
from test_trackers import read_events
from tiny_training import SEQUENCE_LENGTH, make_phase, make_recipe, train, write_records

from snowcoder_jax import recipe
from snowcoder_jax.packed import Packed
from snowcoder_jax.training import step
from snowcoder_jax.training.metrics import read_metrics

STEP = 8 * SEQUENCE_LENGTH


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Packed]:
    return {"all": write_records(str(tmp_path_factory.mktemp("packed")), 40)}


@pytest.fixture
def compiled() -> Iterator[list[str]]:
    """Names of the functions that were compiled, or loaded from the persistent cache."""
    names: list[str] = []

    def note(event: str, _: float, **facts: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(str(facts["fun_name"]))

    jax.monitoring.register_event_duration_secs_listener(note)
    yield names
    jax.monitoring.unregister_event_duration_listener(note)


def continued_from_general() -> tuple[recipe.Phase, recipe.Recipe]:
    schedule = recipe.Schedule("linear", peak=1e-2, warmup_steps=2)
    phase = make_phase(name="continued", tokens=4 * STEP, schedule=schedule, starts_from="general")
    return phase, make_recipe(make_phase(), phase)


def undo_last_save(run_folder: Path, phase: str, last: int) -> None:
    """As a kill before the last checkpoint was whole leaves it."""
    folder = run_folder / "checkpoints" / phase
    (folder / f"{last}.manifest.json").unlink()
    (folder / "result.json").unlink()


def test_two_phases_and_a_resume_compile_one_step(
    data: dict[str, Packed], tmp_path: Path, compiled: list[str]
) -> None:
    step.make_train_step.cache_clear()
    result = train(str(tmp_path), data)
    assert compiled.count("jit(step)") == 1
    assert result.account.seconds["compile"] > 0
    start = str(tmp_path / "checkpoints" / "general")
    phase, run = continued_from_general()
    train(str(tmp_path), data, phase, run, start=start)
    undo_last_save(tmp_path, "continued", 4)
    train(str(tmp_path), data, phase, run, start=start)
    assert compiled.count("jit(step)") == 1
    # Another shape is another program.
    phase = make_phase(name="wide", batch_size=16)
    train(str(tmp_path), data, phase, make_recipe(phase))
    assert compiled.count("jit(step)") == 2


def test_the_account_tells_restarts_from_progress(data: dict[str, Packed], tmp_path: Path) -> None:
    first = train(str(tmp_path), data).account
    assert first.num_attempts == 1
    assert first.machines == ("1 x cpu",)
    assert first.seconds["restart"] == 0.0
    assert min(first.seconds[k] for k in ("step", "checkpoint", "start_up")) > 0
    # Resumed from step 10: the steps 11 and 12 of the first attempt were for nothing.
    undo_last_save(tmp_path, "general", 12)
    second = train(str(tmp_path), data).account
    assert second.num_attempts == 2
    assert second.seconds["restart"] > 0
    assert second.seconds["start_up"] == first.seconds["start_up"]


def test_what_is_tracked_changes_nothing_that_is_learnt(
    data: dict[str, Packed], tmp_path: Path
) -> None:
    plain, tracked = tmp_path / "plain", tmp_path / "tracked"
    tracking = recipe.Tracking(tensorboard=True, profile_steps=(3, 4))
    train(str(plain), data)
    train(str(tracked), data, run=make_recipe(tracking=tracking))
    lines = {
        folder: [
            (x.step, x.loss, x.grad_norm)
            for x in read_metrics(str(folder / "metrics.jsonl"), "general")
        ]
        for folder in (plain, tracked)
    }
    assert lines[plain] == lines[tracked]
    # Checkpoints of one go on in the other.
    undo_last_save(tracked, "general", 12)
    train(str(tracked), data, run=make_recipe())
    train(str(plain), data, run=make_recipe(tracking=tracking))
    assert list((tracked / "profiles" / "general").rglob("*.xplane.pb"))
    assert not (plain / "profiles").exists()


def test_the_z_loss_is_logged_where_it_is_on_and_beside_the_loss(
    data: dict[str, Packed], tmp_path: Path
) -> None:
    train(str(tmp_path / "off"), data)
    train(str(tmp_path / "on"), data, run=make_recipe(optimizer=recipe.Optimizer(z_loss=1e-4)))
    off, on = (
        read_metrics(str(tmp_path / name / "metrics.jsonl"), "general") for name in ("off", "on")
    )
    assert {line.z_loss for line in off} == {None}
    assert all(line.z_loss is not None and 0 < line.z_loss < 0.1 for line in on)
    # Of the same weights: the reported loss is the cross-entropy alone.
    assert on[0].loss == pytest.approx(off[0].loss, abs=1e-6)


def test_a_resumed_run_shows_each_step_once(data: dict[str, Packed], tmp_path: Path) -> None:
    phase, _ = continued_from_general()
    run = make_recipe(make_phase(), phase, tracking=recipe.Tracking(tensorboard=True))
    train(str(tmp_path), data, make_phase(), run)
    undo_last_save(tmp_path, "general", 12)
    train(str(tmp_path), data, make_phase(), run)
    start = str(tmp_path / "checkpoints" / "general")
    train(str(tmp_path), data, phase, run, start=start)
    for name, steps in (("general", range(1, 13)), ("continued", range(13, 17))):
        shown = read_events(tmp_path / "tensorboard" / name)["train/loss"]
        lines = read_metrics(str(tmp_path / "metrics.jsonl"), name)
        assert list(shown) == list(steps)
        assert list(shown.values()) == pytest.approx([line.loss for line in lines])


SECOND_START = """
import sys, jax, tiny_training
from snowcoder_jax import packed, preflight
missed = []
jax.monitoring.register_event_listener(
    lambda event, **_: missed.append(event) if event.endswith("cache_misses") else None
)
run = tiny_training.make_recipe(output=sys.argv[1])
preflight.configure_jax(run)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
tiny_training.train(sys.argv[3], {"all": packed.read_packed(sys.argv[2])}, run=run)
print("compiled:", len(missed))
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["local", "gs"])
def test_a_second_start_compiles_nothing(
    data: dict[str, Packed], tmp_path: Path, where: str
) -> None:
    """Its programs come from the cache in the output folder, on an object store too."""
    with contextlib.ExitStack() as held:
        cloud = held.enter_context(small_cloud.emulated_storage()) if where == "gs" else {}
        output = "gs://bucket/out" if where == "gs" else str(tmp_path / "out")
        first, second = (
            compiled_by_a_start(data, tmp_path / name, output, cloud) for name in ("a", "b")
        )
    assert first > 0
    assert second == 0


def compiled_by_a_start(
    data: dict[str, Packed], run_folder: Path, output: str, cloud: dict[str, str]
) -> int:
    paths = [os.path.dirname(tiny_training.__file__), *(p for p in sys.path if p)]
    env = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    env |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.run(
        [sys.executable, "-c", SECOND_START, output, data["all"].folder, str(run_folder)],
        env=env | cloud,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return int(process.stdout.rpartition("compiled: ")[2])
