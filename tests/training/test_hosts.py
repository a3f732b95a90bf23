"""Several processes as one run: kills, other numbers of hosts, signals, faults of one of them."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from typing import Any

import hosts
import jax
import numpy as np
import pytest
from tiny_training import MODEL, VOCAB_SIZE, write_records

from snowcoder_jax import recipe
from snowcoder_jax.errors import EXIT_INPUT, EXIT_SAVED
from snowcoder_jax.training import checkpoints
from snowcoder_jax.training.mesh import make_mesh
from snowcoder_jax.training.state import state_shapes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]


@pytest.fixture(scope="module")
def packed_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_records(str(tmp_path_factory.mktemp("packed")), 40).folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def straight(packed_folder: str, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes of four devices, uninterrupted."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    run = hosts.trained(folder, packed_folder, 2, 4, cache=cache)
    assert run.codes() == [0, 0], run.output()
    return folder


@pytest.fixture(scope="module")
def killed(packed_folder: str, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes of four devices, killed between the saves of steps 5 and 10."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    run = hosts.trained(folder, packed_folder, 2, 4, pause_seconds=0.1, cache=cache)
    run.wait_for("general 8/12")
    run.kill()
    return folder


@pytest.mark.parametrize(("num_processes", "num_devices"), [(2, 4), (1, 8), (4, 2)])
def test_a_killed_run_goes_on_with_any_number_of_hosts(
    straight: Path,
    killed: Path,
    packed_folder: str,
    cache: Path,
    tmp_path: Path,
    num_processes: int,
    num_devices: int,
) -> None:
    folder = shutil.copytree(killed, tmp_path / "run")
    run = hosts.trained(folder, packed_folder, num_processes, num_devices, attempt="1", cache=cache)
    assert run.codes() == [0] * num_processes, run.output()
    ours, want = hosts.losses(folder), hosts.losses(straight)
    assert [line[:2] for line in ours] == [
        (phase, k) for phase, total in hosts.PHASES.items() for k in range(1, total + 1)
    ]
    if (num_processes, num_devices) == (2, 4):
        assert ours == want
    for (_, _, loss, grad_norm), (_, _, want_loss, want_norm) in zip(ours, want, strict=True):
        assert loss == pytest.approx(want_loss, abs=1e-5)
        assert grad_norm == pytest.approx(want_norm, rel=1e-4)
    assert hosts.sequence_ids(folder) == hosts.sequence_ids(straight)
    general = [
        row for (p, _), rows in hosts.sequence_ids(folder).items() for row in rows if p == "general"
    ]
    assert len(set(general)) == len(general) == 96, "in an epoch every sequence stands once"


def test_sigterm_to_one_host_saves_all_at_one_step(
    straight: Path, packed_folder: str, cache: Path, tmp_path: Path
) -> None:
    run = hosts.trained(tmp_path / "run", packed_folder, 2, 4, pause_seconds=0.2, cache=cache)
    run.wait_for("general 2/12")
    run.processes[1].send_signal(signal.SIGTERM)
    assert run.codes() == [EXIT_SAVED, EXIT_SAVED], run.output()
    messages = [
        [line for line in text.splitlines() if "saved at step" in line] for text in run.texts()
    ]
    assert len(messages[0]) == 1
    assert messages[0] == messages[1]
    again = hosts.trained(tmp_path / "run", packed_folder, 2, 4, attempt="1", cache=cache)
    assert again.codes() == [0, 0], again.output()
    assert hosts.losses(tmp_path / "run") == hosts.losses(straight)


def test_a_host_with_another_recipe_stops_all_before_training(
    packed_folder: str, tmp_path: Path
) -> None:
    run = hosts.trained(tmp_path / "run", packed_folder, 2, 1, seeds=(3, 4))
    assert run.codes() == [EXIT_INPUT, EXIT_INPUT], run.output()
    for text in run.texts():
        assert "seed: 3 in process 0, 4 in process 1" in text
        assert "Traceback" not in text
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_fault_of_one_host_ends_all_with_its_message(
    packed_folder: str, cache: Path, tmp_path: Path
) -> None:
    """The second process alone is interrupted before it trains, as by a Ctrl-C on its host."""
    run = hosts.trained(tmp_path / "run", packed_folder, 2, 1, pause_seconds=0.5, cache=cache)
    run.wait_for("general 2/12")
    run.processes[1].send_signal(signal.SIGINT)
    assert run.codes(60) == [EXIT_SAVED, EXIT_SAVED], run.output()
    assert "process 1: interrupted" in run.texts()[0]


def test_a_hang_shows_where_every_host_stands(
    packed_folder: str, cache: Path, tmp_path: Path
) -> None:
    """The second process waits in its reader, the first for it in the step."""
    run = hosts.trained(tmp_path / "run", packed_folder, 2, 1, cache=cache, HOSTS_STALL="5")
    assert run.codes() == [0, 0], run.output()
    stacks = [text.partition("Timeout: no step for")[2] for text in run.texts()]
    assert all("in train_phase" in stack for stack in stacks), run.output()
    assert ["in stand_still" in stack for stack in stacks] == [False, True], run.output()


def first_moments(packed_folder: str, run_folder: Path, cache: Path, *hosts_of: int) -> Any:
    """AdamW's after step 1, which is a tenth of the clipped gradients, read on one device."""
    num_processes, num_devices = hosts_of
    run = hosts.trained(
        run_folder, packed_folder, num_processes, num_devices, cache=cache, HOSTS_SAVE_ALL="1"
    )
    run.wait_for("general 4/12")
    run.kill()
    mesh = make_mesh(recipe.Mesh(), jax.devices()[:1])
    shapes = state_shapes(MODEL, VOCAB_SIZE, recipe.Optimizer(), mesh)
    moments = checkpoints.restore_moments(str(run_folder / "checkpoints/general"), 1, shapes)
    found = {jax.tree_util.keystr(p): x for p, x in jax.tree.leaves_with_path(moments)}
    return {name: np.asarray(x) for name, x in found.items() if ".mu" in name}


def test_gradients_are_those_of_one_process(
    packed_folder: str, cache: Path, tmp_path: Path
) -> None:
    """Each element within 1e-4 of the largest of its parameter, float32."""
    ours = first_moments(packed_folder, tmp_path / "two", cache, 2, 4)
    want = first_moments(packed_folder, tmp_path / "one", cache, 1, 8)
    assert ours.keys() == want.keys()
    assert len(want) > 8
    for name, x in want.items():
        assert np.abs(x).max() > 0, name
        assert np.abs(ours[name] - x).max() < 1e-4 * np.abs(x).max(), name


@pytest.mark.parametrize("moment", ["last step logged", "last step saved"])
def test_a_kill_between_two_phases_changes_no_bit(
    straight: Path, packed_folder: str, cache: Path, tmp_path: Path, moment: str
) -> None:
    """The last step of the first phase is done; its checkpoint is not begun, or just whole."""
    folder = tmp_path / "run"
    run = hosts.trained(folder, packed_folder, 2, 4, pause_seconds=0.5, cache=cache)
    last = folder / "checkpoints/general/12.manifest.json"
    run.wait_for("general 12/12")
    if moment == "last step saved":
        deadline = time.monotonic() + 60
        while not last.exists():
            assert time.monotonic() < deadline, run.output()
            time.sleep(0.005)
    run.kill()
    assert last.exists() == (moment == "last step saved")
    assert "continued 1/6" not in run.texts()[0]
    again = hosts.trained(folder, packed_folder, 2, 4, attempt="1", cache=cache)
    assert again.codes() == [0, 0], again.output()
    assert hosts.losses(folder) == hosts.losses(straight)
    assert hosts.sequence_ids(folder) == hosts.sequence_ids(straight)
