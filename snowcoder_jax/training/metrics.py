"""metrics.jsonl: one line for each step of a run, appended as it happens.

A resumed phase first cuts the lines past its checkpoint, so that the file reads like that of an
uninterrupted run.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable
from types import TracebackType
from typing import IO

from jax.sharding import Mesh

from snowcoder_jax import storage
from snowcoder_jax.model import decoder
from snowcoder_jax.planning.chips import CHIPS, FAMILY_OF_DEVICE_KIND
from snowcoder_jax.recipe import Model
from snowcoder_jax.training import distributed


@dataclasses.dataclass(frozen=True)
class StepMetrics:
    """One step.

    Attributes:
      step: of this phase, counted from 1.
      global_step: of the whole curriculum up to here (the phases it started from counted in).
      tokens: read in this phase so far.
      loss: nats a token over the batch; None where it was not finite.
      grad_norm: global norm before the clip; None where it was not finite.
      seconds: since the step before; the first also carries start-up and compilation.
      data_wait_seconds: the part of it in which the devices had nothing to do for lack of a batch.
      tokens_per_second: of this step.
      mfu_causal, mfu_full: this step's share of the devices' peak, by `model_flops_utilization`;
        None where the peak is not known, and in lines of earlier versions.
      num_skipped: updates skipped in this phase so far.
      z_loss: a token, times its weight; None where `optimizer.z_loss` is 0.
    """

    phase: str
    step: int
    global_step: int
    tokens: int
    loss: float | None
    learning_rate: float
    grad_norm: float | None
    seconds: float
    data_wait_seconds: float
    tokens_per_second: float
    num_skipped: int
    mfu_causal: float | None = None
    mfu_full: float | None = None
    z_loss: float | None = None


def model_flops_utilization(
    model: Model, vocab_size: int, sequence_length: int, mesh: Mesh
) -> Callable[[float], tuple[float | None, float | None]]:
    """Tokens a second -> MFU by both conventions (PaLM, arXiv 2204.02311, appendix B): the model's
    floating-point operations a second over the devices' dense bfloat16 peak, recomputed ones not
    counted.

    Returns:
      What gives (with causal attention's half of the attention products, with all of them); None
      and None where the devices' peak is not known, as on a CPU.
    """
    family = FAMILY_OF_DEVICE_KIND.get(mesh.devices.flat[0].device_kind)
    if family is None:
        return lambda _: (None, None)
    peak = mesh.size * CHIPS[family].peak_flop_per_second
    causal, full = (
        decoder.flops_per_token(model, vocab_size, sequence_length, causal=causal) / peak
        for causal in (True, False)
    )
    return lambda tokens_per_second: (tokens_per_second * causal, tokens_per_second * full)


def finite_or_none(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None


def read_metrics(path: str, phase: str) -> list[StepMetrics]:
    """The lines of one phase, in order; none where there is no file."""
    lines = [line for line in storage.read_json_lines(path) if line["phase"] == phase]
    return [StepMetrics(**line) for line in lines]


class MetricsLog:
    """Appends lines for one phase; a context manager.

    On an object store, which cannot append, the file is written whole at each `flush`. Only the
    first process of a run writes.
    """

    def __init__(self, path: str, phase: str, restored_step: int) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._is_writer = distributed.is_first()
        if not self._is_writer:
            return
        kept = [
            line
            for line in storage.read_json_lines(path)
            if line["phase"] != phase or line["step"] <= restored_step
        ]
        self._text = [json.dumps(line) for line in kept]
        self._rewrite()
        if storage.is_local(path):
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed by __exit__)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.flush()
        if self._file is not None:
            self._file.close()

    def append(self, line: StepMetrics) -> None:
        if not self._is_writer:
            return
        text = json.dumps(dataclasses.asdict(line))
        if self._file is None:
            self._text.append(text)
        else:
            with storage.machine_faults(self._path):
                self._file.write(text + "\n")
                self._file.flush()

    def flush(self) -> None:
        """Make what was appended durable; a checkpoint calls this before it counts as whole."""
        if not self._is_writer:
            return
        if self._file is None:
            self._rewrite()
        else:
            with storage.machine_faults(self._path):
                os.fsync(self._file.fileno())

    def _rewrite(self) -> None:
        storage.write_bytes(self._path, "".join(f"{line}\n" for line in self._text).encode())
