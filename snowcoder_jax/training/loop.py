"""Trains one phase: resumes by itself, saves, logs, stops when asked to.

All that a result tells is read back from the checkpoint's manifest and metrics.jsonl, so a phase
that was killed after its last step still has one.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from snowcoder_jax import recipe, storage
from snowcoder_jax.code_version import code_version
from snowcoder_jax.errors import InputError
from snowcoder_jax.packed import Packed
from snowcoder_jax.training import checkpoints, distributed
from snowcoder_jax.training.batches import Batches, prefetched
from snowcoder_jax.training.goodput import Clock
from snowcoder_jax.training.mesh import batch_sharding, check_batch, make_mesh
from snowcoder_jax.training.metrics import (
    MetricsLog,
    StepMetrics,
    finite_or_none,
    model_flops_utilization,
)
from snowcoder_jax.training.profiler import profiled
from snowcoder_jax.training.result import RESULT, PhaseResult, phase_result
from snowcoder_jax.training.schedules import learning_rates
from snowcoder_jax.training.start import (
    checkpoint_folder,
    data_fingerprint,
    find_start,
    starting_state,
)
from snowcoder_jax.training.step import Metrics, make_train_step
from snowcoder_jax.training.trackers import tracked
from snowcoder_jax.training.watch import hang_watch, terminated


class Preempted(Exception):  # noqa: N818 (not an error)
    """The process was asked to end (SIGTERM); what was learnt is saved. Start it again."""


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
      start_params_from: checkpoint folder of the phase to start from; None: fresh weights, or the
        recipe's base model.
      on_progress: called as (steps done, steps in all, text) after each step.

    Raises:
      InputError: the data, mesh or checkpoints do not fit the recipe; too many updates in a row
        were not finite.
      MachineError: the disk is full.
      Preempted: SIGTERM came; the state is saved.
    """
    # Around everything: a restore, a wait for the others and the last save can hang, too.
    with hang_watch(run.hardware.hang_minutes) as is_alive:
        return _train_phase(
            run, phase, packed, run_folder, start_params_from, on_progress, is_alive
        )


def _train_phase(
    run: recipe.Recipe,
    phase: recipe.Phase,
    packed: dict[str, Packed],
    run_folder: str,
    start_params_from: str | None,
    on_progress: Callable[[int, int, str], None],
    is_alive: Callable[[], None],
) -> PhaseResult:
    clock = Clock()
    folder = checkpoint_folder(run_folder, phase.name)
    metrics_path = storage.join(run_folder, "metrics.jsonl")
    start = find_start(run, phase, packed, folder, start_params_from)
    if start.restored_step == phase.num_steps:
        return phase_result(run, phase, packed, folder, metrics_path)

    mesh = make_mesh(run.hardware.mesh)
    check_batch(phase, mesh, run.hardware.microbatches)
    batches = Batches(phase, packed, run.seed, *distributed.row_share(mesh, phase.batch_size))
    vocab_size = _vocab_size(run, phase, packed)
    train_step = make_train_step(run.model, vocab_size, run.optimizer, run.hardware, mesh)
    rates = learning_rates(phase)
    utilization = model_flops_utilization(run.model, vocab_size, phase.sequence_length, mesh)
    state = starting_state(run, phase, vocab_size, mesh, folder, start, start_params_from)

    def placed(k: int) -> dict[str, jax.Array]:
        host = batches(k)
        wanted = ["ids", "weights"] + ["first_key"] * (run.model.attention == "document")
        sharding = batch_sharding(mesh)
        return {n: jax.make_array_from_process_local_data(sharding, host[n]) for n in wanted}

    def log_steps(unlogged: list[tuple[int, Metrics]]) -> None:
        for k, metrics in unlogged:
            line = _line(run, phase, k, rates[k], jax.device_get(metrics), clock, utilization)
            log.append(line)
            track(line)
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
            "code": code_version(),
        }
        with clock.saving(step):
            log.flush()
            saver.save(state, step, start.key, facts)

    first = start.restored_step or 0
    stop_vote = distributed.StopVote(mesh)
    if distributed.is_first():
        storage.remove(storage.join(folder, RESULT))
    profiles = storage.join(run_folder, "profiles", phase.name)
    with (
        tracked(run, phase, run_folder, start.key, _steps_before(run, phase) + first + 1) as track,
        clock.attempt(folder, first, mesh),
        MetricsLog(metrics_path, phase.name, first) as log,
        profiled(run.tracking.profile_steps, profiles, first) as profile,
        checkpoints.Checkpoints(folder, run.checkpointing) as saver,
        contextlib.closing(prefetched(placed, first, phase.num_steps)) as made_ahead,
        terminated() as is_terminated,
    ):
        unlogged: list[tuple[int, Metrics]] = []
        for k in range(first, phase.num_steps):
            with clock.waiting_for_data():
                batch = next(made_ahead)
            if k == first:
                train_step = distributed.compiled_by_all(train_step, state, batch, rates[k])
            state, metrics = train_step(state, batch, rates[k])
            clock.running(metrics["loss"])
            profile(k + 1, metrics)
            # The step before is logged while this one runs.
            log_steps(unlogged)
            unlogged.append((k, metrics))
            saver.poll()
            is_alive()
            done = k + 1
            is_ending = stop_vote.cast(is_terminated())
            is_due = done % phase.checkpoint_every_steps == 0 or done == phase.num_steps
            if is_due or is_ending:
                log_steps(unlogged)
                save(done)
            if is_ending:
                break
        is_ending = any(distributed.gathered("asked to stop", is_terminated()))
    if is_ending:
        raise Preempted(
            f"phase {phase.name}: saved at step {done} of {phase.num_steps}. "
            "Start the same command again to go on."
        )
    return phase_result(run, phase, packed, folder, metrics_path)


def _vocab_size(run: recipe.Recipe, phase: recipe.Phase, packed: dict[str, Packed]) -> int:
    """Rows of the embedding: as many as the data has ids, or more in a padded base model."""
    sizes = {part.selection: packed[part.selection].vocab_size for part in phase.data}
    if len(set(sizes.values())) > 1:
        raise InputError(
            f"phases.{phase.name}.data: packed with tokenizers of different sizes {sizes}. "
            "Pack all selections with one."
        )
    return run.tokenizer.vocab_size if run.base_model else next(iter(sizes.values()))


def _line(
    run: recipe.Recipe,
    phase: recipe.Phase,
    k: int,
    learning_rate: np.float32,
    metrics: dict[str, Any],
    clock: Clock,
    utilization: Callable[[float], tuple[float | None, float | None]],
) -> StepMetrics:
    seconds, waited = clock.lap(k + 1)
    tokens_per_second = phase.tokens_per_step / seconds
    mfu_causal, mfu_full = utilization(tokens_per_second)
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
        tokens_per_second=tokens_per_second,
        num_skipped=int(metrics["num_skipped"]),
        mfu_causal=mfu_causal,
        mfu_full=mfu_full,
        z_loss=finite_or_none(float(metrics["z_loss"])) if "z_loss" in metrics else None,
    )


def _steps_before(run: recipe.Recipe, phase: recipe.Phase) -> int:
    if phase.starts_from is None:
        return 0
    start = run.phase(phase.starts_from)
    return start.num_steps + _steps_before(run, start)


def _check_skipped(run: recipe.Recipe, phase: recipe.Phase, k: int, num_in_a_row: int) -> None:
    if num_in_a_row >= run.optimizer.max_skipped_in_a_row:
        # Steps are deterministic: a supervisor that started it again would do so for ever.
        raise InputError(
            f"phase {phase.name}, step {k + 1}: loss or gradient was not finite {num_in_a_row} "
            "times in a row; those updates were skipped, and would be again. Lower "
            f"phases.{phase.name}.schedule.peak, lengthen its warm-up, or look for broken data; "
            "checkpoints from before are kept. Start the same command again only where you doubt "
            "the machine."
        )
