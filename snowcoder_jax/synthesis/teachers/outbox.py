"""What the event loop's thread hands over to the one that waits for answers."""

from __future__ import annotations

import queue

from snowcoder_jax.synthesis.requests import Answer


class Outbox:
    """Answers, and what ended the asking."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Answer | BaseException] = queue.SimpleQueue()
        self._error: BaseException | None = None

    def put(self, one: Answer | BaseException) -> None:
        """From the loop's thread."""
        self._queue.put(one)

    def wait(self) -> list[Answer]:
        """All answers that are there, one at least; raises what ended the asking."""
        answers: list[Answer] = []
        while self._error is None and not (answers and self._queue.empty()):
            got = self._queue.get()
            if isinstance(got, BaseException):
                self._error = got  # raised when what was answered before it is stored
            else:
                answers.append(got)
        if self._error is not None and not answers:
            raise self._error
        return answers
