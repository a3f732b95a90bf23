"""Learning rates at the boundaries of a phase."""

from __future__ import annotations

import numpy as np
import pytest

from snowcoder_jax.recipe import Schedule
from snowcoder_jax.training.schedules import learning_rates, make_schedule

PEAK, FLOOR = 5.3e-4, 5.3e-5


def test_cosine_of_the_first_phase() -> None:
    rate = make_schedule(Schedule("cosine", PEAK, FLOOR, warmup_steps=600), 119_209)
    assert rate(0) == 0.0
    assert rate(1) == pytest.approx(PEAK / 600, rel=1e-4)
    assert rate(599) == pytest.approx(PEAK * 599 / 600, rel=1e-6)
    assert rate(600) == np.float32(PEAK)
    assert rate(1_000) < np.float32(PEAK)
    assert rate(600 + (119_209 - 600) // 2) == pytest.approx((PEAK + FLOOR) / 2, rel=1e-4)
    assert rate(119_209) == pytest.approx(FLOOR, rel=1e-6)


# The three of the paper's schedule ablation: from the floor to 0, at the floor, a new warm-up.
@pytest.mark.parametrize(
    ("schedule", "first", "at_warm", "halfway", "last"),
    [
        (Schedule("linear", FLOOR, 0.0, 0), FLOOR, FLOOR, FLOOR / 2, 0.0),
        (Schedule("constant", FLOOR, FLOOR, 0), FLOOR, FLOOR, FLOOR, FLOOR),
        (Schedule("linear", PEAK, 0.0, 1_000), 0.0, PEAK, PEAK * 5_000 / 9_000, 0.0),
    ],
)
def test_schedules_of_the_ablation(
    schedule: Schedule, first: float, at_warm: float, halfway: float, last: float
) -> None:
    rate = make_schedule(schedule, 10_000)
    assert rate(0) == np.float32(first)
    assert rate(schedule.warmup_steps) == np.float32(at_warm)
    assert rate(5_000) == pytest.approx(halfway, rel=1e-5)
    assert rate(10_000) == np.float32(last)


def test_the_last_update_still_learns() -> None:
    rates = learning_rates(Schedule("linear", 1.0, 0.0, 2), 6)
    np.testing.assert_allclose(rates, [0.0, 0.5, 1.0, 0.75, 0.5, 0.25], rtol=1e-6)
    assert rates.dtype == np.float32


def test_constant_rates_have_one_per_step() -> None:
    assert learning_rates(Schedule("constant", 0.5), 3).tolist() == [0.5, 0.5, 0.5]
