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


def start(folder: Path) -> subprocess.Popen[str]:
    script = "source launch/setup.sh; set_up_environment env lock.txt; echo $PYTHON"
    python = {"SNOWCODER_PYTHON": str(folder / "python"), "LOG": str(folder / "log")}
    return subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, **python},
        stdout=subprocess.PIPE,
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
