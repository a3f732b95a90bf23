"""The worker processes of a local run: kept between pipelines, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import apache_beam as beam
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines import workers
from beam_pipelines.options import local_options
from snowcoder_jax.errors import EXIT_MACHINE

# Prints the process of each element, and then does with it what the test says.
PROGRAM = """
import os, signal, sys, time
import apache_beam as beam
from beam_pipelines import workers
from beam_pipelines.options import local_options
from snowcoder_jax import cli

def work(_):
    print(os.getpid(), flush=True)
    {work}

def main():
    with workers.pipeline(local_options(2)) as pipeline:
        _ = pipeline | beam.Create([1]) | beam.Map(work)

sys.exit(cli.exit_code(main))
"""


def process_of(_: int) -> int:
    return os.getpid()


def processes(num_workers: int, folder: str) -> set[int]:
    """The processes that four elements are worked on in."""
    with workers.pipeline(local_options(num_workers)) as pipeline:
        _ = (
            pipeline
            | beam.Create(range(4), reshuffle=False)
            | beam.Reshuffle()
            | beam.Map(process_of)
            | beam.Map(str)
            | beam.io.WriteToText(folder + "/out", num_shards=1)
        )
    with open(folder + "/out-00000-of-00001", encoding="utf-8") as f:
        return {int(line) for line in f}


def test_two_workers_are_two_other_processes_that_later_pipelines_use_again(tmp_path) -> None:
    first, second = (processes(2, str(tmp_path / name)) for name in ("a", "b"))
    assert len(first) == 2
    assert os.getpid() not in first
    assert second == first


def test_processes_that_were_ended_or_died_since_are_replaced(tmp_path) -> None:
    first = processes(2, str(tmp_path / "a"))
    workers.close()
    second = processes(2, str(tmp_path / "b"))
    os.kill(min(second), signal.SIGKILL)
    psutil.Process(min(second)).wait(10)
    third = processes(2, str(tmp_path / "c"))
    assert [len(x) for x in (first, second, third)] == [2, 2, 2]
    assert not first & second
    assert not second & third


def test_one_worker_is_this_process(tmp_path) -> None:
    assert processes(1, str(tmp_path)) == {os.getpid()}


def started(work: str) -> subprocess.Popen[str]:
    program = PROGRAM.format(work=work)
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", program], stdout=pipe, stderr=pipe, text=True)


def test_the_death_of_a_worker_is_one_message_and_not_a_wait_for_ever() -> None:
    process = started("os.kill(os.getpid(), signal.SIGKILL)")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == EXIT_MACHINE
    assert "a worker process of Beam died (SIGKILL" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_the_process_that_started_it(number: int) -> None:
    process = started("time.sleep(60)")
    assert process.stdout is not None
    worker = psutil.Process(int(process.stdout.readline()))
    process.send_signal(number)
    process.wait(timeout=30)
    deadline = time.monotonic() + 30
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the worker is still there"
        time.sleep(0.05)
    process.communicate()


@given(sizes=st.lists(st.integers(0, 1_000), max_size=40), num_workers=st.integers(1, 5))
def test_values_dealt_in_turn_are_as_much_for_every_worker(
    sizes: list[int], num_workers: int
) -> None:
    order = workers.rounds(sizes, num_workers)
    assert sorted(order) == list(range(len(sizes)))
    loads = [sum(sizes[i] for i in order[k::num_workers]) for k in range(num_workers)]
    assert max(loads) - min(loads) <= max(sizes, default=0)
