"""How a process finds the others, what it reads of a batch, and what a hang prints."""

from __future__ import annotations

import subprocess
import sys

import jax
import pytest

from snowcoder_jax import recipe
from snowcoder_jax.errors import InputError
from snowcoder_jax.training import distributed
from snowcoder_jax.training.launch import Launch, find_launch
from snowcoder_jax.training.mesh import make_mesh

SLURM = {
    "SLURM_JOB_ID": "1",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_NTASKS": "2",
}
CPU = {"JAX_PLATFORMS": "cpu"}
OURS = {
    "SNOWCODER_COORDINATOR": "host:1234",
    "SNOWCODER_NUM_PROCESSES": "4",
    "SNOWCODER_PROCESS_ID": "3",
}


def test_flags_go_before_the_environment_and_that_before_slurm() -> None:
    assert find_launch("a:1", 2, 0, {**CPU, **OURS, **SLURM}) == Launch("given", "a:1", 2, 0)
    assert find_launch(None, None, None, OURS) == Launch("given", "host:1234", 4, 3)
    assert find_launch(None, None, 1, OURS) == Launch("given", "host:1234", 4, 1)
    assert find_launch(None, None, None, {**CPU, **SLURM}) == Launch("slurm")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        # The batch script itself, and a job of one task.
        {name: value for name, value in SLURM.items() if name != "SLURM_STEP_NODELIST"},
        {**SLURM, "SLURM_NTASKS": "1"},
    ],
)
def test_a_process_of_its_own_looks_for_nobody(environment: dict[str, str]) -> None:
    assert find_launch(None, None, None, {**CPU, **environment}) is None


@pytest.mark.parametrize(
    ("flags", "environment", "named"),
    [
        (("host:1", None, None), {}, "--num-processes and --process-id: missing"),
        ((None, 2, None), {"SNOWCODER_PROCESS_ID": "0"}, "--coordinator: missing"),
        (("host:1", 2, 2), {}, "--process-id 2: is none of the 2 processes"),
        (("host:1", 2, -1), {}, "--process-id -1: is none"),
        (("host", 2, 0), {}, "--coordinator host: has no port"),
        ((None, None, None), {**OURS, "SNOWCODER_PROCESS_ID": "one"}, "SNOWCODER_PROCESS_ID"),
    ],
)
def test_half_a_description_is_refused(
    flags: tuple[str | None, int | None, int | None], environment: dict[str, str], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        find_launch(*flags, environment)


def test_one_process_reads_whole_batches() -> None:
    mesh = make_mesh(recipe.Mesh(), jax.devices()[:1])
    assert distributed.row_share(mesh, 8) == (0, 1)


def test_a_hang_prints_every_threads_stack_again_and_again() -> None:
    """And signs of life put it off."""
    code = """
import threading, time
from snowcoder_jax.training.watch import hang_watch

def reader():
    threading.Event().wait(30)

threading.Thread(target=reader, daemon=True).start()
with hang_watch(0.5 / 60) as is_alive:
    for _ in range(8):
        time.sleep(0.1)
        is_alive()
    print("a step each 0.1 s", flush=True)
    time.sleep(1.3)
print("went on", flush=True)
time.sleep(0.7)
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    before, after = result.stdout.split("a step each 0.1 s")
    assert "Timeout" not in before
    assert after.count("Timeout") == 2
    assert after.count(" in reader\n") == 2
    assert "went on" in after.rpartition("Timeout")[2]
    assert result.returncode == 0
