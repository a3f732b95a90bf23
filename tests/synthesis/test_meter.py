"""What a synthesis costs: so far, in all, before and during."""

from __future__ import annotations

from pathlib import Path

import pytest
from asking import make_ask, requests_of, write_seeds

from snowcoder_jax.recipe_synthesis import (
    CheckpointTeacher,
    ServerTeacher,
    Synthesis,
    VllmTeacher,
)
from snowcoder_jax.synthesis import meter
from snowcoder_jax.synthesis.answers import Spent
from snowcoder_jax.synthesis.meter import Meter
from snowcoder_jax.synthesis.requests import Answer

SPENT = Spent(num_prompt_tokens=2_000_000, num_tokens=500_000, seconds=1_800.0)
PRICED = ServerTeacher(
    "m", ("http://a",), dollars_per_million_prompt_tokens=0.5, dollars_per_million_new_tokens=3.0
)


@pytest.mark.parametrize(
    ("teacher", "dollars"),
    [
        (PRICED, 2.5),
        (ServerTeacher("m", ("http://a",), dollars_per_million_new_tokens=3.0), 1.5),
        (ServerTeacher("m", ("http://a",), dollars_per_million_new_tokens=0.0), 0.0),
        (ServerTeacher("m", ("http://a",)), None),
        (VllmTeacher("m", dollars_per_hour=20.0), 10.0),
        (VllmTeacher("m"), None),
        (CheckpointTeacher("general"), None),
    ],
)
def test_tokens_or_hours_are_priced_as_the_recipe_says(
    teacher: CheckpointTeacher | VllmTeacher | ServerTeacher, dollars: float | None
) -> None:
    assert meter.dollars(teacher, SPENT) == dollars
    assert meter.facts(teacher, SPENT)["dollars"] == dollars
    assert ("$" in meter.describe(teacher, SPENT)) == (dollars is not None)


def test_the_estimate_says_where_it_cannot_give_the_price() -> None:
    assert "dollars are told after" in meter.note_before(VllmTeacher("m", dollars_per_hour=20.0))
    for teacher in (VllmTeacher("m"), PRICED, CheckpointTeacher("general")):
        assert meter.note_before(teacher) == ""


def test_hours_that_nobody_knows_yet_have_no_price() -> None:
    assert meter.dollars(VllmTeacher("m", dollars_per_hour=20.0), Spent(100, 100)) is None


@pytest.mark.parametrize("num_characters", [50, 4_000])
def test_the_first_estimate_comes_from_the_bytes_of_prompts_and_seeds(
    tmp_path: Path, num_characters: int
) -> None:
    write_seeds(tmp_path / "seeds", 10, words="é" * num_characters)
    ask = make_ask(tmp_path, max_new_tokens=100_000)
    sample = requests_of(ask)
    estimate = meter.estimate_before(ask.synthesis, sample, 1_000)
    prompt_bytes = sum(len(request.prompt.encode()) for request in sample)
    seed_bytes = sum(len(request.seed.text.encode()) for request in sample)
    assert estimate.num_prompt_tokens == pytest.approx(100 * prompt_bytes / 3.5, rel=1e-3)
    tokens = max(1_500 * 1_000, 100 * seed_bytes / 3.5)
    assert (tokens > 1_500_000) == (num_characters > 50)
    assert estimate.num_tokens == pytest.approx(tokens, rel=1e-3)
    assert estimate.seconds == 0


def test_no_answer_is_taken_to_be_longer_than_it_may_be(tmp_path: Path) -> None:
    write_seeds(tmp_path / "seeds", 10)
    ask = make_ask(tmp_path, max_new_tokens=8)
    assert meter.estimate_before(ask.synthesis, requests_of(ask), 1_000).num_tokens == 8_000


def test_a_base_teacher_is_taken_to_write_all_that_it_may(tmp_path: Path) -> None:
    write_seeds(tmp_path / "seeds", 10)
    sample = requests_of(make_ask(tmp_path))
    settings = Synthesis(CheckpointTeacher("general"), "best", max_new_tokens=500)
    assert meter.estimate_before(settings, sample, 30).num_tokens == 15_000


def test_nothing_to_ask_costs_nothing(tmp_path: Path) -> None:
    assert meter.estimate_before(make_ask(tmp_path).synthesis, [], 0) == Spent()


def test_during_the_run_the_estimate_comes_from_what_was_seen() -> None:
    counter = Meter(PRICED)
    assert counter.in_all(100) is None
    assert counter.note(100) == ""
    for number in range(4):
        counter.add(Answer("0", "", 250, "stop", num_prompt_tokens=1_000), seconds=number)
    assert counter.spent == Spent(4_000, 1_000, 6.0)
    assert counter.in_all(100) == Spent(100_000, 25_000, 150.0)
    assert counter.note(1_000_000) == (
        "4 k tokens read, 1 k written, $0.01 of about 1 G tokens read, 250 M written, $1,250.00"
    )
    counter.add(Answer("0", "", 0, "error", "context: too long"), seconds=0)
    assert counter.note(1_000).startswith("1 dead letters; 4 k tokens read, ")
