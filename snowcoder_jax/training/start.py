"""Where a phase starts: which checkpoint it goes on from, and with what state."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from jax.sharding import Mesh

from snowcoder_jax import base_model, recipe, storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.model import huggingface
from snowcoder_jax.packed import Packed
from snowcoder_jax.training import checkpoints, distributed, manifests
from snowcoder_jax.training.state import (
    TrainState,
    continued_state,
    fresh_state,
    started_state,
    state_shapes,
)


@dataclass(frozen=True)
class Start:
    """What the first process found, for all.

    Attributes:
      key: fingerprint of all that decides what the phase learns.
      restored_step: the phase's own last whole checkpoint; None where it has none.
      start_step: the last whole checkpoint of the phase it starts from; None where there is none.
    """

    key: str
    restored_step: int | None
    start_step: int | None


def find_start(
    run: recipe.Recipe,
    phase: recipe.Phase,
    packed: dict[str, Packed],
    folder: str,
    start_params_from: str | None,
) -> Start:
    """Look for checkpoints of the phase in `folder`, and for what it starts from.

    Raises:
      InputError: those there were trained with something else; there is nothing to start from.
    """

    def decide() -> tuple[str, int | None, int | None]:
        start_step = None if start_params_from is None else _last_step(start_params_from)
        key = phase_key(run, phase, packed, start_params_from, start_step)
        return key, _restored_step(folder, key, phase), start_step

    return Start(*distributed.agreed(f"start of {phase.name}", decide))


def checkpoint_folder(run_folder: str, phase: str) -> str:
    return storage.join(run_folder, "checkpoints", phase)


def phase_key(
    run: recipe.Recipe,
    phase: recipe.Phase,
    packed: dict[str, Packed],
    start_params_from: str | None,
    start_step: int | None,
) -> str:
    """Fingerprint of all that decides what a phase learns, the phase it starts from included.

    How often it saves, when it gives up and how it is laid out on devices are left out: they may
    change between a kill and the start after it. The dtype of its products may not; the default
    one is left out, so that it changes no key from before it was told.
    """
    start = base_model.fingerprint(run.base_model) if run.base_model else None
    if start_params_from is not None:
        assert start_step is not None
        start = manifests.read_manifest(start_params_from, start_step)["key"]
    learnt = dataclasses.replace(phase, checkpoint_every_steps=1)
    optimizer = dataclasses.replace(run.optimizer, max_skipped_in_a_row=1)
    data = data_fingerprint(phase, packed)
    dtype = run.hardware.compute_dtype
    others = [] if dtype == recipe.Hardware().compute_dtype else [dtype]
    return recipe.fingerprint(run.seed, run.model, optimizer, learnt, data, start, *others)


def data_fingerprint(phase: recipe.Phase, packed: dict[str, Packed]) -> str:
    """Of the bytes of every shard that a phase reads."""
    return recipe.fingerprint(
        [[shard.sha256 for shard in packed[part.selection].shards] for part in phase.data]
    )


def _last_step(folder: str) -> int:
    step = manifests.latest_step(folder)
    if step is None:
        raise InputError(
            f"{folder}: holds no whole checkpoint to start from. Train that phase first."
        )
    return step


def _restored_step(folder: str, key: str, phase: recipe.Phase) -> int | None:
    """The step to go on from; refuses checkpoints that were trained with something else."""
    step = manifests.step_to_resume(folder)
    if step is not None and manifests.read_manifest(folder, step)["key"] != key:
        raise InputError(
            f"{folder}: holds step {step} of a phase `{phase.name}` with another model, data, "
            "schedule, start or `hardware.compute_dtype`. Remove that folder to train it anew, or "
            "give the recipe another `name`."
        )
    return step


def starting_state(
    run: recipe.Recipe,
    phase: recipe.Phase,
    vocab_size: int,
    mesh: Mesh,
    folder: str,
    start: Start,
    start_params_from: str | None,
) -> TrainState:
    """The state of the checkpoint that `start` names, or a new one at step 0."""
    shapes = state_shapes(run.model, vocab_size, run.optimizer, mesh)
    if start.restored_step is not None:
        return checkpoints.restore(folder, start.restored_step, shapes)
    if start_params_from is None:
        if run.base_model is None:
            return fresh_state(run.model, vocab_size, run.optimizer, mesh, run.seed)
        params = huggingface.load_llama(run.base_model, shapes.params)
        return started_state(run.model, run.optimizer, shapes, params)
    # What a host lists by itself may be stale, and the parameters then be of two steps.
    assert start.start_step is not None
    params = checkpoints.restore_params(start_params_from, start.start_step, shapes)
    if not phase.keep_moments:
        return started_state(run.model, run.optimizer, shapes, params)
    moments = checkpoints.restore_moments(start_params_from, start.start_step, shapes)
    return continued_state(shapes, params, moments)
