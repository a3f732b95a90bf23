"""Learning rate by step: a linear warm-up, then a decay (paper sections 2 and 3)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import optax

from snowcoder_jax import recipe


def make_schedule(schedule: recipe.Schedule, num_steps: int) -> optax.Schedule:
    """The learning rate of update k, k counted from 0.

    Linear from 0 at k = 0 to `peak` at k = `warmup_steps`, then to `final` at k = `num_steps`
    (one past the last update) along half a cosine or a line; `constant` stays at `peak`, and
    `final` has no say. The schedules of the paper's ablation are `linear` with peak at the
    earlier phase's floor, `constant` at that floor, and `linear` with a new warm-up.
    """
    assert 0 <= schedule.warmup_steps < num_steps, (schedule, num_steps)
    num_decay_steps = num_steps - schedule.warmup_steps
    match schedule.kind:
        case "cosine":
            share = schedule.final / schedule.peak
            decay = optax.cosine_decay_schedule(schedule.peak, num_decay_steps, alpha=share)
        case "linear":
            decay = optax.linear_schedule(schedule.peak, schedule.final, num_decay_steps)
        case "constant":
            decay = optax.constant_schedule(schedule.peak)
    if schedule.warmup_steps == 0:
        return decay
    warmup = optax.linear_schedule(0.0, schedule.peak, schedule.warmup_steps)
    return optax.join_schedules([warmup, decay], [schedule.warmup_steps])


def learning_rates(schedule: recipe.Schedule, num_steps: int) -> npt.NDArray[np.float32]:
    """float32 [num_steps]: the learning rate of every update of a phase."""
    make = make_schedule(schedule, num_steps)
    return np.broadcast_to(np.asarray(make(np.arange(num_steps)), np.float32), num_steps)
