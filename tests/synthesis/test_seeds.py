"""Seeds: shares are met, nothing is drawn twice, and nothing is left out without a word."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snowcoder_jax.synthesis.seeds import SeedDocument, choose_seeds


def documents(**counts: int) -> list[SeedDocument]:
    return [
        SeedDocument(f"{language}{i}", "r", f"{i}", language, "x", 0.5)
        for language, n in counts.items()
        for i in range(n)
    ]


def test_a_named_language_gets_its_share_and_the_others_keep_their_proportions() -> None:
    choice = choose_seeds(
        documents(Python=100, Java=90, Go=30),
        num_seeds=80,
        language_shares={"Python": 0.5},
        seed=1,
    )
    assert choice.drawn == {"Python": 40, "Java": 30, "Go": 10}
    assert choice.drawn == choice.wanted
    assert len({s.id for s in choice.seeds}) == len(choice.seeds) == 80


def test_the_lack_of_a_language_that_runs_out_goes_to_the_others_and_shows() -> None:
    choice = choose_seeds(
        documents(Python=5, Java=90, Go=30),
        num_seeds=80,
        language_shares={"Python": 0.5},
        seed=1,
    )
    assert choice.wanted["Python"] == 40
    assert choice.drawn == {"Python": 5, "Java": 56, "Go": 19}


def test_when_all_run_out_every_document_is_a_seed_once() -> None:
    found = documents(Python=3, Java=4)
    choice = choose_seeds(found, num_seeds=80, language_shares={"Python": 0.5}, seed=1)
    assert sorted(s.id for s in choice.seeds) == sorted(d.id for d in found)


def test_languages_without_a_check_are_left_out_and_counted() -> None:
    choice = choose_seeds(
        documents(Python=10, Java=9, Go=3),
        num_seeds=8,
        language_shares={"Python": 0.5},
        seed=1,
        usable_languages=("Python",),
    )
    assert choice.drawn == {"Python": 8}
    assert choice.unusable == {"Go": 3, "Java": 9}


@pytest.mark.parametrize("shares", [{}, {"Python": 1.0}, {"Rust": 0.3}, {"Rust": 1.0}])
def test_shares_of_languages_that_are_not_there_go_to_those_that_are(
    shares: dict[str, float],
) -> None:
    choice = choose_seeds(documents(Python=20), num_seeds=7, language_shares=shares, seed=0)
    assert len(choice.seeds) == (0 if shares == {"Rust": 1.0} else 7)


def test_the_order_of_the_documents_does_not_matter_but_the_seed_does() -> None:
    found = documents(Python=50, Java=50)
    shuffled = random.Random(3).sample(found, len(found))
    first, second, other = (
        choose_seeds(d, num_seeds=20, language_shares={}, seed=s).seeds
        for d, s in ((found, 1), (shuffled, 1), (found, 2))
    )
    assert first == second
    assert {s.id for s in first} != {s.id for s in other}


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from("ABCDE"), st.integers(0, 30)),
    st.dictionaries(st.sampled_from("ABCDE"), st.floats(0.01, 0.19)),
    st.integers(1, 60),
)
def test_as_many_are_drawn_as_were_asked_for_or_are_there(
    counts: dict[str, int], shares: dict[str, float], num_seeds: int
) -> None:
    found = documents(**counts)
    choice = choose_seeds(found, num_seeds=num_seeds, language_shares=shares, seed=0)
    reachable = sum(counts.values()) if sum(shares.values()) < 1 else num_seeds
    assert len(choice.seeds) == min(num_seeds, reachable) == sum(choice.drawn.values())
