"""What a dispatcher remembers of one request, and how often it is tried."""

from __future__ import annotations

import dataclasses
import time

from snowcoder_jax import storage
from snowcoder_jax.recipe_synthesis import ServerTeacher
from snowcoder_jax.synthesis.requests import Answer, Request
from snowcoder_jax.synthesis.teachers.endpoint import Pace
from snowcoder_jax.synthesis.teachers.wire import Fault

MAX_TRIES = 6
MAX_TIMEOUTS = 2  # each may have cost a whole answer


@dataclasses.dataclass(slots=True)
class Job:
    """A request; times are of time.monotonic(), 0: none so far.

    Attributes:
      num_busy: of `num_sent`, those that came at a bad time.
      num_faults: at servers that were well; num_timeouts: of them, those of its own fault.
    """

    request: Request
    num_sent: int = 0
    num_busy: int = 0
    num_faults: int = 0
    num_timeouts: int = 0
    num_refusals: int = 0
    first_fault: float = 0.0
    last_fault: float = 0.0

    def backoff(self, fault: Fault, settings: ServerTeacher, pace: Pace) -> float:
        """Seconds, doubling with each fault; drawn from the upper half so that jobs spread."""
        doubled = pace.first_backoff * 2.0 ** min(self.num_sent - 1, 64)
        bound = min(pace.max_backoff, doubled)
        identity = f"{self.request.key} {self.num_sent}"
        seconds = bound * (0.5 + storage.seeded_share(0, "retry", identity) / 2)
        return min(settings.timeout_seconds, max(seconds, fault.retry_after or 0.0))

    def has_failed(self, settings: ServerTeacher) -> bool:
        """It was tried often enough, or it may be what its servers die of."""
        if self.num_timeouts >= MAX_TIMEOUTS or self.num_faults >= MAX_TRIES:
            return True
        is_old = time.monotonic() - self.first_fault > settings.timeout_seconds
        return is_old and self.num_sent - self.num_busy >= MAX_TRIES


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """A job that a server failed; `at`, in time.monotonic(), is when its response was there."""

    job: Job
    failed: Answer | Fault
    at: float
