"""OpenAI-compatible servers as one teacher: vLLM, SGLang, llama.cpp, a hosted one.

`ServersTeacher.answers` is a plain generator; an event loop in a thread of its own talks to the
servers (`dispatch.py`).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator

from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe_synthesis import ServerTeacher
from snowcoder_jax.recipe_synthesis_checks import is_address, is_key
from snowcoder_jax.synthesis.requests import Answer, Request
from snowcoder_jax.synthesis.teachers.dispatch import Dispatcher
from snowcoder_jax.synthesis.teachers.endpoint import Pace

_USUAL_PACE = Pace()


class ServersTeacher:
    """The servers of `settings.urls`, all of one model.

    `answers` raises InputError when every server refuses the key, the account, the model or every
    question, MachineError when every one fails at every question, or when none has been reachable,
    or has done more than say that it is busy, for `settings.timeout_seconds` (and for as long as a
    `Retry-After` asked for before). The same time bounds one answer.

    Args:
      when_down: called in another thread at every check that finds a server down; what it raises
        ends the asking: whoever runs the servers knows which will not come back.

    Raises:
      InputError: a URL is none, the environment variable of the key is not set or holds none.
    """

    def __init__(
        self,
        settings: ServerTeacher,
        *,
        fingerprint: str,
        pace: Pace = _USUAL_PACE,
        when_down: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = settings.model
        self.mode = settings.mode
        self.fingerprint = fingerprint
        self._settings = settings
        self._pace = pace
        self._when_down = when_down
        faults = [
            f"synthesis.teacher.urls: {url!r} is no address. Give it as http://HOST:PORT."
            for url in settings.urls
            if not is_address(url)
        ]
        self._api_key = ""
        if variable := settings.api_key_variable:
            self._api_key = os.environ.get(variable, "").strip()
            if not self._api_key:
                faults.append(
                    f"synthesis.teacher.api_key_variable: the environment has no {variable}. "
                    "Set it to the servers' key."
                )
            elif not is_key(self._api_key):
                faults.append(
                    f"synthesis.teacher.api_key_variable: what {variable} holds is no key: it has "
                    "line breaks, spaces or characters beyond ASCII. Set it to the key alone."
                )
        if faults:
            raise InputError("\n".join(faults))

    def answers(self, requests: Iterable[Request]) -> Iterator[Answer]:
        source = iter(requests)
        room = self._settings.max_in_flight * len(self._settings.urls)
        new = list(itertools.islice(source, room))
        if not new:
            return
        dispatcher = Dispatcher(self._settings, self._api_key, self._pace, self._when_down)
        dispatcher.start()
        under_way = 0
        ready: list[Answer] = []
        try:
            while True:
                if new:
                    dispatcher.submit(new)
                    under_way += len(new)
                # Only now, so that the servers write on while these are stored.
                yield from ready
                if not under_way:
                    return
                ready = dispatcher.out.wait()
                under_way -= len(ready)
                new = list(itertools.islice(source, room - under_way))
        finally:
            dispatcher.stop()
