"""The system calls that a program in the sandbox is refused, as a seccomp filter.

Made outside and handed to `sandbox_child.py` with each job. Sockets other than local ones are
refused by family, since a network namespace does not cover every one of them (AF_VSOCK); io_uring
would go round the filter; memfd and System V memory would go round the memory limits; a second
user namespace or another process's memory would be a way at the walls.
"""

from __future__ import annotations

import struct

# Numbers by machine: asm/unistd_64.h, asm-generic/unistd.h; `audit`: linux/audit.h.
SYSCALLS = {
    "x86_64": {
        "audit": 0xC000003E, "pivot_root": 155, "mount_setattr": 442, "socket": 41, "clone": 56,
        "clone3": 435, "ptrace": 101, "unshare": 272, "setns": 308, "mount": 165, "bpf": 321,
        "keyctl": 250, "add_key": 248, "request_key": 249, "io_uring_setup": 425, "shmget": 29,
        "memfd_create": 319, "memfd_secret": 447, "mq_open": 240, "perf_event_open": 298,
        "userfaultfd": 323, "process_vm_readv": 310, "process_vm_writev": 311,
    },
    "aarch64": {
        "audit": 0xC00000B7, "pivot_root": 41, "mount_setattr": 442, "socket": 198, "clone": 220,
        "clone3": 435, "ptrace": 117, "unshare": 97, "setns": 268, "mount": 40, "bpf": 280,
        "keyctl": 219, "add_key": 217, "request_key": 218, "io_uring_setup": 425, "shmget": 194,
        "memfd_create": 279, "memfd_secret": 447, "mq_open": 180, "perf_event_open": 241,
        "userfaultfd": 282, "process_vm_readv": 270, "process_vm_writev": 271,
    },
}  # fmt: skip
REFUSED = (
    "ptrace", "unshare", "setns", "mount", "bpf", "keyctl", "add_key", "request_key",
    "io_uring_setup", "shmget", "memfd_create", "memfd_secret", "mq_open", "perf_event_open",
    "userfaultfd", "process_vm_readv", "process_vm_writev",
)  # fmt: skip

AF_UNIX = 1
CLONE_NEWUSER = 0x10000000
EPERM, ENOSYS = 1, 38

# linux/bpf_common.h and linux/seccomp.h
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data


def filter_program(machine: str) -> bytes:
    """The filter for a machine (`platform.machine()`), 8 bytes a line: code, jumps, operand.

    Raises:
      KeyError: its system calls are not known.
    """
    numbers = SYSCALLS[machine]
    lines = [
        (_LOAD, 0, 0, _MACHINE),
        (_EQUAL, 1, 0, numbers["audit"]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, 0x40000000),  # x86-64's second table, for 32-bit pointers
        (_RETURN, 0, 0, _KILL),
    ]
    for name in REFUSED:
        lines += [(_EQUAL, 0, 1, numbers[name]), (_RETURN, 0, 0, _ERRNO | EPERM)]
    # clone3 hides its flags behind a pointer; told that it is unknown, the C library takes clone.
    lines += [(_EQUAL, 0, 1, numbers["clone3"]), (_RETURN, 0, 0, _ERRNO | ENOSYS)]
    lines += [
        (_EQUAL, 0, 4, numbers["clone"]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_ANY_BIT, 0, 1, CLONE_NEWUSER),
        (_RETURN, 0, 0, _ERRNO | EPERM),
        (_RETURN, 0, 0, _ALLOW),
        (_EQUAL, 0, 3, numbers["socket"]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_EQUAL, 1, 0, AF_UNIX),
        (_RETURN, 0, 0, _ERRNO | EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("<HBBI", *line) for line in lines)
