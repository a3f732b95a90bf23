"""A worker in vLLM's environment, started and watched by the process of a run.

JAX and vLLM never share an environment: each pins its own versions of everything.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from snowcoder_jax.errors import (
    EXIT_DONE,
    EXIT_INPUT,
    EXIT_MACHINE,
    EXIT_SAVED,
    InputError,
    MachineError,
)

PYTHON_VARIABLE = "SNOWCODER_VLLM_PYTHON"
ROOT = Path(__file__).parents[2]
STOP_SECONDS = 30.0


def vllm_python() -> str:
    """The interpreter of vLLM's environment: $SNOWCODER_VLLM_PYTHON, or beside the checkout.

    Raises:
      MachineError: there is none, with the ways to go on.
    """
    path = os.environ.get(PYTHON_VARIABLE) or str(ROOT / ".venv-vllm" / "bin" / "python")
    if os.access(path, os.X_OK):
        return path
    raise MachineError(
        f"synthesis.teacher: vLLM has an environment of its own, and {path} is not there. Make it: "
        "python3 -m venv .venv-vllm && .venv-vllm/bin/pip install --no-deps -r "
        "launch/vllm/requirements-gpu.txt && .venv-vllm/bin/pip install --no-deps --editable . "
        "(the last for a plugin that ends vLLM's processes with a worker), or set "
        f"{PYTHON_VARIABLE} to the interpreter of one; or start workers on other "
        "machines with launch/vllm/worker.sh, and this command again when they are through: what "
        "they stored is not asked again."
    )


def run_worker(folder: str, limit: int | None = None) -> None:
    """Run a worker on all of the ask in `folder` until it is through; its output is passed on.

    It ends with this process, even where this one is killed: it watches its standard input.

    Raises:
      MachineError, InputError: the environment is not there; the worker failed, and has said why.
      KeyboardInterrupt: it was stopped, and has stored what it had.
    """
    command = [vllm_python(), "-m", "snowcoder_jax.synthesis.worker", folder, "--watch-stdin"]
    if limit is not None:
        command += ["--limit", str(limit)]
    search = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(search)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as process:
        try:
            code = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
    if code == EXIT_SAVED:
        raise KeyboardInterrupt
    if code == EXIT_INPUT:
        raise InputError("synthesis: the worker in vLLM's environment says above what to mend.")
    if code != EXIT_DONE:
        how = "says above why" if code == EXIT_MACHINE else f"died (exit code {code})"
        raise MachineError(
            f"synthesis: the worker in vLLM's environment {how}. Start the same command again: "
            "what was answered is kept."
        )
