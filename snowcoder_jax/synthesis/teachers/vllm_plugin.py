"""What vLLM runs in each of its processes (entry point `vllm.general_plugins`).

A worker that is killed outright would leave vLLM's own processes behind, which wait for ever and
hold their GPUs. Here the kernel ends them with it.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_forking = 0  # the process that forks just now


def end_with_parent() -> None:
    """Be killed when the parent dies, in a child process; so are all that this process forks.

    vLLM forks on GPUs, and plugins are not run again in the fork; elsewhere it spawns.
    """
    if sys.platform != "linux":
        return
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        _die_with(parent.pid)
    # A fork inherits the hooks, so forks of forks know their own parents. multiprocessing does not:
    # until its bootstrap, which comes later, it names the parent's parent.
    os.register_at_fork(before=_remember, after_in_child=lambda: _die_with(_forking))


def _remember() -> None:
    global _forking
    _forking = os.getpid()


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it died before the kernel was told
