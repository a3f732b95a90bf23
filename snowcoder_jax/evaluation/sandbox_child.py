"""The sandbox's own process: walls itself in, runs one program, says what became of it.

Started by `sandbox.py` as a script with a bare interpreter (standard library only, no threads, so
that forking is safe). It reads one job, a line of JSON, on standard input and prints one outcome,
a line of JSON. When its standard input closes before that, the program is killed.

    watcher (this process, outside)   deadline, memory, output, the killing
      `- builder   new user, mount, network, IPC, UTS and process-id namespaces; builds the root
           `- first  process 1 inside: when it goes, the kernel kills everything inside with it
                `- program   unprivileged, limited, filtered; never one of the above

The new root is an empty read-only tmpfs on which only `/usr`, the libraries and this Python are
bound, read-only; `/tmp` is a small tmpfs of its own. There is no `/proc`, `/home`, `/root`, `/etc`.
Every step is checked; where one is refused the program is not run.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import resource
import select
import signal
import struct
import sys
import time
from typing import Any, NoReturn

INSIDE_ID = 65_534  # the program's user and group inside; "nobody" outside too when started as root
TMP_BYTES = 64 << 20
FILE_BYTES = 16 << 20
OPEN_FILES = 64
ERROR_TAIL_BYTES = 2_000
POLL_SECONDS = 0.02
PYTHON = os.path.realpath(sys.executable)  # a virtual environment's own link is not bound

# linux/sched.h, linux/mount.h, linux/prctl.h, linux/fcntl.h
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
MNT_DETACH = 2
AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID = -100, 0x8000, 1, 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
PR_SECCOMP_MODE_FILTER = 2
BPF_LINE_BYTES = 8

# What the program's interpreter runs. The nonce is read only after the program came to its end.
RUNNER = """
import sys, types
def run():
    with open("/program.py", encoding="utf-8", errors="surrogatepass") as f:
        code = compile(f.read(), "/program.py", "exec", dont_inherit=True)
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(code, module.__dict__)
run()
import os
os.write(4, os.read(3, 100))
os._exit(0)
"""

Fds = tuple[int, int, int]  # the program's pipes: nonce, result, errors
libc = ctypes.CDLL(None, use_errno=True)


class StepError(Exception):
    """A step of building the sandbox was refused: (step, the system's words)."""


def checked(step: str, result: int) -> None:
    if result == -1:
        raise StepError(step, os.strerror(ctypes.get_errno()))


def syscall(step: str, number: int, *args: Any) -> None:
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    checked(step, libc.syscall(ctypes.c_long(number), *wide))


def prctl(step: str, option: int, *args: Any) -> None:
    wide = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in args]
    wide += [ctypes.c_ulong(0)] * (4 - len(wide))
    checked(step, libc.prctl(ctypes.c_int(option), *wide))


def mount(step: str, source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    result = libc.mount(
        source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()
    )
    checked(step, result)


# The builder: namespaces and the root.


def enter_namespaces() -> None:
    checked("a user namespace", libc.unshare(ctypes.c_int(CLONE_NEWUSER)))
    rest = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS
    checked("the other namespaces", libc.unshare(ctypes.c_int(rest)))


def map_user(pid: int) -> None:
    """Give the builder its ids, from outside: an ordinary user may map only itself."""
    is_root = os.geteuid() == 0
    try:
        if not is_root:
            write_file(f"/proc/{pid}/setgroups", "deny")
        for name, own in (("uid_map", os.geteuid()), ("gid_map", os.getegid())):
            ids = f"0 {own} 1\n{INSIDE_ID} {INSIDE_ID} 1\n" if is_root else f"{INSIDE_ID} {own} 1\n"
            write_file(f"/proc/{pid}/{name}", ids)
    except OSError as e:
        raise StepError("the user map", str(e.strerror)) from e


def write_file(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def bound_paths() -> list[str]:
    """What the program may read: libraries and this Python, no other folder."""
    paths = ["/usr", "/bin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache"]
    for prefix in (sys.base_prefix, sys.base_exec_prefix):
        prefix = os.path.realpath(prefix)
        if not any(prefix == p or prefix.startswith(p + "/") for p in paths):
            paths.append(prefix)
    devices = [f"/dev/{name}" for name in ("null", "zero", "random", "urandom")]
    return [p for p in paths + devices if os.path.lexists(p)]


def build_root(job: dict[str, Any]) -> None:
    """A new root in place of the old one; afterwards nothing of the old can be reached."""
    mount("a private mount tree", "none", "/", "", MS_REC | MS_PRIVATE)
    # Opened before the new root covers a part of the old one; bound through the descriptor.
    sources = [(path, os.open(path, os.O_PATH | os.O_NOFOLLOW)) for path in bound_paths()]
    root = job["cover"]  # any folder that exists
    mount("a temporary root", "none", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=8m,mode=755")
    for path, fd in sources:
        target = root + path
        os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
        if os.path.islink(path):
            os.symlink(os.readlink(path), target)
        else:
            if os.path.isdir(path):
                os.mkdir(target, 0o755)
            else:
                os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
            mount(f"binding {path}", f"/proc/self/fd/{fd}", target, "", MS_BIND | MS_REC)
        os.close(fd)
    with open(root + "/program.py", "wb") as f:
        f.write(job["program"].encode("utf-8", "surrogatepass"))
    os.chmod(root + "/program.py", 0o644)
    os.mkdir(root + "/tmp")
    os.symlink("/tmp", root + "/dev/shm")
    os.chdir(root)
    syscall("changing the root", job["pivot_root"], b".", b".")
    checked("leaving the old root", libc.umount2(b".", ctypes.c_int(MNT_DETACH)))
    os.chdir("/")
    attributes = struct.pack("<QQQQ", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, 0, 0, 0)
    syscall(
        "a read-only root", job["mount_setattr"], AT_FDCWD, b"/", AT_RECURSIVE,
        attributes, len(attributes),
    )  # fmt: skip
    options = f"size={TMP_BYTES},nr_inodes=4096,mode=1777"
    mount("a temporary folder", "none", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, options)
    os.chdir("/tmp")


def builder(job: dict[str, Any], steps: tuple[int, int, int], report: int, fds: Fds) -> NoReturn:
    """Build the walls, start process 1 inside, pass its exit code on.

    Args:
      steps: pipes that say: namespaces made; user mapped (read); process 1 started, its id.
      report: the pipe for what was refused.
    """
    ready, mapped, started = steps
    try:
        os.setsid()
        is_root = os.geteuid() == 0
        enter_namespaces()
        os.write(ready, b"1")
        if os.read(mapped, 1) != b"1":
            os._exit(1)
        if is_root:
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        os.umask(0o022)
        build_root(job)
        prctl("dying with the watcher", PR_SET_PDEATHSIG, signal.SIGKILL)
        first_pid = os.fork()
        if first_pid == 0:
            for fd in steps:
                os.close(fd)
            first(job, is_root, report, fds)
        os.write(started, first_pid.to_bytes(4))
        _, status = os.waitpid(first_pid, 0)
        os._exit(exit_code(status))
    except (StepError, OSError) as e:
        tell_fault(report, e)


def tell_fault(report: int, error: StepError | OSError) -> NoReturn:
    step, words = error.args if isinstance(error, StepError) else ("a step", str(error))
    os.write(report, f"{step} was refused: {words}".encode())
    os._exit(1)


def exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


# Inside.


def first(job: dict[str, Any], is_root: bool, report: int, fds: Fds) -> NoReturn:
    """Process 1 inside: start the program, reap what is orphaned, go when the program has gone."""
    try:
        prctl("dying with the builder", PR_SET_PDEATHSIG, signal.SIGKILL)
        prctl("hiding process 1", PR_SET_DUMPABLE, 0)
        program_pid = os.fork()
        if program_pid == 0:
            become_program(job, is_root, report, fds)
        for fd in (report, *fds):
            os.close(fd)
        while True:
            pid, status = os.wait()
            if pid == program_pid:
                os._exit(exit_code(status))
    except (StepError, OSError) as e:
        tell_fault(report, e)


def become_program(job: dict[str, Any], is_root: bool, report: int, fds: Fds) -> NoReturn:
    """Drop every privilege, set every limit, execute."""
    try:
        null = os.open("/dev/null", os.O_RDWR)
        wanted = {0: null, 1: null, 2: fds[2], 3: fds[0], 4: fds[1], 5: report}
        # Out of the way first, so that no copy overwrites a source.
        moved = {target: os.dup2(fd, 100 + target) for target, fd in wanted.items()}
        for target, fd in moved.items():
            os.dup2(fd, target, inheritable=target != 5)
        report = 5
        os.closerange(6, 1 << 16)
        if is_root:
            os.setresgid(INSIDE_ID, INSIDE_ID, INSIDE_ID)
            os.setresuid(INSIDE_ID, INSIDE_ID, INSIDE_ID)
        prctl("no new privileges", PR_SET_NO_NEW_PRIVS, 1)
        # As an ordinary user the builder and process 1 have the program's own id and count too.
        set_limits(job, job["processes"] + (0 if is_root else 2))
        environment = {
            "PATH": "/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8",
            "PYTHONHASHSEED": "0", "PYTHONUTF8": "1",
        }  # fmt: skip
        refuse_system_calls(bytes.fromhex(job["filter"]))
        os.execve(PYTHON, [PYTHON, "-S", "-s", "-P", "-B", "-c", RUNNER], environment)
    except (StepError, OSError) as e:
        tell_fault(report, e)


def set_limits(job: dict[str, Any], num_processes: int) -> None:
    limits = {
        resource.RLIMIT_AS: job["memory_bytes"],
        resource.RLIMIT_CPU: math.ceil(job["seconds"]) + 1,
        resource.RLIMIT_NPROC: num_processes,
        resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for kind, value in limits.items():
        hard = resource.getrlimit(kind)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bound, bound))


def refuse_system_calls(program: bytes) -> None:
    """Install a seccomp filter that `sandbox_filter.py` made."""
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // BPF_LINE_BYTES, ctypes.addressof(buffer))
    prctl("a filter of system calls", PR_SET_SECCOMP, PR_SECCOMP_MODE_FILTER, header)


# The watcher.


def memory_of_tree(pid: int) -> int:
    """Bytes of resident memory, files not counted, of a process and all below it.

    Pages shared after a fork count once for each process: the limit errs to the strict side.
    """
    total = 0
    try:
        with open(f"/proc/{pid}/status") as f:
            for line in f:
                if line.startswith(("RssAnon:", "RssShmem:")):
                    total += int(line.split()[1]) * 1024
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as f:
                total += sum(memory_of_tree(int(child)) for child in f.read().split())
    except (FileNotFoundError, ProcessLookupError):
        pass  # it went in the meantime
    return total


def watch(job: dict[str, Any]) -> dict[str, Any]:
    """Run one job; returns `{code, reason, nonce, error, seconds}` or `{fault}`."""
    if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        return {"fault": "the kernel does not list a process's children (CONFIG_PROC_CHILDREN)"}
    (ready_r, ready_w), (mapped_r, mapped_w) = os.pipe(), os.pipe()
    (started_r, started_w), (fault_r, fault_w) = os.pipe(), os.pipe()
    (nonce_r, nonce_w), (result_r, result_w), (error_r, error_w) = os.pipe(), os.pipe(), os.pipe()
    builder_pid = os.fork()
    if builder_pid == 0:
        for fd in (ready_r, mapped_w, started_r, fault_r, nonce_w, result_r, error_r):
            os.close(fd)
        builder(job, (ready_w, mapped_r, started_w), fault_w, (nonce_r, result_w, error_w))
    for fd in (ready_w, mapped_r, started_w, fault_w, nonce_r, result_w, error_w):
        os.close(fd)
    os.write(nonce_w, job["nonce"].encode())
    os.close(nonce_w)
    if os.read(ready_r, 1) == b"1":
        try:
            map_user(builder_pid)
        except StepError as e:
            os.kill(builder_pid, signal.SIGKILL)
            os.waitpid(builder_pid, 0)
            return {"fault": f"{e.args[0]} was refused: {e.args[1]}"}
        os.write(mapped_w, b"1")
    first_pid_bytes = os.read(started_r, 4)
    if len(first_pid_bytes) < 4:
        os.waitpid(builder_pid, 0)
        return {"fault": os.read(fault_r, 4096).decode() or "the builder died"}
    start = time.monotonic()
    reason, tail = guard(job, builder_pid, int.from_bytes(first_pid_bytes), error_r, start)
    _, status = os.waitpid(builder_pid, 0)
    if fault := os.read(fault_r, 4096):
        return {"fault": fault.decode()}
    os.set_blocking(result_r, False)
    nonce = os.read(result_r, 200)
    return {
        "code": exit_code(status),
        "reason": reason,
        "nonce": nonce.decode("ascii", "replace"),
        "error": tail.decode("utf-8", "replace"),
        "seconds": time.monotonic() - start,
    }


def guard(
    job: dict[str, Any], builder_pid: int, first_pid: int, errors: int, start: float
) -> tuple[str, bytes]:
    """Wait for the end; kill process 1 when a limit is passed or nobody listens any more.

    Returns why it was killed ("" where it was not) and the last bytes of its standard error.
    """
    deadline = start + job["seconds"]
    done = os.pidfd_open(builder_pid)
    poll = select.poll()
    for fd in (done, errors, 0):
        poll.register(fd, select.POLLIN)
    reason, tail = "", b""
    while True:
        events = dict(poll.poll(POLL_SECONDS * 1000))
        if errors in events:
            data = os.read(errors, 1 << 16)
            tail = (tail + data)[-ERROR_TAIL_BYTES:]
            if not data:
                poll.unregister(errors)
        if done in events:
            break
        if reason:
            continue
        if 0 in events:
            reason = "nobody waits for it"
        elif time.monotonic() >= deadline:
            reason = "timeout"
        elif memory_of_tree(first_pid) > job["memory_bytes"]:
            reason = "memory"
        if reason:
            os.kill(first_pid, signal.SIGKILL)
            poll.unregister(0)
    os.set_blocking(errors, False)
    try:
        while data := os.read(errors, 1 << 16):
            tail = (tail + data)[-ERROR_TAIL_BYTES:]
    except BlockingIOError:
        pass
    return reason, tail


def main() -> None:
    with open(0, "rb", buffering=0, closefd=False) as standard_input:
        job = json.loads(standard_input.readline())
    print(json.dumps(watch(job)), flush=True)


if __name__ == "__main__":
    main()
