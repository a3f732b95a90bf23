"""The environment that scripts make before anything else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# `python -m venv FOLDER` makes a folder, slowly, whose own python installs anything at once.
PYTHON = f"""#!/usr/bin/env bash
[ "$1" != -c ] || exec {sys.executable} "$@"
echo "$*" >>"$LOG"
sleep 1
mkdir -p "$3/bin"
printf '#!/bin/sh\\n' >"$3/bin/python"
chmod +x "$3/bin/python"
"""


def prepare(folder: Path, program: str = PYTHON) -> None:
    (folder / "python").write_text(program)
    (folder / "python").chmod(0o755)
    (folder / "launch").mkdir()
    shutil.copy(ROOT / "launch" / "setup.sh", folder / "launch")
    for name in ("pyproject.toml", "lock.txt"):
        (folder / name).touch()


# The same, and then its torch cannot be imported until it comes from PyTorch's own index.
PYTHON_WITH_CUDA_TORCH = PYTHON.replace(
    "printf '#!/bin/sh\\n' >",
    r"""printf '#!/bin/sh
echo "$*" >>"$LOG"
case "$*" in
  "-c "*"import torch"*) [ -f "$LOG.cpu" ] || echo 2.13.0 ;;
  *download.pytorch.org*) %s ;;
esac' "$INSTALL" >""",
)


def start(folder: Path, **variables: str) -> subprocess.Popen[str]:
    script = "source launch/setup.sh; set_up_environment env lock.txt; echo $PYTHON"
    python = {"SNOWCODER_PYTHON": str(folder / "python"), "LOG": str(folder / "log")}
    return subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, **python, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(shutil.which("flock") is None, reason="this machine has no flock")
def test_of_scripts_at_once_one_makes_the_environment_and_the_others_wait(tmp_path: Path) -> None:
    prepare(tmp_path)
    started = [start(tmp_path) for _ in range(3)]
    told = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert told == ["env/bin/python\n"] * 3
    assert (tmp_path / "log").read_text() == "-m venv env\n"


def test_a_fault_of_the_setting_up_ends_the_script(tmp_path: Path) -> None:
    prepare(tmp_path, PYTHON.replace("sleep 1", "exit 1"))
    process = start(tmp_path)
    assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == 1


def test_a_torch_that_needs_cuda_is_replaced_by_the_one_that_does_not(tmp_path: Path) -> None:
    prepare(tmp_path, PYTHON_WITH_CUDA_TORCH)
    process = start(tmp_path, INSTALL='touch "$LOG.cpu"')
    told, errors = process.communicate(timeout=60)
    assert (process.returncode, told) == (0, "env/bin/python\n"), errors
    assert "torch 2.13.0 needs CUDA here; taking its CPU build from https://" in errors
    asked = [line for line in (tmp_path / "log").read_text().splitlines() if " install " in line]
    assert [line.split()[-1] for line in asked] == ["lock.txt", "torch==2.13.0", "."]
    assert "--force-reinstall --index-url https://download.pytorch.org/whl/cpu" in asked[1]


def test_an_environment_that_brings_cuda_keeps_its_torch(tmp_path: Path) -> None:
    prepare(tmp_path, PYTHON_WITH_CUDA_TORCH)
    (tmp_path / "lock.txt").write_text("nvidia-cudnn-cu13==9.20.0.48\n")
    process = start(tmp_path, INSTALL="exit 1")
    told, errors = process.communicate(timeout=60)
    assert (process.returncode, told) == (0, "env/bin/python\n"), errors
    assert "torch" not in (tmp_path / "log").read_text()


def test_where_the_index_of_torch_cannot_be_reached_the_script_ends(tmp_path: Path) -> None:
    prepare(tmp_path, PYTHON_WITH_CUDA_TORCH)
    process = start(tmp_path, INSTALL="exit 1")
    told, errors = process.communicate(timeout=60)
    assert (process.returncode, told) == (1, "")
    assert "Could not get it" in errors
    assert not (tmp_path / "env" / "stamp").exists()
