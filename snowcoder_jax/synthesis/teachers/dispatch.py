"""Which server gets which request, and what becomes of a response.

A request goes to the least busy server that is up. What becomes of a response:

- an answer, or a prompt that is too long (`context`): yielded.
- busy (429, 503): the server gets half as many at once and a pause (its `Retry-After`); its bound
  grows by one a round of answers (as TCP's, RFC 5681, section 3.1). The request waits its turn,
  however long: only where nobody was answered for `timeout_seconds` does the asking end.
- a time-out: it gets less at once, too. It is the request's own only where one that was sent later
  was answered, or where it was alone; a server that answered nothing meanwhile is doubted.
- a fault that may pass (408, 409, 5xx, a broken or senseless response, a time-out): the server is
  checked at once and the request is tried again, later and later, wherever there is room. A
  request has failed after `MAX_TRIES` times at servers that were well. Well is a server whose
  `/health` says so; without one, a server that answers others.
- a request that has failed, or was refused (400, 403, 404, 413, 422; an answer without text): its
  own fault, or the server fails everybody, with a health as good as ever. It is held back until
  the same server answers a request that was sent after the failure; then it is given up.
- a refusal of the key or the account (401, 402, no quota): held back as well, and never given up:
  when the server answers others again, it is asked again.

Where no other can show whose fault it was, or `MAX_HELD` are held back, the server is asked a
control question (`control.py`). If it fails at that too it gets no more: others do, or a next run.

A server that cannot be reached, or has failed three checks, is down: what it had goes to others or
waits, and it is asked every few seconds whether it is back.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from snowcoder_jax.recipe_synthesis import ServerTeacher
from snowcoder_jax.synthesis.requests import Answer, Request
from snowcoder_jax.synthesis.teachers import control, ends, wire
from snowcoder_jax.synthesis.teachers.endpoint import Endpoint, Pace, UnreachableError
from snowcoder_jax.synthesis.teachers.jobs import Held, Job
from snowcoder_jax.synthesis.teachers.outbox import Outbox
from snowcoder_jax.synthesis.teachers.wire import Fault

_LOG = logging.getLogger(__name__)

MAX_REFUSALS = 6  # of the key or the account, of one request, by servers that answer others
MAX_HELD = 16
MAX_FAILED_CHECKS = 3


class Dispatcher:
    """Asks servers from an event loop in a thread of its own.

    `start`, `submit` and `stop` are for the thread that made it.

    Attributes:
      out: what comes of it; `out.wait` raises InputError and MachineError as
        `ServersTeacher.answers` does.
    """

    def __init__(
        self, settings: ServerTeacher, api_key: str, pace: Pace, when_down: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._api_key = api_key
        self._pace = pace
        self._when_down = when_down
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)
        self.out = Outbox()
        self._stopped = asyncio.Event()
        self._servers: list[Endpoint] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending: collections.deque[Job] = collections.deque()
        self._held: dict[Endpoint, list[Held]] = {}
        self._controlled: set[Endpoint] = set()  # servers with a control question under way
        self._num_live = 0  # jobs that are neither settled nor held back
        self._end_error: BaseException | None = None  # no server is left
        self._last_answer = 0.0
        self._last_up = 0.0

    def start(self) -> None:
        self._thread.start()

    def submit(self, requests: list[Request]) -> None:
        self._loop.call_soon_threadsafe(self._take, requests)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()
        self._loop.close()

    # Everything below runs in the event loop's thread.

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._main())
        except BaseException as error:  # to the thread that waits for answers
            self.out.put(error)

    async def _main(self) -> None:
        self._last_up = time.monotonic()
        try:
            for url in self._settings.urls:
                server = Endpoint(url, self._settings, self._api_key, self._pace)
                self._servers.append(server)
                self._held[server] = []
                self._spawn(self._watch(server))
            await self._stopped.wait()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for server in self._servers:
                await server.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.out.put(error)

    def _take(self, requests: list[Request]) -> None:
        self._pending.extend(Job(request) for request in requests)
        self._num_live += len(requests)
        self._dispatch()

    def _dispatch(self) -> None:
        now = time.monotonic()
        while self._pending:
            free = [server for server in self._servers if server.has_room(now)]
            if not free:
                return
            server = min(free, key=lambda s: s.load)
            server.in_flight += 1
            self._spawn(self._ask(server, self._pending.popleft()))

    async def _dispatch_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._dispatch()

    async def _ask(self, server: Endpoint, job: Job) -> None:
        sent, was_alone = time.monotonic(), server.in_flight == 1
        try:
            outcome = await server.ask(job.request)
        except UnreachableError as error:
            server.in_flight -= 1
            self._pending.appendleft(job)
            self._lose(server, str(error))
            self._dispatch()
            return self._raise_once_all_is_in()
        server.in_flight -= 1
        job.num_sent += 1
        self._take_in(server, job, outcome, sent, was_alone)
        self._raise_once_all_is_in()

    def _take_in(
        self, server: Endpoint, job: Job, outcome: Answer | Fault, sent: float, was_alone: bool
    ) -> None:
        """What the server said to the request that was sent then."""
        if isinstance(outcome, Answer):
            if outcome.finish != "error":
                self._is_well(server, sent)
            elif not outcome.error.startswith("context:"):
                self._hold(server, job, outcome, time.monotonic())
                return self._dispatch()
            self._yield(job, outcome)
            self._one_less()
        elif outcome.kind == "refusal":
            self._hold(server, job, outcome, time.monotonic())
        else:
            if outcome.kind in ("busy", "timeout"):
                self._spawn(self._dispatch_after(server.slow_down(sent, outcome)))
            server.suspect.set()
            is_queue = outcome.kind == "timeout" and not was_alone and server.well_at <= sent
            self._spawn(self._retry(server, job, outcome, is_queue))
            if is_queue and server.heard_at <= sent:
                self._doubt(server, job.request)
        self._dispatch()

    def _is_well(self, server: Endpoint, sent: float) -> None:
        """It answered the request that was sent then."""
        self._last_answer = self._last_up = time.monotonic()
        server.answered(sent)
        self._settle(server)

    def _yield(self, job: Job, answer: Answer) -> None:
        self.out.put(dataclasses.replace(answer, num_retries=job.num_sent - 1))

    def _one_less(self) -> None:
        self._num_live -= 1
        if not self._num_live:
            for server in self._servers:
                self._settle(server)

    async def _retry(self, server: Endpoint, job: Job, fault: Fault, is_queue: bool) -> None:
        """Put the job back after a while, or give it up.

        Args:
          is_queue: it may have waited behind others for all of its time.
        """
        now = time.monotonic()
        await asyncio.sleep(job.backoff(fault, self._settings, self._pace))
        if fault.kind == "busy":
            job.num_busy += 1
            self._raise_if_all_are_busy(server, fault)
            self._pending.append(job)
            return self._dispatch()
        # A server that is gone by now was the fault's cause; one without a word on its health may
        # be failing everybody.
        was_well = server.state == "up" and server.up_since <= now
        others_pass = server.tells_health or self._last_answer > job.last_fault
        if was_well and others_pass:
            job.num_faults += 1
            job.num_timeouts += fault.kind == "timeout" and not is_queue
        job.first_fault = job.first_fault or now
        job.last_fault = now
        if job.has_failed(self._settings):
            failed = wire.failed(job.request.key, fault.kind, fault.message)
            self._hold(server, job, failed, now)
        else:
            self._pending.append(job)
        self._dispatch()

    def _raise_if_all_are_busy(self, server: Endpoint, fault: Fault) -> None:
        """Raises MachineError: nobody was answered for so long, pauses asked for not counted."""
        seconds = self._settings.timeout_seconds
        since = max(
            (max(s.heard_at, s.up_since, s.busy_until) for s in self._servers if not s.is_dropped),
            default=0.0,
        )
        if time.monotonic() - since > seconds:
            raise ends.all_are_busy(server.url, fault.message, seconds)

    def _hold(self, server: Endpoint, job: Job, failed: Answer | Fault, at: float) -> None:
        """Keep a failure back until it is known whether others fare better."""
        if server.is_dropped:
            self._pending.append(job)
            return
        self._held[server].append(Held(job, failed, at))
        if isinstance(failed, Fault):
            job.num_refusals += 1
            if job.num_refusals > MAX_REFUSALS:
                self._num_live -= 1
                return self._drop(server, failed)
        self._settle(server)
        self._one_less()

    def _settle(self, server: Endpoint) -> None:
        """Decide on what is held back, as far as the server's answers show whose fault it was."""
        held = self._held[server]
        shown = [one for one in held if one.at <= server.well_at]
        held[:] = [one for one in held if one.at > server.well_at]
        self._ask_again([one.job for one in shown if isinstance(one.failed, Fault)])
        for one in shown:
            if isinstance(one.failed, Answer):
                self._yield(one.job, one.failed)
        is_due = not self._num_live or len(held) >= MAX_HELD
        if held and is_due:
            self._doubt(server, held[0].job.request)

    def _doubt(self, server: Endpoint, failed: Request) -> None:
        """Ask it a control question in place of what it failed."""
        if server.state == "up" and server not in self._controlled:
            self._controlled.add(server)
            self._spawn(self._control(server, failed))

    def _ask_again(self, jobs: list[Job]) -> None:
        """Of what was held back."""
        for job in jobs:
            job.num_faults = job.num_timeouts = 0
        self._pending.extend(jobs)
        self._num_live += len(jobs)
        self._dispatch()

    async def _control(self, server: Endpoint, doubted: Request) -> None:
        """Drop a server that fails at what can be answered."""
        failed = None
        try:
            failed = await control.failure(server, doubted, self._settings, self._pace)
        except UnreachableError as error:
            self._lose(server, str(error))
        self._controlled.discard(server)
        server.is_reserved = False
        if failed is not None:
            return self._drop(server, failed)
        self._settle(server)
        self._dispatch()
        self._raise_once_all_is_in()

    async def _watch(self, server: Endpoint) -> None:
        """Look after one server: is it there, does it take the key, is it still well."""
        pause, num_failed = self._pace.first_backoff, 0
        while True:
            server.suspect.clear()
            state = await server.check()
            if server.is_dropped:
                return
            if state == "refusing":
                return self._drop(server, Fault("refusal", server.why))
            if state == "up":
                pause, num_failed = self._pace.first_backoff, 0
                self._is_up(server)
                await server.until_suspect(self._pace.check_interval)
                continue
            num_failed += 1
            # A busy server may miss a check; one with nothing under way has no excuse.
            if num_failed >= MAX_FAILED_CHECKS or not server.in_flight:
                self._lose(server, server.why)
            if server.state == "down":
                await server.hang_up()
                self._when_down()
                self._raise_if_none_is_left()
                if any(other.state == "up" for other in self._servers):
                    self._take_back(server)
            await asyncio.sleep(pause)
            pause = min(pause * 2, self._pace.check_interval)

    def _is_up(self, server: Endpoint) -> None:
        self._last_up = time.monotonic()
        if server.state != "up":
            if server.state == "down":
                _LOG.warning("%s is back", server.url)
            server.state, server.up_since, server.busy_until = "up", self._last_up, 0.0
            self._dispatch()
        self._settle(server)

    def _lose(self, server: Endpoint, why: str) -> None:
        if server.state in ("up", "unknown"):
            seconds = self._settings.timeout_seconds
            _LOG.warning("%s: no server, waiting up to %g seconds (%s)", server.url, seconds, why)
            server.state, server.why = "down", why
            server.suspect.set()

    def _take_back(self, server: Endpoint) -> None:
        """What it failed is for others."""
        held, self._held[server] = self._held[server], []
        self._ask_again([one.job for one in held])

    def _drop(self, server: Endpoint, failed: Answer | Fault) -> None:
        """It gets no more."""
        server.fails_everybody(failed)
        _LOG.warning("%s gets no more requests (%s)", server.url, server.why)
        self._take_back(server)
        self._raise_if_none_is_left()

    def _raise_if_none_is_left(self) -> None:
        """Raises InputError, MachineError: as `ServersTeacher` says."""
        self._end_error = ends.none_is_left(self._servers)
        if self._end_error is not None:
            return self._raise_once_all_is_in()
        if any(server.state == "up" for server in self._servers):
            return
        seconds = self._settings.timeout_seconds
        if time.monotonic() - self._last_up > seconds:
            raise ends.none_is_reachable(self._servers, seconds)

    def _raise_once_all_is_in(self) -> None:
        """What ends the asking, when the answers under way are there: they are written and paid."""
        if self._end_error is not None and not any(one.in_flight for one in self._servers):
            raise self._end_error
