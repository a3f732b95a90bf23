"""vLLM's processes end with those that started them, forked or spawned, and not before."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
# As vLLM: the plugin in the first process, in every spawned one, and in no forked one; the engine
# core starts two workers. Each says what it is.
CHAIN = """
import multiprocessing, os, sys, time
from snowcoder_jax.synthesis.teachers import vllm_plugin

def say(name):
    os.write(1, f"{name} {os.getpid()}\\n".encode())
    time.sleep(30)

def core(is_spawned):
    if is_spawned:
        vllm_plugin.end_with_parent()
    workers = [multiprocessing.get_context("fork").Process(target=say, args=("worker",))
               for _ in range(2)]
    for worker in workers:
        worker.start()
    say("core")

if __name__ == "__main__":
    vllm_plugin.end_with_parent()
    method = sys.argv[1]
    first = multiprocessing.get_context(method).Process(target=core, args=(method == "spawn",))
    first.start()
    say("main")
"""


@pytest.fixture(params=["fork", "spawn"])
def chain(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, list[int]]]:
    """The ids of the processes of a chain whose core was forked or spawned, by what they are."""
    script = tmp_path / "chain.py"
    script.write_text(CHAIN)
    command = [sys.executable, str(script), request.param]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ids: dict[str, list[int]] = {}
        try:
            for line in itertools.islice(process.stdout, 4):
                name, number = line.split()
                ids.setdefault(name, []).append(int(number))
            yield ids
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not tell children")
@pytest.mark.parametrize("killed", ["main", "core"])
def test_workers_of_a_core_run_and_end_with_it(chain: dict[str, list[int]], killed: str) -> None:
    assert {name: len(ids) for name, ids in chain.items()} == {"main": 1, "core": 1, "worker": 2}
    ending = [*chain["worker"], *(chain["core"] if killed == "main" else [])]
    processes = [psutil.Process(number) for number in ending]
    os.kill(chain[killed][0], signal.SIGKILL)
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
