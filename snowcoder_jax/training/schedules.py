"""Learning rate by step: a linear warm-up, then a decay (paper sections 2 and 3)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax

from snowcoder_jax import recipe


def make_schedule(phase: recipe.Phase) -> optax.Schedule:
    """The learning rate of update k of a phase, k counted from 0.

    Linear from 0 at k = 0 to `peak` at the end of the warm-up, then to `final` at the phase's
    number of steps (one past the last update) along half a cosine or a line; `constant` stays at
    `peak`, and `final` has no say. The schedules of the paper's ablation are `linear` with peak at
    the earlier phase's floor, `constant` at that floor, and `linear` with a new warm-up.

    `warmup_stable_decay` (arXiv 2404.06395, section 4) stays at `peak` and decays in its last steps
    only: along a line, half a cosine, or 1 - sqrt of the share of the decay that is over (arXiv
    2405.18392, section 3).
    """
    schedule = phase.schedule
    num_warmup, num_decay = phase.num_warmup_steps, phase.num_decay_steps
    num_stable = phase.num_steps - num_warmup - num_decay
    assert num_warmup >= 0 and num_stable >= 0 and num_decay > 0, phase
    match schedule.kind:
        case "cosine" | "linear":
            decay = _decay(schedule.kind, schedule, num_decay)
        case "constant":
            decay = optax.constant_schedule(schedule.peak)
        case "warmup_stable_decay":
            decay = _decay(schedule.decay_shape, schedule, num_decay)
    pieces, ends = [decay], []
    if num_stable:
        pieces = [optax.constant_schedule(schedule.peak), *pieces]
        ends = [num_warmup + num_stable]
    if num_warmup:
        pieces = [optax.linear_schedule(0.0, schedule.peak, num_warmup), *pieces]
        ends = [num_warmup, *ends]
    return optax.join_schedules(pieces, ends) if ends else decay


def _decay(shape: str, schedule: recipe.Schedule, num_steps: int) -> optax.Schedule:
    """From `peak` at 0 to `final` at `num_steps`."""
    peak, final = schedule.peak, schedule.final
    if shape == "cosine":
        return optax.cosine_decay_schedule(peak, num_steps, alpha=final / peak)
    if shape == "linear":
        return optax.linear_schedule(peak, final, num_steps)

    def one_minus_sqrt(k: npt.ArrayLike) -> npt.ArrayLike:
        over = jnp.clip(jnp.asarray(k) / num_steps, 0.0, 1.0)
        return peak + (final - peak) * jnp.sqrt(over)

    return one_minus_sqrt


def learning_rates(phase: recipe.Phase) -> npt.NDArray[np.float32]:
    """float32 [num_steps]: the learning rate of every update of a phase."""
    rates = make_schedule(phase)(np.arange(phase.num_steps))
    return np.broadcast_to(np.asarray(rates, np.float32), phase.num_steps)
