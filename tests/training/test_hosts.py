"""Several processes as one run: kills, other numbers of hosts, signals, faults of one of them."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import hosts
import pytest
from tiny_training import write_records

from snowcoder_jax.errors import EXIT_INPUT, EXIT_SAVED

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
    run = hosts.trained(tmp_path / "run", packed_folder, 2, 1, cache=cache, HOSTS_STALL="3.5")
    assert run.codes() == [0, 0], run.output()
    stacks = [text.partition("Timeout (")[2] for text in run.texts()]
    assert all("in train_phase" in stack for stack in stacks), run.output()
    assert [" in batch\n" in stack for stack in stacks] == [False, True], run.output()
