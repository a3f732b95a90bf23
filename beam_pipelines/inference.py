"""Asking on Beam: `python -m beam_pipelines.inference ASK_FOLDER [Beam's options]`.

An option for who has GPUs by way of Dataflow; elsewhere workers (`snowcoder_jax.synthesis.worker`)
are simpler and faster. An element is a part of the seeds, so no text is shuffled. `RunInference`
asks what the store of the ask does not have, and stores every answer at once.

What it does not do as well as a worker:

- `RunInference` hands over a batch and waits for its slowest answer: the GPU idles at the end of
  each, the less the larger `--batch_size` is.
- Only seeds of one part are in a batch, and parts are the measure of parallelism.
- A bundle that fails is run again; its process remembers what it has stored, another one asks those
  again that were stored since it last looked (`INDEX_SECONDS`).
- Only `instruct` teachers: the server that a machine starts for itself does not end at the markers
  that end a base model's file.

The handlers that Beam has for vLLM let one bad prompt fail a bundle and know no store; here a
teacher of kind `vllm` becomes a server in vLLM's own environment (`SNOWCODER_VLLM_PYTHON` on the
machine), one in each process. Start Dataflow with `--experiments=no_use_multiple_sdk_containers`
and `--number_of_worker_harness_threads=1`, so that this is one in each machine.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler, RunInference

from beam_pipelines import options
from snowcoder_jax import cli
from snowcoder_jax.errors import EXIT_DONE, InputError, MachineError
from snowcoder_jax.recipe_synthesis import CheckpointTeacher, ServerTeacher, VllmTeacher
from snowcoder_jax.synthesis import first_failures, prompts, runner, seed_parts
from snowcoder_jax.synthesis.answers import AnswerIndex, AnswerStore
from snowcoder_jax.synthesis.ask import Ask, load_ask
from snowcoder_jax.synthesis.requests import Request
from snowcoder_jax.synthesis.subprocess_worker import vllm_python
from snowcoder_jax.synthesis.teachers.identity import teacher_name
from snowcoder_jax.synthesis.teachers.make import check_model
from snowcoder_jax.synthesis.teachers.servers import ServersTeacher

BATCH_SIZE = 512
# A model of hundreds of gigabytes takes this long to be read.
START_SECONDS = 3_600.0
# A process reads anew what the store has after so long: of millions of answers that is a listing
# and thousands of small files.
INDEX_SECONDS = 900.0


def ask_on_beam(folder: str, flags: Sequence[str] = (), batch_size: int = BATCH_SIZE) -> dict:
    """Ask what is missing of the ask in `folder`; returns what `runner.summarize` does.

    Args:
      flags: Beam's own options; none: the in-memory runner in this process.

    Raises:
      InputError: the teacher is a checkpoint, or a base model for vLLM.
      What the teacher and the store raise, on the in-memory runner.
    """
    ask = load_ask(folder)
    teacher = ask.synthesis.teacher
    if isinstance(teacher, CheckpointTeacher):
        raise InputError(
            "synthesis.teacher: a checkpoint is asked by `snowcoder synthesize RECIPE` itself."
        )
    if isinstance(teacher, VllmTeacher) and teacher.mode != "instruct":
        raise InputError(
            "synthesis.teacher.mode: on Beam, vLLM is asked as an instruct model only. Start "
            "workers instead: launch/vllm/worker.sh."
        )
    with beam.Pipeline(options=options.stage_options(flags)) as pipeline:
        _ = (
            pipeline
            | beam.Create(seed_parts.part_paths(ask.seeds))
            | beam.Reshuffle()
            | beam.FlatMap(_requests, ask)
            | RunInference(TeacherHandler(ask, batch_size))
        )
    return runner.summarize(ask)


def _requests(path: str, ask: Ask) -> Iterator[Request]:
    yield from prompts.requests(ask, seed_parts.read_part(path))


class TeacherHandler(ModelHandler[Request, str, "Asked"]):
    """Lets `RunInference` ask an ask's teacher; an inference is the key of a stored answer."""

    def __init__(self, ask: Ask, batch_size: int) -> None:
        super().__init__()
        self._ask = ask
        self._batch_size = batch_size

    def load_model(self) -> Asked:
        return Asked(self._ask)

    def run_inference(
        self,
        batch: Sequence[Request],
        model: Asked,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[str]:
        return model.ask_missing(batch)

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        return {"min_batch_size": self._batch_size, "max_batch_size": self._batch_size}

    def get_metrics_namespace(self) -> str:
        return "synthesis"


class Asked:
    """A teacher and what the store has of its answers, kept by a process for all its batches.

    Raises:
      InputError: the model's folder is here another one than the ask was made for.
    """

    def __init__(self, ask: Ask) -> None:
        settings = ask.synthesis.teacher
        if isinstance(settings, VllmTeacher):
            check_model(ask, settings)
        self._ask = ask
        self._lock = threading.Lock()
        self._server: VllmServer | None = None
        self._teacher: ServersTeacher | None = None
        self._read_index()

    def ask_missing(self, requests: Sequence[Request]) -> list[str]:
        """Ask and store what is not stored; the keys of all.

        Raises:
          MachineError: the server that was started here has ended; the next call starts another.
          What the teacher and the store raise.
        """
        name = teacher_name(self._ask.synthesis.teacher)
        with self._lock:
            if time.monotonic() - self._index_read >= INDEX_SECONDS:
                self._read_index()
            known, stored = self._index, self._stored
        missing = {r.key: r for r in requests if r.key not in known and r.key not in stored}
        if missing:
            teacher = self._running_teacher()
            # Files for each batch: what it wrote is whole when the batch is.
            with AnswerStore(self._ask.store, index=known) as store:
                # Few that fail alone are bad prompts: what others were answered is not known.
                asked = first_failures.answers(teacher, iter(missing.values()), lambda: True)
                for answer in asked:
                    store.append(missing[answer.key], answer, name)
                    stored.add(answer.key)
        return [request.key for request in requests]

    def _read_index(self) -> None:
        self._index_read = time.monotonic()
        self._index = AnswerIndex(self._ask.store)
        # By this process, since.
        self._stored: set[str] = set()

    def _running_teacher(self) -> ServersTeacher:
        settings = self._ask.synthesis.teacher
        fingerprint = self._ask.teacher_fingerprint
        with self._lock:
            if isinstance(settings, VllmTeacher):
                if self._server is None or self._server.has_ended():
                    self._server = VllmServer(settings)
                    self._teacher = ServersTeacher(
                        self._server.settings,
                        fingerprint=fingerprint,
                        when_down=self._server.check,
                    )
            elif self._teacher is None:
                assert isinstance(settings, ServerTeacher), settings
                self._teacher = ServersTeacher(settings, fingerprint=fingerprint)
            assert self._teacher is not None
            return self._teacher


class VllmServer:
    """vLLM's server, started for this process and ended with it; it is waited for when asked.

    Attributes:
      settings: how it is asked.

    Raises:
      MachineError: vLLM's environment is not there.
    """

    def __init__(self, teacher: VllmTeacher) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [vllm_python(), "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        command += ["--model", os.path.expanduser(teacher.model)]
        command += ["--served-model-name", teacher.model, "--dtype", teacher.dtype]
        command += ["--tensor-parallel-size", str(teacher.tensor_parallel)]
        command += ["--gpu-memory-utilization", str(teacher.gpu_memory_share)]
        # A model's own defaults of sampling would be added to the recipe's.
        command += ["--generation-config", "vllm"]
        if teacher.max_model_len is not None:
            command += ["--max-model-len", str(teacher.max_model_len)]
        if teacher.revision is not None:
            command += ["--revision", teacher.revision, "--tokenizer-revision", teacher.revision]
        environment = {**os.environ, "VLLM_NO_USAGE_STATS": "1"}
        self._process = subprocess.Popen(command, env=environment)
        weakref.finalize(self, self._process.terminate)
        self.settings = ServerTeacher(
            teacher.model,
            (f"http://127.0.0.1:{port}",),
            mode=teacher.mode,
            max_in_flight=teacher.max_in_flight,
            timeout_seconds=START_SECONDS,
        )

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def check(self) -> None:
        """Raises MachineError where it has ended."""
        if self.has_ended():
            raise MachineError(
                f"synthesis.teacher: vLLM's server ended (exit code {self._process.returncode}); "
                "its own lines above say why. Mend that and start the same command again: what "
                "was answered is kept."
            )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m beam_pipelines.inference",
        description="Ask what is missing of a synthesis, with RunInference.",
        epilog="All other options are Apache Beam's.",
    )
    parser.add_argument("ask", metavar="ASK_FOLDER", help="the folder of ask.json")
    parser.add_argument("--batch_size", type=int, default=BATCH_SIZE, help="requests at once")
    args, flags = parser.parse_known_args()
    facts = ask_on_beam(args.ask, flags, args.batch_size)
    counts = Counter({name: facts[name] for name in ("answered", "dead", "missing")})
    print(", ".join(f"{count} {name}" for name, count in counts.items()), file=sys.stderr)
    return EXIT_DONE


if __name__ == "__main__":
    # Python calls this module `__main__`, which no worker could import.
    from beam_pipelines import inference

    sys.exit(cli.exit_code(inference.main, "beam_pipelines.inference"))
