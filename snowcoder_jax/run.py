"""Runs a recipe's steps: what is done is skipped, what is stale is redone, what was killed goes on.

A step is a name, a key (the fingerprint of its parameters, its inputs' keys and its code), the
folder it fills and the work. `step.json`, written last into that folder, says with which key the
step was finished, which files it left and what it measured. The graph itself is in `steps/`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psutil

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.progress import Progress
from snowcoder_jax.training import distributed

Facts = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Step:
    """One unit of a run.

    Attributes:
      name: `train general`; groups share their first word, which is also the command.
      key: fingerprint of everything the result depends on.
      folder: what the step fills; `step.json` in it is written last.
      work: does the step; returns what the report tells of it (JSON).
      watch: counts what is finished so far, for steps that cannot say so themselves.
      total: of what `watch` counts.
      outputs: files outside the folder that must be there too.
      together: all processes of the run do it at once; the first alone does the other steps.
    """

    name: str
    key: str
    folder: str
    work: Callable[[Progress], Facts]
    watch: Callable[[], int] | None = None
    total: int = 0
    outputs: tuple[str, ...] = ()
    together: bool = False

    @property
    def record_path(self) -> str:
        return storage.join(self.folder, "step.json")


def finished(step: Step) -> Facts | None:
    """The record of a finished step, or None where it is missing, stale or has lost files."""
    if not storage.exists(step.record_path):
        return None
    record: Facts = storage.read_json(step.record_path)
    if record["key"] != step.key:
        return None
    if not all(storage.exists(path) for path in step.outputs):
        return None
    sizes = storage.sizes_bytes(step.folder)
    return record if all(sizes.get(p) == size for p, size in record["files"].items()) else None


def execute(steps: Sequence[Step], log: Callable[[str], None]) -> None:
    """Run, in order, every step that is not finished.

    With several processes the first says what there is to do, and alone writes records.
    """
    if distributed.is_first():
        _lead(steps, log)
    else:
        _follow(steps)
    distributed.agreed("end of the steps", lambda: None)


def _follow(steps: Sequence[Step]) -> None:
    with open(os.devnull, "w") as nowhere:
        for step in steps:
            if step.together and distributed.agreed(step.name, lambda: None):
                with Progress(step.name, step.total, nowhere) as progress:
                    step.work(progress)


def _lead(steps: Sequence[Step], log: Callable[[str], None]) -> None:
    num_done = sum(finished(step) is not None for step in steps)
    if num_done:
        log(f"{num_done} of {len(steps)} steps are done already")
    for number, step in enumerate(steps, start=1):
        # Runs of other names may share this folder; the second one finds it done.
        is_done = finished(step) is not None
        with contextlib.nullcontext() if is_done else folder_lock(step.folder, wait=True):
            is_due = not is_done and finished(step) is None
            if step.together:
                distributed.agreed(step.name, functools.partial(bool, is_due))
            if is_due:
                log(f"[{number}/{len(steps)}] {step.name}")
                record = run_step(step)
                log(f"  {step.name}: {record['seconds']:.1f} s")


def run_step(step: Step) -> Facts:
    """Do one step and write its record."""
    storage.remove(step.record_path)
    storage.remove_temporaries(step.folder)
    start = time.monotonic()
    with Progress(step.name, step.total) as progress, _Watcher(step, progress) as watcher:
        facts = step.work(progress)
    record = {
        "name": step.name,
        "key": step.key,
        "seconds": time.monotonic() - start,
        "peak_memory_bytes": watcher.peak_bytes,
        "files": _files(step.folder),
        "facts": facts,
    }
    storage.write_json(step.record_path, record)
    return record


def _files(folder: str) -> dict[str, int]:
    # Folders of later steps may lie inside: the first level of a corpus holds its attributes.
    return {
        path: size
        for path, size in storage.sizes_bytes(folder).items()
        if "/attributes/" not in f"/{path}"
        and path.rsplit("/", 1)[-1] not in ("step.json", ".lock")
    }


class _Watcher:
    """Samples the memory of this process and its children, and counts finished shards."""

    def __init__(self, step: Step, progress: Progress) -> None:
        self.peak_bytes = 0
        self._step = step
        self._progress = progress
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> _Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _loop(self) -> None:
        ticks = 0
        # Listing a bucket is paid for, and slow.
        ticks_between = 4 if storage.is_local(self._step.folder) else 120
        while True:
            self.peak_bytes = max(self.peak_bytes, resident_bytes())
            if self._step.watch is not None and ticks % ticks_between == 0:
                self._progress.update(self._step.watch(), self._step.total)
            ticks += 1
            if self._stop.wait(0.25):
                return


def resident_bytes() -> int:
    """Resident memory of this process and all its children."""
    process = psutil.Process()
    total = process.memory_info().rss
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += child.memory_info().rss
    return int(total)


@contextlib.contextmanager
def folder_lock(folder: str, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes out of a local folder; the system frees the lock at any death.

    Raises:
      InputError: another process has it, and this one is not to wait.
    """
    if not storage.is_local(folder):
        yield
        return
    path = os.path.join(folder, ".lock")
    with storage.machine_faults(path):
        os.makedirs(folder, exist_ok=True)
        handle = open(path, "a+")  # noqa: SIM115 (held until the caller is through)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as e:
            raise InputError(
                f"{folder}: another process is running this recipe. "
                "Wait for it, or give this run another `name`."
            ) from e
        yield
    finally:
        handle.close()


def print_line(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
