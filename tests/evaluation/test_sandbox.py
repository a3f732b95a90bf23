"""Hostile programs, run for real: each wall of the sandbox is attacked, none may give way."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest

from snowcoder_jax.evaluation import sandbox, sandbox_child, sandbox_filter
from snowcoder_jax.recipe import Sandbox

LIMITS = Sandbox(seconds=1.0, memory_bytes=256 << 20, processes=16, workers=2)
SYSTEM_PYTHON = "/usr/bin/python3"


@pytest.fixture(autouse=True)
def _sandbox_or_skip() -> None:
    reason = sandbox.availability()
    if reason is not None:
        pytest.skip(reason)


def run(program: str, limits: Sandbox = LIMITS) -> sandbox.Outcome:
    return sandbox.run_programs([program], limits)[0]


def processes_with(marker: str) -> list[int]:
    """Processes of this machine, inside sandboxes too, that have `marker` on their command line."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                command = Path(f"/proc/{name}/cmdline").read_bytes()
            except OSError:
                continue
            if marker.encode() in command:
                found.append(int(name))
    return found


def wait_until(condition, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def sleeper(marker: str) -> str:
    """A program that leaves a detached process behind and sleeps itself."""
    return (
        "import subprocess, sys, time, signal\n"
        "for s in (signal.SIGTERM, signal.SIGHUP): signal.signal(s, signal.SIG_IGN)\n"
        "subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(120)', "
        f"'{marker}'], start_new_session=True)\n"
    )


def test_outcomes_keep_the_order_of_programs_and_progress_is_told():
    seen = []
    outcomes = sandbox.run_programs(
        ["import time; time.sleep(0.3)", "raise KeyError('k')", "assert False", "x = 1"],
        LIMITS,
        lambda done, total: seen.append((done, total)),
    )
    assert [o.passed for o in outcomes] == [True, False, False, True]
    assert [o.reason for o in outcomes] == [
        "passed", "exit 1: KeyError: 'k'", "exit 1: AssertionError", "passed"
    ]  # fmt: skip
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert sandbox.run_programs([], LIMITS) == []


@pytest.mark.parametrize(
    "program",
    [
        "import sys; sys.exit(0)",
        "raise SystemExit",
        "import os; os._exit(0)",
        "print('passed', flush=True); import os; os._exit(0)",
        "import os; os.write(4, b'0' * 32); os._exit(0)",
        "import os; os.execv('/bin/true', ['true'])",
        "import atexit, os; atexit.register(os._exit, 0); raise SystemExit(3)",
    ],
)
def test_leaving_before_the_end_is_no_pass(program):
    assert run(program + "\nassert False") == sandbox.Outcome(
        False, "ended before its tests did", pytest.approx(0, abs=5)
    )


def test_programs_run_as_main_with_a_fresh_module():
    program = (
        "import dataclasses, sys\n"
        "@dataclasses.dataclass\n"
        "class Point:\n    x: 'int' = 1\n"
        "assert __name__ == '__main__' and sys.modules['__main__'].Point is Point\n"
        "assert 'run' not in globals() and Point() == Point(1)\n"
        "import threading; threading.Thread(target=lambda: None).start()\n"
    )
    assert run(program).reason == "passed"


@pytest.mark.parametrize("program", ["def f(:", "x = '\udc80'", "x = '\0'", "x = (" * 300])
def test_text_that_is_no_program_fails(program):
    assert not run(program).passed


def test_an_endless_loop_is_stopped():
    outcome = run("while True:\n    pass")
    assert outcome.reason == "timeout"
    assert 1.0 <= outcome.seconds < 10


def test_signals_to_everybody_reach_nobody_else():
    marker = f"marker-{uuid.uuid4()}"
    other = subprocess.Popen([sys.executable, "-c", "input()", marker], stdin=subprocess.PIPE)
    program = (
        "import os, signal\n"
        "for pid in (1, os.getppid(), -1, *range(2, 40000)):\n"
        "    if pid != os.getpid():\n"
        "        try:\n            os.kill(pid, signal.SIGKILL)\n"
        "        except OSError:\n            pass\n"
    )
    outcome = run(program)
    assert outcome.reason == "passed"
    assert other.poll() is None
    other.communicate(b"\n")
    assert run("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)").reason == (
        "killed by signal 11"
    )


@pytest.mark.parametrize("ending", ["", "time.sleep(100)"])
def test_nothing_outlives_its_program(ending):
    marker = f"marker-{uuid.uuid4()}"
    outcome = run(sleeper(marker) + ending)
    assert outcome.reason == ("timeout" if ending else "passed")
    assert processes_with(marker) == []


@pytest.mark.parametrize("victim", ["caller", "watcher"])
def test_nothing_outlives_a_killed_evaluation(victim, tmp_path):
    marker = f"marker-{uuid.uuid4()}"
    script = (
        "import pathlib, sys\n"
        "from snowcoder_jax.evaluation import sandbox\n"
        "from snowcoder_jax.recipe import Sandbox\n"
        "sandbox._run_all([pathlib.Path(sys.argv[1]).read_text()], Sandbox(seconds=100))\n"
    )
    program = tmp_path / "program"
    program.write_text(sleeper(marker) + "time.sleep(100)")
    command = [sys.executable, "-c", script, str(program)]
    caller = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: processes_with(marker)), "it never started"
        if victim == "caller":
            caller.kill()
        else:
            children = Path(f"/proc/{caller.pid}/task").glob("*/children")
            (watcher,) = [int(pid) for path in children for pid in path.read_text().split()]
            os.kill(watcher, signal.SIGKILL)
        assert wait_until(lambda: not processes_with(marker)), "it lives on"
    finally:
        caller.kill()
        caller.wait()


def test_fork_bombs_and_thread_bombs_are_bounded():
    bomb = (
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n"
    )
    threads = (
        "import threading, time\n"
        "started = 0\n"
        "try:\n"
        "    while started < 100:\n"
        "        threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
        "        started += 1\n"
        "except RuntimeError:\n    pass\n"
        "assert 0 < started < 16, started\n"
    )
    assert [o.reason for o in sandbox.run_programs([bomb, threads], LIMITS)] == [
        "timeout", "passed"
    ]  # fmt: skip


def test_memory_is_bounded_in_one_process_and_in_all_together():
    one = "x = bytearray(1 << 30)"
    many = (
        "import os, time\n"
        "for _ in range(6):\n"
        "    if os.fork() == 0:\n"
        "        x = b'x' * (100 << 20)\n"
        "        time.sleep(9)\n"
        "time.sleep(9)\n"
    )
    shared = (
        "import mmap, os, time\n"
        "for _ in range(6):\n"
        "    if os.fork() == 0:\n"
        "        m = mmap.mmap(-1, 100 << 20)\n"
        "        m.write(b'x' * (100 << 20))\n"
        "        time.sleep(9)\n"
        "time.sleep(9)\n"
    )
    hidden = "import os; os.memfd_create('x')"
    limits = Sandbox(seconds=5.0, memory_bytes=256 << 20)
    assert [o.reason for o in sandbox.run_programs([one, many, shared, hidden], limits)] == [
        "exit 1: MemoryError",
        "memory",
        "memory",
        "exit 1: PermissionError: [Errno 1] Operation not permitted",
    ]


def test_output_is_bounded():
    quiet = "import sys\nfor _ in range(50): sys.stdout.write('x' * 1_000_000)"
    loud = "import sys\nwhile True: sys.stderr.write('y' * 1_000_000)"
    failing = "import sys\nsys.stderr.write('z' * 10_000_000)\nassert False, 'w' * 10_000"
    outcomes = sandbox.run_programs([quiet, loud, failing], Sandbox(seconds=1.5))
    assert [o.reason[:20] for o in outcomes[:2]] == ["passed", "timeout"]
    assert outcomes[2].reason.startswith("exit 1: ")
    assert len(outcomes[2].reason) < 300


def test_files_may_be_written_in_the_temporary_folder_only(tmp_path):
    host_folder = tempfile.mkdtemp()
    program = f"""
import os, tempfile
for path in ("/x", "/usr/x", "/usr/lib/x", "/dev/x", "/home/x", "/root/x", "/etc/x", "/proc/x",
             os.path.dirname(os.__file__) + "/x", {str(Path(__file__).parent / "x")!r}):
    try:
        open(path, "w").close()
    except OSError:
        continue
    raise AssertionError(path)
for path in ("/program.py", "/usr/bin/env"):
    try:
        os.chmod(path, 0o777)
    except OSError:
        continue
    raise AssertionError(path)
open("here", "w").close()
with tempfile.TemporaryDirectory() as folder:
    open(folder + "/there", "w").close()
os.makedirs({host_folder!r}, exist_ok=True)
open({host_folder!r} + "/seems", "w").close()
"""
    try:
        assert run(program).reason == "passed"
        assert os.listdir(host_folder) == []
        # Each program has its own.
        assert run("import os; assert os.listdir('/tmp') == []").reason == "passed"
    finally:
        shutil.rmtree(host_folder)


def test_the_disk_is_bounded():
    large_file = "open('x', 'wb').write(bytes(64 << 20))"
    many_files = "for i in range(99): open(str(i), 'wb').write(bytes(15 << 20))"
    assert [o.reason for o in sandbox.run_programs([large_file, many_files], LIMITS)] == [
        "exit 1: OSError: [Errno 27] File too large",
        "exit 1: OSError: [Errno 28] No space left on device",
    ]


def test_nothing_of_this_machine_can_be_read(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    program = f"""
import os, sys
for path in ("/root/.ssh", "/etc/passwd", "/etc/shadow", "/proc/1", "/sys/class", "/var", "/home",
             {str(Path(__file__))!r}, {str(Path(sandbox.__file__))!r}):
    assert not os.path.exists(path), path
assert "SECRET_TOKEN" not in os.environ
assert set(os.environ) <= {{"PATH", "HOME", "TMPDIR", "LANG", "PYTHONHASHSEED", "PYTHONUTF8"}}
assert os.getuid() == os.getgid() == 65534 and os.getpid() < 10
try:
    import snowcoder_jax
except ImportError:
    pass
else:
    raise AssertionError
"""
    assert run(program).reason == "passed"


def test_no_network_of_any_family():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        program = f"""
import ctypes, socket
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET, 40):
    try:
        socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        continue
    raise AssertionError(family)
try:
    socket.create_connection(("127.0.0.1", {port}), timeout=1)
except OSError:
    pass
else:
    raise AssertionError
one, other = socket.socketpair()
one.send(b"x")
"""
        assert run(program).reason == "passed"
        with pytest.raises(TimeoutError):
            server.accept()


def test_no_way_back_to_privileges():
    numbers = sandbox_filter.SYSCALLS[os.uname().machine]
    program = f"""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x10000000) == -1 and ctypes.get_errno() == 1
assert libc.syscall({numbers["clone"]}, 0x10000000 | 17, 0, 0, 0, 0) == -1
assert libc.syscall({numbers["io_uring_setup"]}, 1, 0) == -1 and ctypes.get_errno() == 1
assert libc.mount(b"none", b"/tmp", b"tmpfs", 0, 0) == -1
assert libc.ptrace(16, 1, 0, 0) == -1
for change in (lambda: os.setuid(0), lambda: os.setgroups([0]), lambda: os.chroot("/tmp")):
    try:
        change()
    except OSError:
        continue
    raise AssertionError(change)
assert libc.prctl(39, 0, 0, 0, 0) == 1, "new privileges"
"""
    assert run(program).reason == "passed"


def test_an_ordinary_user_has_the_same_walls():
    """Started as another user by root; where the tests run as one, the others show the same."""
    if os.geteuid() != 0:
        pytest.skip("these tests run as an ordinary user already")
    version = "import sys; sys.exit(sys.version_info < (3, 11))"
    if not os.path.exists(SYSTEM_PYTHON) or subprocess.call([SYSTEM_PYTHON, "-c", version]):
        pytest.skip("there is no Python that every user may run")
    limits = Sandbox(seconds=20.0, memory_bytes=192 << 20, processes=8)
    folder = tempfile.mkdtemp()
    user = pwd.getpwnam("nobody").pw_uid - 1
    try:
        os.chmod(folder, 0o755)
        child = shutil.copy(sandbox_child.__file__, folder)
        os.chmod(child, 0o644)
        os.mkdir(folder + "/own")
        os.chown(folder + "/own", user, user)
        Path(folder, "own", "secret").write_text("x")
        outcomes = {}
        with socket.create_server(("127.0.0.1", 0)) as server:
            attacks = sandbox._attacks(server.getsockname()[1], folder + "/own", limits)
            for wall, program in attacks.items():
                job = sandbox._job(program, limits)
                with subprocess.Popen(
                    [SYSTEM_PYTHON, "-I", "-S", child],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    user=user,
                    group=user,
                    extra_groups=[],
                    cwd="/",
                    text=True,
                ) as process:
                    print(json.dumps(job), file=process.stdin, flush=True)
                    result = json.loads(process.stdout.read())
                    process.stdin.close()
                assert "fault" not in result, result
                outcomes[wall] = sandbox._outcome(result, job["nonce"])
        assert sandbox._weakness(outcomes) is None
        assert os.listdir(folder + "/own") == ["secret"]
    finally:
        shutil.rmtree(folder)


def test_where_a_wall_cannot_be_had_nothing_runs():
    """In a process that may not make namespaces, as in many containers."""
    script = (
        "import os, platform\n"
        "from snowcoder_jax.errors import MachineError\n"
        "from snowcoder_jax.evaluation import sandbox, sandbox_child, sandbox_filter\n"
        "from snowcoder_jax.recipe import Sandbox\n"
        "sandbox_child.prctl('x', sandbox_child.PR_SET_NO_NEW_PRIVS, 1)\n"
        "sandbox_child.refuse_system_calls(sandbox_filter.filter_program(platform.machine()))\n"
        "assert 'user namespace' in (reason := sandbox.availability()), reason\n"
        "for call in (sandbox.run_programs, sandbox._run_all):\n"
        '    try:\n        call([\'open("/tmp/snowcoder-ran", "w")\'], Sandbox())\n'
        "    except MachineError as e:\n        assert 'user namespace' in str(e), e\n"
        "    else:\n        raise AssertionError\n"
        "assert not os.path.exists('/tmp/snowcoder-ran')\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=True)


def test_a_weak_wall_is_named():
    strong = sandbox.Outcome(True, "passed", 0.1)
    outcomes = dict.fromkeys(sandbox._attacks(1, "/x", LIMITS), strong)
    assert sandbox._weakness(outcomes) == (
        "the sandbox does not bound the memory of several processes (passed)"
    )
