"""What the event loop's thread hands over to the one that waits for answers."""

from __future__ import annotations

import queue

from snowcoder_jax.synthesis.requests import Answer


class Outbox:
    """Answers, and what ended the asking.

    Attributes:
      num_put_by: of the requests submitted, so many wait for what becomes of more.
    """

    def __init__(self) -> None:
        self.num_put_by = 0
        self._queue: queue.SimpleQueue[Answer | int | BaseException] = queue.SimpleQueue()
        self._error: BaseException | None = None

    def put(self, one: Answer | int | BaseException) -> None:
        """From the loop's thread; a number: how many more are put by, below 0: fewer."""
        self._queue.put(one)

    def wait(self) -> list[Answer]:
        """All answers that are there; raises what ended the asking.

        None are there where more requests are wanted, as `num_put_by` tells.
        """
        answers: list[Answer] = []
        is_news = False
        while self._error is None and not (is_news and self._queue.empty()):
            got, is_news = self._queue.get(), True
            if isinstance(got, BaseException):
                self._error = got  # raised when what was answered before it is stored
            elif isinstance(got, int):
                self.num_put_by += got
            else:
                answers.append(got)
        if self._error is not None and not answers:
            raise self._error
        return answers
