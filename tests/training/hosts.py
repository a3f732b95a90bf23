"""Starts several real processes of one training run on loopback, and reads what they left."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PHASES = {"general": 12, "continued": 6}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return int(s.getsockname()[1])


class Hosts:
    """Processes that train together.

    Args:
      command: of each; who the others are is in the environment.
      num_devices: of each process.
      log_folder: gets one file of each process's output.
    """

    def __init__(
        self,
        command: Sequence[str],
        num_processes: int,
        num_devices: int,
        log_folder: Path,
        more: Sequence[Sequence[str]] | None = None,
        **environment: str,
    ) -> None:
        log_folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        self.logs = []
        self.processes = []
        for i in range(num_processes):
            env = {
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices}",
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]),
                **environment,
            }
            if num_processes > 1:
                env["SNOWCODER_COORDINATOR"] = f"localhost:{port}"
                env["SNOWCODER_NUM_PROCESSES"] = str(num_processes)
                env["SNOWCODER_PROCESS_ID"] = str(i)
            log = log_folder / f"log-{time.monotonic_ns()}-{i}.txt"
            self.logs.append(log)
            own = [*command, *(more[i] if more else ())]
            with log.open("w") as f:
                self.processes.append(
                    subprocess.Popen(own, env=env, cwd=ROOT, stdout=f, stderr=subprocess.STDOUT)
                )

    def wait_for(self, text: str, timeout_seconds: float = 120) -> None:
        """Until the first process printed `text`."""
        deadline = time.monotonic() + timeout_seconds
        while text not in self.logs[0].read_text():
            assert self.processes[0].poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.02)

    def kill(self) -> None:
        """All at once, as when the power fails."""
        for process in self.processes:
            process.send_signal(signal.SIGKILL)
        for process in self.processes:
            process.wait()

    def codes(self, timeout_seconds: float = 120) -> list[int]:
        """Wait for the end of all; their exit codes."""
        try:
            return [process.wait(timeout_seconds) for process in self.processes]
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"no end:\n{self.output()}") from None

    def texts(self) -> list[str]:
        return [log.read_text() for log in self.logs]

    def output(self) -> str:
        return "\n".join(text[-3000:] for text in self.texts())


def trained(
    run_folder: Path,
    packed_folder: str,
    num_processes: int,
    num_devices: int,
    pause_seconds: float = 0.0,
    attempt: str = "0",
    seeds: Sequence[int] = (),
    cache: Path | None = None,
    **environment: str,
) -> Hosts:
    """Start the two phases of `host_process.py` in several processes."""
    command = [sys.executable, str(HERE / "host_process.py"), str(run_folder), packed_folder]
    environment["HOSTS_ATTEMPT"] = attempt
    if cache is not None:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(cache)
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    return Hosts(
        [*command, str(pause_seconds)],
        num_processes,
        num_devices,
        run_folder.parent / f"{run_folder.name}-logs",
        [[str(seed)] for seed in seeds] or None,
        **environment,
    )


def losses(run_folder: Path) -> list[tuple[str, int, float, float]]:
    """Phase, step, loss and gradient norm of each line of the metrics, in their order."""
    lines = (run_folder / "metrics.jsonl").read_text().splitlines()
    return [(x["phase"], x["step"], x["loss"], x["grad_norm"]) for x in map(json.loads, lines)]


def sequence_ids(run_folder: Path) -> dict[tuple[str, int], list[tuple[int, ...]]]:
    """What the last attempt at each step read, over all its processes, in the order of the rows.

    What an earlier attempt read in a step that was lost must have been the same.
    """
    attempts: dict[str, dict[tuple[str, int], list[tuple[int, ...]]]] = {}
    for path in sorted((run_folder / "ids").glob("*.jsonl")):
        read = attempts.setdefault(path.name.rsplit("-", 1)[0], {})
        whole = path.read_text().rpartition("\n")[0]
        for line in map(json.loads, whole.splitlines()):
            rows = read.setdefault((line["phase"], line["step"]), [])
            rows += [tuple(row) for row in line["ids"]]
    last: dict[tuple[str, int], list[tuple[int, ...]]] = {}
    for _, read in sorted(attempts.items()):
        for step, rows in read.items():
            if step in last and len(rows) == len(last[step]):
                assert rows == last[step], f"{step} was read differently"
            last[step] = rows
    return last
