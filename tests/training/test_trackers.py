"""What TensorBoard and W&B are told, over resumes, and that neither can stop training."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_training

from snowcoder_jax import preflight, recipe
from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe_checks import check_recipe
from snowcoder_jax.training import distributed, trackers
from snowcoder_jax.training.metrics import StepMetrics
from snowcoder_jax.training.trackers import tracked


def line(step: int, loss: float | None = None) -> StepMetrics:
    loss = 10.0 - step if loss is None else loss
    return StepMetrics(
        "general", step, 100 + step, step * 8, loss, 1e-3, 0.5, 0.1, 0.0, 80.0, 0, 0.4, 0.5
    )


def run_with(tracking: recipe.Tracking) -> recipe.Recipe:
    return tiny_training.make_recipe(tracking=tracking)


def tell(run: recipe.Recipe, folder: Path, first: int, lines: list[StepMetrics]) -> None:
    phase = tiny_training.make_phase()
    with tracked(run, phase, str(folder), "key", 100 + first) as log:
        for each in lines:
            log(each)


def read_events(folder: Path) -> dict[str, dict[int, float]]:
    """Scalars by tag and step, as TensorBoard shows them: a later session purges what an earlier
    one wrote from its first step on."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    shown: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob("events*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 12 + length + 4
            if event.session_log.status == SessionLog.START:
                for points in shown.values():
                    for step in [s for s in points if s >= event.step]:
                        del points[step]
            for value in event.summary.value:
                points = shown.setdefault(value.tag, {})
                assert event.step not in points, "a step stands there twice"
                points[event.step] = value.simple_value
    return shown


def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path: Path) -> None:
    run = run_with(recipe.Tracking(tensorboard=True))
    tell(run, tmp_path, 1, [line(step) for step in (1, 2, 3, 4)])
    # Killed after step 4, resumed from the checkpoint of step 2.
    tell(run, tmp_path, 3, [line(step, loss=1.0) for step in (3, 4, 5)])
    shown = read_events(tmp_path / "tensorboard" / "general")
    assert shown["train/loss"] == {101: 9.0, 102: 8.0, 103: 1.0, 104: 1.0, 105: 1.0}
    assert shown["train/mfu_full"][101] == pytest.approx(0.5)
    assert set(shown) >= {"train/grad_norm", "train/tokens_per_second", "train/skipped_updates"}


def test_a_figure_that_is_not_known_is_left_out(tmp_path: Path) -> None:
    run = run_with(recipe.Tracking(tensorboard=True))
    broken = dataclasses.replace(line(2), loss=None, mfu_causal=None, mfu_full=None)
    tell(run, tmp_path, 1, [line(1), broken])
    shown = read_events(tmp_path / "tensorboard" / "general")
    assert list(shown["train/loss"]) == list(shown["train/mfu_causal"]) == [101]
    assert list(shown["train/grad_norm"]) == [101, 102]


def test_only_process_0_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "is_first", lambda: False)
    run = run_with(recipe.Tracking(tensorboard=True, wandb_project="p"))
    tell(run, tmp_path, 1, [line(1)])
    assert not list(tmp_path.iterdir())


def test_a_tracker_that_fails_warns_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tensorboard").write_text("a file where a folder is wanted")
    run = run_with(recipe.Tracking(tensorboard=True))
    tell(run, tmp_path, 1, [line(step) for step in range(1, 50)])
    warned = capsys.readouterr().err
    assert warned.count("\n") == 1
    assert "TensorBoard: " in warned
    assert "Training goes on without it" in warned


class Stuck:
    """A tracker whose service never answers."""

    def log(self, global_step: int, values: dict[str, float]) -> None:
        time.sleep(3600)

    def close(self) -> None: ...


def test_a_tracker_that_hangs_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trackers, "_TensorBoard", lambda *_: Stuck())
    monkeypatch.setattr(trackers, "_MAX_WAITING", 5)
    monkeypatch.setattr(trackers, "_CLOSE_SECONDS", 0.2)
    run = run_with(recipe.Tracking(tensorboard=True))
    tell(run, tmp_path, 1, [line(step) for step in range(1, 50)])
    assert capsys.readouterr().err.count("TensorBoard: is 5 steps behind") == 1


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = recipe.Tracking(tensorboard=True, wandb_project="snow")
    assert not list(trackers.faults(asked))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = [str(fault) for fault in trackers.faults(asked)]
    assert found == [
        f"tracking.{field}: the package `{package}` is not installed. "
        "Install it: pip install 'snowcoder-jax[tracking]'."
        for field, package in (("tensorboard", "tensorboardX"), ("wandb_project", "wandb"))
    ]
    assert not list(trackers.faults(recipe.Tracking()))


def test_a_missing_package_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *a: None if name == "wandb" else find(name, *a)
    )
    run = dataclasses.replace(run_with(recipe.Tracking(wandb_project="p")), output=str(tmp_path))
    with pytest.raises(InputError, match=r"wandb_project: .* pip install 'snowcoder-jax\[tracking"):
        preflight.require(run)


@pytest.mark.parametrize("steps", [(3,), (0, 2), (3, 2), (1, 2, 3)])
def test_profile_steps_are_a_range(steps: tuple[int, ...]) -> None:
    def found(steps: tuple[int, ...]) -> list[str]:
        faults = check_recipe(run_with(recipe.Tracking(profile_steps=steps)))
        return [fault.field for fault in faults if fault.field.startswith("tracking")]

    assert found(steps) == ["tracking.profile_steps"]
    assert found((2, 2)) == found(()) == []


WANDB = """
import sys, pathlib
import test_trackers as t
from snowcoder_jax import recipe
folder, first = pathlib.Path(sys.argv[1]), int(sys.argv[2])
run = t.run_with(recipe.Tracking(wandb_project="snow"))
t.tell(run, folder, first, [t.line(step) for step in range(first, first + 4)])
"""


def wandb_process(folder: Path, first: int, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    paths = [str(Path(__file__).parent), *(p for p in sys.path if p)]
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-c", WANDB, str(folder), str(first)],
        env={
            **kept,
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.pathsep.join(paths),
            "HOME": str(folder),
            "WANDB_ERROR_REPORTING": "false",
            **env,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        stdin=subprocess.DEVNULL,
    )


def read_wandb(path: Path) -> tuple[str, dict[int, float]]:
    """The run's id and its losses by step, from the file that `wandb sync` sends."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole, run_id = path.read_bytes(), 7, b"", ""
    losses: dict[int, float] = {}
    while at < len(data):
        left = -at % 32_768 or 32_768
        if left < 7:  # a block's end that holds no header
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind not in (1, 4):  # a record goes on in the next block
            continue
        record, whole = Record.FromString(whole), b""
        run_id = record.run.run_id or run_id
        for item in record.history.item:
            if "train/loss" in (item.key, *item.nested_key):
                assert record.history.step.num not in losses
                losses[record.history.step.num] = float(item.value_json)
    return run_id, losses


@pytest.mark.slow
def test_wandb_offline_keeps_every_step_under_one_id(tmp_path: Path) -> None:
    for first in (1, 3):
        process = wandb_process(tmp_path, first, WANDB_MODE="offline")
        assert "Training goes on without" not in process.stderr, process.stderr
    (id_1, losses_1), (id_2, losses_2) = (
        read_wandb(path) for path in sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    )
    assert id_1 == id_2 != ""
    assert losses_1 == {101: 9.0, 102: 8.0, 103: 7.0, 104: 6.0}
    assert losses_2 == {103: 7.0, 104: 6.0, 105: 5.0, 106: 4.0}


@pytest.mark.slow
def test_wandb_without_login_or_network_costs_one_warning(tmp_path: Path) -> None:
    process = wandb_process(tmp_path, 1, WANDB_MODE="online")
    assert "no login: run `wandb login`" in process.stderr
    assert process.stderr.count("Training goes on without it") == 1
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        process = wandb_process(tmp_path, 1, WANDB_BASE_URL=url, WANDB_API_KEY="0" * 40)
    assert process.stderr.count("Training goes on without it") == 1
