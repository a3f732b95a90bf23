"""Where the time of a phase goes: seconds by kind, kept over kills.

Goodput is the share of a job's time in which it makes progress that lasts: the "effective
training time rate" of MegaScale (arXiv 2402.15627), and what Google's ml-goodput-measurement
(docs.cloud.google.com/tpu/docs/goodput) measures against similar kinds of badput. Every second
from the call of a phase to its end is booked under exactly one kind, by the host's clock:

  step        the device computes a step whose result was kept; also the host's own work between
              steps, which is what is left when the other kinds are taken out
  compile     tracing, lowering and compiling, loading from the persistent cache included
              (jax.monitoring's /jax/core/compile/ events of the loop's thread)
  data        the device is idle because the next batch is not there yet
  checkpoint  the loop stands still for a save; what is written while it trains on costs nothing
  start_up    the first attempt, from the call to the first step, without its compiling
  restart     what a kill costs: the start-up of every later attempt, and all seconds of steps past
              the checkpoint from which a later attempt went on (they were done again)
  evaluation  is no part of this account; the report adds the seconds of the phase's evaluation

Time in which no process ran, and what a process did before it came to the phase, is not known
here. An attempt that dies loses the last second of its account; 30 of them on an object store.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from snowcoder_jax import storage
from snowcoder_jax.training import distributed

KINDS = ("step", "compile", "data", "checkpoint", "start_up", "restart")
FOLDER = "goodput"
# How often a running attempt writes its account: every write to an object store is a request.
_LOCAL_SECONDS, _REMOTE_SECONDS = 1.0, 30.0
_COMPILE_EVENTS = "/jax/core/compile/"


@dataclasses.dataclass(frozen=True)
class Account:
    """What the time of a phase went into, over all its attempts.

    Attributes:
      seconds: by kind; all 0 where no attempt kept an account.
      num_attempts: starts of it, those included that a kill ended before their first step.
      machines: on which they ran, in order, such as `8 x TPU v5, 2 processes, mesh fsdp 8`.
    """

    seconds: dict[str, float]
    num_attempts: int
    machines: tuple[str, ...]


def phase_account(phase_folder: str) -> Account:
    """The account of all attempts at a phase."""
    paths = storage.list_files(storage.join(phase_folder, FOLDER), ".json")
    # An account that is damaged is lost: what was learnt does not hang on it.
    told = [storage.read_json_if_sound(path) for path in paths]
    attempts = [attempt for attempt in told if attempt is not None]
    total = dict.fromkeys(KINDS, 0.0)
    for i, attempt in enumerate(attempts):
        redone_from = min((later["first_step"] for later in attempts[i + 1 :]), default=None)
        for stretch in attempt["stretches"]:
            is_lost = redone_from is not None and stretch["last_step"] > redone_from
            for kind, seconds in stretch["seconds"].items():
                is_restart = is_lost or (i > 0 and kind == "start_up")
                total["restart" if is_restart else kind] += seconds
    machines = tuple(dict.fromkeys(attempt["machine"] for attempt in attempts))
    return Account(total, len(attempts), machines)


def machine_in_words(mesh: Mesh) -> str:
    """The devices, processes and mesh axes of more than one device."""
    words = [f"{mesh.size} x {mesh.devices.flat[0].device_kind}"]
    if distributed.process_count() > 1:
        words.append(f"{distributed.process_count()} processes")
    axes = [f"{name} {size}" for name, size in mesh.shape.items() if size > 1]
    return ", ".join([*words, *(["mesh " + " x ".join(axes)] if axes else [])])


class Clock:
    """Books the seconds of one attempt at a phase, from when it is made."""

    def __init__(self) -> None:
        self._kind = "start_up"
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._stretches: list[dict[str, Any]] = []
        self._compiling = _compiling()
        self._compiling.start()
        self._since = self._last_lap = time.perf_counter()
        self._waited = 0.0
        self._path: str | None = None
        self._last_write = 0.0
        self._watcher = concurrent.futures.ThreadPoolExecutor(1, "goodput")
        self._finished: concurrent.futures.Future[float] | None = None

    @contextlib.contextmanager
    def attempt(self, phase_folder: str, first_step: int, mesh: Mesh) -> Iterator[None]:
        """Around the steps of an attempt: before it was the start-up, and what is left after the
        last step is the wait for its checkpoint. Process 0 keeps the account, a list of stretches
        between checkpoints (a kill loses whole ones), in PHASE_FOLDER/goodput/ATTEMPT.json.

        Args:
          first_step: steps done when this attempt began.
        """
        self._head = {"first_step": first_step, "machine": machine_in_words(mesh)}
        self._last_step = first_step
        self._book_as("step")
        if distributed.is_first():
            folder = storage.join(phase_folder, FOLDER)
            number = len(storage.list_files(folder, ".json"))
            self._path = storage.join(folder, f"{number:05d}.json")
            self._write()
        try:
            yield
        finally:
            self._book_as("checkpoint")
            self._watcher.shutdown(wait=False)
            self._write()

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Only the part of the wait in which the device has nothing to do is booked as data."""
        self._book_as("data")
        started = self._since
        yield
        self._book_as("step")
        idle_since = started
        if self._finished is not None:
            is_idle = self._finished.done()
            idle_since = max(started, self._finished.result()) if is_idle else self._since
        self._seconds["data"] -= idle_since - started
        self._seconds["step"] += idle_since - started
        self._waited += self._since - idle_since

    @contextlib.contextmanager
    def saving(self, step: int) -> Iterator[None]:
        """Around the part of a save that the loop waits for; `step`: steps that it holds."""
        self._book_as("checkpoint")
        try:
            yield
        finally:
            self._last_step = step
            self._book_as("step")
            self._stretches.append(self._stretch())
            self._seconds.clear()
            self._write()

    def running(self, result: jax.Array) -> None:
        """A step was handed to the device, which is through with it when `result` is there."""
        self._finished = self._watcher.submit(_finished_at, result)

    def lap(self, step: int) -> tuple[float, float]:
        """Seconds since the line before `step`'s, and those in which the device lacked data."""
        self._book_as(self._kind)
        seconds, waited = self._since - self._last_lap, self._waited
        self._last_lap, self._waited, self._last_step = self._since, 0.0, step
        is_local = self._path is not None and storage.is_local(self._path)
        if self._since - self._last_write >= (_LOCAL_SECONDS if is_local else _REMOTE_SECONDS):
            self._write()
        return seconds, waited

    def _book_as(self, kind: str) -> None:
        """What went by since the last call is of the kind named then; what comes is of `kind`."""
        now = time.perf_counter()
        compiled = self._compiling.take()
        self._seconds["compile"] += compiled
        self._seconds[self._kind] += now - self._since - compiled
        self._since, self._kind = now, kind

    def _stretch(self) -> dict[str, Any]:
        return {"last_step": self._last_step, "seconds": dict(self._seconds)}

    def _write(self) -> None:
        self._last_write = time.perf_counter()
        if self._path is not None:
            stretches = [*self._stretches, self._stretch()]
            storage.write_json(self._path, {**self._head, "stretches": stretches})


def _finished_at(result: jax.Array) -> float:
    result.block_until_ready()
    return time.perf_counter()


class _Compiling:
    """Seconds that one thread spends compiling. Events nest (a jitted function is traced inside
    another's trace): what lies inside a later span is dropped, so that no second counts twice."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float]] = []
        self._thread: threading.Thread | None = None
        jax.monitoring.register_event_duration_secs_listener(self._note)

    def start(self) -> None:
        """Count what this thread compiles from now on."""
        self._thread = threading.current_thread()
        self._spans.clear()

    def take(self) -> float:
        """Seconds since the last call."""
        seconds = sum(end - start for start, end in self._spans)
        self._spans.clear()
        return seconds

    def _note(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if threading.current_thread() is self._thread and event.startswith(_COMPILE_EVENTS):
            end = time.perf_counter()
            start = end - duration_secs
            while self._spans and self._spans[-1][0] >= start:
                self._spans.pop()
            self._spans.append((start, end))


@functools.cache
def _compiling() -> _Compiling:
    return _Compiling()
