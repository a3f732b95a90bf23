"""Run programs that nobody has read: no network, no way to write, bounded time, memory, processes.

The walls are Linux namespaces, a system-call filter and resource limits, built by
`sandbox_child.py`; they need no helper program and no root, only a kernel of 5.14 or later that
lets this user make namespaces. Where one wall cannot be had, nothing is run: `availability` says
why. It asks by trying: programs that attack each wall must fail to get through.

A pass means that the program came to its own end: the interpreter then hands back a nonce that it
gets at that moment, so `sys.exit(0)` or a printed marker before the tests is no pass. This tells
accidents and short cuts from passes; it is no proof against code written to study this runner.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import os
import platform
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import Any

from snowcoder_jax.errors import MachineError
from snowcoder_jax.evaluation import sandbox_child, sandbox_filter
from snowcoder_jax.recipe import Sandbox

# Beyond a program's own limit: interpreter starts, walls going up, a machine under load.
GRACE_SECONDS = 60.0
OLDEST_KERNEL = (5, 14)  # per-namespace process counts (RLIMIT_NPROC)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one program.

    Attributes:
      passed: it ran to its own end.
      reason: "passed", "timeout", "memory", "ended before its tests did", "exit N: <last line of
        its standard error>" or "killed by signal N".
      seconds: wall time inside the sandbox.
    """

    passed: bool
    reason: str
    seconds: float


def run_programs(
    programs: Sequence[str],
    limits: Sandbox,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Outcome]:
    """Run each program by itself, `limits.workers` at once; outcomes in the order of programs.

    Args:
      on_progress: called with (done, total) after each program.

    Raises:
      MachineError: the sandbox is not available, or failed while running.
    """
    reason = availability()
    if reason is not None:
        raise MachineError(f"no program is run outside the sandbox, and {reason}")
    return _run_all(programs, limits, on_progress)


def _run_all(
    programs: Sequence[str],
    limits: Sandbox,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Outcome]:
    outcomes: list[Outcome | None] = [None] * len(programs)
    with concurrent.futures.ThreadPoolExecutor(max(1, limits.workers)) as pool:
        pending = {pool.submit(_run_one, program, limits): i for i, program in enumerate(programs)}
        try:
            for done, future in enumerate(concurrent.futures.as_completed(pending), 1):
                outcomes[pending[future]] = future.result()
                if on_progress is not None:
                    on_progress(done, len(programs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [outcome for outcome in outcomes if outcome is not None]


def _run_one(program: str, limits: Sandbox) -> Outcome:
    job = _job(program, limits)
    return _outcome(_call_child(job, limits.seconds + GRACE_SECONDS), job["nonce"])


def _job(program: str, limits: Sandbox) -> dict[str, Any]:
    machine = platform.machine()
    return {
        "program": program,
        "nonce": secrets.token_hex(16),
        "seconds": limits.seconds,
        "memory_bytes": limits.memory_bytes,
        "processes": limits.processes,
        "cover": tempfile.gettempdir(),
        "filter": sandbox_filter.filter_program(machine).hex(),
        "pivot_root": sandbox_filter.SYSCALLS[machine]["pivot_root"],
        "mount_setattr": sandbox_filter.SYSCALLS[machine]["mount_setattr"],
    }


def _call_child(job: dict[str, Any], seconds: float) -> dict[str, Any]:
    # The standard input stays open until the answer is there: its end tells the child to kill.
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", sandbox_child.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.defpath},
        cwd="/",
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        alarm = threading.Timer(seconds, process.kill)
        alarm.daemon = True
        alarm.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(job).encode() + b"\n")
                process.stdin.flush()
            answer = process.stdout.read()
        finally:
            alarm.cancel()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        process.wait()
    if not answer:
        raise MachineError(
            f"the sandbox's own process ended without an answer (exit {process.returncode}). "
            "Start the same command again; if it stays, free some memory."
        )
    result: dict[str, Any] = json.loads(answer)
    if "fault" in result:
        raise MachineError(f"the sandbox could not be built: {result['fault']}")
    return result


def _outcome(result: dict[str, Any], nonce: str) -> Outcome:
    seconds = float(result["seconds"])
    if result["reason"]:
        return Outcome(False, result["reason"], seconds)
    code = result["code"]
    if code == 0 and result["nonce"] == nonce:
        return Outcome(True, "passed", seconds)
    if code == 0:
        return Outcome(False, "ended before its tests did", seconds)
    if code > 128:
        return Outcome(False, f"killed by signal {code - 128}", seconds)
    lines = result["error"].strip().splitlines()
    return Outcome(False, f"exit {code}" + (f": {lines[-1][:200]}" if lines else ""), seconds)


@functools.cache
def availability() -> str | None:
    """None where every wall stands, else the reason why the sandbox is not available.

    Tried once a process, by programs that attack the walls.
    """
    reason = _unsupported()
    if reason is not None:
        return reason
    try:
        return _try_walls()
    except OSError as e:
        return f"the sandbox's walls could not be tried: {e}"
    except MachineError as e:
        return (
            f"{e}. Where this is a container, give it the right to make user namespaces; on Ubuntu "
            "24.04 and later an administrator may set "
            "kernel.apparmor_restrict_unprivileged_userns=0; elsewhere user.max_user_namespaces "
            "must not be 0"
        )


def _unsupported() -> str | None:
    if sys.platform != "linux":
        return f"the sandbox needs Linux, and this is {sys.platform}"
    if platform.machine() not in sandbox_filter.SYSCALLS:
        return f"the sandbox has no system-call filter for {platform.machine()}"
    release = platform.release()
    numbers = tuple(int(n) for n in release.split("-")[0].split(".")[:2] if n.isdigit())
    if numbers < OLDEST_KERNEL:
        return f"the sandbox needs Linux 5.14 or later, and this is {release}"
    return None


_NETWORK = """
import socket
for family, address in ((socket.AF_INET, ("127.0.0.1", PORT)), (socket.AF_INET6, ("::1", PORT)),
                        (40, (2, 1024))):
    try:
        socket.socket(family, socket.SOCK_STREAM).connect(address)
    except OSError:
        continue
    raise AssertionError("connected")
"""
# Writing to FOLDER may seem to work inside, where /tmp is another; outside nothing may appear.
_WRITING = """
import os
assert not os.path.exists(FOLDER + "/secret"), "host files can be read"
for folder in ("/", "/usr", "/usr/bin", os.path.dirname(os.__file__), "/etc", "/dev", HOME, FOLDER):
    try:
        os.makedirs(folder, exist_ok=True)
        open(folder + "/snowcoder_was_here", "w").close()
    except OSError:
        continue
    assert folder.startswith("/tmp"), folder
open("allowed", "w").close()
"""
_FORKING = """
import os, time
children = 0
try:
    while children < LIMIT + 50:
        if os.fork() == 0:
            time.sleep(60)
        children += 1
except BlockingIOError:
    pass
assert 0 < children <= LIMIT, children
"""
_MEMORY = """
try:
    x = bytearray(LIMIT)
except MemoryError:
    pass
else:
    raise AssertionError("more memory than allowed")
"""
_ALL_MEMORY = "bound the memory of several processes"
_MEMORY_OF_MANY = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        x = bytearray(b"x") * (LIMIT // 2)
        time.sleep(60)
time.sleep(60)
"""


def _try_walls() -> str | None:
    limits = Sandbox(seconds=20.0, memory_bytes=192 << 20, processes=8, workers=2)
    _run_one("x = 1", limits)
    folder = tempfile.mkdtemp(prefix="snowcoder-sandbox-")
    try:
        with open(os.path.join(folder, "secret"), "w") as f:
            f.write("x")
        with socket.create_server(("127.0.0.1", 0)) as server:
            attacks = _attacks(server.getsockname()[1], folder, limits)
            outcomes = dict(zip(attacks, _run_all(list(attacks.values()), limits), strict=True))
        if os.listdir(folder) != ["secret"]:
            return "the sandbox lets a program write outside"
    finally:
        shutil.rmtree(folder)
    return _weakness(outcomes)


def _attacks(port: int, folder: str, limits: Sandbox) -> dict[str, str]:
    """A program for each wall; it passes, or where it cannot see it is killed, if that stands."""
    home = os.path.expanduser("~")
    return {
        "hold back the network": _NETWORK.replace("PORT", str(port)),
        "hold back writing or reading outside": (
            _WRITING.replace("FOLDER", repr(folder)).replace("HOME", repr(home))
        ),
        "bound the number of processes": _FORKING.replace("LIMIT", str(limits.processes)),
        "bound a program's memory": _MEMORY.replace("LIMIT", str(limits.memory_bytes)),
        _ALL_MEMORY: _MEMORY_OF_MANY.replace("LIMIT", str(limits.memory_bytes)),
    }


def _weakness(outcomes: dict[str, Outcome]) -> str | None:
    broken = [
        f"{wall} ({outcome.reason})"
        for wall, outcome in outcomes.items()
        if outcome.reason != ("memory" if wall == _ALL_MEMORY else "passed")
    ]
    return f"the sandbox does not {', '.join(broken)}" if broken else None
