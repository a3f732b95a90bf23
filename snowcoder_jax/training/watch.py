"""What reaches a training loop from outside of its steps: SIGTERM, and time that goes by."""

from __future__ import annotations

import contextlib
import faulthandler
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def hang_watch(minutes: float) -> Iterator[Callable[[], None]]:
    """Prints the stacks of all threads each time that `minutes` pass without a sign of life.

    Every process watches itself, so a hang shows where each host stands. The run goes on: what
    looks like a hang may be a slow compilation. 0 turns it off.

    Yields:
      The sign of life, to be called at each step.
    """
    if minutes == 0:
        yield lambda: None
        return

    def alive() -> None:
        # In C, so that it works where the interpreter itself is stuck.
        faulthandler.dump_traceback_later(minutes * 60, repeat=True, file=2)

    alive()
    try:
        yield alive
    finally:
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
