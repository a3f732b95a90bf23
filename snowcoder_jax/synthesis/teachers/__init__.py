"""Who answers requests: one small interface; each kind of teacher is a file beside this one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from snowcoder_jax.recipe_synthesis import Mode
from snowcoder_jax.synthesis.requests import Answer, Request


class Teacher(Protocol):
    """A model that answers requests.

    `answers` takes requests one by one from an iterable, only as it has room for them (that is
    the back-pressure: millions of requests never lie in memory), and yields exactly one answer for
    each as they come, in any order, without a barrier between batches. It is a plain generator,
    so that callers need no event loop: a teacher in this process steps its engine between two
    `yield`s; a client of servers keeps its event loop in a thread and yields from its queue. What
    may pass (a server restarting, "too many requests") is retried inside; what may not becomes an
    answer with `finish` "error", so one bad prompt never fails the others. It raises only where
    no request could be answered any more. Closing the generator stops what is under way; what was
    not yielded is asked again by the next run, which knows stored answers by their keys.

    Attributes:
      name: of the teacher, as in the `repo` of what it writes.
      mode: "completion": it goes on from the prompt; "instruct": it replies to it.
      fingerprint: changes whenever the same request could get another answer.
    """

    @property
    def name(self) -> str: ...
    @property
    def mode(self) -> Mode: ...
    @property
    def fingerprint(self) -> str: ...
    def answers(self, requests: Iterable[Request]) -> Iterator[Answer]: ...
