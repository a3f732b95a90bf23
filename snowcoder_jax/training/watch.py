"""What reaches a training loop from outside of its steps: SIGTERM, and time that goes by."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

_STDERR = 2
# After which an interpreter that lets no thread of its own run is taken for stuck.
_GRACE_SECONDS = 60.0


@contextlib.contextmanager
def hang_watch(minutes: float) -> Iterator[Callable[[], None]]:
    """Prints the stacks of all threads each time that `minutes` pass without a sign of life.

    Every process watches itself, so a hang shows where each host stands. The run goes on: what
    looks like a hang may be a slow compilation. 0 turns it off.

    A thread of the interpreter prints them, during which the others stand still: to follow the
    frames of threads that run can crash the process. Only where the interpreter itself is stuck
    does a thread in C, which needs no leave of it.

    Yields:
      The sign of life, to be called at each step.
    """
    if minutes == 0:
        yield lambda: None
        return

    seconds = minutes * 60
    due = time.monotonic() + seconds
    is_over = threading.Event()

    def alive() -> None:
        nonlocal due
        due = time.monotonic() + seconds

    def watch() -> None:
        while not is_over.wait(max(0.0, due - time.monotonic())):
            if time.monotonic() >= due:
                os.write(_STDERR, f"Timeout: no step for {minutes:g} minutes\n".encode())
                faulthandler.dump_traceback(file=_STDERR, all_threads=True)
                alive()
            put_off()

    def put_off() -> None:
        faulthandler.dump_traceback_later(seconds + _GRACE_SECONDS, repeat=True, file=_STDERR)

    put_off()
    watcher = threading.Thread(target=watch, name="hang watch", daemon=True)
    watcher.start()
    try:
        yield alive
    finally:
        is_over.set()
        watcher.join()
        faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def terminated() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM has come since; outside the main thread it is left to the caller."""
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return

    def remember(_signal: int, _frame: FrameType | None) -> None:
        came.set()

    before = signal.signal(signal.SIGTERM, remember)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
