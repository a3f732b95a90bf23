"""One OpenAI-compatible server: asking it, checking it, and how much it may be given at once."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from typing import Literal

import aiohttp

from snowcoder_jax.recipe_synthesis import ServerTeacher
from snowcoder_jax.synthesis.requests import Answer, Request
from snowcoder_jax.synthesis.teachers import wire
from snowcoder_jax.synthesis.teachers.wire import Fault

# unknown: not checked yet. refusing, failing: it does so to everybody, and gets no more.
State = Literal["unknown", "up", "down", "refusing", "failing"]

MAX_BODY_BYTES = 1 << 26
# Servers hang up on idle connections, uvicorn (vLLM, SGLang) after 5 seconds: a request sent just
# then would be lost.
_KEEP_ALIVE_SECONDS = 4.0


@dataclasses.dataclass(frozen=True)
class Pace:
    """How fast it looks after servers: seconds."""

    check_interval: float = 15.0
    check_timeout: float = 10.0
    first_backoff: float = 0.5
    max_backoff: float = 60.0


class UnreachableError(Exception):
    """Nobody took the request: the connection was refused, or the name leads nowhere."""


class Endpoint:
    """One server of `settings.urls`; to be made and used inside one event loop.

    Attributes:
      why: the state is not "up".
      up_since: time.monotonic() of the last check that found it up after it was not.
      tells_health: it has a `/health` that says it is well.
      suspect: set by whoever saw something that calls for a check.
      well_at: time.monotonic() when the latest request that it has answered was sent.
      heard_at: when it gave its latest answer.
      is_reserved: it gets no requests, so that a control question is alone there.
      busy_until: the end of the first pause that it asked for since its last answer.
    """

    def __init__(self, url: str, settings: ServerTeacher, api_key: str, pace: Pace) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.state: State = "unknown"
        self.why = ""
        self.up_since = 0.0
        self.tells_health = False
        self.suspect = asyncio.Event()
        self.in_flight = 0
        self.well_at = 0.0
        self.heard_at = 0.0
        self.is_reserved = False
        self.busy_until = 0.0
        self._settings = settings
        self._api_key = api_key
        self._pace = pace
        self._session = self._open()
        self._bound = float(settings.max_in_flight)  # how many at once
        self._bound_since = 0.0
        self._paused_until = 0.0
        self._models: list[str] = []

    @property
    def load(self) -> float:
        """Under way, as a share of what it may be given at once."""
        return self.in_flight / self._bound

    def has_room(self, now: float) -> bool:
        is_free = self.in_flight < int(self._bound) and not self.is_reserved
        return self.state == "up" and is_free and now >= self._paused_until

    @property
    def is_dropped(self) -> bool:
        return self.state in ("refusing", "failing")

    def answered(self, sent: float) -> None:
        """It gave an answer; after a round of them it may be given one more at once."""
        self.well_at = max(self.well_at, sent)
        self.heard_at = time.monotonic()
        self.busy_until = 0.0
        self._bound = min(float(self._settings.max_in_flight), self._bound + 1 / self._bound)

    def slow_down(self, sent: float, fault: Fault) -> float:
        """It had too much to do for what was sent then: half as many at once, after a pause.

        Halved only once for all that were under way together. Returns the pause in seconds.
        """
        now = time.monotonic()
        if sent >= self._bound_since:
            self._bound = max(1.0, self._bound / 2)
            self._bound_since = now
        pause = self._pace.first_backoff if fault.retry_after is None else fault.retry_after
        if fault.kind == "busy":
            self.busy_until = self.busy_until or now + pause
        pause = min(pause, self._settings.timeout_seconds)
        self._paused_until = max(self._paused_until, now + pause)
        return pause

    async def ask(self, request: Request) -> Answer | Fault:
        """Its answer to one request.

        Raises:
          UnreachableError: its machine says that there is no server.
        """
        settings = self._settings
        try:
            async with self._session.post(
                self.url + wire.path(settings.mode),
                data=wire.request_body(request, settings.model, settings.mode),
                headers={"Content-Type": "application/json"},
                allow_redirects=False,
            ) as response:
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        return Fault("malformed", f"over {MAX_BODY_BYTES} bytes")
                retry_after = response.headers.get("Retry-After")
        except aiohttp.ClientConnectorError as error:
            raise UnreachableError(self._told(error)) from error
        except aiohttp.ConnectionTimeoutError as error:
            return Fault("connection", self._told(error))
        except TimeoutError:
            return Fault("timeout", f"no answer in {settings.timeout_seconds:g} seconds")
        except (aiohttp.ClientError, ConnectionError) as error:
            return Fault("connection", self._told(error))
        return wire.read_response(
            request.key, response.status, bytes(body), retry_after, self._api_key
        )

    async def check(self) -> State:
        """Whether it is there, says that it is well, and takes the key."""
        timeout = aiohttp.ClientTimeout(total=self._pace.check_timeout)
        try:
            async with self._session.get(self.url + "/health", timeout=timeout) as response:
                health = response.status
            async with self._session.get(self.url + "/v1/models", timeout=timeout) as response:
                status, body = response.status, await response.read()
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            self.why = self._told(error)
            return "down"
        self.tells_health = health == 200
        if health >= 500 or status >= 500:
            self.why = f"/health says {health}, /v1/models {status}"
            return "down"
        # Of hosted servers, a key may be for asking alone (403), and names beside those listed may
        # do: that alone is no refusal.
        if status == 401:
            self.why = "401 for the key"
            return "refusing"
        self._models = wire.model_names(body)
        return "up"

    def fails_everybody(self, failed: Answer | Fault) -> None:
        """Note that, and why: what it said, and what its list of models adds."""
        if isinstance(failed, Answer):
            kind, _, self.why = failed.error.partition(": ")
        else:
            kind, self.why = failed.kind, failed.message
        # The recipe's fault or the servers' settings'; else the machine's.
        is_refusal = kind in ("refusal", "refused", "context", "malformed")
        self.state = "refusing" if is_refusal else "failing"
        model = self._settings.model
        if self._models and model not in self._models:
            names = wire.shown(", ".join(self._models[:8]), self._api_key)
            self.why += f" (it has {names}, not {model})"

    async def until_suspect(self, seconds: float) -> None:
        """Waits until somebody calls for a check, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.suspect.wait()

    async def hang_up(self) -> None:
        """End all that is under way."""
        if self.in_flight:
            # First the new one: closing takes a while, and nothing may be sent by a closed session.
            old, self._session = self._session, self._open()
            await old.close()

    async def close(self) -> None:
        await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(
                total=self._settings.timeout_seconds, sock_connect=self._pace.check_timeout
            ),
            headers={"Authorization": f"Bearer {self._api_key}"} if self._api_key else None,
        )

    def _told(self, error: BaseException) -> str:
        # Of a broken response aiohttp quotes the bytes.
        return wire.shown(f"{type(error).__name__}: {error}", self._api_key)
