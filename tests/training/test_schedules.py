"""Learning rates at the boundaries of a phase."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snowcoder_jax.recipe import Phase, Schedule
from snowcoder_jax.training.schedules import learning_rates, make_schedule

PEAK, FLOOR = 5.3e-4, 5.3e-5
BATCH_SIZE, SEQUENCE_LENGTH = 4, 16
STEP = BATCH_SIZE * SEQUENCE_LENGTH

DecayShape = Literal["linear", "cosine", "one_minus_sqrt"]


def phase_of(schedule: Schedule, num_steps: int) -> Phase:
    return Phase("p", num_steps * STEP, BATCH_SIZE, SEQUENCE_LENGTH, schedule, ())


def test_cosine_of_the_first_phase() -> None:
    rate = make_schedule(phase_of(Schedule("cosine", PEAK, FLOOR, warmup_steps=600), 119_209))
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
    rate = make_schedule(phase_of(schedule, 10_000))
    assert rate(0) == np.float32(first)
    assert rate(schedule.warmup_steps) == np.float32(at_warm)
    assert rate(5_000) == pytest.approx(halfway, rel=1e-5)
    assert rate(10_000) == np.float32(last)


def test_the_last_update_still_learns() -> None:
    rates = learning_rates(phase_of(Schedule("linear", 1.0, 0.0, 2), 6))
    np.testing.assert_allclose(rates, [0.0, 0.5, 1.0, 0.75, 0.5, 0.25], rtol=1e-6)
    assert rates.dtype == np.float32


def test_constant_rates_have_one_per_step() -> None:
    assert learning_rates(phase_of(Schedule("constant", 0.5), 3)).tolist() == [0.5, 0.5, 0.5]


@settings(deadline=None, max_examples=25)
@given(
    num_steps=st.sampled_from([2, 3, 50]),
    data=st.data(),
    shape=st.sampled_from(["linear", "cosine", "one_minus_sqrt"]),
    floor=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_warmup_stable_decay_has_its_three_parts(
    num_steps: int, data: st.DataObject, shape: DecayShape, floor: float
) -> None:
    warmup = data.draw(st.integers(0, num_steps - 1))
    decay = data.draw(st.integers(1, num_steps - warmup))
    schedule = Schedule(
        "warmup_stable_decay", PEAK, PEAK * floor, warmup, decay_steps=decay, decay_shape=shape
    )
    phase = phase_of(schedule, num_steps)
    rate, rates = make_schedule(phase), learning_rates(phase)
    begin = num_steps - decay
    np.testing.assert_allclose(rates[:warmup], PEAK * np.arange(warmup) / max(1, warmup), rtol=1e-5)
    assert (rates[warmup : begin + 1] == np.float32(PEAK)).all()
    assert float(rate(num_steps)) == pytest.approx(PEAK * floor, rel=1e-5, abs=1e-10)
    assert (np.diff(rates[begin:]) <= 0).all()
    over = np.arange(decay) / decay
    share = {"linear": over, "cosine": (1 - np.cos(np.pi * over)) / 2, "one_minus_sqrt": over**0.5}
    wanted = PEAK + (PEAK * floor - PEAK) * share[shape]
    np.testing.assert_allclose(rates[begin:], wanted, rtol=1e-4, atol=1e-10)


@settings(deadline=None, max_examples=25)
@given(
    kind=st.sampled_from(["cosine", "linear", "constant"]),
    num_steps=st.sampled_from([1, 2, 50]),
    data=st.data(),
)
def test_every_schedule_warms_up_to_its_peak_and_never_rises_after(
    kind: Literal["cosine", "linear", "constant"], num_steps: int, data: st.DataObject
) -> None:
    warmup = data.draw(st.integers(0, num_steps - 1))
    rates = learning_rates(phase_of(Schedule(kind, PEAK, FLOOR, warmup), num_steps))
    assert rates.shape == (num_steps,)
    assert rates[warmup] == np.float32(PEAK)
    assert (np.diff(rates[: warmup + 1]) > 0).all()
    assert (np.diff(rates[warmup:]) <= 0).all()
    assert rates[-1] >= np.float32(FLOOR) or warmup == num_steps - 1


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 99), st.integers(1, 100), st.integers(-STEP // 2 + 1, STEP // 2 - 1))
def test_lengths_in_tokens_are_those_in_steps(warmup: int, decay: int, beside: int) -> None:
    in_steps = Schedule("warmup_stable_decay", PEAK, FLOOR, warmup_steps=warmup, decay_steps=decay)
    in_tokens = Schedule(
        "warmup_stable_decay",
        PEAK,
        FLOOR,
        # To the nearest step.
        warmup_tokens=max(0, warmup * STEP + beside),
        decay_tokens=decay * STEP + beside,
    )
    phases = [phase_of(schedule, 200) for schedule in (in_steps, in_tokens)]
    np.testing.assert_array_equal(*(learning_rates(phase) for phase in phases))
    assert [p.num_warmup_steps for p in phases] == [warmup] * 2
    assert [p.num_decay_steps for p in phases] == [decay] * 2
