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


def end_with_parent() -> None:
    """In a child process: be killed when the parent dies. In the first one: tell its children.

    vLLM forks on GPUs, and plugins are not run again in the fork; elsewhere it spawns.
    """
    if sys.platform != "linux":
        return
    if multiprocessing.parent_process() is None:
        os.register_at_fork(after_in_child=_die_with_parent)
    else:
        _die_with_parent()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid != os.getppid():
        os._exit(1)  # it died before the kernel was told
