"""Worker processes of a local run: started once, and used by the pipelines of all its stages.

Beam starts two Python processes for every pipeline, which is seconds for each stage; these stay,
with what they have imported and built (the index of the benchmarks, the tokenizer). A process is
told on its standard input which pipeline to work for, and ends when that input does: no death of
the launching process, however sudden, leaves one behind.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import gc
import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.worker_handlers import (
    GrpcWorkerHandler,
    WorkerHandler,
)
from apache_beam.runners.worker.sdk_worker import SdkHarness
from apache_beam.transforms.environments import Environment, python_sdk_capabilities

from beam_pipelines.options import LOCAL_RUNNER
from snowcoder_jax.errors import MachineError

_URN = "snowcoder:local_workers:v1"
_POLL_SECONDS = 0.2

Element = TypeVar("Element")


@contextlib.contextmanager
def pipeline(options: PipelineOptions) -> Iterator[beam.Pipeline]:
    """A Beam pipeline that runs at the end of the block; a local one on the workers kept here.

    Raises:
      MachineError: a worker process died.
    """
    num_workers = _num_processes(options)
    if num_workers == 0:
        # Beam makes many short-lived objects: Python need not look through all that other stages
        # keep (the index of the benchmarks is millions) each time it looks for garbage.
        gc.freeze()
        try:
            with beam.Pipeline(options=options) as result:
                yield result
        finally:
            gc.unfreeze()
        return
    workers = _living(num_workers)
    result = beam.Pipeline(FnApiRunner(_LocalEnvironment(num_workers)), options)
    yield result
    workers.run(result)


def spread(
    pipeline: beam.Pipeline,
    elements: Sequence[Element],
    sizes_bytes: Sequence[int],
    options: PipelineOptions,
) -> beam.PCollection[Element]:
    """Elements that are worked on apart from each other, and as much by each local worker.

    Beam's local runner deals values to its workers in turn, whatever their size: here they stand
    in rounds, the largest first, and the worker with the least so far gets the largest of a round.
    """
    num_workers = max(1, int(options.view_as(DirectOptions).direct_num_workers))
    dealt = [elements[i] for i in rounds(sizes_bytes, num_workers)]
    return pipeline | beam.Create(dealt, reshuffle=False) | beam.Reshuffle()


def rounds(sizes: Sequence[int], num_workers: int) -> list[int]:
    """Indices of `sizes` in such an order that those dealt in turn sum to nearly the same."""
    largest_first = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    loads = [0] * num_workers
    order: list[int] = []
    for start in range(0, len(sizes), num_workers):
        dealt = largest_first[start : start + num_workers]
        least_loaded_first = sorted(range(len(dealt)), key=lambda worker: loads[worker])
        of_worker = dict(zip(least_loaded_first, dealt, strict=True))
        for worker in range(len(dealt)):
            loads[worker] += sizes[of_worker[worker]]
            order.append(of_worker[worker])
    return order


def close() -> None:
    """End the processes, which hold memory that other work may need; pipelines start new ones."""
    for workers in _kept.values():
        workers.close()
    _kept.clear()


def _num_processes(options: PipelineOptions) -> int:
    """How many of the processes here a pipeline runs on; 0 where it runs without them."""
    direct = options.view_as(DirectOptions)
    is_local = options.view_as(StandardOptions).runner == LOCAL_RUNNER
    # Of Beam's own modes one has worker processes, which it starts anew for every pipeline.
    is_own = direct.direct_running_mode == "in_memory"
    num_workers = int(direct.direct_num_workers)
    return num_workers if is_local and is_own and num_workers > 1 else 0


class _Workers:
    """`num_workers` processes that take harnesses in turn."""

    def __init__(self, num_workers: int) -> None:
        command = [sys.executable, "-m", "beam_pipelines.workers"]
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, text=True) for _ in range(num_workers)
        ]
        self._in_turn = itertools.cycle(self._processes)
        threading.excepthook = _tell_of_all_but_lost_connections

    def start(self, worker_id: str, address: str) -> None:
        """Have the next process work for the pipeline that is controlled at `address`."""
        stdin = next(self._in_turn).stdin
        assert stdin is not None
        stdin.write(f"{worker_id} {address}\n")
        stdin.flush()

    def run(self, pipeline: beam.Pipeline) -> None:
        """Run a pipeline to its end, and see to it that something always ends it.

        Raises:
          MachineError: a worker process died, for which Beam would wait for ever.
        """
        finished = concurrent.futures.Future[None]()
        # In another thread: signals are not seen while Beam waits.
        threading.Thread(target=_finish, args=(pipeline, finished), daemon=True).start()
        try:
            while not concurrent.futures.wait([finished], _POLL_SECONDS).done:
                self._check()
            self._check()
        except BaseException:
            for process in self._processes:
                process.kill()
            raise
        finished.result()

    @property
    def are_alive(self) -> bool:
        return all(process.poll() is None for process in self._processes)

    def _check(self) -> None:
        for process in self._processes:
            if (code := process.poll()) is not None:
                how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                raise MachineError(
                    f"a worker process of Beam died ({how}; SIGKILL is often a lack of memory). "
                    "Start the same command again, with a smaller hardware.beam_workers if need be."
                )

    def close(self) -> None:
        for process in self._processes:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it is gone already
                process.stdin.close()
        for process in self._processes:
            process.wait()


def _tell_of_all_but_lost_connections(args: threading.ExceptHookArgs) -> None:
    # Of a worker that died every thread that spoke with it would print a traceback.
    if not isinstance(args.exc_value, grpc.RpcError):
        threading.__excepthook__(args)


def _finish(pipeline: beam.Pipeline, finished: concurrent.futures.Future[None]) -> None:
    try:
        pipeline.run().wait_until_finish()
    except BaseException as e:
        finished.set_exception(e)
    else:
        finished.set_result(None)


_kept: dict[int, _Workers] = {}
atexit.register(close)


def _living(num_workers: int) -> _Workers:
    """The processes kept; new ones where there are none yet, or one has died since."""
    if num_workers in _kept and not _kept[num_workers].are_alive:
        _kept.pop(num_workers).close()
    if num_workers not in _kept:
        _kept[num_workers] = _Workers(num_workers)
    return _kept[num_workers]


@Environment.register_urn(_URN, bytes)
class _LocalEnvironment(Environment):
    """Where a pipeline's functions run: in `num_workers` processes kept here."""

    def __init__(self, num_workers: int) -> None:
        super().__init__(python_sdk_capabilities())
        self._num_workers = num_workers

    def to_runner_api_parameter(self, _context: object) -> tuple[str, bytes]:
        return _URN, str(self._num_workers).encode()

    @staticmethod
    def from_runner_api_parameter(num_workers: bytes, *_: object) -> _LocalEnvironment:
        return _LocalEnvironment(int(num_workers))


@WorkerHandler.register_environment(_URN, bytes)
class _LocalWorkerHandler(GrpcWorkerHandler):
    """What a pipeline's runner knows of one worker."""

    def __init__(self, num_workers: bytes, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._workers = _kept[int(num_workers)]

    def start_worker(self) -> None:
        self._workers.start(self.worker_id, self.control_address)

    def stop_worker(self) -> None:
        """The harness ends with its connection; the process stays."""


def _serve() -> None:
    """A worker process, until its standard input ends."""
    # Ctrl-C reaches the whole group: the launching process decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What goes wrong is raised in the launching process, and told once.
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    for line in sys.stdin:
        worker_id, address = line.split()
        harness = SdkHarness(address, worker_id=worker_id)
        threading.Thread(target=harness.run, daemon=True).start()
    # Threads of gRPC may still run: nothing here is left to be finished.
    os._exit(0)


if __name__ == "__main__":
    _serve()
