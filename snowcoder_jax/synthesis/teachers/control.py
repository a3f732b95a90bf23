"""A control question: whose fault is it when a server fails requests, theirs or its own?

A server may fail everybody with a health as good as ever: it was started again without its chat
template, the account has run dry, a proxy answers in its place. Or it is well and has a long queue:
a time-out counts only where the question was alone.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import time

from snowcoder_jax.recipe_synthesis import ServerTeacher
from snowcoder_jax.synthesis.requests import Answer, Request
from snowcoder_jax.synthesis.teachers.endpoint import Endpoint, Pace
from snowcoder_jax.synthesis.teachers.jobs import MAX_TIMEOUTS, MAX_TRIES
from snowcoder_jax.synthesis.teachers.wire import Fault

# For models that chat, and for those that go on; a few tokens of an answer will do.
CONTROL_PROMPT = 'def add(a, b):\n    """Return the sum of a and b."""\n'
CONTROL_TOKENS = 16


async def failure(
    server: Endpoint, failed: Request, settings: ServerTeacher, pace: Pace
) -> Answer | Fault | None:
    """What the server says to a question that any model can answer, if that is no answer.

    None: it answers, this or another question that was sent later, which `server.well_at` tells; or
    it went down.

    Args:
      failed: a request that it failed; `CONTROL_PROMPT` is asked in its place.

    Raises:
      UnreachableError: its machine says that there is no server.
    """
    sampling = dataclasses.replace(failed.sampling, max_new_tokens=CONTROL_TOKENS)
    request = dataclasses.replace(failed, prompt=CONTROL_PROMPT, sampling=sampling)
    started = time.monotonic()
    num_timeouts = 0
    for num_tries in itertools.count(1):
        sent = time.monotonic()
        was_alone = not server.in_flight
        server.in_flight += 1
        try:
            outcome = await server.ask(request)
        finally:
            server.in_flight -= 1
        if isinstance(outcome, Answer) and outcome.finish != "error":
            server.answered(sent)
        if server.well_at >= sent or server.state != "up":
            return None
        if isinstance(outcome, Answer) or outcome.kind == "refusal":
            return outcome
        if outcome.kind == "timeout":
            num_timeouts += was_alone
            is_over = num_timeouts >= MAX_TIMEOUTS
            pause = pace.first_backoff
            server.is_reserved = not is_over
            while server.in_flight and server.well_at < sent and server.state == "up":
                await asyncio.sleep(pause)
            if server.well_at >= sent or server.state != "up":
                return None
        elif outcome.kind == "busy":
            pause = server.slow_down(sent, outcome)
            since = max(started, server.busy_until)
            is_over = time.monotonic() - since > settings.timeout_seconds
        else:
            pause = min(pace.max_backoff, pace.first_backoff * 2.0 ** (num_tries - 1))
            is_over = num_tries >= MAX_TRIES
        if is_over:
            return outcome
        await asyncio.sleep(pause)
    raise AssertionError  # the count has no end
