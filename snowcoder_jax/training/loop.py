"""Trains one phase: resumes by itself, saves, logs, stops when asked to.

All that a result tells is read back from the checkpoint's manifest and metrics.jsonl, so a phase
that was killed after its last step still has one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from snowcoder_jax import recipe, storage, strict
from snowcoder_jax.errors import InputError, MachineError
from snowcoder_jax.packed import Packed
from snowcoder_jax.training import checkpoints
from snowcoder_jax.training.batches import Batches, ResolvedPart, prefetched, resolve_mixture
from snowcoder_jax.training.mesh import batch_sharding, check_batch, make_mesh
from snowcoder_jax.training.metrics import MetricsLog, StepMetrics, finite_or_none, read_metrics
from snowcoder_jax.training.schedules import learning_rates
from snowcoder_jax.training.state import TrainState, fresh_state, started_state, state_shapes
from snowcoder_jax.training.step import Metrics, make_train_step

RESULT = "result.json"


class Preempted(Exception):  # noqa: N818 (not an error)
    """The process was asked to end (SIGTERM); what was learnt is saved. Start it again."""


@dataclass(frozen=True)
class PhaseResult:
    """What a finished phase did.

    Attributes:
      tokens: read, steps x batch x sequence length.
      final_loss: of the last step, nats a token; None where it was not finite.
      checkpoint: the phase's checkpoint folder.
      sequences: read of each selection.
      seconds: of all steps together, start-up and compilation counted in, lost work not.
      tokens_per_second: at the median step.
      seconds_to_first_step: from the call to the end of the first step.
      data_wait_share: of the seconds after the first step, spent waiting for batches.
    """

    phase: str
    steps: int
    tokens: int
    final_loss: float | None
    checkpoint: str
    sequences: dict[str, int]
    seconds: float
    tokens_per_second: float
    seconds_to_first_step: float
    data_wait_share: float
    skipped_updates: int
    mixture: tuple[ResolvedPart, ...]


def train_phase(
    run: recipe.Recipe,
    phase: recipe.Phase,
    packed: dict[str, Packed],
    run_folder: str,
    start_params_from: str | None,
    *,
    on_progress: Callable[[int, int, str], None],
) -> PhaseResult:
    """Train a phase to its last step, going on from its last whole checkpoint.

    Args:
      packed: by selection name; all made with one tokenizer.
      run_folder: gets metrics.jsonl and checkpoints/<phase>/.
      start_params_from: checkpoint folder of the phase to start from; None: fresh weights.
      on_progress: called as (steps done, steps in all, text) after each step.

    Raises:
      InputError: the data, mesh or checkpoints do not fit the recipe.
      MachineError: too many updates in a row were not finite; the disk is full.
      Preempted: SIGTERM came; the state is saved.
    """
    clock = _Clock()
    folder = checkpoint_folder(run_folder, phase.name)
    metrics_path = storage.join(run_folder, "metrics.jsonl")
    key = phase_key(run, phase, packed, start_params_from)
    restored_step = _check_key(folder, key, phase)
    if restored_step == phase.num_steps:
        return _result(run, phase, packed, folder, metrics_path)

    mesh = make_mesh(run.hardware.mesh)
    check_batch(phase, mesh, run.hardware.microbatches)
    batches = Batches(phase, packed, run.seed, jax.process_index(), jax.process_count())
    vocab_size = _vocab_size(packed, phase)
    train_step = make_train_step(run.model, vocab_size, run.optimizer, run.hardware, mesh)
    rates = learning_rates(phase.schedule, phase.num_steps)
    state = _starting_state(run, phase, vocab_size, mesh, folder, restored_step, start_params_from)

    def placed(k: int) -> dict[str, jax.Array]:
        host = batches(k)
        wanted = ["ids", "weights"] + ["first_key"] * (run.model.attention == "document")
        sharding = batch_sharding(mesh)
        return {n: jax.make_array_from_process_local_data(sharding, host[n]) for n in wanted}

    def log_steps(unlogged: list[tuple[int, Metrics]]) -> None:
        for k, metrics in unlogged:
            line = _line(run, phase, k, rates[k], jax.device_get(metrics), clock)
            log.append(line)
            text = f"loss {line.loss or math.nan:.3f}, {line.tokens_per_second:,.0f} tokens/s"
            on_progress(k + 1, phase.num_steps, text)
            _check_skipped(run, phase, k, int(metrics["num_skipped_in_a_row"]))
        unlogged.clear()

    def save(step: int) -> None:
        facts = {
            "phase": phase.name,
            "tokens": step * phase.tokens_per_step,
            "vocab_size": vocab_size,
            "num_skipped": int(state.num_skipped),
            "data": data_fingerprint(phase, packed),
            "recipe": recipe.fingerprint(run),
        }
        log.flush()
        saver.save(state, step, key, facts)

    first = restored_step or 0
    storage.remove(storage.join(folder, RESULT))
    with (
        MetricsLog(metrics_path, phase.name, first) as log,
        checkpoints.Checkpoints(folder) as saver,
        contextlib.closing(prefetched(placed, first, phase.num_steps)) as made_ahead,
        _terminated() as is_terminated,
    ):
        unlogged: list[tuple[int, Metrics]] = []
        for k in range(first, phase.num_steps):
            with clock.waiting_for_data():
                batch = next(made_ahead)
            state, metrics = train_step(state, batch, rates[k])
            # The step before is logged while this one runs.
            log_steps(unlogged)
            unlogged.append((k, metrics))
            saver.poll()
            done = k + 1
            is_ending = is_terminated()
            is_due = done % phase.checkpoint_every_steps == 0 or done == phase.num_steps
            if is_due or is_ending:
                log_steps(unlogged)
                save(done)
            if is_ending:
                break
    if is_ending and done < phase.num_steps:
        raise Preempted(
            f"phase {phase.name}: saved at step {done} of {phase.num_steps}. "
            "Start the same command again to go on."
        )
    return _result(run, phase, packed, folder, metrics_path)


def checkpoint_folder(run_folder: str, phase: str) -> str:
    return storage.join(run_folder, "checkpoints", phase)


def phase_key(
    run: recipe.Recipe,
    phase: recipe.Phase,
    packed: dict[str, Packed],
    start_params_from: str | None,
) -> str:
    """Fingerprint of all that decides what a phase learns, the phase it starts from included.

    How often it saves, when it gives up and how it is laid out on devices are left out: they may
    change between a kill and the start after it.
    """
    start = None
    if start_params_from is not None:
        start = checkpoints.read_manifest(start_params_from, _last_step(start_params_from))["key"]
    learnt = dataclasses.replace(phase, checkpoint_every_steps=1)
    optimizer = dataclasses.replace(run.optimizer, max_skipped_in_a_row=1)
    data = data_fingerprint(phase, packed)
    return recipe.fingerprint(run.seed, run.model, optimizer, learnt, data, start)


def data_fingerprint(phase: recipe.Phase, packed: dict[str, Packed]) -> str:
    """Of the bytes of every shard that a phase reads."""
    return recipe.fingerprint(
        [[shard.sha256 for shard in packed[part.selection].shards] for part in phase.data]
    )


def _last_step(folder: str) -> int:
    step = checkpoints.latest_step(folder)
    if step is None:
        raise InputError(
            f"{folder}: holds no whole checkpoint to start from. Train that phase first."
        )
    return step


def _check_key(folder: str, key: str, phase: recipe.Phase) -> int | None:
    """The step to go on from; refuses checkpoints that were trained with something else."""
    step = checkpoints.latest_step(folder)
    if step is not None and checkpoints.read_manifest(folder, step)["key"] != key:
        raise InputError(
            f"{folder}: holds step {step} of a phase `{phase.name}` with another model, data, "
            "schedule or start. Remove that folder to train it anew, or give the recipe "
            "another `name`."
        )
    return step


def _vocab_size(packed: dict[str, Packed], phase: recipe.Phase) -> int:
    sizes = {part.selection: packed[part.selection].vocab_size for part in phase.data}
    if len(set(sizes.values())) > 1:
        raise InputError(
            f"phases.{phase.name}.data: packed with tokenizers of different sizes {sizes}. "
            "Pack all selections with one."
        )
    return next(iter(sizes.values()))


def _starting_state(
    run: recipe.Recipe,
    phase: recipe.Phase,
    vocab_size: int,
    mesh: Mesh,
    folder: str,
    restored_step: int | None,
    start_params_from: str | None,
) -> TrainState:
    shapes = state_shapes(run.model, vocab_size, run.optimizer, mesh)
    if restored_step is not None:
        return checkpoints.restore(folder, restored_step, shapes)
    if start_params_from is None:
        return fresh_state(run.model, vocab_size, run.optimizer, mesh, run.seed)
    step = _last_step(start_params_from)
    params = checkpoints.restore_params(start_params_from, step, shapes)
    state = started_state(run.model, run.optimizer, shapes, params)
    if phase.keep_moments:
        moments = checkpoints.restore_moments(start_params_from, step, shapes)
        state = dataclasses.replace(state, opt_state=moments)
    return state


class _Clock:
    """Seconds since the line before, and those of them spent waiting for data."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._waited = 0.0

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._waited += time.perf_counter() - started

    def lap(self) -> tuple[float, float]:
        now, waited = time.perf_counter(), self._waited
        seconds, self._last, self._waited = now - self._last, now, 0.0
        return seconds, waited


def _line(
    run: recipe.Recipe,
    phase: recipe.Phase,
    k: int,
    learning_rate: np.float32,
    metrics: dict[str, Any],
    clock: _Clock,
) -> StepMetrics:
    seconds, waited = clock.lap()
    return StepMetrics(
        phase=phase.name,
        step=k + 1,
        global_step=_steps_before(run, phase) + k + 1,
        tokens=(k + 1) * phase.tokens_per_step,
        loss=finite_or_none(float(metrics["loss"])),
        learning_rate=float(learning_rate),
        grad_norm=finite_or_none(float(metrics["grad_norm"])),
        seconds=seconds,
        data_wait_seconds=waited,
        tokens_per_second=phase.tokens_per_step / seconds,
        num_skipped=int(metrics["num_skipped"]),
    )


def _steps_before(run: recipe.Recipe, phase: recipe.Phase) -> int:
    if phase.starts_from is None:
        return 0
    start = run.phase(phase.starts_from)
    return start.num_steps + _steps_before(run, start)


def _check_skipped(run: recipe.Recipe, phase: recipe.Phase, k: int, num_in_a_row: int) -> None:
    if num_in_a_row >= run.optimizer.max_skipped_in_a_row:
        raise MachineError(
            f"phase {phase.name}, step {k + 1}: loss or gradient was not finite {num_in_a_row} "
            "times in a row; those updates were skipped. Lower "
            f"phases.{phase.name}.schedule.peak, lengthen its warm-up, or look for broken data; "
            "checkpoints from before are kept."
        )


@contextlib.contextmanager
def _terminated() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM has come since; outside the main thread it is left to the caller."""
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return

    def remember(_signal: int, _frame: FrameType | None) -> None:
        came.set()

    before = signal.signal(signal.SIGTERM, remember)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


def _result(
    run: recipe.Recipe,
    phase: recipe.Phase,
    packed: dict[str, Packed],
    folder: str,
    metrics_path: str,
) -> PhaseResult:
    path = storage.join(folder, RESULT)
    if storage.exists(path):
        faults: list[strict.Fault] = []
        stored = strict.load(PhaseResult, storage.read_json(path), faults)
        if stored is not None:
            return stored
    lines = read_metrics(metrics_path, phase.name)
    if len(lines) != phase.num_steps:
        raise InputError(
            f"{metrics_path}: holds {len(lines)} of phase `{phase.name}`'s {phase.num_steps} "
            f"steps. Put the file back, or remove {folder} to train the phase anew."
        )
    later = lines[1:] or lines
    mixture = resolve_mixture(phase, packed)
    sequences = dict.fromkeys((part.selection for part in mixture), 0)
    for part in mixture:
        sequences[part.selection] += part.num_sequences
    result = PhaseResult(
        phase=phase.name,
        steps=phase.num_steps,
        tokens=lines[-1].tokens,
        final_loss=lines[-1].loss,
        checkpoint=folder,
        sequences=sequences,
        seconds=sum(line.seconds for line in lines),
        tokens_per_second=statistics.median(line.tokens_per_second for line in later),
        seconds_to_first_step=lines[0].seconds,
        data_wait_share=sum(x.data_wait_seconds for x in later) / sum(x.seconds for x in later),
        skipped_updates=lines[-1].num_skipped,
        mixture=mixture,
    )
    if jax.process_index() == 0:
        storage.write_json(path, strict.to_plain(result))
    return result
