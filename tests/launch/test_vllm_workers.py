"""The scripts that start workers: what they start, when they start it again, what they pass on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MAIN = ["-m", "snowcoder_jax.synthesis.worker"]


class Started:
    """A script of launch/vllm/ whose `python` notes its arguments and runs `script` instead.

    The script knows how often it was started from $n, from 1.
    """

    def __init__(self, folder: Path, name: str, *arguments: str, script: str, **env: str) -> None:
        self.folder = folder
        self._write("python", f'n=$(wc -l <"{folder}/python.log")\n{script}')
        self._write("scontrol", "")
        self.process = subprocess.Popen(
            ["bash", str(ROOT / "launch" / "vllm" / name), *arguments],
            env={
                **os.environ,
                "PATH": f"{folder}:{os.environ['PATH']}",
                "SNOWCODER_VLLM_PYTHON": str(folder / "python"),
                "SNOWCODER_ROOT": str(ROOT),
                "RESTART_SECONDS": "0",
                **env,
            },
            cwd=ROOT,
            stderr=(folder / "errors.log").open("w"),
        )

    def _write(self, name: str, script: str) -> None:
        program = self.folder / name
        log = self.folder / f"{name}.log"
        log.touch()
        program.write_text(f'#!/usr/bin/env bash\necho "$*" >>"{log}"\n{script}\n')
        program.chmod(0o755)

    def calls(self, name: str = "python") -> list[list[str]]:
        return [line.split() for line in (self.folder / f"{name}.log").read_text().splitlines()]

    def wait_for_call(self) -> None:
        deadline = time.monotonic() + 20
        while not (self.folder / "ready").exists():
            assert time.monotonic() < deadline and self.process.poll() is None
            time.sleep(0.02)


# Is ready, and ends with 75 when it is told to stop, as the worker does.
STOPPABLE = 'trap "sleep 0.3; exit 75" TERM; touch "$(dirname "$0")/ready"; sleep 60 & wait'


def test_a_worker_that_fails_is_started_again_until_it_is_done(tmp_path: Path) -> None:
    started = Started(tmp_path, "worker.sh", "ASK", "--worker", "3", "--num-workers", "8",
                      script="[ $n -ge 3 ] || exit $((n * 74 + 1))")  # fmt: skip
    assert started.process.wait(30) == 0
    assert started.calls() == [[*MAIN, "ASK", "--worker", "3", "--num-workers", "8"]] * 3


def test_a_fault_of_the_input_and_too_many_restarts_end_it(tmp_path: Path) -> None:
    faulty, failing = tmp_path / "faulty", tmp_path / "failing"
    faulty.mkdir()
    failing.mkdir()
    started = Started(faulty, "worker.sh", "ASK", script="exit 2")
    assert started.process.wait(30) == 2
    assert len(started.calls()) == 1
    started = Started(failing, "worker.sh", "ASK", script="exit 1", MAX_RESTARTS="2")
    assert started.process.wait(30) == 1
    assert len(started.calls()) == 3


def test_a_stop_is_passed_on_and_waited_for(tmp_path: Path) -> None:
    started = Started(tmp_path, "worker.sh", "ASK", script=STOPPABLE)
    started.wait_for_call()
    started.process.send_signal(signal.SIGTERM)
    assert started.process.wait(30) == 75
    assert len(started.calls()) == 1


@pytest.mark.parametrize(
    ("name", "command"), [("worker.sh", "worker=$!"), ("slurm.sh", "child=$!")]
)
def test_a_stop_before_it_is_known_whom_to_pass_it_on_to_is_not_lost(
    tmp_path: Path, name: str, command: str
) -> None:
    stop = tmp_path / "stop.sh"
    stop.write_text(f"trap '[ \"$BASH_COMMAND\" != '\\''{command}'\\'' ] || kill -TERM $$' DEBUG\n")
    ids = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "1", "SLURM_ARRAY_JOB_ID": "7"}
    started = Started(tmp_path, name, "ASK", script="sleep 20", BASH_ENV=str(stop), **ids)
    began = time.monotonic()
    assert started.process.wait(30) == 75
    assert time.monotonic() - began < 15
    assert (started.calls("scontrol") != []) == (name == "slurm.sh")


def test_a_stop_in_the_pause_before_a_restart_is_not_forgotten(tmp_path: Path) -> None:
    started = Started(tmp_path, "worker.sh", "ASK", script="exit 1", RESTART_SECONDS="2")
    deadline = time.monotonic() + 20
    while "follows" not in (tmp_path / "errors.log").read_text():
        assert time.monotonic() < deadline and started.process.poll() is None
        time.sleep(0.02)
    started.process.send_signal(signal.SIGTERM)
    assert started.process.wait(30) == 75
    assert len(started.calls()) == 1


def test_a_task_of_a_slurm_array_is_a_worker_and_queued_again_when_stopped(tmp_path: Path) -> None:
    started = Started(
        tmp_path,
        "slurm.sh",
        "ASK",
        script=STOPPABLE,
        SLURM_ARRAY_TASK_ID="5",
        SLURM_ARRAY_TASK_COUNT="8",
        SLURM_ARRAY_JOB_ID="77",
    )
    started.wait_for_call()
    assert started.calls() == [[*MAIN, "ASK", "--worker", "5", "--num-workers", "8"]]
    started.process.send_signal(signal.SIGTERM)
    assert started.process.wait(30) == 75
    assert started.calls("scontrol") == [["requeue", "77_5"]]


@pytest.mark.parametrize("code", [0, 2])
def test_a_slurm_task_that_is_through_is_not_queued_again(tmp_path: Path, code: int) -> None:
    ids = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "1", "SLURM_ARRAY_JOB_ID": "7"}
    started = Started(tmp_path, "slurm.sh", "ASK", script=f"exit {code}", **ids)
    assert started.process.wait(30) == code
    assert started.calls("scontrol") == []


def test_the_pods_of_the_kubernetes_job_are_all_the_workers() -> None:
    spec = yaml.safe_load((ROOT / "launch" / "vllm" / "gke.yaml").read_text())["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    env = {variable["name"]: variable["value"] for variable in container["env"]}
    assert spec["completionMode"] == "Indexed"
    assert str(spec["completions"]) == env["NUM_WORKERS"]
    command = container["command"][-1]
    assert '--worker "$JOB_COMPLETION_INDEX" --num-workers "$NUM_WORKERS"' in command
    assert (ROOT / command.split()[1]).exists()
    # The models' folder of the guide's example is where the pods have it.
    guide = (ROOT / "docs" / "synthesis.md").read_text()
    (model,) = set(re.findall(r"kind: vllm, model: (/[^,]+),", guide))
    assert str(Path(model).parent) in [mount["mountPath"] for mount in container["volumeMounts"]]
    assert "maxFailedIndexes" not in spec  # one worker that gives up would end all others
    keys = {one["key"] for one in spec["template"]["spec"]["tolerations"]}
    assert "cloud.google.com/gke-spot" in keys
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    # A fault of the input would only be repeated.
    assert any(
        rule["action"] == "FailJob" and rule["onExitCodes"]["values"] == [2]
        for rule in spec["podFailurePolicy"]["rules"]
    )
