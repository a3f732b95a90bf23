"""Progress of the running step: a bar on a terminal, plain lines elsewhere.

A step opens `Progress`; code far below it (a Beam stage in this process, the scorer) may call
`advance` without knowing whether anybody watches.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

QUIET_SECONDS = 5.0

_current: Progress | None = None


def advance(n: int) -> None:
    """Count `n` more items of the running step; nothing happens outside a step."""
    if _current is not None:
        _current.update(_current.done + n, _current.total, _current.note)


class Progress:
    """One step's progress, with an estimate of what is left.

    On a terminal a bar appears once the step has run for 5 seconds. Elsewhere a line is printed
    every 5 seconds at first, then ever more rarely (a tenth of the time gone by).
    """

    def __init__(self, step: str, total: int = 0, stream: TextIO = sys.stderr) -> None:
        self.done = 0
        self.total = total
        self.note = ""
        self._first_done: int | None = None
        self._step = step
        self._stream = stream
        self._start = time.monotonic()
        self._last_line = self._start
        self._bar: tqdm[None] | None = None

    def __enter__(self) -> Progress:
        global _current
        _current = self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        global _current
        _current = None
        if self._bar is not None:
            self._bar.close()

    def update(self, done: int, total: int, note: str = "") -> None:
        """Say that `done` of `total` items are done (`total` 0: unknown)."""
        self.done, self.total, self.note = done, total, note
        if self._first_done is None:
            # What an earlier, killed process did says nothing of this one's speed.
            self._first_done = max(0, done - 1)
        now = time.monotonic()
        elapsed_seconds = now - self._start
        if elapsed_seconds < QUIET_SECONDS:
            return
        if self._stream.isatty():
            self._draw_bar()
        elif now - self._last_line >= max(QUIET_SECONDS, elapsed_seconds / 10):
            self._last_line = now
            print(self.line(elapsed_seconds), file=self._stream, flush=True)

    def line(self, elapsed_seconds: float) -> str:
        """`train general: 120/400, about 42 s left, loss 4.21`"""
        text = f"  {self._step}: {self.done}"
        if self.total:
            text += f"/{self.total}"
            num_done = self.done - (self._first_done or 0)
            if num_done > 0 and self.done < self.total:
                left_seconds = elapsed_seconds * (self.total - self.done) / num_done
                text += f", about {left_seconds:.0f} s left"
        return text + (f", {self.note}" if self.note else "")

    def _draw_bar(self) -> None:
        if self._bar is None:
            self._bar = tqdm(
                total=self.total or None,
                desc=f"  {self._step}",
                file=self._stream,
                leave=False,
                dynamic_ncols=True,
            )
            self._bar.start_t -= QUIET_SECONDS
        self._bar.total = self.total or None
        self._bar.n = self.done
        self._bar.set_postfix_str(self.note, refresh=False)
        self._bar.refresh()
