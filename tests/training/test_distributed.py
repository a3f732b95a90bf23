"""How a process finds the others, what it reads of a batch, and what a hang prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import hosts
import jax
import pytest

from snowcoder_jax import recipe
from snowcoder_jax.errors import EXIT_DONE, EXIT_SAVED, InputError
from snowcoder_jax.training import distributed
from snowcoder_jax.training.launch import Launch, find_launch
from snowcoder_jax.training.mesh import make_mesh

SLURM = {
    "SLURM_JOB_ID": "1",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    # The job's; the step's is what counts.
    "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_TASKS": "2",
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
    assert find_launch(None, None, None, {**CPU, **SLURM}) == Launch("slurm", num_processes=2)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        # The batch script itself; the shell of an interactive allocation; a step of one task.
        {name: value for name, value in SLURM.items() if name != "SLURM_STEP_NODELIST"},
        {name: value for name, value in SLURM.items() if name != "SLURM_STEP_NUM_TASKS"},
        {**SLURM, "SLURM_STEP_NUM_TASKS": "1"},
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


def test_a_process_that_no_metadata_server_knows_works_alone_and_says_so() -> None:
    code = """
from snowcoder_jax.training import distributed
from snowcoder_jax.training.launch import Launch

distributed.initialize(Launch("tpu"))
import jax
print(distributed.process_count(), jax.numpy.arange(4).sum())
"""
    clusters = ("SLURM_", "KUBERNETES_", "OMPI_", "TPU_", "JAX_COORD")
    mine = {name: value for name, value in os.environ.items() if not name.startswith(clusters)}
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**mine, **CPU},
    )
    assert result.stdout == "1 6\n", result.stderr
    assert result.stderr.count("this process works alone") == 1
    assert "Traceback" not in result.stderr


HOW_SHUTDOWN_FAILS = {
    "another died": 'raise RuntimeError("barrier: another process is gone")',
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)",
}
SHUTDOWN_FAILS = """
import os, signal, sys, threading, time
import jax
from snowcoder_jax import cli
from snowcoder_jax.training import distributed, launch

def shutdown():
    {fails}

jax.distributed.shutdown = shutdown
"""


@pytest.mark.parametrize("fails", HOW_SHUTDOWN_FAILS.values(), ids=HOW_SHUTDOWN_FAILS.keys())
@pytest.mark.parametrize("code", [EXIT_DONE, EXIT_SAVED])
def test_a_shutdown_that_fails_ends_the_process_with_the_code_agreed_on(
    fails: str, code: int
) -> None:
    program = (
        SHUTDOWN_FAILS.format(fails=fails)
        + f"""
distributed.process_count = lambda: 2
distributed.gathered = lambda topic, value: [value, value]
distributed._listener = threading.Thread(target=lambda: None)
distributed._listener.start()
sys.exit(cli.exit_code(lambda: {code}) + 100)
"""
    )
    result = subprocess.run([sys.executable, "-c", program], env={**os.environ, **CPU}, timeout=30)
    assert result.returncode == code


def test_sigterm_before_the_shutdown_ends_a_process_that_is_leaving() -> None:
    """It comes when the first `leave` has just taken the lock."""
    program = (
        SHUTDOWN_FAILS.format(fails="pass")
        + """
distributed.process_count = lambda: 2
distributed._listener = threading.Thread(target=lambda: None)
distributed._listener.start()
distributed._is_leaving.acquire()

def work():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

sys.exit(cli.exit_code(work) + 100)
"""
    )
    result = subprocess.run([sys.executable, "-c", program], env={**os.environ, **CPU}, timeout=30)
    assert result.returncode == EXIT_SAVED


@pytest.mark.slow
@pytest.mark.parametrize("fails", HOW_SHUTDOWN_FAILS.values(), ids=HOW_SHUTDOWN_FAILS.keys())
def test_shutdowns_that_fail_end_all_processes_with_the_code(fails: str, tmp_path: Path) -> None:
    program = (
        SHUTDOWN_FAILS.format(fails=fails)
        + f"""
distributed.initialize(launch.find_launch(None, None, None, os.environ))
sys.exit(cli.exit_code(lambda: {EXIT_SAVED}) + 100)
"""
    )
    run = hosts.Hosts([sys.executable, "-c", program], 2, 1, tmp_path)
    assert run.codes(60) == [EXIT_SAVED, EXIT_SAVED], run.output()


@pytest.mark.slow
@pytest.mark.parametrize("late", [0, 1])
def test_a_process_may_come_to_the_end_later_than_the_shutdown_waits(
    late: int, tmp_path: Path
) -> None:
    program = f"""
import functools, os, sys, time
import jax
from snowcoder_jax import cli
from snowcoder_jax.training import distributed, launch

jax.distributed.initialize = functools.partial(
    jax.distributed.initialize, shutdown_timeout_seconds=2
)
distributed.initialize(launch.find_launch(None, None, None, os.environ))

def work():
    time.sleep(6 if distributed.process_index() == {late} else 0)
    return {EXIT_SAVED}

sys.exit(cli.exit_code(work))
"""
    run = hosts.Hosts([sys.executable, "-c", program], 2, 1, tmp_path)
    assert run.codes(60) == [EXIT_SAVED, EXIT_SAVED], run.output()
    assert all(not text for text in run.texts()), run.output()


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


def test_a_stuck_interpreter_prints_its_stacks_too() -> None:
    """A call into C that keeps the interpreter to itself, as a deadlock in a driver does."""
    code = """
import ctypes
from snowcoder_jax.training import watch

watch._GRACE_SECONDS = 0.5

def in_a_driver():
    ctypes.PyDLL(None).usleep(1_500_000)

with watch.hang_watch(0.5 / 60) as is_alive:
    in_a_driver()
print("went on", flush=True)
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout
    before = result.stdout.partition("went on")[0]
    assert "Timeout (0:00:01)!" in before
    assert " in in_a_driver\n" in before


def test_printing_the_stacks_of_busy_threads_ends_nothing() -> None:
    code = """
import threading, time
from snowcoder_jax.training.watch import hang_watch

def deeper(n):
    return n and deeper(n - 1)

def busy():
    while True:
        deeper(200)

for _ in range(8):
    threading.Thread(target=busy, daemon=True).start()
with hang_watch(0.02 / 60):
    time.sleep(8)
print("went on", flush=True)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr[-1000:]
    assert result.stderr.count("Timeout: no step") > 3
