"""What the scripts for TPUs and SLURM ask of `gcloud`, `srun` and `scontrol`."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
BASE = {"PROJECT": "some-project", "ZONE": "us-east5-a", "NAME": "snow", "TYPE": "v5p-16"}
WHERE = ["--project=some-project", "--zone=us-east5-a"]


def make_recorder(folder: Path, name: str, script: str = "") -> Path:
    """A program of that name that notes its arguments, one line a call, split by tabs."""
    log = folder / f"{name}.log"
    log.touch()
    program = folder / name
    program.write_text(f"#!/usr/bin/env bash\n(IFS=$'\\t'; echo \"$*\") >>{log}\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    return log


def calls(log: Path) -> list[list[str]]:
    return [line.split("\t") for line in log.read_text().splitlines()]


def tpu(
    folder: Path, *arguments: str, cwd: Path = ROOT, **more: str
) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
    log = make_recorder(folder, "gcloud")
    env = {**os.environ, **BASE, **more, "PATH": f"{folder}:{os.environ['PATH']}"}
    result = subprocess.run(
        ["bash", str(ROOT / "launch/tpu/tpu.sh"), *arguments],
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return result, calls(log)


@pytest.mark.parametrize(
    ("more", "want"),
    [
        (
            {},
            ["tpu-vm", "create", "snow", "--accelerator-type=v5p-16", "--version=v2-alpha-tpuv5"],
        ),
        (
            {"SPOT": "1", "QUEUED": "1", "TYPE": "v5litepod-16"},
            [
                "queued-resources",
                "create",
                "snow",
                "--accelerator-type=v5litepod-16",
                "--runtime-version=v2-alpha-tpuv5-lite",
                "--spot",
                "--node-id=snow",
            ],
        ),
        (
            {"SLICES": "2", "VERSION": "image"},
            [
                "queued-resources",
                "create",
                "snow",
                "--accelerator-type=v5p-16",
                "--runtime-version=image",
                "--node-count=2",
                "--node-prefix=snow",
            ],
        ),
    ],
)
def test_a_tpu_is_made_at_once_or_queued(
    tmp_path: Path, more: dict[str, str], want: list[str]
) -> None:
    result, called = tpu(tmp_path, "create", **more)
    assert result.returncode == 0, result.stderr
    assert called == [["compute", "tpus", *want, *WHERE]]


def test_every_worker_gets_this_commit(tmp_path: Path) -> None:
    result, called = tpu(tmp_path, "install")
    assert result.returncode == 0, result.stderr
    (copy, unpack) = called
    assert copy[2:4] == ["tpu-vm", "scp"]
    assert copy[5:7] == ["snow:snowcoder-jax.tar.gz", "--worker=all"]
    assert unpack[2:6] == ["tpu-vm", "ssh", "snow", "--worker=all"]
    assert "launch/tpu/worker.sh install" in unpack[6]


def test_training_starts_on_every_worker_of_every_slice(tmp_path: Path) -> None:
    result, called = tpu(
        tmp_path, "train", "configs/local.yaml", "output=gs://b/it's here", SLICES="2"
    )
    assert result.returncode == 0, result.stderr
    copies, starts = called[:2], called[2:]
    assert [c[5] for c in copies] == [f"snow-{i}:snowcoder-jax/recipe.yaml" for i in (0, 1)]
    assert [s[4] for s in starts] == ["snow-0", "snow-1"]
    remote = starts[0][6].removeprefix("--command=")
    # What the worker's shell makes of it.
    said = subprocess.run(
        ["bash", "-c", f'bash() {{ printf "%s\\n" "$@"; }}; {remote}'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.splitlines()[1:] == ["start", "recipe.yaml", "output=gs://b/it's here"]


def test_a_recipe_that_is_not_there_is_refused_before_any_call(tmp_path: Path) -> None:
    result, called = tpu(tmp_path, "train", "configs/nothing.yaml")
    assert result.returncode == 2
    assert "name a recipe file" in result.stderr
    assert not called


@pytest.mark.parametrize(
    ("command", "more", "want"),
    [
        (["delete"], {}, ["tpu-vm", "delete", "snow", "--quiet"]),
        (["delete"], {"QUEUED": "1"}, ["queued-resources", "delete", "snow", "--force", "--quiet"]),
        (
            ["logs", "3"],
            {},
            [
                "tpu-vm",
                "ssh",
                "snow",
                "--worker=3",
                "--command=tail -n 100 -F snowcoder-jax/snowcoder.log",
            ],
        ),
        (
            ["stop"],
            {},
            [
                "tpu-vm",
                "ssh",
                "snow",
                "--worker=all",
                "--command=bash snowcoder-jax/launch/tpu/worker.sh stop",
            ],
        ),
    ],
)
def test_logs_stop_and_delete(
    tmp_path: Path, command: list[str], more: dict[str, str], want: list[str]
) -> None:
    result, called = tpu(tmp_path, *command, **more)
    assert result.returncode == 0, result.stderr
    assert called == [["compute", "tpus", *want, *WHERE]]


def test_a_dry_run_prints_and_calls_nothing(tmp_path: Path) -> None:
    result, called = tpu(tmp_path, "--dry-run", "create", SPOT="1")
    assert not called
    assert result.stdout.split()[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "create", "snow"]
    assert "--spot" in result.stdout


@pytest.mark.parametrize(("ends", "num_starts"), [("75 1 134 0", 4), ("75 2", 2)])
def test_a_worker_starts_training_again_until_it_is_done_or_refused(
    tmp_path: Path, ends: str, num_starts: int
) -> None:
    """`ends`: the exit codes of `snowcoder train`, one after the other."""
    repository = tmp_path / "repository"
    (repository / "launch/tpu").mkdir(parents=True)
    (repository / ".venv/bin").mkdir(parents=True)
    script = ROOT / "launch/tpu/worker.sh"
    (repository / "launch/tpu/worker.sh").write_bytes(script.read_bytes())
    log = make_recorder(
        repository / ".venv/bin",
        "snowcoder",
        f'codes=({ends}); exit "${{codes[$(wc -l <{repository}/.venv/bin/snowcoder.log) - 1]}}"',
    )
    result = subprocess.run(
        ["bash", str(repository / "launch/tpu/worker.sh"), "supervise", "recipe.yaml", "name=a b"],
        env={**os.environ, "RESTART_SECONDS": "0"},
        timeout=60,
    )
    assert result.returncode == int(ends.split()[-1])
    assert calls(log) == [["train", "recipe.yaml", "name=a b"]] * num_starts


@pytest.mark.parametrize(
    ("code", "restarts", "is_queued_again"),
    [(0, 0, False), (2, 0, False), (75, 0, True), (1, 3, True), (1, 100, False)],
)
def test_a_slurm_job_is_queued_again_unless_done_or_refused(
    tmp_path: Path, code: int, restarts: int, is_queued_again: bool
) -> None:
    started = make_recorder(tmp_path, "srun", f"exit {code}")
    queued = make_recorder(tmp_path, "scontrol")
    env = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "17",
        "SLURM_RESTART_COUNT": str(restarts),
    }
    script = str(ROOT / "launch/slurm/train.sh")
    result = subprocess.run(
        ["bash", script, "recipe.yaml", "name=a b"], env=env, timeout=60, capture_output=True
    )
    assert result.returncode == code
    want = ["--kill-on-bad-exit=0", ".venv/bin/snowcoder", "train", "recipe.yaml", "name=a b"]
    assert calls(started) == [want]
    assert calls(queued) == ([["requeue", "17"]] if is_queued_again else [])
